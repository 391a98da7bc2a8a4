"""How a membrane moves while its inputs stay as they are: closed forms, one per regime.

Free, it is an RC. At the floor, and as long as the reset has not let go, a transistor of
square law catches it at a level: with u the distance of the membrane below that level,
u' = a - κ u², a Riccati equation with tanh or tan for a solution, and u' = a above it. At
the floor a is what the inputs take away. At the reset, whose transistor has the overdrive
V to spare (V falls at a constant speed), the level is rest + V and a = κ V² - slope - V's
speed while V > 0: in triode below the level, saturated above it. Once V < 0 the transistor
is a source follower below a falling level.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.surrogate.events.model import Array, LayerModel

_TINY = 1e-30
# Overdrive beyond which a reset's transistor is faster than anything else [V].
_STIFF = 0.1
# For how long its overdrive may be taken to be constant [s].
_STEP = 2e-8
# Step of a derivative by a membrane's voltage.
_VOLT = 1e-6


def move(
    model: LayerModel,
    v: Array,
    slope: Array,
    release: Array,
    start: float,
    end: float,
) -> Array:
    """Membranes (neuron,) [V] at ``end``, from ``start`` on [s].

    Parameters
    ----------
    v : (neuron,) at the start [V].
    slope : (neuron,) of the input currents [V/s].
    release : (neuron,) until when each is held [s].
    """
    final = model.rest + model.tau * slope
    result: Array = final + (v - final) * np.exp((start - end) / model.tau)
    # Those held all the time, by more than moves them, are at rest but for what balances
    # the input.
    stiff = _STIFF + 2.0 * np.sqrt(np.abs(slope) / model.catch)
    firm = release - stiff / model.fall > end
    chosen = _chosen(model, v, result, np.where(firm, start - 1.0, release), start)
    if firm.any():
        k = np.flatnonzero(firm)
        spare = model.fall[k] * (release[k] - end)
        result[k] = model.rest + equilibrium(slope[k], model.catch[k], spare)
        chosen = chosen[~firm[chosen]]
    if chosen.size:
        result[chosen] = _bound(
            model, chosen, v[chosen], slope[chosen], release[chosen], start, end
        )
    return result


def move_with_gains(
    model: LayerModel, v: Array, slope: Array, release: Array, start: float, end: float
) -> tuple[Array, Array, Array]:
    """As ``move``, and how much of a change of v, and of a slope, is there at the end: 1, [s]."""
    final = model.rest + model.tau * slope
    kept = np.exp((start - end) / model.tau)
    result = final + (v - final) * kept
    brought = model.tau * (1.0 - kept)
    k = _chosen(model, v, result, release, start)
    if k.size:
        step = end - start
        faster = _VOLT / max(step, _VOLT)
        three = np.concatenate([k, k, k])
        change = np.repeat([0.0, _VOLT, 0.0], len(k))
        more = np.repeat([0.0, 0.0, faster], len(k))
        base, moved, sped = _bound(
            model, three, v[three] + change, slope[three] + more, release[three], start, end
        ).reshape(3, -1)
        kept[k] = np.clip((moved - base) / _VOLT, 0.0, 1.0)
        brought[k] = np.clip((sped - base) / faster, 0.0, step)
        result[k] = base
    return result, kept, brought


def _chosen(
    model: LayerModel, v: Array, result: Array, release: Array, start: float
) -> NDArray[np.int64]:
    """Neurons that were not free all the time."""
    low = (result < model.floor) | (v < model.floor)
    return np.flatnonzero(low | (release + model.window > start))


def nearness(model: LayerModel, before: Array, after: Array, step: float) -> float:
    """Integral of the square of how near membranes are to their thresholds, over a step, as
    if they moved at a constant speed [V² s]; what is farther than ``near`` does not count.
    """
    edge = model.threshold - model.near
    k = np.flatnonzero((after > edge) | (before > edge))
    if not k.size:
        return 0.0
    first, last = before[k] - edge[k], after[k] - edge[k]
    a, b = np.clip(first, 0.0, model.near), np.clip(last, 0.0, model.near)
    way = last - first
    moving = np.abs(way) > 1e-6
    square = np.where(moving, (b**3 - a**3) / (3 * np.where(moving, way, 1.0)), a * a)
    # Beyond the threshold it counts as there.
    over = np.maximum(last, model.near) - np.maximum(first, model.near)
    square += np.where(moving, over / np.where(moving, way, 1.0), 0.0) * model.near**2
    return float(square.sum() * step)


def needed(model: LayerModel, passing: Any) -> Any:
    """Integral over the threshold at which an output goes [V s], by the slope there [V/s]."""
    x = np.log(np.minimum(np.maximum(passing / model.slope, 1e-3), 1e2))
    power = model.excess[-1]
    for coefficient in model.excess[-2::-1]:
        power = power * x + coefficient
    return np.exp(power)


def equilibrium(slope: Array, catch: Array, spare: Array) -> Array:
    """Where a reset holds a membrane, above rest [V], with a spare overdrive [V]."""
    return spare - np.sqrt(np.maximum(spare**2 - slope / catch, 0.0))


def settle(u: Array, drive: Array, catch: Array, time: Array) -> Array:
    """Distance below a level after a time, u' = drive - catch u², without catch above it."""
    rate = np.sqrt(np.abs(drive) * catch) + _TINY
    end = np.sqrt(np.abs(drive) / catch) + _TINY
    # Driven down: from above the level first to it, then towards sqrt(a / κ).
    below = np.maximum(u, 0.0)
    arrives = np.minimum(np.maximum(-u, 0.0) / np.maximum(drive, _TINY), time)
    t = np.tanh(rate * (time - arrives))
    down = end * (below + end * t) / (end + below * t) + np.minimum(u + drive * arrives, 0.0)
    # Coming up: through the level, then with nothing to hold it.
    angle = np.arctan(below / end)
    left = np.maximum(time - angle / rate, 0.0)
    up = end * np.tan(np.maximum(angle - rate * time, 0.0)) + np.minimum(u, 0.0) + drive * left
    return np.where(drive > 0, down, up)


def _bound(
    model: LayerModel,
    k: NDArray[np.int64],
    v: Array,
    slope: Array,
    release: Array,
    start: float,
    end: float,
) -> Array:
    tau, catch, fall = model.tau[k], model.catch[k], model.fall[k]
    window = (model.rest - model.floor) / fall
    if (release + window > start).any():
        v = _letting_go(model.rest, tau, catch, fall, v, slope, release, window, start, end)
    rest_of_it = end - np.clip(release + window, start, end)
    return _at_floor(model, tau, model.grip[k], v, slope, rest_of_it)


def _letting_go(
    rest: float, tau: Array, catch: Array, fall: Array, v: Array, slope: Array, release: Array,
    window: Array, start: float, end: float,
) -> Array:  # fmt: skip
    """Through what is left of a reset: held, then followed down to the floor."""
    # While there is overdrive to spare the membrane is where it balances the input.
    stiff = _STIFF + 2.0 * np.sqrt(np.abs(slope) / catch)
    begin = np.clip(release - stiff / fall, start, end)
    spare = fall * (release - begin)
    v = np.where(begin > start, rest + equilibrium(slope, catch, np.maximum(spare, stiff)), v)
    until = np.clip(release + window, begin, end)
    count = max(1, math.ceil(float((until - begin).max()) / _STEP))
    step = (until - begin) / count
    net = slope - (v - rest) / tau
    u = rest + spare - v
    for _ in range(count):
        middle = np.maximum(spare - 0.5 * fall * step, 0.0)
        u = settle(u, catch * middle**2 - net - fall, catch, step)
        spare = spare - fall * step
    return np.where(until > start, rest + spare - u, v)


def _at_floor(
    model: LayerModel, tau: Array, catch: Array, v: Array, slope: Array, time: Array
) -> Array:
    """Free, but for the floor, for a time each."""
    floor = model.floor
    final = model.rest + tau * slope
    free = final + (v - final) * np.exp(-time / tau)
    drive = (floor - final) / tau
    with np.errstate(divide="ignore", invalid="ignore"):
        enters = np.where(
            v > floor,
            np.where(final < floor, tau * np.log((v - final) / (floor - final)), np.inf),
            0.0,
        )  # fmt: skip
    inside = np.maximum(time - enters, 0.0)
    below = np.maximum(floor - v, 0.0)
    caught = floor - settle(below, drive, catch, inside)
    # From where it leaves the floor upwards the leak pulls less and less: an RC again.
    angle = np.arctan(below / (np.sqrt(np.abs(drive) / catch) + _TINY))
    left = time - angle / (np.sqrt(np.abs(drive) * catch) + _TINY)
    risen = final + (floor - final) * np.exp(-np.maximum(left, 0.0) / tau)
    caught = np.where((drive <= 0) & (left > 0), risen, caught)
    return np.where(enters < time, caught, free)
