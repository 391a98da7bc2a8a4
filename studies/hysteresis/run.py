"""A device's hysteresis as what a surrogate needs to know of it, and as its identity.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import load_cell
from spicenn.circuit.histories import reversal_history
from spicenn.engines.histories import first_reversal_curves, run_history
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.seeds import Purpose, generator
from spicenn.study.statistics import yield_interval
from spicenn.surrogate.hysteresis import (
    HysteresisSurrogate,
    Plane,
    Population,
    Record,
    fit_population,
    fit_weights,
    identify,
    record_of_current,
    respond,
    tag,
)

Array = NDArray[np.float64]

# Levels that move a device of this process within a microsecond; none does in between.
LEVELS = (
    *np.linspace(-1.4, -0.7, 15).round(3).tolist(),
    *np.linspace(0.7, 1.4, 15).round(3).tolist(),
)
# Relative standard deviation from device to device. Orders of magnitude, not a process's:
# 2 % of the barrier are 12 meV.
SPREAD = {
    "ea": 0.02, "gamma0": 0.03, "gap0": 0.02, "gap_min": 0.03, "gap_max": 0.03,
    "v0": 0.05, "i0": 0.10,
}  # fmt: skip
# What a cycle draws anew, as the ions' hops do; the static law stays.
CYCLED = ("ea", "gamma0")
# Of the tester's gain from session to session.
GAIN = 0.05
# What a draw is for, as parts of its key.
DEVICE, CYCLE, NOISE, HISTORIES = range(4)
# Devices of the population have other numbers than those that are enrolled.
FIRST_OF_POPULATION = 1000
# Of fitting a population: more change the ranks that matter by little.
ITERATIONS = 10
# Chips whose relays are fitted without negative weights too, at six seconds each.
FEW = 2


@dataclass(frozen=True)
class Setup:
    """Sizes of a run.

    chips, population : that are enrolled and identified; that the population is learnt from.
    reversals : index of the levels at which curves turn; every second one is enrolled with,
        the others identify.
    cycles : spread from cycle to cycle over that from device to device.
    noise : relative, of one read.
    curves : how many of its curves the session that identifies measures.
    rank, ranks : of the tag, and those that are compared at the first noise and second cycles.
    histories, turns : that no fit has seen, and how often each turns.
    """

    chips: int = 24
    population: int = 48
    seeds: tuple[int, ...] = (11, 12, 13)
    reversals: tuple[int, ...] = tuple(range(14))
    cycles: tuple[float, ...] = (0.0, 0.1, 0.25)
    noise: tuple[float, ...] = (0.02, 0.2)
    curves: tuple[int, ...] = (1, 2, 7)
    ranks: tuple[int, ...] = (1, 4)
    rank: int = 8
    histories: int = 3
    turns: int = 8
    levels: tuple[float, ...] = LEVELS


SMOKE = Setup(
    chips=2, population=4, seeds=(1,), reversals=(1, 2, 3, 4), cycles=(0.1,), noise=(0.02,),
    curves=(2,), ranks=(1,), rank=2, histories=1, turns=3,
    levels=LEVELS[::3],
)  # fmt: skip


def draw(seed: int, use: int, *, chip: int = 0, session: int = 0, curve: int = 0) -> Any:
    """Return the generator of one draw."""
    return generator(seed, Purpose.HYSTERESIS, chip=chip, trial=session, layer=use, row=curve)


def parameters(seed: int, chips: Sequence[int], cycles: float, curve: int) -> dict[str, Array]:
    """Devices' parameters (chip,) in the cycle that a curve is."""
    cell = load_cell("memristor")
    own = np.array([draw(seed, DEVICE, chip=c).standard_normal(len(SPREAD)) for c in chips])
    anew = [draw(seed, CYCLE, chip=c, curve=curve).standard_normal(len(CYCLED)) for c in chips]
    own[:, [list(SPREAD).index(name) for name in CYCLED]] += cycles * np.array(anew)
    found = {
        name: cell.parameter(name) * (1 + relative * own[:, k])
        for k, (name, relative) in enumerate(SPREAD.items())
    }
    # About where the top level leaves a device: near its inner wall.
    found["g"] = found["i0"] / found["v0"] * np.exp(-1.1 * found["gap_min"] / found["gap0"])
    return found


def measure(
    engine: NgspiceEngine, seed: int, chips: Sequence[int], setup: Setup, cycles: float, on: bool
) -> list[Array]:
    """Currents (chip, step) of every reversal curve, without noise [A]."""
    cell = load_cell("memristor") if on else load_cell("memristor", vel0=0.0)
    return [
        first_reversal_curves(
            engine, cell, parameters(seed, chips, cycles, k), setup.levels, [turn]
        ).current
        for k, turn in enumerate(setup.reversals)
    ]


def session(
    seed: int, chip: int, currents: Sequence[Array], setup: Setup, noise: float, part: int,
    *, gain: float = GAIN, curves: int | None = None,
) -> list[Record]:  # fmt: skip
    """One session of a chip: every second curve, or some, by a tester of some gain.

    currents : (step,) of every curve. part : 0 or 1, which of the curves.
    """
    rng = draw(seed, NOISE, chip=chip, session=part)
    factor = np.exp(gain * rng.standard_normal())
    numbers = np.arange(part, len(setup.reversals), 2)
    if curves is not None:
        # Spread over the reversals.
        middle = (np.arange(curves) + 0.5) * len(numbers) / curves
        numbers = numbers[middle.astype(int)]
    records = []
    for k in numbers.tolist():
        history, _ = reversal_history(setup.levels, [setup.reversals[k]])
        read = factor * currents[k] * np.exp(noise * rng.standard_normal(len(history)))
        records.append(record_of_current(history, read, noise))
    return records


def of_chip(currents: Sequence[Array], row: int) -> list[Array]:
    """One chip's currents of every curve."""
    return [curve[row] for curve in currents]


def unseen_histories(seed: int, setup: Setup) -> list[Array]:
    """Histories that begin at the top level and turn at random ones, walking step by step."""
    rng = draw(seed, HISTORIES)
    levels = np.asarray(setup.levels)
    found: list[Array] = []
    for _ in range(setup.histories):
        at = [len(levels) - 1]
        for turn in rng.integers(len(levels), size=setup.turns).tolist():
            step = 1 if turn > at[-1] else -1
            at += range(at[-1] + step, turn + step, step) if turn != at[-1] else []
        found.append(levels[at])
    return found


def population_of(
    seed: int, currents: Sequence[Array], setup: Setup, plane: Plane, noise: float, rank: int
) -> Population:
    """Learn the population from devices with both of their sessions."""
    devices = []
    for row in range(setup.population):
        chip, own = FIRST_OF_POPULATION + row, of_chip(currents, row)
        devices.append([r for part in (0, 1) for r in session(seed, chip, own, setup, noise, part)])
    return fit_population(plane, devices, rank=rank, iterations=ITERATIONS)


def identified(
    seed: int, currents: Sequence[Array], setup: Setup, population: Population, noise: float,
    curves: int,
) -> dict[str, list[bool]]:  # fmt: skip
    """Whether each chip is found again, whether that is decided, and both."""
    chips = range(setup.chips)
    enrolled = [
        tag(population, session(seed, c, of_chip(currents, c), setup, noise, 0)) for c in chips
    ]
    found: dict[str, list[bool]] = {"right": [], "decided": [], "decided, wrong": []}
    for c in chips:
        again = session(seed, c, of_chip(currents, c), setup, noise, 1, curves=curves)
        outcome = identify(tag(population, again), enrolled, spread=population.spread)
        found["right"].append(outcome.index == c)
        found["decided"].append(bool(outcome.decided))
        found["decided, wrong"].append(bool(outcome.decided and outcome.index != c))
    return found


def by_level(
    seed: int, currents: Sequence[Array], setup: Setup, noise: float, gain: float
) -> list[bool]:
    """Whether each chip is found again by its mean logarithm of the current alone."""
    level = np.array(
        [
            [
                np.mean([r.response.mean() for r in session(
                    seed, c, of_chip(currents, c), setup, noise, part, gain=gain)])
                for part in (0, 1)
            ]
            for c in range(setup.chips)
        ]
    )  # fmt: skip
    nearest = np.abs(level[:, 1][:, None] - level[:, 0]).argmin(axis=1)
    return [bool(n == c) for c, n in enumerate(nearest)]


def rms(error: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def predicted(
    seed: int, currents: Sequence[Array], truths: Sequence[Array], histories: Sequence[Array],
    setup: Setup, population: Population, noise: float, *, own: bool,
) -> dict[str, list[float]]:  # fmt: skip
    """Error on unseen histories per chip, with the tag and without, and what it says of itself.

    truths : (chip, step) response of every history relative to its first step.
    own : whether to fit each chip's relays alone as well.
    """
    tags = [
        tag(population, session(seed, c, of_chip(currents, c), setup, noise, 0))
        for c in range(setup.chips)
    ]
    found: dict[str, list[float]] = {}

    def add(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for c, mine in enumerate(tags):
        truth = np.concatenate([t[c] for t in truths])
        other = tags[(c + 1) % len(tags)]
        for name, context in (("tag", mine), ("no tag", None), ("another's tag", other)):
            answers = [HysteresisSurrogate(population, context)(h) for h in histories]
            error = np.concatenate([a.mean for a in answers]) - truth
            add(name, rms(error))
            if context is not other:
                std = np.concatenate([a.std for a in answers])
                moved = std > 0
                inside = np.abs(error[moved]) < 1.6449 * std[moved]
                add(f"{name}, coverage of 90 %", float(inside.mean()))
        if own:
            records = session(seed, c, of_chip(currents, c), setup, noise, 0)
            for name, sign in (("own relays", False), ("own relays, none negative", True)):
                if sign and c >= FEW:
                    continue
                weights = fit_weights(population.plane, records, smoothness=1e-2, nonnegative=sign)
                answers_own = [respond(population.plane, weights, h) for h in histories]
                add(name, rms(np.concatenate([a - a[0] for a in answers_own]) - truth))
    return found


def one_seed(engine: NgspiceEngine, seed: int, setup: Setup) -> dict[str, Any]:
    """Everything of one seed; lists over chips."""
    plane = Plane.between(setup.levels)
    chips = range(setup.chips)
    others = range(FIRST_OF_POPULATION, FIRST_OF_POPULATION + setup.population)
    cell = load_cell("memristor")
    histories = unseen_histories(seed, setup)
    start = parameters(seed, chips, 0.0, 0)
    runs = [np.log(run_history(engine, cell, start, h)) for h in histories]
    truths = [y - y[:, :1] for y in runs]
    rows: dict[str, Any] = {
        "identified": [],
        "predicted": [],
        "scale": rms(np.concatenate(truths, axis=1)),
    }
    populations = {}
    for cycles in setup.cycles:
        own, population = (measure(engine, seed, c, setup, cycles, True) for c in (chips, others))
        for noise in setup.noise:
            learnt = population_of(seed, population, setup, plane, noise, setup.rank)
            populations[cycles, noise] = learnt
            key = {"hysteresis": "on", "cycles": cycles, "noise": noise, "rank": setup.rank}
            for curves in setup.curves:
                got = identified(seed, own, setup, learnt, noise, curves)
                rows["identified"].append({**key, "curves": curves, **got})
            errors = predicted(
                seed,
                own,
                truths,
                histories,
                setup,
                learnt,
                noise,
                own=(cycles, noise) == (setup.cycles[0], setup.noise[0]),
            )
            rows["predicted"].append({**key, **errors})
        if cycles == setup.cycles[min(1, len(setup.cycles) - 1)]:
            for rank in setup.ranks:
                noise = setup.noise[0]
                learnt = population_of(seed, population, setup, plane, noise, rank)
                key = {"hysteresis": "on", "cycles": cycles, "noise": noise, "rank": rank}
                got = identified(seed, own, setup, learnt, noise, setup.curves[-1])
                rows["identified"].append({**key, "curves": setup.curves[-1], **got})
                errors = predicted(seed, own, truths, histories, setup, learnt, noise, own=False)
                rows["predicted"].append({**key, **errors})
        print(f"seed {seed}, cycles {cycles:g}: done", flush=True)
    own, population = (measure(engine, seed, c, setup, 0.0, False) for c in (chips, others))
    rows["level"] = []
    for noise in setup.noise:
        frozen = population_of(seed, population, setup, plane, noise, setup.rank)
        for name, learnt in (
            ("off", frozen),
            ("off, population on", populations[setup.cycles[0], noise]),
        ):
            for curves in setup.curves:
                got = identified(seed, own, setup, learnt, noise, curves)
                key = {"hysteresis": name, "cycles": 0.0, "noise": noise, "rank": setup.rank}
                rows["identified"].append({**key, "curves": curves, **got})
        for gain in (0.0, GAIN):
            right = by_level(seed, own, setup, noise, gain)
            rows["level"].append({"gain": gain, "noise": noise, "right": right})
    return rows


def job(seed: int, setup: Setup) -> dict[str, Any]:
    """One seed with an engine of its own."""
    with NgspiceEngine(timeout=300) as engine:
        return one_seed(engine, seed, setup)


def gathered(
    seeds: Sequence[Mapping[str, Any]], part: str, keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of all seeds by their keys; lists are over chips, then over seeds."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for rows in seeds:
        for row in rows[part]:
            group = found.setdefault(tuple(row[k] for k in keys), {k: row[k] for k in keys})
            for name, values in row.items():
                if name not in keys:
                    group.setdefault(name, []).append(values)
    return list(found.values())


def summary(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares with 95 % intervals over chips of all seeds, errors with the range over seeds."""
    out: dict[str, Any] = {"identified": [], "predicted": [], "level": []}
    key = ("hysteresis", "cycles", "noise", "rank", "curves")
    for part, keys in (("identified", key), ("level", ("gain", "noise"))):
        for row in gathered(seeds, part, keys):
            entry = {k: row.pop(k) for k in keys}
            for name, values in row.items():
                interval = yield_interval(np.concatenate(values))
                entry[name] = [*interval]
                entry[f"{name}, seeds"] = [float(np.mean(v)) for v in values]
            out[part].append(entry)
    for row in gathered(seeds, "predicted", key[:-1]):
        entry = {k: row.pop(k) for k in key[:-1]}
        for name, values in row.items():
            means = [float(np.mean(v)) for v in values]
            entry[name] = [float(np.mean(means)), min(means), max(means)]
            if "coverage" not in name:
                entry[f"{name}, worst chip"] = max(float(np.max(v)) for v in values)
        out["predicted"].append(entry)
    out["scale"] = [float(rows["scale"]) for rows in seeds]
    return out


def figure(result: Mapping[str, Any], setup: Setup, path: Path) -> None:
    """Identification with hysteresis on and off, and the error with tag and without."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    noise = setup.noise[0]
    rows = [r for r in result["identified"] if r["noise"] == noise and r["rank"] == setup.rank]
    kinds = [("on", c, f"on, cycles {c:g}") for c in setup.cycles] + [("off", 0.0, "off")]
    for kind, cycles, label in kinds:
        mine = [r for r in rows if r["hysteresis"] == kind and r["cycles"] == cycles]
        x = np.array([r["curves"] for r in mine])
        y = np.array([r["right"] for r in mine])
        bars = [y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]]
        left.errorbar(x, y[:, 0], yerr=bars, marker="o", capsize=3, label=label)
    left.axhline(1 / setup.chips, color="black", linestyle=":", label="chance")
    left.set(xlabel="curves that identify", ylabel="share of chips found again", ylim=(0, 1.35))
    left.set_xscale("log", base=2)
    left.set_xticks(list(setup.curves), [str(c) for c in setup.curves])
    left.legend(title="hysteresis", fontsize=8, ncols=3, loc="upper center")
    bars_of = [r for r in result["predicted"] if r["noise"] == noise and r["rank"] == setup.rank]
    place = np.arange(len(bars_of))
    for k, name in enumerate(("no tag", "another's tag", "tag")):
        values = [r[name][0] for r in bars_of]
        right.bar(place + (k - 1) * 0.25, values, width=0.24, label=name)
    right.set_xticks(place, [f"{r['cycles']:g}" for r in bars_of])
    right.set(xlabel="spread of cycles over that of devices", ylabel="rms error of ln(current)")
    right.margins(y=0.3)
    right.legend(fontsize=8, ncols=3, title="unseen chips and histories")
    fig.savefig(path, dpi=120)
    plt.close(fig)


def main() -> None:
    """Run the study and print its summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one tiny case in seconds")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument("--workers", type=int, default=1, help="seeds at the same time")
    options = parser.parse_args()
    setup = SMOKE if options.smoke else Setup()
    jobs = (setup.seeds, [setup] * len(setup.seeds))
    if options.workers == 1:
        seeds = list(map(job, *jobs))
    else:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(options.workers, mp_context=spawn) as pool:
            seeds = list(pool.map(job, *jobs))
    with NgspiceEngine() as engine:
        versions = dict(engine.versions)
    result = {"chance": 1 / setup.chips, "versions": versions, **summary(seeds)}
    for part in ("identified", "level", "predicted"):
        for row in result[part]:
            print(part, json.dumps(row))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1) + "\n"
        (options.out / "result.json").write_text(text, encoding="utf-8")
        figure(result, setup, options.out / "result.png")


if __name__ == "__main__":
    main()
