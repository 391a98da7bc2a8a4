"""Rules against each other: the same chips and starts, the same effective length of training.

What moves an edge is duty times time: a rule that acts for a tenth of the time has learnt, and
suffered its bias, for a tenth as long. Runs are compared where their edges have moved for the
same time, ``∫ duty dt``. A rule whose duty fades is given longer slots, so that a pass through
the examples stays worth what it is to the others. Every run is reported, whatever became of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError, SpicennError
from spicenn.learning.contrast import answers, value_range
from spicenn.learning.examples import Example
from spicenn.learning.hardware import Hardware, LearningChip, start_values
from spicenn.learning.rules import Rule, describe
from spicenn.learning.task import Task, cyclic
from spicenn.learning.trajectory import Abort, Trajectory
from spicenn.learning.transient import Solver, learn_in_circuit

Array = NDArray[np.float64]

_FORMAT = 1
# Of the range of values: as close to a limit as this is at it.
_AT_LIMIT = 1e-3
# Of one transient on a busy machine [s].
_TIMEOUT = 600.0
_ARRAYS = ("effort", "time", "error", "margin", "answers", "values", "limited")


@dataclass(frozen=True)
class Verdict:
    """What answers are worth.

    error : mean squared [V^2].
    margin : by which the worst example is on the right side, negative if it is not [V]; for a
        curve, by which its rms error is below what is allowed.
    """

    error: float
    margin: float

    @property
    def success(self) -> bool:
        """Whether every example is right."""
        return self.margin > 0


Judge = Callable[[Array], Verdict]


def judge_curve(task: Task, allowed: float) -> Judge:
    """Return a judge of answers (example, output) that are to be near the labels.

    Parameters
    ----------
    allowed : mean squared error [V^2] of a success.
    """

    def judge(found: Array) -> Verdict:
        error = float(np.mean((found - task.labels) ** 2))
        return Verdict(error, math.sqrt(allowed) - math.sqrt(error))

    return judge


def judge_difference(task: Task) -> Judge:
    """Return a judge of two outputs whose difference is to be on its label's side.

    Labels are those of a ``Differential`` rule, (L, -L) with two values of L; the middle of
    the two tells them apart. Raises InputError for others.
    """
    labels = task.labels
    levels = np.unique(labels[:, 0])
    if labels.shape[1] != 2 or not np.array_equal(labels[:, 0], -labels[:, 1]) or len(levels) != 2:
        raise InputError(
            f"labels of {labels.shape[1]} outputs and {len(levels)} levels", where="task",
            remedy="give (L, -L) with two values of L",
        )  # fmt: skip
    middle = levels.mean()
    side = np.sign(labels[:, 0] - middle)

    def judge(found: Array) -> Verdict:
        difference = found[:, 0] - found[:, 1]
        error = float(np.mean((difference - labels[:, 0]) ** 2))
        return Verdict(error, float(np.min(side * (difference - middle))))

    return judge


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One run: an arm's chip, task and rule, and the values it begins with.

    arm : name of the combination; its cases differ by their seed.
    seed : of the start, and of what is drawn while it learns.
    """

    arm: str
    seed: int
    example: Example
    rule: Rule
    values: Array

    @property
    def name(self) -> str:
        """By which its result is filed."""
        letters = (c if c.isalnum() else "-" for c in f"{self.arm}-{self.seed}")
        return "".join(letters)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long runs learn.

    total : duty times time [s], of each edge.
    checkpoints : parts of it, at whose ends a run is judged.
    passes : through all examples, per part, of a rule with a duty of 1.
    stretch : by which slots are longer than that rule's, at most.
    most : slots, over that rule's, after which a run is ended as it is.

    Raises InputError for a value out of range.
    """

    total: float
    checkpoints: int = 20
    passes: int = 10
    stretch: float = 10.0
    most: float = 4.0

    def __post_init__(self) -> None:
        for name, low in (("total", 0.0), ("checkpoints", 1), ("passes", 1), ("stretch", 1.0),
                          ("most", 1.0)):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low and value > 0):
                raise InputError(f"{name} = {value!r} is out of range", where="effort")

    def slot(self, task: Task) -> float:
        """Of a rule with a duty of 1 [s]."""
        return self.total / self.slots(task)

    def slots(self, task: Task) -> int:
        """Of a rule with a duty of 1."""
        return self.checkpoints * self.passes * len(task)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of a run. Axis 0 is the begin and every checkpoint that was reached.

    effort : duty times time until then [s]. time : passed [s].
    error [V^2], margin [V] : of a verdict.
    answers : (…, example, output) [V]. values : (…, value).
    limited : share of the values that are at a limit of their range.
    slots : simulated. aborts : those that the simulator gave up at first, and what solved them.
    ended : "" where the effort was reached, else why the run ended before.
    """

    arm: str
    seed: int
    rule: dict[str, Any]
    effort: Array
    time: Array
    error: Array
    margin: Array
    answers: Array
    values: Array
    limited: Array
    slots: int
    aborts: tuple[Abort, ...]
    ended: str
    runtime: float

    @property
    def success(self) -> bool:
        """Whether every example is right at the end; a run that broke down is none."""
        return bool(self.margin[-1] > 0) and not self.ended.startswith("failed")


def exposure(chip: LearningChip, task: Task, rule: Rule, done: Trajectory) -> Array:
    """(slot,) time for which the edges moved, ``∫ duty dt`` [s], of a simulated trajectory.

    Simpson's rule in each slot: the duty at its begin and middle from the first network at
    rest with the simulated values (the mean of both ends in the middle), at its end from the
    simulated outputs. Of edges that take part in a share of the slots, their mean.

    Raises as ``equilibrium`` does.
    """
    inputs, label = task.inputs[done.examples], task.labels[done.examples] + chip.output_offset
    begin, end = done.values[:-1], done.values[1:]
    duties = [
        rule.duty(answers(chip, begin, inputs), label),
        rule.duty(answers(chip, (begin + end) / 2, inputs), label),
        rule.duty(done.outputs, label),
    ]
    mean = (duties[0] + 4 * duties[1] + duties[2]) / 6
    return np.asarray(rule.share * done.slot * mean)


def train(
    engine: NgspiceEngine, case: Case, effort: Effort, judge: Judge, *, solver: Solver | None = None
) -> Outcome:
    """Let a chip learn in ngspice transients until its edges have moved for so long.

    The duty at hand, from the chip's answers to all examples, sets how long the slots of the
    next few passes are; what they came to is measured by ``exposure``, and what is missing is
    made up by further passes, to half of one. A run whose simulation
    breaks down ends there, and its outcome says so.

    Raises InputError for a case that does not fit, and SpicennError where not even the values
    that it begins with have answers.
    """
    chip, rule = case.example.chip, case.rule
    task = case.example.task.check(chip.network)
    label = task.labels + chip.output_offset
    values = np.asarray(case.values, dtype=np.float64)
    rows = [_Row.of(chip, task, judge, values, 0.0, 0.0)]
    spent = time = runtime = 0.0
    slots, ended = 0, ""
    aborts: list[Abort] = []
    part, most = effort.total / effort.checkpoints, effort.most * effort.slots(task)
    for number in range(1, effort.checkpoints + 1):
        # Fewer passes, never shorter slots: what a pass is worth decides how large its ripple is.
        while (passes := round(effort.passes * (number - spent / part))) >= 1 and not ended:
            count = min(passes, effort.passes) * len(task)
            if slots + count > most:
                ended = f"{slots} slots"
                break
            try:
                duty = float(np.mean(rule.duty(answers(chip, values, task.inputs), label)))
                length = effort.slot(task) / max(rule.share * duty, 1 / effort.stretch)
                done = learn_in_circuit(
                    engine, chip, task, rule, cyclic(task, length * len(task)), values,
                    slots=count, first_slot=slots, solver=solver, seed=case.seed,
                )  # fmt: skip
                moved = float(exposure(chip, task, rule, done).sum())
                latest = _Row.of(
                    chip, task, judge, done.values[-1], spent + moved, time + count * length
                )
            except InputError:
                raise
            except SpicennError as error:
                ended = f"failed at slot {slots}: {error.what}"
                break
            values, slots, runtime = done.values[-1], slots + count, runtime + done.runtime
            spent, time = latest.effort, latest.time
            aborts += done.aborts
        if spent > rows[-1].effort:
            rows.append(latest)
        if ended:
            break
    return Outcome(
        arm=case.arm, seed=case.seed, rule=dict(describe(rule)),
        effort=np.array([row.effort for row in rows]),
        time=np.array([row.time for row in rows]),
        error=np.array([row.verdict.error for row in rows]),
        margin=np.array([row.verdict.margin for row in rows]),
        answers=np.array([row.answers for row in rows]),
        values=np.array([row.values for row in rows]),
        limited=np.array([row.limited for row in rows]),
        slots=slots, aborts=tuple(aborts), ended=ended, runtime=runtime,
    )  # fmt: skip


def run_all(
    cases: Sequence[Case],
    effort: Effort,
    judge: Judge,
    *,
    folder: str | Path | None = None,
    workers: int = 2,
    solver: Solver | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Train every case, each worker with a simulator of its own.

    Parameters
    ----------
    folder : where each outcome is written when it is there; those found in it are not run
        again if they are of the same case and effort, and made anew if not.
    workers : threads, each of which waits for its ngspice.
    progress : called with each outcome, in whatever order they end.

    Returns
    -------
    Outcomes in the cases' order.

    Raises InputError for two cases of one name, fewer than one worker, or a folder that cannot
    be written.
    """
    names = [case.name for case in cases]
    if len(set(names)) < len(names) or workers < 1:
        raise InputError(
            f"{len(cases)} cases of {len(set(names))} names for {workers} workers", where="run_all"
        )
    kept = None if folder is None else Path(folder)
    engines: SimpleQueue[NgspiceEngine] = SimpleQueue()
    opened = [NgspiceEngine(timeout=_TIMEOUT) for _ in range(workers)]
    for engine in opened:
        engines.put(engine)

    def one(case: Case) -> Outcome:
        mark = fingerprint(case, effort, solver)
        path = None if kept is None else kept / f"{case.name}.json"
        found = None if path is None else _load(path, mark)
        if found is None:
            engine = engines.get()
            try:
                found = train(engine, case, effort, judge, solver=solver)
            finally:
                engines.put(engine)
            if path is not None:
                _save(path, mark, found)
        if progress is not None:
            progress(found)
        return found

    try:
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(one, cases))
    finally:
        for engine in opened:
            engine.close()


def cross(
    make: Callable[[Hardware, int], Example],
    rules: Mapping[str, Rule],
    hardware: Mapping[str, Hardware],
    seeds: Sequence[int],
    *,
    low: float,
    high: float,
) -> list[Case]:
    """Return every combination of rule, hardware and seed, of arms "rule, hardware".

    Of one seed, all arms have the same start, and those of one hardware the same chip.

    Parameters
    ----------
    make : an example from hardware and a chip's number.
    low, high : between which the values it begins with are drawn.
    """
    cases = []
    for seed in seeds:
        for kind, each in hardware.items():
            example = make(each, seed)
            values = start_values(example.chip.network, low, high, seed=seed)
            cases += [
                Case(arm=f"{name}, {kind}", seed=seed, example=example, rule=rule, values=values)
                for name, rule in rules.items()
            ]
    return cases


def arms_of(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes by their arm, in the order in which arms are first met."""
    arms: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        arms.setdefault(outcome.arm, []).append(outcome)
    return arms


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Success of one arm with its exact (Clopper–Pearson) interval, medians with quartiles.

    Raises InputError for no outcomes.
    """
    from spicenn.study.statistics import yield_interval  # its package loads Dask

    success = yield_interval(np.array([each.success for each in outcomes]), method="exact")
    return {
        "runs": len(outcomes),
        "successes": sum(each.success for each in outcomes),
        "success": success._asdict(),
        "error": _quartiles([each.error[-1] for each in outcomes]),
        "margin": _quartiles([each.margin[-1] for each in outcomes]),
        "effort": _quartiles([each.effort[-1] for each in outcomes]),
        "time": _quartiles([each.time[-1] for each in outcomes]),
        "at limits": float(np.mean([each.limited[-1] for each in outcomes])),
        "slots": sum(each.slots for each in outcomes),
        "slots given up at first": sum(len(each.aborts) for each in outcomes),
        "ended early": {str(each.seed): each.ended for each in outcomes if each.ended},
    }


def compared(ours: Sequence[Outcome], theirs: Sequence[Outcome]) -> dict[str, Any]:
    """Seed by seed: the ratio of the errors and its interval, and in how many ours is less.

    Raises InputError where the seeds are not the same.
    """
    from spicenn.study.statistics import quantile_interval, yield_interval  # loads Dask

    pairs = [{each.seed: each.error[-1] for each in arm} for arm in (ours, theirs)]
    if pairs[0].keys() != pairs[1].keys():
        raise InputError("the arms are of different seeds", where="compared")
    ratio = np.array([pairs[0][seed] / pairs[1][seed] for seed in pairs[0]])
    return {
        "ratio of errors": quantile_interval(ratio, 0.5)._asdict(),
        "less": yield_interval(ratio < 1, method="exact")._asdict(),
        "pairs": len(ratio),
    }


def over_effort(outcomes: Sequence[Outcome], at: Array) -> Array:
    """(outcome, …) errors [V^2] at efforts [s], between checkpoints along the logarithm.

    NaN beyond what a run has reached, by more than a hundredth.
    """
    rows = []
    for each in outcomes:
        found = np.exp(np.interp(at, each.effort, np.log(each.error)))
        rows.append(np.where(at > 1.01 * each.effort[-1], np.nan, found))
    return np.array(rows)


def fingerprint(case: Case, effort: Effort, solver: Solver | None) -> str:
    """Digest of all that an outcome depends on."""
    chip, task = case.example.chip, case.example.task
    words = [
        repr((_FORMAT, chip.network, chip.hardware, describe(case.rule), case.arm, case.seed)),
        repr((effort, solver or Solver())),
    ]
    digest = hashlib.sha256("\n".join(words).encode())
    for array in (
        chip.threshold, chip.transconductance, chip.bias, chip.leakage, chip.output_offset,
        task.inputs, task.labels, np.asarray(case.values, dtype=np.float64),
    ):  # fmt: skip
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class _Row:
    """A run at one moment."""

    effort: float
    time: float
    verdict: Verdict
    answers: Array
    values: Array
    limited: float

    @classmethod
    def of(
        cls, chip: LearningChip, task: Task, judge: Judge, values: Array, effort: float, time: float
    ) -> _Row:
        found = answers(chip, values, task.inputs)
        low, high = value_range(chip)
        near = _AT_LIMIT * (high - low)
        limited = float(np.mean((values < low + near) | (values > high - near)))
        return cls(effort, time, judge(found), found, values, limited)


def _quartiles(values: Iterable[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(q) for q in np.quantile(np.array(list(values)), [0.25, 0.5, 0.75])]


def _save(path: Path, mark: str, outcome: Outcome) -> None:
    kept = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in vars(outcome).items()
    }
    kept["aborts"] = [asdict(abort) for abort in outcome.aborts]
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"fingerprint": mark, "outcome": kept}))
        partial.replace(path)
    except OSError as error:
        raise InputError(f"cannot be written: {error}", where=str(path)) from error


def _load(path: Path, mark: str) -> Outcome | None:
    """What is on file of that very case, or None."""
    try:
        found = json.loads(path.read_text())
        if found["fingerprint"] != mark:
            return None
        kept = found["outcome"]
        arrays = {name: np.array(kept[name]) for name in _ARRAYS}
        return Outcome(**{**kept, **arrays, "aborts": tuple(Abort(**a) for a in kept["aborts"])})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def summary_table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: one line per arm; medians with quartiles, success with its exact interval."""
    lines = [
        "| arm | right | share (95 %) | error [V²] | margin [mV] | effort [s] | time [s] "
        "| at limits | slots (given up at first) | ended early |",
        "|---" * 10 + "|",
    ]
    for arm, each in arms_of(outcomes).items():
        found = summary(each)
        share = found["success"]
        low, middle, high = found["error"]
        worse, margin, better = (1e3 * m for m in found["margin"])
        lines.append(
            f"| {arm} | {found['successes']} / {found['runs']} "
            f"| {share['estimate']:.2f} ({share['low']:.2f}–{share['high']:.2f}) "
            f"| {middle:.2e} ({low:.1e}–{high:.1e}) "
            f"| {margin:.1f} ({worse:.1f} to {better:.1f}) "
            f"| {found['effort'][1]:.2f} | {found['time'][1]:.2f} "
            f"| {100 * found['at limits']:.0f} % "
            f"| {found['slots']} ({found['slots given up at first']}) "
            f"| {len(found['ended early'])} |"
        )
    return "\n".join(lines)
