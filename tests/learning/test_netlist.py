"""Learning circuits as text: golden netlists, and only what there is in them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spicenn.errors import InputError
from spicenn.learning.disturbance import draw_with_before
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.hardware import Hardware, ideal_chip, sample_chip
from spicenn.learning.netlist import learning_netlist, operating_netlist
from spicenn.learning.network import Edge, Network, grid
from spicenn.learning.rules import (
    CoupledLearning,
    Desynchronous,
    Differential,
    EquilibriumPropagation,
    Overclamping,
    Rule,
)
from spicenn.learning.task import Schedule, Task, cyclic

GOLDENS = Path(__file__).parent / "goldens"

NETWORK = Network(
    edges=(
        Edge("in", "mid", Transistor()), Edge("mid", "one", Resistor(learns=True)),
        Edge("mid", "two", Transistor(gate=2.5)), Edge("one", "two", Resistor(conductance=2e-4)),
        Edge("one", "0", Resistor(conductance=0.0)), Edge("mid", "0", Diode()),
    ),
    inputs=("in",),
    outputs=("one", "two"),
)  # fmt: skip
HARDWARE = Hardware(
    bias_std=1e-3, output_offset_std=1e-3, leakage=1e-9, twin_threshold_std=0.01,
    transconductance_std=0.05,
)  # fmt: skip
VALUES = np.array([2.5, 1.5e-3])
TASK = Task([[0.4], [0.1]], [[0.2, 0.1], [0.05, 0.03]])


def text(rule: Rule, schedule: Schedule | None = None, hardware: Hardware = HARDWARE,
         slots: int = 3, first_slot: int = 1) -> str:  # fmt: skip
    chip = sample_chip(NETWORK, hardware, chip=1, seed=2)
    schedule = schedule or cyclic(TASK, 0.01)
    drawn = draw_with_before(chip, rule, schedule.slot, slots=slots, first_slot=first_slot, seed=4)
    return learning_netlist(
        chip, VALUES, TASK, schedule, rule, slots=slots, first_slot=first_slot, disturbance=drawn
    )


def at_rest() -> str:
    chip = sample_chip(NETWORK, HARDWARE, chip=1, seed=2)
    labels = np.array([[0.2, 0.1], [0.05, 0.03]])
    return operating_netlist(chip, VALUES, TASK.inputs, copy=1, nudge=(1e-4, labels))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("coupled", lambda: text(CoupledLearning(eta=0.5))),
        ("overclamped", lambda: text(Overclamping(low=0.0, high=0.45))),
        ("nudged", lambda: text(EquilibriumPropagation(beta=1e-4, centred=True))),
        ("differential", lambda: text(Differential(CoupledLearning(eta=0.5)))),
        (
            "disturbed",
            lambda: text(
                Desynchronous(CoupledLearning(), 0.5),
                hardware=replace(HARDWARE, update_noise=1e-5, output_noise=1e-4),
            ),
        ),
        ("at_rest", at_rest),
    ],
)
def test_text_is_the_golden_one(name, found, regenerate):
    path = GOLDENS / f"{name}.cir"
    if regenerate:
        path.write_text(found())
    assert found() == path.read_text(), "run pytest --regenerate if the change is meant"


def test_without_disturbance_there_is_no_source_of_it() -> None:
    plain = text(CoupledLearning())
    noisy = text(CoupledLearning(), hardware=replace(HARDWARE, update_noise=1e-5))
    masked = text(Desynchronous(CoupledLearning(), 0.5))
    for found, sources, enables in ((plain, 0, 0), (noisy, 2, 0), (masked, 0, 2)):
        assert found.count("\nv_w_") == found.count("\nbw_") == sources
        assert found.count("\nv_m_") == found.count("\nbd_") == enables
        assert found.count(" duty self_adjusting") == 2 - enables


@pytest.mark.parametrize("order", [[0, 1], np.tile([0, 1], 500)])
def test_a_source_has_the_points_of_its_slots_and_none_repeats(order: Any) -> None:
    """ngspice reads a source from its begin at every step, and ends of repeats are not safe."""
    found = text(CoupledLearning(), Schedule(order, 0.01), slots=4, first_slot=3)
    waveform = found.split("v_x_in x_in 0 pwl(")[1].split(")")[0]
    assert len(waveform.replace("+", " ").split()) == 2 * (1 + 2 * 4)
    assert "r=0" not in found


def test_small_networks_are_solved_by_sparse_and_large_ones_by_klu() -> None:
    assert ".options reltol" in text(CoupledLearning())
    large = grid(10, 10, inputs=["n0_0"], outputs=["n2_2"])
    task = Task([[0.4]], [[0.1]])
    values = np.full(200, 3.0)
    for klu, said in ((None, True), (False, False)):
        found = learning_netlist(
            ideal_chip(large), values, task, cyclic(task, 0.01), CoupledLearning(), slots=1, klu=klu
        )
        assert (".options klu" in found) == said


def test_squares_are_cut_far_beyond_any_voltage() -> None:
    assert "most=10.0" in text(CoupledLearning())
    high = Task([[40.0], [0.1]], [[0.2, 0.1], [0.05, 0.03]])
    found = learning_netlist(
        ideal_chip(NETWORK), VALUES, high, cyclic(high, 0.01), CoupledLearning(), slots=1
    )
    assert "most=400.0" in found


def test_values_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="are not of 2 edges that learn"):
        learning_netlist(
            ideal_chip(NETWORK), np.zeros(3), TASK, cyclic(TASK, 0.01), CoupledLearning(), slots=1
        )
