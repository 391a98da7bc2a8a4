"""Newton's method on random graphs: Kirchhoff's law at every node, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.hardware import LearningChip, ideal_chip
from spicenn.learning.network import graph, layered
from tests.learning.graphs import random_chip

Array = NDArray[np.float64]


def leftover(chip: LearningChip, values: Array, v: Array, copy: int) -> tuple[Array, Array]:
    """(node,) current that leaves each node in all, and in absolute values, of one state."""
    network = chip.network
    left, through = np.zeros((2, len(network.nodes) + 1))
    by_value = dict(zip(network.learning, values, strict=True))
    for k, edge in enumerate(network.edges):
        a, b = network.index[edge.a], network.index[edge.b]
        match edge.element:
            case Transistor(gate=gate):
                drive = by_value.get(k, gate) - chip.threshold[copy, k]
                i = chip.transconductance[copy, k] / 2 * (
                    max(drive - v[b], 0.0) ** 2 - max(drive - v[a], 0.0) ** 2
                )  # fmt: skip
            case Resistor():
                i = by_value.get(k, chip.transconductance[copy, k]) * (v[a] - v[b])
            case Diode(saturation=saturation) as diode:
                thermal = diode.thermal_voltage(network.temperature)
                i = saturation * np.expm1((v[a] - v[b]) / thermal)
        left[a] += i
        left[b] -= i
        through[a] += abs(i)
        through[b] += abs(i)
    return (left + network.shunt * v)[:-1], through[:-1]


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), copy=st.integers(0, 1))
def test_no_current_is_left_over_at_nodes_that_float(seed: int, copy: int) -> None:
    """1e-9 of the network's largest current: exponentials double within 1e-16 of 20 kT/q."""
    chip, values, inputs = random_chip(seed)
    found = equilibrium(chip, values, inputs, copy=copy)
    floating = [k for k, n in enumerate(chip.network.nodes) if n not in chip.network.inputs]
    for x, v in zip(inputs, found, strict=True):
        assert (v[chip.network.input_index] == x).all()
        assert v[-1] == 0
        left, through = leftover(chip, values, v, copy)
        assert np.abs(left[floating]).max() <= 1e-9 * through.max() + 1e-18


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_clamped_outputs_stay_and_nudged_ones_carry_the_nudges_current(seed: int) -> None:
    chip, values, inputs = random_chip(seed)
    network, at = chip.network, chip.network.output_index
    target = np.linspace(0.1, 0.3, 3 * len(at)).reshape(3, -1)
    clamped = equilibrium(chip, values, inputs, copy=1, clamped=target)
    assert (clamped[:, at] == target).all()
    nudged = equilibrium(chip, values, inputs, copy=1, nudge=(1e-4, target))
    for label, v in zip(target, nudged, strict=True):
        left, through = leftover(chip, values, v, 1)
        left[at] += 1e-4 * (v[at] - label)
        floating = [k for k, n in enumerate(network.nodes) if n not in network.inputs]
        assert np.abs(left[floating]).max() <= 1e-9 * (through.max() + 1e-4) + 1e-18


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_state_is_the_same_alone_in_a_batch_and_from_another_start(seed: int) -> None:
    chip, values, inputs = random_chip(seed)
    batch = equilibrium(chip, np.stack([values, values * 1.1])[:, None], inputs)
    assert batch.shape == (2, 3, len(chip.network.nodes) + 1)
    alone = equilibrium(chip, values, inputs[2])
    scale = 1.0 + np.abs(alone).max()
    np.testing.assert_allclose(batch[0, 2], alone, rtol=0, atol=1e-7 * scale)
    again = equilibrium(chip, values, inputs[2], start=batch[1, 0])
    np.testing.assert_allclose(again, alone, rtol=0, atol=1e-7 * scale)


def test_a_divider_divides() -> None:
    """Two conductances, to the shunt's 1e-10 S."""
    chip = ideal_chip(
        graph([("in", "out"), ("out", "0")], inputs=["in"], outputs=["out"],
              element=Resistor(learns=True))
    )  # fmt: skip
    found = equilibrium(chip, np.array([[1e-3, 3e-3], [2e-3, 2e-3]]), np.array([1.0]))
    np.testing.assert_allclose(found[:, 1], [0.25, 0.5], rtol=1e-7)


def test_a_node_whose_transistors_are_off_is_at_ground() -> None:
    chip = ideal_chip(graph([("in", "out")], inputs=["in"], outputs=["out"]))
    assert abs(equilibrium(chip, np.array([0.5]), np.array([0.4]))[1]) < 1e-12


CHIP, VALUES, _ = random_chip(1)
NEGATIVE = ideal_chip(layered([1, 1]))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: equilibrium(CHIP, VALUES[:-1], np.zeros(2)), "edges"),
        (lambda: equilibrium(CHIP, VALUES, np.zeros(9)), "inputs of shape"),
        (lambda: equilibrium(CHIP, VALUES, np.full(len(CHIP.network.inputs), np.nan)), "finite"),
        (
            lambda: equilibrium(
                CHIP, VALUES, np.zeros(len(CHIP.network.inputs)), clamped=np.zeros(7)
            ),
            "outputs of shape",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()


def test_an_output_that_a_nudge_leaves_without_any_conductance_has_no_rest() -> None:
    chip = replace(NEGATIVE, network=replace(NEGATIVE.network, shunt=1e-12))
    with pytest.raises(ConvergenceError):
        equilibrium(chip, np.array([1e-3]), np.array([0.5]),
                    nudge=(-1e-3 - 1e-12, np.array([0.1])))  # fmt: skip
