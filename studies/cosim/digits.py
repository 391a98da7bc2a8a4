"""Spiking digits: torch, closed forms, a model of events and ngspice, on the same test images."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor, nn

import spicenn as sn
from spicenn.circuit import Tolerances
from spicenn.compiler.spiking import LifSpread, SpikingLayer
from spicenn.cosim.characterize import poisson_stimulus, trace_layer
from spicenn.cosim.neuron import LIF
from spicenn.cosim.presentation import UNDECIDED, Presentation
from spicenn.cosim.sources import AddressEvents, latency_code, rate_code
from spicenn.cosim.spiking import Engine, SpikingDesign, binned, compile_spiking, run_model
from spicenn.periphery.lif import Lif
from spicenn.surrogate.events import EventSurrogate, LayerBlock, fit_events

SEED = 2024
# Of one step in torch, and between a pixel's grey levels; of a pulse; from a spike to the
# next layer; of the bus; from one image to the next [s]. Four time constants of rest.
DT, WIDTH, DELAY, CYCLE, PERIOD = 0.5e-6, 0.1e-6, 0.5e-6, 10e-9, 50e-6
# Brightest pixels spike in step 0, those of 5/16 in the last; darker ones not at all.
SLOTS = 12
DARKEST = 4 / 16
# Steps after the last input in which spikes may still come.
TAIL = 4
# Rate code: of a white pixel [1/s].
RATE = 0.4e6
NEURON = Lif(v_rest=0.8, v_th=1.2, v_floor=0.16, c_node=10e-15)
TAU, REFRACTORY, FLOOR = 10e-6, 0.3e-6, -1.6
SPREAD = LifSpread(offset=5e-3, gm=0.03, c_mem=0.01, r_leak=0.1, i_ref=0.05)
TOLERANCES = Tolerances(reltol=1e-4, vntol=1e-6, abstol=1e-10)
# Images that a co-simulation shows one after the other.
CHUNK = 4

Code = str


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is done.

    hidden : neurons. epochs : before and with spiking outputs. training : images.
    latency, rate, check : images shown in ngspice by either code, and with a finer tolerance.
    all : images shown to the surrogate alone.
    trace, chips : axons, neurons and duration [s] of what the surrogate learns from, and of
        how many chips.
    """

    hidden: int
    epochs: tuple[int, int]
    training: int
    latency: int
    rate: int
    check: int
    all: int
    trace: tuple[int, int, float]
    chips: int


FULL = Size(hidden=24, epochs=(25, 45), training=1297, latency=160, rate=10, check=4, all=500,
            trace=(8, 6, 100e-6), chips=3)  # fmt: skip
SMOKE = Size(hidden=4, epochs=(1, 1), training=64, latency=1, rate=0, check=0, all=0,
             trace=(3, 2, 8e-6), chips=2)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """Images of one code on one engine: what a process is given.

    reltol : of ngspice.
    surrogate : file of a fitted model of events, which "surrogate" needs.
    """

    weights: tuple[np.ndarray, ...]
    engine: str
    technology: str
    code: Code
    first: int
    images: tuple[AddressEvents, ...]
    reltol: float = TOLERANCES.reltol
    surrogate: str = ""


def encode(code: Code, pixels: np.ndarray, first: int = 0) -> list[AddressEvents]:
    """Spikes of images (sample, …); a rate-coded image has its own trial."""
    if code == "latency":
        return [latency_code(x, (SLOTS - 1) * DT, threshold=DARKEST) for x in pixels]
    return [
        rate_code(x, SLOTS * DT, rate=RATE, seed=SEED, trial=first + k)
        for k, x in enumerate(pixels)
    ]


def neurons_of_study() -> LIF:
    return LIF(dt=DT, tau=TAU, refractory=REFRACTORY, floor=FLOOR, slope=2.0)


def network(hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, hidden, bias=False),
        neurons_of_study(),
        nn.Linear(hidden, 10, bias=False),
        neurons_of_study(),
    )


def train(x: Tensor, y: Tensor, size: Size, *, noise: float = 0.05) -> Any:
    """An ``nn.Sequential``, trained with sums of hidden spikes for outputs, then spiking ones.

    x (time, sample, pixel). Weights have noise in proportion to the largest, as cells have.
    """
    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    model: Any = network(size.hidden)
    first, hidden, second, output = model
    with torch.no_grad():
        first.weight.normal_(0.05, 0.2)

    def noisy(linear: Any, values: Tensor) -> Tensor:
        w: Tensor = linear.weight
        return values @ (w + noise * w.detach().abs().max() * torch.randn_like(w)).T

    def logits(part: Tensor, spiking: bool) -> tuple[Tensor, Tensor]:
        h = hidden(noisy(first, part))
        if not spiking:
            return 3.0 * noisy(second, h.sum(0)), h
        spikes, v = output.trace(noisy(second, h))
        return 1.5 * (spikes.sum(0) + 0.5 * v[-1].clamp(max=1.0)), h

    for spiking, epochs, rate in ((False, size.epochs[0], 1e-2), (True, size.epochs[1], 5e-3)):
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
        for _ in range(epochs):
            for batch in np.array_split(rng.permutation(len(y)), max(1, len(y) // 64)):
                score, h = logits(x[:, batch], spiking)
                loss = nn.functional.cross_entropy(score, y[batch])
                # Spikes cost energy.
                loss = loss + 0.003 * h.sum((0, 2)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            schedule.step()
    return model


def design(weights: Sequence[np.ndarray], technology: str) -> SpikingDesign:
    """The network on crossbars; wires are left out, which take five times as long."""
    model: Any = network(len(weights[0]))
    with torch.no_grad():
        for linear, w in zip(model[::2], weights, strict=True):
            linear.weight.copy_(torch.as_tensor(w))
    spread = SPREAD if technology != "ideal" else None
    return compile_spiking(
        model, technology=_technology(technology), width=WIDTH, neuron=NEURON, spread=spread
    )


def _technology(name: str) -> sn.Technology:
    return sn.Technology.preset(name).replace(r_wordline=0.0, r_bitline=0.0)


def shown(job: Job) -> dict[str, Any]:
    """Show a job's images; classes, spikes, energies per layer [J], steps and CPU seconds."""
    torch.set_num_threads(1)
    start, wall = _cpu(), perf_counter()
    made = design(job.weights, job.technology)
    if job.engine == "exact":
        p = made.exact(job.images, delay=DELAY, cycle=CYCLE)
    else:
        p = made.sample(chip=0, seed=SEED).run(
            job.images, period=PERIOD, delay=DELAY, cycle=CYCLE, max_step=1e-6,
            engine=_engine(job), timeout=600.0,
            tolerances=Tolerances(
                reltol=job.reltol, vntol=TOLERANCES.vntol, abstol=TOLERANCES.abstol
            ),
        )  # fmt: skip
    return {"first": job.first, **told(p), "cpu": _cpu() - start, "wall": perf_counter() - wall}


def _engine(job: Job) -> Engine:
    if job.engine != "surrogate":
        return job.engine
    fitted = EventSurrogate.load(job.surrogate)

    def block(layer: SpikingLayer, k: int) -> LayerBlock:
        return LayerBlock(fitted.for_layer(layer), record=["energy"], name=f"layer{k}")

    return block


def fitted(size: Size, path: Path) -> EventSurrogate:
    """Fit a model of events to traces of small layers of the same devices, and save it.

    Their weights, chips and stimuli are none of those of the digits.
    """
    rng = np.random.default_rng(SEED)
    axons, neurons, until = size.trace
    linear = nn.Linear(axons, neurons, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.as_tensor(rng.normal(0.1, 0.35, (neurons, axons))))
    small = nn.Sequential(linear, neurons_of_study())
    made = compile_spiking(
        small, technology=_technology("rram-1r"), width=WIDTH, neuron=NEURON, spread=SPREAD
    )
    nominal = compile_spiking(
        small, technology=_technology("ideal"), width=WIDTH, neuron=NEURON
    ).sample(chip=0, seed=SEED).layers[0]  # fmt: skip
    traces = []
    for chip in range(1, size.chips + 1):
        stimulus = poisson_stimulus(axons, until, rate=5e5, width=WIDTH, seed=SEED, use=chip)
        layer = made.sample(chip=chip, seed=SEED).layers[0]
        traces.append(trace_layer(layer, stimulus, nominal=nominal, chip=chip, rise=WIDTH / 10))
    found = fit_events(traces)
    found.save(path)
    return found


def told(p: Presentation) -> dict[str, Any]:
    return {
        "classes": p.decode().tolist(),
        "first_classes": p.decode("first").tolist(),
        "spikes": p.layer_counts.tolist(),
        "trains": [
            [np.bincount(layer.addresses).tolist() for layer in image] for image in p.spikes
        ],
        "energy": p.energy.tolist(),
        "steps": list(p.steps),
    }


def jobs(
    weights: Sequence[np.ndarray], engine: str, technology: str, code: Code,
    images: Sequence[AddressEvents], reltol: float = TOLERANCES.reltol, surrogate: str = "",
) -> Iterator[Job]:  # fmt: skip
    for k in range(0, len(images), CHUNK):
        yield Job(
            weights=tuple(weights), engine=engine, technology=technology, code=code,
            first=k, images=tuple(images[k : k + CHUNK]), reltol=reltol, surrogate=surrogate,
        )  # fmt: skip


def gathered(parts: Sequence[dict[str, Any]], labels: np.ndarray) -> dict[str, Any]:
    """Means over images of what parts told, with the deviation of an accuracy."""
    parts = sorted(parts, key=lambda part: part["first"])
    index = np.concatenate([part["first"] + np.arange(len(part["classes"])) for part in parts])
    truth = labels[index]
    classes = np.concatenate([part["classes"] for part in parts])
    right = classes == truth
    energy = np.concatenate([np.array(part["energy"]) for part in parts])
    return {
        "images": len(index),
        "accuracy": float(right.mean()),
        "deviation": float(np.sqrt(right.mean() * (1 - right.mean()) / len(index))),
        "first_accuracy": float(
            np.mean(np.concatenate([part["first_classes"] for part in parts]) == truth)
        ),
        "undecided": int((classes == UNDECIDED).sum()),
        "spikes": np.concatenate([part["spikes"] for part in parts]).mean(0).tolist(),
        "energy": energy.sum(1).mean().item(),
        "energy_layers": energy.mean(0).tolist(),
        "steps": (np.sum([part["steps"] for part in parts], axis=0) / len(index)).tolist(),
        "cpu": sum(part["cpu"] for part in parts) / len(index),
        "classes": classes.tolist(),
        "index": index.tolist(),
        "trains": [train for part in parts for train in part["trains"]],
    }


def agreement(a: dict[str, Any], b: dict[str, Any]) -> dict[str, float]:
    """Share of the common images with the same class, and with the same spikes per neuron."""
    common = [k for k in a["index"] if k in b["index"]]
    pairs = [(a["index"].index(k), b["index"].index(k)) for k in common]
    return {
        "images": len(pairs),
        "class": float(np.mean([a["classes"][i] == b["classes"][j] for i, j in pairs])),
        "hidden": float(np.mean([a["trains"][i][0] == b["trains"][j][0] for i, j in pairs])),
        "spikes": float(np.mean([a["trains"][i] == b["trains"][j] for i, j in pairs])),
    }


def measured(
    size: Size,
    before: dict[str, Any],
    *,
    rows_again: Sequence[str],
    workers: int,
    surrogate: Path,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """All of it; what is there is saved after every few images.

    before : result of an earlier run. rows_again : what of it is measured anew; all if none.
    """
    torch.set_num_threads(1)
    digits = sn.datasets.load_digits()
    pixels = digits.train[: size.training].reshape(-1, 64)
    tests, labels = digits.test.reshape(-1, 64), digits.test_labels
    result: dict[str, Any] = {"test images": len(labels), "hidden": size.hidden}
    if not rows_again or any(row.startswith("surrogate") for row in rows_again):
        start = perf_counter()
        fitted(size, surrogate)
        result["fit"] = perf_counter() - start
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for code, count in (("latency", size.latency), ("rate", size.rate)):
            if not count:
                continue
            start = perf_counter()
            steps = SLOTS + TAIL
            x = binned(encode(code, pixels, 10_000), inputs=64, dt=DT, steps=steps)
            model = train(x, torch.as_tensor(digits.train_labels[: size.training]), size)
            weights = [linear.weight.detach().double().numpy() for linear in model[::2]]
            images = encode(code, tests)
            rows = result[code] = {
                "training": perf_counter() - start,
                "inputs": float(np.mean([len(image.times) for image in images])),
            }
            all_told = told(run_model(model, images, steps=steps))
            rows["torch, all"] = gathered([{"first": 0, "cpu": 0.0, **all_told}], labels)
            kept = before.get(code, {}) if rows_again else {}
            if kept and kept["torch, all"]["classes"] != rows["torch, all"]["classes"]:
                raise SystemExit("training gave another network than before: measure all rows")
            shorter = told(run_model(model, images[:count], steps=steps))
            rows["torch"] = gathered([{"first": 0, "cpu": 0.0, **shorter}], labels)
            plan = [
                ("exact", "exact", "ideal", count, TOLERANCES.reltol),
                ("events", "events", "rram-1r", count, TOLERANCES.reltol),
                ("surrogate", "surrogate", "rram-1r", count, TOLERANCES.reltol),
                ("surrogate, all", "surrogate", "rram-1r", size.all, TOLERANCES.reltol),
                ("ngspice, finer", "ngspice", "rram-1r", size.check, 1e-5),
                ("ngspice", "ngspice", "rram-1r", count, TOLERANCES.reltol),
                ("events, no variation", "events", "ideal", count, TOLERANCES.reltol),
            ]
            for name, engine, technology, number, reltol in plan:
                if code == "rate" and name in ("ngspice, finer", "surrogate, all"):
                    continue
                if name in kept and name not in rows_again:
                    rows[name] = kept[name]
                    continue
                parts: list[dict[str, Any]] = []
                given = jobs(
                    weights, engine, technology, code, images[:number], reltol, str(surrogate)
                )
                # In order: a run that is stopped has the first images.
                for part in map(shown, given) if workers == 1 else pool.map(shown, given):
                    parts.append(part)
                    rows[name] = gathered(parts, labels)
                    save(result)
                if parts:
                    say(code, name, rows[name])
            for name in ("torch", "exact", "events", "surrogate", "ngspice, finer"):
                if name in rows and "ngspice" in rows:
                    rows[f"ngspice as {name}"] = agreement(rows["ngspice"], rows[name])
                    print(code, f"ngspice as {name}", rows[f"ngspice as {name}"], flush=True)
            save(result)
    return result


def say(code: Code, name: str, row: dict[str, Any]) -> None:
    spikes = ", ".join(f"{n:.1f}" for n in row["spikes"])
    print(
        f"{code} {name:21s} {row['images']} images: {row['accuracy']:.3f} "
        f"± {row['deviation']:.3f} (first spike {row['first_accuracy']:.3f}, "
        f"undecided {row['undecided']}), spikes {spikes}, "
        f"{row['energy'] * 1e9:.3g} nJ, {row['cpu']:.2f} s of CPU, "
        f"steps {', '.join(f'{n:.0f}' for n in row['steps'])}",
        flush=True,
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Accuracy and energy per inference, side by side."""
    rows = result["latency"]
    order = ("torch", "exact", "events, no variation", "events", "surrogate", "ngspice")
    names = [name for name in order if name in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    at = np.arange(len(names))
    left.bar(at, [rows[n]["accuracy"] for n in names], yerr=[rows[n]["deviation"] for n in names])
    left.set(ylabel="accuracy", ylim=(0, 1), title=f"{rows[names[-1]]['images']} test images")
    right.bar(at, [rows[n]["energy"] * 1e9 for n in names], color="tab:orange")
    right.set(ylabel="energy per inference [nJ]", title="from the supplies")
    for axes in (left, right):
        axes.set_xticks(at, names, rotation=20, ha="right", fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _cpu() -> float:
    """Seconds of CPU of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write ``digits.json`` and ``digits.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one image, numbers mean nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--images", type=int, help="of the latency code in ngspice")
    parser.add_argument("--workers", type=int, default=2, help="processes at the same time")
    parser.add_argument("--rows", nargs="*", default=[], help="measure these anew, keep the rest")
    options = parser.parse_args(argv)
    size = SMOKE if options.smoke else FULL
    if options.images is not None:
        size = replace(size, latency=options.images)
    with TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        earlier = out / "digits.json"

        def save(result: dict[str, Any]) -> None:
            partial = out / "digits.json.part"
            partial.write_text(json.dumps(result) + "\n")
            partial.replace(earlier)

        result = measured(
            size,
            json.loads(earlier.read_text()) if options.rows and earlier.exists() else {},
            rows_again=options.rows,
            workers=1 if options.smoke else options.workers,
            surrogate=Path(scratch) / "surrogate.npz",
            save=save,
        )
        save(result)
        draw(result, out / "digits.png")
    return result


if __name__ == "__main__":
    main()
