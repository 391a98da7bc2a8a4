"""Tables and picture of this study's record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.report.learning import Points, scaling_panel
from spicenn.report.style import (
    FAINT,
    INK,
    MINUS,
    MUTED,
    PALE,
    PLUS,
    drawing,
    grid,
    new_figure,
    save,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

Array = NDArray[np.float64]
Record = Mapping[str, Any]

ARMS = {
    "standard, no bias": (MUTED, "dashed"), "overclamped, no bias": (PALE, "dashed"),
    "standard": (MINUS, "solid"), "overclamped": (PLUS, "solid"),
}  # fmt: skip
SITUATIONS = {
    "then": "A learnt, then B alone",
    "learnt": "both learnt, then B alone",
    "idle": "both solved exactly, then B alone",
}


def tables(result: Record) -> str:
    """All tables of README.md."""
    return "\n\n".join(
        [_arms(result["floors"]), _sweeps(result["floors"], {**result["ends"], **result["noise"]}),
         _bias(result["ends"]), _chips(result["chips"]), _memory(result["memory"])]
    )  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _floor(row: Record) -> str:
    if "floor" not in row:
        return f"failed: {row['failed'][:60]}"
    spread = f" ({row['low']:.1e} to {row['high']:.1e})" if "low" in row else ""
    return f"{row['floor']:.2e}{spread}"


def _arms(floors: Record) -> str:
    rows = []
    for name, row in floors["arms"].items():
        period = row.get("period", floors["arms"]["standard"]["period"])
        tight = floors["tight"].get(name)
        rows.append([
            name, f"{period * 1e3:g}", _floor(row), f"{row['at half'] / row['floor']:.3f}",
            f"{row['moved in the last pass']:.1e}", f"{row['time']:.2f}",
            f"{row['effective time']:.3g}", str(row["aborts"]),
            "" if tight is None else _floor(tight),
        ])  # fmt: skip
    return _table(
        ["arm", "τ [ms]", "floor [V²]", "error at half of the time / floor",
         "moved in last pass [V]", "time [s]", "effective time [s]", "steps given up",
         "floor, tight tolerances [V²]"], rows,
    )  # fmt: skip


def _sweeps(floors: Record, ends: Record) -> str:
    rows = [
        [f"comparator's smoothing {row['smoothing']:g} V", "", _floor(row)]
        for row in floors["smoothing"]
    ]
    rows += [
        [f"τ = {row['period'] * 1e3:g} ms", _floor(row["standard"]), _floor(row["overclamped"])]
        for row in floors["periods"]
    ]
    units = {"offset": "V", "leakage": "S", "update noise": "V²/√Hz", "output noise": "V/√Hz"}
    for name, unit in units.items():
        rows += [
            [f"{name} {row['value']:g} {unit}", _floor(row["standard"]), _floor(row["overclamped"])]
            for row in ends[name]
        ]
    return _table(["setting", "standard [V²]", "overclamped [V²]"], rows)


def _bias(ends: Record) -> str:
    rows = []
    for row in ends["bias"]:
        over = row["overclamped"]
        rows.append([
            f"{row['multiple']:g}", _floor(row["standard"]), _floor(over),
            f"{over['floor'] / over['at half']:.3g}" if "floor" in over else "",
            f"{over['effective time']:.3g}" if "floor" in over else "",
        ])  # fmt: skip
    first = _table(
        ["bias ×", "standard [V²]", "overclamped [V²]", "overclamped: end / half of the time",
         "effective time [s]"], rows,
    )  # fmt: skip
    found = ends["breakdown"]
    second = _table(
        ["bias ×", "growth of a 1 mV error in the circuit [1/s]", "theory [1/s]"],
        [[f"{r['multiple']:g}", f"{r['rate']:.3f}", f"{r['theory']:.3f}"] for r in found["runs"]],
    )
    return (
        f"{first}\n\nBreaks between ×{found['withstands']:g} and ×{found['breaks']:g}; "
        f"theory: ×{found['theory']:.3f}.\n\n{second}"
    )


def _chips(chips: Record) -> str:
    rows = []
    for name, part in _populations(chips).items():
        found = part["compared"]
        share, ratio = found["share"], found["ratio"]
        geometric = {
            arm: np.exp(np.mean(np.log([r[arm]["floor"] for r in part["rows"]])))
            for arm in ("standard", "overclamped")
        }
        offset = [
            r["overclamped"]["floor"] / r["offset squared"] for r in part["rows"]
            if r["offset squared"] > 0
        ]  # fmt: skip
        rows.append([
            name, str(found["chips"]), str(found["failed"]),
            f"{found['lower']}/{found['chips']} = {share[0]:.2f} ({share[1]:.2f}–{share[2]:.2f})",
            f"{ratio[0]:.2e} ({ratio[1]:.1e}–{ratio[2]:.1e})", f"{found['largest ratio']:.2g}",
            f"{geometric['standard']:.2e}", f"{geometric['overclamped']:.2e}",
            f"{np.median(offset):.3f} ({min(offset):.2f}–{max(offset):.2f})" if offset else "",
        ])  # fmt: skip
    return _table(
        ["sampled chips", "n", "failed", "overclamped is lower", "overclamped / standard",
         "largest", "standard [V²]", "overclamped [V²]",
         "overclamped / offset², median (range)"], rows,
    )  # fmt: skip


def _populations(chips: Record) -> Record:
    return {name: part for name, part in chips.items() if name != "seconds"}


def _interval(found: Sequence[float] | None) -> str:
    return "never" if found is None else f"{found[0]:.2g} ({found[1]:.2g} to {found[2]:.2g})"


def _memory(memory: Record) -> str:
    count = len(memory["rows"])
    rows = [
        [
            name, _interval(row["at once"]),
            f"{_interval(row['forgotten when B was learnt'])}, {row['B was learnt']} of {count}",
            *(
                f"{_interval(row['forgotten'][kind])}"
                + ("" if name == "standard" else f"; {row['less than standard'][kind]}/{count}")
                for kind in SITUATIONS
            ),
            *(_interval(row["moved"][kind]) for kind in ("then", "idle")),
            _interval(row["effective time"]["then"]), str(row["aborts"]),
        ]
        for name, row in memory["table"].items()
    ]  # fmt: skip
    head = [
        "arm", "error of both at once [V²]", "of A forgotten when B was learnt",
        *(f"forgotten at the end: {text}" for text in SITUATIONS.values()),
        "moved, A then B [V]", "moved, exact [V]", "effective time, A then B [s]", "steps given up",
    ]  # fmt: skip
    return _table(head, rows)


def draw(result: Record, path: Path) -> None:
    """Write six panels of floors, and three of what is forgotten."""
    floors, ends = result["floors"], result["ends"]
    with drawing():
        figure = new_figure(11.5, 9.4)
        axes = figure.subplots(3, 3)
        _halves(axes[0, 0], floors["arms"])
        _breaks(axes[0, 1], ends)
        _rates(axes[0, 2], ends["breakdown"])
        smooth = floors["smoothing"]
        scaling_panel(
            axes[1, 0],
            [Points(x=np.array([r["smoothing"] for r in smooth]),
                    y=np.array([r["floor"] for r in smooth]), label="overclamped",
                    fit=len(smooth) > 1)],
            names=("comparator's smoothing [V]", "floor [V²]"), title="Sharpness of the comparator",
        )  # fmt: skip
        leak = ends["leakage"]
        scaling_panel(
            axes[1, 1],
            [_points(leak, "standard", fit=False), _points(leak, "overclamped")][::-1],
            names=("leakage [S]", "floor [V²]"),
            title="Leakage is not switched off",
        )
        _chip_panel(axes[1, 2], result["chips"])
        for axis, (kind, text) in zip(axes[2], SITUATIONS.items(), strict=True):
            _forgotten(axis, result["memory"]["rows"], kind, text)
        save(figure, path)


def _points(rows: Sequence[Record], arm: str, *, fit: bool = True) -> Points:
    good = [row for row in rows if "floor" in row[arm]]
    return Points(
        x=np.array([row["value"] for row in good]),
        y=np.array([row[arm]["floor"] for row in good]), label=arm, fit=fit and len(good) > 1,
    )  # fmt: skip


def _plain(*axes: Axis) -> None:
    """Label logarithmic axes with plain numbers: the style's text knows no mathematics."""
    for axis in axes:
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")


def _halves(axes: Axes, arms: Record) -> None:
    names = list(arms)[::-1]
    colours = [PLUS if "overclamped" in n else MINUS if "standard" in n else PALE for n in names]
    values = [arms[name]["floor"] for name in names]
    axes.barh(names, values, color=colours, height=0.6)
    for k, value in enumerate(values):
        axes.text(value * 1.3, k, f"{value:.1e}", va="center", color=INK, fontsize=7.5)
    axes.set(xscale="log", xlim=(1e-12, 3e-2), xlabel="floor [V²]")
    _plain(axes.xaxis)
    axes.set_title("Both halves are needed")
    grid(axes, "x")


def _breaks(axes: Axes, ends: Record) -> None:
    rows = [row for row in ends["bias"] if row["multiple"] > 0]
    at = [row["multiple"] for row in rows]
    for arm, colour in (("standard", MINUS), ("overclamped", PLUS)):
        axes.plot(at, [row[arm].get("floor", np.nan) for row in rows], "o-", color=colour,
                  markersize=4, linewidth=1.1, label=arm)  # fmt: skip
    axes.axvline(ends["breakdown"]["theory"], color=MUTED, linewidth=0.8, linestyle="dotted",
                 label=f"theory, ×{ends['breakdown']['theory']:.2f}")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="bias, times example 1's", ylabel="floor [V²]")
    axes.set_xticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
    axes.minorticks_off()
    _plain(axes.yaxis)
    axes.set_title("Too much bias")
    axes.legend()
    grid(axes, "both")


def _rates(axes: Axes, found: Record) -> None:
    runs = found["runs"]
    at = [row["multiple"] for row in runs]
    axes.axhline(0, color=FAINT, linewidth=1.0)
    axes.plot(at, [row["theory"] for row in runs], color=PALE, linewidth=4.5, label="theory")
    axes.plot(at, [row["rate"] for row in runs], "o", color=PLUS, markersize=4, label="circuit")
    axes.set(xlabel="bias, times example 1's", ylabel="growth of an error of 1 mV [1/s]")
    axes.set_title("When small errors grow")
    axes.legend()
    grid(axes, "both")


def _chip_panel(axes: Axes, chips: Record) -> None:
    for (name, part), mark in zip(_populations(chips).items(), ("o", "s"), strict=True):
        good = [r for r in part["rows"] if "floor" in r["standard"] and "floor" in r["overclamped"]]
        axes.plot(
            [r["standard"]["floor"] for r in good], [r["overclamped"]["floor"] for r in good],
            mark, color=PLUS, markersize=4, markerfacecolor=PLUS if mark == "o" else "none",
            label=name,
        )  # fmt: skip
    low, high = 1e-10, 1e-2
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle="dotted",
              label="equal")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="standard [V²]", ylabel="overclamped [V²]")
    _plain(axes.xaxis, axes.yaxis)
    axes.set_title("Floors of sampled chips")
    axes.legend()
    grid(axes, "both")


def _forgotten(axes: Axes, rows: Sequence[Record], kind: str, text: str) -> None:
    for name, (colour, style) in ARMS.items():
        time = np.array(rows[0][name][kind]["time"])
        found = np.array([row[name][kind]["forgotten"] for row in rows])
        for each in found:
            axes.plot(time, each, color=colour, linestyle=style, linewidth=0.5, alpha=0.35)
        axes.plot(time, np.median(found, axis=0), color=colour, linestyle=style, linewidth=1.8,
                  label=name)  # fmt: skip
    axes.axhline(1, color=MUTED, linewidth=0.8, linestyle="dotted")
    axes.set(xlabel="time since A is not shown [s]", ylabel="of A forgotten (1: as untrained)")
    # Small numbers of either sign and large ones: linear about 0.
    axes.set_yscale("symlog", linthresh=1e-3, linscale=0.4)
    axes.set_yticks([0, 1e-3, 1e-2, 1e-1, 1, 10])
    axes.set_ylim(-0.02, 30)
    _plain(axes.yaxis)
    axes.set_title(text[0].upper() + text[1:])
    if kind == "idle":
        axes.legend(loc="lower right")
    grid(axes)
