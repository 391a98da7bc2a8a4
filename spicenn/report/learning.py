"""Figures of networks that learn: cycles in the plane of two values, errors, scaling laws.

A panel draws into axes that are given, a figure is one panel by itself (draw both within
``style.drawing``), and a plot is a figure that is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.errors import InputError
from spicenn.learning.scaling import PowerLaw, power_law
from spicenn.report.style import INK, MINUS, MUTED, PALE, PLUS, drawing, grid, new_figure, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from spicenn.learning.task import Task
    from spicenn.learning.trajectory import Trajectory

Array = NDArray[np.float64]

# Told apart by readers who see few colours too, darkest first.
COLOURS = (PLUS, MINUS, "#3f8f6b", "#8a5aa8", "#b08a1e", INK)
# More points along a line only make the file larger.
_POINTS = 1500
_ARROWS = 2
# Logarithmic axes of less than this ratio have more labels than powers of ten.
_CLOSE = 50
# Of a panel's height, for each entry of its legend.
_ENTRY = 0.085


@dataclass(frozen=True, kw_only=True, eq=False)
class Loop:
    """A path in the plane of two values.

    path : (point, 2) as simulated.
    label : what the legend calls it.
    ends : (slot, 2) where slots end, marked; None marks nothing.
    theory : (point, 2) what it is predicted to be; None draws nothing.
    """

    path: Array
    label: str = ""
    ends: Array | None = None
    theory: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """A straight line through the plane, such as all values that solve one task.

    point : (2,) on it.
    direction : (2,) along it.
    """

    point: Array
    direction: Array
    label: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Course:
    """An error as it went.

    time : (point,) [s].
    error : (point,) [V^2].
    parts : (part, point) of every task, drawn faintly behind it; None are not drawn.
    """

    time: Array
    error: Array
    label: str = ""
    parts: Array | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Points:
    """Data on logarithmic axes.

    x, y : (point,) positive.
    fit : whether a straight line is fitted.
    within : least and greatest x of the fit; None fits all points.
    theory : (x, y) of a curve drawn thin beside them.
    kind : ``"data"`` is simulated, ``"lab"`` measured: an open mark without a fit.
    """

    x: Array
    y: Array
    label: str = ""
    fit: bool = True
    within: tuple[float, float] | None = None
    theory: tuple[Array, Array] | None = None
    kind: str = "data"

    def law(self) -> PowerLaw | None:
        """Return the fitted law; None where there is no fit."""
        if not self.fit or self.kind == "lab":
            return None
        x, y = np.asarray(self.x, dtype=np.float64), np.asarray(self.y, dtype=np.float64)
        low, high = self.within or (-np.inf, np.inf)
        chosen = (x >= low) & (x <= high)
        return power_law(x[chosen], y[chosen])


def course(trajectory: Trajectory, task: Task, *, label: str = "", points: int = _POINTS) -> Course:
    """Return the errors at the ends of slots: of every example shown, and their mean.

    The mean is over as many slots as the task has examples, of the network as it learns: each
    example is judged at the end of its own slot.
    """
    error = trajectory.squared_error(task)
    time = trajectory.time[1:]
    size = min(len(task), len(error))
    mean = np.convolve(error, np.full(size, 1 / size), mode="valid")
    at = time[size - 1 :]
    parts = np.full((len(task), len(mean)), np.nan)
    for n in range(len(task)):
        shown = np.flatnonzero(trajectory.examples == n)
        if shown.size:
            parts[n] = np.interp(at, time[shown], error[shown])
    keep = _few(len(mean), points)
    return Course(time=at[keep], error=mean[keep], label=label, parts=parts[:, keep])


def plane_panel(
    axes: Axes,
    loops: Sequence[Loop],
    lines: Sequence[Line] = (),
    *,
    names: tuple[str, str] = ("first value [V]", "second value [V]"),
    title: str = "",
) -> None:
    """Draw paths with arrows over the theory's, and lines clipped to where the paths are.

    Raises InputError for no loop, or a path that is not (point, 2).
    """
    if not loops:
        raise InputError("no path to draw", where="plane_panel")
    parts = []
    for loop in loops:
        for path in (loop.path, loop.theory, loop.ends):
            if path is not None:
                found = np.asarray(path, dtype=np.float64)
                if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
                    raise InputError(
                        f"a path of shape {found.shape} is not finite and (point, 2)",
                        where="plane_panel",
                    )
                parts.append(found)
    every = np.concatenate(parts)
    low, high = every.min(axis=0), every.max(axis=0)
    # A path along one axis has no width in the other.
    pad = 0.08 * np.maximum(high - low, 0.25 * max(float((high - low).max()), 1e-12))
    low, high = low - pad, high + pad
    for number, line in enumerate(lines):
        ends = _clipped(line, low, high)
        style = ("dotted", "dashdot", "dashed", (0, (6, 2, 1, 2, 1, 2)))[number % 4]
        if ends is not None:
            axes.plot(
                *ends.T, color=MUTED, linewidth=1.0, linestyle=style, label=line.label, zorder=1
            )  # fmt: skip
    theory = "theory"
    for number, loop in enumerate(loops):
        colour = COLOURS[number % len(COLOURS)]
        if loop.theory is not None:
            # Wide and pale, and the circuit thin upon it: where they agree both are seen.
            axes.plot(
                *np.asarray(loop.theory).T, color=_paler(colour), linewidth=4.5, zorder=2,
                label=theory, solid_capstyle="round",
            )  # fmt: skip
            theory = ""
        path = np.asarray(loop.path)
        axes.plot(*path.T, color=colour, linewidth=1.1, label=loop.label, zorder=3)
        _arrows(axes, path, colour, float((high - low).max()))
        if loop.ends is not None:
            axes.plot(*np.asarray(loop.ends).T, "o", color=colour, markersize=3.5, zorder=5)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel=names[0], ylabel=names[1])
    if title:
        axes.set_title(title)
    grid(axes, "both")
    labels = [each.label for each in loops] + [each.label for each in lines]
    if any(labels) or theory == "":
        axes.legend()


def error_panel(
    axes: Axes,
    courses: Sequence[Course],
    *,
    unit: str = "mean squared error [V²]",
    logarithmic_time: bool = False,
    title: str = "",
) -> None:
    """Draw errors against time on a logarithmic axis. Raises InputError for none."""
    if not courses:
        raise InputError("no error to draw", where="error_panel")
    for number, each in enumerate(courses):
        colour = COLOURS[number % len(COLOURS)]
        for n, part in enumerate(() if each.parts is None else each.parts):
            axes.plot(
                each.time, _positive(part), color=_paler(colour), linewidth=0.8, zorder=1,
                label="of each example" if number == n == 0 else "",
            )  # fmt: skip
        axes.plot(
            each.time, _positive(each.error), color=colour, linewidth=1.3, label=each.label,
            zorder=2,
        )  # fmt: skip
    axes.set_yscale("log")
    if logarithmic_time:
        axes.set_xscale("log")
    _plain(axes)
    axes.set(xlabel="time [s]", ylabel=unit)
    if title:
        axes.set_title(title)
    grid(axes, "both")
    if any(each.label or each.parts is not None for each in courses):
        axes.legend()


def scaling_panel(
    axes: Axes,
    data: Sequence[Points],
    *,
    names: tuple[str, str] = ("", ""),
    title: str = "",
) -> None:
    """Draw points on logarithmic axes, their fitted laws with intervals in the legend.

    Raises InputError for no points, or where a law cannot be fitted.
    """
    if not data:
        raise InputError("no points to draw", where="scaling_panel")
    number = 0
    theory = "theory"
    for each in data:
        lab = each.kind == "lab"
        colour = INK if lab else COLOURS[number % len(COLOURS)]
        number += not lab
        law = each.law()
        text = each.label if law is None else f"{each.label}: slope {law}".lstrip(": ")
        if each.theory is not None:
            axes.plot(*each.theory, color=_paler(colour), linewidth=4.5, zorder=1, label=theory)
            theory = ""
        if law is not None:
            low, high = each.within or (float(np.min(each.x)), float(np.max(each.x)))
            ends = np.array([max(low, float(np.min(each.x))), min(high, float(np.max(each.x)))])
            axes.plot(ends, law(ends), color=colour, linewidth=0.9, zorder=2)
        axes.plot(
            each.x, each.y, "s" if lab else "o", color=colour, markersize=5.5 if lab else 4,
            markerfacecolor="none" if lab else colour, label=text, zorder=3,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel=names[0], ylabel=names[1])
    handles = [text for text in axes.get_legend_handles_labels()[1] if text]
    if handles:
        # Above the data, whatever they look like.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** (_ENTRY * len(handles)))
        first = np.asarray(data[0].y)
        axes.legend(loc="upper left" if first[-1] >= first[0] else "upper right")
    _plain(axes)
    if title:
        axes.set_title(title)
    grid(axes, "both")


def plane_figure(
    loops: Sequence[Loop],
    lines: Sequence[Line] = (),
    *,
    names: tuple[str, str] = ("first value [V]", "second value [V]"),
    title: str = "",
) -> Figure:
    """Return ``plane_panel`` by itself."""
    figure = new_figure(4.6, 4.2)
    plane_panel(figure.subplots(), loops, lines, names=names, title=title)
    return figure


def error_figure(
    courses: Sequence[Course],
    *,
    unit: str = "mean squared error [V²]",
    logarithmic_time: bool = False,
    title: str = "",
) -> Figure:
    """Return ``error_panel`` by itself."""
    figure = new_figure(5.2, 3.4)
    error_panel(
        figure.subplots(), courses, unit=unit, logarithmic_time=logarithmic_time, title=title
    )
    return figure


def scaling_figure(
    data: Sequence[Points], *, names: tuple[str, str] = ("", ""), title: str = ""
) -> Figure:
    """Return ``scaling_panel`` by itself."""
    figure = new_figure(5.0, 3.8)
    scaling_panel(figure.subplots(), data, names=names, title=title)
    return figure


def plot_plane(
    loops: Sequence[Loop],
    path: Path,
    lines: Sequence[Line] = (),
    *,
    names: tuple[str, str] = ("first value [V]", "second value [V]"),
    title: str = "",
) -> None:
    """Write ``plane_figure`` as a picture; the suffix says which kind. Raises InputError."""
    _written(lambda: plane_figure(loops, lines, names=names, title=title), path)


def plot_error(
    runs: Mapping[str, Trajectory] | Sequence[Course],
    path: Path,
    task: Task | None = None,
    *,
    unit: str = "mean squared error [V²]",
    logarithmic_time: bool = False,
    title: str = "",
) -> None:
    """Write ``error_figure`` of trajectories by their names, or of courses, as a picture.

    task : that the trajectories learnt; courses need none.

    Raises InputError where there is none, or the picture cannot be written.
    """
    if isinstance(runs, Mapping):
        if task is None:
            raise InputError("trajectories' errors are of a task: name it", where="plot_error")
        courses = [course(run, task, label=name) for name, run in runs.items()]
    else:
        courses = list(runs)
    _written(
        lambda: error_figure(
            courses, unit=unit, logarithmic_time=logarithmic_time, title=title
        ), path,
    )  # fmt: skip


def plot_scaling(
    data: Sequence[Points],
    path: Path,
    *,
    names: tuple[str, str] = ("", ""),
    title: str = "",
) -> None:
    """Write ``scaling_figure`` as a picture; the suffix says which kind. Raises InputError."""
    _written(lambda: scaling_figure(data, names=names, title=title), path)


def plane_lines(matrices: ArrayLike, points: ArrayLike, labels: Sequence[str]) -> list[Line]:
    """Return the values that solve each of several tasks, of two values and one line each.

    Parameters
    ----------
    matrices : (task, 2, 2) how each task pulls values back to its solutions.
    points : (task, 2) a solution of each.

    The direction is that in which a matrix pulls least. Raises InputError for other shapes.
    """
    pulls, at = np.asarray(matrices, dtype=np.float64), np.asarray(points, dtype=np.float64)
    if pulls.shape[1:] != (2, 2) or at.shape != (len(pulls), 2) or len(labels) != len(pulls):
        raise InputError(
            f"matrices of shape {pulls.shape} and points of shape {at.shape} are not of "
            f"{len(labels)} tasks and two values", where="plane_lines",
        )  # fmt: skip
    along = np.linalg.svd(pulls)[2][:, -1]
    return [
        Line(point=point, direction=direction, label=label)
        for point, direction, label in zip(at, along, labels, strict=True)
    ]


def _written(figure: Callable[[], Figure], path: Path) -> None:
    try:
        with drawing():
            save(figure(), path)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the picture cannot be written: {error}", where=str(path)) from error


def _few(size: int, points: int) -> NDArray[np.int64]:
    """Numbers of so many of all, the first and the last among them."""
    return np.unique(np.linspace(0, size - 1, min(size, points)).round().astype(np.int64))


def _positive(values: Array) -> Array:
    """What a logarithmic axis can show."""
    return np.where(np.asarray(values) > 0, values, np.nan)


def _plain(axes: Axes) -> None:
    """Label logarithmic axes with plain numbers: the style's text knows no mathematics."""
    from matplotlib.ticker import LogLocator, NullLocator

    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            low, high = axis.get_view_interval()
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("")
            # Within a decade or so there may be no power of ten.
            if high < _CLOSE * low:
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_minor_locator(NullLocator())


def _paler(colour: str) -> str:
    """Mix a colour with white."""
    if colour == PLUS:
        return PALE
    parts = [int(colour[k : k + 2], 16) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(0.4 * part + 0.6 * 255):02x}" for part in parts)


def _clipped(line: Line, low: Array, high: Array) -> Array | None:
    """(2, 2) ends of a line within a box; None where it misses it."""
    point, direction = (np.asarray(v, dtype=np.float64) for v in (line.point, line.direction))
    first, last = -np.inf, np.inf
    for k in range(2):
        if direction[k] == 0:
            if not low[k] <= point[k] <= high[k]:
                return None
            continue
        a, b = sorted(((low[k] - point[k]) / direction[k], (high[k] - point[k]) / direction[k]))
        first, last = max(first, a), min(last, b)
    if not (np.isfinite([first, last]).all() and first < last):
        return None
    return np.stack([point + first * direction, point + last * direction])


def _arrows(axes: Axes, path: Array, colour: str, size: float) -> None:
    """Arrows along a path, at equal lengths of way."""
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    if not way[-1] > 0.02 * size:
        return
    for n in range(_ARROWS):
        at = (n + 0.5) / _ARROWS * way[-1]
        tail, tip = (
            [float(np.interp(at + side * 0.004 * size, way, path[:, k])) for k in range(2)]
            for side in (-1, 1)
        )
        axes.annotate(
            "", xy=(tip[0], tip[1]), xytext=(tail[0], tail[1]), zorder=4,
            arrowprops={"arrowstyle": "-|>", "color": colour, "mutation_scale": 13},
        )  # fmt: skip
