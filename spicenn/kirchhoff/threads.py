"""How many threads a solve uses, and how its problems are shared out."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from typing import Any

from spicenn.errors import InputError

# What these say holds for us too. Dask's workers get the first of them, never numba's.
_LIMITS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
# Cells times problems below which a second thread costs more than it saves.
_SMALL = 100_000


def thread_count(threads: Any = None) -> int:
    """Threads to use: as many as asked for, or the cores that this process was given.

    Those are the cores it may run on, at most OMP_NUM_THREADS or NUMBA_NUM_THREADS
    where they are set. Raises InputError for a count that is not a positive integer.
    """
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, Integral) or threads < 1:
            raise InputError(f"threads = {threads!r} is not a positive integer")
        return int(threads)
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    for name in _LIMITS:
        value = os.environ.get(name, "").split(",")[0]
        if value.isdigit() and int(value) > 0:
            count = min(count, int(value))
    return count


def share_out(run: Callable[[int, int], None], problems: int, cells: int, threads: int) -> None:
    """Call run(start, stop) so that every problem is run once, on so many threads.

    Plain threads around compiled code that holds no lock: numba's own layer ends the
    process where two threads call it.
    """
    threads = min(threads, problems)
    if threads <= 1 or problems * cells < _SMALL:
        run(0, problems)
        return
    # A few shares per thread: problems differ in their iterations.
    shares = min(problems, 4 * threads)
    edges = [problems * k // shares for k in range(shares + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, edges[:-1], edges[1:]))
