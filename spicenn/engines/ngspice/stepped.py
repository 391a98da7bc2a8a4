"""A circuit in ngspice that goes forward as far as it is told: the client's side of a run."""

from __future__ import annotations

import math
import selectors
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spicenn.circuit.names import known_name
from spicenn.circuit.stepped import STEPPED, Method, Stepped
from spicenn.circuit.tolerances import Tolerances
from spicenn.engines.engine import Array
from spicenn.engines.ngspice.client import warn_without_klu
from spicenn.engines.ngspice.process import Child, failure
from spicenn.engines.ngspice.protocol import Header
from spicenn.errors import InputError, SpicennError
from spicenn.technology.osdi import CompiledModel


@dataclass(frozen=True)
class Threshold:
    """What to look out for: ``probe`` passing ``level`` upwards (or downwards) from now on.

    key : its number, which is what comes back.
    since : time from which on it counts [s].
    repeat : look out for the next one when it has happened.
    """

    key: int
    probe: str
    level: float
    upwards: bool
    since: float
    repeat: bool = False


class SteppedCircuit:
    """One transient in a process of its own, begun at 0 s, which goes on when it is told to.

    Parameters
    ----------
    circuit : of ``circuit.stepped``.
    max_step : largest step [s].
    tolerance : of a crossing's time [s]; a millionth of ``max_step`` if None.
    method : of integration, ``"trap"`` or ``"gear"``.
    initial_conditions : start from ``ic=`` and ``.ic`` instead of the operating point.
    timeout : seconds without a sign of life.
    osdi : compiled models that the circuit uses.
    name : what errors call it.
    progress : called with the time reached [s], several times a second.

    Raises InputError for numbers out of range, EngineError where the circuit does not load
    or has no operating point.
    """

    def __init__(
        self,
        circuit: Stepped,
        *,
        max_step: float,
        tolerance: float | None = None,
        method: Method = "trap",
        tolerances: Tolerances = STEPPED,
        initial_conditions: bool = False,
        timeout: float = 60.0,
        osdi: Sequence[CompiledModel] = (),
        name: str = "circuit",
        progress: Callable[[float], None] | None = None,
    ) -> None:
        tolerance = 1e-6 * max_step if tolerance is None else tolerance
        for key, value in (("max_step", max_step), ("tolerance", tolerance), ("timeout", timeout)):
            if not 0 < value < math.inf:
                raise InputError(f"{key} = {value!r} is not positive", where=name)
        if tolerance < 1e-9 * max_step:
            raise InputError(
                f"a tolerance of {tolerance:g} s is out of reach at steps of {max_step:g} s",
                where=name,
                remedy="ask for 1e-9 of max_step at least, or lower max_step",
            )
        if method not in ("trap", "gear"):
            raise InputError(f"no method is called {method!r}", where=name, remedy="trap or gear")
        self.circuit = circuit
        self.name = name
        self.time = 0.0
        self.steps = self.rejected = 0
        self._timeout = timeout
        self._progress = progress
        self._parts: list[Array] = []
        self._waiting = False
        self._kept: Header | SpicennError | None = None
        self._probe = {probe: k for k, probe in enumerate(circuit.probes)}
        self._source = {source.name: k for k, source in enumerate(circuit.sources)}
        self._drives: list[tuple[int, float, float, float]] = []
        self._watch: list[tuple[int, int, float, float, float, bool]] = []
        self._unwatch: list[int] = []
        self._sampled: dict[str, float] = {}
        request = {
            "request": "step",
            "lines": circuit.netlist(
                max_step=max_step,
                method=method,
                tolerances=tolerances,
                initial_conditions=initial_conditions,
            ),
            "osdi": [[model.path, model.sha256] for model in osdi],
            "readers": [circuit.reader(probe) for probe in circuit.probes],
            "vectors": [circuit.vector(probe) for probe in circuit.probes],
            "sources": [source.name for source in circuit.sources],
            "levels": [source.level for source in circuit.sources],
            "max_step": max_step,
            "initial_conditions": initial_conditions,
            "tolerance": tolerance,
        }
        self._child = Child()
        warn_without_klu(self._child.facts)
        try:
            self._send(request)
            self._receive()
        except BaseException:
            self.close()
            raise

    @property
    def probes(self) -> tuple[str, ...]:
        """What can be read and is recorded."""
        return self.circuit.probes

    @property
    def sources(self) -> tuple[str, ...]:
        """What can be driven."""
        return tuple(source.name for source in self.circuit.sources)

    def check_probe(self, probe: str) -> str:
        """The probe's own name. Raises InputError where there is none of this name."""
        return known_name(
            probe,
            self._probe,
            "probe",
            where=self.name,
            remedy="name the nodes that processes read in probes=[...]",
        )

    def check_source(self, source: str) -> str:
        """The source's own name. Raises InputError where there is none of this name."""
        return known_name(
            source,
            self._source,
            "external source",
            where=self.name,
            remedy="declare it at the top level of the circuit, e.g. vin in 0 dc 0 external",
        )

    def watch(self, threshold: Threshold) -> None:
        """Look out for a crossing, until it happens or ``unwatch``."""
        sign = 1.0 if threshold.upwards else -1.0
        probe, t = self._probe[threshold.probe], threshold
        self._watch.append((t.key, probe, t.level, sign, t.since, t.repeat))

    def unwatch(self, key: int) -> None:
        """Look out no longer."""
        self._unwatch.append(key)

    def drive(self, source: str, level: float, start: float, rise: float) -> None:
        """Have a source go to a level [V] or [A], from ``start`` on [s], within ``rise`` [s]."""
        self._drives.append((self._source[source], start, rise, level))

    def sample(self, probe: str, time: float) -> float:
        """Value of a probe at a time that the circuit has reached [V] or [A]."""
        if time == self.time and probe in self._sampled:
            return self._sampled[probe]
        request = {"request": "sample", "probes": [self._probe[probe]], "time": time}
        self._send(request)
        value = float(self._receive()["values"][0])
        if time == self.time:
            self._sampled[probe] = value
        return value

    def begin(self, until: float) -> None:
        """Go forward to a time [s], or to the first crossing; ``finish`` waits for it."""
        request = {
            "request": "advance",
            "until": until,
            "watch": self._watch,
            "unwatch": self._unwatch,
            "drive": self._drives,
        }
        self._watch, self._unwatch, self._drives = [], [], []
        self._sampled = {}
        self._send(request)

    def finish(self) -> list[tuple[int, float]]:
        """Wait until ``begin`` is done; return the crossings, each its key and time [s].

        Raises ConvergenceError naming time and node where ngspice finds no next point,
        SimulationTimeout, SimulatorCrash.
        """
        kept, self._kept = self._kept, None
        if isinstance(kept, SpicennError):
            raise kept
        header = self._receive() if kept is None else kept
        return [(int(key), time) for key, time in header["fired"]]

    def _take_in(self) -> bool:
        """Take what it has told so far; True once that is the answer, kept for ``finish``."""
        try:
            while self._kept is None:
                self._kept = self._next()
                if self._kept is None and not self._child.has_begun:
                    return False
        except SpicennError as error:
            self._kept = error
        return True

    def traces(self) -> tuple[Array, dict[str, Array]]:
        """Times (point,) [s] and values (point,) of every probe, up to now.

        After a failure: up to what had come back, at most a quarter of a second before it.
        """
        if self._child.alive and not self._waiting:
            try:
                self._send({"request": "record"})
                self._receive()
            except SpicennError:  # what is here is what there is
                pass
        empty = np.zeros((1 + len(self.probes), 0))
        table = np.concatenate([empty, *self._parts], axis=1)
        self._parts = [table]
        return table[0], dict(zip(self.probes, table[1:], strict=True))

    def close(self) -> None:
        """End the simulator's process; what was recorded stays."""
        self._child.close()

    def _send(self, request: Header) -> None:
        # Stays so where the answer does not come, or an interrupt comes before it.
        self._waiting = True
        try:
            self._child.send(request, (), self._timeout)
        except SpicennError as error:
            raise self._placed(error) from error

    def _receive(self) -> Header:
        while (header := self._next()) is None:
            pass
        return header

    def _next(self) -> Header | None:
        """The answer, or None where it only told how far it is."""
        try:
            header, arrays = self._child.receive(self._timeout)
        except SpicennError as error:
            raise self._placed(error) from error
        self._parts += arrays
        if "going" in header:
            self.time = header["going"]
            if self._progress is not None:
                self._progress(self.time)
            return None
        self._waiting = False
        self.time = header.get("time", self.time)
        self.steps = header.get("steps", self.steps)
        self.rejected = header.get("rejected", self.rejected)
        if not header["ok"]:
            raise self._placed(failure(header))
        return header

    def _placed(self, error: SpicennError) -> SpicennError:
        where = f"{self.name}, t = {self.time:.6g} s" if self.steps else self.name
        return type(error)(error.what, where=where, remedy=error.remedy)


def attend(circuits: Sequence[SteppedCircuit]) -> None:
    """Listen to circuits that have begun, all at once, until each has its answer for ``finish``.

    What one of them records on a long way fills its pipe: it would stand still for as long
    as another is waited for.
    """
    with selectors.DefaultSelector() as selector:
        for circuit in circuits:
            selector.register(circuit._child.output, selectors.EVENT_READ, circuit)
        patience = max(circuit._timeout for circuit in circuits)
        while selector.get_map():
            ready = selector.select(patience)
            if not ready:
                return  # ``finish`` says who is silent
            for key, _ in ready:
                if key.data._take_in():
                    selector.unregister(key.fileobj)
