"""The amplifier's model is its circuit: same output, same slope, same poles, same supply."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spicenn.errors import NetlistError
from spicenn.periphery.mismatch import draw_offset
from spicenn.periphery.tia import (
    closed_loop_bandwidth,
    diff_tia_instance,
    diff_tia_output,
    input_resistance,
    poles,
    settling_time,
    supply_current,
    tia_instance,
    tia_output,
)
from spicenn.technology import Tia
from spicenn.technology.library import subcircuit_text

R = 10e3
V_MAX, GBW = 0.9, 100e6
SPEC = Tia(gain=500.0, bandwidth=GBW, v_max=V_MAX, bias_current=20e-6)
# From a tenth of full scale to forty times of it, both signs.
CURRENT = np.concatenate([-np.geomspace(9e-6, 3.6e-3, 12)[::-1], np.geomspace(9e-6, 3.6e-3, 12)])
TABLE = ",".join(f"{k},{i!r}" for k, i in enumerate(CURRENT.tolist()))
SOURCE = ["vk k 0 0", f"bi 0 in i=pwl(v(k),{TABLE})", "vdd vdd 0 1.8"]
SWEEP = f".dc vk 0 {len(CURRENT) - 1} 1"


@pytest.mark.ngspice
@pytest.mark.parametrize("conductance", [0.0, 2e-3])
@pytest.mark.parametrize("offset", [0.0, 3e-3])
def test_output_and_input_are_the_circuits_from_linear_to_far_past_saturation(
    simulate, conductance, offset
):
    lines = [*SOURCE, tia_instance("amp", ("in", "out", "vdd"), SPEC, R, offset)]
    if conductance:
        lines.append(f"rbit in 0 {1 / conductance!r}")
    found = simulate(["tia"], lines, SWEEP, ["v(out)", "v(in)"])
    expected = tia_output(CURRENT, R, SPEC, offset, conductance)
    np.testing.assert_allclose(found["v(out)"], expected, rtol=1e-6, atol=1e-9)
    assert SPEC.v_max is not None
    # An input 36 V off the ground, forty times too much, is still within 1 % of the bound.
    assert SPEC.v_max < np.abs(expected).max() < 1.01 * SPEC.v_max
    # Kirchhoff at the input ties the two together.
    v = (CURRENT * R + expected) / (1 + R * conductance)
    np.testing.assert_allclose(found["v(in)"], v, rtol=1e-6, atol=1e-9)


@pytest.mark.ngspice
def test_no_limit_is_a_very_large_one_in_the_circuit(simulate):
    ideal = Tia()
    lines = [*SOURCE, tia_instance("amp", ("in", "out", "vdd"), ideal, R)]
    found = simulate(["tia"], lines, SWEEP, ["v(out)"])["v(out)"]
    np.testing.assert_array_equal(tia_output(CURRENT, R, ideal), -CURRENT * R)
    np.testing.assert_allclose(found, -CURRENT * R, rtol=1e-8)


@pytest.mark.ngspice
def test_a_pair_reads_the_difference_also_with_errors(simulate):
    spec = Tia(gain=2e3, v_max=1.2)
    plus, offsets, r_first, g = 80e-6, (2e-3, -1e-3), 4e3, (1e-3, 0.5e-3)
    minus = np.linspace(-200e-6, 300e-6, 11)
    lines = [
        "vk k 0 0", f"bp 0 p i={plus}", "bm 0 m i=v(k)", "vdd vdd 0 1.8",
        f"rp p 0 {1 / g[0]}", f"rm m 0 {1 / g[1]}",
        diff_tia_instance("pair", ("p", "m", "out", "vdd"), spec, r_first, R, offsets),
    ]  # fmt: skip
    found = simulate(["tia"], lines, ".dc vk -200u 300u 50u", ["v(out)"])["v(out)"]
    expected = diff_tia_output(plus, minus, r_first, R, spec, offsets, g)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    exact = diff_tia_output(plus, minus, r_first, R, Tia())
    np.testing.assert_allclose(exact, R * (plus - minus), rtol=1e-12, atol=1e-15)


def test_limits_of_the_model_are_the_textbooks():
    i, g, vos = 20e-6, 1e-3, 2e-3
    noise_gain = 1 + R * g
    linear = Tia(gain=500.0)
    assert tia_output(i, R, Tia(), vos, g) == pytest.approx(
        noise_gain * vos - i * R, rel=1e-12, abs=0
    )
    assert tia_output(i, R, linear) == pytest.approx(-i * R * 500 / 501, rel=1e-12, abs=0)
    # An input of v_max is a thousandth beyond it, four times as much twice that.
    assert tia_output(0.9 / R, R, Tia(v_max=0.9)) == pytest.approx(-0.9, rel=1e-12, abs=0)
    for times, beyond in ((2, 1e-3), (5, 2e-3)):
        y = tia_output(times * 0.9 / R, R, Tia(v_max=0.9))
        assert -y / 0.9 - 1 == pytest.approx(beyond, rel=2e-3)
    assert input_resistance(R, linear) == R / 501
    assert input_resistance(R, Tia()) == 0.0
    # What a short would draw and what flows into the input's resistance say the same.
    into = i / (1 + g * input_resistance(R, linear))
    assert tia_output(into, R, linear) == pytest.approx(
        tia_output(i, R, linear, 0.0, g), rel=1e-12, abs=0
    )
    # Far from its limits the bounded amplifier is the linear one, and the other way round.
    wide, high = Tia(gain=500.0, v_max=1e4), Tia(gain=1e12, v_max=0.9)
    assert tia_output(i, R, wide) == pytest.approx(tia_output(i, R, linear), rel=1e-9)
    within = np.abs(CURRENT * R) < 0.9
    np.testing.assert_allclose(
        tia_output(CURRENT, R, high)[within], -CURRENT[within] * R, rtol=1e-9
    )


def test_the_model_solves_its_equation_for_tensors_and_arrays_alike():
    offset, g = np.linspace(-5e-3, 5e-3, len(CURRENT)), np.geomspace(1e-5, 1e-2, len(CURRENT))
    y = tia_output(CURRENT, R, SPEC, offset, g)
    noise_gain = 1 + R * g
    v = (y + CURRENT * R) / noise_gain
    over = np.maximum(np.abs(y) / SPEC.v_max - 1, 0) / 1e-3
    clamp = np.sign(y) * SPEC.gain * SPEC.v_max * over**2
    np.testing.assert_allclose(SPEC.gain * (offset - v), y + clamp, rtol=1e-9)
    current, resistance, vos, conductance = map(torch.as_tensor, (CURRENT, R, offset, g))
    tensor = tia_output(current, resistance, SPEC, vos, conductance)
    np.testing.assert_allclose(tensor.numpy(), y, rtol=1e-14)
    # One line's amplifier does not depend on the others.
    assert tia_output(CURRENT[3:4], R, SPEC, offset[3:4], g[3:4])[0] == y[3]
    assert math.isnan(tia_output(np.array([math.nan, 1e-6]), R, SPEC)[0])


@pytest.mark.parametrize("spec", [SPEC, Tia(), Tia(gain=1e3)])
def test_gradients_are_those_of_the_solution(spec):
    def output(i, r, vos, g):
        return tia_output(i, r, spec, vos, g)

    i = torch.linspace(-1.5e-4, 1.5e-4, 7, dtype=torch.float64, requires_grad=True)
    arguments = (
        i,
        torch.tensor(R, dtype=torch.float64, requires_grad=True),
        torch.tensor(1e-3, dtype=torch.float64, requires_grad=True),
        torch.tensor(1e-3, dtype=torch.float64, requires_grad=True),
    )
    h = 1e-6
    grads = torch.autograd.grad(output(*arguments).sum(), arguments)
    for k, (argument, gradient) in enumerate(zip(arguments, grads, strict=True)):
        scale = float(argument.detach().abs().max())
        shifted = []
        for sign in (1, -1):
            moved = [a.detach() for a in arguments]
            moved[k] = moved[k] + sign * h * scale
            shifted.append(output(*moved))
        slope = (shifted[0] - shifted[1]) / (2 * h * scale)
        total = gradient if k == 0 else gradient.sum()
        np.testing.assert_allclose(total, slope if k == 0 else slope.sum(), rtol=1e-5)


@pytest.mark.ngspice
@pytest.mark.parametrize("c_in", [0.0, 2e-12])
def test_a_small_step_settles_with_the_models_poles(simulate, c_in):
    """Within the bound, and not long before it: the output leaves the band near the end."""
    spec = Tia(gain=1e3, bandwidth=50e6, c_in=c_in)
    g, tolerance = 3e-4, 1e-3
    settle = settling_time(tolerance, R, spec, g)
    if c_in == 0:
        assert settle == pytest.approx(
            -math.log(tolerance) / (2 * math.pi * closed_loop_bandwidth(R, spec, g)),
            rel=1e-9,
            abs=0,
        )
    lines = [
        "ii 0 in pwl(0 0 1p 1u)", f"rb in 0 {1 / g!r}", "vdd vdd 0 1.8",
        tia_instance("amp", ("in", "out", "vdd"), spec, R),
    ]  # fmt: skip
    found = simulate(["tia"], lines, f".tran {settle / 2000} {3 * settle} 0 {settle / 2000}",
                     ["time", "v(out)"])  # fmt: skip
    final = tia_output(1e-6, R, spec, 0.0, g)
    away = np.abs(found["v(out)"] / final - 1.0)
    last = found["time"][np.flatnonzero(away > tolerance)[-1]]
    assert 0.7 * settle < last < 1.001 * settle
    # The response is that of the two poles, not just within them.
    p = poles(R, spec, g)
    t = found["time"]
    weights = [np.prod([q / (q - own) for q in p if q != own]) for own in p]
    model = final * (1 - sum(w * np.exp(own * t) for w, own in zip(weights, p, strict=True)).real)
    assert np.abs(found["v(out)"] - model).max() < 2e-3 * abs(final)


@pytest.mark.ngspice
def test_an_overload_in_time_clips_recovers_and_is_paid_for(simulate):
    """Energy is what the supply's source gives; the amplifier comes back from 20 times too much."""
    peak, width = 20 * V_MAX / R, 200e-9
    lines = [
        f"ii 0 in pwl(0 0 1n 0 2n {peak} {2e-9 + width} {peak} {3e-9 + width} 10u)",
        "vdd vdd 0 1.8", tia_instance("amp", ("in", "out", "vdd"), SPEC, R),
    ]  # fmt: skip
    found = simulate(["tia"], lines, ".tran 0.2n 600n 0 0.2n", ["time", "v(out)", "i(vdd)"])
    t, out = found["time"], found["v(out)"]
    assert np.abs(out).max() <= 1.01 * V_MAX
    overloaded = (t > 150e-9) & (t < width)
    np.testing.assert_allclose(out[overloaded], tia_output(peak, R, SPEC), rtol=1e-6)
    assert out[-1] == pytest.approx(tia_output(10e-6, R, SPEC), rel=1e-6)
    back = t[np.flatnonzero(np.abs(out - out[-1]) > 1e-2)[-1]] - width
    assert back < 20 / GBW
    energy = -np.trapezoid(1.8 * found["i(vdd)"], t)
    settled = 1.8 * (supply_current(peak, SPEC) * width + supply_current(10e-6, SPEC) * 400e-9)
    assert energy == pytest.approx(settled, rel=0.05, abs=0)
    assert -found["i(vdd)"][-1] == pytest.approx(supply_current(10e-6, SPEC), rel=1e-6, abs=0)


@pytest.mark.ngspice
def test_the_amplifier_adds_no_noise_but_its_resistors(ngspice):
    """Nyquist through the virtual ground; .noise needs the Sparse solver."""
    g = np.array([20e-6, 50e-6, 1e-6])
    netlist = [
        "* noise", ".options gmin=1e-15", ".temp 26.85", subcircuit_text("tia"),
        "vin in 0 dc 0 ac 1", *(f"r{k} in bit {1 / x!r}" for k, x in enumerate(g.tolist())),
        "vdd vdd 0 1.8",
        tia_instance("amp", ("bit", "out", "vdd"), Tia(gain=1e8), R), ".end",
    ]  # fmt: skip
    found = ngspice.run("\n".join(netlist), ["onoise_spectrum"], ["noise v(out) vin lin 1 1k 1k"])
    expected = math.sqrt(4 * 1.380649e-23 * 300.0 * (g.sum() + 1 / R)) * R
    assert found["onoise_spectrum"][0] == pytest.approx(expected, rel=1e-5, abs=0)


def test_an_amplifier_without_limits_settles_at_once():
    assert settling_time(1e-3, R, Tia()) == 0.0
    assert settling_time(1e-3, R, Tia(gain=1e3), 0.0, 1e-12) == pytest.approx(
        math.log(1e3) * R * 1e-12 / 1001, rel=1e-9, abs=0
    )


def test_offsets_have_the_records_deviation_mismatch_of_the_pair_included():
    spec = Tia(offset=1e-3, a_vt=3e-9, width=4e-6, length=1e-6)
    sigma = math.hypot(1e-3, math.sqrt(2) * 3e-9 / 2e-6)
    drawn = draw_offset(spec, np.random.default_rng(1), (20000,))
    assert drawn.std() == pytest.approx(sigma, rel=4 / math.sqrt(2 * 20000))
    assert abs(drawn.mean()) < 4 * sigma / math.sqrt(20000)


@pytest.mark.parametrize("name", ["a b", "X", "a\n.control", ""])
def test_only_plain_names_reach_a_netlist(name):
    with pytest.raises(NetlistError):
        tia_instance(name, ("in", "out", "vdd"), SPEC, R)
    with pytest.raises(NetlistError):
        tia_instance("amp", ("in", name, "vdd"), SPEC, R)
    with pytest.raises(NetlistError):
        tia_instance("amp", ("in", "out", "vdd"), SPEC, math.inf)
