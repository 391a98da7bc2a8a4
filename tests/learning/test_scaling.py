"""Exponents: exact of exact laws, and intervals that hold the truth as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError
from spicenn.learning.scaling import power_law


@given(
    exponent=st.floats(-4, 4),
    factor=st.floats(1e-6, 1e6),
    decades=st.floats(0.1, 5),
    size=st.integers(2, 9),
)
def test_a_law_without_noise_is_found(
    exponent: float, factor: float, decades: float, size: int
) -> None:
    x = np.geomspace(1, 10**decades, size)
    law = power_law(x, factor * x**exponent)
    assert law.exponent == pytest.approx(exponent, abs=1e-9)
    assert law(x) == pytest.approx(factor * x**exponent, rel=1e-8, abs=0)
    assert np.isnan(law.low) == (size == 2)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    x = np.geomspace(1, 100, 6)
    held = 0
    for _ in range(2000):
        law = power_law(x, 3 * x**2 * np.exp(0.3 * rng.standard_normal(6)), confidence=0.9)
        held += law.low <= 2 <= law.high
    # A share of 0.9 of 2000 has a standard error of 0.0067.
    assert held / 2000 == pytest.approx(0.9, abs=0.027)


@pytest.mark.parametrize(
    ("x", "y"), [([1.0], [1.0]), ([1.0, 2.0], [0.0, 1.0]), ([1.0, 2.0], [1.0]), ([2, 2], [1, 3])]
)
def test_what_no_line_fits_is_refused(x: list[float], y: list[float]) -> None:
    with pytest.raises(InputError):
        power_law(x, y)
