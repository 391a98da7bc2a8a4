"""The memristor's law: what its equations say, and where its state goes under a voltage."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff.memristor import Memristor, integrate, respond

LAW = Memristor()
MIDDLE = 1e-9
KT = 8.617333262e-5 * 300.0


def trapezoid(amplitude: float, width: float, edge: float = 1e-9) -> tuple[np.ndarray, np.ndarray]:
    time = np.cumsum([0.0, edge, edge, width, edge, edge])
    return time, amplitude * np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])


def loop_area(frequency: float, amplitude: float = 1.0) -> float:
    """Area [W] of the second period of a sine in the plane of voltage and current."""
    time = np.linspace(0.0, 2.0, 401) / frequency
    u = amplitude * np.sin(2 * np.pi * frequency * time)
    state = respond(LAW, time, u, LAW.state_of_conductance(1e-4), rtol=1e-7)
    i = LAW.current(u, state)
    assert np.abs(i[[0, 200, 400]]).max() < 1e-12 * np.abs(i).max()  # pinched at the origin
    # Both lobes counted, whichever way round each goes.
    return float(sum(abs(np.trapezoid(i[k : k + 101], u[k : k + 101])) for k in (200, 300)))


def test_the_law_is_the_published_one():
    """Guan 2012 and Jiang 2014, written out, far from the walls and inside both bounds."""
    u, gap = np.array([-0.7, -0.1, 0.2, 0.74]), np.array([0.5e-9, 0.9e-9, 1.0e-9, 1.3e-9])
    current = 1e-3 * np.exp(-gap / 0.25e-9) * np.sinh(u / 0.25)
    np.testing.assert_allclose(LAW.current(u, gap), current, rtol=1e-12)
    gamma = 16 - 0.8 * (gap / 1e-9) ** 3
    velocity = -10 * math.exp(-0.6 / KT) * np.sinh(gamma * 0.25 / 12 * u / KT)
    np.testing.assert_allclose(LAW.rate(u, gap), velocity, rtol=1e-10)


def test_both_bounds_are_continuous_with_their_slope():
    field = LAW.thickness * LAW.ea / (LAW.a0 * (16 - 0.8))  # takes the barrier away at 1 nm
    for knee, function in ((3 * LAW.v0, LAW.current), (field, LAW.rate)):
        for sign in (-1, 1):
            u = sign * knee * (1 + np.array([-2e-6, -1e-6, 0.0, 1e-6, 2e-6]))
            slope = np.diff(function(u, np.full(5, MIDDLE))) / np.diff(u)
            np.testing.assert_allclose(slope, slope[0], rtol=2e-4)


def test_far_beyond_the_barrier_nothing_overflows():
    u = np.array([-1e6, 1e6])
    assert np.isfinite(LAW.rate(u, np.full(2, MIDDLE))).all()
    assert np.isfinite(LAW.current(u, np.full(2, MIDDLE))).all()


@given(st.floats(1e-9, 1e-2))
def test_state_and_conductance_are_inverse(g):
    assert LAW.conductance_of_state(LAW.state_of_conductance(g)) == pytest.approx(
        g, rel=1e-13, abs=0
    )


def test_the_range_is_the_documented_one():
    assert pytest.approx(4.45e-6, rel=1e-2, abs=0) == LAW.g_min
    assert pytest.approx(1.80e-3, rel=1e-2, abs=0) == LAW.g_max


@given(st.floats(-5, 5), st.floats(0.0, 3e-9), st.floats(200, 450))
def test_a_voltage_moves_the_state_one_way_only(u, gap, temperature):
    """Positive closes, negative opens, none does nothing; beyond a wall there is no outwards."""
    law = replace(LAW, temperature=temperature)
    rate = float(law.rate(np.float64(u), np.float64(gap)))
    assert rate == 0 if u == 0 else rate * u <= 0
    if gap <= law.gap_min:
        assert rate >= 0
    if gap >= law.gap_max:
        assert rate <= 0


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.floats(-3, 3), st.floats(1e-9, 1e-3), st.floats(1e-10, 1e-8)),
        min_size=1,
        max_size=3,
    ),
    st.floats(0, 1),
)
def test_no_pulse_drives_the_state_out_of_its_range(pulses, share):
    state = LAW.gap_min + share * (LAW.gap_max - LAW.gap_min)
    for amplitude, width, edge in pulses:
        states = respond(LAW, *trapezoid(amplitude, width, edge), state)
        assert states.min() >= LAW.gap_min * (1 - 1e-7)
        assert states.max() <= LAW.gap_max * (1 + 1e-7)
        state = float(states[-1])


def test_set_closes_and_reset_opens():
    for amplitude, sign in ((1.2, -1), (-1.2, 1)):
        states = respond(LAW, *trapezoid(amplitude, 1e-7), MIDDLE)
        assert np.all(sign * np.diff(states) >= 0)
        assert sign * (states[-1] - MIDDLE) > 1e-11


def test_no_voltage_changes_nothing():
    np.testing.assert_array_equal(respond(LAW, *trapezoid(0.0, 1.0), MIDDLE), MIDDLE)


def test_hysteresis_is_pinched_and_closes_with_frequency():
    areas = [loop_area(frequency) for frequency in (1e5, 1e6, 1e7, 1e8)]
    assert all(fast < 0.5 * slow for slow, fast in pairwise(areas)), areas


def test_heat_makes_it_faster():
    moved = [
        MIDDLE - respond(replace(LAW, temperature=t), *trapezoid(0.9, 1e-8), MIDDLE)[-1]
        for t in (280.0, 300.0, 350.0)
    ]
    assert moved[0] < moved[1] < moved[2]


def test_an_open_cell_stays_open():
    """So wide a gap has no field at its tip."""
    gap = LAW.state_of_conductance(1e-12)
    assert respond(LAW, *trapezoid(3.0, 1e-3), gap)[-1] == gap


def test_many_pulses_are_one_of_their_length_in_all():
    """What makes a million reads as cheap as one: an error of the second order."""
    time, u = trapezoid(0.5, 1e-8)
    state = MIDDLE
    for _ in range(20):
        state = float(respond(LAW, time, u, state)[-1])
    longer = respond(LAW, 20 * time, u, MIDDLE)[-1]
    assert longer - MIDDLE == pytest.approx(state - MIDDLE, rel=1e-5, abs=0)
    assert abs(state - MIDDLE) > 1e-15


def test_a_small_change_is_as_exact_as_a_large_one():
    """Against the rate times the time, where the state hardly moves."""
    time = np.array([0.0, 1e-9])
    change = integrate(lambda t, x: LAW.rate(np.array([0.1]), MIDDLE + x), time, 1)[-1, 0]
    exact = float(LAW.rate(0.1, MIDDLE)) * 1e-9
    assert change == pytest.approx(exact, rel=1e-6, abs=0)
    assert abs(exact) < 1e-17


def test_tensors_and_arrays_agree():
    u, gap = np.linspace(-2, 2, 41), np.linspace(0.1e-9, 1.8e-9, 41)
    for function in (LAW.current, LAW.rate):
        tensor = function(torch.from_numpy(u), torch.from_numpy(gap))
        np.testing.assert_allclose(tensor.numpy(), function(u, gap), rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"v0": 0.0}, "v0 = 0.0 is out of range"),
        ({"vel0": math.nan}, "vel0 = nan is out of range"),
        ({"temperature": -1.0}, "temperature"),
        ({"gap_max": 0.1e-9}, "gap_min = 2e-10 is not below"),
        ({"gap_max": 3e-9}, "gap_max.*choose a smaller gap_max or beta"),
    ],
)
def test_parameters_out_of_range_are_named(change, words):
    with pytest.raises(InputError, match=words):
        Memristor(**change)


def test_a_waveform_that_does_not_fit_is_refused():
    with pytest.raises(InputError, match="must rise"):
        respond(LAW, np.array([0.0, 1.0, 1.0]), np.zeros(3), MIDDLE)
    with pytest.raises(InputError, match="must rise"):
        respond(LAW, np.array([0.0, 1.0]), np.zeros(3), MIDDLE)


def test_an_integration_that_fails_is_an_error():
    with pytest.raises(ConvergenceError, match="integration failed"):
        integrate(lambda t, x: x * math.nan, np.array([0.0, 1.0]), 1)
