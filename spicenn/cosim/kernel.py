"""Digital processes and analog circuits under one clock.

Processes are SimPy's, on SimPy's queue. Before SimPy's clock goes on to its next event,
every analog block is taken to that time; one that meets a threshold on its way stops
there, and the crossing becomes an event at that time. So a block is never behind the
clock, and never further ahead of it than the delay after which it hears of anything.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from itertools import count
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import simpy
from simpy.core import EmptySchedule
from simpy.events import Event, Process

from spicenn.circuit.names import near
from spicenn.circuit.stepped import STEPPED, Method, stepped
from spicenn.circuit.tolerances import Tolerances
from spicenn.cosim.block import Block, Threshold
from spicenn.cosim.record import Happening, dataset_of
from spicenn.engines.ngspice.stepped import SteppedCircuit
from spicenn.errors import CosimulationError, InputError, NoCrossing, SpicennError

if TYPE_CHECKING:
    import xarray as xr

ProcessGenerator = Generator[Event, Any, Any]

# Two times are the same where doubles cannot tell a sum from its parts.
_SAME = 1e-15
# Events at one time after which nothing seems to let it pass.
_MOST_AT_ONCE = 100_000
_INTERVAL = 0.2
# Advances between two looks for crossings that nobody waits for any longer.
_SWEEP = 64


class Crossing(Event):
    """A node's passing of a threshold; its value is the time [s]."""

    def __init__(self, env: Cosimulation, block: Block, threshold: Threshold) -> None:
        super().__init__(env)
        self.block = block
        self.threshold = threshold

    def __str__(self) -> str:
        side = "above" if self.threshold.upwards else "below"
        return f"{self.threshold.probe} {side} {self.threshold.level:g}"


class Spike(NamedTuple):
    """What a monitor reports: which node passed its threshold, and when [s]."""

    node: str
    time: float


class Cosimulation(simpy.Environment):
    """Run circuits in ngspice together with processes in Python, event by event.

    Use it as a context manager. ``env.process``, ``env.timeout``, ``env.event``,
    ``env.any_of``, ``env.now`` and all else of SimPy's environment are there as well;
    times are in seconds.

    Parameters
    ----------
    circuit : a netlist as text, its first line the title, whose ``external`` sources can
        be driven (``vin in 0 dc 0.5 external``); a PySpice circuit; a ``Block``, such as an
        event-driven surrogate; or several of them by name.
    probes : nodes and currents ``i(source)`` to be read and recorded, by block where there
        are several; None is every node of the top level.
    max_step : largest step of ngspice [s].
    tolerance : of a crossing's time [s]; a millionth of ``max_step`` if None.
    rise : duration of a drive's slope [s] where it has none of its own; a hundredth of
        ``max_step`` if None.
    delay : from a process to a circuit [s]: what is driven at t begins at t + delay. With
        several blocks it must be above 0: within it they run at the same time, each in a
        process of its own.
    method, tolerances, initial_conditions, timeout : of ngspice, see ``SteppedCircuit``.
    progress : called with the time reached [s] and the number of events, a few times a second;
        an attribute as well.
    most_at_once : events at one instant after which the processes are taken to be caught in
        a loop without delay.

    Nodes of several blocks are called ``block:node``.

    Raises InputError, NetlistError or EngineError for a circuit that cannot be run.
    """

    def __init__(
        self,
        circuit: Any,
        *,
        probes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        max_step: float | None = None,
        tolerance: float | None = None,
        rise: float | None = None,
        delay: float = 0.0,
        method: Method = "trap",
        tolerances: Tolerances = STEPPED,
        initial_conditions: bool = False,
        timeout: float = 60.0,
        progress: Callable[[float, int], None] | None = None,
        most_at_once: int = _MOST_AT_ONCE,
    ) -> None:
        super().__init__(0.0)
        self.progress = progress
        self._shown = monotonic()
        self._happenings: list[Happening] = []
        self._keys = count()
        self._armed: dict[int, Crossing] = {}
        self._unheld: weakref.WeakValueDictionary[int, Crossing] = weakref.WeakValueDictionary()
        self._monitors: dict[int, tuple[str, float, simpy.Store]] = {}
        self._watched: dict[int, Block] = {}
        self._advances = 0
        self._turns: Counter[str] = Counter()
        self._names: weakref.WeakKeyDictionary[Process, str] = weakref.WeakKeyDictionary()
        self._raised: dict[int, tuple[str, float]] = {}
        self._at_once = 0
        self._most_at_once = most_at_once
        self._blocks: dict[str, Block] = {}
        circuits = circuit if isinstance(circuit, Mapping) else {"": circuit}
        if not circuits:
            raise InputError("there is no circuit")
        if not 0 <= delay < math.inf or (len(circuits) > 1 and delay == 0):
            raise InputError(
                f"delay = {delay!r} s",
                remedy="several circuits run at the same time only with a delay above 0",
            )
        self.delay = delay
        shortest = 0.0 if max_step is None else max_step / 100
        self.rise = shortest if rise is None else rise
        if not 0 <= self.rise < math.inf:
            raise InputError(f"rise = {rise!r} s is not a duration")
        try:
            for name, part in circuits.items():
                chosen = probes.get(name) if isinstance(probes, Mapping) else probes
                self._blocks[name] = (
                    part
                    if not isinstance(part, str) and hasattr(part, "begin")
                    else self._open(
                        part, name, chosen, max_step, tolerance,
                        method=method, tolerances=tolerances,
                        initial_conditions=initial_conditions, timeout=timeout,
                    )
                )  # fmt: skip
        except BaseException:
            self.close()
            raise

    def _open(
        self,
        circuit: Any,
        name: str,
        probes: Sequence[str] | None,
        max_step: float | None,
        tolerance: float | None,
        **options: Any,
    ) -> Block:
        if max_step is None:
            raise InputError(
                "max_step is missing",
                where=name or "circuit",
                remedy="give the largest step, e.g. a hundredth of the shortest period",
            )
        title = name or "circuit"
        return SteppedCircuit(
            stepped(str(circuit), probes, where=title),
            max_step=max_step,
            tolerance=tolerance,
            name=title,
            progress=self._show,
            **options,
        )

    # What processes call.

    def process(self, generator: ProcessGenerator, name: str | None = None) -> Process:
        """Start a process: a generator that yields events. Errors call it by its name."""
        if not hasattr(generator, "throw"):
            raise InputError(
                f"{generator!r} is not a generator",
                remedy="call the function: env.process(blink(env))",
            )
        name = str(name or getattr(generator, "__name__", "process"))
        process = Process(self, self._supervised(generator, name))
        self._names[process] = name
        return process

    def crossing(
        self,
        node: str,
        *,
        above: float | None = None,
        below: float | None = None,
        within: float | None = None,
    ) -> Crossing:
        """An event: the next time that a node rises above a threshold, or falls below one.

        A node that is there already has to leave and come back. The event's value is the
        time [s].

        Parameters
        ----------
        above, below : threshold [V] or [A], one of them.
        within : time [s] after which the event fails with NoCrossing.

        Raises InputError for an unknown node or a threshold that nothing can pass.
        """
        if (above is None) == (below is None):
            raise InputError("a crossing is above or below a threshold", where=f"node {node}")
        level = above if above is not None else below
        assert level is not None
        block, threshold = self._threshold(node, level, above is not None, repeat=False)
        crossing = Crossing(self, block, threshold)
        self._armed[threshold.key] = crossing
        if within is not None:
            if not 0 < within < math.inf:
                raise InputError(f"within = {within!r} s is not a duration", where=f"node {node}")
            self.timeout(within).callbacks.append(lambda _: self._give_up(crossing, within))
        return crossing

    def monitor(
        self, nodes: Sequence[str], *, above: float | None = None, below: float | None = None
    ) -> simpy.Store:
        """A store of every passing of a threshold by any of the nodes: ``yield store.get()``.

        Items are ``Spike``, in the order of their times. None is missed, however late it is
        fetched.
        """
        if (above is None) == (below is None):
            raise InputError("a monitor looks above or below a threshold")
        level = above if above is not None else below
        assert level is not None
        store = simpy.Store(self)
        for node in nodes:
            _, threshold = self._threshold(node, level, above is not None, repeat=True)
            self._monitors[threshold.key] = (node, float(level), store)
        return store

    def drive(self, source: str, value: float, rise: float | None = None) -> None:
        """Have an external source go to a value [V] or [A] from now (+ ``delay``) on.

        Raises InputError for an unknown source, a value that is not finite, or no rise time.
        """
        block, name = self._find(source, "source")
        rise = self.rise if rise is None else rise
        if not math.isfinite(value):
            raise InputError(f"cannot drive {source} to {value!r}")
        if not 0 <= rise < math.inf or (rise == 0 and isinstance(block, SteppedCircuit)):
            raise InputError(
                f"a rise of {rise!r} s",
                where=f"source {source}",
                remedy="a circuit needs slopes of a finite duration",
            )
        block.drive(name, float(value), self.now + self.delay, rise)
        self._note("drive", source, float(value))

    def sample(self, node: str) -> float:
        """Value of a node [V] or of a current [A] now. Raises InputError for an unknown one."""
        block, name = self._find(node, "probe")
        return block.sample(name, self.now)

    def emit(self, name: str, value: float = math.nan, **fields: float) -> None:
        """Record an event: its name, a value, and numbers of any other name."""
        self._note("emit", name, float(value), fields)

    def check_node(self, node: str) -> str:
        """The name of a node or current as it is recorded. Raises InputError for an unknown one."""
        return self._known(node, "probe")

    def check_source(self, source: str) -> str:
        """The own name of an external source. Raises InputError for an unknown one."""
        return self._known(source, "source")

    # Running.

    def run(self, until: float | Event | None = None) -> xr.Dataset:
        """Run to a time [s], to an event, or until nothing is left to be done.

        Returns
        -------
        The record so far, see ``dataset``. It may be called again to go on.

        Raises what a process raised, naming it and the time; ConvergenceError where a circuit
        fails; CosimulationError where no process can go on, or none lets time pass. The
        record up to there is ``dataset()`` then.
        """
        if until is not None and not isinstance(until, Event):
            until = float(until)
            if not self.now < until < math.inf:
                raise InputError(f"until = {until!r} s is not after now, {self.now!r} s")
        try:
            super().run(until)
        except RuntimeError as error:
            if type(error) is not RuntimeError or error.__cause__ is not None:
                raise
            raise CosimulationError(
                "nothing is left to be done, and the event to run until has not happened",
                where=self._when(),
            ) from None
        return self.dataset()

    def step(self) -> None:
        """Process the next event, once every circuit is there."""
        self._reach()
        before = self.now
        try:
            super().step()
        except (simpy.core.StopSimulation, EmptySchedule):
            raise
        except Exception as error:
            raise self._named(error) from error.__cause__
        if self.now > before:
            self._at_once = 0
            self._turns.clear()
        self._at_once += 1
        if self._at_once > self._most_at_once:
            busy = ", ".join(name for name, _ in self._turns.most_common(4)) or "no process"
            raise CosimulationError(
                f"{self._at_once} events and no time has passed; most active: {busy}",
                where=self._when(),
                remedy="let a process wait: yield env.timeout(t) with t > 0, or env.crossing(…)",
            )
        self._show(self.now)

    def dataset(self) -> xr.Dataset:
        """What was recorded: events, and every probe against time.

        ``event_time`` [s], ``event_kind`` ("emit", "drive", "crossing"), ``event_name``,
        ``event_value``, ``event_process`` and ``event_<field>`` over ``event``; each probe
        over ``time`` [s], or ``block:node`` over ``time_<block>``.
        """
        return dataset_of(self._blocks, self._happenings, self.now)

    @property
    def blocks(self) -> Mapping[str, Block]:
        """The analog sides by name; the only one's name is empty."""
        return self._blocks

    def close(self) -> None:
        """End the simulators; the record stays."""
        for block in self._blocks.values():
            block.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Inside.

    def _reach(self) -> None:
        """Take every block to the time of the next event, or of a crossing before it."""
        while True:
            target = self.peek()
            if math.isinf(target):
                self._check_waiting()
                return
            blocks = list(self._blocks.values())
            limit = target
            if len(blocks) > 1:
                limit = min(target, min(block.time for block in blocks) + self.delay)
            behind = [block for block in blocks if block.time < limit * (1 - _SAME)]
            if not behind:
                return
            self._sweep()
            for key, time in sorted(_advance(behind, limit), key=lambda crossed: crossed[1]):
                self._happen(key, time)

    def _happen(self, key: int, time: float) -> None:
        """Put a crossing into SimPy's queue, at its time."""
        if key in self._monitors:
            node, level, store = self._monitors[key]
            self._at(time, lambda: self._report(store, level, Spike(node, time)))
            return
        del self._watched[key]
        crossing = self._armed.pop(key, None) or self._unheld.pop(key, None)
        if crossing is not None:
            self._at(time, lambda: self._cross(crossing, time))

    def _at(self, time: float, action: Callable[[], None]) -> None:
        timer = self.timeout(max(time - self.now, 0.0))
        timer.callbacks.append(lambda _: action())

    def _report(self, store: simpy.Store, level: float, spike: Spike) -> None:
        self._note("crossing", spike.node, level)
        store.put(spike)

    def _cross(self, crossing: Crossing, time: float) -> None:
        if not crossing.triggered:
            self._note("crossing", self._full(crossing), crossing.threshold.level)
            crossing.succeed(time)

    def _give_up(self, crossing: Crossing, within: float) -> None:
        if crossing.triggered:
            return
        key = crossing.threshold.key
        self._armed.pop(key, None)
        if key in self._watched:
            self._watched.pop(key).unwatch(key)
        now = crossing.block.sample(crossing.threshold.probe, self.now)
        crossing.fail(
            NoCrossing(
                f"{self._full(crossing)} did not pass {crossing} in {within:g} s; it is at {now:g}",
                where=self._when(),
            )
        )

    def _sweep(self) -> None:
        """Tell blocks of new thresholds, and of those that nobody waits for any longer."""
        for key, crossing in self._armed.items():
            if key not in self._watched:
                self._watched[key] = crossing.block
                crossing.block.watch(crossing.threshold)
        self._advances += 1
        if self._advances % _SWEEP:
            return
        # An event that a condition let go of has no callbacks; where a process still holds
        # it, it stays.
        for key in [key for key, crossing in self._armed.items() if not crossing.callbacks]:
            self._unheld[key] = self._armed.pop(key)
        for key, crossing in list(self._unheld.items()):
            if crossing.callbacks:
                self._armed[key] = self._unheld.pop(key)
        for key in list(self._watched):
            if not any(key in keys for keys in (self._armed, self._unheld, self._monitors)):
                self._watched.pop(key).unwatch(key)

    def _threshold(
        self, node: str, level: float, upwards: bool, *, repeat: bool
    ) -> tuple[Block, Threshold]:
        if not math.isfinite(level):
            raise InputError(f"no node can pass {level!r}", where=f"node {node}")
        block, probe = self._find(node, "probe")
        threshold = Threshold(next(self._keys), probe, float(level), upwards, self.now, repeat)
        if repeat:
            self._watched[threshold.key] = block
            block.watch(threshold)
        return block, threshold

    def _find(self, name: str, kind: str) -> tuple[Block, str]:
        if "" in self._blocks:
            block, own = self._blocks[""], name
        else:
            first, mark, own = name.partition(":")
            if not mark or first not in self._blocks:
                raise InputError(
                    f"no block is called {first!r}{near(first, list(self._blocks))}",
                    where=f"{kind} {name}",
                    remedy=f"with several blocks a {kind} is called block:{kind}",
                )
            block = self._blocks[first]
        return block, block.check_probe(own) if kind == "probe" else block.check_source(own)

    def _known(self, name: str, kind: str) -> str:
        _, own = self._find(name, kind)
        return own if "" in self._blocks else f"{name.partition(':')[0]}:{own}"

    def _full(self, crossing: Crossing) -> str:
        name = next(name for name, block in self._blocks.items() if block is crossing.block)
        probe = crossing.threshold.probe
        return f"{name}:{probe}" if name else probe

    def _supervised(self, generator: ProcessGenerator, name: str) -> ProcessGenerator:
        """The generator itself; counts its turns and keeps who raised what."""
        send: Callable[[Any], Event] = generator.send
        argument: Any = None
        while True:
            self._turns[name] += 1
            try:
                event = send(argument)
            except StopIteration as end:
                return end.value
            except BaseException as error:
                self._raised[id(error)] = (name, self.now)
                raise
            try:
                argument, send = (yield event), generator.send
            except BaseException as error:
                argument, send = error, generator.throw

    def _named(self, error: Exception) -> Exception:
        """The error that ends the run, for one that a process or a circuit raised."""
        original = error.__cause__ or error
        if id(original) not in self._raised:
            return error
        name, time = self._raised[id(original)]
        where = f"process {name}, t = {time:.6g} s"
        if isinstance(original, SpicennError):
            inner = f"{where}; {original.where}" if original.where else where
            return type(original)(original.what, where=inner, remedy=original.remedy)
        said = f": {original}" if str(original) else ""
        return CosimulationError(f"raised {type(original).__name__}{said}", where=where)

    def _check_waiting(self) -> None:
        waiting = [c for c in self._armed.values() if c.callbacks]
        if not waiting and not self._monitors_waited():
            return
        what = "; ".join(f"{self._waiter(c)} for {self._full(c)} {str(c).split(' ', 1)[1]}"
                         for c in waiting[:4])  # fmt: skip
        raise CosimulationError(
            f"nothing is scheduled, and processes wait: {what or 'for a monitor'}",
            where=self._when(),
            remedy="say for how long: env.run(until=…), or env.crossing(…, within=…)",
        )

    def _monitors_waited(self) -> bool:
        return any(store.get_queue for _, _, store in self._monitors.values())

    def _waiter(self, crossing: Crossing) -> str:
        names = [name for process, name in self._names.items() if process.target is crossing]
        return names[0] if names else "one"

    def _when(self) -> str:
        return f"t = {self.now:.6g} s"

    def _note(
        self, kind: str, name: str, value: float, fields: Mapping[str, float] | None = None
    ) -> None:
        process = self.active_process
        by = self._names.get(process, "") if process is not None else ""
        self._happenings.append(Happening(self.now, kind, name, value, by, fields or {}))

    def _show(self, time: float) -> None:
        if self.progress is not None and monotonic() - self._shown > _INTERVAL:
            self._shown = monotonic()
            self.progress(time, len(self._happenings))


def _advance(blocks: Sequence[Block], limit: float) -> list[tuple[int, float]]:
    """Take blocks to a time, together; raises the first error once all are done."""
    fired: list[tuple[int, float]] = []
    errors: list[SpicennError] = []
    begun = []
    for block in blocks:
        try:
            block.begin(limit)
            begun.append(block)
        except SpicennError as error:
            errors.append(error)
    for block in begun:
        try:
            fired += block.finish()
        except SpicennError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return fired
