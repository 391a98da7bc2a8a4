"""One transient of ngspice, step by step: the child's side of a co-simulation.

ngspice runs one ``.tran`` without an end and calls back twice a step. Before a step its
length is cut to what comes next: the time to stop at, a slope's corner, a crossing that
the last points foretell. After a step has converged, and before it is accepted, the
watched nodes are read; where one has gone past its threshold by more than the tolerance
in time, the step is done again, shorter. So a crossing is never found in hindsight, and
what answers it starts from the very point where it happened.

Control is with the parent only while the transient stands still at a point.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from spicenn.engines.ngspice.diagnosis import diagnose, load_failed
from spicenn.engines.ngspice.protocol import Array, Header
from spicenn.engines.ngspice.session import LONGEST_COMMAND, Session
from spicenn.errors import EngineError, SpicennError

Send = Callable[[Header, Sequence[Array]], None]
Receive = Callable[[], tuple[Header, list[Array]]]

# ngspice gives up below 1e-11 of the largest step.
_LEAST_STEP = 1e-10
# A slope begins this part of its duration after it was asked for: where a time point
# already is, ngspice no longer lowers its order.
LEAD = 1e-3
# Commands after which ngspice's record of them is dropped: it takes 200 bytes each.
_COMMANDS_KEPT = 500
# Seconds between two signs of life, and between two deliveries of what was recorded.
_SIGN = 0.25
_MOST_TRIES = 60
# What a step that meets the limit in time may miss it by, over the time itself.
_SAME = 4e-16


@dataclass
class _Watch:
    """A threshold of one probe; ``armed`` once the probe was on the side it comes from."""

    key: int
    probe: int
    threshold: float
    sign: float
    repeat: bool
    armed: bool = False

    def beyond(self, value: float) -> float:
        return self.sign * (value - self.threshold)


class Stepper:
    """The run of one circuit; made for one transient, then the process ends.

    Parameters
    ----------
    send, receive : messages to and from the parent.
    header : of the request, see ``client``.
    """

    def __init__(self, session: Session, send: Send, receive: Receive, header: Header) -> None:
        self._session = session
        self._send = send
        self._receive = receive
        self._header = header
        self._readers = [name.encode("ascii") for name in header["readers"]]
        self._vectors = [name.encode("ascii") for name in header["vectors"]]
        self._tolerance: float = header["tolerance"]
        self._least: float = header["max_step"] * _LEAST_STEP
        self._index = {name.encode("ascii"): k for k, name in enumerate(header["sources"])}
        # Per source: slopes as (start, level before, end, level after), the newest last.
        self._slopes: list[list[tuple[float, float, float, float]]] = [
            [(-1.0, level, 0.0, level)] for level in header["levels"]
        ]
        self._corners: list[float] = []
        self._watches: dict[int, _Watch] = {}
        # Watched probes, their values at the last accepted points and at the one being tried.
        self._watched: list[int] = []
        self._history: list[tuple[float, list[float]]] = []
        self._tried: tuple[float, list[float]] | None = None
        self._now = 0.0
        self._limit = 0.0
        self._wanted = 0.0  # step that was cut short
        self._tries = 0
        self._commands = 0
        self._fired: list[list[float]] = []
        self._started = False
        self._delivered = 0
        self._sign = self._delivery = perf_counter()
        self.steps = self.rejected = 0

    def run(self) -> None:
        """Load the circuit, run until the parent goes away or the run fails."""
        session = self._session
        for path, sha256 in self._header["osdi"]:
            session.load_compiled(path, sha256)
        session.step_with(self._on_step, self._on_source)
        session.messages.clear()
        good = session.load(self._header["lines"])
        if not good or load_failed(session.text()):
            raise diagnose(session.text(), loading=True)
        # It would count the points until an end that is never reached.
        session.execute(b"set no_mem_check")
        session.messages.clear()
        session.execute(b"run")
        said = session.text()
        error = diagnose(said, loading=False)
        self._answer({"ok": False, **failure_of(error)}, everything=True)

    # What ngspice calls.

    def _on_source(self, name: bytes, time: float) -> float:
        return self._level(self._index[name], time)

    def _on_step(
        self, time: float, delta: Any, old: float, redo: int, _ident: int, place: int, _user: Any
    ) -> int:
        try:
            if place == 0:
                delta[0] = self._accepted(time, delta[0])
                return 0
            if redo:  # ngspice does it again by itself, shorter
                self._tried = None
                # Even the shorter step was too long: the wanted one, tried again after every
                # point, would fail each time, hundreds of times on a neuron's steep edge.
                self._wanted = 0.0
                return 0
            shorter = self._judge(time, old)
            if shorter is not None:
                delta[0] = shorter
                self.rejected += 1
                return 1
            # A step cut short says nothing against the next one's length.
            delta[0] = max(delta[0], self._wanted)
            self._wanted = 0.0
        except SpicennError as error:
            self._answer({"ok": False, **failure_of(error)}, everything=True)
            os._exit(0)
        except BaseException as error:
            text = f"a bug in the stepper: {type(error).__name__}: {error}"
            self._answer({"ok": False, **failure_of(EngineError(text))}, everything=False)
            os._exit(0)
        return 0

    def _accepted(self, time: float, proposed: float) -> float:
        """A point is accepted: stop there if there is cause to, return the next step's length."""
        self._now = time
        self.steps += 1
        if not self._started:
            self._started = True
            self._stop()
        else:
            values = self._tried[1] if self._tried else self._read(self._watched)
            self._note(time, values)
            if self._fired or time >= self._limit * (1 - _SAME):
                self._stop()
        self._tried = None
        self._tries = 0
        if perf_counter() - self._sign > _SIGN:
            self._sign = perf_counter()
            self._send({"ok": True, "going": time}, [])
        return self._next_step(proposed)

    def _note(self, time: float, values: list[float]) -> None:
        """Take a point into the history, and see what has crossed."""
        if self._corners and time >= self._corners[0] * (1 - _SAME):
            self._corners = [c for c in self._corners if c > time * (1 + _SAME)]
            self._history.clear()  # nothing before a corner foretells what follows
        by_probe = dict(zip(self._watched, values, strict=True))
        for watch in list(self._watches.values()):
            beyond = watch.beyond(by_probe[watch.probe])
            if beyond < 0:
                watch.armed = True
            elif watch.armed:
                self._fire(watch, time)
        self._history = [*self._history[-2:], (time, values)]

    def _fire(self, watch: _Watch, time: float) -> None:
        watch.armed = False
        self._fired.append([watch.key, time])
        if not watch.repeat:
            del self._watches[watch.key]

    def _next_step(self, proposed: float) -> float:
        step: float = min(proposed, self._foretold())
        rest = self._limit - self._now
        if step >= rest * (1 - 1e-9):
            step = rest
        elif 1.9 * step > rest:  # two alike, not one and a crumb
            step = rest / 2
        if self._corners:
            step = min(step, self._corners[0] - self._now)
        step = max(step, self._least)
        if step < proposed:
            self._wanted = max(self._wanted, proposed)
        return step

    def _foretold(self) -> float:
        """Time until the first crossing that the last points foretell, a parabola; endless."""
        if len(self._history) < 3:
            return float("inf")
        (t0, old), (t1, last), (t2, now) = self._history
        first = float("inf")
        by_probe = {probe: k for k, probe in enumerate(self._watched)}
        for watch in self._watches.values():
            if not watch.armed:
                continue
            k = by_probe[watch.probe]
            d1 = (now[k] - last[k]) / (t2 - t1)
            d0 = (last[k] - old[k]) / (t1 - t0)
            bend = (d1 - d0) / (t2 - t0)
            slope = d1 + bend * (t2 - t1)
            gap = -watch.beyond(now[k])
            ahead = _root(watch.sign * bend, watch.sign * slope, gap)
            # Landing a little behind, so that it counts as crossed.
            first = min(first, ahead + 0.25 * self._tolerance)
        return first

    def _judge(self, time: float, step: float) -> float | None:
        """Read what is watched at a converged point: None to accept it, else a shorter step."""
        values = self._read(self._watched)
        self._tried = (time, values)
        if not self._history or step <= 2 * self._least or self._tries >= _MOST_TRIES:
            return None
        before = self._history[-1][1]
        shortest: float = step
        by_probe = {probe: k for k, probe in enumerate(self._watched)}
        for watch in self._watches.values():
            k = by_probe[watch.probe]
            low, high = watch.beyond(before[k]), watch.beyond(values[k])
            if watch.armed and low < 0 <= high:
                shortest = min(shortest, self._within(k, watch, step, low, high))
        if step - shortest <= self._tolerance:
            return None
        self._tries += 1
        self._tried = None
        self._wanted = max(self._wanted, step)
        target: float = shortest + 0.5 * self._tolerance
        if self._tries % 4 == 0:  # interpolation creeps along: halve
            target = min(target, 0.5 * step)
        return max(target, self._least)

    def _within(self, k: int, watch: _Watch, step: float, low: float, high: float) -> float:
        """When, in a step from ``low`` below a threshold to ``high`` beyond, it was crossed."""
        if len(self._history) >= 2:
            (t1, last), (t2, _) = self._history[-2:]
            d0 = (low - watch.beyond(last[k])) / (t2 - t1)
            d1 = (high - low) / step
            bend = (d1 - d0) / (step + t2 - t1)
            slope = d1 - bend * step
            ahead = _root(bend, slope, -low)
            if 0 < ahead < step:
                return ahead
        return step * low / (low - high)

    # What the parent asks for.

    def _stop(self) -> None:
        self._report()
        while True:
            header, _ = self._receive()
            kind = header["request"]
            if kind == "advance":
                self._take(header)
                if not self._fired and self._limit > self._now * (1 + _SAME):
                    return
                self._report()  # found in looking back, or that was all there was to do
            elif kind == "sample":
                self._send({"ok": True, "values": self._sample(header)}, [])
            elif kind == "record":
                self._answer({"ok": True, "fired": []}, everything=True)

    def _report(self) -> None:
        fired, self._fired = self._fired, []
        self._answer({"ok": True, "fired": fired}, everything=False)

    def _take(self, header: Header) -> None:
        self._limit = header["until"]
        over = frozenset(header["unwatch"])
        for key in over:
            self._watches.pop(key, None)
        for key, probe, threshold, sign, since, repeat in header["watch"]:
            if key not in over:
                watch = _Watch(key, probe, threshold, sign, repeat)
                self._watches[key] = watch
                self._look_back(watch, since)
        for source, start, rise, level in header["drive"]:
            self._drive(source, start, rise, level)
        watched = list(dict.fromkeys(watch.probe for watch in self._watches.values()))
        if watched != self._watched:
            self._watched = watched
            self._history.clear()
        if not self._history:
            self._history = [(self._now, self._read(self._watched))]

    def _look_back(self, watch: _Watch, since: float) -> None:
        """Arm a new watch, and fire it where the probe crossed between ``since`` and now.

        Between two points the crossing is where a straight line has it.
        """
        if since < self._now * (1 - _SAME):
            time = self._session.vector(b"time", copy=False)
            trace = self._session.vector(self._vectors[watch.probe], copy=False)
            if time is not None and trace is not None:
                first = max(int(np.searchsorted(time, since, side="right")) - 1, 0)
                time = time[first:]
                beyond = watch.sign * (trace[first:] - watch.threshold)
                for k in np.flatnonzero((beyond[:-1] < 0) & (beyond[1:] >= 0)):
                    part = beyond[k] / (beyond[k] - beyond[k + 1])
                    at = float(time[k] + part * (time[k + 1] - time[k]))
                    if at > since:
                        self._fire(watch, at)
                        if not watch.repeat:
                            return
        watch.armed = watch.beyond(self._read([watch.probe])[0]) < 0

    def _drive(self, source: int, start: float, rise: float, level: float) -> None:
        start = max(start, self._now) + LEAD * rise
        slopes = self._slopes[source]
        slopes.append((start, self._level(source, start), start + rise, level))
        # The last that has begun is still to be asked for; those before it are over.
        begun = [k for k, slope in enumerate(slopes) if slope[0] <= self._now]
        del slopes[: begun[-1] if begun else 0]
        for corner in (start, start + rise):
            self._session.set_breakpoint(corner)
            self._corners.append(corner)
        self._corners.sort()

    def _level(self, source: int, time: float) -> float:
        for start, before, end, after in reversed(self._slopes[source]):
            if time >= end:
                return after
            if time >= start:  # the newest that has begun, whatever it cut short
                return before + (after - before) * (time - start) / (end - start)
        return self._slopes[source][0][1]

    def _sample(self, header: Header) -> list[float]:
        probes, time = header["probes"], header["time"]
        if time >= self._now * (1 - _SAME):
            return self._read(probes)
        times, *traces = (
            self._session.vector(name, copy=False)
            for name in [b"time", *(self._vectors[probe] for probe in probes)]
        )
        assert times is not None
        return [float(np.interp(time, times, trace)) for trace in traces if trace is not None]

    def _read(self, probes: list[int]) -> list[float]:
        """Values at the point where ngspice is, accepted or not."""
        if not probes:
            return []
        values = []
        for probe in probes:
            value = self._session.live(self._readers[probe])
            if value is None:
                raise EngineError(
                    f"ngspice does not tell {self._vectors[probe].decode()!r}",
                    remedy="name a node of the circuit",
                )
            values.append(value)
        # What was asked for stays in the plot as a vector, and would be found there again.
        self._forget([self._readers[probe] for probe in probes])
        return values

    def _forget(self, names: list[bytes]) -> None:
        command = b"unlet"
        for name in names:
            if len(command) + len(name) + 1 > LONGEST_COMMAND:
                self._command(command)
                command = b"unlet"
            command += b" " + name
        self._command(command)

    def _command(self, command: bytes) -> None:
        self._session.execute(command)
        self._commands += 1
        if self._commands % _COMMANDS_KEPT == 0:
            self._session.drop_commands()

    def _answer(self, header: Header, *, everything: bool) -> None:
        """Reply, with what was recorded since the last time where it is due."""
        arrays: list[Array] = []
        if everything or perf_counter() - self._delivery > _SIGN:
            time = self._session.vector(b"time", copy=False)
            if time is not None:
                end = len(time)
                traces = [self._session.vector(name, copy=False) for name in self._vectors]
                if all(trace is not None and len(trace) >= end for trace in traces):
                    arrays = [np.stack([time, *traces])[:, self._delivered : end]]  # type: ignore[list-item]
                    self._delivered = end
            self._delivery = perf_counter()
        counts = {"time": self._now, "steps": self.steps, "rejected": self.rejected}
        self._send({**header, **counts}, arrays)


def failure_of(error: SpicennError) -> Header:
    """What a reply says of an error."""
    return {"kind": type(error).__name__, "what": error.what, "remedy": error.remedy}


def _root(bend: float, slope: float, gap: float) -> float:
    """Smallest x > 0 with slope x + bend x² = gap > 0; endless without one."""
    if bend == 0.0:
        return gap / slope if slope > 0 else float("inf")
    inside = slope * slope + 4 * bend * gap
    if inside < 0:
        return float("inf")
    # The form without a difference of equal numbers.
    if slope >= 0:
        return 2 * gap / (slope + inside**0.5) if slope + inside**0.5 > 0 else float("inf")
    return (inside**0.5 - slope) / (2 * bend) if bend > 0 else float("inf")
