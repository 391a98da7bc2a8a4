"""Noise in ngspice, in frequency and in time, is that of theory and of Kirchhoff's laws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.constants import Boltzmann
from scipy.integrate import quad
from scipy.signal import welch
from scipy.stats import chi2

from spicenn.circuit import Crossbar, cell_nodes, load_cell, noise_sources, render_noise
from spicenn.circuit.render import render_subcircuit
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError, NetlistError
from spicenn.kirchhoff import thermal_noise
from spicenn.technology.noise import thermal_density, white_series

R, C, T = 1e3, 1e-12, 300.0
WIRED = Crossbar("t", 6, 3, 20.0, 30.0, temperature=T, r_driver=200.0, r_sense=100.0)


@pytest.fixture(scope="module")
def engine() -> Iterator[NgspiceEngine]:
    with NgspiceEngine(timeout=60.0) as running:
        yield running


def cells(crossbar: Crossbar) -> Any:
    return np.random.default_rng(0).uniform(1e-5, 1e-3, (crossbar.wordlines, crossbar.bitlines))


@pytest.mark.ngspice
@pytest.mark.slow
def test_white_series_give_kt_over_c_and_so_does_noise(engine):
    """20 RCs for 200 time constants each: 64.4 µV within 4 %, and its spectrum."""
    count, copies = 4001, 20
    dt = R * C / 20
    series = white_series(
        thermal_density(np.full(copies, 1 / R), T), dt, count, np.random.default_rng(0)
    )
    netlist = "\n".join(
        [
            "* thermal noise of RCs in time",
            ".options klu reltol=1e-6",
            *(f"r_{k} n_{k} 0 {R!r}\nc_{k} n_{k} 0 {C!r}" for k in range(copies)),
            *noise_sources([(f"n_{k}", "0") for k in range(copies)], series, dt, "n"),
            f".tran {dt!r} {(count - 1) * dt!r} 0 {dt!r}",
            ".end",
        ]
    )
    found = engine.run(netlist, ["time", *(f"v(n_{k})" for k in range(copies))])
    grid = np.arange(200, count) * dt  # after ten time constants
    voltage = np.stack([np.interp(grid, found["time"], found[f"v(n_{k})"]) for k in range(copies)])
    kt_over_c = math.sqrt(Boltzmann * T / C)
    assert kt_over_c == pytest.approx(64.4e-6, rel=1e-3)
    # The variance of a mean square over a time t is 2 RC / t of its square.
    independent = copies * grid.size * dt / (R * C)
    low, high = np.sqrt(chi2.ppf([1e-4, 1 - 1e-4], independent) / independent)
    rms = math.sqrt(np.square(voltage).mean())
    # Straight lines between the points take sinc⁴(f dt) of the spectrum.
    kept, _ = quad(lambda x: np.sinc(x / 20) ** 4 / (1 + (2 * math.pi * x) ** 2), 0, 100, limit=500)
    expected = kt_over_c * math.sqrt(4 * kept)
    assert low * expected < rms < high * expected
    assert rms == pytest.approx(kt_over_c, rel=1.5 * (high - low) / 2)
    # The spectrum falls from 4 k T R on as one pole's.
    f, density = welch(voltage, fs=1 / dt, nperseg=1024, window="boxcar", noverlap=0, axis=-1)
    part = slice(1, 30)
    ratio = density[:, part] / (4 * Boltzmann * T * R / (1 + (2 * math.pi * f[part] * R * C) ** 2))
    low, high = chi2.ppf([1e-4, 1 - 1e-4], 2 * 3 * ratio.size) / (2 * 3 * ratio.size)
    assert 0.98 * low < ratio.mean() < 1.02 * high

    netlist = f"""* the same by .noise
v1 in 0 0 ac 1
r1 in out {R!r}
c1 out 0 {C!r}
.temp {T - 273.15!r}
.noise v(out) v1 dec 20 1 1e14
.end"""
    (total,) = engine.run(netlist, ["onoise_total"]).values()
    # What is below 1 Hz and above 1e14 Hz is 1e-6 of it, ngspice's interpolation is not.
    assert total[0] == pytest.approx(kt_over_c, rel=2e-3)


@pytest.mark.ngspice
@pytest.mark.parametrize("bitline", [0, 2])
def test_noise_of_a_wired_crossbar_is_kirchhoffs(engine, bitline):
    g = cells(WIRED)
    # A tile solved before, by KLU, in the same process.
    engine.solve(WIRED, g[None], np.zeros((1, 2, 6)))
    netlist = render_noise(WIRED, g, bitline, r_feedback=1e4, frequencies=(1e3, 1e5))
    names = ["noise1.frequency", "noise1.onoise_spectrum"]
    frequency, spectrum = engine.run(netlist, names).values()
    assert (frequency[0], frequency[-1]) == (pytest.approx(1e3), pytest.approx(1e5))
    r_wordline, r_bitline = WIRED.segments()
    density = thermal_noise(g, r_wordline=r_wordline, r_bitline=r_bitline, temperature=T)[bitline]
    expected = math.sqrt(density + 4 * Boltzmann * T / 1e4) * 1e4
    # ngspice's own Boltzmann constant has seven digits.
    np.testing.assert_allclose(spectrum, expected, rtol=2e-6)
    # Without the wires it would be something else.
    assert (
        abs(math.sqrt(4 * Boltzmann * T * (g[:, bitline].sum() + 1e-4)) * 1e4 / expected - 1) > 0.1
    )


@pytest.mark.ngspice
@pytest.mark.slow
def test_cells_noise_in_time_is_kirchhoffs(engine):
    """Every cell's series at its own nodes: the bitlines' variances over 2000 steps."""
    g, dt, count = cells(WIRED), 1e-9, 2000
    series = white_series(thermal_density(g.ravel(), T), dt, count, np.random.default_rng(1))
    # The array's own lines, at top level: its nodes have the names of ``cell_nodes``.
    array = render_subcircuit(WIRED, g).splitlines()[1:-1]
    array = [line for line in array if not line.startswith("+")]
    netlist = "\n".join(
        [
            "* thermal noise of an array in time",
            ".options klu reltol=1e-6 abstol=1e-15",
            *array,
            *(f"vi_{i} in_{i} 0 0" for i in range(WIRED.wordlines)),
            *(f"vs_{j} s_{j} 0 0" for j in range(WIRED.bitlines)),
            *noise_sources(cell_nodes(WIRED), series, dt, "n"),
            f".tran {dt!r} {(count - 1) * dt!r} 0 {dt!r}",
            ".end",
        ]
    )
    found = engine.run(netlist, ["time", *(f"i(vs_{j})" for j in range(WIRED.bitlines))])
    grid = np.arange(count) * dt
    r_wordline, r_bitline = WIRED.segments()
    density = thermal_noise(
        g, r_wordline=r_wordline, r_bitline=r_bitline, temperature=T, wires=False
    )
    low, high = chi2.ppf([1e-4, 1 - 1e-4], count) / count
    for j in range(WIRED.bitlines):
        current = np.interp(grid, found["time"], found[f"i(vs_{j})"])
        ratio = np.square(current).mean() / (density[j] / (2 * dt))
        assert low < ratio < high
        # The sum over the cells, wires left out, would not do.
        assert not low < ratio * density[j] / thermal_density(g[:, j].sum(), T) < high


@pytest.mark.ngspice
def test_a_source_is_the_series_at_its_steps_and_adds_to_its_cell(engine):
    crossbar = Crossbar("t", 2, 2)
    assert cell_nodes(crossbar)[1] == ("in_0", "s_1")
    series = np.array([[0.0, 1e-6, -2e-6, 3e-6, 3e-6]])
    lines = noise_sources([("in", "s")], series, 1e-6, "n")
    netlist = "\n".join(["* one", "vin in 0 0", "vs s 0 0", *lines, ".tran 10u 6u", ".end"])
    time, current = engine.run(netlist, ["time", "i(vs)"]).values()
    # The clock makes every step a time point.
    assert all(np.isclose(time, k * 1e-6, rtol=1e-9, atol=0).any() for k in range(1, 6))
    found = np.interp(np.arange(7) * 1e-6, time, current)
    np.testing.assert_allclose(found, [0.0, 1e-6, -2e-6, 3e-6, 3e-6, 3e-6, 3e-6], atol=1e-14)


def test_netlists_of_noise_carry_no_stranger():
    good = np.zeros((1, 3))
    for nodes, prefix in (
        ([("a", "b\n.control")], "n"),
        ([("a b", "0")], "n"),
        ([("a", "0")], "n x"),
        ([("a", "0")], ""),
        ([("A", "0")], "n"),
    ):
        with pytest.raises(NetlistError, match="name"):
            noise_sources(nodes, good, 1e-9, prefix)
    for currents, dt in (
        (np.zeros((2, 3)), 1e-9),
        (np.zeros((1, 0)), 1e-9),
        (np.full((1, 3), np.nan), 1e-9),
        (good, 0.0),
        (good, math.inf),
    ):
        with pytest.raises(InputError):
            noise_sources([("a", "0")], currents, dt, "n")


def test_noise_netlists_refuse_what_has_no_noise_in_ngspice():
    g = cells(WIRED)
    nonlinear = Crossbar("t", 6, 3, cell=load_cell("sinh"))
    with pytest.raises(InputError, match="noiseless"):
        render_noise(nonlinear, g, 0, r_feedback=1e4)
    for bad in ({"bitline": 3}, {"r_feedback": 0.0}, {"frequencies": (2.0, 1.0)}, {"points": 0}):
        arguments: dict[str, Any] = {"bitline": 0, "r_feedback": 1e4, **bad}
        with pytest.raises(InputError):
            render_noise(WIRED, g, **arguments)


@pytest.mark.ngspice
def test_a_series_of_one_step_is_a_constant(engine):
    lines = noise_sources([("0", "s")], np.array([[2e-6]]), 1e-6, "n")
    netlist = "\n".join(["* one", "vs s 0 0", *lines, ".tran 1u 3u", ".end"])
    (current,) = engine.run(netlist, ["i(vs)"]).values()
    np.testing.assert_allclose(current, 2e-6, rtol=1e-12)
