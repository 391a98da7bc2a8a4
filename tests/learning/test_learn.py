"""One way in to four ways of learning."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.controller import Converters, learn_by_controller
from spicenn.learning.examples import two_tasks
from spicenn.learning.hardware import Hardware
from spicenn.learning.learn import learn
from spicenn.learning.model import learn_in_model
from spicenn.learning.rules import CoupledLearning, Desynchronous
from spicenn.learning.task import cyclic

EXAMPLE = two_tasks()
SCHEDULE = cyclic(EXAMPLE.task, 5e-3)
START = np.array([2.5, 2.5])
SETUP = (EXAMPLE.chip, EXAMPLE.task, CoupledLearning(), SCHEDULE, START)


def test_a_way_is_its_own_function() -> None:
    found = learn(*SETUP, slots=3, first_slot=1, by="model", tolerance=1e-5)
    own = learn_in_model(*SETUP, slots=3, first_slot=1, tolerance=1e-5)
    np.testing.assert_array_equal(found.values, own.values)
    converters = Converters(setting_bits=8)
    found = learn(*SETUP, slots=3, by="controller", updates=2, converters=converters)
    own = learn_by_controller(*SETUP, slots=3, updates=2, converters=converters)
    np.testing.assert_array_equal(found.values, own.values)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"by": "controler"}, "controller"),
        ({"by": "model", "engine": "ngspice"}, "no engine of model"),
        ({"by": "circuit", "engine": "newton"}, "no engine of circuit"),
        ({"by": "events", "engine": "newton"}, "no engine of events"),
        ({"by": "controller", "engine": "nodal"}, "newton, ngspice"),
        ({"by": "model", "tolerence": 1e-5}, "tolerance"),
        ({"by": "controller", "settling": 1e-5}, "known: updates"),
        ({"by": "model", "slots": 0}, "slots = 0"),
        ({"by": "controller", "slots": 2, "updates": 0}, "0 updates"),
    ],
)
def test_what_there_is_not_is_refused_and_what_there_is_is_named(
    arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        learn(*SETUP, **{"slots": 2, **arguments})


@pytest.mark.parametrize("by", ["model", "controller"])
def test_values_and_seeds_that_do_not_fit_are_refused(by: Any) -> None:
    with pytest.raises(InputError, match="2 edges"):
        learn(*SETUP[:4], [2.5, 2.5, 2.5], slots=2, by=by)
    noisy = two_tasks(hardware=Hardware(update_noise=1e-5)).chip
    with pytest.raises(InputError, match="seed"):
        learn(noisy, *SETUP[1:], slots=2, by=by)


@pytest.mark.slow
@pytest.mark.ngspice
def test_a_noisy_chip_learns_the_same_in_all_four_ways() -> None:
    """The same draws: with others, gates differ by ten times the loosest bound."""
    hardware = Hardware(update_noise=1e-5, output_noise=1e-4)
    chip = two_tasks(hardware=hardware).chip
    schedule = cyclic(EXAMPLE.task, 1e-3)
    rule = Desynchronous(CoupledLearning(), 0.5)

    def run(**options: Any) -> np.ndarray:
        asked = {"slots": 8, "first_slot": 3, "seed": 7, "trial": 1, **options}
        return learn(chip, EXAMPLE.task, rule, schedule, START, **asked).values

    circuit = run(by="circuit")
    assert np.ptp(circuit, axis=0).max() > 2e-2
    np.testing.assert_allclose(run(by="model"), circuit, rtol=0, atol=2e-5)
    controlled = run(by="controller", updates=8)
    np.testing.assert_allclose(controlled, circuit, rtol=0, atol=2e-4)
    np.testing.assert_allclose(
        run(by="controller", updates=8, engine="ngspice"), controlled, rtol=0, atol=1e-8
    )
    np.testing.assert_allclose(run(by="events", updates=8), controlled, rtol=0, atol=1e-7)
    assert np.abs(run(by="model", trial=2) - circuit).max() > 2e-3


@pytest.mark.ngspice
def test_an_engine_that_was_given_is_used_and_stays() -> None:
    with NgspiceEngine() as engine:
        found = learn(*SETUP, slots=2, engine=engine)
        pid = engine.pid
        assert pid is not None
        again = learn(*SETUP, slots=2, engine=engine)
        assert engine.pid == pid
        np.testing.assert_array_equal(found.values, again.values)


@pytest.mark.slow
def test_the_event_kernel_loads_where_it_is_used() -> None:
    code = (
        "import spicenn.learning.learn, sys; print('simpy' in sys.modules, 'torch' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said.split() == ["False", "False"]
