"""The ngspice engine: many chips in, their currents and statuses out."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import (
    Crossbar,
    Tolerances,
    check_command,
    check_netlist,
    comment_text,
    render_crossbar,
    render_live,
)
from spicenn.engines.engine import Array, Engine, Parameters, Solution, check_shapes
from spicenn.engines.laws import as_resistors
from spicenn.engines.ngspice.library import REMEDY
from spicenn.engines.ngspice.process import Child, failure
from spicenn.engines.ngspice.protocol import Header
from spicenn.engines.ngspice.results import Results
from spicenn.errors import (
    EngineError,
    InputError,
    NetlistError,
    SimulationTimeout,
    SimulatorCrash,
    SpicennError,
    SpicennWarning,
)
from spicenn.technology.osdi import CompiledModel

MEBIBYTE = 1 << 20
# One message: large enough to cost nothing, small enough to hold twice.
_BLOCK_BYTES = 8 * MEBIBYTE


class NgspiceEngine(Engine):
    """Any circuit, in a process of its own that is replaced when it hangs or dies.

    Parameters
    ----------
    timeout : seconds for one chip's run, all its samples.
    memory_limit : growth [B] of the simulator's process at which it is replaced.
    tolerances : of the solver.

    One engine may be used from several threads; they take turns.
    """

    name = "ngspice"

    def __init__(
        self,
        *,
        timeout: float = 60.0,
        memory_limit: int = 512 * MEBIBYTE,
        tolerances: Tolerances | None = None,
    ) -> None:
        if not timeout > 0:
            raise InputError(f"timeout = {timeout!r} is not positive")
        self.timeout = timeout
        self._memory_limit = memory_limit
        self._tolerances = tolerances or Tolerances()
        self._lock = threading.RLock()
        self._child: Child | None = None
        # Compiled models in the child: never to be unloaded, and two may share a name.
        self._osdi: tuple[CompiledModel, ...] = ()
        self._facts: Header | None = None
        self._closed = False

    @property
    def tolerances(self) -> Mapping[str, float]:
        return self._tolerances.as_dict()

    @property
    def versions(self) -> Mapping[str, str]:
        """Version of ngspice, and whether it has KLU and XSPICE. Raises NgspiceNotFound."""
        facts = self.facts
        yes = {True: "yes", False: "no"}
        return {
            "ngspice": facts["version"],
            "klu": yes[facts["klu"]],
            "xspice": yes[facts["xspice"]],
        }

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the loaded library says of itself. Raises NgspiceNotFound."""
        with self._lock:
            if self._facts is None:
                self._ready()
            assert self._facts is not None
            return self._facts

    @property
    def pid(self) -> int | None:
        """Process id of the simulator, None while there is none."""
        child = self._child
        return child.pid if child is not None and child.alive else None

    @property
    def memory(self) -> int:
        """Resident memory of the simulator [B], as it said last; 0 while there is none."""
        child = self._child
        return child.memory if child is not None else 0

    def solve(
        self, crossbar: Crossbar, g: Array, v: Array, parameters: Parameters | None = None
    ) -> Solution:
        """See ``Engine.solve``."""
        g, v = np.asarray(g, dtype=np.float64), np.asarray(v, dtype=np.float64)
        parameters = parameters or {}
        check_shapes(crossbar, g, v, parameters)
        crossbar, g, parameters = as_resistors(crossbar, g, parameters)
        if v.shape[1] == 0:
            raise InputError("v holds no sample", where=crossbar.name)
        result = Results(g.shape[0], v.shape[1], crossbar.bitlines)
        with self._lock:
            self._check_open()
            if crossbar.cell.is_ohmic:
                text = render_live(crossbar, self._tolerances)
                step = max(_BLOCK_BYTES // (8 * g[0].size + 8 * v[0].size), 1) if len(g) else 1
                for k in range(0, len(g), step):
                    block = v if len(v) == 1 else v[k : k + step]
                    self._solve_altered(crossbar, text, g[k : k + step], block, result, k)
            else:
                for chip in range(len(g)):
                    own = {name: values[chip] for name, values in parameters.items()}
                    text = render_crossbar(
                        crossbar, g[chip], v[chip % len(v)], own, tolerances=self._tolerances
                    )
                    self._solve_rendered(text, crossbar, v.shape[1], result, chip)
        return result.solution()

    def run(
        self,
        netlist: str,
        vectors: Sequence[str],
        commands: Sequence[str] = ("run",),
        *,
        timeout: float | None = None,
        osdi: Sequence[CompiledModel] = (),
    ) -> dict[str, NDArray[Any]]:
        """Run any analysis of a netlist given as text; its first line is its title.

        Parameters
        ----------
        vectors : what to return of the last plot, e.g. ``"v(out)"``, ``"i(v1)"``, ``"time"``.
        commands : analyses; ``run`` does those in the netlist.
        osdi : compiled Verilog-A that the netlist uses, e.g. ``cell.osdi``.

        Returns
        -------
        One array (point,) per vector, complex where ngspice's is.

        Raises NetlistError naming the line of anything that must not reach ngspice
        (``.control``, ``.include``, …), ConvergenceError, SingularMatrixError,
        MissingModelError, SimulationTimeout, SimulatorCrash, or another EngineError.
        """
        request = {
            "request": "netlist",
            "lines": _clean(netlist),
            "commands": [check_command(command) for command in commands],
            "vectors": [_vector_name(name) for name in vectors],
        }
        with self._lock:
            self._check_open()
            header, arrays = self._ask(request, timeout or self.timeout, tuple(osdi))
        return {
            name: array.view(np.complex128) if is_complex else array
            for name, array, is_complex in zip(vectors, arrays, header["complex"], strict=True)
        }

    def read_conductances(self, crossbar: Crossbar) -> Array:
        """Conductance (wordline, bitline) [S] of every cell in the live simulator.

        Those of the chip that was solved last. Raises EngineError where none was.
        """
        if not crossbar.cell.is_ohmic:
            raise EngineError("only ohmic cells can be read back", where=crossbar.name)
        text = render_live(crossbar, self._tolerances)
        with self._lock:
            self._check_open()
            _, arrays = self._ask({"request": "conductances", "text": text}, self.timeout)
        return arrays[0]

    def close(self) -> None:
        """End the simulator's process."""
        with self._lock:
            self._closed = True
            self._discard()

    def _solve_altered(
        self, crossbar: Crossbar, text: str, g: Array, v: Array, result: Results, first: int
    ) -> None:
        """Chips of one loaded circuit; those after a bad one go to a fresh process."""
        done = 0
        while done < len(g):
            child = self._ready()
            request = {
                "request": "crossbar",
                "text": text,
                "wordlines": crossbar.wordlines,
                "bitlines": crossbar.bitlines,
            }
            try:
                child.send(request, [g[done:], v if len(v) == 1 else v[done:]], self.timeout)
                while done < len(g):
                    header, arrays = child.receive(self.timeout)
                    if header["ok"]:
                        result.put(first + done, arrays[0], header["runtime"])
                    else:
                        result.fail(first + done, failure(header), header.get("runtime", 0.0))
                    done += 1
                    if header.get("last"):
                        self._discard()
                        break
            except (SimulationTimeout, SimulatorCrash) as error:
                self._discard()
                taken = self.timeout if isinstance(error, SimulationTimeout) else 0.0
                result.fail(first + done, error, taken)
                done += 1
            except BaseException:
                # Interrupted between two replies: the rest of them would answer the next request.
                self._discard()
                raise

    def _solve_rendered(
        self, text: str, crossbar: Crossbar, samples: int, result: Results, chip: int
    ) -> None:
        request = {
            "request": "netlist",
            "lines": text.splitlines(),
            "commands": ["run"],
            "vectors": [f"i(vs_{j})" for j in range(crossbar.bitlines)],
        }
        self._ready()  # raises where ngspice cannot run at all
        try:
            header, arrays = self._ask(request, self.timeout, crossbar.cell.osdi)
            if any(len(array) != samples for array in arrays):
                raise EngineError(f"ngspice returned {len(arrays[0])} samples of {samples}")
            result.put(chip, np.array(arrays).T, header["runtime"])
        except SpicennError as error:
            result.fail(chip, error, self.timeout if isinstance(error, SimulationTimeout) else 0.0)

    def _ask(
        self, request: Header, timeout: float, osdi: tuple[CompiledModel, ...] = ()
    ) -> tuple[Header, list[Array]]:
        if osdi:
            if self._osdi not in ((), osdi):
                self._discard()
            request = {**request, "osdi": [[model.path, model.sha256] for model in osdi]}
        child = self._ready()
        self._osdi = osdi or self._osdi
        try:
            child.send(request, (), timeout)
            header, arrays = child.receive(timeout)
        except BaseException:
            self._discard()
            raise
        if header.get("last"):
            self._discard()
        if not header["ok"]:
            raise failure(header)
        return header, arrays

    def _ready(self) -> Child:
        """A live child: a new one where there is none or it has grown too large."""
        child = self._child
        if child is not None and (
            not child.alive or child.memory - child.memory_at_start > self._memory_limit
        ):
            self._discard()
        if self._child is None:
            self._child = Child()
            if self._facts is None:
                self._facts = self._child.facts
                warn_without_klu(self._facts)
        return self._child

    def _discard(self) -> None:
        if self._child is not None:
            self._child.close()
            self._child = None
            self._osdi = ()

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed", remedy="open another")


def _clean(netlist: str) -> list[str]:
    title, _, rest = netlist.lstrip("\n").partition("\n")
    # A comment in the title's place keeps the line numbers of the user's text.
    lines = check_netlist("*\n" + rest)
    ends = [k for k, line in enumerate(lines) if line.lower().split()[0] == ".end"]
    if ends:
        lines = lines[: ends[0]]
    return [f"* {comment_text(title)}", *lines, ".end"]


def _vector_name(name: str) -> str:
    if not name or len(name) > 200 or not all("!" <= c <= "~" for c in name):
        raise NetlistError(f"{name[:80]!r} is not a vector's name", remedy="write e.g. v(out)")
    return name.lower()


def warn_without_klu(facts: Mapping[str, Any]) -> None:
    """Warn where the library lacks the solver that large arrays need."""
    if not facts["klu"]:
        warnings.warn(
            f"ngspice {facts['version']} has no KLU solver: arrays of 64 x 64 cells and more "
            f"take minutes instead of milliseconds ({REMEDY})",
            SpicennWarning,
            stacklevel=4,
        )
