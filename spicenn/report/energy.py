"""Energy and latency of a study's chips: numbers, a stacked picture, a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spicenn.errors import Status
from spicenn.report.numbers import Array
from spicenn.report.quantity import PREFIXES, prefix_of, quantity
from spicenn.report.style import INK, MINUS, MUTED, PALE, PLUS, grid, new_figure
from spicenn.study.energy_record import MODES, energy_of

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

    from spicenn.technology import Technology

# Layers that a picture draws one by one; the others are drawn together.
_LAYERS = 12
_REST = "others"

COLOURS = {
    "array": PLUS,
    "driver": PALE,
    "tia": MINUS,
    "neuron": "#e3a98f",
    "dac": "#8a949e",
    "adc": "#4a5560",
}
_NAMES = {
    "array": "array",
    "driver": "drivers",
    "tia": "amplifiers",
    "neuron": "neurons",
    "dac": "DACs, declared",
    "adc": "ADCs, declared",
}


@dataclass(frozen=True, eq=False)
class Costs:
    """What an inference costs: means over samples, then over the chips that ended well.

    chips, failed : how many were measured, and how many of them failed.
    energy, energy_spread : (layer, component) [J], mean and standard deviation over chips,
        NaN of fewer than two.
    layer_energy, layer_energy_spread : (layer,) [J], all components together.
    component_energy, component_energy_spread : (component,) [J], all layers together.
    total, total_spread : of an inference [J].
    latency, latency_spread : (layer,) [s].
    total_latency, total_latency_spread : of an inference [s].
    """

    mode: str
    layers: tuple[str, ...]
    components: tuple[str, ...]
    chips: int
    failed: int
    samples: int
    energy: Array
    energy_spread: Array
    layer_energy: Array
    layer_energy_spread: Array
    component_energy: Array
    component_energy_spread: Array
    total: float
    total_spread: float
    latency: Array
    latency_spread: Array
    total_latency: float
    total_latency_spread: float
    attributes: Mapping[str, Any]

    @property
    def present(self) -> tuple[int, ...]:
        """Components that take anything at all."""
        return tuple(k for k in range(len(self.components)) if np.any(self.energy[:, k] != 0))


def costs(ds: xr.Dataset) -> Costs:
    """Summarise what ``measure_energy`` returned."""
    good = np.asarray(ds["status"].values) == Status.OK
    energy = np.asarray(ds["energy"].values)[good].mean(axis=1)
    latency = np.asarray(ds["latency"].values)[good].mean(axis=1)
    total, total_spread = _over_chips(energy.sum(axis=(1, 2)))
    latest, latest_spread = _over_chips(latency.sum(axis=1))
    return Costs(
        str(ds.attrs["mode"]),
        tuple(str(name) for name in ds["layer"].values),
        tuple(str(name) for name in ds["component"].values),
        len(good),
        int(np.count_nonzero(~good)),
        int(ds.sizes["sample"]),
        *_over_chips(energy),
        *_over_chips(energy.sum(axis=2)),
        *_over_chips(energy.sum(axis=1)),
        float(total),
        float(total_spread),
        *_over_chips(latency),
        float(latest),
        float(latest_spread),
        dict(ds.attrs),
    )


def recorded(ds: xr.Dataset) -> tuple[Costs, ...]:
    """Costs of every kind of measurement in the store that a study's record came from.

    Raises StoreError for one that cannot be read.
    """
    source = ds.encoding.get("source")
    if source is None:
        return ()
    found = (energy_of(Path(source), mode) for mode in MODES)
    return tuple(costs(one) for one in found if one is not None and one.sizes["chip"])


def _over_chips(values: Array) -> tuple[Array, Array]:
    """Mean and standard deviation over the first axis, NaN where there are too few."""
    nothing = np.full(values.shape[1:], np.nan)
    mean = values.mean(axis=0) if len(values) else nothing
    if len(values) < 2:
        return mean, nothing
    spread = values.std(axis=0, ddof=1)
    # What is alike on every chip, such as declared costs, differs by rounding at most.
    return mean, np.where(spread > 1e-12 * np.abs(mean), spread, 0.0)


def with_spread(mean: float, spread: float, prefix: str) -> str:
    """Return a mean and its standard deviation in units of a prefix, the latter if there is one."""
    factor = PREFIXES[prefix]
    if not np.isfinite(mean):
        return "–"
    text = f"{mean / factor:.3g}"
    return f"{text} ± {spread / factor:.2g}" if np.isfinite(spread) and spread else text


def statement(found: Costs, technology: Technology) -> str:
    """HTML that says what was measured, how, and what is not in it."""
    if found.chips == found.failed:
        return "No chip was measured to its end."
    periphery = technology.periphery
    tolerance = float(found.attributes["tolerance"])
    each = (
        "Each tile is one transient in ngspice, with its drivers and amplifiers, at the voltages "
        "that the chip's earlier layers give it; tiles of a layer settle side by side, layers one "
        "after the other"
        if found.mode == "hybrid"
        else "The whole chip is one transient in ngspice, no converter between its layers"
    )
    total = quantity(found.total, "J", digits=3, spread=found.total_spread)
    latency = quantity(found.total_latency, "s", digits=3, spread=found.total_latency_spread)
    declared = [
        f"{quantity(cost.energy, 'J')} and {quantity(cost.time, 's')} per {name} conversion"
        for name, cost in (("DAC", periphery.dac), ("ADC", periphery.adc))
        if cost.energy or cost.time
    ]
    conversions = (
        f"Conversions cost what the technology declares: {', '.join(declared)}."
        if declared
        else "The technology declares no cost of conversions: DACs and ADCs are free here."
    )
    good = found.chips - found.failed
    failed = f", {found.failed} more failed" if found.failed else ""
    return escape(
        f"An inference takes {total} and {latency}: mean over {found.samples} "
        f"input{'s' if found.samples > 1 else ''}, ± the standard deviation over {good} "
        f"chip{'s' if good > 1 else ''}{failed}. {each}. Energy is ∫ V·I dt out of the supplies, "
        f"from the step of the inputs until all outputs stay within {100 * tolerance:g} % of "
        f"where they settle. {conversions} Digital logic, programming, clocks and what idles "
        "between inferences are not in it, so it compares with no figure from a wall plug."
    )


def headlines(found: Costs) -> list[tuple[str, str, str, str]]:
    """Kind, figure, what it is and how it came about: energy, and latency."""
    if not np.isfinite(found.total):
        return []
    good = found.chips - found.failed
    note = f"{found.mode}: ngspice transients on {good} chip{'s' if good > 1 else ''}"
    return [
        (
            "",
            quantity(found.total, "J", digits=3),
            "energy of an inference",
            f"{note}, declared conversions",
        ),
        (
            "",
            quantity(found.total_latency, "s", digits=3),
            "latency of an inference",
            f"until settled within {100 * float(found.attributes['tolerance']):g} %",
        ),
    ]


def table(found: Costs) -> str:
    """HTML table, layer by component, with latencies."""
    unit, time = prefix_of(found.total), prefix_of(found.total_latency)
    present = found.present

    def line(head: str, cells: list[str]) -> str:
        return (
            f"<tr><th>{escape(head)}</th>"
            + "".join(f'<td class="cost">{escape(cell)}</td>' for cell in cells)
            + "</tr>"
        )

    names = [_NAMES.get(found.components[k], found.components[k]) for k in present]
    head = "".join(
        f'<th class="cost">{escape(name)}</th>'
        for name in (*names, f"all, {unit}J", f"latency, {time}s")
    )
    rows = [
        line(
            name,
            [with_spread(found.energy[i, k], found.energy_spread[i, k], unit) for k in present]
            + [
                with_spread(found.layer_energy[i], found.layer_energy_spread[i], unit),
                with_spread(found.latency[i], found.latency_spread[i], time),
            ],
        )
        for i, name in enumerate(found.layers)
    ]
    rows.append(
        line(
            "inference",
            [
                with_spread(found.component_energy[k], found.component_energy_spread[k], unit)
                for k in present
            ]
            + [
                with_spread(found.total, found.total_spread, unit),
                with_spread(found.total_latency, found.total_latency_spread, time),
            ],
        )
    )
    return (
        f'<div class="wide"><table class="costs"><tr><th>layer, {unit}J</th>{head}</tr>'
        f"{''.join(rows)}</table></div>"
    )


def energy_figure(found: Costs) -> Figure | None:
    """Energy of every layer, stacked by component, and its latency; None of no good chip."""
    if not np.isfinite(found.total):
        return None
    layers, energy, energy_spread, latency, latency_spread = _drawn(found)
    unit, time = prefix_of(found.total), prefix_of(found.total_latency)
    scale, time_scale = PREFIXES[unit], PREFIXES[time]
    figure = new_figure(10.4, 1.5 + 0.36 * len(layers))
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2.1, 1])
    rows = np.arange(len(layers))
    foot = np.zeros(len(layers))
    for k in found.present:
        name = found.components[k]
        size = energy[:, k] / scale
        left.barh(
            rows, size, left=foot, height=0.62, color=COLOURS.get(name, INK),
            label=_NAMES.get(name, name),
        )  # fmt: skip
        foot += size
    for axes, end, spread in (
        (left, foot, energy_spread / scale),
        (right, latency / time_scale, latency_spread / time_scale),
    ):
        shown = np.nan_to_num(spread)
        if axes is right:
            axes.barh(rows, end, height=0.62, color=PALE)
        if shown.any():
            axes.errorbar(
                end, rows, xerr=shown, fmt="none", ecolor=INK, elinewidth=1.0, capsize=2.0
            )
        top = float((end + shown).max()) or 1.0
        for row in rows:
            axes.text(
                end[row] + shown[row] + 0.015 * top, row, f"{end[row]:.3g}", va="center",
                color=MUTED,
            )  # fmt: skip
        axes.set_xlim(0, 1.14 * top)
        axes.tick_params(axis="y", length=0, colors=INK)
        grid(axes, "x")
    left.set_yticks(rows, list(layers))
    left.set_ylim(len(layers) - 0.5, -0.5)
    left.set_title(f"Energy of an inference, {unit}J")
    right.set_title(f"Latency, {time}s")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside lower left", ncols=6, fontsize=8.5
    )
    return figure


def _drawn(found: Costs) -> tuple[tuple[str, ...], Array, Array, Array, Array]:
    """Layers of the picture: all, or the first and what the others are together."""
    spread, late = found.layer_energy_spread, found.latency_spread
    if len(found.layers) <= _LAYERS:
        return found.layers, found.energy, spread, found.latency, late
    first = _LAYERS - 1
    # Of the sum of the others no spread is drawn: theirs are not independent.
    return (
        (*found.layers[:first], f"{len(found.layers) - first} {_REST}"),
        np.vstack([found.energy[:first], found.energy[first:].sum(axis=0)]),
        np.append(spread[:first], np.nan),
        np.append(found.latency[:first], found.latency[first:].sum()),
        np.append(late[:first], np.nan),
    )
