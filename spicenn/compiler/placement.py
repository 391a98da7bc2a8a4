"""A design's tiles with their names, circuits and targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spicenn.circuit import Crossbar, unique_names
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.tiling import TileSlot, physical_weight, target_conductance, tile_slots
from spicenn.seeds import Purpose, generator
from spicenn.technology.variation import programmed

if TYPE_CHECKING:
    from spicenn.compiler.design import Design


@dataclass(frozen=True, eq=False)
class PlacedTile:
    """One tile of a design.

    name : safe and unique in the design, "fc1_r0_c0".
    g_target : (wordline, bitline) [S], the nominal corner's.
    """

    name: str
    layer: Layer
    slot: TileSlot
    crossbar: Crossbar
    g_target: Array


def place(design: Design) -> tuple[PlacedTile, ...]:
    """Return every tile of a design, in the order of layers, tile rows and tile columns."""
    technology, mapping = design.technology, design.mapping
    wires = technology.process.wire_resistance
    placed = []
    safe = unique_names(layer.name for layer in design.layers)
    for layer, layer_name in zip(design.layers, safe, strict=True):
        weight = physical_weight(layer, mapping)
        for slot in tile_slots(layer, mapping, design.tile):
            target = target_conductance(
                weight[slot.group, slot.rows, slot.outputs], mapping, technology
            )
            name = f"{layer_name}_r{slot.row}_c{slot.column}"
            crossbar = Crossbar(
                name,
                wordlines=target.shape[0],
                bitlines=target.shape[1],
                r_wordline=technology.r_wordline * wires,
                r_bitline=technology.r_bitline * wires,
                cell=technology.cell,
                temperature=technology.temperature,
            )
            placed.append(PlacedTile(name, layer, slot, crossbar, target))
    return tuple(placed)


def sample_tile(design: Design, tile: PlacedTile, chip: int, seed: int) -> Array:
    """Draw one chip's copy of a tile; (wordline, bitline) [S]."""
    rng = tile_generator(seed, Purpose.PROGRAMMING_ERROR, tile, chip)
    return programmed(design.technology, tile.g_target, rng)


def tile_generator(
    seed: int, purpose: Purpose, tile: PlacedTile, chip: int, trial: int = 0, use: int = 0
) -> np.random.Generator:
    """The generator of one mechanism on one chip's copy of a tile."""
    return generator(
        seed,
        purpose,
        chip=chip,
        trial=trial,
        layer=tile.layer.index,
        row=tile.slot.row,
        column=tile.slot.column,
        use=use,
    )
