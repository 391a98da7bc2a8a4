"""Several tasks at once, and what a network keeps of a task while it is shown others.

A network with more values than its tasks have labels solves them by a whole manifold of
values. Whatever moves values along the manifold of the tasks that are shown, a bias above
all, is not seen in their errors, and undoes the tasks that are not shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

from spicenn.errors import InputError
from spicenn.learning.contrast import answers, value_per_volt, value_range
from spicenn.learning.hardware import LearningChip
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task, cyclic
from spicenn.learning.trajectory import Trajectory

Array = NDArray[np.float64]

# Of a capacitor, for the slopes of the answers [V].
_STEP = 1e-5


class Learner(Protocol):
    """What lets a chip learn: ``partial(learn_in_circuit, engine)``, or another engine."""

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
        first_slot: int,
    ) -> Trajectory:
        """Return how the values went in so many slots, from one on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Errors of tasks while a network learns some of them.

    trajectory : of the values.
    error : (task, slot + 1) mean squared error of every task with the values before the first
        slot and after each [V^2]: of the network as it would answer now, shown or not.
    effective : (slot + 1,) time for which the edges have moved, the duty's integral [s].
    examples : that one pass shows.
    """

    trajectory: Trajectory
    error: Array
    effective: Array
    examples: int

    @property
    def values(self) -> Array:
        """(value,) at the end [V], [S]."""
        return np.asarray(self.trajectory.values[-1])

    @property
    def by_pass(self) -> Array:
        """(task, pass) errors, averaged over the ends of the slots of each pass [V^2]."""
        tasks, ends = self.error.shape
        passes = (ends - 1) // self.examples
        kept = self.error[:, 1 : 1 + passes * self.examples]
        return np.asarray(kept.reshape(tasks, passes, self.examples).mean(axis=-1))

    def floor(self, passes: int = 1) -> Array:
        """(task,) errors of the last passes [V^2].

        Raises InputError for none, or more than there are.
        """
        found = self.by_pass
        if not 1 <= passes <= found.shape[1]:
            raise InputError(f"{passes!r} of {found.shape[1]} passes", where="floor")
        return np.asarray(found[:, -passes:].mean(axis=1))

    def moved(self, passes: int = 1) -> float:
        """Distance of the values from what they were so many passes before the end [V], [S].

        Raises InputError for none, or more than there are.
        """
        back = passes * self.examples
        if not 1 <= back < len(self.trajectory.values):
            raise InputError(f"{passes!r} passes are not there", where="moved")
        return float(np.linalg.norm(self.values - self.trajectory.values[-1 - back]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """What is left of earlier tasks while others are learnt.

    training : on the later tasks; its errors are of the earlier ones, then of the later ones.
    earlier : how many are earlier.
    untrained, trained : (task,) errors of the earlier ones, without training and at the
        begin [V^2].
    """

    training: Training
    earlier: int
    untrained: Array
    trained: Array

    @property
    def time(self) -> Array:
        """(slot + 1,) since the earlier tasks are not shown any more [s]."""
        found = self.training.trajectory.time
        return np.asarray(found - found[0])

    @property
    def forgotten(self) -> Array:
        """(task, slot + 1) 0 as trained, 1 as untrained; more where it is worse than that."""
        gone = self.training.error[: self.earlier] - self.trained[:, None]
        return np.asarray(gone / (self.untrained - self.trained)[:, None])


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Values (value,) with the least error that was found, and every task's (task,) [V^2]."""

    values: Array
    error: Array


def together(tasks: Sequence[Task]) -> Task:
    """Return one task with the examples of all, one task's after the other's.

    Raises InputError for none, or tasks of different networks.
    """
    if not tasks:
        raise InputError("there is no task", where="together")
    shapes = {(task.inputs.shape[1], task.labels.shape[1]) for task in tasks}
    if len(shapes) > 1:
        raise InputError(f"tasks of {sorted(shapes)} inputs and outputs", where="together")
    return Task(
        np.concatenate([task.inputs for task in tasks]),
        np.concatenate([task.labels for task in tasks]),
    )


def alone(task: Task) -> list[Task]:
    """Return every example as a task of its own."""
    return [
        Task(x[None], y[None]) for x, y in zip(task.inputs, task.labels, strict=True)
    ]  # fmt: skip


def task_errors(chip: LearningChip, values: Array, tasks: Sequence[Task]) -> Array:
    """(task, …) mean squared error of every task for values (…, value) [V^2]."""
    every = together(tasks).check(chip.network)
    return _errors(tasks, answers(chip, np.asarray(values)[..., None, :], every.inputs))


def train(
    learner: Learner,
    chip: LearningChip,
    tasks: Sequence[Task],
    rule: Rule,
    values: Array,
    *,
    slot: float,
    passes: int,
    first_slot: int = 0,
    watched: Sequence[Task] = (),
) -> Training:
    """Have a chip learn tasks at once: all their examples, one after the other, again and again.

    Parameters
    ----------
    values : (value,) with which it begins [V], [S].
    slot : for how long each example is shown [s].
    passes : how often.
    watched : further tasks, whose errors are measured, before those of the tasks shown.

    The effective time is of the duty at both ends of every slot, without the comparators'
    noise. Raises InputError for arguments that do not fit, and what the learner raises.
    """
    if passes < 1 or not slot > 0:
        raise InputError(f"{passes!r} passes of slots of {slot!r} s", where="train")
    shown = together(tasks)
    run = learner(
        chip, shown, rule, cyclic(shown, slot * len(shown)), np.asarray(values, dtype=np.float64),
        slots=passes * len(shown), first_slot=first_slot,
    )  # fmt: skip
    measured = [*watched, *tasks]
    every = together(measured)
    found = answers(chip, run.values[:, None, :], every.inputs)
    of_shown = found[:, len(every) - len(shown) :]
    labels = shown.labels + chip.output_offset
    number = np.arange(len(run.examples))
    duty = [
        rule.duty(of_shown[number + late, run.examples], labels[run.examples]) for late in (0, 1)
    ]
    moved = run.slot * (duty[0] + duty[1]) / 2
    return Training(
        trajectory=run,
        error=_errors(measured, found),
        effective=np.concatenate([[0.0], np.cumsum(moved)]),
        examples=len(shown),
    )


def recall(
    learner: Learner,
    chip: LearningChip,
    earlier: Sequence[Task],
    later: Sequence[Task],
    rule: Rule,
    values: Array,
    *,
    untrained: Array,
    slot: float,
    passes: int,
    first_slot: int = 0,
) -> Memory:
    """Measure what is left of earlier tasks while a chip is shown only the later ones.

    Parameters
    ----------
    values : (value,) that the chip has learnt the earlier tasks with, ``Training.values``.
    untrained : (value,) what it began with.

    Others and errors as of ``train``. Raises InputError where the training has not made an
    earlier task better: nothing could be forgotten.
    """
    before, after = (task_errors(chip, np.asarray(v), earlier) for v in (untrained, values))
    if not (after < before).all():
        worst = int(np.argmax(after / before))
        raise InputError(
            f"earlier task {worst} has an error of {after[worst]:.3g} V² trained and of "
            f"{before[worst]:.3g} V² untrained", where="recall",
        )  # fmt: skip
    training = train(
        learner, chip, later, rule, values, slot=slot, passes=passes, first_slot=first_slot,
        watched=earlier,
    )  # fmt: skip
    return Memory(training=training, earlier=len(earlier), untrained=before, trained=after)


def solve(chip: LearningChip, tasks: Sequence[Task], values: ArrayLike) -> Solution:
    """Find values near some that do all tasks at once, by least squares on exact answers.

    No rule and no bias have a part in it: what this cannot reach from a begin, a network
    cannot be blamed for not learning from there.

    Parameters
    ----------
    values : (value,) to begin with [V], [S], within the chip's range.

    Raises InputError for values out of range.
    """
    every = together(tasks).check(chip.network)
    per_volt = value_per_volt(chip)
    low, high = (v / per_volt for v in value_range(chip))
    begin = np.asarray(values, dtype=np.float64) / per_volt
    if begin.shape != per_volt.shape or not ((begin >= low) & (begin <= high)).all():
        raise InputError("the values are not of this chip, or out of its range", where="solve")
    size = len(begin)

    def residual(volts: Array) -> Array:
        return (answers(chip, (volts * per_volt)[None], every.inputs) - every.labels).ravel()

    def slopes(volts: Array) -> Array:
        moved = volts + _STEP * np.concatenate([np.eye(size), -np.eye(size)])
        found = answers(chip, (moved * per_volt)[:, None], every.inputs).reshape(2 * size, -1)
        return np.asarray((found[:size] - found[size:]).T / (2 * _STEP))

    # Strictly within its bounds is where the method can begin.
    inside = np.clip(begin, low + _STEP, high - _STEP)
    found = least_squares(
        residual, inside, slopes, bounds=(low, high), xtol=1e-12, ftol=1e-12, gtol=1e-14,
        max_nfev=200,
    )  # fmt: skip
    best = np.asarray(found.x) * per_volt
    return Solution(values=best, error=task_errors(chip, best, tasks))


def _errors(tasks: Sequence[Task], found: Array) -> Array:
    """(task, …) mean squared errors of answers (…, example, output) to all their examples."""
    ends = np.cumsum([0, *(len(task) for task in tasks)])
    return np.stack([
        ((found[..., a:b, :] - task.labels) ** 2).mean(axis=(-1, -2))
        for task, a, b in zip(tasks, ends[:-1], ends[1:], strict=True)
    ])  # fmt: skip
