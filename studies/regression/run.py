"""Eight points of a bent curve, learnt in ngspice transients by 32 transistors and their twins.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.learning.compare import (
    Case,
    Effort,
    Outcome,
    arms_of,
    compared,
    cross,
    judge_curve,
    over_effort,
    run_all,
    summary,
    summary_table,
)
from spicenn.learning.examples import (
    HIGH,
    LOW,
    Example,
    linear_counterpart,
    regression,
    straight_line_error,
)
from spicenn.learning.hardware import Hardware
from spicenn.learning.netlist import LEARNING_TOLERANCES
from spicenn.learning.rules import CoupledLearning, Desynchronous, Overclamping, Rule
from spicenn.learning.transient import Solver
from spicenn.study.statistics import yield_interval

Array = NDArray[np.float64]

CHIPS = 2024
# Gates that the networks begin with [V]: below V_T + HIGH some transistors saturate.
START = (1.0, 2.2)
BIAS = 1e-3  # V^2: 2.75 V/s at rate 2, as of the lab's edges
STANDARD, OVERCLAMPED = "standard", "overclamped"
PLAIN, BIASED = "without bias", "with bias"
RULES: Mapping[str, Rule] = {
    STANDARD: CoupledLearning(eta=1.0),
    OVERCLAMPED: Overclamping(low=LOW, high=HIGH, eta=0.25, smoothing=1e-3),
}
HARDWARE = {PLAIN: Hardware(), BIASED: Hardware(bias_std=BIAS)}
SOLVER = Solver(tolerances=replace(LEARNING_TOLERANCES, reltol=1e-5, vntol=1e-8))


def made(hardware: Hardware, seed: int) -> Example:
    """The chip of a seed."""
    return regression(hardware=hardware, seed=CHIPS, chip=seed)


def cases(seeds: Sequence[int], ablations: int) -> list[Case]:
    """Every rule and hardware, and for a few seeds a linear network and masked updates."""
    low, high = START
    found = cross(made, RULES, HARDWARE, seeds, low=low, high=high)
    plain = [c for c in found if c.arm == f"{STANDARD}, {PLAIN}" and c.seed in seeds[:ablations]]
    for case in plain:
        example, values = linear_counterpart(case.example, case.values)
        found.append(
            Case(arm="linear network", seed=case.seed, example=example, rule=case.rule,
                 values=values)
        )  # fmt: skip
        found.append(replace(case, arm="half of the edges", rule=Desynchronous(case.rule, 0.5)))
    return found


def shorter(todo: Sequence[Case], effort: Effort, count: int) -> tuple[list[Case], Effort]:
    """The first few unbiased standard runs once more, in slots of a quarter the length."""
    plain = [case for case in todo if case.arm == f"{STANDARD}, {PLAIN}"][:count]
    return (
        [replace(case, arm="slots of a quarter") for case in plain],
        replace(effort, passes=4 * effort.passes),
    )


def draw(path: Path, outcomes: Sequence[Outcome], allowed: float, line: float) -> None:
    """Write a picture: errors over effort, and what was learnt against the curve."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    from spicenn.report.style import INK, MINUS, MUTED, PLUS, drawing

    task = regression().task
    colours = {STANDARD: MINUS, OVERCLAMPED: PLUS}
    arms = arms_of(outcomes)
    with drawing():
        figure = Figure(figsize=(7.4, 5.4), layout="constrained")
        axes = figure.subplots(2, 2, sharey="row")
        for column, kind in enumerate((PLAIN, BIASED)):
            top, bottom = axes[:, column]
            for name, colour in colours.items():
                own = arms[f"{name}, {kind}"]
                at = np.linspace(0, min(each.effort[-1] for each in own), 60)
                errors = over_effort(own, at)
                seen = np.isfinite(errors).sum(axis=0) > len(own) / 2
                lower, middle, upper = np.nanquantile(errors[:, seen], [0.25, 0.5, 0.75], axis=0)
                top.fill_between(at[seen], lower, upper, color=colour, alpha=0.18, linewidth=0)
                top.plot(at[seen], middle, color=colour, linewidth=1.4, label=name)
                for k, each in enumerate(own):
                    bottom.plot(
                        task.inputs[:, 0], each.answers[-1][:, 0], color=colour, linewidth=0.7,
                        alpha=0.7, label=name if k == 0 else None,
                    )  # fmt: skip
            top.axhline(line, color=MUTED, linewidth=0.8, linestyle="--")
            top.axhline(allowed, color=INK, linewidth=0.8, linestyle=":")
            for name, level in (("best straight line", line), ("right below", allowed)):
                top.annotate(
                    name, (0.99, level), (0, 2), xycoords=("axes fraction", "data"),
                    textcoords="offset points", ha="right", fontsize=7, color=MUTED,
                )  # fmt: skip
            top.set_yscale("log")
            top.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))
            top.yaxis.set_minor_formatter(NullFormatter())
            top.set_title(kind)
            top.set_xlabel("effort: ∫ duty dt [s]")
            bottom.plot(task.inputs[:, 0], task.labels[:, 0], "o", color=INK, markersize=4,
                        markerfacecolor="white", label="label", zorder=3)  # fmt: skip
            bottom.set_xlabel("input [V]")
        axes[0, 0].set_ylabel("mean squared error [V²]")
        axes[1, 0].set_ylabel("output [V]")
        axes[0, 0].legend(loc="upper right")
        axes[1, 0].legend(loc="lower right")
        figure.savefig(path, dpi=200)


def solver_check(case: Case, effort: Effort) -> dict[str, float]:
    """Largest difference of gates and of the error, this study's tolerances against the default."""
    judge = judge_curve(case.example.task, 1.0)
    short = replace(effort, total=effort.total / effort.checkpoints, checkpoints=1)
    (ours,), (fine,) = (
        run_all([case], short, judge, workers=1, solver=solver) for solver in (SOLVER, None)
    )
    return {
        "gates differ by [V]": float(np.abs(ours.values[-1] - fine.values[-1]).max()),
        "errors differ by, relative": float(abs(ours.error[-1] / fine.error[-1] - 1)),
        "time, relative": ours.runtime / fine.runtime,
    }


def main() -> None:
    """Run, check, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds, tiny sizes")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument("--runs", type=Path, help="folder of single runs, to go on with")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    seeds = list(range(1, 2 if arguments.smoke else 1 + arguments.seeds))
    effort = (
        Effort(total=0.1, checkpoints=1, passes=1)
        if arguments.smoke
        else Effort(total=16.0, checkpoints=10, passes=16, stretch=30.0)
    )
    task = regression().task
    line = straight_line_error(task)
    allowed = line / 2

    def told(each: Outcome) -> None:
        print(
            f"{each.arm:24s} seed {each.seed:3d}  error {each.error[-1]:.2e} V²  effort "
            f"{each.effort[-1]:.2f} s of {each.time[-1]:.2f} s  {each.slots} slots  "
            f"{len(each.aborts)} given up at first  {each.runtime:.0f} s  {each.ended}",
            flush=True,
        )

    todo = cases(seeds, 1 if arguments.smoke else 3)
    outcomes = [
        each
        for run, length in ((todo, effort), shorter(todo, effort, 0 if arguments.smoke else 3))
        for each in run_all(
            run, length, judge_curve(task, allowed), folder=arguments.runs, solver=SOLVER,
            progress=told,
        )
    ]  # fmt: skip
    arms = arms_of(outcomes)
    checked = solver_check(todo[0], effort)
    result: dict[str, Any] = {
        "straight line [V^2]": line,
        "constant [V^2]": float(np.var(task.labels)),
        "allowed [V^2]": allowed,
        "effort [s]": effort.total,
        "slot [s]": effort.slot(task),
        "arms": {arm: summary(each) for arm, each in arms.items()},
        "better than a straight line": {
            arm: yield_interval(
                np.array([bool(run.error[-1] < line) for run in each]), method="exact"
            )._asdict()
            for arm, each in arms.items()
        },
        "overclamped over standard": {
            kind: compared(arms[f"{OVERCLAMPED}, {kind}"], arms[f"{STANDARD}, {kind}"])
            for kind in HARDWARE
        },
        "solver": checked,
        "runs": [
            {
                "arm": each.arm, "seed": each.seed, "rule": each.rule,
                "error": each.error.tolist(), "effort": each.effort.tolist(),
                "time": each.time.tolist(), "slots": each.slots, "ended": each.ended,
                "at limits": float(each.limited[-1]),
                "aborts": [vars(abort) for abort in each.aborts],
            }
            for each in outcomes
        ],
        "simulator [s]": sum(each.runtime for each in outcomes),
    }  # fmt: skip
    # No network of resistors does better than the best straight line.
    for each in arms.get("linear network", []):
        assert each.error.min() >= line * (1 - 1e-9), (each.seed, each.error.min())
    print(summary_table(outcomes))
    shown = ("better than a straight line", "overclamped over standard", "solver")
    print(json.dumps({k: result[k] for k in shown}, indent=1))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(arguments.out / "result.png", outcomes, allowed, line)


if __name__ == "__main__":
    main()
