"""Write netlists are pure text: the lines' voltages are the scheme's, and bad input is named."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from spicenn.circuit import Crossbar, check_netlist, load_cell
from spicenn.circuit.write import (
    CELL_CLASSES,
    SCHEMES,
    Pulse,
    Scheme,
    cell_classes,
    read_drive,
    render_write,
    write_drive,
)
from spicenn.errors import InputError
from spicenn.technology import Cell

CROSSBAR = Crossbar("t", 3, 4, 2.0, 3.0, cell=load_cell("memristor"), r_driver=50.0, r_sense=70.0)
G = np.full((3, 4), 2e-5)
SET = Pulse(amplitude=1.2, width=20e-9, rise=2e-9, fall=3e-9)
RESET = Pulse(amplitude=-1.5, width=50e-9)


def sources(netlist: str) -> dict[str, np.ndarray]:
    """(point, 2) of time and voltage by the source's node."""
    found = {}
    for line in check_netlist(netlist):
        if match := re.fullmatch(r"v\w+ (\w+) 0 pwl\((.*)\)", line):
            found[match[1]] = np.array(match[2].split(), float).reshape(-1, 2)
    return found


@pytest.mark.parametrize(
    ("scheme", "expected"),
    # Over the amplitude, across the cells of CELL_CLASSES.
    [
        ("v/2", (1, 1 / 2, 1 / 2, 0)),
        ("v/3", (1, 1 / 3, 1 / 3, -1 / 3)),
        ("grounded", (1, 1, 0, 0)),
        (Scheme("own", 0.25, 0.5), (1, 0.5, 0.25, -0.25)),
    ],
)
def test_each_class_of_cells_sees_what_the_scheme_says(scheme, expected):
    drive = write_drive(CROSSBAR, [(1, 2, SET), (2, 0, RESET)], scheme)
    for k, (i, j, pulse) in enumerate([(1, 2, SET), (2, 0, RESET)]):
        kinds = cell_classes(CROSSBAR, i, j)
        point = drive.plateau[k]
        across = drive.wordline[point][:, None] - drive.bitline[point]
        np.testing.assert_allclose(across, pulse.amplitude * np.array(expected)[kinds], atol=1e-15)


def test_classes_are_counted_right():
    counts = np.bincount(cell_classes(CROSSBAR, 1, 2).ravel(), minlength=len(CELL_CLASSES))
    np.testing.assert_array_equal(counts, [1, 3, 2, 6])


def test_pulses_follow_each_other_with_rests_between():
    drive = write_drive(CROSSBAR, [(1, 2, SET), (2, 0, RESET)], rest=5e-9)
    spans = [5, 2, 20, 3, 5, 1, 50, 1, 5]
    np.testing.assert_allclose(np.diff(drive.time), np.array(spans) * 1e-9, rtol=1e-9)
    np.testing.assert_allclose(drive.wordline[:, 1], 1.2 * np.array([0, 0, 1, 1, 0, 0, 0, 0, 0, 0])
                               - 0.75 * np.array([0, 0, 0, 0, 0, 0, 1, 1, 0, 0]))  # fmt: skip
    assert drive.wordline[drive.end].any() == drive.bitline[drive.end].any() == False  # noqa: E712


def test_the_netlist_holds_every_driver_wire_and_cell():
    drive = write_drive(CROSSBAR, [(1, 2, SET), (2, 0, RESET)])
    netlist = render_write(CROSSBAR, G, drive, probes=[(1, 2)])
    lines = check_netlist(netlist)
    names = [line.split()[0] for line in lines]
    assert sum(name.startswith("xc_") for name in names) == 12
    assert sum(name.startswith("rw_") for name in names) == 12
    assert sum(name.startswith("rb_") for name in names) == 12
    assert {line.split()[3] for line in lines if line.startswith("rd_")} == {"50.0"}
    assert {line.split()[3] for line in lines if line.startswith("re_")} == {"70.0"}
    found = sources(netlist)
    for node, volts in [("in_1", drive.wordline[:, 1]), ("s_2", drive.bitline[:, 2])]:
        t, v = found[node].T
        np.testing.assert_allclose(np.interp(drive.time, t, v), volts, atol=1e-12)
    assert netlist == render_write(CROSSBAR, G, drive, probes=[(1, 2)])


def test_a_crossbars_name_reaches_the_title_only():
    from dataclasses import replace

    hostile = replace(CROSSBAR, name="memristor")
    netlist = render_write(hostile, G, write_drive(hostile, [(0, 0, SET)]))
    assert netlist.count(".subckt memristor") == 1


def test_reads_drive_wordlines_by_their_inputs():
    drive = read_drive(CROSSBAR, Pulse(amplitude=0.2, width=1e-8), 3, inputs=np.array([1, 0, -1]))
    np.testing.assert_allclose(drive.wordline[drive.plateau], [[0.2, 0.0, -0.2]] * 3)
    assert not drive.bitline.any()
    with pytest.raises(InputError, match="reads = 0 is not positive"):
        read_drive(CROSSBAR, SET, 0)
    with pytest.raises(InputError, match=r"inputs of shape \(2,\)"):
        read_drive(CROSSBAR, SET, 1, inputs=np.zeros(2))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"width": 0.0}, "width = 0.0 is not finite and positive"),
        ({"rise": -1e-9}, "rise = -1e-09 is not finite and positive"),
        ({"fall": math.inf}, "fall = inf is not finite and positive"),
        ({"amplitude": math.nan}, "amplitude = nan is not finite"),
        ({"width": "1n"}, "width = '1n' is not finite and positive"),
    ],
)
def test_a_pulse_out_of_range_is_named(values, words):
    with pytest.raises(InputError, match=words):
        Pulse(**{"amplitude": 1.0, "width": 1e-8, **values})


def test_targets_and_schemes_that_do_not_exist_are_named():
    with pytest.raises(InputError, match=r"pulse 1: cell \(3, 0\) is outside of 3 x 4"):
        write_drive(CROSSBAR, [(0, 0, SET), (3, 0, SET)])
    with pytest.raises(InputError, match=r"cell \(0, -1\) is outside"):
        write_drive(CROSSBAR, [(0, -1, SET)])
    with pytest.raises(InputError, match="no pulse is given"):
        write_drive(CROSSBAR, [])
    with pytest.raises(InputError, match="called 'v/4'.*" + ", ".join(SCHEMES)):
        write_drive(CROSSBAR, [(0, 0, SET)], "v/4")
    with pytest.raises(InputError, match="rest = 0"):
        write_drive(CROSSBAR, [(0, 0, SET)], rest=0)


def test_conductances_that_do_not_fit_are_named():
    drive = write_drive(CROSSBAR, [(0, 0, SET)])
    with pytest.raises(InputError, match=r"shape \(2, 2\)"):
        render_write(CROSSBAR, np.ones((2, 2)), drive)
    with pytest.raises(InputError, match="finite and positive"):
        render_write(CROSSBAR, 0 * G, drive)


def test_a_cell_with_a_command_in_it_is_refused():
    text = load_cell("memristor").netlist
    assert isinstance(Cell("memristor", text), Cell)
    from spicenn.errors import NetlistError

    with pytest.raises(NetlistError):
        Cell("memristor", text.replace("rcell", ".control\nshell ls\n.endc\nrcell"))
