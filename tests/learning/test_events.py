"""A process beside the circuit learns what the controller does, once nodes have settled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.controller import Converters, learn_by_controller
from spicenn.learning.events import driven_netlist, learn_by_events
from spicenn.learning.examples import HIGH, LOW, two_tasks
from spicenn.learning.hardware import Hardware, sample_chip
from spicenn.learning.network import grid, layered
from spicenn.learning.rules import CoupledLearning, EquilibriumPropagation, Overclamping, Rule
from spicenn.learning.task import Task, cyclic
from spicenn.learning.trajectory import Trajectory

EXAMPLE = two_tasks()
SCHEDULE = cyclic(EXAMPLE.task, 5e-3)
START = np.array([2.5, 2.5])
RULES: list[Rule] = [
    CoupledLearning(),
    Overclamping(low=LOW, high=HIGH),
    EquilibriumPropagation(beta=1e-3),
    EquilibriumPropagation(beta=1e-3, centred=True),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[NgspiceEngine]:
    with NgspiceEngine() as engine:
        yield engine


@pytest.mark.ngspice
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_settled_it_is_the_controller_on_operating_points(
    engine: NgspiceEngine, rule: Rule
) -> None:
    setup = (EXAMPLE.chip, EXAMPLE.task, rule, SCHEDULE, START)
    found = learn_by_events(*setup, slots=4, updates=2)
    expected = learn_by_controller(*setup, slots=4, updates=2, engine=engine)
    assert np.abs(expected.values[-1] - START).max() > 5e-3
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.examples, expected.examples)


@pytest.mark.ngspice
def test_what_is_sampled_before_nodes_settle_is_learnt_wrongly() -> None:
    """Nodes of 0.1 uF have time constants of some 20 us: waits of 50, 200, 600 us."""
    chip = two_tasks(hardware=Hardware(node_capacitance=1e-7)).chip
    setup = (chip, EXAMPLE.task, CoupledLearning(), SCHEDULE, START)
    exact = learn_by_controller(*setup, slots=4).values
    error = [
        np.abs(learn_by_events(*setup, slots=4, settling=wait).values - exact).max()
        for wait in (50e-6, 200e-6, 600e-6)
    ]
    assert error[0] > 5e-3
    assert error[1] < 5e-2 * error[0]
    assert error[2] < 1e-6


@pytest.mark.ngspice
def test_a_grid_and_resistors_are_taught_as_by_the_controller() -> None:
    """With mismatch, offsets, leakage and noise; a converter reads, another sets."""
    hardware = Hardware(
        bias_std=2e-4, threshold_std=0.01, twin_threshold_std=3e-3, leakage=1e-9,
        output_offset_std=1e-3, update_noise=1e-6, output_noise=1e-5,
    )  # fmt: skip
    converters = Converters(reading_bits=12, setting_bits=14)
    task = Task([[0.0, 0.4], [0.3, 0.1]], [[0.1, 0.2], [0.2, 0.1]])
    for network, begin in (
        (grid(3, 3, inputs=("n0_0", "n1_1"), outputs=("n2_2", "n0_2")), 2.0),
        (layered([2, 3, 2]), 1.5e-3),
    ):
        chip = sample_chip(network, hardware, chip=2, seed=4)
        start = np.full(len(network.learning), begin)
        setup = (chip, task, CoupledLearning(), cyclic(task, 5e-3), start)
        options: dict[str, Any] = {"slots": 3, "seed": 5, "trial": 2, "converters": converters}
        found = learn_by_events(*setup, **options)
        expected = learn_by_controller(*setup, **options)
        np.testing.assert_allclose(found.values / begin, expected.values / begin, rtol=0, atol=1e-9)
        np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=1e-8)


@pytest.mark.ngspice
def test_a_run_is_gone_on_with_at_any_slot() -> None:
    setup = (EXAMPLE.chip, EXAMPLE.task, CoupledLearning(), SCHEDULE)
    whole = learn_by_events(*setup, START, slots=5)
    parts: list[Trajectory] = []
    again = learn_by_events(*setup, START, slots=5, slots_at_once=3, progress=parts.append)
    assert [part.first_slot for part in parts] == [0, 3]
    np.testing.assert_allclose(again.values, whole.values, rtol=0, atol=1e-10)
    late = learn_by_events(*setup, whole.values[3], slots=2, first_slot=3)
    np.testing.assert_allclose(late.values, whole.values[3:], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settling": 1e-3}, "at most a third"),
        ({"settling": 2e-7}, "longer than an edge"),
        ({"updates": 0}, "0 updates"),
        ({"slots": 0}, "slots = 0"),
    ],
)
def test_waits_that_do_not_fit_are_refused(change: dict[str, Any], said: str) -> None:
    setup = (EXAMPLE.chip, EXAMPLE.task, CoupledLearning(), SCHEDULE, START)
    with pytest.raises(InputError, match=said):
        learn_by_events(*setup, **{"slots": 2, **change})


def test_what_is_driven_are_inputs_gates_and_clamps_or_labels() -> None:
    inputs, labels = EXAMPLE.task.inputs[0], EXAMPLE.task.labels[0]
    clamped, nudged = (
        driven_netlist(EXAMPLE.chip, START, inputs, labels, rule)
        for rule in (CoupledLearning(), EquilibriumPropagation(beta=1e-3))
    )

    def driven(text: str) -> set[str]:
        return {line.split()[0] for line in text.splitlines() if line.endswith("external")}

    common = {"vg_0", "vg_1", "vx_in", "vx_low", "vx_high"}
    assert driven(clamped) == {*common, "vb_out"}
    assert driven(nudged) == {*common, "vl_out"}
