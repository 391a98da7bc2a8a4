"""Runs on one libngspice: loaded crossbars whose cells are altered, and netlists run once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.engines.ngspice.diagnosis import aborted, diagnose, load_failed
from spicenn.engines.ngspice.session import LONGEST_COMMAND, Session
from spicenn.errors import EngineError, SpicennError

Array = NDArray[np.float64]

# All loaded crossbars together: a 128 x 128 one takes 80 MB.
_MOST_CELLS = 50_000
_MOST_CIRCUITS = 32
_LONGEST_NUMBER = 25


class LoadError(Exception):
    """A netlist did not load. libngspice may be dead for all later ones: leave the process."""

    def __init__(self, cause: SpicennError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True, eq=False)
class Loaded:
    """A crossbar that ngspice holds, and the commands that alter its cells."""

    text: str
    wordlines: int
    bitlines: int
    alter: tuple[str, ...]
    cells_per_command: int
    sense: tuple[bytes, ...]

    @staticmethod
    def of(text: str, wordlines: int, bitlines: int) -> Loaded:
        names = [f"rc_{i}_{j}" for i in range(wordlines) for j in range(bitlines)]
        longest = len(f"alter {names[-1]} ;") + _LONGEST_NUMBER
        step = LONGEST_COMMAND // longest
        templates = [
            ";".join(f"alter {name} %r" for name in names[k : k + step])
            for k in range(0, len(names), step)
        ]
        sense = tuple(b"vs_%d#branch" % j for j in range(bitlines))
        return Loaded(text, wordlines, bitlines, tuple(templates), step, sense)


class Simulation:
    """What one child does. The loaded crossbars are kept in ngspice's order: newest first."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._circuits: list[Loaded] = []
        self._used: list[Loaded] = []  # least recently used first

    def crossbar(
        self, text: str, wordlines: int, bitlines: int, g: Array, v: Array
    ) -> Iterator[tuple[Array, SpicennError | None, float]]:
        """Solve ohmic chips one after the other.

        Parameters
        ----------
        text : netlist of ``render_live``.
        g : (chip, wordline, bitline) [S]; v : (chip or 1, sample, wordline) [V].

        Yields a chip's current (sample, bitline) [A], the error that stands for it if
        it failed, and its runtime [s]. Raises LoadError.
        """
        loaded = self._select(text, wordlines, bitlines)
        samples = v.shape[1]
        analysis = b"op" if samples == 1 else b"dc vidx 0 %d 1" % (samples - 1)
        for chip in range(g.shape[0]):
            start = perf_counter()
            self._alter(loaded, g[chip])
            self.session.set_inputs(v[chip % v.shape[0]])
            self.session.execute(analysis)
            failure: SpicennError | None = None
            current = np.empty((0, bitlines))
            try:
                current = self._vectors(loaded.sense, samples)
            except SpicennError as error:
                failure = error
            self.session.forget()
            yield current, failure, perf_counter() - start

    def conductances(self, text: str) -> Array:
        """Conductance (wordline, bitline) [S] that ngspice holds for each cell of a crossbar.

        Raises EngineError where it is not loaded.
        """
        loaded = next((c for c in self._circuits if c.text == text), None)
        if loaded is None:
            raise EngineError("no chip of this crossbar is loaded", remedy="solve one first")
        self._select(text, loaded.wordlines, loaded.bitlines)
        values = [
            self.session.vector(b"@rc_%d_%d[resistance]" % (i, j))
            for i in range(loaded.wordlines)
            for j in range(loaded.bitlines)
        ]
        self.session.forget()
        resistance = np.array([np.nan if value is None else value[0] for value in values])
        return 1.0 / resistance.reshape(loaded.wordlines, loaded.bitlines)

    def netlist(
        self,
        lines: list[str],
        commands: Sequence[str],
        vectors: Sequence[str],
        osdi: Sequence[Sequence[str]] = (),
    ) -> tuple[list[NDArray[Any]], float]:
        """Load a netlist, run commands, fetch vectors of the last plot, remove it.

        Compiled models, each a path and a SHA-256, are loaded before it.

        Raises LoadError, or the error that stands for a failed analysis.
        """
        start = perf_counter()
        for path, sha256 in osdi:
            try:
                self.session.load_compiled(path, sha256)
            except EngineError as error:
                raise LoadError(error) from error
        self.session.messages.clear()
        good = self.session.load(lines)
        said = self.session.text()
        if not good or load_failed(said):
            raise LoadError(diagnose(said, loading=True))
        try:
            self.session.messages.clear()
            for command in commands:
                self.session.execute(command.encode("ascii"))
            said = self.session.text()
            found = [self.session.vector(name.encode("ascii")) for name in vectors]
            if self.session.dead:
                raise LoadError(diagnose(said, loading=False))
            if aborted(said) or all(vector is None for vector in found):
                raise diagnose(said, loading=False)
            for name, vector in zip(vectors, found, strict=True):
                if vector is None:
                    raise EngineError(
                        f"the analysis has no vector {name!r}",
                        remedy="name a node as v(node), a source's current as i(source), "
                        "and list it in .save where there is one",
                    )
                if not np.isfinite(vector).all():
                    raise EngineError(f"the vector {name!r} is not finite")
            return [vector for vector in found if vector is not None], perf_counter() - start
        finally:
            self.session.forget()
            self.session.execute(b"remcirc")
            # The newest of the others is now the current one.

    def _alter(self, loaded: Loaded, g: Array) -> None:
        resistance = (1.0 / g).ravel().tolist()
        step, messages = loaded.cells_per_command, self.session.messages
        execute = self.session.execute
        messages.clear()
        for k, template in enumerate(loaded.alter):
            values = tuple(resistance[k * step : (k + 1) * step])
            execute((template % values).encode("ascii"))
        if messages:  # a command that worked says nothing
            raise LoadError(diagnose(self.session.text(), loading=False))

    def _vectors(self, names: Sequence[bytes], length: int) -> Array:
        found = [self.session.vector(name) for name in names]
        if self.session.dead:
            raise LoadError(diagnose(self.session.text(), loading=False))
        if all(vector is not None and len(vector) == length for vector in found):
            current = np.array(found, dtype=np.float64)
            if np.isfinite(current).all():
                return current.T
        raise diagnose(self.session.text(), loading=False)

    def _select(self, text: str, wordlines: int, bitlines: int) -> Loaded:
        loaded = next((c for c in self._circuits if c.text == text), None)
        if loaded is None:
            loaded = self._load(text, wordlines, bitlines)
        else:
            self._used.remove(loaded)
        self._used.append(loaded)
        self.session.execute(b"setcirc %d" % (self._circuits.index(loaded) + 1))
        return loaded

    def _load(self, text: str, wordlines: int, bitlines: int) -> Loaded:
        cells = wordlines * bitlines
        while self._used and (
            cells + sum(c.wordlines * c.bitlines for c in self._used) > _MOST_CELLS
            or len(self._used) >= _MOST_CIRCUITS
        ):
            oldest = self._used.pop(0)
            self.session.execute(b"setcirc %d" % (self._circuits.index(oldest) + 1))
            self.session.execute(b"remcirc")
            self._circuits.remove(oldest)
        self.session.messages.clear()
        good = self.session.load(text.splitlines())
        said = self.session.text()
        if not good or load_failed(said):
            raise LoadError(diagnose(said, loading=True))
        loaded = Loaded.of(text, wordlines, bitlines)
        self._circuits.insert(0, loaded)
        return loaded
