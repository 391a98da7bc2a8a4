"""An analog side in closed form: nodes that follow their sources through an RC, exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.cosim.block import Threshold
from spicenn.errors import InputError


@dataclass
class _Node:
    """Pieces (start, value there, level it goes to); a time constant of 0 s follows at once."""

    tau: float
    pieces: list[tuple[float, float, float]]

    def value(self, time: float) -> float:
        start, value, level = next(p for p in reversed(self.pieces) if p[0] <= time)
        if self.tau == 0:
            return level
        return (
            value
            if time == start
            else level + (value - level) * math.exp((start - time) / self.tau)
        )

    def when(self, piece: int, threshold: float) -> float:
        """When a piece that passes a threshold does so."""
        start, value, level = self.pieces[piece]
        if self.tau == 0:
            return start
        return start + self.tau * math.log((level - value) / (level - threshold))


@dataclass
class _Watch:
    threshold: Threshold
    armed: bool

    def beyond(self, value: float) -> float:
        t = self.threshold
        return (value - t.level) if t.upwards else (t.level - value)


@dataclass
class Exponentials:
    """A block whose node ``n0`` follows the source ``v0`` with a time constant ``taus[0]``, …

    Drives are steps: a rise is taken for 0 s. Where it stops changes nothing. ``log`` holds
    what was asked of it, in order: ("begin", until), ("finish", time).
    """

    taus: tuple[float, ...]
    name: str = "fake"
    time: float = 0.0
    log: list[tuple[str, float]] = field(default_factory=list)
    most_watches: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self._nodes = {f"n{k}": _Node(tau, [(0.0, 0.0, 0.0)]) for k, tau in enumerate(self.taus)}
        self._drives: list[tuple[float, str, float]] = []
        self._new: list[Threshold] = []
        self._watches: dict[int, _Watch] = {}
        self._until = 0.0

    @property
    def probes(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(f"v{node[1:]}" for node in self._nodes)

    @property
    def watching(self) -> int:
        return len(self._watches) + len(self._new)

    def check_probe(self, probe: str) -> str:
        if probe not in self._nodes:
            raise InputError(f"there is no probe {probe!r}", where=self.name)
        return probe

    def check_source(self, source: str) -> str:
        if source not in self.sources:
            raise InputError(f"there is no external source {source!r}", where=self.name)
        return source

    def watch(self, threshold: Threshold) -> None:
        self._new.append(threshold)

    def unwatch(self, key: int) -> None:
        self._new = [t for t in self._new if t.key != key]
        self._watches.pop(key, None)

    def drive(self, source: str, level: float, start: float, rise: float) -> None:
        assert start >= self.time * (1 - 1e-15), "a drive in the past"
        self._drives.append((max(start, self.time), f"n{source[1:]}", level))
        self._drives.sort(key=lambda drive: drive[0])

    def sample(self, probe: str, time: float) -> float:
        assert time <= self.time * (1 + 1e-15), "a sample of the future"
        return self._nodes[probe].value(time)

    def begin(self, until: float) -> None:
        assert until >= self.time, "a way back"
        self.log.append(("begin", until))
        self._until = until

    def finish(self) -> list[tuple[int, float]]:
        fired = [crossed for t in self._new for crossed in self._look_back(t)]
        self._new = []
        self.most_watches = max(self.most_watches, len(self._watches))
        while not fired and self.time < self._until:
            start = self._drives[0][0] if self._drives else math.inf
            if start <= self.time:
                fired = self._apply()
                continue
            fired = self._go(min(start, self._until))
        self.log.append(("finish", self.time))
        return fired

    def traces(self) -> tuple[NDArray[np.float64], Mapping[str, NDArray[np.float64]]]:
        times = sorted(
            {piece[0] for node in self._nodes.values() for piece in node.pieces} | {self.time}
        )
        times = [time for time in times if time <= self.time]
        traces = {
            name: np.array([node.value(time) for time in times])
            for name, node in self._nodes.items()
        }
        return np.array(times), traces

    def close(self) -> None:
        self.closed = True

    def _apply(self) -> list[tuple[int, float]]:
        """Take the drives of now; nodes that follow at once may pass a threshold by it."""
        while self._drives and self._drives[0][0] <= self.time:
            _, name, level = self._drives.pop(0)
            node = self._nodes[name]
            node.pieces.append((self.time, node.value(self.time), level))
        return self._fire([w for w in self._watches.values() if self._passes(w)], self.time)

    def _passes(self, watch: _Watch) -> bool:
        beyond = watch.beyond(self._nodes[watch.threshold.probe].value(self.time)) >= 0
        passes = watch.armed and beyond
        watch.armed = not beyond
        return passes

    def _go(self, end: float) -> list[tuple[int, float]]:
        """Go on to a time, or to the first crossing: within, every node is on one piece."""
        first = end
        crossing: list[Any] = []
        for watch in self._watches.values():
            node = self._nodes[watch.threshold.probe]
            if watch.armed and watch.beyond(node.pieces[-1][2]) > 0:
                time = max(node.when(-1, watch.threshold.level), self.time)
                if time < first:
                    first, crossing = time, []
                if time == first:
                    crossing.append(watch)
        self.time = first
        for watch in crossing:  # to the last bit there, so that it is not passed again
            node = self._nodes[watch.threshold.probe]
            node.pieces.append((first, watch.threshold.level, node.pieces[-1][2]))
        for watch in self._watches.values():
            if watch.beyond(self._nodes[watch.threshold.probe].value(first)) < 0:
                watch.armed = True
        return self._fire(crossing, first)

    def _fire(self, watches: list[_Watch], time: float) -> list[tuple[int, float]]:
        for watch in watches:
            watch.armed = False
            if not watch.threshold.repeat:
                del self._watches[watch.threshold.key]
        return [(watch.threshold.key, time) for watch in watches]

    def _look_back(self, threshold: Threshold) -> list[tuple[int, float]]:
        """Every crossing (the first, of one that is not repeated) since the threshold counts."""
        node = self._nodes[threshold.probe]
        watch = _Watch(threshold, False)
        watch.armed = watch.beyond(node.value(min(threshold.since, self.time))) < 0
        fired = []
        for k, (start, value, level) in enumerate(node.pieces):
            end = node.pieces[k + 1][0] if k + 1 < len(node.pieces) else self.time
            if end < threshold.since or start >= self.time:
                continue
            last = node.pieces[k + 1][1] if k + 1 < len(node.pieces) else node.value(self.time)
            if node.tau == 0:
                value = last = level
            if start > threshold.since and watch.beyond(value) < 0:
                watch.armed = True
            passes = watch.armed and watch.beyond(level) > 0
            if passes and node.when(k, threshold.level) <= end:
                watch.armed = False
                fired.append((threshold.key, max(node.when(k, threshold.level), threshold.since)))
                if not threshold.repeat:
                    return fired
            elif watch.beyond(last) < 0:
                watch.armed = True
        self._watches[threshold.key] = watch
        return fired
