"""Tasks of about a second, a few in flight, each recorded as it comes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.result import Result
from spicenn.errors import EngineError, Status
from spicenn.study.cluster import Connection
from spicenn.study.sweep import Value
from spicenn.study.task import Outcome, run_task

# A task and a chunk of the record hold what runs in about so long [s] …
TASK_SECONDS = 1.0
# … and at most so many chips.
MOST_CHIPS = 256
# What the first chips may take before the record exists [s]: more than an engine that
# compiles itself on its first run ever, or every task would be sized by that.
_MEASURE_SECONDS = 15.0


@dataclass(frozen=True)
class Job:
    """Consecutive chips at one point of the sweep.

    start : position of the first one along the record's chip axis.
    alone : a second try of one chip after its process died; there is no third.
    """

    point: tuple[int, ...]
    changes: Mapping[str, Value]
    start: int
    chips: tuple[int, ...]
    alone: bool = False

    def singly(self) -> Iterator[Job]:
        """Yield one job per chip."""
        for i, chip in enumerate(self.chips):
            yield replace(self, start=self.start + i, chips=(chip,), alone=True)


Record = Callable[[Job, Outcome], None]


def cut(
    point: tuple[int, ...],
    changes: Mapping[str, Value],
    chips: Sequence[int],
    wanted: NDArray[np.bool_],
    chunk: int,
) -> Iterator[Job]:
    """Cut the wanted chips of one point into jobs that each lie in one chunk of the record."""
    for begin in range(0, len(chips), chunk):
        positions = begin + np.flatnonzero(wanted[begin : begin + chunk])
        if positions.size == 0:
            continue
        for run in np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1):
            start, stop = int(run[0]), int(run[-1]) + 1
            yield Job(point, changes, start, tuple(chips[start:stop]))


def measure(
    connection: Connection, plugin: str, jobs: Iterable[Job], crosscheck: float = 0.0
) -> tuple[list[tuple[Job, Outcome]], int]:
    """Run the first chips one after the other, to see how many take about a second.

    Parameters
    ----------
    jobs : the first jobs of the study, of one chip each.
    crosscheck : share of the chips that are checked: each chip is taken to cost that
        share of a check, whether it is among them or not.

    Returns
    -------
    What they gave, and the number of chips that make one task. Raises EngineError
    where every one of them took its worker along.
    """
    done: list[tuple[Job, Outcome]] = []
    seconds: list[float] = []
    check = 0.0
    spent = 0.0
    worker = ""
    for job in jobs:
        # Where the one before has run: another worker would have its own loading to pay for.
        *_, pair = run_jobs(connection, plugin, [job], worker)
        worker = pair[1].worker
        done.append(pair)
        spent += pair[1].seconds
        if pair[1].result.status[0] == Status.OK:
            seconds.append(pair[1].seconds)
        check = pair[1].check_seconds or check
        # The first good run pays for loading, unless it is so slow that nothing else counts.
        if pair[1].result.output and (len(seconds) == 2 or spent > _MEASURE_SECONDS):
            break
    if not any(outcome.result.output for _, outcome in done):
        raise EngineError(
            f"none of the first {len(done)} chips left its worker process alive",
            remedy="see whether memory runs out, or try workers=1 and fewer samples",
        )
    return done, chips_per_task(seconds[-1], crosscheck, check) if seconds else 1


def chips_per_task(seconds: float, crosscheck: float, check: float) -> int:
    """How many chips make one task, for the seconds of one and of its check, in the mean."""
    return int(min(max(TASK_SECONDS / (seconds + crosscheck * check), 1), MOST_CHIPS))


def run_jobs(
    connection: Connection, plugin: str, jobs: Iterable[Job], worker: str = ""
) -> Iterator[tuple[Job, Outcome]]:
    """Run jobs on the workers; yield each with what it gave, as they finish.

    worker : address of the one to prefer while it lives, none if empty.

    A job whose worker dies again and again is run chip by chip; a chip that still
    takes its worker along is a crash. Chips that crash their simulator run once more,
    alone. Raises what a task raised, and EngineError where no worker lives.
    """
    waiting = deque[Job]()
    source = iter(jobs)
    finished: SimpleQueue[Any] = SimpleQueue()
    flying: dict[Any, Job] = {}

    def launch() -> None:
        # Twice as many as can run: each worker finds its next task waiting, and no
        # more results than that are ever in memory.
        while len(flying) < max(2, 2 * connection.threads()):
            job = waiting.popleft() if waiting else next(source, None)
            if job is None:
                return
            future = connection.client.submit(
                run_task,
                plugin,
                dict(job.changes),
                job.chips,
                pure=False,
                workers=[worker] if worker else None,
                allow_other_workers=bool(worker),
            )
            flying[future.key] = job
            future.add_done_callback(finished.put)

    launch()
    while flying:
        try:
            future = finished.get(timeout=0.5)
        except Empty:
            connection.check()
            launch()
            continue
        job = flying.pop(future.key)
        outcome = _outcome(future, job)
        future.release()
        connection.useful()
        if isinstance(outcome, Outcome):
            crashed = np.flatnonzero(outcome.result.status == Status.CRASH)
            if crashed.size and not job.alone:
                singles = list(job.singly())
                waiting.extend(singles[i] for i in crashed)
        else:
            waiting.extend(outcome)
        launch()
        if isinstance(outcome, Outcome):
            yield job, outcome


def _outcome(future: Any, job: Job) -> Outcome | list[Job]:
    """What a finished future holds, or the jobs to run instead where its workers died."""
    from distributed import KilledWorker

    status = future.status
    if status == "finished":
        outcome = future.result()
        assert isinstance(outcome, Outcome)
        return outcome
    if status == "lost":
        # The worker died after the task had finished and before anyone had its result.
        return [job]
    if status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            return _crash(job) if job.alone else list(job.singly())
        raise error
    raise EngineError(f"the scheduler gave up a task ({status})", remedy="run it again")


def _crash(job: Job) -> Outcome:
    message = "its worker process was killed each time it ran this chip"
    count = len(job.chips)
    result = Result(
        {},
        np.full(count, Status.CRASH, np.int8),
        (message,) * count,
        np.full(count, np.nan),
        {},
    )
    return Outcome(result, {}, {}, 0.0)
