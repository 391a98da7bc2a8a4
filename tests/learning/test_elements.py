"""Laws of transistors, resistors and diodes, against their formulas and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError
from spicenn.learning.elements import (
    Diode,
    Resistor,
    Transistor,
    diode_current,
    transistor_current,
)

S, VT = 8.5e-4, 0.7
VOLTS = st.floats(-2.0, 2.0)


def transistor(gate: float, a: float, b: float) -> tuple[float, float, float]:
    found = transistor_current(*(np.array(x) for x in (gate, VT, S, a, b)))
    return float(found[0]), float(found[1]), float(found[2])


@given(gate=st.floats(3.0, 5.0), a=VOLTS, b=VOLTS)
def test_in_triode_it_is_a_conductance_of_gate_threshold_and_mean_voltage(
    gate: float, a: float, b: float
) -> None:
    current, *_ = transistor(gate, a, b)
    assert current == pytest.approx(S * (gate - VT - (a + b) / 2) * (a - b), rel=1e-9, abs=1e-16)


def test_saturated_its_current_is_that_of_the_square_law_whatever_the_drain() -> None:
    for drain in (1.4, 2.0, 30.0):
        current, by_drain, by_source = transistor(2.0, drain, 0.1)
        assert current == pytest.approx(S / 2 * (2.0 - VT - 0.1) ** 2, rel=1e-12, abs=0)
        assert by_drain == 0
        assert by_source == pytest.approx(-S * (2.0 - VT - 0.1), rel=1e-12, abs=0)


@given(gate=st.floats(-1.0, 0.69), a=st.floats(0.0, 2.0), b=st.floats(0.0, 2.0))
def test_below_its_threshold_it_is_off(gate: float, a: float, b: float) -> None:
    assert transistor(gate, a, b) == (0.0, 0.0, -0.0)


@given(gate=st.floats(0.0, 5.0), a=VOLTS, b=VOLTS)
def test_its_ends_are_alike_and_its_slopes_are_those_of_its_current(
    gate: float, a: float, b: float
) -> None:
    current, by_a, by_b = transistor(gate, a, b)
    assert transistor(gate, b, a)[0] == -current
    h = 1e-5
    # The law is quadratic in pieces: a central difference is off by S h / 4 at a corner.
    for k, slope in ((0, by_a), (1, by_b)):
        ends = [[a, b], [a, b]]
        ends[0][k] += h
        ends[1][k] -= h
        change = (transistor(gate, *ends[0])[0] - transistor(gate, *ends[1])[0]) / (2 * h)
        assert slope == pytest.approx(change, rel=1e-6, abs=S * h)


def test_a_diode_is_shockleys() -> None:
    thermal = Diode(emission=1.5).thermal_voltage(300.15)
    assert thermal == pytest.approx(1.5 * 1.380649e-23 * 300.15 / 1.602176634e-19, rel=1e-9, abs=0)
    volts = np.array([-1.0, -0.01, 0.0, 0.3, 0.7])
    current, slope = diode_current(np.array(1e-12), np.array(thermal), volts)
    np.testing.assert_allclose(current, 1e-12 * np.expm1(volts / thermal), rtol=1e-12, atol=1e-27)
    np.testing.assert_allclose(slope, 1e-12 / thermal * np.exp(volts / thermal), rtol=1e-12)


@given(volts=st.floats(-1.0, 3.0), emission=st.floats(0.05, 2.0))
def test_a_diodes_slope_is_that_of_its_current_also_where_it_is_its_tangent(
    volts: float, emission: float
) -> None:
    thermal = np.array(Diode(emission=emission).thermal_voltage(300.15))
    h = 1e-4 * float(thermal)
    (low, slope_low), (high, slope_high) = (
        diode_current(np.array(1e-12), thermal, np.array(volts + d)) for d in (-h, h)
    )
    change = float(high - low) / (2 * h)
    assert math.isfinite(change)
    at = float(diode_current(np.array(1e-12), thermal, np.array(volts))[1])
    assert at == pytest.approx(change, rel=1e-3, abs=1e-14)
    assert slope_low <= slope_high


def test_what_learns() -> None:
    assert Transistor().learns
    assert not Transistor(gate=2.0).learns
    assert Resistor(learns=True).learns
    assert not Resistor().learns
    assert not Diode().learns


@pytest.mark.parametrize(
    "make",
    [
        lambda: Transistor(transconductance=0.0),
        lambda: Transistor(gate=math.nan),
        lambda: Resistor(conductance=-1e-9),
        lambda: Resistor(conductance=math.inf),
        lambda: Diode(saturation=0.0),
        lambda: Diode(emission=-1.0),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"positive|finite|negative"):
        make()
