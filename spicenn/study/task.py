"""What a worker does: keep a study's design and engine, and run chips on request."""

from __future__ import annotations

import platform
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker
from numpy.typing import NDArray

from spicenn import __version__
from spicenn.compiler.result import Result
from spicenn.compiler.threads import one_thread
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


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one task gives back. ``seconds`` is how long the worker took."""

    result: Result
    versions: Mapping[str, str]
    tolerances: Mapping[str, float]
    seconds: float


@dataclass
class _Lane:
    """One thread's engine, and the timer that closes it when it is left alone."""

    engine: Engine
    lock: threading.Lock = field(default_factory=threading.Lock)
    timer: threading.Timer | None = None


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
            lane.engine.close()

    def run(self, changes: Mapping[str, Value], chips: tuple[int, ...]) -> Outcome:
        """Run chips at one point of the sweep in the calling thread."""
        from spicenn.compiler.execute import run_chips

        payload = self.payload
        design = self._design(changes)
        with self._engine() as engine, one_thread():
            # The engine's start is not part of the time that sizes the tasks.
            versions = {**versions_here(), **engine.versions}
            start = perf_counter()
            result = run_chips(
                design,
                chips,
                payload.seed,
                payload.inputs,
                engine,
                trials=payload.trials,
                keep=payload.keep,
            )
            seconds = perf_counter() - start
            return Outcome(result, versions, dict(engine.tolerances), seconds)

    def _design(self, changes: Mapping[str, Value]) -> Design:
        from spicenn.compiler.design import Design

        if () not in self._designs:
            self._designs[()] = Design.from_bytes(self.payload.design)
        key = tuple(sorted(changes.items()))
        if key not in self._designs:
            self._designs[key] = self._designs[()].with_technology(**changes)
        return self._designs[key]

    @contextmanager
    def _engine(self) -> Iterator[Engine]:
        from spicenn.engines import open_engine

        thread = threading.get_ident()
        lane = self._lanes.get(thread)
        if lane is None:
            engine = open_engine(self.payload.engine, timeout=self.payload.timeout)
            lane = self._lanes[thread] = _Lane(engine)
        with lane.lock:
            if lane.timer is not None:
                lane.timer.cancel()
            try:
                yield lane.engine
            finally:
                lane.timer = threading.Timer(IDLE, self._close_idle, (thread, lane))
                lane.timer.daemon = True
                lane.timer.start()

    def _close_idle(self, thread: int, lane: _Lane) -> None:
        with lane.lock:
            if self._lanes.get(thread) is lane:
                del self._lanes[thread]
            lane.engine.close()


def run_task(plugin: str, changes: Mapping[str, Value], chips: tuple[int, ...]) -> Outcome:
    """Run chips in the worker that executes this, by the name of the study's plugin."""
    place = get_worker().plugins[plugin]
    assert isinstance(place, StudyPlugin)
    return place.run(changes, chips)


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
