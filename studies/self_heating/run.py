"""What predistorted inputs regain of what self-heating costs, under even and localised load.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.circuit import Crossbar
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.datasets import load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.engines.heating import heated, heated_currents
from spicenn.seeds import Purpose, generator
from spicenn.technology.heating import Heating
from spicenn.training.feedforward import (
    FeedForward,
    design_corrections,
    feed_forward,
    predistort,
    predistorted,
)

Array = NDArray[np.float64]
Load = Callable[[np.random.Generator, int, int], Array]

HEATING = Heating(alpha=3e-3, r_thermal=1e6, r_coupling=1e6)
G_MIN, G_MAX, PROGRAMMING_ERROR = 2e-6, 100e-6, 0.05
WIRES = 2.0
# Root mean square of a wordline's voltage in every load: the same power, elsewhere.
V_RMS, V_IDLE, HOT_SHARE = 0.3, 0.05, 6
ARMS = ("none", "feed-forward", "shuffled rows", "one mean for all rows")


def even(rng: np.random.Generator, samples: int, wordlines: int) -> Array:
    """Every wordline at the same magnitude."""
    return V_RMS * rng.choice([-1.0, 1.0], (samples, wordlines))


def spread(rng: np.random.Generator, samples: int, wordlines: int) -> Array:
    """Magnitudes evenly spread from 0."""
    return math.sqrt(3) * V_RMS * rng.uniform(-1, 1, (samples, wordlines))


def localised(rng: np.random.Generator, samples: int, wordlines: int) -> Array:
    """Nearly all power on one wordline in six, drawn for every input."""
    hot = max(wordlines // HOT_SHARE, 1)
    rest = (wordlines - hot) * V_IDLE**2
    voltage = np.full((samples, wordlines), V_IDLE)
    voltage[:, :hot] = math.sqrt((wordlines * V_RMS**2 - rest) / hot)
    mixed = rng.permuted(voltage, axis=1)
    return np.asarray(mixed * rng.choice([-1.0, 1.0], (samples, wordlines)))


LOADS: Mapping[str, Load] = {"even": even, "spread": spread, "localised": localised}


def inputs_of(arm: str, correction: FeedForward, v: Array, order: NDArray[np.int64]) -> Array:
    """What is applied (sample, wordline) [V] where v was to be."""
    if arm == "none":
        return v
    if arm == "shuffled rows":
        return np.asarray(predistort(correction.shuffled(order), v).voltage)
    found = predistort(correction, v)
    if arm == "feed-forward":
        return np.asarray(found.voltage)
    return np.asarray(v / (1 + HEATING.alpha * found.rise.mean(axis=-1, keepdims=True)))


def arrays(engine: Engine, seed: int, chips: int, size: int, samples: int) -> list[dict[str, Any]]:
    """Error of every arm under every load of every chip, over the largest current without heat."""
    crossbar = Crossbar("tile", size, size, WIRES, WIRES)
    rows = []
    for chip in range(chips):
        rng = generator(seed, Purpose.PROGRAMMING_ERROR, chip=chip)
        target = rng.uniform(G_MIN, G_MAX, (size, size))
        error = PROGRAMMING_ERROR * G_MAX * rng.standard_normal(target.shape)
        g = np.maximum(target + error, G_MIN / 10)
        correction, order = feed_forward(target, HEATING), rng.permutation(size)
        for load, draw in LOADS.items():
            v = draw(rng, samples, size)
            cold = engine.solve(crossbar, g[np.newaxis], v[np.newaxis]).current[0]
            applied = np.concatenate([inputs_of(arm, correction, v, order) for arm in ARMS])
            hot = heated_currents(crossbar, HEATING, g, applied, engine)
            wrong = (hot.current - cold[np.newaxis].repeat(len(ARMS), 0).reshape(-1, size)).reshape(
                len(ARMS), -1
            ) / np.abs(cold).max()
            rise = hot.rise[:samples]
            rows.append(
                {
                    "seed": seed, "chip": chip, "load": load,
                    "mean rise": float(rise.mean()), "largest rise": float(rise.max()),
                    **dict(zip(ARMS, np.sqrt(np.mean(wrong**2, axis=1)).tolist(), strict=True)),
                }
            )  # fmt: skip
    return rows


def network(train: NDArray[Any], labels: NDArray[Any], epochs: int) -> nn.Module:
    """Train one linear layer on digits."""
    torch.manual_seed(0)
    model = nn.Linear(64, 10)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    x, y = torch.as_tensor(train), torch.as_tensor(labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model


def digits(
    engines: tuple[Engine, Engine],
    seed: int,
    v_read: float,
    epochs: int,
    sizes: tuple[int, int, int],
) -> list[dict[str, Any]]:
    """Accuracy and error of the outputs of one layer on digits, of every chip.

    engines : one that runs all images, and the one that judges the error on some.
    sizes : chips, images and images of the judge.
    """
    chips, images, simulated = sizes
    data = load_digits(1200)
    train, test = (x.reshape(len(x), -1) for x in (data.train, data.test[:images]))
    labels = data.test_labels[:images]
    model = network(train, data.train_labels, epochs)
    technology = sn.Technology.preset("rram-1r").replace(
        {
            "g_max": G_MAX, "g_min": G_MIN, "v_read": v_read, "r_wordline": 0.0,
            "r_bitline": 0.0, "read_noise": 0.0, "bandwidth": 0.0,
        }
    )  # fmt: skip
    design = sn.compile(
        model, torch.as_tensor(train[:4]), technology=technology,
        mapping=sn.Mapping(bias="digital"), calibration=torch.as_tensor(train[:600]),
    )  # fmt: skip
    corrections = design_corrections(design, HEATING)

    def outputs(chip: int, engine: Engine, count: int) -> Array:
        x = as_inputs(design, test[:count])
        (found,) = run_chips(design, [chip], seed, x, engine).output.values()
        return np.asarray(found[0, 0], np.float64)

    rows = []
    for chip in range(chips):
        rng = generator(seed, Purpose.PROBES, chip=chip)
        shuffled = {
            name: each.shuffled(rng.permutation(len(each.rise)))
            for name, each in corrections.items()
        }
        cold = outputs(chip, engines[0], images)
        scale = np.abs(cold).max()
        row: dict[str, Any] = {"seed": seed, "chip": chip, "v_read": v_read}
        row["cold, accuracy"] = float(np.mean(cold.argmax(-1) == labels))
        for arm in ARMS[:3]:
            maps = shuffled if arm == "shuffled rows" else corrections
            warm = [heated(engine, HEATING) for engine in engines]
            exact, judge = warm if arm == "none" else [predistorted(each, maps) for each in warm]
            got, judged = outputs(chip, exact, images), outputs(chip, judge, simulated)
            error = judged - cold[:simulated]
            row[f"{arm}, accuracy"] = float(np.mean(got.argmax(-1) == labels))
            row[f"{arm}, same answer"] = float(np.mean(got.argmax(-1) == cold.argmax(-1)))
            row[f"{arm}, error"] = float(np.sqrt(np.mean(error**2)) / scale)
            row[f"{arm}, engines differ"] = float(np.abs(judged - got[:simulated]).max() / scale)
        rows.append(row)
    return rows


def summary(rows: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """Mean, standard error over chips, worst chip, and the means of every seed."""
    seeds = sorted({row["seed"] for row in rows})
    result = {}
    for name in names:
        values = np.array([row[name] for row in rows])
        result[name] = {
            "mean": float(values.mean()),
            "standard error": float(values.std(ddof=1) / math.sqrt(len(values)))
            if len(values) > 1
            else math.nan,
            "largest": float(values.max()),
            "by seed": [float(np.mean([r[name] for r in rows if r["seed"] == s])) for s in seeds],
        }
    return result


def draw(path: Path, loads: Mapping[str, Mapping[str, Any]]) -> None:
    """Write a picture of every arm's error under every load."""
    from matplotlib.figure import Figure

    from spicenn.report.style import FAINT, INK, MINUS, PALE, PLUS, drawing

    with drawing():
        figure = Figure(figsize=(6.4, 3.0), layout="constrained")
        axes = figure.subplots()
        for k, (arm, colour) in enumerate(zip(ARMS, (MINUS, PLUS, PALE, FAINT), strict=True)):
            at = np.arange(len(loads)) + 0.2 * (k - 1.5)
            means = [loads[load][arm]["mean"] * 100 for load in loads]
            axes.bar(at, means, 0.18, color=colour, label=arm)
            for x, load in zip(at, loads, strict=True):
                points = np.array(loads[load][arm]["by seed"]) * 100
                axes.plot(np.full(len(points), x), points, ".", color=INK, markersize=3)
        axes.set_xticks(range(len(loads)), [f"{load} load" for load in loads])
        axes.set_ylabel("error of currents [% of full scale]")
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_title("Self-heating and its feed-forward correction")
        axes.legend(ncols=2, loc="upper left")
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * 3)
        figure.savefig(path, dpi=160)


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in seconds")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--chips", type=int, default=20, help="arrays per seed")
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--digits", type=int, nargs=3, default=[7, 60, 6],
                        metavar=("CHIPS", "IMAGES", "SIMULATED"))  # fmt: skip
    parser.add_argument("--v-read", type=float, nargs="+", default=[0.5, 1.0])
    options = parser.parse_args()
    torch.set_num_threads(1)
    epochs = 40
    if options.smoke:
        options.seeds, options.chips, options.size, options.samples = [1], 2, 6, 2
        options.digits, options.v_read, epochs = [1, 4, 1], [0.5], 1
    rows = []
    with open_engine("ngspice", timeout=300) as engine:
        for seed in options.seeds:
            rows += arrays(engine, seed, options.chips, options.size, options.samples)
            print(f"seed {seed}: {len(rows)} runs", flush=True)
    loads = {
        load: summary(
            [row for row in rows if row["load"] == load], (*ARMS, "mean rise", "largest rise")
        )
        for load in LOADS
    }
    print(json.dumps(loads, indent=1), flush=True)
    with open_engine("nodal") as nodal, open_engine("ngspice", timeout=300) as ngspice:
        found = [
            row
            for v_read in options.v_read
            for seed in options.seeds
            for row in digits((nodal, ngspice), seed, v_read, epochs, tuple(options.digits))
        ]
    names = tuple(name for name in found[0] if name not in ("seed", "chip", "v_read"))
    classified = {
        str(v): summary([row for row in found if row["v_read"] == v], names) for v in options.v_read
    }
    print(json.dumps(classified, indent=1), flush=True)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {
            "seeds": options.seeds, "chips": options.chips, "size": options.size,
            "samples": options.samples, "arrays": loads, "digits": classified,
        }  # fmt: skip
        text = json.dumps(result, indent=1) + "\n"
        (options.out / "result.json").write_text(text, encoding="utf-8")
        draw(options.out / "result.png", loads)


if __name__ == "__main__":
    main()
