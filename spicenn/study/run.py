"""``monte_carlo``: many manufactured chips of one design, recorded as they finish."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.errors import InputError, SpicennWarning, Status
from spicenn.study.cluster import Connection, connect
from spicenn.study.crosscheck import BOUND, agreement, is_checked
from spicenn.study.plan import Study, chip_labels, plan
from spicenn.study.progress import Progress, reporter
from spicenn.study.schedule import Job, cut, measure, run_jobs
from spicenn.study.store import Store, claimed, create, pending, resume
from spicenn.study.sweep import Value
from spicenn.study.task import Payload, StudyPlugin

if TYPE_CHECKING:
    import xarray as xr

# Chips that are run before the record exists, to size its chunks: one may fail.
_MEASURED = 4
_DISAGREES = (
    "do not trust this study's outputs: see discrepancy and message in the record, and run "
    "chips of it with engine='ngspice'"
)


def monte_carlo(
    design: Design,
    x: Any,
    *,
    chips: int | Iterable[int],
    seed: int,
    engine: str = "ngspice",
    trials: int = 1,
    store: str | Path | None = None,
    keep: Sequence[str] = (),
    sweep: Mapping[str, Sequence[Value]] | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    timeout: float = 60.0,
    progress: Progress | bool | None = None,
    crosscheck: float = 0.0,
    crosscheck_bound: float = BOUND,
) -> xr.Dataset:
    """Run manufactured chips of a design on the same inputs, in parallel.

    Parameters
    ----------
    design : what ``compile`` returned.
    x : array or tensor (sample, …), or a tuple of them for several inputs.
    chips : how many, counted from 0, or the indices themselves.
    seed : root of every draw; chip and seed fix a chip, whatever the study around it.
    engine : "ngspice" or "nodal".
    trials : repeated noisy reads.
    store : folder of the record. What it already holds is not run again, but for
        chips that timed out or crashed; more chips than it has are added to it.
        None keeps the record in memory.
    keep : what to record of every tile: any of "bitline_current", "g_target", "g".
    sweep : values of technology keys, e.g. ``{"r_wordline": [1.0, 5.0]}`` [Ω]; their
        product becomes leading dimensions. A chip has the same draws at every point.
    workers : processes of the local cluster; one per core if None.
    scheduler : address of an existing Dask cluster to use instead, e.g. "tcp://host:8786".
    timeout : seconds that the simulator may take for one tile of all samples.
    progress : True for a bar on standard error, or a function (done, total, failed).
    crosscheck : share of the chips, in [0, 1], that also run in ngspice, tile by tile on
        the same conductances and voltages; not for engine="ngspice". A chip is among them
        by its index alone: chip 0, then evenly spread.
    crosscheck_bound : discrepancy [1] that a checked chip may have: its largest difference
        of a bitline's current over the largest current of the tile.

    Returns
    -------
    Dataset with ``output(sweep…, chip, trial, sample, …)`` [1], ``status``, ``message``,
    ``runtime`` [s] and the rest of schema 1, lazy from the store, loaded without one.
    A chip that failed has NaN outputs and its status. With a crosscheck there is
    ``discrepancy(sweep…, chip)`` [1]: NaN where not checked, infinite where ngspice failed.

    Warns with SpicennWarning where a discrepancy exceeds the bound.

    Raises InputError and TechnologyError for bad arguments, StoreError for a store that
    is not this study's, NgspiceNotFound, and EngineError where no worker can live.
    """
    study = plan(
        design, x, seed=seed, engine=engine, trials=trials, keep=keep, sweep=sweep,
        crosscheck=crosscheck, crosscheck_bound=crosscheck_bound,
    )  # fmt: skip
    labels = chip_labels(chips)
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise InputError(f"timeout = {timeout!r} is not a positive number of seconds")
    with claimed(None if store is None else Path(store)) as target, reporter(progress) as report:
        record = resume(target, study)
        if record is not None:
            present = set(record.chips)
            record.extend([chip for chip in labels if chip not in present])
        if record is None or _wanted(record, labels).any():
            with (
                connect(scheduler, workers) as connection,
                _installed(connection, study, timeout) as plugin,
            ):
                record = _run(connection, plugin, study, labels, target, record, report)
        else:
            _Tally(record, labels, report, _wanted(record, labels))
        ds = record.dataset(labels)
        if store is None:
            ds = ds.load()
    found = agreement(ds)
    if found is not None and found.exceeded:
        warnings.warn(f"crosscheck: {found.finding} ({_DISAGREES})", SpicennWarning, stacklevel=2)
    return ds


def _run(
    connection: Connection,
    plugin: str,
    study: Study,
    labels: tuple[int, ...],
    target: Any,
    record: Store | None,
    report: Progress,
) -> Store:
    """Run what the record lacks, making the record if there is none."""
    todo = None if record is None else _wanted(record, labels)
    if record is None:
        point, changes = next(study.sweep.points())
        order = _measured(study, labels)
        first = (Job(point, changes, i, (labels[i],)) for i in order)
        measured, chunk = measure(connection, plugin, first, study.crosscheck)
        sample = next(outcome for _, outcome in measured if outcome.result.output)
        record = create(target, study, labels, sample, chunk)
        todo = _wanted(record, labels)
        for job, outcome in measured:
            record.write(job.point, job.start, outcome)
            todo[job.point][job.start] = False
    assert todo is not None
    tally = _Tally(record, labels, report, todo)
    for job, outcome in run_jobs(connection, plugin, _jobs(record, study, todo)):
        if outcome.versions:
            record.check_versions(outcome)
        record.write(job.point, job.start, outcome)
        tally.add(job, outcome.result.status)
    return record


def _measured(study: Study, labels: tuple[int, ...]) -> list[int]:
    """Positions of the chips to run first: one that is checked leads, to know what that costs."""
    checked = (i for i, chip in enumerate(labels) if is_checked(chip, study.crosscheck))
    lead = next(checked, 0)
    return [lead, *(i for i in range(min(len(labels), _MEASURED)) if i != lead)][:_MEASURED]


def _jobs(record: Store, study: Study, todo: NDArray[np.bool_]) -> Iterator[Job]:
    for point, changes in study.sweep.points():
        yield from cut(point, changes, record.chips, todo[point], record.chunk)


def _wanted(record: Store, labels: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of the record's chips are asked for and still to be run, (sweep…, chip)."""
    return pending(record.status()) & np.isin(np.array(record.chips), np.array(labels))


class _Tally:
    """Counts the chips asked for by how they stand, and reports each change."""

    def __init__(
        self, record: Store, labels: tuple[int, ...], report: Progress, todo: NDArray[np.bool_]
    ) -> None:
        self._asked = np.isin(np.array(record.chips), np.array(labels))
        # What runs again is not done yet.
        self._status = np.where(todo, Status.PENDING, record.status())
        self._report = report
        self._say()

    def add(self, job: Job, status: NDArray[np.int8]) -> None:
        self._status[job.point][job.start : job.start + len(status)] = status
        self._say()

    def _say(self) -> None:
        asked = self._status[..., self._asked]
        done = int(np.count_nonzero(asked != Status.PENDING))
        good = int(np.count_nonzero(asked == Status.OK))
        self._report(done, asked.size, done - good)


@contextmanager
def _installed(connection: Connection, study: Study, timeout: float) -> Iterator[str]:
    """Send the study to every worker, late ones included; yield the name of its place there."""
    name = f"spicenn-{uuid.uuid4().hex}"
    payload = Payload(
        study.design.to_bytes(),
        study.inputs,
        study.seed,
        study.engine,
        float(timeout),
        study.trials,
        study.keep,
        study.crosscheck,
    )
    connection.client.register_plugin(StudyPlugin(name, payload), name=name)
    try:
        yield name
    finally:
        # Closes the engines; a lost scheduler has no workers of ours left to tell.
        with suppress(Exception):
            connection.client.unregister_worker_plugin(name)
