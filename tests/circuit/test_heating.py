"""The heated crossbar's netlist: its thermal network, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spicenn.circuit import Crossbar, load_cell
from spicenn.circuit.heating import heat_vectors, render_heating
from spicenn.errors import InputError
from spicenn.technology.heating import Heating

HEATING = Heating(alpha=3e-3, r_thermal=1e6, r_coupling=5e5)
CROSSBAR = Crossbar("t", 3, 2, 1.0, 2.0)
G = np.linspace(1e-5, 6e-5, 6).reshape(3, 2)


def test_neighbours_are_joined_once_and_nothing_goes_round_an_edge():
    lines = render_heating(CROSSBAR, HEATING, G, np.ones(3)).splitlines()
    joined = {tuple(line.split()[1:3]) for line in lines if line.startswith(("rhw_", "rhb_"))}
    cell = "xarray.xc_{}_{}.heat".format
    beside = {(cell(i, 0), cell(i, 1)) for i in range(3)}
    below = {(cell(i, j), cell(i + 1, j)) for i in range(2) for j in range(2)}
    assert joined == beside | below
    assert all(" 500000.0 noisy=0" in line for line in lines if line.startswith(("rhw_", "rhb_")))


def test_without_coupling_there_is_no_thermal_wire():
    alone = Heating(alpha=3e-3, r_thermal=1e6)
    assert "rhw_" not in render_heating(CROSSBAR, alone, G, np.ones(3))


def test_one_sample_is_an_operating_point_several_a_sweep_and_a_duration_a_transient():
    one, many = np.ones(3), np.ones((4, 3))
    assert "\n.op\n" in render_heating(CROSSBAR, HEATING, G, one)
    assert "\n.dc vidx 0 3 1\n" in render_heating(CROSSBAR, HEATING, G, many)
    assert " 1e-05 uic\n" in render_heating(CROSSBAR, HEATING, G, one, duration=1e-5)


def test_headers_are_comments_whatever_they_hold():
    text = render_heating(CROSSBAR, HEATING, G, np.ones(3), header=["a\n.control"])
    assert not [line for line in text.splitlines() if line.startswith(".control")]


@pytest.mark.parametrize(
    ("crossbar", "g", "v", "duration"),
    [
        (Crossbar("t", 3, 2, cell=load_cell("sinh")), G, np.ones(3), None),
        (CROSSBAR, G.T, np.ones(3), None),
        (CROSSBAR, -G, np.ones(3), None),
        (CROSSBAR, G, np.ones(2), None),
        (CROSSBAR, G, np.full(3, math.nan), None),
        (CROSSBAR, G, np.ones((2, 3)), 1e-6),
        (CROSSBAR, G, np.ones(3), 0.0),
    ],
)
def test_what_does_not_fit_is_refused(crossbar, g, v, duration):
    with pytest.raises(InputError, match="t: "):
        render_heating(crossbar, HEATING, g, v, duration=duration)


def test_vectors_are_named_row_by_row():
    assert heat_vectors(CROSSBAR)[1] == "v(xarray.xc_0_1.heat)"
    assert len(heat_vectors(CROSSBAR)) == 6
