"""An ADC's codes, its drawn steps measured as a laboratory would, and the circuit's codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spicenn.errors import InputError, NetlistError
from spicenn.periphery.adc import adc_instance, codes, subcircuit, transitions
from spicenn.periphery.linearity import end_point
from spicenn.technology import Converter

LINEAR = Converter()


def test_codes_are_the_nearest_and_saturate_at_the_edges_and_past_them():
    levels = transitions(3, 0.1, LINEAR)
    np.testing.assert_allclose(levels, 0.1 * (np.arange(-3, 4) - 0.5))
    v = np.array([-9.0, -0.4, -0.36, -0.34, -0.04, 0.0, 0.04, 0.06, 0.24, 0.26, 0.3, 9.0])
    expected = [-4, -4, -4, -3, 0, 0, 0, 1, 2, 3, 3, 3]
    np.testing.assert_array_equal(codes(v, levels), expected)
    np.testing.assert_array_equal(codes(torch.as_tensor(v), levels).numpy(), expected)
    assert codes(v.reshape(3, 4), levels).shape == (3, 4)
    # A level belongs to the code above it.
    np.testing.assert_array_equal(codes(levels, levels), np.arange(-3, 4))
    np.testing.assert_array_equal(codes(torch.as_tensor(levels), levels), np.arange(-3, 4))


def test_inl_is_the_peak_of_the_end_point_fit_and_leaves_the_ends():
    for inl in (2.0, -1.5):
        dnl, measured = end_point(transitions(6, 0.02, Converter(inl=inl)))
        assert measured[np.abs(measured).argmax()] == pytest.approx(inl, rel=1e-9)
        assert np.abs(measured[[0, -1]]).max() < 1e-9
        # A smooth bow: over the 62 steps no one deviates by more than 4 inl / 62.
        assert np.abs(dnl).max() < 4 * abs(inl) / 62 * 1.01


def test_drawn_converters_measure_to_the_deviation_asked_for():
    """End points, then the histogram of a ramp: what a test house does (IEEE 1241)."""
    bits, sigma, lsb = 8, 0.2, 1 / 128
    rng = np.random.default_rng(3)
    widths, bows = [], []
    for _ in range(100):
        levels = transitions(bits, lsb, Converter(inl=1.0, dnl=sigma), rng)
        assert np.all(np.diff(levels) >= 0)
        np.testing.assert_allclose(levels[[0, -1]], [-127.5 * lsb, 126.5 * lsb], rtol=1e-12)
        dnl, inl = end_point(levels)
        ramp = np.linspace(levels[0], levels[-1], 40 * 254 + 1)[:-1]
        count = np.bincount(codes(ramp, levels) + 127, minlength=254)
        np.testing.assert_allclose(count / 40 - 1, dnl, atol=1.01 / 40)
        widths.append(dnl)
        bows.append(inl)
    # 25400 widths: the deviation of their deviation is 0.0009, the bow's own share 0.0001.
    assert np.std(widths) == pytest.approx(sigma, abs=4 * 0.0009)
    # The mean over converters is the bow; in the middle one wanders by sigma sqrt(254) / 2.
    middle = sigma * math.sqrt(254) / 2
    assert np.mean(bows, axis=0)[127] == pytest.approx(1.0, abs=4 * middle / 10)
    assert np.std(bows, axis=0)[127] == pytest.approx(middle, rel=4 / math.sqrt(200))


def test_a_width_below_0_is_a_missing_code_and_the_order_stays():
    levels = transitions(6, 1.0, Converter(dnl=1.0), np.random.default_rng(0))
    dnl, _ = end_point(levels)
    assert dnl.min() == -1.0
    assert np.all(np.diff(levels) >= 0)
    seen = codes(np.linspace(-40, 40, 80001), levels)
    assert np.all(np.diff(seen) >= 0)
    assert len(np.unique(seen)) == 64 - np.count_nonzero(dnl == -1.0)


def test_the_same_generator_draws_the_same_converter_and_none_draws_the_nominal_one():
    spec = Converter(dnl=0.3)
    one, two = (transitions(5, 0.1, spec, np.random.default_rng(k)) for k in (4, 4))
    np.testing.assert_array_equal(one, two)
    nominal = transitions(5, 0.1, spec)
    np.testing.assert_allclose(nominal, transitions(5, 0.1, LINEAR))
    assert not np.allclose(one, nominal)


@pytest.mark.ngspice
def test_the_flash_circuit_gives_the_models_codes_at_and_past_every_edge(simulate):
    levels = transitions(4, 0.11, Converter(inl=0.7, dnl=0.4), np.random.default_rng(8))
    # Just below and above every level, in between, and far past both ends.
    v = np.sort(
        np.concatenate([levels - 1e-6, levels + 1e-6, np.linspace(-1.5, 1.5, 31), [-50.0, 50.0]])
    )
    table = ",".join(f"{k},{x!r}" for k, x in enumerate(v.tolist()))
    lines = [
        subcircuit("flash", levels), "vk k 0 0", f"bin in 0 v=pwl(v(k),{table})",
        "xa in code flash",
    ]  # fmt: skip
    found = simulate(["adc"], lines, f".dc vk 0 {len(v) - 1} 1", ["v(code)"])["v(code)"]
    np.testing.assert_array_equal(np.rint(found), codes(v, levels))
    np.testing.assert_allclose(found, np.rint(found), atol=1e-9)
    assert {codes(v, levels).min(), codes(v, levels).max()} == {-8, 7}


@pytest.mark.ngspice
def test_the_linear_circuit_gives_the_linear_models_codes(simulate):
    levels = transitions(5, 0.03125, LINEAR)
    v = np.sort(np.concatenate([levels - 1e-9, levels + 1e-9, [-7.0, 7.0]]))
    table = ",".join(f"{k},{x!r}" for k, x in enumerate(v.tolist()))
    lines = [
        "vk k 0 0", f"bin in 0 v=pwl(v(k),{table})",
        adc_instance("a", ("in", "code"), 5, 0.03125),
    ]  # fmt: skip
    found = simulate(["adc"], lines, f".dc vk 0 {len(v) - 1} 1", ["v(code)"])["v(code)"]
    np.testing.assert_array_equal(found, codes(v, levels))


def test_tables_have_bounds():
    for bits in (0, 21):
        with pytest.raises(InputError, match="table"):
            transitions(bits, 0.1, LINEAR)
    for levels in (np.zeros(4), np.array([0.0, math.nan, 1.0])):
        with pytest.raises(NetlistError):
            subcircuit("flash", levels)
