"""Equilibrium propagation's gradient in ngspice: its errors, its floor, and what it is good for.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spicenn.circuit import Tolerances
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.learning.contrast import answers
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.gradient import (
    by_adjoint,
    by_coupled_learning,
    by_equilibrium_propagation,
    by_finite_differences,
    cosine,
    descend,
    loss,
)
from spicenn.learning.hardware import LearningChip, ideal_chip, start_values
from spicenn.learning.network import Edge, Network, grid, layered
from spicenn.learning.operating import operating_points
from spicenn.learning.scaling import power_law
from spicenn.seeds import Purpose, generator
from spicenn.study.statistics import yield_interval

Array = NDArray[np.float64]
Case = tuple[LearningChip, Array, Array, Array]

INPUTS, HIDDEN, OUTPUTS, SAMPLES = 4, 6, 3, 4
CONDUCTANCES, INPUT, LABEL = (2e-5, 2e-4), 3.0, 0.5  # S, V, V
# Part of each conductance by which finite differences move it.
STEP = 2e-5
# Up to a quarter of what the weakest output is held by: -β is a negative conductance.
BETAS = 10.0 ** np.arange(-11, -4.9, 0.5)
ETAS = 10.0 ** np.arange(-5, 0.1, 0.5)
RELTOLS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
# Slopes are fitted between so many times a network's own floor and an error that is not small.
ABOVE, BELOW = 30.0, 1e-2
SIDES = ("one-sided", "centred")
# A nudge whose own error, centred, is below what is shown of the solver's.
SMALL = 1e-8
SCALES = 0.45 * 2.0 ** -np.arange(7.0)
XOR_INPUT, XOR_LABEL, XOR_RANGE = 3.0, 0.25, (1e-6, 3e-3)  # V, V, S
XOR_BETA, XOR_RATE = 1e-7, 1.6e-6  # S, S^2/V^2
ARMS: dict[str, tuple[int, Diode | None]] = {
    "4 hidden nodes": (4, Diode()),
    "8 hidden nodes": (8, Diode()),
    "8 hidden nodes, no diodes": (8, None),
}


def off(found: Array, right: Array) -> float:
    """Length of the difference over that of what is right."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


def random_graph(rng: np.random.Generator, outputs: int) -> Network:
    """A ring and as many chords of resistors, and a diode at every hidden node, either way."""
    names = [f"x{k}" for k in range(INPUTS)] + [f"y{k}" for k in range(outputs)]
    hidden = [f"h{k}" for k in range(HIDDEN - 1)]
    order = rng.permutation([*names, *hidden]).tolist()
    pairs = [(a, b) for a, b in zip(order, order[1:] + order[:1], strict=True)]
    pairs += [tuple(rng.choice(order, 2, replace=False).tolist()) for _ in order]
    edges = [Edge(a, b, Resistor(learns=True)) for a, b in pairs]
    edges += [
        Edge(*(("0", name) if k % 2 else (name, "0")), Diode()) for k, name in enumerate(hidden)
    ]
    return Network(edges=tuple(edges), inputs=tuple(names[:INPUTS]), outputs=tuple(names[INPUTS:]))


def drawn(kind: str, number: int, seed: int, outputs: int = OUTPUTS) -> Case:
    """One network, its conductances and a task, all of them random."""
    rng = generator(seed, Purpose.GRADIENT, chip=number, layer=["layers", "graph"].index(kind))
    if kind == "layers":
        network = layered([INPUTS, HIDDEN, outputs], diode=Diode())
    else:
        network = random_graph(rng, outputs)
    values = rng.uniform(*CONDUCTANCES, len(network.learning))
    inputs = rng.uniform(-INPUT, INPUT, (SAMPLES, INPUTS))
    return ideal_chip(network), values, inputs, rng.uniform(-LABEL, LABEL, (SAMPLES, outputs))


def conductance_at_outputs(case: Case) -> float:
    """Of all edges that meet an output, the mean over outputs [S]."""
    network, values = case[0].network, case[1]
    ends = network.ends[list(network.learning)]
    return float(np.mean([values[(ends == k).any(axis=1)].sum() for k in network.output_index]))


def errors(case: Case, engine: NgspiceEngine, reference: Array, reltol: float) -> dict[str, Any]:
    """Error of equilibrium propagation against a reference, for every beta and both sides."""
    tolerances = in_proportion(reltol)
    found = {
        name: [
            off(
                by_equilibrium_propagation(
                    *case, beta, centred=name == "centred", engine=engine, tolerances=tolerances
                ),
                reference,
            )
            for beta in BETAS
        ]
        for name in SIDES
    }
    return {**found, "swept apart": off(swept_apart(case, SMALL, engine, tolerances), reference)}


def in_proportion(reltol: float) -> Tolerances:
    """Tolerances in the proportions of ngspice's defaults."""
    return Tolerances(reltol=reltol, vntol=1e-3 * reltol, abstol=max(1e-9 * reltol, 1e-18))


def swept_apart(case: Case, beta: float, engine: NgspiceEngine, tolerances: Tolerances) -> Array:
    """Centred equilibrium propagation, one of its states swept over the samples backwards.

    Each sample starts from the one before it: the two states of a sample are then not reached
    in the same way, and what their iterations leave is not the same.
    """
    chip, values, inputs, labels = case
    a, b = chip.network.ends[list(chip.network.learning)].T
    pulled, pushed = (
        operating_points(
            engine, chip, values, inputs[::order], nudge=(order * beta, labels[::order]),
            tolerances=tolerances,
        )[::order]
        for order in (1, -1)
    )  # fmt: skip
    squares = [(v[:, a] - v[:, b]) ** 2 for v in (pulled, pushed)]
    return np.asarray((squares[0] - squares[1]).mean(axis=0) / (4 * beta))


def slope(error: Sequence[float]) -> float:
    """Exponent of beta in the error, beyond its least: where it is well above, and yet small."""
    found = np.array(error)
    inside = (found > ABOVE * found.min()) & (found < BELOW)
    inside[: found.argmin()] = False
    return power_law(BETAS[inside], found[inside]).exponent


def directions(kind: str, number: int, seed: int, engine: NgspiceEngine) -> dict[str, Any]:
    """One less the cosine with the adjoint, of both rules, for every eta."""

    def angles(case: Case, **how: Any) -> list[float]:
        right = by_adjoint(*case)
        return [
            1 - cosine(by_coupled_learning(*case, float(eta), engine=engine, **how), right)
            for eta in ETAS
        ]

    several, one = drawn(kind, number, seed), drawn(kind, number, seed, outputs=1)
    right, scale = by_adjoint(*several), conductance_at_outputs(several)
    chip, values, inputs, labels = one
    return {
        "equilibrium propagation": [
            1 - cosine(
                by_equilibrium_propagation(*several, float(eta * scale), engine=engine), right
            )
            for eta in ETAS
        ],
        "coupled, several outputs": angles(several),
        "coupled, one output, one sample": angles((chip, values, inputs[:1], labels[:1])),
        "coupled, one output, all samples": angles(one),
        "coupled, one output, all samples scaled": angles(one, scaled=True),
    }  # fmt: skip


def transistors(number: int, seed: int, engine: NgspiceEngine, size: int) -> dict[str, Any]:
    """Where there is no co-content: equilibrium propagation of gates, by the voltages' scale."""
    rng = generator(seed, Purpose.GRADIENT, chip=number, layer=2)
    network = grid(
        size, size, inputs=["n0_0", "n0_2", "n2_1"], outputs=["n1_0", "n1_2"], element=Transistor()
    )
    chip, values = ideal_chip(network), rng.uniform(1.5, 4.0, len(network.learning))
    inputs, labels = rng.uniform(0, 1, (SAMPLES, 3)), rng.uniform(0, 1, (SAMPLES, 2))
    rows = []
    for scale in SCALES:
        case = (chip, values, scale * inputs, scale * labels)
        right = by_adjoint(*case)
        found = by_equilibrium_propagation(*case, 1e-7, centred=True, engine=engine)
        rows.append({"off": off(found, right), "cosine": cosine(found, right)})
    case = (chip, values, SCALES[0] * inputs, SCALES[0] * labels)
    steps = by_finite_differences(*case, 1e-3, engine=engine)
    return {
        "off": [row["off"] for row in rows],
        "cosine": [row["cosine"] for row in rows],
        "slope": power_law(SCALES, [row["off"] for row in rows]).exponent,
        "adjoint against finite differences in ngspice": off(by_adjoint(*case), steps),
    }


def xor(
    hidden: int, diode: Diode | None, seed: int, engine: NgspiceEngine, steps: int
) -> dict[str, Any]:
    """Train a network by what ngspice's operating points say; judge it in ngspice."""
    network = layered([6, hidden, 1], diode=diode)
    chip, bits = ideal_chip(network), np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], float)
    constant = np.ones((4, 1))
    inputs = XOR_INPUT * np.hstack([bits, -bits, constant, -constant])
    labels = XOR_LABEL * -bits.prod(axis=1, keepdims=True)
    path = descend(
        lambda values: by_equilibrium_propagation(
            chip, values, inputs, labels, XOR_BETA, centred=True, engine=engine
        ),
        start_values(network, 1e-5, 1e-3, seed=seed, chip=hidden),
        steps=steps, rate=XOR_RATE, low=XOR_RANGE[0], high=XOR_RANGE[1],
    )  # fmt: skip
    # Of outputs that are 0 throughout, the best that a linear network can do.
    unit = 0.5 * XOR_LABEL**2
    rest = operating_points(engine, chip, path[-1], inputs)[:, network.output_index]
    return {
        "loss": [loss(chip, now, inputs, labels) / unit for now in path[:: max(steps // 60, 1)]],
        "final": loss(chip, path[-1], inputs, labels, engine=engine) / unit,
        "learnt": bool((np.sign(rest) == np.sign(labels)).all()),
        "engines differ": float(np.abs(rest - answers(chip, path[-1], inputs)).max()),
    }


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean, its 95 % interval by Student's t, least and greatest."""
    found = np.array(values)
    half = np.nan
    if len(found) > 1:
        half = float(stats.t.ppf(0.975, len(found) - 1) * stats.sem(found))
    mean = float(found.mean())
    return {
        "mean": mean, "low": mean - half, "high": mean + half,
        "least": float(found.min()), "greatest": float(found.max()),
    }  # fmt: skip


def gradients(
    engine: NgspiceEngine, seed: int, networks: int, reltols: Sequence[float]
) -> list[dict[str, Any]]:
    """Errors and floors of every network, and directions of both rules."""
    rows = []
    for kind in ("layers", "graph"):
        for number in range(networks):
            case = drawn(kind, number, seed)
            reference = by_finite_differences(*case, STEP * case[1], engine=engine)
            found = {str(r): errors(case, engine, reference, r) for r in reltols}
            tight = found[str(min(reltols))]
            shuffled = generator(seed, Purpose.GRADIENT, chip=number, layer=3).permutation(
                by_equilibrium_propagation(*case, SMALL, centred=True, engine=engine)
            )
            rows.append(
                {
                    "kind": kind,
                    "adjoint": off(by_adjoint(*case), reference),
                    "errors": found,
                    "slopes": {name: slope(tight[name]) for name in SIDES},
                    "angles": directions(kind, number, seed, engine),
                    "shuffled": cosine(shuffled, reference),
                }
            )
        print(f"{kind}: {len(rows)} networks", flush=True)
    return rows


def summary(rows: list[dict[str, Any]], reltols: Sequence[float]) -> dict[str, Any]:
    """What the table says, of layers and of graphs."""
    small = int(np.argmin(np.abs(np.log(BETAS / SMALL))))
    result: dict[str, Any] = {}
    for kind in ("layers", "graph"):
        part = [row for row in rows if row["kind"] == kind]
        floor = {str(r): [row["errors"][str(r)]["centred"][small] for row in part] for r in reltols}
        # Of three nudges down to a tenth: where another one takes an iteration more or less.
        worst = {
            str(r): [max(row["errors"][str(r)]["centred"][small - 2 : small + 1]) for row in part]
            for r in reltols
        }
        apart = {str(r): [row["errors"][str(r)]["swept apart"] for row in part] for r in reltols}
        result[kind] = {
            "slope one-sided": mean_interval([row["slopes"]["one-sided"] for row in part]),
            "slope centred": mean_interval([row["slopes"]["centred"] for row in part]),
            "slope centred by reltol": {
                str(r): mean_interval([slope(row["errors"][str(r)]["centred"]) for row in part])
                for r in reltols if r < 3e-7
            },
            "largest one-sided error": {
                str(r): max(max(row["errors"][str(r)]["one-sided"]) for row in part)
                for r in reltols
            },
            "adjoint": mean_interval([row["adjoint"] for row in part]),
            "shuffled": mean_interval([row["shuffled"] for row in part]),
            "floor": {r: mean_interval(v) | {"median": float(np.median(v))}
                      for r, v in floor.items()},
            "floor, worst nudge": {r: mean_interval(v) | {"median": float(np.median(v))}
                                   for r, v in worst.items()},
            "floor, swept apart": {
                str(r): mean_interval(v) | {"median": float(np.median(v))}
                for r, v in apart.items()
            },
            "one less the cosine": {
                name: {
                    str(eta): mean_interval([row["angles"][name][k] for row in part])
                    for k, eta in ((0, ETAS[0]), (4, ETAS[4]), (8, ETAS[8]), (10, ETAS[10]))
                }
                for name in part[0]["angles"]
            },
        }  # fmt: skip
    return result


def draw(path: Path, result: dict[str, Any]) -> None:
    """Write a picture of all of it."""
    from matplotlib.ticker import LogLocator, NullLocator

    from spicenn.report.style import FAINT, INK, MINUS, MUTED, PALE, PLUS, drawing, new_figure

    rows, reltols = result["networks"], result["reltols"]
    tight = str(min(reltols))

    def band(axes: Any, x: Array, values: Any, colour: str, label: str | None) -> None:
        found = np.maximum(np.array(values), 1e-16)
        axes.fill_between(x, found.min(axis=0), found.max(axis=0), color=colour, alpha=0.15, lw=0)
        axes.plot(x, np.median(found, axis=0), color=colour, lw=1.4, label=label)

    def decades(axes: Any, which: str) -> None:
        for axis in which:
            getattr(axes, f"set_{axis}scale")("log")
            side = getattr(axes, f"{axis}axis")
            side.set_major_locator(LogLocator(numticks=7))
            side.set_major_formatter(lambda x, _: f"{x:g}".replace("e-0", "e-"))
            side.set_minor_locator(NullLocator())

    with drawing():
        figure = new_figure(11.0, 6.6)
        (a, b, c), (d, e, f) = figure.subplots(2, 3)
        for name, colour in (("one-sided", MINUS), ("centred", PLUS)):
            band(a, BETAS, [r["errors"][tight][name] for r in rows], colour, name)
        for power, (begin, end), height in ((1, (2e-10, 2e-8), 5e-6), (2, (3e-7, 1e-5), 3e-5)):
            x = np.array([begin, end])
            y = height * (x / end) ** power
            a.plot(x, y, color=INK, lw=0.8, ls=":")
            a.annotate(f"slope {power}", (x[1], y[1]), xytext=(4, -4), color=INK, fontsize=7.5,
                       textcoords="offset points")  # fmt: skip
        decades(a, "xy")
        a.set(xlabel="nudge β [S]", ylim=(1e-10, 3))
        a.set_ylabel("error of the gradient")
        a.set_title(f"Error in β, reltol {tight}")
        a.legend(loc="upper left")
        shown = [r for r in (1e-3, 1e-4, 1e-6, 1e-8, 1e-10) if r in reltols]
        for k, r in enumerate(shown):
            found = np.array([row["errors"][str(r)]["centred"] for row in rows])
            mix = k / max(len(shown) - 1, 1)
            shade = (0.78 - 0.67 * mix, 0.34 + 0.1 * mix, 0.17 + 0.48 * mix)
            b.plot(BETAS, np.median(found, axis=0), color=shade, lw=1.4, label=f"{r:.0e}")
            b.plot(BETAS, found.max(axis=0), color=shade, lw=0.7, ls=":")
        decades(b, "xy")
        b.set(xlabel="nudge β [S]", ylim=(1e-10, 1e6))
        b.set_title("Centred, by ngspice's reltol")
        b.legend(title="median (dotted: worst network)", loc="upper right", ncols=2)
        small = int(np.argmin(np.abs(np.log(BETAS / SMALL))))
        for k, r in enumerate(reltols):
            each = [row["errors"][str(r)] for row in rows]
            for name, dots, colour, at in (
                ("both states swept alike", [one["centred"][small] for one in each], PLUS, 1.2),
                ("swept apart", [one["swept apart"] for one in each], MINUS, 1 / 1.2),
            ):
                c.plot(np.full(len(dots), r * at), dots, ".", color=colour, ms=3.5, alpha=0.45)
                c.plot(r * at, np.median(dots), "_", color=colour, ms=11, mew=1.8,
                       label=None if k else name)  # fmt: skip
        decades(c, "xy")
        c.set_xlabel("reltol of ngspice")
        c.set_title(f"Floor, β = {BETAS[small]:.0e} S")
        c.invert_xaxis()
        c.legend(loc="upper right")
        for name, colour in (
            ("coupled, several outputs", MINUS),
            ("coupled, one output, all samples", "#d9a441"),
            ("coupled, one output, all samples scaled", MUTED),
            ("equilibrium propagation", PLUS),
        ):
            band(d, ETAS, [r["angles"][name] for r in rows], colour, name)
        decades(d, "xy")
        d.set_ylim(1e-12, 1e5)
        d.set_xlabel("η, or β over the outputs' conductance")
        d.set_ylabel("1 − cosine with the gradient")
        d.set_title("Direction")
        d.legend(loc="upper left", fontsize=7)
        band(e, SCALES, [r["off"] for r in result["transistors"]], PLUS, "edges are transistors")
        x = np.array([SCALES[-1], SCALES[0]])
        e.plot(x, np.median([r["off"][-1] for r in result["transistors"]]) * 0.6 * x / x[0],
               color=INK, lw=0.8, ls=":", label="slope 1")  # fmt: skip
        decades(e, "xy")
        e.set_xlabel("largest voltage [V]")
        e.set_ylabel("error of the gradient, β → 0")
        e.set_title("Without a co-content")
        e.legend(loc="upper left")
        for name, colour in zip(ARMS, (PALE, PLUS, MINUS), strict=True):
            runs = np.array([run["loss"] for run in result["xor"][name]["runs"]])
            x = np.arange(runs.shape[1]) * max(result["steps"] // 60, 1)
            f.plot(x, runs.T, color=colour, lw=0.6, alpha=0.5)
            share = result["xor"][name]["learnt"]["estimate"]
            f.plot(x, np.median(runs, axis=0), color=colour, lw=2,
                   label=f"{name}: {share:.0%} learn it")  # fmt: skip
        f.axhline(1, color=FAINT, lw=0.8, zorder=0)
        decades(f, "y")
        f.set_ylim(1e-8, 1e5)
        f.set(xlabel="step", ylabel="loss over that of outputs at 0 V")
        f.set_title("XOR in ngspice")
        f.legend(loc="upper right")
        figure.savefig(path, dpi=160)


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in seconds")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--networks", type=int, default=12, help="of each kind")
    parser.add_argument("--seeds", type=int, default=20, help="starts of XOR")
    parser.add_argument("--steps", type=int, default=200, help="of XOR's descent")
    options = parser.parse_args()
    reltols: Sequence[float] = RELTOLS
    if options.smoke:
        options.networks, options.seeds, options.steps, reltols = 1, 1, 3, (1e-3, 1e-9)
    with NgspiceEngine(timeout=120.0) as engine:
        rows = gradients(engine, options.seed, options.networks, reltols)
        table = summary(rows, reltols)
        print(json.dumps(table, indent=1), flush=True)
        gates = [transistors(k, options.seed, engine, 3) for k in range(options.networks)]
        without = {
            "slope": mean_interval([row["slope"] for row in gates]),
            **{
                f"{name} at {scale:.3g} V": mean_interval([row[name][k] for row in gates])
                for name in ("off", "cosine") for k, scale in enumerate(SCALES)
            },
            "adjoint": mean_interval(
                [row["adjoint against finite differences in ngspice"] for row in gates]
            ),
        }  # fmt: skip
        print(json.dumps(without, indent=1), flush=True)
        trained: dict[str, Any] = {}
        for name, (hidden, diode) in ARMS.items():
            runs = [xor(hidden, diode, k, engine, options.steps) for k in range(options.seeds)]
            trained[name] = {
                "learnt": yield_interval([run["learnt"] for run in runs])._asdict(),
                "median loss": float(np.median([run["final"] for run in runs])),
                "least loss": min(run["final"] for run in runs),
                "engines differ": max(run["engines differ"] for run in runs),
                "runs": runs,
            }
            print(name, {k: v for k, v in trained[name].items() if k != "runs"}, flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "seed": options.seed, "steps": options.steps, "reltols": list(reltols),
            "betas": BETAS.tolist(), "etas": ETAS.tolist(), "scales": SCALES.tolist(),
            "summary": table, "without co-content": without, "xor": trained,
            "networks": rows, "transistors": gates,
        }  # fmt: skip
        text = json.dumps(result, indent=1) + "\n"
        (options.out / "result.json").write_text(text, encoding="utf-8")
        draw(options.out / "result.png", result)


if __name__ == "__main__":
    main()
