"""Runs of many chips that can be killed: every part of a trajectory is kept when it is done.

A folder holds ``run.json`` (what the run is), ``chips/<index>/`` with the parts of each chip's
trajectory, and at the end ``record.zarr``. A part is a function of the values that it begins
with and its first slot, so that a run that was killed ends with the same numbers, to the last
bit, as one that was not.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn import __version__
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import EngineError, InputError, SpicennError, Status, StoreError
from spicenn.learning.cycle import finer
from spicenn.learning.learn import learn
from spicenn.learning.plan import FastPlan, Plan
from spicenn.learning.record import Outcome, save_record, to_dataset
from spicenn.learning.task import Schedule
from spicenn.learning.trajectory import Trajectory, joined

if TYPE_CHECKING:
    import xarray as xr

    from spicenn.learning.propagation import Trained
    from spicenn.training.run import Progress as TrainingProgress

Array = NDArray[np.float64]
# values, slots, first slot -> what they did.
Learner = Callable[[Array, int, int], Trajectory]

RUN, CHIPS, RECORD, CONFIGURATION, NETWORK = (
    "run.json", "chips", "record.zarr", "config.toml", "network.npz",
)  # fmt: skip
_SCHEMA = 1
_END = "end.json"
# Seconds between two looks at what threads have done.
_LOOK = 0.1
# Seconds that a thread may take to end after its simulator was killed.
_PATIENCE = 5.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run is.

    done, slots : of all chips together. resumed : those that were there before.
    finished, failed, chips : how many.
    error : squared error at the end of the slot that was done last [V^2], NaN before.
    """

    done: int
    slots: int
    resumed: int
    finished: int
    failed: int
    chips: int
    error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """How a run ended.

    ds : its record. runs : trajectories of chips by their index. resumed : slots that were
        there before.
    """

    ds: xr.Dataset
    runs: Mapping[int, Trajectory]
    resumed: int


def learn_chips(
    plan: Plan,
    directory: str | Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Finished:
    """Let all chips of a plan learn, or go on where they were stopped, and record it.

    More slots and more chips than before go on, too; timeouts and crashes are tried again,
    slots without a solution are not. One chip that fails never ends the run: its status and
    message are in the record, with all that it did before.

    Parameters
    ----------
    directory : of the run; made where it is not.
    workers : threads, each with an ngspice of its own where one is needed; as many as there
        are cores if None.
    progress : called ten times a second, in the caller's thread.

    Interrupted (``KeyboardInterrupt``), it records what is done, and raises.

    Raises StoreError where the folder holds another run, more slots, or cannot be written;
    NgspiceNotFound.
    """
    from spicenn.study.lock import locked

    folder = _folder(directory)
    if workers is not None and workers < 1:
        raise InputError(f"workers = {workers!r} is not positive")
    with locked(folder):
        known = _opened(folder, plan.described(), plan.text)
        bench = _Bench(plan=plan, folder=folder, known=known)
        for index in plan.chips:
            bench.chips[index] = _Chip.found(folder / CHIPS / str(index), plan, index)
        bench.resumed = bench.done
        count = min(workers or os.cpu_count() or 1, max(len(bench.waiting()), 1))
        try:
            bench.work(count, progress)
        finally:
            ds = to_dataset(plan, bench.outcomes(), bench.known["versions"])
            save_record(ds, folder / RECORD)
        return Finished(
            ds=ds, resumed=bench.resumed,
            runs={c.index: joined(c.parts) for c in bench.chips.values() if c.parts},
        )  # fmt: skip


def train_fast(
    plan: FastPlan,
    directory: str | Path,
    *,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> Trained:
    """Train a plan's network on the fast path, or go on, and keep it as ``network.npz``.

    Raises InputError for a device that there is not, StoreError where the folder holds another
    kind of run, and what ``propagation.train`` raises.
    """
    import torch

    from spicenn.learning.propagation import train
    from spicenn.learning.resistive import initial
    from spicenn.study.lock import locked

    if plan.options["device"] == "cuda" and not torch.cuda.is_available():
        raise InputError("run.device is cuda, and torch finds no such device")
    folder = _folder(directory)
    network = initial(
        plan.sizes, seed=plan.seed, conductance=plan.conductance, least=plan.least,
        gain=plan.gain, diode=plan.diode, temperature=plan.temperature,
    )  # fmt: skip
    with locked(folder):
        _opened(folder, {"by": "fast"}, plan.text)
        trained = train(
            network, plan.x, plan.labels, epochs=plan.epochs, seed=plan.seed,
            validation=plan.validation, directory=folder, progress=progress, **plan.options,
        )  # fmt: skip
        trained.network.save(folder / NETWORK)
    return trained


def learner_of(
    plan: Plan, index: int, engine: NgspiceEngine | None, schedule: Schedule | None = None
) -> Learner:
    """Return what takes one of a plan's chips through slots, of another schedule if given."""
    chip, task, rule, run = plan.chip(index), plan.task, plan.rule, plan.run
    schedule = plan.schedule if schedule is None else schedule

    def take(values: Array, slots: int, first_slot: int) -> Trajectory:
        return learn(
            chip, task, rule, schedule, values, slots=slots, by=run.by, engine=engine,
            first_slot=first_slot, seed=run.seed, **{**run.options, "slots_at_once": slots},
        )  # fmt: skip

    return take


def last_period(plan: Plan, index: int, run: Trajectory, *, points: int = 32) -> Array:
    """(point, value) through the last period of a chip: run again, in shorter slots.

    Raises what the plan's engine raises.
    """
    size = len(plan.task)
    fine = finer(plan.schedule, points)
    first = points * (run.first_slot + len(run.examples) - size)
    with ExitStack() as stack:
        engine = None
        if needs_ngspice(plan):
            engine = stack.enter_context(NgspiceEngine(timeout=plan.run.timeout))
        take = learner_of(plan, index, engine, fine)
        return take(run.values[-size - 1], points * size, first).values


def needs_ngspice(plan: Plan) -> bool:
    """Whether threads are given an ngspice; a co-simulation has its own."""
    return plan.run.by == "circuit" or plan.run.engine == "ngspice"


@dataclass
class _Chip:
    """One chip's folder: parts that follow each other, and how it ended."""

    index: int
    folder: Path
    parts: list[Trajectory]
    status: Status
    message: str

    @classmethod
    def found(cls, folder: Path, plan: Plan, index: int) -> _Chip:
        """Read what is there. A part that is not whole, and what follows it, does not count."""
        parts: list[Trajectory] = []
        done = 0
        for path in sorted(folder.glob("*.npz")):
            try:
                part = Trajectory.load(path)
            except InputError:
                break
            if part.first_slot != done:
                break
            parts.append(part)
            done += len(part.examples)
        if done > plan.run.slots:
            raise StoreError(
                f"chip {index} has learnt for {done} slots already, {plan.run.slots} are asked for",
                where=str(folder), remedy="ask for as many, or give another folder",
            )  # fmt: skip
        status, message = Status.PENDING, ""
        with suppress(OSError, ValueError, KeyError, TypeError):
            end = json.loads((folder / _END).read_text("utf-8"))
            status, message = Status(end["status"]), str(end["message"])
        if status.retried or status is Status.OK:
            status, message = Status.PENDING, ""
        if done == plan.run.slots:
            status = Status.OK
        return cls(index, folder, parts, status, message)

    @property
    def done(self) -> int:
        """Slots."""
        return sum(len(part.examples) for part in self.parts)

    def add(self, part: Trajectory) -> None:
        """Keep a part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part.save(self.folder / f"{part.first_slot:010d}.npz")
        self.parts.append(part)

    def end(self, status: Status, message: str = "") -> None:
        """Keep how it ended."""
        self.status, self.message = status, message
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / _END, {"status": int(status), "message": message})


@dataclass
class _Bench:
    """What threads share; whoever changes it holds the lock."""

    plan: Plan
    folder: Path
    known: dict[str, Any]
    chips: dict[int, _Chip] = field(default_factory=dict)
    resumed: int = 0
    error: float = np.nan
    failure: BaseException | None = None
    queue: deque[_Chip] = field(default_factory=deque)
    engines: list[NgspiceEngine] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def done(self) -> int:
        """Slots of all chips."""
        return sum(chip.done for chip in self.chips.values())

    def waiting(self) -> list[_Chip]:
        """Chips that have slots to do."""
        return [chip for chip in self.chips.values() if chip.status is Status.PENDING]

    def outcomes(self) -> list[Outcome]:
        """How all chips stand."""
        return [
            Outcome(
                index=chip.index, chip=self.plan.chip(chip.index),
                begin=self.plan.begin(chip.index), status=chip.status, message=chip.message,
                trajectory=joined(chip.parts) if chip.parts else None,
            )
            for chip in self.chips.values()
        ]  # fmt: skip

    def progress(self) -> Progress:
        """Where the run is."""
        states = [chip.status for chip in self.chips.values()]
        good, pending = states.count(Status.OK), states.count(Status.PENDING)
        return Progress(
            done=self.done, slots=len(self.chips) * self.plan.run.slots, resumed=self.resumed,
            finished=good, failed=len(states) - good - pending, chips=len(states),
            error=self.error,
        )  # fmt: skip

    def work(self, count: int, progress: Callable[[Progress], None] | None) -> None:
        """Have threads work until there is nothing left, or one raises what is no chip's."""
        self.queue.extend(self.waiting())
        threads = [threading.Thread(target=self._thread, daemon=True) for _ in range(count)]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(_LOOK / count)
                if progress is not None:
                    progress(self.progress())
        finally:
            # Nothing that is half done is kept, so that a simulator need not end its part.
            self.stop.set()
            for engine in list(self.engines):
                if (pid := engine.pid) is not None and any(t.is_alive() for t in threads):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            for thread in threads:
                if thread.ident is not None:
                    thread.join(_PATIENCE)
        if self.failure is not None:
            raise self.failure

    def _thread(self) -> None:
        try:
            with ExitStack() as stack:
                engine = None
                if self.queue and needs_ngspice(self.plan):
                    engine = stack.enter_context(NgspiceEngine(timeout=self.plan.run.timeout))
                    self.engines.append(engine)
                    self._check(engine.versions)
                while not self.stop.is_set():
                    try:
                        chip = self.queue.popleft()
                    except IndexError:
                        return
                    self._run(chip, engine)
        except BaseException as error:
            if not self.stop.is_set():
                self.failure = error
                self.stop.set()

    def _run(self, chip: _Chip, engine: NgspiceEngine | None) -> None:
        """Have one chip learn to the end, or to an error of its own."""
        run = self.plan.run
        try:
            take = learner_of(self.plan, chip.index, engine)
            now = chip.parts[-1].values[-1] if chip.parts else self.plan.begin(chip.index)
            while chip.done < run.slots and not self.stop.is_set():
                part = take(now, min(run.slots_at_once, run.slots - chip.done), chip.done)
                chip.add(part)
                now = part.values[-1]
                self.error = float(self.plan.judged(part).squared_error(self.plan.task)[-1])
            if chip.done == run.slots:
                chip.end(Status.OK)
        except SpicennError as error:
            if self.stop.is_set():  # its simulator was killed under it
                return
            status = error.status if isinstance(error, EngineError) else Status.ERROR
            chip.end(status, str(error))

    def _check(self, versions: Mapping[str, str]) -> None:
        """Compare the simulator with the one that earlier parts came from."""
        with self.lock:
            known = self.known["versions"]
            there = known.setdefault("ngspice", versions["ngspice"])
            if there != versions["ngspice"]:
                raise StoreError(
                    f"was run with ngspice {there}, this one is {versions['ngspice']}",
                    where=str(self.folder), remedy="use the same, or give another folder",
                )  # fmt: skip
            _write(self.folder / RUN, self.known)


def _folder(directory: str | Path) -> Path:
    """A folder by its full name: its lock lies beside it."""
    folder = Path(directory).resolve()
    if not folder.name:
        raise StoreError("is no folder of a run", where=str(folder), remedy="give another")
    return folder


def _opened(folder: Path, described: Mapping[str, str], text: str) -> dict[str, Any]:
    """What a folder's run is; a new one is begun. Raises StoreError where it is another."""
    where, remedy = str(folder), "give another folder, or remove this one to start anew"
    versions = {"spicenn": __version__, "numpy": np.__version__}
    path = folder / RUN
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            if any(folder.iterdir()):
                raise StoreError("holds something that is no run", where=where, remedy=remedy)
            known = {
                "spicenn": _SCHEMA, "kind": "learning", "described": dict(described),
                "versions": versions,
            }  # fmt: skip
            _write(path, known)
        known = json.loads(path.read_text("utf-8"))
        if known["spicenn"] != _SCHEMA or known["kind"] != "learning":
            raise ValueError("it is of another kind")
        there = {**known["described"], **known["versions"]}
        asked = {**described, **versions}
        there.pop("ngspice", None)
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror}", where=where) from error
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{RUN} is not that of a run: {type(error).__name__}", where=where, remedy=remedy
        ) from error
    if there.get("by") != asked["by"]:
        raise StoreError(
            f"holds a run by {there.get('by')}, not by {asked['by']}", where=where, remedy=remedy
        )
    differing = sorted(name for name in {*there, *asked} if there.get(name) != asked.get(name))
    if differing:
        raise StoreError(
            f"holds a run that differs in {', '.join(differing)}", where=where, remedy=remedy
        )
    (folder / CONFIGURATION).write_text(text, "utf-8")
    found: dict[str, Any] = known
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON that is whole at any time."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    aside.write_text(json.dumps(content, indent=1), "utf-8")
    aside.replace(path)
