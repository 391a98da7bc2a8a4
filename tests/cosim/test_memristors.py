"""An array of memristors by its law: what ngspice and the engines say, at any time asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from spicenn.circuit import Crossbar, load_cell
from spicenn.circuit.write import WRITE_TOLERANCES, Pulse
from spicenn.cosim import Cosimulation
from spicenn.cosim.memristors import ArrayPins, MemristorArray, array_netlist
from spicenn.engines.write import write_pulses
from spicenn.errors import InputError
from spicenn.kirchhoff.memristor import Memristor, respond

LAW = Memristor()
WIRES = {"r_wordline": 5.0, "r_bitline": 8.0, "r_driver": 100.0, "r_sense": 60.0}


def crossbar(wordlines=1, bitlines=1, **others):
    return Crossbar("small", wordlines, bitlines, cell=load_cell("memristor"), **others)


def pulsed(env, levels, width=20e-9, edge=1e-9):
    """Drive sources to levels and back to 0 V."""
    for source, level in levels.items():
        env.drive(source, level, rise=edge)
    yield env.timeout(edge + width)
    for source in levels:
        env.drive(source, 0.0, rise=edge)
    yield env.timeout(edge)


def test_a_cell_moves_as_its_law_says_and_time_at_rest_changes_nothing():
    block = MemristorArray(crossbar(), [[100e-6]])
    with Cosimulation(block) as env:
        env.run(until=1e-3)
        assert block.conductance[0, 0] == 100e-6
        env.run(env.process(pulsed(env, {"vw_0": -1.3})))
        time = np.array([0, 1e-9, 21e-9, 22e-9])
        state = respond(LAW, time, -1.3 * np.array([0, 1, 1, 0]), LAW.state_of_conductance(100e-6))
        expected = LAW.conductance_of_state(state[-1])
        assert expected < 80e-6
        # Twice the error that either integration may make.
        assert block.conductance == pytest.approx(expected, rel=1e-6)
        after = block.conductance
        ds = env.run(until=1.0)
        assert np.array_equal(block.conductance, after)
    gap = ds["xarray.xc_0_0.gap"].values
    assert LAW.conductance_of_state(1e-9 * gap[-1]) == pytest.approx(after[0, 0], rel=1e-12)
    assert np.all(np.diff(ds.time.values) > 0)


def test_cells_of_their_own_parameters_are_cells_of_their_own_law():
    # The control is the cell's law by itself; without the parameter it ends elsewhere.
    vel0, v0 = np.array([[5.0, 20.0]]), np.array([[0.25, 0.3]])
    block = MemristorArray(crossbar(1, 2), [[100e-6, 100e-6]], {"vel0": vel0, "v0": v0})
    with Cosimulation(block) as env:
        env.run(env.process(pulsed(env, {"vw_0": -1.3})))
        env.drive("vw_0", 0.1, rise=1e-9)
        env.run(until=40e-9)
        currents = [env.sample("i(vb_0)"), env.sample("i(vb_1)")]
    time, volts = np.array([0, 1e-9, 21e-9, 22e-9]), -1.3 * np.array([0, 1, 1, 0])
    for j in range(2):
        law = Memristor(vel0=vel0[0, j], v0=v0[0, j])
        state = respond(law, time, volts, law.state_of_conductance(100e-6))[-1]
        assert block.conductance[0, j] == pytest.approx(law.conductance_of_state(state), rel=1e-6)
        assert currents[j] == pytest.approx(float(law.current(0.1, state)), rel=1e-6)
    assert block.conductance[0, 0] > 1.2 * block.conductance[0, 1]


@pytest.mark.parametrize("wires", [{}, WIRES])
def test_an_array_is_the_engine_s(wires):
    # The same pulse and bias, by the nodal engine: the same equations by another route.
    g = np.array([[100e-6, 50e-6], [200e-6, 20e-6]])
    pulse = Pulse(amplitude=-1.4, width=20e-9)
    written = write_pulses(crossbar(2, 2, **wires), g, [(0, 1, pulse)], engine="nodal")
    block = MemristorArray(crossbar(2, 2, **wires), g)
    with Cosimulation(block) as env:
        env.run(env.process(pulsed(env, {"vw_0": -1.4, "vw_1": -0.7, "vb_0": -0.7})))
    change = block.conductance / g - 1
    np.testing.assert_allclose(change, written.change[0], rtol=1e-4)
    assert change[0, 1] < -0.05
    assert -1e-3 < change[0, 0] < 0


@pytest.mark.ngspice
def test_netlist_and_block_are_one_circuit():
    # Wires, cells of their own parameters, half selected cells, an edge that is cut short,
    # and currents on the way. ngspice comes to the law as its steps become small: at 1 ns the
    # smallest change, 2e-6 nm, is off by 4 %, at 0.1 ns by 0.7 %, at 20 ps by 0.03 %.
    shape = crossbar(3, 2, **WIRES, temperature=320.0)
    g = np.geomspace(20e-6, 300e-6, 6).reshape(3, 2)
    each = {"vel0": np.geomspace(5, 20, 6).reshape(3, 2), "gamma0": np.full((3, 2), 15.5)}
    pins = ArrayPins(3, 2)

    def play(env, found):
        yield env.timeout(5e-9)
        yield from pulsed(env, {"vw_1": -1.6, "vw_0": -0.8, "vw_2": -0.8, "vb_1": -0.8})
        env.drive("vw_2", 1.4, rise=2e-9)
        yield env.timeout(1e-9)
        env.drive("vw_2", 0.2, rise=2e-9)
        yield env.timeout(5e-9)
        found += [env.sample(probe) for probe in pins.probes]

    values = []
    cases: Any = (
        (MemristorArray(shape, g, each), {}),
        (
            array_netlist(shape, g, each),
            {"max_step": 2e-11, "probes": pins.probes, "tolerances": WRITE_TOLERANCES},
        ),
    )
    for circuit, options in cases:
        found: list[float] = []
        with Cosimulation(circuit, **options) as env:
            env.run(env.process(play(env, found)))
        values.append(np.array(found))
    law, spice = values
    np.testing.assert_allclose(law[:2], spice[:2], rtol=1e-7)  # currents
    begin = 1e9 * LAW.state_of_conductance(g).ravel()
    moved = law[2:] - begin
    np.testing.assert_allclose(moved, spice[2:] - begin, rtol=1e-3)
    assert np.abs(moved).max() > 0.01


def test_values_before_the_end_of_a_step_are_those_of_their_time():
    levels = [(0.0, 1.0), (3e-9, -1.5), (4e-9, 0.5)]  # the last before the slope's end

    def at(steps):
        block = MemristorArray(crossbar(), [[50e-6]])
        for start, level in levels:
            block.drive("vw_0", level, start, 2e-9)
        for step in steps:
            block.begin(step)
            assert block.finish() == []
        return block

    # From either side of what was reached, and in many steps.
    for time in (2.5e-9, 3.7e-9, 4.0e-9, 5e-9):
        for probe in ("i(vb_0)", "xarray.xc_0_0.gap"):
            direct = at([time]).sample(probe, time)
            assert at([1e-9, 8e-9]).sample(probe, time) == pytest.approx(direct, rel=1e-6)
            assert at(np.linspace(0, time, 7)[1:]).sample(probe, time) == pytest.approx(
                direct, rel=1e-6
            )
    # 4 ns: half way down from 1.0 to -1.5; 5 ns: half way from there to 0.5.
    for time, volts in ((4e-9, -0.25), (5e-9, 0.125)):
        block = at([time])
        gap = 1e-9 * block.sample("xarray.xc_0_0.gap", time)
        assert block.sample("i(vb_0)", time) == pytest.approx(float(LAW.current(volts, gap)))


def test_a_source_may_jump():
    block = MemristorArray(crossbar(), [[100e-6]])
    with Cosimulation(block) as env:
        env.run(env.process(pulsed(env, {"vw_0": -1.3}, edge=0.0)))
    state = respond(LAW, np.array([0, 20e-9]), np.full(2, -1.3), LAW.state_of_conductance(100e-6))
    assert block.conductance == pytest.approx(LAW.conductance_of_state(state[-1]), rel=1e-6)


def test_a_crossing_is_refused():
    with (
        Cosimulation(MemristorArray(crossbar(), [[1e-4]])) as env,
        pytest.raises(InputError, match=r"no crossings.*array_netlist"),
    ):
        env.crossing("i(vb_0)", above=1e-6)


@pytest.mark.parametrize("make", [array_netlist, MemristorArray])
@pytest.mark.parametrize(
    ("g", "each", "message"),
    [
        ([1e-4], None, "g has shape"),
        ([[-1e-4], [1e-4]], None, "finite and positive"),
        ([[1e-4], [1e-4]], {"vel": [[1.0], [1.0]]}, "no parameter 'vel'; there is vel0"),
        ([[1e-4], [1e-4]], {"vel0": [1.0, 1.0]}, "parameter 'vel0' must be"),
        ([[1e-4], [1e-4]], {"vel0": [[1.0], [-1.0]]}, r"cell \(1, 0\): vel0 = -1.0 is out of"),
        ([[1e-4], [1e-4]], {"temperature": [[300.0], [300.0]]}, "no parameter 'temperature'"),
    ],
)
def test_bad_arrays_are_named(make, g, each, message):
    with pytest.raises(InputError, match=message):
        make(crossbar(2, 1), g, each)


def test_other_bad_input_is_named():
    with pytest.raises(InputError, match="no state to be written"):
        MemristorArray(Crossbar("ohmic", 1, 1), [[1e-4]])
    with pytest.raises(InputError, match="rtol = nan"):
        MemristorArray(crossbar(), [[1e-4]], rtol=math.nan)
    block = MemristorArray(crossbar(), [[1e-4]])
    with pytest.raises(InputError, match=r"no probe 'i\(vb_1\)'; there is i\(vb_0\)"):
        block.check_probe("i(vb_1)")
    with pytest.raises(InputError, match="no external source 'vw_3'; there is vw_0"):
        block.check_source("vw_3")
