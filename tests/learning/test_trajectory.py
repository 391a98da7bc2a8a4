"""Trajectories: times, errors, parts that follow each other, files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spicenn.errors import InputError
from spicenn.learning.task import Task
from spicenn.learning.trajectory import Abort, Trajectory, joined

TASK = Task([[0.1], [0.2]], [[0.3, 0.4], [0.5, 0.6]])


def some(first_slot: int = 3, slots: int = 4) -> Trajectory:
    rng = np.random.default_rng(first_slot)
    return Trajectory(
        first_slot=first_slot,
        slot=0.25,
        values=rng.random((slots + 1, 2)),
        examples=(first_slot + np.arange(slots)) % 2,
        outputs=rng.random((slots, 2)),
        runtime=1.5,
        engine="ngspice",
        aborts=(Abort(first_slot + 1, "timestep too small; größer", 2, "trap"),),
    )


def assert_same(a: Trajectory, b: Trajectory) -> None:
    for name in ("values", "examples", "outputs"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert getattr(a, name).dtype == getattr(b, name).dtype
    for name in ("first_slot", "slot", "runtime", "engine", "aborts"):
        assert getattr(a, name) == getattr(b, name)


def test_times_are_counted_from_the_schedules_begin() -> None:
    np.testing.assert_array_equal(some().time, [0.75, 1.0, 1.25, 1.5, 1.75])


def test_an_error_is_that_of_the_example_shown_averaged_over_outputs() -> None:
    part = some()
    want = [((part.outputs[k] - TASK.labels[(3 + k) % 2]) ** 2).sum() / 2 for k in range(4)]
    np.testing.assert_allclose(part.squared_error(TASK), want, rtol=1e-14)


def test_parts_are_joined_without_the_value_that_both_hold() -> None:
    first, second = some(0, 3), some(3, 2)
    both = joined([first, second])
    np.testing.assert_array_equal(both.values, np.vstack([first.values, second.values[1:]]))
    assert len(both.outputs) == len(both.examples) == 5
    assert both.runtime == 3.0
    assert [abort.slot for abort in both.aborts] == [1, 4]


def test_parts_that_do_not_follow_each_other_are_refused() -> None:
    with pytest.raises(InputError, match="slot 4 does not follow slot 2"):
        joined([some(0, 3), some(4, 2)])
    with pytest.raises(InputError, match="no part"):
        joined([])


@pytest.mark.parametrize("aborts", [True, False])
def test_a_file_gives_back_what_was_saved(tmp_path: Path, aborts: bool) -> None:
    part = some() if aborts else replace(some(), aborts=())
    part.save(tmp_path / "run")
    assert_same(Trajectory.load(tmp_path / "run"), part)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(InputError, match="cannot be read"):
        Trajectory.load(path)
    path.write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot be read"):
        Trajectory.load(path)
    np.savez(path, format=1, values=np.zeros((2, 1)))
    with pytest.raises(InputError, match="lacks 'outputs'"):
        Trajectory.load(path)
    np.savez(path, format=2)
    with pytest.raises(InputError, match="of format 2, not 1"):
        Trajectory.load(path)
    np.savez(path, format=1, values=np.zeros((2, 1)), outputs=np.zeros((2, 1)), examples=[0])
    with pytest.raises(InputError, match="outputs"):
        Trajectory.load(path)
    np.savez(path, format=np.array([{}]))
    with pytest.raises(InputError, match="allow_pickle"):
        Trajectory.load(path)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        some().save(tmp_path / "none" / "x.npz")
