"""Killed at any moment, a study loses nothing recorded, leaves no process and can be completed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import spicenn as sn
from spicenn.errors import EngineError, Status
from spicenn.study import cluster, open_record, schedule, tile_record
from spicenn.study.cluster import connect
from spicenn.study.schedule import Job, run_jobs
from spicenn.study.task import Payload, StudyPlugin
from tests.study.conftest import assert_same
from tests.study.programs import Program, running, until
from tests.study.tasks import deadly

CHIPS = 90


@pytest.fixture(scope="module")
def inputs(design: sn.Design, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script reads."""
    folder = tmp_path_factory.mktemp("inputs")
    design.save(folder / "design")
    rng = np.random.default_rng(5)
    np.save(folder / "x.npy", rng.uniform(0, 1, (20, 6)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def whole(design: sn.Design, inputs: Path, address: str) -> Path:
    """The same study, never interrupted."""
    sn.monte_carlo(
        design, np.load(inputs / "x.npy"), chips=CHIPS, seed=7, trials=2, scheduler=address,
        keep=("g", "bitline_current"), store=inputs / "whole",
    )  # fmt: skip
    return inputs / "whole"


@pytest.fixture
def folder(inputs: Path, tmp_path: Path) -> Path:
    for name in ("design", "x.npy"):
        (tmp_path / name).symlink_to(inputs / name)
    return tmp_path


def assert_complete(folder: Path, whole: Path) -> None:
    done, expected = open_record(folder / "store"), open_record(whole)
    assert set(done.status.values) == {Status.OK}
    assert_same(done, expected)
    for tile in expected.attrs["tiles"]:
        assert_same(tile_record(done, tile), tile_record(expected, tile))
    # Nothing of a lock, a template or a half-written file is left.
    assert {p.name for p in folder.iterdir()} == {"design", "x.npy", "study.py", "store"}


def assert_recorded_chips_are_right(folder: Path, whole: Path, at_least: int) -> int:
    """Return how many chips the store holds, after comparing each of them."""
    ds, expected = open_record(folder / "store"), open_record(whole)
    finished = (ds.status == Status.OK).values
    np.testing.assert_array_equal(ds.output.values[finished], expected.output.values[finished])
    assert np.isnan(ds.output.values[ds.status.values != Status.PENDING]).sum() == 0
    assert finished.sum() >= at_least
    return int(finished.sum())


def kill_client(program: Program) -> None:
    program.process.kill()


def kill_all(program: Program) -> None:
    for process in program.family():
        process.kill()


def press_ctrl_c(program: Program) -> None:
    """As a terminal does: the whole group hears it."""
    for process in (program.process, *program.workers()):
        process.send_signal(signal.SIGINT)


@pytest.mark.slow
@pytest.mark.ngspice
def test_a_study_that_is_ended_goes_on_where_it_was(folder, whole):
    rng = np.random.default_rng(3)
    recorded = 0
    ways: list[tuple[Callable[[Program], None], int, str]] = [
        (kill_client, -signal.SIGKILL, ""),
        (kill_all, -signal.SIGKILL, ""),
        (press_ctrl_c, -signal.SIGINT, "KeyboardInterrupt"),
    ]
    for end, status, said in ways:
        with running(folder, CHIPS) as program:
            target = recorded + int(rng.integers(3, 10))
            program.wait_for(target)
            end(program)
            code, errors = program.finish()
            assert code == status
            assert errors.rstrip().endswith(said)
            assert program.leftovers() == []
        recorded = assert_recorded_chips_are_right(folder, whole, target)
    with running(folder, CHIPS) as program:
        program.wait_for(recorded + 3)
        program.workers()[0].kill()
        until(lambda: len(program.simulators()) > 0, "a simulator runs")
        program.simulators()[0].kill()
        assert program.finish() == (0, "")
        assert program.leftovers() == []
    assert_complete(folder, whole)


@pytest.mark.slow
def test_a_chip_that_takes_its_workers_along_is_a_crash(design, x, monkeypatch):
    monkeypatch.setattr(schedule, "run_task", deadly)
    payload = Payload(design.to_bytes(), (x,), 7, "nodal", 60.0, 1, frozenset())
    status: dict[int, int] = {}
    with connect(None, 1) as connection:
        connection.client.register_plugin(StudyPlugin("study", payload), name="study")
        for job, outcome in run_jobs(connection, "study", [Job((), {}, 0, (0, 1, 2, 3))]):
            status |= dict(zip(job.chips, outcome.result.status.tolist(), strict=True))
    assert status == {0: Status.OK, 1: Status.OK, 2: Status.CRASH, 3: Status.OK}


def test_a_result_lost_with_its_worker_is_computed_again(design, x):
    payload = Payload(design.to_bytes(), (x,), 7, "nodal", 60.0, 1, frozenset())
    jobs = [Job((), {}, chip, (chip,)) for chip in range(3)]
    with connect(None, 1) as connection:
        connection.client.register_plugin(StudyPlugin("study", payload), name="study")
        going = run_jobs(connection, "study", jobs)
        done = [next(going)[0]]
        # The next one finishes while nobody asks for it; then all that holds it dies.
        held = list(connection.client.futures.values())
        until(lambda: any(s.status == "finished" for s in held), "a second result")
        assert connection.local is not None
        for process, _ in list(connection.local._processes.values()):
            process.kill()
        until(lambda: any(s.status == "lost" for s in held), "the result is lost")
        for job, outcome in going:
            assert outcome.result.status.tolist() == [Status.OK]
            done.append(job)
    assert sorted(job.chips[0] for job in done) == [0, 1, 2]


def test_workers_that_cannot_live_are_an_error_not_a_wait(design, x, monkeypatch):
    monkeypatch.setattr(cluster, "_BOOT", "raise SystemExit('no room for a worker')")
    with pytest.raises(EngineError, match="no room for a worker"):
        sn.monte_carlo(design, x, chips=2, seed=7, engine="nodal", workers=1)


def test_a_scheduler_that_is_not_there_is_an_error(design, x, monkeypatch):
    monkeypatch.setattr(cluster, "_CONNECT", 0.2)
    with pytest.raises(EngineError, match="no scheduler answers"):
        sn.monte_carlo(design, x, chips=2, seed=7, scheduler="tcp://127.0.0.1:1")
