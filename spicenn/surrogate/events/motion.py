"""How a membrane moves while its inputs stay as they are: closed forms, one per regime.

Held after a spike, caught from below (by the reset that lets go, then at the floor), or
free. With u the distance below where a transistor begins to catch it, the catch is its
square law and the rest a constant: u' = a - κ u², a Riccati equation with the solutions
below (tanh where it is driven down, tan where it comes back).
"""

from __future__ import annotations

import numpy as np

from spicenn.surrogate.events.model import Array, LayerModel

_TINY = 1e-30


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
    result = final + (v - final) * np.exp((start - end) / model.tau)
    window = (model.rest - model.floor) / model.fall
    bound = (result < model.floor) | (v < model.floor) | (release + window > start)
    chosen = np.flatnonzero(bound)
    if chosen.size:
        result[chosen] = _bound(
            model, chosen, v[chosen], slope[chosen], release[chosen], start, end
        )
    return result


def held(
    v: Array, slope: Array, rest: float, catch: Array, fall: Array, before: Array, after: Array
) -> Array:
    """A membrane that is held, from ``before`` to ``after`` the release, both counted back [s].

    The reset's transistor carries κ (fall y)² at most, y before it lets go: what the input
    brings beyond that stays on the membrane.
    """
    begins = np.where(slope > 0, np.sqrt(np.maximum(slope, 0.0) / catch) / fall, before)
    first, last = np.minimum(before, begins), np.minimum(after, begins)
    brought = np.maximum(slope, 0.0) * (first - last)
    taken = catch * fall**2 * (first**3 - last**3) / 3
    kept = np.where(before > begins, rest, v)
    lifted: Array = np.maximum(kept + brought - taken, rest)
    return lifted


def _bound(
    model: LayerModel,
    k: np.ndarray,
    v: Array,
    slope: Array,
    release: Array,
    start: float,
    end: float,
) -> Array:
    tau, catch, fall = model.tau[k], model.catch[k], model.fall[k]
    window = (model.rest - model.floor) / fall
    is_held = release > start
    if is_held.any():
        upto = np.minimum(release, end)
        before, after = np.maximum(release - start, 0.0), np.maximum(release - upto, 0.0)
        v = np.where(is_held, held(v, slope, model.rest, catch, fall, before, after), v)
    first = np.clip(release, start, end)
    second = np.clip(release + window, start, end)
    level = model.rest - fall * np.maximum(first - release, 0.0)
    moving = second > first
    if moving.any():
        v = np.where(
            moving, caught(v, slope, model.rest, tau, catch, level, fall, second - first), v
        )
    zero = np.zeros_like(fall)
    floor = np.full_like(fall, model.floor)
    return caught(v, slope, model.rest, tau, catch, floor, zero, end - second)


def caught(
    v: Array,
    slope: Array,
    rest: float,
    tau: Array,
    catch: Array,
    level: Array,
    fall: Array,
    time: Array,
) -> Array:
    """A membrane above a level that falls at a speed, or caught below it, after a time [s]."""
    final = rest + tau * slope
    drive = -(final - level) / tau - fall  # of u, at the level
    below = np.maximum(level - v, 0.0)
    # From above: when it meets the level, at the mean of its speeds there and here.
    speed = -0.5 * ((final - v) + (final - level)) / tau - fall
    above = v > level
    enters = np.where(above, np.where(speed > 0, (v - level) / np.maximum(speed, _TINY), np.inf), 0)
    inside = np.maximum(time - enters, 0.0)
    free = final + (v - final) * np.exp(-time / tau)
    # Driven down: towards U = sqrt(a / κ).
    rate = np.sqrt(np.abs(drive) * catch) + _TINY
    end = np.sqrt(np.abs(drive) / catch) + _TINY
    t = np.tanh(rate * inside)
    down = end * (below + end * t) / (end + below * t)
    # Coming back: through u = 0 after ``exits``.
    angle = np.arctan(below / end)
    exits = angle / rate
    still = np.maximum(angle - rate * time, 0.0)
    up = end * np.tan(still)
    left = np.maximum(time - exits, 0.0)
    gone = level - fall * np.minimum(exits, time)
    free_again = final + (gone - final) * np.exp(-left / tau)
    driven = level - fall * time - down
    back = np.where(exits < time, free_again, level - fall * time - up)
    return np.where(drive > 0, np.where(enters < time, driven, free), np.where(above, free, back))
