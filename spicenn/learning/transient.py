"""Learning inside the circuit: twin networks, clamps and updates in transients of ngspice.

Only gates remember anything, so that a transient can be ended at any slot and another begun
from its gates: that is how a long run shows progress, is resumed, and goes on where ngspice
gave a transient up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Tolerances
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import ConvergenceError, InputError, SingularMatrixError
from spicenn.learning.contrast import value_per_volt
from spicenn.learning.disturbance import Disturbance, draw_disturbance, is_disturbed
from spicenn.learning.hardware import LearningChip
from spicenn.learning.netlist import LEARNING_TOLERANCES, learning_netlist
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task
from spicenn.learning.trajectory import Abort, Trajectory, joined

Array = NDArray[np.float64]

# One transient: its points are in memory, and its progress is not seen.
_SLOTS_AT_ONCE = 1000
# One whose sources are told slot by slot: they are read from their begin at every step.
_SLOTS_DRAWN = 100


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How a transient is integrated.

    method : ``gear`` or ``trap``.
    steps : per slot, at least.
    tolerances : of every step.
    """

    method: str = "gear"
    steps: int = 8
    tolerances: Tolerances = LEARNING_TOLERANCES


# What a slot that ngspice gives up is tried with next, one after the other.
_RETRIES = (
    Solver(method="trap"),
    Solver(steps=200),
    Solver(steps=1000, tolerances=replace(LEARNING_TOLERANCES, reltol=1e-5, vntol=1e-8)),
    Solver(
        steps=1000, method="trap", tolerances=replace(LEARNING_TOLERANCES, reltol=1e-4, vntol=1e-7)
    ),
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

    A transient that ngspice gives up ("timestep too small") is taken apart until the slot is
    found, which is tried with other settings of the solver; the result lists each.

    Raises InputError for arguments that do not fit, ConvergenceError where a slot has no
    solution with any settings, and what ``NgspiceEngine.run`` raises.
    """
    task.check(chip.network)
    schedule.check(task)
    disturbed = is_disturbed(chip, rule)
    if slots_at_once is None:
        long = disturbed or len(schedule.order) > _SLOTS_DRAWN
        slots_at_once = _SLOTS_DRAWN if long else _SLOTS_AT_ONCE
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
        before = min(first, 1)
        drawn = None if not disturbed else draw_disturbance(
            chip, rule, schedule.slot, slots=count + before, first_slot=first - before,
            seed=seed, trial=trial,
        )  # fmt: skip
        twins = _Twins(engine, chip, task, rule, schedule, drawn)
        part = _run(twins, now, count, first, solver)
        parts.append(part)
        now, done = part.values[-1], done + count
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


def _run(twins: _Twins, values: Array, slots: int, first_slot: int, solver: Solver) -> Trajectory:
    try:
        return _simulate(twins, values, slots, first_slot, solver)
    except (ConvergenceError, SingularMatrixError) as error:
        if slots > 1:
            half = slots // 2
            first = _run(twins, values, half, first_slot, solver)
            second = _run(twins, first.values[-1], slots - half, first_slot + half, solver)
            return joined([first, second])
        for number, retry in enumerate(_RETRIES, 1):
            try:
                part = _simulate(twins, values, 1, first_slot, retry)
            except (ConvergenceError, SingularMatrixError):
                continue
            return replace(part, aborts=(Abort(first_slot, error.what, number),))
        raise ConvergenceError(
            f"slot {first_slot} of the schedule: {error.what}", where="learn_in_circuit",
            remedy="smooth the rule's sign, or give the transient smaller steps",
        ) from error  # fmt: skip


def _simulate(
    twins: _Twins, values: Array, slots: int, first_slot: int, solver: Solver
) -> Trajectory:
    start = perf_counter()
    chip, schedule, network = twins.chip, twins.schedule, twins.chip.network
    text = learning_netlist(
        chip, values, twins.task, schedule, twins.rule, slots=slots, first_slot=first_slot,
        method=solver.method, max_step=schedule.slot / solver.steps, tolerances=solver.tolerances,
        disturbance=twins.disturbance,
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
