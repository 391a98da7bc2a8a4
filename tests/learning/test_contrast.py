"""What a rule makes of two equilibria: speeds, and where offsets, bias and noise enter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spicenn.learning.contrast import (
    answers,
    contrast,
    mean_square_error,
    phases,
    speed,
    value_per_volt,
)
from spicenn.learning.elements import Resistor, Transistor
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.hardware import Hardware, ideal_chip
from spicenn.learning.network import Edge, Network
from spicenn.learning.rules import CoupledLearning, EquilibriumPropagation, Overclamping
from spicenn.learning.task import Task

NETWORK = Network(
    edges=(
        Edge("in", "mid", Transistor()),
        Edge("mid", "out", Resistor(learns=True)),
        Edge("out", "0", Resistor(conductance=2e-3)),
        Edge("mid", "0", Transistor()),
    ),
    inputs=("in",),
    outputs=("out",),
)
VALUES = np.array([3.0, 1e-3, 2.0])
INPUT, LABEL = np.array([0.4]), np.array([0.1])


def test_a_speed_is_gain_times_duty_times_the_bracket_less_leakage() -> None:
    hardware = Hardware(leakage=2e-9, conductance_per_volt=5e-4)
    chip = ideal_chip(NETWORK, hardware, bias=[1e-3, -2e-3, 3e-3])
    rule = Overclamping(low=0.0, high=0.45, full=10.0)
    found = phases(chip, VALUES, INPUT, LABEL, rule)
    v, w = found.first, found.second
    index = NETWORK.index
    ends = [("in", "mid"), ("mid", "out"), ("mid", "0")]
    across = np.array([[x[index[a]] - x[index[b]] for a, b in ends] for x in (v, w)])
    bracket = across[0] ** 2 - across[1] ** 2
    np.testing.assert_allclose(contrast(chip, found), bracket, rtol=1e-12)
    gain = 2.0 / (0.33 * 1e5 * 22e-9)
    volts = VALUES / [1, 5e-4, 1]
    duty = abs(0.1 - v[index["out"]]) / 10.0
    expected = gain * duty * (bracket + chip.bias) - 2e-9 / 22e-9 * volts
    np.testing.assert_allclose(
        speed(chip, VALUES, found, rule), expected * [1, 5e-4, 1], rtol=1e-12
    )
    np.testing.assert_array_equal(value_per_volt(chip), [1, 5e-4, 1])
    noise, active = np.array([1e-4, 2e-4, 3e-4]), np.array([1.0, 0.0, 1.0])
    expected = gain * duty * active * (bracket + chip.bias + noise) - 2e-9 / 22e-9 * volts
    np.testing.assert_allclose(
        speed(chip, VALUES, found, rule, noise=noise, active=active),
        expected * [1, 5e-4, 1], rtol=1e-12,
    )  # fmt: skip


@pytest.mark.parametrize(
    "rule",
    [
        CoupledLearning(eta=0.5),
        Overclamping(low=0.0, high=0.45, smoothing=1e-2),
        EquilibriumPropagation(beta=1e-3, centred=True),
    ],
    ids=str,
)
def test_an_offset_is_in_the_comparison_with_the_label(
    rule: CoupledLearning | Overclamping | EquilibriumPropagation,
) -> None:
    """A chip whose comparator is 3 mV off learns what one without learns of another label."""
    shifted = phases(ideal_chip(NETWORK, output_offset=3e-3), VALUES, INPUT, LABEL, rule)
    other = phases(ideal_chip(NETWORK), VALUES, INPUT, LABEL + 3e-3, rule)
    np.testing.assert_allclose(shifted.second, other.second, rtol=0, atol=1e-13)
    assert shifted.duty == pytest.approx(float(other.duty), rel=1e-12)


def test_an_error_is_against_the_tasks_own_labels() -> None:
    chip = ideal_chip(NETWORK, output_offset=3e-3)
    task = Task([[0.4], [0.1]], [[0.1], [0.05]])
    found = np.array([equilibrium(chip, VALUES, x)[NETWORK.output_index] for x in task.inputs])
    np.testing.assert_allclose(answers(chip, VALUES, task.inputs), found, rtol=1e-12)
    expected = ((found - task.labels) ** 2).mean()
    batch = mean_square_error(chip, np.stack([VALUES, VALUES * 1.2]), task)
    assert batch.shape == (2,)
    assert batch[0] == pytest.approx(expected, rel=1e-10)


def test_the_second_network_is_the_second_copy() -> None:
    chip = ideal_chip(NETWORK)
    threshold = chip.threshold.copy()
    threshold[1] += 0.2
    unequal = replace(chip, threshold=threshold)
    found = phases(unequal, VALUES, INPUT, LABEL, EquilibriumPropagation(beta=1e-15))
    np.testing.assert_allclose(found.first, equilibrium(chip, VALUES, INPUT), rtol=1e-9)
    lower = equilibrium(chip, VALUES - [0.2, 0, 0.2], INPUT)
    np.testing.assert_allclose(found.second, lower, rtol=1e-9)
