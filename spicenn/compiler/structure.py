"""What a chip's converters and wires do to whole tiles, as a few numbers each.

A tile's row i has a DAC of gain 1 + ρ_i and offset o_i, its column j an ADC of gain 1 + γ_j
and offset β_j, over full scale. With W the effective matrix of its cells the tile puts out

    (1 + γ_j) Σ_i (1 + ρ_i) u_i W_ij + (1 + γ_j) Σ_i o_i W_ij + β_j current_scale

a pulse: another effective matrix and an offset beside it. Numbers are kept by mechanism and
owner, as ``periphery.adc.gain:fc1_r0_c0`` (of a tile's columns) or ``periphery.dac.gain:fc1``
(of a layer's rows, whose DACs feed all of its tile columns).

Wires are one number of the whole chip, λ = ln(resistance of a segment / the technology's).
What they do to effective matrices is in ``structural.with_wires``. The simulator's chips all
have the technology's wires: the spread of λ is stated by who fits, and zero unless it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from spicenn.compiler.layer import Layer
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.readout import adc_errors, dac_errors
from spicenn.compiler.tiling import bias_rows

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

ADC_GAIN, ADC_OFFSET = "periphery.adc.gain", "periphery.adc.offset"
DAC_GAIN, DAC_OFFSET = "periphery.dac.gain", "periphery.dac.offset"
# Each of them is one number per converter.
MECHANISMS = (ADC_GAIN, ADC_OFFSET, DAC_GAIN, DAC_OFFSET)
# The key of a chip's λ, (1,).
WIRES = "technology.wires:chip"

# One chip in what it differs by. Per tile name its cells' effective matrix (wordline,
# output · slice) over g_max - g_min; by ``key`` its converters, (output · slice,) of a tile,
# (group, row) of a layer; and by ``WIRES`` its λ. What is missing is zero.
Parameters = Mapping[str, torch.Tensor]


class Matrices(NamedTuple):
    """A chip's tiles with its converters in them, per tile name.

    weights : (wordline, output · slice) over g_max - g_min.
    offsets : (output · slice,), added to every pulse's difference; of tiles that have any.
    """

    weights: dict[str, torch.Tensor]
    offsets: dict[str, torch.Tensor]


def key(mechanism: str, owner: PlacedTile | Layer) -> str:
    """Name of one owner's numbers: a tile's for an ADC's mechanism, a layer's for a DAC's."""
    return f"{mechanism}:{owner.name}"


def mechanism_of(name: str) -> str:
    """The mechanism that a key is of; the key of a tile's cells is of none."""
    return name.split(":", 1)[0] if ":" in name else ""


def structure_variance(design: Design, wires: float = 0.0) -> dict[str, torch.Tensor]:
    """Variance over chips of every number, by key; mechanisms that are off are left out.

    Parameters
    ----------
    wires : standard deviation of λ.
    """
    periphery, result = design.technology.periphery, {}
    for mechanism, sigma in ((ADC_GAIN, periphery.adc.gain), (ADC_OFFSET, periphery.adc.offset)):
        for tile in design.tiles if sigma else ():
            result[key(mechanism, tile)] = _full(sigma**2, tile.crossbar.bitlines // 2)
    for mechanism, sigma in ((DAC_GAIN, periphery.dac.gain), (DAC_OFFSET, periphery.dac.offset)):
        for layer in design.layers if sigma else ():
            rows = layer.inputs + bias_rows(layer, design.mapping)
            result[key(mechanism, layer)] = _full(sigma**2, layer.groups, rows)
    if wires:
        result[WIRES] = _full(wires**2, 1)
    return result


def chip_structure(design: Design, chip: int, seed: int) -> dict[str, torch.Tensor]:
    """The numbers of one manufactured chip; mechanisms that are off are left out."""
    known, result = structure_variance(design), {}
    for tile in design.tiles:
        errors = adc_errors(tile, design, [chip], seed)
        for mechanism, drawn in ((ADC_GAIN, errors.gain), (ADC_OFFSET, errors.offset)):
            if key(mechanism, tile) in known:
                result[key(mechanism, tile)] = torch.as_tensor(drawn[0])
    for layer in design.layers:
        rows = layer.inputs + bias_rows(layer, design.mapping)
        groups = [
            dac_errors(layer, group, rows, design, [chip], seed) for group in range(layer.groups)
        ]
        gain = np.stack([errors.gain[0] for errors in groups])
        offset = np.stack([errors.offset[0] for errors in groups])
        for mechanism, drawn in ((DAC_GAIN, gain), (DAC_OFFSET, offset)):
            if key(mechanism, layer) in known:
                result[key(mechanism, layer)] = torch.as_tensor(drawn)
    return result


def draw_structure(
    variance: Mapping[str, torch.Tensor], rng: np.random.Generator
) -> dict[str, torch.Tensor]:
    """Draw the numbers of one chip from their variances; other keys are left alone."""
    return {
        name: value.sqrt() * torch.as_tensor(rng.standard_normal(tuple(value.shape)))
        for name, value in variance.items()
        if mechanism_of(name)
    }


def column(parameters: Parameters, mechanism: str, tile: PlacedTile) -> torch.Tensor | float:
    """A tile's numbers (output · slice,), 0.0 where there are none."""
    return parameters.get(key(mechanism, tile), 0.0)


def row(parameters: Parameters, mechanism: str, tile: PlacedTile) -> torch.Tensor | float:
    """A tile's part of its layer's numbers (wordline,), 0.0 where there are none."""
    found = parameters.get(key(mechanism, tile.layer))
    return 0.0 if found is None else found[tile.slot.group, tile.slot.rows]


def realise(tiles: Iterable[PlacedTile], parameters: Parameters) -> Matrices:
    """Put a chip's converters into its tiles."""
    result = Matrices({}, {})
    for tile in tiles:
        w = matrix = parameters[tile.name]
        gain, factor = column(parameters, ADC_GAIN, tile), row(parameters, DAC_GAIN, tile)
        if isinstance(factor, torch.Tensor):
            matrix = matrix * (1.0 + factor)[:, None]
        if isinstance(gain, torch.Tensor):
            matrix = matrix * (1.0 + gain)
        result.weights[tile.name] = matrix
        offset = column(parameters, ADC_OFFSET, tile) * tile.layer.current_scale
        driven = row(parameters, DAC_OFFSET, tile)
        if isinstance(driven, torch.Tensor):
            offset = offset + (1.0 + gain) * (driven @ w)
        if isinstance(offset, torch.Tensor):
            result.offsets[tile.name] = offset
    return result


def has_offsets(design: Design) -> bool:
    """True where a chip's tiles have offsets beside their effective matrices."""
    periphery = design.technology.periphery
    return bool(periphery.adc.offset or periphery.dac.offset)


def _full(value: float, *shape: int) -> torch.Tensor:
    return torch.full(shape, value, dtype=torch.float64)
