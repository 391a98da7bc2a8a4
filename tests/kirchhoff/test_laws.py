"""Laws on their own: monotone, smooth, the equations that define them, parameters per cell."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spicenn as sn
from spicenn.errors import InputError
from spicenn.kirchhoff import Fefet, GatedLaw, Pcm, Rram1T1R, Sinh
from spicenn.kirchhoff.transistors import threshold_shift, transconductance_factor


@st.composite
def gated_laws(draw: st.DrawFn) -> tuple[Any, float, float]:
    """A law with a transistor, its cell's conductance and the voltage of its bitline."""
    kind = draw(st.sampled_from([Rram1T1R, Fefet]))
    more = {"vgate": draw(st.floats(-0.5, 3.0))} if kind is Rram1T1R else {}
    law = kind(
        kp=10 ** draw(st.floats(-6, -2)),
        w=draw(st.sampled_from([1e-7, 1e-6])),
        l=draw(st.sampled_from([1e-7, 1e-6])),
        dvt=draw(st.floats(-0.3, 0.3)),
        beta=draw(st.floats(0.3, 3.0)),
        temperature=draw(st.floats(200.0, 450.0)),
        **more,
    )
    g = 10 ** draw(st.floats(-12, -3))
    return law, g, draw(st.floats(-1.0, 1.0))


def strength(law: Any) -> float:
    return float(law.beta * law.kp * law.w / law.l * transconductance_factor(law.temperature))


@settings(max_examples=100, deadline=None)
@given(gated_laws())
def test_gated_laws_are_monotone_and_smooth(drawn):
    """The slope is the derivative, within β h² / 2 of a step h: the curvature's bound."""
    law, g, b = drawn
    beta, h = strength(law), 1e-2
    u = np.arange(-4.0, 4.0, h)
    i, slope = law.current(u, g, b), law.slope(u, g, b)
    rounding = 1e-13 * (np.abs(i).max() + g * 4 + beta)
    assert (np.diff(i) >= -rounding).all()
    assert (slope >= 0).all()
    bound = 0.5 * beta * h * h * (1 + 1e-6) + rounding
    assert (np.abs(np.diff(i) - slope[:-1] * h) <= bound).all()
    assert (np.abs(np.diff(i) - slope[1:] * h) <= bound).all()
    # Along the bitline's voltage too, at constant u. Where the transistor of a 1T1R cell
    # comes out of saturation at an overdrive p, that curvature is β p (p + 2 k) / k².
    at = np.arange(b - 0.3, b + 0.3, h)
    if isinstance(law, Rram1T1R):
        k, p = g / beta, max(law.vgate - law.vto - law.dvt + 0.2 - at[0], 0.0)
        bound = bound * (1 + p * (p + 2 * k) / k**2)
    for across in (-0.4, 0.0, 0.02, 0.7):
        along = law.current(across + 0 * at, g, at)
        tail = law.transconductance(across + 0 * at, g, at)
        assert (np.abs(np.diff(along) - tail[:-1] * h) <= bound).all()
    # Held on the wordline's side, a higher bitline never drives more current.
    assert (law.transconductance(u, g, b) <= slope + 1e-12 * beta).all()
    assert law.current(0.0 * u, g, b) == pytest.approx(0.0 * u, abs=rounding)


@settings(max_examples=200, deadline=None)
@given(gated_laws(), st.floats(-3.0, 3.0))
def test_the_closed_form_solves_the_two_devices_in_series(drawn, u):
    law, g, b = drawn
    if isinstance(law, Fefet):
        return
    i = float(law.current(np.array(u), g, b))
    x = u + b - i / g
    over = law.vgate - law.vto - law.dvt - threshold_shift(law.temperature)
    channel = 0.5 * strength(law) * (max(over - b, 0.0) ** 2 - max(over - x, 0.0) ** 2)
    # What rounding of x does to the channel's current.
    slack = 1e-12 * (abs(i) + strength(law) * (abs(over) + abs(x) + 1) * (abs(x) + abs(u) + 1))
    assert abs(channel - i) <= slack


LAWS: list[GatedLaw] = [Rram1T1R(), Rram1T1R(vgate=0.9, kp=3e-5), Fefet(), Fefet(dvt=-0.3)]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("b", [-0.2, 0.0, 0.61])
def test_a_gated_law_gives_its_derivatives(law, b):
    u = torch.linspace(-1.5, 1.9, 151, dtype=torch.float64, requires_grad=True)
    g = torch.full_like(u, 2e-5, requires_grad=True)
    at = torch.full_like(u, b, requires_grad=True)
    current = law.current(u, g, at)
    by_u, by_g, by_b = torch.autograd.grad(current.sum(), (u, g, at))
    torch.testing.assert_close(law.slope(u, g, at), by_u, rtol=1e-9, atol=1e-17)
    torch.testing.assert_close(law.sensitivity(u, g, at), by_g, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(law.transconductance(u, g, at), by_b, rtol=1e-9, atol=1e-17)
    arrays = (x.detach().numpy() for x in (u, g, at))
    np.testing.assert_allclose(law.current(*arrays), current.detach().numpy(), rtol=1e-13)


@pytest.mark.parametrize("law", LAWS)
def test_a_dead_cell_conducts_nothing_and_is_no_number_gone_wrong(law):
    u, g, b = np.linspace(-2, 2, 41), np.zeros(41), np.full(41, 0.1)
    for name in ("current", "slope", "transconductance", "sensitivity"):
        values = getattr(law, name)(u, g, b)
        assert np.isfinite(values).all()
    if isinstance(law, Rram1T1R):
        assert (law.current(u, g, b) == 0).all()


def test_a_one_transistor_cell_is_its_conductances_in_series_and_saturates():
    law, g = Rram1T1R(), 1e-4
    channel = 300e-6 * 0.6 / 0.18 * 1.35
    slope = law.slope(np.array(0.0), g, 0.0)
    assert slope == pytest.approx(1 / (1 / g + 1 / channel), rel=1e-12, abs=0)
    most = 0.5 * channel * 1.35
    assert law.current(np.array([20.0, 30.0]), 1e-3, 0.0) == pytest.approx(
        [most] * 2, rel=1e-12, abs=0
    )
    assert law.current(np.array(0.3), g, 0.2) < law.current(np.array(0.3), g, 0.0)


def test_a_ferroelectric_cell_has_its_conductance_at_no_voltage_whatever_its_beta():
    g = np.array([1e-6, 1e-5, 1e-4])
    for beta in (0.7, 1.0, 1.6):
        assert Fefet(beta=beta).slope(0 * g, g, 0 * g) == pytest.approx(g, rel=1e-12, abs=0)
    # And saturates where it says: 10 uS at 0.1 V.
    assert Fefet().slope(np.array([0.099, 0.101]), 1e-5, 0.0) == pytest.approx([1e-7, 0], abs=1e-12)


def test_drift_is_a_power_of_time():
    law = Pcm(nu=np.array([0.0, 0.05]), t=1980.0, t0=20.0)
    assert law.conductance(np.full(2, 1e-5)) == pytest.approx(
        [1e-5, 1e-5 * 100**-0.05], rel=1e-12, abs=0
    )
    assert Pcm(nu=0.05).conductance(1e-5) == 1e-5


WIRES: dict[str, Any] = {"r_wordline": 9.0, "r_bitline": 5.0}


@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_parameters_of_every_cell_are_the_cells_own(kind):
    """An array of cells that differ is, without wires, the cells one by one."""
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (2, 4, 3)), rng.uniform(-0.3, 0.3, (2, 5, 4))
    dvt, v0 = rng.uniform(-0.05, 0.05, (2, 4, 3)), rng.uniform(0.1, 0.3, (4, 3))
    as_given = torch.from_numpy if kind == "tensor" else np.asarray

    def current(law: Any, parameters: dict[str, Any], wires: float = 0.0) -> Any:
        given = {key: as_given(x) for key, x in parameters.items()}
        return np.asarray(
            sn.crossbar_currents(
                as_given(g), as_given(v), r_wordline=wires, r_bitline=wires, law=law,
                parameters=given,
            )
        )  # fmt: skip

    by_one = [
        [
            sum(
                Rram1T1R(dvt=dvt[c, i, j]).current(v[c, :, i], g[c, i, j], 0.0 * v[c, :, i])
                for i in range(4)
            )
            for j in range(3)
        ]
        for c in range(2)
    ]
    expected = np.array(by_one).transpose(0, 2, 1)
    np.testing.assert_allclose(current(Rram1T1R(), {"dvt": dvt}), expected, rtol=1e-9)
    # A parameter without the chips' axis is that of every chip.
    shared = current(Sinh(), {"v0": v0}, 9.0)
    whole = current(Sinh(), {"v0": np.broadcast_to(v0, g.shape).copy()}, 9.0)
    np.testing.assert_array_equal(shared, whole)
    assert np.abs(shared / current(Sinh(), {}, 9.0) - 1).max() > 1e-3


def test_a_linear_law_is_solved_as_its_conductances():
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (2, 4, 3)), rng.uniform(-0.3, 0.3, (50, 4))
    nu = rng.uniform(0.0, 0.1, g.shape)
    law = Pcm(t=1e6)
    drifted = sn.crossbar_currents(g, v, law=law, parameters={"nu": nu}, **WIRES)
    expected = sn.crossbar_currents(replace(law, nu=nu).conductance(g), v, **WIRES)
    np.testing.assert_array_equal(drifted, expected)
    details = sn.crossbar_currents(g, v, law=law, parameters={"nu": nu}, details=True, **WIRES)
    u = details.wordline_voltage - details.bitline_voltage
    through = replace(law, nu=nu[:, None]).current(u, g[:, None])
    np.testing.assert_allclose(details.cell_current, through, rtol=1e-12)


def test_wrong_parameters_are_named():
    g, v = np.full((4, 3), 1e-5), np.full(4, 0.1)

    def solve(law: Any, **parameters: Any) -> None:
        sn.crossbar_currents(g, v, law=law, parameters=parameters, **WIRES)

    with pytest.raises(InputError, match=r"Sinh has no parameter 'nu'.*bound, v0"):
        solve(Sinh(), nu=g)
    with pytest.raises(InputError, match=r"parameters\['v0'\] has shape \(3, 4\)"):
        solve(Sinh(), v0=g.T)
    with pytest.raises(InputError, match=r"parameters\['v0'\] holds nan at \(0, 0\)"):
        solve(Sinh(), v0=np.nan * g)
    with pytest.raises(InputError, match=r"Sinh: v0 = -1\.0 is not finite and positive"):
        solve(Sinh(), v0=-1.0 + 0 * g)
    with pytest.raises(InputError, match="no law that has them"):
        solve(None, v0=g)
    with pytest.raises(InputError, match="leading axes do not broadcast"):
        sn.crossbar_currents(
            np.ones((2, 4, 3)), v, law=Sinh(), parameters={"v0": np.ones((3, 4, 3))}, **WIRES
        )
    for law, bad in ((Rram1T1R, {"kp": 0.0}), (Fefet, {"dvt": np.inf}), (Pcm, {"t": -1.0})):
        with pytest.raises(InputError, match=next(iter(bad))):
            law(**bad)
