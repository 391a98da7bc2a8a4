"""Figure of a surrogate against the simulator, on a chip that its fit never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spicenn.report.evidence import Evidence
from spicenn.report.style import INK, MINUS, MUTED, PALE, PLUS, grid, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spicenn.report.numbers import Array

# More dots only make the file larger.
_DOTS = 2000


def surrogate_figure(evidence: Evidence) -> Figure:
    """Outputs against the simulator's, before and after calibration, and the errors."""
    figure = new_figure(10.4, 3.7)
    before, after, bars = figure.subplots(1, 3, width_ratios=[1, 1, 1.05])
    for axes, value, colour, title in (
        (before, evidence.before, MINUS, "Before calibration"),
        (after, evidence.after, PLUS, "After calibration"),
    ):
        _scatter(axes, evidence, value, colour)
        axes.set_title(title)
    before.set_ylabel("surrogate")
    rows = (
        ("ideal network", evidence.error(evidence.ideal), PALE),
        ("surrogate of the population", evidence.error(evidence.before), MINUS),
        (f"calibrated, {evidence.probes} probes", evidence.error(evidence.after), PLUS),
    )
    top = max(error for _, error, _ in rows) or 1.0
    for row, (text, error, colour) in enumerate(rows):
        bars.barh(-row, 100 * error, height=0.42, color=colour)
        bars.text(0, -row + 0.36, text, va="center", color=MUTED)
        bars.text(
            100 * (error + 0.03 * top), -row, f"{100 * error:.2f} %", va="center",
            fontweight="bold", fontsize=11,
        )  # fmt: skip
    bars.set(xlim=(0, 135 * top), ylim=(-2.45, 0.6), yticks=[])
    bars.spines["left"].set_visible(False)
    bars.set_title("Error against the simulator, % of full scale")
    grid(bars, "x")
    return figure


def _scatter(axes: Axes, evidence: Evidence, value: Array, colour: str) -> None:
    truth, guess = evidence.truth.ravel(), value.ravel()
    step = max(1, truth.size // _DOTS)
    both = np.concatenate([evidence.truth.ravel(), evidence.before.ravel(), evidence.after.ravel()])
    low, high = float(np.nanmin(both)), float(np.nanmax(both))
    pad = 0.04 * (high - low or 1.0)
    ends = (low - pad, high + pad)
    axes.plot(ends, ends, color=INK, linewidth=0.7)
    axes.scatter(truth[::step], guess[::step], s=6, color=colour, alpha=0.45, linewidths=0)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"{evidence.engine}")
    grid(axes, "both")
