"""Workers: a local cluster of our own, or one that exists."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import IO, Any

from spicenn.errors import EngineError, InputError

# Runs in the fresh interpreter before anything else: our modules come from where the
# client found them, and the client's main script is never imported.
_BOOT = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from spicenn.study.worker import main; main(sys.argv[2:])"
)
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
# Seconds that an existing scheduler has for its answer.
_CONNECT = 10.0
# Workers that one task may take along before it is given up.
_LIVES = 3
# Seconds without any worker after which a study gives up.
_NO_WORKER = 60.0


class LocalWorkers:
    """Worker processes of one thread each, replaced when they die.

    One thread starts them all and lives as long as they do: the kernel's parent-death
    signal watches the thread that started a process, not the process.
    """

    def __init__(self, address: str, count: int) -> None:
        self.failure: str | None = None
        self._address = address
        self._count = count
        self._deaths = 0
        self._closing = threading.Event()
        self._processes: dict[int, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._thread = threading.Thread(
            target=self._keep_alive, name="spicenn-workers", daemon=True
        )
        self._thread.start()

    def useful(self) -> None:
        """Note that a task was finished: deaths before it are forgiven."""
        self._deaths = 0

    def close(self) -> None:
        """End every worker and wait for it."""
        self._closing.set()
        self._thread.join()

    def _keep_alive(self) -> None:
        try:
            while not self._closing.wait(0.05 if self._processes else 0.0):
                for slot in range(self._count):
                    self._check(slot)
                if self.failure is not None:
                    break
        finally:
            self._end()

    def _check(self, slot: int) -> None:
        if slot in self._processes:
            process, log = self._processes[slot]
            if process.poll() is None:
                return
            self._deaths += 1
            # Each of the workers may be running a task that is still to be given up.
            if self._deaths > self._count * _LIVES + 1:
                self.failure = _tail(log) or f"exit status {process.returncode}"
                return
            self._forget(slot)
        self._processes[slot] = self._start(slot)

    def _start(self, slot: int) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
        # An unlinked file: what workers say is read only where all of them die.
        log = tempfile.TemporaryFile()  # noqa: SIM115
        arguments = [json.dumps(sys.path), self._address, f"spicenn-{slot}", str(os.getpid())]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, *arguments],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env={**os.environ, **dict.fromkeys(_THREAD_LIMITS, "1")},
        )
        return process, log

    def _end(self) -> None:
        for process, _ in self._processes.values():
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
        deadline = monotonic() + 2.0
        for slot, (process, _) in list(self._processes.items()):
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._forget(slot)

    def _forget(self, slot: int) -> None:
        process, log = self._processes.pop(slot)
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        log.close()


@dataclass
class Connection:
    """A client and the workers behind it."""

    client: Any
    local: LocalWorkers | None
    _seen: float

    def threads(self) -> int:
        """Tasks that can run at the same time now."""
        return int(sum(self.client.nthreads().values()))

    def useful(self) -> None:
        """Note that a task was finished."""
        self._seen = monotonic()
        if self.local is not None:
            self.local.useful()

    def check(self) -> None:
        """Raise EngineError where no task can ever finish again."""
        if self.local is not None and self.local.failure is not None:
            raise EngineError(
                f"no worker stays alive; the last one said: {self.local.failure}",
                remedy="see whether memory runs out, or try workers=1",
            )
        if self.client.status not in ("running", "connecting"):
            raise EngineError("the connection to the scheduler is lost", where=str(self.client))
        if self.threads():
            self._seen = monotonic()
        elif monotonic() - self._seen > _NO_WORKER:
            raise EngineError(
                f"the scheduler has had no worker for {_NO_WORKER:g} s",
                remedy="start workers, or leave the scheduler out for a local cluster",
            )


@contextmanager
def connect(scheduler: str | None, workers: int | None) -> Iterator[Connection]:
    """Start a local cluster, or use the one at an address, for the length of the block.

    Raises InputError for a bad number of workers or both arguments at once, and
    EngineError where no worker answers.
    """
    if scheduler is not None:
        if workers is not None:
            raise InputError("workers is for the local cluster; a scheduler has its own")
        with _client(scheduler) as client:
            yield _waiting(Connection(client, None, monotonic()))
        return
    count = default_workers() if workers is None else workers
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1024:
        raise InputError(f"workers = {workers!r} is not an integer in 1 … 1024")
    with _local_scheduler() as address, _client(address) as client:
        local = LocalWorkers(address, count)
        try:
            yield _waiting(Connection(client, local, monotonic()))
        finally:
            local.close()


def default_workers() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _waiting(connection: Connection) -> Connection:
    while not connection.threads():
        connection.check()
        sleep(0.02)
    return connection


@contextmanager
def _client(address: str) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(  # type: ignore[no-untyped-call]
            address, set_as_default=False, timeout=_CONNECT
        )
    except (OSError, ValueError) as error:
        raise EngineError(
            f"no scheduler answers: {error}", where=address, remedy="check the address"
        ) from error
    try:
        yield client
    finally:
        client.close()  # type: ignore[no-untyped-call]


@contextmanager
def _local_scheduler() -> Iterator[str]:
    """Run a scheduler in this process; yield its address."""
    import dask
    from distributed import Scheduler, SpecCluster
    from distributed.utils import silence_logging_cmgr

    with tempfile.TemporaryDirectory(prefix="spicenn-") as scratch:
        # One task at a time per worker: a task that kills its worker takes no other along.
        settings = {
            "temporary-directory": scratch,
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.scheduler.allowed-failures": _LIVES - 1,
        }
        options = {
            "host": "127.0.0.1",
            "port": 0,
            "protocol": "tcp://",
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        }
        # Around the whole of it: what Dask's own switch silences ends before the last
        # connection does, and a closed one is logged with a traceback.
        with silence_logging_cmgr(logging.CRITICAL):
            with dask.config.set(settings):
                cluster = SpecCluster(  # type: ignore[no-untyped-call]
                    scheduler={"cls": Scheduler, "options": options}, silence_logs=False
                )
            try:
                yield str(cluster.scheduler_address)
            finally:
                cluster.close()


def _tail(log: IO[bytes]) -> str:
    log.seek(0, os.SEEK_END)
    log.seek(max(0, log.tell() - 2000))
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
