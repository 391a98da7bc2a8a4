"""``spicenn run``: a Monte Carlo study of manufactured chips."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.codes import INCOMPLETE
from spicenn.cli.types import COUNT, FILE, SWEEP, sweeps

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

_EPILOG = """\b
Examples
  spicenn run net.spicenn x_test.npy --chips 200 --seed 2024 --store runs/a.zarr
  spicenn run net.spicenn x_test.npy --chips 50 --seed 2024 --store runs/wires.zarr \\
      --sweep r_wordline=0,2,5 --sweep corner=tt,ss
  spicenn run net.spicenn x_test.npy --chips 2000 --seed 2024 --store runs/c.zarr \\
      --engine nodal --crosscheck 0.05
  spicenn run net.spicenn x_test.npy --chips 5000 --seed 2024 --store runs/b.zarr \\
      --scheduler tcp://10.0.0.5:8786

A study that was interrupted or killed goes on where it was when the same command
is given again; with more --chips it is extended.
"""


@click.command(epilog=_EPILOG)
@click.argument("design", type=FILE, metavar="DESIGN")
@click.argument("inputs", type=FILE, metavar="INPUT.npy")
@click.option("--chips", type=COUNT, required=True, help="How many chips to manufacture.")
@options.seed(required=True)
@click.option("--store", type=FILE, required=True, help="Zarr store of the record, e.g. a.zarr.")
@options.engine
@options.trials
@click.option(
    "--sweep",
    "sweep",
    type=SWEEP,
    multiple=True,
    callback=sweeps,
    help="Vary a technology key; suffixes as in 2k or 100u; may be repeated.",
)
@click.option(
    "--keep",
    type=click.Choice(["bitline_current", "g_target", "g"]),
    multiple=True,
    help="Record this of every tile, too; may be repeated.",
)
@click.option("--workers", type=COUNT, help="Processes of the local cluster; one per core if not.")
@click.option("--scheduler", metavar="ADDRESS", help="An existing Dask cluster to use instead.")
@options.timeout
@click.option(
    "--crosscheck",
    type=click.FloatRange(0.0, 1.0),
    metavar="SHARE",
    default=0.0,
    show_default=True,
    help="Share of the chips that also run in ngspice, to compare; not with --engine ngspice.",
)
@click.option(
    "--crosscheck-bound",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RATIO",
    default=1e-6,
    show_default=True,
    help="Largest difference of a current, over the tile's largest, that is let pass.",
)
@options.allow_include
@options.trust_model
@options.as_json
def run(
    design: Path,
    inputs: Path,
    chips: int,
    seed: int,
    store: Path,
    engine: str,
    trials: int,
    sweep: Mapping[str, tuple[Any, ...]] | None,
    keep: tuple[str, ...],
    workers: int | None,
    scheduler: str | None,
    timeout: float,
    crosscheck: float,
    crosscheck_bound: float,
    allow_include: tuple[Path, ...],
    trust_model: bool,
    as_json: bool,
) -> int:
    """Run INPUT.npy through many manufactured copies of DESIGN.

    Exits with 3 where the study is complete but some chips failed, or where ngspice
    disagrees by more than the bound.
    """
    if workers is not None and scheduler is not None:
        raise click.UsageError("--workers is for the local cluster; a --scheduler has its own")
    from spicenn.cli.files import load_inputs, make_parent
    from spicenn.cli.progress import chip_progress
    from spicenn.cli.text import note
    from spicenn.compiler import Design
    from spicenn.study import monte_carlo

    loaded = Design.load(design, allow_include=allow_include, trust_model=trust_model)
    x = load_inputs(inputs, tuple(port.name for port in loaded.program.inputs))
    make_parent(store)
    try:
        ds = monte_carlo(
            loaded,
            x,
            chips=chips,
            seed=seed,
            engine=engine,
            trials=trials,
            store=store,
            keep=keep,
            sweep=sweep,
            workers=workers,
            scheduler=scheduler,
            timeout=timeout,
            progress=chip_progress(),
            crosscheck=crosscheck,
            crosscheck_bound=crosscheck_bound,
        )
    except KeyboardInterrupt:
        if store.exists():
            note(f"what is finished is in {shlex.quote(str(store))}; the same command goes on")
        raise
    return summarise(ds, store, as_json=as_json)


def summarise(ds: xr.Dataset, store: Path, *, as_json: bool) -> int:
    """Print how a study ended; return the exit code."""
    from spicenn.cli.text import echo, echo_json, finite, seconds
    from spicenn.errors import Status
    from spicenn.report.numbers import status_counts
    from spicenn.study.crosscheck import agreement

    found = agreement(ds)
    disagrees = found is not None and found.exceeded > 0
    counts = status_counts(ds)
    total = sum(counts.values())
    good = counts.get(Status.OK, 0)
    runtime = float(ds["runtime"].sum(skipna=True))
    if as_json:
        echo_json(
            {
                "store": str(store),
                "runs": total,
                "status": {status.name.lower(): n for status, n in counts.items()},
                "simulation_seconds": runtime,
                "complete": good == total,
                "crosscheck": None
                if found is None
                else {
                    "share": found.share,
                    "bound": found.bound,
                    "runs": found.checked,
                    "exceeded": found.exceeded,
                    "failed": found.failed,
                    "worst": finite(found.worst),
                    "ok": not disagrees,
                },
            }
        )
    else:
        echo(f"store     {store}")
        echo(f"chips     {good} of {total} ok, {seconds(runtime)} of simulation")
        for status, number in counts.items():
            if status is not Status.OK:
                echo(f"          {number} {status.name.lower().replace('_', ' ')}")
        if found is not None:
            echo(f"checked   {'DISAGREES: ' if disagrees else ''}{found.finding}")
        echo(f"report    spicenn report {shlex.quote(str(store))} -o report.html")
    return INCOMPLETE if disagrees or good < total else 0
