"""Netlists of one chip as files: what plain ``ngspice -b`` runs, and how to read its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import render_crossbar
from spicenn.compiler import readout
from spicenn.compiler.converter import encode
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.layer import Array
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.program import execute
from spicenn.errors import InputError
from spicenn.technology import Cell
from spicenn.technology.osdi import verified_bytes
from spicenn.technology.toml import to_dict
from spicenn.technology.variation import Cells

if TYPE_CHECKING:
    import torch

    from spicenn.compiler.chip import Chip
    from spicenn.compiler.design import Design
    from spicenn.engines.engine import Engine

SCHEMA = 1

# One use of one tile: its voltages (sample, position, pulse, wordline) [V].
Stimuli = list[tuple[PlacedTile, int, Array]]


def write_netlists(chip: Chip, directory: Path, x: Any, engine: str | Engine | None) -> Path:
    """Write one netlist per tile (and per use of its layer) and ``manifest.json``, last.

    Raises InputError where the directory is a file or cannot be written.
    """
    design = chip.design
    inputs = design.example if x is None else as_inputs(design, x)
    stimuli = _ideal(chip, inputs) if engine is None else _measured(chip, inputs, engine)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        entries = []
        models = _copy_models(design.technology.cell, directory)
        for tile, use, v in stimuli:
            file = f"{tile.name}.cir" if use == 0 else f"{tile.name}_use{use + 1}.cir"
            cells = chip.cells(tile)
            text = render_crossbar(
                tile.crossbar,
                cells.g,
                v.reshape(-1, v.shape[-1]),
                cells.parameters,
                header=[_headline(chip, tile), *_legend(design, tile)],
                comments=cell_comments(design, tile),
            )
            _replace(directory / file, _with_models(text, models))
            entries.append(_entry(chip, tile, use, file, v))
        manifest = {
            **_head(chip),
            "run": "ngspice -b -r TILE.raw TILE.cir",
            "read": "i(vs_j) is the current out of bitline j [A]; points run over sample, "
            "position and pulse, the last fastest; the difference of bitlines 2k and 2k + 1 "
            "over v_read (g_max - g_min), times 1 + adc_gain plus adc_offset current_scale "
            "where these are given, converted, weighed by slice and pulse, times "
            "input_scale and weight_scale, is the tile's share of its outputs",
            "tiles": entries,
        }
        path = directory / "manifest.json"
        _replace(path, json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot be written: {error}", where=str(directory)) from error
    return path


def _copy_models(cell: Cell, directory: Path) -> list[str]:
    """Put a cell's compiled models beside the netlists; names that ngspice reads as they are."""
    names = []
    for model in cell.osdi:
        data = verified_bytes(model)
        names.append(f"{model.sha256[:16]}.osdi")
        _replace(directory / names[-1], data)
    return names


def _with_models(text: str, names: list[str]) -> str:
    """Let a netlist load its compiled models; ngspice does so before it reads the circuit."""
    if not names:
        return text
    title, _, rest = text.partition("\n")
    block = "".join(f"pre_osdi {name}\n" for name in names)
    return f"{title}\n.control\n{block}.endc\n{rest}"


def write_network(chip: Chip, directory: Path, x: Any) -> Path:
    """Write the chip as one circuit, as a sweep and as a transient, and ``manifest.json``.

    Raises CompileError as ``analog.chain_of``, InputError where the directory is a file or
    cannot be written.
    """
    from spicenn.compiler.analog import analog_chip, first_voltages
    from spicenn.engines.analog import TRANSIENT, render_network, time_scale

    design = chip.design
    inputs = design.example if x is None else as_inputs(design, x)
    analog = analog_chip(chip)
    v = first_voltages(chip, inputs)
    scale = time_scale(analog.network)
    headline = [f"chip {chip.index}, seed {chip.seed}"]
    last = len(analog.network.stages)
    manifest = {
        **_head(chip),
        "run": "ngspice -b -r NAME.raw NAME.cir",
        "read": f"v(x{last}_k) over unit_volts is output k of the last layer, behind its "
        "neuron; points of network.cir run over the samples",
        "unit_volts": analog.unit,
        "layers": [stage.name for stage in analog.network.stages],
        "samples": len(v),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        models = _copy_models(design.technology.cell, directory)
        sweep = render_network(analog.network, v, header=headline)
        _replace(directory / "network.cir", _with_models(sweep, models))
        step = render_network(
            analog.network, v[:1], header=headline, step=(scale / 100, 8 * scale),
            tolerances=TRANSIENT,
        )  # fmt: skip
        _replace(directory / "network_step.cir", _with_models(step, models))
        path = directory / "manifest.json"
        _replace(path, json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot be written: {error}", where=str(directory)) from error
    return path


def to_pyspice(chip: Chip) -> Any:
    """Return a PySpice circuit with one subcircuit and one instance per tile.

    A tile's ports are its wordline inputs, then its bitline outputs, on nodes
    ``TILE_in_i`` and ``TILE_out_j``; drive and sense them as you like.
    """
    from spicenn.engines.pyspice import crossbars_to_circuit

    design = chip.design
    return crossbars_to_circuit(
        f"{design.name} chip {chip.index} seed {chip.seed}",
        [(tile.crossbar, chip.cells(tile)) for tile in design.tiles],
    )


def cell_comments(design: Design, tile: PlacedTile) -> list[list[str]]:
    """Say of every cell, [wordline][bitline], which part of which weight it holds."""
    slot = tile.slot
    return [
        [_cell_comment(design, tile, row, bitline) for bitline in range(tile.crossbar.bitlines)]
        for row in range(slot.rows.start, slot.rows.stop)
    ]


def _cell_comment(design: Design, tile: PlacedTile, row: int, bitline: int) -> str:
    layer, slot, slices = tile.layer, tile.slot, design.mapping.slices
    output = slot.outputs.start + bitline // (2 * slices)
    part = ("-" if bitline % 2 else "+") + (f" slice {bitline // 2 % slices}" if slices > 1 else "")
    if row < layer.inputs:
        return f"{part} weight[{output},{row}] = {layer.weight[slot.group, output, row]:.6g}"
    assert layer.bias is not None  # only a bias has rows below the inputs
    return f"{part} bias[{output}] = {layer.bias[slot.group, output]:.6g}"


def _ideal(chip: Chip, inputs: tuple[NDArray[Any], ...]) -> Stimuli:
    """What the chip's DACs drive each tile with if every layer computed its exact result."""
    import torch

    from spicenn.compiler.convolution import digital_crossbar, unfold

    design = chip.design
    stimuli: Stimuli = []
    uses: dict[str, int] = {}
    exact = digital_crossbar(design.layers)

    def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
        layer = design.layer(name)
        rows = np.asarray(unfold(x, layer), dtype=np.float64)
        rows = rows.reshape(x.shape[0], -1, layer.groups, layer.inputs)
        use = uses.get(name, 0)
        uses[name] = use + 1
        for tile in design.tiles:
            if tile.layer is layer:
                group = tile.slot.group
                drive = readout.encode(
                    rows[np.newaxis, np.newaxis, :, :, group], layer, group, design,
                    [chip.index], chip.seed,
                )  # fmt: skip
                stimuli.append((tile, use, _voltages(design, tile, drive.fraction[:, 0, 0])))
        return exact(name, x)

    with torch.no_grad():
        execute(
            design.program,
            {name: torch.as_tensor(array) for name, array in design.constants.items()},
            [torch.as_tensor(array) for array in inputs],
            crossbar,
        )
    return stimuli


def _measured(chip: Chip, inputs: tuple[NDArray[Any], ...], engine: str | Engine) -> Stimuli:
    """What drives each tile on this chip, its earlier layers run on an engine."""
    from spicenn.engines import opened

    stimuli: Stimuli = []
    uses: dict[str, int] = {}

    def observe(tile: PlacedTile, _: Cells, v: Array, _current: Array) -> None:
        use = uses.get(tile.name, 0)
        uses[tile.name] = use + 1
        stimuli.append((tile, use, v[0, 0]))

    with opened(engine) as running:
        run_chips(
            chip.design, [chip.index], chip.seed, inputs, running, observer=observe,
            cells=lambda tile, _: chip.cells(tile),
            correct=chip.adapter.apply if chip.adapter else None,
        )  # fmt: skip
    return stimuli


def _voltages(design: Design, tile: PlacedTile, fraction: Array) -> Array:
    return np.moveaxis(fraction[..., tile.slot.rows], 0, -2) * design.technology.v_read


def _head(chip: Chip) -> dict[str, Any]:
    """What every manifest says of the chip."""
    design = chip.design
    return {
        "schema": SCHEMA,
        "design": {"name": design.name, "hash": design.hash},
        "chip": chip.index,
        "seed": chip.seed,
        "technology": to_dict(design.technology),
    }


def _headline(chip: Chip, tile: PlacedTile) -> str:
    return f"chip {chip.index}, seed {chip.seed}, tile {tile.name} of layer {tile.layer.name!r}"


def _legend(design: Design, tile: PlacedTile) -> list[str]:
    slot, slices = tile.slot, design.mapping.slices
    return [
        f"wordlines: rows {slot.rows.start} to {slot.rows.stop - 1} of group {slot.group}"
        f" (inputs 0 to {tile.layer.inputs - 1}, then bias rows)",
        f"bitlines: outputs {slot.outputs.start} to {slot.outputs.stop - 1},"
        f" {slices} slice(s) of a plus and a minus line each",
    ]


def _entry(chip: Chip, tile: PlacedTile, use: int, file: str, v: Array) -> dict[str, Any]:
    design, layer, slot = chip.design, tile.layer, tile.slot
    drive = encode(np.zeros((1, layer.inputs)), layer, design.mapping, design.technology)
    return {
        "name": tile.name,
        "file": file,
        "layer": layer.name,
        "source": layer.source,
        "use": use,
        "row": slot.row,
        "column": slot.column,
        "group": slot.group,
        "rows": [slot.rows.start, slot.rows.stop],
        "outputs": [slot.outputs.start, slot.outputs.stop],
        "wordlines": tile.crossbar.wordlines,
        "bitlines": tile.crossbar.bitlines,
        "slices": design.mapping.slices,
        "points": {"sample": v.shape[0], "position": v.shape[1], "pulse": v.shape[2]},
        "pulse_weight": drive.weight.tolist(),
        "offset": drive.offset,
        "input_scale": layer.input_scale,
        "weight_scale": layer.weight_scale,
        "current_scale": layer.current_scale,
        "adc_bits": design.mapping.adc_bits,
        **_converters(chip, tile),
    }


def _converters(chip: Chip, tile: PlacedTile) -> dict[str, list[float]]:
    """Errors of the tile's ADCs (output · slice), none where they have none."""
    if chip.design.technology.periphery.adc.is_accurate:
        return {}
    errors = readout.adc_errors(tile, chip.design, [chip.index], chip.seed)
    return {"adc_gain": errors.gain[0].tolist(), "adc_offset": errors.offset[0].tolist()}


def _replace(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    aside.replace(path)
