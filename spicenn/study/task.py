"""What a worker does: keep a study's design and engine, and run chips on request."""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker
from numpy.typing import NDArray

from spicenn import __version__
from spicenn.compiler.result import Result
from spicenn.compiler.threads import one_thread
from spicenn.study.crosscheck import REFERENCE, Array, Crosscheck
from spicenn.study.sweep import Value

if TYPE_CHECKING:
    from spicenn.compiler.design import Design
    from spicenn.engines.engine import Engine

# An engine that nobody uses for so long [s] is closed: its client may have been killed.
IDLE = 60.0


@dataclass(frozen=True, eq=False)
class Payload:
    """What every worker needs to know of a study, sent to each of them once."""

    design: bytes
    inputs: tuple[NDArray[Any], ...]
    seed: int
    engine: str
    timeout: float
    trials: int
    keep: frozenset[str]
    crosscheck: float = 0.0


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one task gives back.

    seconds : how long the worker took, its crosscheck aside.
    discrepancy : (chip,) from the crosscheck, None where the study has none.
    check_seconds : how long the crosscheck took.
    worker : address of the worker.
    """

    result: Result
    versions: Mapping[str, str]
    tolerances: Mapping[str, float]
    seconds: float
    discrepancy: Array | None = None
    check_seconds: float = 0.0
    worker: str = ""


@dataclass
class _Lane:
    """One thread's engines, and the timer that closes them when they are left alone.

    reference : what the engine is held to, None where the study has no crosscheck.
    """

    engine: Engine
    reference: Engine | None
    lock: threading.Lock = field(default_factory=threading.Lock)
    timer: threading.Timer | None = None

    def versions(self) -> dict[str, str]:
        """What the record depends on: the reference's too, also where it checks no chip."""
        checked = self.reference.versions if self.reference is not None else {}
        return {**versions_here(), **self.engine.versions, **checked}

    def tolerances(self) -> dict[str, float]:
        """Those of the engine, and of the reference under its name."""
        checked = self.reference.tolerances if self.reference is not None else {}
        named = {f"{REFERENCE}_{key}": value for key, value in checked.items()}
        return {**self.engine.tolerances, **named}

    def close(self) -> None:
        self.engine.close()
        if self.reference is not None:
            self.reference.close()


class StudyPlugin(WorkerPlugin):
    """A study's place in one worker process: one engine per thread that runs its tasks."""

    def __init__(self, name: str, payload: Payload) -> None:
        self.name = name
        self.payload = payload

    def setup(self, worker: Any) -> None:
        """Called by Dask in each worker, late ones included."""
        self._lanes: dict[int, _Lane] = {}
        self._designs: dict[tuple[tuple[str, Value], ...], Design] = {}

    def teardown(self, worker: Any) -> None:
        """Called by Dask when the study ends."""
        lanes, self._lanes = self._lanes, {}
        for lane in lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
            lane.close()

    def run(self, changes: Mapping[str, Value], chips: tuple[int, ...]) -> Outcome:
        """Run chips at one point of the sweep in the calling thread."""
        from spicenn.compiler.execute import run_chips

        payload = self.payload
        design = self._design(changes)
        with self._lane() as lane, one_thread():
            # The engines' start is not part of the time that sizes the tasks.
            versions = lane.versions()
            crosscheck = None
            if lane.reference is not None:
                crosscheck = Crosscheck(lane.reference, chips, payload.crosscheck)
            start = perf_counter()
            result = run_chips(
                design,
                chips,
                payload.seed,
                payload.inputs,
                lane.engine,
                trials=payload.trials,
                keep=payload.keep,
                observer=crosscheck,
            )
            seconds = perf_counter() - start
            outcome = Outcome(result, versions, lane.tolerances(), seconds)
            if crosscheck is None:
                return outcome
            result, discrepancy = crosscheck.finish(result)
            return replace(
                outcome,
                result=result,
                seconds=seconds - crosscheck.seconds,
                discrepancy=discrepancy,
                check_seconds=crosscheck.seconds,
            )

    def _design(self, changes: Mapping[str, Value]) -> Design:
        from spicenn.compiler.design import Design

        if () not in self._designs:
            self._designs[()] = Design.from_bytes(
                # What the client has in memory it trusts; the simulator checks the digests.
                self.payload.design,
                allow_include=("/",),
                trust_model=True,
            )
        key = tuple(sorted(changes.items()))
        if key not in self._designs:
            self._designs[key] = self._designs[()].with_technology(changes)
        return self._designs[key]

    @contextmanager
    def _lane(self) -> Iterator[_Lane]:
        from spicenn.engines import open_engine

        thread = threading.get_ident()
        lane = self._lanes.get(thread)
        if lane is None:
            timeout = self.payload.timeout
            # The worker's other cores are for its other tasks.
            engine = open_engine(self.payload.engine, timeout=timeout, threads=1)
            checked = self.payload.crosscheck > 0
            reference = open_engine(REFERENCE, timeout=timeout) if checked else None
            lane = self._lanes[thread] = _Lane(engine, reference)
        with lane.lock:
            if lane.timer is not None:
                lane.timer.cancel()
            try:
                yield lane
            finally:
                lane.timer = threading.Timer(IDLE, self._close_idle, (thread, lane))
                lane.timer.daemon = True
                lane.timer.start()

    def _close_idle(self, thread: int, lane: _Lane) -> None:
        with lane.lock:
            if self._lanes.get(thread) is lane:
                del self._lanes[thread]
            lane.close()


def run_task(plugin: str, changes: Mapping[str, Value], chips: tuple[int, ...]) -> Outcome:
    """Run chips in the worker that executes this, by the name of the study's plugin."""
    worker = get_worker()
    place = worker.plugins[plugin]
    assert isinstance(place, StudyPlugin)
    return replace(place.run(changes, chips), worker=worker.address)


def versions_here() -> dict[str, str]:
    """Versions of what this process computes with, engines aside."""
    versions = {"spicenn": __version__, "python": platform.python_version()}
    for package in ("numpy", "torch", "xarray", "zarr", "dask"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    versions["platform"] = f"{sys.platform}-{platform.machine()}"
    return versions
