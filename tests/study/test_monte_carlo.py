"""A study gives what its chips give, however it is cut, spread and grown."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import xarray as xr

import spicenn as sn
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.engines import open_engine
from spicenn.errors import Status
from spicenn.study import design_of, open_record, schedule, tile_record
from spicenn.study.task import Payload, StudyPlugin
from tests.study.conftest import assert_same


def test_record_holds_what_the_chips_give(design, x, address, tmp_path):
    ds = sn.monte_carlo(
        design, x, chips=4, seed=7, engine="nodal", trials=2, scheduler=address,
        keep=("g", "g_target", "bitline_current"), store=tmp_path / "a",
    )  # fmt: skip
    with open_engine("nodal") as engine:
        result = run_chips(
            design, range(4), 7, as_inputs(design, x), engine, trials=2,
            keep=frozenset({"g", "g_target", "bitline_current"}),
        )  # fmt: skip
    assert ds.output.dims == ("chip", "trial", "sample", "output_dim_0")
    np.testing.assert_array_equal(ds.output, result.output["output"])
    np.testing.assert_array_equal(ds.input, x)
    assert set(ds.status.values) == {Status.OK}
    assert ds.status.attrs["flag_meanings"].split()[Status.OK] == "ok"
    assert (ds.runtime.values > 0).all()
    assert ds.runtime.attrs["units"] == "s"
    assert ds.attrs["schema"] == 1
    assert ds.attrs["seed"] == 7
    assert ds.attrs["design_hash"] == design.hash == design_of(ds).hash
    assert {"python", "numpy", "torch", "spicenn", "numba"} <= set(ds.attrs["versions"])
    for name in ds.attrs["tiles"]:
        tile, kept = tile_record(ds, name), result.tiles[name]
        np.testing.assert_array_equal(tile.bitline_current, kept.bitline_current)
        np.testing.assert_array_equal(tile.g, kept.g)
        np.testing.assert_array_equal(tile.g_target, kept.g_target)
        chip = design.sample(chip=3, seed=7)
        np.testing.assert_array_equal(tile.g.sel(chip=3), chip.conductances()[name])
    assert list(tile_record(ds.sel(chip=[2]), ds.attrs["tiles"][0]).chip) == [2]
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_neither_chunks_nor_workers_nor_order_matter(design, x, address, monkeypatch):
    def study(chips, **options):
        return sn.monte_carlo(design, x, chips=chips, seed=7, trials=2, **options)

    whole = study(9, scheduler=address)
    monkeypatch.setattr(schedule, "MOST_CHIPS", 2)
    assert_same(study(9, scheduler=address), whole)
    assert_same(study([8, 1, 3], workers=1), whole.sel(chip=[8, 1, 3]))
    assert "ngspice" in whole.attrs["versions"]
    assert whole.attrs["tolerances"]["reltol"] <= 1e-9


def test_a_store_grows_and_a_smaller_study_is_a_view(design, x, address, tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "MOST_CHIPS", 4)

    def study(chips, store, **options):
        return sn.monte_carlo(
            design, x, chips=chips, seed=7, engine="nodal", store=store, scheduler=address,
            keep=["g"], **options,
        )  # fmt: skip

    study(3, tmp_path / "grown")
    calls = []
    grown = study(11, tmp_path / "grown", progress=lambda *counts: calls.append(counts))
    whole = study(11, tmp_path / "whole")
    assert_same(grown, whole)
    for tile in whole.attrs["tiles"]:
        assert_same(tile_record(grown, tile), tile_record(whole, tile))
    assert calls[0] == (3, 11, 0)
    assert calls[-1] == (11, 11, 0)
    # Neither needs a worker: what is recorded is only read.
    view = sn.monte_carlo(
        design, x, chips=2, seed=7, engine="nodal", keep=["g"], store=tmp_path / "whole",
        scheduler="tcp://127.0.0.1:1",
    )  # fmt: skip
    assert_same(view, whole.isel(chip=slice(2)))
    assert open_record(tmp_path / "whole").sizes["chip"] == 11


def test_sweep_adds_dimensions_and_keeps_the_draws(design, x, address):
    sweep: dict[str, list[float | str]] = {"r_wordline": [0.0, 50.0], "corner": ["tt", "ff"]}
    ds = sn.monte_carlo(design, x, chips=3, seed=7, engine="nodal", sweep=sweep, scheduler=address)
    assert ds.output.dims[:3] == ("r_wordline", "corner", "chip")
    assert ds.r_wordline.attrs["units"] == "ohm"
    for changes in ({"r_wordline": 50.0, "corner": "tt"}, {"r_wordline": 0.0, "corner": "ff"}):
        point = design.with_technology(**changes).sample(chip=2, seed=7)
        expected = point.run(x, engine="nodal")
        np.testing.assert_array_equal(ds.output.sel(**changes, chip=2, trial=0), expected)


def test_keys_of_inner_records_are_dimensions_of_a_store_that_grows(design, x, address, tmp_path):
    sweep: dict[str, list[float | str]] = {
        "variation.stuck_on": [0.0, 0.2],
        "variation.programming_law": ["normal", "lognormal"],
        "periphery.tia.gain": [50.0],
    }

    def study(chips: int, store: str) -> xr.Dataset:
        return sn.monte_carlo(
            design, x, chips=chips, seed=7, engine="nodal", sweep=sweep, scheduler=address,
            keep=["g"], store=tmp_path / store,
        )  # fmt: skip

    study(2, "grown")
    grown, whole = study(5, "grown"), study(5, "whole")
    assert_same(grown, whole)
    assert grown.output.dims[:4] == (*sweep, "chip")
    assert {key: list(grown[key].values) for key in sweep} == sweep
    assert grown["periphery.tia.gain"].attrs["units"] == "1"
    at = {"variation.stuck_on": 0.2, "variation.programming_law": "lognormal"}
    alone = design.with_technology({**at, "periphery.tia.gain": 50.0}).sample(chip=4, seed=7)
    found = open_record(tmp_path / "grown").sel({**at, "chip": 4}).squeeze()
    np.testing.assert_array_equal(found.output, alone.run(x, engine="nodal"))
    assert float(np.abs(found.output - grown.output[0, 0, 0, 4, 0]).max()) > 1e-3
    # One point is a study of its own technology.
    point = grown.sel({**at, "periphery.tia.gain": 50.0})
    assert design_of(point).hash == design.hash
    with pytest.raises(sn.errors.CalibrationError, match=r"ds\.sel\(\{'variation\.stuck_on'"):
        sn.fit(grown)


def test_a_bad_chip_leaves_its_neighbours_right(picky, x, address):
    ds = sn.monte_carlo(picky, x, chips=8, seed=7, scheduler=address)
    good = ds.status == Status.OK
    bad = ds.status == Status.NOT_CONVERGED
    assert bool((good | bad).all())
    assert 1 <= int(bad.sum()) <= 7
    assert bool(ds.output[bad.values].isnull().all())
    assert all("tile" in message for message in ds.message[bad.values].values)
    ohmic = sn.monte_carlo(
        picky.with_technology(cell=sn.Cell()), x, chips=8, seed=7, scheduler=address
    )
    xr.testing.assert_allclose(ds.output[good.values], ohmic.output[good.values], rtol=1e-5)


def test_a_timeout_is_recorded_and_tried_again(picky, x, address, tmp_path):
    options = {"seed": 7, "scheduler": address, "store": tmp_path / "a"}
    hasty = sn.monte_carlo(picky, x, chips=8, timeout=0.15, **options)
    # Loaded: a lazy dataset shows the store as it is when it is looked at.
    late = (hasty.status == Status.TIMEOUT).load()
    assert int(late.sum()) >= 1
    assert bool((hasty.status[~late.values] == Status.OK).all())
    message = hasty.message[late.values].values[0]
    assert "0.15 s" in message
    before = hasty.output.load()
    patient = sn.monte_carlo(picky, x, chips=8, timeout=30.0, **options)
    assert set(patient.status[late.values].values) == {Status.NOT_CONVERGED}
    xr.testing.assert_identical(patient.output, before)


def test_it_works_where_an_event_loop_runs_as_in_a_notebook(design, x):
    async def cell():
        return sn.monte_carlo(design, x, chips=2, seed=7, engine="nodal", workers=1)

    assert set(asyncio.run(cell()).status.values) == {Status.OK}


def test_progress_bar_writes_to_standard_error_only(design, x, finished, address, capfd):
    options = {"seed": 7, "engine": "nodal", "keep": ("g", "g_target"), "store": finished}
    sn.monte_carlo(design, x, chips=6, progress=True, **options)
    out, err = capfd.readouterr()
    assert out == ""
    assert "6/6" in err
    sn.monte_carlo(design, x, chips=6, **options)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("timeout", [0, -1.0, "60", float("nan")])
def test_timeout_must_be_positive(design, x, timeout):
    with pytest.raises(sn.SpicennError, match="timeout"):
        sn.monte_carlo(design, x, chips=2, seed=7, timeout=timeout)


def test_a_workers_engine_takes_one_thread(design, x):
    """Its worker's other cores are for its other tasks, whatever the environment says."""
    plugin = StudyPlugin("study", Payload(design.to_bytes(), (x,), 7, "nodal", 9.0, 1, frozenset()))
    plugin.setup(None)
    with plugin._lane() as lane:
        assert vars(lane.engine)["_threads"] == 1
    plugin.teardown(None)
