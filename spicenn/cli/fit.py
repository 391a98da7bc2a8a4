"""``spicenn fit``: a surrogate of all chips of a study."""

from __future__ import annotations

from pathlib import Path

import click

from spicenn.cli import options
from spicenn.cli.types import FILE

_EPILOG = """\b
Examples
  spicenn fit runs/a.zarr -o surrogate.pt
  spicenn fit runs/a.zarr --family neural -o surrogate.pt
"""


@click.command(epilog=_EPILOG)
@click.argument("store", type=FILE, metavar="STORE")
@click.option(
    "--family",
    type=click.Choice(["structural", "neural", "linear"]),
    default="structural",
    show_default=True,
    help="structural: the design's own cells and wires; neural: learned deviations from the "
    "ideal output; linear: the plain baseline.",
)
@click.option(
    "--wires",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="How far chips' wires differ: standard deviation of ln(resistance). Calibration then "
    "finds a chip's. Structural family only.",
)
@click.option("-o", "--output", type=FILE, required=True, help="Where the surrogate goes.")
@options.allow_include
@options.trust_model
@options.as_json
def fit(
    store: Path,
    family: str,
    wires: float,
    output: Path,
    allow_include: tuple[Path, ...],
    trust_model: bool,
    as_json: bool,
) -> None:
    """Fit a population surrogate to the chips of a study."""
    if wires and family != "structural":
        raise click.UsageError("--wires is of the structural family")
    from spicenn.cli.files import make_parent
    from spicenn.cli.text import echo, echo_json
    from spicenn.study import open_record
    from spicenn.surrogate import fit as fit_surrogate

    ds = open_record(store)
    own = {"wires": wires} if wires else {}
    surrogate = fit_surrogate(
        ds, family=family, allow_include=allow_include, trust_model=trust_model, **own
    )
    make_parent(output)
    surrogate.save(output)
    if as_json:
        echo_json({"surrogate": str(output), "family": family, "chips": int(ds.sizes["chip"])})
    else:
        echo(f"fitted the {family} family to {ds.sizes['chip']} chips")
        echo(f"surrogate {output}")
