"""``spicenn report``: a study as a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.types import FILE

if TYPE_CHECKING:
    import xarray as xr

    from spicenn.report import Evidence

_EPILOG = """\b
Examples
  spicenn report runs/a.zarr -o report.html
  spicenn report runs/a.zarr --labels y_test.npy -o report/ --pictures
  spicenn report runs/a.zarr --surrogate surrogate.pt --calibrated chip.pt --chip 1000 \\
      -o report.html
"""


@click.command(epilog=_EPILOG)
@click.argument("store", type=FILE, metavar="STORE")
@click.option("--labels", type=FILE, help="Class of every input (.npy); agreement is shown if not.")
@click.option("--surrogate", type=FILE, help="Surrogate of the population, from spicenn fit.")
@click.option("--calibrated", type=FILE, help="Model of one chip, from spicenn calibrate.")
@click.option(
    "--chip",
    type=click.IntRange(min=0),
    help="Index of that chip; it is simulated with the study's seed where the store lacks it.",
)
@options.timeout
@click.option("--pictures", is_flag=True, help="Write the figures as SVG and PNG beside the page.")
@click.option("-o", "--output", type=FILE, required=True, help="An .html file or a folder.")
@options.allow_include
@options.trust_model
@options.as_json
def report(
    store: Path,
    labels: Path | None,
    surrogate: Path | None,
    calibrated: Path | None,
    chip: int | None,
    timeout: float,
    pictures: bool,
    output: Path,
    allow_include: tuple[Path, ...],
    trust_model: bool,
    as_json: bool,
) -> None:
    """Write the study in STORE as one self-contained HTML page."""
    given = (surrogate is not None, calibrated is not None, chip is not None)
    if any(given) and not all(given):
        raise click.UsageError("--surrogate, --calibrated and --chip belong together")
    from spicenn.cli.files import load_labels
    from spicenn.cli.text import echo, echo_json, finite
    from spicenn.report import numbers, write_report
    from spicenn.study import open_record

    trust: dict[str, Any] = {"allow_include": allow_include, "trust_model": trust_model}
    ds = open_record(store)
    y = None if labels is None else load_labels(labels)
    evidence = None
    if surrogate is not None and calibrated is not None and chip is not None:
        evidence = _evidence(ds, surrogate, calibrated, chip, timeout, trust)
    page = write_report(ds, output, labels=y, evidence=evidence, pictures=pictures, **trust)
    if not as_json:
        echo(f"report    {page}")
        return
    stated = numbers(ds, y, **trust)
    point = stated.points[0]
    worst = stated.worst(point)
    echo_json(
        {
            "report": str(page),
            "score": stated.kind,
            "ideal": stated.ideal,
            "median": finite(point.median.estimate),
            "yield": {"threshold": stated.threshold, **point.passed._asdict()},
            "worst_chip": None if worst is None else stated.chips[worst],
            "failed": sum(p.failed for p in stated.points),
            "surrogate_error": None
            if evidence is None
            else {
                "before": finite(evidence.error(evidence.before)),
                "after": finite(evidence.error(evidence.after)),
            },
        }
    )


def _evidence(
    ds: xr.Dataset,
    surrogate: Path,
    calibrated: Path,
    chip: int,
    timeout: float,
    trust: dict[str, Any],
) -> Evidence:
    import numpy as np

    from spicenn.cli.text import note
    from spicenn.compiler.embedded import design_of, input_names, output_names
    from spicenn.errors import InputError, Status
    from spicenn.report import gather
    from spicenn.surrogate.latent_files import load, load_chip

    if ds.attrs.get("sweep"):
        raise InputError(
            "a surrogate cannot be shown beside a sweep", remedy="run one study without --sweep"
        )
    population, module = load(surrogate, **trust), load_chip(calibrated, **trust)
    design = design_of(ds, **trust)
    if population.design.hash != design.hash:
        raise InputError("the surrogate is of another design than the store", where=str(surrogate))
    inputs = tuple(np.asarray(ds[name].values) for name in input_names(design))
    engine = str(ds.attrs["engine"])
    truth: Any
    if chip in ds["chip"].values and ds["status"].sel(chip=chip) == Status.OK:
        name = output_names(design)[0]
        truth = ds[name].sel(chip=chip).mean("trial").values
    else:
        note(f"running chip {chip} in {engine} …")
        x = inputs if len(inputs) > 1 else inputs[0]
        truth = design.sample(chip, int(ds.attrs["seed"])).run(x, engine=engine, timeout=timeout)
        if isinstance(truth, dict):
            truth = truth[design.program.outputs[0].name]
    return gather(population, module, inputs, truth, chip=chip, engine=engine)
