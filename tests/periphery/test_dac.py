"""A DAC's levels, its drawn steps measured by their end points, and the circuit's voltages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spicenn.errors import InputError, NetlistError
from spicenn.periphery.dac import dac_instance, dac_output, levels, subcircuit
from spicenn.periphery.linearity import end_point
from spicenn.technology import Converter


def test_levels_are_even_and_codes_past_the_ends_saturate():
    table = levels(3, Converter())
    np.testing.assert_allclose(table, np.arange(8) / 7, rtol=1e-12)
    codes = np.array([-2.0, 0.0, 1.0, 6.4, 7.0, 9.0])
    expected = np.array([0, 0, 1, 6, 7, 7]) / 7
    np.testing.assert_allclose(dac_output(codes, table), expected)
    np.testing.assert_allclose(dac_output(torch.as_tensor(codes), table).numpy(), expected)
    np.testing.assert_array_equal(levels(1, Converter(inl=3.0, dnl=3.0)), [0, 1])


def test_drawn_converters_measure_to_the_deviations_asked_for():
    spec = Converter(inl=-0.8, dnl=0.15)
    drawn = levels(6, spec, np.random.default_rng(5), (300,))
    assert drawn.shape == (300, 64)
    np.testing.assert_array_equal(drawn[:, [0, -1]], np.tile([0.0, 1.0], (300, 1)))
    dnl, inl = end_point(drawn)
    # 18900 steps; the bow's own spread of steps is 0.03 and adds in square.
    bow = np.std(end_point(levels(6, Converter(inl=-0.8)))[0])
    assert dnl.std() == pytest.approx(math.hypot(0.15, bow), abs=4 * 0.15 / math.sqrt(2 * 18900))
    # A bridge's deviation in the middle is sigma sqrt(63) / 2.
    middle = 0.15 * math.sqrt(63) / 2
    assert inl[:, 31].mean() == pytest.approx(-0.8, abs=4 * middle / math.sqrt(300))
    assert inl[:, 31].std() == pytest.approx(middle, rel=4 / math.sqrt(600))


def test_inl_is_the_peak_whatever_the_parity_of_steps():
    for bits in (2, 3, 8):
        _, inl = end_point(levels(bits, Converter(inl=0.5)))
        assert inl.max() == pytest.approx(0.5, rel=1e-9)


def test_it_is_monotone_unless_a_step_is_below_0():
    rng = np.random.default_rng(2)
    for sigma in (0.1, 0.6):
        drawn = levels(6, Converter(dnl=sigma), rng, (50,))
        dnl, _ = end_point(drawn)
        backwards = np.diff(drawn, axis=-1) < 0
        np.testing.assert_array_equal(backwards, dnl < -1)
        assert backwards.any() == (sigma > 0.5)


@pytest.mark.ngspice
def test_both_circuits_give_the_models_voltages_also_past_the_ends(simulate):
    spec = Converter(inl=0.6)
    drawn = levels(4, Converter(inl=0.6, dnl=0.5), np.random.default_rng(1))
    lines = [
        subcircuit("drawn", drawn, 0.2, 1e3), "vk k 0 0", "xd k a drawn",
        dac_instance("n", ("k", "b"), 4, 0.2, spec, 1e3),
        dac_instance("one", ("k", "c"), 1, 0.2, spec, 1e3), "rc c 0 3k",
    ]  # fmt: skip
    found = simulate(["dac"], lines, ".dc vk -3 19 1", ["v(a)", "v(b)", "v(c)"])
    code = np.arange(-3, 20)
    np.testing.assert_allclose(found["v(a)"], 0.2 * dac_output(code, drawn), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        found["v(b)"], 0.2 * dac_output(code, levels(4, spec)), rtol=1e-9, atol=1e-12
    )
    # A load divides by the output's resistance.
    np.testing.assert_allclose(found["v(c)"], 0.15 * np.clip(code, 0, 1), rtol=1e-9, atol=1e-12)


def test_tables_have_bounds():
    with pytest.raises(InputError, match="21 bits"):
        levels(21, Converter())
    with pytest.raises(NetlistError):
        subcircuit("d", np.zeros(1), 1.0, 1e3)
    with pytest.raises(NetlistError):
        subcircuit("d", np.zeros(4), 1.0, 0.0)
