"""Whether two inputs differ, learnt in ngspice transients by 32 transistors and their twins.

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

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.learning.compare import (
    Case,
    Effort,
    Outcome,
    arms_of,
    compared,
    cross,
    judge_difference,
    over_effort,
    run_all,
    summary,
    summary_table,
)
from spicenn.learning.contrast import answers
from spicenn.learning.examples import HIGH, LOW, Example, linear_counterpart, xor
from spicenn.learning.hardware import Hardware
from spicenn.learning.netlist import LEARNING_TOLERANCES
from spicenn.learning.operating import operating_points
from spicenn.learning.rules import (
    CoupledLearning,
    Desynchronous,
    Differential,
    Overclamping,
    Rule,
)
from spicenn.learning.transient import Solver

Array = NDArray[np.float64]

CHIPS = 2024
# Gates that the networks begin with [V]: below V_T + HIGH some transistors saturate.
START = (1.0, 2.2)
BIAS = 1e-3  # V^2: 2.75 V/s at rate 2, as of the lab's edges
STANDARD, OVERCLAMPED = "standard", "overclamped"
PLAIN, LESS, BIASED = "without bias", "a tenth of it", "with bias"
RULES: Mapping[str, Rule] = {
    # Half of eta goes to each output: the published eta is 1.
    STANDARD: Differential(CoupledLearning(eta=0.5)),
    OVERCLAMPED: Differential(Overclamping(low=LOW, high=HIGH, eta=0.1, smoothing=1e-3)),
}
HARDWARE = {
    PLAIN: Hardware(), LESS: Hardware(bias_std=BIAS / 10), BIASED: Hardware(bias_std=BIAS),
}  # fmt: skip
SOLVER = Solver(tolerances=replace(LEARNING_TOLERANCES, reltol=1e-5, vntol=1e-8))


def made(hardware: Hardware, seed: int) -> Example:
    """The chip of a seed."""
    return xor(hardware=hardware, seed=CHIPS, chip=seed)


def cases(seeds: Sequence[int], ablations: int) -> list[Case]:
    """Every rule and hardware; linear networks, and for a few seeds masked updates."""
    low, high = START
    found = cross(made, RULES, HARDWARE, seeds, low=low, high=high)
    plain = [case for case in found if case.arm == f"{STANDARD}, {PLAIN}"]
    for number, case in enumerate(plain):
        example, values = linear_counterpart(case.example, case.values)
        found.append(
            Case(arm="linear network", seed=case.seed, example=example, rule=case.rule,
                 values=values)
        )  # fmt: skip
        if number < ablations:
            found.append(replace(case, arm="half of the edges", rule=Desynchronous(case.rule, 0.5)))
    return found


def in_ngspice(case: Case, outcome: Outcome) -> float:
    """Largest difference [V] of the learnt answers between ngspice and Newton's method."""
    chip, task = case.example.chip, case.example.task
    with NgspiceEngine() as engine:
        rest = operating_points(engine, chip, outcome.values[-1], task.inputs)
    return float(np.abs(rest[:, chip.network.output_index] - outcome.answers[-1]).max())


def draw(path: Path, todo: Sequence[Case], outcomes: Sequence[Outcome]) -> None:
    """Write a picture: margins over effort, and the response of one learnt network."""
    from matplotlib.figure import Figure

    from spicenn.report.style import INK, MINUS, MUTED, PLUS, drawing

    colours = {STANDARD: MINUS, OVERCLAMPED: PLUS}
    arms = arms_of(outcomes)
    with drawing():
        figure = Figure(figsize=(7.6, 5.6), layout="constrained")
        axes = figure.subplot_mosaic([[*HARDWARE], ["margins", "margins", "response"]])
        for kind in HARDWARE:
            top = axes[kind]
            for name, colour in colours.items():
                own = arms[f"{name}, {kind}"]
                at = np.linspace(0, min(each.effort[-1] for each in own), 60)
                errors = 1e3 * np.sqrt(over_effort(own, at))
                seen = np.isfinite(errors).sum(axis=0) > len(own) / 2
                lower, middle, upper = np.nanquantile(errors[:, seen], [0.25, 0.5, 0.75], axis=0)
                top.fill_between(at[seen], lower, upper, color=colour, alpha=0.18, linewidth=0)
                top.plot(at[seen], middle, color=colour, linewidth=1.4, label=name)
            top.set_title(kind)
            top.set_xlabel("effort: ∫ duty dt [s]")
            top.set_ylim(0, 70)
        axes[PLAIN].set_ylabel("rms error of the difference [mV]")
        axes[PLAIN].legend(loc="upper right")
        left, right = axes["margins"], axes["response"]
        shown = [f"{name}, {kind}" for kind in HARDWARE for name in RULES] + ["linear network"]
        for row, arm in enumerate(shown):
            colour = next((c for n, c in colours.items() if arm.startswith(n)), MUTED)
            margins = 1e3 * np.array([each.margin[-1] for each in arms[arm]])
            left.plot(margins, np.full(len(margins), row), "o", color=colour, markersize=4,
                      markerfacecolor="none")  # fmt: skip
            left.plot(np.median(margins), row, "|", color=colour, markersize=14)
        left.axvline(0, color=INK, linewidth=0.8, linestyle=":")
        left.set_yticks(range(len(shown)), shown, fontsize=7.5)
        left.invert_yaxis()
        left.set_xlabel("margin of the worst case [mV]; right above 0")
        best = max(
            (k for k, each in enumerate(outcomes) if each.arm == f"{STANDARD}, {PLAIN}"),
            key=lambda k: outcomes[k].margin[-1],
        )
        case = todo[best]
        side = np.linspace(LOW, HIGH, 41)
        grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
        constants = np.broadcast_to(case.example.task.inputs[0, 2:], (len(grid), 2))
        found = answers(case.example.chip, outcomes[best].values[-1], np.hstack([grid, constants]))
        surface = 1e3 * (found[:, 0] - found[:, 1]).reshape(41, 41)
        image = right.imshow(
            surface.T, origin="lower", extent=(LOW, HIGH, LOW, HIGH), cmap="RdBu_r",
            vmin=surface.min(), vmax=surface.max(),
        )  # fmt: skip
        middle = 1e3 * case.example.task.labels[:, 0].mean()
        right.contour(side, side, surface.T, levels=[middle], colors=INK, linewidths=0.8)
        figure.colorbar(image, ax=right, label="difference [mV]")
        right.set_title(f"standard, seed {case.seed}")
        right.set_xlabel("input 1 [V]")
        right.set_ylabel("input 2 [V]")
        figure.savefig(path, dpi=200)


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
        Effort(total=0.02, checkpoints=1, passes=2)
        if arguments.smoke
        else Effort(total=2.4, checkpoints=10, passes=30, stretch=4.0, most=2.5)
    )
    task = xor().task

    def told(each: Outcome) -> None:
        print(
            f"{each.arm:24s} seed {each.seed:3d}  margin {1e3 * each.margin[-1]:6.1f} mV  effort "
            f"{each.effort[-1]:.2f} s of {each.time[-1]:.2f} s  {each.slots} slots  "
            f"{len(each.aborts)} given up at first  {each.runtime:.0f} s  {each.ended}",
            flush=True,
        )

    todo = cases(seeds, 1 if arguments.smoke else 3)
    outcomes = run_all(
        todo, effort, judge_difference(task), folder=arguments.runs, solver=SOLVER, progress=told
    )
    arms = arms_of(outcomes)
    result: dict[str, Any] = {
        "level [V]": float(task.labels[1, 0]),
        "constant [V^2]": float(np.var(task.labels[:, 0])),
        "effort [s]": effort.total,
        "slot [s]": effort.slot(task),
        "arms": {arm: summary(each) for arm, each in arms.items()},
        "overclamped over standard": {
            kind: compared(arms[f"{OVERCLAMPED}, {kind}"], arms[f"{STANDARD}, {kind}"])
            for kind in HARDWARE
        },
        "ngspice and Newton differ by [V]": max(
            in_ngspice(case, each) for case, each in zip(todo, outcomes, strict=True)
        ),
        "runs": [
            {
                "arm": each.arm, "seed": each.seed, "rule": each.rule,
                "differences": (each.answers[-1][:, 0] - each.answers[-1][:, 1]).tolist(),
                "error": each.error.tolist(), "margin": each.margin.tolist(),
                "effort": each.effort.tolist(), "time": each.time.tolist(),
                "slots": each.slots, "ended": each.ended, "at limits": float(each.limited[-1]),
                "aborts": [vars(abort) for abort in each.aborts],
            }
            for each in outcomes
        ],
        "simulator [s]": sum(each.runtime for each in outcomes),
    }  # fmt: skip
    # A linear network's difference is affine: one of the four cases is wrong at any moment.
    for each in arms["linear network"]:
        assert each.margin.max() <= 1e-9, (each.seed, each.margin.max())
    print(summary_table(outcomes))
    shown = ("overclamped over standard", "ngspice and Newton differ by [V]")
    print(json.dumps({k: result[k] for k in shown}, indent=1))
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(arguments.out / "result.png", todo, outcomes)


if __name__ == "__main__":
    main()
