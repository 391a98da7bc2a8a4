"""A worker process of the local cluster. It lives no longer than the client that started it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
import tempfile
import threading

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Serve a scheduler: ``[scheduler's address, worker's name, client's process id]``."""
    address, name, parent = arguments
    die_with(int(parent))
    # Ctrl-C reaches the whole terminal; the client decides what comes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(_serve(address, name))


def die_with(parent: int) -> None:
    """End this process when its parent does: by the kernel's signal, and by the closed pipe.

    The parent holds the other end of standard input and never writes to it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the request
            os._exit(1)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


async def _serve(address: str, name: str) -> None:
    from distributed import Worker

    # Nothing spills (no memory limit), so the folder that Dask insists on can go at
    # once: a killed worker leaves no file behind.
    with tempfile.TemporaryDirectory(prefix="spicenn-") as scratch:
        worker = await Worker(
            address,
            name=name,
            nthreads=1,
            host="127.0.0.1",
            memory_limit=0,
            local_directory=scratch,
            dashboard=False,
            dashboard_address="127.0.0.1:0",
            death_timeout=60,
        )
    await worker.finished()
