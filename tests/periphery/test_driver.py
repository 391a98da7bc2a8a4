"""Driver: what its resistance costs in voltage, and what the supply pays."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spicenn.periphery.driver import driver_instance, driver_output, supply_current
from spicenn.technology import Driver


@pytest.mark.ngspice
@pytest.mark.parametrize("resistance", [0.0, 250.0])
def test_voltage_and_supply_current_are_the_circuits(simulate, resistance):
    spec = Driver(resistance=resistance, bias_current=3e-6)
    lines = [
        "vin in 0 0", "vdd vdd 0 1.8", "rword word 0 2k",
        driver_instance("d", ("in", "word", "vdd"), spec),
    ]  # fmt: skip
    found = simulate(["driver"], lines, ".dc vin -0.2 0.2 0.05", ["v(word)", "i(vdd)", "i(vin)"])
    v = -0.2 + 0.05 * np.arange(9)
    word = driver_output(v, 1 / 2e3, spec)
    np.testing.assert_allclose(found["v(word)"], word, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(-found["i(vdd)"], supply_current(word / 2e3, spec), rtol=1e-6)
    np.testing.assert_allclose(found["i(vin)"], 0.0, atol=1e-15)  # drawn from whoever drives it


def test_tensors_give_the_same():
    spec = Driver(resistance=100.0, bias_current=1e-6)
    v = torch.linspace(-1, 1, 5, dtype=torch.float64)
    np.testing.assert_allclose(
        driver_output(v, 1e-3, spec).numpy(), driver_output(v.numpy(), 1e-3, spec)
    )
    np.testing.assert_allclose(
        supply_current(v, spec).numpy(), 1e-6 + np.abs(v.numpy()), rtol=1e-14
    )
