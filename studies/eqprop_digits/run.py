"""Resistor-diode networks that learn digits by equilibrium propagation, checked in ngspice.

See README.md for claim, controls and result.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler.threads import one_thread
from spicenn.datasets import load_digits, load_mnist
from spicenn.datasets.images import Images
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.learning.descent import circuit_of, resting_voltages, settle
from spicenn.learning.elements import Diode
from spicenn.learning.hardware import ideal_chip
from spicenn.learning.netlist import operating_netlist, operating_vectors
from spicenn.learning.operating import operating_points
from spicenn.learning.propagation import accuracy, predict, train
from spicenn.learning.resistive import IdealDiode, ResistiveNetwork, initial
from spicenn.seeds import Purpose, generator
from spicenn.training.run import Progress

Array = NDArray[np.float64]
Row = dict[str, float]

# Conductances are drawn below so much over the root of a layer's nodes; β and rates, which
# have no scale of their own, are given in units of it.
UNIT = 1e-5  # S
JUNCTION = Diode(saturation=1e-12)
# Stands for an ideal diode in ngspice.
SHARP = Diode(saturation=1e-12, emission=1e-3)
BETA, DECAY, BATCH = 0.3, 0.9, 8
SIGMAS = (0.2, 0.5)  # of log conductances that chips have wrong
ENOUGH = 5.0  # s of repeating one measurement of time


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How one kind of network is trained; rates in units of UNIT^2 per V^2."""

    hidden: tuple[int, ...]
    gain: float
    rates: tuple[float, ...]
    diode: Diode | IdealDiode | None
    shuffled: bool = False
    beta: float = BETA
    batch: int = BATCH
    decay: float = DECAY


# How they were chosen is in the README.
ARMS: Mapping[str, Arm] = {
    "exponential diodes": Arm(hidden=(128,), gain=20.0, rates=(0.1, 0.1), diode=JUNCTION),
    "ideal diodes": Arm(hidden=(128,), gain=20.0, rates=(0.1, 0.1), diode=IdealDiode()),
    "ideal diodes, two hidden layers": Arm(
        hidden=(128, 64), gain=80.0, rates=(0.05, 0.1, 0.2), diode=IdealDiode()
    ),
    "no diodes": Arm(hidden=(128,), gain=20.0, rates=(0.05, 0.02), diode=None),
    "first layer as drawn": Arm(
        hidden=(128,), gain=160.0, rates=(0.0, 0.01), diode=IdealDiode()
    ),
    "labels shuffled": Arm(
        hidden=(128,), gain=20.0, rates=(0.1, 0.1), diode=IdealDiode(), shuffled=True
    ),
}  # fmt: skip

# Scellier, ICML 2024 and its code (github.com/rain-neuromorphics/energy-based-learning), in
# units of its own; the target, 1.33 % of test errors, is DRN-XL's.
DRN: Mapping[str, Arm] = {
    name: Arm(
        hidden=hidden, gain=gain, rates=rates, diode=IdealDiode(), beta=beta, batch=4, decay=0.99
    )
    for name, hidden, gain, rates, beta in (
        ("drn-xl", (32768,), 800.0, (0.006, 0.006), 1.0),
        ("drn-1h", (1024,), 480.0, (0.006, 0.006), 1.0),
        ("drn-2h", (1024, 1024), 2000.0, (0.002, 0.006, 0.018), 1.0),
        ("drn-3h", (1024, 1024, 1024), 4000.0, (0.005, 0.02, 0.08, 0.005), 2.0),
    )
}


def drawn(arm: Arm, images: Images, seed: int) -> ResistiveNetwork:
    """Return the network that an arm begins with."""
    features = images.train[0].size
    sizes = (features, *arm.hidden, len(images.classes))
    return initial(sizes, seed=seed, conductance=UNIT, gain=arm.gain, diode=arm.diode)


def flat(x: NDArray[Any]) -> NDArray[Any]:
    """(sample, feature) of images."""
    return x.reshape(len(x), -1)


def learn(
    arm: Arm,
    images: Images,
    seed: int,
    epochs: int,
    network: ResistiveNetwork | None = None,
    **options: Any,
) -> ResistiveNetwork:
    """Train an arm's network, or one that there is already."""
    labels = images.train_labels
    if arm.shuffled:
        labels = generator(seed, Purpose.TRAINING, layer=20).permutation(labels)
    return train(
        drawn(arm, images, seed) if network is None else network,
        flat(images.train), labels, epochs=epochs, seed=seed, batch=arm.batch,
        beta=arm.beta * UNIT, rates=[rate * UNIT**2 for rate in arm.rates], decay=arm.decay,
        **options,
    ).network  # fmt: skip


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean, its 95 % interval by Student's t, extremes and all of them."""
    from scipy.stats import t

    array = np.array(values)
    half = math.nan
    if len(array) > 1:
        half = float(t.ppf(0.975, len(array) - 1) * array.std(ddof=1) / math.sqrt(len(array)))
    return {
        "mean": float(array.mean()), "interval": half, "least": float(array.min()),
        "most": float(array.max()), "all": array.tolist(),
    }  # fmt: skip


@one_thread()
def once(name: str, images: Images, seed: int, epochs: int) -> tuple[ResistiveNetwork, Row]:
    """An arm's network of one seed, its accuracies and the seconds of one core."""
    start = process_time()
    network = learn(ARMS[name], images, seed, epochs)
    seconds = process_time() - start
    return network, {
        "test": accuracy(network, flat(images.test), images.test_labels),
        "training": accuracy(network, flat(images.train), images.train_labels),
        "seconds": seconds,
    }


def accuracies(
    images: Images, seeds: Sequence[int], epochs: int, workers: int
) -> tuple[dict[str, Any], dict[str, ResistiveNetwork]]:
    """Accuracies and seconds of every arm over the seeds, and the first seed's networks."""
    runs = [(name, images, seed, epochs) for name in ARMS for seed in seeds]
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            done = list(pool.map(once, *zip(*runs, strict=True)))
    else:
        done = [once(*run) for run in runs]
    rows: dict[str, Any] = {}
    first: dict[str, ResistiveNetwork] = {}
    for k, name in enumerate(ARMS):
        found = done[k * len(seeds) : (k + 1) * len(seeds)]
        first[name] = found[0][0]
        rows[name] = {
            key: interval([row[key] for _, row in found])
            for key in ("test", "training", "seconds")
        }  # fmt: skip
        print(f"{name}: test {rows[name]['test']['mean']:.4f}", flush=True)
    return rows, first


def verified(
    engine: NgspiceEngine, network: ResistiveNetwork, images: Images, count: int
) -> list[dict[str, Any]]:
    """ngspice's voltages and answers beside the descent's, with the diodes that ngspice gets."""
    x = flat(images.test)
    rows = []
    stands = [None] if isinstance(network.diode, Diode) else [SHARP, JUNCTION]
    exact = resting_voltages(network, x[:count])
    outputs = network.sizes[-1]
    for stand in stands:
        graph, values, drive = network.to_network(stand)
        found = operating_points(engine, ideal_chip(graph), values, drive(x[:count]))
        answers = [volts[:, -1 - outputs : -1].argmax(1) for volts in (exact, found)]
        # What all test images would be answered with those diodes.
        real = network if stand is None else replace(network, diode=stand)
        rows.append(
            {
                "trained with": "ideal" if stand else "exponential",
                "emission in ngspice": (stand or JUNCTION).emission,
                "images": count,
                "same answers": int(np.sum(answers[0] == answers[1])),
                "largest difference [V]": float(np.abs(found - exact).max()),
                "largest voltage of a hidden node [V]": float(
                    np.abs(exact[:, network.sizes[0] : -1 - outputs]).max()
                ),
                "accuracy with these diodes": accuracy(real, x, images.test_labels),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def spent() -> float:
    """CPU seconds of this process and its children so far, ngspice's among them.

    Not the clock's: where others want the cores it is the longer calls that wait.
    """
    total = process_time()
    for listed in Path("/proc/self/task").glob("*/children"):
        for child in listed.read_text().split():
            total += int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9
    return total


def cheapest(call: Callable[[], object], repeats: int) -> float:
    """Fewest CPU seconds of a call, of so many or of fewer where they take some seconds."""
    times: list[float] = []
    while len(times) < repeats and (len(times) < 2 or sum(times) < ENOUGH):
        start = spent()
        call()
        times.append(spent() - start)
    return min(times)


def timed(
    engine: NgspiceEngine, sizes: Sequence[int], x: Array, samples: int, repeats: int
) -> dict[str, Any]:
    """CPU seconds to settle one image, in ngspice and by descent, of a network as it is drawn."""
    network = initial(sizes, seed=1, conductance=UNIT, gain=20.0, diode=JUNCTION)
    graph, values, drive = network.to_network()
    chip = ideal_chip(graph)
    names = list(dict.fromkeys(operating_vectors(chip, 0)))
    volts = drive(x)
    texts = [operating_netlist(chip, values, volts[:count]) for count in (1, 1 + samples)]
    once, more = (cheapest(partial(engine.run, text, names), repeats) for text in texts)
    found = operating_points(engine, chip, values, volts[: 1 + samples])
    off = float(np.abs(found - resting_voltages(network, x[: 1 + samples])).max())
    row: dict[str, Any] = {
        "sizes": list(sizes), "conductances": sum(part.size for part in network.conductances),
        "ngspice, read and settle": once, "ngspice, settle": (more - once) / samples,
        "largest difference [V]": off,
    }  # fmt: skip
    for name, count, dtype in (
        ("descent, one image", 1, torch.float64),
        ("descent, one of 64", 64, torch.float32),
    ):
        circuit = circuit_of(network, dtype=dtype)
        inputs = torch.tensor(volts[:count], dtype=dtype)
        row[name] = cheapest(partial(settle, circuit, inputs), 5 * repeats) / count
        row[f"{name}, sweeps"] = settle(circuit, inputs).sweeps
    print(json.dumps(row), flush=True)
    return row


def exponent(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Slope of log time over log conductances; NaN where a time is lost in the clock's noise."""
    x, y = (np.array([row[key] for row in rows]) for key in ("conductances", name))
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if (y > 0).all() else math.nan


PARTS = ("accuracy", "scaling", "mnist")
TIMES = ("ngspice, read and settle", "ngspice, settle", "descent, one image", "descent, one of 64")


def scaling(
    engine: NgspiceEngine, images: Images, hidden: Sequence[Sequence[int]], samples: int,
    repeats: int,
) -> dict[str, Any]:  # fmt: skip
    """Times of networks of one hidden layer with fitted exponents, and of deeper ones."""
    x = flat(images.test).astype(np.float64)
    features, outputs = x.shape[1], len(images.classes)
    rows = [timed(engine, (features, *h, outputs), x, samples, repeats) for h in hidden]
    shallow = [row for row in rows if len(row["sizes"]) == 3]
    return {
        "networks": rows,
        "exponents": {name: exponent(shallow, name) for name in TIMES},
    }


def chips(
    images: Images, network: ResistiveNetwork, count: int, sigma: float, seed: int
) -> dict[str, Any]:
    """Accuracy of chips whose conductances came out wrong, before and after they learn on.

    Every conductance is its target times exp(σ z), z of a normal distribution. The control
    learns as long before it is made.
    """
    arm = ARMS["ideal diodes"]
    slow = replace(arm, rates=tuple(rate * DECAY**15 for rate in arm.rates))
    x, labels = flat(images.test), images.test_labels
    longer = learn(slow, images, seed, 1, network)
    kinds: dict[str, list[float]] = {"moved": [], "moved, trained longer before": [],
                                     "moved, trained on after": []}  # fmt: skip
    for chip in range(count):
        factors = [
            np.exp(
                sigma
                * generator(seed, Purpose.EDGE_TRANSCONDUCTANCE, chip=chip, layer=k)
                .standard_normal(part.shape)
            )
            for k, part in enumerate(network.conductances)
        ]  # fmt: skip

        def made(design: ResistiveNetwork, by: Sequence[Array] = factors) -> ResistiveNetwork:
            return design.with_conductances(
                [g * factor for g, factor in zip(design.conductances, by, strict=True)]
            )

        kinds["moved"].append(accuracy(made(network), x, labels))
        kinds["moved, trained longer before"].append(accuracy(made(longer), x, labels))
        after = learn(slow, images, seed, 1, made(network))
        kinds["moved, trained on after"].append(accuracy(after, x, labels))
    return {
        "sigma": sigma, "as designed": accuracy(network, x, labels),
        **{name: interval(values) for name, values in kinds.items()},
    }  # fmt: skip


def write_synthetic(folder: Path, images: Images, count: int) -> None:
    """Write idx files of MNIST's shape: digits of 8 x 8 pixels, enlarged to 28 x 28.

    They are no MNIST; they have its size, and something can be learnt of them.
    """

    def enlarged(x: NDArray[Any]) -> NDArray[np.uint8]:
        big = np.kron(x[:, 0], np.ones((4, 4)))[:, 2:-2, 2:-2]
        return np.asarray(np.round(255 * big), dtype=np.uint8)

    for part, x, labels in (
        ("train", images.train[:count], images.train_labels[:count]),
        ("t10k", images.test[:count], images.test_labels[:count]),
    ):
        for name, array in (
            (f"{part}-images-idx3-ubyte", enlarged(x)),
            (f"{part}-labels-idx1-ubyte", labels.astype(np.uint8)),
        ):
            head = bytes([0, 0, 8, array.ndim])
            head += b"".join(int(size).to_bytes(4, "big") for size in array.shape)
            (folder / name).write_bytes(head + array.tobytes())


def mnist_times(images: Images, kinds: Mapping[str, int], epochs: int) -> dict[str, Any]:
    """Seconds per step at MNIST's size, from files of its shape, and what an epoch would take.

    kinds : networks, and how many steps of each are timed. The smallest also learns for some
    epochs from all of the files.
    """
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        write_synthetic(Path(name), images, len(images.train))
        data = load_mnist(name, verify=False)
        for kind, steps in kinds.items():
            arm = DRN[kind]
            few = replace_training(data, arm.batch * steps)
            stamps: list[float] = []

            def note(_: Progress, to: list[float] = stamps) -> None:
                to.append(perf_counter())

            learn(arm, few, 1, 1, progress=note)
            step = float(np.median(np.diff(stamps)))
            rows[kind] = {
                "steps": steps, "seconds per step": step,
                "hours per epoch of 60,000": step * 60_000 / arm.batch / 3600,
            }  # fmt: skip
            print(kind, json.dumps(rows[kind]), flush=True)
        if epochs:
            network = learn(DRN["drn-1h"], data, 1, epochs)
            rows["drn-1h"] |= {
                "epochs on enlarged digits": epochs,
                "test accuracy": accuracy(network, flat(data.test), data.test_labels),
            }
            print(json.dumps(rows["drn-1h"]), flush=True)
    return rows


def replace_training(images: Images, count: int) -> Images:
    """Return images with the first of the training part alone."""
    return replace(images, train=images.train[:count], train_labels=images.train_labels[:count])


def mnist(options: argparse.Namespace) -> None:
    """Train on MNIST's own files, with the published sizes and rates; it can be killed."""
    images = load_mnist(options.mnist)
    arm = DRN[options.model]
    out = options.out or Path(f"{options.model}-seed{options.seeds[0]}")
    shown = perf_counter()

    def progress(at: Progress) -> None:
        nonlocal shown
        if perf_counter() - shown > 10:
            shown = perf_counter()
            print(f"epoch {at.epoch}/{at.epochs} step {at.step}/{at.steps} loss {at.loss:.4f}",
                  file=sys.stderr)  # fmt: skip

    network = learn(
        arm, images, options.seeds[0], options.epochs or 50, directory=out, save_every=1000,
        validation=(flat(images.test), images.test_labels), progress=progress,
        device=options.device,
    )  # fmt: skip
    network.save(out / "network.npz")
    found = predict(network, flat(images.test), device=options.device).argmax(1)
    wrong = float(np.mean(found != images.test_labels))
    print(json.dumps({"model": options.model, "test error": wrong}))


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """Write a picture: accuracy of every arm, and times over sizes."""
    from spicenn.report.style import INK, MINUS, MUTED, PALE, PLUS, drawing, grid, new_figure

    with drawing():
        figure = new_figure(8.6, 3.4)
        left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
        names = list(result["accuracy"])[::-1]
        # An arm that knows nothing is named at the edge: the others differ by a few points.
        least = [100 * row["test"]["least"] for row in result["accuracy"].values()]
        low = min((5 * math.floor(v / 5) for v in least if v > 20), default=0)
        for at, name in enumerate(names):
            row = result["accuracy"][name]["test"]
            colour = PLUS if "diodes" in name and "no " not in name else MINUS
            left.plot([100 * v for v in row["all"]], [at] * len(row["all"]), "o", color=PALE,
                      markersize=3.5)  # fmt: skip
            left.errorbar(100 * row["mean"], at, xerr=100 * row["interval"], fmt="o",
                          color=colour, markersize=4.5, capsize=3)  # fmt: skip
            if row["most"] < 0.01 * low:
                text = f"◂ {100 * row['mean']:.1f} ± {100 * row['interval']:.1f}"
                left.text(low, at, f"  {text}", va="center", color=colour)
        left.axvline(95, color=MUTED, linewidth=0.8, linestyle=":")
        left.set_yticks(range(len(names)), names)
        left.set_ylim(-0.6, len(names) - 0.4)
        left.set_xlim(low, 100)
        left.set_xlabel("test accuracy [%]")
        left.set_title("Digits, 10 seeds" if len(row["all"]) == 10 else "Digits")
        grid(left, "x")
        rows = [r for r in result["scaling"]["networks"] if len(r["sizes"]) == 3]
        deep = [r for r in result["scaling"]["networks"] if len(r["sizes"]) > 3]
        for name, colour in zip(TIMES, (MINUS, "#e0a184", PLUS, PALE), strict=True):
            slope = result["scaling"]["exponents"][name]
            x = np.array([r["conductances"] for r in rows])
            y = np.array([r[name] for r in rows])
            right.loglog(x, y, "o", color=colour, markersize=4.5, label=f"{name}: {slope:.2f}")
            if math.isfinite(slope):
                fit = np.polyfit(np.log(x), np.log(y), 1)
                line = np.exp(np.polyval(fit, np.log(x)))
                right.loglog(x, line, "-", color=colour, linewidth=1)
            for r in deep:
                right.loglog(r["conductances"], r[name], "D", color=colour, markersize=4,
                             markeredgecolor=INK, markeredgewidth=0.5)  # fmt: skip
        right.set_xlabel("conductances of the network")
        right.set_ylabel("CPU seconds per image")
        right.set_title("Time to rest, with fitted exponents")
        right.xaxis.set_major_formatter("{x:,.0f}")
        right.yaxis.set_major_formatter("{x:g}")
        right.minorticks_off()
        low, high = right.get_ylim()
        right.set_ylim(low, high * 30)
        right.legend(loc="upper left", fontsize=7.5)
        grid(right)
        figure.savefig(path, dpi=160)


def table(result: Mapping[str, Any]) -> str:
    """Return the result as the README shows it."""
    lines = [
        "| network | test accuracy, % | least … most | on training images, % | CPU seconds a run |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["accuracy"].items():
        test = row["test"]
        lines.append(
            f"| {name} | {100 * test['mean']:.2f} ± {100 * test['interval']:.2f} | "
            f"{100 * test['least']:.1f} … {100 * test['most']:.1f} | "
            f"{100 * row['training']['mean']:.2f} | {row['seconds']['mean']:.1f} |"
        )
    lines += [
        "",
        "| trained with | diodes in ngspice | images | same answers | largest difference | "
        "accuracy with these diodes, % |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["ngspice"]:
        lines.append(
            f"| {row['trained with']} | n = {row['emission in ngspice']:g} | {row['images']} | "
            f"{row['same answers']} | {1e3 * row['largest difference [V]']:.2g} mV | "
            f"{100 * row['accuracy with these diodes']:.1f} |"
        )
    lines += ["", "| layers | conductances | ngspice, read and settle | ngspice, settle | "
              "descent, one image | descent, one of 64 | settle / one image | settle / one of 64 | "
              "largest difference |",
              "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in result["scaling"]["networks"]:
        times = [row[name] for name in TIMES]
        lines.append(
            f"| {'-'.join(map(str, row['sizes']))} | {row['conductances']} | "
            + " | ".join(f"{1e3 * t:.3g} ms" for t in times)
            + f" | {times[1] / times[2]:.0f} | {times[1] / times[3]:.0f} | "
            f"{row['largest difference [V]']:.1e} V |"
        )
    fitted = result["scaling"]["exponents"]
    slopes = ", ".join(f"{name} {value:.2f}" for name, value in fitted.items())
    lines += ["", f"Fitted exponents of time over conductances (one hidden layer): {slopes}."]
    lines += [
        "",
        "| σ of log conductances | chips | test accuracy, % | least … most |",
        "|---|---|---|---|",
    ]
    for moved in result["chips"]:
        designed = 100 * moved["as designed"]
        if moved is result["chips"][0]:
            lines.append(f"| 0 | as designed | {designed:.1f} | |")
        for name, row in moved.items():
            if isinstance(row, Mapping):
                lines.append(
                    f"| {moved['sigma']} | {name} | {100 * row['mean']:.2f} ± "
                    f"{100 * row['interval']:.2f} | {100 * row['least']:.1f} … "
                    f"{100 * row['most']:.1f} |"
                )
    lines += [
        "",
        "| at MNIST's size | steps timed | seconds per step | hours per epoch of 60,000 |",
        "|---|---|---|---|",
    ]
    for name, row in result["mnist"].items():
        lines.append(f"| {name} | {row['steps']} | {row['seconds per step']:.3g} | "
                     f"{row['hours per epoch of 60,000']:.2g} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", default=list(PARTS),
                        help=f"of {', '.join(PARTS)}; all if none")  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in seconds")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(11, 21)))
    parser.add_argument("--epochs", type=int, help="20, and 50 of MNIST")
    parser.add_argument("--images", type=int, default=20, help="that ngspice checks")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256, 512, 1024])
    parser.add_argument("--workers", type=int, default=1, help="processes that train")
    parser.add_argument("--mnist", type=Path, metavar="DIR", help="train on the files in DIR")
    parser.add_argument("--model", choices=list(DRN), default="drn-xl", help="for --mnist")
    parser.add_argument("--device", default="cpu", help="for --mnist")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"unknown parts: {', '.join(unknown)}")
    if options.mnist:
        mnist(options)
        return
    images = load_digits()
    epochs, samples, repeats, deep = options.epochs or 20, 20, 7, [(128, 128), (128, 128, 128)]
    kinds, enlarged, moved = {"drn-1h": 40, "drn-xl": 4}, 5, 10
    if options.smoke:
        images = replace_training(images, 60)
        options.seeds, epochs, options.images = [11, 12], 1, 2
        options.sizes, samples, repeats, deep = [4, 8], 2, 1, [(8, 8)]
        kinds, enlarged, moved = {"drn-1h": 3}, 0, 2
    result: dict[str, Any] = {"seeds": options.seeds, "epochs": epochs}
    known = options.out / "result.json" if options.out else None
    if known is not None and known.exists():
        result = json.loads(known.read_text(encoding="utf-8")) | result
    with one_thread(), NgspiceEngine(timeout=300) as engine:
        if "accuracy" in options.parts:
            result["accuracy"], first = accuracies(images, options.seeds, epochs, options.workers)
            result["ngspice"] = [
                row
                for name in ("exponential diodes", "ideal diodes")
                for row in verified(engine, first[name], images, options.images)
            ]
            result["chips"] = [
                chips(images, first["ideal diodes"], moved, sigma, options.seeds[0])
                for sigma in SIGMAS
            ]
        if "scaling" in options.parts:
            hidden = [*((size,) for size in options.sizes), *deep]
            result["scaling"] = scaling(engine, images, hidden, samples, repeats)
        if "mnist" in options.parts:
            result["mnist"] = mnist_times(images, kinds, enlarged)
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if all(part in result for part in PARTS):
        print(table(result))
        if known is not None:
            draw(known.with_suffix(".png"), result)


if __name__ == "__main__":
    main()
