"""What a layer's supplies give, as a sum over events of what each costs; learned by regression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from spicenn.surrogate.events.model import Array, LayerModel
from spicenn.surrogate.events.replay import Replay
from spicenn.surrogate.events.trace import Trace

# Windows are joined until they are this long [s]: what an event costs is spent a little later.
_WINDOW = 2e-7


@dataclass(frozen=True, kw_only=True)
class EnergySpread:
    """How chips differ in energy, relative standard deviations.

    rest, axon, slope, spike, catch : of each part; axon of every axon by itself.
    noise : of a window's energy about the fitted model, standard deviation [J].
    """

    rest: float
    axon: float
    slope: float
    spike: float
    catch: float
    noise: float


def fit_energy(
    models: list[LayerModel], replays: list[Replay], traces: list[Trace]
) -> tuple[Array, float]:
    """Factors (7,) on a model's parts of energy, over all chips, and the rms left [J].

    Parts: at rest, axons, slopes, spikes, delays of spikes, floors, and near thresholds;
    none is negative.
    """
    table, energy = [], []
    for model, replayed, trace in zip(models, replays, traces, strict=True):
        parts, seen = windows(model, replayed, trace)
        table.append(parts)
        energy.append(seen)
    matrix, target = np.concatenate(table), np.concatenate(energy)
    scale = np.maximum(np.abs(matrix).max(axis=0), 1e-300)
    found, _ = nnls(matrix / scale, target)
    factors = found / scale
    # A part that no trace shows keeps what the circuit says.
    factors = np.where(np.abs(matrix).max(axis=0) > 0, factors, 1.0)
    return factors, float(np.sqrt(np.mean((target - matrix @ factors) ** 2)))


def with_factors(model: LayerModel, factors: Array) -> LayerModel:
    """A model with its parts of energy times (7,) factors."""
    rest, axon, slope, spike, delay, floor, near = factors
    return model.with_(
        power_rest=model.power_rest * float(rest),
        power_axon=model.power_axon * axon,
        power_slope=model.power_slope * slope,
        energy_spike=model.energy_spike * np.array([spike, delay]),
        energy_catch=model.energy_catch * floor,
        power_near=model.power_near * float(near),
    )


def calibrate_energy(
    model: LayerModel, replayed: Replay, trace: Trace, spread: EnergySpread
) -> LayerModel:
    """A chip's own powers from its supplies' energies, about the population's.

    A regression with a normal prior about the model's values.
    """
    parts, seen = windows(model, replayed, trace)
    axons = axon_windows(model, replayed, trace)
    matrix = np.concatenate([parts[:, [0, 2, 3, 4, 5, 6]], axons], axis=1)
    deviation = np.concatenate([
        [spread.rest, spread.slope, spread.spike, spread.spike, spread.catch, spread.catch],
        np.full(model.axons, spread.axon),
    ])  # fmt: skip
    left = (seen - matrix.sum(axis=1)) / spread.noise
    scaled = matrix * deviation / spread.noise
    normal = scaled.T @ scaled + np.eye(len(deviation))
    factors = 1.0 + deviation * np.linalg.solve(normal, scaled.T @ left)
    model = with_factors(model, np.array([factors[0], 1.0, *factors[1:6]]))
    return model.with_(power_axon=model.power_axon * factors[6:])


def windows(model: LayerModel, replayed: Replay, trace: Trace) -> tuple[Array, Array]:
    """(window, part) energies that a model's parts say, and (window,) what was seen [J]."""
    features = replayed.features
    parts = np.stack([
        features[:, 0] * model.power_rest,
        features[:, 1],
        features[:, 2],
        features[:, 3] * model.energy_spike[0],
        features[:, 4] * model.energy_spike[1],
        features[:, 5],
        features[:, 6],
    ], axis=1)  # fmt: skip
    starts = joined(trace)
    seen = np.add.reduceat(np.diff(trace.energy), starts)
    return np.add.reduceat(parts, starts, axis=0), seen


def axon_windows(model: LayerModel, replayed: Replay, trace: Trace) -> Array:
    """(window, axon) energies of each axon's part [J]."""
    return np.add.reduceat(replayed.axon_time * model.power_axon, joined(trace), axis=0)


def joined(trace: Trace) -> np.ndarray:
    """First of the trace's windows in each of those that are long enough."""
    bounds = trace.energy_time
    starts, last = [0], bounds[0]
    for j, time in enumerate(bounds[1:-1], 1):
        if time - last >= _WINDOW:
            starts.append(j)
            last = time
    return np.array(starts, dtype=np.int64)
