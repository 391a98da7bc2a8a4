"""Writing in ngspice is what the ODE says, and the disturb of other cells is the scheme's."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spicenn.circuit import Crossbar, load_cell
from spicenn.circuit.write import (
    CELL_CLASSES,
    Pulse,
    render_write,
    write_drive,
)
from spicenn.engines.nodal import NodalEngine
from spicenn.engines.write import memristor_of, read_disturb, write_pulses
from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff.memristor import Memristor, respond
from spicenn.technology import OHMIC

pytestmark = pytest.mark.ngspice

CELL = load_cell("memristor")
SET = Pulse(amplitude=1.5, width=20e-9)
RESET = Pulse(amplitude=-1.6, width=50e-9, rise=2e-9)
SELECTED, ON_WORDLINE, ON_BITLINE, UNSELECTED = CELL_CLASSES


def array(rows: int, columns: int, **changes: Any) -> tuple[Crossbar, np.ndarray]:
    g = np.random.default_rng(1).uniform(1e-5, 1e-4, (rows, columns))
    crossbar = Crossbar("t", rows, columns, 2.0, 2.0, cell=CELL, r_driver=500.0, r_sense=300.0)
    return replace(crossbar, **changes), g


def lone(**changes: Any) -> Crossbar:
    return replace(Crossbar("one", 1, 1, cell=CELL), **changes)


@pytest.mark.parametrize("temperature", [300.0, 350.0])
def test_the_static_law_is_the_one_in_python(engine, temperature):
    """Operating points and a sweep, cell frozen, far beyond the knee at 3 v0 too."""
    crossbar = Crossbar("t", 1, 3, cell=CELL, temperature=temperature)
    law = Memristor(temperature=temperature)
    g = np.array([[1e-5, 1e-4, 1e-3]])
    v = np.linspace(-1.5, 1.5, 13)[:, None]
    expected = law.current(v, law.state_of_conductance(g))
    swept = engine.solve(crossbar, g[None], v[None]).current[0]
    np.testing.assert_allclose(swept, expected, rtol=1e-6, atol=1e-15)
    point = engine.solve(crossbar, g[None], v[None, 3:4]).current[0]
    np.testing.assert_allclose(point, expected[3:4], rtol=1e-6)


def test_a_cell_that_was_frozen_by_an_operating_point_moves_in_the_next_transient(engine):
    """And the other way round: time, which holds the state, starts anew with each analysis."""
    netlist = render_write(lone(), np.full((1, 1), 1e-4), write_drive(lone(), [(0, 0, SET)]))
    gap = "v(xarray.xc_0_0.gap)"
    law = Memristor()
    start = law.state_of_conductance(1e-4) * 1e9
    after = engine.run(netlist, [gap], ["run", "op"])[gap]
    np.testing.assert_allclose(after, start, rtol=1e-9)
    moved = engine.run(netlist, [gap], ["op", "run"])[gap]
    assert moved[0] == pytest.approx(start, rel=1e-9, abs=0)
    assert moved[-1] < 0.9 * start


def test_the_ohmic_part_has_thermal_noise(engine):
    """4 k T g into 1 ohm without noise, at 0 V."""
    netlist = f"""* noise
.temp 26.85
{CELL.netlist}
v1 a 0 dc 0 ac 1
x1 a b memristor g=1e-4
gload b 0 b 0 1
.noise v(b) v1 lin 1 1k 1k
.end
"""
    density = engine.run(netlist, ["inoise_spectrum", "onoise_spectrum"])
    found = float(np.real(density["onoise_spectrum"][0])) ** 2
    assert found == pytest.approx(4 * 1.380649e-23 * 300.0 * 1e-4, rel=1e-3, abs=0)


@pytest.mark.parametrize("g", [1e-5, 1e-4, 1e-3])
@pytest.mark.parametrize("amplitude", [1.5, -1.5, 0.7, 2.5])
@pytest.mark.parametrize("temperature", [300.0, 350.0])
def test_a_pulse_moves_the_state_as_the_ode_says(engine, g, amplitude, temperature):
    """The state to 3e-4 of itself, its change to 1e-3, where a SET runs away as well."""
    pulse = Pulse(amplitude=amplitude, width=20e-9)
    crossbar = lone(temperature=temperature)
    written = write_pulses(crossbar, np.full((1, 1), g), [(0, 0, pulse)], engine=engine)
    law = memristor_of(crossbar)
    time = np.cumsum([0.0, 1e-9, 1e-9, 20e-9, 1e-9])
    begin = float(law.state_of_conductance(g))
    states = respond(law, time, amplitude * np.array([0, 0, 1, 1, 0]), begin)
    found = float(law.state_of_conductance(written.after[0, 0]))
    assert found == pytest.approx(states[-1], rel=3e-4, abs=0)
    assert found - begin == pytest.approx(states[-1] - begin, rel=1e-3, abs=0)


def test_parameters_reach_both_engines(engine):
    cell = load_cell("memristor", v0=0.3, ea=0.65, gap_max=1.5e-9, beta=0.5)
    crossbar, g = array(2, 2, cell=cell)
    assert memristor_of(crossbar) == Memristor(v0=0.3, ea=0.65, gap_max=1.5e-9, beta=0.5)
    written, exact = (
        write_pulses(crossbar, g, [(0, 1, SET)], engine=name) for name in (engine, "nodal")
    )
    np.testing.assert_allclose(written.change, exact.change, rtol=1e-3)
    other = write_pulses(replace(crossbar, cell=CELL), g, [(0, 1, SET)], engine=engine)
    assert np.abs(other.change / written.change - 1).max() > 0.1


@pytest.mark.parametrize("scheme", ["v/2", "v/3", "grounded"])
def test_an_array_is_written_as_kirchhoff_and_the_ode_say(engine, scheme):
    """Every cell's own change to 1e-3, from 7 % down to 1e-8, and the voltages to 1e-6."""
    crossbar, g = array(8, 8)
    targets = [(1, 2, SET), (3, 2, RESET)]
    written, exact = (
        write_pulses(crossbar, g, targets, scheme=scheme, engine=name) for name in (engine, "nodal")
    )
    assert (written.engine, exact.engine) == ("ngspice", "nodal")
    np.testing.assert_allclose(written.change, exact.change, rtol=1e-3)
    np.testing.assert_allclose(written.after, exact.after, rtol=1e-4)
    np.testing.assert_allclose(written.voltage, exact.voltage, rtol=1e-4)
    assert written.change[0, 1, 2] > 0 > written.change[1, 3, 2]  # SET, RESET
    np.testing.assert_array_equal(written.before, g)


def test_a_third_disturbs_half_selected_cells_less_but_all_cells():
    crossbar, g = array(8, 8)
    half, third = (
        write_pulses(crossbar, g, [(3, 4, SET)], scheme=scheme, engine="nodal").disturb(crossbar)
        for scheme in ("v/2", "v/3")
    )
    for name in (ON_WORDLINE, ON_BITLINE):
        assert third[name][0] < 0.4 * half[name][0]
    assert third[UNSELECTED][0] > 50 * half[UNSELECTED][0]
    assert half[SELECTED][0] > 100 * half[ON_BITLINE][0] > 0


def test_an_array_of_one_line_has_no_other_classes():
    crossbar, g = array(1, 3)
    found = write_pulses(crossbar, g, [(0, 1, SET)], engine="nodal").disturb(crossbar)
    assert np.isnan(found[ON_BITLINE][0])
    assert np.isnan(found[UNSELECTED][0])
    assert found[ON_WORDLINE][0] > 0


def test_cells_are_written_in_turn(engine):
    """Each pulse moves its own cell most; what a later one does adds to what it found."""
    crossbar, g = array(4, 4)
    targets = [(0, 0, SET), (2, 3, RESET), (0, 0, SET), (1, 1, SET)]
    written = write_pulses(crossbar, g, targets, engine=engine)
    assert written.conductance.shape == (5, 4, 4)
    for k, (i, j, _) in enumerate(targets):
        assert np.unravel_index(np.abs(written.change[k]).argmax(), (4, 4)) == (i, j)
        np.testing.assert_allclose(
            written.conductance[k] * (1 + written.change[k]), written.conductance[k + 1], rtol=1e-12
        )
    # One run of four pulses is four runs of one: at rest nothing but the states remains.
    apart = g
    for target in targets:
        apart = write_pulses(crossbar, apart, [target], engine=engine).after
    np.testing.assert_allclose(apart, written.after, rtol=1e-4)


@pytest.mark.parametrize("name", ["ngspice", "nodal"])
def test_no_amplitude_changes_nothing(engine, name):
    crossbar, g = array(3, 3)
    targets = [(1, 1, Pulse(amplitude=0.0, width=1e-6))]
    written = write_pulses(crossbar, g, targets, engine=engine if name == "ngspice" else name)
    assert np.abs(written.change).max() < 1e-12
    assert abs(written.voltage[0]) < 1e-15


@pytest.mark.parametrize("name", ["ngspice", "nodal"])
def test_drivers_and_wires_lower_the_voltage_by_what_kirchhoff_says(engine, name):
    """A lone cell in series with both drivers and both segments."""
    running = engine if name == "ngspice" else name
    crossbar = lone(r_wordline=10.0, r_bitline=20.0, r_driver=300.0)
    g = np.full((1, 1), 1e-4)
    without = write_pulses(lone(), g, [(0, 0, SET)], engine=running)
    assert without.voltage[0] == pytest.approx(1.5, rel=1e-9, abs=0)
    written = write_pulses(crossbar, g, [(0, 0, SET)], engine=running, r_bitline_driver=170.0)
    u, law = written.voltage[0], memristor_of(crossbar)
    # The state at the plateau's end is the one after but for the fall, which is slower.
    current = law.static.current(u, written.after[0, 0])
    assert 1.5 - u == pytest.approx(current * (10 + 20 + 300 + 170), rel=5e-3, abs=0)
    assert written.change[0, 0, 0] < 0.5 * without.change[0, 0, 0]


def test_read_disturb_of_a_train_is_that_of_one_long_read(engine):
    """30 reads one by one in ngspice; the ODE takes one that is 30 times as long."""
    crossbar, g = array(4, 4)
    pulse, inputs = Pulse(amplitude=0.3, width=50e-9), np.array([1.0, 0.5, 0.0, -1.0])
    simulated, exact = (
        read_disturb(crossbar, g, pulse, 30, inputs=inputs, engine=name)
        for name in (engine, "nodal")
    )
    quiet = inputs == 0
    np.testing.assert_allclose(simulated.change[~quiet], exact.change[~quiet], rtol=2e-3)
    assert (exact.change[0] > 0).all()
    assert (exact.change[3] < 0).all()
    assert np.abs(exact.change[quiet]).max() < 1e-2 * np.abs(exact.change).max()  # wires
    many = read_disturb(crossbar, g, pulse, 30_000, inputs=inputs)
    assert many.reads == 30_000
    np.testing.assert_allclose(many.change[1], 1000 * exact.change[1], rtol=0.05)
    np.testing.assert_allclose(many.after, g * (1 + many.change), rtol=1e-12)


def test_a_cell_outside_of_the_range_moves_inwards_only(engine):
    crossbar = Crossbar("t", 1, 2, cell=CELL)
    law = memristor_of(crossbar)
    g = np.array([[0.5 * law.g_min, 1e-12]])
    strong = Pulse(amplitude=-2.5, width=1e-7)
    for name in (engine, "nodal"):
        out = write_pulses(crossbar, g, [(0, 0, strong)], scheme="grounded", engine=name)
        assert np.abs(out.change).max() < 1e-9
        back = write_pulses(
            crossbar, g, [(0, 0, replace(strong, amplitude=2.5))], scheme="grounded", engine=name
        )
        assert back.after[0, 0] > law.g_min
        assert abs(back.change[0, 0, 1]) < 1e-9


@pytest.mark.parametrize("cell", [OHMIC, load_cell("sinh")])
def test_a_cell_without_a_state_is_an_error(cell):
    crossbar, g = array(2, 2, cell=cell)
    words = f"cell '{cell.name}' has no state.*load_cell"
    with pytest.raises(InputError, match=words):
        write_pulses(crossbar, g, [(0, 0, SET)])
    with pytest.raises(InputError, match=words):
        read_disturb(crossbar, g, SET, 10)


def test_arguments_that_do_not_fit_are_errors():
    crossbar, g = array(2, 2)
    for engine in ("ngspice", "nodal"):
        with pytest.raises(InputError, match=r"cell \(2, 0\) is outside of 2 x 2"):
            write_pulses(crossbar, g, [(2, 0, SET)], engine=engine)
        with pytest.raises(InputError, match="'v/4'"):
            write_pulses(crossbar, g, [(0, 0, SET)], scheme="v/4", engine=engine)
        with pytest.raises(InputError, match="g has shape"):
            write_pulses(crossbar, g[:1], [(0, 0, SET)], engine=engine)
        with pytest.raises(InputError, match="reads = 0"):
            read_disturb(crossbar, g, SET, 0, engine=engine)
    with pytest.raises(InputError, match="r_bitline_driver = -1"):
        write_pulses(crossbar, g, [(0, 0, SET)], r_bitline_driver=-1.0)
    with pytest.raises(InputError, match="no engine is called 'spectre'"):
        write_pulses(crossbar, g, [(0, 0, SET)], engine="spectre")


def test_a_tolerance_that_cannot_be_kept_is_an_error():
    crossbar, g = array(3, 3, r_wordline=1e3)
    with pytest.raises(ConvergenceError, match="residual"):
        write_pulses(crossbar, g, [(0, 0, SET)], engine=NodalEngine(rtol=1e-18))


def test_plain_ngspice_runs_the_netlist(tmp_path):
    crossbar, g = array(2, 3)
    path = tmp_path / "write.cir"
    path.write_text(render_write(crossbar, g, write_drive(crossbar, [(1, 1, SET)])))
    done = subprocess.run(
        ["ngspice", "-b", "-r", str(tmp_path / "write.raw"), str(path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "write.raw").stat().st_size > 1000
