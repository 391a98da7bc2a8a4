"""A history of levels as text: what turns where, when it is read, what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.circuit import load_cell
from spicenn.circuit.histories import StepAndRead, render_history, reversal_history
from spicenn.errors import InputError
from spicenn.technology import OHMIC

CELL = load_cell("memristor")
LEVELS = [-1.2, -0.5, 0.4, 1.0, 1.3]


@given(st.integers(2, 12), st.data())
def test_every_curve_leaves_the_top_and_turns_at_its_reversal_alone(count, data):
    levels = np.arange(count) * 0.1 - 0.3
    turns = data.draw(st.lists(st.integers(0, count - 2), min_size=1, max_size=5))
    history, curve = reversal_history(levels, turns)
    assert history[0] == levels[-1]
    for number, turn in enumerate(turns):
        own = history[curve == number]
        assert own.min() == levels[turn]
        assert own[-1] == levels[-1]
    # One level at a time: nothing is jumped over.
    steps = np.abs(np.diff(np.searchsorted(levels, history)))
    np.testing.assert_array_equal(steps, 1)


def corners(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Time and voltage of the corners of the netlist's waveform."""
    found = re.search(r"vx x 0 pwl\((.*?)\)", text.replace("\n+", " "), re.S)
    assert found is not None
    values = np.array(found[1].split(), dtype=float).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def test_levels_are_held_and_every_read_ends_at_a_corner():
    steps = StepAndRead(width=2e-6, edge=1e-8, read=0.15, read_width=5e-8)
    text = render_history(CELL, {"g": [1e-4, 2e-4]}, LEVELS, steps)
    time, volts = corners(text)
    assert np.all(np.diff(time) > 0)
    reads = steps.read_times(len(LEVELS))
    # The waveform sums the same times in another order.
    np.testing.assert_allclose(np.interp(reads, time, volts), 0.15, rtol=1e-12)
    np.testing.assert_allclose(np.abs(time[:, None] - reads).min(axis=0), 0, atol=1e-19)
    middle = reads - steps.read_width - steps.edge - steps.width / 2
    np.testing.assert_array_equal(np.interp(middle, time, volts), LEVELS)
    assert len(re.findall(r"^xc_\d+ x s_\d+ memristor", text, re.M)) == 2


def test_what_all_cells_share_and_what_is_each_ones_own_are_in_the_text():
    cell = load_cell("memristor", v0=0.3, ea=0.7)
    text = render_history(cell, {"g": [1e-4, 2e-4], "ea": [0.5, 0.6]}, LEVELS, StepAndRead())
    lines = text.replace("\n+", "").splitlines()
    own = [line.split() for line in lines if line.startswith("xc_")]
    assert [w for w in own[0] if "=" in w] == ["v0=0.3", "g=0.0001", "ea=0.5"]
    assert [w for w in own[1] if "=" in w] == ["v0=0.3", "g=0.0002", "ea=0.6"]


@pytest.mark.parametrize(
    ("parameters", "what"),
    [
        ({"nonsense": [1.0]}, "not a parameter"),
        ({"g": [1e-4], "ea": [0.6, 0.6]}, "of \\[1, 2\\] cells"),
        ({}, "of \\[\\] cells"),
        ({"g": [np.nan]}, "g of shape"),
        ({"g": []}, "of \\[0\\] cells"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, what):
    with pytest.raises(InputError, match=what):
        render_history(CELL, parameters, LEVELS, StepAndRead())


def test_other_arguments_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="rise"):
        reversal_history([0.0, 0.0, 1.0], [0])
    with pytest.raises(InputError, match="reversals"):
        reversal_history(LEVELS, [len(LEVELS) - 1])
    with pytest.raises(InputError, match="read = 0"):
        StepAndRead(read=0.0)
    with pytest.raises(InputError, match="width = -1"):
        StepAndRead(width=-1.0)
    with pytest.raises(InputError, match="finite steps"):
        render_history(CELL, {"g": [1e-4]}, [np.inf], StepAndRead())
    with pytest.raises(InputError, match="no history"):
        render_history(OHMIC, {"g": [1e-4]}, LEVELS, StepAndRead())
