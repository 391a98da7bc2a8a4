"""Energies are recorded chip by chip: nothing recorded is lost, and nothing else is touched."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import spicenn as sn
from spicenn.compiler.energy import measure
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import CompileError, InputError, Status, StoreError
from spicenn.study import energy_of, measure_energy, open_record
from tests.study.conftest import compiled

pytestmark = pytest.mark.ngspice

# Kills itself as soon as a chip is recorded, or when a chip is written and not yet in place.
SCRIPT = """
import os, pathlib, signal, sys
import numpy as np
import spicenn as sn

folder, when = sys.argv[1:]

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def report(done, total, failed):
    if when == "recorded" and done == 1:
        end()

if when == "written":
    pathlib.Path.rename = end

sn.measure_energy(
    sn.Design.load(f"{folder}/design"), np.load(f"{folder}/x.npy"), chips=3, seed=7,
    store=f"{folder}/store", workers=2, progress=report,
)
"""


@pytest.fixture(scope="module")
def timed() -> sn.Design:
    """Wires with capacitance, conversions that cost."""
    return compiled(
        **{
            "c_wordline": 1e-15,
            "c_bitline": 1e-15,
            "periphery.adc.energy": 1e-12,
            "periphery.adc.time": 1e-8,
        }
    )


@pytest.fixture(scope="module")
def two(x: np.ndarray) -> np.ndarray:
    return x[:2]


@pytest.fixture(scope="module")
def undisturbed(timed: sn.Design, two: np.ndarray) -> xr.Dataset:
    return measure_energy(timed, two, chips=3, seed=7, workers=1)


def assert_same(a: xr.Dataset, b: xr.Dataset) -> None:
    """Equal bit for bit, the time that it took aside."""
    xr.testing.assert_identical(a.drop_vars("runtime"), b.drop_vars("runtime"))


def digest(folder: Path) -> dict[str, str]:
    """Contents of a study's files, its energies aside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "energy"
    }


def test_the_record_holds_what_measure_returns_for_each_chip(timed, two, undisturbed):
    with NgspiceEngine() as engine:
        alone = measure(timed.sample(2, 7), two, engine)
    np.testing.assert_array_equal(undisturbed.energy.sel(chip=2), alone.energy)
    np.testing.assert_array_equal(undisturbed.latency.sel(chip=2), alone.latency)
    assert undisturbed.energy.dims == ("chip", "sample", "layer", "component")
    assert undisturbed.energy.attrs["units"] == "J"
    assert undisturbed.latency.attrs["units"] == "s"
    assert list(undisturbed.layer.values) == ["0", "2"]
    assert set(undisturbed.status.values) == {Status.OK}
    # Another chip costs something else, and every conversion what is declared.
    assert float(undisturbed.energy.sel(component="array").sum(["sample", "layer"]).std()) > 0
    np.testing.assert_allclose(
        undisturbed.energy.sel(component="adc"), [[[4e-12, 3e-12]] * 2] * 3, rtol=1e-12
    )
    attributes = undisturbed.attrs
    assert attributes["design_hash"] == timed.hash
    assert (attributes["seed"], attributes["mode"], attributes["tolerance"]) == (7, "hybrid", 0.01)
    assert {"spicenn", "numpy", "ngspice"} <= set(attributes["versions"])


@pytest.mark.slow
def test_a_killed_run_loses_no_chip_and_goes_on_to_the_same_numbers(
    timed, two, undisturbed, tmp_path
):
    """Killed after its first chip and again while it records a second, then left alone."""
    timed.save(tmp_path / "design")
    np.save(tmp_path / "x.npy", two)
    script = tmp_path / "energy.py"
    script.write_text(SCRIPT, "utf-8")
    for when in ("recorded", "written"):
        ended = subprocess.run(
            [sys.executable, str(script), str(tmp_path), when],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        found = energy_of(tmp_path / "store")
        assert found is not None
        assert found.sizes["chip"] == 1
        assert_same(found, undisturbed.sel(chip=found.chip))
    assert len(list(tmp_path.glob(".store.energy-chip_*.new"))) == 1
    seen: list[int] = []
    whole = measure_energy(
        timed, two, chips=3, seed=7, workers=1, store=tmp_path / "store",
        progress=lambda done, total, failed: seen.append(done),
    )  # fmt: skip
    assert seen == [1, 2, 3]
    assert_same(whole, undisturbed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["design", "energy.py", "store", "x.npy"]


def test_workers_change_no_bit_and_chips_may_come_in_any_order(timed, two, undisturbed):
    other = measure_energy(timed, two, chips=[2, 0], seed=7, workers=2)
    assert_same(other, undisturbed.sel(chip=[2, 0]))


@pytest.mark.slow
def test_a_study_is_not_disturbed_by_energies_in_its_store(design, x, finished, address, tmp_path):
    """Its files stay as they are; it opens, is extended and is measured on with them there."""
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    before = digest(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a folder that Zarr does not know would warn
        first = measure_energy(design, x[:1], chips=2, seed=7, store=store, workers=1)
        assert digest(store) == before
        xr.testing.assert_identical(open_record(store).load(), open_record(finished).load())
        ds = sn.monte_carlo(
            design, x, chips=8, seed=7, engine="nodal", keep=("g", "g_target"), store=store,
            scheduler=address,
        )  # fmt: skip
    assert ds.sizes["chip"] == 8
    xr.testing.assert_identical(
        ds.isel(chip=slice(6)).load().drop_attrs(), open_record(finished).load().drop_attrs()
    )
    assert_same(measure_energy(design, x[:1], chips=2, seed=7, store=store), first)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


@pytest.fixture(scope="module")
def kept(timed: sn.Design, two: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store for energies alone, of one chip."""
    store = tmp_path_factory.mktemp("energy") / "alone"
    measure_energy(timed, two[:1], chips=1, seed=7, store=store)
    return store


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tolerance": 0.02}, "tolerance is 0.01, asked for 0.02"),
        ({"seed": 8}, "seed is 7, asked for 8"),
        ({"positions": 2}, "positions is 4, asked for 2"),
        ({"x": np.ones((1, 6), np.float32)}, "input_hash is"),
        ({"design": "other"}, "design_hash is"),
    ],
)
def test_other_parameters_than_the_recorded_ones_are_refused(
    timed, two, kept, changes: dict[str, Any], words: str
):
    asked: dict[str, Any] = {"design": timed, "x": two[:1], "seed": 7, **changes}
    if asked["design"] == "other":
        asked["design"] = timed.with_technology(v_read=0.1)
    with pytest.raises(StoreError, match=words) as error:
        measure_energy(asked.pop("design"), asked.pop("x"), chips=1, store=kept, **asked)
    assert error.value.remedy is not None
    found = energy_of(kept)
    assert found is not None
    assert found.sizes["chip"] == 1


def test_other_versions_than_the_recorded_ones_are_refused(timed, two, kept, monkeypatch):
    found = {"spicenn": "9", "numpy": np.__version__}
    monkeypatch.setattr("spicenn.study.energy.versions_here", lambda: found)
    with pytest.raises(StoreError, match="a worker has spicenn 9"):
        measure_energy(timed, two[:1], chips=2, seed=7, store=kept)


def test_stores_that_are_something_else_are_refused_and_left_alone(timed, two, finished, tmp_path):
    with pytest.raises(StoreError, match="holds another study: design_hash"):
        measure_energy(timed, two, chips=1, seed=7, store=finished)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(StoreError, match="is not a study's record"):
        measure_energy(timed, two, chips=1, seed=7, store=tmp_path / "letters")
    assert os.listdir(tmp_path / "letters") == ["a.txt"]  # noqa: PTH208


def test_there_is_no_record_where_nothing_was_measured(kept, finished, tmp_path):
    assert energy_of(kept, "analog") is None
    assert energy_of(finished) is None
    assert energy_of(tmp_path / "nothing") is None
    with pytest.raises(InputError, match="allowed: hybrid, analog"):
        energy_of(kept, "digital")  # type: ignore[arg-type]


def test_a_damaged_record_is_an_error_that_names_it(kept, tmp_path):
    shutil.copytree(kept, tmp_path / "store")
    (tmp_path / "store" / "energy" / "hybrid" / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="energy/hybrid"):
        energy_of(tmp_path / "store")


def test_a_chip_that_fails_has_its_status_and_the_others_go_on(picky, two):
    """Cells above 107 µS have no solution: some chips have one, some do not."""
    seen: list[tuple[int, int]] = []
    ds = measure_energy(
        picky, two[:1], chips=4, seed=3, workers=1,
        progress=lambda done, total, failed: seen.append((done, failed)),
    )  # fmt: skip
    good = ds.status.values == Status.OK
    assert set(ds.status.values[~good]) == {Status.NOT_CONVERGED}
    assert 0 < good.sum() < 4
    assert np.isfinite(ds.energy.values[good]).all()
    assert np.isnan(ds.energy.values[~good]).all()
    assert np.isnan(ds.latency.values[~good]).all()
    assert all(bool(message) != ok for message, ok in zip(ds.message.values, good, strict=True))
    assert seen[-1] == (4, int((~good).sum()))


def test_chips_that_timed_out_are_measured_again(timed, two, undisturbed, tmp_path):
    """No transient takes a microsecond; the same call with more time mends the record."""
    store = tmp_path / "store"
    late = measure_energy(timed, two, chips=1, seed=7, store=store, timeout=1e-6)
    assert late.status.values == [Status.TIMEOUT]
    mended = measure_energy(timed, two, chips=1, seed=7, store=store)
    assert_same(mended, undisturbed.sel(chip=[0]))


def test_a_whole_analog_chip_is_recorded_beside_the_hybrid_one(timed, two, kept):
    ds = measure_energy(timed, two[:1], chips=1, seed=7, mode="analog", store=kept)
    assert set(ds.status.values) == {Status.OK}
    found = energy_of(kept, "analog")
    assert found is not None
    assert_same(found, ds)
    assert energy_of(kept) is not None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "digital"}, "allowed: hybrid, analog"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"tolerance": "1 %"}, "tolerance"),
        ({"positions": 0}, "positions"),
        ({"chips": 0}, "chips"),
        ({"seed": -1}, "seed"),
        ({"timeout": 0}, "timeout"),
        ({"workers": 0}, "0 is not a positive integer"),
    ],
)
def test_wrong_arguments_are_named_before_anything_runs(
    timed, two, tmp_path, changes: dict[str, Any], words: str
):
    with pytest.raises(InputError, match=words):
        measure_energy(
            timed, two, **{"chips": 1, "seed": 7, "store": tmp_path / "store", **changes}
        )
    assert list(tmp_path.iterdir()) == []


def test_a_design_that_is_no_analog_circuit_is_refused_as_a_whole(timed, two):
    mapping = replace(timed.mapping, bias="digital")
    with pytest.raises(CompileError, match="digital bias"):
        measure_energy(replace(timed, mapping=mapping), two, chips=2, seed=7, mode="analog")
