"""Sources of spikes: lists, regular and Poisson trains, and arrays of intensities as spikes."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import count, takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.cosim.arguments import (
    check_count,
    check_not_negative,
    check_positive,
    process,
)
from spicenn.cosim.events import ProcessGenerator
from spicenn.cosim.kernel import Cosimulation
from spicenn.cosim.routing import Sink
from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]


class AddressEvents(NamedTuple):
    """Spikes in the order of their times: ``times`` (event,) [s], ``addresses`` (event,)."""

    times: Array
    addresses: NDArray[np.int64]


def rate_code(
    intensities: ArrayLike,
    duration: float,
    *,
    rate: float,
    seed: int,
    trial: int = 0,
    start: float = 0.0,
) -> AddressEvents:
    """Code intensities by the rates of independent Poisson trains.

    Address k, the k-th intensity in C order, has a generator of its own: its spikes are the
    same whatever the other intensities are, and those of a longer duration begin with those
    of a shorter one.

    Parameters
    ----------
    intensities : 0 … 1, of any shape.
    duration : of the trains [s].
    rate : of intensity 1 [1/s].
    seed, trial : of the draws; another trial of the same seed is another presentation.
    start : time of the trains' begin [s].

    Raises InputError for intensities or numbers out of range.
    """
    where = "rate_code"
    rates = _intensities(intensities, where) * check_positive("rate", rate, where)
    end = check_not_negative("start", start, where) + check_positive("duration", duration, where)
    return _events(takewhile(lambda e: e[0] < end, _poisson(rates, start, seed, trial)))


def latency_code(
    intensities: ArrayLike,
    duration: float,
    *,
    threshold: float = 0.01,
    tau: float | None = None,
    start: float = 0.0,
) -> AddressEvents:
    """Code intensities by the time to one spike each: the brighter, the earlier.

    An intensity x above the threshold θ spikes duration (1 - x) / (1 - θ) after the start;
    with ``tau`` tau ln(x / (x - θ)) after it, as an RC integrator charged by x does that
    fires at θ (unless later than the duration). None below θ spikes. Address k is the k-th
    intensity in C order; of spikes at one time the lower address is first.

    Source: S. Thorpe, A. Delorme and R. Van Rullen, Neural Networks 14, 715, 2001.

    Parameters
    ----------
    intensities : 0 … 1, of any shape.
    duration : latest spike after the start [s].
    threshold : θ, 0 or more and below 1; above 0 with ``tau``.
    tau : time constant [s], or None for the linear code.
    start : time that latencies are counted from [s].

    Raises InputError for intensities or numbers out of range.
    """
    where = "latency_code"
    x = _intensities(intensities, where)
    duration = check_positive("duration", duration, where)
    threshold = check_not_negative("threshold", threshold, where)
    start = check_not_negative("start", start, where)
    if threshold >= 1 or (threshold == 0 and tau is not None):
        raise InputError(
            f"no intensity has a latency at a threshold of {threshold!r}",
            where=where,
            remedy="give one below 1, and above 0 where there is a tau",
        )
    addresses = np.flatnonzero(x > threshold)
    bright = x[addresses]
    if tau is None:
        latencies = duration * (1.0 - bright) / (1.0 - threshold)
    else:
        latencies = -check_positive("tau", tau, where) * np.log1p(-threshold / bright)
        kept = latencies <= duration
        addresses, latencies = addresses[kept], latencies[kept]
    order = np.argsort(latencies, kind="stable")
    return AddressEvents(start + latencies[order], addresses[order])


@process
def spikes(
    env: Cosimulation, sink: Sink, times: Sequence[float], *, address: int = 0
) -> ProcessGenerator:
    """Send events of one address at given times [s], in any order.

    Raises InputError for times that are past or not finite, or an unknown address.
    """
    listed = np.asarray(times, dtype=np.float64)
    return play(env, sink, AddressEvents(listed, np.full(listed.shape, address, dtype=np.int64)))


@process
def play(env: Cosimulation, sink: Sink, events: AddressEvents) -> ProcessGenerator:
    """Send address events, each at its time, such as ``rate_code`` and ``latency_code`` give.

    Parameters
    ----------
    sink : ``Pulses`` of sources, or an ``AddressBus``.
    events : times (event,) [s] in any order, and addresses (event,).

    Raises InputError for times that are past or not finite, addresses that the sink does
    not know, or unlike numbers of both.
    """
    where = "play"
    times = np.asarray(events[0], dtype=np.float64)
    addresses = np.asarray(events[1])
    if times.ndim != 1 or times.shape != addresses.shape:
        raise InputError(
            f"times are {times.shape}, addresses {addresses.shape}",
            where=where,
            remedy="give one address for every time, each as (event,)",
        )
    if addresses.size and not np.issubdtype(addresses.dtype, np.integer):
        raise InputError(f"addresses are {addresses.dtype}, not integers", where=where)
    bad = np.flatnonzero(~(np.isfinite(times) & (times >= env.now)))
    if bad.size:
        raise InputError(
            f"a spike cannot be at {times[bad[0]]} s",
            where=f"{where}, event {bad[0]}",
            remedy=f"give times from now, {env.now:g} s, on",
        )
    sink.check(np.unique(addresses).tolist(), where)
    order = np.argsort(times, kind="stable")
    return _send(env, sink, zip(times[order].tolist(), addresses[order].tolist(), strict=True))


@process
def regular(
    env: Cosimulation,
    sink: Sink,
    period: float,
    *,
    address: int = 0,
    start: float = 0.0,
    number: int | None = None,
) -> ProcessGenerator:
    """Send an event every period: at start, start + period, …

    Parameters
    ----------
    period, start : [s]; the start is counted from now.
    number : of events; endless if None.

    Raises InputError for numbers out of range or an unknown address.
    """
    where = "regular"
    period = check_positive("period", period, where)
    first = env.now + check_not_negative("start", start, where)
    ks = count() if number is None else range(check_count("number", number, where))
    sink.check([address], where)
    return _send(env, sink, ((first + k * period, address) for k in ks))


@process
def poisson(
    env: Cosimulation,
    sink: Sink,
    rates: ArrayLike,
    *,
    seed: int,
    trial: int = 0,
    start: float = 0.0,
    until: float = math.inf,
) -> ProcessGenerator:
    """Send events at the times of independent Poisson trains, one for every address.

    The times are those of ``rate_code``.

    Parameters
    ----------
    rates : [1/s], one number for address 0 or (address,).
    seed, trial : of the draws.
    start, until : of the trains [s]; the start is counted from now.

    Raises InputError for rates that are negative or not finite, or an unknown address.
    """
    where = "poisson"
    each = np.atleast_1d(np.asarray(rates, dtype=np.float64))
    bad = np.flatnonzero(~(np.isfinite(each) & (each >= 0)))
    if each.ndim != 1 or bad.size:
        raise InputError(
            f"rate {each.flat[bad[0]]} is negative or not finite"
            if bad.size
            else f"rates are {each.shape}",
            where=f"{where}, address {bad[0]}" if bad.size else where,
            remedy="give one rate [1/s], or one for every address",
        )
    if not until > env.now:
        raise InputError(f"until = {until!r} s is not after now, {env.now:g} s", where=where)
    first = env.now + check_not_negative("start", start, where)
    sink.check(range(len(each)), where)
    train = _poisson(each, first, seed, trial)
    return _send(env, sink, takewhile(lambda event: event[0] < until, train))


def _send(env: Cosimulation, sink: Sink, events: Iterator[tuple[float, int]]) -> ProcessGenerator:
    for time, address in events:
        # From the event's own time: a sum of intervals would gather rounding.
        if time > env.now:
            yield env.timeout(time - env.now)
        sink.send(address)


def _poisson(rates: Array, start: float, seed: int, trial: int) -> Iterator[tuple[float, int]]:
    """Times and addresses of independent Poisson trains, merged; endless where a rate is not 0."""
    trains = (
        _train(generator(seed, Purpose.SPIKES, trial=trial, row=k), float(rate), start, k)
        for k, rate in enumerate(rates.tolist())
        if rate > 0
    )
    return heapq.merge(*trains)


def _train(
    rng: np.random.Generator, rate: float, start: float, address: int
) -> Iterator[tuple[float, int]]:
    # Drawn at rate 1 and stretched: another rate is the same train in another time.
    unit = 0.0
    while True:
        unit += float(rng.standard_exponential())
        yield start + unit / rate, address


def _events(events: Iterator[tuple[float, int]]) -> AddressEvents:
    listed = list(events)
    times = np.array([time for time, _ in listed], dtype=np.float64)
    return AddressEvents(times, np.array([address for _, address in listed], dtype=np.int64))


def _intensities(intensities: ArrayLike, where: str) -> Array:
    """Intensities in a row. Raises InputError for one that is not within 0 … 1."""
    x = np.asarray(intensities, dtype=np.float64).ravel()
    bad = np.flatnonzero(~((x >= 0) & (x <= 1)))
    if bad.size:
        raise InputError(
            f"intensity {x[bad[0]]} is not within 0 … 1",
            where=f"{where}, address {bad[0]}",
            remedy="scale pixels to 0 … 1",
        )
    return x
