"""A chip's transient with the noise of its cells: size, reproducibility, what it needs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import spicenn as sn
from spicenn.compiler.analog import analog_chip
from spicenn.errors import InputError
from spicenn.technology.noise import BOLTZMANN

BANDWIDTH = 1e9


def linear_chip(**changes):
    """One layer without bias, ideal wires and amplifiers: outputs are differences of currents."""
    torch.manual_seed(0)
    model, x = torch.nn.Linear(6, 3, bias=False), torch.rand(1, 6)
    technology = sn.Technology.preset("ideal").replace({"bandwidth": BANDWIDTH, **changes})
    design = sn.compile(model, x, technology=technology, calibration=x)
    return design.sample(chip=0, seed=1), x


@pytest.mark.ngspice
@pytest.mark.slow
def test_the_outputs_noise_is_what_all_cells_give():
    """4kT Σg up to the bandwidth, in straight lines from draw to draw, which keep two thirds.

    1,000 independent draws of three outputs: within 6 % (four standard errors).
    """
    chip, x = linear_chip()
    seen = chip.transient(x, stop=500e-9, noise=True)
    (stage,) = analog_chip(chip).network.stages
    g = stage.blocks[0].cells.g.sum(0)
    density = 4 * BOLTZMANN * 300.0 * (g[0::2] + g[1::2])
    expected = stage.r_feedback * np.sqrt(density * BANDWIDTH * 2 / 3)
    late = np.linspace(50e-9, 500e-9, 20001)  # evenly in time, whatever the steps
    found = np.array([np.interp(late, seen.time, y).std() for y in seen.outputs[0].T])
    np.testing.assert_allclose(found, expected, rtol=0.06)


@pytest.mark.ngspice
def test_a_trial_is_the_same_again_and_another_differs():
    chip, x = linear_chip()
    first, again, other = (
        chip.transient(x, stop=20e-9, noise=True, trial=trial).outputs[0] for trial in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
    still = chip.transient(x, stop=20e-9).outputs[0]
    assert np.abs(first[-1] - still[-1]).max() > 1e-6


def test_what_a_noisy_transient_needs():
    chip, x = linear_chip()
    with pytest.raises(InputError, match="duration, stop"):
        chip.transient(x, noise=True)
    with pytest.raises(InputError, match="one"):
        chip.transient(torch.rand(2, 6))
    quiet, x = linear_chip(bandwidth=0.0)
    with pytest.raises(InputError, match="bandwidth"):
        quiet.transient(x, stop=1e-8, noise=True)
