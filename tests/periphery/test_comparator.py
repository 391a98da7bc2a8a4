"""Comparator: threshold, gain, offset and delay as the circuit's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spicenn.periphery.comparator import (
    comparator_instance,
    comparator_output,
    decision_time,
)
from spicenn.periphery.mismatch import draw_offset
from spicenn.technology import Comparator

SPEC = Comparator(gain=500.0, v_high=1.2, delay=2e-9, bias_current=5e-6)
NODES = ("p", "m", "out", "vdd")


@pytest.mark.ngspice
def test_its_transfer_curve_is_the_circuits(simulate):
    lines = [
        "vp p 0 0", "vm m 0 0.3", "vdd vdd 0 1.8",
        comparator_instance("c", NODES, SPEC, 4e-3),
    ]  # fmt: skip
    found = simulate(["comparator"], lines, ".dc vp 0.2 0.4 2m", ["v(out)", "i(vdd)"])
    v = 0.2 + 2e-3 * np.arange(101)
    expected = comparator_output(v, 0.3, SPEC, 4e-3)
    np.testing.assert_allclose(found["v(out)"], expected, atol=1e-9)
    np.testing.assert_allclose(found["i(vdd)"], -5e-6, rtol=1e-6)
    assert expected[0] < 1e-12
    assert expected[-1] == pytest.approx(1.2)
    # The offset moves the threshold, the gain is the slope there.
    at = comparator_output(np.array([0.304 - 1e-6, 0.304, 0.304 + 1e-6]), 0.3, SPEC, 4e-3)
    assert at[1] == pytest.approx(0.6)
    assert (at[2] - at[0]) / 2e-6 == pytest.approx(500.0, rel=1e-5)


@pytest.mark.ngspice
@pytest.mark.parametrize("overdrive", [0.1, 2e-3])
def test_its_output_is_half_way_up_after_the_decision_time(simulate, overdrive):
    lines = [
        f"vp p 0 pwl(0 -0.1 1n -0.1 1.001n {overdrive})", "vm m 0 0", "vdd vdd 0 1.8",
        comparator_instance("c", NODES, SPEC),
    ]  # fmt: skip
    found = simulate(["comparator"], lines, ".tran 5p 12n 0 5p", ["time", "v(out)"])
    crossed = np.interp(0.6, found["v(out)"], found["time"]) - 1e-9
    assert crossed == pytest.approx(decision_time(SPEC, overdrive), rel=5e-3, abs=0)


def test_a_large_overdrive_takes_tau_ln_2_and_none_takes_for_ever():
    assert decision_time(SPEC) == pytest.approx(2e-9 * math.log(2), rel=1e-9, abs=0)
    assert decision_time(SPEC, 0.0) == math.inf


def test_tensors_give_the_same_and_offsets_have_the_records_deviation():
    v = torch.linspace(-0.01, 0.01, 9, dtype=torch.float64)
    np.testing.assert_allclose(
        comparator_output(v, 0.0, SPEC).numpy(), comparator_output(v.numpy(), 0.0, SPEC)
    )
    drawn = draw_offset(Comparator(offset=2e-3), np.random.default_rng(0), (10000,))
    assert drawn.std() == pytest.approx(2e-3, rel=4 / math.sqrt(20000))
