"""Options that several commands share, worded once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from spicenn.cli.types import COUNT

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")

trust_model = click.option(
    "--trust-model",
    is_flag=True,
    is_eager=True,  # a technology's cell may need it
    help="Allow the model to execute code, which loading a .pt2 or a module:factory can do, "
    "and a cell's compiled models (OSDI), which are native code.",
)

trust_script = click.option(
    "--trust-script", is_flag=True, help="Allow the script to execute code, which is what it is."
)

allow_include = click.option(
    "--allow-include",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    multiple=True,
    is_eager=True,
    help="Folder that the files of a cell may lie in (netlists, libraries, compiled models); "
    "may be repeated. None if left out.",
)

timeout = click.option(
    "--timeout",
    # Plain seconds: with engineering suffixes "1m" would be a millisecond.
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="What ngspice may take for one tile of all inputs of one chip.",
)


def engine(command: Command) -> Command:
    """--engine."""
    return click.option(
        "--engine",
        type=click.Choice(["ngspice", "nodal"]),
        default="ngspice",
        show_default=True,
        help="ngspice is the truth; nodal solves the same tiles exactly and much faster, "
        "for cells whose law it knows (ohmic, sinh).",
    )(command)


def seed(*, required: bool) -> Callable[[Command], Command]:
    """--seed, which has no default: a study names its own."""
    return click.option(
        "--seed",
        type=click.IntRange(min=0),
        required=required,
        help="Root of all randomness; with an index it fixes every cell of a chip.",
    )


def trials(command: Command) -> Command:
    """--trials."""
    return click.option(
        "--trials", type=COUNT, default=1, show_default=True, help="Repeated noisy reads per chip."
    )(command)
