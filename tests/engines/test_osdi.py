"""Compiled Verilog-A as cells: the law, what is refused, and what a bad model costs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spicenn.circuit import Crossbar, load_cell, parse_crossbar, read_raw
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.ngspice.facts import ngspice_facts
from spicenn.errors import (
    DesignError,
    EngineError,
    MissingModelError,
    NetlistError,
    Status,
    TechnologyError,
)
from spicenn.technology import Cell, Technology
from spicenn.technology.osdi import MOST_BYTES, CompiledModel, compiled_model

SOURCE = Path(__file__).with_name("sinh_osdi.c")
SPICE = """\
.model law va_sinh v0={scale}
.param scale=0.25
.subckt mem p n gm=1u
n1 p n law gm={gm}
.ends
"""
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compile the model, with what makes it another; each variant once."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc, clang) to make a compiled model with")
    folder = tmp_path_factory.mktemp("Compiled")
    (folder / "mem.sp").write_text(SPICE)

    def made(name: str = "model", *defines: str) -> Path:
        # A path with blanks and capitals: ngspice never sees it.
        path = folder / f"My {name}.osdi"
        if not path.exists():
            options = ["-shared", "-fPIC", "-O1", *defines, "-o", str(path), str(SOURCE), "-lm"]
            command = [compiler, *options]
            subprocess.run(command, check=True, capture_output=True)
        return path

    return made


def cell_of(path: Path, **more) -> Cell:
    arguments = {"allow_include": [path.parent], "osdi": [path], "trust_model": True, **more}
    return Cell.from_file(path.parent / "mem.sp", conductance="gm", **arguments)


def arrays(chips: int = 2, rows: int = 3, columns: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.uniform(1e-6, 1e-4, (chips, rows, columns)), rng.uniform(-1, 1, (1, 5, rows))


def law(v: np.ndarray, g: np.ndarray, v0: float = 0.25) -> np.ndarray:
    """Current (sample, bitline) of ideal wires; the inputs reach beyond 3 v0."""
    u = v / v0
    bound = np.clip(u, -3, 3)
    return np.asarray((v0 * (np.sinh(bound) + np.cosh(bound) * (u - bound))) @ g)


def test_this_ngspice_loads_compiled_models():
    facts = ngspice_facts()
    assert facts.osdi, "ngspice is built without OSDI: the tests of this module cannot run"


def test_a_crossbar_of_compiled_cells_obeys_its_law(build):
    cell, (g, v) = cell_of(build()), arrays()
    with NgspiceEngine(timeout=30.0) as engine:
        solution = engine.solve(Crossbar("t", 3, 4, cell=cell), g, v)
        pid = engine.pid
        assert solution.message == ("", "")
        for chip in range(2):
            np.testing.assert_allclose(solution.current[chip], law(v[0], g[chip]), rtol=1e-9)
        # Wires and all, against the same law as a behavioural source; one child.
        found, own = (
            engine.solve(Crossbar("t", 3, 4, 20.0, 20.0, each), g, v).current
            for each in (cell, load_cell("sinh"))
        )
        assert engine.pid == pid
    np.testing.assert_allclose(found, own, rtol=1e-9)
    assert not np.allclose(found[0], law(v[0], g[0]), rtol=1e-4)


def test_any_netlist_may_use_a_compiled_model_that_it_is_given(build):
    model = compiled_model(build(), allow_include=[build().parent], trust_model=True)
    netlist = "* t\n.model m va_sinh v0=0.2\nn1 a 0 m gm=1m\nv1 a 0 0.3\n.op\n.end\n"
    with NgspiceEngine(timeout=30.0) as engine:
        with pytest.raises(MissingModelError, match="Unknown model type va_sinh"):
            engine.run(netlist, ["i(v1)"])
        found = engine.run(netlist, ["i(v1)"], osdi=[model])["i(v1)"]
    np.testing.assert_allclose(found, -1e-3 * 0.2 * np.sinh(1.5), rtol=1e-9)


@pytest.mark.slow
def test_another_library_with_a_model_of_the_same_name_gets_a_process_of_its_own(build):
    one, two = cell_of(build()), cell_of(build("double", "-DSCALE=2.0"))
    g, v = arrays(chips=1)
    with NgspiceEngine(timeout=30.0) as engine:
        currents = []
        for cell in (one, two, one):
            currents.append(engine.solve(Crossbar("t", 3, 4, cell=cell), g, v).current[0])
        pid = engine.pid
        ohmic = engine.solve(Crossbar("t", 3, 4), g, v).current[0]
        assert engine.pid == pid  # what needs no model runs beside any
    np.testing.assert_allclose(currents[1], 2 * currents[0], rtol=1e-9)
    np.testing.assert_array_equal(currents[2], currents[0])
    np.testing.assert_allclose(ohmic, v[0] @ g[0], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["LOAD", "EVAL"])
def test_a_model_that_crashes_costs_its_chips_and_nothing_else(build, moment):
    bad, (g, v) = cell_of(build(moment, f"-DCRASH_{moment}")), arrays(chips=2)
    with NgspiceEngine(timeout=30.0) as engine:
        solution = engine.solve(Crossbar("t", 3, 4, cell=bad), g, v)
        assert list(solution.status) == [Status.CRASH] * 2
        assert np.isnan(solution.current).all()
        good = engine.solve(Crossbar("t", 3, 4, cell=cell_of(build())), g, v)
    assert list(good.status) == [Status.OK] * 2


@pytest.mark.slow
def test_a_file_that_is_no_compiled_model_is_an_error_that_says_so(build, tmp_path):
    (tmp_path / "mem.sp").write_text(SPICE)
    (tmp_path / "text.osdi").write_text("not a library")
    future = shutil.copy(build("future", "-DMINOR=9"), tmp_path / "future.osdi")
    g, v = arrays(chips=1)
    with NgspiceEngine(timeout=30.0) as engine:
        for path in (tmp_path / "text.osdi", Path(future)):
            solution = engine.solve(Crossbar("t", 3, 4, cell=cell_of(path)), g, v)
            assert solution.status[0] == Status.ERROR
            assert f"does not load {path}: " in solution.message[0]
            assert "compiled for this machine, as OSDI 0.3 or 0.4" in solution.message[0]


@pytest.mark.slow
def test_a_model_changed_since_is_not_loaded(build, tmp_path):
    path = Path(shutil.copy(build(), tmp_path / "model.osdi"))
    (tmp_path / "mem.sp").write_text(SPICE)
    cell, (g, v) = cell_of(path), arrays(chips=1)
    shutil.copy(build("double", "-DSCALE=2.0"), path)
    with NgspiceEngine(timeout=30.0) as engine:
        crossbar = Crossbar("t", 3, 4, cell=cell)
        solution = engine.solve(crossbar, g, v)
        assert solution.status[0] == Status.ERROR
        assert "has changed" in solution.message[0]
        path.unlink()
        assert "cannot be read" in engine.solve(crossbar, g, v).message[0]
        shutil.copy(build(), path)
        assert engine.solve(crossbar, g, v).status[0] == Status.OK


def test_without_osdi_in_ngspice_the_error_says_what_to_install(build):
    from spicenn.engines.ngspice.session import Session

    session = object.__new__(Session)
    session.has_osdi, session._compiled = False, set()
    with pytest.raises(EngineError, match=r"cannot load compiled models.*--enable-osdi"):
        session.load_compiled("/somewhere/model.osdi", "0" * 64)


def test_a_compiled_model_needs_trust_and_an_allowed_folder(build, tmp_path):
    path = build()
    folder = path.parent
    for more, words in (
        ({"trust_model": False}, "native code.*trust_model=True, or --trust-model"),
        ({"allow_include": [tmp_path]}, "outside of the folders"),
        ({"allow_include": []}, "may not be read"),
    ):
        arguments: dict[str, Any] = {"allow_include": [folder], "trust_model": True, **more}
        with pytest.raises(NetlistError, match=words):
            compiled_model(path, **arguments)
    link = tmp_path / "link.osdi"
    link.symlink_to(path)
    with pytest.raises(NetlistError, match="outside of the folders"):
        compiled_model(link, allow_include=[tmp_path], trust_model=True)
    with pytest.raises(NetlistError, match="has changed"):
        compiled_model(path, allow_include=[folder], trust_model=True, sha256="0" * 64)
    with (tmp_path / "huge.osdi").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(NetlistError, match="more than"):
        compiled_model(tmp_path / "huge.osdi", allow_include=[tmp_path], trust_model=True)
    with pytest.raises(NetlistError, match="native code"):
        CompiledModel(str(path), "0" * 64)
    with pytest.raises(NetlistError, match="is not a tuple of compiled models"):
        Cell("mem", cell_of(path).netlist, osdi=(str(path),))  # type: ignore[arg-type]
    with pytest.raises(NetlistError, match="a resistor needs no"):
        Cell(osdi=cell_of(path).osdi)


def test_a_technology_file_names_a_compiled_model_and_needs_trust(build):
    folder = build().parent
    toml = folder / "mine.toml"
    toml.write_text(
        'name = "mine"\ng_min = 0\ng_max = "100u"\nv_read = 0.2\n'
        f'[cell]\nfile = "mem.sp"\nconductance = "gm"\nosdi = ["{build().name}"]\n'
    )
    technology = Technology.from_toml(toml, allow_include=[folder], trust_model=True)
    assert technology.cell == cell_of(build())
    with pytest.raises(TechnologyError, match="native code"):
        Technology.from_toml(toml, allow_include=[folder])


@pytest.mark.slow
def test_a_design_of_compiled_cells_is_refused_unless_trusted_and_exported_whole(build, tmp_path):
    import torch

    import spicenn as sn

    technology = Technology(
        name="va", g_min=1e-6, g_max=100e-6, v_read=0.2, r_wordline=2.0, r_bitline=2.0,
        programming_error=0.02, cell=cell_of(build()),
    )  # fmt: skip
    torch.manual_seed(1)
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    design = sn.compile(
        torch.nn.Linear(4, 2).eval(), x, technology=technology,
        tile=sn.Tile(wordlines=8, bitlines=8),
    )  # fmt: skip
    chip = design.sample(3, seed=5)
    y = chip.run(x)
    file = tmp_path / "net.spicenn"
    design.save(file)
    folder = build().parent
    for more, words in (
        ({}, "native code"),
        ({"allow_include": [folder]}, "native code"),
        ({"trust_model": True}, "may not be read"),
    ):
        with pytest.raises(DesignError, match=words):
            sn.Design.load(file, **more)
    loaded = sn.Design.load(file, allow_include=[folder], trust_model=True)
    assert loaded.hash == design.hash
    np.testing.assert_array_equal(loaded.sample(3, seed=5).run(x), y)

    # A study's workers run what the client trusts; a record is a file like any other.
    ds = sn.monte_carlo(design, x, chips=[3], seed=5, workers=1)
    np.testing.assert_array_equal(ds.output.values[0, 0], y)
    with pytest.raises(DesignError, match="native code"):
        sn.design_of(ds)
    again = sn.design_of(ds, allow_include=[folder], trust_model=True)
    assert again.hash == design.hash

    # The folder of netlists is whole: it runs from anywhere, the model beside them.
    manifest = json.loads(chip.to_spice(tmp_path / "build").read_text())
    away = shutil.move(tmp_path / "build", tmp_path / "Away")
    netlist = Path(away) / manifest["tiles"][0]["file"]
    assert str(folder) not in netlist.read_text()
    raw = tmp_path / "tile.raw"
    subprocess.run(["ngspice", "-b", "-r", raw, netlist], check=True, capture_output=True)
    found = read_raw(raw)
    (tile,) = design.tiles
    plain = np.array([found[f"i(vs_{j})"] for j in range(tile.crossbar.bitlines)]).T
    _, g, v, _ = parse_crossbar(netlist.read_text())
    with NgspiceEngine() as engine:
        solution = engine.solve(tile.crossbar, g[None], v[None])
    np.testing.assert_allclose(plain, solution.current[0], rtol=1e-9)

    # So is that of the chip as one circuit.
    manifest = json.loads(chip.to_spice(tmp_path / "network", x, analog=True).read_text())
    subprocess.run(
        ["ngspice", "-b", "-r", raw, tmp_path / "network" / "network.cir"],
        check=True, capture_output=True,
    )  # fmt: skip
    found = read_raw(raw)
    plain = np.array([found[f"v(x1_{k})"] for k in range(2)]).T / manifest["unit_volts"]
    np.testing.assert_allclose(plain, chip.run_analog(x), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("default::spicenn.errors.SpicennWarning")
def test_the_command_line_works_on_studies_of_compiled_cells_where_they_are_trusted(
    build, tmp_path
):
    import torch
    from click.testing import CliRunner

    import spicenn as sn
    from spicenn.cli.app import program

    technology = Technology(
        name="va", g_min=1e-6, g_max=100e-6, v_read=0.2, programming_error=0.02,
        cell=cell_of(build()),
    )  # fmt: skip
    x = np.linspace(-1, 1, 32, dtype=np.float32).reshape(8, 4)
    torch.manual_seed(1)
    design = sn.compile(torch.nn.Linear(4, 2), x, technology=technology)
    sn.monte_carlo(design, x, chips=2, seed=5, workers=1, store=tmp_path / "a.zarr")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", design.sample(7, seed=5).run(x))
    trust = ["--allow-include", str(build().parent), "--trust-model"]
    for words in (
        "fit {0}/a.zarr -o {0}/s.pt",
        "calibrate {0}/s.pt --probes {0}/x.npy --outputs {0}/y.npy -o {0}/m.pt",
        "report {0}/a.zarr --surrogate {0}/s.pt --calibrated {0}/m.pt --chip 1 -o {0}/r.html",
    ):
        command = words.format(tmp_path).split()
        refused = CliRunner().invoke(program, command, prog_name="spicenn")
        assert refused.exit_code == 1
        assert "--trust-model" in refused.output
        done = CliRunner().invoke(program, [*command, *trust], prog_name="spicenn")
        assert done.exit_code in (0, 3), done.output
        if command[0] == "fit":
            assert "nonlinear in the cell 'mem'" in done.stderr
    assert (tmp_path / "r.html").is_file()
