"""How far a study is, on standard error: a live bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
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
