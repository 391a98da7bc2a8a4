"""Columns' gains and offsets: followed where pairs agree, left alone where they say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from spicenn.training.columns import (
    _minus_evidence,
    _Sums,
    common_column,
    fit_columns,
    least_squares,
)


def pairs(count: int, seed: int, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Results of 24 columns of gain 1 ± 0.3 and offset ± 0.5, and what they should be."""
    rng = np.random.default_rng(seed)
    target = 2 * rng.standard_normal((count, 24)) + rng.standard_normal(24)
    gain, offset = 1 + 0.3 * np.random.default_rng(7).standard_normal((2, 24))
    z = gain * target + 0.5 * (offset - 1) + noise * rng.standard_normal(target.shape)
    return z, target


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def test_without_noise_the_columns_are_found() -> None:
    z, target = pairs(6, 0, noise=0.0)
    found = fit_columns(z, target)
    np.testing.assert_allclose(found.gain * z + found.offset, target, atol=1e-3)


@pytest.mark.slow
@given(seed=st.integers(0, 1000), count=st.integers(2, 40))
@settings(max_examples=15, deadline=None)
def test_it_is_never_worse_than_nothing_on_new_inputs(seed: int, count: int) -> None:
    found = fit_columns(*pairs(count, seed))
    z, target = pairs(500, seed + 10_000)
    assert rms(found.gain * z + found.offset - target) < rms(z - target)


def test_three_noisy_pairs_do_less_harm_than_least_squares_does() -> None:
    z, target = pairs(500, 1, noise=1.0)
    errors = []
    for fit in (fit_columns, least_squares):
        each = [fit(*pairs(3, seed, noise=1.0)) for seed in range(10, 20)]
        errors.append(np.mean([rms(one.gain * z + one.offset - target) for one in each]))
    assert errors[0] < 0.7 * errors[1]
    assert errors[0] < rms(z - target)


def test_pairs_that_are_alike_leave_the_identity() -> None:
    _, target = pairs(8, 3)
    found = fit_columns(target, target)
    np.testing.assert_array_equal(found.gain, 1.0)
    np.testing.assert_array_equal(found.offset, 0.0)
    noisy = target + 0.1 * np.random.default_rng(0).standard_normal(target.shape)
    near = fit_columns(noisy, target)
    assert rms(near.gain - 1) < 0.01
    assert rms(near.offset) < 0.05


def test_units_do_not_matter() -> None:
    z, target = pairs(5, 4)
    one, milli = fit_columns(z, target), fit_columns(1e-3 * z, 1e-3 * target)
    np.testing.assert_allclose(milli.gain, one.gain, rtol=1e-6)
    np.testing.assert_allclose(milli.offset, 1e-3 * one.offset, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("at", [(-1.0, -2.0, -3.0), (0.0, -0.5, -1.0), (-3.0, 1.0, 0.5)])
def test_the_evidences_gradient_is_its_own(at: tuple[float, ...]) -> None:
    z, target = pairs(9, 5)
    d = target - z
    spread = np.square(z - z.mean(0)).sum(0)
    sums = _Sums(
        9, z.sum(0), np.square(z).sum(0), spread, d.sum(0), (z * d).sum(0), np.square(d).sum(0)
    )
    point = np.array(at)
    error = check_grad(
        lambda x: _minus_evidence(x, sums)[0], lambda x: _minus_evidence(x, sums)[1], point
    )
    assert error < 1e-5 * np.abs(_minus_evidence(point, sums)[1]).max()


def test_the_evidence_is_that_of_a_gaussian_process() -> None:
    z, target = pairs(4, 6)
    d, theta = target - z, np.array([0.2, 0.5, 0.3])
    spread = np.square(z - z.mean(0)).sum(0)
    sums = _Sums(
        4, z.sum(0), np.square(z).sum(0), spread, d.sum(0), (z * d).sum(0), np.square(d).sum(0)
    )
    expected = 0.0
    for column in range(z.shape[1]):
        a = np.stack([z[:, column] * theta[0], np.full(4, theta[1])], axis=1)
        covariance = a @ a.T + theta[2] ** 2 * np.eye(4)
        expected += float(d[:, column] @ np.linalg.solve(covariance, d[:, column]))
        expected += float(np.linalg.slogdet(covariance)[1])
    assert _minus_evidence(np.log(theta), sums)[0] == pytest.approx(expected, rel=1e-9)


def test_one_common_column_is_least_squares_over_all() -> None:
    z, _ = pairs(5, 8)
    found = common_column(z, 0.5 * z + 2.0)
    np.testing.assert_allclose(found.gain, 0.5, rtol=1e-12)
    np.testing.assert_allclose(found.offset, 2.0, rtol=1e-12)


def test_a_column_that_does_not_move_keeps_its_gain() -> None:
    z = np.array([[1.0, 2.0], [1.0, 3.0]])
    found = least_squares(z, np.array([[2.0, 4.0], [4.0, 6.0]]))
    np.testing.assert_allclose(found.gain, [1.0, 2.0])
    np.testing.assert_allclose(found.offset, [2.0, 0.0])
