"""Reads of a chip differ by what theory says, each mechanism alone, and by nothing when off."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import nn

import spicenn as sn
from spicenn.circuit import load_cell
from spicenn.compiler.design import Design
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.reading import Read, add_noise, cell_traps, thermal_sigma, transient_noise
from spicenn.compiler.structural import tile_moments
from spicenn.engines import open_engine
from spicenn.kirchhoff import thermal_noise
from spicenn.seeds import Purpose
from spicenn.technology import OHMIC
from spicenn.technology.noise import (
    BOLTZMANN,
    ELEMENTARY_CHARGE,
    flicker_variance,
    rtn_static_variance,
    rtn_variance,
)

IDEAL = sn.Technology.preset("ideal").replace(bandwidth=1e8, temperature=1e-20)
# One mechanism each; the temperature of the others leaves no thermal noise to speak of.
ALONE: dict[str, dict[str, Any]] = {
    "read": {"read_noise": 0.02},
    "thermal": {"temperature": 300.0},
    "wired thermal": {"temperature": 300.0, "r_wordline": 200.0, "r_bitline": 300.0},
    "shot": {"noise.shot": 0.5},
    "flicker": {"noise.flicker": 1e-4},
    "slow rtn": {"noise.rtn_share": 0.5, "noise.rtn_amplitude": 0.1, "noise.rtn_time": 0.05},
    "fast rtn": {
        "noise.rtn_share": 0.5,
        "noise.rtn_amplitude": 0.1,
        "noise.rtn_time": 2e-9,
        "noise.rtn_duty": 0.2,
    },
}
COMMON = ("flicker", "slow rtn")


def design_of(changes: dict[str, Any] | None = None, model: nn.Module | None = None) -> Design:
    torch.manual_seed(0)
    x = torch.rand(50, 12, dtype=torch.float64) * 2.2 - 1.1
    model = model or nn.Linear(12, 4, bias=False).double()
    return sn.compile(model, x, technology=IDEAL.replace(changes or {}))


def inputs(samples: int = 3) -> Any:
    return np.random.default_rng(0).uniform(-1, 1, (samples, 12))


def currents(
    design: Design, x: Any = None, chips: Any = (0,), trials: int = 1, seed: int = 5
) -> Any:
    """(chip, trial, sample, bitline) [A] of the one tile, as read."""
    with open_engine("nodal") as engine:
        result = run_chips(
            design, chips, seed, as_inputs(design, inputs() if x is None else x), engine,
            trials=trials, keep=frozenset({"bitline_current"}),
        )  # fmt: skip
    (record,) = result.tiles.values()
    assert record.bitline_current is not None
    return record.bitline_current[:, :, :, 0, 0, :]


def alike(a: Any, b: Any) -> bool:
    """Equal but for what thermal noise is left and the order of a sum."""
    return bool(np.allclose(a, b, rtol=1e-6, atol=0.0))


def expected(name: str, design: Design, v: Any, traps: Any) -> Any:
    """Variance of every read, (sample, bitline) [A²], from the formulas."""
    technology = design.technology
    (tile,) = design.tiles
    g, bandwidth = tile.g_target, technology.bandwidth
    squares = np.square(v) @ np.square(g)
    if name == "read":
        return 0.02**2 * squares
    if name == "thermal":
        return np.broadcast_to(4 * BOLTZMANN * 300 * bandwidth * g.sum(axis=0), squares.shape)
    if name == "wired thermal":
        density = thermal_noise(g, r_wordline=200.0, r_bitline=300.0, temperature=300.0)
        return np.broadcast_to(density * bandwidth, squares.shape)
    if name == "shot":
        return 2 * ELEMENTARY_CHARGE * 0.5 * bandwidth * (np.abs(v) @ g)
    if name == "flicker":
        return 1e-4 * math.log(bandwidth) * squares
    trapped = np.square(v) @ np.square(np.where(traps, g, 0.0))
    duty, time = technology.noise.rtn_duty, technology.noise.rtn_time
    seen = math.atan(2 * math.pi * time * bandwidth) - math.atan(2 * math.pi * time)
    return 0.01 * duty * (1 - duty) * 2 / math.pi * seen * trapped


@pytest.mark.parametrize("name", ALONE)
def test_reads_of_a_chip_differ_by_the_closed_form(name):
    """500 trials of 24 currents: each ratio of variances within the bounds of χ², at 1e-5."""
    design = design_of(ALONE[name])
    reads = currents(design, trials=500)[0]
    v = inputs() / design.layers[0].input_scale * IDEAL.v_read
    np.testing.assert_array_less(np.abs(v), IDEAL.v_read)
    traps, _ = cell_traps(design.technology, design.tiles[0], 0, 5)
    ratio = reads.var(axis=0, ddof=1) / expected(name, design, v, traps)
    low, high = chi2.ppf([1e-5, 1 - 1e-5], 499) / 499
    # (Traps of two levels scatter less; filled half of the time, a trap that tends to stay
    # filled has the variance of one that tends to stay empty.)
    assert (ratio > low).all()
    assert (ratio < high).all()
    assert abs(ratio.mean() - 1) < 0.04
    # Noise that is common to a trial's samples, or each sample's own.
    twice = np.stack([inputs()[0], inputs()[0], inputs()[1]])
    pair = currents(design, x=twice, trials=20)[0]
    assert alike(pair[:, 0], pair[:, 1]) == (name in COMMON)


@pytest.mark.parametrize("name", ALONE)
def test_it_is_the_same_from_the_same_seed_and_other_in_another_trial(name):
    design = design_of(ALONE[name])
    first = currents(design, chips=(3, 8), trials=2)
    np.testing.assert_array_equal(first, currents(design, chips=(3, 8), trials=2))
    np.testing.assert_allclose(currents(design, chips=(8,))[0, 0], first[1, 0], rtol=1e-12)
    assert not np.isclose(first[0], first[1], rtol=1e-9).all()
    assert not np.isclose(first[:, 0], first[:, 1], rtol=1e-9).all()
    assert not np.isclose(first, currents(design, chips=(3, 8), trials=2, seed=6), rtol=1e-9).all()


def test_nothing_is_added_when_all_is_off():
    quiet = design_of({"bandwidth": 0.0})
    clean = currents(quiet, trials=3)
    assert (clean == clean[:, :1]).all()
    # Without a bandwidth no mechanism is seen, and nothing else is touched.
    all_set = {**ALONE["shot"], **ALONE["flicker"], **ALONE["slow rtn"], "bandwidth": 0.0}
    np.testing.assert_array_equal(currents(design_of(all_set), trials=3), clean)
    (tile,) = quiet.tiles
    read = Read(quiet.technology, tile, 5, (0,), 3)
    v, current = np.zeros((1, 1, 2, 1, 1, 12)), np.zeros((1, 1, 2, 1, 1, 8))
    assert add_noise(read, tile.g_target[None], v, current) is current


@pytest.mark.parametrize("name", [key for key in ALONE if key not in ("wired thermal", "fast rtn")])
def test_switching_one_on_leaves_the_others_draws(name):
    """What a mechanism adds is the same whichever others are on."""
    others = [ALONE[key] for key in ("read", "thermal", "shot", "flicker", "slow rtn")]
    every = {key: value for changes in others for key, value in changes.items()}
    without = {key: value for key, value in every.items() if key not in ALONE[name]}
    clean = currents(design_of({"bandwidth": 0.0}))
    alone = currents(design_of(ALONE[name]), trials=2) - clean
    added = currents(design_of(every), trials=2) - currents(design_of(without), trials=2)
    # Sums in another order differ in the last digits of the current.
    np.testing.assert_allclose(added, alone, rtol=0, atol=1e-13 * np.abs(clean).max())
    assert np.abs(alone).max() > 1e-6 * np.abs(clean).max()


def test_mechanisms_are_independent():
    """What each adds to 600 currents: correlations below five deviations."""
    x = np.random.default_rng(3).uniform(-1, 1, (75, 12))
    names = ("read", "thermal", "shot", "fast rtn")
    clean = currents(design_of({"bandwidth": 0.0}), x)
    added = [(currents(design_of(ALONE[name]), x) - clean).ravel() for name in names]
    correlation = np.corrcoef(added)
    assert np.abs(correlation - np.eye(len(names))).max() < 5 / math.sqrt(600)


def test_read_and_thermal_draws_are_those_of_earlier_versions():
    """Golden: never regenerate. Standard normals of one bitline, from its own formula."""
    for purpose, changes, golden in (
        (Purpose.READ_NOISE, ALONE["read"], GOLDEN_READ),
        (Purpose.THERMAL_NOISE, ALONE["thermal"], GOLDEN_THERMAL),
    ):
        design = design_of(changes)
        (tile,) = design.tiles
        draw = Read(design.technology, tile, 5, (7,), 2).generator(purpose, 7, 1)
        np.testing.assert_array_equal(draw.standard_normal((3, 1, 1, 8))[2, 0, 0, :3], golden)
        v = (inputs() / design.layers[0].input_scale * IDEAL.v_read)[None, None, :, None, None, :]
        g, current = tile.g_target[None], np.zeros((1, 1, 3, 1, 1, 8))
        found = add_noise(Read(design.technology, tile, 5, (7,), 2), g, v, current)
        name = "read" if purpose is Purpose.READ_NOISE else "thermal"
        sigma = np.sqrt(expected(name, design, v[0, 0, :, 0, 0], None))[2, :3]
        np.testing.assert_allclose(found[0, 1, 2, 0, 0, :3], sigma * golden, rtol=1e-6)


GOLDEN_READ = [0.6870588573259518, 1.8895884677950667, -0.6429388541160013]
GOLDEN_THERMAL = [-0.3585140830923497, 1.059507929311101, -0.8345590565978734]


def test_wires_drivers_and_amplifiers_share_in_the_thermal_noise():
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (2, 6, 4))
    technology = IDEAL.replace(temperature=300.0)
    seen = [
        thermal_sigma(technology, sn.circuit.Crossbar("t", 6, 4, *wires, r_driver=d, r_sense=s), g)
        for wires, d, s in (((0, 0), 0, 0), ((9, 0), 0, 0), ((0, 0), 500, 0), ((0, 0), 0, 500))
    ]
    assert seen[0] == pytest.approx(
        np.sqrt(4 * BOLTZMANN * 300 * 1e8 * g.sum(axis=1)), rel=1e-12, abs=0
    )
    for other in seen[1:]:
        assert (other < seen[0] * (1 - 1e-5)).all()
    # A divider on one cell: the resistances in series.
    one = sn.circuit.Crossbar("t", 1, 1, r_driver=2e3, r_sense=3e3)
    sigma = thermal_sigma(technology, one, np.array([[1e-4]]))
    assert sigma == pytest.approx(math.sqrt(4 * BOLTZMANN * 300 * 1e8 / 15e3), rel=1e-6, abs=0)


def test_nonlinear_cells_are_as_noisy_as_at_rest():
    technology = IDEAL.replace(temperature=300.0)
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (2, 6, 4))
    at_rest = np.sqrt(4 * BOLTZMANN * 300 * 1e8 * g.sum(axis=1))
    sinh = sn.circuit.Crossbar("t", 6, 4, cell=sn.circuit.load_cell("sinh"))
    np.testing.assert_allclose(thermal_sigma(technology, sinh, g), at_rest, rtol=1e-6)
    # A transistor in series conducts less, and one with a higher threshold still less.
    gated = sn.circuit.Crossbar("t", 6, 4, cell=sn.circuit.load_cell("rram_1t1r"))
    whole = thermal_sigma(technology, gated, g)
    assert (whole < at_rest * (1 - 1e-3)).all()
    assert (thermal_sigma(technology, gated, g, {"dvt": np.full(g.shape, 0.1)}) < whole).all()
    # A user's own cell counts with what it is programmed to.
    own = sn.technology.Cell("own", ".subckt own wordline bitline g=1u\n.ends own\n")
    other = sn.circuit.Crossbar("t", 6, 4, cell=own)
    np.testing.assert_allclose(thermal_sigma(technology, other, g), at_rest, rtol=1e-12)


def test_a_failed_chip_stays_nan_and_changes_no_other():
    design = design_of(ALONE["wired thermal"])
    (tile,) = design.tiles
    read = Read(design.technology, tile, 5, (0, 1), 2)
    v, current = np.ones((1, 1, 1, 1, 1, 12)), np.ones((2, 1, 1, 1, 1, 8))
    g = np.stack([tile.g_target] * 2)
    good = add_noise(read, g, v, current)
    current[0] = np.nan
    found = add_noise(read, g, v, current)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1], good[1])


@pytest.mark.parametrize("name", [key for key in ALONE if key != "fast rtn"])
def test_cells_that_drifted_fluctuate_by_what_they_conduct(name):
    """Noise of linear cells that compute their drift: that of resistors which are as faded."""
    design = design_of(ALONE[name] | {"cell": load_cell("pcm"), "drift.time": 1e5})
    (tile,) = design.tiles
    g, nu = tile.g_target[None], np.full((1, 12, 8), 0.05)
    faded = g * ((1e5 + 20.0) / 20.0) ** -nu
    resistors = replace(tile, crossbar=replace(tile.crossbar, cell=OHMIC))
    v, current = np.full((1, 1, 2, 1, 1, 12), 0.2), np.zeros((1, 1, 2, 1, 1, 8))

    def noise(on: PlacedTile, conductance: Any, parameters: Any = None) -> Any:
        read = Read(design.technology, on, 5, (0,), 3)
        return add_noise(read, conductance, v, current, parameters)

    drifted = noise(tile, g, {"nu": nu})
    np.testing.assert_allclose(drifted, noise(resistors, faded), rtol=1e-9, atol=0)
    assert np.abs(drifted).max() < 0.9 * np.abs(noise(resistors, g)).max()


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(12, 4, bias=False).double()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.map(x), self.map(x)


@pytest.mark.parametrize("name", ["flicker", "slow rtn", "fast rtn", "shot"])
def test_what_is_slow_is_common_to_all_uses_of_a_layer(name):
    design = design_of(ALONE[name], Twice())
    with open_engine("nodal") as engine:
        result = run_chips(design, (0,), 5, as_inputs(design, inputs()), engine)
    first, second = result.output.values()
    assert alike(first, second) == (name in COMMON)


def test_traps_belong_to_the_chip():
    technology = IDEAL.replace({"noise.rtn_share": 0.25, "noise.rtn_amplitude": 0.5})
    design = design_of({"noise.rtn_share": 0.25, "noise.rtn_amplitude": 0.5})
    (tile,) = design.tiles
    traps, _ = cell_traps(technology, tile, 0, 5)
    assert 0 < traps.mean() < 0.6
    assert not np.array_equal(traps, cell_traps(technology, tile, 1, 5)[0])
    # One wordline at a time: only cells with a trap fluctuate, and by half of their current.
    x = np.eye(12) * design.layers[0].input_scale
    reads = currents(design, x=x, trials=40)[0]
    spread = np.ptp(reads, axis=0) / reads.mean(axis=0)
    np.testing.assert_array_equal(spread > 1e-6, traps)
    np.testing.assert_allclose(
        np.ptp(reads, axis=0)[traps], 0.5 * IDEAL.v_read * tile.g_target[traps], rtol=1e-5
    )
    # In time they are the same ones.
    read = Read(technology, tile, 5, (0,), 1)
    current = IDEAL.v_read * tile.g_target[:, :, None]
    series = transient_noise(read, 0, 0, tile.g_target, current, 1e-3, 200)
    np.testing.assert_array_equal(series.std(axis=-1) > 1e-3 * current[..., 0], traps)
    again = transient_noise(read, 0, 0, tile.g_target, current, 1e-3, 200)
    np.testing.assert_array_equal(series, again)
    assert not np.array_equal(
        series, transient_noise(read, 0, 1, tile.g_target, current, 1e-3, 200)
    )


@pytest.mark.parametrize("name", ALONE)
def test_the_structural_model_states_the_same_variances(name):
    design = design_of(ALONE[name])
    (moment,) = tile_moments(design)
    technology = design.technology
    # Drives that are uniform, as the quadratic for shot noise has it; many of them.
    fraction = np.random.default_rng(1).uniform(-1, 1, (4000, 12))
    stated = np.square(fraction) @ moment.read.numpy() + moment.thermal.numpy()
    span = technology.v_read * (technology.g_max - technology.g_min)
    every = expected(name, design, fraction * technology.v_read, np.ones((12, 8)))
    if "rtn" in name:
        every = technology.noise.rtn_share * every
    exact = (every[:, 0::2] + every[:, 1::2]) / span**2
    np.testing.assert_allclose(stated.mean(axis=0), exact.mean(axis=0), rtol=5e-3)
    if name != "shot":
        np.testing.assert_allclose(stated, exact, rtol=1e-5)
    else:
        # Twelve drives of a sample: what the quadratic is off by partly cancels.
        assert math.sqrt(np.square(stated / exact - 1).mean()) < 0.1


def test_frozen_traps_are_spread_between_chips():
    changes = {"noise.rtn_share": 0.5, "noise.rtn_amplitude": 0.1, "noise.rtn_time": 10.0}
    design = design_of(changes)
    technology = design.technology
    (moment,) = tile_moments(design)
    assert rtn_static_variance(technology) > 10 * rtn_variance(technology)
    x = np.eye(12) * design.layers[0].input_scale
    reads = currents(design, x=x, chips=range(200))[:, 0]
    difference = (reads[..., 0::2] - reads[..., 1::2]) / (
        technology.v_read * (technology.g_max - technology.g_min)
    )
    whole = np.square(moment.spread.numpy()) + moment.read.numpy() + moment.thermal.numpy()
    # 48 variances of 200 draws each: their mean ratio within 6 %.
    assert (difference.var(axis=0) / whole).mean() == pytest.approx(1.0, abs=0.06)


def test_flicker_is_common_to_samples_but_not_to_cells():
    design = design_of(ALONE["flicker"])
    x = np.eye(12) * design.layers[0].input_scale
    reads = currents(design, x=x, trials=300)[0]
    (tile,) = design.tiles
    z = (reads / (IDEAL.v_read * tile.g_target) - 1) / math.sqrt(
        flicker_variance(design.technology)
    )
    correlation = np.corrcoef(z.reshape(300, -1).T)
    off = correlation[~np.eye(len(correlation), dtype=bool)]
    assert np.abs(off).max() < 5 / math.sqrt(300)
    assert z.var() == pytest.approx(1.0, rel=0.04)
