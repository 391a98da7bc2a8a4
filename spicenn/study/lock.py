"""One client per store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spicenn.errors import StoreError


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the lock of a store, a file beside it.

    The kernel lets go of it when its process dies, however it dies. Raises
    StoreError where another client holds it or the folder cannot be written.
    """
    path = store.with_name(f".{store.name}.lock")
    descriptor = _acquire(path, store)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, store: Path) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error.strerror}",
                where=str(store),
                remedy="give a path that you may write to",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StoreError(
                "another study writes to this store",
                where=str(store),
                remedy="wait for it or stop it, or give another store",
            ) from error
        # The holder before may have removed the file between our open and our lock.
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)
