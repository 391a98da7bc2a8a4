"""What is written is what is simulated: plain ``ngspice -b`` gives the same answers."""

import json
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.circuit import parse_crossbar, read_raw
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.program import CROSSBAR
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError

pytestmark = pytest.mark.ngspice

RRAM = sn.Technology.preset("rram-1r")
# Noise is added to currents, so the netlists of a noisy chip are those of a quiet one.
QUIET = RRAM.replace(read_noise=0.0, bandwidth=0.0)


def design_of(technology=QUIET, **more):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)).double()
    x = torch.randn(4, 6, dtype=torch.float64)
    return sn.compile(model, x, technology=technology, **more), x


def plain_ngspice(directory, file):
    """Currents (point, bitline) of one netlist, run by the program itself."""
    subprocess.run(
        ["ngspice", "-b", "-r", "out.raw", file], cwd=directory, check=True, capture_output=True
    )
    raw = read_raw(directory / "out.raw")
    names = [name for name in raw if "vs_" in name]
    names.sort(key=lambda name: int("".join(c for c in name if c.isdigit())))
    return np.stack([np.atleast_1d(np.real(raw[name])) for name in names], axis=-1)


def test_plain_ngspice_on_the_files_reproduces_the_chips_output(tmp_path):
    """Every layer's share is put together by what the manifest says, and nothing else."""
    design, x = design_of(tile=sn.Tile(4, 6), mapping=sn.Mapping(input_bits=6, dac_bits=2))
    chip = design.sample(chip=3, seed=9)
    manifest = json.loads(chip.to_spice(tmp_path, x, engine="nodal").read_text())
    assert (manifest["chip"], manifest["seed"]) == (3, 9)
    assert manifest["design"]["hash"] == design.hash
    assert len(manifest["tiles"]) == len(design.tiles) > 2
    t = manifest["technology"]
    span = t["v_read"] * (t["g_max"] - t["g_min"])
    z: dict[str, np.ndarray] = {}
    for tile in manifest["tiles"]:
        points = tile["points"]
        current = plain_ngspice(tmp_path, tile["file"]).reshape(*points.values(), -1)
        share = (current[..., 0::2] - current[..., 1::2]) / span
        share = np.einsum("...po,p->...o", share, tile["pulse_weight"])
        layer = z.setdefault(tile["layer"], np.zeros((points["sample"], 5)))
        layer[:, slice(*tile["outputs"])] += (
            share[:, 0] * tile["input_scale"] * tile["weight_scale"]
        )
    np.testing.assert_allclose(z["2"][:, :2], chip.run(x, engine="ngspice"), rtol=1e-6, atol=1e-9)


def test_netlist_live_simulator_and_record_hold_the_same_cells(tmp_path):
    design, x = design_of()
    chip = design.sample(chip=1, seed=2)
    chip.to_spice(tmp_path)
    with NgspiceEngine() as engine:
        # Another chip first, so that this one's cells are set by alter.
        run_chips(design, [0, 1], 2, as_inputs(design, x), engine)
        recorded = run_chips(design, [1], 2, as_inputs(design, x), engine, keep=frozenset({"g"}))
        for tile in design.tiles:
            drawn = chip.conductances()[tile.name]
            kept = recorded.tiles[tile.name].g
            assert kept is not None
            np.testing.assert_array_equal(kept[0], drawn)
            _, written, *_ = parse_crossbar((tmp_path / f"{tile.name}.cir").read_text())
            np.testing.assert_allclose(written, drawn, rtol=1e-15)
            engine.solve(tile.crossbar, drawn[None], np.zeros((1, 1, tile.crossbar.wordlines)))
            live = engine.read_conductances(tile.crossbar)
            np.testing.assert_allclose(live, drawn, rtol=1e-15)


def test_netlists_without_an_engine_drive_the_ideal_values(tmp_path):
    design, _ = design_of()
    chip = design.sample(chip=0, seed=1)
    chip.to_spice(tmp_path)
    _, _, v, _ = parse_crossbar((tmp_path / "x2_r0_c0.cir").read_text())
    layer = design.layers[0]
    hidden = design.example[0] @ layer.weight[0].T
    hidden = np.maximum(hidden + layer.bias, 0.0)
    assert v.shape == (len(design.example[0]), 6)  # five inputs and a bias row
    fraction = np.clip(hidden / design.layers[1].input_scale, 0.0, 1.0)
    np.testing.assert_allclose(v[:, :5], RRAM.v_read * fraction, atol=1e-15)
    np.testing.assert_allclose(v[:, 5], RRAM.v_read)


HOSTILE = [".control", "a\nshell touch pwned", "../../x", "ünïcode ☃", "a b;c$d", "control"]


def test_hostile_layer_names_reach_neither_commands_nor_paths(tmp_path):
    """A design from others may name its layers as it likes, also as torch would not."""
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in HOSTILE])
    design = sn.compile(model, torch.rand(2, 3), technology=QUIET)
    names = {layer.name: hostile for layer, hostile in zip(design.layers, HOSTILE, strict=True)}
    design = replace(
        design,
        layers=tuple(replace(layer, name=names[layer.name]) for layer in design.layers),
        program=replace(
            design.program,
            nodes=tuple(
                replace(node, args=(names[node.args[0]], *node.args[1:]))
                if node.op == CROSSBAR
                else node
                for node in design.program.nodes
            ),
        ),
    )
    folder = tmp_path / "out"
    design.sample(chip=0, seed=1).to_spice(folder)
    assert {path.parent for path in tmp_path.rglob("*.cir")} == {folder}
    for path in folder.glob("*.cir"):
        text = path.read_text()
        assert text.isascii()
        directives = {line.split()[0] for line in text.splitlines() if line.startswith(".")}
        assert directives <= {".options", ".temp", ".save", ".dc", ".op", ".print", ".end"}
        assert not any(line.lower().startswith(("shell", "touch")) for line in text.splitlines())
        plain_ngspice(folder, path.name)
    assert not list(tmp_path.rglob("pwned"))


def test_comments_say_which_weight_a_cell_holds(tmp_path):
    design, _ = design_of()
    design.sample(chip=0, seed=1).to_spice(tmp_path)
    lines = (tmp_path / "x0_r0_c0.cir").read_text().splitlines()
    (cell,) = [line for line in lines if line.startswith("rc_2_7 ")]
    assert cell.endswith(f"; - weight[3,2] = {design.layers[0].weight[0, 3, 2]:.6g}")
    (bias,) = [line for line in lines if line.startswith("rc_6_0 ")]
    assert bias.endswith(f"; + bias[0] = {design.layers[0].bias[0, 0]:.6g}")


def test_a_file_in_the_way_is_named(tmp_path):
    design, _ = design_of()
    blocked = tmp_path / "file"
    blocked.write_text("here first")
    with pytest.raises(InputError, match="file"):
        design.sample(chip=0, seed=1).to_spice(blocked)
    assert blocked.read_text() == "here first"


def test_pyspice_gets_a_circuit_that_simulates_the_same_tile(tmp_path):
    design, _ = design_of()
    chip = design.sample(chip=2, seed=1)
    circuit = chip.to_pyspice()
    tile = design.tiles[0]
    v = np.linspace(-0.2, 0.2, tile.crossbar.wordlines)
    for i, value in enumerate(v):
        circuit.V(f"in{i}", f"{tile.name}_in_{i}", circuit.gnd, value)
    for j in range(tile.crossbar.bitlines):
        circuit.V(f"s{j}", f"{tile.name}_out_{j}", circuit.gnd, 0)
    other = design.tiles[1]
    for i in range(other.crossbar.wordlines):
        circuit.V(f"other{i}", f"{other.name}_in_{i}", circuit.gnd, 0)
    for j in range(other.crossbar.bitlines):
        circuit.V(f"others{j}", f"{other.name}_out_{j}", circuit.gnd, 0)
    names = [f"i(vs{j})" for j in range(tile.crossbar.bitlines)]
    with NgspiceEngine() as engine:
        current = engine.run(f"{circuit}\n.op\n.end\n", names)
        g = chip.conductances()[tile.name]
        expected = engine.solve(tile.crossbar, g[None], v[None, None]).current[0, 0]
    np.testing.assert_allclose(
        [np.ravel(current[name])[0] for name in names], expected, rtol=1e-6, atol=1e-12
    )
