"""Reversal curves of ngspice are those of the cell's law integrated on its own."""

from __future__ import annotations

import numpy as np
import pytest

from spicenn.circuit import load_cell
from spicenn.circuit.histories import StepAndRead
from spicenn.engines.histories import first_reversal_curves, run_history
from spicenn.kirchhoff.memristor import Memristor, respond
from tests.engines.conftest import engine

__all__ = ["engine"]

pytestmark = pytest.mark.ngspice
LEVELS = [-1.3, -1.15, -1.0, -0.85, 0.8, 1.0, 1.2, 1.35]
PARAMETERS = {
    "g": np.array([1.7e-3, 4e-4]),
    "ea": np.array([0.6, 0.61]),
    "v0": np.array([0.25, 0.28]),
}


def by_the_law(levels: np.ndarray, steps: StepAndRead, cell: int) -> np.ndarray:
    """Currents by an ODE, from corners that are written out once more."""
    law = Memristor(ea=PARAMETERS["ea"][cell], v0=PARAMETERS["v0"][cell], temperature=300.0)
    time, volts = [0.0], [0.0]
    for level in levels:
        for duration, v in (
            (steps.edge, level), (steps.width, level), (steps.edge, steps.read),
            (steps.read_width, steps.read),
        ):  # fmt: skip
            time.append(time[-1] + duration)
            volts.append(v)
    gap = respond(
        law, np.array(time), np.array(volts), law.state_of_conductance(PARAMETERS["g"][cell])
    )
    return np.array([law.current(np.array(steps.read), g) for g in gap[4::4]])


@pytest.mark.slow
def test_currents_are_those_of_the_law(engine):
    steps = StepAndRead()
    curves = first_reversal_curves(engine, load_cell("memristor"), PARAMETERS, LEVELS, [0, 2, 3])
    assert curves.current.shape == (2, len(curves.history))
    for cell in range(2):
        exact = by_the_law(curves.history, steps, cell)
        # Over five e-foldings, runaways among them.
        assert np.ptp(np.log(exact)) > 4
        np.testing.assert_allclose(np.log(curves.current[cell]), np.log(exact), atol=1e-3)


def test_a_level_does_not_say_what_the_response_is_unless_the_state_is_frozen(engine):
    """Down and up through one level: another current with the state's motion, the same without."""
    reads = {}
    for name, cell in (("on", load_cell("memristor")), ("off", load_cell("memristor", vel0=0.0))):
        curves = first_reversal_curves(engine, cell, PARAMETERS, LEVELS, [0])
        at = np.flatnonzero(curves.history == 0.8)
        reads[name] = np.log(curves.current[:, at])
    assert np.all(reads["on"][:, 0] - reads["on"][:, 1] > 3)
    np.testing.assert_allclose(reads["off"][:, 0], reads["off"][:, 1], rtol=0, atol=1e-6)


def test_a_cell_is_the_same_alone(engine):
    """Cells of one transient share steps in time alone."""
    history = [1.35, -1.0, -1.15, 1.0, 1.2]
    cell = load_cell("memristor")
    together = run_history(engine, cell, PARAMETERS, history)
    alone = run_history(engine, cell, {k: v[1:] for k, v in PARAMETERS.items()}, history)
    np.testing.assert_allclose(np.log(together[1]), np.log(alone[0]), atol=1e-3)
