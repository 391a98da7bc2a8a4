"""What a co-simulation needs of an analog side: ngspice, a surrogate, or a stand-in of a test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spicenn.engines.ngspice.stepped import Threshold

__all__ = ["Block", "Threshold"]

Array = NDArray[np.float64]


class Block(Protocol):
    """Something with sources and probes that goes forward in time when it is told to.

    name : what errors and names of several blocks' probes call it.
    time : that it has reached [s].
    probes, sources : what can be read and what can be driven.
    """

    name: str
    time: float

    @property
    def probes(self) -> tuple[str, ...]: ...

    @property
    def sources(self) -> tuple[str, ...]: ...

    def check_probe(self, probe: str) -> str:
        """The probe's own name, or InputError."""
        ...

    def check_source(self, source: str) -> str:
        """The source's own name, or InputError."""
        ...

    def watch(self, threshold: Threshold) -> None:
        """Look out for a crossing, since a time that may be over; a repeated one until ``unwatch``.

        A probe beyond the threshold at that time has to leave and come back.
        """
        ...

    def unwatch(self, key: int) -> None:
        """Look out no longer, if it still does, or was to begin."""
        ...

    def drive(self, source: str, level: float, start: float, rise: float) -> None:
        """Have a source go to a level [V] or [A], from ``start`` on [s], within ``rise`` [s].

        The start is not before the time reached, but for rounding.
        """
        ...

    def sample(self, probe: str, time: float) -> float:
        """Value of a probe at a time that was reached, no further back than the last start."""
        ...

    def begin(self, until: float) -> None:
        """Set out for a time [s]; returns at once where the work is done elsewhere.

        The time that it has reached already is no way to go: it only looks back, for what
        new thresholds have been passed since they count.
        """
        ...

    def finish(self) -> list[tuple[int, float]]:
        """Wait for it. Stops early at the first crossing: keys and times of what crossed.

        A crossing that was found in looking back has its own time, before the one reached.
        """
        ...

    def traces(self) -> tuple[Array, Mapping[str, Array]]:
        """Times (point,) [s] and values (point,) of every probe, as far as they are known."""
        ...

    def close(self) -> None:
        """Give back what it holds; traces stay."""
        ...
