"""The ngspice engine gives Kirchhoff's currents, whatever ran before in its process."""

from __future__ import annotations

import shutil
import subprocess
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.circuit import (
    Crossbar,
    Tolerances,
    load_cell,
    parse_crossbar,
    read_raw,
    render_crossbar,
)
from spicenn.engines import open_engine, opened
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.ngspice.facts import ngspice_facts
from spicenn.errors import EngineError, InputError, NetlistError, SpicennWarning, Status
from spicenn.technology import OHMIC
from tests.engines.conftest import chips, kirchhoff


@pytest.mark.parametrize("wires", [(2.0, 3.0), (2.0, 0.0), (0.0, 3.0), (50.0, 20.0)])
@pytest.mark.parametrize(("samples", "inputs"), [(1, 1), (1, 3), (20, 1), (20, 3)])
def test_currents_are_kirchhoffs(engine, wires, samples, inputs):
    g, v = chips((7, 5), 3, samples, inputs=inputs)
    solution = engine.solve(Crossbar("t", 7, 5, *wires), g, v)
    expected = np.array([kirchhoff(g[c], v[c % inputs], *wires) for c in range(3)])
    assert list(solution.status) == [Status.OK] * 3
    assert solution.message == ("",) * 3
    assert (solution.runtime > 0).all()
    scale = np.abs(expected).max()
    # The reference stands in for ideal wires with 1 nΩ.
    bound = 1e-11 if all(wires) else 1e-6
    np.testing.assert_allclose(solution.current, expected, rtol=0, atol=bound * scale)


def test_ideal_wires_are_a_product(engine):
    g, v = chips((6, 4), 2, 9)
    solution = engine.solve(Crossbar("t", 6, 4), g, v)
    np.testing.assert_allclose(solution.current, v @ g, rtol=0, atol=1e-13 * np.abs(v @ g).max())


def test_positive_current_flows_out_of_the_bitline(engine):
    solution = engine.solve(Crossbar("t", 1, 1), np.full((1, 1, 1), 1e-4), np.full((1, 1, 1), 0.2))
    assert solution.current[0, 0, 0] == pytest.approx(2e-5, rel=1e-12, abs=0)


@settings(max_examples=15)
@given(data=st.data())
def test_order_of_wordlines_is_free_with_ideal_wires(engine, data):
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    order = data.draw(st.permutations(range(shape[0])))
    g, v = chips(shape, 1, 2, seed=data.draw(st.integers(0, 99)))
    crossbar = Crossbar("t", *shape)
    one, other = engine.solve(crossbar, g, v), engine.solve(crossbar, g[:, order], v[:, :, order])
    scale = np.abs(one.current).max()
    np.testing.assert_allclose(one.current, other.current, rtol=0, atol=1e-12 * scale)


def test_a_chip_does_not_depend_on_those_before_it(engine):
    """To the last bit: a resumed study must equal an uninterrupted one."""
    crossbar = Crossbar("t", 8, 8, 2.0, 2.0)
    g, v = chips((8, 8), 6, 4)
    together = engine.solve(crossbar, g, v).current
    other = Crossbar("u", 3, 8, 2.0, 2.0)
    for chip in (4, 2):
        engine.solve(other, *chips((3, 8), 1, 1))
        np.testing.assert_array_equal(
            engine.solve(crossbar, g[[chip]], v).current[0], together[chip]
        )
    with NgspiceEngine() as fresh:
        np.testing.assert_array_equal(fresh.solve(crossbar, g[[5]], v).current[0], together[5])


def test_many_topologies_share_a_process(engine):
    """More cells than are kept loaded: the oldest are dropped, none is mistaken for another."""
    shapes = [(128, 128), (128, 127), (127, 128), (120, 128), (2, 2), (2, 3)]
    for shape in [*shapes, *shapes[::-1]]:
        g, v = chips(shape, 1, 1, seed=sum(shape))
        current = engine.solve(Crossbar("t", *shape), g, v).current
        np.testing.assert_allclose(current, v @ g, rtol=0, atol=1e-12 * np.abs(v @ g).max())


def test_pivots_keep_the_digits(engine):
    """At KLU's own pivot threshold one such netlist in eight is off by 1e-10."""
    crossbar = Crossbar("t", 16, 16, 2.0, 3.0)
    g, v = chips((16, 16), 24, 3)
    names = [f"i(vs_{j})" for j in range(16)]
    for chip in g:
        found = engine.run(render_crossbar(crossbar, chip, v[0]), names)
        current = np.array([found[name] for name in names]).T
        expected = kirchhoff(chip, v[0], 2.0, 3.0)
        np.testing.assert_allclose(current, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
def test_large_array_with_wires(engine):
    g, v = chips((64, 64), 2, 2)
    current = engine.solve(Crossbar("t", 64, 64, 2.0, 2.0), g, v).current
    expected = np.array([kirchhoff(g[c], v[0], 2.0, 2.0) for c in range(2)])
    np.testing.assert_allclose(current, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_every_cell_is_what_was_asked_for(engine):
    """Record, netlist and live simulator agree: the resistance 1/g to the last bit."""
    rng = np.random.default_rng(3)
    g = 10 ** rng.uniform(-12, -2, (1, 9, 9))
    crossbar = Crossbar("t", 9, 9, 2.0, 2.0)
    v = rng.uniform(-0.2, 0.2, (1, 1, 9))
    engine.solve(crossbar, np.full_like(g, 1e-5), v)
    engine.solve(crossbar, g, v)
    live = engine.read_conductances(crossbar)
    written = parse_crossbar(render_crossbar(crossbar, g[0], v[0]))[1]
    np.testing.assert_array_equal(live, 1 / (1 / g[0]))
    np.testing.assert_array_equal(written, live)
    np.testing.assert_allclose(live, g[0], rtol=2.3e-16)


def test_no_cell_to_read_where_none_was_solved():
    with NgspiceEngine() as engine, pytest.raises(EngineError, match="no chip of this crossbar"):
        engine.read_conductances(Crossbar("t", 2, 2))


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="no ngspice on PATH")
@pytest.mark.parametrize("cell", ["ohmic", "sinh"])
@pytest.mark.parametrize("samples", [1, 12])
def test_plain_ngspice_agrees(engine, tmp_path, cell, samples):
    law = OHMIC if cell == "ohmic" else load_cell(cell)
    crossbar = Crossbar("t", 6, 7, 20.0, 30.0, law)
    g, v = chips((6, 7), 1, samples)
    (tmp_path / "t.cir").write_text(render_crossbar(crossbar, g[0], v[0]))
    subprocess.run(
        ["ngspice", "-b", "t.cir", "-r", "t.raw"], cwd=tmp_path, check=True, capture_output=True
    )
    raw = read_raw(tmp_path / "t.raw")
    plain = np.array([raw[f"i(vs_{j})"] for j in range(7)]).T
    current = engine.solve(crossbar, g, v).current[0]
    np.testing.assert_allclose(current, plain, rtol=0, atol=1e-9 * np.abs(plain).max())


def test_sinh_cells_follow_their_law(engine):
    """Per-chip inputs, several samples, beyond the bound where the law goes on as a line."""
    rng = np.random.default_rng(4)
    g, v = rng.uniform(1e-6, 1e-4, (2, 3, 2)), rng.uniform(-1.2, 1.2, (2, 5, 3))
    solution = engine.solve(Crossbar("t", 3, 2, cell=load_cell("sinh")), g, v)
    u = v / 0.25
    inside = np.clip(u, -3, 3)
    expected = (0.25 * (np.sinh(inside) + np.cosh(3) * (u - inside))) @ g
    assert list(solution.status) == [Status.OK] * 2
    np.testing.assert_allclose(
        solution.current, expected, rtol=0, atol=1e-9 * np.abs(expected).max()
    )


def test_any_analysis_from_text(engine):
    netlist = "low pass\nv1 in 0 dc 1 ac 1\nr1 in out 1k\nc1 out 0 1u\n.ac dec 1 10 1k\n.end"
    result = engine.run(netlist, ["frequency", "v(out)"])
    frequency = result["frequency"].real
    np.testing.assert_allclose(frequency, [10, 100, 1000], rtol=1e-9)
    expected = 1 / (1 + 2j * np.pi * frequency * 1e-3)
    np.testing.assert_allclose(result["v(out)"], expected, rtol=1e-9)
    sweep = engine.run(netlist, ["v(out)"], ["dc v1 0 1 0.5"])["v(out)"]
    np.testing.assert_allclose(sweep, [0, 0.5, 1], atol=1e-9)
    altered = engine.run(netlist, ["v(out)"], ["alter v1 = 3", "op"])["v(out)"]
    np.testing.assert_allclose(altered, [3.0], rtol=1e-9)


@pytest.mark.parametrize("line", [".control", ".include x", "*#shell ls", "+ .lib x\n.lib x"])
def test_text_that_runs_commands_is_refused(engine, line):
    before = engine.pid
    with pytest.raises(NetlistError):
        engine.run(f"title\nr1 a 0 1\n{line}\n.op\n.end", ["v(a)"])
    with pytest.raises(NetlistError):
        engine.run("title\nv1 a 0 1\n.end", ["v(a)"], ["shell touch x"])
    with pytest.raises(NetlistError):
        engine.run("title\nv1 a 0 1\n.op\n.end", ["v(a) ; shell ls"])
    assert engine.pid == before


def test_threads_take_turns(engine):
    crossbar = Crossbar("t", 5, 5, 2.0, 2.0)
    g, v = chips((5, 5), 8, 2, inputs=8)
    expected = engine.solve(crossbar, g, v).current
    found = {}

    def work(k):
        for _ in range(5):
            found[k] = engine.solve(crossbar, g[[k]], v[[k]]).current[0]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal([found[k] for k in range(8)], expected)


def test_memory_stays_bounded(engine):
    """300 chips of 16 x 16 cells leaked 23 MB in ngspice's command history."""
    crossbar = Crossbar("t", 16, 16, 2.0, 2.0)
    g, v = chips((16, 16), 30, 1)
    engine.solve(crossbar, g, v)
    before, pid = engine.memory, engine.pid
    for _ in range(10):
        engine.solve(crossbar, g, v)
    assert engine.pid == pid
    assert engine.memory - before < 3_000_000


def test_a_process_that_grew_is_replaced():
    with NgspiceEngine(memory_limit=1) as engine:
        crossbar = Crossbar("t", 30, 30, 2.0, 2.0)
        g, v = chips((30, 30), 1, 1)
        first = engine.solve(crossbar, g, v)
        pid = engine.pid
        second = engine.solve(crossbar, g, v)
        assert engine.pid != pid
        np.testing.assert_array_equal(first.current, second.current)


def test_engines_by_name():
    with pytest.raises(InputError, match="ngspice, nodal"):
        open_engine("spice3")
    with pytest.raises(InputError, match="timeout"):
        open_engine("ngspice", timeout=0.0)
    with pytest.raises(InputError, match="these options"):
        open_engine("ngspice", colour="red")
    with opened("nodal", timeout=3.0) as nodal, opened(nodal) as same:
        assert same is nodal
    with opened("ngspice", timeout=3.0) as running:
        assert running.name == "ngspice"
        assert set(running.versions) == {"ngspice", "klu", "xspice"}
        assert running.tolerances["reltol"] == Tolerances().reltol
    with pytest.raises(EngineError, match="closed"):
        running.solve(Crossbar("t", 1, 1), np.ones((1, 1, 1)), np.ones((1, 1, 1)))


def test_bad_shapes_are_refused(engine):
    crossbar = Crossbar("t", 2, 3)
    with pytest.raises(InputError, match="g has shape"):
        engine.solve(crossbar, np.ones((1, 3, 2)), np.ones((1, 1, 2)))
    with pytest.raises(InputError, match="sample"):
        engine.solve(crossbar, np.ones((1, 2, 3)), np.ones((1, 0, 2)))
    assert engine.solve(crossbar, np.ones((0, 2, 3)), np.ones((1, 4, 2))).current.shape == (0, 4, 3)


def test_facts_of_this_machine():
    facts = ngspice_facts()
    assert facts.usable
    assert facts.version is not None
    assert (facts.problem is None) == facts.klu


def test_a_build_without_klu_warns(monkeypatch):
    from spicenn.engines.ngspice import client

    with pytest.warns(SpicennWarning, match="no KLU"):
        client.warn_without_klu({"klu": False, "version": "39"})
