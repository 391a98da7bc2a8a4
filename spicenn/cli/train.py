"""``spicenn train``: a design's network, trained for its hardware or on a chip."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.options import Command
from spicenn.cli.signals import terminable
from spicenn.cli.types import COUNT, FILE

if TYPE_CHECKING:
    from spicenn.compiler import Design
    from spicenn.training.run import Run

_EPILOG = """\b
Examples
  spicenn train net.spicenn x.npy y.npy --seed 1 --clip 2.5 --validation xv.npy yv.npy \\
      -o trained.spicenn --plot training.png
  spicenn train net.spicenn x.npy y.npy --seed 1 --chips 50 -o population.spicenn
  spicenn train net.spicenn x.npy y.npy --seed 2024 --in-the-loop --chip 7 -o chip7.spicenn

\b
An interrupted or killed command goes on from its last checkpoint when it is given again.
"""

# Where to look for a noise or a resolution instead of a number.
_HARDWARE, _NONE = "hardware", "none"


def _level(name: str, number: type, text: str) -> Callable[[Command], Command]:
    """An option that is a number, ``hardware`` or ``none``."""

    def read(ctx: click.Context, param: click.Parameter, value: str) -> Any:
        if value == _HARDWARE:
            return value
        try:
            return None if value == _NONE else number(value)
        except ValueError:
            raise click.BadParameter(
                f"{value!r} is neither a number, hardware nor none", ctx, param
            ) from None

    return click.option(
        name, callback=read, metavar="NUMBER|hardware|none", default=_HARDWARE, show_default=True,
        help=text,
    )  # fmt: skip


@click.command(epilog=_EPILOG)
@click.argument("design", type=FILE, metavar="DESIGN")
@click.argument("inputs", type=FILE, metavar="X.npy")
@click.argument("labels", type=FILE, metavar="Y.npy")
@click.option("--epochs", type=COUNT, default=10, show_default=True, help="Passes of all samples.")
@click.option("--batch", type=COUNT, default=64, show_default=True, help="Samples of a step.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True,
    help="Learning rate of Adam.",
)  # fmt: skip
@options.seed(required=True)
@_level("--weight-noise", float, "Standard deviation of weights, over a layer's largest.")
@_level("--read-noise", float, "That of one read of a weight.")
@click.option(
    "--clip", type=click.FloatRange(min=0, min_open=True),
    help="Keep weights within so many standard deviations of their layer's; free if left out.",
)  # fmt: skip
@_level("--bits", int, "Resolution of weights.")
@_level("--input-bits", int, "Resolution of inputs.")
@_level("--output-bits", int, "Resolution of outputs.")
@click.option(
    "--wires", type=click.Choice(["none", "frozen", "ladder", "exact"]), default="frozen",
    show_default=True, help="How wire resistance is followed as weights change.",
)  # fmt: skip
@click.option(
    "--ranges", type=click.Choice(["track", "learn", "fixed"]), default="track", show_default=True,
    help="Ranges of inputs and converters: of the signals, learnt, or the design's.",
)  # fmt: skip
@click.option(
    "--chips", type=click.IntRange(min=0), default=0, show_default=True,
    help="Train over a population: every pass is one of so many chips.",
)  # fmt: skip
@click.option(
    "--jacobian", type=click.FloatRange(min=0), default=0.0, show_default=True, metavar="LAMBDA",
    help="Weight of the norm of d output / d input in the loss.",
)  # fmt: skip
@click.option(
    "--surrogate", type=FILE, metavar="FILE.pt",
    help="What spicenn fit or calibrate wrote: what is known of the hardware, in the place of "
    "the design's technology.",
)  # fmt: skip
@click.option("--in-the-loop", is_flag=True, help="Values from a chip, derivatives from here.")
@click.option("--chip", type=click.IntRange(min=0), help="Which chip; --seed and it fix one.")
@options.engine
@options.timeout
@click.option(
    "--validation", type=FILE, nargs=2, metavar="X.npy Y.npy", help="To look at after every epoch."
)
@click.option("-o", "--output", type=FILE, required=True, help="Where the trained design goes.")
@click.option(
    "--log", type=FILE, metavar="DIR",
    help="Where the checkpoint and log.jsonl are kept; OUTPUT.training if left out.",
)  # fmt: skip
@click.option("--save-every", type=COUNT, metavar="STEPS", help="Checkpoints within an epoch, too.")
@click.option("--plot", type=FILE, metavar="PNG", help="Draw the log.")
@options.allow_include
@options.trust_model
@options.as_json
def train(
    design: Path,
    inputs: Path,
    labels: Path,
    output: Path,
    log: Path | None,
    plot: Path | None,
    as_json: bool,
    allow_include: tuple[Path, ...],
    trust_model: bool,
    **settings: Any,
) -> None:
    """Train DESIGN's network on X.npy and Y.npy with the hardware in the forward pass.

    Y.npy has integers for classes, or floats of the outputs' shape for mean squares. What
    comes out is DESIGN with the trained weights.
    """
    if settings["in_the_loop"] != (settings["chip"] is not None):
        raise click.UsageError("--in-the-loop and --chip belong together")
    from spicenn.cli.files import load_array, load_inputs, make_parent
    from spicenn.cli.text import note
    from spicenn.compiler import Design
    from spicenn.compiler.threads import one_thread

    loaded = Design.load(design, allow_include=allow_include, trust_model=trust_model)
    names = tuple(port.name for port in loaded.program.inputs)
    x, y = load_inputs(inputs, names), load_array(labels)
    given = settings.pop("validation")
    validation = None if not given else (load_inputs(given[0], names), load_array(given[1]))
    hardware = _hardware(loaded, settings.pop("surrogate"), allow_include, trust_model)
    folder = log or output.with_name(f"{output.name}.training")
    make_parent(output)
    with one_thread(), terminable():
        try:
            trained, run = _train(loaded, hardware, (x, y), validation, folder, settings)
        except KeyboardInterrupt:
            if folder.exists():
                note(f"the last checkpoint is in {shlex.quote(str(folder))}; "
                     "the same command goes on")  # fmt: skip
            raise
    trained.save(output)
    if plot is not None:
        from spicenn.report.training import plot_training

        make_parent(plot)
        plot_training(run.log, plot)
    _print(run, output, folder, plot, as_json)


def _hardware(
    design: Design, surrogate: Path | None, allow_include: tuple[Path, ...], trust_model: bool
) -> Any:
    """The design itself, or what a file knows of its chips."""
    if surrogate is None:
        return design
    from spicenn.errors import DesignError, InputError
    from spicenn.surrogate import ChipModel, Surrogate

    found: Any
    try:
        found = ChipModel.load(surrogate, allow_include=allow_include, trust_model=trust_model)
    except DesignError:
        found = Surrogate.load(surrogate, allow_include=allow_include, trust_model=trust_model)
    if found.design.hash != design.hash:
        raise InputError(
            "is of another design", where=str(surrogate), remedy="fit one to this design's study"
        )
    return found


def _train(
    design: Design,
    hardware: Any,
    samples: tuple[Any, Any],
    validation: tuple[Any, Any] | None,
    folder: Path,
    settings: dict[str, Any],
) -> tuple[Design, Run]:
    from spicenn.cli.progress import training_progress
    from spicenn.compiler.execute import as_inputs
    from spicenn.engines import open_engine
    from spicenn.training import Awareness, analog, in_loop
    from spicenn.training.penalties import jacobian_penalty
    from spicenn.training.run import train as run_training

    seed, weight = settings["seed"], settings["jacobian"]
    awareness = Awareness(
        weight_noise=settings["weight_noise"],
        read_noise=settings["read_noise"],
        chips=settings["chips"],
        clip=settings["clip"],
        weight_bits=settings["bits"],
        input_bits=settings["input_bits"],
        output_bits=settings["output_bits"],
        wires=settings["wires"],
        ranges=settings["ranges"],
    )
    analog_net = analog(design.to_torch(), hardware, awareness=awareness, seed=seed)
    x, xv = (
        None if given is None else as_inputs(design, given[0]) for given in (samples, validation)
    )
    net, loop = analog_net, None
    with ExitStack() as stack:
        if settings["in_the_loop"]:
            engine = stack.enter_context(
                open_engine(settings["engine"], timeout=settings["timeout"])
            )
            net = loop = in_loop(analog_net, design.sample(settings["chip"], seed), engine)
        progress = stack.enter_context(training_progress())
        run = run_training(
            net, x, samples[1],
            epochs=settings["epochs"], batch=settings["batch"], rate=settings["rate"], seed=seed,
            validation=None if validation is None else (xv, validation[1]),
            penalty=(lambda net, x: weight * jacobian_penalty(net, x)) if weight else None,
            directory=folder, save_every=settings["save_every"], progress=progress,
            configuration={"jacobian": weight},
        )  # fmt: skip
    if loop is not None:
        return loop.programmed().design, run  # with the ranges that it was trained with
    return design.with_weights(net, calibration=samples[0]), run


def _print(run: Run, output: Path, folder: Path, plot: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from spicenn.cli.text import echo, echo_json, echo_training

    last = run.log[-1]
    if as_json:
        echo_json(
            {
                "design": str(output),
                "log": str(folder),
                "plot": None if plot is None else str(plot),
                "resumed": run.resumed,
                **asdict(last),
            }
        )
        return
    echo_training(last, run.resumed)
    echo(f"design      {output}")
    echo(f"log         {folder}")
    if plot is not None:
        echo(f"plot        {plot}")
