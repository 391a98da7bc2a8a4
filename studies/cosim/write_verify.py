"""Memristors programmed by write and verify, and by one pulse chosen for a nominal cell."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import spicenn as sn
from spicenn.circuit import Crossbar, load_cell
from spicenn.circuit.write import WRITE_TOLERANCES, Pulse
from spicenn.cosim.memristors import ArrayPins, MemristorArray, array_netlist
from spicenn.cosim.programming import Read, Staircase, nominal_pulse, write_blind, write_verify
from spicenn.kirchhoff.memristor import Memristor
from spicenn.seeds import Purpose, generator

SEED = 11
# Cells on one bitline; the others' lines are at half the amplitude, as in an array.
ROWS, SCHEME = 10, "v/2"
LEVELS = np.geomspace(20e-6, 200e-6, 20)
SMOKE = ("write-verify", "write-verify by the law")
# From where a cell is written: reset from the first, set from the second.
HIGH, LOW = 300e-6, 10e-6
WIDTH, FIRST, STEP, LIMIT = 50e-9, 1.0, 0.04, 2.0
TOLERANCE, MOST = 0.05, 100
# Standard deviations of the law's parameters over their values; that of vel0 is of its log.
SIGMA = {"vel0": 0.3, "ea": 0.005, "thickness": 0.01, "gamma0": 0.01, "gap0": 0.02}
NOMINAL = Memristor()
REPLAY = "another cell's pulses"
# What is kept of which cells.
KEPT_CELLS = ("one pulse, set", "one pulse, reset", REPLAY, "write-verify")
KEPT = ("target", "conductance", "pulses")
# At a reltol of 1e-7 reads are off by 2e-4, and where that decides a cell gets other pulses
# than by its law; 1e-8 takes no longer.
SOLVER = WRITE_TOLERANCES
MAX_STEP = 10e-9


@dataclass(frozen=True, kw_only=True)
class Job:
    """One column in one co-simulation.

    cells : numbers of the cells, from the first row on; a number names a cell's parameters.
    levels : (cell,) of the targets. way : "verify", "reset", "set" or "replay".
    spread : of the parameters, over ``SIGMA``. first : amplitude of a staircase [V].
    pulses : of a replay, by row: amplitudes [V].
    """

    cells: tuple[int, ...]
    levels: tuple[int, ...]
    way: str = "verify"
    spread: float = 1.0
    tolerance: float = TOLERANCE
    noise: float = 0.0
    first: float = FIRST
    engine: str = "ngspice"
    pulses: tuple[tuple[float, ...], ...] = ()


def parameters(cells: Sequence[int], spread: float) -> dict[str, np.ndarray]:
    """Every cell's own parameters of the law, (row, 1) each; of the number alone."""
    z = np.array([generator(SEED, Purpose.CELL_LAW, row=k).standard_normal(5) for k in cells])
    found = {}
    for column, (name, sigma) in zip(z.T, SIGMA.items(), strict=True):
        nominal, off = getattr(NOMINAL, name), spread * sigma * column
        found[name] = (nominal * (np.exp(off) if name == "vel0" else 1 + off))[:, np.newaxis]
    return found


@cache
def chosen(start: float, target: float) -> Pulse:
    """The one pulse for a nominal cell."""
    return nominal_pulse(NOMINAL, start, target, width=WIDTH)


def staircase(amplitude: float) -> Staircase:
    first = Pulse(amplitude=amplitude, width=WIDTH)
    return Staircase(first=first, step=STEP, limit=LIMIT)


def run(job: Job) -> dict[str, Any]:
    """Program a column; what became of every cell, by its own law and not by a read."""
    rows = len(job.cells)
    crossbar = Crossbar("column", rows, 1, cell=load_cell("memristor"))
    start = LOW if job.way == "set" else HIGH
    g, each = np.full((rows, 1), start), parameters(job.cells, job.spread)
    pins, read = ArrayPins(rows, 1), replace(Read.of(NOMINAL), noise=job.noise)
    targets = {(i, 0): float(LEVELS[level]) for i, level in enumerate(job.levels)}
    common: dict[str, Any] = {"read": read, "scheme": SCHEME, "seed": SEED, "trial": job.cells[0]}
    began = perf_counter()
    circuit: Any = MemristorArray(crossbar, g, each)
    options: dict[str, Any] = {}
    if job.engine == "ngspice":
        circuit = array_netlist(crossbar, g, each)
        options = {"probes": pins.probes, "max_step": MAX_STEP, "tolerances": SOLVER}
    with sn.Cosimulation(circuit, **options) as env:
        if job.way == "verify":
            writer = write_verify(
                env, pins, targets, increase=staircase(job.first), decrease=staircase(-job.first),
                tolerance=job.tolerance, most=MOST, **common,
            )  # fmt: skip
        elif job.way == "replay":
            like = [[Pulse(amplitude=a, width=WIDTH) for a in each] for each in job.pulses]
            writer = write_blind(env, pins, dict(zip(targets, like, strict=True)), **common)
        else:
            one = {cell: [chosen(start, g)] for cell, g in targets.items()}
            writer = write_blind(env, pins, one, **common)
        process = env.process(writer)
        ds = env.run(process)
        steps = getattr(env.blocks[""], "steps", 0)
    done: Any = process.value
    gap = np.array([ds[pins.state(i, 0)].values[-1] for i in range(rows)]) * 1e-9
    final = NOMINAL.i0 / NOMINAL.v0 * np.exp(-gap / each["gap0"][:, 0])
    target = np.array(list(targets.values()))
    pulsed = ds.isel(event=ds.event_name.values == "pulse")
    row = pulsed.event_wordline.values.astype(int)
    turns = [int(np.count_nonzero(np.diff(np.flatnonzero(row == i)) > 1)) for i in range(rows)]
    return {
        "cell": list(job.cells), "level": list(job.levels), "target": target.tolist(),
        "conductance": final.tolist(), "read": done.conductance.tolist(),
        "error": (final / target - 1).tolist(), "pulses": done.pulses.tolist(),
        "reads": done.reads.tolist(), "success": [bool(x) for x in done.success],
        "written again": turns,
        "amplitudes": [pulsed.event_value.values[row == i].tolist() for i in range(rows)],
        "duration": float(env.now), "steps": steps, "seconds": perf_counter() - began,
    }  # fmt: skip


def gathered(found: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Columns' results in one: lists over all cells, sums of what each column has once."""
    parts = list(found)
    joined: dict[str, Any] = {}
    for key, value in parts[0].items():
        each = [part[key] for part in parts]
        joined[key] = [x for part in each for x in part] if isinstance(value, list) else sum(each)
    return joined


def summary(found: dict[str, Any], tolerance: float = TOLERANCE) -> dict[str, float]:
    """Errors over the target; pulses and reads per cell."""
    error, pulses = np.abs(found["error"]), np.array(found["pulses"])
    window = (np.array(found["conductance"]) - found["target"]) / (LEVELS[-1] - LEVELS[0])
    return {
        "cells": len(error),
        "rms": float(np.sqrt(np.mean(error**2))),
        "p95": float(np.quantile(error, 0.95)),
        "largest": float(error.max()),
        "within": float(np.mean(error <= tolerance)),
        "rms of range": float(np.sqrt(np.mean(window**2))),
        "p95 of range": float(np.quantile(np.abs(window), 0.95)),
        "pulses": float(pulses.mean()),
        "pulses p95": float(np.quantile(pulses, 0.95)),
        "most pulses": int(pulses.max()),
        "reads": float(np.mean(found["reads"])),
        "success": float(np.mean(found["success"])),
        "written again": float(np.mean(np.array(found["written again"]) > 0)),
        "time per cell": found["duration"] / len(error),
        "seconds": found["seconds"],
        "steps": found["steps"],
    }


def columns(count: int, **others: Any) -> list[Job]:
    """Columns of cells 0 … count - 1, every level as often, in an order of its own."""
    rng = generator(SEED, Purpose.CELL_LAW, chip=1)
    levels = rng.permutation(np.arange(count) % len(LEVELS))
    return [
        Job(cells=tuple(range(k, k + ROWS)), levels=tuple(levels[k : k + ROWS].tolist()), **others)
        for k in range(0, count, ROWS)
    ]


def replays(found: dict[str, Any]) -> list[Job]:
    """Every cell gets the pulses that another cell of the same target needed."""
    level = np.array(found["level"])
    other = np.arange(len(level))
    for k in range(len(LEVELS)):
        of = np.flatnonzero(level == k)
        other[of] = np.roll(of, 1)
    pulses = [tuple(found["amplitudes"][k]) for k in other]
    return [
        replace(job, way="replay", pulses=tuple(pulses[k] for k in job.cells))
        for job in columns(len(level))
    ]


def measured(smoke: bool, workers: int) -> dict[str, Any]:
    """All that is shown, each as the cells' results."""
    cells, few, by_law, same = (ROWS,) * 4 if smoke else (1000, 200, 40, 20)
    jobs = {
        "one pulse, reset": columns(cells, way="reset"),
        "one pulse, set": columns(cells, way="set"),
        "write-verify": columns(cells),
        "one pulse, no variation": columns(same, way="reset", spread=0.0),
        "write-verify, no variation": columns(same, spread=0.0),
        # The first columns of the same run.
        "write-verify by the law": [
            replace(job, engine="ode") for job in columns(cells)[: by_law // ROWS]
        ],
    }
    for tolerance in (0.01, 0.02, 0.1):
        jobs[f"write-verify, tolerance {tolerance:g}"] = columns(few, tolerance=tolerance)
    jobs["write-verify from 0.8 V, tolerance 0.01"] = columns(few, tolerance=0.01, first=0.8)
    for noise in (20e-9, 50e-9, 100e-9):
        jobs[f"write-verify, noise {1e9 * noise:g} nA"] = columns(few, noise=noise)
    if smoke:
        jobs = {name: jobs[name] for name in SMOKE}
    result = {}
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for name, each in jobs.items():
            result[name] = gathered(pool.imap(run, each))
            report(name, result[name])
        result[REPLAY] = gathered(pool.imap(run, replays(result["write-verify"])))
        report(REPLAY, result[REPLAY])
    return result


def report(name: str, found: dict[str, Any]) -> None:
    s = summary(found, tolerance_of(name))
    print(
        f"{name}: {s['cells']} cells, error rms {s['rms']:.2%}, 95 % {s['p95']:.2%}, largest "
        f"{s['largest']:.2%}, within tolerance {s['within']:.1%}; of the range rms "
        f"{s['rms of range']:.2%}, 95 % {s['p95 of range']:.2%}; pulses mean {s['pulses']:.2f}, "
        f"95 % {s['pulses p95']:.0f}, most {s['most pulses']}; reads {s['reads']:.2f}; claims "
        f"success {s['success']:.1%}; written again {s['written again']:.1%}; "
        f"{1e6 * s['time per cell']:.2f} µs per cell; {s['seconds']:.0f} s computed", flush=True,
    )  # fmt: skip


def tolerance_of(name: str) -> float:
    return float(name.rsplit(" ", 1)[1]) if "tolerance" in name else TOLERANCE


def twins(result: dict[str, Any]) -> dict[str, float]:
    """How far the law alone is from ngspice, for the same cells and targets."""
    law = result["write-verify by the law"]
    count = len(law["cell"])
    ours = {key: result["write-verify"][key][:count] for key in ("cell", "target", "pulses")}
    assert ours["cell"] == law["cell"]
    assert ours["target"] == law["target"]
    same = np.array(ours["pulses"]) == law["pulses"]
    ratio = np.array(law["conductance"]) / result["write-verify"]["conductance"][:count]
    return {
        "cells": count,
        "same pulses": int(same.sum()),
        "largest difference": float(np.abs(ratio - 1)[same].max()),
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Distributions of the error and of the pulses, and both against the tolerance."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for name in (n for n in KEPT_CELLS if n in result):
        error = np.sort(np.abs(result[name]["error"]))
        axes[0, 0].plot(100 * error, (np.arange(len(error)) + 1) / len(error), label=name)
    axes[0, 0].axvline(100 * TOLERANCE, color="k", lw=0.8)
    axes[0, 0].set(xscale="log", xlabel="|error| / target [%]", ylabel="share of the cells")
    for name in ("one pulse, reset", "write-verify"):
        of = result[name]
        axes[0, 1].semilogx(1e6 * np.array(of["target"]), 100 * np.array(of["error"]), ".", ms=3,
                        label=name)  # fmt: skip
    axes[0, 1].set(
        yscale="symlog", xlim=(18, 220), xlabel="target [µS]", ylabel="error / target [%]"
    )
    axes[0, 1].set_xticks([20, 50, 100, 200], ["20", "50", "100", "200"])
    axes[0, 1].minorticks_off()
    pulses = np.array(result["write-verify"]["pulses"])
    axes[1, 0].hist(pulses, bins=np.arange(pulses.max() + 2) - 0.5, label="write-verify")
    axes[1, 0].set(xlabel="pulses", ylabel="cells")
    names = sorted(("write-verify", *(n for n in result if "verify, tol" in n)), key=tolerance_of)
    sums = [summary(result[name], tolerance_of(name)) for name in names]
    x = [100 * tolerance_of(name) for name in names]
    axes[1, 1].plot(x, [100 * s["rms"] for s in sums], "o-", label="error, rms [%]")
    axes[1, 1].plot(x, [s["pulses"] for s in sums], "s-", label="pulses, mean")
    axes[1, 1].plot(x, [s["pulses p95"] for s in sums], "s:", label="pulses, 95 %")
    axes[1, 1].set(xscale="log", yscale="log", xlabel="tolerance [%]")
    for axis in axes.flat:
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write ``write_verify.json`` and ``write_verify.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few cells, in seconds")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(argv)
    result = measured(options.smoke, options.workers)
    same = twins(result)
    print(f"by the law and in ngspice: {same}")
    record = {
        "seed": SEED,
        "sigma": SIGMA,
        "summary": {name: summary(found, tolerance_of(name)) for name, found in result.items()},
        "twins": same,
        "cells": {
            name: {key: [round_(x) for x in result[name][key]] for key in KEPT}
            for name in KEPT_CELLS
            if name in result
        },
    }
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "write_verify.json").write_text(json.dumps(record) + "\n")
        draw(result, options.out / "write_verify.png")
    return record


def round_(x: Any) -> Any:
    """Five digits are all that anybody reads."""
    return float(f"{x:.5g}") if isinstance(x, float) else x


if __name__ == "__main__":
    main()
