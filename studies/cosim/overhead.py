"""What co-simulation takes beside plain ngspice: time per accepted point, points per event."""

from __future__ import annotations

import argparse
import json
import resource
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import spicenn as sn
from spicenn.circuit.stepped import stepped
from spicenn.engines.ngspice.client import NgspiceEngine

STEP, RISE = 1e-9, 1e-11
MODEL = ".model nch nmos level=1 vto=0.4 kp=2e-4 lambda=0.05 cgso=2e-10 cgdo=2e-10"


def grid(side: int, sources: int) -> list[str]:
    """Resistors between neighbours, a capacitor at every node: side² nodes."""
    lines = [f"c{k}_{j} n{k}_{j} 0 1p" for k in range(side) for j in range(side)]
    lines += [f"rh{k}_{j} n{k}_{j} n{k}_{j + 1} 1k" for k in range(side) for j in range(side - 1)]
    lines += [f"rv{k}_{j} n{k}_{j} n{k + 1}_{j} 1k" for k in range(side - 1) for j in range(side)]
    return lines + [f"rs{k} s{k} n{k % side}_0 1k" for k in range(sources)]


def crossbar(side: int, sources: int) -> list[str]:
    """side² cells of 10 kΩ to 1 MΩ between wires of 2 Ω and 1 fF a segment: 2 side² nodes."""
    lines = []
    for k in range(side):
        for j in range(side):
            lines += [
                f"rc{k}_{j} w{k}_{j} n{k}_{j} {10 ** (4 + (7 * k + 3 * j) % 11 / 5):.0f}",
                f"rw{k}_{j} {f'w{k}_{j - 1}' if j else f's{k % sources}'} w{k}_{j} 2",
                f"rb{k}_{j} n{k}_{j} {f'n{k + 1}_{j}' if k < side - 1 else f'o{j}'} 2",
                f"cw{k}_{j} w{k}_{j} 0 1f",
                f"cb{k}_{j} n{k}_{j} 0 1f",
            ]
    return lines + [f"ro{j} o{j} 0 1k" for j in range(side)]


def transistors(side: int, sources: int) -> list[str]:
    """side² inverters with a resistor as load, in chains: side² transistors."""
    lines = [MODEL, "vdd vdd 0 1.2"]
    for k in range(side):
        for j in range(side):
            gate = f"n{k}_{j - 1}" if j else f"s{k % sources}"
            lines += [f"m{k}_{j} n{k}_{j} {gate} 0 0 nch w=1u l=0.2u",
                      f"rl{k}_{j} vdd n{k}_{j} 20k", f"cl{k}_{j} n{k}_{j} 0 5f"]  # fmt: skip
    return lines


CIRCUITS = {"grid": grid, "crossbar": crossbar, "transistors": transistors}


def processor_time() -> float:
    """Of processes that have ended [s]; the clock says little where other work is going on."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(kind: str, side: int, sources: int, watched: int, events: int, until: float) -> Any:
    """One circuit with ``events`` drives in turn, against itself with the same drives as PWL.

    Both run in a process of their own, whose processor time is taken; what they take to
    load and to find the operating point is that of a run of two steps, which is taken off.
    """
    lines = CIRCUITS[kind](side, sources)
    every = until / events if events else until
    turns: dict[int, list[tuple[float, float]]] = {k: [] for k in range(sources)}
    for n in range(events):
        turns[n % sources].append((n * every, float((n // sources + 1) % 2)))
    probes = [f"n{k % side}_{side - 1 - k // side}" for k in range(max(watched, 1))]
    driven = [f"v{k} s{k} 0 dc 0 external" for k in range(sources)]
    pwl = []
    for k, turn in turns.items():
        points, level = "0 0", 0.0
        for start, after in turn:
            start += 1e-3 * RISE
            points += f" {start!r} {level} {start + RISE!r} {after}"
            level = after
        pwl.append(f"v{k} s{k} 0 pwl({points} 1 {level})")

    def own(end: float) -> tuple[float, float, int]:
        def driver(env: sn.Cosimulation) -> Any:
            for n in range(events):
                env.drive(f"v{n % sources}", float((n // sources + 1) % 2), rise=RISE)
                yield env.timeout(every)

        before, clock = processor_time(), 0.0
        text = "\n".join(["t", *driven, *lines])
        with sn.Cosimulation(text, probes=probes, max_step=STEP, rise=RISE) as env:
            env.monitor(probes[:watched], above=10.0)  # which is never reached
            env.process(driver(env))
            clock = perf_counter()
            env.run(until=end)
            clock = perf_counter() - clock
            steps = env.blocks[""].steps  # type: ignore[attr-defined]
        return processor_time() - before, clock, steps

    def plain(end: float) -> tuple[float, float, int]:
        netlist = stepped("\n".join(["t", *pwl, *lines]), probes[:1]).netlist(max_step=STEP)
        netlist = [line for line in netlist if not line.startswith(("gread", ".tran"))]
        netlist[-1:] = [f".tran {STEP!r} {end!r} 0 {STEP!r}"]
        before = processor_time()
        with NgspiceEngine(timeout=300.0) as engine:
            clock = perf_counter()
            found = engine.run("\n".join(netlist), ["time"])
            clock = perf_counter() - clock
        return processor_time() - before, clock, len(found["time"])

    rows: dict[str, dict[str, float]] = {}
    for name, way in (("co-simulated", own), ("plain", plain)):
        long, short = way(until), way(2 * STEP)
        rows[name] = {
            "per point": (long[0] - short[0]) / (long[2] - short[2]),
            "seconds": long[1],
            "points": long[2],
        }
    return rows


CASES = [("few", 1, 1), ("many sources", 64, 1), ("many watched", 1, 64), ("many of both", 64, 64)]


def study(smoke: bool) -> dict[str, Any]:
    """Every circuit with few and many sources and watched nodes; then more and more events."""
    sides = {"grid": 33, "crossbar": 64, "transistors": 33}
    length = 100 if smoke else 400
    cases: list[dict[str, Any]] = []
    for kind, side in list(sides.items())[: 1 if smoke else None]:
        side = 12 if smoke else side
        points = length // 4 if kind == "crossbar" else length
        for name, sources, watched in CASES[:: 3 if smoke else 1]:
            sources = min(sources, side) if kind != "grid" else sources
            rows = measured(kind, side, sources, min(watched, side**2), 4, points * STEP)
            ratio = rows["co-simulated"]["per point"] / rows["plain"]["per point"]
            cases.append({"circuit": kind, "side": side, "case": name, "sources": sources,
                          "watched": watched, "ratio": ratio, **rows})  # fmt: skip
            print(
                f"{kind} {side}: {name}, {sources} sources, {watched} watched: "
                f"{1e6 * rows['plain']['per point']:.0f} µs a point plain, "
                f"{1e6 * rows['co-simulated']['per point']:.0f} co-simulated: {ratio:.2f}",
                flush=True,
            )
    rates = []
    for events in (0, 10) if smoke else (0, 4, 16, 64, 128):
        own = measured("grid", 12 if smoke else 33, 1, 1, events, length * STEP)["co-simulated"]
        rates.append({"events": events, "per second": events / (length * STEP), **own})
        extra = (own["points"] - rates[0]["points"]) / max(events, 1)
        print(f"{events} events: {own['points']} points, {extra:.1f} more an event, "
              f"{own['seconds']:.2f} s", flush=True)  # fmt: skip
    return {"cases": cases, "rates": rates}


def draw(result: dict[str, Any], path: Path) -> None:
    """Time per point over plain ngspice's, and total time against the rate of events."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    names = [f"{case['circuit']}\n{case['case']}" for case in result["cases"]]
    left.barh(names, [case["ratio"] for case in result["cases"]])
    left.axvline(1.2, color="k", lw=0.8)
    left.set_xlabel("time per point / plain ngspice")
    left.tick_params(axis="y", labelsize=7)
    right.plot(
        [r["per second"] for r in result["rates"]], [r["seconds"] for r in result["rates"]], "o-"
    )
    right.set_xlabel("events per simulated second")
    right.set_ylabel("total time [s]")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write ``overhead.json`` and ``overhead.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="small circuits, in seconds")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go")
    options = parser.parse_args(argv)
    result = study(options.smoke)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "overhead.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, options.out / "overhead.png")
    return result


if __name__ == "__main__":
    main()
