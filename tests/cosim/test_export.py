"""What is exported or saved can be read again by others, and says what the record says."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from vcd.reader import TokenKind, tokenize

import spicenn as sn
from spicenn.circuit import RawPlot, read_raw, write_raw
from spicenn.cosim import store
from spicenn.cosim.export import time_exponent, write_traces, write_vcd
from spicenn.cosim.reading import happenings_of, traces_of
from spicenn.cosim.record import Happening, dataset_of
from spicenn.cosim.store import is_cosimulation, load_record, save_record
from spicenn.errors import InputError, StoreError

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12, "fs": 1e-15}


def block(time, traces):
    """What ``dataset_of`` asks of a block that has run."""
    return SimpleNamespace(traces=lambda: (np.array(time, dtype=float), traces))


def emitted(time, name, value=math.nan, kind="emit", **fields):
    return Happening(time, kind, name, value, "p", fields)


def record(blocks, happenings=(), now=1e-6):
    return dataset_of(blocks, happenings, now)


def read_vcd(path):
    """Scale [s], and per (scope, name) the changes as (tick, value), True for a mark."""
    kinds, names, scope, tick = {}, {}, [], 0
    changes: dict[tuple[str, ...], list[Any]] = defaultdict(list)
    scale = math.nan
    with path.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.TIMESCALE:
                scale = token.timescale.magnitude * SECONDS[token.timescale.unit.value]
            elif token.kind is TokenKind.SCOPE:
                scope.append(token.scope.ident)
            elif token.kind is TokenKind.UPSCOPE:
                scope.pop()
            elif token.kind is TokenKind.VAR:
                names[token.var.id_code] = (*scope, token.var.reference)
                kinds[token.var.id_code] = str(token.var.type_)
                changes[names[token.var.id_code]] = []
            elif token.kind is TokenKind.CHANGE_TIME:
                tick = token.time_change
            elif token.kind is TokenKind.CHANGE_REAL:
                assert kinds[token.real_change.id_code] == "real"
                if not math.isnan(token.real_change.value):
                    changes[names[token.real_change.id_code]].append(
                        (tick, token.real_change.value)
                    )
            elif token.kind is TokenKind.CHANGE_SCALAR:
                assert kinds[token.scalar_change.id_code] == "event"
                changes[names[token.scalar_change.id_code]].append((tick, True))
    return scale, dict(changes), tick


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def real():
    """Two RC circuits in ngspice; each is driven when the other has fired."""
    circuit = "rc\nvin in 0 dc 0 external\nr1 in x1.mem 1k\nc1 x1.mem 0 1n"
    probes = ["in", "x1.mem", "i(vin)"]
    with sn.Cosimulation(
        {"a": circuit, "b": circuit}, probes={"a": probes, "b": probes[:2]}, max_step=2e-8,
        delay=1e-8,
    ) as env:  # fmt: skip

        def ping(env):
            for here in "aba":
                env.drive(f"{here}:vin", 1.0)
                time = yield env.crossing(f"{here}:x1.mem", above=0.5)
                env.emit("spike", time, count=3)
                env.drive(f"{here}:vin", 0.0)

        env.process(ping(env))
        return env.run(until=3e-6)


@pytest.mark.ngspice
def test_a_vcd_holds_every_probe_drive_crossing_and_emission_of_a_real_run(real, tmp_path):
    write_vcd(real, tmp_path / "events.vcd")
    scale, changes, end = read_vcd(tmp_path / "events.vcd")
    assert end * scale == pytest.approx(3e-6, rel=1e-9, abs=0)
    blocks = {traces.block: traces for traces in traces_of(real)}
    assert set(blocks) == {"a", "b"}
    for name, probe, scope in (("x1_mem", "x1.mem", "a"), ("i_vin", "i(vin)", "a"),
                               ("in", "in", "b")):  # fmt: skip
        ticks, values = (np.array(column) for column in zip(*changes[scope, name], strict=True))
        mine = blocks[scope]
        trace = mine.values[probe]
        inner = (np.diff(trace)[1:] == 0) & (np.diff(trace)[:-1] == 0)
        corners = np.concatenate([[True], ~inner, [True]])
        np.testing.assert_allclose(ticks * scale, mine.time[corners], rtol=0, atol=0.51 * scale)
        np.testing.assert_allclose(values, trace[corners], rtol=1e-15, atol=0)
    for row in happenings_of(real):
        scope = {"drive": "drives", "crossing": "crossings", "emit": "events"}[row.kind]
        name = row.name.replace(":", "_").replace(".", "_")
        marks = np.array([tick for tick, _ in changes[scope, name]])
        np.testing.assert_allclose(marks * scale, row.time, rtol=0, atol=0.51 * scale)
        value = name if row.kind == "drive" else f"{name}_value"
        np.testing.assert_allclose([v for _, v in changes[scope, value]], row.value, rtol=1e-15)
    assert [value for _, value in changes["events", "spike_count"]] == [3.0, 3.0, 3.0]


times = st.lists(st.integers(0, 10**7), min_size=1, max_size=12, unique=True).map(sorted)
values = st.floats(-1e300, 1e300)


@given(ticks=times, data=st.data())
@settings(max_examples=60)
def test_what_a_vcd_says_is_what_was_recorded(ticks, data):
    """Whatever the times and values, at 0 s and at one time included."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.vcd"
        time = np.array(ticks) * 1e-13
        level = st.sampled_from([0.0, 1.0, 1.25]) | values
        trace = np.array(data.draw(st.lists(level, min_size=len(ticks), max_size=len(ticks))))
        names = data.draw(st.lists(st.sampled_from(["up", "down"]), max_size=6))
        happened = [
            emitted(data.draw(st.sampled_from(time.tolist())), name, data.draw(values))
            for name in names
        ]
        happened.sort(key=lambda event: event.time)
        write_vcd(record({"": block(time, {"out": trace})}, happened, time[-1]), path)
        scale, changes, _ = read_vcd(path)
        got = changes["circuit", "out"]
        held = [[v for tick, v in got if tick * scale <= t + 0.5 * scale][-1] for t in time]
        np.testing.assert_allclose(held, trace, rtol=1e-15)
        for name in set(names):
            mine = [event for event in happened if event.name == name]
            marks = [tick for tick, _ in changes["events", name]]
            np.testing.assert_allclose(
                np.array(marks) * scale, [e.time for e in mine], rtol=0, atol=0.51 * scale
            )
            # Of several values at one time a wave can only show the last.
            last = {e.time: e.value for e in mine}
            shown = dict(changes["events", f"{name}_value"])
            np.testing.assert_allclose(list(shown.values()), list(last.values()), rtol=1e-15)


@given(
    gap=st.floats(2.1e-15, 1.0),
    start=st.floats(0.0, 1.0),
)
def test_the_time_scale_tells_the_closest_times_apart(gap, start):
    first = np.array([0.0, start])
    second = np.array([start + gap])
    exponent = time_exponent([first, second])
    gaps = np.diff(np.unique(np.concatenate([first, second])))
    assert -15 <= exponent <= 0
    assert 10.0**exponent <= max(gaps.min() / 2, 1e-15) * (1 + 1e-12)
    assert 10.0**exponent > min(gaps.min() / 20, 1.0) * (1 - 1e-12) or exponent == 0


def test_a_long_run_keeps_its_times_within_what_a_double_can_count():
    """A femtosecond's gap after a minute cannot be told by anyone."""
    exponent = time_exponent([np.array([0.0, 1e-15, 60.0])])
    assert 60 * 10.0**-exponent <= 2**53
    assert exponent == -14


def test_names_in_a_vcd_are_safe_and_distinct(tmp_path):
    hostile = "a $end\n$var"
    ds = record(
        {"events": block([0.0], {"x.a": np.ones(1), "x_a": np.zeros(1), "a[3]": np.ones(1)})},
        [emitted(0.0, hostile, 1.0), emitted(0.0, "a_end_var", 2.0), emitted(0.0, "Ω", 3.0)],
    )
    write_vcd(ds, tmp_path / "x.vcd")
    _, changes, _ = read_vcd(tmp_path / "x.vcd")
    assert changes["events_2", "x_a"] == [(0, 1.0)]
    assert changes["events_2", "x_a_2"] == [(0, 0.0)]
    assert changes["events_2", "a_3"] == [(0, 1.0)]
    assert changes["events", "a_end_var"] == [(0, True)]
    assert changes["events", "a_end_var_2"] == [(0, True)]
    assert changes["events", "a_end_var_value_2"] == [(0, 2.0)]
    assert changes["events", "x"] == [(0, True)]


def test_the_end_of_what_is_flat_is_in_the_vcd(tmp_path):
    """Else a viewer that draws lines makes a slope of a step."""
    trace = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    ds = record({"": block(np.arange(7) * 1e-9, {"out": trace})}, now=6e-9)
    write_vcd(ds, tmp_path / "x.vcd")
    scale, changes, _ = read_vcd(tmp_path / "x.vcd")
    got = [(round(tick * scale * 1e9), value) for tick, value in changes["circuit", "out"]]
    assert got == [(0, 0.0), (3, 0.0), (4, 1.0), (6, 1.0)]


def test_an_empty_record_makes_an_empty_vcd_and_no_raw_file(tmp_path):
    ds = record({"": block([], {"out": np.zeros(0)})}, now=0.0)
    write_vcd(ds, tmp_path / "x.vcd")
    _, changes, _ = read_vcd(tmp_path / "x.vcd")
    assert changes == {("circuit", "out"): []}
    with pytest.raises(InputError, match="no point was recorded"):
        write_traces(ds, tmp_path / "x.raw")
    assert not (tmp_path / "x.raw").exists()


@given(
    table=st.integers(1, 5).flatmap(
        lambda points: st.lists(
            st.lists(st.floats(width=64), min_size=points, max_size=points),
            min_size=1,
            max_size=4,
        )
    )
)
@settings(max_examples=40)
def test_a_raw_file_is_read_back_bit_by_bit(table):
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "x.raw"
        time, *rest = (np.array(column) for column in table)
        vectors = {f"v(n{k})": column for k, column in enumerate(rest)}
        write_raw(path, [RawPlot(title="Binary:\nx", time=time, vectors=vectors)])
        got = read_raw(path)
        assert list(got) == ["time", *vectors]
        for name, column in {"time": time, **vectors}.items():
            assert got[name].tobytes() == column.tobytes()


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ({"v(out)": np.zeros(3)}, r"v\(out\) has shape \(3,\), its time \(2,\)"),
        ({"v(a b)": np.zeros(2)}, "no vector can be called"),
        ({"v(a)\n": np.zeros(2)}, "no vector can be called"),
        ({"time": np.zeros(2)}, "no vector can be called 'time'"),
    ],
)
def test_what_a_raw_file_cannot_hold_is_refused(vectors, said, tmp_path):
    with pytest.raises(InputError, match=said):
        write_raw(tmp_path / "x.raw", [RawPlot(title="", time=np.arange(2.0), vectors=vectors)])
    assert not any(tmp_path.iterdir())
    with pytest.raises(InputError, match="no plot"):
        write_raw(tmp_path / "x.raw", [])


@pytest.mark.ngspice
@pytest.mark.skipif(shutil.which("ngspice") is None, reason="needs the program ngspice")
def test_ngspice_itself_loads_the_traces_of_every_block(real, tmp_path):
    """Its own parser, its own numbers, printed to 15 digits."""
    write_traces(real, tmp_path / "traces.raw")
    a, b = traces_of(real)
    script = tmp_path / "load.cir"
    script.write_text(
        "* loads what was written\n.control\nset numdgt=15\nload traces.raw\n"
        "setplot tran1\nlet n1=length(time)\nprint n1\n"
        "print v(a.x1.mem)[20] i(a.vin)[21] time[22]\nlet top=vecmax(v(a.in))\nprint top\n"
        "setplot tran2\nlet n2=length(time)\nprint n2\nprint v(b.x1.mem)[30] time[31]\n"
        "quit\n.endc\n.end\n"
    )
    said = subprocess.run(
        ["ngspice", "-b", script.name], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    found = dict(line.split(" = ") for line in said.stdout.splitlines() if " = " in line)
    expected = {
        "n1": a.time.size,
        "v(a.x1.mem)[20]": a.values["x1.mem"][20],
        "i(a.vin)[21]": a.values["i(vin)"][21],
        "time[22]": a.time[22],
        "top": 1.0,
        "n2": b.time.size,
        "v(b.x1.mem)[30]": b.values["x1.mem"][30],
        "time[31]": b.time[31],
    }
    assert set(expected) <= set(found), said.stdout + said.stderr
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-13, abs=0), name


@pytest.mark.ngspice
def test_a_saved_record_is_loaded_as_it_was(real, tmp_path):
    save_record(real, tmp_path / "runs" / "a.zarr")
    assert is_cosimulation(tmp_path / "runs" / "a.zarr")
    loaded = load_record(tmp_path / "runs" / "a.zarr")
    xr.testing.assert_identical(loaded[list(real.data_vars)], real)
    assert list(loaded.attrs) == list(real.attrs)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a.zarr"]


@pytest.mark.parametrize(
    "name", ["x1/mem", "..", ".", "zarr.json", "__x", "a%2Fb", "a b", "c/zarr.json", "Ω", "i(v.1)"]
)
def test_any_name_stays_inside_of_the_record(name, tmp_path):
    ds = record(
        {name: block([0.0, 1.0], {name: np.array([1.0, 2.0])})},
        [emitted(0.0, name, 1.0, **{name: 4.0})],
    )
    save_record(ds, tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    loaded = load_record(tmp_path / "a.zarr")
    xr.testing.assert_identical(loaded[list(ds.data_vars)], ds)


def test_an_empty_record_is_saved(tmp_path):
    ds = record({"": block([], {"out": np.zeros(0)})}, now=0.0)
    save_record(ds, tmp_path / "a.zarr")
    xr.testing.assert_identical(load_record(tmp_path / "a.zarr")[list(ds.data_vars)], ds)


@pytest.fixture
def saved(tmp_path):
    ds = record({"": block([0.0, 1.0], {"out": np.zeros(2)})}, [emitted(0.0, "up")])
    save_record(ds, tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def test_a_record_is_never_written_over_and_a_failure_leaves_nothing(saved, monkeypatch):
    ds = load_record(saved)
    with pytest.raises(StoreError, match="exists"):
        save_record(ds, saved)
    monkeypatch.setattr(store, "_quoted", lambda name: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_record(ds, saved.parent / "b.zarr")
    monkeypatch.undo()
    (saved.parent / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        save_record(ds, saved.parent / "file" / "b.zarr")
    assert {path.name for path in saved.parent.iterdir()} == {"a.zarr", "file"}


def test_a_kill_while_saving_leaves_a_folder_that_the_next_save_removes(saved):
    ds = load_record(saved)
    (saved.parent / ".b.zarr.new" / "junk").mkdir(parents=True)
    save_record(ds, saved.parent / "b.zarr")
    assert {path.name for path in saved.parent.iterdir()} == {"a.zarr", "b.zarr"}
    assert not (saved.parent / "b.zarr" / "junk").exists()


def change(path, **edits):
    """Edit the JSON of a Zarr node; dotted keys reach inside."""
    node = json.loads((path / "zarr.json").read_text())
    for key, value in edits.items():
        node[key] = value
    (path / "zarr.json").write_text(json.dumps(node))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: change(p, attributes={"schema": 1}), "not a co-simulation's record"),
        (lambda p: change(p, attributes={"cosimulation": 2, "now": 1.0}), "has schema 2"),
        (lambda p: change(p, attributes={"cosimulation": True, "now": 1.0}), "has schema True"),
        (lambda p: shutil.rmtree(p / "event_time"), "no column event_time"),
        (lambda p: shutil.rmtree(p / "time"), "neither a trace nor of events"),
        (lambda p: change(p / "out", attributes={}), "neither a trace nor of events"),
        (
            lambda p: change(p / "out", data_type="int64", fill_value=0, attributes={"units": "V"}),
            "neither a trace nor of events",
        ),
        (lambda p: change(p / "out", data_type="object"), "not a readable record"),
        (lambda p: change(p / "out", shape=[10**15]), "not a readable record"),
        (lambda p: (p / "zarr.json").write_text("{"), "not a readable record"),
        (lambda p: shutil.rmtree(p), "there is no record"),
    ],
)
def test_a_damaged_or_foreign_record_is_refused(saved, damage, said):
    damage(saved)
    with pytest.raises(StoreError, match=said):
        load_record(saved)


class Bomb:
    """Leaves a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_record_is_executed(tmp_path):
    """Zarr's older format knows a codec that unpickles; a record is of the newer one."""
    old = tmp_path / "old.zarr"
    (old / "out").mkdir(parents=True)
    (old / ".zgroup").write_text('{"zarr_format": 2}')
    (old / ".zattrs").write_text('{"cosimulation": 1, "now": 1.0}')
    (old / "out" / ".zarray").write_text(
        json.dumps(
            {
                "zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "order": "C",
                "fill_value": "", "filters": [{"id": "vlen-utf8"}], "compressor": {"id": "pickle"},
            }
        )
    )  # fmt: skip
    (old / "out" / ".zattrs").write_text('{"_ARRAY_DIMENSIONS": ["event"]}')
    (old / "out" / "0").write_bytes(pickle.dumps(Bomb(tmp_path / "bomb")))
    with pytest.raises(StoreError, match="not a readable record"):
        load_record(old)
    assert not (tmp_path / "bomb").exists()


def test_records_load_without_torch_or_dask():
    """A viewer's script is not to wait for either."""
    code = (
        "import sys; import spicenn.cosim.store, spicenn.cosim.export; "
        "sys.exit(bool({'torch', 'dask', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
