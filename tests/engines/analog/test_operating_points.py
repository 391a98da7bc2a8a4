"""A network in ngspice is what Kirchhoff's laws and the blocks' closed forms say it is."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spicenn.circuit import Crossbar, load_cell, read_raw
from spicenn.engines.analog import (
    AnalogNetwork,
    Block,
    Stage,
    behaviour,
    operating_points,
    render_network,
)
from spicenn.errors import EngineError, InputError, NetlistError
from spicenn.technology import Cell, Driver, Neuron, Periphery, Tia
from spicenn.technology.variation import Cells
from tests.engines.analog.networks import line, network, samples, stage

GOLDENS = Path(__file__).parent / "goldens"
WIRES: dict[str, Any] = {"r_wordline": 2.0, "r_bitline": 3.0}
plain_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="no ngspice on PATH")


def chain(offsets=0.0, gain=1.0, periphery=None, **crossbar):
    """Every neuron there is, and tiles side by side and on common bitlines."""
    return network(
        stage("a", 6, 5, "relu", rows=(4,), columns=(2,), offsets=offsets, **crossbar),
        stage("b", 5, 4, "tanh", gain=gain, offsets=offsets, **crossbar),
        stage("c", 4, 3, "sigmoid", rows=(2, 3), bias=2, gain=gain, offsets=offsets, **crossbar),
        stage("d", 3, 2, None, columns=(1,), gain=2 * gain, offsets=offsets, **crossbar),
        periphery=periphery,
    )


def distances(engine, net, v):
    """Largest difference of every stage over its largest output."""
    found, expected = operating_points(engine, net, v), behaviour(net, v)
    assert [y.shape for y in found] == [(len(v), s.outputs) for s in net.stages]
    return [
        float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True)
    ]


@pytest.mark.ngspice
@pytest.mark.parametrize("crossbar", [{}, WIRES], ids=["no wires", "wires"])
@pytest.mark.parametrize("resistance", [0.0, 500.0], ids=["ideal drivers", "drivers"])
def test_with_infinite_gain_the_twin_is_the_circuit(engine, crossbar, resistance):
    """To 1e-6: junctions of 10 fA in the neurons, 1e-9 of the amplifiers' stand-in gain."""
    periphery = Periphery(driver=Driver(resistance=resistance), tia=Tia(v_max=1.0))
    net = chain(periphery=periphery, **crossbar)
    assert max(distances(engine, net, samples(4, 6))) < 1e-6
    # One sample is an operating point of its own.
    assert max(distances(engine, net, samples(1, 6, seed=1))) < 1e-6


@pytest.mark.ngspice
@pytest.mark.parametrize("gain", [None, 1e3])
def test_offsets_and_finite_gains_are_exact_where_a_bitline_disturbs_no_other(engine, gain):
    """Ideal wires and drivers: what an amplifier does to its bitline ends there."""
    net = chain(offsets=2e-3, periphery=Periphery(tia=Tia(gain=gain, v_max=1.0)))
    assert max(distances(engine, net, samples(4, 6))) < 2e-6
    off = behaviour(chain(periphery=Periphery(tia=Tia(v_max=1.0))), samples(4, 6))
    on = behaviour(net, samples(4, 6))
    assert all(np.abs(a - b).max() > 1e-3 * np.abs(b).max() for a, b in zip(on, off, strict=True))


@pytest.mark.ngspice
def test_with_wires_a_moving_bitline_disturbs_the_others_within_a_bound(engine):
    """The twin leaves that out, and takes the bitline's cells for its conductance.

    An amplifier of gain A moves its bitline by u = output / A. A share r n g of it comes back
    to any bitline through the wires (r a segment, n cells, conductance g), as a current
    u Σg: over the largest output that is (R Σg / A) (r n g), here 4e3 · 7e-4 / 1e3 ·
    (5 · 10 · 1e-4) = 1.4e-5 a stage. A stage hands on what it gets with a gain of a few.
    """
    near, far = (
        max(distances(engine, chain(periphery=Periphery(tia=Tia(gain=a)), **WIRES), samples(4, 6)))
        for a in (1e3, 1e2)
    )
    assert near < 1e-4
    # First order in 1 / A: it is the bitlines' movement.
    assert far / near == pytest.approx(10.0, rel=0.2)


@pytest.mark.ngspice
def test_cells_that_are_not_ohmic(engine):
    sinh = chain(periphery=Periphery(tia=Tia(v_max=1.0)), cell=load_cell("sinh"), **WIRES)
    assert max(distances(engine, sinh, samples(3, 6))) < 1e-6
    ohmic = behaviour(chain(periphery=Periphery(tia=Tia(v_max=1.0)), **WIRES), samples(3, 6))
    assert np.abs(behaviour(sinh, samples(3, 6))[-1] - ohmic[-1]).max() > 1e-3


@pytest.mark.ngspice
def test_every_cell_has_its_own_parameters(engine):
    """Transistors between wordline and bitline; thresholds differ by 30 mV, gates from ground."""
    cell = load_cell("rram_1t1r")
    common: dict[str, Any] = {"cell": cell, "parameters": {"dvt": 0.03}, **WIRES}
    net = network(
        stage("a", 6, 4, "tanh", rows=(4,), **common), stage("b", 4, 2, None, **common),
        periphery=Periphery(tia=Tia(v_max=1.0)),
    )  # fmt: skip
    assert max(distances(engine, net, samples(3, 6))) < 1e-6
    same = network(*(replace(s, blocks=tuple(
        replace(b, cells=Cells(b.cells.g, {"dvt": 0 * b.cells.g})) for b in s.blocks
    )) for s in net.stages), periphery=net.periphery)  # fmt: skip
    own, common_one = (behaviour(each, samples(3, 6))[-1] for each in (net, same))
    assert np.abs(own - common_one).max() > 1e-3 * np.abs(own).max()


@pytest.mark.ngspice
def test_far_past_saturation_everything_clips_and_nothing_diverges(engine):
    """Inputs up to 100 times v_read."""
    net = chain(gain=5.0, offsets=1e-3, periphery=Periphery(tia=Tia(gain=1e4, v_max=0.9)))
    v = samples(5, 6) * np.array([1.0, 5.0, 20.0, 50.0, 100.0])[:, np.newaxis]
    assert max(distances(engine, net, v)) < 1e-4
    first, *_, last = operating_points(engine, net, v)
    assert np.abs(last).max() < 0.91
    neuron = net.periphery.neuron
    assert first.max() < neuron.supply / 2  # the mirror cannot beyond its supply
    assert first.max() > 0.68  # and it is driven there


@pytest.mark.ngspice
def test_what_drives_a_row_in_two_tiles_is_two_drivers(engine):
    """A tile's current drops on its own driver alone: cut or not, drivers differ."""
    periphery = Periphery(driver=Driver(resistance=1e3))
    g = np.array([[4e-4, 1e-6, 3e-4, 1e-6]])
    whole = line(1, g, 1e3, periphery)
    parts = [Crossbar(name, 1, 2) for name in ("left", "right")]
    cut = replace(whole.stages[0], blocks=tuple(
        Block(c, Cells(g[:, k : k + 2], {}), 0, k) for c, k in zip(parts, (0, 2), strict=True)
    ))  # fmt: skip
    v = np.array([[0.2]])
    together = operating_points(engine, whole, v)[0]
    apart = operating_points(engine, network(cut, periphery=periphery), v)[0]
    difference = g[:, ::2] - g[:, 1::2]
    np.testing.assert_allclose(together, 0.2 / (1 + 1e3 * g.sum()) * 1e3 * difference, rtol=1e-6)
    each = g.reshape(1, 2, 2).sum(axis=2)
    np.testing.assert_allclose(apart, 0.2 / (1 + 1e3 * each) * 1e3 * difference, rtol=1e-6)


@plain_ngspice
@pytest.mark.parametrize("count", [1, 3])
def test_plain_ngspice_gives_the_same_numbers(engine, tmp_path, count):
    net = chain(offsets=1e-3, periphery=Periphery(tia=Tia(gain=1e3, v_max=1.0)), **WIRES)
    v = samples(count, 6)
    raw = run_plain(tmp_path, render_network(net, v, header=["chip 3", ".control"]))
    for s, expected in enumerate(operating_points(engine, net, v), 1):
        found = np.stack([raw[f"v(x{s}_{k})"] for k in range(expected.shape[1])], axis=-1)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def run_plain(folder: Path, text: str):
    (folder / "net.cir").write_text(text)
    done = subprocess.run(
        ["ngspice", "-b", "-r", "net.raw", "net.cir"], cwd=folder, capture_output=True,
        check=True, timeout=60, env={"PATH": "/usr/bin:/bin:/opt/homebrew/bin"},
    )  # fmt: skip
    assert b"rror" not in done.stderr, done.stderr.decode()
    return read_raw(folder / "net.raw")


def tiny() -> AnalogNetwork:
    """Two stages by hand: a tile with wires and capacitances, a neuron, a second tile."""
    first = Stage(
        "first", 2, np.array([0.2]), 1.0, 1,
        (Block(
            Crossbar(
                "first_r0_c0", 3, 2, 2.0, 3.0, c_wordline=1e-15, c_bitline=2e-15, c_cell=5e-16
            ),
            Cells(np.array([[5e-05, 1e-06], [2e-06, 4e-05], [1e-05, 3e-06]]), {}), 0, 0,
        ),), 4e3, 2e4, np.array([[1e-3], [-2e-3]]), "relu", np.array([5e-4]),
    )  # fmt: skip
    second = Stage(
        "second", 1, np.zeros(0), 2.0, 1,
        (Block(
            Crossbar("second_r0_c0", 1, 2, cell=load_cell("sinh", v0=0.3)),
            Cells(np.array([[8e-05, 2e-05]]), {}), 0, 0,
        ),), 4e3, 1e4, np.zeros((2, 1)), None, np.zeros(1),
    )  # fmt: skip
    periphery = Periphery(
        driver=Driver(resistance=100.0, bias_current=1e-6),
        tia=Tia(gain=1e3, bandwidth=1e9, v_max=0.9, c_in=1e-14, bias_current=1e-5),
        neuron=Neuron(),
    )
    return AnalogNetwork("tiny", (first, second), periphery)


@pytest.mark.parametrize("name", ["point", "sweep", "step"])
def test_text_is_the_golden_one(name, regenerate):
    """Read one: it is the whole circuit, subcircuits, sources, analysis and what is saved."""
    v = np.array([[0.15, -0.05], [-0.1, 0.2]])
    arguments = {
        "point": {"v": v[0]}, "sweep": {"v": v}, "step": {"v": v[0], "step": (1e-11, 2e-9)},
    }[name]  # fmt: skip
    text = render_network(tiny(), header=["chip 7, seed 1"], **arguments)
    path = GOLDENS / f"{name}.cir"
    if regenerate:
        path.write_text(text)
    assert text == path.read_text(), "run pytest --regenerate if the change is meant"


@pytest.mark.parametrize(
    "v", [np.zeros((2, 5)), np.zeros(5), np.zeros((0, 6)), np.zeros((1, 1, 6)), [[np.nan] * 6]]
)
def test_voltages_that_do_not_fit_are_refused(engine, v):
    for run in (lambda: operating_points(engine, chain(), v), lambda: behaviour(chain(), v)):
        with pytest.raises(InputError, match=r"net: v of shape .* \(sample, 6\)"):
            run()


def test_a_record_that_is_no_circuit_is_refused():
    good = stage("a", 3, 2, None)
    (block,) = good.blocks
    with pytest.raises(InputError, match="stage b: 2 outputs drive 3 inputs"):
        network(good, stage("b", 3, 1, None))
    with pytest.raises(InputError, match="stage a: offsets do not fit"):
        replace(good, tia_offset=np.zeros((2, 3)))
    with pytest.raises(InputError, match="stage a: tile a_0_0 reaches beyond"):
        replace(good, blocks=(replace(block, row=1),))
    with pytest.raises(InputError, match="stage a: a stage without a tile"):
        replace(good, blocks=())
    with pytest.raises(InputError, match="net: a network without a stage"):
        network()
    with pytest.raises(InputError, match=r"tile a_0_0: g has shape \(1, 1\)"):
        replace(block, cells=Cells(np.ones((1, 1)), {}))
    with pytest.raises(InputError, match="tile a_0_0: has r_driver"):
        replace(block, crossbar=replace(block.crossbar, r_driver=10.0))
    with pytest.raises(InputError, match="no whole pairs"):
        replace(block, line=1)
    with pytest.raises(InputError, match="tile a_0_0: two subcircuits"):
        network(stage("b", 3, 3, None), good, replace(good, name="c", inputs=2, bias=np.zeros(2)))
    for taken in ("tia", "diff_tia", "driver", "relu"):
        with pytest.raises(InputError, match="two subcircuits"):
            network(replace(good, blocks=(replace(block, crossbar=replace(
                block.crossbar, name=taken)),)))  # fmt: skip


def test_a_cell_of_unknown_law_runs_in_ngspice_alone(engine):
    """Two resistors in a row, which are one, but not to an engine that knows no such cell."""
    text = (
        ".subckt mine wordline bitline g=1u\nr1 wordline x {0.5/g}\nr2 x bitline {0.5/g}\n.ends\n"
    )
    own = stage("a", 3, 2, None, cell=Cell("mine", text))
    v = samples(2, 3)
    with pytest.raises(EngineError, match="mine"):
        behaviour(network(own), v)
    plain = behaviour(network(stage("a", 3, 2, None)), v)[0]
    found = operating_points(engine, network(own), v)[0]
    np.testing.assert_allclose(found, plain, rtol=0, atol=1e-7 * np.abs(plain).max())
    other = Cell("mine", text.replace("0.5/g", "1/g"))
    with pytest.raises(InputError, match="two cells are called 'mine'"):
        network(own, stage("b", 2, 1, None, cell=other))


def test_a_neuron_without_headroom_is_refused():
    low = Periphery(neuron=Neuron(supply=0.9))
    with pytest.raises(InputError, match="neuron tanh: the tail needs"):
        render_network(network(stage("a", 3, 2, "tanh"), periphery=low), samples(1, 3))


def test_a_cell_cannot_bring_a_program():
    with pytest.raises(NetlistError):
        stage("a", 3, 2, None, cell=Cell("bad", ".subckt bad a b g=1\n.control\n.endc\n.ends\n"))
