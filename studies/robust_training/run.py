"""What training with the hardware in mind buys on manufactured chips, judged in ngspice.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.compiler.execute import crossbar_call
from spicenn.datasets import load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.engines.superposition import superposed
from spicenn.training import Awareness, analog, in_loop
from spicenn.training.awareness import Wires
from spicenn.training.penalties import jacobian_penalty
from spicenn.training.residual import LiteralResidual, StochasticResidual

Array = NDArray[Any]

# Images: the first part trains, the others test.
TRAINING = 1200
# Chips are of seeds that nothing else has.
CHIPS_SEED, MEASURED_SEED = 500, 600
BATCH = 64
# What an ``Awareness`` is without any of the hardware.
BLIND: dict[str, Any] = {
    "weight_noise": None,
    "read_noise": None,
    "weight_bits": None,
    "input_bits": None,
    "output_bits": None,
    "wires": "none",
}


@dataclass(frozen=True)
class Size:
    """How much of the study is run."""

    hidden: int
    wide: int
    epochs: int
    chips: int
    passes: int
    seeds: tuple[int, ...]
    error: float
    clip: float
    resistance: float
    wires_clip: float
    engine: str


@dataclass(frozen=True)
class Images:
    """Digits in [0, 1], (sample, 64), and their classes."""

    train: torch.Tensor
    labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor


def load() -> Images:
    """Return all images, in a fixed shuffled order."""
    digits = load_digits(TRAINING)

    def flat(x: Array) -> torch.Tensor:
        return torch.as_tensor(x.reshape(len(x), -1))

    return Images(
        flat(digits.train),
        torch.as_tensor(digits.train_labels),
        flat(digits.test),
        torch.as_tensor(digits.test_labels),
    )


Penalty = Callable[[nn.Module, torch.Tensor], torch.Tensor]


def train(
    net: nn.Module, images: Images, epochs: int, seed: int, penalty: Penalty | None = None
) -> nn.Module:
    """Cross entropy with Adam, the rate falling along a cosine; the same for every method."""
    net.train()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for batch in torch.randperm(len(images.train), generator=order).split(BATCH):
            x = images.train[batch]
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(net(x), images.labels[batch])
            if penalty is not None:
                loss = loss + penalty(net, x)
            loss.backward()
            optimiser.step()
        schedule.step()
    return net.eval()


def accuracy(outputs: Any, labels: torch.Tensor) -> float:
    """Share of the samples whose largest output is their class."""
    return float((torch.as_tensor(outputs).argmax(1) == labels).double().mean())


def on_chips(design: sn.Design, images: Images, chips: int, seed: int, engine: Engine) -> Array:
    """Accuracy of every chip; one noisy read of every test image."""
    return np.array(
        [
            accuracy(design.sample(chip, CHIPS_SEED + seed).run(images.test, engine),
                     images.test_labels)
            for chip in range(chips)
        ]
    )  # fmt: skip


def perceptron(inputs: int, hidden: int, seed: int) -> nn.Sequential:
    """Inputs-hidden-10 with ReLU, as torch draws it."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def hidden_layer(
    design: sn.Design, images: Images, size: Size, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first layer should give and what chips make of it; (chip · sample, unit).

    Chips that nothing else sees, by Kirchhoff's laws.
    """
    x = images.train[:200]
    name = design.layers[0].name
    with open_engine("nodal", threads=1) as engine, torch.no_grad():
        given = [
            crossbar_call(design, chip, MEASURED_SEED + seed, engine, len(x))(name, x)
            for chip in range(size.chips)
        ]
        ideal = design.to_torch().get_submodule(name)(x)
    return ideal.repeat(len(given), 1), torch.cat(given)


def residuals(ideal: torch.Tensor, given: torch.Tensor, seed: int) -> dict[str, nn.Module]:
    """The ReLU with noise of the measured size, and with noise learnt from measurements."""
    target = given.relu()
    literal = LiteralResidual(std=float((target - ideal.relu()).std()), seed=seed)
    learned = StochasticResidual(nn.ReLU(), features=ideal.shape[1], seed=seed)
    optimiser = torch.optim.Adam(learned.head.parameters(), 1e-2)
    order = torch.Generator().manual_seed(seed)
    for _ in range(300):
        batch = torch.randint(len(ideal), (256,), generator=order)
        optimiser.zero_grad()
        learned.nll(ideal[batch], target[batch]).backward()
        optimiser.step()
    learned.head.requires_grad_(False)
    return {"residual, literal": literal, "residual, heteroscedastic": learned}


def methods(size: Size) -> Iterator[tuple[str, Awareness, Penalty | None]]:
    """Name, what of the hardware is known, and the loss's other term."""

    def aware(**known: Any) -> Awareness:
        return Awareness(**{**BLIND, **known})

    noise = {"weight_noise": "hardware", "read_noise": "hardware"}
    yield "none", aware(), None
    yield "clip", aware(clip=size.clip), None
    yield "noise", aware(**noise), None
    yield "noise + clip", aware(**noise, clip=size.clip), None
    yield "residual, literal", aware(), None
    yield "residual, heteroscedastic", aware(), None
    yield "Jacobian penalty", aware(), lambda net, x: 0.01 * jacobian_penalty(net, x)
    yield "wires + noise + clip", Awareness(wires="ladder", clip=size.clip), None
    yield "population + clip", aware(chips=50, clip=size.clip), None


def robust(size: Size, seed: int, engine: Engine, images: Images) -> dict[str, Array]:
    """Accuracies (chip,) per method, and digital ones under "digital, …"."""
    tech = sn.Technology.preset("rram-1r").replace(programming_error=size.error)
    start = perceptron(64, size.hidden, seed)
    design = sn.compile(start, images.train[:64], technology=tech, calibration=images.train)
    result: dict[str, Array] = {}
    activations: dict[str, nn.Module] = {}
    for name, awareness, penalty in methods(size):
        net: Any = analog(start, design, awareness=awareness, seed=seed)
        net[1] = activations.get(name, nn.ReLU())
        train(net, images, size.epochs, seed, penalty)
        net[1] = nn.ReLU()
        trained = design.with_weights(net, calibration=images.train)
        result[name] = on_chips(trained, images, size.chips, seed, engine)
        digital = accuracy(trained.to_torch()(images.test), images.test_labels)
        result[f"digital, {name}"] = np.array([digital])
        if name == "none":
            activations = residuals(*hidden_layer(trained, images, size, seed), seed)
            result["in the loop"] = looped(trained, images, size, seed, engine)
    return result


def looped(design: sn.Design, images: Images, size: Size, seed: int, engine: Engine) -> Array:
    """Accuracy of every chip after some passes of all images with the chip in the loop."""
    found = []
    for index in range(size.chips):
        own = analog(design.to_torch(), design, awareness=Awareness(ranges="fixed"), seed=seed)
        chip = design.sample(index, CHIPS_SEED + seed)
        loop = in_loop(own, chip, engine)
        loop.train()
        optimiser = torch.optim.Adam(own.parameters(), 3e-3)
        for _ in range(size.passes):
            optimiser.zero_grad()
            nn.functional.cross_entropy(loop(images.train), images.labels).backward()
            optimiser.step()
        found.append(accuracy(loop.programmed().run(images.test, engine), images.test_labels))
    return np.array(found)


def wires(size: Size, seed: int, engine: Engine, images: Images) -> dict[str, Array]:
    """What strong wires cost a tile of 128 rows, and what training with them regains.

    Every pixel is driven as it is and as its complement, so that all of 64 images' pixels
    make 128 rows.
    """

    def both(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, 1.0 - x], dim=1)

    doubled = replace(images, train=both(images.train), test=both(images.test))
    tech = sn.Technology.preset("rram-1r").replace(
        r_wordline=size.resistance, r_bitline=size.resistance
    )
    start = perceptron(128, size.wide, seed)
    mapping = sn.Mapping(bias="digital")
    design = sn.compile(
        start, doubled.train[:64], technology=tech, mapping=mapping, calibration=doubled.train
    )
    ideal = {"r_wordline": 0.0, "r_bitline": 0.0}
    result: dict[str, Array] = {}
    ladder: dict[str, torch.Tensor] = {}
    kinds: tuple[tuple[str, Wires], ...] = (
        ("without", "none"), ("ladder", "ladder"), ("exact", "exact"),
    )  # fmt: skip
    for name, kind in kinds:
        net = analog(
            start, design, awareness=Awareness(wires=kind, clip=size.wires_clip), seed=seed
        )
        epochs = size.epochs if kind != "exact" else max(1, size.epochs // 4)
        if kind == "exact":  # from what the ladder gave: a step costs tens of milliseconds
            net.load_state_dict(ladder)
        train(net, doubled, epochs, seed)
        ladder = net.state_dict()
        trained = design.with_weights(net, calibration=doubled.train)
        result[f"wires, trained {name}"] = on_chips(trained, doubled, size.chips, seed, engine)
        if kind == "none":
            free = trained.with_technology(ideal)
            result["no wires"] = on_chips(free, doubled, size.chips, seed, engine)
    return result


def one_seed(size: Size, seed: int) -> dict[str, list[float]]:
    """Everything of one seed, in a process of its own."""
    torch.set_num_threads(1)
    images = load()
    with open_engine(size.engine, timeout=600) as engine:
        fast = superposed(engine)
        found = {**robust(size, seed, fast, images), **wires(size, seed, fast, images)}
    return {name: values.tolist() for name, values in found.items()}


def interval(values: Array, seed: int = 0) -> tuple[float, float]:
    """90 % bootstrap interval of the mean over chips and seeds."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (2000, len(values))).mean(1)
    return float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))


def summary(found: list[dict[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """Mean with its interval, and the worst chip of every seed, per method."""
    rows: dict[str, dict[str, Any]] = {}
    for name in found[0]:
        values = np.array([one[name] for one in found])
        rows[name] = {
            "mean": float(values.mean()),
            "interval": interval(values.ravel()),
            "worst": float(values.min()),
            "worst, mean over seeds": float(values.min(1).mean()),
            "chips": values.size,
        }
        if len(values[0]) == len(found[0]["none"]) and "wires" not in name:
            paired = (values - np.array([one["none"] for one in found])).ravel()
            rows[name]["over none"] = [float(paired.mean()), *interval(paired)]
            if name != "none":
                over = (values - np.array([one["clip"] for one in found])).ravel()
                rows[name]["over clip"] = [float(over.mean()), *interval(over)]
    free, blind = rows["no wires"]["mean"], rows["wires, trained without"]["mean"]
    for name in ("ladder", "exact"):
        gained = rows[f"wires, trained {name}"]["mean"] - blind
        rows[f"wires, trained {name}"]["regained"] = gained / (free - blind)
    return rows


def picture(found: list[dict[str, list[float]]], path: Path) -> None:
    """Every chip's accuracy, one line of dots per method."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names = [name for name in found[0] if not name.startswith("digital")]
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(names) + 1.2), layout="constrained")
    for row, name in enumerate(reversed(names)):
        for seed, one in enumerate(found):
            values = np.array(one[name])
            height = row + 0.2 * (seed - (len(found) - 1) / 2)
            axes.plot(values, np.full(len(values), height), ".", color=f"C{seed}", alpha=0.6)
        mean = np.mean([one[name] for one in found])
        axes.plot([mean, mean], [row - 0.35, row + 0.35], color="black", linewidth=1.5)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_xlabel("accuracy of a chip in ngspice (bar: mean; colours: seeds)")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run the study and print one line per method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one tiny case in seconds")
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--wide", type=int, default=16, help="hidden units behind 128 rows")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--chips", type=int, default=20, help="per seed")
    parser.add_argument("--passes", type=int, default=25, help="of all images, in the loop")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--error", type=float, default=0.1, help="programming error over g_max")
    parser.add_argument("--clip", type=float, default=2.0)
    parser.add_argument("--wires-clip", type=float, default=3.0)
    parser.add_argument("--resistance", type=float, default=20.0, help="of a strong wire segment")
    parser.add_argument("--engine", choices=["ngspice", "nodal"], default="ngspice")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    options = parser.parse_args()
    size = Size(
        options.hidden, options.wide, options.epochs, options.chips, options.passes,
        tuple(options.seeds), options.error, options.clip, options.resistance,
        options.wires_clip, options.engine,
    )  # fmt: skip
    if options.smoke:
        size = replace(
            size, hidden=8, wide=4, epochs=1, chips=2, passes=1, seeds=(0,), engine="nodal"
        )
    if options.smoke or options.workers == 1:
        found = [one_seed(size, seed) for seed in size.seeds]
    else:
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            found = list(pool.map(one_seed, [size] * len(size.seeds), size.seeds))
    rows = summary(found)
    for name, row in rows.items():
        print(json.dumps({"method": name, **row}), flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {"size": vars(options) | {"out": None}, "rows": rows, "chips": found}
        (options.out / "result.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
        picture(found, options.out / "result.png")


if __name__ == "__main__":
    main()
