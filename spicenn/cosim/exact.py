"""Ideal layers of integrate-and-fire neurons, from event to event in closed form."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spicenn.cosim.sources import AddressEvents
from spicenn.errors import InputError
from spicenn.periphery.lif import Lif

Array = NDArray[np.float64]


def exact_layer(
    weights: Array, neurons: Sequence[Lif], events: AddressEvents, *, width: float
) -> AddressEvents:
    """Spikes of a layer without any delay or deviation of its own.

    A pulse of a width w through a weight lifts a membrane by the weight over its course,
    an RC with a constant current meanwhile; pulses of one address prolong each other as
    those of ``routing.Pulses`` do. Where a membrane meets its threshold it is held at rest
    for the refractory time; it never goes below its floor.

    Parameters
    ----------
    weights : (output, input), in units of the way from rest to threshold.
    neurons : one per output; time constant, refractory time, floor and offset of the threshold.
    events : of the inputs.
    width : of a pulse [s].

    Raises InputError for weights that do not fit the neurons or the events.
    """
    outputs, inputs = weights.shape
    if len(neurons) != outputs:
        raise InputError(f"{len(neurons)} neurons for {outputs} outputs", where="exact_layer")
    if events.addresses.size and int(events.addresses.max()) >= inputs:
        raise InputError(f"an event of address {events.addresses.max()}", where="exact_layer")
    tau = np.array([n.tau for n in neurons])
    held = np.array([n.refractory for n in neurons])
    floor = np.array([(n.v_floor - n.v_rest) / n.swing for n in neurons])
    threshold = np.array([1.0 + n.offset / n.swing for n in neurons])
    v, slope, release = np.zeros(outputs), np.zeros(outputs), np.zeros(outputs)
    now = 0.0
    found: list[tuple[float, int]] = []
    # The last piece, without any input, cannot make a neuron fire.
    for time, address, sign in _edges(events, width):
        final = slope * tau
        start = np.clip(release, now, time)
        at = np.where(start > now, 0.0, v)
        end = final + (at - final) * np.exp((start - time) / tau)
        for k in np.flatnonzero((end >= threshold) & (start < time)):
            end[k], release[k], times = _fire(
                float(start[k]), time, float(at[k]), float(final[k]), float(tau[k]),
                float(threshold[k]), float(held[k]),
            )  # fmt: skip
            found += [(t, int(k)) for t in times]
        v, now = np.maximum(end, floor), time
        slope = slope + sign * weights[:, address] / width
    found.sort()
    return AddressEvents(
        np.array([t for t, _ in found], dtype=np.float64),
        np.array([k for _, k in found], dtype=np.int64),
    )


def through_bus(events: AddressEvents, *, cycle: float, delay: float) -> AddressEvents:
    """What leaves an ``AddressBus``: one event a cycle, in order; ``delay`` is the circuits'."""
    free = -math.inf
    times = []
    for time in events.times.tolist():
        free = max(free, time) + cycle
        times.append(free + delay)
    return AddressEvents(np.array(times, dtype=np.float64), events.addresses)


def _fire(
    start: float, end: float, v: float, final: float, tau: float, threshold: float, held: float
) -> tuple[float, float, list[float]]:
    """Membrane at the end of a piece, until when it is held, and when it fired."""
    times = []
    while final > threshold:
        crossed = start + tau * math.log((final - v) / (final - threshold))
        if crossed > end:
            break
        times.append(crossed)
        start, v = crossed + held, 0.0
        if start >= end:
            return 0.0, start, times
    return final + (v - final) * math.exp((start - end) / tau), start, times


def _edges(events: AddressEvents, width: float) -> list[tuple[float, int, float]]:
    """Beginnings and ends of pulses in order: time, address, 1 or -1."""
    ends: dict[int, float] = {}
    edges: list[tuple[float, int, float]] = []
    waiting: list[tuple[float, int]] = []
    for time, address in zip(events.times.tolist(), events.addresses.tolist(), strict=True):
        if ends.get(address, -math.inf) > time:
            ends[address] += width
        else:
            edges.append((time, address, 1.0))
            if address in ends:
                heapq.heappush(waiting, (ends[address], address))
            ends[address] = time + width
    waiting += [(end, address) for address, end in ends.items()]
    edges += [(end, address, -1.0) for end, address in waiting]
    return sorted(edges)
