"""One tile drawn as what it is: wordlines, bitlines, a cell at every crossing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.compiler.execute import run_chips
from spicenn.compiler.placement import PlacedTile, sample_tile
from spicenn.engines.laws import law_of
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import EngineError
from spicenn.kirchhoff import crossbar_currents
from spicenn.report.numbers import Array
from spicenn.report.style import INK, MINUS, MUTED, PLUS, bare, new_figure
from spicenn.technology.variation import Cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Cells of a drawing that can still be told apart.
_WORDLINES, _BITLINES = 36, 44
_WIRE = "#c3ccd4"


@dataclass(frozen=True, eq=False)
class TileView:
    """One chip's tile while it reads one sample.

    g : (wordline, bitline) [S].
    v : (wordline,) [V], None where the cells' law is not known here.
    lost : (wordline, bitline) [V], what the wires take from each cell's voltage.
    current : (bitline,) [A].
    """

    tile: PlacedTile
    chip: int
    g: Array
    v: Array | None
    lost: Array | None
    current: Array | None


def view(
    design: Design, chip: int, seed: int, inputs: tuple[NDArray[Any], ...], tile: PlacedTile
) -> TileView:
    """Solve one tile of a chip at the first sample of the inputs."""
    cells = sample_tile(design, tile, chip, seed)
    g = cells.g
    seen: list[tuple[Array, Array]] = []

    def observe(at: PlacedTile, _: Cells, v: Array, current: Array) -> None:
        if at.name == tile.name and not seen:
            seen.append((v, current))

    try:
        first = tuple(array[:1] for array in inputs)
        run_chips(design, [chip], seed, first, NodalEngine(), observer=observe)
    except EngineError:  # the cell's law is not known; its conductances can still be drawn
        return TileView(tile, chip, g, None, None, None)
    # Of several positions and pulses the first that drives anything.
    v = seen[0][0].reshape(-1, g.shape[0])
    current = seen[0][1].reshape(-1, g.shape[1])
    at = int(np.argmax(np.abs(v).sum(axis=1) > 0))
    r_wordline, r_bitline = tile.crossbar.segments()
    solved = crossbar_currents(
        g, v[at], r_wordline=r_wordline, r_bitline=r_bitline,
        law=law_of(tile.crossbar.cell, tile.name, tile.crossbar.temperature),
        parameters=cells.parameters, details=True,
    )  # fmt: skip
    lost = v[at][:, np.newaxis] - (solved.wordline_voltage - solved.bitline_voltage)
    return TileView(tile, chip, g, v[at], np.abs(lost), current[at])


def drawn_tile(design: Design) -> PlacedTile:
    """The largest tile whose cells can be told apart, or else the smallest."""
    fitting = [
        tile
        for tile in design.tiles
        if tile.crossbar.wordlines <= _WORDLINES and tile.crossbar.bitlines <= _BITLINES
    ]
    if fitting:
        return max(fitting, key=lambda tile: tile.g_target.size)
    return min(design.tiles, key=lambda tile: tile.g_target.size)


def tile_figure(seen: TileView, g_max: float) -> Figure:
    """The array with its cells, and the voltage that its wires take."""
    rows = min(seen.g.shape[0], _WORDLINES)
    figure = new_figure(10.4, 1.35 + 4.1 * max(0.6, min(1.25, rows / 20)))
    ratios = [1.55, 1] if seen.lost is not None else [1.0]
    axes = figure.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
    _draw_cells(axes[0], seen, g_max)
    if seen.lost is not None:
        _draw_drop(figure, axes[1], seen.lost)
    return figure


def _draw_cells(axes: Axes, seen: TileView, g_max: float) -> None:
    wordlines, bitlines = seen.g.shape
    rows, columns = min(wordlines, _WORDLINES), min(bitlines, _BITLINES)
    columns -= columns % 2
    bare(axes)
    y, x = np.arange(rows), np.arange(columns) + 0.55 * (np.arange(columns) // 2)
    axes.hlines(y, -1.6, x[-1] + 0.7, color=_WIRE, linewidth=0.9, zorder=1)
    axes.vlines(x, -0.7, rows - 0.1, color=_WIRE, linewidth=0.9, zorder=1)
    area = np.clip(seen.g[:rows, :columns] / g_max, 0.0, 1.3)
    # Points squared: the largest cell nearly touches its neighbours.
    pitch = min(250 / (rows + 7), 400 / (1.28 * columns + 6))
    size = 0.8 * pitch**2
    for pair, colour in ((0, PLUS), (1, MINUS)):
        at_x, at_y = np.meshgrid(x[pair::2], y)
        axes.scatter(
            at_x.ravel(), at_y.ravel(), s=size * area[:, pair::2].ravel() + 0.4, color=colour,
            linewidths=0, zorder=3,
        )  # fmt: skip
    if seen.v is not None:
        _draw_drives(axes, seen.v[:rows], float(np.abs(seen.v).max()))
    if seen.current is not None:
        _draw_currents(axes, seen.current[:columns], x, rows)
    axes.text(
        -4.6 if seen.v is not None else -1.6, -1.7, "wordline voltages", color=MUTED, ha="left"
    )
    axes.set(xlim=(-4.8, x[-1] + 1.2), ylim=(rows + 4.4, -2.4))
    cut = "" if (rows, columns) == seen.g.shape else f", the first {rows} × {columns} cells"
    axes.set_title(
        f"{seen.tile.name} on chip {seen.chip}: {wordlines} wordlines × {bitlines} bitlines{cut}"
    )


def _draw_drives(axes: Axes, v: Array, top: float) -> None:
    length = 2.4 * v / (top or 1.0)
    colours = [PLUS if value >= 0 else MINUS for value in v]
    axes.barh(np.arange(v.size), np.abs(length), left=-4.4, height=0.5, color=colours, zorder=2)
    axes.text(-4.4, v.size + 0.1, f"up to\n{1e3 * top:.0f} mV", color=MUTED, va="top", fontsize=7.5)


def _draw_currents(axes: Axes, current: Array, x: Array, rows: int) -> None:
    """One bar per pair: the difference that the converter reads."""
    difference = current[0::2] - current[1::2]
    top = float(np.abs(difference).max()) or 1.0
    middle = (x[0::2] + x[1::2]) / 2
    zero = rows + 1.55
    axes.hlines(zero, x[0] - 0.4, x[-1] + 0.4, color=MUTED, linewidth=0.6)
    axes.bar(
        middle, -1.35 * difference / top, bottom=zero, width=0.9, zorder=2,
        color=[PLUS if value >= 0 else MINUS for value in difference],
    )  # fmt: skip
    for output, at in enumerate(middle):
        axes.text(at, rows + 3.3, str(output), ha="center", va="top", fontsize=7.5, color=MUTED)
    axes.text(x[0] - 1.0, rows + 3.3, "output", ha="right", va="top", fontsize=7.5, color=MUTED)
    axes.text(
        x[-1] + 0.4, rows + 4.35, f"difference of each pair, up to {1e6 * top:.1f} µA", ha="right",
        va="top", fontsize=7.5, color=INK,
    )  # fmt: skip


def _draw_drop(figure: Figure, axes: Axes, lost: Array) -> None:
    image = axes.imshow(1e3 * lost, cmap="YlOrBr", aspect="auto", interpolation="nearest", vmin=0)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.set_title("mV", fontsize=8, fontweight="normal", color=MUTED, loc="center")
    axes.set(xlabel="bitline", ylabel="wordline")
    axes.locator_params(integer=True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("Voltage that the wires take from each cell")
