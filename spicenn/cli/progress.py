"""How far a run is, on standard error: a live bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any

from spicenn.cli.text import note

if TYPE_CHECKING:
    from spicenn.learning.run import Progress as LearningState
    from spicenn.training.run import Progress

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

    whole = quantity(until, "s")

    def said(time: float, events: int, seconds: float) -> tuple[str, str]:
        rate = events / max(seconds, 1e-9)
        return f"{quantity(time, 's')} of {whole}", f"{events} events, {rate:.0f}/s"

    with _shown(until, said) as report:
        yield report


@contextmanager
def training_progress() -> Iterator[Callable[[Progress], None]]:
    """Yield what ``training.run.train(progress=…)`` takes."""

    def said(done: float, now: Progress, seconds: float) -> tuple[str, str]:
        return f"epoch {now.epoch}/{now.epochs}", f"loss {now.loss:.4g}"

    with _shown(1.0, said) as report:
        yield lambda now: report((now.epoch - 1 + now.step / now.steps) / now.epochs, now)


@contextmanager
def learning_progress() -> Iterator[Callable[[LearningState], None]]:
    """Yield what ``learning.run.learn_chips(progress=…)`` takes."""

    def said(done: float, now: LearningState, seconds: float) -> tuple[str, str]:
        failures = f", {now.failed} failed" if now.failed else ""
        error = f"error {now.error:.2e} V²" if now.error == now.error else "no error yet"
        chips = f", chips {now.finished}/{now.chips}" if now.chips > 1 else ""
        return f"slots {now.done}/{now.slots}{chips}{failures}", error

    with _shown(1.0, said) as report:
        yield lambda now: report(now.done / now.slots, now)


@contextmanager
def _shown(
    until: float, said: Callable[[float, Any, float], tuple[str, str]]
) -> Iterator[Callable[[float, Any], None]]:
    """A bar on a terminal, lines in a log, of how far something is and what goes with it.

    ``said`` has the two in words, given both and the seconds so far.
    """
    if sys.stderr.isatty():
        with _bar(until, said) as report:
            yield report
        return
    start = last = monotonic()

    def line(reached: float, about: Any) -> None:
        nonlocal last
        if monotonic() - last >= _INTERVAL:
            last = monotonic()
            seconds = last - start
            note(f"{', '.join(said(reached, about, seconds))}, {seconds:.0f} s")

    yield line


@contextmanager
def _bar(
    until: float, said: Callable[[float, Any, float], tuple[str, str]]
) -> Iterator[Callable[[float, Any], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("[bold]{task.fields[reached]}"),
        BarColumn(),
        TextColumn("{task.fields[about]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
    with bar:
        start = monotonic()
        task = bar.add_task("", total=until, reached="", about="")

        def report(reached: float, about: Any) -> None:
            words = said(reached, about, monotonic() - start)
            bar.update(task, completed=min(reached, until), reached=words[0], about=words[1])

        yield report
