"""Gain and offset of every column of a layer from a few paired results, shrunk towards 1 and 0."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from spicenn.compiler.layer import Array

# Hyperparameters over the target's rms: below the first nothing is left of a prior, or of
# noise, that a double could tell from none; above the second it holds nothing back.
_LEAST, _MOST = 1e-4, 1e2
# Where the search begins: the prior's two spreads (alike) and the noise.
_STARTS = ((0.3, 0.03), (0.03, 0.3))


class Columns(NamedTuple):
    """ẑ = gain ⊙ z + offset; (output,) each."""

    gain: Array
    offset: Array


class _Sums(NamedTuple):
    """What the likelihood needs of every column's pairs (z, d = target - z)."""

    pairs: int
    z: Array
    zz: Array
    spread: Array  # Σ (z - mean)²
    d: Array
    zd: Array
    dd: Array


def fit_columns(z: Array, target: Array) -> Columns:
    """Return the posterior mean of every column's gain and offset.

    target = gain z + offset + e with e ~ N(0, ς²), gain ~ N(1, τ_g²), offset ~ N(0, τ_o²).
    The three hyperparameters are common to the columns and maximise the marginal likelihood
    of all of them together (empirical Bayes; MacKay, Neural Computation 4, 415, 1992): few or
    meaningless pairs leave the identity, many that agree are followed.

    Parameters
    ----------
    z, target : (pair, output).
    """
    scale = math.sqrt(float(np.mean(np.square(target))))
    identity = Columns(np.ones(z.shape[1]), np.zeros(z.shape[1]))
    if scale == 0.0 or np.array_equal(z, target):
        return identity
    from scipy.optimize import minimize

    z, d = z / scale, (target - z) / scale
    sums = _Sums(
        len(z),
        z.sum(0),
        np.square(z).sum(0),
        np.square(z - z.mean(0)).sum(0),
        d.sum(0),
        (z * d).sum(0),
        np.square(d).sum(0),
    )
    bounds = [(math.log(_LEAST), math.log(_MOST))] * 3
    found = [
        minimize(
            _minus_evidence, np.log([tau, tau, noise]), (sums,), "L-BFGS-B", jac=True, bounds=bounds
        )
        for tau, noise in _STARTS
    ]
    best = min(found, key=lambda result: float(result.fun))
    gain, offset = _posterior(np.exp(best.x), sums)
    return Columns(1.0 + gain, offset * scale)


def least_squares(z: Array, target: Array) -> Columns:
    """Return every column's gain and offset by least squares, as if nothing else were known.

    For comparison: with few pairs it follows their noise. A column that does not vary keeps
    gain 1. Parameters as of ``fit_columns``.
    """
    centred = z - z.mean(0)
    power = np.square(centred).sum(0)
    shared = (centred * target).sum(0)
    gain = np.divide(shared, power, out=np.ones_like(power), where=power > 0)
    return Columns(gain, target.mean(0) - gain * z.mean(0))


def common_column(z: Array, target: Array) -> Columns:
    """Return one gain and offset for all columns alike, by least squares.

    It is what is left of ``fit_columns`` where columns do not differ: it changes no decision
    that a layer's results are compared for, and less error than its is no sign of columns.
    """
    count = z.shape[1]
    centred = z - z.mean()
    power = float(np.square(centred).sum())
    gain = float((centred * target).sum()) / power if power > 0 else 1.0
    offset = float(target.mean()) - gain * float(z.mean())
    return Columns(np.full(count, gain), np.full(count, offset))


def _solved(theta: Array, sums: _Sums) -> tuple[Array, Array, Array, Array, Array, Array]:
    """I + T A T / ς² as (a, b, c), its determinant, and T Aᵀd / ς²; A is (z, 1), T diag(τ)."""
    gain, offset, noise = np.square(theta)
    a = 1.0 + gain * sums.zz / noise
    b = math.sqrt(gain * offset) * sums.z / noise
    c = np.full_like(a, 1.0 + offset * sums.pairs / noise)
    # Not a c - b²: with one pair nothing would be left of its digits.
    det = 1.0 + (gain * sums.zz + offset * sums.pairs) / noise
    det = det + gain * offset / noise**2 * sums.pairs * sums.spread
    u, v = math.sqrt(gain) * sums.zd / noise, math.sqrt(offset) * sums.d / noise
    return a, b, c, det, u, v


def _minus_evidence(log_theta: Array, sums: _Sums) -> tuple[float, Array]:
    """-2 ln p(targets | τ_g, τ_o, ς) of all columns up to a constant, and its gradient.

    The gradient is that of expectation maximisation: what the posterior's second moments
    exceed the prior's by.
    """
    theta = np.exp(log_theta)
    noise, n = theta[2] ** 2, sums.pairs
    a, b, c, det, u, v = _solved(theta, sums)
    quadratic = sums.dd / noise - (c * u * u - 2 * b * u * v + a * v * v) / det
    value = float((quadratic + np.log(det)).sum() + 2 * len(det) * n * log_theta[2])
    gain, offset = _posterior(theta, sums)
    left = (
        sums.dd - 2 * (gain * sums.zd + offset * sums.d)
        + gain**2 * sums.zz + 2 * gain * offset * sums.z + offset**2 * n
    )  # fmt: skip
    trace = theta[0] ** 2 * c * sums.zz + theta[1] ** 2 * a * n
    trace = (trace - 2 * theta[0] * theta[1] * b * sums.z) / det
    gradient = (
        (1 - c / det - (gain / theta[0]) ** 2).sum(),
        (1 - a / det - (offset / theta[1]) ** 2).sum(),
        (n - (left + trace) / noise).sum(),
    )
    return value, 2 * np.array(gradient)


def _posterior(theta: Array, sums: _Sums) -> tuple[Array, Array]:
    """Mean of gain - 1 and offset."""
    a, b, c, det, u, v = _solved(theta, sums)
    return theta[0] * (c * u - b * v) / det, theta[1] * (a * v - b * u) / det
