"""Learn the population of a design's chips from a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler import Design
from spicenn.compiler.jacobian import Linearisation, linearise
from spicenn.compiler.probes import with_noise
from spicenn.compiler.structural import TileMoments, tile_moments
from spicenn.compiler.structure import MECHANISMS, WIRES, mechanism_of, structure_variance
from spicenn.compiler.threads import one_thread
from spicenn.errors import InputError
from spicenn.surrogate.population import Surrogate, prior_of
from spicenn.surrogate.posterior import Posterior, infer
from spicenn.surrogate.records import Record, read_record

if TYPE_CHECKING:
    import xarray as xr

# What one fit looks at: more chips and samples sharpen it slowly and cost in proportion.
_CHIPS = 16
_OBSERVATIONS = 480
# Range that a layer's spread is searched in, over what the technology predicts.
_SCALES = (0.05, 20.0)
# Steps of Fisher scoring; it converges in about five.
_SCORING = 12


@dataclass(frozen=True, eq=False)
class _Study:
    """A study's chips, what the technology says of them, and the stated spread of wires."""

    record: Record
    moments: tuple[TileMoments, ...]
    wires: float

    @property
    def design(self) -> Design:
        return self.record.design


@one_thread()
def fit(
    ds: xr.Dataset,
    *,
    rounds: int = 2,
    iterations: int = 3,
    wires: float = 0.0,
    allow_include: Sequence[str | Path] = (),
    trust_model: bool = False,
) -> Surrogate:
    """Learn what a design's chips have in common, and how far they differ.

    The technology gives the mean and spread of every tile's effective matrix. The
    study corrects them: per layer the cells' spread over chips, per mechanism that of
    converters (gains and offsets), and one floor of unexplained variance, by maximum
    likelihood of the outputs (type II: cells and converters are integrated out); per
    weight the shared mean, as the average of the chips' most probable cells shrunk by as
    much of it as chance explains (James and Stein).

    Parameters
    ----------
    ds : a study's record, as ``monte_carlo`` returns it. Chips that failed are left
        out and counted.
    rounds : alternations between the chips' cells and the population.
    iterations : Gauss–Newton steps per chip and round at most.
    wires : standard deviation over chips of ln(resistance of wires over the technology's),
        one number a chip, which ``calibrate`` then finds beside its cells. Stated, not
        learned: simulated chips of a study share the technology's wires. 0.5 says that a
        chip's are within a factor of 1.6 of them two times in three.
    allow_include, trust_model : for the design in the record, as of ``Design.load``.

    Raises CalibrationError where fewer than two chips came out, or the record still
    has a swept dimension; DesignError where it carries no design; InputError for wires below
    0, or of a technology whose cells are not linear or whose wires are ideal.
    """
    if not (np.isfinite(wires) and wires >= 0):
        raise InputError(f"wires = {wires!r} is no standard deviation", remedy="use 0 or more")
    record = read_record(
        ds, least=2, most=_CHIPS, observations=_OBSERVATIONS, allow_include=allow_include,
        trust_model=trust_model,
    )  # fmt: skip
    study = _Study(record, tile_moments(record.design, wires=bool(wires)), float(wires))
    layers = [layer.name for layer in study.design.layers]
    known = {mechanism_of(name) for name in structure_variance(study.design)}
    mechanisms = [mechanism for mechanism in MECHANISMS if mechanism in known]
    shift = {moment.tile.name: torch.zeros_like(moment.mean) for moment in study.moments}
    scale = dict.fromkeys([*layers, *mechanisms], 1.0)
    floor = 0.0
    for _ in range(rounds):
        prior = prior_of(study.design, study.moments, shift, scale, floor, study.wires)
        posteriors = [
            infer(
                lambda weights: linearise(study.design, study.moments, weights, record.inputs),
                prior,
                target,
                trials=record.trials,
                iterations=iterations,
            )
            for target in record.target
        ]
        scale, floor = _spread(study, posteriors, scale, floor)
        correction = _shared(posteriors)
        shift = {name: value + correction[name] for name, value in shift.items()}
    return Surrogate(
        study.design,
        shift,
        {name: scale[name] for name in layers},
        floor,
        record.chips,
        record.failed,
        record.provenance(),
        {name: scale[name] for name in mechanisms},
        study.wires,
    )


def _spread(
    study: _Study, posteriors: list[Posterior], scale: Mapping[str, float], floor: float
) -> tuple[dict[str, float], float]:
    """Maximise the likelihood of all chips over every spread's scale and the floor."""
    cases = [_case(study, posterior) for posterior in posteriors]
    names = [
        name
        for name in scale
        if any(float(case.kernels[name].diagonal().max()) > 0 for case in cases)
    ]
    power = float(np.mean([float(case.pseudo.square().mean()) for case in cases]))
    # The least floor is where float32 digital arithmetic already is.
    low = max(power, 1e-24) * 1e-10
    theta = np.array([2 * np.log(scale[name]) for name in names] + [np.log(max(floor, 1e6 * low))])
    bounds = np.array([2 * np.log(_SCALES)] * len(names) + [np.log([low, max(power, 2 * low)])])
    for _ in range(_SCORING):
        # A weak prior (a factor of e either way) holds what the outputs do not tell.
        gradient = -np.append(theta[:-1] / 4, 0.0)
        information = np.diag([0.25] * len(names) + [1e-6])
        for case in cases:
            slope, curvature = case.score(names, theta)
            gradient, information = gradient + slope, information + curvature
        step = np.clip(np.linalg.solve(information, gradient), -1.0, 1.0)
        theta = np.clip(theta + step, bounds[:, 0], bounds[:, 1])
        if np.abs(step).max() < 1e-2:
            break
    result = dict(scale)
    for name, value in zip(names, theta[:-1], strict=True):
        result[name] = float(np.exp(value / 2))
    return result, float(np.exp(theta[-1]))


@dataclass(frozen=True, eq=False)
class _Case:
    """One chip, linearised: its outputs about the population's, and what they can vary by.

    kernels : by what has a scale; ``stated`` is the sum of those that have none.
    """

    pseudo: torch.Tensor
    kernels: Mapping[str, torch.Tensor]
    noise: torch.Tensor
    stated: torch.Tensor | None

    def score(
        self, names: list[str], theta: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Gradient of the log likelihood and Fisher information by theta.

        theta : log of every variance factor, and of the floor.
        Source: variance components by scoring (Searle, Casella, McCulloch 1992, ch. 6).
        """
        size = self.pseudo.numel()
        parts = [
            self.kernels[name] * float(np.exp(t)) for name, t in zip(names, theta, strict=False)
        ]
        parts.append(torch.eye(size, dtype=torch.float64) * float(np.exp(theta[-1])))
        total = torch.stack(parts).sum(0)
        if self.stated is not None:
            total = total + self.stated
        covariance = with_noise(total, self.noise)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        alpha = inverse @ self.pseudo.reshape(-1)
        whitened = [inverse @ part for part in parts]
        slope = [
            0.5 * float(alpha @ part @ alpha - white.diagonal().sum())
            for part, white in zip(parts, whitened, strict=True)
        ]
        curvature = [[0.5 * float((a * b.T).sum()) for b in whitened] for a in whitened]
        return np.array(slope), np.array(curvature)


def _case(study: _Study, posterior: Posterior) -> _Case:
    linear: Linearisation = posterior.linear
    mean = posterior.prior.mean
    delta = {name: value - mean.get(name, 0.0) for name, value in posterior.weights.items()}
    parts: dict[str, dict[str, torch.Tensor]] = {
        layer.name: {
            moment.tile.name: moment.spread.square()
            for moment in study.moments
            if moment.tile.layer is layer
        }
        for layer in study.design.layers
    }
    for name, value in structure_variance(study.design).items():
        parts.setdefault(mechanism_of(name), {})[name] = value
    kernels = {name: linear.kernel(linear, variance) for name, variance in parts.items()}
    stated = {WIRES: posterior.prior.variance[WIRES]} if study.wires else None
    return _Case(
        posterior.residual + linear.apply(delta),
        kernels,
        linear.noise / study.record.trials,
        None if stated is None else linear.kernel(linear, stated),
    )


def _shared(posteriors: list[Posterior]) -> dict[str, torch.Tensor]:
    """The chips' average deviation from the mean, without the share that chance explains."""
    result = {}
    for name, mean in posteriors[0].prior.mean.items():
        deviation = torch.stack([posterior.weights[name] - mean for posterior in posteriors])
        average = deviation.mean(0)
        chance = float(deviation.var(0).sum()) / len(posteriors)
        power = float(average.square().sum())
        result[name] = average * (max(0.0, 1.0 - chance / power) if power > 0 else 0.0)
    return result
