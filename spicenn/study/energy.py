"""``measure_energy``: energy and latency of many chips, recorded beside a study as they finish."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from spicenn.compiler.analog import chain_of
from spicenn.compiler.design import Design
from spicenn.compiler.energy import COMPONENTS, Mode, measure
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.threads import one_thread
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError, NgspiceNotFound, SpicennError, Status
from spicenn.kirchhoff.threads import thread_count
from spicenn.seeds import Purpose, generator
from spicenn.study.energy_record import MODES, EnergyRecord, Measured, Plan, attributes_of, dataset
from spicenn.study.plan import chip_labels
from spicenn.study.progress import Progress, reporter
from spicenn.study.store import claimed
from spicenn.study.task import versions_here

if TYPE_CHECKING:
    import xarray as xr


class _Stopped(Exception):
    """The caller was interrupted: what a chip has so far is dropped."""


def measure_energy(
    design: Design,
    x: Any,
    *,
    chips: int | Iterable[int],
    seed: int,
    mode: Mode = "hybrid",
    tolerance: float = 0.01,
    positions: int = 4,
    store: str | Path | None = None,
    workers: int | None = None,
    timeout: float = 60.0,
    progress: Progress | bool | None = None,
) -> xr.Dataset:
    """Measure what inferences cost on manufactured chips, from transients in ngspice.

    Parameters
    ----------
    design : what ``compile`` returned.
    x : array or tensor (sample, …), or a tuple of them for several inputs.
    chips : how many, counted from 0, or the indices themselves.
    seed : root of every draw; chip and seed fix a chip, as in ``monte_carlo``.
    mode : "hybrid", every tile with its drivers and amplifiers, converters between layers;
        "analog", the whole chip as one circuit. See ``compiler.energy.measure``.
    tolerance : of settling, over the largest final output of a tile or a layer.
    positions : of a convolution's output positions so many are simulated.
    store : a study's folder, or a new one. Chips are recorded in ``STORE/energy/MODE`` as
        they finish, and what is there is not measured again, but for chips that timed out
        or crashed. None keeps the record in memory.
    workers : chips at a time, each with an ngspice of its own; one per core if None.
    timeout : seconds that ngspice may take for one transient.
    progress : True for a bar on standard error, or a function (done, total, failed).

    Returns
    -------
    Dataset in memory with ``energy(chip, sample, layer, component)`` [J],
    ``latency(chip, sample, layer)`` [s], ``status``, ``message`` and ``runtime`` [s] per
    chip. A chip that failed has NaN and its status; the others go on.

    Raises InputError for bad arguments, CompileError where no chip can be one analog
    circuit, StoreError for a store of another design, seed or measurement, NgspiceNotFound.
    """
    plan = _plan(design, x, seed, mode, tolerance, positions)
    labels = chip_labels(chips)
    if not isinstance(timeout, int | float) or not timeout > 0:
        raise InputError(f"timeout = {timeout!r} is not a positive number of seconds")
    count = min(thread_count(workers), len(labels))
    with ExitStack() as stack:
        record = None
        if store is not None:
            record = EnergyRecord(stack.enter_context(claimed(Path(store))), plan)
        found = record.chips(labels) if record is not None else {}
        todo = [label for label in labels if label not in found or found[label].status.retried]
        report = stack.enter_context(reporter(progress))
        for label in todo:
            found.pop(label, None)
        _say(report, found, len(labels))
        versions: Mapping[str, str] = record.versions if record is not None else {}
        if todo:
            engines = [stack.enter_context(NgspiceEngine(timeout=timeout)) for _ in range(count)]
            versions = {**versions_here(), **engines[0].versions}
            if record is not None:
                record.open(versions)
            with closing(_run(plan, todo, engines)) as running:
                for label, measured in running:
                    if record is not None:
                        record.write(label, measured)
                    found[label] = measured
                    _say(report, found, len(labels))
        return dataset(found, labels, plan.layers, attributes_of(plan.identity(), versions))


def _plan(design: Design, x: Any, seed: int, mode: Mode, tolerance: float, positions: int) -> Plan:
    generator(seed, Purpose.PROGRAMMING_ERROR)  # checks the seed
    if mode not in MODES:
        raise InputError(f"mode = {mode!r} is unknown", remedy="allowed: " + ", ".join(MODES))
    if isinstance(tolerance, bool) or not isinstance(tolerance, int | float):
        raise InputError(f"tolerance = {tolerance!r} is not a number")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance = {tolerance!r} is not in (0, 1)")
    if not isinstance(positions, int) or isinstance(positions, bool) or positions < 1:
        raise InputError(f"positions = {positions!r} is not an integer of at least 1")
    names = (
        tuple(layer.name for layer, _ in chain_of(design).links)
        if mode == "analog"
        else tuple(layer.name for layer in design.layers)
    )
    return Plan(design, as_inputs(design, x), names, seed, mode, float(tolerance), positions)


def _run(
    plan: Plan, labels: Sequence[int], engines: Sequence[NgspiceEngine]
) -> Generator[tuple[int, Measured], None, None]:
    """Measure chips side by side, one per engine; yield each as it ends."""
    free: SimpleQueue[NgspiceEngine] = SimpleQueue()
    for engine in engines:
        free.put(engine)
    stop = Event()
    # A sum's order, and so its last bit, must not depend on how many chips run.
    with one_thread(), ThreadPoolExecutor(len(engines), "spicenn-energy") as pool:
        futures = {pool.submit(_chip, plan, label, free, stop): label for label in labels}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            # An interrupt, or an error of all chips: what runs ends after its transient.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _chip(plan: Plan, label: int, free: SimpleQueue[NgspiceEngine], stop: Event) -> Measured:
    def watch(_done: int, _total: int) -> None:
        if stop.is_set():
            raise _Stopped

    engine = free.get()
    start = perf_counter()
    try:
        seen = measure(
            plan.design.sample(label, plan.seed),
            plan.inputs if len(plan.inputs) > 1 else plan.inputs[0],
            engine,
            mode=plan.mode,
            tolerance=plan.tolerance,
            positions=plan.positions,
            progress=watch,
        )
    except NgspiceNotFound:
        raise
    except SpicennError as error:
        shape = (plan.samples, len(plan.layers))
        return Measured(
            np.full((*shape, len(COMPONENTS)), np.nan),
            np.full(shape, np.nan),
            getattr(error, "status", Status.ERROR),
            str(error),
            perf_counter() - start,
        )
    finally:
        free.put(engine)
    return Measured(seen.energy, seen.latency, Status.OK, "", perf_counter() - start)


def _say(report: Progress, found: Mapping[int, Measured], total: int) -> None:
    report(len(found), total, sum(one.status is not Status.OK for one in found.values()))
