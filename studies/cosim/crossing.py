"""Crossing times of an integrate-and-fire neuron in co-simulation, against their closed form."""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import NullFormatter

import spicenn as sn
from spicenn.circuit.tolerances import Tolerances

# A membrane of 1 µs, charged to 1 V through a resistor; on 0.7 V a process closes a
# conductance of 50 times the resistor's across it, and opens it again.
TAU, THRESHOLD, GAIN, WIDTH, RISE = 1e-6, 0.7, 50.0, 0.1e-6, 1e-9
NEURON = f"""integrate and fire
vin in 0 dc 0 external
vrst rst 0 dc 0 external
rm in mem 1meg
cm mem 0 1p
brst mem 0 i = {GAIN!r}*1e-6*v(rst)*v(mem)
"""
RELTOL = 1e-5


def flow(
    v: float, duration: float, source: tuple[float, float], reset: tuple[float, float]
) -> float:
    """The membrane after a time in which source and reset go straight from one value to another.

    τ dv/dt = u(t) - (1 + k r(t)) v is linear: variation of constants, its integral by
    Gauss and Legendre with 60 points on a piece on which the exponent is a quadratic.
    """
    if duration == 0:
        return v
    pieces = max(1, math.ceil(duration * (1 + GAIN) / TAU))
    if pieces > 1:
        for k in range(pieces):
            ends = [
                (a + (b - a) * k / pieces, a + (b - a) * (k + 1) / pieces)
                for a, b in (source, reset)
            ]
            v = flow(v, duration / pieces, ends[0], ends[1])
        return v
    x, w = np.polynomial.legendre.leggauss(60)
    t = 0.5 * duration * (x + 1)

    def exponent(t: Any) -> Any:
        slope = (reset[1] - reset[0]) / duration
        return ((1 + GAIN * reset[0]) * t + GAIN * slope * t * t / 2) / TAU

    u = source[0] + (source[1] - source[0]) * t / duration
    inner = np.exp(exponent(t) - exponent(duration))
    return float(v * np.exp(-exponent(duration)) + 0.5 * duration * np.dot(w, inner * u) / TAU)


def charged(v: float) -> float:
    """Time from a voltage to the threshold, the source at 1 V and no reset."""
    return TAU * math.log((1 - v) / (1 - THRESHOLD))


def closed_form() -> tuple[float, float]:
    """Time of the first crossing, and the period from then on [s]."""
    first = RISE + charged(flow(0.0, RISE, (0.0, 1.0), (0.0, 0.0)))
    v = flow(THRESHOLD, RISE, (1.0, 1.0), (0.0, 1.0))
    v = flow(v, WIDTH - RISE, (1.0, 1.0), (1.0, 1.0))
    v = flow(v, RISE, (1.0, 1.0), (1.0, 0.0))
    return first, WIDTH + RISE + charged(v)


FIRST, PERIOD = closed_form()


def cosimulated(
    periods: int,
    method: str = "trap",
    *,
    steps: float = 100.0,
    tolerance: float | None = None,
    reltol: float = RELTOL,
) -> tuple[np.ndarray, dict[str, float]]:
    """Crossing times [s] and what they cost; ``steps`` is the least number per period."""

    def neuron(env: sn.Cosimulation) -> Any:
        env.drive("vin", 1.0)
        for _ in range(periods + 1):
            t = yield env.crossing("mem", above=THRESHOLD)
            env.emit("spike", t)
            env.drive("vrst", 1.0)
            yield env.timeout(WIDTH)
            env.drive("vrst", 0.0)

    start = perf_counter()
    with sn.Cosimulation(
        NEURON,
        probes=["mem"],
        max_step=PERIOD / steps,
        tolerance=tolerance,
        rise=RISE,
        method=method,  # type: ignore[arg-type]
        tolerances=Tolerances(reltol=reltol, vntol=1e-3 * reltol, abstol=1e-8 * reltol),
    ) as env:
        env.process(neuron(env))
        ds = env.run(until=FIRST + (periods + 0.5) * PERIOD)
        block = env.blocks[""]
        times = ds.event_value.values[ds.event_name.values == "spike"]
        points, rejected = block.steps, block.rejected  # type: ignore[attr-defined]
    cost = {
        "points per period": points / (periods + 1),
        "tries per period": rejected / (periods + 1),
        "seconds": perf_counter() - start,
    }
    return times, cost


def errors(times: np.ndarray) -> dict[str, float]:
    """Of consecutive periods, of the first crossing and of the last one, over the period."""
    wrong = (np.diff(times) - PERIOD) / PERIOD
    return {
        "periods": len(wrong),
        "mean": float(wrong.mean()),
        "spread": float(wrong.std()),
        "largest": float(np.abs(wrong).max()),
        "first": float((times[0] - FIRST) / PERIOD),
        "last": float((times[-1] - FIRST - len(wrong) * PERIOD) / PERIOD),
    }


def naive(periods: int, method: str, steps: float) -> np.ndarray:
    """Crossing times without any of it, in a process of its own.

    A crossing is the first accepted point behind it, a drive is a jump that ngspice is not
    told of.
    """
    words = [sys.executable, "-W", "ignore", __file__, "--naive", method, str(steps), str(periods)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True, cwd=root,
                          env={**os.environ, "PYTHONPATH": str(root)})  # fmt: skip
    return np.array(json.loads(done.stdout.splitlines()[-1]))


def _naive(method: str, steps: float, periods: int) -> None:
    from spicenn.circuit.stepped import stepped
    from spicenn.engines.ngspice.session import Session

    circuit = stepped(NEURON, ["mem"])
    spikes: list[float] = []
    levels = {b"vin": 1.0, b"vrst": 0.0}
    state = {"below": True, "release": math.inf}
    session = Session()
    readers: list[Any] = []

    def on_step(
        time: float, _delta: Any, _old: float, _redo: int, _: int, place: int, __: Any
    ) -> int:
        if place == 0 and time > 0:
            if not readers:
                readers.extend(session.live_readers([circuit.reader("mem").encode()]))
            value = session.live(readers)[0]
            if value < THRESHOLD:
                state["below"] = True
            elif state["below"]:
                state["below"] = False
                spikes.append(time)
                levels[b"vrst"], state["release"] = 1.0, time + WIDTH
                if len(spikes) > periods:
                    print(json.dumps(spikes), flush=True)
                    os._exit(0)
            if time >= state["release"]:
                levels[b"vrst"], state["release"] = 0.0, math.inf
        return 0

    session.step_with(on_step, lambda name, time: levels[name] if time > 0 else 0.0)
    tolerances = Tolerances(reltol=RELTOL, vntol=1e-3 * RELTOL, abstol=1e-8 * RELTOL)
    session.load(circuit.netlist(max_step=PERIOD / steps, method=method, tolerances=tolerances))  # type: ignore[arg-type]
    session.execute(b"set no_mem_check")
    session.execute(b"run")
    raise SystemExit(session.text())


def measured(smoke: bool) -> dict[str, Any]:
    """Everything that is shown: by method, the periods, their controls, and what converges."""
    periods, few = (12, 4) if smoke else (1000, 25)
    result: dict[str, Any] = {"period": PERIOD, "first": FIRST, "reltol": RELTOL}
    for method in ("trap", "gear"):
        times, cost = cosimulated(periods, method)
        late, _ = cosimulated(periods, method, tolerance=1.0)
        plain = {steps: naive(periods, method, steps) for steps in (100, 400)}
        reltols = (1e-4, 1e-6) if smoke else (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
        counts = (50, 200) if smoke else (25, 50, 100, 200, 400, 800)
        parts = (1e-1, 1e-3) if smoke else (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
        result[method] = {
            "errors": errors(times),
            "cost": cost,
            "each": ((np.diff(times) - PERIOD) / PERIOD).tolist(),
            "not located": errors(late),
            "not located, each": ((np.diff(late) - PERIOD) / PERIOD).tolist(),
            **{f"naive, T/{n}": errors(times) for n, times in plain.items()},
            "naive, each": ((np.diff(plain[100]) - PERIOD) / PERIOD).tolist(),
            "by reltol": [
                {"reltol": r, **errors(t), **c}
                for r in reltols
                for t, c in [cosimulated(few, method, reltol=r)]
            ],
            "by step": [
                {"steps": n, **errors(t), **c}
                for n in counts
                for t, c in [cosimulated(few, method, steps=n, reltol=1e-8)]
            ],
            "by tolerance": [
                {"tolerance": p * PERIOD / 100, **errors(t), **c}
                for p in parts
                for t, c in [cosimulated(few, method, tolerance=p * PERIOD / 100)]
            ],
        }
    return result


def draw(result: dict[str, Any], path: Path) -> None:
    """Errors of every period, and the mean error against each tolerance."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for method, colour in (("trap", "C0"), ("gear", "C1")):
        of = result[method]
        for key, style, alpha in (
            ("each", "-", 1.0), ("not located, each", "--", 0.7), ("naive, each", ":", 0.7)
        ):  # fmt: skip
            label = {"each": method, "not located, each": f"{method}, not located"}.get(
                key, f"{method}, jumps"
            )
            axes[0, 0].plot(np.abs(of[key]), style, color=colour, alpha=alpha, label=label, lw=1)
        for axis, key, x in (
            (axes[0, 1], "by reltol", "reltol"),
            (axes[1, 0], "by step", "steps"),
            (axes[1, 1], "by tolerance", "tolerance"),
        ):
            points = [row[x] for row in of[key]]
            points = [1 / p for p in points] if x == "steps" else points
            points = [p / result["period"] for p in points] if x == "tolerance" else points
            axis.plot(points, [abs(row["mean"]) for row in of[key]], "o-", color=colour,
                      label=f"{method}: mean")  # fmt: skip
            axis.plot(points, [row["spread"] for row in of[key]], "x:", color=colour,
                      label=f"{method}: spread")  # fmt: skip
    titles = ("1,000 consecutive periods" if len(result["trap"]["each"]) > 500 else "periods",
              "reltol, largest step T/100", "largest step / T, reltol 1e-8",
              "tolerance of a crossing / T, largest step T/100")  # fmt: skip
    for axis, title in zip(axes.flat, titles, strict=True):
        axis.set_yscale("log")
        axis.axhline(1e-4, color="k", lw=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("|error of a period| / T")
        axis.legend(fontsize=7)
        if axis is not axes[0, 0]:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print, and write ``crossing.json`` and ``crossing.png``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="few periods, in seconds")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go")
    parser.add_argument("--naive", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.naive:
        method, steps, periods = options.naive
        _naive(method, float(steps), int(periods))
    result = measured(options.smoke)
    for method in ("trap", "gear"):
        for key in ("errors", "not located", "naive, T/100", "naive, T/400"):
            e = result[method][key]
            print(
                f"{method} {key:13s} {e['periods']} periods: mean {e['mean']:+.1e}, "
                f"spread {e['spread']:.1e}, largest {e['largest']:.1e}, first {e['first']:+.1e}"
            )
        print(method, {key: round(value, 1) for key, value in result[method]["cost"].items()})
        for key, x in (
            ("by reltol", "reltol"),
            ("by step", "steps"),
            ("by tolerance", "tolerance"),
        ):
            for row in result[method][key]:
                print(
                    f"  {x} {row[x]:.3g}: mean {row['mean']:+.1e}, spread {row['spread']:.1e}, "
                    f"first {row['first']:+.1e}, {row['points per period']:.0f} points"
                )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "crossing.json").write_text(json.dumps(result, indent=1) + "\n")
        draw(result, options.out / "crossing.png")
    return result


if __name__ == "__main__":
    main()
