"""Several tasks at once, and what is left of one while others are learnt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.contrast import answers, mean_square_error
from spicenn.learning.examples import HIGH, LOW, two_tasks
from spicenn.learning.hardware import Hardware, ideal_chip, sample_chip, start_values
from spicenn.learning.memory import alone, recall, solve, task_errors, together, train
from spicenn.learning.model import learn_in_model
from spicenn.learning.network import grid
from spicenn.learning.rules import CoupledLearning, Overclamping
from spicenn.learning.task import Task
from spicenn.learning.transient import learn_in_circuit

EXAMPLE = two_tasks()
FREE = replace(EXAMPLE.chip, bias=np.zeros(2))
TASKS = alone(EXAMPLE.task)
START = np.array([2.5, 2.5])
STANDARD = CoupledLearning()
OVERCLAMPED = Overclamping(low=LOW, high=HIGH, smoothing=1e-4)
GRID = grid(4, 4, inputs=("n0_0", "n2_2", "n0_2", "n2_0"), outputs=("n1_1", "n3_3"))


@pytest.fixture(scope="module")
def engine() -> Iterator[NgspiceEngine]:
    with NgspiceEngine(timeout=120) as engine:
        yield engine


def drawn(seed: int, examples: int) -> list[Task]:
    """Two tasks that values of the grid do: a teacher's answers."""
    rng = np.random.default_rng(seed)
    rails = np.broadcast_to([LOW, HIGH], (2 * examples, 2))
    inputs = np.hstack([rng.uniform(LOW, HIGH, (2 * examples, 2)), rails])
    labels = answers(ideal_chip(GRID), rng.uniform(1.5, 4.5, (1, 32)), inputs)
    return [Task(inputs[k::2], labels[k::2]) for k in (0, 1)]


def test_tasks_are_put_one_after_the_other_and_taken_apart_again() -> None:
    first, second = Task([[1.0], [2.0]], [[3.0], [4.0]]), Task([[5.0]], [[6.0]])
    both = together([first, second])
    assert both.inputs.ravel().tolist() == [1.0, 2.0, 5.0]
    assert both.labels.ravel().tolist() == [3.0, 4.0, 6.0]
    np.testing.assert_array_equal(together(alone(both)).labels, both.labels)


@pytest.mark.parametrize("tasks", [[], [Task([[1.0]], [[1.0]]), Task([[1.0, 2.0]], [[1.0]])]])
def test_no_tasks_and_tasks_of_different_networks_are_refused(tasks: list[Task]) -> None:
    with pytest.raises(InputError):
        together(tasks)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 3))
def test_every_tasks_error_is_its_own_mean_square(seed: int, examples: int) -> None:
    chip = sample_chip(GRID, Hardware(threshold_std=0.02), chip=seed, seed=1)
    values = np.stack([start_values(GRID, 1.5, 3.5, seed=seed, chip=n) for n in range(3)])
    tasks = drawn(seed, examples)
    found = task_errors(chip, values, tasks)
    assert found.shape == (2, 3)
    for own, task in zip(found, tasks, strict=True):
        np.testing.assert_allclose(own, mean_square_error(chip, values, task), rtol=1e-9)


def test_a_trainings_errors_are_those_that_the_learner_saw() -> None:
    # Another way to the same numbers: the engine's own outputs at the ends of slots.
    found = train(learn_in_model, EXAMPLE.chip, TASKS, STANDARD, START, slot=2.5e-3, passes=3)
    seen = found.trajectory.squared_error(EXAMPLE.task)
    own = found.error[found.trajectory.examples, np.arange(6) + 1]
    np.testing.assert_allclose(own, seen, rtol=1e-6)
    np.testing.assert_allclose(found.by_pass, found.error[:, 1:].reshape(2, 3, 2).mean(axis=2))
    np.testing.assert_allclose(found.floor(2), found.error[:, 3:].mean(axis=1))
    assert found.moved(3) == pytest.approx(float(np.linalg.norm(found.values - START)), rel=1e-12)


@pytest.mark.parametrize("passes", [0, 4])
def test_passes_that_are_not_there_are_refused(passes: int) -> None:
    found = train(learn_in_model, EXAMPLE.chip, TASKS, STANDARD, START, slot=2.5e-3, passes=3)
    with pytest.raises(InputError, match="passes"):
        found.floor(passes)
    with pytest.raises(InputError, match="passes"):
        found.moved(passes)


@pytest.mark.parametrize(("slot", "passes"), [(2.5e-3, 0), (0.0, 3)])
def test_a_training_of_no_time_is_refused(slot: float, passes: int) -> None:
    with pytest.raises(InputError, match="passes"):
        train(learn_in_model, EXAMPLE.chip, TASKS, STANDARD, START, slot=slot, passes=passes)


def test_effective_time_is_all_of_it_or_as_long_as_the_edges_move() -> None:
    run = partial(train, learn_in_model, EXAMPLE.chip, TASKS, values=START, slot=2.5e-3, passes=2)
    np.testing.assert_allclose(run(rule=STANDARD).effective, 2.5e-3 * np.arange(5), rtol=1e-12)
    short, long = (run(rule=replace(OVERCLAMPED, full=full)).effective[1] for full in (1.0, 0.5))
    # The first slot's duty is about its first error over the full one, and half of it for
    # twice the full one, as learning hardly changes the error meanwhile.
    first = abs(answers(EXAMPLE.chip, START[None], EXAMPLE.task.inputs)[0, 0] - 0.31)
    assert long == pytest.approx(2.5e-3 * first / 0.5, rel=0.1)
    assert long / short == pytest.approx(2.0, rel=0.05)


def test_a_training_can_be_taken_up_again() -> None:
    run = partial(train, learn_in_model, EXAMPLE.chip, TASKS, OVERCLAMPED, slot=2.5e-3)
    whole = run(START, passes=4)
    first = run(START, passes=2)
    rest = run(first.values, passes=2, first_slot=4)
    np.testing.assert_allclose(rest.values, whole.values, atol=1e-6, rtol=0)
    assert rest.trajectory.first_slot == 4


def test_values_that_do_all_tasks_are_found_where_there_are_some() -> None:
    tasks = drawn(3, 2)
    begin = start_values(GRID, 2.0, 3.0, seed=3)
    chip = ideal_chip(GRID)
    found = solve(chip, tasks, begin)
    assert task_errors(chip, begin, tasks).min() > 1e-6
    assert found.error.max() < 1e-16
    assert found.values.min() >= 1.0
    assert found.values.max() <= 5.0


def test_tasks_that_contradict_each_other_are_done_half_each() -> None:
    # The best answer to one input with two labels is their mean.
    inputs = EXAMPLE.task.inputs[:1]
    found = solve(EXAMPLE.chip, [Task(inputs, [[0.30]]), Task(inputs, [[0.32]])], START)
    np.testing.assert_allclose(found.error, 0.01**2, rtol=1e-6)


def test_values_out_of_range_are_no_begin() -> None:
    with pytest.raises(InputError, match="range"):
        solve(EXAMPLE.chip, TASKS, np.array([2.5, 6.0]))


def test_a_tasks_memory_goes_from_trained_to_untrained() -> None:
    solved = solve(FREE, TASKS, START).values
    found = recall(
        learn_in_model, EXAMPLE.chip, TASKS[:1], TASKS[1:], STANDARD, solved, untrained=START,
        slot=2.5e-3, passes=4, first_slot=3,
    )  # fmt: skip
    assert found.forgotten.shape == (1, 5)
    assert found.forgotten[0, 0] == pytest.approx(0, abs=1e-15)
    assert found.time.tolist() == pytest.approx([0, 2.5e-3, 5e-3, 7.5e-3, 1e-2])
    left = task_errors(EXAMPLE.chip, found.training.trajectory.values, TASKS[:1])
    want = (left - found.trained[:, None]) / (found.untrained - found.trained)[:, None]
    np.testing.assert_allclose(found.forgotten, want, rtol=1e-9)
    # Were the network to go back to its begin, all would be forgotten.
    np.testing.assert_allclose(found.untrained, task_errors(EXAMPLE.chip, START, TASKS[:1]))


def test_what_was_not_learnt_cannot_be_forgotten() -> None:
    with pytest.raises(InputError, match="earlier task 0"):
        recall(
            learn_in_model, EXAMPLE.chip, TASKS[:1], TASKS[1:], STANDARD, START, untrained=START,
            slot=2.5e-3, passes=1,
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.ngspice
def test_an_idle_network_drifts_under_a_bias_and_not_when_overclamped(
    engine: NgspiceEngine,
) -> None:
    # It does both tasks and is shown one: only the bias moves it, along what solves that one.
    circuit = partial(learn_in_circuit, engine)
    solved = solve(FREE, TASKS, START).values

    def left(chip, rule):
        return recall(
            circuit, chip, TASKS[:1], TASKS[1:], rule, solved, untrained=START,
            slot=2.5e-3, passes=120,
        )  # fmt: skip

    drifted = left(EXAMPLE.chip, STANDARD)
    assert drifted.forgotten[0, -1] > 1.0
    assert drifted.training.error[1].max() < 1e-3 * drifted.training.error[0, -1] + 2e-4
    for still in (left(FREE, STANDARD), left(EXAMPLE.chip, OVERCLAMPED)):
        assert np.abs(still.forgotten).max() < 1e-4
    # In the same time the duty was next to nothing.
    assert left(EXAMPLE.chip, OVERCLAMPED).training.effective[-1] < 1e-3 * drifted.time[-1]
