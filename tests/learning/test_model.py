"""The transient's equation in Python against the transient of ngspice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.examples import HIGH, LOW, two_tasks
from spicenn.learning.hardware import Hardware, sample_chip, start_values
from spicenn.learning.model import _step, learn_in_model, learn_many
from spicenn.learning.network import grid, layered
from spicenn.learning.rules import CoupledLearning, EquilibriumPropagation, Overclamping, Rule
from spicenn.learning.task import Task, cyclic, shuffled
from spicenn.learning.trajectory import Trajectory
from spicenn.learning.transient import Solver, learn_in_circuit

# At the transient's usual eight steps per slot its own error is 5e-5 V in a few slots.
FINE = Solver(steps=400)
EXAMPLE = two_tasks()
SCHEDULE = cyclic(EXAMPLE.task, 5e-3)
START = np.array([2.5, 2.5])
OVERCLAMPED = Overclamping(low=LOW, high=HIGH)
RULES: list[Rule] = [CoupledLearning(), OVERCLAMPED, EquilibriumPropagation(beta=1e-3)]
GRID = grid(4, 4, inputs=("n0_0", "n1_1", "n3_1"), outputs=("n2_2", "n3_3"))
GRID_TASK = Task(
    [[0.0, 0.4, 0.1], [0.3, 0.0, 0.2], [0.1, 0.2, 0.4]], [[0.1, 0.2], [0.2, 0.1], [0.15, 0.3]]
)
IMPERFECT = Hardware(
    bias_std=2e-4, threshold_std=0.01, twin_threshold_std=3e-3, leakage=1e-9,
    output_offset_std=1e-3,
)  # fmt: skip


@pytest.fixture(scope="module")
def engine() -> Iterator[NgspiceEngine]:
    with NgspiceEngine(timeout=120) as engine:
        yield engine


def modelled(rule: Rule, slots: int, period: float = 5e-3, **options: Any) -> Trajectory:
    chip, task = EXAMPLE.chip, EXAMPLE.task
    return learn_in_model(chip, task, rule, cyclic(task, period), START, slots=slots, **options)


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_after_200_periods_gates_are_those_of_the_transient(
    engine: NgspiceEngine, rule: Rule
) -> None:
    """Within 1e-4 V, at any slot: the transient's steps are what differs, see below."""
    chip = two_tasks(hardware=Hardware(gate_high=6.0)).chip  # none of the three gets there
    setup = (chip, EXAMPLE.task, rule, SCHEDULE, START)
    found = learn_in_model(*setup, slots=400, tolerance=1e-5)
    expected = learn_in_circuit(engine, *setup, slots=400)
    assert np.abs(expected.values[-1] - START).max() > 0.05
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.parametrize("rule", [CoupledLearning(), OVERCLAMPED], ids=["coupled", "overclamping"])
def test_grids_with_mismatch_go_as_in_the_transient(engine: NgspiceEngine, rule: Rule) -> None:
    """32 gates that move by more than 0.3 V: within 3e-4 V."""
    chip = sample_chip(GRID, IMPERFECT, chip=1, seed=1)
    start = start_values(GRID, 1.5, 3.0, seed=5)
    setup = (chip, GRID_TASK, rule, cyclic(GRID_TASK, 15e-3), start)
    found = learn_in_model(*setup, slots=9)
    expected = learn_in_circuit(engine, *setup, slots=9)
    assert np.abs(expected.values[-1] - start).max() > 0.3
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=3e-4)
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=3e-5)


@pytest.mark.ngspice
def test_resistors_that_learn_and_leak_go_as_in_the_transient(engine: NgspiceEngine) -> None:
    network = layered([2, 3, 2])
    chip = sample_chip(network, replace(IMPERFECT, leakage=1e-7), chip=1, seed=1)
    task = Task([[0.0, 0.4], [0.3, 0.1]], [[0.1, 0.2], [0.2, 0.1]])
    start = np.full(len(network.learning), 1.5e-3)
    setup = (chip, task, CoupledLearning(), cyclic(task, 10e-3), start)
    found, expected = learn_in_model(*setup, slots=6), learn_in_circuit(engine, *setup, slots=6)
    assert np.abs(expected.values[-1] - start).max() > 1e-4
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-7)


@pytest.mark.ngspice
def test_gates_at_their_limits_go_beyond_as_in_the_transient(engine: NgspiceEngine) -> None:
    """The clamps are conductances: by millivolts, which the model has as well."""
    chip = two_tasks(hardware=Hardware(gate_low=2.47, gate_high=2.55)).chip
    setup = (chip, EXAMPLE.task, CoupledLearning(), cyclic(EXAMPLE.task, 40e-3), START)
    expected = learn_in_circuit(engine, *setup, slots=4, solver=FINE)
    assert expected.values.max() > 2.5501
    for tolerance, bound in ((1e-6, 3e-6), (1e-4, 1e-4)):
        found = learn_in_model(*setup, slots=4, tolerance=tolerance)
        np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=bound)


@pytest.mark.slow
def test_a_clamp_lets_go_of_a_gate_at_any_tolerance() -> None:
    """Long steps would take it for a spring, and be off by 3e-5 V and more."""
    rule, begin = EquilibriumPropagation(beta=1e-3), [4.95, 4.9986]
    setup = (EXAMPLE.chip, EXAMPLE.task, rule, SCHEDULE, begin)
    coarse, fine = (learn_in_model(*setup, slots=8, tolerance=by).values for by in (1e-5, 1e-8))
    assert fine.max() > 5.0001
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=1e-6)


@pytest.mark.ngspice
def test_long_edges_and_an_order_that_is_shuffled_are_followed(engine: NgspiceEngine) -> None:
    schedule = shuffled(EXAMPLE.task, 5e-3, passes=4, seed=2, edge=5e-4)
    setup = (EXAMPLE.chip, EXAMPLE.task, CoupledLearning(), schedule, START)
    found = learn_in_model(*setup, slots=5, first_slot=3)
    expected = learn_in_circuit(engine, *setup, slots=5, first_slot=3, solver=FINE)
    np.testing.assert_array_equal(found.examples, expected.examples)
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=3e-6)


def test_steps_are_of_the_fourth_order() -> None:
    """Of any equation, here one that depends on time: half the step, a sixteenth of the error."""

    def slope(volts: Any, time: Any, _: Any) -> Any:
        a, b = volts[..., 0], volts[..., 1]
        return np.stack([-a * a * b + np.sin(3 * time), a - b**3 + time**2], axis=-1)

    exact = solve_ivp(
        lambda t, y: slope(np.array(y), t, None), (0, 1), [1.0, 0.5], method="DOP853",
        rtol=1e-12, atol=1e-13,
    ).y[:, -1]  # fmt: skip
    bench: Any = SimpleNamespace(low=np.full((1, 1), -9.0), high=np.full((1, 1), 9.0),
                                 pull=np.ones((1, 1)))  # fmt: skip
    error = []
    for steps in (10, 20, 40):
        volts = np.array([[1.0, 0.5]])
        for k in range(steps):
            size = np.array([1 / steps])
            volts, _ = _step(bench, slope, volts, k * size, size, np.array([0]))
        error.append(np.abs(volts[0] - exact).max())
    np.testing.assert_allclose(np.log2(np.divide(error[:-1], error[1:])), 4.0, atol=0.25)


def test_a_smaller_tolerance_is_a_smaller_error() -> None:
    exact = modelled(CoupledLearning(), 2, 80e-3, tolerance=1e-9).values
    error = [
        np.abs(modelled(CoupledLearning(), 2, 80e-3, tolerance=by).values - exact).max()
        for by in (1e-3, 1e-6)
    ]
    assert error[0] < 1e-2
    assert error[1] < 1e-2 * error[0]


def test_a_comparator_of_a_microvolt_is_no_obstacle() -> None:
    """Clamped to rails by the sign alone, gates slide along the solution: the stiffest case."""
    rule = Overclamping(low=LOW, high=HIGH, time=False, smoothing=1e-6)
    found = modelled(rule, 2, tolerance=1e-5)
    assert np.isfinite(found.values).all()
    # Where an error is gone the comparator is between its rails.
    assert np.abs(found.outputs - EXAMPLE.task.labels[found.examples]).min() < 1e-5


def test_a_run_is_gone_on_with_at_any_slot() -> None:
    rule = CoupledLearning()
    whole = modelled(rule, 9)
    parts: list[Trajectory] = []
    again = modelled(rule, 9, slots_at_once=4, progress=parts.append)
    assert [part.first_slot for part in parts] == [0, 4, 8]
    np.testing.assert_array_equal(again.values, whole.values)
    setup = (EXAMPLE.chip, EXAMPLE.task, rule, SCHEDULE)
    late = learn_in_model(*setup, whole.values[5], slots=4, first_slot=5)
    np.testing.assert_allclose(late.values, whole.values[5:], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(late.examples, whole.examples[5:])


def test_runs_side_by_side_are_those_one_after_the_other() -> None:
    """Of chips with other bias, offset, transistors, range, noise and begin."""
    noisy = Hardware(update_noise=1e-5, output_noise=1e-4, gate_high=2.52)
    network = EXAMPLE.chip.network
    chips = [
        EXAMPLE.chip,
        two_tasks(speeds=(20.0, -5.0)).chip,
        replace(EXAMPLE.chip, output_offset=np.array([0.02]), leakage=np.full(2, 1e-8)),
        sample_chip(network, IMPERFECT, chip=3, seed=1),
        two_tasks(hardware=noisy).chip,
        two_tasks(hardware=noisy).chip,
    ]
    starts = np.linspace(2.3, 2.7, 12).reshape(6, 2)
    trials = [0, 0, 0, 0, 0, 1]
    setup = (EXAMPLE.task, CoupledLearning(), SCHEDULE)
    many = learn_many(chips, *setup, starts, slots=3, seed=3, trials=trials)
    for chip, start, trial, found in zip(chips, starts, trials, many, strict=True):
        alone = learn_in_model(chip, *setup, start, slots=3, seed=3, trial=trial)
        np.testing.assert_allclose(found.values, alone.values, rtol=0, atol=1e-11)
        np.testing.assert_allclose(found.outputs, alone.outputs, rtol=0, atol=1e-11)
    ends = np.stack([found.values[-1] for found in many])
    assert np.abs(ends[4] - ends[5]).max() > 1e-3


def test_nothing_moves_where_nothing_is_to_be_learnt() -> None:
    """Labels that are the answers, and no bias."""
    chip = two_tasks(speeds=(0.0, 0.0)).chip
    answers = learn_in_model(chip, *(EXAMPLE.task, CoupledLearning(), SCHEDULE), START, slots=2)
    task = Task(EXAMPLE.task.inputs[:1], [[0.31]])
    solved = learn_in_model(chip, task, CoupledLearning(), cyclic(task, 1.0), START, slots=2)
    assert abs(solved.outputs[-1] - 0.31)[0] < 1e-6
    again = learn_in_model(
        chip, task, CoupledLearning(), cyclic(task, 1.0), solved.values[-1], slots=2
    )
    np.testing.assert_allclose(again.values[-1], solved.values[-1], rtol=0, atol=1e-6)
    assert np.abs(answers.values[-1] - START).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"values": np.ones(3)}, "2 edges"),
        ({"values": np.ones((2, 2)), "trials": [0]}, "1 trials"),
        ({"values": np.array([math.nan, 1.0])}, "finite"),
        ({"slots": 0}, "slots = 0"),
        ({"first_slot": -1}, "slot -1"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"chips": []}, "no chip"),
        ({"chips": [EXAMPLE.chip, sample_chip(GRID, IMPERFECT, chip=0, seed=0)]}, "networks"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"chips": EXAMPLE.chip, "values": START, "slots": 2, **change}
    chips, values = given.pop("chips"), given.pop("values")
    with pytest.raises(InputError, match=said):
        learn_many(chips, EXAMPLE.task, CoupledLearning(), SCHEDULE, values, **given)
