"""What every engine does: circuit record, conductances and voltages in, currents out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Crossbar
from spicenn.errors import InputError

Array = NDArray[np.float64]
Parameters = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class Solution:
    """Currents of several chips' copies of one tile, and how each run ended.

    current : (chip, sample, bitline) [A], NaN where the chip failed.
    status : (chip,) int8, values of ``errors.Status``.
    message : one sentence per chip, empty where all went well.
    runtime : (chip,) [s] of the simulation alone.
    """

    current: Array
    status: NDArray[np.int8]
    message: tuple[str, ...]
    runtime: Array


class Engine(Protocol):
    """A fidelity. Engines are context managers; ``solve`` never raises for one bad chip."""

    @property
    def name(self) -> str: ...

    @property
    def versions(self) -> Mapping[str, str]:
        """What the answer depends on, e.g. ``{"ngspice": "46", "klu": "yes"}``."""
        ...

    @property
    def tolerances(self) -> Mapping[str, float]: ...

    def solve(
        self, crossbar: Crossbar, g: Array, v: Array, parameters: Parameters | None = None
    ) -> Solution:
        """Operating point of every chip at every sample.

        Parameters
        ----------
        g : (chip, wordline, bitline) [S], positive.
        v : (chip or 1, sample, wordline) [V].
        parameters : further parameters of every cell by name, each shaped as g, in SI
            units: those of the cell's subcircuit that differ from cell to cell.

        Raises InputError for shapes that do not fit, NgspiceNotFound where the
        engine cannot run at all. What happens to one chip is in the solution.
        """
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class WrappedEngine(Engine):
    """What answers by asking another engine, which stays open and the caller's.

    Parameters
    ----------
    engine : the other one.
    how : what is added to its name.
    """

    def __init__(self, engine: Engine, how: str) -> None:
        self._engine, self._how = engine, how

    @property
    def name(self) -> str:
        return f"{self._engine.name}, {self._how}"

    @property
    def versions(self) -> Mapping[str, str]:
        return self._engine.versions

    @property
    def tolerances(self) -> Mapping[str, float]:
        return self._engine.tolerances

    def close(self) -> None:
        """Nothing: the engine under it is the caller's."""


def check_shapes(crossbar: Crossbar, g: Array, v: Array, parameters: Parameters) -> None:
    """Raise InputError unless all arrays fit the crossbar, naming array and shape."""
    shape = (crossbar.wordlines, crossbar.bitlines)
    if g.ndim != 3 or g.shape[1:] != shape:
        raise InputError(f"g has shape {g.shape}, expected (chip, {shape[0]}, {shape[1]})")
    if v.ndim != 3 or v.shape[2] != shape[0] or v.shape[0] not in (1, g.shape[0]):
        raise InputError(f"v has shape {v.shape}, expected ({g.shape[0]} or 1, sample, {shape[0]})")
    if not (np.all(np.isfinite(g)) and np.all(g > 0)):
        raise InputError("g holds values that are not finite and positive", where=crossbar.name)
    if not np.all(np.isfinite(v)):
        raise InputError("v holds values that are not finite", where=crossbar.name)
    for name, values in parameters.items():
        if name not in crossbar.cell.defaults or name == "g":
            raise InputError(
                f"the cell {crossbar.cell.name!r} has no parameter {name!r}", where=crossbar.name
            )
        if values.shape != g.shape or not np.all(np.isfinite(values)):
            raise InputError(
                f"parameter {name!r} must be finite and of shape {g.shape}", where=crossbar.name
            )
