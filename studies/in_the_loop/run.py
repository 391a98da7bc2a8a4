"""How wrong a surrogate's derivatives may be when a chip in ngspice gives the values.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
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
from spicenn.datasets import load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.engines.superposition import superposed
from spicenn.training import Awareness, analog, in_loop

Array = NDArray[Any]

# Images: the first part trains, the others test.
TRAINING = 1200
CHIPS_SEED = 900
BATCH = 64


@dataclass(frozen=True)
class Size:
    """How much of the study is run."""

    hidden: int
    epochs: int
    chips: int
    passes: int
    probes: int
    fit: int
    search: int
    corruptions: tuple[float, ...]
    error: float
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


def pretrain(net: nn.Module, images: Images, epochs: int, seed: int) -> None:
    """Cross entropy with Adam on mini-batches."""
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    order = torch.Generator().manual_seed(seed)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(images.train), generator=order).split(BATCH):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(net(images.train[batch]), images.labels[batch])
            loss.backward()
            optimiser.step()
    net.eval()


def passes(net: nn.Module, images: Images, count: int) -> list[float]:
    """Steps on all images at once; the loss before each."""
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    losses = []
    net.train()
    for _ in range(count):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(images.train), images.labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def accuracy(outputs: Any, labels: torch.Tensor) -> float:
    """Share of the samples whose largest output is their class."""
    return float((torch.as_tensor(outputs).argmax(1) == labels).double().mean())


def judged(chip: sn.Chip, images: Images, engine: Engine) -> float:
    """Accuracy of one chip, one noisy read of every test image."""
    return accuracy(chip.run(images.test, engine), images.test_labels)


def one_chip(
    design: sn.Design, surrogate: Any, index: int, size: Size, seed: int, images: Images,
    engine: Engine,
) -> dict[str, Any]:  # fmt: skip
    """All ways of training for one chip from one trained network."""
    chip = design.sample(index, CHIPS_SEED + seed)
    fixed = Awareness(ranges="fixed")
    row: dict[str, Any] = {"raw": judged(chip, images, engine)}

    def programmed(net: nn.Module) -> sn.Chip:
        return replace(chip, design=design.with_weights(net, calibration=images.train))

    # Without the chip: what the technology says of all chips, as many steps.
    net = analog(design.to_torch(), design, awareness=fixed, seed=seed)
    passes(net, images, size.passes)
    row["in silico"] = judged(programmed(net), images, engine)

    # With a model of this chip, from a few probes, and the same one of another's reads.
    x = images.train.numpy()
    probes = design.probe_vectors(x, count=size.probes, seed=seed, steps=size.search)
    found = sn.calibrate(surrogate, probes, chip.run(probes, engine), draws=4)
    net = analog(design.to_torch(), found, awareness=fixed, seed=seed)
    passes(net, images, size.passes)
    row["calibrated surrogate"] = judged(programmed(net), images, engine)
    row["calibrated"] = float(found.success)

    for corruption in size.corruptions:
        net = analog(design.to_torch(), design, awareness=fixed, seed=seed)
        loop = in_loop(net, chip, engine, corruption=corruption, seed=index)
        losses = passes(loop, images, size.passes)
        name = f"in the loop, {corruption:.0%} off"
        row[name] = judged(loop.programmed(), images, engine)
        row[f"loss, {name}"] = losses
    # Another chip in the loop: what is learned must be this chip's.
    net = analog(design.to_torch(), design, awareness=fixed, seed=seed)
    loop = in_loop(net, design.sample(index + size.chips, CHIPS_SEED + seed), engine)
    passes(loop, images, size.passes)
    row["another chip in the loop"] = judged(
        replace(chip, design=loop.programmed().design), images, engine
    )
    return row


def one_seed(size: Size, seed: int) -> list[dict[str, Any]]:
    """Every chip of one network, in a process of its own."""
    torch.set_num_threads(1)
    images = load()
    tech = sn.Technology.preset("rram-1r").replace(programming_error=size.error)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, size.hidden), nn.ReLU(), nn.Linear(size.hidden, 10))
    pretrain(model, images, size.epochs, seed)
    design = sn.compile(model, images.train[:64], technology=tech, calibration=images.train)
    study = sn.monte_carlo(design, images.train[:60], chips=size.fit, seed=seed, engine="nodal")
    surrogate = sn.fit(study)
    with open_engine(size.engine, timeout=600) as engine:
        fast = superposed(engine)
        return [
            one_chip(design, surrogate, index, size, seed, images, fast)
            for index in range(size.chips)
        ]


def interval(values: Array, seed: int = 0) -> list[float]:
    """90 % bootstrap interval of the mean."""
    rng = np.random.default_rng(seed)
    means = rng.choice(values, (2000, len(values))).mean(1)
    return [float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))]


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Mean, interval and worst chip per way of training, and the gain over none of it."""
    raw = np.array([row["raw"] for row in rows])
    result = {}
    for name in rows[0]:
        if name.startswith("loss"):
            continue
        values = np.array([row[name] for row in rows])
        gain = values - raw
        result[name] = {
            "mean": float(values.mean()), "interval": interval(values),
            "worst": float(values.min()), "gain": [float(gain.mean()), *interval(gain)],
            "chips": len(values),
        }  # fmt: skip
    return result


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Loss against passes for every corruption, and accuracies of all chips."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in (key for key in rows[0] if key.startswith("loss")):
        losses = np.array([row[name] for row in rows])
        left.plot(losses.mean(0), label=name.removeprefix("loss, in the loop, "))
    left.set_xlabel("passes")
    left.set_ylabel("training loss on the chip")
    left.legend(title="Jacobian")
    names = [key for key in rows[0] if not key.startswith("loss") and key != "calibrated"]
    for position, name in enumerate(reversed(names)):
        values = np.array([row[name] for row in rows])
        right.plot(values, np.full(len(values), position), ".", alpha=0.5)
        right.plot([values.mean()] * 2, [position - 0.3, position + 0.3], color="black")
    right.set_yticks(range(len(names)), list(reversed(names)))
    right.set_xlabel("accuracy of a chip in ngspice")
    right.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    """Run the study and print one line per way of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one tiny case in seconds")
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--chips", type=int, default=7, help="per seed")
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--corruptions", type=float, nargs="+", default=[0.0, 0.1, 0.3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--error", type=float, default=0.1, help="programming error over g_max")
    parser.add_argument("--engine", choices=["ngspice", "nodal"], default="ngspice")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    options = parser.parse_args()
    size = Size(
        options.hidden, options.epochs, options.chips, options.passes, options.probes, 16, 30,
        tuple(options.corruptions), options.error, options.engine,
    )  # fmt: skip
    seeds = tuple(options.seeds)
    if options.smoke:
        size = replace(
            size, hidden=6, epochs=1, chips=2, passes=2, probes=6, fit=4, search=0,
            corruptions=(0.0, 0.3), engine="nodal",
        )  # fmt: skip
        seeds = (0,)
    if options.smoke or options.workers == 1:
        found = [one_seed(size, seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
            found = list(pool.map(one_seed, [size] * len(seeds), seeds))
    rows = [row for one in found for row in one]
    result = summary(rows)
    for name, row in result.items():
        print(json.dumps({"training": name, **row}), flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        record = {"size": vars(options) | {"out": None}, "rows": result, "chips": rows}
        (options.out / "result.json").write_text(json.dumps(record, indent=1, default=str) + "\n")
        picture(rows, options.out / "result.png")


if __name__ == "__main__":
    main()
