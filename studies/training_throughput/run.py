"""Training throughput of analog layers beside aihwkit, aihwkit-lightning and plain torch.

See README.md for claim, controls and result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHILD = Path(__file__).with_name("step.py")
PEERS = ("aihwkit", "lightning")


@dataclass(frozen=True)
class Contender:
    """Who trains, and with what: ``step.py``'s own arguments."""

    label: str
    name: str
    weights: bool = False
    wires: str = "none"
    steps: int | None = None  # per round, None for the study's
    rounds: int | None = None


def contenders(peers: bool, exact: bool) -> list[Contender]:
    result = [Contender("digital", "digital")]
    for weights in (False, True):
        suffix = ", weight noise" if weights else ""
        names = ("spicenn", *PEERS) if peers else ("spicenn",)
        result += [Contender(name + suffix, name, weights) for name in names]
    result.append(Contender("spicenn, IR drop: ladder", "spicenn", wires="ladder"))
    if exact:
        # From the first weights on, so that every look at the exact solution counts.
        whole = Contender(
            "spicenn, IR drop: ladder, 900 steps", "spicenn", wires="ladder", steps=900, rounds=1
        )
        result.append(whole)
        last = Contender("spicenn, IR drop: exact", "spicenn", wires="exact", steps=1, rounds=3)
        result.append(last)
    return result


class Child:
    """A contender in a process of its own; stands still between rounds."""

    def __init__(self, who: Contender, python: str, sizes: list[int], steps: int) -> None:
        command = [
            python, str(CHILD), who.name, "--wires", who.wires,
            "--steps", str(who.steps or steps), "--sizes", *map(str, sizes),
        ]  # fmt: skip
        if who.weights:
            command.append("--weights")
        one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | one,
        )  # fmt: skip
        self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):  # a peer prints at import
                told: dict[str, Any] = json.loads(line)
                return told
        raise SystemExit(f"{self.process.args!r} ended with {self.process.wait()}")

    def round(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(
    who: list[Contender], peers: str | None, sizes: list[int], steps: int, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Rounds of every contender, taking turns."""
    children = {
        each.label: Child(
            each, (peers or "") if each.name in PEERS else sys.executable, sizes, steps
        )
        for each in who
    }
    result: dict[str, list[dict[str, Any]]] = {each.label: [] for each in who}
    for k in range(rounds):
        for each in who:
            if each.rounds is None or k < each.rounds:
                result[each.label].append(children[each.label].round())
    for child in children.values():
        child.close()
    return result


def quartiles(values: Any) -> list[float]:
    return [float(v) for v in np.percentile(values, [50, 25, 75])]


def summary(measured: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Milliseconds per step, and ratios round by round: median, lower and upper quartile."""
    cpu = {k: np.array([r["cpu"] for r in v]) * 1e3 for k, v in measured.items()}

    def ratio(a: str, b: str) -> list[float]:
        n = min(len(cpu[a]), len(cpu[b]))
        return quartiles(cpu[a][:n] / cpu[b][:n])

    return {
        "ms": {k: quartiles(v) for k, v in cpu.items()},
        "clock_ms": {k: quartiles([r["clock"] * 1e3 for r in v]) for k, v in measured.items()},
        "over_digital": {k: ratio(k, "digital") for k in cpu if k != "digital"},
        "over_spicenn": {
            k: ratio(k, "spicenn" + k.partition(",")[1] + k.partition(",")[2])
            for k in cpu
            if k.startswith(PEERS)
        },
    }


def draw(result: dict[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    over = result["over_digital"]
    labels = list(over)[::-1]
    median, low, high = np.array([over[k] for k in labels]).T
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(labels) + 1.2), layout="constrained")
    colours = ["C0" if k.startswith("spicenn") else "C7" for k in labels]
    axes.barh(labels, median, xerr=[median - low, high - median], color=colours, capsize=3)
    for k, value in enumerate(median):
        axes.text(high[k] * 1.1, k, f"{value:.3g}", va="center")
    axes.set_xscale("log")
    axes.set_xlim(1, 4 * high.max())
    axes.set_xlabel("time of a training step, over plain digital training")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, without peers")
    parser.add_argument("--peers", help="interpreter of an environment with the peers")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=30, help="per round")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    given = parser.parse_args()
    sizes, rounds, steps = [784, 128, 10], given.rounds, given.steps
    if given.smoke:
        sizes, rounds, steps = [20, 8, 4], 2, 2
    elif given.peers is None:
        print("without --peers: aihwkit and aihwkit-lightning are left out")
    who = contenders(given.peers is not None, exact=not given.smoke)
    found = summary(measure(who, given.peers, sizes, steps, rounds))
    for each in who:
        ms, over = found["ms"][each.label], found["over_digital"].get(each.label, [1.0] * 3)
        print(
            f"{each.label:36} {ms[0]:9.3f} ms ({ms[1]:.3f} to {ms[2]:.3f})"
            f"   {over[0]:8.2f} x digital ({over[1]:.2f} to {over[2]:.2f})"
        )
    for label, (median, low, high) in found["over_spicenn"].items():
        print(f"{label:36} {median:.2f} x spicenn's ({low:.2f} to {high:.2f})")
    if given.out is not None:
        given.out.mkdir(parents=True, exist_ok=True)
        settings = {"sizes": sizes, "rounds": rounds, "steps": steps, "batch": 64}
        told = {"settings": settings, "contenders": [asdict(each) for each in who], **found}
        (given.out / "result.json").write_text(json.dumps(told, indent=1) + "\n")
        draw(found, given.out / "result.png")


if __name__ == "__main__":
    main()
