"""What tiles of ideal cells and wires put out: the yardstick of a layer's converter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from spicenn.compiler.converter import encode
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.tiling import TileSlot, physical_weight, target_conductance, tile_slots
from spicenn.technology import Technology


def ideal_differences(
    x: Array, layer: Layer, tile: Tile, mapping: Mapping, technology: Technology
) -> Iterator[tuple[TileSlot, Array]]:
    """Yield every tile's differential currents over v_read (g_max - g_min).

    Parameters
    ----------
    x : (..., group, input) in the model's units.

    Yields
    ------
    The tile and (..., pulse, output · slice), as ``converter.combine`` takes it.
    """
    weight = physical_weight(layer, mapping)
    span = technology.g_max - technology.g_min
    drives = [encode(x[..., g, :], layer, mapping, technology) for g in range(layer.groups)]
    for slot in tile_slots(layer, mapping, tile):
        cells = weight[slot.group, slot.rows, slot.outputs]
        g = target_conductance(cells, mapping, technology)
        difference = (g[:, 0::2] - g[:, 1::2]) / span
        fraction = drives[slot.group].fraction[..., slot.rows]
        yield slot, np.moveaxis(fraction @ difference, 0, -2)
