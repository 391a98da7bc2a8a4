"""``spicenn energy``: what an inference costs on a study's chips."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.codes import INCOMPLETE
from spicenn.cli.types import COUNT, FILE

if TYPE_CHECKING:
    import xarray as xr

    from spicenn.compiler.energy import Mode
    from spicenn.report.energy import Costs

_EPILOG = """\b
Examples
  spicenn energy runs/a.zarr --samples 4 --chips 3
  spicenn energy runs/a.zarr --samples 4 --chips 3 --mode analog --tolerance 0.001
  spicenn report runs/a.zarr --labels y_test.npy -o report.html

Design, inputs and seed are the study's; the numbers are kept in its store, where
spicenn report finds them. Interrupted, the same command goes on where it was.
"""


@click.command(epilog=_EPILOG)
@click.argument("store", type=FILE, metavar="STORE")
@click.option(
    "--samples",
    type=COUNT,
    default=4,
    show_default=True,
    help="How many of the study's inputs, from the first on.",
)
@click.option(
    "--chips",
    type=COUNT,
    default=3,
    show_default=True,
    help="How many of the study's chips, from the first on.",
)
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "analog"]),
    default="hybrid",
    show_default=True,
    help="hybrid: layer by layer, converters between them; analog: the chip as one circuit.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="How near its final value, over the largest, an output counts as settled.",
)
@click.option(
    "--positions",
    type=COUNT,
    default=4,
    show_default=True,
    help="Output positions of a convolution that are simulated; the others count as their mean.",
)
@click.option("--workers", type=COUNT, help="Chips at a time; one per core if left out.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=60.0,
    show_default=True,
    help="What ngspice may take for one transient.",
)
@options.allow_include
@options.trust_model
@options.as_json
def energy(
    store: Path,
    samples: int,
    chips: int,
    mode: Mode,
    tolerance: float,
    positions: int,
    workers: int | None,
    timeout: float,
    allow_include: tuple[Path, ...],
    trust_model: bool,
    as_json: bool,
) -> int:
    """Measure energy and latency of an inference on chips of the study in STORE.

    Energy is the integral of voltage times current in ngspice until the outputs have
    settled, and what the technology declares for conversions. Exits with 3 where some
    chips failed.
    """
    import numpy as np

    from spicenn.cli.progress import chip_progress
    from spicenn.cli.text import note
    from spicenn.compiler.embedded import design_of, input_names
    from spicenn.compiler.energy import takes_time
    from spicenn.errors import InputError
    from spicenn.study import measure_energy, open_record

    ds = open_record(store)
    design = design_of(ds, allow_include=allow_include, trust_model=trust_model)
    for what, wanted, dim in (("inputs", samples, "sample"), ("chips", chips, "chip")):
        if wanted > ds.sizes[dim]:
            raise InputError(
                f"the study has {ds.sizes[dim]} {what}, {wanted} are asked for",
                where=str(store),
                remedy=f"ask for fewer, or run a study of more {what}",
            )
    x = tuple(np.asarray(ds[name].values[:samples]) for name in input_names(design))
    try:
        measured = measure_energy(
            design,
            x if len(x) > 1 else x[0],
            chips=[int(chip) for chip in ds["chip"].values[:chips]],
            seed=int(ds.attrs["seed"]),
            mode=mode,
            tolerance=tolerance,
            positions=positions,
            store=store,
            workers=workers,
            timeout=timeout,
            progress=chip_progress(),
        )
    except KeyboardInterrupt:
        note(f"what is finished is in {shlex.quote(str(store))}; the same command goes on")
        raise
    if not takes_time(design.technology):
        note(
            f"nothing in the technology {design.technology.name!r} takes time: energy and latency "
            "are those of the input's own step; see c_wordline, c_bitline, c_cell and "
            "periphery.tia.bandwidth, or take hfox-1t1r"
        )
    return _summarise(measured, store, as_json=as_json)


def _summarise(ds: xr.Dataset, store: Path, *, as_json: bool) -> int:
    """Print what was measured; return the exit code."""
    from spicenn.cli.text import echo, echo_json
    from spicenn.errors import Status
    from spicenn.report.energy import costs

    found = costs(ds)
    if as_json:
        echo_json(_plain(found, store))
    else:
        tolerance = float(found.attributes["tolerance"])
        good = found.chips - found.failed
        inputs = f"{found.samples} input{'s' if found.samples > 1 else ''}"
        echo(f"store     {store}")
        echo(f"mode      {found.mode}, settled within {100 * tolerance:g} %")
        echo(f"chips     {good} of {found.chips} ok, {inputs} each")
        for chip, status, message in zip(
            ds["chip"].values, ds["status"].values, ds["message"].values, strict=True
        ):
            if status != Status.OK:
                echo(f"          chip {chip}: {' '.join(str(message).split())}")
        if good:
            _echo_table(found)
        echo(f"report    spicenn report {shlex.quote(str(store))} -o report.html")
    return INCOMPLETE if found.failed else 0


def _echo_table(found: Costs) -> None:
    """One line per layer and component, and what an inference takes."""
    from spicenn.cli.text import echo
    from spicenn.report.quantity import quantity

    def say(value: float, unit: str, spread: float) -> str:
        return quantity(value, unit, digits=3, spread=spread)

    width = max(9, *(len(name) for name in found.layers))
    rows = [
        (layer, found.components[k], say(found.energy[i, k], "J", found.energy_spread[i, k]))
        for i, layer in enumerate(found.layers)
        for k in found.present
    ]
    echo()
    echo(f"{'layer':<{width}}  {'component':<9}  energy, mean ± deviation over chips")
    for layer, component, text in rows:
        echo(f"{layer:<{width}}  {component:<9}  {text}")
    echo()
    for i, layer in enumerate(found.layers):
        energy = say(found.layer_energy[i], "J", found.layer_energy_spread[i])
        latency = say(found.latency[i], "s", found.latency_spread[i])
        echo(f"{layer:<{width}}  {energy:<22}  {latency}")
    total = say(found.total, "J", found.total_spread)
    latency = say(found.total_latency, "s", found.total_latency_spread)
    echo(f"{'inference':<{width}}  {total:<22}  {latency}")
    echo()


def _plain(found: Costs, store: Path) -> dict[str, Any]:
    from spicenn.cli.text import finite

    return {
        "store": str(store),
        "mode": found.mode,
        "tolerance": found.attributes["tolerance"],
        "chips": found.chips,
        "failed": found.failed,
        "samples": found.samples,
        "layers": {
            layer: {
                "energy": {
                    component: {
                        "mean": finite(found.energy[i, k]),
                        "deviation": finite(found.energy_spread[i, k]),
                    }
                    for k, component in enumerate(found.components)
                },
                "latency": {
                    "mean": finite(found.latency[i]),
                    "deviation": finite(found.latency_spread[i]),
                },
            }
            for i, layer in enumerate(found.layers)
        },
        "energy": {"mean": finite(found.total), "deviation": finite(found.total_spread)},
        "latency": {
            "mean": finite(found.total_latency),
            "deviation": finite(found.total_latency_spread),
        },
    }
