"""Learning inside the circuit: twin networks, clamps and updates in transients of ngspice.

Only gates remember anything, so that a transient can be ended at any slot and another begun
from its gates: that is how a long run shows progress, is resumed, and goes on where ngspice
gave a transient up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Tolerances
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import (
    ConvergenceError,
    EngineError,
    InputError,
    SimulationTimeout,
    SingularMatrixError,
)
from spicenn.learning.contrast import value_per_volt
from spicenn.learning.disturbance import Disturbance, draw_with_before, is_disturbed
from spicenn.learning.hardware import LearningChip
from spicenn.learning.netlist import LEARNING_TOLERANCES, learning_netlist
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task
from spicenn.learning.trajectory import Abort, Trajectory, joined

Array = NDArray[np.float64]

# One transient: its points are in memory, and its progress is not seen. Some seconds of work.
_MOST_AT_ONCE = 1000
_EDGES_AT_ONCE = 10_000
# One whose sources are told slot by slot: they are read from their begin at every step.
_MOST_DRAWN = 100
_ABORTED_AT = re.compile(r"\btime = ([-+.\de]+)")


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a transient is integrated.

    method : ``gear`` or ``trap``.
    steps : per slot, at least.
    tolerances : of every step.
    klu : whether KLU solves the equations; None leaves it to the network's size.
    nodes : factor of the nodes' capacitance.
    """

    method: str = "gear"
    steps: int = 8
    tolerances: Tolerances = LEARNING_TOLERANCES
    klu: bool | None = None
    nodes: float = 1.0

    def __str__(self) -> str:
        words = [self.method, f"{self.steps} steps a slot", f"reltol {self.tolerances.reltol:g}"]
        if self.klu is not None:
            words.append("KLU" if self.klu else "Sparse")
        if self.nodes != 1:
            words.append(f"{self.nodes:g} times the nodes' capacitance")
        return ", ".join(words)


def netlist_for(
    solver: Solver,
    chip: LearningChip,
    values: Array,
    task: Task,
    schedule: Schedule,
    rule: Rule,
    *,
    slots: int,
    first_slot: int,
    disturbance: Disturbance | None,
) -> str:
    """Return the ``learning_netlist`` of a solver's settings."""
    nodes = chip.hardware.node_capacitance * solver.nodes
    return learning_netlist(
        replace(chip, hardware=replace(chip.hardware, node_capacitance=nodes)),
        values, task, schedule, rule, slots=slots, first_slot=first_slot, method=solver.method,
        max_step=schedule.slot / solver.steps, tolerances=solver.tolerances, klu=solver.klu,
        disturbance=disturbance,
    )  # fmt: skip


# What a slot that ngspice gives up is tried with next, one after the other. The first ones
# change nothing but the way to the same solution.
_LOOSE = replace(LEARNING_TOLERANCES, reltol=1e-5, vntol=1e-8)
_RETRIES = (
    Solver(klu=True),
    Solver(klu=False, steps=100),
    Solver(klu=False, method="trap"),
    Solver(klu=False, nodes=10.0),
    Solver(klu=False, nodes=100.0),
    Solver(klu=False, nodes=10.0, steps=1000, tolerances=_LOOSE),
    Solver(klu=False, nodes=100.0, steps=1000, tolerances=_LOOSE, method="trap"),
)


def learn_in_circuit(
    engine: NgspiceEngine,
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: Array,
    *,
    slots: int,
    first_slot: int = 0,
    solver: Solver | None = None,
    slots_at_once: int | None = None,
    seed: int | None = None,
    trial: int = 0,
    progress: Callable[[Trajectory], None] | None = None,
) -> Trajectory:
    """Let a chip learn by itself.

    Parameters
    ----------
    values : (value,) with which it begins [V], [S].
    slots : for how many of the schedule's.
    first_slot : number of the first one, where an earlier run ended.
    slots_at_once : in one transient.
    seed, trial : of noise, and of edges that take part at random; see ``disturbance``.
    progress : called with the part that each transient has added.

    A transient that ngspice gives up ("timestep too small") is run again to the slot in
    which that happened; that slot is tried with other settings of the solver, and the result
    lists each. Where none helps, ``progress`` has had all slots before it.

    Raises InputError for arguments that do not fit, ConvergenceError where a slot has no
    solution with any settings, and what ``NgspiceEngine.run`` raises.
    """
    task.check(chip.network)
    schedule.check(task)
    if slots_at_once is None:
        drawn_each = is_disturbed(chip, rule) or len(schedule.order) > _MOST_DRAWN
        most = _MOST_DRAWN if drawn_each else _MOST_AT_ONCE
        slots_at_once = max(1, min(most, _EDGES_AT_ONCE // len(chip.network.edges)))
    if slots < 1 or slots_at_once < 1 or first_slot < 0:
        raise InputError(
            f"slots = {slots!r}, {slots_at_once!r} at once, from slot {first_slot!r}",
            where="learn_in_circuit",
        )
    solver = solver or Solver()
    parts: list[Trajectory] = []
    now, done = np.asarray(values, dtype=np.float64), 0
    while done < slots:
        count, first = min(slots_at_once, slots - done), first_slot + done
        drawn = draw_with_before(
            chip, rule, schedule.slot, slots=count, first_slot=first, seed=seed, trial=trial
        )
        twins = _Twins(engine, chip, task, rule, schedule, drawn)
        for part in _parts(twins, now, count, first, solver):
            parts.append(part)
            now, done = part.values[-1], done + len(part.examples)
            if progress is not None:
                progress(part)
    return joined(parts)


@dataclass(frozen=True, eq=False)
class _Twins:
    """What is simulated, and by what."""

    engine: NgspiceEngine
    chip: LearningChip
    task: Task
    rule: Rule
    schedule: Schedule
    disturbance: Disturbance | None


def _parts(
    twins: _Twins, values: Array, slots: int, first_slot: int, solver: Solver
) -> Iterator[Trajectory]:
    """Simulate so many slots: one part, or as many as ngspice can be made to do."""
    done, count = 0, slots
    while done < slots:
        try:
            part = _simulate(twins, values, count, first_slot + done, solver)
        except (ConvergenceError, SingularMatrixError, SimulationTimeout) as error:
            whole = _whole_slots(error, twins.schedule.slot, count)
            if whole:
                count = whole
                continue
            if isinstance(error, SimulationTimeout):
                raise
            part = _retried(twins, values, first_slot + done, error)
        yield part
        values, done = part.values[-1], done + len(part.examples)
        count = slots - done


def _whole_slots(error: EngineError, slot: float, count: int) -> int:
    """How many of the slots of an aborted transient had come to their end."""
    at = _ABORTED_AT.search(error.what)
    if at is None:
        return count // 2
    return min(int(float(at[1]) / slot), count - 1)


def _retried(twins: _Twins, values: Array, slot: int, error: EngineError) -> Trajectory:
    """One slot, with other settings than those that an error is of."""
    for number, retry in enumerate(_RETRIES, 1):
        try:
            part = _simulate(twins, values, 1, slot, retry)
        except (ConvergenceError, SingularMatrixError, SimulationTimeout):
            continue
        return replace(part, aborts=(Abort(slot, error.what, number, str(retry)),))
    raise ConvergenceError(
        f"slot {slot} of the schedule: {error.what}", where="learn_in_circuit",
        remedy="smooth the rule's sign, keep gates above the threshold (gate_low), give nodes "
        "more capacitance, or nudge by less than the network's own conductance",
    ) from error  # fmt: skip


def _simulate(
    twins: _Twins, values: Array, slots: int, first_slot: int, solver: Solver
) -> Trajectory:
    start = perf_counter()
    chip, schedule, network = twins.chip, twins.schedule, twins.chip.network
    text = netlist_for(
        solver, chip, values, twins.task, schedule, twins.rule, slots=slots,
        first_slot=first_slot, disturbance=twins.disturbance,
    )  # fmt: skip
    gates = [f"v(g_{k})" for k in network.learning]
    outputs = [f"v(a_{name})" for name in network.outputs]
    found = twins.engine.run(text, ["time", *gates, *outputs])
    # Slots end at corners of the waveforms, where a transient stops: nothing is interpolated.
    ends = schedule.slot * np.arange(slots + 1)
    at_ends = np.stack([np.interp(ends, found["time"], found[name]) for name in gates], axis=1)
    after = at_ends[1:] * value_per_volt(chip)
    return Trajectory(
        first_slot=first_slot,
        slot=schedule.slot,
        values=np.vstack([values, after]),
        examples=schedule.examples(slots, first_slot),
        outputs=np.stack(
            [np.interp(ends[1:], found["time"], found[name]) for name in outputs], axis=1
        ),
        runtime=perf_counter() - start,
        engine=twins.engine.name,
    )
