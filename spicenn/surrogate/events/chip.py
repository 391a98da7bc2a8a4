"""Find one chip's constants from a trace, about what is known of all chips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.surrogate.events.model import Array, LayerModel
from spicenn.surrogate.events.replay import Replay, replay
from spicenn.surrogate.events.trace import Trace

# Relative steps of derivatives by leak and refractory time.
_TAU, _REFRACTORY = 0.05, 2e-3
# After a spike a membrane is on its way to rest [s]: not a sample of the closed forms.
_FALLING = 1.2e-8
# Residuals beyond this many standard deviations count by their size, not by its square.
_HUBER = 2.5


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How chips differ from the population, standard deviations.

    weight : of every weight by itself [1/s].
    gain, tau, refractory : of a neuron, relative.
    drift : [V/s].
    threshold : [V].
    """

    weight: float
    gain: float
    tau: float
    refractory: float
    drift: float
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What a fitted model leaves unexplained, standard deviations [V]: of a membrane's sample,
    and of the voltage that a spike is early or late by.
    """

    membrane: float
    spike: float


def fit_chip(
    population: LayerModel,
    spread: Spread,
    noise: Noise,
    trace: Trace,
    *,
    rounds: int = 4,
    start: LayerModel | None = None,
) -> LayerModel:
    """Most probable constants of the chip that a trace is of.

    Gauss–Newton steps of a regression with a normal prior, a neuron at a time: weights,
    drift, leak, refractory time and threshold, against membranes (where the trace has
    them) and the voltage lacking at each spike.

    Parameters
    ----------
    start : from where on, the population if None.
    """
    model = start or population
    for _ in range(rounds):
        base = replay(model, trace)
        leak = replay(model.with_(tau=model.tau * (1 + _TAU)), trace)
        longer = replay(model.with_(refractory=model.refractory * (1 + _REFRACTORY)), trace)
        use = usable(model, trace)
        model = _step(population, spread, noise, trace, model, (base, leak, longer), use)
    return model


def usable(model: LayerModel, trace: Trace) -> NDArray[np.bool_]:
    """(sample, neuron): which samples are not just after a spike."""
    use = np.ones((len(trace.membrane_time), model.neurons), dtype=bool)
    for time, k in zip(trace.spike_time, trace.spike_neuron, strict=True):
        first, last = np.searchsorted(trace.membrane_time, [time - _FALLING, time + _FALLING])
        use[first:last, k] = False
    return use


def _step(
    population: LayerModel,
    spread: Spread,
    noise: Noise,
    trace: Trace,
    model: LayerModel,
    replays: tuple[Replay, Replay, Replay],
    use: NDArray[np.bool_],
) -> LayerModel:
    base, leak, longer = replays
    n, m = model.neurons, model.axons
    weights, drift = model.weights.copy(), model.drift.copy()
    tau, refractory = model.tau.copy(), model.refractory.copy()
    threshold = model.threshold.copy()
    for k in range(n):
        spikes = trace.spike_neuron == k
        rows = [
            _rows(
                base.spike_gain[spikes],
                (base.lacking - leak.lacking)[spikes] / _TAU,
                (base.lacking - longer.lacking)[spikes] / _REFRACTORY,
                -1.0,
                base.lacking[spikes],
                noise.spike,
            )
        ]
        if len(base.membrane):
            good = use[:, k]
            rows.append(
                _rows(
                    base.membrane_gain[good, k],
                    (base.membrane - leak.membrane)[good, k] / _TAU,
                    (base.membrane - longer.membrane)[good, k] / _REFRACTORY,
                    0.0,
                    base.membrane[good, k],
                    noise.membrane,
                )
            )
        matrix = np.concatenate([row[0] for row in rows])
        target = np.concatenate([row[1] for row in rows])
        # Parameters in units of their prior: p = mean + root z.
        root = np.zeros((m + 4, m + 4))
        own = population.weights[:, k]
        covariance: Array = spread.weight**2 * np.eye(m) + spread.gain**2 * np.outer(own, own)
        root[:m, :m] = np.linalg.cholesky(covariance)
        root[range(m, m + 4), range(m, m + 4)] = (
            spread.drift, spread.tau, spread.refractory, spread.threshold,
        )  # fmt: skip
        here = np.concatenate([
            weights[:, k] - own,
            [
                drift[k] - population.drift[k],
                np.log(tau[k] / population.tau[k]),
                np.log(refractory[k] / population.refractory[k]),
                threshold[k] - population.threshold[k],
            ],
        ])  # fmt: skip
        z = _solve(matrix @ root, target + matrix @ here)
        found = root @ z
        weights[:, k] = own + found[:m]
        drift[k] = population.drift[k] + found[m]
        tau[k] = population.tau[k] * np.exp(found[m + 1])
        refractory[k] = population.refractory[k] * np.exp(found[m + 2])
        threshold[k] = population.threshold[k] + found[m + 3]
    # The reset's current sets both how long it lasts and how fast it lets go.
    fall = model.fall * model.refractory / refractory
    return model.with_(
        weights=weights, drift=drift, tau=tau, refractory=refractory, threshold=threshold, fall=fall
    )


def _rows(
    gain: Array, leak: Array, longer: Array, threshold: float, residual: Array, deviation: float
) -> tuple[Array, Array]:
    column = np.full((len(residual), 1), threshold)
    matrix = np.concatenate([gain, leak[:, None], longer[:, None], column], axis=1)
    scaled = np.abs(residual) / deviation
    weight = np.sqrt(np.minimum(1.0, _HUBER / np.maximum(scaled, 1e-12))) / deviation
    return matrix * weight[:, None], residual * weight


def _solve(matrix: Array, target: Array) -> Array:
    """argmin |target - matrix z|² + |z|²."""
    normal: Array = np.asarray(matrix.T @ matrix, dtype=np.float64)
    normal[np.diag_indices_from(normal)] += 1.0
    return np.asarray(np.linalg.solve(normal, matrix.T @ target), dtype=np.float64)
