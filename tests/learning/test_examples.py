"""The published examples, and the rule for pairs of outputs that one of them needs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.contrast import answers, phases, speed
from spicenn.learning.examples import (
    HIGH,
    LOW,
    linear_counterpart,
    regression,
    straight_line_error,
    xor,
)
from spicenn.learning.hardware import Hardware, start_values
from spicenn.learning.operating import operating_points
from spicenn.learning.rules import (
    CoupledLearning,
    Desynchronous,
    Differential,
    EquilibriumPropagation,
    Overclamping,
    Rule,
    describe,
)
from spicenn.learning.task import Task, cyclic
from spicenn.learning.transient import learn_in_circuit


def test_regression_is_the_published_curve_on_a_torus_of_32_edges() -> None:
    example = regression()
    assert len(example.chip.network.nodes) == 16
    assert len(example.chip.network.learning) == 32
    assert example.task.inputs[2].tolist() == [0.1251, LOW, HIGH]
    assert example.task.labels[2].tolist() == [0.1872]


def test_the_best_straight_line_is_that_of_a_fit() -> None:
    task = regression().task
    x, y = task.inputs[:, 0], task.labels[:, 0]
    rest = y - np.polyval(np.polyfit(x, y, 1), x)
    assert straight_line_error(task) == pytest.approx(float(np.mean(rest**2)), rel=1e-9, abs=0)
    straight = Task(task.inputs, 0.1 + 0.5 * task.inputs[:, :1])
    assert straight_line_error(straight) < 1e-30


def test_a_chip_is_drawn_with_its_seed_and_number() -> None:
    hardware = Hardware(bias_std=1e-3, threshold_std=0.01)
    first, again, other = (regression(hardware=hardware, seed=1, chip=k).chip for k in (3, 3, 4))
    assert np.array_equal(first.bias, again.bias)
    assert np.array_equal(first.threshold, again.threshold)
    assert not np.array_equal(first.bias, other.bias)
    assert regression(hardware=hardware).chip.bias.tolist() == [0.0] * 32


def test_xor_refuses_a_level_of_nothing() -> None:
    with pytest.raises(InputError, match="tells nothing apart"):
        xor(level=0.0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(LOW, HIGH), high=st.floats(LOW, HIGH))
def test_no_single_output_of_transistors_tells_xor(seed: int, low: float, high: float) -> None:
    """Every node rises with every input, so that (1, 1) is nowhere below (1, 0)."""
    example = xor()
    values = start_values(example.chip.network, 1.0, 5.0, seed=seed)
    below, above = sorted((low, high))
    cases = np.array([[below, below], [below, above], [above, below], [above, above]])
    inputs = Task(cases, np.zeros((4, 2))).with_constants([0.11, 0.33]).inputs
    found = answers(example.chip, values, inputs)
    for lower, higher in ((0, 1), (0, 2), (1, 3), (2, 3)):
        assert np.all(found[higher] >= found[lower] - 1e-12)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_linear_counterpart_is_affine_in_its_inputs(seed: int) -> None:
    """So that the difference of its outputs is wrong in at least one of XOR's four cases."""
    example = xor(hardware=Hardware(bias_std=1e-3), seed=5)
    values = start_values(example.chip.network, 1.0, 5.0, seed=seed)
    linear, conductances = linear_counterpart(example, values)
    found = answers(linear.chip, conductances, linear.task.inputs)
    difference = found[:, 0] - found[:, 1]
    # The shunt of 1e-10 S and Newton's residual are all that is left.
    assert difference[0] + difference[3] == pytest.approx(difference[1] + difference[2], abs=1e-10)
    assert np.array_equal(linear.chip.bias, example.chip.bias)
    bent = answers(example.chip, values, example.task.inputs)
    straight = answers(linear.chip, conductances, linear.task.inputs)
    assert not np.allclose(bent, straight, atol=1e-4)


def test_no_counterpart_of_edges_that_differ() -> None:
    linear, values = linear_counterpart(regression(), np.full(32, 2.0))
    with pytest.raises(InputError, match="alike transistors"):
        linear_counterpart(linear, values)


def test_pairs_are_clamped_apart_and_their_mean_is_left_alone() -> None:
    """O± ± (eta/2) (L − O) with the published eta = 1."""
    rule = Differential(CoupledLearning(eta=0.5))
    free, label = np.array([0.30, 0.10]), np.array([-0.08, 0.08])
    assert rule.clamped(free, label) == pytest.approx([0.30 - 0.14, 0.10 + 0.14])
    over = Differential(Overclamping(low=0.0, high=0.4, eta=0.25, full=0.5))
    assert over.clamped(free, label) == pytest.approx([0.75 * 0.30, 0.75 * 0.10 + 0.25 * 0.4])
    assert over.duty(free, label) == pytest.approx(0.28 / 0.5)


def test_pairs_need_a_rule_that_clamps_and_two_outputs() -> None:
    for wrong in (
        EquilibriumPropagation(beta=1e-5),
        Desynchronous(CoupledLearning(), 0.5),
        Differential(CoupledLearning()),
    ):
        with pytest.raises(InputError, match="no rule for pairs"):
            Differential(wrong)
    with pytest.raises(InputError, match="not pairs"):
        Differential(CoupledLearning()).clamped(np.zeros(3), np.zeros(3))


def test_a_pair_is_described_as_one() -> None:
    rule = Desynchronous(Differential(CoupledLearning(eta=0.5)), 0.25)
    found = describe(rule)
    assert found == {
        "rule": "CoupledLearning", "eta": 0.5, "rate": 2.0, "differential": True, "share": 0.25,
    }  # fmt: skip


@pytest.mark.ngspice
@pytest.mark.slow
@pytest.mark.parametrize(
    "rule",
    [
        Differential(CoupledLearning(eta=0.5)),
        Differential(Overclamping(low=LOW, high=HIGH, smoothing=1e-3)),
    ],
    ids=["coupled", "overclamped"],
)
def test_pairs_move_in_ngspice_as_their_arithmetic_says(rule: Rule) -> None:
    """A slot so short that speeds hardly change: the gates' move is speed times time."""
    example = xor(hardware=Hardware(bias_std=1e-3), seed=3)
    chip, task = example.chip, example.task
    values = start_values(chip.network, 1.2, 2.2, seed=1)
    schedule = cyclic(Task(task.inputs[1:2], task.labels[1:2]), 2e-5, edge=2e-9)
    with NgspiceEngine() as engine:
        done = learn_in_circuit(
            engine, chip, Task(task.inputs[1:2], task.labels[1:2]), rule, schedule, values, slots=1
        )
        rest = operating_points(engine, chip, values, task.inputs)
    found = phases(chip, values, task.inputs[1], task.labels[1], rule)
    expected = speed(chip, values, found, rule) * schedule.slot
    moved = done.values[-1] - values
    assert np.abs(moved - expected).max() < 0.01 * np.abs(expected).max()
    outputs = rest[:, chip.network.output_index]
    assert outputs == pytest.approx(answers(chip, values, task.inputs), abs=1e-6)
