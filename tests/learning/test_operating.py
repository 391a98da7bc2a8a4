"""The two engines of a network at rest, Newton's method and ngspice, on random graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.hardware import ideal_chip
from spicenn.learning.network import graph
from spicenn.learning.operating import operating_points
from tests.learning.graphs import random_chip

pytestmark = pytest.mark.ngspice


@pytest.mark.parametrize("seed", range(8))
def test_both_engines_find_the_same_voltages(engine: NgspiceEngine, seed: int) -> None:
    """Within 1 uV: ngspice has 1 pS beside each junction, in networks of 10 uS and more."""
    chip, values, inputs = random_chip(seed)
    copy = seed % 2
    outputs = np.linspace(0.1, 0.3, 3 * len(chip.network.outputs)).reshape(3, -1)
    ways: list[dict[str, Any]] = [{}, {"clamped": outputs}, {"nudge": (2e-4, outputs)}]
    for way in ways:
        newton = equilibrium(chip, values, inputs, copy=copy, **way)
        found = operating_points(engine, chip, values, inputs, copy=copy, **way)
        np.testing.assert_allclose(found, newton, rtol=0, atol=1e-6)


def test_one_sample_is_an_operating_point_of_its_own(engine: NgspiceEngine) -> None:
    chip, values, inputs = random_chip(3)
    both = operating_points(engine, chip, values, inputs)
    alone = operating_points(engine, chip, values, inputs[1:2])
    np.testing.assert_allclose(alone[0], both[1], rtol=0, atol=1e-9)


def test_transistors_below_ground_conduct_to_their_ends_alone(engine: NgspiceEngine) -> None:
    """A junction to the bulk would hold the node at some -0.7 V."""
    network = graph([("x", "y"), ("y", "z")], inputs=["x", "z"], outputs=["y"])
    chip, values = ideal_chip(network), np.array([2.0, 2.5])
    inputs = np.array([[-3.0, -1.5], [-2.5, 0.1]])
    found = operating_points(engine, chip, values, inputs)
    assert found[0, network.output_index[0]] < -1.5
    np.testing.assert_allclose(found, equilibrium(chip, values, inputs), rtol=0, atol=1e-6)
