"""``spicenn technology``: what can be manufactured; list it, look at it, fit it to data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.types import FILE, SWEEP, TECHNOLOGY

if TYPE_CHECKING:
    from spicenn.technology import Technology

_EPILOG = """\b
Examples
  spicenn technology list
  spicenn technology show rram-1r
  spicenn technology fit iv.csv programming.csv drift.csv -o mine.toml
"""

_FIT_EPILOG = """\b
Files, known by their columns; a unit stands in brackets or after an underscore
  voltage [V], current [uA], device, state      cell, g_min, g_max, v_read
  target [uS], programmed [uS], device, cycle   programming error, cycle to cycle
  time [s], conductance [uS], device, target    drift

\b
Examples
  spicenn technology fit iv.csv -o mine.toml
  spicenn technology fit programming.csv drift.csv -o mine.toml --base rram-1r \\
      --set v_read=0.2 --set g_max=50u
  spicenn compile model:build --trust-model --example x.npy --technology mine.toml -o net.spicenn

\b
Keys that the data do not determine are --set, or come from --base; the table that is
printed, and the file, say which.
"""


def _assignments(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> dict[str, Any]:
    """Join repeated KEY=VALUE options; one key may come once, with one value."""
    joined: dict[str, Any] = {}
    for text in value:
        if "," in text:
            raise click.BadParameter(f"{text!r} has several values", ctx, param)
        key, values = SWEEP.convert(text, param, ctx)
        if key in joined:
            raise click.BadParameter(f"{key!r} is given twice", ctx, param)
        joined[key] = values[0]
    return joined


@click.group(epilog=_EPILOG)
def technology() -> None:
    """List, show and fit technologies: what can be manufactured."""


@technology.command("list", epilog="\b\nExample\n  spicenn technology list --json\n")
@options.as_json
def list_(as_json: bool) -> None:
    """List the technologies that ship with spicenn."""
    from spicenn.cli.text import echo, echo_json
    from spicenn.technology import Technology
    from spicenn.technology.fit.assemble import number

    presets = [Technology.preset(name) for name in Technology.presets()]
    if as_json:
        echo_json({"technologies": [_summary(preset) for preset in presets]})
        return
    width = max(len(preset.name) for preset in presets)
    for preset in presets:
        span = f"{number(preset.g_min, 'S')} to {number(preset.g_max, 'S')}"
        echo(f"{preset.name:<{width}}  {preset.cell.name:<10}  {span:<22}  {_first(preset.source)}")


@technology.command("show", epilog="\b\nExample\n  spicenn technology show mine.toml\n")
@click.argument("technology", type=TECHNOLOGY, metavar="NAME|FILE.toml")
@options.as_json
def show(technology: Technology, as_json: bool) -> None:
    """Print every key of a technology with its unit, and where the numbers come from."""
    from spicenn.cli.text import echo, echo_json
    from spicenn.technology.fit.assemble import number
    from spicenn.technology.toml import to_dict
    from spicenn.technology.units import UNITS
    from spicenn.technology.writer import flat

    if as_json:
        echo_json(to_dict(technology))
        return
    values = {key: value for key, value in flat(technology).items() if key != "source"}
    width = max(map(len, values))
    for key, value in values.items():
        echo(f"{key:<{width}}  {number(value, UNITS.get(key, ''))}")
    echo()
    echo(technology.source or "no source is given")


@technology.command("fit", epilog=_FIT_EPILOG)
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="DATA.csv…")
@click.option("-o", "--output", type=FILE, required=True, help="Where the technology goes (.toml).")
@click.option("--name", help="What it is called; the output's name if not given.")
@click.option(
    "--base",
    type=TECHNOLOGY,
    default="ideal",
    show_default=True,
    help="Technology for all that the data do not determine.",
)
@click.option(
    "--set",
    "given",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_assignments,
    help="A key that is known otherwise, e.g. v_read=0.2; may be repeated.",
)
@options.as_json
def fit(
    files: tuple[Path, ...],
    output: Path,
    name: str | None,
    base: Technology,
    given: dict[str, Any],
    as_json: bool,
) -> None:
    """Fit a technology to measured devices.

    Prints every number with its standard error and where it comes from. Cells are ohmic
    or sinh, programming errors normal, lognormal or state-dependent, whichever has the
    lower BIC.
    """
    from spicenn.cli.files import make_parent
    from spicenn.cli.text import echo, echo_json
    from spicenn.errors import InputError
    from spicenn.technology.fit import fit_technology

    if output.suffix != ".toml":
        raise InputError(
            "a technology is a .toml file", where=str(output), remedy="end its name in .toml"
        )
    fitted = fit_technology(files, name=name or output.stem, base=base, given=given)
    make_parent(output)
    fitted.save(output)
    if as_json:
        rows = [vars(row) for row in fitted.rows]
        echo_json({"technology": str(output), "name": fitted.technology.name, "report": rows})
        return
    for line in fitted.lines():
        echo(line)
    echo(f"technology {output}")


def _summary(technology: Technology) -> dict[str, Any]:
    return {
        "name": technology.name,
        "cell": technology.cell.name,
        "g_min": technology.g_min,
        "g_max": technology.g_max,
        "v_read": technology.v_read,
        "source": technology.source,
    }


def _first(text: str) -> str:
    """The beginning of a source, as much as a line holds."""
    words = " ".join(text.split())
    return words if len(words) <= 60 else words[:59].rsplit(" ", 1)[0] + " …"
