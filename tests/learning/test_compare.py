"""Rules are compared after the same effective training, and every run is reported."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.compare import (
    Case,
    Effort,
    Outcome,
    arms_of,
    compared,
    cross,
    exposure,
    fingerprint,
    judge_curve,
    judge_difference,
    over_effort,
    run_all,
    summary,
    summary_table,
    train,
)
from spicenn.learning.examples import HIGH, LOW, regression, two_tasks, xor
from spicenn.learning.hardware import Hardware
from spicenn.learning.rules import CoupledLearning, Desynchronous, Overclamping, Rule
from spicenn.learning.task import Task, cyclic
from spicenn.learning.transient import learn_in_circuit

STANDARD = CoupledLearning()
OVERCLAMPED = Overclamping(low=LOW, high=HIGH, smoothing=1e-3)
EFFORT = Effort(total=0.04, checkpoints=2, passes=2)
BEGIN = np.array([2.0, 3.0])


def case(rule: Rule = STANDARD, arm: str = "standard", seed: int = 1) -> Case:
    """The example of one output, three edges and two tasks."""
    return Case(arm=arm, seed=seed, example=two_tasks(), rule=rule, values=BEGIN)


def outcome(arm: str, seed: int, error: float, margin: float, ended: str = "") -> Outcome:
    """A run of two checkpoints that came to this."""
    return Outcome(
        arm=arm, seed=seed, rule={}, effort=np.array([0.0, 1.0]), time=np.array([0.0, 2.0]),
        error=np.array([4 * error, error]), margin=np.array([-1.0, margin]),
        answers=np.zeros((2, 1, 1)), values=np.zeros((2, 1)), limited=np.array([0.0, 0.5]),
        slots=7, aborts=(), ended=ended, runtime=1.0,
    )  # fmt: skip


def test_a_curve_is_right_within_the_error_that_is_allowed() -> None:
    task = two_tasks().task
    judge = judge_curve(task, 1e-4)
    near, far = judge(task.labels + 0.009), judge(task.labels + 0.011)
    assert near.error == pytest.approx(8.1e-5)
    assert near.success
    assert near.margin == pytest.approx(1e-3)
    assert far.margin == pytest.approx(-1e-3)
    assert not far.success


def test_a_difference_is_right_where_all_cases_are_on_their_side() -> None:
    task = xor(level=0.06).task
    judge = judge_difference(task)
    answers = np.array([[0.20, 0.19], [0.24, 0.20], [0.245, 0.20], [0.30, 0.29]])
    assert judge(answers).margin == pytest.approx(0.01)
    # The mean of both outputs does not matter.
    assert judge(answers + 0.05).error == pytest.approx(judge(answers).error)
    answers[3, 0] += 0.03
    assert not judge(answers).success
    negative = judge_difference(xor(level=-0.06).task)
    assert negative(answers[:, ::-1]).margin == pytest.approx(judge(answers).margin)


def test_labels_that_are_no_pairs_are_refused() -> None:
    for labels in ([[0.1], [0.2]], [[0.1, 0.1], [0.2, 0.2]], [[0.1, -0.1], [0.1, -0.1]]):
        with pytest.raises(InputError, match="two values of L"):
            judge_difference(Task([[0.0], [1.0]], labels))


@pytest.mark.parametrize("wrong", [{"total": 0.0}, {"passes": 0}, {"stretch": 0.5}, {"most": 0.1}])
def test_an_effort_out_of_range_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="out of range"):
        replace(EFFORT, **wrong)  # type: ignore[arg-type]


def test_arms_share_starts_and_chips() -> None:
    cases = cross(
        lambda hardware, seed: regression(hardware=hardware, seed=9, chip=seed),
        {"a": STANDARD, "b": OVERCLAMPED},
        {"plain": Hardware(), "biased": Hardware(bias_std=1e-3)},
        [4, 5], low=1.0, high=2.2,
    )  # fmt: skip
    assert [c.arm for c in cases[:4]] == ["a, plain", "b, plain", "a, biased", "b, biased"]
    assert len({c.name for c in cases}) == 8
    for one in (4, 5):
        own = [c for c in cases if c.seed == one]
        assert all(np.array_equal(c.values, own[0].values) for c in own)
        assert np.array_equal(own[2].example.chip.bias, own[3].example.chip.bias)
    assert not np.array_equal(cases[0].values, cases[4].values)
    assert not np.array_equal(cases[2].example.chip.bias, cases[6].example.chip.bias)


def test_no_run_vanishes_from_a_summary() -> None:
    runs = [outcome("a", k, 1e-4 * k, 1.0 if k < 4 else -1.0) for k in range(1, 6)]
    runs.append(outcome("a", 6, 1e-2, 1.0, ended="failed at slot 7: no rest"))
    found = summary(runs)
    assert (found["runs"], found["successes"]) == (6, 3)
    assert found["success"]["low"] == pytest.approx(0.118, abs=1e-3)  # Clopper and Pearson
    assert found["success"]["high"] == pytest.approx(0.882, abs=1e-3)
    assert found["ended early"] == {"6": "failed at slot 7: no rest"}
    table = summary_table([*runs, outcome("b", 1, 1.0, 1.0)])
    assert len(table.splitlines()) == 4
    assert "3 / 6" in table
    assert "1 / 1" in table
    assert list(arms_of([*runs, outcome("b", 1, 1.0, 1.0)])) == ["a", "b"]


def test_arms_are_compared_seed_by_seed() -> None:
    ours = [outcome("a", k, k * 0.5e-4, 1.0) for k in range(1, 12)]
    theirs = [outcome("b", k, k * 1e-4, 1.0) for k in range(11, 0, -1)]
    found = compared(ours, theirs)
    assert found["ratio of errors"]["estimate"] == pytest.approx(0.5)
    assert found["less"]["estimate"] == 1.0
    with pytest.raises(InputError, match="different seeds"):
        compared(ours, theirs[:-1])


def test_errors_are_read_between_checkpoints_and_not_beyond() -> None:
    at = np.array([0.0, 0.5, 1.0, 1.5])
    (found,) = over_effort([outcome("a", 1, 1e-4, 1.0)], at)
    assert found[:3] == pytest.approx([4e-4, 2e-4, 1e-4])
    assert np.isnan(found[3])


def test_a_fingerprint_is_of_everything() -> None:
    mark = fingerprint(case(), EFFORT, None)
    assert mark == fingerprint(case(), EFFORT, None)
    others = [
        (replace(case(), values=BEGIN + 1e-9), EFFORT),
        (case(OVERCLAMPED), EFFORT),
        (case(Desynchronous(STANDARD, 0.5)), EFFORT),
        (replace(case(), example=two_tasks(speeds=(0.0, 0.0))), EFFORT),
        (case(seed=2), EFFORT),
        (case(), replace(EFFORT, passes=3)),
    ]
    assert len({mark, *(fingerprint(c, e, None) for c, e in others)}) == 7


@pytest.mark.ngspice
@pytest.mark.slow
def test_exposure_is_the_integral_of_the_duty() -> None:
    """Of a rule without a duty all of the time; of one with it, what finer slots add up to."""
    example = two_tasks()
    chip, task = example.chip, example.task
    with NgspiceEngine() as engine:
        steady = learn_in_circuit(engine, chip, task, STANDARD, cyclic(task, 5e-3), BEGIN, slots=6)
        coarse = learn_in_circuit(
            engine, chip, task, OVERCLAMPED, cyclic(task, 2e-3), BEGIN, slots=2
        )
        one = Task(task.inputs[:1], task.labels[:1])
        fine = learn_in_circuit(engine, chip, one, OVERCLAMPED, cyclic(one, 2e-5), BEGIN, slots=50)
    assert exposure(chip, task, STANDARD, steady) == pytest.approx(np.full(6, 2.5e-3))
    assert exposure(chip, task, Desynchronous(STANDARD, 0.25), steady)[0] == pytest.approx(6.25e-4)
    once = exposure(chip, task, OVERCLAMPED, coarse)[0]
    assert once < 0.9 * coarse.slot  # the duty fades within the slot
    assert once == pytest.approx(exposure(chip, one, OVERCLAMPED, fine).sum(), rel=0.01)


@pytest.mark.ngspice
@pytest.mark.slow
def test_rules_are_trained_for_the_same_effort() -> None:
    """The one whose duty is part of the time takes longer by the clock, in longer slots."""
    # Two labels for one input: the error stays, and with it a duty of about a quarter.
    example = two_tasks()
    inputs = np.broadcast_to(example.task.inputs[0], example.task.inputs.shape)
    example = replace(example, task=Task(inputs, [[0.2], [0.3]]))
    judge = judge_curve(example.task, 1e-3)
    partly = replace(OVERCLAMPED, full=0.2)
    first, second = (replace(case(rule), example=example) for rule in (STANDARD, partly))
    with NgspiceEngine() as engine:
        plain = train(engine, first, EFFORT, judge)
        over = train(engine, second, EFFORT, judge)
        short = train(engine, second, replace(EFFORT, stretch=1.0, most=1.0), judge)
    assert plain.effort == pytest.approx([0.0, 0.02, 0.04])
    assert plain.time == pytest.approx(plain.effort)
    # To half a pass of four.
    assert over.effort[-1] == pytest.approx(0.04, abs=0.04 / 8)
    assert 2 < over.time[-1] / over.effort[-1] < 8
    assert (plain.ended, over.ended, short.ended) == ("", "", "8 slots")
    assert (plain.slots, short.slots) == (8, 8)
    assert short.effort[-1] < 0.03
    for each in (plain, over, short):
        assert len(each.error) == len(each.effort) == len(each.values) == len(each.answers)
        assert each.values[0].tolist() == BEGIN.tolist()
        assert not np.array_equal(each.values[0], each.values[-1])


@pytest.mark.ngspice
@pytest.mark.slow
def test_a_run_that_breaks_down_is_reported() -> None:
    """No transient is done within a millisecond."""
    with NgspiceEngine(timeout=1e-3) as engine:
        found = train(engine, case(), EFFORT, judge_curve(two_tasks().task, 1.0))
    assert found.ended.startswith("failed at slot 0")
    assert not found.success
    assert len(found.error) == 1
    assert found.slots == 0


@pytest.mark.ngspice
@pytest.mark.slow
def test_a_study_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    """Finished runs are read, a torn file and those of another effort are made anew."""
    judge = judge_curve(two_tasks().task, 1e-3)
    cases = [case(), case(OVERCLAMPED, "overclamped"), case(seed=2)]
    first = run_all(cases, EFFORT, judge, folder=tmp_path)
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == ["overclamped-1.json", "standard-1.json", "standard-2.json"]
    assert [each.seed for each in first] == [1, 1, 2]
    torn = tmp_path / "standard-2.json"
    torn.write_text(torn.read_text()[:50])
    told: list[Outcome] = []
    second = run_all(cases, EFFORT, judge, folder=tmp_path, workers=1, progress=told.append)
    assert len(told) == 3
    for before, after in zip(first, second, strict=True):
        # The same to the last bit, read or simulated again; only the time it took tells.
        assert np.array_equal(before.values, after.values)
        assert np.array_equal(before.margin, after.margin)
        assert (before.runtime == after.runtime) == (before.seed == 1)
    json.loads(torn.read_text())
    third = run_all(cases[:1], replace(EFFORT, passes=3), judge, folder=tmp_path)
    assert third[0].slots == 12
    with pytest.raises(InputError, match="1 names"):
        run_all([case(), case()], EFFORT, judge)
