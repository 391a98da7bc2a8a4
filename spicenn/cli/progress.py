"""How far a run is, on standard error: a live bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from spicenn.cli.text import note

# Seconds between two lines in a log.
_INTERVAL = 5.0


def chip_progress() -> bool | Callable[[int, int, int], None]:
    """Return what ``monte_carlo(progress=…)`` takes: its own bar, or lines for a log."""
    return True if sys.stderr.isatty() else _lines()


def _lines() -> Callable[[int, int, int], None]:
    start = last = monotonic()

    def report(done: int, total: int, failed: int) -> None:
        nonlocal last
        now = monotonic()
        if done < total and now - last < _INTERVAL:
            return
        last = now
        failures = f", {failed} failed" if failed else ""
        note(f"chips {done}/{total}{failures}, {now - start:.0f} s")

    return report


@contextmanager
def time_progress(until: float) -> Iterator[Callable[[float, int], None]]:
    """Yield what to call with the time reached [s] and the number of events."""
    from spicenn.report.quantity import quantity

    start = last = monotonic()
    whole = quantity(until, "s")

    def said(time: float, events: int) -> tuple[str, str]:
        rate = events / max(monotonic() - start, 1e-9)
        return f"{quantity(time, 's')} of {whole}", f"{events} events, {rate:.0f}/s"

    if sys.stderr.isatty():
        with _time_bar(until, said) as report:
            yield report
        return

    def line(time: float, events: int) -> None:
        nonlocal last
        if monotonic() - last >= _INTERVAL:
            last = monotonic()
            note(f"{', '.join(said(time, events))}, {last - start:.0f} s")

    yield line


@contextmanager
def _time_bar(
    until: float, said: Callable[[float, int], tuple[str, str]]
) -> Iterator[Callable[[float, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("[bold]{task.fields[time]}"),
        BarColumn(),
        TextColumn("{task.fields[events]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with bar:
        time, events = said(0.0, 0)
        task = bar.add_task("time", total=until, time=time, events=events)

        def report(time: float, events: int) -> None:
            words = said(time, events)
            bar.update(task, completed=min(time, until), time=words[0], events=words[1])

        yield report
