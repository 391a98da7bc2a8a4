"""Several tasks at once on a larger network, and what it keeps of one while it learns another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spicenn.learning.contrast import answers
from spicenn.learning.hardware import Hardware, LearningChip, ideal_chip, sample_chip, start_values
from spicenn.learning.memory import Learner, Memory, recall, solve, task_errors, train
from spicenn.learning.network import Network
from spicenn.learning.rules import Rule
from spicenn.learning.task import Task
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]

# Error below which tasks count as solved [V^2]: a microvolt.
_SOLVED = 1e-12
_DRAWS = 100
KINDS = ("then", "learnt", "idle")
# Of B's error at the begin: what counts as learnt.
_LEARNT = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """Two tasks that one network can do at once, the values it begins with, and those that do.

    draws : pairs of tasks that were looked at.
    """

    tasks: tuple[Task, Task]
    start: Array
    solved: Array
    draws: int


def draw_lesson(
    network: Network, *, seed: int, examples: int, inputs: tuple[float, float],
    rails: tuple[float, ...], begin: tuple[float, float], teacher: tuple[float, float],
    least: float,
) -> Lesson:  # fmt: skip
    """Draw two tasks until both are new to the network and it can do both from its begin.

    Labels are the answers of a network of the same graph whose values are drawn: some values
    do all. That they can be reached from the begin is looked at without bias or rule.

    Parameters
    ----------
    inputs : range that the first inputs are drawn from [V]; the last are at the rails.
    begin, teacher : ranges of the values.
    least : error of either task before it is learnt [V^2].
    """
    chip = ideal_chip(network)
    start = start_values(network, *begin, seed=seed)
    for draw in range(_DRAWS):
        rng = generator(seed, Purpose.TRAINING, trial=draw)
        values = rng.uniform(*teacher, len(network.learning))
        driven = rng.uniform(*inputs, (2 * examples, len(network.inputs) - len(rails)))
        shown = np.hstack([driven, np.broadcast_to(rails, (2 * examples, len(rails)))])
        labels = answers(chip, values[None], shown)
        tasks = (
            Task(shown[:examples], labels[:examples]), Task(shown[examples:], labels[examples:])
        )  # fmt: skip
        if task_errors(chip, start, tasks).min() < least:
            continue
        solved = solve(chip, tasks, start)
        if solved.error.max() < _SOLVED:
            return Lesson(tasks=tasks, start=start, solved=solved.values, draws=draw + 1)
    raise RuntimeError(f"seed {seed}: no pair of {_DRAWS} will do")


def arms(
    network: Network, hardware: Hardware, standard: Rule, overclamped: Rule, seed: int
) -> dict[str, tuple[LearningChip, Rule]]:
    """Both rules on the manufactured chip, and on the same chip without its bias."""
    chip = sample_chip(network, hardware, chip=0, seed=seed)
    free = replace(chip, bias=np.zeros_like(chip.bias))
    return {
        "standard, no bias": (free, standard), "overclamped, no bias": (free, overclamped),
        "standard": (chip, standard), "overclamped": (chip, overclamped),
    }  # fmt: skip


def taught(
    learner: Learner, lesson: Lesson, chip: LearningChip, rule: Rule, *, slot: float,
    passes: tuple[int, int, int],
) -> dict[str, Any]:  # fmt: skip
    """Both tasks at once; A and then B; B alone of a network that can do both, or has learnt it.

    passes : at once, of A alone, of B alone.
    """
    a, b = lesson.tasks
    both = train(learner, chip, [a, b], rule, lesson.start, slot=slot, passes=passes[0])
    first = train(learner, chip, [a], rule, lesson.start, slot=slot, passes=passes[1])
    then, idle, learnt = (
        recall(
            learner, chip, [a], [b], rule, values, untrained=lesson.start, slot=slot,
            passes=passes[2],
        )
        for values in (first.values, lesson.solved, both.values)
    )  # fmt: skip
    runs = (both, first, then.training, idle.training, learnt.training)
    return {
        "at once": both.floor().tolist(),
        "at once, untrained": both.error[:, 0].tolist(),
        "at once, by pass": both.by_pass.mean(axis=0).tolist(),
        "at once, effective time": float(both.effective[-1]),
        "A": float(first.floor()[0]),
        "A, untrained": float(first.error[0, 0]),
        "then": _record(then),
        "idle": _record(idle),
        "learnt": _record(learnt),
        "aborts": sum(len(each.trajectory.aborts) for each in runs),
        "runtime": sum(each.trajectory.runtime for each in runs),
    }


def _record(memory: Memory) -> dict[str, Any]:
    training = memory.training
    steps = training.trajectory.values - training.trajectory.values[0]
    b = training.error[1]
    # Until then values move because they learn; what moves them later teaches nothing.
    new = np.flatnonzero(b < _LEARNT * b[0])
    return {
        "time": memory.time.tolist(),
        "forgotten": memory.forgotten[0].tolist(),
        "B": b.tolist(),
        "forgotten when B was learnt": float(memory.forgotten[0, new[0]]) if new.size else None,
        "effective time": float(training.effective[-1]),
        "moved": float(np.linalg.norm(steps[-1])),
    }


def names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Arms that rows hold."""
    return [name for name in rows[0] if name not in ("seed", "draws")]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Medians over seeds with their intervals, and on how many an arm forgot less than standard."""
    table: dict[str, Any] = {}
    for name in names(rows):
        own = [row[name] for row in rows]
        learnt = [each["then"]["forgotten when B was learnt"] for each in own]
        known = [x for x in learnt if x is not None]
        table[name] = {
            "at once": median([float(np.mean(each["at once"])) for each in own]),
            "forgotten when B was learnt": median(known) if known else None,
            "B was learnt": len(known),
            "forgotten": {
                kind: median([each[kind]["forgotten"][-1] for each in own]) for kind in KINDS
            },
            "less than standard": {
                kind: sum(
                    abs(row[name][kind]["forgotten"][-1])
                    < abs(row["standard"][kind]["forgotten"][-1]) for row in rows
                ) for kind in KINDS
            },
            "moved": {kind: median([each[kind]["moved"] for each in own]) for kind in KINDS},
            "effective time": {
                kind: median([each[kind]["effective time"] for each in own]) for kind in KINDS
            },
            "aborts": sum(each["aborts"] for each in own),
        }  # fmt: skip
    return table


def median(values: Sequence[float]) -> list[float]:
    """Median and its interval of at least 95 % by order statistics, where there are so many.

    What is forgotten spans decades, and no mean of it means much. Of fewer than six values the
    interval is all there are.
    """
    found = np.sort(values)
    rank = max(int(stats.binom.ppf(0.025, len(found), 0.5)), 1)
    return [float(np.median(found)), float(found[rank - 1]), float(found[-rank])]
