"""A chip whose cells were measured is what its conductances say, and a chip like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import spicenn as sn
from spicenn.errors import InputError
from spicenn.technology.variation import G_FLOOR

SEED = 5
X = np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8)


def compiled(
    preset: str = "rram-1r", changes: dict[str, Any] | None = None, tile: sn.Tile | None = None
) -> sn.Design:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    technology = sn.Technology.preset(preset).replace(changes)
    return sn.compile(model, X, technology=technology, tile=tile or sn.Tile(), calibration=X)


@pytest.fixture(scope="module")
def design() -> sn.Design:
    return compiled(tile=sn.Tile(8, 8))


@pytest.fixture(scope="module")
def single() -> sn.Design:
    """One layer on one tile."""
    torch.manual_seed(0)
    technology = sn.Technology.preset("rram-1r")
    return sn.compile(torch.nn.Linear(8, 3), X, technology=technology, calibration=X)


@pytest.mark.parametrize("form", ["mapping", "npz", "text", "opened"])
def test_a_drawn_chip_that_is_measured_is_the_same_chip(design, form, tmp_path):
    """To the last bit, its reads included, whichever way the map comes."""
    drawn = design.sample(3, seed=SEED)
    conductances = drawn.conductances()
    path = tmp_path / "map.npz"
    np.savez(path, **conductances)
    given = {"mapping": conductances, "npz": path, "text": str(path), "opened": np.load(path)}
    measured = design.measured(given[form], seed=SEED, chip=3)
    given["opened"].close()
    assert "measured" in repr(measured)
    for trials in (1, 2):
        np.testing.assert_array_equal(
            measured.run(X, "nodal", trials=trials), drawn.run(X, "nodal", trials=trials)
        )
    # It is the map that counts, not the index: another index has other reads alone.
    other = design.measured(conductances, seed=SEED, chip=4)
    quiet = {"read_noise": 0.0, "bandwidth": 0.0}
    np.testing.assert_array_equal(
        design.with_technology(quiet).measured(conductances, seed=SEED, chip=4).run(X, "nodal"),
        design.with_technology(quiet).measured(conductances, seed=9).run(X, "nodal"),
    )
    assert (other.run(X, "nodal") != drawn.run(X, "nodal")).any()


@pytest.mark.ngspice
@pytest.mark.parametrize("preset", ["pcm", "hfox-1t1r"])
def test_what_a_map_does_not_say_is_drawn(preset):
    """Exponents and thresholds are those of the index: the round trip is whole with them."""
    design = compiled(preset, {"drift.time": 1e5})
    drawn = design.sample(3, seed=SEED)
    measured = design.measured(drawn.conductances(), seed=SEED, chip=3)
    for engine in ("nodal", "ngspice"):
        np.testing.assert_array_equal(measured.run(X, engine), drawn.run(X, engine))
    other = design.measured(drawn.conductances(), seed=SEED, chip=4)
    tile = design.tiles[0]
    for name, values in drawn.cells(tile).parameters.items():
        np.testing.assert_array_equal(measured.cells(tile).parameters[name], values)
        assert (other.cells(tile).parameters[name] != values).any()


def test_an_open_cell_conducts_the_least_there_is(design):
    zero = {tile.name: np.zeros(tile.g_target.shape) for tile in design.tiles}
    found = design.measured(zero, seed=SEED).conductances()
    assert all((g == G_FLOOR).all() for g in found.values())


def test_a_table_is_the_map_of_the_one_tile_there_is(single, design, tmp_path):
    (tile,) = single.tiles
    g = single.sample(1, seed=SEED).conductances()[tile.name]
    path = tmp_path / "whatever.csv"
    np.savetxt(path, g, delimiter=",", fmt="%.17g")
    found = single.measured(path, seed=SEED).conductances()
    np.testing.assert_array_equal(found[tile.name], g)
    with pytest.raises(InputError, match="no tile is called 'whatever'"):
        design.measured(path, seed=SEED)


def changed(design: sn.Design, **maps: Any) -> dict[str, Any]:
    return {**design.sample(0, seed=SEED).conductances(), **maps}


def test_a_map_that_does_not_fit_is_refused_by_tile(design, tmp_path):
    first = design.tiles[0]
    good = first.g_target
    for wrong, words in (
        (good[:-1], rf"tile {first.name}: .*\(7, 8\), expected \(8, 8\)"),
        (good[0], r"shape \(8,\)"),
        (-good, "negative or not finite"),
        (np.where(good == good.max(), np.nan, good), "negative or not finite"),
        (good * np.inf, "negative or not finite"),
        ([["a"]], "not numbers"),
        ([[1.0], [1.0, 2.0]], "not numbers"),
    ):
        with pytest.raises(InputError, match=words):
            design.measured(changed(design, **{first.name: wrong}), seed=SEED)
    with pytest.raises(InputError, match=rf"no tile is called 'fc9'.*{first.name}"):
        design.measured(changed(design, fc9=good), seed=SEED)
    missing = changed(design)
    del missing[first.name]
    with pytest.raises(InputError, match=rf"tile {first.name}: .*missing"):
        design.measured(missing, seed=SEED)
    np.savez(tmp_path / "short.npz", **missing)
    with pytest.raises(InputError, match="missing"):
        design.measured(tmp_path / "short.npz", seed=SEED)
    np.savez(tmp_path / "negative.npz", **changed(design, **{first.name: -good}))
    with pytest.raises(InputError, match=r"negative\.npz.*is negative"):
        design.measured(tmp_path / "negative.npz", seed=SEED)
    with pytest.raises(InputError, match="no such file"):
        design.measured(Path("absent.npz"), seed=SEED)


def test_programmed_anew_it_is_a_drawn_chip_again(design):
    varied = design.with_technology({"variation.cycle_to_cycle": 0.05})
    doubled = {name: 2 * g for name, g in varied.sample(3, seed=SEED).conductances().items()}
    measured = varied.measured(doubled, seed=SEED, chip=3)
    again = measured.reprogrammed(2)
    name = design.tiles[0].name
    cycles = [varied.sample(3, seed=SEED).reprogrammed(k).conductances()[name] for k in range(3)]
    np.testing.assert_array_equal(again.conductances()[name], cycles[2])
    np.testing.assert_array_equal(cycles[0], varied.sample(3, seed=SEED).conductances()[name])
    # From cycle to cycle it is the cycles' own draw that differs, of cells far from the floor.
    steps = []
    for k in range(0, 20, 2):
        one, two = (varied.sample(3, seed=SEED).reprogrammed(n).conductances() for n in (k, k + 1))
        steps += [(two[t.name] - one[t.name])[t.g_target > 4e-5] for t in varied.tiles]
    step = np.concatenate(steps)
    expected = np.sqrt(2) * 0.05 * varied.technology.g_max
    assert len(step) > 300
    assert step.std() == pytest.approx(expected, rel=4 / np.sqrt(2 * len(step)), abs=0)


def test_a_measured_chip_drifts_on_from_its_map():
    """Resistors with drawn exponents, and cells that compute their drift, alike."""
    drift = {"drift.time": 100.0, "drift.nu": (0, 0.05, 0, 1), "drift.nu_sigma": (0, 0.01, 0, 1)}
    for preset in ("rram-1r", "pcm"):
        design = compiled(preset, drift)
        drawn = design.sample(3, seed=SEED)
        measured = design.measured(drawn.conductances(), seed=SEED, chip=3)
        np.testing.assert_allclose(
            measured.at(1e6).run(X, "nodal"), drawn.at(1e6).run(X, "nodal"), rtol=1e-5, atol=1e-6
        )
        assert np.abs(measured.at(1e6).run(X, "nodal") - drawn.run(X, "nodal")).max() > 0.01
        # There and back again.
        back = measured.at(1e6).at(100.0).conductances()
        for name, g in drawn.conductances().items():
            np.testing.assert_allclose(back[name], g, rtol=1e-12)


def test_a_die_keeps_its_place_on_the_wafer(design):
    wafer = design.with_technology({"variation.wafer": 0.3, "programming_error": 0.0})
    places = np.array([wafer.sample(k, seed=SEED).wafer_position for k in range(400)])
    radius = np.hypot(*places.T)
    assert radius.max() < 1
    # Uniform over the disk: r² is uniform in [0, 1], of mean 1/2 and deviation 1/sqrt(12 · 400).
    assert abs((radius**2).mean() - 0.5) < 4 / np.sqrt(12 * 400)
    chip = wafer.sample(7, seed=SEED)
    moved = [
        chip.at(1e3),
        chip.reprogrammed(3),
        wafer.measured(chip.conductances(), seed=SEED, chip=7),
    ]
    assert {other.wafer_position for other in moved} == {chip.wafer_position}
    # What the place does to the cells is what it says.
    x, y = chip.wafer_position
    tile = wafer.tiles[0]
    factor = chip.conductances()[tile.name] / tile.g_target
    np.testing.assert_allclose(factor, 1 + 0.3 * (x * x + y * y - 0.5), rtol=1e-12)
