"""What an inference costs beside how right it is: array size, cells, converters, amplifiers.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.compiler.analog import analog_chip, first_voltages
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.datasets import Images, load_digits
from spicenn.engines.analog import COMPONENTS, transient
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import SpicennError, Status
from spicenn.technology import Periphery

Array = NDArray[np.float64]
SEED = 2024
CHIPS_AT_ONCE = 5

# Walden's figure of merit, energy = FOM 2^bits (IEEE JSAC 17, 539 (1999)), and the time of a
# bit, both of a successive approximation ADC of 10 bits at 50 MS/s in 0.13 µm CMOS: 29 fJ per
# step, 20 ns a conversion (Liu, Chang, Huang, Lin, IEEE JSSC 45, 731 (2010)). The figure is per
# effective step; a nominal bit is taken as one.
WALDEN = 29e-15
BIT_TIME = 2e-9
# Supply current of an amplifier over its bandwidth: preset hfox-1t1r's 20 µA at 100 MHz, an
# order of magnitude. At constant gm / I_D and load, gm = 2π GBW C and so the current grows with
# the bandwidth: Silveira, Flandre, Jespers, IEEE JSSC 31, 1314 (1996).
CURRENT_PER_HERTZ = 20e-6 / 100e6


@dataclass(frozen=True)
class Point:
    """One choice; ``name`` says what differs from the base.

    g_min is g_max over ``ratio``.
    """

    name: str = "base"
    axis: str = "base"
    tile: int = 64
    g_max: float = 40e-6
    ratio: float = 40.0
    bandwidth: float | None = 100e6


@dataclass(frozen=True, eq=False)
class Bench:
    """What all points share.

    samples, energy_chips : whose transients are followed; accuracy has all images and
        ``chips``.
    """

    model: nn.Module
    images: Images
    chips: int
    samples: int
    energy_chips: int
    workers: int | None
    store: Path | None
    compiled: dict[int, sn.Design] = field(default_factory=dict)
    scored: dict[tuple[Any, ...], Array] = field(default_factory=dict)

    def design(self, point: Point, bits: int) -> sn.Design:
        """The network at a point, with converters of so many bits."""
        if point.tile not in self.compiled:
            self.compiled[point.tile] = sn.compile(
                self.model,
                torch.as_tensor(self.images.train[:4]),
                technology=technology(Point()),
                tile=sn.Tile(wordlines=point.tile, bitlines=point.tile),
                # A bias row of its own would be a 65th wordline, alone on a second tile.
                mapping=sn.Mapping(input_bits=8, adc_bits=8, bias="digital"),
                calibration=torch.as_tensor(self.images.train[:600]),
            )
        compiled = self.compiled[point.tile]
        made = technology(point).replace(
            {"periphery.adc.energy": adc_energy(bits), "periphery.adc.time": bits * BIT_TIME}
        )
        # Bits and conductances change no scale that calibration has set.
        mapping = replace(compiled.mapping, adc_bits=bits)
        return replace(compiled, mapping=mapping, technology=made)


def adc_energy(bits: int) -> float:
    """Declared energy of one conversion [J]."""
    return float(WALDEN * 2**bits)


def technology(point: Point) -> sn.Technology:
    """Ohmic cells of rram-1r between the wires, capacitances and periphery of hfox-1t1r."""
    other = sn.Technology.preset("hfox-1t1r")
    return sn.Technology.preset("rram-1r").replace(
        {
            "name": "rram-1r with the periphery of hfox-1t1r",
            "g_max": point.g_max,
            "g_min": point.g_max / point.ratio,
            "r_wordline": other.r_wordline,
            "r_bitline": other.r_bitline,
            "c_wordline": other.c_wordline,
            "c_bitline": other.c_bitline,
            "c_cell": other.c_cell,
            "periphery": other.periphery,
            "periphery.tia.bandwidth": point.bandwidth,
            "periphery.tia.bias_current": CURRENT_PER_HERTZ * (point.bandwidth or 0.0),
        }
    )


def network(images: Images, epochs: int, hidden: int) -> nn.Module:
    """Train the MLP 64-hidden-10 on digits."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    x, y = torch.as_tensor(images.train), torch.as_tensor(images.train_labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.eval()


def accuracies(bench: Bench, point: Point, bits: int) -> Array:
    """Share of right images of every chip (chip,), one noisy read of settled outputs each."""
    # What has settled does not depend on how fast it did.
    key = (point.tile, point.g_max, point.ratio, bits)
    if key not in bench.scored:
        bench.scored[key] = _accuracies(bench, bench.design(point, bits))
    return bench.scored[key]


def _accuracies(bench: Bench, design: sn.Design) -> Array:
    inputs, found = as_inputs(design, bench.images.test), []
    for start in range(0, bench.chips, CHIPS_AT_ONCE):
        chips = range(start, min(start + CHIPS_AT_ONCE, bench.chips))
        result = run_chips(design, chips, SEED, inputs, NodalEngine())
        if (result.status != Status.OK).any():
            raise SpicennError(f"a chip failed: {' '.join(result.message)}")
        (output,) = result.output.values()
        found += list((output[:, 0].argmax(axis=-1) == bench.images.test_labels).mean(axis=-1))
    return np.array(found)


def spread(values: Array) -> list[float]:
    """Mean over chips and its standard error; values (chip,)."""
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
    return [float(values.mean()), error]


def measured(bench: Bench, point: Point, bits: list[int]) -> list[dict[str, Any]]:
    """A point's rows, one per resolution of its ADCs.

    Transients are followed at 8 bits. Another resolution changes the declared cost of its
    conversions, which are counted, and a second layer's voltages by less than its own step.
    """
    base = bench.design(point, 8)
    store = None if bench.store is None else bench.store / f"{point.name.replace(' ', '_')}.zarr"
    ds = sn.measure_energy(
        base, bench.images.test[: bench.samples], chips=bench.energy_chips, seed=SEED,
        store=store, workers=bench.workers, timeout=300.0,
    )  # fmt: skip
    if (ds.status != Status.OK).any():
        raise SpicennError(f"a chip failed: {' '.join(map(str, ds.message.values))}")
    adc = ds.energy.sel(component="adc", drop=True)
    without = ds.energy.sum("component") - adc
    rows = []
    for count in bits:
        design = bench.design(point, count)
        conversions = adc * (adc_energy(count) / adc_energy(8))
        energy = (without + conversions).sum("layer").mean("sample").values
        # Each layer converts once, at the same time in all of its ADCs.
        latency = ds.latency.sum("layer").mean("sample").values
        latency = latency + len(design.layers) * (count - 8) * BIT_TIME
        parts = ds.energy.sum("layer").mean(["chip", "sample"])
        components = {
            str(name): float(value)
            for name, value in zip(parts.component.values, parts.values, strict=True)
        }
        components["adc"] = float(conversions.sum("layer").mean())
        rows.append(
            {
                "name": point.name,
                "axis": point.axis,
                "tile": point.tile,
                "g_max": point.g_max,
                "g_min": point.g_max / point.ratio,
                "bandwidth": point.bandwidth,
                "bits": count,
                "accuracy": spread(accuracies(bench, point, count)),
                "energy": spread(energy),
                "without ADC": spread(without.sum("layer").mean("sample").values),
                "latency": spread(latency),
                "settling": spread(latency - len(design.layers) * (count * BIT_TIME + DAC_TIME)),
                "components": components,
            }
        )
        say = {key: rows[-1][key] for key in ("name", "bits", "accuracy", "energy", "latency")}
        print("  " + json.dumps(say), flush=True)
    return rows


DAC_TIME = sn.Technology.preset("hfox-1t1r").periphery.dac.time


def points(*, smoke: bool) -> list[Point]:
    """The base, and from it one choice changed at a time."""
    if smoke:
        return [Point(), Point("1000 MHz", "bandwidth", bandwidth=1e9)]
    return [
        Point(),
        *(Point(f"tile {n}", "tile", tile=n) for n in (8, 16, 32)),
        *(
            Point(f"g_max {1e6 * g:g} uS", "g", g_max=g)
            for g in (5e-6, 15e-6, 100e-6)
        ),
        Point("g_max over g_min 5", "g", ratio=5.0),
        *(
            Point(f"{1e-6 * b:g} MHz", "bandwidth", bandwidth=b)
            for b in (20e6, 500e6, 2e9)
        ),
    ]  # fmt: skip


def control(bench: Bench, point: Point) -> dict[str, Any]:
    """The same network where nothing takes time: no capacitance, no limit of bandwidth.

    Returns the latency over the step's own rise, and per component the energy over static
    power times latency, of the chip as one circuit. What follows its input at once takes
    that latency, and at most that energy: during a linear rise of a voltage a half or, of a
    square of it, a third of it.
    """
    tia = replace(bench.design(point, 8).technology.periphery.tia, bandwidth=None, c_in=0.0,
                  bias_current=20e-6)  # fmt: skip
    still = replace(Periphery(), tia=tia)
    off = {"c_wordline": 0.0, "c_bitline": 0.0, "c_cell": 0.0, "periphery": still}
    design = replace(bench.design(point, 8).with_technology(off), mapping=sn.Mapping(input_bits=8))
    rise = 1e-12
    with NgspiceEngine(timeout=300.0) as engine:
        chip = design.sample(0, SEED)
        v = first_voltages(chip, as_inputs(design, bench.images.test[:1]))[0]
        seen = transient(engine, analog_chip(chip).network, v, rise=rise)
    # A network without delays is watched for longer than its rise; energies end at latency.
    end = float(seen.latency.max())
    static = seen.power.sum(axis=0) * end
    return {
        "latency over rise": end / rise,
        "energy over static": {
            name: float(spent / full)
            for name, spent, full in zip(COMPONENTS, seen.energy.sum(axis=0), static, strict=True)
            if full > 0
        },
    }


def front(x: Array, y: Array) -> NDArray[np.bool_]:
    """Points that no other beats at lower x and higher y."""
    return np.array(
        [not np.any((x <= a) & (y >= b) & ((x < a) | (y > b))) for a, b in zip(x, y, strict=True)]
    )


def figure(rows: list[dict[str, Any]], ideal: float, path: Path | BytesIO) -> None:
    """Accuracy against energy and latency, and what the energy is made of."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    from spicenn.report.energy import COLOURS
    from spicenn.report.style import FAINT, INK, MINUS, PLUS, drawing, grid

    colours = {"base": INK, "tile": PLUS, "g": "#8a5fa8", "bandwidth": MINUS}
    names = list(dict.fromkeys(row["name"] for row in rows))
    title = {name: name.replace("uS", "µS").replace("tile", "tile of") for name in names}
    title["base"] = "base: tile of 64, 1 to 40 µS, 100 MHz"
    accuracy = np.array([100 * row["accuracy"][0] for row in rows])
    with drawing():
        picture = Figure(figsize=(12.5, 5.0), dpi=150, layout="constrained")
        left, middle, right = picture.subplots(1, 3, width_ratios=[1.2, 1.2, 1])
        for axes, key, unit, ticks in (
            (left, "energy", "nJ", (0.3, 0.5, 1, 2, 5, 10)),
            (middle, "latency", "ns", (50, 100, 200, 500)),
        ):
            x = np.array([1e9 * row[key][0] for row in rows])
            best = np.flatnonzero(front(x, accuracy))
            best = best[np.lexsort((accuracy[best], x[best]))]
            axes.step(x[best], accuracy[best], where="post", color=FAINT, linewidth=5, zorder=0)
            places = dict.fromkeys(colours, 0)
            for name in names:
                at = [i for i, row in enumerate(rows) if row["name"] == name]
                axis = rows[at[0]]["axis"]
                marker = "os^D"[places[axis]]
                places[axis] += 1
                axes.errorbar(
                    x[at], accuracy[at], xerr=[1e9 * rows[i][key][1] for i in at],
                    yerr=[100 * rows[i]["accuracy"][1] for i in at], fmt=marker + "-",
                    markersize=4, color=colours[axis], linewidth=0.7, elinewidth=0.7,
                    label=title[name] if axes is left else None,
                )  # fmt: skip
            if axes is left:
                base = at_bits(rows)
                free = [1e9 * rows[i]["without ADC"][0] for i in base]
                axes.plot(
                    free, accuracy[base], "o", markersize=4.5, markerfacecolor="none", color=INK,
                    label="base, ADCs for nothing", zorder=0,
                )  # fmt: skip
            axes.axhline(100 * ideal, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set_xlabel(f"{key} of an inference, {unit}")
            grid(axes, "both")
        left.set_title("Accuracy against energy, %; 4 to 10 bits")
        middle.set_title("Accuracy against latency, %")
        bars = [row for row in rows if row["bits"] == 8]
        foot = np.zeros(len(bars))
        for component, colour in COLOURS.items():
            size = np.array([1e9 * row["components"][component] for row in bars])
            if not size.any():
                continue
            right.barh(range(len(bars)), size, left=foot, color=colour, height=0.7, label=component)
            foot += size
        right.set_yticks(range(len(bars)), [title[row["name"]].split(":")[0] for row in bars])
        right.tick_params(axis="y", length=0, colors=INK)
        right.invert_yaxis()
        right.set_title("Energy at 8 bits, nJ")
        right.legend(loc="lower right", fontsize=7)
        grid(right, "x")
        picture.legend(
            *left.get_legend_handles_labels(), loc="outside lower left", ncols=6, fontsize=7.5
        )
        picture.savefig(path, format="png")


def at_bits(rows: list[dict[str, Any]]) -> list[int]:
    """Rows of the base, which carry the resolutions' names."""
    return [i for i, row in enumerate(rows) if row["axis"] == "base"]


def table(rows: list[dict[str, Any]]) -> str:
    """Rows of the README's table."""
    lines = [
        "| choice | ADC bits | accuracy % | energy pJ | no ADC pJ | latency ns | settling ns |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{scale * row[key][0]:.{digits}f} ± {scale * row[key][1]:.{digits}f}"
            for key, scale, digits in (
                ("accuracy", 100, 1), ("energy", 1e12, 0), ("without ADC", 1e12, 0),
                ("latency", 1e9, 1), ("settling", 1e9, 1),
            )
        ]  # fmt: skip
        lines.append(f"| {row['name']} | {row['bits']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def study(bench: Bench, chosen: list[Point], bits: list[int]) -> dict[str, Any]:
    """All rows and the control."""
    with torch.no_grad():
        scores = bench.model(torch.as_tensor(bench.images.test)).numpy()
    ideal = float((scores.argmax(axis=-1) == bench.images.test_labels).mean())
    print(f"accuracy of the network {ideal:.4f}", flush=True)
    checked = control(bench, chosen[0])
    print("control " + json.dumps(checked), flush=True)
    rows = [row for point in chosen for row in measured(bench, point, bits)]
    print(table(rows), flush=True)
    return {"ideal accuracy": ideal, "control": checked, "rows": rows}


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="two tiny points in seconds")
    parser.add_argument("--chips", type=int, default=10, help="for accuracy")
    parser.add_argument("--images", type=int, default=500, help="for accuracy")
    parser.add_argument("--energy-chips", type=int, default=3, help="whose transients are run")
    parser.add_argument("--samples", type=int, default=2, help="images whose transients are run")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 5, 6, 8, 10])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--store", type=Path, help="keep transients here, to go on after a stop")
    parser.add_argument("--out", type=Path, help="write result.json and result.png to this folder")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the study, print a table, write JSON and picture."""
    options = options_of()
    torch.set_num_threads(1)
    if options.smoke:
        options.chips, options.images, options.energy_chips, options.samples = 2, 20, 1, 1
        options.bits, options.epochs, options.hidden = [8], 1, 2
    images = load_digits()
    images = replace(
        images,
        test=images.test[: options.images],
        test_labels=images.test_labels[: options.images],
    )
    bench = Bench(
        network(images, options.epochs, options.hidden), images, options.chips, options.samples,
        options.energy_chips, options.workers, options.store,
    )  # fmt: skip
    found: Mapping[str, Any] = study(bench, points(smoke=options.smoke), options.bits)
    if options.smoke:  # whether it can be drawn
        figure(found["rows"], found["ideal accuracy"], BytesIO())
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
        (options.out / "result.json").write_text(text + "\n", encoding="utf-8")
        figure(found["rows"], found["ideal accuracy"], options.out / "result.png")


if __name__ == "__main__":
    main()
