"""Judge a calibration by probes that it did not see, whatever the model behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.errors import CalibrationError
from spicenn.seeds import Purpose, generator

# Observations whose covariance fits: 8000 squared in float64 is 512 MB.
_LIMIT = 8000
# Held-out errors may exceed what the model states of itself by this factor (in square).
_MISFIT = 9.0
# One-sided risk of accepting a calibration that does not help.
_RISK = 0.01
# Risk of calling any honest probe a stranger, before a factor of two on top.
_OUTLIER = 1e-3
# White noise that keeps a covariance positive, over its mean variance.
_TRACE = 1e-9


class Forecast(NamedTuple):
    """What a model fitted to some probes says of others.

    mean : (sample, output), of the calibrated model.
    covariance : (sample, output, output), of its error about the outputs seen.
    population : (sample, output), of the model without probes.
    """

    mean: torch.Tensor
    covariance: torch.Tensor
    population: torch.Tensor


# Indices of probes that are seen, and of those to be predicted.
Forecaster = Callable[[NDArray[np.int64], NDArray[np.int64]], Forecast]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Per probe: mean squares of both models' errors, and of the whitened calibrated one's."""

    calibrated: NDArray[np.float64]
    population: NDArray[np.float64]
    normalised: NDArray[np.float64]
    outputs: int

    def summary(self) -> tuple[float, float, float]:
        """Rms of the calibrated model's errors, the population's, and the whitened ones."""
        return (
            float(np.sqrt(self.calibrated.mean())),
            float(np.sqrt(self.population.mean())),
            float(np.sqrt(self.normalised.mean())),
        )

    def objection(self) -> str | None:
        """Why the calibration is refused, None where it is not."""
        from scipy.stats import chi2, ttest_1samp

        heldout, population, misfit = self.summary()
        # An honest probe's squared error is chi-square; where the model as a whole is too
        # sure of itself, the median says by how much.
        k = self.outputs
        excess = max(1.0, float(np.median(self.normalised)) * k / chi2.median(k))
        limit = 2.0 * excess * chi2.isf(_OUTLIER / len(self.normalised), k) / k
        strangers = np.flatnonzero(self.normalised > limit)
        if misfit > np.sqrt(_MISFIT):
            return (
                f"held-out errors are {misfit:.0f} times what the model allows: the outputs are "
                "not those of a chip of this design at these probes, in their order"
            )
        if strangers.size:
            listed = ", ".join(map(str, strangers[:8]))
            return f"the outputs of probes {listed} do not fit the others: check their order"
        ratio = np.log(np.maximum(self.population, 1e-300) / np.maximum(self.calibrated, 1e-300))
        better = heldout < population
        if not better or float(ttest_1samp(ratio, 0.0, alternative="greater").pvalue) > _RISK:
            return (
                f"error on held-out probes went from {population:.3g} to {heldout:.3g}: "
                "no clear improvement; use more probes or trials"
            )
        return None


def check(target: torch.Tensor, folds: int) -> None:
    """Raise CalibrationError where (probe, output) are too few or too many to be judged."""
    if folds < 2:
        raise CalibrationError("folds must be at least 2")
    if len(target) < max(4, folds):
        raise CalibrationError(
            f"{len(target)} probes are too few to hold any out",
            remedy=f"give at least {max(4, folds)}",
        )
    if target.numel() > _LIMIT:
        raise CalibrationError(
            f"{target.numel()} observations (probes x outputs) are more than {_LIMIT}",
            remedy="use fewer probes",
        )


def hold_out(forecast: Forecaster, target: torch.Tensor, *, folds: int, seed: int) -> HeldOut:
    """Predict every probe from the other folds.

    Parameters
    ----------
    target : (probe, output), what the chip gave.
    folds : parts that the probes are split into.
    seed : of the split.
    """
    count = len(target)
    result = HeldOut(np.empty(count), np.empty(count), np.empty(count), target.shape[1])
    order = generator(seed, Purpose.PROBES, trial=1).permutation(count)
    for fold in range(folds):
        out = np.sort(order[fold::folds])
        rest = np.sort(np.setdiff1d(order, out))
        there = forecast(rest, out)
        error = target[out] - there.mean
        stated = there.covariance
        white = torch.linalg.solve_triangular(
            torch.linalg.cholesky(
                stated + _TRACE * _mean_square(stated) * torch.eye(error.shape[1])
            ),
            error.unsqueeze(-1),
            upper=False,
        )
        result.calibrated[out] = error.square().mean(1).numpy()
        result.population[out] = (target[out] - there.population).square().mean(1).numpy()
        result.normalised[out] = white.square().mean((1, 2)).numpy()
    return result


def accepted(held: HeldOut, probes: int, folds: int) -> str:
    """Why a calibration without objection is accepted, one sentence."""
    heldout, population, _ = held.summary()
    return (
        f"error on held-out probes fell from {population:.3g} to {heldout:.3g} "
        f"({probes} probes, {folds} folds)"
    )


def _mean_square(covariance: torch.Tensor) -> torch.Tensor:
    """Mean variance of each sample's outputs; (sample, 1, 1)."""
    return covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)[:, None, None]
