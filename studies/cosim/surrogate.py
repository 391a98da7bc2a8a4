"""Event-driven surrogate of a layer of spiking neurons: errors on unseen chips, and speed."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import spicenn as sn
from spicenn.compiler import Design
from spicenn.compiler.spiking import LifSpread, SpikingLayer, spiking_layer
from spicenn.cosim.characterize import Stimulus, play, poisson_stimulus, trace_layer
from spicenn.engines.analog.spiking import SUPPLIES, spike
from spicenn.periphery.lif import Lif
from spicenn.surrogate.events import (
    EventSurrogate,
    LayerBlock,
    LayerModel,
    Trace,
    circuit_model,
    nominal_layer,
    read_trace,
    rerun,
    run_layer,
)
from spicenn.surrogate.events.model import from_plain, to_plain
from spicenn.surrogate.events.population import surrogate_of

SEED = 2025
WIDTH = 100e-9
SPREAD = LifSpread(offset=5e-3, gm=0.03, c_mem=0.03, r_leak=0.1, i_ref=0.05)
# Spikes count as the same within this time [s].
MATCH = 50e-9


@dataclass(frozen=True)
class Size:
    """How large the study is.

    axons, neurons : of the layer that is learned.
    training, unseen : chips.
    train, probe, test : durations [s].
    rate : of pulses on an axon when training and probing [1/s].
    big_axons, big_neurons, big : of the layer that is timed, and for how long [s].
    rounds : of the fit.
    """

    axons: int = 8
    neurons: int = 6
    training: int = 4
    unseen: int = 10
    train: float = 150e-6
    probe: float = 100e-6
    test: float = 40e-6
    rate: float = 5e5
    big_axons: int = 32
    big_neurons: int = 100
    big: float = 4e-6
    rounds: int = 2


SMOKE = Size(axons=4, neurons=3, training=2, unseen=1, train=5e-6, probe=12e-6, test=3e-6,
             big_axons=4, big_neurons=6, big=2e-6, rounds=1, rate=2e6)  # fmt: skip


@dataclass(frozen=True)
class Errors:
    """How far a model's run is from ngspice's, of one chip and stimulus.

    behaviour : spikes missed and spikes too many, over spikes.
    decisions : the same spikes over decisions: every input pulse asks every neuron whether
        it fires, which is what LASANA's models of behaviour are judged on.
    count : difference of the numbers of spikes, over spikes.
    membrane : rms error of membranes just before every edge, over rest to threshold.
    membrane_median : the median of its magnitude.
    latency : mean over matched spikes of the relative error of the time from the beginning
        of the last exciting pulse to the output.
    latency_total : relative error of the sum of latencies of matched spikes.
    energy_window : mean relative error of the energies of windows of half a microsecond.
    energy_total : relative error of the run's energy.
    energy_events : the same without what the layer takes at rest.
    spikes : in ngspice.
    """

    behaviour: float
    decisions: float
    count: float
    membrane: float
    membrane_median: float
    latency: float
    latency_total: float
    energy_window: float
    energy_total: float
    energy_events: float
    spikes: int


def design_of(preset: str, axons: int, neurons: int) -> Design:
    """A layer of random weights, some more of them exciting; neurons of any size alike."""
    rng = np.random.default_rng(SEED)
    layer = torch.nn.Linear(axons, neurons, bias=False)
    weights = rng.normal(0.1, 0.35, (neurons, axons)) * np.sqrt(8 / axons)
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weights))
    calibration = torch.as_tensor(rng.random((20, axons)), dtype=torch.float32)
    design = sn.compile(
        layer, torch.ones(1, axons), technology=sn.Technology.preset(preset),
        calibration=calibration,
    )  # fmt: skip
    # An ideal technology has no chips that differ.
    return design.with_technology(programming_error=0.03) if preset == "ideal" else design


def chip_layer(design: Design, chip: int) -> SpikingLayer:
    return spiking_layer(
        design.sample(chip=chip, seed=SEED), design.layers[0], Lif(), width=WIDTH, spread=SPREAD
    )


def bursts(axons: int, until: float, chip: int) -> Stimulus:
    """The stimuli to judge by: groups of axons in turn, in bursts, unlike those of the fit."""
    rng = np.random.default_rng([SEED, 1, chip])
    times, which = [], []
    begin = 0.5e-6
    while begin < until - 1e-6:
        chosen = rng.permutation(axons)[: rng.integers(1, max(2, axons // 2) + 1)]
        for i in chosen:
            at = (
                begin
                + rng.uniform(0, 0.3e-6)
                + np.arange(rng.integers(1, 5)) * rng.uniform(1.5 * WIDTH, 6 * WIDTH)
            )
            at = at[at < until - 3 * WIDTH]
            times += at.tolist()
            which += [int(i)] * len(at)
        begin += rng.uniform(0.8e-6, 4e-6)
    order = np.argsort(times, kind="stable")
    axon = np.array(which, dtype=np.int64)[order]
    time = np.array(times)[order]
    keep = np.ones(len(time), dtype=bool)
    for i in range(axons):  # a pulse ends before the next of its axon begins
        last = -1.0
        for j in np.flatnonzero(axon == i):
            keep[j] = time[j] - last >= 1.2 * WIDTH
            last = time[j] if keep[j] else last
    return Stimulus(time[keep], axon[keep], until)


def recorded(name: str, layer: SpikingLayer, stimulus: Stimulus, chip: int, cache: Path | None,
             nominal: SpikingLayer) -> tuple[Trace, float]:  # fmt: skip
    """A trace from ngspice and the seconds it took, kept in a folder where there is one."""
    path = cache / f"{name}.npz" if cache else None
    if path and path.exists():
        with np.load(path) as file:
            kept = dict(file)
        took = float(kept.pop("took"))
        numbers = {k: kept[k].item() for k in ("axons", "neurons", "chip", "until")}
        return Trace(**{**kept, **numbers}), took
    start = perf_counter()
    trace = read_trace(trace_layer(layer, stimulus, nominal=nominal, chip=chip))
    took = perf_counter() - start
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, took=took, **trace.__dict__)
    return trace, took


def matched(a: NDArray[Any], b: NDArray[Any], tolerance: float) -> list[tuple[int, int]]:
    """Pairs of equal spikes of two trains in order of time."""
    pairs, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        if abs(a[i] - b[j]) <= tolerance:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return pairs


def errors_of(model: LayerModel, truth: LayerModel, trace: Trace) -> Errors:
    """Give a model the inputs of ngspice's trace and compare.

    truth : says which axons excite a neuron.
    """
    run = rerun(model, trace)
    rises = trace.edge_level > 0
    pairs_count = wrong = 0
    seen, said = [], []
    for k in range(trace.neurons):
        a = trace.spike_time[trace.spike_neuron == k]
        b = run.spike_time[run.spike_neuron == k]
        pairs = matched(a, b, MATCH)
        pairs_count += len(pairs)
        wrong += len(a) + len(b) - 2 * len(pairs)
        exciting = rises & (truth.weights[trace.edge_axon, k] > 0)
        begins = np.sort(trace.edge_time[exciting])
        for i, j in pairs:
            at = int(np.searchsorted(begins, min(a[i], b[j]))) - 1
            if at >= 0:
                seen.append(a[i] - begins[at])
                said.append(b[j] - begins[at])
    seen_, said_ = np.array(seen), np.array(said)
    spikes = max(len(trace.spike_time), 1)
    swing = float((truth.threshold - truth.rest).mean())
    starts = [0]
    for j, time in enumerate(trace.energy_time[:-1]):
        if time - trace.energy_time[starts[-1]] >= 0.5e-6:
            starts.append(j)
    windows = np.add.reduceat(np.diff(trace.energy), starts)
    mine = np.add.reduceat(np.diff(run.energy), starts)
    total, my_total = windows.sum(), mine.sum()
    rest = truth.power_rest * float(trace.energy_time[-1] - trace.energy_time[0])
    return Errors(
        behaviour=wrong / spikes,
        decisions=wrong / (float(rises.sum()) * trace.neurons),
        count=abs(len(run.spike_time) - len(trace.spike_time)) / spikes,
        membrane=float(np.sqrt(np.mean((run.membrane - trace.membrane) ** 2))) / swing,
        membrane_median=float(np.median(np.abs(run.membrane - trace.membrane))) / swing,
        latency=float(np.mean(np.abs(said_ - seen_) / seen_)) if len(seen) else np.nan,
        latency_total=float(abs(said_.sum() / seen_.sum() - 1)) if len(seen) else np.nan,
        energy_window=float(np.mean(np.abs(mine - windows) / windows)),
        energy_total=float(abs(my_total / total - 1)),
        energy_events=float(abs(my_total - total) / (total - rest)),
        spikes=len(trace.spike_time),
    )


def ideal(nominal: LayerModel) -> LayerModel:
    """The textbook's neuron: no delay, no floor, nothing of a reset but its time."""
    return nominal.with_(
        excess=np.array([np.log(1e-16)]),
        floor=-1e3,
        catch=np.full(nominal.neurons, 1e15),
        refractory=np.full(nominal.neurons, Lif().refractory),
        power_near=0.0,
    )


def accuracy(preset: str, size: Size, cache: Path | None) -> dict[str, Any]:
    """Fit to some chips, calibrate others, judge on stimuli of another kind."""
    design = design_of(preset, size.axons, size.neurons)
    nominal = nominal_layer(design, design.layers[0], Lif(), width=WIDTH)
    start = circuit_model(nominal)
    traces = []
    for c in range(size.training):
        stimulus = poisson_stimulus(
            size.axons, size.train, rate=size.rate, width=WIDTH, seed=SEED, use=c, spread=0.3
        )
        trace, _ = recorded(
            f"{preset}_train_{c}", chip_layer(design, c), stimulus, c, cache, nominal
        )
        traces.append(trace)
        print(f"  training chip {c}: {len(trace.spike_time)} spikes", flush=True)
    kept = cache / f"{preset}_surrogate.npz" if cache else None
    begin = perf_counter()
    if kept and kept.exists():
        surrogate = EventSurrogate.load(kept)
    else:
        surrogate = surrogate_of(start, traces, rounds=size.rounds)
        if kept:
            surrogate.save(kept)
    print(f"  fitted in {perf_counter() - begin:.0f} s: {surrogate.spread}, {surrogate.noise}")
    found: dict[str, list[Errors]] = {}
    cases: list[tuple[int, LayerModel, LayerModel, Trace]] = []
    calibrated: dict[int, LayerModel] = {}
    inside: dict[int, LayerModel] = {}
    for c in range(100, 100 + size.unseen):
        layer = chip_layer(design, c)
        stimulus = poisson_stimulus(
            size.axons, size.probe, rate=size.rate, width=WIDTH, seed=SEED, use=c, spread=0.3
        )
        probe, _ = recorded(f"{preset}_probe_{c}", layer, stimulus, c, cache, nominal)
        test, _ = recorded(
            f"{preset}_test_{c}", layer, bursts(size.axons, size.test, c), c, cache, nominal
        )
        path = cache / f"{preset}_calibrated_{c}.json" if cache else None
        if path and path.exists():
            model = from_plain(json.loads(path.read_text()))
        else:
            begin = perf_counter()
            result = surrogate.calibrate(probe)
            model = result.model
            print(f"  chip {c}, {perf_counter() - begin:.0f} s: {result.reason}", flush=True)
            if path:
                path.write_text(json.dumps(to_plain(model)))
        calibrated[c] = model
        path = cache / f"{preset}_membranes_{c}.json" if cache else None
        if path and path.exists():
            inside[c] = from_plain(json.loads(path.read_text()))
        else:
            inside[c] = surrogate.calibrate(probe, membranes=True).model
            if path:
                path.write_text(json.dumps(to_plain(inside[c])))
        cases.append((c, circuit_model(layer), surrogate.for_layer(layer), test))
    chips = list(calibrated)
    for number, (c, truth, known, test) in enumerate(cases):
        other = chips[(number + 1) % len(chips)]
        models = {
            "calibrated": calibrated[c],
            "membranes seen": inside[c],
            "devices known": known,
            "population": surrogate.model,
            "another chip's": calibrated[other],
            "ideal neurons": ideal(start),
        }
        for name, model in models.items():
            found.setdefault(name, []).append(errors_of(model, truth, test))
    summary = {name: summed(each) for name, each in found.items()}
    for name, values in summary.items():
        print("  " + f"{name:16s}" + "  ".join(f"{k} {v:.2%}" for k, v in values.items()))
    return {
        "preset": preset,
        "summary": summary,
        "chips": {name: [asdict(error) for error in each] for name, each in found.items()},
    }


def summed(each: Sequence[Errors]) -> dict[str, float]:
    """Means over chips; behaviour and count over all spikes."""
    spikes = np.array([error.spikes for error in each], dtype=np.float64)
    result = {}
    for field in fields(Errors)[:-1]:
        values = np.array([getattr(error, field.name) for error in each])
        weights = spikes if field.name in ("behaviour", "count") else np.isfinite(values) * 1.0
        values = np.where(np.isfinite(values), values, 0.0)
        result[field.name] = float((values * weights).sum() / max(weights.sum(), 1e-300))
    return result


def speed(preset: str, size: Size, surrogate: EventSurrogate | None) -> dict[str, Any]:
    """A larger layer: ngspice and the model on the same inputs, one after the other."""
    design = design_of(preset, size.big_axons, size.big_neurons)
    layer = chip_layer(design, 7)
    stimulus = poisson_stimulus(
        size.big_axons, size.big, rate=0.4 * size.rate, width=WIDTH, seed=SEED, use=999, spread=0.3
    )
    outputs = [spike(k) for k in range(layer.outputs)]
    model = surrogate.for_layer(layer) if surrogate else circuit_model(layer)

    def cosimulate(circuit: Any, **options: Any) -> tuple[Any, float]:
        with sn.Cosimulation(circuit, rise=1e-9, **options) as env:
            env.process(play(env, stimulus, layer.amplitude, layer.width))
            store = env.monitor(outputs, above=layer.nominal.supply / 2)
            begin = perf_counter()
            env.run(until=stimulus.until)
            return sorted(store.items, key=lambda s: s.time), perf_counter() - begin

    repeats = []
    for _ in range(20):
        block_spikes, took = cosimulate(LayerBlock(model, record=()))
        repeats.append(took)
    block = float(np.median(repeats))
    edge_time = np.concatenate([stimulus.time, stimulus.time + layer.width]) + 0.5e-9
    order = np.argsort(edge_time, kind="stable")
    edge_axon = np.concatenate([stimulus.axon, stimulus.axon])[order]
    level = np.repeat([layer.amplitude, 0.0], len(stimulus.time))[order]
    repeats = []
    for _ in range(20):
        begin = perf_counter()
        run = run_layer(model, edge_time[order], edge_axon, level, stimulus.until)
        repeats.append(perf_counter() - begin)
    alone = float(np.median(repeats))
    print(
        f"  {run.events} events, {len(run.spike_time)} spikes in the model; ngspice …", flush=True
    )
    spikes, circuit = cosimulate(
        layer.netlist(), max_step=2 * WIDTH, probes=[*outputs, *SUPPLIES], timeout=600.0
    )
    right = 0
    times = []
    for k in range(layer.outputs):
        a = np.array([s.time for s in spikes if s.node == spike(k)])
        b = np.array([s.time for s in block_spikes if s.node == spike(k)])
        pairs = matched(a, b, MATCH)
        right += len(pairs)
        times += [b[j] - a[i] for i, j in pairs]
    wrong = len(spikes) + len(block_spikes) - 2 * right
    result = {
        "preset": preset,
        "neurons": layer.outputs,
        "axons": layer.inputs,
        "duration": stimulus.until,
        "events": run.events,
        "spikes": len(spikes),
        "behaviour": wrong / max(len(spikes), 1),
        "spike_time_error": float(np.mean(np.abs(times))) if times else None,
        "seconds_ngspice": circuit,
        "seconds_cosimulation": block,
        "seconds_alone": alone,
        "per_event_alone": alone / run.events,
        "ratio_cosimulation": circuit / block,
        "ratio_alone": circuit / alone,
    }
    print("  " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}"
                           for k, v in result.items()), flush=True)  # fmt: skip
    return result


def many(neurons: int, axons: int, pulses: int) -> dict[str, float]:
    """Time per event of a model of many neurons, by itself."""
    rng = np.random.default_rng(SEED)
    base = circuit_model(chip_layer(design_of("ideal", 4, 3), 0))
    grown = {
        f.name: np.resize(getattr(base, f.name), neurons)
        for f in fields(LayerModel)
        if isinstance(getattr(base, f.name), np.ndarray)
        and getattr(base, f.name).shape == (base.neurons,)
    }
    weights = rng.normal(0.05, 0.35, (axons, neurons)) * np.sqrt(8 / axons) * 0.5 / WIDTH / 0.2
    model = base.with_(
        **{**grown, "excess": base.excess, "weights": weights,
           "power_axon": np.resize(base.power_axon, axons)}
    )  # fmt: skip
    start = np.sort(rng.uniform(0, pulses * 1e-7, pulses))
    edges = np.sort(np.concatenate([start, start + WIDTH]))
    axon = rng.integers(0, axons, 2 * pulses)
    level = np.where(rng.random(2 * pulses) < 0.5, 0.2, 0.0)
    begin = perf_counter()
    run = run_layer(model, edges, axon, level, float(edges[-1]) + 1e-6)
    took = perf_counter() - begin
    return {
        "neurons": neurons,
        "axons": axons,
        "events": run.events,
        "spikes": len(run.spike_time),
        "per_event": took / run.events,
        "per_event_and_neuron": took / run.events / neurons,
    }


def picture(results: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figures = {
        "behaviour": 0.02,
        "decisions": 0.02,
        "membrane": 0.02,
        "latency": 0.08,
        "energy_window": 0.07,
        "energy_total": 0.07,
    }
    count = len(results["accuracy"])
    figure, axes = plt.subplots(1, count, figsize=(6.5 * count, 4), squeeze=False)
    for axis, part in zip(axes[0], results["accuracy"], strict=True):
        names = list(part["summary"])
        for row, name in enumerate(names):
            values = [max(part["summary"][name][key], 1e-5) for key in figures]
            axis.bar(np.arange(len(figures)) + 0.14 * (row - 2.5), values, 0.14, label=name)
        for at, target in enumerate(figures.values()):
            axis.plot([at - 0.45, at + 0.45], [target, target], "k--", lw=1)
        axis.set_yscale("log")
        axis.set_xticks(range(len(figures)), [key.replace("_", "\n") for key in figures])
        axis.set_ylabel("error, unseen chips and stimuli")
        axis.set_title(part["preset"])
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="seconds; numbers mean nothing")
    parser.add_argument("--out", metavar="DIR", help="where results, picture and traces go")
    parser.add_argument("--presets", nargs="+", default=["ideal", "rram-1r"])
    parser.add_argument("--training", type=int, help="chips to learn from")
    parser.add_argument("--unseen", type=int, help="chips to judge on")
    parser.add_argument("--part", choices=["accuracy", "speed", "all"], default="all")
    arguments = parser.parse_args(argv)
    size = SMOKE if arguments.smoke else Size()
    asked = {"training": arguments.training, "unseen": arguments.unseen}
    size = replace(size, **{name: value for name, value in asked.items() if value})
    presets = ["ideal"] if arguments.smoke else arguments.presets
    out = Path(arguments.out) if arguments.out else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
    cache = out / "traces" if out and not arguments.smoke else None
    results: dict[str, Any] = {"size": asdict(size), "accuracy": [], "speed": [], "many": []}
    for preset in presets:
        if arguments.part in ("accuracy", "all"):
            print(f"{preset}: {size.unseen} unseen chips", flush=True)
            results["accuracy"].append(accuracy(preset, size, cache))
    if arguments.part in ("speed", "all"):
        kept = cache / f"{presets[0]}_surrogate.npz" if cache else None
        surrogate = EventSurrogate.load(kept) if kept and kept.exists() else None
        print(f"speed: {size.big_neurons} neurons, {size.big_axons} axons", flush=True)
        results["speed"].append(speed(presets[0], size, surrogate))
        counts = (100,) if arguments.smoke else (100, 1000, 10_000)
        results["many"] = [many(n, 64, 50 if arguments.smoke else 500) for n in counts]
        for each in results["many"]:
            print("  " + ", ".join(f"{k} {v:.3g}" for k, v in each.items()), flush=True)
    if out:
        name = "surrogate" if arguments.part == "all" else f"surrogate_{arguments.part}"
        (out / f"{name}.json").write_text(json.dumps(results, indent=1))
        if results["accuracy"]:
            picture(results, out / "surrogate.png")


if __name__ == "__main__":
    main()
