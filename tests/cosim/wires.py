"""An analog side that does nothing but follow: every source can be read as a node of its name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from spicenn.cosim.block import Threshold
from spicenn.errors import InputError

Array = NDArray[np.float64]


class Wires:
    """A block that keeps what its sources were driven to, for what processes drive and when."""

    def __init__(self, *sources: str, name: str = "wires") -> None:
        self.name = name
        self.time = 0.0
        self.until = 0.0
        self.driven: list[tuple[float, str, float, float]] = []  # when, what, level, rise
        self._sources = sources

    @property
    def probes(self) -> tuple[str, ...]:
        return self._sources

    @property
    def sources(self) -> tuple[str, ...]:
        return self._sources

    def check_probe(self, probe: str) -> str:
        if probe.lower() not in self._sources:
            raise InputError(f"there is no probe {probe!r}", where=self.name)
        return probe.lower()

    def check_source(self, source: str) -> str:
        if source.lower() not in self._sources:
            raise InputError(f"there is no external source {source!r}", where=self.name)
        return source.lower()

    def watch(self, threshold: Threshold) -> None:
        pass

    def unwatch(self, key: int) -> None:
        pass

    def drive(self, source: str, level: float, start: float, rise: float) -> None:
        self.driven.append((start, source, level, rise))

    def sample(self, probe: str, time: float) -> float:
        levels = [level for start, name, level, _ in self.driven if name == probe and start <= time]
        return levels[-1] if levels else 0.0

    def begin(self, until: float) -> None:
        self.until = until

    def finish(self) -> list[tuple[int, float]]:
        self.time = self.until
        return []

    def traces(self) -> tuple[Array, Mapping[str, Array]]:
        return np.zeros(0), {name: np.zeros(0) for name in self._sources}

    def close(self) -> None:
        pass
