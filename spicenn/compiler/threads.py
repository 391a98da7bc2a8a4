"""How many threads the numeric libraries use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch and BLAS to one thread, as a block or as a function's decorator.

    The order of a sum decides its last bit, and a tile's matrices are small: where
    other processes want the cores, several threads mostly wait for each other
    (measured: a fit of seconds became one of minutes).
    """
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    before = torch.get_num_threads()
    with threadpool_limits(1):
        if before != 1:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if before != 1:
                torch.set_num_threads(before)
