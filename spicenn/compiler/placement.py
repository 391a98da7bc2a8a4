"""A design's tiles with their names, circuits and targets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from spicenn.circuit import Crossbar, unique_names
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.mapping import Tile
from spicenn.compiler.tiling import TileSlot, physical_weight, target_conductance, tile_slots
from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator
from spicenn.technology import Cell, Technology
from spicenn.technology.variation import Cells, Site, manufactured

if TYPE_CHECKING:
    from spicenn.compiler.design import Design


@dataclass(frozen=True, eq=False)
class PlacedTile:
    """One tile of a design.

    name : safe and unique in the design, "fc1_r0_c0".
    g_target : (wordline, bitline) [S], the nominal corner's.
    site : where it lies on the die: tiles fill a square of equal places row by row.
    """

    name: str
    layer: Layer
    slot: TileSlot
    crossbar: Crossbar
    g_target: Array
    site: Site


def place(design: Design) -> tuple[PlacedTile, ...]:
    """Return every tile of a design, in the order of layers, tile rows and tile columns."""
    technology, mapping = design.technology, design.mapping
    wires = technology.wire_factor
    placed: list[PlacedTile] = []
    safe = unique_names(layer.name for layer in design.layers)
    slots = [tile_slots(layer, mapping, design.tile) for layer in design.layers]
    edge = math.ceil(math.sqrt(sum(map(len, slots))))
    for layer, layer_name, own in zip(design.layers, safe, slots, strict=True):
        weight = physical_weight(layer, mapping)
        for slot in own:
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
                cell=_aged(technology),
                temperature=technology.temperature,
                r_driver=technology.periphery.driver.resistance,
                c_wordline=technology.c_wordline * technology.process.capacitance,
                c_bitline=technology.c_bitline * technology.process.capacitance,
                c_cell=technology.c_cell * technology.process.capacitance,
            )
            site = _site(len(placed), edge, target.shape, design.tile)
            placed.append(PlacedTile(name, layer, slot, crossbar, target, site))
    return tuple(placed)


def _aged(technology: Technology) -> Cell:
    """The cell with the time of the drift that its own subcircuit computes."""
    cell = technology.cell
    if not cell.defaults.keys() >= {"nu", "t", "t0"}:
        return cell
    times = {"t": technology.drift.time, "t0": technology.drift.t0}
    return replace(cell, parameters=tuple(sorted({**dict(cell.parameters), **times}.items())))


def _site(index: int, edge: int, shape: tuple[int, ...], tile: Tile) -> Site:
    """Place of the tile that comes after ``index`` others, its first cell at its corner."""
    row, column = divmod(index, edge)

    def at(place: int, cell: int, cells: int) -> float:
        return (place + (cell + 0.5) / cells) / edge - 0.5

    return Site(
        left=at(column, 0, tile.bitlines),
        right=at(column, shape[1] - 1, tile.bitlines),
        top=at(row, 0, tile.wordlines),
        bottom=at(row, shape[0] - 1, tile.wordlines),
    )


def sample_tile(design: Design, tile: PlacedTile, chip: int, seed: int, *, cycle: int = 0) -> Cells:
    """Draw one chip's copy of a tile.

    Parameters
    ----------
    cycle : how often its cells were programmed before; of the draws only those from
        cycle to cycle change.
    """

    def own(purpose: Purpose) -> np.random.Generator:
        trial = cycle if purpose is Purpose.CYCLE_TO_CYCLE else 0
        return tile_generator(seed, purpose, tile, chip, trial)

    def die(purpose: Purpose) -> np.random.Generator:
        return generator(seed, purpose, chip=chip)

    return manufactured(design.technology, tile.g_target, own, die, tile.site)


def stack_cells(each: Sequence[Cells]) -> Cells:
    """Cells of several copies of one tile, or of tiles of one shape, as one; copy first."""
    return Cells(
        np.stack([cells.g for cells in each]),
        {name: np.stack([cells.parameters[name] for cells in each]) for name in each[0].parameters},
    )


def checked_map(
    tiles: Sequence[PlacedTile], conductances: Mapping[str, ArrayLike]
) -> dict[str, Array]:
    """Return measured conductances of every tile. Raises InputError where they do not fit."""
    names = {tile.name for tile in tiles}
    if unknown := sorted(set(conductances) - names):
        raise InputError(f"no tile is called {unknown[0]!r}", remedy=_listing(names))
    result = {}
    for tile in tiles:
        if tile.name not in conductances:
            raise InputError("its conductances are missing", where=f"tile {tile.name}")
        try:
            g = np.array(conductances[tile.name], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"its conductances are not numbers: {error}", where=f"tile {tile.name}"
            ) from error
        if g.shape != tile.g_target.shape:
            raise InputError(
                f"conductances of shape {g.shape}, expected {tile.g_target.shape}",
                where=f"tile {tile.name}",
            )
        if not (np.isfinite(g).all() and (g >= 0).all()):
            raise InputError("a conductance is negative or not finite", where=f"tile {tile.name}")
        result[tile.name] = g
    return result


def _listing(names: set[str]) -> str:
    shown = sorted(names)
    return "there are " + ", ".join(shown[:8]) + (" …" if len(shown) > 8 else "")


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
