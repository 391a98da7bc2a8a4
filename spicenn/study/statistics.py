"""Yield and quantiles over chips, with intervals; failed chips count, they never vanish."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError, Status

if TYPE_CHECKING:
    import xarray as xr


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float


def yield_interval(
    passed: Any, *, confidence: float = 0.95, method: Literal["wilson", "exact"] = "wilson"
) -> Interval:
    """Share of good chips.

    Parameters
    ----------
    passed : booleans, one per chip, array or DataArray; a failed chip is False.
    method : ``"wilson"``, the score interval (Wilson, J. Am. Stat. Assoc. 22, 1927),
        covers at the stated confidence on average; ``"exact"`` (Clopper and Pearson,
        Biometrika 26, 1934) covers at least as often, whatever the true yield.

    Raises InputError for no chips or values that are not booleans (NaN is not: say
    whether a chip that failed passed).
    """
    from scipy.stats import binomtest

    flags = np.asarray(passed)
    if flags.dtype != np.bool_ or flags.size == 0:
        raise InputError(
            f"passed has {flags.size} values of type {flags.dtype}",
            remedy="give one boolean per chip, for example accuracy(ds, labels) > 0.9",
        )
    _check_confidence(confidence)
    test = binomtest(int(flags.sum()), int(flags.size))
    low, high = test.proportion_ci(confidence_level=confidence, method=method)
    return Interval(float(flags.mean()), float(low), float(high))


def quantile_interval(values: Any, q: float, *, confidence: float = 0.95) -> Interval:
    """Quantile of a quantity over chips, with a distribution-free interval.

    The interval lies between two order statistics: the number of chips below the true
    quantile is binomial whatever the distribution (David and Nagaraja, Order
    Statistics, 3rd ed., §7.1). Where too few chips were run to bound a side, that end
    is infinite.

    Parameters
    ----------
    values : one per chip, array or DataArray; a failed chip is NaN and counts as the
        worst, below all others (negate what is better when smaller).
    q : in (0, 1).

    Returns
    -------
    The estimate is the ⌈q n⌉-th smallest value, -inf where that chip failed.

    Raises InputError for no chips or a q outside (0, 1).
    """
    from scipy.stats import binom

    given = np.asarray(values, dtype=np.float64).ravel()
    if given.size == 0:
        raise InputError("values is empty", remedy="give one value per chip")
    if not 0.0 < q < 1.0:
        raise InputError(f"q = {q!r} is not in (0, 1)")
    _check_confidence(confidence)
    ordered = np.sort(np.where(np.isnan(given), -np.inf, given))
    count = given.size
    tail = (1.0 - confidence) / 2.0
    # The r-th smallest lies above the quantile with probability P(B < r), B binomial:
    # the largest r that keeps it under the tail, and its mirror image at the top.
    rank = np.arange(count + 1)
    below = binom.cdf(rank - 1, count, q)  # P(B <= r - 1)
    lower = int(np.flatnonzero(below <= tail).max(initial=0))
    upper_ranks = np.flatnonzero(1.0 - below <= tail)
    upper = int(upper_ranks.min()) if upper_ranks.size else count + 1
    low = float(ordered[lower - 1]) if lower >= 1 else -math.inf
    high = float(ordered[upper - 1]) if upper <= count else math.inf
    # A little below: 0.3 * 10 is 3.0000000000000004 in floating point for some products.
    place = min(max(math.ceil(q * count - 1e-9), 1), count)
    return Interval(float(ordered[place - 1]), low, high)


def accuracy(ds: xr.Dataset, labels: Any, *, output: str = "output") -> xr.DataArray:
    """Share of samples that each chip classifies rightly.

    Parameters
    ----------
    ds : a study's record whose ``output`` has one axis of class scores.
    labels : (sample,) integers.

    Returns
    -------
    (sweep…, chip, trial), NaN where the chip failed or has not run: it passes no
    threshold, so that ``yield_interval(accuracy(ds, labels) > 0.9)`` counts it.

    Raises InputError where labels or outputs do not fit.
    """
    wanted = np.asarray(labels)
    if output not in ds:
        raise InputError(f"the record has no {output!r}", remedy="its attribute outputs lists them")
    scores = ds[output]
    own = [str(dim) for dim in scores.dims if str(dim).startswith(f"{output}_dim_")]
    if len(own) != 1:
        raise InputError(f"{output} has {len(own)} axes of its own, class scores have one")
    if wanted.shape != (scores.sizes["sample"],) or wanted.dtype.kind not in "iu":
        raise InputError(
            f"labels have shape {wanted.shape} and type {wanted.dtype}, "
            f"expected ({scores.sizes['sample']},) integers"
        )
    values: NDArray[Any] = np.asarray(scores.transpose(..., "sample", own[0]).values)
    right = (np.argmax(np.nan_to_num(values, nan=-np.inf), axis=-1) == wanted).mean(axis=-1)
    result = scores.isel({"sample": 0, own[0]: 0}, drop=True).copy(data=right)
    result.attrs = {"units": "1", "long_name": "accuracy"}
    return result.where(ds["status"].load() == Status.OK).rename("accuracy")


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence = {confidence!r} is not in (0, 1)")
