"""Pictures of a run of chips that learnt: errors against time, the cycle over its theory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spicenn.errors import ConvergenceError
from spicenn.learning.linear import has_linear_law, predict_cycle
from spicenn.learning.record import value_names
from spicenn.learning.run import last_period
from spicenn.report.learning import Loop, course, plane_lines, plot_error, plot_plane

if TYPE_CHECKING:
    from spicenn.learning.plan import Plan
    from spicenn.learning.trajectory import Trajectory

# A legend with more chips says nothing.
_CHIPS = 6


def draw_run(plan: Plan, runs: Mapping[int, Trajectory], folder: Path) -> list[Path]:
    """Write ``error.png``, and ``plane.png`` of the first chip where it has two values.

    Parameters
    ----------
    runs : trajectories of chips by their index; at most six are drawn.

    Returns the paths of what was written, nothing without a trajectory. Raises InputError
    where one cannot be, and as ``last_period`` does.
    """
    shown = {chip: run for chip, run in list(runs.items())[:_CHIPS] if len(run.examples)}
    if not shown:
        return []
    courses = [
        course(plan.judged(run), plan.task, label=f"chip {chip}") for chip, run in shown.items()
    ]
    if len(courses) > 1:  # parts of several would cover each other
        courses = [
            type(each)(time=each.time, error=each.error, label=each.label) for each in courses
        ]
    written = [folder / "error.png"]
    plot_error(courses, written[0])
    if len(plan.network.learning) == 2:
        written.append(folder / "plane.png")
        _plane(plan, *next(iter(shown.items())), written[1])
    return written


def _plane(plan: Plan, index: int, run: Trajectory, path: Path) -> None:
    """The last period in the plane of two values, over what the linear theory says of it."""
    size = len(plan.task)
    first, second = value_names(plan.network)
    names = (f"{first} [V]", f"{second} [V]")
    if plan.order != "cyclic" or len(run.examples) < size:
        plot_plane([Loop(path=run.values, label=f"chip {index}")], path, names=names)
        return
    period = last_period(plan, index, run)
    theory, lines = None, []
    if has_linear_law(plan.rule):
        try:
            chip = plan.chip(index)
            cycle = predict_cycle(
                chip, plan.task, plan.rule, plan.schedule, np.asarray(period.mean(axis=0))
            )
            law = cycle.linearisation
            theory = cycle.path()
            lines = plane_lines(
                law.pull, law.solutions, [f"example {n} is solved" for n in range(size)]
            )
        except ConvergenceError:
            theory = None  # of a cycle too wide for it
    loop = Loop(
        path=period, ends=run.values[-size - 1 :], theory=theory,
        label=f"chip {index}, last period by {plan.run.by}",
    )  # fmt: skip
    plot_plane([loop], path, lines, names=names)
