"""Limit cycles of two alternating tasks under bias: the circuit, the lab and the linear theory.

See README.md for claim, controls and result.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import ConvergenceError
from spicenn.learning import (
    CoupledLearning,
    Hardware,
    LearningChip,
    Task,
    cyclic,
    learn_in_circuit,
    sample_chip,
)
from spicenn.learning.cycle import Learner, LimitCycle, find_cycle
from spicenn.learning.examples import Example, two_tasks
from spicenn.learning.linear import (
    LinearCycle,
    linear_cycle,
    linearise,
    predict_cycle,
    solve_task,
    span,
)
from spicenn.learning.model import learn_in_model
from spicenn.learning.operating import operating_points
from spicenn.learning.rules import Rule
from spicenn.learning.scaling import PowerLaw, power_law
from spicenn.learning.transient import Solver
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]

# Example 1 of Guzman, Liu, Dillavou and Durian, arXiv 2505.22887, and its public data:
# period [s] -> D [V] and mean squared error [V^2], measured on their circuit.
LAB = {
    0.0012: (0.0091, 4.5e-5), 0.005: (0.0345, 5.2e-5), 0.02: (0.133, 6.7e-5),
    0.0796: (0.563, 3.2e-4), 0.5: (2.23, 1.81e-3),
}  # fmt: skip
SPEEDS = (2.87, 4.72)  # V/s, of G- and G+
PERIODS = (0.0012, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.0796, 0.126, 0.2, 0.317, 0.5)
# Up to here D is compared with the lab, and the gates are within their range.
COMPARED = 0.126
START = np.array([2.5, 2.5])
UNLIMITED = 1e3
# One manufactured chip: no two transistors, twins, multipliers or comparators alike.
SPREAD = {
    "threshold_std": 0.02, "twin_threshold_std": 5e-4, "transconductance_std": 0.05,
    "twin_transconductance_std": 1e-3, "output_offset_std": 1e-3,
}  # fmt: skip
BIAS_STD = 3.0  # V/s
CHIP_PERIOD = 5e-3


def example(scale: float = 1.0, **hardware: float) -> Example:
    """Return example 1 with its bias times a factor, on some hardware."""
    low, high = SPEEDS
    return two_tasks(speeds=(scale * low, scale * high), hardware=Hardware(**hardware))


def theory(
    chip: LearningChip, task: Task, rule: Rule, period: float
) -> tuple[LinearCycle, LinearCycle | None]:
    """Return the cycle linearised at the tasks' solution, and at its own mean if it settles."""
    at, schedule = solve_task(chip, task, START), cyclic(task, period)
    first = linear_cycle(linearise(chip, task, rule, at), schedule)
    try:
        return first, predict_cycle(chip, task, rule, schedule, at)
    except ConvergenceError:
        return first, None


def measured(
    learner: Learner, chip: LearningChip, task: Task, rule: Rule, period: float,
    *, tolerance: float = 2e-4, points: int = 1, floor: float = 1e-6,
) -> tuple[LimitCycle, dict[str, Any]]:  # fmt: skip
    """Return the cycle of a learner, and its numbers beside the theory's."""
    point, mean = theory(chip, task, rule, period)
    start = point.start if mean is None else mean.start
    if period > COMPARED:
        start = point.linearisation.at
    cycle = find_cycle(
        learner, chip, task, rule, cyclic(task, period), start, tolerance=tolerance, floor=floor,
        periods=400, points=points,
    )  # fmt: skip
    row = {
        "period": period, "D": cycle.span, "MSE": cycle.squared_error(chip, task),
        "closed": cycle.closed, "away": cycle.away, "contraction": cycle.contraction,
        "periods": cycle.periods, "ends": cycle.ends.tolist(),
        "theory at solution": {"D": point.span, "MSE": point.squared_error(task, chip)},
        "theory at mean": None if mean is None
        else {"D": mean.span, "MSE": mean.squared_error(task, chip)},
    }  # fmt: skip
    return cycle, row


def law(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """Exponent, its interval, and the smallest and largest between neighbours."""
    fit: PowerLaw = power_law(x, y)
    local = np.diff(np.log(y)) / np.diff(np.log(x))
    return {
        "exponent": fit.exponent, "interval": [fit.low, fit.high],
        "between neighbours": [float(local.min()), float(local.max())],
        "x": list(x), "y": list(y),
    }  # fmt: skip


def against_lab(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Root mean square of the logarithms' difference to the lab's, up to ``COMPARED``."""
    found = {}
    for column, name in enumerate(("D", "MSE")):
        wrong = [
            math.log(row[name] / LAB[row["period"]][column])
            for row in rows
            if row["period"] in LAB and row["period"] <= COMPARED
        ]
        found[name] = math.sqrt(sum(w * w for w in wrong) / len(wrong))
    return found


def repeated(engine: NgspiceEngine, period: float, count: int) -> dict[str, float]:
    """Plain learning from 2.5 V, and on from a cycle that was found by steps."""
    one, rule = example(), CoupledLearning()
    schedule = cyclic(one.task, period)
    learner = partial(learn_in_circuit, engine)
    cycle, _ = measured(learner, one.chip, one.task, rule, period)
    on = learner(one.chip, one.task, rule, schedule, cycle.start, slots=2 * count)
    plain = learner(one.chip, one.task, rule, schedule, START, slots=2 * count)
    # Answers of ngspice's own operating points, where the cycle ends its slots.
    answers = np.array([
        operating_points(engine, one.chip, end, one.task.inputs)[:, one.chip.network.output_index]
        for end in cycle.ends
    ])  # fmt: skip
    return {
        "period": period, "periods": count, "D": cycle.span,
        "moved after as many periods": float(np.linalg.norm(on.values[-1] - cycle.start)),
        "D after plain learning": span(plain.values[-2:]),
        "MSE": cycle.squared_error(one.chip, one.task),
        "MSE by operating points": float(((answers - one.task.labels) ** 2).mean()),
    }  # fmt: skip


def without_bias(engine: NgspiceEngine, periods: Sequence[float]) -> list[dict[str, float]]:
    """The cycle with b = 0, and how it falls with the edges' time and the nodes' capacitance."""
    rows = []
    for period in periods:
        for edge, capacitance, steps in (
            (1e-4, 1e-11, 8), (1e-4, 1e-11, 80), (1e-5, 1e-11, 8), (1e-5, 1e-12, 8),
            (1e-6, 1e-13, 8),
        ):  # fmt: skip
            one = example(0.0, node_capacitance=capacitance)
            schedule = cyclic(one.task, period, edge=edge * period / 2)
            cycle = find_cycle(
                partial(learn_in_circuit, engine, solver=Solver(steps=steps)), one.chip, one.task,
                CoupledLearning(), schedule, START, floor=1e-8, points=1,
            )  # fmt: skip
            rows.append({
                "period": period, "edge of a slot": edge, "node capacitance": capacitance,
                "steps": steps, "D": cycle.span, "MSE": cycle.squared_error(one.chip, one.task),
            })  # fmt: skip
    return rows


def chips(engine: NgspiceEngine, seed: int, count: int, period: float) -> dict[str, Any]:
    """D of sampled chips in the circuit, by the theory, and by that of chips with others' bias."""
    one, rule = example(), CoupledLearning()
    bias_std = float(one.chip.hardware.bias_of(BIAS_STD, rule.rate))
    hardware = Hardware(bias_std=bias_std, **SPREAD)
    sampled = [sample_chip(one.chip.network, hardware, chip=k, seed=seed) for k in range(count)]
    # No chip keeps its own: a cycle through all of them, in an order that is drawn.
    order = generator(seed, Purpose.TASK_ORDER).permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)
    rows = []
    for k, chip in enumerate(sampled):
        try:
            _, row = measured(
                partial(learn_in_circuit, engine), chip, one.task, rule, period
            )  # fmt: skip
        except ConvergenceError as error:
            rows.append({"chip": k, "bias": chip.bias.tolist(), "failed": error.what})
            continue
        shuffled = LearningChip(**{**vars(chip), "bias": sampled[other[k]].bias})
        ideal = LearningChip(**{**vars(one.chip), "bias": chip.bias})
        for name, variant in (("shuffled bias", shuffled), ("ideal transistors", ideal)):
            point, mean = theory(variant, one.task, rule, period)
            row[name] = {
                "D": (mean or point).span, "MSE": (mean or point).squared_error(one.task, chip)
            }  # fmt: skip
        # What needs no theory: a bias that drives values for a slot.
        scale = rule.rate / (hardware.v0 * hardware.resistance * hardware.capacitance)
        speed = scale * float(np.linalg.norm(chip.bias))
        row["bias alone"] = {"D": speed * period / len(one.task)}
        rows.append({"chip": k, "bias": chip.bias.tolist(), **row})
    good = [row for row in rows if "failed" not in row and row["theory at mean"]]
    result: dict[str, Any] = {
        "period": period,
        "seed": seed,
        "chips": count,
        "compared": len(good),
        "rows": rows,
    }
    names = ("theory at mean", "theory at solution", "shuffled bias", "ideal transistors")
    for name in (*names, "bias alone"):
        result[name] = {}
        for quantity in ("D", "MSE") if name in names else ("D",):
            seen = np.array([row[quantity] for row in good])
            said = np.array([row[name][quantity] for row in good])
            wrong = np.log(said / seen)
            result[name][quantity] = {
                "correlation of logarithms": _interval(seen, said),
                "rms log error": float(np.sqrt(np.mean(wrong**2))),
            }
    sizes = np.array([row["D"] for row in good])
    result["D"] = {
        "least": float(sizes.min()),
        "median": float(np.median(sizes)),
        "most": float(sizes.max()),
    }
    return result


def _interval(first: Array, second: Array) -> dict[str, float]:
    """Pearson's correlation of logarithms with Fisher's interval of 95 %."""
    r = float(np.corrcoef(np.log(first), np.log(second))[0, 1])
    if len(first) <= 3:
        return {"r": r, "low": math.nan, "high": math.nan}
    half = 1.96 / math.sqrt(len(first) - 3)
    centre = math.atanh(min(max(r, -1 + 1e-15), 1 - 1e-15))
    return {"r": r, "low": math.tanh(centre - half), "high": math.tanh(centre + half)}


def limits(engine: NgspiceEngine, period: float, highs: Sequence[float]) -> list[dict[str, Any]]:
    """The cycle at a long period by where the gates are held."""
    rows = []
    for high in highs:
        one = example(gate_high=high)
        _, row = measured(
            partial(learn_in_circuit, engine), one.chip, one.task, CoupledLearning(), period
        )  # fmt: skip
        rows.append({"gate_high": high, **row})
    return rows


def exponents(
    learner: Learner, period: float, scales: Sequence[float], etas: Sequence[float]
) -> dict[str, Any]:
    """How D and the error go with bias and with eta, in the circuit and by the theory."""
    found: dict[str, Any] = {}
    rows = []
    for scale in scales:
        one = example(scale)
        rows.append(measured(learner, one.chip, one.task, CoupledLearning(), period)[1])
    found["D by bias"] = law(scales, [row["D"] for row in rows])
    found["MSE by bias"] = law(scales, [row["MSE"] for row in rows])
    found["theory, bias"] = [row["theory at mean"] for row in rows]
    for scale in (0.25, 1.0):
        rows = []
        for eta in etas:
            one = example(scale)
            rows.append(measured(learner, one.chip, one.task, CoupledLearning(eta=eta), period)[1])
        name = f"MSE by eta, bias x {scale:g}"
        found[name] = law(etas, [row["MSE"] for row in rows])
        found[f"theory, {name}"] = [row["theory at mean"] for row in rows]
    return found


def draw(path: Path, result: dict[str, Any], loops: dict[float, tuple[Any, ...]]) -> None:
    """Write cycles over the theory, D and errors beside the lab's, laws, and chips."""
    from spicenn.report.learning import (
        Loop,
        Points,
        plane_lines,
        plane_panel,
        scaling_panel,
    )
    from spicenn.report.style import INK, MINUS, PALE, PLUS, drawing, grid, new_figure, save

    with drawing():
        figure = new_figure(15.5, 7.6)
        panels = figure.subplots(2, 4)
        for axes, (period, (cycle, mean, law_at)) in zip(panels[0], loops.items(), strict=False):
            lines = plane_lines(law_at.pull, law_at.solutions, ["solves task α", "solves task β"])
            loop = Loop(
                path=cycle.path, ends=cycle.ends, label="ngspice",
                theory=None if mean is None else mean.path(),
            )  # fmt: skip
            plane_panel(
                axes, [loop], lines, names=("G− [V]", "G+ [V]"),
                title=f"τ = {1e3 * period:g} ms: D = {cycle.span:.3g} V",
            )  # fmt: skip
        rows, lab = result["sweep"], list(LAB)
        tau = np.array([row["period"] for row in rows])
        smooth = result["theory"]
        for axes, name, column, unit in (
            (panels[1, 0], "D", 0, "D [V]"), (panels[1, 1], "MSE", 1, "mean squared error [V²]"),
        ):  # fmt: skip
            curve = np.array([smooth["period"], smooth[name]])
            data = Points(
                x=tau, y=np.array([row[name] for row in rows]), label="ngspice", fit=name == "D",
                within=(0.0, COMPARED), theory=(curve[0], curve[1]),
            )  # fmt: skip
            measured_there = np.array([LAB[period][column] for period in lab])
            labs = Points(x=np.array(lab), y=measured_there, label="lab", kind="lab")
            scaling_panel(
                axes, [data, labs], names=("τ [s]", unit),
                title="Size against period" if name == "D" else "Error against period",
            )  # fmt: skip
        found = result["exponents"]
        small = "MSE by eta, bias x 0.25"
        errors = [
            _shown(found["MSE by bias"], "bias", found["theory, bias"], "MSE"),
            _shown(found[small], "η, bias × ¼", found[f"theory, {small}"], "MSE"),
        ]
        period = 1e3 * result["law period"]
        scaling_panel(
            panels[1, 2], errors, names=("bias over example 1's; η", "mean squared error [V²]"),
            title=f"Error at τ = {period:g} ms",
        )  # fmt: skip
        scaling_panel(
            panels[1, 3], [_shown(found["D by bias"], "bias", found["theory, bias"], "D")],
            names=("bias over example 1's", "D [V]"), title=f"Size at τ = {period:g} ms",
        )  # fmt: skip
        axes, good = panels[0, 3], [row for row in result["chips"]["rows"] if "failed" not in row]
        good = [row for row in good if row["theory at mean"]]
        seen = 1e3 * np.array([row["D"] for row in good])
        for name, colour, text in (
            ("shuffled bias", PALE, "another chip's bias"), ("bias alone", MINUS, "|B| τ/2"),
            ("theory at mean", PLUS, "theory"),
        ):  # fmt: skip
            r = result["chips"][name]["D"]["correlation of logarithms"]["r"]
            axes.plot(
                [1e3 * row[name]["D"] for row in good], seen, "o", color=colour, markersize=4,
                label=f"{text}: r = {r:.3f}",
            )  # fmt: skip
        ends = [seen.min() / 1.3, seen.max() * 1.3]
        axes.plot(ends, ends, color=INK, linewidth=0.7)
        axes.set(
            xlabel="D as predicted [mV]", ylabel="D in ngspice [mV]",
            title=f"{len(good)} chips, τ = {1e3 * result['chips']['period']:g} ms",
        )  # fmt: skip
        grid(axes, "both")
        axes.legend()
        save(figure, path)


def _shown(found: dict[str, Any], label: str, said: Sequence[Any], name: str) -> Any:
    from spicenn.report.learning import Points

    x = np.array(found["x"])
    there = np.array([np.nan if row is None else row[name] for row in said])
    return Points(x=x, y=np.array(found["y"]), label=label, theory=(x, there))


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in seconds")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--chips", type=int, default=30)
    parser.add_argument("--periods", type=float, nargs="+", default=list(PERIODS))
    parser.add_argument("--planes", type=float, nargs=3, default=[0.005, 0.126, 0.5])
    parser.add_argument("--law-period", type=float, default=1.2e-3)
    options = parser.parse_args()
    scales: Sequence[float] = (0.125, 0.25, 0.5, 1.0)
    etas: Sequence[float] = (0.25, 0.35, 0.5, 0.7, 1.0)
    highs: Sequence[float] = (5.0, 5.25, 5.5, UNLIMITED)
    controls: Sequence[float] = (0.005, 0.0796, 0.5)
    computed: Sequence[float] = (0.0012, 0.005, 0.02, 0.0796, 0.126, 0.5)
    points, plain = 40, 200
    if options.smoke:
        options.chips, options.periods, options.planes = 4, [0.005, 0.02, 0.5], [0.005]
        scales, etas, highs, controls, computed = (0.5, 1.0), (0.5, 1.0), (5.0,), (0.005,), (0.005,)
        points, plain = 4, 20
    begun = perf_counter()
    result: dict[str, Any] = {"law period": options.law_period}
    rule, loops = CoupledLearning(), {}
    with NgspiceEngine(timeout=300) as engine:
        circuit = partial(learn_in_circuit, engine)
        one = example()
        rows = []
        for period in options.periods:
            shown = period in options.planes
            cycle, row = measured(
                circuit, one.chip, one.task, rule, period, points=points if shown else 1
            )  # fmt: skip
            if period in computed:
                # The other engine: one period of its own, from where the circuit's begins.
                schedule = cyclic(one.task, period)
                run = learn_in_model(one.chip, one.task, rule, schedule, cycle.start, slots=2)
                row["D by learn_in_model"] = span(run.values[1:])
                row["largest difference of the engines' ends"] = float(
                    np.abs(run.values[1:] - cycle.ends).max()
                )
            rows.append(row)
            if shown:
                point, mean = theory(one.chip, one.task, rule, period)
                loops[period] = cycle, mean, point.linearisation
            print(json.dumps(row), flush=True)
        result["sweep"] = rows
        result["against the lab"] = against_lab(rows)
        near = [row for row in rows if row["period"] <= COMPARED]
        result["D by period"] = law([row["period"] for row in near], [row["D"] for row in near])
        grid = np.geomspace(options.periods[0], options.periods[-1], 8 if options.smoke else 40)
        curve = [(period, theory(one.chip, one.task, rule, float(period))[1]) for period in grid]
        kept = [(float(period), cycle) for period, cycle in curve if cycle is not None]
        result["theory"] = {
            "period": [period for period, _ in kept],
            "D": [cycle.span for _, cycle in kept],
            "MSE": [cycle.squared_error(one.task, one.chip) for _, cycle in kept],
        }
        print(json.dumps({key: result[key] for key in ("against the lab", "D by period")}))
        result["exponents"] = exponents(circuit, options.law_period, scales, etas)
        print(json.dumps(result["exponents"]), flush=True)
        result["without bias"] = without_bias(engine, controls)
        print(json.dumps(result["without bias"]), flush=True)
        result["limits"] = limits(engine, 0.5, highs)
        print(json.dumps(result["limits"]), flush=True)
        result["plain"] = repeated(engine, 0.02, plain)
        print(json.dumps(result["plain"]), flush=True)
        result["chips"] = chips(engine, options.seed, options.chips, CHIP_PERIOD)
        print(json.dumps({k: v for k, v in result["chips"].items() if k != "rows"}), flush=True)
    result["seconds"] = perf_counter() - begun
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1) + "\n"
        (options.out / "result.json").write_text(text, encoding="utf-8")
        draw(options.out / "result.png", result, loops)


if __name__ == "__main__":
    main()
