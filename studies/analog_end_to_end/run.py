"""The same network with its layers apart and as one analog circuit: where they part, and why.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

import spicenn as sn
from spicenn.compiler.design import Design
from spicenn.compiler.energy import COMPONENTS, Mode, measure
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.nodal import NodalEngine

Array = NDArray[Any]

TRAINING = 1200
SEED = 404


class SquareLaw(nn.Module):
    """What a differential pair makes of tanh: u sqrt(1 - u²/4), ±1 from |u| = sqrt(2) on."""

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        """See the class."""
        u = u.clamp(-math.sqrt(2.0), math.sqrt(2.0))
        return u * (1.0 - u * u / 4.0).sqrt()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


@dataclass(frozen=True, eq=False)
class Images:
    """Digits in [0, 1], (sample, 64) float32, in a fixed shuffled order."""

    train: Array
    labels: Array
    test: Array
    test_labels: Array


@dataclass(frozen=True)
class Cause:
    """One thing in which the two may differ; everything else is ideal.

    changes : of the technology.
    quantile : share of the training images' magnitudes that full scale covers; None has
        full scale cover the test images as well, so that no driver ever clips.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    quantile: float | None = None


# Cells and wires of rram-1r, on both sides alike: no reason to part.
CELLS = {"programming_error": 0.05, "r_wordline": 2.0, "r_bitline": 2.0}
DRIVERS = {"periphery.driver.resistance": 100.0}
# Amplifiers and neurons: orders of magnitude of a small 0.18 µm circuit. An offset of 1 mV is
# A_VT = 4 mV µm on a pair of 6 µm x 5 µm (Pelgrom, Tuinhout, Vertregt, IEDM 1998).
REAL = {
    "periphery.tia.gain": 1e3,
    "periphery.tia.offset": 1e-3,
    "periphery.tia.v_max": 0.8,
    "periphery.neuron.offset": 3e-3,
}
CAUSES = (
    Cause("nothing: all ideal"),
    Cause("cells and wires", CELLS),
    Cause("drivers of 100 ohm", {**CELLS, **DRIVERS}),
    Cause("gain 1000", {"periphery.tia.gain": 1e3}),
    Cause("gain 100", {"periphery.tia.gain": 1e2}),
    Cause("amplifier offset 1 mV", {"periphery.tia.offset": 1e-3}),
    Cause("neuron offset 3 mV", {"periphery.neuron.offset": 3e-3}),
    Cause("range of training images", {}, 1.0),
    Cause("range of 98 % of inputs", {}, 0.98),
    Cause("range of 90 % of inputs", {}, 0.90),
    Cause("neurons at 1.5 V", {"periphery.neuron.supply": 1.5}),
    Cause("all together", {**CELLS, **DRIVERS, **REAL}, 0.98),
)
# Capacitances and speed for transients: wires of sky130's lower metals, a 100 nm cell (both
# as in the preset hfox-1t1r), an amplifier of 1 GHz.
# Wires of 2 ohm are left out: 64 segments of them take a picosecond, and a hundredfold the time
# of a simulation.
DYNAMIC = {
    "r_wordline": 0.0,
    "r_bitline": 0.0,
    "c_wordline": 0.24e-15,
    "c_bitline": 0.31e-15,
    "c_cell": 0.37e-15,
    "periphery.tia.bandwidth": 1e9,
    "periphery.tia.c_in": 20e-15,
    "periphery.tia.bias_current": 20e-6,
    "periphery.driver.bias_current": 1e-6,
}


def load(tests: int) -> Images:
    """Return the images, at most as many test images as asked for."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    end = TRAINING + tests
    return Images(x[:TRAINING], y[:TRAINING], x[TRAINING:end], y[TRAINING:end])


def train(images: Images, activation: str, hidden: int, epochs: int) -> nn.Sequential:
    """Train 64-hidden-10 in single precision; return it in double."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, 10))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    x, y = torch.as_tensor(images.train), torch.as_tensor(images.labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.double()


def compiled(model: nn.Module, images: Images, cause: Cause) -> Design:
    """Map to an ideal technology but for the cause."""
    return mapped(model, images, cause.quantile).with_technology(cause.changes)


@lru_cache(maxsize=8)
def mapped(model: nn.Module, images: Images, quantile: float | None) -> Design:
    """Map to the ideal technology."""
    seen = images.train
    if quantile is None:
        seen = np.concatenate([images.train, images.test])
    return sn.compile(
        model,
        torch.as_tensor(images.train[:4].astype(np.float64)),
        technology=sn.Technology.preset("ideal"),
        mapping=sn.Mapping(input_quantile=quantile or 1.0),
        calibration=torch.as_tensor(seen.astype(np.float64)),
    )


def rms(x: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x))))


def accuracy(y: Array, labels: Array) -> float:
    """Share of images with the right label."""
    return float(np.mean(y.argmax(axis=-1) == labels))


def hybrid(design: Design, chips: Sequence[int], x: Array) -> Array:
    """Layers apart, amplifiers and converters as they are; (chip, sample, output)."""
    result = run_chips(design, chips, SEED, as_inputs(design, x), NodalEngine())
    (output,) = result.output.values()
    return np.asarray(output[:, 0])


def spread(values: Array) -> tuple[float, float]:
    """Mean over chips and its standard error."""
    error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else 0.0
    return float(np.mean(values)), error


def compare(name: str, ideal: Array, apart: Array, whole: Array, labels: Array) -> dict[str, Any]:
    """One row: what chips do with layers apart, as one circuit, and between the two.

    ideal : (sample, output); apart, whole : (chip, sample, output).
    """
    scale = float(np.std(ideal))
    pairs = list(zip(apart, whole, strict=True))
    return {
        "cause": name,
        "hybrid accuracy": spread(np.array([accuracy(y, labels) for y in apart])),
        "analog accuracy": spread(np.array([accuracy(y, labels) for y in whole])),
        "hybrid error": spread(np.array([rms(y - ideal) / scale for y in apart])),
        "analog error": spread(np.array([rms(y - ideal) / scale for y in whole])),
        "difference": spread(np.array([rms(a - b) / scale for a, b in pairs])),
        "decisions": spread(np.array([np.mean(a.argmax(-1) != b.argmax(-1)) for a, b in pairs])),
    }


def study(
    activation: str, model: nn.Sequential, images: Images, options: argparse.Namespace,
    engine: NgspiceEngine,
) -> dict[str, Any]:  # fmt: skip
    """All causes for one network."""
    x, labels = images.test.astype(np.float64), images.test_labels
    chips = list(range(options.chips))
    with torch.no_grad():
        ideal = model(torch.as_tensor(x)).numpy()
    # Layers apart with the pair's own law in the place of tanh: what is left is not the law.
    pair = nn.Sequential(model[0], SquareLaw(), model[2]) if activation == "tanh" else model
    rows, checked = [], []
    if pair is not model:
        plain = CAUSES[0]
        apart, law = (hybrid(compiled(m, images, plain), [0], x) for m in (model, pair))
        rows.append(compare("square law for tanh", ideal, apart, law, labels))
    for cause in options.causes:
        design = compiled(model, images, cause)
        apart = hybrid(compiled(pair, images, cause), chips, x)
        made = design.sample(chips=chips, seed=SEED)
        whole = np.stack([chip.run_analog(x, "nodal") for chip in made])
        rows.append(compare(cause.name, ideal, apart, whole, labels))
        some = slice(0, options.simulated_images)
        for chip, twin in zip(made[: options.simulated], whole, strict=False):
            simulated = chip.run_analog(x[some], engine)
            checked.append(
                {
                    "cause": cause.name,
                    "chip": chip.index,
                    "twin": rms(twin[some] - simulated) / float(np.std(ideal)),
                    "decisions": float(np.mean(twin[some].argmax(-1) != simulated.argmax(-1))),
                }
            )
        print(json.dumps(rows[-1]), flush=True)
    return {
        "ideal accuracy": accuracy(ideal, labels),
        "rows": rows,
        "ngspice": checked,
        "shuffled": shuffled(model, images, options),
    }


def shuffled(model: nn.Sequential, images: Images, options: argparse.Namespace) -> Any:
    """Accuracy of chips whose weights were put in another order; mean and standard error."""
    found = []
    for k in range(options.chips):
        other = copy.deepcopy(model)
        rng = np.random.default_rng(k)
        with torch.no_grad():
            for mine, theirs in zip(other.parameters(), model.parameters(), strict=True):
                mine.copy_(torch.as_tensor(rng.permutation(theirs.flatten().numpy())).reshape(
                    theirs.shape))  # fmt: skip
        chip = compiled(other, images, options.causes[-1]).sample(k, SEED)
        y = chip.run_analog(images.test.astype(np.float64), "nodal")
        found.append(accuracy(y, images.test_labels))
    return spread(np.array(found))


def settling(
    model: nn.Module, images: Images, options: argparse.Namespace, engine: NgspiceEngine
) -> dict[str, Any]:
    """Latency and energy of an inference, layers apart and as one circuit."""
    everything = options.causes[-1]
    cause = Cause("transient", {**everything.changes, **DYNAMIC}, everything.quantile)
    design = compiled(model, images, cause)
    x = images.test[: options.transients].astype(np.float64)
    result: dict[str, Any] = {}
    modes: tuple[Mode, ...] = ("hybrid", "analog")
    for mode in modes:
        found = [
            measure(chip, x, engine, mode=mode)
            for chip in design.sample(chips=range(min(options.chips, 2)), seed=SEED)
        ]
        energy = np.concatenate([one.energy for one in found])
        latency = np.concatenate([one.latency for one in found])
        result[mode] = {
            "latency": latency.mean(axis=0).tolist(),
            "worst latency": float(latency.sum(axis=1).max()),
            "energy": dict(zip(COMPONENTS, energy.sum(axis=1).mean(axis=0).tolist(), strict=True)),
        }
    return result


def tables(results: dict[str, Any]) -> str:
    """Markdown for the README."""

    def percent(pair: Sequence[float]) -> str:
        return f"{100 * pair[0]:.1f} ± {100 * pair[1]:.1f}"

    def share(pair: Sequence[float]) -> str:
        return (
            f"{pair[0]:.1e} ± {pair[1]:.0e}" if pair[0] < 1e-3 else f"{pair[0]:.4f} ± {pair[1]:.4f}"
        )

    lines = []
    for name, found in results.items():
        lines += [
            f"**{name}**: {100 * found['ideal accuracy']:.1f} % in torch; "
            f"shuffled weights {percent(found['shuffled'])} %.",
            "",
            "| alone | hybrid, % | analog, % | analog against torch | hybrid against analog | "
            "decisions that differ, % |",
            "|---|---|---|---|---|---|",
            *(
                f"| {r['cause']} | {percent(r['hybrid accuracy'])} | "
                f"{percent(r['analog accuracy'])} | {share(r['analog error'])} | "
                f"{share(r['difference'])} | {percent(r['decisions'])} |"
                for r in found["rows"]
            ),
            "",
        ]
        by = {r["cause"]: 0.0 for r in found["ngspice"]}
        for r in found["ngspice"]:
            by[r["cause"]] = max(by[r["cause"]], r["twin"])
        if by:
            worst = "; ".join(f"{cause} {value:.1e}" for cause, value in by.items())
            wrong = max(r["decisions"] for r in found["ngspice"])
            lines += [
                f"Twin against ngspice, largest: {worst}. Decisions: {100 * wrong:.1f} %.",
                "",
            ]
        for mode, seen in found["transients"].items():
            energy = ", ".join(f"{k} {1e12 * v:.2f}" for k, v in seen["energy"].items() if v)
            latency = " + ".join(f"{1e9 * t:.2f}" for t in seen["latency"])
            lines += [f"{mode}: latency {latency} ns, worst {1e9 * seen['worst latency']:.2f} ns; "
                      f"energy [pJ]: {energy}.", ""]  # fmt: skip
    return "\n".join(lines)


def picture(results: dict[str, Any], path: Path) -> None:
    """Difference of the two per cause, and what the analog chip loses."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = {"relu": "#1d6fa5", "tanh": "#c8562c"}
    names = list(dict.fromkeys(r["cause"] for f in results.values() for r in f["rows"]))
    for shift, (name, found) in zip((-0.15, 0.15), results.items(), strict=False):
        at = [names.index(r["cause"]) + shift for r in found["rows"]]
        style: dict[str, Any] = {"fmt": "o", "ms": 4, "color": colours[name], "label": name}
        value, error = np.array([r["difference"] for r in found["rows"]]).T
        left.errorbar(np.maximum(value, 1e-9), at, xerr=error, **style)
        value, error = 100 * np.array([r["analog accuracy"] for r in found["rows"]]).T
        right.errorbar(value, at, xerr=error, **style)
        right.axvline(100 * found["ideal accuracy"], color=colours[name], lw=0.7, ls=":")
    left.set_xscale("log")
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set_xlabel("hybrid against analog, rms over deviation")
    right.set_xlabel("accuracy, analog, % (dotted: torch)")
    right.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the study; print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one tiny case in seconds")
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--images", type=int, default=597)
    parser.add_argument("--simulated", type=int, default=2, help="chips also in ngspice, per cause")
    parser.add_argument("--simulated-images", type=int, default=100)
    parser.add_argument("--transients", type=int, default=4, help="images, on two chips each")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    options = parser.parse_args()
    # Small problems: threads would only wait for one another.
    torch.set_num_threads(1)
    options.causes, activations, epochs = CAUSES, list(ACTIVATIONS), 60
    if options.smoke:
        options.causes, activations, epochs = (CAUSES[0], CAUSES[-1]), ["relu"], 1
        options.hidden, options.chips, options.images = 2, 1, 10
        options.simulated, options.simulated_images, options.transients = 1, 4, 1
    images = load(options.images)
    results: dict[str, Any] = {}
    with NgspiceEngine(timeout=300.0) as engine:
        for activation in activations:
            model = train(images, activation, options.hidden, epochs)
            results[activation] = study(activation, model, images, options, engine)
            results[activation]["transients"] = settling(model, images, options, engine)
    print(tables(results))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "result.json").write_text(json.dumps(results, indent=1) + "\n")
        picture(results, options.out / "result.png")


if __name__ == "__main__":
    main()
