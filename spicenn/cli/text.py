"""What goes to a terminal: single lines, plain characters, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click


def printable(text: str) -> str:
    """Drop control characters: names out of a file must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def one_line(text: str) -> str:
    """Return the text as one printable line."""
    return printable(" ".join(text.split()))


def echo(text: str = "") -> None:
    """Print a line on standard output."""
    click.echo(printable(text))


def note(text: str) -> None:
    """Print a line on standard error: what is going on, never a result."""
    click.echo(printable(text), err=True)


def echo_json(data: Mapping[str, Any]) -> None:
    """Print one JSON object."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def seconds(value: float) -> str:
    """Return a duration as people write it."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return float(value) if value == value and abs(value) != float("inf") else None
