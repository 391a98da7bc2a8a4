"""Energies and latencies of transients against closed forms."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spicenn.circuit import Crossbar, Tolerances
from spicenn.engines.analog import (
    COMPONENTS,
    behaviour,
    elmore_bitline,
    elmore_wordline,
    render_network,
    simulate,
    time_scale,
    transient,
)
from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff.linear import solve
from spicenn.periphery.tia import settling_time
from spicenn.technology import Driver, Neuron, Periphery, Tia
from tests.engines.analog.networks import line, network, samples, stage
from tests.engines.analog.test_operating_points import chain, run_plain, tiny

ARRAY, DRIVER, TIA, NEURON = range(len(COMPONENTS))
# A cell that conducts nothing to speak of.
OFF = 1e-12


def near(value, rel):
    return pytest.approx(value, rel=rel, abs=0.0)


@pytest.mark.ngspice
@pytest.mark.parametrize("tolerance", [0.1, 1e-3])
def test_charging_a_wordline_costs_c_v_squared_half_of_it_in_the_driver(engine, tolerance):
    """R, C and a cell of conductance g behind an instant step, followed until T.

    With V' = V / (1 + R g) and τ = R C / (1 + R g) the wordline is at V' (1 - e^(-t/τ)): the
    source gives V (C v(T) + g ∫v), of which C v(T)²/2 is stored and g ∫v² heats the cell.
    With g → 0 that is C V², half stored, half lost. T = τ ln(1 / tolerance).
    """
    r, c, g, v = 1e4, 2e-13, 1e-7, 0.2
    periphery = Periphery(driver=Driver(resistance=r, supply=v))
    net = line(1, np.array([[g, OFF]]), 1e7, periphery, c_wordline=c / 2)
    end, tau = v / (1 + r * g), r * c / (1 + r * g)
    found = transient(engine, net, np.array([v]), tolerance=tolerance, rise=1e-4 * tau)
    t = tau * math.log(1 / tolerance)
    assert found.latency[0] == near(t, 2e-3)
    t = float(found.latency[0])
    charged = 1 - math.exp(-t / tau)
    integral = end * (t - tau * charged)
    square = end**2 * (t - 2 * tau * charged + tau / 2 * (1 - math.exp(-2 * t / tau)))
    array = c / 2 * (end * charged) ** 2 + g * square
    drawn = v * (c * end * charged + g * integral)
    assert found.energy[0, ARRAY] == near(array, 2e-3)
    assert found.energy[0, ARRAY] + found.energy[0, DRIVER] == near(drawn, 2e-3)
    if tolerance < 0.01:  # the textbook's, but for what the cell takes in 7 τ
        assert drawn == near(c * v**2, 0.015)
        assert array == near(c * v**2 / 2, 0.015)


@pytest.mark.ngspice
def test_a_ladders_energy_is_its_power_times_time(engine):
    """Segments and cells in a row by a continued fraction; the amplifiers' poles take time.

    Of two tolerances the later one's energy is more by P ΔT, but for what is left of the
    transient at the earlier.
    """
    v, r = 0.2, 200.0
    g = np.linspace(1e-5, 9e-5, 8)
    into = 0.0
    for each in g[::-1]:
        into = 1 / (r + 1 / (into + each))
    periphery = Periphery(tia=Tia(bandwidth=1e9))
    net = line(1, g, 1e3, periphery, r_wordline=r)
    early, late = (
        transient(engine, net, np.array([v]), tolerance=tolerance) for tolerance in (1e-3, 1e-6)
    )
    assert early.power[0, ARRAY] == near(v * v * into, 1e-6)
    spent = late.energy[0, ARRAY] - early.energy[0, ARRAY]
    assert late.latency[0] > 1.5 * early.latency[0]
    assert spent == near(v * v * into * (late.latency[0] - early.latency[0]), 1e-3)


@pytest.mark.ngspice
def test_final_powers_are_those_of_the_node_equations_and_the_supplies(engine):
    """Σ v i of the solved array, and for every block what its closed form draws."""
    driver = Driver(resistance=300.0, supply=1.5, bias_current=2e-6)
    tia = Tia(bandwidth=1e9, supply=1.7, bias_current=3e-6)
    neuron = Neuron()
    wires: dict[str, Any] = {"r_wordline": 2.0, "r_bitline": 3.0}
    net = network(
        stage("a", 6, 5, "relu", rows=(4,), columns=(2,), **wires),
        stage("b", 5, 4, "tanh", **wires), stage("c", 4, 3, "sigmoid", **wires),
        stage("d", 3, 2, None, **wires),
        periphery=Periphery(driver=driver, tia=tia, neuron=neuron),
    )  # fmt: skip
    v = samples(1, 6)[0]
    found = transient(engine, net, v, tolerance=1e-5)
    before = v
    for s, (part, out) in enumerate(zip(net.stages, behaviour(net, v), strict=True)):
        driven = np.concatenate([part.gain * before, part.bias])
        array = drawn = 0.0
        lines = np.zeros(2 * part.outputs)
        for block in part.blocks:
            rows = slice(block.row, block.row + block.crossbar.wordlines)
            segments = replace(block.crossbar, r_driver=driver.resistance).segments()
            fields = solve(
                block.cells.g[None], *(r[None] for r in segments), v=driven[rows][None, None]
            )
            source = fields.source[0, 0]
            array += float(((driven[rows] - driver.resistance * source) * source).sum())
            drawn += driver.supply * float((driver.bias_current + np.abs(source)).sum())
            lines[block.line : block.line + block.crossbar.bitlines] += fields.current[0, 0]
        assert found.power[s, ARRAY] == near(array, 1e-4)
        assert found.power[s, DRIVER] == near(drawn - array, 1e-4)
        plus, minus = lines[::2], lines[1::2]
        z = part.r_feedback * (plus - minus)
        # Two amplifiers at rest, both feedbacks, and what the first sends to the second.
        paid = 2 * tia.bias_current + 2 * np.abs(plus) + np.abs(plus - minus)
        assert found.power[s, TIA] == near(tia.supply * float(paid.sum()), 1e-4)
        half, ib, load = neuron.supply / 2, neuron.bias_current, neuron.load
        currents = {  # out of vdd and into vss
            None: 0.0 * z,
            "relu": 2 * ib + 3 * np.maximum(z, 0) / load,
            "tanh": 4 * ib + out[0] / load,
            "sigmoid": 3 * ib + ib + out[0] / load,
        }[part.activation]
        assert found.power[s, NEURON] == near(half * float(currents.sum()), 1e-4)
        before = out[0]


@pytest.mark.ngspice
def test_an_amplifiers_latency_is_its_poles(engine):
    """One pole, GBW (1/gain + 1/N), and the step of both amplifiers of a pair one by one."""
    tia = Tia(gain=1e3, bandwidth=5e8)
    g = np.array([[OFF, 5e-5]])  # the second amplifier alone
    net = line(1, g, 2e3, Periphery(tia=tia))
    expected = settling_time(1e-3, 2e3, tia, 5e-5 + 1 / 2e3)
    found = transient(engine, net, np.array([0.2]), tolerance=1e-3, rise=1e-13)
    assert found.latency[0] == near(expected, 5e-3)
    # A capacitance at the input makes two poles, which ring: within what the bound says.
    bitline = line(1, g, 2e3, Periphery(tia=tia), c_bitline=2e-13)
    bound = settling_time(1e-3, 2e3, tia, 5e-5 + 1 / 2e3, 2e-13)
    found = transient(engine, bitline, np.array([0.2]), tolerance=1e-3, rise=1e-13)
    assert 0.5 * bound < found.latency[0] < bound


@pytest.mark.ngspice
def test_the_far_end_of_a_line_of_resistance_and_capacitance(engine):
    """64 segments of a wordline against the uniform line's series, and against Elmore.

    1 - v(t) = 4/π Σ (-1)^k / (2k + 1) exp(-(2k + 1)² π²/4 t / RC) at the open end (Carslaw
    and Jaeger, Conduction of Heat in Solids, 3.3, for a slab). 63 % at 0.503 RC, where
    Elmore's RC/2 is; 50 % at 0.379 RC, which Elmore bounds from above (Gupta, Tutuianu,
    Pileggi, IEEE Trans. CAD 16, 95 (1997)).
    """
    n, r, c = 64, 50.0, 1e-14
    periphery = Periphery()
    g = np.full((1, n), OFF)
    g[0, -2] = 1e-8  # reads the last node but one
    net = line(1, g, 1e7, periphery, r_wordline=r, c_wordline=c)
    crossbar = net.stages[0].blocks[0].crossbar
    whole = (n * r) * (n * c)

    def left(t: float) -> float:
        k = np.arange(40)
        terms = (-1.0) ** k / (2 * k + 1) * np.exp(-(((2 * k + 1) * np.pi / 2) ** 2) * t / whole)
        return float(4 / np.pi * terms.sum())

    for tolerance, share in ((0.5, 0.379), (math.exp(-1), 0.503), (0.01, 1.964)):
        found = transient(engine, net, np.array([0.2]), tolerance=tolerance, rise=1e-6 * whole)
        t = float(found.latency[0])
        assert left(share * whole) == near(tolerance, 5e-3)
        # Of 64 nodes, the ladder is later than the uniform line by about one.
        assert t == near(share * whole, 2 / n)
        if tolerance == 0.5:
            assert t < elmore_wordline(crossbar)
        if tolerance == math.exp(-1):
            assert t == near(elmore_wordline(crossbar), 0.02)
    # Σ k r c, and a driver before all of it.
    assert elmore_wordline(crossbar, 100.0) == near(
        sum((100.0 + k * r) * c for k in range(1, n + 1)), 1e-12
    )
    bitline = Crossbar("b", 5, 2, r_bitline=3.0, c_bitline=1e-15, c_cell=1e-15)
    assert elmore_bitline(bitline, 10.0) == near(
        sum((10 + 3 * k) * 2e-15 for k in range(1, 6)), 1e-12
    )
    assert time_scale(net) == near(elmore_wordline(crossbar), 1e-6)


CIRCUIT: dict[str, Any] = {
    "periphery": Periphery(
        driver=Driver(resistance=500.0, bias_current=1e-6),
        tia=Tia(gain=1e3, bandwidth=1e9, v_max=1.0, c_in=2e-14, bias_current=1e-5),
    ),
    "r_wordline": 2.0, "r_bitline": 3.0, "c_wordline": 1e-15, "c_bitline": 1e-15, "c_cell": 1e-15,
}  # fmt: skip


@pytest.mark.ngspice
def test_a_whole_network_settles_at_its_operating_point_stage_after_stage(engine):
    net = chain(offsets=1e-3, **CIRCUIT)
    v = samples(1, 6)[0]
    found = transient(engine, net, v, tolerance=1e-3)
    for y, final in zip(found.outputs, found.final, strict=True):
        assert np.abs(y[-1] - final).max() < 1e-3 * np.abs(final).max()
        assert len(y) == len(found.time)
    assert found.energy.shape == found.power.shape == (4, len(COMPONENTS))
    assert (found.energy[:-1] > 0).all()
    assert found.energy[-1, NEURON] == 0.0  # no neuron there
    # Later stages wait for the first, not each for the one before: a flat neuron hides much.
    assert found.latency[1:].max() > found.latency[0]
    assert found.latency.max() < 10 * time_scale(net) * math.log(1e3)
    # A later end pays for longer.
    later = transient(engine, net, v, tolerance=1e-4)
    assert (later.energy[:, :NEURON] > found.energy[:, :NEURON]).all()


@pytest.mark.ngspice
def test_tighter_tolerances_of_the_simulator_move_energies_and_latencies_by_a_thousandth(
    engine, monkeypatch
):
    net, v = chain(offsets=1e-3, **CIRCUIT), samples(1, 6)[0]
    found = transient(engine, net, v)
    halved: Any = {k: x / 2 for k, x in simulate.TRANSIENT.as_dict().items() if k.endswith("tol")}
    monkeypatch.setattr(simulate, "TRANSIENT", Tolerances(**halved))
    finer = transient(engine, net, v)
    np.testing.assert_allclose(found.energy, finer.energy, rtol=1e-3)
    np.testing.assert_allclose(found.latency, finer.latency, rtol=1e-3)


@pytest.mark.ngspice
def test_a_network_driven_far_past_saturation_still_settles(engine):
    net = chain(gain=5.0, offsets=1e-3, **CIRCUIT)
    found = transient(engine, net, 50 * samples(1, 6)[0])
    assert np.isfinite(found.energy).all()
    assert all(np.abs(y).max() < 1.01 for y in found.outputs)
    assert found.latency.max() < 100 * time_scale(net)


@pytest.mark.ngspice
def test_a_stage_that_is_off_does_not_wait_for_its_leakage(engine):
    """All ReLUs are off: what they put out is 9 nV, and no share of it is to be waited for."""
    g = np.array([[OFF, 5e-5]])
    off = replace(line(1, g, 4e3, Periphery()).stages[0], activation="relu")
    net = network(off, periphery=Periphery(tia=Tia(bandwidth=1e9)))
    found = transient(engine, net, np.array([0.2]))
    assert 0 <= found.final[0][0] < 1e-6
    assert found.latency[0] < 100 * time_scale(net)
    # A difference of equal currents is nothing but rounding.
    equal = line(1, np.array([[5e-5, 5e-5]]), 4e3, Periphery(tia=Tia(bandwidth=1e9)))
    found = transient(engine, equal, np.array([0.2]))
    assert abs(found.final[0][0]) < 1e-9
    assert 0 < found.latency[0] < 100 * time_scale(equal)
    # The simulator's last digits are no share of nothing to be waited for either.
    time, y = np.arange(4.0), np.array([[1.0], [0.5], [1e-7], [-1e-7]])
    assert 1.0 < simulate._settled(time, y, np.array([1e-9]), 0.01) < 2.0
    nothing = transient(engine, net, np.array([0.0]))
    assert nothing.latency[0] == 0.0
    assert not nothing.energy.any()


@pytest.mark.ngspice
def test_what_does_not_settle_is_an_error_that_names_the_stage(engine):
    """A capacitance that a fast amplifier rings with; the stage before is done long since."""
    tia = Tia(gain=1e5, bandwidth=1e11)
    ringing: dict[str, Any] = {"c_bitline": 1e-9}
    net = network(
        stage("quick", 2, 2, None), stage("ringing", 2, 1, None, **ringing),
        periphery=Periphery(tia=tia),
    )  # fmt: skip
    scale = time_scale(net)
    with pytest.raises(ConvergenceError, match=r"stage ringing: .*within 0.001 in .* s") as error:
        transient(
            engine, net, np.array([0.2, -0.1]), tolerance=1e-3, stop=scale / 20, rise=1e-4 * scale
        )
    assert "oscillation" in str(error.value)


@pytest.mark.ngspice
def test_time_is_doubled_until_it_is_enough_and_no_further(engine, monkeypatch):
    net, v = chain(**CIRCUIT), samples(1, 6)[0]
    monkeypatch.setattr(simulate, "time_scale", lambda _: 0.1 * time_scale(net))
    found = transient(engine, net, v)
    assert 2 <= found.time[-1] / found.latency.max() < 8
    monkeypatch.setattr(simulate, "time_scale", lambda _: 1e-4 * time_scale(net))
    first = 1e-13 + 1e-4 * time_scale(net) * 4
    with pytest.raises(ConvergenceError, match=f"{first * 2**7:.3g} s"):
        transient(engine, net, v)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"tolerance": 0.0}, "tolerance = 0.0 is not in"),
        ({"tolerance": 1.0}, "tolerance = 1.0 is not in"),
        ({"v": np.zeros(5)}, r"v of shape \(1, 5\) must be finite, \(sample, 6\)"),
        ({"v": np.zeros((1, 6))}, r"v of shape \(1, 6\) is not one sample"),
        ({"rise": 0.0}, "rise = 0.0 is not between"),
        ({"rise": 2e-9, "stop": 1e-9}, "rise = 2e-09 is not between 0 and stop = 1e-09"),
        ({"stop": math.inf}, "stop = inf"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(engine, wrong, match):
    with pytest.raises(InputError, match=match):
        transient(engine, chain(), **{"v": np.zeros(6), **wrong})


def test_a_transient_takes_one_sample():
    with pytest.raises(InputError, match="one sample"):
        render_network(chain(), samples(2, 6), step=(1e-12, 1e-9))


@pytest.mark.ngspice
def test_plain_ngspice_follows_the_same_transient(engine, tmp_path):
    v, step = np.array([0.15, -0.05]), (1e-11, 5e-8)
    found = transient(engine, tiny(), v, rise=step[0], stop=step[1])
    raw = run_plain(tmp_path, render_network(tiny(), v, step=step, tolerances=simulate.TRANSIENT))
    for s, curve in enumerate(found.outputs, 1):
        np.testing.assert_allclose(raw[f"v(x{s}_0)"], curve[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(raw["time"], found.time)
