"""Predistorted inputs: the prediction is the network's, and what it cures and what it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spicenn as sn
from spicenn.circuit import Crossbar
from spicenn.engines.heating import heated, heated_currents, thermal_conductance
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import InputError, TrainingError
from spicenn.technology.heating import Heating
from spicenn.training.feedforward import (
    corrected_inputs,
    design_corrections,
    feed_forward,
    predistort,
    predistorted,
)

HEATING = Heating(alpha=3e-3, r_thermal=1e6, r_coupling=1e6)
ROWS, COLUMNS = 12, 10


def target(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(2e-6, 1e-4, (ROWS, COLUMNS))


def hot_rows(seed: int = 0) -> np.ndarray:
    """Two of twelve rows take nearly all of the power; (3, wordline)."""
    rng = np.random.default_rng(seed)
    v = np.full((3, ROWS), 0.05)
    v[:, :2] = 0.72
    return np.asarray(rng.permuted(v, axis=1) * rng.choice([-1, 1], v.shape))


def error(g: np.ndarray, applied: np.ndarray, v: np.ndarray, heating: Heating = HEATING) -> float:
    found = heated_currents(Crossbar("t", *g.shape), heating, g, applied).current
    return float(np.sqrt(np.mean((found - v @ g) ** 2)) / np.abs(v @ g).max())


@settings(max_examples=15)
@given(seed=st.integers(0, 100))
def test_the_map_is_the_kernels_current_weighted_row_mean(seed):
    """Against the dense kernel and each cell's power, written out."""
    g, v = target(seed), hot_rows(seed)[0]
    kernel = np.linalg.inv(thermal_conductance(HEATING, ROWS, COLUMNS).toarray())
    rise = (kernel @ (g * v[:, None] ** 2).ravel()).reshape(g.shape)
    expected = (g * rise).sum(axis=1) / g.sum(axis=1)
    found = predistort(feed_forward(g, HEATING), v, iterations=1)
    np.testing.assert_allclose(found.rise, expected, rtol=1e-10)
    np.testing.assert_allclose(found.voltage, v / (1 + HEATING.alpha * expected), rtol=1e-12)


@pytest.mark.parametrize("alpha", [3e-3, -3e-3])
def test_cells_that_are_alike_are_corrected_to_nothing(alpha):
    """One conductance, one magnitude: every cell is its row's mean, so the iteration is exact."""
    heating = Heating(alpha=alpha, r_thermal=1e6, r_coupling=1e6)
    g, v = np.full((ROWS, COLUMNS), 5e-5), np.full((1, ROWS), 0.5)
    assert error(g, v, v, heating) > 0.03
    better = corrected_inputs(g, v, heating, iterations=40)
    assert error(g, better, v, heating) < 1e-9


def test_localised_heat_is_cured_and_only_by_its_own_rows():
    """A tenth of a chip's error at most is left; shuffled rows leave half and more."""
    rng = np.random.default_rng(5)
    raw, cured, shuffled = [], [], []
    for seed in range(8):
        g, v = target(seed), hot_rows(seed)
        chip = np.maximum(g + 5e-6 * rng.standard_normal(g.shape), 1e-7)
        correction = feed_forward(g, HEATING)
        raw.append(error(chip, v, v))
        cured.append(error(chip, predistort(correction, v).voltage, v))
        other = correction.shuffled(rng.permutation(ROWS))
        shuffled.append(error(chip, predistort(other, v).voltage, v))
    assert np.mean(raw) > 3.6 * np.mean(cured)
    assert np.mean(shuffled) > 3 * np.mean(cured)


def test_even_heat_is_cured_by_shuffled_rows_as_well():
    rng = np.random.default_rng(6)
    cured, shuffled = [], []
    for seed in range(8):
        g = target(seed)
        v = 0.3 * rng.choice([-1.0, 1.0], (3, ROWS))
        correction = feed_forward(g, HEATING)
        cured.append(error(g, predistort(correction, v).voltage, v))
        other = correction.shuffled(rng.permutation(ROWS))
        shuffled.append(error(g, predistort(other, v).voltage, v))
    assert np.mean(shuffled) == pytest.approx(np.mean(cured), rel=0.35, abs=0)


def test_the_drivers_limit_is_kept_and_said():
    metallic = Heating(alpha=-3e-3, r_thermal=1e6, r_coupling=1e6)
    g, v = target(), np.full((1, ROWS), 0.5)
    free = predistort(feed_forward(g, metallic), v)
    assert (free.voltage > 0.5).all()
    assert not free.clipped.any()
    limited = predistort(feed_forward(g, metallic, v_limit=0.5), v)
    assert (limited.voltage == 0.5).all()
    assert limited.clipped.all()


def test_tensors_give_the_same_and_a_gradient():
    g, v = target(), hot_rows()
    correction = feed_forward(g, HEATING)
    tensor = torch.tensor(v, requires_grad=True)
    found = predistort(correction, tensor).voltage
    np.testing.assert_allclose(
        found.detach().numpy(), predistort(correction, v).voltage, rtol=1e-13
    )
    assert torch.autograd.gradcheck(lambda x: predistort(correction, x).voltage, tensor)


def test_leading_axes_are_kept_and_samples_do_not_mix():
    correction, v = feed_forward(target(), HEATING), hot_rows()
    found = predistort(correction, v[None, :, None]).voltage
    assert found.shape == (1, 3, 1, ROWS)
    np.testing.assert_allclose(found[0, 1, 0], predistort(correction, v[1]).voltage, rtol=1e-12)


def test_a_designs_chips_run_hot_and_corrected():
    """Through the whole of a chip's run: what is left is less than what heat does."""
    torch.manual_seed(0)
    technology = sn.Technology.preset("rram-1r").replace(
        {"g_max": 1e-4, "v_read": 0.6, "r_wordline": 0.0, "r_bitline": 0.0, "read_noise": 0.0}
    )
    mapping = sn.Mapping(bias="digital", input_bits=None, adc_bits=None)
    x = torch.rand(6, 16) ** 3
    design = sn.compile(
        nn.Linear(16, 6), x[:2], technology=technology, mapping=mapping, calibration=x
    )
    corrections = design_corrections(design, HEATING)
    chip = design.sample(chip=0, seed=1)
    with NodalEngine() as engine:
        cold = chip.run(x, engine)
        hot = chip.run(x, heated(engine, HEATING))
        cured = chip.run(x, predistorted(heated(engine, HEATING), corrections))
        with pytest.raises(InputError, match="no correction"):
            chip.run(x, predistorted(engine, {}))
    before, after = (np.sqrt(np.mean((y - cold) ** 2)) for y in (hot, cured))
    assert after < before / 3


def test_what_does_not_fit_is_refused():
    correction = feed_forward(target(), HEATING)
    with pytest.raises(InputError, match="expected"):
        predistort(correction, np.ones(ROWS + 1))
    with pytest.raises(InputError, match="iterations"):
        predistort(correction, np.ones(ROWS), iterations=0)
    with pytest.raises(InputError, match="g_target"):
        feed_forward(-target(), HEATING)
    with pytest.raises(InputError, match="v_limit"):
        feed_forward(target(), HEATING, v_limit=math.nan)
    metallic = Heating(alpha=-3e-3, r_thermal=1e6)
    with pytest.raises(TrainingError, match="no conductance"):
        predistort(feed_forward(target(), metallic), np.full(ROWS, 3.0))
