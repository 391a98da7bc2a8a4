"""Which of several enrolled devices a tag is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import CalibrationError
from spicenn.surrogate.hysteresis.population import Tag

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Identification:
    """Outcome of a comparison with all enrolled devices.

    index : of the device that the data fit best.
    decided : whether ``margin`` is large enough to say so.
    score : (device,) logarithm of the likelihood of the new data given each one's tag, over
        that of a device of which nothing is known.
    distance : of the best one, squared Mahalanobis distance of the two tags' data.
    margin : score of the best over the next best.
    """

    index: int
    decided: bool
    score: Array
    distance: float
    margin: float


def identify(
    tag: Tag, enrolled: Sequence[Tag], *, spread: Array, least_margin: float = np.log(19.0)
) -> Identification:
    """Compare a tag with those of enrolled devices, as Gaussians.

    The likelihood of the new data is integrated over what each enrolled tag leaves open: a
    difference counts by the covariances of both (Mahalanobis), and a broad tag is no excuse.

    Parameters
    ----------
    spread : (rank, rank) covariance over the population, ``Population.spread``.
    least_margin : below which nothing is decided; log 19 is odds of 19 to 1 over the next.

    Raises CalibrationError for fewer than two enrolled devices.
    """
    if len(enrolled) < 2:
        raise CalibrationError("nothing to compare with", remedy="enrol two devices at least")
    nothing = _log_evidence(tag, np.zeros(len(spread)), spread)
    score = np.array([_log_evidence(tag, e.vector, e.covariance) for e in enrolled]) - nothing
    order = np.argsort(score)[::-1]
    best = int(order[0])
    margin = float(score[best] - score[order[1]])
    return Identification(
        best, margin >= least_margin, score, _distance(tag, enrolled[best]), margin
    )


def _log_evidence(tag: Tag, mean: Array, covariance: Array) -> float:
    """log ∫ N(c; mean, covariance) exp(hᵀc - ½ cᵀΛc) dc. Holds for a singular Λ as well."""
    inverse = np.linalg.inv(covariance)
    both = inverse + tag.precision
    pull = inverse @ mean + tag.evidence
    _, volume = np.linalg.slogdet(np.eye(len(mean)) + covariance @ tag.precision)
    return float(0.5 * (pull @ np.linalg.solve(both, pull) - mean @ inverse @ mean - volume))


def _distance(tag: Tag, enrolled: Tag) -> float:
    """(ĉ - m)ᵀ (Λ⁻¹ + Σ)⁻¹ (ĉ - m) with Λ ĉ = h, without the inverse of Λ."""
    gap = tag.evidence - tag.precision @ enrolled.vector
    inner = tag.precision + tag.precision @ enrolled.covariance @ tag.precision
    return float(gap @ np.linalg.lstsq(inner, gap, rcond=None)[0])
