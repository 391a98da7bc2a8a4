"""Which non-ideality, alone, costs a network its accuracy first.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.compiler.design import Design
from spicenn.datasets import Images, load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.technology.mechanisms import Drift, Noise, Variation
from spicenn.technology.periphery import Periphery

if TYPE_CHECKING:
    from studies.sensitivity.mechanisms import MECHANISMS, Mechanism
else:  # of a script, its own folder is on the path
    from mechanisms import MECHANISMS, Mechanism

Array = NDArray[Any]

# All that a preset may have switched on, off: a mechanism is studied alone.
QUIET: dict[str, Any] = {
    "programming_error": 0.0, "read_noise": 0.0, "bandwidth": 0.0,
    "r_wordline": 0.0, "r_bitline": 0.0,
    "variation": Variation(), "noise": Noise(), "drift": Drift(), "periphery": Periphery(),
}  # fmt: skip
SEED = 7
RESAMPLES = 2000
PERMUTATIONS = 100
# In the error's amplitude: a step of the search, and how narrow the crossing's bracket gets.
STEP, NARROW = 2.0, 1.1
# How often the search may halve before it gives up finding what is tolerated.
HALVINGS = 20


def mlp() -> nn.Module:
    """64-32-10 with ReLU."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def cnn() -> nn.Module:
    """Two 3×3 convolutions of 8 and 16 channels, pooled by 2, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


NETWORKS = {"MLP": mlp, "CNN": cnn}


def network(name: str, images: Images, epochs: int, draw: int = 0) -> nn.Module:
    """Train a network; no epochs leave it as it was drawn. In double precision."""
    torch.manual_seed(draw)
    model = NETWORKS[name]()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    x, y = torch.as_tensor(images.train), torch.as_tensor(images.train_labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.double().eval()


@dataclass(frozen=True, eq=False)
class Bench:
    """A network and what it is judged with.

    reference : engine that a share of the chips is checked in; None for none.
    """

    model: nn.Module
    images: Images
    engine: Engine
    reference: Engine | None = None

    @cache  # noqa: B019 - lives as long as the study
    def compiled(self, preset: str, mapping: sn.Mapping) -> Design:
        calibration = torch.as_tensor(self.images.train[:600], dtype=torch.float64)
        return sn.compile(
            self.model,
            calibration[:4],
            technology=sn.Technology.preset(preset).replace(QUIET),
            mapping=mapping,
            calibration=calibration,
        )

    def design(self, mechanism: Mechanism, x: float) -> Design:
        """The network with one mechanism at a magnitude and no other."""
        mapping = mechanism.mapping
        if mechanism.bits and x:
            bits: dict[str, Any] = {mechanism.bits: round(-math.log2(x))}
            mapping = replace(mapping, **bits)
        design = self.compiled(mechanism.preset, mapping)
        return design.with_technology({**mechanism.with_, **mechanism.set(x)})

    def scores(
        self,
        mechanism: Mechanism,
        x: float,
        chips: int,
        samples: int | None = None,
        engine: Engine | None = None,
    ) -> Array:
        """Class scores (chip, sample, class)."""
        inputs = self.images.test[:samples].astype(np.float64)
        made = self.design(mechanism, x).sample(chips=range(chips), seed=SEED)
        return np.stack([chip.run(inputs, engine=engine or self.engine) for chip in made])

    def right(self, scores: Array) -> Array:
        """Which samples are classified as their labels say, (chip, sample)."""
        return np.asarray(scores.argmax(axis=-1) == self.images.test_labels)


def crossing(x: Array, loss: Array, target: float) -> float:
    """Magnitude at which a loss, taken as never falling, reaches the target.

    x (point,) ascending; loss (point,). Linear in the loss and in log x; inf where the
    target is not reached, the first x where it is reached at once.
    """
    rising = np.maximum.accumulate(loss)
    above = int(np.searchsorted(rising, target))
    if above == len(x):
        return math.inf
    if above == 0:
        return float(x[0])
    a, b = rising[above - 1], rising[above]
    part = (target - a) / (b - a)
    return float(x[above - 1] * (x[above] / x[above - 1]) ** part)


def interval(x: Array, loss: Array, target: float) -> tuple[float, float]:
    """95 % percentile bootstrap of the crossing of the mean loss.

    loss (point, unit): units, chips or images, are drawn with replacement, the same at
    every magnitude.
    """
    units = loss.shape[1]
    drawn = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), RESAMPLES)
    found = np.array([crossing(x, mean, target) for mean in drawn @ loss.T / units])
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return float(low), float(high)


class Curve:
    """What a mechanism does at every magnitude tried; a magnitude is run once."""

    def __init__(self, bench: Bench, mechanism: Mechanism, chips: int) -> None:
        self.bench, self.mechanism = bench, mechanism
        self.chips = 1 if mechanism.alike else max(1, round(chips * mechanism.chips))
        self.still = bench.scores(mechanism, 0.0, 1)
        self.right = bench.right(self.still)
        self._lost: dict[float, Array] = {}
        self._error: dict[float, float] = {}

    def at(self, x: float) -> Array:
        """Samples lost against the mechanism at zero, (chip, sample): 1, or -1 for won."""
        if x not in self._lost:
            scores = self.bench.scores(self.mechanism, x, self.chips)
            self._lost[x] = self.right.astype(np.int8) - self.bench.right(scores)
            change = np.sqrt(np.mean((scores - self.still) ** 2))
            self._error[x] = float(change / np.std(self.still))
        return self._lost[x]

    def mean(self, x: float) -> float:
        """Mean loss of accuracy."""
        return float(self.at(x).mean())

    def least(self, x: float) -> float:
        """Loss of accuracy of the best chip."""
        return float(self.at(x).mean(axis=1).min())

    @property
    def units(self) -> tuple[str, ...]:
        """What the loss is a mean over."""
        return ("chips", "images") if self.chips > 1 else ("images",)

    @property
    def x(self) -> Array:
        """Magnitudes tried, ascending."""
        return np.array(sorted(self._lost))

    def losses(self, *, over: str = "all") -> Array:
        """Mean losses (point,), or (point, chip), or (point, image)."""
        axis = {"all": None, "chips": 1, "images": 0}[over]
        return np.stack([self._lost[x].mean(axis=axis) for x in self.x])

    def error(self, x: float) -> float:
        """rms change of the scores over their deviation, interpolated between magnitudes."""
        values = np.log([max(self._error[point], 1e-300) for point in self.x])
        return float(np.exp(np.interp(math.log(x), np.log(self.x), values)))


def search(curve: Curve, target: float) -> None:
    """Try the magnitudes that say where the mean loss reaches the target."""
    mechanism = curve.mechanism
    step = 2.0 if mechanism.bits else STEP ** (1 / mechanism.exponent)
    x = mechanism.typical
    for _ in range(HALVINGS):
        if curve.mean(x) < target / 4:
            break
        x /= step
    # On until the best chip has lost as much, and all of them together twice that: all
    # resamples of chips then cross, and next to all resamples of images.
    x = mechanism.typical
    while (curve.least(x) < target or curve.mean(x) < 2 * target) and x < mechanism.high:
        x = min(x * step, mechanism.high)
    if mechanism.bits:
        return
    while True:
        rising = np.maximum.accumulate(curve.losses())
        above = int(np.searchsorted(rising, target))
        if above in (0, len(rising)):
            return
        low, high = curve.x[above - 1 : above + 1]
        if (high / low) ** mechanism.exponent < NARROW:
            break
        curve.at(math.sqrt(low * high))
    # At the intervals' own ends, so that they rest on chips and not on chords.
    for unit in curve.units:
        for end in interval(curve.x, curve.losses(over=unit), target):
            if math.isfinite(end):
                curve.at(end)


def study_one(
    bench: Bench, untrained: Sequence[Bench], mechanism: Mechanism, options: argparse.Namespace
) -> dict[str, Any]:
    """One mechanism's critical magnitude, margin and controls, as a row of the result."""
    target: float = options.loss
    curve = Curve(bench, mechanism, options.chips)
    search(curve, target)
    x, mean = curve.x, curve.losses()
    critical = crossing(x, mean, target)
    reached = math.isfinite(critical)
    bounded = critical > x[0]
    over = {unit: interval(x, curve.losses(over=unit), target) for unit in curve.units}

    def margin(value: float) -> float:
        return float((value / mechanism.typical) ** mechanism.exponent)

    # Where a chip can be made: bits are whole.
    at = float(x[min(int(np.searchsorted(x, critical)), len(x) - 1)])
    return {
        "name": mechanism.name,
        "unit": mechanism.unit,
        "source": mechanism.source,
        "typical": mechanism.typical,
        "typical, as text": mechanism.show(mechanism.typical),
        "critical": critical,
        "critical, as text": mechanism.show(critical if reached else float(x[-1])),
        "bound": "" if reached and bounded else "≤" if reached else ">",
        "exponent": mechanism.exponent,
        "margin": margin(critical if reached else float(x[-1])),
        "interval": {unit: [margin(end) for end in ends] for unit, ends in over.items()},
        "score error at typical": curve.error(mechanism.typical),
        "score error at critical": curve.error(critical if reached else float(x[-1])),
        "accuracy at zero": float(curve.right.mean()),
        "loss at typical": curve.mean(mechanism.typical),
        "curve": [[float(a), float(b)] for a, b in zip(x, mean, strict=True)],
        "controls at": at,
        **controls(bench, untrained, mechanism, at, curve.chips),
        **crosscheck(bench, mechanism, at, options),
    }


def controls(
    bench: Bench, untrained: Sequence[Bench], mechanism: Mechanism, x: float, chips: int
) -> dict[str, float]:
    """Accuracy against permuted labels and of random networks, at zero and at x.

    The chips are shared out among the random networks.
    """
    rng = np.random.default_rng(1)
    orders = [rng.permutation(bench.images.test_labels) for _ in range(PERMUTATIONS)]
    result: dict[str, float] = {}
    for where, value, made in (("zero", 0.0, 1), ("critical", x, chips)):
        classes = bench.scores(mechanism, value, made).argmax(axis=-1)
        permuted = [np.mean(classes == order) for order in orders]
        result[f"permuted labels at {where}"] = float(np.mean(permuted))
        share = max(1, made // max(len(untrained), 1))
        drawn = [
            float(other.right(other.scores(mechanism, value, share)).mean()) for other in untrained
        ]
        result[f"random networks at {where}"] = float(np.mean(drawn)) if drawn else math.nan
    return result


def crosscheck(
    bench: Bench, mechanism: Mechanism, x: float, options: argparse.Namespace
) -> dict[str, float]:
    """Compare the same chips and reads in the reference engine, circuit by circuit.

    Returns the largest difference of a score over the largest score, and how many images
    are classified otherwise; nothing without a reference.
    """
    if bench.reference is None:
        return {}
    chips = 1 if mechanism.alike else options.check
    truth = bench.scores(mechanism, x, chips, options.check_images, bench.reference)
    own = bench.scores(mechanism, x, chips, options.check_images)
    return {
        "discrepancy": float(np.abs(own - truth).max() / np.abs(truth).max()),
        "classified otherwise": int((own.argmax(-1) != truth.argmax(-1)).sum()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the README's table."""
    lines = [
        "| | mechanism | magnitude | typical | critical | margin | over chips | over images "
        "| score error | loss at typical |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for place, row in enumerate(rows, 1):
        bound = row["bound"] and row["bound"] + " "
        small, large = row["score error at typical"], row["score error at critical"]
        lines.append(
            f"| {place} | {row['name']} | {row['unit']} | {row['typical, as text']} "
            f"| {bound}{row['critical, as text']} | {bound}{row['margin']:.3g} "
            f"| {span(row, 'chips')} | {span(row, 'images')} "
            f"| {f'{large / small:.3g}' if small > 1e-12 and row['bound'] != '>' else '–'} "
            f"| {100 * row['loss at typical']:.2f} |"
        )
    return "\n".join(lines)


def span(row: dict[str, Any], unit: str) -> str:
    """An interval as text."""
    if unit not in row["interval"]:
        return "alike"
    low, high = row["interval"][unit]
    if math.isinf(low):
        return "–"
    return f"{low:.3g} … {high:.3g}" if math.isfinite(high) else f"{low:.3g} …"


def summary(rows: list[dict[str, Any]], top: float) -> str:
    """What the controls say, over all mechanisms."""
    zero = max(rows, key=lambda row: abs(top - row["accuracy at zero"]))
    lines = [
        f"controls: at zero the chip is at most {100 * abs(top - zero['accuracy at zero']):.2f} "
        f"points from torch ({zero['name']})"
    ]
    for what in ("permuted labels", "random networks"):
        if not math.isfinite(rows[0][f"{what} at zero"]):
            continue
        ranges = []
        for where in ("zero", "critical"):
            values = [row[f"{what} at {where}"] for row in rows]
            ranges.append(
                f"{100 * min(values):.1f} … {100 * max(values):.1f} % at {where}, "
                f"mean {100 * float(np.mean(values)):.1f}"
            )
        lines.append(f"controls: accuracy with {what}: " + "; ".join(ranges))
    if idle := [row["name"] for row in rows if row["score error at critical"] < 1e-12]:
        lines.append("change nothing at any magnitude tried: " + ", ".join(idle))
    if checked := [row for row in rows if "discrepancy" in row]:
        worst = max(checked, key=lambda row: row["discrepancy"])
        otherwise = sum(row["classified otherwise"] for row in checked)
        lines.append(
            f"ngspice: {len(checked)} mechanisms at their critical magnitude, largest difference "
            f"of a score {worst['discrepancy']:.1e} of the largest ({worst['name']}), "
            f"{otherwise} images classified otherwise"
        )
    return "\n".join(lines)


def figure(results: Mapping[str, Any], target: float, path: Path) -> None:
    """Margins, smallest on top: thick lines are intervals over chips, thin ones over images."""
    from spicenn.report.style import INK, MINUS, MUTED, PLUS, drawing, grid, new_figure, save

    names = [row["name"] for row in next(iter(results.values()))["rows"]]
    with drawing():
        picture = new_figure(7.4, 1.3 + 0.235 * len(names))
        axes = picture.subplots()
        axes.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        shift = 0.3 / max(len(results) - 1, 1)
        for index, (name, result) in enumerate(results.items()):
            colour = (PLUS, MINUS)[index % 2]
            for row in result["rows"]:
                y = names.index(row["name"]) - 0.15 + shift * index
                largest = (row["curve"][-1][0] / row["typical"]) ** row["exponent"]
                for unit, width in (("images", 0.6), ("chips", 2.2)):
                    ends = [min(end, largest) for end in row["interval"].get(unit, ())]
                    if row["bound"] != ">" and ends:
                        axes.plot(ends, [y, y], color=colour, linewidth=width)
                marker = {"": "o", "≤": "<", ">": ">"}[row["bound"]]
                axes.plot([row["margin"]], [y], marker, color=colour, markersize=3.6)
            axes.plot([], [], "o", color=colour, markersize=3.6, label=name)
        axes.plot([], [], ">", color=MUTED, markersize=3.6, label="not reached up to here")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.7)
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.set_xlabel("margin: critical over typical magnitude, as an amplitude", color=MUTED)
        axes.set_title(f"What costs {100 * target:g} points of accuracy first, each alone")
        axes.legend(loc="upper right")
        grid(axes, "both")
        save(picture, path)


def study(
    name: str,
    options: argparse.Namespace,
    images: Images,
    engine: Engine,
    reference: Engine | None,
) -> dict[str, Any]:
    """Every mechanism on one network, ranked."""
    bench = Bench(network(name, images, options.epochs, options.weights), images, engine, reference)
    untrained = [
        Bench(network(name, images, 0, draw), images, engine) for draw in range(options.random)
    ]
    with torch.no_grad():
        ideal = bench.model(torch.as_tensor(images.test, dtype=torch.float64)).numpy()
    top = float(bench.right(ideal[np.newaxis]).mean())
    print(
        f"{name}: accuracy {100 * top:.1f} % in torch; margins at a mean loss of "
        f"{100 * options.loss:g} points over {options.chips} chips, {len(images.test)} images",
        flush=True,
    )
    rows = []
    for mechanism in MECHANISMS:
        if options.only and not any(word in mechanism.name for word in options.only):
            continue
        start = perf_counter()
        row = study_one(bench, untrained, mechanism, options)
        rows.append(row)
        bound = row["bound"] and row["bound"] + " "
        print(
            f"  {row['name']:36} margin {bound}{row['margin']:.3g} ({span(row, 'chips')}), "
            f"critical {bound}{row['critical, as text']} {row['unit']}, "
            f"{perf_counter() - start:.0f} s",
            flush=True,
        )
    # What was not reached has no place; it comes last.
    rows.sort(key=lambda row: (row["bound"] == ">", row["margin"]))
    print(f"\n{table(rows)}\n\n{summary(rows, top)}\n", flush=True)
    return {"accuracy": top, "loss": options.loss, "rows": rows}


def main() -> None:
    """Run the study, print a table for every network, write JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few tiny cases in seconds")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--only", nargs="+", help="mechanisms whose names hold one of these words")
    parser.add_argument("--loss", type=float, default=0.02, help="of accuracy, as a fraction")
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--weights", type=int, default=0, help="seed of the trained network")
    parser.add_argument("--random", type=int, default=5, help="untrained networks, as a control")
    parser.add_argument("--check", type=int, default=2, help="chips to run in ngspice as well")
    parser.add_argument("--check-images", type=int, default=10, help="images to run there")
    parser.add_argument("--out", type=Path, help="write result.json and result.png to this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.smoke:
        options.networks, options.chips, options.images, options.epochs = ["MLP"], 2, 40, 2
        options.random, options.check, options.check_images = 1, 1, 1
        options.only, options.loss = ["stuck off", "wires"], 0.1
    images = load_digits()
    images = replace(
        images,
        test=images.test[: options.images],
        test_labels=images.test_labels[: options.images],
    )
    with ExitStack() as stack:
        engine = stack.enter_context(open_engine("nodal", threads=1))
        reference = None
        if options.check:
            reference = stack.enter_context(open_engine("ngspice", timeout=300.0))
        results = {
            name: study(name, options, images, engine, reference) for name in options.networks
        }
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        # Infinity is no JSON: what was not reached is null.
        text = json.dumps(finite(results), indent=1, ensure_ascii=False, allow_nan=False)
        (options.out / "result.json").write_text(text + "\n", encoding="utf-8")
        figure(results, options.loss, options.out / "result.png")


def finite(value: Any) -> Any:
    """Replace infinities by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
