"""The netlist of a crossbar: golden text, round trip, what plain ngspice makes of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spicenn.circuit import (
    Crossbar,
    Tolerances,
    load_cell,
    parse_crossbar,
    read_raw,
    render_crossbar,
)
from spicenn.errors import InputError, NetlistError
from spicenn.technology import OHMIC, Cell

Array = NDArray[np.float64]

GOLDENS = Path(__file__).parent / "goldens"
SINH = load_cell("sinh")
plain_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="no ngspice on PATH")


def small(
    r_wordline: float = 2.0,
    r_bitline: float = 3.0,
    cell: Cell = OHMIC,
    shape: tuple[int, int] = (2, 3),
) -> Crossbar:
    return Crossbar("tile_0", *shape, r_wordline, r_bitline, cell)


def arrays(shape: tuple[int, int] = (2, 3), samples: int = 1, seed: int = 0) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return rng.uniform(1e-6, 1e-4, shape), rng.uniform(-0.2, 0.2, (samples, shape[0]))


@pytest.mark.parametrize(
    ("name", "crossbar", "samples"),
    [
        ("point", small(), 1),
        ("sweep", small(), 6),
        ("ideal_wires", small(0.0, 0.0), 1),
        ("sinh", small(cell=SINH), 1),
        ("rram_1t1r", small(cell=load_cell("rram_1t1r", vgate=1.5)), 1),
        ("pcm", small(cell=load_cell("pcm", t=3600.0)), 1),
        ("fefet", small(cell=load_cell("fefet")), 1),
    ],
)
def test_text_is_the_golden_one(name, crossbar, samples, regenerate):
    g, v = arrays(samples=samples)
    own = {"rram_1t1r": ("dvt", "beta"), "pcm": ("nu",), "fefet": ("dvt",)}.get(name, ())
    parameters = {key: 1e3 * g * (k + 1) for k, key in enumerate(own)}
    comments = [[f"linear weight[{j}, {i}] plus" for j in range(3)] for i in range(2)]
    text = render_crossbar(crossbar, g, v, parameters, header=["layer fc1"], comments=comments)
    path = GOLDENS / f"{name}.cir"
    if regenerate:
        path.write_text(text)
    assert text == path.read_text(), "run pytest --regenerate if the change is meant"


@settings(max_examples=60)
@given(data=st.data())
def test_parse_undoes_render(data):
    """Elements, not comments, carry the circuit: resistances and voltages to the last bit."""
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    wire = st.one_of(st.just(0.0), st.floats(1e-3, 1e3))
    crossbar = Crossbar(
        "tile_9",
        shape[0],
        shape[1],
        data.draw(wire),
        data.draw(wire),
        data.draw(st.sampled_from([OHMIC, SINH, load_cell("rram_1t1r", vgate=1.5, w=1e-6)])),
        data.draw(st.floats(1.0, 500.0)),
    )
    samples = data.draw(st.integers(1, 7))
    conductance = st.floats(1e-12, 1.0)
    g = np.array(
        data.draw(st.lists(conductance, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    )
    g = g.reshape(shape)
    level = st.floats(-5.0, 5.0)
    size = samples * shape[0]
    v = np.array(data.draw(st.lists(level, min_size=size, max_size=size))).reshape(samples, -1)
    comment = data.draw(st.text(max_size=20))
    known = sorted(crossbar.cell.defaults.keys() - {"g"} - dict(crossbar.cell.parameters).keys())
    names = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
    parameters = {name: data.draw(st.floats(-1.0, 1.0)) + 1e3 * g for name in names}
    text = render_crossbar(
        crossbar, g, v, parameters, header=[comment], comments=[[comment] * shape[1]] * shape[0]
    )
    again, g2, v2, parameters2 = parse_crossbar(text)
    assert again.temperature == pytest.approx(crossbar.temperature, rel=1e-12)
    assert (again.name, again.wordlines, again.bitlines) == ("tile_9", *shape)
    assert (again.r_wordline, again.r_bitline) == (crossbar.r_wordline, crossbar.r_bitline)
    assert again.cell == crossbar.cell
    assert parameters2.keys() == parameters.keys()
    for name in names:
        np.testing.assert_array_equal(parameters2[name], parameters[name])
    np.testing.assert_array_equal(v2, v)
    if crossbar.cell is OHMIC:
        np.testing.assert_array_equal(g2, 1 / (1 / g))
    else:
        np.testing.assert_array_equal(g2, g)


@pytest.mark.parametrize(
    "hostile",
    [
        ".control",
        "x\n.control\nshell touch pwned\n.endc",
        "a\r.include /etc/passwd",
        "*#quit",
        "µ 层",
        "\x00",
    ],
)
def test_hostile_comments_stay_comments(hostile):
    g, v = arrays()
    plain = render_crossbar(small(), g, v)
    text = render_crossbar(small(), g, v, header=[hostile], comments=[[hostile] * 3] * 2)
    assert text.isascii()
    code = [line.split(" ;")[0] for line in text.splitlines() if not line.startswith("* ")]
    assert code == [line for line in plain.splitlines() if not line.startswith("* ")]


def test_a_cell_cannot_bring_a_program():
    netlist = (
        '.subckt bad wordline bitline g=1\n.model p d_process (process_file="/bin/sh")\n.ends\n'
    )
    with pytest.raises(NetlistError, match="line 2"):
        Cell("bad", netlist)


def test_shapes_and_values_are_checked():
    g, v = arrays()
    with pytest.raises(InputError, match="g has shape"):
        render_crossbar(small(), g[:1], v)
    with pytest.raises(InputError, match="v has shape"):
        render_crossbar(small(), g, v[:, :1])
    with pytest.raises(InputError, match="positive"):
        render_crossbar(small(), -g, v)
    with pytest.raises(NetlistError, match="line 1"):
        parse_crossbar("* something else\n.end\n")
    with pytest.raises(NetlistError, match="no cell is called"):
        load_cell("../secret")


@plain_ngspice
@pytest.mark.parametrize("ascii_raw", [False, True])
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize("cell", [OHMIC, SINH], ids=["ohmic", "sinh"])
def test_plain_ngspice_runs_it(tmp_path, cell, samples, ascii_raw):
    """With ideal wires the currents follow from the cells' law alone."""
    crossbar = small(0.0, 0.0, cell)
    g, v = arrays(samples=samples)
    current = run_plain(tmp_path, render_crossbar(crossbar, g, v), ascii_raw=ascii_raw)
    law = v if cell is OHMIC else 0.25 * np.sinh(v / 0.25)
    bound = 1e-12 if cell is OHMIC else 1e-10
    np.testing.assert_allclose(current, law @ g, rtol=0, atol=bound * np.abs(law @ g).max())


@plain_ngspice
def test_plain_ngspice_reads_ten_thousand_samples(tmp_path):
    g, v = arrays((1, 1), samples=10_000)
    current = run_plain(tmp_path, render_crossbar(small(0.0, 0.0, shape=(1, 1)), g, v))
    np.testing.assert_allclose(current, v @ g, rtol=0, atol=1e-11 * g.max())


def run_plain(folder: Path, text: str, *, ascii_raw: bool = False) -> Array:
    (folder / "tile.cir").write_text(text)
    done = subprocess.run(
        ["ngspice", "-b", "tile.cir", "-r", "out.raw"],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin:/opt/homebrew/bin",
            **({"SPICE_ASCIIRAWFILE": "1"} if ascii_raw else {}),
        },
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"rror" not in done.stderr, done.stderr.decode()
    marker = b"\nValues:\n" if ascii_raw else b"\nBinary:\n"
    assert marker in (folder / "out.raw").read_bytes()
    raw = read_raw(folder / "out.raw")
    return np.array(
        [raw[f"i(vs_{j})"] for j in range(len(raw) - ("v(v-sweep)" in raw)) if f"i(vs_{j})" in raw]
    ).T


def test_tolerances_are_positive():
    with pytest.raises(InputError, match="reltol"):
        Tolerances(reltol=0.0)
