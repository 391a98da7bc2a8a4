"""A user's subcircuit or a foundry's library becomes a cell, and nothing else gets in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.optimize import brentq

from spicenn.circuit import Crossbar, parse_crossbar, read_raw
from spicenn.cli import options
from spicenn.cli.types import TECHNOLOGY
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import NetlistError, TechnologyError
from spicenn.technology import Cell, Technology
from spicenn.technology import include as include_module
from spicenn.technology.statements import statements
from spicenn.technology.toml import from_dict, to_dict

# In the style of a process kit: corners set parameters and call the common section; helpers
# lie in nested files; names of parameters and of the subcircuit's own meet.
MODELS = """\
* A foundry's library \u00a9
.lib tt
.param vth0_n = 0.5 kp0=1m   $ typical
.lib "models.lib" mos
.endl tt
.LIB FF
.param vth0_n='0.5-0.05'
+ kp0=1.2m ; fast
.lib 'models.lib' mos
.ENDL FF
.lib other
.control
shell touch pwned
.endc
.endl
.lib mos
.protect
.inc "sub/nmos.inc"
.unprotect
.endl
"""
NMOS = """\
.param kn={half(kp_twice)} w=77
.param kp_twice='2*kp0'   // used above, set here
.param unused=1
.func half(x) {x/2}
.model nch nmos level=1 vto={vth0_n} kp={kn}
.model bch.1 nmos level=14 version=4.8 toxe=2n vth0={vth0_n} lmin=10n lmax=1 wmin=10n
+ wmax=1 u0={kn*4e2/1m}
.model other nmos level=1
.subckt load a b r=1k
r1 a b {r}
.ends
.subckt sel D s gate bulk gprog=1u w=1u l=1u ratio={w/l}
m1 D gate mid bulk nch w={ratio*l} l={l}
x1 mid s load r={1/gprog}
.ends sel
.subckt big d s gate gprog=1u w=1u l=0.2u
m1 d gate mid 0 bch w={w} l={l}
x1 mid s load r={1/gprog}
.ends big
.end
"""
CORNERS = {"tt": (0.5, 1e-3), "ff": (0.45, 1.2e-3)}
ARGUMENTS = {"ports": ("d", "s"), "ties": {"gate": 1.2, "bulk": 0.0}, "conductance": "gprog"}
# At 27 Celsius no model parameter is scaled.
KELVIN = 300.15


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    folder = tmp_path / "kit"
    (folder / "sub").mkdir(parents=True)
    (folder / "models.lib").write_text(MODELS, "latin-1")
    (folder / "sub/nmos.inc").write_text(NMOS)
    return folder


@pytest.fixture(scope="module")
def engine():
    with NgspiceEngine(timeout=30.0) as running:
        yield running


def selector(kit: Path, section: str = "tt", **more) -> Cell:
    return Cell.from_file(
        kit / "models.lib",
        allow_include=[kit],
        section=section,
        subckt="sel",
        **{**ARGUMENTS, **more},
    )


def own(folder: Path, text: str, **more) -> Cell:
    """The cell of a file of its own with that text."""
    path = folder / "own.sp"
    path.write_text(text)
    return Cell.from_file(path, **{"allow_include": [folder], **more})


def law(v: float, g: float, vth: float, k: float, gate: float = 1.2) -> float:
    """A LEVEL=1 transistor in triode above a resistor: current at a voltage v across both."""

    def excess(mid: float) -> float:
        return k * ((gate - mid - vth) * (v - mid) - (v - mid) ** 2 / 2) - g * mid

    return g * float(brentq(excess, min(0.0, v), max(0.0, v), xtol=1e-18))


@pytest.mark.parametrize("corner", ["tt", "ff"])
def test_corner_sections_change_the_currents_as_the_closed_form_says(engine, kit, corner):
    cell = selector(kit, corner.upper(), parameters={"w": 2e-6})
    vth, k = CORNERS[corner]
    g = np.array([[[20e-6, 200e-6], [100e-6, 50e-6]]])
    v = np.array([[[0.1, 0.05], [0.02, 0.3]]])
    solution = engine.solve(Crossbar("t", 2, 2, cell=cell, temperature=KELVIN), g, v)
    expected = [[sum(law(v[0, s, i], g[0, i, j], vth, 2 * k) for i in (0, 1)) for j in (0, 1)]
                for s in (0, 1)]  # fmt: skip
    assert solution.message == ("",)
    np.testing.assert_allclose(solution.current[0], expected, rtol=1e-8)


@pytest.mark.parametrize("subckt", ["sel", "big"])
@pytest.mark.parametrize("section", ["tt", "ff"])
def test_wrapping_changes_nothing_against_plain_ngspice_on_the_library(
    engine, kit, section, subckt
):
    """Scopes, sections, functions, bins and captured names: ngspice reads the files itself."""
    library = kit / "models.lib"
    # Which ngspice does not know.
    library.write_text(library.read_text("latin-1").replace(".protect", "").replace(".unp", "*"))
    gates = "s gate 0" if subckt == "sel" else "s gate"
    deck = kit / "deck.cir"
    deck.write_text(
        f"* t\n.lib 'models.lib' {section}\n.temp 27\nv1 a 0 0.2\nvs s 0 0\nvg gate 0 1.2\n"
        f"x1 a {gates} {subckt} gprog=80u w=3u\n.options reltol=1e-9 abstol=1e-15\n"
        ".op\n.print op i(vs)\n.end\n"
    )
    raw = kit / "deck.raw"
    subprocess.run(["ngspice", "-b", "-r", str(raw), str(deck)], check=True, capture_output=True)
    plain = read_raw(raw)["i(vs)"][0]
    ties = {"gate": 1.2} | ({"bulk": 0.0} if subckt == "sel" else {})
    cell = Cell.from_file(
        kit / "models.lib", allow_include=[kit], section=section, subckt=subckt, ties=ties,
        conductance="gprog", parameters={"w": 3e-6},
    )  # fmt: skip
    crossbar = Crossbar("t", 1, 1, cell=cell, temperature=KELVIN)
    solution = engine.solve(crossbar, np.full((1, 1, 1), 80e-6), np.full((1, 1, 1), 0.2))
    assert plain > 1e-6
    np.testing.assert_allclose(solution.current.ravel(), plain, rtol=1e-8)


def test_the_cell_holds_what_the_subcircuit_names_and_nothing_more(kit):
    cell = selector(kit)
    words = set(cell.netlist.replace("=", " ").split())
    assert {"nch", "load", "half(x)", "kp_twice", "vth0_n"} <= words
    assert not {"other", "unused", "bch.1", "big"} & words
    assert not {".include", ".inc", ".lib", ".endl", ".protect", ".end"} & words
    assert cell.netlist.isascii()
    assert all(len(line) <= 100 for line in cell.netlist.splitlines())
    assert dict(cell.defaults) == {"g": 10e-6, "w": 1e-6, "l": 1e-6}
    assert cell == selector(kit)


def test_formulas_of_the_conductance_and_ports_by_name(engine, tmp_path):
    cell = own(
        tmp_path,
        ".subckt mem n sub p r=1 offset=3 k0=0\nr1 p n {r+offset+k0}\nr2 sub 0 1k\n.ends\n",
        name="my_cell",
        ports={"wordline": "p", "bitline": "n"},
        ties={"sub": "wordline"},
        conductance="r = {0.5/g}  offset={0.5/g}",
        parameters={"k0": 1e3},
    )
    solution = engine.solve(
        Crossbar("t", 1, 1, cell=cell), np.full((1, 1, 1), 1e-4), np.full((1, 1, 1), 0.5)
    )
    np.testing.assert_allclose(solution.current.ravel(), 0.5 / 11e3, rtol=1e-9)


def test_names_of_the_library_do_not_capture_those_of_the_cell(engine, tmp_path):
    """Top-level ``g``, ``w`` and ``m`` beside a cell with parameters of these names."""
    cell = own(
        tmp_path,
        ".param g=7 w=5 a={w*2}\n.subckt one p n g=1u w=1\nr1 p n {a/g*w/10}\n.ends\n",
        parameters={"w": 3.0},
    )
    crossbar = Crossbar("t", 1, 1, cell=cell)
    solution = engine.solve(crossbar, np.full((1, 1, 1), 1e-4), np.full((1, 1, 1), 0.5))
    np.testing.assert_allclose(solution.current.ravel(), 0.5 / 3e4, rtol=1e-9)


@pytest.mark.slow
def test_a_network_of_such_cells_runs_is_exported_and_saved_without_the_library(kit, tmp_path):
    import torch

    import spicenn as sn

    technology = Technology(
        name="kit", g_min=1e-6, g_max=100e-6, v_read=0.1, temperature=KELVIN,
        r_wordline=2.0, r_bitline=2.0, programming_error=0.02, cell=selector(kit, "ff"),
    )  # fmt: skip
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 2).eval()
    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    design = sn.compile(model, x, technology=technology, tile=sn.Tile(wordlines=8, bitlines=8))
    design.save(tmp_path / "net.spicenn")
    chip = design.sample(3, seed=5)
    y = chip.run(x)
    manifest = json.loads(chip.to_spice(tmp_path / "build").read_text())
    shutil.rmtree(kit)

    loaded = sn.Design.load(tmp_path / "net.spicenn")
    assert loaded.hash == design.hash
    assert loaded.technology.cell == technology.cell
    np.testing.assert_array_equal(loaded.sample(3, seed=5).run(x), y)

    # The files alone, in plain ngspice, give the engine's currents.
    (tile,) = design.tiles
    assert [entry["name"] for entry in manifest["tiles"]] == [tile.name]
    file = tmp_path / "build" / manifest["tiles"][0]["file"]
    raw = file.with_suffix(".raw")
    subprocess.run(
        ["ngspice", "-b", "-r", raw.name, file.name], check=True, capture_output=True,
        cwd=file.parent,
    )  # fmt: skip
    found = read_raw(raw)
    plain = np.array([found[f"i(vs_{j})"] for j in range(tile.crossbar.bitlines)]).T
    _, g, v, _ = parse_crossbar(file.read_text())
    with NgspiceEngine() as engine:
        solution = engine.solve(tile.crossbar, g[None], v[None])
    np.testing.assert_allclose(plain, solution.current[0], rtol=1e-9)


def test_a_technology_file_names_its_cell_relative_to_itself(kit, tmp_path):
    toml = tmp_path / "mine.toml"
    toml.write_text(
        'name = "mine"\ng_min = 0\ng_max = "100u"\nv_read = 0.2\n'
        '[cell]\nfile = "kit/models.lib"\nsection = "tt"\nsubckt = "sel"\n'
        'ports = ["d", "s"]\nties = {gate = "1.2", bulk = 0}\nconductance = "gprog"\n'
        'parameters = {w = "2u"}\n'
    )
    technology = Technology.from_toml(toml, allow_include=[kit])
    assert technology.cell == selector(kit, parameters={"w": 2e-6})
    assert from_dict(to_dict(technology)) == technology
    with pytest.raises(TechnologyError, match=r"mine\.toml.*may not be read.*allow-include"):
        Technology.from_toml(toml)
    with pytest.raises(TechnologyError, match="a file cannot be named here"):
        from_dict({**to_dict(technology), "cell": {"file": "kit/models.lib"}}, allow_include=[kit])

    seen: list[Technology] = []

    @click.command()
    @click.option("--technology", type=TECHNOLOGY)
    @options.trust_model
    @options.allow_include
    def command(technology, trust_model, allow_include):
        seen.append(technology)

    words = ["--technology", str(toml), "--allow-include", str(kit)]
    assert CliRunner().invoke(command, words, catch_exceptions=False).exit_code == 0
    assert seen == [technology]
    with pytest.raises(TechnologyError, match="may not be read"):
        CliRunner().invoke(command, words[:2], catch_exceptions=False)


CELL = ".subckt mine wordline bitline g=1u\nr1 wordline bitline {1/g}\n.ends\n"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('.include "../secret.inc"', "outside of the folders"),
        (".inc ../kit/../secret.inc", "outside of the folders"),
        (".include ABSOLUTE", "outside of the folders"),
        ('.lib "../secret.inc" tt', "outside of the folders"),
        (".include link.inc", "outside of the folders"),
        (".include linked/secret.inc", "outside of the folders"),
        (".include nothing.inc", "cannot be found"),
        (".include pipe", "not a plain file"),
        (".include .", "cannot be read|not a plain file"),
        ('.include "a.inc', "is not allowed|cannot be found"),
        (".include one.inc two.inc", r"\.include is not allowed"),
        (".include deep/one.inc", r"two\.inc, line 2: \.control is not allowed"),
        (".include cycle.inc", r"includes itself: own.sp -> cycle.inc -> cycle.inc"),
        (".lib cycle.lib a", r"includes itself: own.sp -> cycle.lib a -> cycle.lib b -> cyc"),
        (".lib cycle.lib c", "has no section 'c'.*there are a, b"),
        (".lib open.lib a", "has no .endl"),
        (".include closed.lib", "ends no section"),
        (".include huge.inc", "bytes"),
        (".include many.inc", "more than 256 files"),
        (".include chain0.inc", "more than 16 levels"),
        ("*#shell touch pwned", r"\*# is not allowed"),
        (".control\nshell touch pwned\n.endc", r"\.control is not allowed"),
        (".cont\n+rol", "is not allowed"),
        (".exec ls", r"\.exec is not allowed"),
        (".options reltol=1", r"\.options is not allowed"),
        (".model p d_process (process_file=/bin/sh)", "reaches outside"),
        ('.model p\n+ d_process process_file "/bin/sh"', "reaches outside"),
        ('.model t table2d (file "/etc/passwd")', "must not name files"),
        ("v1 a 0 pwl file=/etc/passwd", "must not name files"),
        ("r9 a b 1", "r9 is outside of a subcircuit"),
        (".subckt half a b", "has no .ends"),
        (".subckt mine a b\n.ends", "defined a second time"),
        ("r1 a \u00b5 1", "character '.xb5' is not allowed"),
    ],
)  # fmt: skip
def test_escapes_and_malformed_libraries_are_refused_with_their_place(
    tmp_path, monkeypatch, line, words
):
    kit, secret = tmp_path / "kit", tmp_path / "secret.inc"
    (kit / "deep").mkdir(parents=True)
    secret.write_text(".param stolen=1\n.lib tt\n.endl\n")
    (kit / "link.inc").symlink_to(secret)
    (kit / "linked").symlink_to(tmp_path)
    os.mkfifo(kit / "pipe")
    (kit / "deep/one.inc").write_text("* one\n.inc two.inc\n")
    (kit / "deep/two.inc").write_text("* two\n  .CONTROL\nshell touch pwned\n.endc\n")
    (kit / "cycle.inc").write_text(".include 'cycle.inc'\n")
    (kit / "cycle.lib").write_text(
        ".lib a\n.lib cycle.lib b\n.endl\n.lib b\n.lib cycle.lib A\n.endl\n"
    )
    (kit / "open.lib").write_text(".lib a\n.param x=1\n")
    (kit / "closed.lib").write_text(".lib a\n.endl b\n")
    with (kit / "huge.inc").open("wb") as file:
        file.truncate(include_module.MOST_BYTES + 1)
    (kit / "many.inc").write_text(".include empty.inc\n" * 256)
    (kit / "empty.inc").write_text("\n")
    for k in range(17):
        (kit / f"chain{k}.inc").write_text(f".include chain{k + 1}.inc\n")
    (kit / "chain17.inc").write_text("\n")
    monkeypatch.chdir(tmp_path)
    path = kit / "own.sp"
    path.write_text(CELL + line.replace("ABSOLUTE", str(secret)) + "\n", "latin-1")
    with pytest.raises(NetlistError, match=words) as caught:
        Cell.from_file(path, allow_include=[kit])
    assert "kit" in str(caught.value.where)  # the file that is at fault
    assert not (tmp_path / "pwned").exists()


def test_the_file_itself_must_lie_in_an_allowed_folder(tmp_path):
    assert own(tmp_path, CELL).name == "mine"
    for folders, words in (([], "may not be read"), ([tmp_path / "no"], "cannot be found")):
        with pytest.raises(NetlistError, match=words):
            own(tmp_path, CELL, allow_include=folders)
    with pytest.raises(NetlistError, match="is not a list of folders"):
        own(tmp_path, CELL, allow_include=str(tmp_path))


def test_an_allowed_folder_may_be_a_link_and_absolute_paths_within_it_are_followed(kit, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(kit)
    (kit / "own.sp").write_text(f".include '{link}/mine.inc'\n")
    (kit / "mine.inc").write_text(CELL)
    assert Cell.from_file(link / "own.sp", allow_include=[link]).name == "mine"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"ports": ("d", "x")}, "not two of its free ports.*its ports are d s gate bulk"),
        ({"ports": ("d", "d")}, "not two of its free ports"),
        ({"ports": ("d", "gate")}, "not two of its free ports"),
        ({"ties": {"gate": 1.2}}, "'bulk' is joined to nothing"),
        ({"ties": {"gate": 1.2, "bulk": 0, "z": 1}}, "no port 'z'"),
        ({"ties": {"gate": "vdd", "bulk": 0}}, "neither a voltage"),
        ({"ties": {"gate": float("nan"), "bulk": 0}}, "out of range"),
        ({"conductance": None}, "no parameter 'g'.*gprog, w, l, ratio"),
        ({"conductance": "gprog={g} shell ls"}, "neither a parameter"),
        ({"conductance": 'gprog={g}\n.control'}, "neither a parameter"),
        ({"conductance": "gprog={`ls`}"}, "neither a parameter"),
        ({"parameters": {"gprog": 1.0}}, "the conductance sets 'gprog'"),
        ({"parameters": {"vth0_n": 1.0}}, "no parameter 'vth0_n'"),
        ({"parameters": {"w": float("inf")}}, "out of range"),
        ({"name": "load"}, "has a subcircuit 'load' too"),
        ({"name": "Not A Name"}, "not a cell name"),
        ({"subckt": "nothing"}, "no subcircuit is called 'nothing'.*big, load, sel"),
        ({"subckt": None}, "holds 3 subcircuits"),
        ({"section": "ss"}, "no section 'ss'.*tt, ff, other, mos"),
        ({"section": None}, "no subcircuit is called 'sel'.*there are none"),
        ({"g": 0.0}, "out of range"),
        ({"osdi": ["x.osdi"]}, "native code"),
    ],
)  # fmt: skip
def test_a_mapping_that_does_not_fit_is_refused_with_a_remedy(kit, more, words):
    arguments = {"allow_include": [kit], "section": "tt", "subckt": "sel", **ARGUMENTS, **more}
    with pytest.raises((NetlistError, TechnologyError), match=words):
        Cell.from_file(kit / "models.lib", **arguments)


def test_the_text_of_a_cell_is_its_own_proof(kit):
    """What a saved design holds is checked again, by the same rules, without the library."""
    cell = selector(kit)
    assert Cell(cell.name, cell.netlist, cell.parameters) == cell
    hostile = cell.netlist.replace(".model nch nmos", ".model nch d_process")
    with pytest.raises(NetlistError, match="reaches outside"):
        Cell(cell.name, hostile)
    assert all(line.isprintable() for _, line in statements(cell.netlist, "cell"))
