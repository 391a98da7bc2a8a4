"""What goes to a terminal: single lines, plain characters, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from spicenn.training.run import Epoch


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


def echo_training(last: Epoch, resumed: int, unit: str = "") -> None:
    """Print how a training ended: its last epoch, and the steps that a checkpoint had done."""
    echo(f"trained     {last.epoch} epochs, {last.step} steps, {seconds(last.seconds)}")
    if resumed:
        echo(f"resumed     after {resumed} steps")
    for name, loss, accuracy in (
        ("training", last.loss, last.accuracy),
        ("validation", last.validation_loss, last.validation_accuracy),
    ):
        if loss is not None:
            share = "" if accuracy is None else f", accuracy {100 * accuracy:.2f} %"
            echo(f"{name:11} loss {loss:.4g}{unit}{share}")


def finite(value: float) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinity."""
    return float(value) if value == value and abs(value) != float("inf") else None
