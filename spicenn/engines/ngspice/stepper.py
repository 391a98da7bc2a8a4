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

from spicenn.engines.ngspice.diagnosis import diagnose, failure_of, load_failed
from spicenn.engines.ngspice.levels import Levels
from spicenn.engines.ngspice.protocol import Array, Header
from spicenn.engines.ngspice.session import LiveReader, Session
from spicenn.errors import EngineError, SpicennError

Send = Callable[[Header, Sequence[Array]], None]
Receive = Callable[[], tuple[Header, list[Array]]]

# ngspice gives up below 1e-11 of the largest step.
_LEAST_STEP = 1e-10
# A slope begins this part of its duration after it was asked for: where a time point
# already is, ngspice no longer lowers its order.
LEAD = 1e-3
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
    header : of the request, see ``SteppedCircuit``.
    """

    def __init__(self, session: Session, send: Send, receive: Receive, header: Header) -> None:
        self._session = session
        self._send = send
        self._receive = receive
        self._header = header
        self._readers = [name.encode("ascii") for name in header["readers"]]
        self._vectors = [name.encode("ascii") for name in header["vectors"]]
        self._time = b"time"
        self._tolerance: float = header["tolerance"]
        self._least: float = header["max_step"] * _LEAST_STEP
        names = [name.encode("ascii") for name in header["sources"]]
        self._levels = Levels(names, header["levels"])
        self._corners: list[float] = []
        self._watches: dict[int, _Watch] = {}
        # The watches in an order, their probes, and of each watch its probe's place there,
        # sign and threshold; so that a point takes no look-up.
        self._order: list[_Watch] = []
        self._watched: list[int] = []
        self._terms: list[tuple[int, float, float]] = []
        # The last accepted points: time, watched probes, how far each watch is beyond.
        self._history: list[tuple[float, list[float], list[float]]] = []
        self._live: dict[tuple[int, ...], list[LiveReader]] = {}
        self._tried: tuple[list[float], list[float]] | None = None  # at the point being tried
        self._now = 0.0
        self._limit = 0.0
        self._wanted = 0.0  # step that was cut short
        self._tries = 0
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
        session.step_with(self._on_step, self._levels.told, self._levels.compiled())
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
        if not self._started:
            remedy = "give .ic and start from there, initial_conditions=True, or help it: .nodeset"
            error = type(error)(error.what, remedy=remedy)
        self._answer(failure_of(error), everything=True)

    # What ngspice calls.

    def _on_step(
        self, time: float, delta: Any, old: float, redo: int, _ident: int, place: int, _user: Any
    ) -> int:
        try:
            if not self._started and self._is_search():
                return 0
            if place == 0:
                delta[0] = self._accepted(time, delta[0])
                return 0
            if redo:  # ngspice does it again by itself, shorter
                self._tried = None
                # Even the shorter step was too long: the wanted one, tried again after every
                # point, would fail each time, hundreds of times on a neuron's steep edge.
                self._wanted = 0.0
                return 0
            shorter = self._judge(old)
            if shorter is not None:
                delta[0] = shorter
                self.rejected += 1
                return 1
            # A step cut short says nothing against the next one's length.
            delta[0] = max(delta[0], self._wanted)
            self._wanted = 0.0
        except SpicennError as error:
            self._answer(failure_of(error), everything=True)
            os._exit(0)
        except BaseException as error:
            text = f"a bug in the stepper: {type(error).__name__}: {error}"
            self._answer(failure_of(EngineError(text)), everything=False)
            os._exit(0)
        return 0

    def _is_search(self) -> bool:
        """Whether this is ngspice's own transient in search of the operating point.

        None of its points is recorded, and of the circuit's own the first one is, but for
        one that comes from initial conditions.
        """
        if self._header["initial_conditions"]:
            return False
        return self._session.vector(self._time, copy=False) is None

    def _accepted(self, time: float, proposed: float) -> float:
        """A point is accepted: stop there if there is cause to, return the next step's length."""
        self._now = time
        self.steps += 1
        if not self._started:
            self._started = True
            plot = self._session.set_aside()
            self._time = plot + b"." + self._time
            self._vectors = [plot + b"." + name for name in self._vectors]
            self._stop()
        else:
            self._note(time, *(self._tried or self._look()))
            if self._fired or time >= self._limit * (1 - _SAME):
                self._stop()
        self._tried = None
        self._tries = 0
        if perf_counter() - self._sign > _SIGN:
            self._sign = perf_counter()
            self._answer({"ok": True, "going": time}, everything=False)
        return self._next_step(proposed)

    def _look(self) -> tuple[list[float], list[float]]:
        """Watched probes at the point where ngspice is, and how far each watch is beyond."""
        values = self._read(self._watched)
        return values, self._beyond(values)

    def _beyond(self, values: list[float]) -> list[float]:
        return [sign * (values[k] - threshold) for k, sign, threshold in self._terms]

    def _note(self, time: float, values: list[float], beyond: list[float]) -> None:
        """Take a point into the history, and see what has crossed."""
        if self._corners and time >= self._corners[0] * (1 - _SAME):
            self._corners = [c for c in self._corners if c > time * (1 + _SAME)]
            self._levels.take_up(time * (1 + _SAME))
            self._history.clear()  # nothing before a corner foretells what follows
        for watch, distance in zip(self._order, beyond, strict=True):
            if distance < 0:
                watch.armed = True
            elif watch.armed:
                self._fire(watch, time)
        self._history = [*self._history[-2:], (time, values, beyond)]

    def _fire(self, watch: _Watch, time: float) -> None:
        watch.armed = False
        self._fired.append([watch.key, time])
        if not watch.repeat:
            del self._watches[watch.key]

    def _next_step(self, proposed: float) -> float:
        step: float = min(proposed, self._foretold(proposed))
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

    def _foretold(self, step: float) -> float:
        """Time until the first crossing that the last points foretell, a parabola; endless.

        It is for speed alone, so what could not get there in a step at thrice its pace is
        left out.
        """
        first = float("inf")
        if len(self._history) < 3:
            return first
        (t0, _, old), (t1, _, last), (t2, _, now) = self._history
        far = 3 * step / (t2 - t1)
        for n, (before, here) in enumerate(zip(last, now, strict=True)):
            if here >= 0 or here + far * abs(here - before) < 0 or not self._order[n].armed:
                continue
            d1 = (here - before) / (t2 - t1)
            d0 = (before - old[n]) / (t1 - t0)
            bend = (d1 - d0) / (t2 - t0)
            # Landing a little behind, so that it counts as crossed.
            ahead = _root(bend, d1 + bend * (t2 - t1), -here) + 0.25 * self._tolerance
            first = min(first, ahead)
        return first

    def _judge(self, step: float) -> float | None:
        """Read what is watched at a converged point: None to accept it, else a shorter step."""
        self._tried = self._look()
        if not self._history or step <= 2 * self._least or self._tries >= _MOST_TRIES:
            return None
        shortest: float = step
        pairs = zip(self._history[-1][2], self._tried[1], strict=True)
        for n, (low, high) in enumerate(pairs):
            if low < 0 <= high and self._order[n].armed:
                shortest = min(shortest, self._within(n, step, low, high))
        if step - shortest <= self._tolerance:
            return None
        self._tries += 1
        self._tried = None
        self._wanted = max(self._wanted, step)
        target: float = shortest + 0.5 * self._tolerance
        if self._tries % 4 == 0:  # interpolation creeps along: halve
            target = min(target, 0.5 * step)
        return max(target, self._least)

    def _within(self, n: int, step: float, low: float, high: float) -> float:
        """When, in a step from ``low`` below a threshold to ``high`` beyond, it was crossed."""
        if len(self._history) >= 2:
            (t1, _, last), (t2, _, _) = self._history[-2:]
            d0 = (low - last[n]) / (t2 - t1)
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
        self._arrange()

    def _arrange(self) -> None:
        """Put the watches in an order, and the history into the same."""
        order = list(self._watches.values())
        if [w.key for w in order] != [w.key for w in self._order]:
            self._order = order
            watched = list(dict.fromkeys(watch.probe for watch in order))
            if watched != self._watched:
                self._watched = watched
                self._history.clear()
            place = {probe: k for k, probe in enumerate(watched)}
            self._terms = [(place[w.probe], w.sign, w.threshold) for w in order]
            self._history = [(t, values, self._beyond(values)) for t, values, _ in self._history]
        if not self._history:
            self._history = [(self._now, *self._look())]

    def _look_back(self, watch: _Watch, since: float) -> None:
        """Arm a new watch, and fire it where the probe crossed between ``since`` and now.

        Between two points the crossing is where a straight line has it.
        """
        if since < self._now * (1 - _SAME):
            time = self._session.vector(self._time, copy=False)
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
        # Shorter than ngspice's least step, or lost in the digits of a time, it is a jump.
        rise = max(rise, 20 * self._least, 1e4 * _SAME * start)
        start = max(start, self._now) + LEAD * rise
        self._levels.drive(source, start, rise, level)
        for corner in (start, start + rise):
            self._session.set_breakpoint(corner)
            self._corners.append(corner)
        self._corners.sort()

    def _sample(self, header: Header) -> list[float]:
        probes, time = header["probes"], header["time"]
        if time >= self._now * (1 - _SAME):
            return self._read(probes)
        times, *traces = (
            self._session.vector(name, copy=False)
            for name in [self._time, *(self._vectors[probe] for probe in probes)]
        )
        assert times is not None
        return [float(np.interp(time, times, trace)) for trace in traces if trace is not None]

    def _read(self, probes: list[int]) -> list[float]:
        """Values at the point where ngspice is, accepted or not."""
        if not probes:
            return []
        key = tuple(probes)
        if key not in self._live:
            self._live[key] = self._session.live_readers([self._readers[k] for k in probes])
        return self._session.live(self._live[key])

    def _answer(self, header: Header, *, everything: bool) -> None:
        """Reply, with what was recorded since the last time where it is due."""
        arrays: list[Array] = []
        if everything or perf_counter() - self._delivery > _SIGN:
            time = self._session.vector(self._time, copy=False)
            if time is not None:
                end = len(time)
                traces = [self._session.vector(name, copy=False) for name in self._vectors]
                if all(trace is not None and len(trace) >= end for trace in traces):
                    arrays = [np.stack([time, *traces])[:, self._delivered : end]]  # type: ignore[list-item]
                    self._delivered = end
            self._delivery = perf_counter()
        counts = {"time": self._now, "steps": self.steps, "rejected": self.rejected}
        self._send({**header, **counts}, arrays)


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
