"""Cycles found in the circuit close, are the theory's where it holds, and are refused else."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import ConvergenceError, InputError
from spicenn.learning import (
    CoupledLearning,
    EquilibriumPropagation,
    Hardware,
    LearningChip,
    Overclamping,
    Schedule,
    Task,
    cyclic,
    graph,
    learn_in_circuit,
    sample_chip,
)
from spicenn.learning.cycle import LimitCycle, find_cycle, finer, period_derivative
from spicenn.learning.examples import HIGH, LOW, two_tasks
from spicenn.learning.linear import predict_cycle, solve_task
from spicenn.learning.model import learn_in_model
from spicenn.learning.rules import Rule

Array = NDArray[np.float64]

pytestmark = pytest.mark.ngspice
_START = np.array([2.5, 2.5])


@pytest.fixture(scope="module")
def engine() -> Iterator[NgspiceEngine]:
    with NgspiceEngine() as engine:
        yield engine


def _consistent(cycle: LimitCycle, schedule: Schedule) -> None:
    """What a cycle says of itself fits."""
    points = (len(cycle.path) - 1) // len(schedule.order)
    assert cycle.path[0] == pytest.approx(cycle.start, abs=1e-12)
    # Other steps of the transient: as close as its tolerances and the cycle's.
    assert np.abs(cycle.path[::points][1:] - cycle.ends).max() <= 2e-3 * cycle.span
    assert cycle.time[-1] - cycle.time[0] == pytest.approx(schedule.period, rel=1e-9)
    assert np.linalg.norm(cycle.ends[-1] - cycle.start) == pytest.approx(cycle.closed, rel=1e-6)


@pytest.mark.parametrize("period", [1.2e-3, 5e-3])
def test_at_small_periods_the_circuit_does_what_the_theory_says(
    engine: NgspiceEngine, period: float
) -> None:
    """Span within 3 % (it is 0.02 %), error too, and every point of the path."""
    example, rule = two_tasks(), CoupledLearning()
    schedule = cyclic(example.task, period)
    at = solve_task(example.chip, example.task, _START)
    theory = predict_cycle(example.chip, example.task, rule, schedule, at)
    cycle = find_cycle(
        partial(learn_in_circuit, engine), example.chip, example.task, rule, schedule, at, points=10
    )
    _consistent(cycle, schedule)
    assert cycle.span == pytest.approx(theory.span, rel=0.03, abs=0)
    assert cycle.squared_error(example.chip, example.task) == pytest.approx(
        theory.squared_error(example.task, example.chip), rel=0.03, abs=0
    )
    assert np.abs(cycle.path - theory.path(10)).max() <= 0.03 * theory.span
    assert np.abs(cycle.mean() - theory.mean()).max() <= 0.03 * theory.span
    assert cycle.contraction == pytest.approx(theory.contraction, rel=1e-3)


@pytest.mark.parametrize(
    "rule", [CoupledLearning(eta=0.6), EquilibriumPropagation(beta=5e-4, centred=True)],
    ids=["coupled", "nudged"],
)  # fmt: skip
def test_sampled_chips_do_too(engine: NgspiceEngine, rule: Rule) -> None:
    """Unequal transistors and twins, offsets, leakage and a bias of their own."""
    hardware = Hardware(
        bias_std=5e-4, threshold_std=0.02, twin_threshold_std=1e-3, transconductance_std=0.05,
        output_offset_std=1e-3, leakage=2e-9,
    )  # fmt: skip
    task = two_tasks().task
    chip = sample_chip(two_tasks().chip.network, hardware, chip=1, seed=5)
    schedule = cyclic(task, 5e-3)
    at = solve_task(chip, task, _START)
    theory = predict_cycle(chip, task, rule, schedule, at)
    cycle = find_cycle(partial(learn_in_circuit, engine), chip, task, rule, schedule, at, points=2)
    assert cycle.span == pytest.approx(theory.span, rel=0.03, abs=0)
    assert cycle.start == pytest.approx(theory.start, abs=0.03 * theory.span)


def test_many_values_and_examples_do_too(engine: NgspiceEngine) -> None:
    """Seven transistors, two outputs, three examples in five slots, held where none pulls.

    Leakage against a bias decides those directions, of which there are one or more.
    """
    network = graph(
        [("x", "h"), ("h", "y"), ("x", "y"), ("h", "z"), ("z", "low"), ("y", "low"), ("x", "z")],
        inputs=("x", "low"), outputs=("y", "z"),
    )  # fmt: skip
    hardware = Hardware(leakage=2e-7, bias_std=3e-4, transconductance_std=0.1)
    chip = sample_chip(network, hardware, chip=2, seed=3)
    bias = chip.bias + 2.5 * hardware.leakage / hardware.capacitance * float(hardware.bias_of(1, 2))
    chip = LearningChip(**{**vars(chip), "bias": bias})
    task = Task(
        [[0.4, 0.0], [0.2, 0.0], [0.3, 0.1]], [[0.2, 0.15], [0.1, 0.08], [0.2, 0.17]]
    )  # fmt: skip
    schedule = Schedule([0, 1, 2, 1, 0], 2e-3)
    rule = CoupledLearning(eta=0.5)
    theory = predict_cycle(chip, task, rule, schedule, np.full(7, 2.5))
    assert theory.contraction < 0.95
    cycle = find_cycle(
        partial(learn_in_circuit, engine), chip, task, rule, schedule, np.full(7, 2.5), points=1
    )
    assert cycle.span == pytest.approx(theory.span, rel=0.03, abs=0)
    assert np.abs(cycle.ends - theory.ends).max() <= 0.03 * theory.span


@pytest.mark.slow
def test_the_step_finds_what_learning_on_ends_in(engine: NgspiceEngine) -> None:
    """A large cycle, in the circuit by steps, by learning on, and computed."""
    example, rule = two_tasks(), CoupledLearning()
    schedule = cyclic(example.task, 0.0796)
    circuit = partial(learn_in_circuit, engine)
    arguments = example.chip, example.task, rule, schedule, _START
    fast = find_cycle(circuit, *arguments, points=1)
    slow = find_cycle(circuit, *arguments, points=1, accelerate=False)
    other = find_cycle(learn_in_model, *arguments[:4], fast.start, points=1)
    assert fast.periods <= 8 < slow.periods
    assert slow.span == pytest.approx(fast.span, rel=2e-3)
    assert other.span == pytest.approx(fast.span, rel=2e-3)
    # An independent run in ngspice 39 gave 0.565 V.
    assert fast.span == pytest.approx(0.565, rel=0.02)


@pytest.mark.parametrize(
    ("high", "reach"), [(5.0, 0.02), (3.0, 0.05)], ids=["free", "limited"]
)  # fmt: skip
def test_a_periods_derivative_is_that_of_the_circuit(
    engine: NgspiceEngine, high: float, reach: float
) -> None:
    """Against differences of periods; a capacitor at its limit forgets where it came from.

    One that gets there within a slot is taken as if it had been there from the slot's begin.
    """
    example = two_tasks(hardware=Hardware(gate_high=high))
    rule, schedule = CoupledLearning(), cyclic(example.task, 0.02)
    begin = np.array([2.95, 2.98])

    def run(values: Array) -> Array:
        return learn_in_circuit(
            engine, example.chip, example.task, rule, schedule, values, slots=2
        ).values

    found = period_derivative(example.chip, example.task, rule, schedule, run(begin))
    for k, step in enumerate(1e-3 * np.eye(2)):
        seen = (run(begin + step)[-1] - run(begin - step)[-1]) / 2e-3
        assert seen == pytest.approx(found[:, k], abs=reach)


def test_without_bias_there_is_no_cycle_but_that_of_the_edges(engine: NgspiceEngine) -> None:
    """What is left is learnt while inputs and labels change: a tenth of that is a tenth."""
    example, rule = two_tasks(speeds=(0, 0)), CoupledLearning()
    spans = []
    for edge in (1e-3, 1e-4):
        schedule = cyclic(example.task, 0.1, edge=edge * 0.05)
        cycle = find_cycle(
            partial(learn_in_circuit, engine), example.chip, example.task, rule, schedule, _START,
            floor=1e-8, points=1,
        )  # fmt: skip
        spans.append(cycle.span)
        assert cycle.squared_error(example.chip, example.task) < 1e-12
    assert spans[1] < 5e-6
    # A charge of the nodes' capacitors adds 5e-7 V.
    assert spans[1] == pytest.approx(spans[0] / 10, abs=5e-7)


def test_a_rule_without_a_linear_law_learns_on(engine: NgspiceEngine) -> None:
    example = two_tasks()
    rule = Overclamping(low=LOW, high=HIGH, smoothing=1e-3)
    schedule = cyclic(example.task, 5e-3)
    at = solve_task(example.chip, example.task, _START)
    cycle = find_cycle(
        partial(learn_in_circuit, engine), example.chip, example.task, rule, schedule, at,
        tolerance=0.05, points=1,
    )  # fmt: skip
    assert np.isnan(cycle.contraction)
    assert cycle.closed <= cycle.away <= 0.05 * cycle.span + 1e-6


def test_values_that_drift_are_no_cycle(engine: NgspiceEngine) -> None:
    example = two_tasks()
    task = Task(example.task.inputs[:1], example.task.labels[:1])
    with pytest.raises(ConvergenceError, match="still ends"):
        find_cycle(
            partial(learn_in_circuit, engine), example.chip, task, CoupledLearning(),
            cyclic(task, 5e-3), _START, periods=6, points=1,
        )  # fmt: skip


def test_arguments_out_of_range_are_refused() -> None:
    example = two_tasks()
    with pytest.raises(InputError, match="periods = 0"):
        find_cycle(
            learn_in_model, example.chip, example.task, CoupledLearning(),
            cyclic(example.task, 5e-3), _START, periods=0,
        )  # fmt: skip


def test_a_finer_schedule_shows_the_same() -> None:
    schedule = Schedule([1, 0, 1], 0.3)
    fine = finer(schedule, 4)
    assert fine.order.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert fine.period == pytest.approx(schedule.period)
    assert fine.edge == schedule.edge
    assert finer(schedule, 100_000).edge < schedule.edge
