"""Digital processes and analog circuits under one clock.

Processes are SimPy's, on SimPy's queue. Before SimPy's clock goes on to its next event,
every analog block is taken to that time; one that meets a threshold on its way stops
there, and the crossing becomes an event at that time. So a block is never behind the
clock, and never further ahead of it than the delay after which it hears of anything.
"""

from __future__ import annotations

import heapq
import math
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from time import monotonic
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self

import simpy
from simpy.core import EmptySchedule, StopSimulation
from simpy.events import URGENT, Event, Process, Timeout

from spicenn.circuit.names import near
from spicenn.circuit.stepped import STEPPED, Method, stepped
from spicenn.circuit.tolerances import Tolerances
from spicenn.cosim.block import Block, Threshold
from spicenn.cosim.events import (
    Crossing,
    Deadline,
    Moment,
    NamedProcess,
    ProcessGenerator,
    Spike,
    Waiters,
)
from spicenn.cosim.record import FIELDS, Happening, dataset_of
from spicenn.engines.ngspice.stepped import SteppedCircuit, attend
from spicenn.errors import CosimulationError, InputError, NoCrossing, SpicennError

if TYPE_CHECKING:
    import xarray as xr

# Two times are the same where doubles cannot tell a sum from its parts.
_SAME = 1e-15
# Events at one time after which nothing seems to let it pass.
_MOST_AT_ONCE = 100_000
_INTERVAL = 0.2
_NO_FIELDS: Mapping[str, float] = MappingProxyType({})


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
        # Crossings that blocks look out for; those of them that somebody waits for; those
        # that nobody can wait for any longer.
        self._crossings: dict[int, tuple[weakref.ref[Crossing], Block]] = {}
        self._held: dict[int, Crossing] = {}
        self._dropped: list[int] = []
        self._monitors: dict[int, tuple[str, float, simpy.Store]] = {}
        # Blocks that are to look back, that were sent on, that failed; by their identity.
        self._asked: set[int] = set()
        self._underway: list[Block] = []
        self._failures: dict[int, SpicennError] = {}
        self._fired: list[tuple[int, float]] = []
        self._turns: Counter[str] = Counter()
        self._until: Event | None = None
        self._at_once = 0
        self._most_at_once = most_at_once
        self._blocks: dict[str, Block] = {}
        circuits = circuit if isinstance(circuit, Mapping) else {"": circuit}
        if not circuits:
            raise InputError("there is no circuit")
        if isinstance(circuit, Mapping):
            for name in circuits:
                if not isinstance(name, str) or not name or ":" in name:
                    raise InputError(f"{name!r} cannot be a block's name", remedy="e.g. 'layer1'")
        if most_at_once < 1:
            raise InputError(f"most_at_once = {most_at_once!r} is not a number of events")
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
                self._blocks[name] = self._open(
                    part, name, chosen, max_step, tolerance,
                    method=method, tolerances=tolerances,
                    initial_conditions=initial_conditions, timeout=timeout,
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
        if not isinstance(circuit, str) and hasattr(circuit, "begin"):
            if circuit.time != 0:
                raise InputError(
                    f"the block has been run to {circuit.time:g} s already",
                    where=name or circuit.name,
                    remedy="make a new one for every co-simulation",
                )
            return circuit  # type: ignore[no-any-return]
        if isinstance(circuit, os.PathLike) or "\n" not in str(circuit).strip():
            raise InputError(
                f"{str(circuit)[:80]!r} is not a netlist",
                where=name or "circuit",
                remedy="give its text, e.g. Path(...).read_text(): a title, then elements",
            )
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
        return NamedProcess(self, self._supervised(generator, name), name)

    def timeout(self, delay: float = 0, value: Any = None) -> Timeout:
        """An event after a time [s]. Raises InputError for what is not a duration."""
        if not 0 <= delay < math.inf:
            raise InputError(
                f"a timeout of {delay!r} s",
                remedy="wait for 0 s or longer; yield env.event() waits for ever",
            )
        return Timeout(self, delay, value)

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
        if within is not None and not 0 < within < math.inf:
            raise InputError(f"within = {within!r} s is not a duration", where=f"node {node}")
        full, block, threshold = self._threshold(node, above, below, repeat=False)
        key = threshold.key
        crossing = Crossing(self, full, block, threshold)
        crossing.callbacks = Waiters(crossing, self._held)
        self._crossings[key] = weakref.ref(crossing, lambda _: self._dropped.append(key)), block
        self._watch(block, threshold)
        if within is not None:
            Deadline(self, within, key).callbacks.append(lambda _: self._give_up(key, within))
        return crossing

    def monitor(
        self,
        nodes: str | Sequence[str],
        *,
        above: float | None = None,
        below: float | None = None,
    ) -> simpy.Store:
        """A store of every passing of a threshold by any of the nodes: ``yield store.get()``.

        Items are ``Spike``, in the order of their times. None is missed, however late it is
        fetched; where something else may come first, as in ``got | env.timeout(1e-6)``, a
        ``got = store.get()`` that lost must be withdrawn by ``got.cancel()``, or it takes the
        next item.

        Raises InputError for no nodes, an unknown one, or a threshold that nothing can pass.
        """
        nodes = [nodes] if isinstance(nodes, str) else list(nodes)
        if not nodes:
            raise InputError("a monitor needs a node to look at")
        found = [self._threshold(node, above, below, repeat=True) for node in nodes]
        store = simpy.Store(self)
        for node, (_, block, threshold) in zip(nodes, found, strict=True):
            self._monitors[threshold.key] = (node, threshold.level, store)
            self._watch(block, threshold)
        return store

    def drive(self, source: str, value: float, rise: float | None = None) -> None:
        """Have an external source go to a value [V] or [A] from now (+ ``delay``) on.

        Raises InputError for an unknown source, a value that is not finite, or no rise time.
        """
        _, block, name = self._find(source, "source")
        rise = self.rise if rise is None else rise
        if not math.isfinite(value):
            raise InputError(f"cannot drive to {value!r}", where=f"source {source}")
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
        _, block, name = self._find(node, "probe")
        return block.sample(name, self.now)

    def emit(self, name: str, value: float = math.nan, **fields: float) -> None:
        """Record an event: its name, a value, and numbers of any other name.

        Raises InputError for a field's name that the record uses itself.
        """
        if taken := FIELDS & fields.keys():
            raise InputError(
                f"the record has a field {min(taken)!r} of its own", where=f"event {name}"
            )
        self._note("emit", name, float(value), {key: float(x) for key, x in fields.items()})

    def check_node(self, node: str) -> str:
        """The name of a node or current as it is recorded. Raises InputError for an unknown one."""
        return self._find(node, "probe")[0]

    def check_source(self, source: str) -> str:
        """The own name of an external source. Raises InputError for an unknown one."""
        return self._find(source, "source")[0]

    # Running.

    def run(self, until: float | Event | None = None) -> xr.Dataset:
        """Run to a time [s], to an event, or until nothing is left to be done.

        What is to happen at the time itself is left to the next run.

        Returns
        -------
        The record so far, see ``dataset``. It may be called again to go on, also after a
        process has failed; a circuit that has failed fails again.

        Raises what a process raised, naming it and the time; ConvergenceError where a circuit
        fails; CosimulationError where no process can go on, or none lets time pass. The
        record up to there is ``dataset()`` then.
        """
        if until is not None and not isinstance(until, Event):
            until = float(until)
            if not self.now < until < math.inf:
                raise InputError(f"until = {until!r} s is not after now, {self.now!r} s")
            until = Moment(self, until, URGENT)  # before all else that is to happen then
        self._until = until
        try:
            super().run(until)
        except BaseException:
            self._go_on_past(until)
            raise
        finally:
            self._until = None
        return self.dataset()

    def step(self) -> None:
        """Process the next event, once every circuit is there."""
        self._reach()
        event = self._queue[0][3] if self._queue else None
        before = self.now
        try:
            super().step()
        except (StopSimulation, EmptySchedule):
            raise
        except Exception as error:
            # SimPy raises a copy of what failed an event, as far as it can be copied.
            original = error
            if event is not None and event.triggered and not event.ok:
                assert isinstance(event.value, Exception)
                original = event.value
            named = self._named(original, event)
            raise named from (original if named is not original else original.__cause__)
        if self.now > before:
            self._at_once = 0
            self._turns.clear()
        self._at_once += 1
        if self._at_once > self._most_at_once:
            raise self._stuck(self._at_once)
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
            self._finish()
            for key in self._dropped:
                if known := self._crossings.pop(key, None):
                    known[1].unwatch(key)
            self._dropped.clear()
            target = self._next()
            if math.isinf(target):
                self._check_waiting()
                return
            limit = target
            if len(self._blocks) > 1:
                slowest = min(block.time for block in self._blocks.values())
                limit = min(target, slowest + self.delay)
            due = [
                block
                for block in self._blocks.values()
                if block.time < limit * (1 - _SAME) or id(block) in self._asked
            ]
            if not due:
                if limit < target * (1 - _SAME):
                    raise CosimulationError(
                        f"a delay of {self.delay:g} s is nothing beside the time",
                        where=self._when(),
                    )
                return
            # It fails once all that happened before it has been processed.
            for block in due:
                if id(block) in self._failures:
                    raise self._failures[id(block)]
            self._asked.clear()
            for block in due:
                try:
                    block.begin(max(limit, block.time))
                except SpicennError as error:
                    self._fail(block, error)
                else:
                    self._underway.append(block)

    def _finish(self) -> None:
        """Wait for the blocks that were sent on, and take what crossed into SimPy's queue.

        One at a time, so that nothing is lost where the wait is interrupted.
        """
        circuits = [block for block in self._underway if isinstance(block, SteppedCircuit)]
        if len(circuits) > 1:
            attend(circuits)
        while self._underway:
            try:
                self._fired += self._underway[0].finish()
            except SpicennError as error:
                self._fail(self._underway[0], error)
            del self._underway[0]
        if self._fired:
            for key, time in sorted(self._fired, key=lambda crossed: crossed[1]):
                self._happen(key, time)
            self._fired.clear()

    def _fail(self, block: Block, error: SpicennError) -> None:
        self._failures[id(block)] = error
        block.close()

    def _next(self) -> float:
        """Time of the next event, past deadlines of crossings that are over."""
        while self._queue:
            time, _, _, event = self._queue[0]
            if not isinstance(event, Deadline) or event.key in self._crossings:
                return float(time)
            heapq.heappop(self._queue)
        return math.inf

    def _happen(self, key: int, time: float) -> None:
        """Put a crossing into SimPy's queue, at its time."""
        if key in self._monitors:
            node, level, store = self._monitors[key]
            self._at(time, lambda: self._report(store, level, Spike(node, time)))
        elif known := self._crossings.pop(key, None):
            crossing = known[0]()
            if crossing is not None:
                self._at(time, lambda: self._cross(crossing, time))

    def _at(self, time: float, action: Callable[[], None]) -> None:
        Moment(self, time).callbacks.append(lambda _: action())

    def _report(self, store: simpy.Store, level: float, spike: Spike) -> None:
        self._note("crossing", spike.node, level)
        store.put(spike)

    def _cross(self, crossing: Crossing, time: float) -> None:
        self._note("crossing", crossing.node, crossing.threshold.level)
        crossing.succeed(time)
        self._held.pop(crossing.threshold.key, None)

    def _give_up(self, key: int, within: float) -> None:
        known = self._crossings.pop(key, None)
        crossing = known[0]() if known else None
        if crossing is None:
            return
        crossing.block.unwatch(key)
        now = crossing.block.sample(crossing.threshold.probe, self.now)
        crossing.fail(
            NoCrossing(
                f"{crossing} did not happen within {within:g} s; the node is at {now:g}",
                where=self._when(),
            )
        )
        # Who let go of it does not care; who waits for it later is told.
        if not crossing.callbacks:
            crossing.defused = True
        self._held.pop(key, None)

    def _threshold(
        self, node: str, above: float | None, below: float | None, *, repeat: bool
    ) -> tuple[str, Block, Threshold]:
        level = above if above is not None else below
        if level is None or (above is not None and below is not None):
            raise InputError(
                "a crossing is above or below a threshold",
                where=f"node {node}",
                remedy="give one of above=… and below=…",
            )
        if not math.isfinite(level):
            raise InputError(f"no node can pass {level!r}", where=f"node {node}")
        full, block, probe = self._find(node, "probe")
        key = next(self._keys)
        return full, block, Threshold(key, probe, float(level), above is not None, self.now, repeat)

    def _watch(self, block: Block, threshold: Threshold) -> None:
        block.watch(threshold)
        if threshold.since < block.time * (1 - _SAME):
            self._asked.add(id(block))

    def _find(self, name: str, kind: str) -> tuple[str, Block, str]:
        """Name in the record, block and own name of a probe or a source."""
        first, own = "", name
        if "" not in self._blocks:
            first, mark, own = name.partition(":")
            if not mark or first not in self._blocks:
                raise InputError(
                    f"no block is called {first!r}{near(first, list(self._blocks))}",
                    where=f"{kind} {name}",
                    remedy=f"with several blocks a {kind} is called block:{kind}",
                )
        block = self._blocks[first]
        own = block.check_probe(own) if kind == "probe" else block.check_source(own)
        return f"{first}:{own}" if first else own, block, own

    def _supervised(self, generator: ProcessGenerator, name: str) -> ProcessGenerator:
        """The generator itself, but that it cannot stand still, nor yield what is no event."""
        send: Callable[[Any], Event] = generator.send
        argument: Any = None
        while True:
            self._turns[name] += 1
            if self._turns[name] > self._most_at_once:
                raise self._stuck(self._turns[name])
            try:
                event = send(argument)
            except StopIteration as end:
                return end.value
            if not isinstance(event, Event) or event.env is not self:
                argument, send = _no_event(event), generator.throw
                continue
            try:
                argument, send = (yield event), generator.send
            except BaseException as error:
                # SimPy throws a copy, which has lost what is not in its arguments.
                argument, send = error.__cause__ or error, generator.throw

    def _named(self, error: Exception, event: Event | None) -> Exception:
        """The error that ends the run, for one that failed an event: a process is named."""
        if not isinstance(event, NamedProcess):
            return error
        if not isinstance(error, SpicennError):
            said = f": {error}" if str(error) else ""
            where = f"process {event.name}, {self._when()}"
            return CosimulationError(f"raised {type(error).__name__}{said}", where=where)
        where = f"process {event.name}"
        if error.where:
            where = f"{where}, {error.where}"
        if "t = " not in where:
            where = f"{where}, {self._when()}"
        return type(error)(error.what, where=where, remedy=error.remedy)

    def _stuck(self, events: int) -> CosimulationError:
        busy = ", ".join(name for name, _ in self._turns.most_common(4)) or "no process"
        return CosimulationError(
            f"{events} events and no time has passed; most active: {busy}",
            where=self._when(),
            remedy="let a process wait: yield env.timeout(t) with t > 0, or env.crossing(…)",
        )

    def _check_waiting(self) -> None:
        """Raise CosimulationError where someone waits for what cannot come."""
        waits = [(crossing, f"{crossing}") for crossing in self._held.values()]
        waits += [
            (got, f"a spike of {node}")
            for node, _, store in self._monitors.values()
            for got in store.get_queue
        ]
        if waits:
            who = [f"{', '.join(_waiting(event)) or 'run'} for {what}" for event, what in waits[:4]]
            raise CosimulationError(
                f"nothing is scheduled, and processes wait: {'; '.join(who)}",
                where=self._when(),
                remedy="say for how long: env.run(until=…), or env.crossing(…, within=…)",
            )
        if self._until is not None and not self._until.triggered:
            raise CosimulationError(
                "nothing is left to be done, and the event to run until has not happened",
                where=self._when(),
            )

    def _go_on_past(self, until: Event | None) -> None:
        """A run that failed before its end does not end the next one there."""
        if until is not None and until.callbacks and StopSimulation.callback in until.callbacks:
            until.callbacks.remove(StopSimulation.callback)
        if isinstance(until, Moment):
            self._queue[:] = [entry for entry in self._queue if entry[3] is not until]
            heapq.heapify(self._queue)

    def _when(self) -> str:
        return f"t = {self.now:.6g} s"

    def _note(
        self, kind: str, name: str, value: float, fields: Mapping[str, float] = _NO_FIELDS
    ) -> None:
        process = self.active_process
        by = process.name if process is not None else ""
        self._happenings.append(Happening(self.now, kind, name, value, by, fields))

    def _show(self, time: float) -> None:
        if self.progress is not None and monotonic() - self._shown > _INTERVAL:
            self._shown = monotonic()
            self.progress(time, len(self._happenings))


def _no_event(value: Any) -> InputError:
    said = "an event of another environment" if isinstance(value, Event) else repr(value)[:80]
    return InputError(
        f"yielded {said}",
        remedy="yield an event of this co-simulation: env.timeout(…), env.crossing(…)",
    )


def _waiting(event: Event) -> Iterator[str]:
    """Names of the processes that wait for an event, or for a condition it belongs to."""
    for callback in event.callbacks or ():
        owner = getattr(callback, "__self__", None)
        if isinstance(owner, Process):
            yield owner.name
        elif isinstance(owner, Event) and owner is not event:
            yield from _waiting(owner)
