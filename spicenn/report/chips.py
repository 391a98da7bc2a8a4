"""Figures of the population: every chip's score, and the samples that chips disagree on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from spicenn.errors import Status
from spicenn.report.numbers import Numbers, Point
from spicenn.report.style import (
    FAINT,
    INK,
    MINUS,
    MUTED,
    PALE,
    PLUS,
    bare,
    grid,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spicenn.report.numbers import Array

LABELS = {
    "accuracy": "accuracy",
    "agreement": "agreement with the ideal network",
    "error": "rms error over full scale",
}


def percent(value: float, digits: int = 1) -> str:
    """Return a share as people read it."""
    return f"{100 * value:.{digits}f} %" if np.isfinite(value) else "–"


def scores_figure(numbers: Numbers) -> Figure:
    """Score of every chip: sorted where there is one condition, side by side in a sweep."""
    return _sorted(numbers) if len(numbers.points) == 1 else _swept(numbers)


def _sorted(numbers: Numbers) -> Figure:
    point = numbers.points[0]
    figure = new_figure(10.4, 3.7)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3.4, 1])
    score = 100 * point.score
    order = np.argsort(np.nan_to_num(score, nan=np.inf), kind="stable")
    order = order[~np.isnan(score[order])]
    if not numbers.higher_is_better:
        order = order[::-1]
    rank = np.arange(1, order.size + 1)
    low, high = _limits(numbers)
    span = high - low
    left.axhline(100 * numbers.ideal, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    left.vlines(rank, score[order], 100 * numbers.ideal, color=PALE, linewidth=0.8)
    left.scatter(rank, score[order], s=22, color=PLUS, linewidths=0, zorder=3)
    worst = numbers.worst(point)
    if worst is not None:
        left.scatter(rank[:1], score[[worst]], s=34, color=MINUS, linewidths=0, zorder=4)
        left.annotate(
            f"chip {numbers.chips[worst]}, the worst: {score[worst]:.1f} %",
            (rank[0], score[worst]),
            xytext=(4, -12),
            textcoords="offset points",
            va="center",
            color=MINUS,
            fontweight="bold",
        )
    failed = int(np.count_nonzero(point.status > Status.OK))
    if failed:
        at = order.size + 1 + np.arange(failed)
        left.scatter(at, np.full(failed, low + 0.04 * span), marker="x", s=20, color=MINUS)
        left.annotate(
            "failed",
            (at.mean(), low + 0.04 * span),
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            color=MINUS,
        )
    left.set(xlim=(0, order.size + failed + 1), ylim=(low, high))
    left.set_xlabel("chips, worst first")
    left.set_title(f"{LABELS[numbers.kind].capitalize()} of every chip, %", wrap=False)
    left.annotate(
        f"ideal network {100 * numbers.ideal:.1f} %",
        (0.4, 100 * numbers.ideal),
        xytext=(0, 4),
        textcoords="offset points",
        ha="left",
        color=INK,
    )
    grid(left)
    samples = len(numbers.ideal_outputs) * numbers.outputs.shape[1]
    quantum = None if numbers.kind == "error" else 100 / samples
    _histogram(right, point, score[order], (low, high), quantum)
    return figure


def _bins(limits: tuple[float, float], quantum: float | None) -> Array:
    """At most about 24 bins; values that come in steps share no bin unevenly."""
    low, high = limits
    if quantum is None:
        return np.linspace(low, high, 25)
    width = quantum * np.ceil((high - low) / (24 * quantum))
    first = np.floor(low / width) * width - quantum / 2
    return np.arange(first, high + width, width)


def _histogram(
    axes: Axes, point: Point, score: Array, limits: tuple[float, float], quantum: float | None
) -> None:
    edges = _bins(limits, quantum)
    counts, _ = np.histogram(score, bins=edges)
    axes.barh(edges[:-1], counts, height=np.diff(edges) * 0.86, align="edge", color=PALE)
    top = max(1, counts.max(initial=0))
    for x, text, interval, colour in (
        (1.18 * top, "median", point.median, INK),
        (1.5 * top, "5 %", point.tail, MINUS),
    ):
        if not np.isfinite(interval.estimate):
            continue
        low, high = np.clip([100 * interval.low, 100 * interval.high], *limits)
        axes.plot([x, x], [low, high], color=colour, linewidth=1.4, solid_capstyle="butt")
        axes.scatter([x], [100 * interval.estimate], s=22, color=colour, zorder=3, linewidths=0)
        axes.annotate(
            text, (x, low), xytext=(0, -4), textcoords="offset points", ha="center", va="top",
            color=colour,
        )  # fmt: skip
    axes.set(xlim=(0, 1.75 * top), xlabel="number of chips")
    axes.set_title("Distribution, 95 % intervals")
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([0, top])
    axes.spines["left"].set_color(FAINT)
    grid(axes)


def _limits(numbers: Numbers) -> tuple[float, float]:
    values = [100 * numbers.ideal]
    for point in numbers.points:
        values += list(100 * point.score[~np.isnan(point.score)])
    low, high = min(values), max(values)
    pad = max(0.16 * (high - low), 0.4)
    if numbers.kind == "error":
        return 0.0, high + pad
    return max(0.0, low - 1.3 * pad), min(101.0, high + pad)


def _swept(numbers: Numbers) -> Figure:
    points = numbers.points
    figure = new_figure(10.4, 3.9)
    axes = figure.subplots()
    low, high = _limits(numbers)
    axes.axhline(100 * numbers.ideal, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    for at, point in enumerate(points):
        score = 100 * point.score[~np.isnan(point.score)]
        # Spread evenly by rank: no random jitter, and equal values stay apart.
        place = np.linspace(-0.24, 0.24, score.size) if score.size > 1 else np.zeros(score.size)
        axes.scatter(at + place, np.sort(score), s=14, color=PLUS, linewidths=0, zorder=2)
        for interval, colour in ((point.median, INK), (point.tail, MINUS)):
            if np.isfinite(interval.estimate):
                ends = np.clip([100 * interval.low, 100 * interval.high], low, high)
                axes.plot([at + 0.34] * 2, ends, color=colour, linewidth=1.4)
                axes.scatter(
                    [at + 0.34], [100 * interval.estimate], s=20, color=colour, linewidths=0,
                    zorder=3,
                )  # fmt: skip
        if point.failed:
            axes.annotate(
                f"{point.failed} failed", (at, low), xytext=(0, 5), textcoords="offset points",
                ha="center", color=MINUS,
            )  # fmt: skip
    titles = [point.title.replace(", ", "\n") for point in points]
    axes.set_xticks(range(len(points)), titles, rotation=45 if len(points) > 8 else 0)
    axes.set(xlim=(-0.6, len(points) - 0.4), ylim=(low, high))
    axes.set_title(
        f"{LABELS[numbers.kind].capitalize()}, % — every chip, median (black) and the 5 % "
        "quantile (red) with 95 % intervals"
    )
    grid(axes)
    return figure


def samples_figure(numbers: Numbers, count: int = 8) -> Figure | None:
    """The samples on which chips disagree most, with what they vote for.

    None where inputs are no pictures, outputs no classes, or no chip finished.
    """
    pictures = as_pictures(numbers.inputs)
    good = numbers.points[0].status == Status.OK
    if numbers.kind == "error" or pictures is None or not good.any():
        return None
    votes = numbers.outputs[good].argmax(axis=-1).reshape(-1, len(pictures))
    classes = numbers.outputs.shape[-1]
    share = np.stack([(votes == c).mean(axis=0) for c in range(classes)], axis=-1)
    wanted = numbers.ideal_outputs.argmax(axis=-1) if numbers.labels is None else numbers.labels
    chosen = np.argsort(share.max(axis=-1), kind="stable")[:count]
    figure = new_figure(10.4, 2.75)
    axes = figure.subplots(2, count, height_ratios=[1.25, 1], squeeze=False)
    for column in range(count):
        top, bottom = axes[:, column]
        bare(top)
        bare(bottom)
        if column >= chosen.size:
            continue
        sample = int(chosen[column])
        top.imshow(pictures[sample], cmap="gray_r", interpolation="nearest")
        top.set_title(f"a {wanted[sample]}", loc="center", fontsize=9)
        leading = np.argsort(-share[sample], kind="stable")[:3]
        leading = leading[share[sample][leading] > 0]
        for row, c in enumerate(leading):
            colour = PLUS if c == wanted[sample] else MINUS
            bottom.barh(-row, share[sample, c], height=0.62, color=colour)
            bottom.text(-0.06, -row, str(c), ha="right", va="center", fontweight="bold")
            bottom.text(
                share[sample, c] + 0.05, -row, f"{100 * share[sample, c]:.0f} %",
                va="center", color=MUTED,
            )  # fmt: skip
        bottom.set(xlim=(-0.25, 1.55), ylim=(-2.6, 0.6))
    return figure


def as_pictures(inputs: np.ndarray) -> np.ndarray | None:
    """Inputs as (sample, row, column) where their shape suggests pictures, else None."""
    shape = inputs.shape[1:]
    if len(shape) == 3 and shape[0] == 1:
        inputs, shape = inputs[:, 0], shape[1:]
    if len(shape) == 1:
        side = round(shape[0] ** 0.5)
        if side < 4 or side * side != shape[0]:
            return None
        shape = (side, side)
    if len(shape) != 2 or not 4 <= min(shape) <= max(shape) <= 256:
        return None
    return inputs.reshape(-1, *shape)
