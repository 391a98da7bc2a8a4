"""Power laws: the exponent of data on a straight line of their logarithms, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from spicenn.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """``y = factor · x^exponent``.

    low, high : interval of the exponent; NaN of two points, which leave no residual.
    """

    exponent: float
    low: float
    high: float
    factor: float

    def __call__(self, x: ArrayLike) -> Array:
        """Return y at x."""
        return np.asarray(self.factor * np.asarray(x, dtype=np.float64) ** self.exponent)

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.exponent:.2f}"
        digits = 3 if self.high - self.low < 0.02 else 2
        return f"{self.exponent:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def power_law(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> PowerLaw:
    """Fit a straight line through logarithms by least squares.

    The interval is Student's, of residuals that are normal and independent; those of data
    without noise are what is left of the law's curvature.

    Parameters
    ----------
    x, y : (point,) both positive.

    Raises InputError for fewer than two points, points all at one x or that are not positive,
    or a confidence out of (0, 1).
    """
    first, second = (np.asarray(v, dtype=np.float64) for v in (x, y))
    good = first.ndim == 1 and first.shape == second.shape and first.size >= 2
    if not (good and np.isfinite([first, second]).all() and min(first.min(), second.min()) > 0):
        raise InputError(
            f"x of shape {first.shape} and y of shape {second.shape} are not two or more "
            "positive points", where="power_law",
        )  # fmt: skip
    if not 0 < confidence < 1:
        raise InputError(f"confidence = {confidence!r} is not in (0, 1)", where="power_law")
    lx, ly = np.log(first), np.log(second)
    spread = lx - lx.mean()
    weight = float(spread @ spread)
    if not weight > 0:
        raise InputError("all points are at one x", where="power_law")
    exponent = float(spread @ ly) / weight
    level = float(ly.mean() - exponent * lx.mean())
    freedom = first.size - 2
    half = np.nan
    if freedom:
        rest = ly - level - exponent * lx
        error = np.sqrt(float(rest @ rest) / freedom / weight)
        half = float(stats.t.ppf((1 + confidence) / 2, freedom)) * error
    return PowerLaw(
        exponent=exponent, low=exponent - half, high=exponent + half, factor=float(np.exp(level))
    )
