"""How much bias overclamping withstands: theory against speeds, and against the circuit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.contrast import phases, speed
from spicenn.learning.examples import HIGH, LOW, two_tasks
from spicenn.learning.hardware import LearningChip, ideal_chip
from spicenn.learning.margin import bias_margin, growth
from spicenn.learning.memory import alone, solve, train
from spicenn.learning.network import grid
from spicenn.learning.rules import Overclamping
from spicenn.learning.task import Task
from spicenn.learning.transient import learn_in_circuit

EXAMPLE = two_tasks()
TASKS = alone(EXAMPLE.task)
RULE = Overclamping(low=LOW, high=HIGH, smoothing=1e-9)
SOLVED = solve(EXAMPLE.chip, TASKS, np.array([2.5, 2.5])).values


def biased(multiple: float) -> LearningChip:
    return replace(EXAMPLE.chip, bias=multiple * EXAMPLE.chip.bias)


@pytest.mark.parametrize("multiple", [0.0, 1.0, 4.0, 6.0, 12.0])
def test_the_rate_is_that_of_the_rules_own_speed_near_the_solution(multiple: float) -> None:
    # The mean speed over examples is along the direction, and grows with the distance.
    chip = biased(multiple)
    found = growth(chip, SOLVED, EXAMPLE.task, RULE)
    assert np.linalg.norm(found.direction) == pytest.approx(1.0, rel=1e-9)
    for size in (1e-4, 2e-4):
        values = np.tile(SOLVED + size * found.direction, (len(TASKS), 1))
        task = EXAMPLE.task
        state = phases(chip, values, task.inputs, task.labels, RULE)
        mean = speed(chip, values, state, RULE).mean(axis=0) / size
        np.testing.assert_allclose(mean, found.rate * found.direction, atol=0.01, rtol=0.01)


def test_errors_shrink_without_a_bias_and_grow_from_the_margin_on() -> None:
    margin = bias_margin(EXAMPLE.chip, SOLVED, EXAMPLE.task, RULE)
    assert 4 < margin < 5
    rates = [growth(biased(m), SOLVED, EXAMPLE.task, RULE).rate for m in (0, 0.99 * margin)]
    assert rates[0] < rates[1] < 0
    assert growth(biased(1.01 * margin), SOLVED, EXAMPLE.task, RULE).rate > 0
    assert bias_margin(biased(0.0), SOLVED, EXAMPLE.task, RULE) == np.inf


def test_the_margin_is_of_the_bias_and_not_of_the_learning_rate() -> None:
    # A bias within the bracket: a larger rate does not hide it.
    fast = replace(RULE, rate=20.0, full=0.5)
    assert bias_margin(EXAMPLE.chip, SOLVED, EXAMPLE.task, fast) == pytest.approx(
        bias_margin(EXAMPLE.chip, SOLVED, EXAMPLE.task, RULE), rel=2e-3
    )


@pytest.mark.slow
@pytest.mark.ngspice
def test_the_circuit_shrinks_and_grows_errors_at_the_rates_of_theory() -> None:
    rule = replace(RULE, smoothing=1e-5)
    with NgspiceEngine(timeout=120) as engine:
        learner = partial(learn_in_circuit, engine)
        for multiple in (2.0, 6.0):
            chip = biased(multiple)
            theory = growth(chip, SOLVED, EXAMPLE.task, rule)
            begin = SOLVED + 0.02 * theory.direction
            found = train(learner, chip, TASKS, rule, begin, slot=2.5e-3, passes=60)
            error = found.by_pass.mean(axis=0)
            rate = 0.5 * np.log(error[-1] / error[20]) / (39 * 5e-3)
            # The width of the comparator and the answers' curvature are left out of it.
            assert rate == pytest.approx(theory.rate, rel=0.1)


def test_half_of_overclamping_and_too_many_labels_are_refused() -> None:
    for half in ({"amplitude": False}, {"time": False}):
        with pytest.raises(InputError, match="does not fade"):
            growth(EXAMPLE.chip, SOLVED, EXAMPLE.task, replace(RULE, **half))
    net = grid(3, 3, inputs=("n0_0", "n1_1"), outputs=("n2_2", "n0_2"))
    task = Task(np.tile([[LOW, HIGH]], (7, 1)), np.full((7, 2), 0.2))
    with pytest.raises(InputError, match="14 labels"):
        growth(ideal_chip(net), np.full(18, 2.5), task, RULE)
