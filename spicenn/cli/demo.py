"""``spicenn demo``: the whole loop on real data, from training to a report."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.text import echo, note, seconds
from spicenn.cli.types import COUNT, FILE

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from spicenn.cli.digits import Digits
    from spicenn.compiler import Design
    from spicenn.report import Evidence

_SEED = 2024
_PROBES = 64
_EPILOG = """\b
Examples
  spicenn demo
  spicenn demo --out runs/small --chips 10 --images 20

A second run reuses what the first one wrote; an interrupted one goes on.
"""


@dataclass(frozen=True)
class _Files:
    """What the demo writes."""

    folder: Path
    images: int

    @property
    def design(self) -> Path:
        return self.folder / "digits.spicenn"

    @property
    def inputs(self) -> Path:
        return self.folder / f"x_test_{self.images}.npy"

    @property
    def labels(self) -> Path:
        return self.folder / f"y_test_{self.images}.npy"

    @property
    def netlists(self) -> Path:
        return self.folder / "netlists"

    @property
    def store(self) -> Path:
        return self.folder / f"study_{self.images}.zarr"

    @property
    def surrogate(self) -> Path:
        return self.folder / "surrogate.pt"

    def module(self, chip: int) -> Path:
        return self.folder / f"chip{chip}.pt"

    @property
    def measured(self) -> Path:
        return self.folder / "calibration.npz"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


@click.command(epilog=_EPILOG)
@click.option(
    "--out", type=FILE, default="runs/demo", show_default=True, help="Folder for all results."
)
@click.option(
    "--chips",
    type=click.IntRange(min=4),
    default=60,
    show_default=True,
    help="Manufactured chips of the study.",
)
@click.option(
    "--images",
    type=click.IntRange(min=4, max=250),
    default=100,
    show_default=True,
    help="Test images that every chip classifies.",
)
@options.engine
@click.option("--workers", type=COUNT, help="Processes of the local cluster; one per core if not.")
def demo(out: Path, chips: int, images: int, engine: str, workers: int | None) -> None:
    """Train, compile, manufacture, simulate, fit, calibrate, report.

    A small network learns scikit-learn's digits and becomes differential crossbar
    chips; every layer of every chip runs in ngspice. A surrogate is fitted to the
    chips and calibrated to one that the fit never saw.
    """
    from spicenn.cli.files import make_parent
    from spicenn.report import write_report

    start = perf_counter()
    files = _Files(out, images)
    make_parent(files.design)
    with _step("1/6 a network for real digits, compiled to rram-1r crossbars"):
        digits, design = _designed(files)
        x, y = digits.x_test[:images], digits.y_test[:images]
    with _step("2/6 netlists of chip 0"):
        design.sample(0, _SEED).to_spice(files.netlists)
    with _step(f"3/6 {chips} manufactured chips, {images} images each, every layer in {engine}"):
        ds = _studied(design, x, chips, engine, workers, files.store)
    unseen = max(1000, chips)
    evidence = _surrogate(ds, design, digits, images, engine, unseen, files)
    with _step("6/6 report"):
        write_report(ds, files.report, labels=y, evidence=evidence, pictures=False)
    _summary(files, evidence, engine, unseen, perf_counter() - start)


@contextmanager
def _step(title: str) -> Iterator[None]:
    start = perf_counter()
    note(title)
    yield
    note(f"    {seconds(perf_counter() - start)}")


def _designed(files: _Files) -> tuple[Digits, Design]:
    """The network on tiles; the design of an earlier run is used again."""
    import numpy as np

    from spicenn.cli import digits as job
    from spicenn.compiler import Design, compile
    from spicenn.technology import Technology

    digits = job.load()
    if files.design.exists():
        design = Design.load(files.design)
    else:
        model = job.train(digits, _SEED)
        right = job.accuracy(model, digits.x_test, digits.y_test)
        note(f"    accuracy in torch {100 * right:.1f} % of {len(digits.y_test)} test images")
        design = compile(
            model,
            digits.x_train[:4],
            technology=Technology.preset("rram-1r"),
            calibration=digits.x_train[:512],
        )
        design.save(files.design)
    for path, array in (
        (files.inputs, digits.x_test[: files.images]),
        (files.labels, digits.y_test[: files.images]),
    ):
        np.save(path, array)
    return digits, design


def _studied(
    design: Design,
    x: NDArray[Any],
    chips: int,
    engine: str,
    workers: int | None,
    store: Path,
) -> xr.Dataset:
    from spicenn.cli.progress import chip_progress
    from spicenn.study import monte_carlo

    try:
        return monte_carlo(
            design,
            x,
            chips=chips,
            seed=_SEED,
            engine=engine,
            store=store,
            workers=workers,
            progress=chip_progress(),
        )
    except KeyboardInterrupt:
        note("what is finished is kept; the same command goes on")
        raise


def _surrogate(
    ds: xr.Dataset,
    design: Design,
    digits: Digits,
    images: int,
    engine: str,
    chip: int,
    files: _Files,
) -> Evidence:
    """Fit and calibrate, or read what an earlier run of the same study left."""
    import numpy as np

    import spicenn
    from spicenn.report import gather
    from spicenn.surrogate import ChipModel, Surrogate

    # Neither the study's images nor, drawn from the training set, the probes.
    x = digits.x_test[images : 2 * images]
    key = {
        "spicenn": spicenn.__version__,
        "design": design.hash,
        "chips": ds.sizes["chip"],
        "images": images,
        "engine": engine,
    }
    saved = _read(files, key)
    if saved is None:
        truth, success, reason = _fitted(ds, design, digits, x, engine, chip, files)
        about = json.dumps({**key, "success": success, "reason": reason})
        aside = files.measured.with_suffix(".part.npz")
        np.savez(aside, truth=truth, about=np.array(about))
        # Last and whole: it says that the files beside it belong together.
        aside.replace(files.measured)
    else:
        note("4/6, 5/6 surrogate and calibration of an earlier run")
        truth, success, reason = saved
    population = Surrogate.load(files.surrogate)
    module = ChipModel.load(files.module(chip))
    return gather(
        population, module, (x,), truth, chip=chip, engine=engine, success=success, reason=reason
    )


def _fitted(
    ds: xr.Dataset,
    design: Design,
    digits: Digits,
    x: NDArray[Any],
    engine: str,
    index: int,
    files: _Files,
) -> tuple[NDArray[Any], bool, str]:
    """Fit, calibrate, save; return what the simulator gives for unseen images, and the verdict."""
    from spicenn.engines import open_engine
    from spicenn.surrogate import calibrate, fit

    files.measured.unlink(missing_ok=True)
    with _step(f"4/6 surrogate of the {ds.sizes['chip']} chips"):
        population = fit(ds)
        population.save(files.surrogate)
    with _step(f"5/6 calibration to chip {index}, which the fit never saw, by {_PROBES} probes"):
        probes = design.probe_vectors(digits.x_train[:512], count=_PROBES, seed=_SEED)
        chip = design.sample(index, _SEED)
        with open_engine(engine) as running:
            outputs, truth = chip.run(probes, engine=running), chip.run(x, engine=running)
        result = calibrate(population, probes, outputs)
        result.module.save(files.module(index))
    return truth, bool(result.success), result.reason


def _read(files: _Files, key: dict[str, Any]) -> tuple[NDArray[Any], bool, str] | None:
    """What an earlier run measured, None where it was another one."""
    import numpy as np

    if not files.measured.exists():
        return None
    try:
        with np.load(files.measured, allow_pickle=False) as saved:
            about, truth = json.loads(str(saved["about"])), np.asarray(saved["truth"])
    except (OSError, ValueError, KeyError):
        return None
    if {name: about.get(name) for name in key} != key:
        return None
    return truth, bool(about["success"]), str(about["reason"])


def _summary(files: _Files, evidence: Evidence, engine: str, chip: int, duration: float) -> None:
    before, after = evidence.error(evidence.before), evidence.error(evidence.after)
    verdict = "" if evidence.success else " (calibration refused)"
    echo()
    echo(
        f"Surrogate against {engine} on chip {chip} and unseen images: {100 * before:.2f} % of "
        f"full scale before calibration, {100 * after:.2f} % after{verdict}."
    )
    echo(f"Done in {seconds(duration)}. Written:")
    for what, path in (
        ("report", files.report),
        ("study", files.store),
        ("design", files.design),
        ("netlists", files.netlists),
        ("surrogate", files.surrogate),
        (f"chip {chip}", files.module(chip)),
        ("images", files.inputs),
        ("labels", files.labels),
    ):
        echo(f"  {what:<10} {path}")
    echo("Next, try:")
    for command in _next(files, chip):
        echo(f"  {command}")


def _next(files: _Files, chip: int) -> list[str]:
    # Where the environment is not active the name alone would not be found.
    program = "spicenn" if shutil.which("spicenn") else shlex.quote(sys.argv[0])
    design, inputs, labels, surrogate = (
        shlex.quote(str(path))
        for path in (files.design, files.inputs, files.labels, files.surrogate)
    )
    wires = shlex.quote(str(files.folder / "wires.zarr"))
    page = shlex.quote(str(files.folder / "wires.html"))
    other = shlex.quote(str(files.module(chip + 1)))
    return [
        f"{program} run {design} {inputs} --chips 40 --seed 1 --store {wires} --engine nodal "
        "--sweep r_wordline=0,5,20",
        f"{program} report {wires} --labels {labels} -o {page}",
        f"{program} calibrate {surrogate} --like {inputs} --chip {chip + 1} --seed {_SEED} "
        f"-o {other}",
    ]
