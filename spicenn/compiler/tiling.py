"""Where each weight of a layer sits: rows, tiles and target conductances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.errors import InputError
from spicenn.technology import Technology


@dataclass(frozen=True)
class TileSlot:
    """One tile of a layer: which rows of which group meet which outputs.

    ``row`` and ``column`` number the layer's tiles (groups follow each other along
    rows) and are part of every draw's key. ``rows`` counts bias rows as well.
    """

    row: int
    column: int
    group: int
    rows: slice
    outputs: slice

    @property
    def wordlines(self) -> int:
        return int(self.rows.stop - self.rows.start)

    @property
    def signed_outputs(self) -> int:
        return int(self.outputs.stop - self.outputs.start)


def bias_rows(layer: Layer, mapping: Mapping) -> int:
    """Wordlines that carry the bias: so many that none exceeds the weight range."""
    if layer.bias is None or mapping.bias != "row":
        return 0
    largest = float(np.abs(layer.bias).max(initial=0.0))
    return max(1, math.ceil(largest / (layer.input_scale * layer.weight_scale) - 1e-9))


def tile_slots(layer: Layer, mapping: Mapping, tile: Tile) -> tuple[TileSlot, ...]:
    """Cut a layer into tiles, rows and outputs in order, every tile but the last full.

    Raises InputError where a tile is too narrow for one signed output.
    """
    width = tile.bitlines // (2 * mapping.slices)
    if width == 0:
        raise InputError(
            f"a tile of {tile.bitlines} bitlines cannot hold one signed output of "
            f"{mapping.slices} slices",
            where=layer.name,
            remedy=f"use at least {2 * mapping.slices} bitlines",
        )
    rows = layer.inputs + bias_rows(layer, mapping)
    row_cuts = _cuts(rows, tile.wordlines)
    output_cuts = _cuts(layer.outputs, width)
    return tuple(
        TileSlot(group * len(row_cuts) + r, c, group, row_cut, output_cut)
        for group in range(layer.groups)
        for r, row_cut in enumerate(row_cuts)
        for c, output_cut in enumerate(output_cuts)
    )


def physical_weight(layer: Layer, mapping: Mapping) -> Array:
    """Weights in units of the full range, bias rows below the inputs.

    Returns (group, row, output), magnitudes at most 1 (rounding aside).
    """
    weight = layer.weight.transpose(0, 2, 1) / layer.weight_scale
    count = bias_rows(layer, mapping)
    if count == 0:
        return np.ascontiguousarray(weight)
    assert layer.bias is not None
    share = layer.bias[:, np.newaxis, :] / (count * layer.input_scale * layer.weight_scale)
    return np.concatenate([weight, np.repeat(share, count, axis=1)], axis=1)


def target_conductance(weight: Array, mapping: Mapping, technology: Technology) -> Array:
    """Map weights in [-1, 1] to conductances.

    Parameters
    ----------
    weight : (wordline, output).

    Returns
    -------
    (wordline, bitline) [S], bitline = (output · slices + slice) · 2 + pair. Pair 0
    holds the positive part, pair 1 the negative; slice s weighs 2**(cell_bits · s).
    """
    parts = np.stack([np.maximum(weight, 0.0), np.maximum(-weight, 0.0)], axis=-1)
    levels = mapping.weight_levels
    if levels is None:
        fraction = np.minimum(parts, 1.0)[:, :, np.newaxis, :]
    else:
        assert mapping.cell_bits is not None
        base = 2**mapping.cell_bits
        digits = np.rint(np.minimum(parts, 1.0) * levels).astype(np.int64)
        shifts = base ** np.arange(mapping.slices)
        fraction = (digits[:, :, np.newaxis, :] // shifts[:, np.newaxis] % base) / (base - 1)
    span = technology.g_max - technology.g_min
    g = technology.g_min + span * fraction
    return np.ascontiguousarray(g.reshape(weight.shape[0], -1))


def weight_of_conductance(g: Array, mapping: Mapping, technology: Technology) -> Array:
    """Undo ``target_conductance``: (…, wordline, bitline) [S] to (…, wordline, output)."""
    span = technology.g_max - technology.g_min
    pairs = g.reshape(*g.shape[:-1], -1, mapping.slices, 2)
    difference = (pairs[..., 0] - pairs[..., 1]) / span
    return np.asarray(difference @ slice_weights(mapping))


def slice_weights(mapping: Mapping) -> Array:
    """Weight of each slice's full-range difference in the output; (slice,)."""
    if mapping.weight_levels is None or mapping.cell_bits is None:
        return np.ones(1)
    base = 2.0**mapping.cell_bits
    return (base - 1) * base ** np.arange(mapping.slices) / mapping.weight_levels


def _cuts(count: int, size: int) -> list[slice]:
    edges = [*range(0, count, size), count]
    return [slice(a, b) for a, b in pairwise(edges)]
