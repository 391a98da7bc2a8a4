"""A chip as one analog circuit: what can be one, and that it computes what the layers do."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.circuit import read_raw
from spicenn.compiler.analog import analog_chip, chain_of, first_voltages
from spicenn.compiler.execute import as_inputs
from spicenn.engines import open_engine
from spicenn.engines.analog import behaviour
from spicenn.errors import CompileError, InputError
from spicenn.periphery.neuron import relu_range

IDEAL = sn.Technology.preset("ideal")
SEED = 5
NEURONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
REAL = {
    "programming_error": 0.05, "r_wordline": 2.0, "r_bitline": 2.0,
    "periphery.driver.resistance": 100.0, "periphery.tia.gain": 1e4,
    "periphery.tia.v_max": 0.9, "periphery.tia.offset": 5e-4, "periphery.neuron.offset": 2e-3,
}  # fmt: skip


@pytest.fixture(scope="module")
def ngspice():
    with open_engine("ngspice") as engine:
        yield engine


@cache
def mlp(activation="relu", tile=(128, 128), scale=1.0):
    torch.manual_seed(1)
    neuron = NEURONS[activation]
    model = nn.Sequential(
        nn.Linear(12, 10), neuron(), nn.Linear(10, 8), neuron(), nn.Linear(8, 4)
    ).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    x = torch.rand(40, 12, dtype=torch.float64)
    design = sn.compile(model, x, technology=IDEAL, tile=sn.Tile(*tile), calibration=x)
    return model, design, x


def expected(model, x):
    with torch.no_grad():
        return model(x).numpy()


def error(y, reference):
    return np.abs(y - reference).max() / np.abs(reference).max()


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.parametrize("tile", [(128, 128), (5, 6)], ids=["one tile", "many tiles"])
def test_an_ideal_relu_chip_is_the_network(ngspice, tile):
    """To 1e-6, bias rows, rows of tiles and columns of tiles included."""
    model, design, x = mlp(tile=tile)
    chip = design.sample(0, SEED)
    reference = expected(model, x)
    assert error(chip.run_analog(x, "nodal"), reference) < 1e-6
    assert error(chip.run_analog(x, ngspice), reference) < 1e-6
    blocks = [len(stage.blocks) for stage in analog_chip(chip).network.stages]
    assert blocks == ([1, 1, 1] if tile[0] == 128 else [3 * 4, 3 * 3, 2 * 2])


@pytest.mark.ngspice
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
def test_an_ideal_pair_is_away_from_its_function_by_what_the_square_law_is(ngspice, activation):
    """A pair leaves tanh by 0.1275 at most, the logistic function by half of that.

    A layer hands errors e on as W e, so that 1 · Σ|W| bounds the outputs' error, layer after
    layer; with the square law in the place of the function the network is the circuit.
    """
    model, design, x = mlp(activation, scale=1.5)
    chip = design.sample(0, SEED)
    y = chip.run_analog(x, ngspice)
    most = 0.1275 if activation == "tanh" else 0.0638
    slope = 1.0 if activation == "tanh" else 0.25
    bound = np.zeros(12)
    for k in (0, 2):
        weight = model[k].weight.detach().abs().numpy()
        bound = slope * weight @ bound + most
    bound = model[4].weight.detach().abs().numpy() @ bound
    away = np.abs(y - expected(model, x)).max(axis=0)
    assert (away < bound).all()
    assert away.max() > 1e-3  # and they do differ

    def pair(u):
        u = u.clamp(-math.sqrt(2), math.sqrt(2))
        return u * (1 - u * u / 4).sqrt()

    def neuron(z):
        return pair(z) if activation == "tanh" else (1 + pair(z / 2)) / 2

    with torch.no_grad():
        h = neuron(model[2](neuron(model[0](x))))
        square = model[4](h).numpy()
    assert error(y, square) < 1e-6
    assert error(chip.run_analog(x, "nodal"), square) < 1e-6


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.parametrize("activation", NEURONS)
def test_the_twin_follows_a_manufactured_chip(ngspice, activation):
    """Cells, wires, drivers, offsets, finite gain: within 2e-3 of the outputs' range.

    The twin takes a bitline's conductance as its cells' (behind 100 Ω drivers it is a few per
    cent less) and leaves out what one bitline's movement does to the others. Both are that
    share of what offsets and gain do at all.
    """
    _, design, x = mlp(activation, tile=(8, 8))
    chip = design.with_technology(REAL).sample(3, SEED)
    simulated, twin = chip.run_analog(x, ngspice), chip.run_analog(x, "nodal")
    assert error(twin, simulated) < 2e-3
    ideal = design.sample(3, SEED).run_analog(x, ngspice)
    assert error(simulated, ideal) > 20 * error(twin, simulated)


def test_offsets_are_a_chips_own_and_the_same_again():
    _, design, _x = mlp(tile=(5, 6))
    drawn = design.with_technology({"periphery.tia.offset": 1e-3, "periphery.neuron.offset": 3e-3})
    stages = {chip: analog_chip(drawn.sample(chip, SEED)).network.stages for chip in (0, 1)}
    again = analog_chip(drawn.sample(1, SEED)).network.stages
    for a, b, c in zip(stages[0], stages[1], again, strict=True):
        assert not np.any(a.tia_offset == b.tia_offset)
        assert not np.any(a.neuron_offset == b.neuron_offset)
        np.testing.assert_array_equal(b.tia_offset, c.tia_offset)
        np.testing.assert_array_equal(b.neuron_offset, c.neuron_offset)
    every = np.concatenate([s.tia_offset.ravel() for s in stages[0]])
    assert len(set(every.tolist())) == every.size == 2 * (10 + 8 + 4)
    neurons = np.concatenate([s.neuron_offset for s in stages[0][:2]])
    # Of 44 and 18 draws the deviation is within 3 / sqrt(2 n) of its value.
    assert np.std(every) == pytest.approx(1e-3, rel=0.32)
    assert np.std(neurons) == pytest.approx(3e-3, rel=0.5)
    # Each mechanism by itself, and no draw of the cells with them.
    alone = analog_chip(
        design.with_technology({"periphery.tia.offset": 1e-3}).sample(0, SEED)
    ).network.stages
    np.testing.assert_array_equal(alone[0].tia_offset, stages[0][0].tia_offset)
    assert not alone[0].neuron_offset.any()
    varied = design.with_technology(programming_error=0.05)
    both = varied.with_technology({"periphery.tia.offset": 1e-3})
    for name, g in varied.sample(2, SEED).conductances().items():
        np.testing.assert_array_equal(g, both.sample(2, SEED).conductances()[name])


def test_measured_conductances_are_the_circuits():
    _, design, x = mlp(tile=(8, 8))
    varied = design.with_technology(programming_error=0.05)
    made = varied.sample(4, SEED)
    measured = design.measured(made.conductances(), seed=SEED)
    np.testing.assert_array_equal(measured.run_analog(x, "nodal"), made.run_analog(x, "nodal"))
    ideal = design.sample(4, SEED).run_analog(x, "nodal")
    assert error(measured.run_analog(x, "nodal"), ideal) > 0.01


def test_amplifiers_are_sized_for_the_full_scale_that_calibration_saw():
    """0.8 of what amplifier and mirror put out undistorted, and every line within v_max."""
    for v_max in (0.5, 0.9):
        _, design, x = mlp(tile=(5, 6))
        design = design.with_technology({"periphery.tia.v_max": v_max})
        analog = analog_chip(design.sample(0, SEED))
        limit = min(v_max, relu_range(design.technology.periphery.neuron))
        for stage in analog.network.stages:
            lines = np.zeros(2 * stage.outputs)
            for block in stage.blocks:
                at = slice(block.line, block.line + block.crossbar.bitlines)
                lines[at] += design.technology.v_read * block.cells.g.sum(axis=0)
            assert stage.r_first * lines.max() == pytest.approx(0.8 * v_max)
        outputs = behaviour(analog.network, first_voltages(design.sample(0, SEED), (x.numpy(),)))
        for stage, y in zip(analog.network.stages, outputs, strict=True):
            assert np.abs(y).max() <= 0.8 * (limit if stage.activation else v_max) * (1 + 1e-9)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        y = torch.relu(self.first(x))
        return self.second(y) + y


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.only = nn.Linear(6, 6)

    def forward(self, x):
        return self.only(torch.relu(self.only(x)))


def plain(neuron=nn.ReLU):
    return nn.Sequential(nn.Linear(6, 4), neuron(), nn.Linear(4, 2))


VECTORS, IMAGES = torch.rand(6, 6), torch.rand(6, 1, 6, 6)
REFUSED: dict[str, tuple[Any, ...]] = {
    "convolution": (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 2)), IMAGES, {},
        {}, "layer '0'.* convolution",
    ),
    "slices": (plain(), VECTORS, {"slices": 2, "cell_bits": 2}, {}, "layer '0'.* slices"),
    "digital bias": (plain(), VECTORS, {"bias": "digital"}, {}, "layer '0'.* digital bias"),
    "serial inputs": (
        plain(), VECTORS, {"input_bits": 6, "dac_bits": 2}, {}, "layer '0'.* bit-serial"
    ),
    "offset drive": (
        plain(nn.Tanh), VECTORS, {}, {"drive": "offset"}, "layer '2'.* signed inputs in a offset"
    ),
    "two phases": (
        plain(nn.Tanh), VECTORS, {}, {"drive": "two-phase"}, "layer '2'.* signed .* two-phase"
    ),
    "residual": (Residual(), VECTORS, {}, {}, "layer 'second'.* used twice"),
    "layer twice": (Twice(), VECTORS, {}, {}, "layer 'only': is used more than once"),
    "gelu": (plain(nn.GELU), VECTORS, {}, {}, r"layer '2'.*aten\.gelu\.default interrupts"),
    "pooling": (
        nn.Sequential(nn.Linear(6, 6), nn.MaxPool1d(3), nn.Linear(2, 2)), torch.rand(6, 2, 6), {},
        {}, r"layer '2'.*aten\.\w*pool",
    ),
    "two activations": (
        nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.ReLU(), nn.Linear(4, 2)), VECTORS, {}, {},
        r"layer '3'.*aten\.relu\.default",
    ),
    "reshaped": (
        nn.Sequential(nn.Linear(6, 4), nn.Unflatten(1, (2, 2)), nn.Linear(2, 3)), VECTORS, {}, {},
        "layer '2'.* takes 2 values of 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_one_circuit_says_which_layer_and_why(name):
    model, x, mapping, changes, match = REFUSED[name]
    design = sn.compile(
        model, x, technology=IDEAL.replace(changes), mapping=sn.Mapping(**mapping), calibration=x
    )
    chip = design.sample(0, SEED)
    with pytest.raises(CompileError, match=match) as error:
        chip.run_analog(x, "nodal")
    if name != "reshaped":
        assert "chip.run" in str(error.value)
    with pytest.raises(CompileError, match=match):
        chip.to_spice("never-made", analog=True)
    assert np.isfinite(chip.run(x, "nodal")).all()  # apart they run


def test_unsigned_inputs_need_one_phase_in_any_drive():
    for drive in ("offset", "two-phase"):
        model = plain()
        design = sn.compile(model, VECTORS, technology=IDEAL.replace(drive=drive))
        y = design.sample(0, SEED).run_analog(VECTORS, "nodal")
        assert error(y, expected(model, VECTORS)) < 1e-6


class Around(nn.Module):
    """Digital before and behind, both results of the model."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        z = self.second(torch.relu(self.first(2 * x.flatten(1) - 0.5)))
        return torch.log_softmax(z, -1), z.argmax(-1)


def test_what_comes_before_and_behind_stays_digital():
    torch.manual_seed(0)
    model, x = Around(), torch.rand(7, 2, 3)
    design = sn.compile(model, x, technology=IDEAL, calibration=x)
    chain = chain_of(design)
    assert [(layer.name, neuron) for layer, neuron in chain.links] == [
        ("first", "relu"), ("second", None)
    ]  # fmt: skip
    found = list(design.sample(0, SEED).run_analog(x, "nodal").values())
    soft, best = expected_all(model, x)
    assert error(found[0], soft) < 1e-5
    assert found[0].dtype == np.float32
    np.testing.assert_array_equal(found[1], best)


def expected_all(model, x):
    with torch.no_grad():
        return [y.numpy() for y in model(x)]


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Unflatten(-1, (1, 4)), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(6, 4), nn.ReLU()),
    ],
    ids=["plain", "reshaped within", "ends in a neuron"],
)
@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 6)], ids=["vectors", "rows"])
def test_outputs_have_the_models_shape(model, shape):
    """Rows of a sample go through the circuit one by one."""
    x = torch.rand(shape)
    design = sn.compile(model, x, technology=IDEAL, calibration=x)
    y = design.sample(0, SEED).run_analog(x, "nodal")
    reference = expected(model, x)
    assert y.shape == reference.shape
    assert error(y, reference) < 1e-5


def test_inputs_beyond_the_scale_saturate_and_bits_are_rounded():
    model = plain()
    design = sn.compile(
        model, VECTORS, technology=IDEAL, calibration=VECTORS, mapping=sn.Mapping(input_bits=4)
    )
    v = first_voltages(design.sample(0, SEED), as_inputs(design, 5 * VECTORS))
    assert v.max() == IDEAL.v_read
    steps = v / IDEAL.v_read * 15
    np.testing.assert_allclose(steps, steps.round(), rtol=0, atol=1e-9)
    with pytest.raises(InputError, match="shape"):
        design.sample(0, SEED).run_analog(VECTORS[:, :5], "nodal")


@pytest.mark.ngspice
@pytest.mark.skipif(shutil.which("ngspice") is None, reason="no ngspice on PATH")
def test_written_files_give_the_outputs_in_plain_ngspice(ngspice, tmp_path):
    _, design, x = mlp("tanh", tile=(8, 8))
    chip = design.with_technology({**REAL, "periphery.tia.bandwidth": 1e9}).sample(3, SEED)
    manifest = json.loads(chip.to_spice(tmp_path, x[:6], analog=True).read_text())
    assert (manifest["samples"], manifest["chip"], manifest["seed"]) == (6, 3, SEED)
    for name in ("network", "network_step"):
        subprocess.run(
            ["ngspice", "-b", "-r", f"{name}.raw", f"{name}.cir"], cwd=tmp_path, check=True,
            capture_output=True, timeout=60, env={"PATH": "/usr/bin:/bin:/opt/homebrew/bin"},
        )  # fmt: skip
    raw = read_raw(tmp_path / "network.raw")
    last = len(manifest["layers"])
    y = np.stack([raw[f"v(x{last}_{k})"] for k in range(4)], axis=-1) / manifest["unit_volts"]
    reference = chip.run_analog(x[:6], ngspice)
    assert error(y, reference) < 1e-7
    # Followed from its inputs' step, the first sample ends there as well.
    step = read_raw(tmp_path / "network_step.raw")
    end = np.array([step[f"v(x{last}_{k})"][-1] for k in range(4)]) / manifest["unit_volts"]
    assert error(end, reference[0]) < 5e-3
