"""Networks locked to a chip, and what a few probes bring back on another one.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.compiler import Mapping
from spicenn.compiler.chip import Chip
from spicenn.compiler.design import Design
from spicenn.compiler.execute import as_inputs, layer_results
from spicenn.compiler.readout import adc_errors, dac_errors
from spicenn.datasets import load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.engines.superposition import superposed
from spicenn.technology import Technology
from spicenn.training.columns import fit_columns, least_squares
from spicenn.training.gauge import Gauge, apply_gauge, fix_gauge, null_directions, row_max_gauge
from spicenn.training.migrate import Migration, calibrate_columns, ideal_results

Array = NDArray[Any]

# Hidden activations of other chips are larger than the ideal network's: the hidden layer's
# drivers reach so much further than those.
HEADROOM = 2.0

# The setting whose network belongs to no chip: at home it is in the ideal one.
CROWD = "trained on 20 chips"

# A smaller lock gap is none, and no part of it can be told.
LOCKED = 0.02


@dataclass(frozen=True)
class Data:
    """Digits in [0, 1], (sample, 64) float32."""

    x: Array
    y: Array
    test: Array
    labels: Array


def load(tests: int) -> Data:
    """Return scikit-learn's digits, as many test images as asked for."""
    digits = load_digits()
    x, test = (a.reshape(len(a), -1) for a in (digits.train, digits.test[:tests]))
    return Data(x, digits.train_labels, test, digits.test_labels[:tests])


def columns_technology(offset: float) -> Technology:
    """Cells off by 10 %, rows by 15 %, columns by 30 % and an offset over full scale."""
    return cells_technology(0.1).replace(
        {"periphery.adc.gain": 0.3, "periphery.adc.offset": offset, "periphery.dac.gain": 0.15}
    )


def cells_technology(sigma: float) -> Technology:
    """Relative errors of cells alone, no wires."""
    return Technology.preset("ideal").replace(
        {
            "variation.programming_law": "lognormal",
            "programming_error": sigma,
        }
    )


# --- training -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distortion:
    """What one chip does to one layer, wires left out; from the chip's own draws.

    plus, minus : (input, output), factors of the cells' conductances.
    row : (input,), column : (output,) factors; offset : (output,) over full scale.
    """

    plus: torch.Tensor
    minus: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor
    offset: torch.Tensor


def distortions(chip: Chip) -> list[Distortion]:
    """Return every layer's, each of one tile; a lognormal error is a factor of any target."""
    result = []
    design, seed = chip.design, chip.seed
    for tile in design.tiles:
        factor = chip.cells(tile).g / tile.g_target
        rows = dac_errors(tile.layer, 0, len(factor), design, [chip.index], seed)
        columns = adc_errors(tile, design, [chip.index], seed)
        parts = factor[:, 0::2], factor[:, 1::2], 1 + rows.gain[0], 1 + columns.gain[0]
        result.append(
            Distortion(
                *(torch.tensor(part, dtype=torch.float32) for part in (*parts, columns.offset[0]))
            )
        )
    return result


def forward(
    model: nn.Sequential,
    x: torch.Tensor,
    chip: Sequence[Distortion],
    scales: Sequence[tuple[float, float]],
    technology: Technology,
) -> torch.Tensor:
    """Run the two layers of a model as a chip does (without its wires), differentiably.

    Parameters
    ----------
    scales : per layer, full scale of its inputs and of its converters in the model's units.
    """
    span = technology.g_max - technology.g_min
    low = technology.g_min / span
    for k, (layer, one) in enumerate(zip((model[0], model[2]), chip, strict=True)):
        assert isinstance(layer, nn.Linear)
        full_in, full_out = scales[k]
        weight = layer.weight.T
        largest = weight.detach().abs().max()
        part = weight / largest
        own = (low + part.clamp_min(0)) * one.plus - (low + (-part).clamp_min(0)) * one.minus
        z = (x.clamp(0.0, full_in) * one.row) @ (own * largest)
        z = z * one.column + one.offset * full_out + layer.bias
        x = z.relu() if k == 0 else z
    return x


def scales_of(model: nn.Sequential, x: torch.Tensor) -> list[tuple[float, float]]:
    """Full scales as ``compile`` sets them from the ideal network's values, with headroom."""
    with torch.no_grad():
        first, second = model[0], model[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        hidden = x @ first.weight.T
        active = (hidden + first.bias).relu()
        last = active @ second.weight.T
    return [
        (float(x.max()), float(hidden.abs().max())),
        (HEADROOM * float(active.max()), float(last.abs().max())),
    ]


def train(
    data: Data,
    hidden: int,
    seed: int,
    epochs: int,
    chips: Sequence[Sequence[Distortion]] = (),
    technology: Technology | None = None,
) -> nn.Sequential:
    """Train 64-hidden-10, on the ideal network or on one chip, another one at every step."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimiser = torch.optim.Adam(model.parameters(), 4e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    x, y = torch.as_tensor(data.x), torch.as_tensor(data.y)
    step = 0
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            if chips:
                assert technology is not None
                chip = chips[int(torch.randint(len(chips), ()))]
                if step % 10 == 0:  # they move slowly
                    scales = scales_of(model, x)
                z = forward(model, x[batch], chip, scales, technology)
            else:
                z = model(x[batch])
            optimiser.zero_grad()
            nn.functional.cross_entropy(z, y[batch]).backward()
            optimiser.step()
            step += 1
        schedule.step()
    return model


def design_of(model: nn.Module, data: Data, technology: Technology) -> Design:
    """Compile a network; its hidden layer's drivers have headroom."""
    design = sn.compile(
        model,
        torch.as_tensor(data.x[:4]),
        technology=technology,
        mapping=Mapping(bias="digital"),
        tile=sn.Tile(wordlines=64, bitlines=128),
        calibration=torch.as_tensor(data.x),
    )
    first, second = design.layers
    # The same currents are a smaller share of the larger range.
    second = replace(
        second,
        input_scale=second.input_scale * HEADROOM,
        current_scale=second.current_scale / HEADROOM,
    )
    return replace(design, layers=(first, second))


# --- moving ---------------------------------------------------------------------------------


def accuracy(chip: Chip, data: Data, engine: Engine) -> float:
    """Share of test images that a chip gets right."""
    y = chip.run(data.test, engine)
    return float(np.mean(np.argmax(y, axis=1) == data.labels))


def deranged(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A permutation that leaves no probe in its place."""
    while True:
        order = rng.permutation(count)
        if count == 1 or not np.any(order == np.arange(count)):
            return order


@dataclass(frozen=True)
class Case:
    """One way to calibrate: where the probes come from, how columns are fitted."""

    name: str
    fit: Any = fit_columns
    shuffled: bool = False
    random: bool = False


RIGHT, WRONG = Case("calibrated"), Case("shuffled", shuffled=True)
STRANGE = Case("calibrated, random probes", random=True)
PLAIN = Case("least squares", fit=least_squares)
PLAIN_STRANGE = Case("least squares, random probes", fit=least_squares, random=True)

# A setting's cases, each with the numbers of probes out of those asked for.
Plan = Sequence[tuple[Case, Sequence[int]]]


def probes_of(data: Data, count: int, case: Case, rng: np.random.Generator) -> Array:
    """Training images, or sparse random images that are none."""
    if case.random:
        shape = (count, data.x.shape[1])
        return (rng.random(shape) * (rng.random(shape) < 0.1)).astype(np.float32)
    return data.x[rng.choice(len(data.x), count, replace=False)]


def moved(
    source: Chip | None, target: Chip, data: Data, count: int, case: Case, engine: Engine
) -> Migration:
    """Calibrate a target chip against what the source, or the ideal network, gives."""
    rng = np.random.default_rng([count, target.index, target.seed])
    inputs = as_inputs(target.design, probes_of(data, count, case, rng))
    if source is None:
        reference = ideal_results(target.design, inputs)
    else:
        reference = layer_results(source, inputs, engine)
    if case.shuffled:
        order = deranged(count, rng)
        reference = {name: z[:, order] for name, z in reference.items()}
    return calibrate_columns(target, inputs, reference, engine, fit=case.fit)


def study(
    design: Design,
    data: Data,
    seed: int,
    targets: Sequence[int],
    plan: Plan,
    engine: Engine,
    *,
    ideal: bool = False,
) -> dict[str, Any]:
    """Accuracies of one network moved from chip 0 (or the ideal one) to others, chip by chip."""
    source = None if ideal else design.sample(0, seed)
    if source is None:
        with torch.no_grad():
            right = design.to_torch()(torch.as_tensor(data.test)).argmax(1).numpy() == data.labels
        at_home = float(np.mean(right))
    else:
        at_home = accuracy(source, data, engine)
    result: dict[str, Any] = {"at home": at_home, "raw": []}
    for index in targets:
        target = design.sample(index, seed)
        raw = accuracy(target, data, engine)
        result["raw"].append(raw)
        for case, counts in plan:
            for count in counts:
                one = moved(source, target, data, count, case, engine)
                forced = accuracy(target.corrected(one.fitted), data, engine)
                row = result.setdefault(case.name, {}).setdefault(
                    str(count), {"accepted": [], "forced": [], "gated": []}
                )
                row["accepted"].append(one.success)
                row["forced"].append(forced)
                row["gated"].append(forced if one.success else raw)
    return result


# --- gauge ----------------------------------------------------------------------------------


def gauges(
    model: nn.Module, data: Data, seed: int, chips: Sequence[int], engine: Engine
) -> dict[str, Any]:
    """Relative error and accuracy of one network in three gauges, expected and on chips."""
    # Far from 0 S, where a cell that cannot conduct less would shift the mean.
    technology = Technology.preset("ideal").replace(g_min=30e-6, programming_error=0.07)
    plain = design_of(model, data, technology)
    fixed = fix_gauge(plain, data.x[:300])
    designs = {
        "as drawn": (fixed.drawn, apply_gauge(plain, apply_identity(plain), data.x)),
        "row-max": (fixed.row_max, apply_gauge(plain, row_max_gauge(plain), data.x)),
        "optimised": (fixed.error, apply_gauge(plain, fixed.gauge, data.x)),
    }
    with torch.no_grad():
        ideal = model(torch.as_tensor(data.test)).double().numpy()
    result: dict[str, Any] = {}
    for name, (expected, design) in designs.items():
        errors, right = [], []
        for chip in design.sample(chips=chips, seed=seed):
            y = np.asarray(chip.run(data.test, engine), dtype=np.float64)
            errors.append(float(np.mean(np.square(y - ideal)) / np.mean(np.square(ideal))))
            right.append(float(np.mean(y.argmax(1) == data.labels)))
        result[name] = {
            "expected": expected, "error": float(np.sqrt(np.mean(errors))), "accuracy": right,
        }  # fmt: skip
    return result


def apply_identity(design: Design) -> Gauge:
    """The gauge that changes nothing."""
    hidden = [layer.outputs for layer in design.layers[:-1]]
    return Gauge(
        scales=tuple(np.ones(n) for n in hidden), orders=tuple(np.arange(n) for n in hidden)
    )


def null_counts(data: Data, hidden: int, seed: int, samples: int) -> dict[str, int]:
    """Directions that outputs do not see, at digits and at generic inputs."""
    design = design_of(train(data, hidden, seed, 10), data, cells_technology(0.1))
    generic = np.random.default_rng(seed).standard_normal((samples, 64)).astype(np.float32)
    at_digits = null_directions(design, data.x[:samples])
    return {
        "hidden neurons + pairs": at_digits.gauge,
        "generic inputs": null_directions(design, generic).found,
        "digits": at_digits.found,
    }


# --- all of it ------------------------------------------------------------------------------


def one_seed(
    seed: int, data: Data, hidden: int, epochs: int, targets: Sequence[int],
    counts: Sequence[int], engine: Engine,
) -> dict[str, Any]:  # fmt: skip
    """Every setting of the study for one seed of network and chips."""
    start = train(data, hidden, seed, epochs // 2)
    result: dict[str, Any] = {}

    def on_chips(technology: Technology, chips: Sequence[int], first: int) -> nn.Sequential:
        base = design_of(start, data, technology)
        own = [distortions(base.sample(index, first)) for index in chips]
        return train(data, hidden, seed, epochs, own, technology)

    def run(name: str, technology: Technology, model: nn.Module, plan: Plan) -> None:
        began = time.perf_counter()
        design = design_of(model, data, technology)
        result[name] = study(design, data, 1000 + seed, targets, plan, engine, ideal=name == CROWD)
        one = result[name]
        print(
            f"seed {seed}, {name}: at home {one['at home']:.3f}, raw {np.mean(one['raw']):.3f}, "
            f"{time.perf_counter() - began:.0f} s", flush=True,
        )  # fmt: skip

    mild, strong, cells = columns_technology(0.075), columns_technology(0.3), cells_technology(0.5)
    few, some = counts[:2], counts[1:3]
    own = on_chips(mild, [0], 1000 + seed)
    run("trained on A", mild, own, [(RIGHT, counts), (WRONG, counts)])
    # No chip of the population is met again.
    crowd = on_chips(mild, range(20), 5000 + seed)
    run(CROWD, mild, crowd, [(RIGHT, some), (WRONG, some)])
    harsh = on_chips(strong, [0], 1000 + seed)
    run("trained on A, offset 0.3", strong, harsh, [(RIGHT, some), (WRONG, counts[2:3])])
    loose = on_chips(cells, [0], 1000 + seed)
    plan = [(RIGHT, counts[:3]), (PLAIN, few), (STRANGE, few), (PLAIN_STRANGE, few)]
    run("cells alone", cells, loose, plan)
    result["gauge"] = gauges(start, data, 1000 + seed, targets, engine)
    return result


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over chips and seeds, and the recovery's spread over seeds."""
    table: dict[str, Any] = {}
    for name in results[0]:
        if name == "gauge":
            continue
        own = [result[name] for result in results]
        gaps = [one["at home"] - float(np.mean(one["raw"])) for one in own]
        rows: dict[str, Any] = {
            "at home": float(np.mean([one["at home"] for one in own])),
            "raw": float(np.mean([np.mean(one["raw"]) for one in own])),
            "raw, worst chip": float(min(min(one["raw"]) for one in own)),
            "lock gap": [round(gap, 4) for gap in gaps],
        }
        for case in own[0]:
            if case in ("at home", "raw"):
                continue
            for count in own[0][case]:
                cell = [one[case][count] for one in own]
                gained = [
                    (float(np.mean(c["gated"])) - float(np.mean(one["raw"]))) / gap
                    for c, one, gap in zip(cell, own, gaps, strict=True)
                    if min(gaps) > LOCKED
                ]
                rows[f"{case}, {count} probes"] = {
                    "accepted": float(np.mean([np.mean(c["accepted"]) for c in cell])),
                    "forced": float(np.mean([np.mean(c["forced"]) for c in cell])),
                    "gated": float(np.mean([np.mean(c["gated"]) for c in cell])),
                    "gated, worst chip": float(min(min(c["gated"]) for c in cell)),
                    "recovery": float(np.mean(gained)) if gained else None,
                    "recovery by seed": [round(value, 4) for value in gained],
                }
        table[name] = rows
    table["gauge"] = {
        gauge: {
            "expected": float(np.mean([r["gauge"][gauge]["expected"] for r in results])),
            "error": float(np.mean([r["gauge"][gauge]["error"] for r in results])),
            "error by seed": [round(r["gauge"][gauge]["error"], 4) for r in results],
            "accuracy": float(np.mean([np.mean(r["gauge"][gauge]["accuracy"]) for r in results])),
            "worst chip": float(min(min(r["gauge"][gauge]["accuracy"]) for r in results)),
        }
        for gauge in results[0]["gauge"]
    }
    return table


def draw(table: dict[str, Any], path: Path) -> None:
    """Accuracy against the number of probes, a panel per setting."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in table if name not in ("gauge", "null directions")]
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 3.6), sharey=True)
    for axis, name in zip(np.atleast_1d(axes), names, strict=True):
        rows = table[name]
        axis.axhline(rows["at home"], color="0.4", ls=":", label="at home")
        axis.axhline(rows["raw"], color="0.4", ls="--", label="moved, raw")
        lines: dict[str, dict[int, dict[str, float]]] = {}
        for key, row in rows.items():
            if isinstance(row, dict):
                case, _, count = key.removesuffix(" probes").rpartition(", ")
                lines.setdefault(case, {})[int(count)] = row
        for k, (case, own) in enumerate(lines.items()):
            counts = sorted(own)
            axis.plot(counts, [own[n]["forced"] for n in counts], "o-", color=f"C{k}",
                      label=f"{case}, forced")  # fmt: skip
            axis.plot(counts, [own[n]["gated"] for n in counts], "x:", color=f"C{k}",
                      label=f"{case}, gated")  # fmt: skip
        axis.set(xscale="log", xlabel="probes", title=name)
        ticks = sorted({count for own in lines.values() for count in own})
        axis.set_xticks(ticks, [str(count) for count in ticks])
        axis.minorticks_off()
        axis.title.set_fontsize(9)
        axis.legend(fontsize=6)
    np.atleast_1d(axes)[0].set_ylabel("accuracy on other chips")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one tiny case in seconds")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--chips", type=int, default=20, help="target chips per seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--probes", type=int, nargs="+", default=[3, 8, 32, 128])
    parser.add_argument("--tests", type=int, default=500, help="test images")
    parser.add_argument("--engine", choices=["ngspice", "nodal"], default="ngspice")
    parser.add_argument("--combine", type=Path, nargs="+", help="result.json of other seeds")
    parser.add_argument("--out", type=Path, help="folder of result.json and locking.png")
    options = parser.parse_args()
    torch.set_num_threads(1)  # small problems: threads would only wait for one another
    if options.smoke:
        options.hidden, options.epochs, options.chips, options.seeds = 8, 2, 1, [0]
        options.probes, options.tests, options.engine = [3, 8, 16], 40, "nodal"
    data = load(options.tests)
    targets = range(1, options.chips + 1)
    results = []
    for path in options.combine or ():
        results += json.loads(path.read_text(encoding="utf-8"))["seeds"]
        options.seeds = []
    with open_engine(options.engine, timeout=100) as engine:
        results += [
            one_seed(
                seed,
                data,
                options.hidden,
                options.epochs,
                targets,
                options.probes,
                superposed(engine),
            )
            for seed in options.seeds
        ]
    table = summary(results)
    small = 4 if options.smoke else 16
    table["null directions"] = {
        f"64-{small}-10": null_counts(data, small, 0, 60 if options.smoke else 400)
    }
    print(json.dumps(table, indent=1))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        setting = {
            key: value for key, value in vars(options).items() if key not in ("out", "combine")
        }
        setting["seeds"] = len(results)
        text = json.dumps({"setting": setting, "table": table, "seeds": results}, indent=1)
        (options.out / "result.json").write_text(text + "\n", encoding="utf-8")
        draw(table, options.out / "locking.png")


if __name__ == "__main__":
    main()
