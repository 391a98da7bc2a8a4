"""A design as one analog circuit: its layers in a row, no converter between them.

Signals are voltages: a layer's output z leaves its amplifier as κ z, its neuron as some
voltage per unit of the activation, and the next layer's drivers scale that to wordlines.
What comes before the first and after the last layer of the row stays digital. The first
layer's DACs are in it with their steps and errors; no voltage of the row meets an ADC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler import readout
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import tile_generator
from spicenn.compiler.program import CROSSBAR, Node, Program, Ref, execute, leaves
from spicenn.compiler.tiling import bias_rows
from spicenn.engines.analog.network import AnalogNetwork, Block, Stage
from spicenn.engines.laws import as_resistors
from spicenn.errors import CompileError, InputError
from spicenn.periphery.mismatch import draw_offset
from spicenn.periphery.neuron import Activation, relu_range
from spicenn.seeds import Purpose, generator

if TYPE_CHECKING:
    import torch

    from spicenn.compiler.chip import Chip
    from spicenn.compiler.design import Design
    from spicenn.engines.analog import Transient
    from spicenn.engines.engine import Engine

_NEURONS: dict[str, Activation] = {
    "aten.relu.default": "relu",
    "aten.tanh.default": "tanh",
    "aten.sigmoid.default": "sigmoid",
}
# They leave the order of a sample's values as it is.
_SHAPES = frozenset({"aten.reshape.default", "aten.flatten.using_ints"})

# Name of the whole row among a program's layers.
_CHAIN = "analog chain"
# Share of an amplifier's range that is planned for; the rest is for a chip's spread.
_HEADROOM = 0.8
# Range of an amplifier without a bound [V].
_RANGE = 1.0


@dataclass(frozen=True, eq=False)
class Chain:
    """The analog part of a design.

    links : every layer and its neuron, in order.
    program : the digital rest, in which one crossbar node is the whole row.
    head : what comes before, and the row layer by layer; its result is the row's.
    """

    links: tuple[tuple[Layer, Activation | None], ...]
    program: Program
    head: Program


@dataclass(frozen=True, eq=False)
class AnalogChip:
    """One chip as a network, and how its voltages are read.

    unit : the last stage's output for one unit of the model [V].
    """

    chain: Chain
    network: AnalogNetwork
    unit: float


def chain_of(design: Design) -> Chain:
    """Find the row of layers. Raises CompileError saying what is in the way, and where."""
    program = design.program
    users: dict[str, list[Node]] = {}
    for node in program.nodes:
        arguments = (node.args, tuple(value for _, value in node.kwargs))
        for name in {leaf.name for leaf in leaves(arguments) if isinstance(leaf, Ref)}:
            users.setdefault(name, []).append(node)
    first = next(node for node in program.nodes if node.op == CROSSBAR)
    links: list[tuple[Layer, Activation | None]] = [(design.layer(first.args[0]), None)]
    inside, passed, last = {first.name}, {first.name}, first
    at = first
    while at.name not in program.results and len(users.get(at.name, [])) == 1:
        (following,) = users[at.name]
        if following.op == CROSSBAR:
            links.append((design.layer(following.args[0]), None))
        elif following.op in _NEURONS and links[-1][1] is None:
            links[-1] = (links[-1][0], _NEURONS[following.op])
        elif following.op not in _SHAPES:
            break
        at = following
        passed.add(at.name)
        if at.op not in _SHAPES:
            inside, last = set(passed), at
    for node in program.nodes:
        if node.op == CROSSBAR and node.name not in inside:
            raise CompileError(
                f"an analog network is a row of linear layers with ReLU, tanh or sigmoid "
                f"between them, and {_way(program, users, at)} interrupts it",
                where=f"layer {node.args[0]!r}",
                remedy="run the chip with its layers apart (chip.run)",
            )
    names = [layer.name for layer, _ in links]
    for layer, _ in links:
        if names.count(layer.name) > 1:
            raise CompileError(
                "is used more than once, and an analog circuit has its tiles once",
                where=f"layer {layer.name!r}",
                remedy="run the chip with its layers apart (chip.run)",
            )
        _check(design, layer)
    for (before, _), (after, _) in pairwise(links):
        if before.outputs != after.inputs:
            raise CompileError(
                f"takes {after.inputs} values of {before.outputs}", where=f"layer {after.name!r}"
            )
    whole = Node(last.name, CROSSBAR, (_CHAIN, first.args[1]))
    nodes = [whole if node is last else node for node in program.nodes]
    rest = tuple(node for node in nodes if node is whole or node.name not in inside)
    until = program.nodes[: program.nodes.index(last) + 1]
    head = replace(program, nodes=until, results=(last.name,))
    return Chain(tuple(links), replace(program, nodes=rest), head)


def _way(program: Program, users: dict[str, list[Node]], at: Node) -> str:
    after = users.get(at.name, [])
    if len(after) == 1:
        return f"the operator {after[0].op}"
    return "a value that is used twice" if after else "an output of the model"


def _check(design: Design, layer: Layer) -> None:
    mapping, drive = design.mapping, design.technology.drive
    reasons = (
        (layer.convolution is not None, "is a convolution, whose tiles are used many times"),
        (mapping.slices > 1, "spreads its weights over slices"),
        (layer.bias is not None and mapping.bias == "digital", "has a digital bias"),
        (layer.signed and drive != "bipolar", f"has signed inputs in a {drive} drive"),
        ((mapping.dac_bits or mapping.input_bits) != mapping.input_bits, "has bit-serial inputs"),
    )
    for applies, what in reasons:
        if applies:
            raise CompileError(
                f"{what}, which one analog circuit cannot",
                where=f"layer {layer.name!r}",
                remedy="run the chip with its layers apart (chip.run), or map it otherwise",
            )


def analog_chip(chip: Chip) -> AnalogChip:
    """Return a chip's network. Raises CompileError as ``chain_of``.

    An amplifier's resistors are sized so that the calibration's full scale takes
    ``_HEADROOM`` of what it and its neuron can put out undistorted; tanh and sigmoid set
    their own.
    """
    design = chip.design
    chain = chain_of(design)
    stages: list[Stage] = []
    unit = 0.0  # of the stage before [V]
    for layer, activation in chain.links:
        gain = 1.0 if not stages else design.technology.v_read / (layer.input_scale * unit)
        stage, unit = stage_of(chip, layer, activation, gain)
        stages.append(stage)
    network = AnalogNetwork(
        f"{design.name} chip {chip.index}",
        tuple(stages),
        design.technology.periphery,
        design.technology.temperature,
    )
    return AnalogChip(chain, network, unit)


def stage_of(
    chip: Chip, layer: Layer, activation: Activation | None, gain: float
) -> tuple[Stage, float]:
    """One layer of a chip as a stage, and what its neurons put out for one unit [V].

    Parameters
    ----------
    gain : of the stage's drivers.
    """
    design, technology = chip.design, chip.design.technology
    tia, neuron = technology.periphery.tia, technology.periphery.neuron
    tiles = [tile for tile in design.tiles if tile.layer is layer]
    blocks, offset = [], np.zeros((2, layer.outputs))
    line_current = np.zeros(2 * layer.outputs)
    for tile in tiles:
        slot = tile.slot
        crossbar = replace(tile.crossbar, r_driver=0.0, r_sense=0.0)
        first = 2 * int(slot.outputs.start)
        blocks.append(Block(crossbar, chip.cells(tile), int(slot.rows.start), first))
        lines = slice(first, first + crossbar.bitlines)
        line_current[lines] += technology.v_read * tile.g_target.sum(axis=0)
        if int(slot.rows.start) == 0 and tia.offset_sigma:
            # Of the tiles that share a bitline the first one's key draws its amplifier.
            rng = tile_generator(chip.seed, Purpose.TIA_OFFSET, tile, chip.index)
            drawn = draw_offset(tia, rng, (crossbar.bitlines,))
            offset[:, slot.outputs] = drawn.reshape(-1, 2).T
    volts, unit = _levels(design, layer, activation, max(tile.slot.row for tile in tiles) + 1)
    span = technology.v_read * (technology.g_max - technology.g_min)
    rng = generator(chip.seed, Purpose.NEURON_OFFSET, chip=chip.index, layer=layer.index)
    stage = Stage(
        name=layer.name,
        inputs=layer.inputs,
        bias=np.full(bias_rows(layer, design.mapping), technology.v_read),
        gain=gain,
        outputs=layer.outputs,
        blocks=tuple(blocks),
        r_first=_HEADROOM * (tia.v_max or _RANGE) / float(line_current.max()),
        r_feedback=volts * layer.input_scale * layer.weight_scale / span,
        tia_offset=offset,
        activation=activation,
        neuron_offset=draw_offset(neuron, rng, (layer.outputs,)),
    )
    return stage, unit


def _levels(
    design: Design, layer: Layer, activation: Activation | None, rows: int
) -> tuple[float, float]:
    """Voltage per unit of a layer's result, and per unit of its activation."""
    periphery = design.technology.periphery
    neuron, limit = periphery.neuron, periphery.tia.v_max or _RANGE
    scale = math.sqrt(neuron.bias_current / neuron.beta) / neuron.input_gain
    if activation == "tanh":
        return scale, neuron.load * neuron.bias_current
    if activation == "sigmoid":
        # The logistic function of z is (1 + tanh(z / 2)) / 2.
        return scale / 2, neuron.load * neuron.bias_current
    if activation == "relu":
        limit = min(limit, relu_range(neuron) / neuron.input_gain)
    # Each row of tiles may add a full scale.
    full = rows * layer.current_scale * layer.input_scale * layer.weight_scale
    volts = _HEADROOM * limit / full
    return volts, volts * (neuron.input_gain if activation == "relu" else 1.0)


def input_voltages(chip: Chip, chain: Chain, x: Array) -> Array:
    """What drives the first layer, (sample, input) [V]; x (sample, input) in its units."""
    design, (layer, _) = chip.design, chain.links[0]
    values = x[np.newaxis, np.newaxis, :, np.newaxis]
    drive = readout.encode(values, layer, 0, design, [chip.index], chip.seed)
    return np.asarray(drive.fraction[0, 0, 0, :, 0, : layer.inputs] * design.technology.v_read)


def run_analog(chip: Chip, x: Any, engine: str | Engine, timeout: float) -> dict[str, Array]:
    """Run inputs through a chip as one circuit; the outputs by name. See ``Chip.run_analog``."""
    import torch

    from spicenn.compiler.convolution import digital_crossbar
    from spicenn.engines import opened
    from spicenn.engines.analog import behaviour, operating_points
    from spicenn.engines.ngspice.client import NgspiceEngine

    design, analog = chip.design, analog_chip(chip)
    inputs = as_inputs(design, x)

    def crossbar(_: str, values: torch.Tensor) -> torch.Tensor:
        rows = np.asarray(values, dtype=np.float64).reshape(-1, analog.chain.links[0][0].inputs)
        v = input_voltages(chip, analog.chain, rows)
        with opened(engine, timeout=timeout) as running:
            if isinstance(running, NgspiceEngine):
                volts = operating_points(running, analog.network, v)[-1]
            else:
                volts = behaviour(analog.network, v)[-1]
        return torch.as_tensor(volts / analog.unit).to(values.dtype)

    constants = {name: torch.tensor(array) for name, array in design.constants.items()}
    tensors = [torch.as_tensor(array) for array in inputs]
    with torch.no_grad():
        # Layers apart, values are of some shape between and behind them; rows of a circuit
        # know nothing of it.
        (like,) = execute(analog.chain.head, constants, tensors, digital_crossbar(design.layers))
        outputs = execute(
            analog.chain.program, constants, tensors,
            lambda name, values: crossbar(name, values).reshape(like.shape),
        )  # fmt: skip
    return {
        port.name: np.asarray(output)
        for port, output in zip(design.program.outputs, outputs, strict=True)
    }


def chip_transient(
    chip: Chip,
    x: Any,
    *,
    tolerance: float,
    stop: float | None,
    noise: bool,
    trial: int,
    timeout: float,
) -> Transient:
    """Step a chip's inputs to one sample's; see ``Chip.transient``."""
    from spicenn.engines.analog import operating_points, transient
    from spicenn.engines.ngspice.client import NgspiceEngine

    analog = analog_chip(chip)
    v = first_voltages(chip, as_inputs(chip.design, x))
    if len(v) != 1:
        raise InputError(f"{len(v)} samples given, a transient takes one", remedy="give x[:1]")
    with NgspiceEngine(timeout=timeout) as engine:
        lines: list[str] = []
        if noise:
            if stop is None:
                raise InputError("a noisy transient needs its duration, stop")
            volts = [v, *operating_points(engine, analog.network, v)]
            lines = _noise_lines(chip, analog, [each[0] for each in volts], stop, trial)
        return transient(engine, analog.network, v[0], tolerance=tolerance, stop=stop, noise=lines)


def _noise_lines(
    chip: Chip, analog: AnalogChip, volts: list[Array], stop: float, trial: int
) -> list[str]:
    """Sources of every cell's noise around the operating point; volts drive each stage."""
    from spicenn.circuit import noise_sources
    from spicenn.compiler.reading import Read, transient_noise
    from spicenn.engines.analog import block_nodes

    design = chip.design
    if not design.technology.bandwidth:
        raise InputError(
            "the technology has no bandwidth to draw noise in",
            where="bandwidth",
            remedy="set it, e.g. chip.design.with_technology(bandwidth=1e9)",
        )
    # Sampled at twice the highest frequency that counts.
    dt = 0.5 / design.technology.bandwidth
    count = math.ceil(stop / dt) + 1
    lines: list[str] = []
    for s, (stage, (layer, _)) in enumerate(
        zip(analog.network.stages, analog.chain.links, strict=True)
    ):
        driven = np.concatenate([stage.gain * volts[s], stage.bias])
        tiles = [tile for tile in design.tiles if tile.layer is layer]
        for tile, block in zip(tiles, stage.blocks, strict=True):
            _, g, _ = as_resistors(block.crossbar, block.cells.g, block.cells.parameters)
            v = driven[block.row : block.row + len(g), np.newaxis]
            read = Read(design.technology, tile, chip.seed, [chip.index], trial + 1)
            series = transient_noise(
                read, chip.index, trial, g, (g * v)[..., np.newaxis], dt, count
            )
            prefix = f"n{s}_{len(lines)}"
            lines += noise_sources(
                block_nodes(s, block), series.reshape(-1, series.shape[-1]), dt, prefix
            )
    return lines


def first_voltages(chip: Chip, inputs: tuple[NDArray[Any], ...]) -> Array:
    """What the model's inputs put on the first layer's drivers, (sample, input) [V]."""
    import torch

    chain = chain_of(chip.design)
    found: list[Array] = []

    def crossbar(_: str, values: torch.Tensor) -> torch.Tensor:
        layer, last = chain.links[0][0], chain.links[-1][0]
        rows = np.asarray(values, dtype=np.float64).reshape(-1, layer.inputs)
        found.append(input_voltages(chip, chain, rows))
        return torch.zeros(len(rows), last.outputs, dtype=values.dtype)

    constants = {name: torch.tensor(array) for name, array in chip.design.constants.items()}
    with torch.no_grad():
        execute(chain.program, constants, [torch.as_tensor(array) for array in inputs], crossbar)
    return found[0]
