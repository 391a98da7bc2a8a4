"""Nonlinear cells: Newton's answer satisfies the cells' law and the wires' at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spicenn as sn
from spicenn.arrays import namespace
from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff import Fefet, GatedLaw, Law, Ohmic, Rram1T1R, Sinh, linear, newton
from tests.kirchhoff.reference import kirchhoff
from tests.kirchhoff.strategies import cases


@dataclass(frozen=True)
class Cubic:
    """i = g (u + u³ / v0²): no bound on its slope."""

    v0: float = 0.02

    def current(self, u: Any, g: Any) -> Any:
        return g * self.sensitivity(u, g)

    def slope(self, u: Any, g: Any) -> Any:
        return g * (1 + 3 * u**2 / self.v0**2)

    def sensitivity(self, u: Any, g: Any) -> Any:
        return u + u**3 / self.v0**2


@dataclass(frozen=True)
class Diode:
    """i = g vt (exp(u / vt) - 1): overflows where a step goes too far."""

    vt: float = 0.026

    def current(self, u: Any, g: Any) -> Any:
        return g * self.sensitivity(u, g)

    def slope(self, u: Any, g: Any) -> Any:
        return g * namespace(u).exp(u / self.vt)

    def sensitivity(self, u: Any, g: Any) -> Any:
        return self.vt * namespace(u).expm1(u / self.vt)


@dataclass(frozen=True)
class Tanh:
    """i = g v0 tanh(u / v0): next to no slope where it saturates."""

    v0: float = 0.01

    def current(self, u: Any, g: Any) -> Any:
        return g * self.sensitivity(u, g)

    def slope(self, u: Any, g: Any) -> Any:
        return g / namespace(u).cosh(u / self.v0) ** 2

    def sensitivity(self, u: Any, g: Any) -> Any:
        return self.v0 * namespace(u).tanh(u / self.v0)


@dataclass(frozen=True)
class Battery:
    """i = g (u - 1 V)."""

    def current(self, u: Any, g: Any) -> Any:
        return g * (u - 1.0)

    def slope(self, u: Any, g: Any) -> Any:
        return g + 0.0 * u

    def sensitivity(self, u: Any, g: Any) -> Any:
        return u - 1.0


LAWS: list[Law] = [Sinh(), Sinh(v0=0.03), Cubic(), Diode(), Ohmic()]


@settings(max_examples=60, deadline=None)
@given(cases(broken=True), st.sampled_from(LAWS), st.sampled_from([1.0, 5.0]))
def test_cells_follow_their_law_and_wires_kirchhoffs(case, law, volts):
    """At the answer the linear array of the cells' tangents has the same answer.

    That is what defines the operating point, and it is checked in extended precision.
    """
    v = volts * case.v
    with np.errstate(over="ignore", invalid="ignore"):
        solution = sn.crossbar_currents(
            case.g, v, r_wordline=case.r_wordline, r_bitline=case.r_bitline, law=law,
            details=True,
        )  # fmt: skip
    assert solution.residual <= 1e-9
    u = solution.wordline_voltage - solution.bitline_voltage
    np.testing.assert_array_equal(solution.cell_current, law.current(u, case.g))
    slope = law.slope(u, case.g)
    tangent = kirchhoff(
        slope, v, case.r_wordline, case.r_bitline, offset=solution.cell_current - slope * u
    )
    scale = np.abs(solution.cell_current).sum() + 1e-6 * (slope * abs(v).max()).sum()
    assert np.abs(tangent.current - solution.current).sum() <= 1e-8 * scale
    assert np.abs(tangent.cell_current - solution.cell_current).sum() <= 1e-6 * scale


def test_an_ohmic_law_is_no_law():
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (3, 20, 10)), rng.uniform(-0.2, 0.2, (5, 20))
    wires: dict[str, Any] = {"r_wordline": 20.0, "r_bitline": 30.0}
    linear = sn.crossbar_currents(g, v, **wires)
    newton = sn.crossbar_currents(g, v, law=Ohmic(), **wires)
    np.testing.assert_allclose(newton, linear, rtol=0, atol=1e-9 * np.abs(linear).max())


def test_small_voltages_make_a_sinh_cell_ohmic_and_large_ones_do_not():
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (20, 10)), rng.uniform(0, 1, 20)
    wires: dict[str, Any] = {"r_wordline": 20.0, "r_bitline": 30.0}
    for volts, low, high in ((1e-5, 0.0, 1e-8), (0.3, 0.01, 1.0)):
        ohmic = sn.crossbar_currents(g, volts * v, **wires)
        sinh = sn.crossbar_currents(g, volts * v, law=Sinh(), **wires)
        assert low <= np.abs(sinh / ohmic - 1).max() <= high


def test_without_wires_cells_are_alone():
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (20, 10)), rng.uniform(-1, 1, (4, 20))
    law = Sinh(v0=0.1)
    current = sn.crossbar_currents(g, v, r_wordline=0.0, r_bitline=0.0, law=law)
    u = np.broadcast_to(v[:, :, None], (4, 20, 10))
    np.testing.assert_allclose(current, law.current(u, g).sum(axis=1), rtol=1e-9, atol=1e-15)


def test_batches_are_the_single_arrays_to_the_last_bit(monkeypatch):
    rng = np.random.default_rng(1)
    g, v = rng.uniform(1e-6, 1e-4, (3, 6, 4)), rng.uniform(-0.5, 0.5, (3, 5, 6))
    r = rng.uniform(1, 100, (3, 6, 4))
    together = sn.crossbar_currents(g, v, r_wordline=r, r_bitline=9.0, law=Sinh())
    # Cut so that a chip's samples fall apart.
    monkeypatch.setattr("spicenn.kirchhoff.newton._CELLS_AT_ONCE", 4 * 24)
    cut = sn.crossbar_currents(g, v, r_wordline=r, r_bitline=9.0, law=Sinh())
    np.testing.assert_array_equal(cut, together)
    for chip in range(3):
        for sample in range(5):
            one = sn.crossbar_currents(
                g[chip], v[chip, sample], r_wordline=r[chip], r_bitline=9.0, law=Sinh()
            )
            np.testing.assert_array_equal(one, together[chip, sample])


@pytest.mark.parametrize("law", LAWS)
def test_a_law_gives_its_derivatives(law):
    u = torch.linspace(-1.2, 1.2, 101, dtype=torch.float64, requires_grad=True)
    g = torch.full_like(u, 2e-5, requires_grad=True)
    current = law.current(u, g)
    by_u, by_g = torch.autograd.grad(current.sum(), (u, g))
    torch.testing.assert_close(law.slope(u, g), by_u, rtol=1e-12, atol=1e-19)
    torch.testing.assert_close(law.sensitivity(u, g), by_g, rtol=1e-12, atol=0)
    assert (law.slope(u, g) > 0).all()
    arrays = law.current(u.detach().numpy(), g.detach().numpy())
    np.testing.assert_allclose(arrays, current.detach().numpy(), rtol=1e-14)


def test_a_saturating_law_needs_its_steps_shortened():
    rng = np.random.default_rng(0)
    g, v = 10 ** rng.uniform(-6, -4, (5, 4)), rng.uniform(-3, 3, (20, 5))
    wires: dict[str, Any] = {"r_wordline": 1e5, "r_bitline": 1e5}
    solution = sn.crossbar_currents(g, v, **wires, law=Tanh(), details=True)
    assert solution.residual.max() <= 1e-9
    assert solution.iterations.max() < 30


def test_too_few_steps_are_an_error(monkeypatch):
    """2 V across a diode is seventy steps down its exponential."""
    g, v = np.full((3, 3), 1e-5), np.full(3, 2.0)
    arguments: dict[str, Any] = {"r_wordline": 2.0, "r_bitline": 2.0, "law": Diode()}
    sn.crossbar_currents(g, v, **arguments)
    monkeypatch.setattr("spicenn.kirchhoff.newton._STEPS", 5)
    with pytest.raises(ConvergenceError, match="residual"):
        sn.crossbar_currents(g, v, **arguments)


def test_a_law_with_a_large_current_at_no_voltage():
    """Its companions' currents are ten times those that flow."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        g, v = 10 ** rng.uniform(-6, -4, (40, 30)), rng.uniform(-0.05, 0.05, 40)
        current = sn.crossbar_currents(g, v, r_wordline=5e3, r_bitline=5e3, law=Battery())
        wire = np.full((1, 1), 5e3)
        expected = kirchhoff(g[:6, :5], v[:6], wire, wire, offset=-g[:6, :5])
        small = sn.crossbar_currents(g[:6, :5], v[:6], r_wordline=5e3, r_bitline=5e3, law=Battery())
        scale = np.abs(expected.cell_current).sum()
        assert np.abs(small - expected.current).sum() <= 1e-8 * scale
        assert np.isfinite(current).all()


@pytest.mark.parametrize("bad", [{"v0": 0.0}, {"v0": float("nan")}, {"bound": -1.0}])
def test_wrong_parameters_are_named(bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        Sinh(**bad)


# A weak transistor lets the bitlines' own voltages matter most.
GATED: list[GatedLaw] = [Rram1T1R(), Rram1T1R(vgate=0.6), Fefet(), Fefet(beta=0.1, dvt=0.05)]


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from(GATED), st.sampled_from([1.0, 8.0]))
def test_gated_cells_follow_their_law_and_wires_kirchhoffs(case, law, volts):
    """As above: the tangents in u, with what the bitline's voltage does inside of the offset."""
    v = volts * case.v
    solution = sn.crossbar_currents(
        case.g, v, r_wordline=case.r_wordline, r_bitline=case.r_bitline, law=law, details=True
    )
    assert solution.residual <= 1e-9
    b = solution.bitline_voltage
    u = solution.wordline_voltage - b
    np.testing.assert_array_equal(solution.cell_current, law.current(u, case.g, b))
    slope = law.slope(u, case.g, b)
    tangent = kirchhoff(
        slope, v, case.r_wordline, case.r_bitline, offset=solution.cell_current - slope * u
    )
    scale = np.abs(solution.cell_current).sum() + 1e-6 * (case.g * abs(v).max()).sum()
    assert np.abs(tangent.current - solution.current).sum() <= 1e-8 * scale


@pytest.mark.parametrize("law", GATED)
def test_batches_of_gated_cells_are_the_single_arrays_to_the_last_bit(law, monkeypatch):
    rng = np.random.default_rng(1)
    g, v = rng.uniform(1e-6, 1e-4, (3, 6, 4)), rng.uniform(-0.5, 0.5, (3, 5, 6))
    v[1, 2:] *= np.array([0.0, 1e-3, 5.0])[:, None]  # easy and hard ones side by side
    r, dvt = 10 ** rng.uniform(0, 4, (3, 6, 4)), rng.uniform(-0.02, 0.02, (3, 6, 4))

    def solve(g: Any, v: Any, r: Any, dvt: Any) -> Any:
        return sn.crossbar_currents(
            g, v, r_wordline=r, r_bitline=90.0, law=law, parameters={"dvt": dvt}
        )

    together = solve(g, v, r, dvt)
    # Cut so that a chip's samples fall apart.
    monkeypatch.setattr("spicenn.kirchhoff.newton._CELLS_AT_ONCE", 4 * 24)
    np.testing.assert_array_equal(solve(g, v, r, dvt), together)
    for chip in range(3):
        for sample in range(5):
            one = solve(g[chip], v[chip, sample], r[chip], dvt[chip])
            np.testing.assert_array_equal(one, together[chip, sample])


def test_a_bitline_that_undoes_its_own_drive_is_solved_in_few_steps():
    """Transconductance times wire is far above one, where iterating on b would diverge."""
    g, v = np.full((20, 8), 1e-4), np.full((1, 20), 3.0)
    law, wire = Rram1T1R(vgate=1.2), np.full((1, 1, 1), 3e3)
    solved = newton.solve(law, g[None], wire, wire, v=v[None])
    u = solved.on_wordline - solved.on_bitline
    tail = law.transconductance(u, g, solved.on_bitline)
    assert np.abs(tail).max() * 20 * 3e3 > 5
    assert solved.residual.max() <= 1e-9
    assert solved.iterations.max() < 20


def test_tensors_of_gated_cells_are_the_arrays():
    rng = np.random.default_rng(2)
    g, v = rng.uniform(1e-6, 1e-4, (2, 6, 4)), rng.uniform(-0.5, 0.5, (2, 3, 6))
    wires: dict[str, Any] = {"r_wordline": 50.0, "r_bitline": 80.0, "law": Rram1T1R(vgate=1.0)}
    arrays = sn.crossbar_currents(g, v, **wires)
    tensors = sn.crossbar_currents(torch.from_numpy(g), torch.from_numpy(v), **wires)
    np.testing.assert_allclose(tensors.numpy(), arrays, rtol=1e-8, atol=1e-9 * np.abs(arrays).max())


def test_gated_cells_that_do_not_converge_are_an_error(monkeypatch):
    g, v = np.full((9, 5), 1e-4), np.full(9, 1.5)
    arguments: dict[str, Any] = {"r_wordline": 200.0, "r_bitline": 200.0, "law": Fefet()}
    sn.crossbar_currents(g, v, **arguments)
    # Without the steps around the symmetric part the bitlines' own effect is left out.
    monkeypatch.setattr("spicenn.kirchhoff.krylov._STEPS", 0)
    monkeypatch.setattr("spicenn.kirchhoff.newton._STEPS", 4)
    with pytest.raises(ConvergenceError, match="residual"):
        sn.crossbar_currents(g, v, **arguments)


def test_gated_cells_take_few_linear_solves():
    """Twelve for an array whose wires take a fifth of the voltage, three times an ohmic law's."""
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (1, 32, 32)), rng.uniform(0, 0.2, (1, 1, 32))
    wire, solves = np.full((1, 1, 1), 20.0), []

    def counted(*arguments: Any, **options: Any) -> Any:
        solves.append(1)
        return linear.solve(*arguments, **options)

    newton.solve(Rram1T1R(), g, wire, wire, v=v, linear_solve=counted)
    assert len(solves) <= 14
