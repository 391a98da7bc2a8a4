"""Intervals cover as often as they say, and failed chips count."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError, Status
from spicenn.study import accuracy, quantile_interval, yield_interval


def test_yield_interval_of_textbook_numbers():
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263.
    passed = np.arange(263) < 81
    assert yield_interval(passed) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=5e-5)
    exact = yield_interval(passed, method="exact")
    assert exact == pytest.approx((81 / 263, 0.2527, 0.3676), abs=5e-5)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.93])
def test_exact_yield_interval_covers(share):
    rng = np.random.default_rng(11)
    of_count = [yield_interval(np.arange(40) < count, method="exact") for count in range(41)]
    hits = 0
    for _ in range(1000):
        _, low, high = of_count[np.count_nonzero(rng.random(40) < share)]
        hits += low <= share <= high
    # 95 % at least; three standard deviations of 1000 binomial trials are 2.1 %.
    assert hits >= 929


@pytest.mark.parametrize("q", [0.05, 0.5, 0.9])
def test_quantile_interval_covers_whatever_the_distribution(q):
    rng = np.random.default_rng(12)
    true = -math.log(1 - q)
    hits = 0
    for _ in range(1000):
        _, low, high = quantile_interval(rng.exponential(size=60), q)
        hits += low <= true <= high
    assert hits >= 929


def test_quantile_interval_is_not_wider_than_needed():
    _, low, high = quantile_interval(np.arange(1, 101), 0.5)
    # Ranks 40 and 61 of 100: David and Nagaraja, and any table of the sign test.
    assert (low, high) == (40, 61)


def test_too_few_chips_bound_nothing():
    assert quantile_interval([1.0, 2.0], 0.01)[1:] == (-math.inf, 1.0)
    assert quantile_interval([1.0, 2.0], 0.5)[1:] == (-math.inf, math.inf)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
    st.integers(0, 5),
)
def test_failed_chips_are_the_worst(values, q, failed):
    with_failed = quantile_interval([*values, *[math.nan] * failed], q)
    without = quantile_interval([*values, *[-1e9] * failed], q)
    for a, b in zip(with_failed, without, strict=True):
        assert a == b or (a == -math.inf and b == -1e9)
    assert with_failed.low <= with_failed.estimate <= with_failed.high


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_a_yield_lies_in_its_interval(passed):
    for method in ("wilson", "exact"):
        estimate, low, high = yield_interval(passed, method=method)
        assert 0 <= low <= estimate + 1e-12
        assert estimate - 1e-12 <= high <= 1


def test_yield_refuses_what_is_not_a_verdict():
    with pytest.raises(InputError, match="float64"):
        yield_interval([1.0, np.nan])
    with pytest.raises(InputError):
        yield_interval(np.zeros(0, dtype=bool))
    with pytest.raises(InputError):
        quantile_interval([1.0], 1.0)


def _record() -> xr.Dataset:
    output = np.zeros((3, 2, 4, 3))
    output[0, ..., :] = np.eye(3)[[0, 1, 2, 0]]
    output[1, ..., :] = np.eye(3)[[0, 1, 0, 1]]
    output[2] = np.nan
    status = np.array([Status.OK, Status.OK, Status.NOT_CONVERGED], dtype=np.int8)
    return xr.Dataset(
        {
            "output": (("chip", "trial", "sample", "output_dim_0"), output),
            "status": ("chip", status),
        }
    )


def test_accuracy_per_chip_and_trial():
    result = accuracy(_record(), np.array([0, 1, 2, 0]))
    assert result.dims == ("chip", "trial")
    np.testing.assert_array_equal(result.values, [[1, 1], [0.5, 0.5], [np.nan, np.nan]])
    assert yield_interval(result.mean("trial") > 0.9).estimate == 1 / 3


def test_accuracy_refuses_labels_that_do_not_fit():
    with pytest.raises(InputError, match="labels"):
        accuracy(_record(), np.array([0, 1]))
    with pytest.raises(InputError, match="nothing"):
        accuracy(_record(), np.array([0, 1, 2, 0]), output="nothing")
