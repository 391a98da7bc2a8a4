"""A share of a study's chips is held against ngspice, and nobody can overlook where they differ."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import spicenn as sn
from spicenn.circuit import load_cell
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import (
    InputError,
    NgspiceNotFound,
    SpicennError,
    SpicennWarning,
    Status,
    StoreError,
)
from spicenn.study import open_record, schedule
from spicenn.study.cluster import connect
from spicenn.study.crosscheck import Crosscheck, agreement, discrepancy, is_checked
from spicenn.study.plan import plan
from spicenn.study.run import _measured
from spicenn.study.schedule import Job
from spicenn.study.task import Payload, StudyPlugin
from spicenn.technology.variation import Cells
from tests.study.conftest import assert_same, compiled
from tests.study.programs import running

# Ohmic tiles with wires: ngspice and the nodal solution differ by rounding alone.
ROUNDING = 1e-8


def study(design, x, chips, **options):
    return sn.monte_carlo(
        design, x, chips=chips, seed=7, **{"engine": "nodal", "crosscheck": 0.3, **options}
    )


class Wrong(Engine):
    """The nodal engine, its first bitline's current multiplied, one of the chips failed."""

    name = "nodal"
    versions: Mapping[str, str] = {}
    tolerances: Mapping[str, float] = {}

    def __init__(self, factor: float = 1.0, failed: int | None = None) -> None:
        self.factor, self.failed = factor, failed

    def solve(self, crossbar, g, v, parameters=None):
        with open_engine("nodal") as engine:
            solution = engine.solve(crossbar, g, v, parameters)
        current, status = solution.current.copy(), solution.status.copy()
        current[..., 0] *= self.factor
        message = list(solution.message)
        if self.failed is not None and len(status) > self.failed:
            status[self.failed], message[self.failed] = Status.NOT_CONVERGED, "no solution"
        return replace(solution, current=current, status=status, message=tuple(message))

    def close(self) -> None:
        pass


class Dying(NgspiceEngine):
    """ngspice whose process is killed before so many of its requests."""

    def __init__(self, deaths: int) -> None:
        super().__init__(timeout=30.0)
        self.deaths = deaths

    def _ready(self):
        child = super()._ready()
        if self.deaths and self._facts is not None:
            self.deaths -= 1
            os.kill(child.pid, signal.SIGKILL)
        return child


def compare(design, x, chips, share=1.0, fast=None, reference=None, **options):
    """One pass with a crosscheck, in this process: the result and the discrepancy."""
    with reference or NgspiceEngine(timeout=30.0) as held_to:
        crosscheck = Crosscheck(held_to, chips, share)
        result = run_chips(
            design, chips, 7, as_inputs(design, x), fast or Wrong(), observer=crosscheck, **options
        )
        return crosscheck.finish(result)


@given(st.integers(0, 100), st.integers(1, 500))
def test_the_first_n_chips_hold_their_share_evenly_spread(percent, n):
    share = percent / 100
    checked = [chip for chip in range(n) if is_checked(chip, share)]
    assert len(checked) == ceil(n * Fraction(percent, 100))
    if checked:
        assert checked[0] == 0
        gaps = np.diff(checked)
        assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crosscheck": -0.1}, "crosscheck = -0.1"),
        ({"crosscheck": 5}, "crosscheck = 5"),
        ({"crosscheck": float("nan")}, "crosscheck = nan"),
        ({"crosscheck": True}, "crosscheck = True"),
        ({"crosscheck": "0.1"}, "crosscheck = '0.1'"),
        ({"crosscheck_bound": 0.0}, "crosscheck_bound = 0.0"),
        ({"crosscheck_bound": float("inf")}, "crosscheck_bound = inf"),
        ({"crosscheck_bound": None}, "crosscheck_bound = None"),
        ({"engine": "ngspice"}, "ngspice with itself"),
    ],
)
def test_wrong_arguments_are_refused_by_name(design, x, change, said):
    good: dict[str, Any] = {
        "seed": 1, "engine": "nodal", "trials": 1, "keep": (), "sweep": None, "crosscheck": 0.1,
    }  # fmt: skip
    assert plan(design, x, **good).crosscheck == 0.1
    with pytest.raises(InputError, match=said):
        plan(design, x, **{**good, **change})


def test_the_scale_is_the_references_largest_current():
    assert discrepancy(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == 0.5
    assert discrepancy(np.zeros(3), np.zeros(3)) == 0.0
    assert discrepancy(np.ones(1), np.zeros(1)) == np.inf
    assert discrepancy(np.array([1e-18]), np.zeros(1), 1e-15) == pytest.approx(1e-3)


@pytest.mark.slow
@pytest.mark.ngspice
def test_exactly_the_checked_chips_are_compared_and_nothing_else_changes(
    design, x, address, monkeypatch
):
    whole = study(design, x, 12, trials=2, scheduler=address)
    expected = [is_checked(chip, 0.3) for chip in range(12)]
    assert sum(expected) == 4
    found = whole.discrepancy
    assert found.dims == ("chip",)
    assert found.dtype == np.float64
    assert found.attrs["units"] == "1"
    np.testing.assert_array_equal(found.notnull(), expected)
    assert (found.values[expected] > 0).all()
    assert (found.values[expected] < ROUNDING).all()
    assert (whole.attrs["crosscheck"], whole.attrs["crosscheck_bound"]) == (0.3, 1e-6)
    assert {"ngspice", "klu"} <= set(whole.attrs["versions"])
    assert whole.attrs["tolerances"]["ngspice_reltol"] == 1e-9
    said = agreement(whole)
    assert said is not None
    assert (said.checked, said.exceeded, said.failed) == (4, 0, 0)
    assert said.worst == np.nanmax(found)

    without = study(design, x, 12, trials=2, scheduler=address, crosscheck=0.0)
    assert "discrepancy" not in without
    assert not {"crosscheck", "crosscheck_bound"} & set(without.attrs)
    assert agreement(without) is None
    for name in ("output", "status", "message"):
        xr.testing.assert_identical(whole[name], without[name])

    # Neither chunks nor order nor workers nor the other chips matter.
    monkeypatch.setattr(schedule, "MOST_CHIPS", 2)
    assert_same(study(design, x, 12, trials=2, scheduler=address), whole)
    some = study(design, x, [11, 4, 7, 1], trials=2, workers=1)
    assert_same(some, whole.sel(chip=[11, 4, 7, 1]))


@pytest.mark.ngspice
def test_a_store_grows_and_is_refused_to_another_crosscheck(design, x, address, tmp_path):
    options = {"scheduler": address, "store": tmp_path / "a", "crosscheck": 0.25}
    study(design, x, 3, **options)
    grown = study(design, x, 9, **options)
    whole = study(design, x, 9, scheduler=address, crosscheck=0.25)
    assert_same(grown, whole)
    np.testing.assert_array_equal(np.flatnonzero(grown.discrepancy.notnull()), [0, 4, 8])
    options["scheduler"] = "tcp://127.0.0.1:1"
    assert_same(study(design, x, 5, **options), whole.isel(chip=slice(5)))
    for change, said in (
        ({"crosscheck": 0.5}, "crosscheck is 0.25, asked for 0.5"),
        ({"crosscheck": 0.0}, r"crosscheck is 0.25, asked for 0\.0"),
        ({"crosscheck_bound": 1e-3}, "crosscheck_bound is 1e-06, asked for 0.001"),
    ):
        with pytest.raises(StoreError, match=said):
            study(design, x, 9, **{**options, **change})


def test_a_store_without_a_crosscheck_is_refused_to_one(design, x, finished):
    with pytest.raises(StoreError, match=r"crosscheck is 0\.0, asked for 0\.3"):
        study(design, x, 6, store=finished, keep=("g", "g_target"))


@pytest.mark.ngspice
def test_a_sweep_is_compared_at_every_point(design, x, address):
    sweep = {"r_wordline": [0.0, 50.0], "corner": ["tt", "ff"]}
    ds = study(design, x, 3, sweep=sweep, crosscheck=0.5, scheduler=address)
    assert ds.discrepancy.dims == ("r_wordline", "corner", "chip")
    np.testing.assert_array_equal(ds.discrepancy[..., 1].isnull(), True)
    assert (ds.discrepancy[..., [0, 2]] > 0).all()
    assert (ds.discrepancy[..., [0, 2]] < ROUNDING).all()
    ds.discrepancy[1, 0, 2] = 1e-3
    found = agreement(ds)
    assert found is not None
    assert (found.checked, found.exceeded) == (8, 1)
    assert found.where == "chip 2, r_wordline = 50, corner = tt"


@pytest.mark.ngspice
def test_a_bound_that_is_exceeded_warns_and_names_the_worst(design, x, address, tmp_path):
    options = {"scheduler": address, "crosscheck_bound": 1e-18, "store": tmp_path / "a"}
    with pytest.warns(SpicennWarning, match=r"2 of 2 runs .* exceed .* 1e-18.* worst is chip"):
        study(design, x, 4, **options)
    # So does reading what is recorded, and a view that holds a checked chip.
    with pytest.warns(SpicennWarning, match=r"1 of 1 run .* chip 0, .* engine='ngspice'"):
        study(design, x, [0, 1], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = study(design, x, [1], **options)
    said = agreement(ds)
    assert said is not None
    assert "none of these chips" in said.finding


@pytest.mark.ngspice
def test_a_wrong_engine_is_found_out(design, x):
    """One current in the tile is off by a thousandth: so is, of the largest, the chip."""
    right, small = compare(design, x, (0, 1, 2), share=0.5)
    np.testing.assert_array_equal(np.isnan(small), [False, True, False])
    assert np.nanmax(small) < ROUNDING
    _, large = compare(design, x, (0, 1, 2), share=0.5, fast=Wrong(1.001))
    assert (large[[0, 2]] > 1e-4).all()
    assert (large[[0, 2]] < 1.001e-3).all()
    assert set(right.message) == {""}


@pytest.mark.ngspice
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_currents_that_are_no_numbers_are_no_agreement(design, x, bad):
    tile = design.tiles[0]
    g = np.stack([tile.g_target, tile.g_target])
    v = np.full((1, 1, 1, 1, 1, len(tile.g_target)), 0.1)
    current = (v[0, 0, 0, 0] @ tile.g_target)[np.newaxis, np.newaxis, np.newaxis, np.newaxis]
    current = np.concatenate([current, current])
    current[1, ..., 0] = bad
    with NgspiceEngine(timeout=30.0) as reference:
        crosscheck = Crosscheck(reference, (0, 1), 1.0)
        crosscheck(tile, Cells(g, {}), v, current)
        result, found = crosscheck.finish(run_chips(design, (0, 1), 7, (x,), Wrong()))
    assert found[0] < 1e-2  # wires
    assert found[1] == np.inf
    assert set(result.status) == {Status.OK}
    assert result.message[0] == ""
    assert "no finite current" in result.message[1]


@pytest.mark.ngspice
def test_a_chip_that_failed_in_the_studys_engine_is_not_compared(design, x):
    result, found = compare(design, x, (0, 1), fast=Wrong(failed=1))
    assert result.status.tolist() == [Status.OK, Status.NOT_CONVERGED]
    assert found[0] < ROUNDING
    assert np.isnan(found[1])
    assert "no solution" in result.message[1]


@pytest.mark.ngspice
def test_a_reference_that_runs_into_its_limit_is_loud_and_ends_nothing(design, x, address):
    # So many that no answer is there before the first look, on a busy machine either.
    many = np.tile(x, (1000, 1))
    with pytest.warns(SpicennWarning, match="2 of them because ngspice failed"):
        ds = study(design, many, 5, timeout=1e-6, scheduler=address)
    assert set(ds.status.values) == {Status.OK}
    assert np.isfinite(ds.output.values).all()
    np.testing.assert_array_equal(ds.discrepancy, [np.inf, np.nan, np.nan, np.inf, np.nan])
    assert [bool(message) for message in ds.message.values] == [True, False, False, True, False]
    assert ds.message.values[0].startswith("crosscheck: tile ")
    assert "1e-06 s" in ds.message.values[0]
    found = agreement(ds)
    assert found is not None
    assert (found.exceeded, found.failed) == (2, 2)


@pytest.mark.ngspice
@pytest.mark.slow
def test_cells_that_differ_in_more_than_conductance_are_the_same_on_both_engines(x):
    """1T1R cells, 50 mV of threshold mismatch: left out of either, currents part by percents."""
    cell = load_cell("rram_1t1r", vgate=1.2)
    mismatched = compiled(cell=cell).with_technology({"variation.a_vt": 5e-2 * 4e-7})
    assert mismatched.sample(0, 7).cells(mismatched.tiles[0]).parameters["dvt"].std() > 0.01
    _, found = compare(mismatched, x, (0, 1), fast=NodalEngine())
    assert found.max() < 1e-6


@pytest.mark.ngspice
def test_a_reference_that_dies_has_one_more_chance(design, x):
    _, expected = compare(design, x, (0, 1))
    result, found = compare(design, x, (0, 1), reference=Dying(1))
    np.testing.assert_array_equal(found, expected)
    assert set(result.message) == {""}
    result, found = compare(design, x, (0,), reference=Dying(2))
    assert found.tolist() == [np.inf]
    assert result.status.tolist() == [Status.OK]
    assert "died twice" in result.message[0]


@pytest.mark.slow
def test_without_ngspice_nothing_is_computed(design, x, tmp_path, monkeypatch):
    monkeypatch.setenv("NGSPICE_LIBRARY_PATH", str(tmp_path / "none.so"))
    with pytest.raises(NgspiceNotFound):
        # Chip 1 is not among the checked ones: the worker says so all the same.
        study(design, x, [1], workers=1, store=tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_checked_chip_leads_and_every_chip_pays_its_share(design, x):
    asked = plan(design, x, seed=1, engine="nodal", trials=1, keep=(), sweep=None, crosscheck=0.1)
    assert _measured(asked, (0, 1, 2, 3, 4, 5)) == [0, 1, 2, 3]
    assert _measured(asked, (1, 2, 3, 4, 5, 10, 20)) == [5, 0, 1, 2]
    assert _measured(asked, (3, 20)) == [1, 0]
    assert _measured(asked, (3, 4)) == [0, 1]
    assert schedule.chips_per_task(0.0625, 0.0, 0.5) == 16
    assert schedule.chips_per_task(0.0625, 0.125, 0.5) == 8
    assert schedule.chips_per_task(0.0625, 0.125, 60.0) == 1


@pytest.mark.ngspice
def test_the_first_chips_are_measured_where_the_engine_is_warm(design, x, address):
    payload = Payload(design.to_bytes(), (x,), 7, "nodal", 60.0, 1, frozenset(), 0.5)
    jobs = [Job((), {}, chip, (chip,)) for chip in (0, 1)]
    with connect(address, None) as connection:
        connection.client.register_plugin(StudyPlugin("measured", payload), name="measured")
        done, chunk = schedule.measure(connection, "measured", jobs, 0.5)
        connection.client.unregister_worker_plugin("measured")
    first, second = (outcome for _, outcome in done)
    assert first.worker == second.worker != ""
    # Only a chip that is checked says what a check costs.
    assert first.check_seconds > 0
    assert second.check_seconds == 0
    assert chunk == schedule.chips_per_task(second.seconds, 0.5, first.check_seconds)


@pytest.mark.parametrize(
    "damage", [{"crosscheck_bound": "small"}, {"crosscheck": None}, {"crosscheck_bound": -1}]
)
def test_damaged_attributes_are_an_error_of_ours(damage):
    ds = xr.Dataset(
        {"discrepancy": ("chip", [0.0]), "status": ("chip", [1])},
        coords={"chip": [0]},
        attrs={"crosscheck": 0.1, "crosscheck_bound": 1e-6},
    )
    found = agreement(ds)
    assert found is not None
    assert found.worst == 0.0
    with pytest.raises(SpicennError, match="crosscheck"):
        agreement(ds.assign_attrs(damage))
    # What a pending chip's variables hold means nothing.
    found = agreement(ds.assign(status=("chip", [0])))
    assert found is not None
    assert found.checked == 0


@pytest.mark.slow
@pytest.mark.ngspice
def test_a_killed_study_ends_as_the_uninterrupted_one(design, address, tmp_path: Path):
    x = np.random.default_rng(5).uniform(0, 1, (20, 6)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    design.save(tmp_path / "design")
    options = {"engine": "nodal", "crosscheck": 0.4}
    with running(tmp_path, 30, **options) as program:
        program.wait_for(6)
        for process in program.family():
            process.kill()
        program.finish()
    done = open_record(tmp_path / "store")
    finished = (done.status == Status.OK).values
    assert 6 <= finished.sum() < 30
    compared = [is_checked(chip, 0.4) for chip in range(30)]
    np.testing.assert_array_equal(
        done.discrepancy.notnull().values[finished], np.array(compared)[finished]
    )
    with running(tmp_path, 30, **options) as program:
        program.wait_for(int(finished.sum()) + 6)
        program.simulators()[0].kill()
        assert program.finish() == (0, "")
    whole = study(
        design, x, 30, trials=2, keep=("g", "bitline_current"), scheduler=address, crosscheck=0.4
    )
    assert_same(open_record(tmp_path / "store").load(), whole)
