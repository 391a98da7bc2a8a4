"""Thermal noise is what ngspice's ``.noise`` says, and what reciprocity says above its sizes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from scipy.constants import Boltzmann

from spicenn.circuit import Crossbar, load_cell, render_crossbar
from spicenn.engines.laws import law_of
from spicenn.errors import InputError
from spicenn.kirchhoff import thermal_noise
from tests.kirchhoff.reference import sparse_voltages
from tests.kirchhoff.strategies import cases


def by_ngspice(
    crossbar: Crossbar, g: np.ndarray, bitline: int, wires: bool, folder: Path,
    parameters: dict[str, np.ndarray] | None = None,
) -> float:  # fmt: skip
    """Output noise [A²/Hz] of one bitline, by plain ngspice on the array's own netlist."""
    v = np.zeros((1, crossbar.wordlines))
    lines = render_crossbar(crossbar, g, v, parameters).splitlines()
    kept: list[str] = []
    dropped = False
    for line in lines:
        # .options too: .noise refuses KLU.
        dropped = line.split()[0] in (".op", ".options", ".save", ".print", ".end") or (
            dropped and line[:1] == "+"
        )
        if dropped:
            continue
        if re.match(r"r[wb]_", line) and not wires:
            line += " noisy=0"
        kept.append(line + " ac 1" if line.startswith("vi_0 ") else line)
    kept += [
        ".options numdgt=14",
        f"hout out 0 vs_{bitline} 1",
        ".noise v(out) vi_0 lin 1 1k 1k",
        ".print noise onoise_spectrum",
        ".end",
    ]
    path = folder / "noise.cir"
    path.write_text("\n".join(kept) + "\n")
    done = subprocess.run(
        ["ngspice", "-b", path.name], cwd=folder, capture_output=True, text=True, check=False
    )
    found = re.search(r"^0\s+1\.0+e\+03\s+(\S+)", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return float(found[1]) ** 2


@pytest.mark.ngspice
@pytest.mark.parametrize("wires", [True, False])
@pytest.mark.parametrize("shape", [(3, 2), (32, 32)])
def test_is_what_ngspice_says(shape, wires, tmp_path):
    rng = np.random.default_rng(0)
    g = rng.uniform(1e-6, 1e-4, shape)
    crossbar = Crossbar("t", shape[0], shape[1], 20.0, 30.0, temperature=330.0)
    noise = thermal_noise(g, r_wordline=20.0, r_bitline=30.0, temperature=330.0, wires=wires)
    for bitline in (0, shape[1] - 1):
        expected = by_ngspice(crossbar, g, bitline, wires, tmp_path)
        # ngspice's own Boltzmann constant has seven digits.
        assert noise[bitline] == pytest.approx(expected, rel=2e-6, abs=0.0)
    # The two kinds differ by more than that, and the wires lower the noise of the cells.
    other = thermal_noise(g, r_wordline=20.0, r_bitline=30.0, temperature=330.0, wires=not wires)
    assert (np.abs(other / noise - 1) > 1e-4).all()
    assert (noise < 4 * Boltzmann * 330.0 * g.sum(axis=0)).all()


@pytest.mark.ngspice
@pytest.mark.parametrize("wires", [True, False])
@pytest.mark.parametrize("name", ["sinh", "pcm", "rram_1t1r", "fefet"])
def test_cells_of_any_law_are_what_ngspice_says(name, wires, tmp_path):
    """In equilibrium: every cell with its conductance at 0 V, and all of the transfer."""
    rng = np.random.default_rng(0)
    g, cell = (
        rng.uniform(1e-6, 1e-4, (6, 5)),
        load_cell(name, **({"t": 1e4} if name == "pcm" else {})),
    )
    own = {"pcm": "nu", "sinh": "v0"}.get(name, "dvt")
    parameters = {own: rng.uniform(0.005, 0.05, g.shape) + (0.2 if own == "v0" else 0.0)}
    if name == "fefet":
        parameters = {"dvt": -parameters["dvt"]}  # none is off
    crossbar = Crossbar("t", 6, 5, 400.0, 600.0, cell, temperature=330.0)
    noise = thermal_noise(
        g, r_wordline=400.0, r_bitline=600.0, temperature=330.0, wires=wires,
        law=law_of(cell, "test", 330.0), parameters=parameters,
    )  # fmt: skip
    for bitline in (0, 4):
        expected = by_ngspice(crossbar, g, bitline, wires, tmp_path, parameters)
        assert noise[bitline] == pytest.approx(expected, rel=5e-6, abs=0)
    ohmic = thermal_noise(g, r_wordline=400.0, r_bitline=600.0, temperature=330.0, wires=wires)
    # At 0 V a sinh cell is a resistor.
    assert (np.abs(noise / ohmic - 1).max() > 1e-3) == (name != "sinh")


@pytest.mark.parametrize("shape", [(128, 96), (100, 180)])
def test_is_the_sum_over_resistors_above_ngspices_sizes(shape):
    """By reciprocity and sparse LU: a volt at a bitline's end, and what it leaves on each."""
    rng = np.random.default_rng(0)
    r_wordline, r_bitline = 5.0, 8.0
    g = rng.uniform(1e-6, 1e-4, shape)
    wires: dict[str, Any] = {"r_wordline": r_wordline, "r_bitline": r_bitline}
    whole, cells = thermal_noise(g, **wires), thermal_noise(g, **wires, wires=False)
    for bitline in (0, shape[1] - 3):
        ends = np.zeros(shape[1])
        ends[bitline] = 1.0
        word, bit = sparse_voltages(g, np.zeros(shape[0]), r_wordline, r_bitline, ends)
        expected = 4 * Boltzmann * 300.0 * (g * (word - bit) ** 2).sum()
        assert cells[bitline] == pytest.approx(expected, rel=1e-8, abs=0.0)
        along_word = np.diff(word, axis=1, prepend=0.0)
        along_bit = np.diff(np.vstack([bit, ends]), axis=0)
        for across, r in ((along_word, r_wordline), (along_bit, r_bitline)):
            expected += 4 * Boltzmann * 300.0 * (across**2).sum() / r
        assert whole[bitline] == pytest.approx(expected, rel=1e-8, abs=0.0)
    # The cells alone are not the answer to both.
    assert (whole / cells > 1.01).all()


@settings(max_examples=50, deadline=None)
@given(cases(broken=True))
def test_the_wires_add_and_never_take(case):
    wires: dict[str, Any] = {"r_wordline": case.r_wordline, "r_bitline": case.r_bitline}
    whole, cells = thermal_noise(case.g, **wires), thermal_noise(case.g, **wires, wires=False)
    unit = 4 * Boltzmann * 300.0
    slack = 1e-8 * unit * case.g.sum()
    assert (cells >= 0).all()
    assert (whole >= cells - slack).all()
    assert (whole <= unit * case.g.sum(axis=0) + slack).all()


def test_ideal_wires_leave_the_cells():
    g = np.random.default_rng(0).uniform(0, 1e-4, (2, 5, 7))
    noise = thermal_noise(g, r_wordline=0.0, r_bitline=0.0, temperature=77.0)
    np.testing.assert_allclose(noise, 4 * Boltzmann * 77.0 * g.sum(axis=1), rtol=1e-12)


def test_blocks_of_bitlines_are_the_whole(monkeypatch):
    g = np.random.default_rng(0).uniform(0, 1e-4, (2, 5, 7))
    whole = [thermal_noise(g, r_wordline=9.0, r_bitline=5.0, wires=w) for w in (True, False)]
    monkeypatch.setattr("spicenn.kirchhoff.noise._CELLS_AT_ONCE", 140)
    cut = [thermal_noise(g, r_wordline=9.0, r_bitline=5.0, wires=w) for w in (True, False)]
    np.testing.assert_array_equal(cut, whole)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), "warm"])
def test_wrong_temperatures_are_named(bad):
    with pytest.raises(InputError, match="temperature"):
        thermal_noise(np.ones((2, 2)), r_wordline=1.0, r_bitline=1.0, temperature=bad)
