"""Learn what the chips of a layer have in common from traces of several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spicenn.errors import CalibrationError
from spicenn.surrogate.events.chip import Noise, Spread, fit_chip, usable
from spicenn.surrogate.events.energy import EnergySpread, fit_energy, windows, with_factors
from spicenn.surrogate.events.model import Array, LayerModel
from spicenn.surrogate.events.replay import Replay, replay
from spicenn.surrogate.events.trace import Trace

# What is assumed of chips before any is seen; wide enough for any technology.
_WIDE = Spread(
    weight=0.0, gain=0.3, tau=0.3, refractory=0.1, drift=1e3, threshold=0.02
)  # fmt: skip
_WIDE_WEIGHT = 0.3
_ROUGH = Noise(membrane=1e-3, spike=2e-3)
# Least spreads and noises: of a few chips no spread is known to be none.
_LEAST = Spread(weight=1.0, gain=2e-3, tau=5e-3, refractory=1e-3, drift=1.0, threshold=3e-4)
_LEAST_NOISE = Noise(membrane=2e-4, spike=5e-4)
# Chips whose traces the common constants are learned from; more sharpen them slowly.
_CHIPS = 3
_SATURATED = 0.3
_HUBER = 2.5


@dataclass(frozen=True, eq=False)
class Population:
    """What a fit finds: the common model, how chips differ, and what is left unexplained."""

    model: LayerModel
    spread: Spread
    noise: Noise
    energy: EnergySpread
    chips: tuple[LayerModel, ...]


@dataclass(frozen=True)
class _Common:
    """One constant that all chips share: how to change it, and by how much it may be off."""

    name: str
    change: Callable[[LayerModel, float], LayerModel]
    step: float
    deviation: float


def _excess(power: int) -> Callable[[LayerModel, float], LayerModel]:
    def change(model: LayerModel, x: float) -> LayerModel:
        excess = np.zeros(max(3, len(model.excess)))
        excess[: len(model.excess)] = model.excess
        excess[power] += x
        return model.with_(excess=excess)

    return change


_COMMON = (
    _Common("excess", _excess(0), 0.02, 0.5),
    _Common("excess by slope", _excess(1), 0.02, 0.3),
    _Common("excess by slope squared", _excess(2), 0.02, 0.1),
    _Common("catch", lambda m, x: m.with_(catch=m.catch * np.exp(x)), 0.02, 0.1),
    _Common("grip", lambda m, x: m.with_(grip=m.grip * np.exp(x)), 0.02, 0.1),
    _Common("floor", lambda m, x: m.with_(floor=m.floor + x), 1e-3, 5e-3),
    _Common("fall", lambda m, x: m.with_(fall=m.fall * np.exp(x)), 0.01, 0.05),
    _Common("lag", lambda m, x: m.with_(lag=max(m.lag + x, 0.0)), 1e-10, 5e-9),
)


def fit_population(nominal: LayerModel, traces: Sequence[Trace], *, rounds: int = 2) -> Population:
    """Learn the population that traces of several chips, with membranes, are of.

    In turn: every chip's own constants by regression, then those that all share by
    Gauss–Newton steps over all of them; last the energies, by regression over windows.

    Parameters
    ----------
    nominal : from where to start.

    Raises CalibrationError where fewer than two chips were seen, or traces do not fit.
    """
    if len({trace.chip for trace in traces}) < 2:
        raise CalibrationError(
            "traces of one chip say nothing of a population",
            remedy="record at least two chips; calibrate one by fit_chip",
        )
    for trace in traces:
        if (trace.axons, trace.neurons) != (nominal.axons, nominal.neurons):
            raise CalibrationError(
                f"a trace of {trace.axons} axons and {trace.neurons} neurons for a model of "
                f"{nominal.axons} and {nominal.neurons}"
            )
        if not len(trace.membrane_time):
            raise CalibrationError(
                "a trace without membranes", remedy="record them: membranes=True"
            )
    scale = float(np.abs(nominal.weights).mean())
    wide = Spread(**{**_WIDE.__dict__, "weight": _WIDE_WEIGHT * scale})
    common = nominal
    own = [nominal] * len(traces)
    for _ in range(rounds):
        own = [
            fit_chip(common, wide, _ROUGH, trace, rounds=2, start=start)
            for trace, start in zip(traces, own, strict=True)
        ]
        common, own = _shared(common, own, traces)
    own = [
        fit_chip(common, wide, _ROUGH, trace, rounds=1, start=start)
        for trace, start in zip(traces, own, strict=True)
    ]
    replays = [replay(model, trace) for model, trace in zip(own, traces, strict=True)]
    mean, spread = _spread(common, own)
    noise = _noise(own, replays, traces)
    factors, left = fit_energy(own, replays, list(traces))
    mean = with_factors(mean, factors)
    own = [with_factors(model, factors) for model in own]
    energy = _energy_spread(own, [replay(m, t) for m, t in zip(own, traces, strict=True)],
                            traces, left)  # fmt: skip
    return Population(mean, spread, noise, energy, tuple(own))


def residuals(model: LayerModel, trace: Trace) -> Array:
    """What a fit makes small, over its rough noise: membranes (thinned) and spikes, robustly."""
    replayed = replay(model, trace)
    membrane = replayed.membrane[usable(model, trace)][::2] / _ROUGH.membrane
    spike = replayed.lacking / _ROUGH.spike
    return np.concatenate([membrane, np.where(np.abs(replayed.lacking) < _SATURATED, spike, 0.0)])


def _shared(
    common: LayerModel, own: list[LayerModel], traces: Sequence[Trace], *, steps: int = 2
) -> tuple[LayerModel, list[LayerModel]]:
    """Common constants changed to fit all chips, in the common model and in the chips' own."""
    chosen = range(min(_CHIPS, len(traces)))
    for _ in range(steps):
        base = [residuals(own[c], traces[c]) for c in chosen]
        columns = []
        for constant in _COMMON:
            moved = [residuals(constant.change(own[c], constant.step), traces[c]) for c in chosen]
            columns.append(
                np.concatenate([(b - m) / constant.step for b, m in zip(base, moved, strict=True)])
            )
        target = np.concatenate(base)
        weight = np.sqrt(np.minimum(1.0, _HUBER / np.maximum(np.abs(target), 1e-9)))
        deviation = np.array([constant.deviation for constant in _COMMON])
        matrix = np.stack(columns, axis=1) * deviation * weight[:, np.newaxis]
        normal = matrix.T @ matrix + np.eye(len(deviation))
        z = np.clip(np.linalg.solve(normal, matrix.T @ (target * weight)), -1.5, 1.5)
        for constant, x in zip(_COMMON, z * deviation, strict=True):
            common = constant.change(common, float(x))
            own = [constant.change(model, float(x)) for model in own]
    return common, own


def _spread(common: LayerModel, own: Sequence[LayerModel]) -> tuple[LayerModel, Spread]:
    """The population's mean, and the spread of chips about it.

    A deviation common to the chips is kept as far as chance does not explain it (James
    and Stein).
    """
    weights = np.stack([model.weights for model in own])
    shift = _shrunk(weights - common.weights)
    mean = common.weights + shift
    power = np.maximum((mean**2).sum(axis=0), 1e-300)
    gain = ((weights - mean) * mean).sum(axis=1) / power
    rest = weights - mean * (1 + gain[:, np.newaxis, :])

    def log(name: str) -> tuple[Array, float]:
        values = np.log(np.stack([getattr(model, name) / getattr(common, name) for model in own]))
        return getattr(common, name) * np.exp(_kept(values)), float(values.std())

    tau, tau_spread = log("tau")
    refractory, refractory_spread = log("refractory")
    drift = np.stack([model.drift for model in own])
    threshold = np.stack([model.threshold for model in own])
    freedom = np.sqrt(len(own) / (len(own) - 1))
    found = {
        "weight": float(rest.std()) * freedom,
        "gain": float(gain.std()) * freedom,
        "tau": tau_spread,
        "refractory": refractory_spread,
        "drift": float(drift.std()),
        "threshold": float(threshold.std()),
    }
    model = common.with_(
        weights=mean,
        tau=tau,
        refractory=refractory,
        fall=common.fall * common.refractory / refractory,
        drift=common.drift + _kept(drift - common.drift),
        threshold=common.threshold + _kept(threshold - common.threshold),
    )
    return model, Spread(
        **{name: max(value, getattr(_LEAST, name)) for name, value in found.items()}
    )


def _shrunk(deviation: Array) -> Array:
    average = deviation.mean(axis=0)
    chance = float(deviation.var(axis=0, ddof=1).sum()) / len(deviation)
    power = float((average**2).sum())
    kept: Array = average * (max(0.0, 1.0 - chance / power) if power > 0 else 0.0)
    return kept


def _kept(deviation: Array) -> float:
    """The mean of a deviation over chips and neurons, as far as chance does not explain it."""
    mean = float(deviation.mean())
    chance = float(deviation.var()) / (deviation.size - 1)
    return mean * max(0.0, 1.0 - chance / mean**2) if mean else 0.0


def _noise(own: Sequence[LayerModel], replays: Sequence[Replay], traces: Sequence[Trace]) -> Noise:
    """Robust standard deviations of what the chips' models leave."""
    membrane = np.concatenate([
        r.membrane[usable(m, t)] for m, r, t in zip(own, replays, traces, strict=True)
    ])  # fmt: skip
    spike = np.concatenate([r.lacking for r in replays])

    def deviation(values: Array) -> float:
        return float(1.4826 * np.median(np.abs(values))) if len(values) else 0.0

    return Noise(
        membrane=max(2 * deviation(membrane), _LEAST_NOISE.membrane),
        spike=max(2 * deviation(spike), _LEAST_NOISE.spike),
    )


def _energy_spread(
    own: Sequence[LayerModel], replays: Sequence[Replay], traces: Sequence[Trace], noise: float
) -> EnergySpread:
    """Between chips, of the sum over parts; each part is taken to spread as much."""
    ratio = []
    for model, replayed, trace in zip(own, replays, traces, strict=True):
        parts, seen = windows(model, replayed, trace)
        moving = seen.sum() - parts[:, 0].sum()
        ratio.append(moving / parts[:, 1:].sum())
    spread = max(float(np.std(ratio)), 0.01)
    return EnergySpread(
        rest=0.01, axon=3 * spread, slope=spread, spike=spread, catch=3 * spread, noise=noise
    )
