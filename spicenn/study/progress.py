"""Telling how far a study is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called with the chips done, all chips, and how many of the done ones failed; a chip
# counts once per point of a sweep.
Progress = Callable[[int, int, int], None]


@contextmanager
def reporter(progress: Progress | bool | None) -> Iterator[Progress]:
    """Yield what to call: the caller's function, a bar on standard error, or nothing."""
    if callable(progress):
        yield progress
    elif progress:
        with _bar() as report:
            yield report
    else:
        yield lambda done, total, failed: None


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("[bold]chips"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("chips", total=None, failed="")

        def report(done: int, total: int, failed: int) -> None:
            bar.update(
                task, completed=done, total=total, failed=f"{failed} failed" if failed else ""
            )

        yield report
