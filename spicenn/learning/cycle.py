"""The limit cycle in which learning ends: found, closed to a tolerance, and measured.

One period of a schedule maps values to values, and a cycle is where it leaves them. Running
on gets there as slowly as the rule learns; where the rule has a linear law (``linear``), its
derivative of the map gives Newton's step instead, and few periods do. What says that it is a
cycle is always the learner itself: a period of the circuit that ends where it began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.contrast import mean_square_error, value_per_volt, value_range
from spicenn.learning.hardware import LearningChip
from spicenn.learning.linear import has_linear_law, linearise, span
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task
from spicenn.learning.trajectory import Trajectory

Array = NDArray[np.float64]

# As close to its range's end a capacitor is held by it: a thousand times what the clamp gives.
_AT_LIMIT = 1e-4  # V
# Directions in which a period pulls less than this of the strongest are not pulled at all.
_NEUTRAL = 1e-9
# Plain periods after a step that led away.
_PATIENCE = 4


class Learner(Protocol):
    """Whatever learns: ``learn_in_model``, or ``partial(learn_in_circuit, engine)``."""

    def __call__(
        self,
        chip: LearningChip,
        task: Task,
        rule: Rule,
        schedule: Schedule,
        values: Array,
        /,
        *,
        slots: int,
    ) -> Trajectory:
        """Return how so many slots go."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LimitCycle:
    """One period of a cycle.

    start : (value,) with which it begins.
    ends : (slot, value) at the end of every slot; the last is ``start`` to within ``closed``.
    path : (point, value) through it, from the start on; ``time`` (point,) [s].
    closed : distance of its end and its start.
    away : estimated distance of its start from that of the exact cycle: what a period misses,
        over what a period pulls.
    contraction : what a period leaves of the slowest deviation, by the rule's linear law;
        above 1 the cycle repels. NaN of a rule without one.
    periods : that were run to find it.
    engine : that ran them.
    """

    start: Array
    ends: Array
    path: Array
    time: Array
    closed: float
    away: float
    contraction: float
    periods: int
    engine: str

    @property
    def span(self) -> float:
        """D: largest distance of two values at ends of slots [V]."""
        return span(self.ends)

    def squared_error(self, chip: LearningChip, task: Task) -> float:
        """Mean over examples and ends of slots of the squared error [V^2]."""
        return float(mean_square_error(chip, self.ends, task).mean())

    def mean(self) -> Array:
        """(value,) mean over time."""
        middles = (self.path[1:] + self.path[:-1]) / 2
        return np.asarray(np.average(middles, axis=0, weights=np.diff(self.time)))


def find_cycle(
    learner: Learner,
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: Array,
    *,
    tolerance: float = 1e-3,
    floor: float = 1e-6,
    periods: int = 200,
    points: int = 32,
    accelerate: bool = True,
) -> LimitCycle:
    """Run periods until one ends where it began.

    Parameters
    ----------
    values : (value,) to begin with; the linear theory's cycle saves most periods.
    tolerance : distance from the cycle, over its span D, at which it counts as found.
    floor : distance that counts as none [V]: of a cycle that is a point.
    periods : to run at most.
    points : of the path in every slot.
    accelerate : by Newton's step with the linear law's derivative of a period, where the rule
        has one. Off, or without one, the chip just goes on learning, and the distance is
        estimated from how fast the misses fall.

    Raises InputError for arguments out of range, ConvergenceError where no cycle is found,
    and what the learner raises.
    """
    if not (tolerance > 0 and floor > 0 and periods >= 1 and points >= 1):
        raise InputError(
            f"tolerance = {tolerance!r}, floor = {floor!r}, periods = {periods!r}, "
            f"points = {points!r}", where="find_cycle",
        )  # fmt: skip
    newton = accelerate and has_linear_law(rule)
    low, high = value_range(chip)
    now = np.clip(np.asarray(values, dtype=np.float64), low, high)
    before, wait, away = np.inf, 0, np.inf
    for count in range(1, periods + 1):
        run = learner(chip, task, rule, schedule, now, slots=len(schedule.order))
        miss = run.values[-1] - now
        closed, size = float(np.linalg.norm(miss)), span(run.values[1:])
        good = tolerance * size + floor
        contraction = np.nan
        if newton:
            step, contraction = _newton(chip, task, rule, schedule, run.values)
            away = float(np.linalg.norm(step))
        else:
            left = closed / before
            step, away = miss, closed / (1 - left) if left < 1 else np.inf
        if max(away, closed) <= good or closed == 0.0:
            path = learner(
                chip, task, rule, finer(schedule, points), now, slots=points * len(schedule.order)
            )
            return LimitCycle(
                start=now, ends=run.values[1:], path=path.values, time=path.time, closed=closed,
                away=away, contraction=contraction, periods=count, engine=run.engine,
            )  # fmt: skip
        if closed > before and newton:
            wait = _PATIENCE
        now = np.clip(now + step, low, high) if wait == 0 else run.values[-1]
        before, wait = closed, max(wait - 1, 0)
    raise ConvergenceError(
        f"after {periods} periods one still ends {closed:.1e} V from where it began",
        where="find_cycle",
        remedy="run more, or look whether a bias drives values where no example pulls",
    )


def period_derivative(
    chip: LearningChip, task: Task, rule: Rule, schedule: Schedule, values: Array
) -> Array:
    """Return (value, value) what a period makes of a small change of its start.

    The linear law is taken anew in the middle of every slot. A capacitor at its range's end
    after a slot counts as held there all through it.

    Parameters
    ----------
    values : (slot + 1, value) with which slots begin and end.

    Raises as ``linearise`` does.
    """
    low, high = value_range(chip)
    margin = _AT_LIMIT * value_per_volt(chip)
    found = np.eye(values.shape[1])
    for slot, example in enumerate(schedule.order):
        middle = (values[slot] + values[slot + 1]) / 2
        one = Task(task.inputs[[example]], task.labels[[example]])
        law = linearise(chip, one, rule, middle)
        # What its range holds does not remember where it came from.
        end = values[slot + 1]
        free = np.flatnonzero((end > low + margin) & (end < high - margin))
        matrix = law.pull[0] + np.diag(law.leak)
        step = np.zeros_like(matrix)
        step[np.ix_(free, free)] = expm(-matrix[np.ix_(free, free)] * schedule.slot)
        found = step @ found
    return np.asarray(found)


def finer(schedule: Schedule, points: int) -> Schedule:
    """Return the same schedule in slots so many times shorter: to see within slots."""
    return Schedule(
        np.repeat(schedule.order, points), schedule.slot / points,
        min(schedule.edge, schedule.slot / points / 2),
    )  # fmt: skip


def _newton(
    chip: LearningChip, task: Task, rule: Rule, schedule: Schedule, values: Array
) -> tuple[Array, float]:
    """Step of Newton's method to the start that a period leaves, and the contraction."""
    held = period_derivative(chip, task, rule, schedule, values)
    left = np.eye(len(held)) - held
    step = np.linalg.pinv(left, rcond=_NEUTRAL) @ (values[-1] - values[0])
    return step, float(np.abs(np.linalg.eigvals(held)).max())
