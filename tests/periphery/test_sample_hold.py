"""Sample and hold: acquisition, droop and noise as the circuit's and as the textbook's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spicenn.periphery.sample_hold import (
    acquired,
    acquisition_time,
    held,
    sample_hold_instance,
    sampling_noise,
)
from spicenn.technology import SampleHold

SPEC = SampleHold(resistance=2e3, capacitance=0.5e-12, leakage=2e-9)


@pytest.mark.ngspice
def test_it_acquires_and_droops_as_the_circuit(simulate):
    """Sampled for 5 ns at 1 ns time constant, then held while the input goes away."""
    lines = [
        "vin in 0 pwl(0 0.6 7n 0.6 8n -0.3)", "vclk clk 0 pwl(0 1 5n 1 5.001n 0)",
        sample_hold_instance("s", ("in", "out", "clk"), SPEC), ".ic v(out)=0",
        "rload out 0 1k",
    ]  # fmt: skip
    # The capacitor starts empty: uic leaves out the operating point.
    found = simulate(["sample_hold"], lines, ".tran 5p 1u 0 200p uic", ["time", "v(out)"])
    t, out = found["time"], found["v(out)"]
    for at in (1e-9, 3e-9, 4.9e-9):
        expected = acquired(0.6, 0.0, at, SPEC)
        assert np.interp(at, t, out) == pytest.approx(expected, rel=2e-3)
    sampled = acquired(0.6, 0.0, 5.0005e-9, SPEC)
    assert np.interp(1e-6, t, out) == pytest.approx(held(sampled, 1e-6 - 5e-9, SPEC), rel=1e-3)
    # The droop is there: 4 mV in a microsecond.
    assert np.interp(1e-8, t, out) - out[-1] == pytest.approx(
        2e-9 / 0.5e-12 * (t[-1] - 1e-8), rel=1e-3
    )


def test_a_step_is_within_the_tolerance_after_the_acquisition_time():
    spec = SampleHold(resistance=2e3, capacitance=0.5e-12)
    t = acquisition_time(1e-3, spec)
    assert acquired(1.0, 0.0, t, spec) == pytest.approx(1 - 1e-3)
    assert t == pytest.approx(6.9078 * 1e-9, rel=1e-4, abs=0)
    x = torch.tensor([0.2, 0.4], dtype=torch.float64)
    np.testing.assert_allclose(
        acquired(x, 0.1, t, spec).numpy(), acquired(x.numpy(), 0.1, t, spec), rtol=1e-14
    )


def test_sampling_noise_is_kt_over_c():
    # sqrt(kT/C): 64.4 µV at 1 pF and 300 K.
    assert sampling_noise(SampleHold(capacitance=1e-12), 300.0) == pytest.approx(64.36e-6, rel=1e-3)
    assert math.isclose(held(0.5, 1e-6, SPEC), 0.5 - 4e-3)
