"""Learning inside the circuit: its equation, its imperfections, where it can be interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import fsolve
from scipy.stats import chi2

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import ConvergenceError, InputError
from spicenn.learning import transient
from spicenn.learning.contrast import answers, mean_square_error, phases, speed
from spicenn.learning.disturbance import draw_disturbance
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.examples import HIGH, LOW, Example, two_tasks
from spicenn.learning.hardware import Hardware, LearningChip, ideal_chip, sample_chip, start_values
from spicenn.learning.network import Edge, Network, grid, layered
from spicenn.learning.rules import (
    CoupledLearning,
    Desynchronous,
    EquilibriumPropagation,
    Overclamping,
    Rule,
)
from spicenn.learning.task import Schedule, Task, cyclic, shuffled
from spicenn.learning.trajectory import Trajectory
from spicenn.learning.transient import Solver, learn_in_circuit

pytestmark = pytest.mark.ngspice

Array = NDArray[np.float64]

FREE = Hardware(gate_low=-50.0, gate_high=50.0)
OVER = Overclamping(low=LOW, high=HIGH, eta=0.25, smoothing=1e-4)
PERIOD = 5e-3
# Two outputs, all three elements, an edge of each kind that learns.
MIXED = Network(
    edges=(
        Edge("in", "mid", Transistor()), Edge("mid", "one", Resistor(learns=True)),
        Edge("mid", "two", Transistor()), Edge("one", "two", Resistor(conductance=2e-4)),
        Edge("one", "low", Transistor(gate=2.0)), Edge("two", "low", Transistor()),
        Edge("mid", "low", Diode(saturation=1e-9)),
    ),
    inputs=("in", "low"),
    outputs=("one", "two"),
)  # fmt: skip
SPREAD = Hardware(
    bias_std=1e-3, output_offset_std=1e-3, leakage=1e-9, threshold_std=0.02,
    twin_threshold_std=0.01, transconductance_std=0.05, twin_transconductance_std=0.02,
)  # fmt: skip
BEGIN = np.array([3.0, 2e-3, 2.5, 2.2])
GRID = grid(4, 4, inputs=["n0_0", "n0_2", "n2_0"], outputs=["n2_2"])


def learnt(engine: NgspiceEngine, example: Example, values: Array, slots: int, **more: Any) -> Any:
    rule = more.pop("rule", CoupledLearning())
    schedule = cyclic(example.task, PERIOD)
    return learn_in_circuit(
        engine, example.chip, example.task, rule, schedule, values, slots=slots, **more
    )


def solution(example: Example) -> Array:
    """Gates of the example at which both tasks are solved."""
    chip, task = example.chip, example.task
    found = fsolve(lambda v: (answers(chip, v, task.inputs) - task.labels)[:, 0], [2.5, 2.6])
    assert mean_square_error(chip, found, task) < 1e-18
    return np.asarray(found)


def span(found: Trajectory) -> float:
    """Distance between the two ends of the cycle [V]."""
    return float(np.linalg.norm(found.values[-1] - found.values[-2]))


@pytest.mark.parametrize(
    "rule",
    [
        CoupledLearning(eta=0.5),
        Overclamping(low=0.0, high=0.45, smoothing=1e-3),
        EquilibriumPropagation(beta=1e-4),
        EquilibriumPropagation(beta=1e-4, centred=True),
    ],
    ids=str,
)
def test_a_slot_is_the_speed_at_rest_integrated(engine: NgspiceEngine, rule: Rule) -> None:
    """Trapezoid over one slot of 10 us; 1e-3 of what moves and the solver's 1e-7 of the gates."""
    chip = sample_chip(MIXED, SPREAD, chip=1, seed=2)
    task = Task([[0.4, 0.0]], [[0.25, 0.1]])
    found = learn_in_circuit(engine, chip, task, rule, cyclic(task, 1e-5), BEGIN, slots=1)
    ends = [
        speed(chip, v, phases(chip, v, task.inputs[0], task.labels[0], rule), rule)
        for v in found.values
    ]
    expected = 1e-5 * (ends[0] + ends[1]) / 2
    moved = found.values[1] - found.values[0]
    assert np.abs(expected[[0, 2, 3]]).max() > 1e-5
    scale = np.array([1, 1e-3, 1, 1])
    np.testing.assert_allclose(
        moved / scale, expected / scale, rtol=1e-3, atol=3e-7 * float(BEGIN.max())
    )
    rest = phases(chip, found.values[1], task.inputs[0], task.labels[0], rule)
    np.testing.assert_allclose(found.outputs[0], rest.first[MIXED.output_index], atol=1e-6, rtol=0)


@pytest.mark.parametrize("disturbed", [False, True])
def test_a_run_is_gone_on_with_at_any_slot(engine: NgspiceEngine, disturbed: bool) -> None:
    hardware = replace(FREE, update_noise=1e-5, output_noise=1e-5) if disturbed else FREE
    example = two_tasks(hardware=hardware)
    rule = Desynchronous(CoupledLearning(), 0.7) if disturbed else CoupledLearning()
    begin, more = np.array([2.5, 2.6]), {"rule": rule, "seed": 1}
    seen: list[Trajectory] = []
    whole = learnt(engine, example, begin, 24, progress=seen.append, **more)
    assert sum(len(part.examples) for part in seen) == 24
    first = learnt(engine, example, begin, 9, **more)
    second = learnt(engine, example, first.values[-1], 15, first_slot=9, slots_at_once=4, **more)
    np.testing.assert_allclose(first.values, whole.values[:10], rtol=0, atol=1e-6)
    np.testing.assert_allclose(second.values, whole.values[9:], rtol=0, atol=2e-6)
    assert second.examples.tolist() == whole.examples[9:].tolist()
    np.testing.assert_array_equal(second.time, whole.time[9:])


def test_orders_of_any_length_show_their_examples(engine: NgspiceEngine) -> None:
    """Outputs tell which example was shown, wherever a transient of a long order begins."""
    example = two_tasks(hardware=FREE)
    schedule = shuffled(example.task, PERIOD, passes=6, seed=3)
    begin = solution(example)
    for first, slots in ((0, 5), (3, 4), (9, 30)):
        found = learn_in_circuit(
            engine, example.chip, example.task, CoupledLearning(), schedule, begin,
            slots=slots, first_slot=first,
        )  # fmt: skip
        labels = example.task.labels[schedule.examples(slots, first)]
        assert np.abs(found.outputs - labels).max() < 0.03


def test_leakage_empties_a_capacitor_exponentially(engine: NgspiceEngine) -> None:
    """exp(-t g/C) to 1e-4, of gates and of a conductance: some 80 steps of 1e-7 to 1e-6 each."""
    hardware = Hardware(leakage=22e-9 * 10, gate_low=0.0)
    chip = ideal_chip(MIXED, hardware)
    task = Task([[0.4, 0.0]], [[0.25, 0.1]])
    found = learn_in_circuit(
        engine, chip, task, CoupledLearning(rate=1e-9), cyclic(task, 0.02), BEGIN, slots=3
    )
    for n, t in enumerate(found.time):
        np.testing.assert_allclose(found.values[n], BEGIN * math.exp(-10 * t), rtol=1e-4)


def test_gates_stay_in_their_range(engine: NgspiceEngine) -> None:
    """The clamps have 1 mS: a bias' microampere pushes a gate 1 mV beyond."""
    hardware = Hardware(gate_low=2.0, gate_high=3.0)
    bias = hardware.bias_of([-40.0, 40.0, 40.0, 0.0], 2.0)
    chip = ideal_chip(MIXED, replace(hardware, conductance_per_volt=1e-3), bias=bias)
    task = Task([[0.4, 0.0]], [[0.25, 0.1]])
    found = learn_in_circuit(
        engine, chip, task, CoupledLearning(eta=1e-3), cyclic(task, 0.05), BEGIN, slots=2
    ).values[-1]
    np.testing.assert_allclose(found[:3], [2.0, 3e-3, 3.0], rtol=1e-3)
    assert found[0] < 2.0
    assert found[1] > 3e-3


def test_without_bias_there_is_no_cycle_and_with_it_there_is(engine: NgspiceEngine) -> None:
    """D = 0.03464 V at 5 ms within 1 %, as the whole transient of 600 periods has it."""
    still = two_tasks(hardware=FREE, speeds=(0.0, 0.0))
    begin = solution(still)
    found = learnt(engine, still, begin + np.array([0.1, -0.1]), 120)
    assert span(found) < 1e-4
    assert mean_square_error(still.chip, found.values[-2:], still.task).max() < 1e-10
    biased = learnt(engine, two_tasks(hardware=FREE), begin, 240)
    assert span(biased) == pytest.approx(0.03464, rel=0.01)


@pytest.mark.slow
def test_overclamping_leaves_less_than_a_thousandth_of_the_error_and_the_comparators_offset(
    engine: NgspiceEngine,
) -> None:
    example = two_tasks(hardware=FREE)
    standard = learnt(engine, example, solution(example), 240)
    before = mean_square_error(example.chip, standard.values[-2:], example.task).mean()
    assert before == pytest.approx(7.4e-5, rel=0.05)
    over = learnt(engine, example, standard.values[-1], 260, rule=OVER)
    after = mean_square_error(example.chip, over.values[-2:], example.task).mean()
    assert after < 1e-3 * before
    off = two_tasks(hardware=replace(FREE, output_offset=1e-3))
    shifted = learnt(engine, off, over.values[-1], 120, rule=OVER)
    left = mean_square_error(off.chip, shifted.values[-2:], off.task).mean()
    assert left == pytest.approx(1e-6, rel=0.1)


def small(hardware: Hardware, period: float) -> tuple[LearningChip, Task, Schedule, Array]:
    """A grid whose contrast hardly changes while it is looked at."""
    chip = ideal_chip(GRID, hardware)
    task = Task([[0.3, LOW, HIGH]], [[0.2]])
    return chip, task, cyclic(task, period), start_values(GRID, 3.0, 4.0, seed=1)


def test_noise_walks_a_gate_as_far_as_it_should(engine: NgspiceEngine) -> None:
    """Every edge by the sum of its own draws; all of them within a chi-square's 1e-4 tails.

    The variance after n slots of T is n (r T / (V0 R C))² u² / (2T).
    """
    density, slot, slots = 1e-5, 1e-4, 30
    noisy = replace(FREE, update_noise=density)
    chip, task, schedule, begin = small(noisy, slot)
    rule = CoupledLearning(eta=0.1)
    more: dict[str, Any] = {"slots": slots}
    found = learn_in_circuit(engine, chip, task, rule, schedule, begin, seed=3, **more)
    quiet = learn_in_circuit(engine, ideal_chip(GRID, FREE), task, rule, schedule, begin, **more)
    walked = found.values[-1] - quiet.values[-1]
    gain = rule.rate * slot / (noisy.v0 * noisy.resistance * noisy.capacitance)
    drawn = draw_disturbance(chip, rule, slot, slots=slots, seed=3).update
    assert drawn is not None
    # Slots' edges are 1e-4 of them, and both networks drift by little.
    np.testing.assert_allclose(walked, gain * drawn.sum(axis=0), rtol=0.01, atol=2e-6)
    variance = slots * gain**2 * density**2 / (2 * slot)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], 32)
    assert low < (walked**2).sum() / variance < high


def test_comparators_noise_is_in_the_labels(engine: NgspiceEngine) -> None:
    """With eta = 1 the second network's outputs are where the noise says: its draws are seen."""
    hardware = replace(FREE, output_noise=1e-4)
    chip, task, schedule, begin = small(hardware, 1e-4)
    rule = CoupledLearning(eta=1.0)
    found = learn_in_circuit(engine, chip, task, rule, schedule, begin, slots=4, seed=3)
    drawn = draw_disturbance(chip, rule, 1e-4, slots=4, seed=3)
    for k in range(4):
        label = task.labels[0] + drawn.at(k)[1]
        ends = [
            speed(chip, v, phases(chip, v, task.inputs[0], label, rule), rule)
            for v in found.values[k : k + 2]
        ]
        moved = np.diff(found.values[k : k + 2], axis=0)[0]
        np.testing.assert_allclose(moved, 1e-4 * (ends[0] + ends[1]) / 2, rtol=2e-3, atol=3e-6)


def test_half_of_the_edges_learn_at_half_the_speed(engine: NgspiceEngine) -> None:
    """Each edge as often as it was drawn; in all half as far, within 4.5 binomial errors."""
    chip, task, schedule, begin = small(FREE, 1e-5)
    slots = 40
    moved = {}
    for share in (1.0, 0.5):
        rule = Desynchronous(CoupledLearning(), share)
        found = learn_in_circuit(
            engine, chip, task, rule, schedule, begin, slots=slots, seed=5
        ).values
        moved[share] = found[-1] - found[0]
    drawn = draw_disturbance(chip, Desynchronous(CoupledLearning(), 0.5), 1e-5, slots=slots, seed=5)
    assert drawn.active is not None
    part = drawn.active.mean(axis=0)
    np.testing.assert_allclose(moved[0.5], part * moved[1.0], rtol=0.05, atol=1e-5)
    ratio = np.abs(moved[0.5]).sum() / np.abs(moved[1.0]).sum()
    weight = np.abs(moved[1.0]) / np.abs(moved[1.0]).sum()
    assert abs(ratio - 0.5) < 4.5 * math.sqrt(0.25 / slots * (weight**2).sum())


def test_equilibrium_propagation_descends_the_squared_error(engine: NgspiceEngine) -> None:
    """Resistors whose values the task can be solved with: every period leaves less than half."""
    network = layered([3, 3, 1])
    chip = ideal_chip(network, Hardware(gate_low=0.05))
    begin = start_values(network, 0.5e-3, 1.5e-3, seed=2)
    inputs = np.array([[0.4, 0.0, 0.2], [0.0, 0.4, 0.2]])
    target = answers(chip, start_values(network, 0.5e-3, 1.5e-3, seed=7), inputs)
    task = Task(inputs, target)
    rule = EquilibriumPropagation(beta=1e-4, centred=True, rate=40.0)
    schedule = cyclic(task, 0.02)
    found = learn_in_circuit(engine, chip, task, rule, schedule, begin, slots=12)
    errors = mean_square_error(chip, found.values[::2], task)
    assert errors[0] > 1e-6
    assert (errors[1:] < 0.8 * errors[:-1]).all()


STEEP = Overclamping(low=LOW, high=HIGH, smoothing=1e-12)


def test_a_slot_that_ngspice_gives_up_is_solved_and_listed(engine: NgspiceEngine) -> None:
    """A comparator without any width: what it is 1e-10 V wide gives is what comes out."""
    example = two_tasks()
    begin = np.array([2.5, 2.5])
    found = learnt(engine, example, begin, 48, rule=STEEP)
    assert found.aborts
    for abort in found.aborts:
        assert "Timestep too small" in abort.message
        assert abort.settings == str(transient._RETRIES[abort.retry - 1])
        assert "steps a slot" in abort.settings
    smooth = learnt(engine, example, begin, 48, rule=replace(STEEP, smoothing=1e-10))
    assert not smooth.aborts
    np.testing.assert_allclose(found.values, smooth.values, rtol=0, atol=1e-5)


def test_what_was_learnt_before_a_slot_without_solution_is_not_lost(
    engine: NgspiceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transient, "_RETRIES", transient._RETRIES[:0])
    seen: list[Trajectory] = []
    with pytest.raises(ConvergenceError, match=r"slot (\d+) of the schedule") as error:
        learnt(engine, two_tasks(), np.array([2.5, 2.5]), 48, rule=STEEP, progress=seen.append)
    done = sum(len(part.examples) for part in seen)
    assert 0 < done < 48
    assert f"slot {done} of the schedule" in error.value.what


def test_transistors_that_are_cut_off_are_no_hindrance(engine: NgspiceEngine) -> None:
    """Gates about the threshold, thresholds that differ, nodes on the shunt alone at times."""
    hardware = Hardware(gate_low=0.0, bias_std=1e-3, twin_threshold_std=0.01)
    chip = sample_chip(GRID, hardware, chip=1, seed=1)
    # The regression of Dillavou et al., PNAS 121, e2319718121, 2024.
    x = np.array([0.0005, 0.0628, 0.1251, 0.1873, 0.2479, 0.3118, 0.3724, 0.4347])
    y = np.array([0.1088, 0.1472, 0.1872, 0.2256, 0.2649, 0.3041, 0.3041, 0.3041])
    task = Task(x[:, None], y[:, None]).with_constants([LOW, HIGH])
    begin = start_values(GRID, 0.8, 1.4, seed=1, chip=1)
    rule = Overclamping(low=LOW, high=HIGH)
    found = learn_in_circuit(engine, chip, task, rule, cyclic(task, 0.08), begin, slots=20)
    assert found.values.min() > -1e-3
    assert not found.aborts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"slots": 0}, "slots = 0"),
        ({"slots_at_once": 0}, "0 at once"),
        ({"first_slot": -1}, "from slot -1"),
        ({"values": np.zeros(3)}, r"values of shape \(3,\) are not of 2 edges that learn"),
        ({"task": Task([[1.0]], [[1.0]])}, "inputs are of 1 nodes"),
        ({"schedule": Schedule([5], 1e-3)}, "example 5 is not one"),
        ({"rule": Desynchronous(CoupledLearning(), 0.5)}, "no seed"),
    ],
)
def test_what_does_not_fit_is_refused(
    engine: NgspiceEngine, change: dict[str, Any], said: str
) -> None:
    example = two_tasks()
    given: dict[str, Any] = {
        "chip": example.chip, "task": example.task, "rule": CoupledLearning(),
        "schedule": cyclic(example.task, PERIOD), "values": np.array([2.5, 2.5]), "slots": 2,
    }  # fmt: skip
    call: Callable[..., object] = learn_in_circuit
    with pytest.raises(InputError, match=said):
        call(engine, **{**given, **change})


def test_a_solver_is_said_in_words() -> None:
    assert str(Solver()) == "gear, 8 steps a slot, reltol 1e-07"
    words = str(Solver(method="trap", steps=20, klu=False, nodes=10.0))
    assert words == "trap, 20 steps a slot, reltol 1e-07, Sparse, 10 times the nodes' capacitance"


@pytest.mark.slow
def test_outputs_at_the_ends_of_many_slots_are_the_networks_own(engine: NgspiceEngine) -> None:
    """In slot 233 a label that its source repeated was 1 V at one point, its last."""
    example = two_tasks()
    rule = EquilibriumPropagation(beta=5e-4, centred=True)
    found = learnt(engine, example, np.array([2.5, 2.5]), 300, rule=rule)
    for slot in (232, 233, 234, 299):
        inputs = example.task.inputs[found.examples[slot]]
        labels = example.task.labels[found.examples[slot]]
        rest = phases(example.chip, found.values[slot + 1], inputs, labels, rule).first
        own = rest[example.chip.network.output_index]
        np.testing.assert_allclose(found.outputs[slot], own, rtol=0, atol=1e-5)
