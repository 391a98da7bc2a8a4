"""The linear theory of cycles: its derivatives, its exponentials, its cycle, its refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from spicenn.errors import ConvergenceError, InputError
from spicenn.learning import (
    CoupledLearning,
    Diode,
    Edge,
    EquilibriumPropagation,
    Hardware,
    LearningChip,
    Network,
    Overclamping,
    Resistor,
    Schedule,
    Task,
    Transistor,
    cyclic,
    ideal_chip,
    sample_chip,
)
from spicenn.learning.contrast import answers, mean_square_error, phases, speed
from spicenn.learning.examples import two_tasks
from spicenn.learning.linear import (
    Linearisation,
    linear_cycle,
    linearise,
    predict_cycle,
    propagators,
    solve_task,
    span,
)
from spicenn.learning.rules import Rule

Array = NDArray[np.float64]

_MIXED = Network(
    edges=(
        Edge("x", "h", Transistor()),
        Edge("h", "y", Transistor(transconductance=4e-4)),
        Edge("x", "y", Resistor(conductance=5e-4, learns=True)),
        Edge("h", "z", Transistor()),
        Edge("z", "0", Resistor(conductance=1e-3)),
        Edge("y", "0", Transistor(gate=2.0)),
        Edge("0", "h", Diode(saturation=1e-6)),
        Edge("z", "x", Resistor(conductance=3e-4, learns=True)),
    ),
    inputs=("x",),
    outputs=("y", "z"),
)  # fmt: skip
_SPREAD = Hardware(
    bias_std=1e-3, threshold_std=0.05, twin_threshold_std=0.01, transconductance_std=0.1,
    twin_transconductance_std=0.02, leakage=1e-9, output_offset_std=3e-3,
)  # fmt: skip


@pytest.mark.parametrize(
    "rule",
    [
        CoupledLearning(eta=0.4),
        CoupledLearning(eta=1.0),
        EquilibriumPropagation(beta=2e-4),
        EquilibriumPropagation(beta=1e-4, centred=True),
    ],
    ids=["coupled", "label", "one-sided", "centred"],
)
def test_pulls_and_slopes_are_the_derivatives_of_speed_and_answers(rule: Rule) -> None:
    """Against central differences, of a sampled network of every kind of edge."""
    chip = sample_chip(_MIXED, _SPREAD, chip=3, seed=1)
    task = Task([[0.4], [-0.2], [0.1]], [[0.2, 0.1], [0.0, -0.1], [0.05, 0.0]])
    at = np.array([2.4, 2.9, 6e-4, 2.0, 4e-4])
    law = linearise(chip, task, rule, at)

    def moved(values: Array) -> Array:
        return speed(chip, values, phases(chip, values, task.inputs, task.labels, rule), rule)

    for k, value in enumerate(at):
        step = np.zeros(5)
        step[k] = 1e-5 * value
        ends = [moved(at + step), moved(at - step)]
        slope = (ends[0] - ends[1]) / (2 * step[k])
        leak = np.zeros(5)
        leak[k] = law.leak[k]
        pull = -law.pull[:, :, k] - leak
        # Differences of speeds of 1 by 1e-5 of a value: 1e-10 of round-off, over 1e-5.
        assert np.abs(slope - pull).max() <= 1e-5 * np.abs(law.pull[:, :, k]).max()
        seen = (answers(chip, at + step, task.inputs) - answers(chip, at - step, task.inputs)) / (
            2 * step[k]
        )
        assert np.abs(seen - law.slope[:, :, k]).max() <= 1e-6 * np.abs(seen).max()
    whole = law.speed + law.drift - law.leak * at
    assert moved(at) == pytest.approx(whole, rel=1e-12, abs=1e-15)
    assert answers(chip, at, task.inputs) == pytest.approx(law.answer, rel=1e-9, abs=1e-12)


def test_at_a_solution_a_pull_is_symmetric_and_of_rank_one() -> None:
    """It is the curvature of a power, in the one direction that the only output sees."""
    example = two_tasks()
    at = solve_task(example.chip, example.task, np.array([2.5, 2.5]))
    assert mean_square_error(example.chip, at, example.task) < 1e-24
    law = linearise(example.chip, example.task, CoupledLearning(eta=0.5), at)
    for pull in law.pull:
        assert np.abs(pull - pull.T).max() <= 1e-9 * np.abs(pull).max()
        small, large = np.sort(np.abs(np.linalg.eigvalsh(pull)))
        assert small <= 1e-9 * large
    assert law.solutions == pytest.approx(np.stack([at, at]), rel=1e-9, abs=0)


def test_solutions_lie_where_their_example_is_answered() -> None:
    """To second order in the way there: ten times closer, a hundred times less error."""
    example = two_tasks()
    at = solve_task(example.chip, example.task, np.array([2.5, 2.5]))
    left = []
    for size in (1e-2, 1e-3):
        law = linearise(example.chip, example.task, CoupledLearning(), at + size * np.array([1, 2]))
        for n, solution in enumerate(law.solutions):
            one = Task(example.task.inputs[[n]], example.task.labels[[n]])
            left.append(np.sqrt(mean_square_error(example.chip, solution, one)))
    assert np.array(left[2:]) == pytest.approx(np.array(left[:2]) / 100, rel=0.1, abs=0)


@given(
    seed=st.integers(0, 10_000),
    size=st.integers(1, 4),
    rank=st.integers(0, 4),
    time=st.floats(1e-3, 3.0),
)
def test_propagators_solve_the_equation_of_any_matrix(
    seed: int, size: int, rank: int, time: float
) -> None:
    """K T + A = 1 and dT/dt = A; singular matrices are no exception."""
    root = np.random.default_rng(seed).standard_normal((size, min(rank, size)))
    matrix = root @ root.T
    held, gained = propagators(matrix, time)
    assert held == pytest.approx(expm(-matrix * time), abs=1e-10)
    assert matrix @ gained + held == pytest.approx(np.eye(size), abs=1e-9)
    _, later = propagators(matrix, time * 2)
    assert later == pytest.approx(gained + held @ gained, abs=1e-9)


def _law(seed: int, examples: int, values: int, *, leak: float = 0.0) -> Linearisation:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((examples, values, 2))
    pull = root @ root.transpose(0, 2, 1)
    solution = 0.3 * rng.standard_normal((examples, values))
    return Linearisation(
        at=rng.standard_normal(values),
        speed=np.einsum("ekl,el->ek", pull, solution),
        pull=pull,
        drift=rng.standard_normal(values),
        leak=np.full(values, leak),
        answer=np.zeros((examples, 1)),
        slope=np.zeros((examples, 1, values)),
    )


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 1000), leak=st.sampled_from([0.0, 0.3]))
def test_the_cycle_is_where_brute_force_integration_ends(seed: int, leak: float) -> None:
    """Three examples in an order of five slots, four values, pulls of rank two each."""
    law = _law(seed, 3, 4, leak=leak)
    schedule = Schedule([0, 1, 2, 1, 0], 0.6)
    cycle = linear_cycle(law, schedule)
    assert cycle.open <= 1e-9
    periods = int(np.ceil(np.log(1e-8) / np.log(cycle.contraction))) if cycle.contraction else 1
    now = law.at + 0.1
    for _ in range(min(max(periods, 1), 60)):
        ends = []
        for n in schedule.order:

            def change(_: float, g: Array, n: int = int(n)) -> Array:
                pulled = law.speed[n] - law.pull[n] @ (g - law.at)
                return np.asarray(pulled + law.drift - law.leak * g)

            now = solve_ivp(change, (0, schedule.slot), now, rtol=1e-8, atol=1e-10).y[:, -1]
            ends.append(now)
    left = cycle.contraction ** min(periods, 60)
    reach = 1e-5 + 10 * left * np.linalg.norm(cycle.start - law.at)
    assert np.abs(np.array(ends) - cycle.ends).max() <= reach
    path = cycle.path(7)
    assert path[::7][1:] == pytest.approx(cycle.ends, rel=1e-7, abs=1e-9)
    assert path[-1] == pytest.approx(path[0], rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("published", [False, True])
def test_two_examples_are_the_published_formula(published: bool) -> None:
    """g0 = (1 − A2 A1)⁺ (A2 T1 μ1 + T2 μ2), D = |A1 g0 + T1 μ1 − g0|, of any two pulls."""
    if published:
        example, time = two_tasks(), 0.04
        at = solve_task(example.chip, example.task, np.array([2.5, 2.5]))
        law = linearise(example.chip, example.task, CoupledLearning(), at)
        solutions = law.solutions
    else:
        law, time = _law(5, 2, 2), 0.37
        solutions = law.at + np.linalg.solve(law.pull, law.speed[..., None])[..., 0]
    mu = [law.pull[n] @ solutions[n] + law.drift for n in range(2)]
    held, gained = zip(*(propagators(law.pull[n], time) for n in range(2)), strict=True)
    start = np.linalg.pinv(np.eye(2) - held[1] @ held[0]) @ (
        held[1] @ gained[0] @ mu[0] + gained[1] @ mu[1]
    )
    distance = np.linalg.norm(held[0] @ start + gained[0] @ mu[0] - start)
    cycle = linear_cycle(law, Schedule([0, 1], time))
    assert cycle.start == pytest.approx(start, rel=1e-9, abs=1e-12)
    assert cycle.span == pytest.approx(distance, rel=1e-9, abs=0)


def test_without_bias_a_solvable_task_has_no_cycle() -> None:
    example = two_tasks(speeds=(0, 0))
    at = solve_task(example.chip, example.task, np.array([2.5, 2.5]))
    for period in (1e-3, 0.1):
        cycle = linear_cycle(
            linearise(example.chip, example.task, CoupledLearning(), at),
            cyclic(example.task, period),
        )
        assert cycle.span <= 1e-13
        assert cycle.squared_error(example.task, example.chip) <= 1e-26


@given(factor=st.floats(-5, 5).filter(lambda x: abs(x) > 1e-3))
@settings(max_examples=10, deadline=None)
def test_at_one_point_the_span_is_as_large_as_the_bias(factor: float) -> None:
    found = []
    for scale in (1.0, factor):
        example = two_tasks(speeds=(2.87 * scale, 4.72 * scale))
        at = np.array([2.56955777, 2.69912724])
        law = linearise(example.chip, example.task, CoupledLearning(), at)
        law = Linearisation(**{**vars(law), "speed": np.zeros_like(law.speed)})
        found.append(linear_cycle(law, cyclic(example.task, 0.01)).span)
    assert found[1] == pytest.approx(abs(factor) * found[0], rel=1e-9, abs=0)


def test_values_that_no_example_pulls_drift_and_are_told() -> None:
    """One example and two values: a bias along its solutions is not held by anything."""
    both = two_tasks()
    task = Task(both.task.inputs[:1], both.task.labels[:1])
    at = solve_task(both.chip, task, np.array([2.5, 2.5]))
    law = linearise(both.chip, task, CoupledLearning(), at)
    schedule = cyclic(task, 5e-3)
    along = np.linalg.svd(law.pull[0])[2][-1]
    cycle = linear_cycle(law, schedule)
    assert cycle.open == pytest.approx(abs(along @ law.drift) * 5e-3, rel=1e-6, abs=0)
    still = linear_cycle(Linearisation(**{**vars(law), "drift": np.zeros(2)}), schedule)
    assert still.open <= 1e-12


def test_a_cycle_linearised_at_its_own_mean_is_the_reference_at_small_periods() -> None:
    """D = 0.0083 V and 7.3e-5 V² at 1.2 ms, 0.0346 V and 7.4e-5 V² at 5 ms.

    Source: an independent run of the same example in ngspice 39.
    """
    example = two_tasks()
    at = solve_task(example.chip, example.task, np.array([2.5, 2.5]))
    for period, size, error in ((1.2e-3, 0.0083, 7.3e-5), (5e-3, 0.0346, 7.4e-5)):
        cycle = predict_cycle(
            example.chip, example.task, CoupledLearning(), cyclic(example.task, period), at
        )
        assert cycle.span == pytest.approx(size, rel=0.01, abs=0)
        assert cycle.squared_error(example.task, example.chip) == pytest.approx(
            error, rel=0.01, abs=0
        )
        assert np.abs(cycle.mean() - cycle.linearisation.at).max() <= 1e-6 * cycle.span + 1e-10


def test_what_has_no_linear_theory_is_refused() -> None:
    example = two_tasks()
    values = np.array([2.5, 2.5])
    with pytest.raises(InputError, match="no linear theory"):
        linearise(example.chip, example.task, Overclamping(low=0.0, high=0.4), values)
    with pytest.raises(InputError, match="2 edges"):
        linearise(example.chip, example.task, CoupledLearning(), np.ones(3))
    law = linearise(example.chip, example.task, CoupledLearning(), values)
    with pytest.raises(InputError, match="example 2"):
        linear_cycle(law, Schedule([0, 2], 1.0))
    with pytest.raises(ConvergenceError, match="still moves"):
        predict_cycle(
            _scaled(example.chip, 30.0), example.task, CoupledLearning(),
            cyclic(example.task, 5e-3), values, iterations=5,
        )  # fmt: skip


def test_a_span_is_the_largest_distance() -> None:
    assert span(np.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])) == 5.0
    assert span(np.zeros((1, 3))) == 0.0


def _scaled(chip: LearningChip, factor: float) -> LearningChip:
    return ideal_chip(chip.network, chip.hardware, bias=factor * chip.bias)
