"""Figures of networks that learn show what they are given, and their fits are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from spicenn.errors import InputError
from spicenn.learning import Task, Trajectory
from spicenn.report.learning import (
    Course,
    Line,
    Loop,
    Points,
    course,
    error_figure,
    plane_figure,
    plane_lines,
    plot_error,
    plot_plane,
    plot_scaling,
    scaling_figure,
)


def _loop() -> Loop:
    angle = np.linspace(0, 2 * np.pi, 40)
    path = np.stack([2.5 + 0.1 * np.cos(angle), 3 + 0.05 * np.sin(angle)], axis=1)
    return Loop(path=path, label="5 ms", ends=path[[0, 20]], theory=path * 1.001)


def _trajectory() -> tuple[Trajectory, Task]:
    task = Task([[1.0], [0.0]], [[0.5], [0.25]])
    examples = np.tile([0, 1], 50)
    # Errors of 0.1/n of the first example and 0.2/n of the second, by slot n.
    error = np.where(examples == 0, 0.1, 0.2) / (1 + np.arange(100))
    outputs = task.labels[examples] + error[:, None]
    found = Trajectory(
        first_slot=0, slot=1e-3, values=np.zeros((101, 2)), examples=examples, outputs=outputs,
        runtime=0.0, engine="test",
    )  # fmt: skip
    return found, task


def _legend(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_a_plane_shows_path_theory_ends_and_lines_within_its_box() -> None:
    loop = _loop()
    line = Line(point=np.array([2.5, 3.0]), direction=np.array([1.0, 1.0]), label="task 0")
    (axes,) = plane_figure([loop], [line], names=("G−", "G+")).axes
    drawn = [np.asarray(each.get_xydata()) for each in axes.lines]
    assert any(np.array_equal(each, loop.path) for each in drawn)
    assert any(np.array_equal(each, np.asarray(loop.theory)) for each in drawn)
    assert any(np.array_equal(each, np.asarray(loop.ends)) for each in drawn)
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    on_line = drawn[0]
    assert np.allclose(on_line[:, 1] - on_line[:, 0], 0.5)
    assert (on_line >= np.array([x0, y0]) - 1e-12).all()
    assert (on_line <= np.array([x1, y1]) + 1e-12).all()
    # It goes from edge to edge of the box.
    assert np.isclose(on_line, [[x0, y0], [x1, y1]]).any(axis=1).all()
    assert len(axes.texts) == 2  # arrows
    assert _legend(axes) == ["task 0", "theory", "5 ms"]


def test_a_line_outside_of_the_box_is_left_out() -> None:
    line = Line(point=np.array([0.0, 30.0]), direction=np.array([1.0, 0.0]))
    with_line, without = (
        len(plane_figure([_loop()], lines).axes[0].lines) for lines in ([line], [])
    )
    assert with_line == without


def test_a_cycle_of_no_size_can_be_drawn() -> None:
    (axes,) = plane_figure([Loop(path=np.full((3, 2), 2.0))]).axes
    assert np.diff(axes.get_xlim())[0] > 0
    assert not axes.texts


def test_a_course_is_the_mean_of_the_latest_slots_of_all_examples() -> None:
    trajectory, task = _trajectory()
    found = course(trajectory, task)
    error = trajectory.squared_error(task)
    assert found.error == pytest.approx((error[1:] + error[:-1]) / 2, rel=1e-12, abs=0)
    assert found.time == pytest.approx(1e-3 * np.arange(2, 101), rel=1e-12, abs=0)
    assert found.parts is not None
    # At the end of an example's own slot it is that slot's error.
    assert found.parts[1][0] == pytest.approx(error[1], rel=1e-12, abs=0)
    assert found.parts[0][1] == pytest.approx(error[2], rel=1e-12, abs=0)


def test_long_runs_are_thinned_and_keep_their_ends() -> None:
    trajectory, task = _trajectory()
    found = course(trajectory, task, points=10)
    whole = course(trajectory, task)
    assert len(found.time) == 10
    assert found.error[[0, -1]].tolist() == whole.error[[0, -1]].tolist()


def test_errors_are_logarithmic_and_zeros_are_gaps() -> None:
    time = np.arange(1.0, 5.0)
    shown = Course(time=time, error=np.array([1.0, 0.1, 0.0, 0.01]), label="a")
    (axes,) = error_figure([shown], logarithmic_time=True).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    drawn = np.asarray(axes.lines[0].get_ydata())
    assert np.isnan(drawn[2])
    assert drawn[[0, 1, 3]].tolist() == [1.0, 0.1, 0.01]


def test_scaling_laws_are_fitted_within_their_range_and_stated() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0, 100.0])
    y = 3 * x**2
    y[-1] = 1.0
    data = [
        Points(x=x, y=y, label="MSE", within=(1, 8), theory=(x, 3 * x**2)),
        Points(x=x, y=y * 1.1, label="lab", kind="lab"),
    ]
    (axes,) = scaling_figure(data).axes
    assert _legend(axes) == ["theory", "MSE: slope 2.000 (2.000 to 2.000)", "lab"]
    assert data[1].law() is None


def test_lines_lie_where_a_task_does_not_pull() -> None:
    pull = np.outer([3.0, 4.0], [3.0, 4.0])
    (line,) = plane_lines([pull], [[1.0, 2.0]], ["task"])
    assert abs(line.direction @ [3.0, 4.0]) < 1e-12
    with pytest.raises(InputError, match="two values"):
        plane_lines(np.eye(3)[None], np.zeros((1, 3)), ["task"])


def test_pictures_are_written_or_refused(tmp_path: Path) -> None:
    trajectory, task = _trajectory()
    plot_plane([_loop()], tmp_path / "plane.png")
    plot_error({"a run": trajectory}, tmp_path / "error.png", task)
    plot_scaling([Points(x=np.array([1.0, 2.0]), y=np.array([1.0, 2.0]))], tmp_path / "s.png")
    for name in ("plane", "error", "s"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="picture"):
        plot_plane([_loop()], tmp_path / "plane.nonsense")
    with pytest.raises(InputError, match="name it"):
        plot_error({"a run": trajectory}, tmp_path / "e.png")
    with pytest.raises(InputError, match="no path"):
        plot_plane([], tmp_path / "e.png")
    with pytest.raises(InputError, match="no error"):
        plot_error([], tmp_path / "e.png")
    with pytest.raises(InputError, match="positive points"):
        plot_scaling([Points(x=np.array([1.0, -2.0]), y=np.array([1.0, 2.0]))], tmp_path / "e.png")
