"""Families of surrogates against chips in ngspice: how close, how sure, how fast.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.compiler.design import Design
from spicenn.compiler.embedded import embed
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.mapping import Mapping
from spicenn.datasets import load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.engines.superposition import superposed
from spicenn.surrogate import Surrogate
from spicenn.surrogate.active import next_probes
from spicenn.surrogate.judge import Judgement, Measurements, measure, run_module, score

Array = NDArray[Any]

# Images: the first part trains the network, its inputs serve fit and probes; the last tests.
TRAINING = 1200
FAMILIES = ("structural", "neural", "linear")
# Probes that one chip is given in rounds, each round chosen with what the ones before told.
ROUNDS = (8, 16, 32)
CONTROL = 32


@dataclass(frozen=True)
class Sizes:
    """What makes a run long.

    fit : chips and images of the population's study.
    pool : images that probes are chosen from one by one.
    steps : of the search for probes.
    few : chips of the comparisons that calibrate again and again.
    """

    hidden: int
    epochs: int
    chips: int
    tests: int
    fit: tuple[int, int]
    pool: int
    few: int
    counts: tuple[int, ...]
    steps: int
    rounds: tuple[int, ...]
    control: int
    batches: tuple[int, ...]
    families: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Bench:
    """One seed's network, design, images and unseen chips, with their reads."""

    seed: int
    sizes: Sizes
    model: nn.Sequential
    design: Design
    images: Array
    measured: Measurements
    engine: Engine

    @property
    def truths(self) -> list[Array]:
        return [reads.truth for reads in self.measured.chips]

    def error(self, guess: Array, chip: int) -> float:
        """Rms over full scale."""
        return rms(guess - self.truths[chip]) / self.measured.full_scale

    def module_error(self, module: Any, chip: int) -> float:
        return self.error(run_module(module, tensors(self.measured.test)), chip)


def rms(error: Any) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def tensors(arrays: tuple[Array, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.as_tensor(array) for array in arrays)


def train(x: Array, labels: Array, hidden: int, epochs: int, seed: int) -> nn.Sequential:
    """Train 64-hidden-10 with ReLU."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    inputs, targets = torch.as_tensor(x), torch.as_tensor(labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            optimiser.step()
    return model


def population(
    design: Design, x: Array, engine: Engine, chips: int, seed: int, trials: int = 2
) -> Any:
    """A Monte Carlo of other chips, as ``monte_carlo`` records it, run in this process."""
    import xarray as xr

    result = run_chips(design, range(chips), seed, as_inputs(design, x), engine, trials=trials)
    (output,) = result.output.values()
    return xr.Dataset(
        {
            "output": (("chip", "trial", "sample", "output_dim_0"), output),
            "input": (("sample", "input_dim_0"), x),
            "status": (("chip",), result.status),
            "design": (("byte",), embed(design)),
        },
        attrs={"seed": seed, "engine": engine.name},
    )


def fitted(ds: Any, family: str) -> Any:
    """Fit one family to the same record."""
    return sn.fit(ds) if family == "structural" else sn.fit(ds, family=family)


def least_squares(bench: Bench, surrogate: Surrogate) -> list[dict[str, Any]]:
    """Ridge regression of the same probes' reads: mean error over chips, per number of probes.

    What is regressed is the chip's difference from the ideal network or from the fitted
    population; on the inputs or on the ideal network's hidden layer; the ridge is chosen by
    leave-one-out errors.
    """
    from sklearn.linear_model import RidgeCV

    test = tensors(bench.measured.test)
    bases = {"ideal network": bench.model, "population": surrogate.module()}
    features = {"inputs": nn.Identity(), "hidden layer": bench.model[:2]}
    rows = []
    for count in bench.measured.counts:
        if not count:
            continue
        probes = tensors(bench.measured.probes[count])
        row: dict[str, Any] = {"probes": count}
        for base, module in bases.items():
            for where, feature in features.items():
                errors = []
                for chip, reads in enumerate(bench.measured.chips):
                    found = RidgeCV(alphas=np.geomspace(1e-4, 1e4, 33)).fit(
                        run_module(feature, probes), reads.seen[count] - run_module(module, probes)
                    )
                    change = found.predict(run_module(feature, test))
                    errors.append(bench.error(run_module(module, test) + change, chip))
                row[f"{where}, about the {base}"] = rms(errors)
        rows.append(row)
    return rows


def choices(bench: Bench, surrogate: Surrogate) -> dict[str, dict[int, float]]:
    """Error by way of choosing the probes and by their number, over the first few chips."""
    sizes, design = bench.sizes, bench.design
    images = bench.images[: sizes.pool]
    static = next_probes(surrogate, images, count=sizes.rounds[-1], targets_x=images[:64]).index
    errors: dict[str, dict[int, list[float]]] = {}
    accepted: list[bool] = []

    def add(way: str, count: int, chip: int, found: Any) -> None:
        accepted.append(found.success)
        error = bench.module_error(found.module, chip)
        errors.setdefault(way, {}).setdefault(count, []).append(error)

    for chip in range(sizes.few):
        reads = np.asarray(design.sample(chip, unseen_seed(bench.seed)).run(images, bench.engine))
        order = np.random.default_rng(chip).permutation(len(images))
        for count in sizes.rounds[1:]:
            for way, index in (("random images", order), ("static choice of images", static)):
                some = index[:count]
                add(way, count, chip, sn.calibrate(surrogate, images[some], reads[some]))
            probes = bench.measured.probes[count][0]
            seen = bench.measured.chips[chip].seen[count]
            add("static search", count, chip, sn.calibrate(surrogate, probes, seen))
        # Every round is chosen with what the rounds before told of this chip.
        taken = static[: sizes.rounds[0]]
        found = sn.calibrate(surrogate, images[taken], reads[taken])
        for count in sizes.rounds[1:]:
            known = found if found.success else surrogate
            free = np.setdiff1d(np.arange(len(images)), taken)
            more = next_probes(known, images[free], count=count - len(taken), targets_x=images[:64])
            taken = np.concatenate([taken, free[more.index]])
            found = sn.calibrate(surrogate, images[taken], reads[taken])
            add("active choice of images", count, chip, found)
    result = {way: {n: rms(e) for n, e in by.items()} for way, by in errors.items()}
    result["accepted"] = {0: float(np.mean(accepted))}
    return result


def controls(bench: Bench, surrogate: Surrogate) -> dict[str, float]:
    """Another chip's outputs, in order and not; over the first few chips."""
    count, few = bench.sizes.control, bench.sizes.few
    whole = bench.measured
    chips = whole.chips[:few]
    order = np.random.default_rng(bench.seed).permutation(count)
    cases = {
        "own outputs, shuffled": [reads.seen[count][order] for reads in chips],
        "another chip's outputs": [chips[(k + 1) % few].seen[count] for k in range(few)],
        "another chip's outputs, shuffled": [
            chips[(k + 1) % few].seen[count][order] for k in range(few)
        ],
    }
    result: dict[str, float] = {"probes": count}
    for name, seen in cases.items():
        changed = tuple(
            replace(reads, seen={count: one}) for reads, one in zip(chips, seen, strict=True)
        )
        case = replace(whole, counts=(0, count), chips=changed, seconds={})
        raw, after = score(surrogate, case, seed=bench.seed).scores
        result[f"{name}: refused"] = 1.0 - after.accepted
        result[f"{name}: error over raw"] = after.error / raw.error
    return result


def without_variation(bench: Bench) -> dict[str, Any]:
    """The same design without programming error: nothing to calibrate."""
    design = bench.design.with_technology(programming_error=0.0)
    images = bench.images[: bench.sizes.fit[1]]
    surrogate = sn.fit(population(design, images, bench.engine, 2, fit_seed(bench.seed)))
    chip = design.sample(0, unseen_seed(bench.seed))
    probes = bench.measured.probes[bench.sizes.control][0]
    found = sn.calibrate(surrogate, probes, chip.run(probes, bench.engine))
    quiet = design.with_technology(read_noise=0.0, bandwidth=0.0)
    truth = quiet.sample(0, chip.seed).run(bench.measured.test[0], bench.engine)
    guess = run_module(surrogate.module(), tensors(bench.measured.test))
    return {
        "refused": not found.success,
        "reason": found.reason,
        "error of the population": rms(guess - truth) / bench.measured.full_scale,
    }


def fit_seed(seed: int) -> int:
    """Of the chips that a fit sees; 1000 more for those it does not."""
    return 100 + seed


def unseen_seed(seed: int) -> int:
    return fit_seed(seed) + 1000


def study(seed: int, sizes: Sizes, engine: Engine) -> dict[str, Any]:
    """Everything about one seed: its network, its chips, its probes."""
    digits = load_digits(TRAINING)
    images, test = (x.reshape(len(x), -1) for x in (digits.train, digits.test[: sizes.tests]))
    model = train(images, digits.train_labels, sizes.hidden, sizes.epochs, seed)
    design = sn.compile(
        model,
        torch.as_tensor(images[:4]),
        technology=sn.Technology.preset("rram-1r"),
        mapping=Mapping(adc_bits=8, input_bits=8),
        calibration=torch.as_tensor(images[:600]),
    )
    fast = superposed(engine)
    chips, count = sizes.fit
    ds = population(design, images[:count], fast, chips, fit_seed(seed))
    surrogates = {family: fitted(ds, family) for family in sizes.families}
    structural = surrogates["structural"]
    measured = measure(
        design,
        design.sample(chips=range(sizes.chips), seed=unseen_seed(seed)),
        images,
        test,
        seed=seed,
        counts=sizes.counts,
        engine=engine,
        batches=sizes.batches,
        probes=lambda n: design.probe_vectors(images, count=n, seed=seed, steps=sizes.steps),
    )
    bench = Bench(seed, sizes, model, design, images, measured, fast)
    judged: dict[str, Judgement] = {}
    for family, surrogate in surrogates.items():
        judged[family] = score(surrogate, measured, seed=seed)
        print(f"seed {seed}, {family}\n{judged[family]}\n", flush=True)
    result = {
        "seed": seed,
        "families": {family: report.to_dict() for family, report in judged.items()},
        "least squares": least_squares(bench, structural),
        "choices": choices(bench, structural),
        "controls": controls(bench, structural),
        "no variation": without_variation(bench),
    }
    shown = {key: value for key, value in result.items() if key != "families"}
    print(json.dumps(shown, indent=1), flush=True)
    return result


def tables(results: list[dict[str, Any]]) -> str:
    """The README's tables; rms or means over seeds, the worst chip of all."""
    lines = [
        "| probes | family | error | worst chip | one read | stated | 90 % holds | accepted "
        "| effective | halved | of |",
        "|---" * 11 + "|",
    ]
    for k in range(len(results[0]["families"]["structural"]["scores"])):
        for family in results[0]["families"]:
            scores = [result["families"][family]["scores"][k] for result in results]
            mean = {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}
            error = rms([one["error"] for one in scores])
            worst = max(one["worst"] for one in scores)
            lines.append(
                f"| {scores[0]['probes']} | {family} | {100 * error:.2f} | {100 * worst:.2f} "
                f"| {100 * rms([one['read_error'] for one in scores]):.2f} "
                f"| {100 * rms([one['stated'] for one in scores]):.2f} "
                f"| {100 * mean['coverage']:.0f} % | {known(100 * mean['accepted'], ' %')} "
                f"| {known(mean['effective'])} | {known(mean['halved'])} "
                f"| {known(mean['parameters'])} |"
            )
    names = [name for name in results[0]["least squares"][0] if name != "probes"]
    lines += ["", "| probes | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for k, row in enumerate(results[0]["least squares"]):
        values = [rms([r["least squares"][k][name] for r in results]) for name in names]
        lines.append(f"| {row['probes']} | " + " | ".join(f"{100 * v:.2f}" for v in values) + " |")
    ways = [way for way in results[0]["choices"] if way != "accepted"]
    counts = list(results[0]["choices"][ways[0]])
    lines += ["", "| probes | " + " | ".join(ways) + " |", "|---" * (1 + len(ways)) + "|"]
    for count in counts:
        values = [rms([r["choices"][way][count] for r in results]) for way in ways]
        lines.append(f"| {count} | " + " | ".join(f"{100 * v:.3f}" for v in values) + " |")
    lines += ["", "| batch | family | module, µs | engine, ms | times |", "|---" * 5 + "|"]
    for family in results[0]["families"]:
        for k, timing in enumerate(results[0]["families"][family]["timings"]):
            every = [result["families"][family]["timings"][k] for result in results]
            module, engine = (float(np.mean([t[n] for t in every])) for n in ("module", "engine"))
            lines.append(
                f"| {timing['batch']} | {family} | {1e6 * module:.3g} | {1e3 * engine:.3g} "
                f"| {engine / module:,.0f} |"
            )
    lines += ["", "| control | value |", "|---|---|"]
    for name in results[0]["controls"]:
        value = float(np.mean([result["controls"][name] for result in results]))
        lines.append(f"| {name} | {value:.3g} |")
    return "\n".join(lines)


def known(value: float, unit: str = "") -> str:
    """A number, or a dash where there is none."""
    return "-" if np.isnan(value) else f"{value:.0f}{unit}"


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Error, what is identified, and the choice of probes, against the number of probes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for family in results[0]["families"]:
        scores = [r["families"][family]["scores"] for r in results]
        probes = [s["probes"] for s in scores[0]]
        shown = [max(1, n) for n in probes]
        error = np.array([[s["error"] for s in one] for one in scores]) * 100
        (line,) = left.plot(shown, error.mean(0), "o-", label=family)
        left.fill_between(shown, error.min(0), error.max(0), color=line.get_color(), alpha=0.2)
        effective = np.array([[s["effective"] for s in one] for one in scores])
        middle.plot(shown, effective.mean(0), "o-", color=line.get_color(), label=family)
    rows = [r["least squares"] for r in results]
    names = [name for name in rows[0][0] if name != "probes"]
    best = [
        100 * min(np.mean([one[k][name] for one in rows]) for name in names)
        for k in range(len(rows[0]))
    ]
    counts = [row["probes"] for row in rows[0]]
    left.plot(counts, best, "k^--", label="best of four least squares")
    left.axhline(1.0, color="grey", linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="probes", ylabel="error, % of full scale")
    outputs = results[0]["families"]["structural"]["outputs"]
    middle.plot(counts, [n * outputs for n in counts], "k:", label="numbers seen")
    middle.set(xscale="log", yscale="log", xlabel="probes", ylabel="effective number of parameters")
    for way in results[0]["choices"]:
        if way == "accepted":
            continue
        numbers = list(results[0]["choices"][way])
        values = [100 * np.mean([r["choices"][way][n] for r in results]) for n in numbers]
        right.plot([int(n) for n in numbers], values, "o-", label=way)
    right.set(xlabel="probes", ylabel="error, % of full scale")
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    for axes, ticks in ((left, [1, *counts]), (middle, counts)):
        axes.set_xticks(ticks, ["none" if n == 1 else str(n) for n in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(plain)
    for axes in (left, middle, right):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run the study; print every report, and write them where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one tiny case in seconds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--chips", type=int, default=7)
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--engine", choices=["ngspice", "nodal"], default="ngspice")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument(
        "--merge", type=Path, nargs="+", help="folders of runs of single seeds, to be put together"
    )
    options = parser.parse_args()
    # Small problems: threads would only wait for one another.
    torch.set_num_threads(1)
    sizes = Sizes(
        hidden=options.hidden,
        epochs=40,
        chips=options.chips,
        tests=300,
        fit=(24, 100),
        pool=300,
        few=min(3, options.chips),
        counts=(0, 4, 8, 16, 32, 64),
        steps=40,
        rounds=ROUNDS,
        control=CONTROL,
        batches=(1, 64, 300),
        families=tuple(dict.fromkeys(("structural", *options.families))),
    )
    if options.smoke:
        options.seeds = options.seeds[:1]
        sizes = replace(
            sizes, hidden=4, epochs=1, chips=2, tests=20, fit=(5, 12), pool=20, few=2,
            counts=(0, 8), steps=5, rounds=(4, 8), control=8, batches=(20,),
        )  # fmt: skip
    results: list[dict[str, Any]] = []
    if options.merge:
        for folder in options.merge:
            results += json.loads((folder / "result.json").read_text(encoding="utf-8"))
        finish(results, options.out)
        return
    with open_engine("nodal" if options.smoke else options.engine, timeout=100.0) as engine:
        for seed in options.seeds:
            # As JSON has it; after every seed: a run that is cut off leaves what it has.
            found = study(seed, sizes, engine)
            results.append(json.loads(json.dumps(found, default=float)))
            finish(results, options.out)


def finish(results: list[dict[str, Any]], out: Path | None) -> None:
    """Print the tables, and write what there is into a folder."""
    print(tables(results), flush=True)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(results, indent=1) + "\n"
        (out / "result.json").write_text(text, encoding="utf-8")
        draw(results, out / "result.png")


if __name__ == "__main__":
    main()
