"""``spicenn learn``: chips that learn in their own physics, as a configuration says."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spicenn.cli import options
from spicenn.cli.codes import INCOMPLETE
from spicenn.cli.signals import terminable
from spicenn.cli.types import COUNT, FILE

if TYPE_CHECKING:
    import xarray as xr

    from spicenn.learning.plan import FastPlan, Plan
    from spicenn.learning.run import Finished

_EPILOG = """\b
A configuration (docs/learn has more):
  [network]
  kind = "grid"              # or layered, graph, example
  rows = 4
  columns = 4
  inputs = ["n0_0", "n0_2"]
  outputs = ["n2_1"]

\b
  [hardware]                 # what is left out is ideal
  bias_std = "1m"

\b
  [task]
  inputs = [[0.05, 0.45], [0.45, 0.05]]
  labels = [[0.15], [0.30]]
  period = "4m"

\b
  [rule]
  name = "coupled_learning"  # or overclamping, equilibrium_propagation

\b
  [run]
  by = "circuit"             # or controller, events, model; fast for deep networks
  chips = 10
  seed = 1
  periods = 500
  start = 2.5

\b
Examples
  spicenn learn net.toml -o runs/net --plot
  spicenn learn net.toml --dry-run
  spicenn learn net.toml --netlists build

\b
An interrupted or killed command goes on where it was when it is given again; more periods
and more chips than before go on, too.
"""


@click.command(epilog=_EPILOG)
@click.argument("configuration", type=FILE, metavar="CONFIG.toml")
@click.option(
    "-o", "--output", type=FILE, metavar="DIR",
    help="Folder of the run: its checkpoints, record and pictures.",
)  # fmt: skip
@click.option(
    "--workers", type=COUNT, metavar="N",
    help="Chips at the same time, each with an ngspice of its own; as many as cores if left out.",
)  # fmt: skip
@click.option("--plot", is_flag=True, help="Draw errors, and the cycle of two values over theory.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and end.")
@click.option(
    "--netlists", type=FILE, metavar="FOLDER",
    help="Write every chip's circuit for plain ngspice -b, all slots in one transient, and end.",
)  # fmt: skip
@options.as_json
def learn(
    configuration: Path,
    output: Path | None,
    workers: int | None,
    plot: bool,
    dry_run: bool,
    netlists: Path | None,
    as_json: bool,
) -> int:
    """Have networks learn a task by a local rule, as CONFIG.toml says.

    Twins, clamps, updates and the tasks' switching are one transient of ngspice, chip by
    chip. Exits with 3 where the run is complete but some chips failed.
    """
    if output is None and not dry_run and netlists is None:
        raise click.UsageError("-o DIR says where the run goes; --dry-run and --netlists need none")
    from spicenn.learning.config import load
    from spicenn.learning.plan import FastPlan

    plan = load(configuration)
    if dry_run:
        _describe(plan, as_json)
        return 0
    if netlists is not None:
        _write(plan, netlists, as_json)
        return 0
    assert output is not None
    with terminable():
        try:
            if isinstance(plan, FastPlan):
                return _train(plan, output, plot, as_json)
            return _learn(plan, output, workers, plot, as_json)
        except KeyboardInterrupt:
            if output.exists():
                from spicenn.cli.text import note

                note(f"what is done is in {shlex.quote(str(output))}; the same command goes on")
            raise


def _learn(plan: Plan, output: Path, workers: int | None, plot: bool, as_json: bool) -> int:
    from spicenn.cli.progress import learning_progress
    from spicenn.learning.run import RECORD, learn_chips

    with learning_progress() as progress:
        done = learn_chips(plan, output, workers=workers, progress=progress)
    pictures: list[Path] = []
    if plot:
        from spicenn.report.learning_run import draw_run

        pictures = draw_run(plan, done.runs, output)
    return _print(done, output / RECORD, pictures, as_json)


def _print(done: Finished, record: Path, pictures: list[Path], as_json: bool) -> int:
    from spicenn.cli.text import echo, echo_json
    from spicenn.errors import Status

    rows = [_row(done.ds, position) for position in range(done.ds.sizes["chip"])]
    complete = all(row["status"] == Status.OK.name.lower() for row in rows)
    if as_json:
        echo_json(
            {
                "record": str(record),
                "resumed": done.resumed,
                "complete": complete,
                "chips": rows,
                "plots": [str(path) for path in pictures],
            }
        )
    else:
        _table(rows)
        if done.resumed:
            echo(f"resumed     after {done.resumed} slots")
        echo(f"record      {record}")
        for path in pictures:
            echo(f"plot        {path}")
    return 0 if complete else INCOMPLETE


def _row(ds: xr.Dataset, position: int) -> dict[str, Any]:
    """One chip's numbers, as JSON holds them."""
    from spicenn.cli.text import finite
    from spicenn.errors import Status
    from spicenn.learning.record import cycle_of

    one = ds.isel(chip=position)
    index = int(one["chip"])
    return {
        "chip": index,
        "status": Status(int(one["status"])).name.lower(),
        "message": str(one["message"].values),
        "slots": int((one["example"] >= 0).sum()),
        "mean_square_error": finite(float(one["mean_square_error"])),
        "cycle": finite(cycle_of(ds, position)),
        "cycle_units": str(ds["cycle"].attrs["units"]),
        "aborts": int((ds["abort_chip"] == index).sum()),
        "simulation_seconds": finite(float(one["runtime"])),
    }


def _table(rows: list[dict[str, Any]]) -> None:
    from spicenn.cli.text import echo, seconds
    from spicenn.report.quantity import quantity

    titles = ("chip", "status", "slots", "squared error", "D", "aborts", "time")
    table = [titles]
    for row in rows:
        error, cycle, time = (row[k] for k in ("mean_square_error", "cycle", "simulation_seconds"))
        table.append(
            (
                str(row["chip"]), row["status"].replace("_", " "), str(row["slots"]),
                "–" if error is None else f"{error:.3g} V²",
                "–" if cycle is None else quantity(cycle, row["cycle_units"]),
                str(row["aborts"]), "–" if time is None else seconds(time),
            )
        )  # fmt: skip
    widths = [max(len(line[k]) for line in table) for k in range(len(titles))]
    for line in table:
        words = [f"{word:<{width}}" for word, width in zip(line, widths, strict=True)]
        echo("  ".join(words).rstrip())
    for row in rows:
        if row["message"]:
            echo(f"chip {row['chip']}: {row['message']}")


def _train(plan: FastPlan, output: Path, plot: bool, as_json: bool) -> int:
    from dataclasses import asdict

    from spicenn.cli.progress import training_progress
    from spicenn.cli.text import echo, echo_json, echo_training
    from spicenn.learning.run import NETWORK, train_fast

    with training_progress() as progress:
        trained = train_fast(plan, output, progress=progress)
    picture = output / "training.png" if plot else None
    if picture is not None:
        from spicenn.report.training import plot_training

        plot_training(trained.log, picture)
    last = trained.log[-1]
    if as_json:
        echo_json(
            {
                "network": str(output / NETWORK),
                "resumed": trained.resumed,
                "plots": [] if picture is None else [str(picture)],
                **asdict(last),
            }
        )
        return 0
    echo_training(last, trained.resumed, " V²")
    echo(f"network     {output / NETWORK}")
    if picture is not None:
        echo(f"plot        {picture}")
    return 0


def _write(plan: Plan | FastPlan, folder: Path, as_json: bool) -> None:
    from spicenn.cli.text import echo, echo_json
    from spicenn.errors import InputError
    from spicenn.learning.export import write_learning
    from spicenn.learning.plan import FastPlan

    if isinstance(plan, FastPlan):
        raise InputError("a network trained by = 'fast' has no circuit that learns by itself")
    written = [
        write_learning(
            plan.chip(index), plan.task, plan.rule, plan.schedule, plan.begin(index),
            folder / f"chip{index}", slots=plan.run.slots, seed=plan.run.seed,
            solver=plan.run.options.get("solver"),
        ).parent
        for index in plan.chips
    ]  # fmt: skip
    if as_json:
        echo_json({"netlists": [str(path) for path in written]})
        return
    for path in written:
        echo(f"netlist     {path}")
    echo(
        f"run         cd {shlex.quote(str(written[0]))} && ngspice -b -r learning.raw learning.cir"
    )


def _describe(plan: Plan | FastPlan, as_json: bool) -> None:
    from spicenn.cli.text import echo, echo_json
    from spicenn.learning.plan import FastPlan

    facts = _facts_of_training(plan) if isinstance(plan, FastPlan) else _facts(plan)
    if as_json:
        echo_json({name: facts[name] for name in facts})
        return
    for name, value in facts.items():
        echo(f"{name:13} {value}")


def _facts(plan: Plan) -> dict[str, Any]:
    from spicenn.learning.rules import describe
    from spicenn.learning.run import needs_ngspice
    from spicenn.report.quantity import quantity

    network, run, slot = plan.network, plan.run, plan.schedule.slot
    chips = len(plan.chips)
    at_once = min(run.slots_at_once, run.slots)
    parts = -(-run.slots // at_once) * chips
    rule = describe(plan.rule)
    settings = ", ".join(f"{k} {v:g}" for k, v in rule.items() if not isinstance(v, str))
    return {
        "nodes": len(network.nodes),
        "edges": len(network.edges),
        "learning": len(network.learning),
        "inputs": len(network.inputs),
        "outputs": len(network.outputs),
        "examples": len(plan.task),
        "order": plan.order,
        "rule": f"{rule['rule']}: {settings}",
        "by": run.by,
        "chips": chips if run.chips is not None else "1, as drawn",
        "slots": f"{run.slots} of {quantity(slot, 's')}, {quantity(run.slots * slot, 's')} in all",
        ("transients" if needs_ngspice(plan) else "parts"): f"{parts} of {at_once} slots",
    }


def _facts_of_training(plan: FastPlan) -> dict[str, Any]:
    from itertools import pairwise

    sizes = (2 * plan.sizes[0], *plan.sizes[1:])
    batch = plan.options["batch"]
    steps = -(-len(plan.x) // batch)
    return {
        "layers": " → ".join(str(size) for size in sizes),
        "conductances": sum(a * b for a, b in pairwise(sizes)),
        "samples": len(plan.x),
        "validation": 0 if plan.validation is None else len(plan.validation[0]),
        "by": "fast",
        "epochs": plan.epochs,
        "steps": f"{plan.epochs * steps} of {batch} samples",
    }
