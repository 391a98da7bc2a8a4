"""What external sources are at: slopes from level to level, and their values for ngspice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Start [s], level before, end [s], level after.
Slope = tuple[float, float, float, float]

# From this many sources on, ngspice asks compiled code, which takes a third of a second
# to load. Python takes 1 µs for each answer, of which each source needs one an iteration.
_MANY = 8


class Levels:
    """The sources' levels over time, each a chain of straight lines without a jump.

    Of every source one slope is in force; those to come wait for their start, which must
    be a time point: ``take_up`` is called there.

    Parameters
    ----------
    names : of the sources, as ngspice calls them.
    levels : at the start [V] or [A].
    """

    def __init__(self, names: Sequence[bytes], levels: Sequence[float]) -> None:
        self._index = {name: k for k, name in enumerate(names)}
        self._slopes: list[Slope] = [(-1.0, level, 0.0, level) for level in levels]
        self._coming: dict[int, list[Slope]] = {}
        self._block, self._table = _block(names)
        for k, slope in enumerate(self._slopes):
            self._table[k] = slope

    def drive(self, source: int, start: float, rise: float, level: float) -> None:
        """Go to a level from ``start`` on, whatever was asked for behind that time."""
        slope = (start, self.at(source, start), start + rise, level)
        coming = self._coming.setdefault(source, [])
        coming[:] = [s for s in coming if s[0] < start]
        coming.append(slope)

    def take_up(self, now: float) -> None:
        """Put in force what begins by now."""
        for source, coming in list(self._coming.items()):
            while coming and coming[0][0] <= now:
                self._slopes[source] = self._table[source] = coming.pop(0)
            if not coming:
                del self._coming[source]

    def at(self, source: int, time: float) -> float:
        """Level of a source at a time from now on [V] or [A]."""
        for slope in reversed(self._coming.get(source, ())):
            if slope[0] <= time:
                return _on(slope, time)
        return _on(self._slopes[source], time)

    def told(self, name: bytes, time: float) -> float:
        """Level of a source by the slope in force."""
        return _on(self._slopes[self._index[name]], time)

    def compiled(self) -> tuple[int, int] | None:
        """Addresses of a function that answers ngspice and of its data; None for few sources.

        They hold while this object lives.
        """
        if len(self._slopes) < _MANY:
            return None
        from spicenn.engines.ngspice.answer import answer

        return int(answer.address), int(self._block.ctypes.data)  # type: ignore[arg-type]


def _on(slope: Slope, time: float) -> float:
    start, before, end, after = slope
    if time >= end:
        return after
    if time <= start:
        return before
    return before + (after - before) * (time - start) / (end - start)


def _block(names: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Memory that compiled code reads, and the view of it (source, 4) with the slopes.

    It holds: how many sources, how many characters of a name, which source was asked for
    last, the names with their terminating zeros, the slopes.
    """
    width = max((len(name) for name in names), default=0) + 1
    block = np.zeros(3 + len(names) * (width + 4))
    block[:2] = len(names), width
    end = 3 + len(names) * width
    letters = block[3:end].reshape(len(names), width)
    for k, name in enumerate(names):
        letters[k, : len(name)] = list(name)
    return block, block[end:].reshape(len(names), 4)
