"""A layer's model led through a recorded run: its outputs are the recorded ones.

What remains are the differences that a fit makes small: of membranes at their samples, and
at every spike the voltage that the model's membrane lacks (or has too much) for its
comparator to have gone over just then. Both come with their derivatives by the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.surrogate.events.model import Array, LayerModel
from spicenn.surrogate.events.motion import move_with_gains, nearness, needed
from spicenn.surrogate.events.trace import Trace

# Points of a membrane before a spike that tell when its comparator went.
_POINTS = 24
_HALVINGS = 40
# Largest voltage [V] that a membrane can be found to lack.
_MOST = 0.4
# From where on a membrane's model has lost it [V].
_LOST = 0.15
_PARTS = 7


@dataclass(frozen=True, eq=False)
class Replay:
    """Differences and their derivatives.

    membrane : (sample, neuron), recorded less modelled [V].
    membrane_gain : (sample, neuron, axon + 1), of the model's by weights and drift [V s].
    lacking : (spike,) [V]; spike_gain : (spike, axon + 1) [V s].
    passing : (spike,), slope at the threshold [V/s]; delay : (spike,) of the comparator [s].
    features : (window, 7), integrals that energy is made of: time [s], axons' powers,
        slopes' powers [J], spikes, their delays [s], what floors carried and what comparators
        took near their thresholds [J].
    """

    membrane: Array
    membrane_gain: Array
    lacking: Array
    spike_gain: Array
    passing: Array
    delay: Array
    features: Array
    axon_time: Array


def replay(model: LayerModel, trace: Trace) -> Replay:
    """Lead a model through a trace."""
    axons, neurons = model.axons, model.neurons
    order, kinds, times = _schedule(model, trace)
    v = np.maximum(model.rest + model.tau * model.drift, model.floor)
    gain = np.zeros((neurons, axons + 1))
    level = np.zeros(axons + 1)
    level[-1] = 1.0
    slope = model.drift.copy()
    release = np.full(neurons, -1e3)
    samples, sampled = [], []
    spikes = len(trace.spike_time)
    polyline = np.zeros((spikes, _POINTS, 2))
    spike_gain, active = np.zeros((spikes, axons + 1)), np.zeros((spikes, axons + 1))
    history: list[tuple[float, Array]] = []
    now = 0.0
    flow = np.zeros(_PARTS)
    axon_flow = np.zeros(axons)
    features, axon_time = [], []
    power_axon = 0.0
    power_slope = float(np.abs(slope) @ model.power_slope)
    for kind, j, time in zip(kinds, order, times, strict=True):
        if time > now:
            step = time - now
            after, kept, brought = move_with_gains(model, v, slope, release, now, time)
            gain *= kept[:, np.newaxis]
            gain += brought[:, np.newaxis] * level
            flow[0] += step
            flow[1] += power_axon * step
            flow[2] += power_slope * step
            axon_flow += np.abs(level[:-1]) * step
            flow[5] += _floors(model, v, after, slope, release, now, step)
            flow[6] += model.power_near * nearness(model, v, after, step)
            history.append((now, v))
            del history[:-_POINTS]
            v, now = after, time
        if kind == _EDGE:
            i, volts = int(trace.edge_axon[j]), float(trace.edge_level[j])
            slope = slope + (volts - level[i]) * model.weights[i]
            level[i] = volts
            power_axon = float(np.abs(level[:-1]) @ model.power_axon)
            power_slope = float(np.abs(slope) @ model.power_slope)
        elif kind == _SPIKE:
            k = int(trace.spike_neuron[j])
            points = [(t, float(w[k])) for t, w in history if t >= release[k]]
            points.append((now, float(v[k])))
            polyline[j] = [points[0]] * (_POINTS - len(points[-_POINTS:])) + points[-_POINTS:]
            spike_gain[j], active[j] = gain[k], level
            flow[3] += 1.0
            v = v.copy()
            v[k] = model.rest
            gain[k] = 0.0
            release[k] = now + model.refractory[k]
        elif kind == _SAMPLE:
            samples.append(trace.membrane[j] - v)
            sampled.append(gain.copy())
            lost = np.abs(samples[-1]) > _LOST
            if lost.any():
                # A reset without an output, or one that is just on its way.
                v = np.where(lost, trace.membrane[j], v)
                gain[lost] = 0.0
        else:
            v, gain, release = _unseen(model, trace, v, gain, release, now)
            features.append(flow.copy())
            axon_time.append(axon_flow.copy())
    lacking, passing, delay = _lacking(model, trace.spike_neuron, polyline)
    # A comparator sums the membrane from its crossing on: on average it saw it half a delay
    # before the spike.
    spike_gain = spike_gain - active * (delay / 2)[:, np.newaxis]
    table = np.diff(np.array(features).reshape(-1, _PARTS), axis=0)
    window = np.searchsorted(trace.energy_time, trace.spike_time, side="left") - 1
    np.add.at(table[:, 4], np.clip(window, 0, len(table) - 1), delay)
    return Replay(
        membrane=np.array(samples).reshape(-1, neurons),
        membrane_gain=np.array(sampled).reshape(-1, neurons, axons + 1),
        lacking=lacking,
        spike_gain=spike_gain,
        passing=passing,
        delay=delay,
        features=table,
        axon_time=np.diff(np.array(axon_time).reshape(-1, axons), axis=0),
    )


def _unseen(
    model: LayerModel, trace: Trace, v: Array, gain: Array, release: Array, now: float
) -> tuple[Array, Array, Array]:
    """A reset where a membrane is far above its threshold and no output tells of it."""
    over = v > model.threshold + _LOST
    if not over.any() or len(trace.membrane_time):
        return v, gain, release
    v = np.where(over, model.rest, v)
    gain = np.where(over[:, np.newaxis], 0.0, gain)
    return v, gain, np.where(over, now + model.refractory, release)


# Of events at one time the sample comes first, then the spike, then the edge.
_WINDOW, _SAMPLE, _SPIKE, _EDGE = range(4)


def _schedule(
    model: LayerModel, trace: Trace
) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    parts = [
        (_WINDOW, trace.energy_time),
        (_SAMPLE, trace.membrane_time),
        (_SPIKE, trace.spike_time),
        (_EDGE, trace.edge_time + model.lag),
    ]
    times = np.concatenate([part for _, part in parts])
    kinds = np.concatenate([np.full(len(part), kind) for kind, part in parts])
    index = np.concatenate([np.arange(len(part)) for _, part in parts])
    order = np.lexsort((index, kinds, times))
    return index[order], kinds[order], times[order]


def _floors(
    model: LayerModel, before: Array, after: Array, slope: Array, release: Array,
    now: float, step: float,
) -> float:  # fmt: skip
    low = (after < model.floor) & (before < model.rest) & (release < now)
    if not low.any():
        return 0.0
    leak = (model.rest - 0.5 * (before + after)) / model.tau
    lifted = after - before - (slope + leak) * step
    return float(np.where(low, np.maximum(lifted, 0.0), 0.0) @ model.energy_catch)


def _lacking(
    model: LayerModel, neuron: NDArray[np.int64], polyline: Array
) -> tuple[Array, Array, Array]:
    """What to add to each membrane for its comparator to go at the last of its points.

    Returns (spike,) that voltage [V], the slope at the threshold [V/s], the delay [s].
    """
    if not len(neuron):
        return np.zeros(0), np.zeros(0), np.zeros(0)
    time, v = polyline[:, :, 0], polyline[:, :, 1] - model.threshold[neuron][:, np.newaxis]
    step = np.diff(time, axis=1)
    low, high = np.full(len(v), -_MOST), np.full(len(v), _MOST)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        area, passing, _ = _excess(v + middle[:, np.newaxis], step)
        enough = area >= needed(model, passing)
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    _, passing, above = _excess(v + high[:, np.newaxis], step)
    return high, passing, above


def _excess(v: Array, step: Array) -> tuple[Array, Array, Array]:
    """Of polylines about the threshold: the integral of their last stretch above it, the slope
    that they came up with, and how long they are above.
    """
    a, b = v[:, :-1], v[:, 1:]
    rise = b - a
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(step > 0, rise / step, 0.0)
        # Share of each step that is above.
        share = np.where(
            (a > 0) & (b > 0), 1.0,
            np.where((a <= 0) & (b <= 0), 0.0, np.maximum(a, b) / np.abs(rise)),
        )  # fmt: skip
    # Only what comes after the last point below counts.
    last = np.cumprod((a > 0)[:, ::-1], axis=1)[:, ::-1].astype(bool)
    first = (a <= 0) & (b > 0)
    following = np.concatenate([last[:, 1:], np.ones((len(v), 1), dtype=bool)], axis=1)
    counted = last | (first & following)
    time = np.where(counted, share * step, 0.0)
    mean = np.where((a > 0) & (b > 0), (a + b) / 2, np.maximum(a, b) / 2)
    area = np.where(counted, mean * share * step, 0.0).sum(axis=1)
    entered = first & following
    up = np.where(entered, slope, 0.0).max(axis=1)
    return area, np.maximum(up, 1.0), time.sum(axis=1)
