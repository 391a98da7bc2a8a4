"""Floors of the error of several tasks at once: standard, overclamped, each half, and what ends it.

Every function takes any chip, tasks, rule and slot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spicenn.errors import SpicennError
from spicenn.learning.hardware import Hardware, LearningChip, sample_chip, start_values
from spicenn.learning.margin import bias_margin, growth
from spicenn.learning.memory import Learner, Training, solve, task_errors, train
from spicenn.learning.rules import Overclamping, Rule
from spicenn.learning.task import Task
from spicenn.learning.trajectory import joined

Array = NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What is kept the same: tasks, the values that a chip begins with, how long a slot is."""

    learner: Learner
    tasks: Sequence[Task]
    start: Array
    slot: float

    @property
    def period(self) -> float:
        """Of all tasks, tau [s]."""
        return self.slot * sum(len(task) for task in self.tasks)


def record(training: Training) -> dict[str, Any]:
    """Floor of a run, whether it has settled, and how long it took."""
    by_pass = training.by_pass.mean(axis=0)
    run = training.trajectory
    return {
        "floor": float(training.floor().mean()),
        "floor by task": training.floor().tolist(),
        # 1 where it has settled: the error of half as many passes over the last one's.
        "at half": float(by_pass[len(by_pass) // 2]),
        "moved in the last pass": training.moved(),
        "effective time": float(training.effective[-1]),
        "time": float(run.time[-1] - run.time[0]),
        "passes": len(by_pass),
        "values": training.values.tolist(),
        "aborts": len(run.aborts),
        "runtime": run.runtime,
    }


def floor(
    bench: Bench, chip: LearningChip, rule: Rule, passes: int, **where: Any
) -> dict[str, Any]:
    """Train and keep the floor; ``where`` goes into the record. A failed run says so."""
    try:
        training = train(
            bench.learner, chip, bench.tasks, rule, bench.start, slot=bench.slot, passes=passes
        )
    except SpicennError as error:
        return {**where, "failed": str(error)}
    return {**where, "period": bench.period, **record(training)}


def noisy(
    learners: Sequence[Learner], bench: Bench, chip: LearningChip, rule: Rule, passes: int,
    last: int,
) -> dict[str, Any]:  # fmt: skip
    """Mean floor of the last passes over trials, one learner each, and its interval."""
    found = [
        float(
            train(learner, chip, bench.tasks, rule, bench.start, slot=bench.slot, passes=passes)
            .floor(last).mean()
        )
        for learner in learners
    ]  # fmt: skip
    mean = float(np.mean(found))
    half = 0.0
    if len(found) > 1:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(found) - 1) * stats.sem(found))
    return {"floor": mean, "low": mean - half, "high": mean + half, "trials": len(found)}


def until_effective(
    bench: Bench, chip: LearningChip, rule: Rule, effective: float, *, passes: int, most: int
) -> Training:
    """Train so many passes at a time until the edges have moved for an effective time [s]."""
    parts = [
        train(bench.learner, chip, bench.tasks, rule, bench.start, slot=bench.slot, passes=passes)
    ]
    while parts[-1].effective[-1] < effective and len(parts) * passes < most:
        last = parts[-1]
        more = train(
            bench.learner, chip, bench.tasks, rule, last.values, slot=bench.slot, passes=passes,
            first_slot=last.trajectory.first_slot + len(last.trajectory.examples),
        )  # fmt: skip
        parts.append(replace(more, effective=more.effective + last.effective[-1]))
    return Training(
        trajectory=joined([part.trajectory for part in parts]),
        error=np.hstack([parts[0].error, *(part.error[:, 1:] for part in parts[1:])]),
        effective=np.hstack([parts[0].effective, *(part.effective[1:] for part in parts[1:])]),
        examples=parts[0].examples,
    )


def with_bias(chip: LearningChip, multiple: float) -> LearningChip:
    """The same chip with its bias multiplied."""
    return replace(chip, bias=chip.bias * multiple)


def with_hardware(chip: LearningChip, **changes: float) -> LearningChip:
    """The same chip with leakage, offset or noise of the hardware's description."""
    found = replace(chip, hardware=replace(chip.hardware, **changes))
    if "leakage" in changes:
        found = replace(found, leakage=np.full_like(chip.leakage, changes["leakage"]))
    if "output_offset" in changes:
        found = replace(
            found, output_offset=np.full_like(chip.output_offset, changes["output_offset"])
        )
    return found


def breakdown(
    bench: Bench, chip: LearningChip, task: Task, rule: Overclamping, *, error: float,
    passes: int, bracket: tuple[float, float], steps: int, probes: Sequence[float],
) -> dict[str, Any]:  # fmt: skip
    """Find by how much the bias can be multiplied before small errors grow, in the circuit.

    A run begins where all tasks have an error of about ``error`` [V], in the direction in which
    theory has it grow fastest, and says whether the error of its last pass is above that of
    its middle one. Both are bisected; growth rates of further multiples are compared.
    """
    solved = solve(chip, bench.tasks, bench.start)

    def run(multiple: float) -> dict[str, float]:
        own = with_bias(chip, multiple)
        theory = growth(own, solved.values, task, rule)
        unit = 1e-4 * theory.direction
        size = math.sqrt(float(task_errors(own, solved.values + unit, bench.tasks).mean()))
        begin = solved.values + unit * (error / size)
        found = train(
            bench.learner, own, bench.tasks, rule, begin, slot=bench.slot, passes=passes
        ).by_pass.mean(axis=0)  # fmt: skip
        half = len(found) // 2
        time = (len(found) - 1 - half) * bench.period
        rate = 0.5 * math.log(found[-1] / found[half]) / time
        return {"multiple": multiple, "rate": rate, "theory": theory.rate}

    low, high = bracket
    tried = [run(low), run(high)]
    ends = [row["rate"] > 0 for row in tried]
    if ends == [False, True]:
        for _ in range(steps):
            middle = (low + high) / 2
            tried.append(run(middle))
            low, high = (low, middle) if tried[-1]["rate"] > 0 else (middle, high)
    tried += [run(multiple) for multiple in probes]
    return {
        "solved": solved.values.tolist(), "solved error": solved.error.tolist(),
        "withstands": low if not ends[0] else math.nan,
        "breaks": high if ends[1] else math.nan,
        "theory": bias_margin(chip, solved.values, task, rule),
        "runs": sorted(tried, key=lambda row: row["multiple"]),
    }  # fmt: skip


def sampled(
    bench: Bench, chip: LearningChip, hardware: Hardware, rules: dict[str, tuple[Rule, int]], *,
    chips: int, seed: int, begin: tuple[float, float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Floors of every rule, with so many passes, on manufactured chips of the same network."""
    rows = []
    for number in range(chips):
        own = sample_chip(chip.network, hardware, chip=number, seed=seed)
        start = start_values(chip.network, *begin, seed=seed, chip=number)
        placed = replace(bench, start=start)
        row: dict[str, Any] = {
            "chip": number,
            # What an output that the comparator takes for right is off by, squared.
            "offset squared": float((own.output_offset**2).mean()),
        }
        for name, (rule, passes) in rules.items():
            row[name] = floor(placed, own, rule, passes)
        rows.append(row)
    return rows


def compared(rows: list[dict[str, Any]], first: str, second: str) -> dict[str, Any]:
    """Share of chips on which the second rule's floor is lower, and the ratio of the floors.

    Clopper and Pearson's interval of the share; Student's of the mean logarithm of the ratio.
    Chips on which a run failed are counted as not lower, and have no ratio.
    """
    good = [row for row in rows if "floor" in row[first] and "floor" in row[second]]
    ratio = np.array([row[second]["floor"] / row[first]["floor"] for row in good])
    wins = int((ratio < 1).sum())
    share = stats.binomtest(wins, len(rows)).proportion_ci(CONFIDENCE, method="exact")
    result: dict[str, Any] = {
        "chips": len(rows), "failed": len(rows) - len(good), "lower": wins,
        "share": [wins / len(rows), float(share.low), float(share.high)],
    }  # fmt: skip
    if len(ratio) > 1:
        log = np.log(ratio)
        half = stats.t.ppf((1 + CONFIDENCE) / 2, len(log) - 1) * log.std(ddof=1) / len(log) ** 0.5
        mean = float(log.mean())
        result["ratio"] = [math.exp(mean), math.exp(mean - half), math.exp(mean + half)]
        result["largest ratio"] = float(ratio.max())
    return result
