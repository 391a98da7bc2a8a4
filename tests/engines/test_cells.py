"""Every cell that ships: ngspice's subcircuit and the law beside it are the same device."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.constants import Boltzmann

from spicenn.circuit import Crossbar, load_cell, read_raw, render_crossbar
from spicenn.engines.engine import check_shapes
from spicenn.engines.laws import law_of, of_law
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import EngineError, InputError, Status
from spicenn.kirchhoff.laws import Cells, small_signal, with_parameters
from spicenn.kirchhoff.transistors import threshold_shift, transconductance_factor
from spicenn.technology import OHMIC, Cell
from tests.engines.conftest import chips

Array = NDArray[np.float64]

# Values that differ from the headers', so that a parameter that is not passed on is seen.
CELLS = {
    "sinh": load_cell("sinh", v0=0.31),
    "pcm": load_cell("pcm", t=3e4, t0=17.0),
    "rram_1t1r": load_cell("rram_1t1r", vgate=1.5, vto=0.4, kp=250e-6, w=0.5e-6, l=0.15e-6),
    "fefet": load_cell("fefet", kp=90e-6, w=0.3e-6, l=0.25e-6, vread=0.8),
    "memristor": load_cell("memristor", v0=0.31, gap0=0.2e-9),
}
# What differs from cell to cell, as (middle, half of the range).
OWN = {
    "sinh": {"v0": (0.3, 0.05)},
    "pcm": {"nu": (0.06, 0.05)},
    "rram_1t1r": {"dvt": (0.02, 0.05), "beta": (1.1, 0.2)},
    "fefet": {"dvt": (0.002, 0.003), "beta": (1.1, 0.2)},
    "memristor": {"v0": (0.3, 0.05)},
}
TRANSISTORS = ("rram_1t1r", "fefet")
# A solver's gmin is no part of a cell.
OPTIONS = ".options klu pivrel=0.1 reltol=1e-12 abstol=1e-18 vntol=1e-14 gmin=1e-18 itl1=500"


def own(name: str, shape: tuple[int, ...], seed: int = 3) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        key: middle + half * rng.uniform(-1, 1, shape) for key, (middle, half) in OWN[name].items()
    }


def single_cells(
    engine: Any, cell: Cell, u: Array, b: Array, g: Array, parameters: dict[str, Array],
    temperature: float, commands: list[str], ac: str = "w",
) -> Array:  # fmt: skip
    """Current out of each of many cells on their own, between two sources each."""
    lines = ["cells", OPTIONS, f".temp {temperature - 273.15!r}", cell.netlist]
    common = " ".join(f"{key}={value!r}" for key, value in cell.parameters)
    for k in range(len(u)):
        more = " ".join(f"{key}={float(x[k])!r}" for key, x in parameters.items())
        lines += [
            f"vw_{k} w_{k} 0 {float(u[k] + b[k])!r}{' ac 1' if ac == 'w' else ''}",
            f"vb_{k} b_{k} 0 {float(b[k])!r}{' ac 1' if ac == 'b' else ''}",
            f"xc_{k} w_{k} b_{k} {cell.name} g={float(g[k])!r} {common} {more}",
        ]
    names = [f"i(vb_{k})" for k in range(len(u))]
    found = engine.run("\n".join([*lines, ".end"]), names, commands)
    return np.real(np.array([found[name][0] for name in names]))


def bound_law(name: str, temperature: float, parameters: dict[str, Array], g: Array) -> Cells:
    law = law_of(CELLS[name], "test", temperature)
    return Cells(with_parameters(law, of_law(law, parameters)), g)


def operating_points(name: str) -> tuple[Array, Array, Array]:
    """u, b and g of many cells: both signs, zero, ends and beyond saturation."""
    u = np.array([-1.3, -0.4, -0.2, -1e-3, 0.0, 1e-6, 0.05, 0.11, 0.2, 0.5, 1.0, 1.4, 2.5])
    b = np.array([0.0, -0.15, 0.2])
    g = np.array([1e-6, 1.7e-5, 1e-4])
    first, second, third = (x.ravel() for x in np.meshgrid(u, b, g))
    return first, second, third


@pytest.mark.ngspice
@pytest.mark.parametrize("temperature", [250.0, 300.0, 400.0])
@pytest.mark.parametrize("name", CELLS)
def test_currents_and_derivatives_are_the_laws(engine, name, temperature):
    u, b, g = operating_points(name)
    parameters = own(name, u.shape)
    cells = bound_law(name, temperature, parameters, g)
    device = (engine, CELLS[name], u, b, g, parameters, temperature)
    current = single_cells(*device, commands=["op"])
    scale = g * np.maximum(np.abs(u), 0.1) + np.abs(current)
    assert np.abs((cells.current(u, b) - current) / scale).max() < 1e-7
    # Both derivatives, by the device's own linearisation.
    by_u = single_cells(*device, commands=["ac lin 1 1 1"])
    assert np.abs((cells.slope(u, b) - by_u) / (g + by_u)).max() < 1e-6
    by_b = by_u + single_cells(*device, commands=["ac lin 1 1 1"], ac="b")
    tail = cells.transconductance(u, b) if cells.gated else 0.0 * u
    assert np.abs((tail - by_b) / (g + by_u)).max() < 1e-6
    assert cells.gated == (name in TRANSISTORS)


@pytest.mark.ngspice
def test_the_split_leaves_the_sinh_law_to_the_last_digits(engine):
    u = np.linspace(-1.2, 1.2, 49)
    g, b = np.full_like(u, 2e-5), np.zeros_like(u)
    law = bound_law("sinh", 300.0, {}, g).current(u, b)
    current = single_cells(engine, CELLS["sinh"], u, b, g, {}, 300.0, ["op"])
    np.testing.assert_allclose(current, law, rtol=5e-14, atol=0)


@pytest.mark.ngspice
@pytest.mark.parametrize("wires", [(0.0, 0.0), (2.0, 3.0), (400.0, 0.0), (300.0, 500.0)])
@pytest.mark.parametrize("name", CELLS)
def test_arrays_with_wires_are_the_nodal_engines(engine, name, wires):
    # Several samples are a sweep, in which a cell with a state must stay where it starts.
    g, v = chips((16, 12), 2, 3, inputs=2)
    crossbar = Crossbar(
        "t", 16, 12, wires[0], wires[1], CELLS[name], temperature=340.0, r_driver=7.0, r_sense=3.0
    )
    parameters = own(name, g.shape)
    exact = NodalEngine().solve(crossbar, g, 2 * v, parameters)
    simulated = engine.solve(crossbar, g, 2 * v, parameters)
    assert list(exact.status) == list(simulated.status) == [Status.OK] * 2, exact.message
    scale = np.abs(simulated.current).max()
    # A transistor's junctions carry gmin, 1e-12 S a node, which the law has not.
    bound = 2e-7 if name in TRANSISTORS else 1e-8
    assert np.abs(exact.current - simulated.current).max() < bound * scale
    # Each cell's own parameters matter by more than that.
    for key in parameters:
        without = {other: x for other, x in parameters.items() if other != key}
        changed = NodalEngine().solve(crossbar, g, 2 * v, without)
        assert np.abs(exact.current - changed.current).max() > 1e-4 * scale


@pytest.mark.ngspice
def test_a_bitline_that_lifts_itself_is_the_nodal_engines(engine):
    """Saturated cells whose bitlines rise by half of the overdrive: nothing is small here."""
    g, v = np.full((1, 24, 6), 1e-4), np.full((1, 1, 24), 2.5)
    crossbar = Crossbar("t", 24, 6, 1.0, 60.0, cell=load_cell("rram_1t1r", vgate=1.2))
    exact, simulated = (e.solve(crossbar, g, v) for e in (NodalEngine(), engine))
    assert exact.status[0] == simulated.status[0] == Status.OK
    assert np.abs(exact.current / simulated.current - 1).max() < 1e-7
    # With the gate referred to the bitline it would be another circuit.
    ohmic = NodalEngine().solve(dataclasses.replace(crossbar, cell=OHMIC), g, v)
    assert (ohmic.current > 1.5 * exact.current).all()


def law_noise(name: str, temperature: float) -> float:
    law = law_of(CELLS[name], "test", temperature)
    return float(4 * Boltzmann * temperature * small_signal(law, np.array(2.1e-5)))


@pytest.mark.ngspice
@pytest.mark.parametrize("temperature", [250.0, 300.0, 400.0])
@pytest.mark.parametrize("name", CELLS)
def test_noise_at_no_voltage_is_nyquists(tmp_path, name, temperature):
    expected = law_noise(name, temperature)
    assert plain_noise(tmp_path, CELLS[name], 0.0, temperature) == pytest.approx(
        expected, rel=3e-6, abs=0
    )


def plain_noise(folder: Path, cell: Cell, u: float, temperature: float) -> float:
    """Density [A²/Hz] of one cell's current at 1 kHz, by plain ngspice."""
    common = " ".join(f"{key}={value!r}" for key, value in cell.parameters)
    (folder / "noise.cir").write_text(
        f"""* noise
.options reltol=1e-9 abstol=1e-18 gmin=1e-18 numdgt=14
.temp {temperature - 273.15!r}
{cell.netlist}
vw w 0 {u!r} ac 1
vb b 0 0
xc w b {cell.name} g=2.1e-5 {common}
hout out 0 vb 1
.noise v(out) vw lin 1 1k 1k
.print noise onoise_spectrum
.end
"""
    )
    done = subprocess.run(
        ["ngspice", "-b", "noise.cir"], cwd=folder, capture_output=True, text=True, check=False
    )
    found = re.search(r"^0\s+1\.0+e\+03\s+(\S+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return float(found[1]) ** 2


@pytest.mark.ngspice
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sinh", "rram_1t1r"])
def test_a_cold_operating_point_of_128_lines_converges_at_once(tmp_path, name):
    """At full read voltage, from nothing, without stepping gmin or the sources."""
    g, _ = chips((128, 128), 1, 1)
    v = np.full((1, 128), 0.2)
    crossbar = Crossbar("t", 128, 128, 2.0, 2.0, cell=load_cell(name))
    (tmp_path / "tile.cir").write_text(render_crossbar(crossbar, g[0], v))
    done = subprocess.run(
        ["ngspice", "-b", "tile.cir", "-r", "out.raw"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    said = (done.stdout + done.stderr).lower()
    assert not re.search("stepping|error", said), said
    raw = read_raw(tmp_path / "out.raw")
    current = np.array([raw[f"i(vs_{j})"][0] for j in range(128)])
    exact = NodalEngine().solve(crossbar, g, v[None]).current[0, 0]
    np.testing.assert_allclose(current, exact, rtol=1e-7)


@pytest.mark.ngspice
def test_a_linear_cell_is_solved_as_resistors_and_written_as_a_subcircuit(engine):
    g, v = chips((7, 5), 2, 3)
    crossbar = Crossbar("t", 7, 5, 20.0, 30.0, cell=CELLS["pcm"])
    nu = own("pcm", g.shape)["nu"]
    faded = g * ((3e4 + 17.0) / 17.0) ** -nu
    ohmic = dataclasses.replace(crossbar, cell=OHMIC)
    for one in (NodalEngine(), engine):
        solved = one.solve(crossbar, g, v, {"nu": nu}).current
        np.testing.assert_allclose(solved, one.solve(ohmic, faded, v).current, rtol=1e-12)
    # The way that the fast one goes: nothing of the subcircuit was loaded.
    np.testing.assert_allclose(engine.read_conductances(ohmic), faded[1], rtol=1e-12)
    text = render_crossbar(crossbar, g[1], v[0], {"nu": nu[1]})
    assert "xc_0_0" in text
    names = [f"i(vs_{j})" for j in range(5)]
    written = engine.run(text, names)
    np.testing.assert_allclose(
        np.array([written[name] for name in names]).T, solved[1], rtol=1e-9, atol=1e-15
    )


@pytest.mark.parametrize("name", CELLS)
def test_a_law_has_the_parameters_of_its_header(name):
    law: Any = law_of(load_cell(name), "test", 300.0)
    names = {field.name for field in dataclasses.fields(law)} - {"temperature", "bound"}
    header = load_cell(name).defaults
    assert names <= header.keys() - {"g"}
    if name != "memristor":
        assert names == header.keys() - {"g"}
    # Made from nothing but its defaults it is the law of the cell as it ships.
    assert dataclasses.astuple(law) == pytest.approx(
        dataclasses.astuple(type(law)()), rel=1e-12, abs=0
    )
    set_here = law_of(CELLS[name], "test", 300.0)
    assert {k: v for k, v in CELLS[name].parameters if k in names}.items() <= vars(set_here).items()


def test_what_has_no_law_is_said():
    own_text = CELLS["fefet"].netlist.replace("level=1", "level=3")
    with pytest.raises(EngineError, match=r"tile: .*'fefet': its netlist is not the one.*ngspice"):
        law_of(Cell("fefet", own_text), "tile", 300.0)
    other = Cell("mine", ".subckt mine wordline bitline g=1\nr1 wordline bitline {1/g}\n.ends\n")
    with pytest.raises(EngineError, match=r"'mine': the cells that have one are .*sinh"):
        law_of(other, "tile", 300.0)
    with pytest.raises(InputError, match=r"Rram1T1R: w = -1\.0"):
        law_of(load_cell("rram_1t1r", w=-1.0), "tile", 300.0)
    g, v = chips((2, 2), 1, 1)
    crossbar = Crossbar("t", 2, 2, cell=CELLS["rram_1t1r"])
    with pytest.raises(InputError, match=r"beta = 0\.0 is not finite and positive"):
        NodalEngine().solve(crossbar, g, v, {"beta": 0 * g})
    with pytest.raises(InputError, match="no parameter 'nu'"):
        check_shapes(crossbar, g, v, {"nu": g})


def test_temperature_moves_transistors_by_known_amounts():
    assert transconductance_factor(300.0) == 1.0
    assert transconductance_factor(400.0) == pytest.approx(0.75**1.5)
    assert threshold_shift(300.0) == pytest.approx(0.0, abs=1e-15)
    # Between -0.9 and -1.1 mV/K, as of the model without body effect.
    for kelvin in (250.0, 350.0, 400.0):
        assert -1.1e-3 < threshold_shift(kelvin) / (kelvin - 300.0) < -0.9e-3
