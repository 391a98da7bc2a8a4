"""What tiles of ideal cells and wires put out: the yardstick of a layer's converter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from spicenn.compiler.converter import encode
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.tiling import TileSlot, physical_weight, target_conductance, tile_slots
from spicenn.technology import Technology


def ideal_tiles(
    layer: Layer, tile: Tile, mapping: Mapping, technology: Technology
) -> list[tuple[TileSlot, Array]]:
    """Return a layer's tiles and the differences (wordline, output · slice) of their targets.

    Over g_max - g_min.
    """
    weight = physical_weight(layer, mapping)
    span = technology.g_max - technology.g_min
    tiles = []
    for slot in tile_slots(layer, mapping, tile):
        cells = weight[slot.group, slot.rows, slot.outputs]
        g = target_conductance(cells, mapping, technology)
        tiles.append((slot, (g[:, 0::2] - g[:, 1::2]) / span))
    return tiles


def ideal_differences(
    x: Array,
    layer: Layer,
    tiles: Sequence[tuple[TileSlot, Array]],
    mapping: Mapping,
    technology: Technology,
) -> Iterator[Array]:
    """Yield every tile's differential currents over v_read (g_max - g_min).

    Parameters
    ----------
    x : (..., group, input) in the model's units.
    tiles : as ``ideal_tiles`` returns them.

    Yields
    ------
    (..., pulse, output · slice), as ``converter.combine`` takes it.
    """
    drives = [encode(x[..., g, :], layer, mapping, technology) for g in range(layer.groups)]
    for slot, difference in tiles:
        fraction = drives[slot.group].fraction[..., slot.rows]
        yield np.moveaxis(fraction @ difference, 0, -2)
