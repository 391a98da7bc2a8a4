"""A co-simulation as a picture: analog traces and events on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit.names import near
from spicenn.cosim.reading import Array, Happenings, happenings_of, traces_of
from spicenn.errors import InputError
from spicenn.report.quantity import PREFIXES, prefix_of
from spicenn.report.style import INK, MINUS, MUTED, PALE, PLUS, grid, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Lines that can be told apart in one panel, and panels that fit on a screen.
_LINES = 6
_PANELS = 6
_COLOURS = (PLUS, MINUS, "#3f8f6b", "#8a5a9e", "#b98a1d", INK)
# Rows of events that have a name beside them, and the height of each [inch].
_NAMED_ROWS = 40
_ROW = 0.21
# Points of a trace that a picture can show.
_POINTS = 4000
_KINDS = {
    "drive": ("driven", PLUS),
    "crossing": ("crossed a threshold", MINUS),
    "emit": ("emitted", INK),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Panel:
    """Lines of one unit that share a panel: label, time [s], values."""

    unit: str
    lines: Sequence[tuple[str, Array, Array]]


def cosim_figure(ds: xr.Dataset, probes: Sequence[str] | None = None) -> Figure:
    """Traces by block and unit above a raster of the events, one row per kind and name.

    Parameters
    ----------
    ds : record of a co-simulation.
    probes : names of those to be drawn, as in the record; the first 36 if None.

    Raises InputError for a probe that the record has not.
    """
    known = [traces.full(probe) for traces in traces_of(ds) for probe in traces.values]
    for probe in probes or ():
        if probe not in known:
            raise InputError(f"there is no probe {probe!r} in the record{near(probe, known)}")
    panels, left_out = _panels(ds, probes)
    rows = happenings_of(ds)
    height = min(max(len(rows), 2), _NAMED_ROWS) * _ROW + 0.5
    heights = [1.7] * len(panels) + [height]
    figure = new_figure(10.4, sum(heights) + 0.7)
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    end = max(float(ds.attrs["now"]), *(float(t.time.max(initial=0.0)) for t in traces_of(ds)))
    prefix = prefix_of(end)
    scale = PREFIXES[prefix]
    for at, panel in zip(axes[:-1], panels, strict=True):
        _draw_panel(at, panel, scale)
    _draw_events(axes[-1], rows, scale)
    axes[-1].set_xlabel(f"time, {prefix}s")
    # Marks at both ends are to be seen whole.
    axes[0].set_xlim(-0.004 * (end or 1.0) / scale, 1.004 * (end or 1.0) / scale)
    if left_out:
        figure.supxlabel(f"{left_out} more probes are in the record", color=MUTED, fontsize=8)
    figure.align_ylabels(list(axes))
    return figure


def _panels(ds: xr.Dataset, probes: Sequence[str] | None) -> tuple[list[_Panel], int]:
    """Panels to be drawn, and how many probes are left out."""
    panels: list[_Panel] = []
    left_out = 0
    for traces in traces_of(ds):
        for unit in ("V", "A"):
            lines = [
                (traces.full(probe), traces.time, values)
                for probe, values in traces.values.items()
                if traces.units[probe] == unit and (probes is None or traces.full(probe) in probes)
            ]
            for first in range(0, len(lines), _LINES):
                some = lines[first : first + _LINES]
                if probes is None and len(panels) == _PANELS:
                    left_out += len(some)
                else:
                    panels.append(_Panel(unit=unit, lines=some))
    return panels, left_out


def _draw_panel(axes: Axes, panel: _Panel, scale: float) -> None:
    top = max(float(np.abs(values).max(initial=0.0)) for _, _, values in panel.lines)
    prefix = prefix_of(2 * top)  # 0.9 V rather than 900 mV
    for colour, (name, time, values) in zip(_COLOURS, panel.lines, strict=False):
        kept = _thinned(values)
        axes.plot(
            time[kept] / scale, values[kept] / PREFIXES[prefix], color=colour, linewidth=1.1,
            # matplotlib leaves out what begins with an underscore.
            label=f"\u2009{name}" if name.startswith("_") else name,
        )  # fmt: skip
    axes.set_ylabel(f"{prefix}{panel.unit}")
    grid(axes, "both")
    axes.legend(
        loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0.0, handlelength=1.2,
        fontsize=8,
    )  # fmt: skip


def _draw_events(axes: Axes, rows: Sequence[Happenings], scale: float) -> None:
    seen = set()
    size = 60.0 if len(rows) <= _NAMED_ROWS else max(60.0 * _NAMED_ROWS / len(rows), 2.0)
    for k, row in enumerate(rows):
        label, colour = _KINDS[row.kind]
        axes.scatter(
            row.time / scale, np.full(row.time.size, k), s=size, marker="|", color=colour,
            linewidths=1.0, label=None if row.kind in seen else label,
        )  # fmt: skip
        seen.add(row.kind)
    named = range(0, len(rows), -(-len(rows) // _NAMED_ROWS) or 1)
    axes.set_yticks(list(named), [rows[k].name[:32] for k in named])
    axes.tick_params(axis="y", length=0, colors=INK)
    axes.set_ylim(max(len(rows), 2) - 0.4, -0.6)
    axes.grid(axis="x", color=PALE, linewidth=0.4, alpha=0.6)
    axes.set_axisbelow(True)
    if seen:
        axes.legend(
            loc="upper left", bbox_to_anchor=(1.005, 1.02), borderaxespad=0.0, handlelength=0.8,
            fontsize=8,
        )  # fmt: skip
    else:
        axes.text(0.5, 0.5, "no events", transform=axes.transAxes, ha="center", color=MUTED)


def _thinned(values: Array) -> NDArray[np.int64]:
    """Indices to be drawn: all of few, else the lowest and the highest of each stretch."""
    if values.size <= 2 * _POINTS:
        return np.arange(values.size, dtype=np.int64)
    edges = np.linspace(0, values.size, _POINTS + 1).astype(np.int64)
    kept = {0, values.size - 1}
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = values[first:last]
        kept |= {first + int(part.argmin()), first + int(part.argmax())}
    return np.array(sorted(kept), dtype=np.int64)
