"""Energy and latency of a chip's inferences, from transients of its circuits.

``hybrid`` follows the layers apart: every tile between its drivers and amplifiers, with the
voltages that this chip's earlier layers give it. ``analog`` follows the whole chip as one
circuit. Both integrate ∫ v i dt from the step of the inputs until the circuit has settled;
conversions cost what the technology declares, in energy and in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from spicenn.compiler.analog import analog_chip, first_voltages
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.layer import Array
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.readout import feedback_resistance
from spicenn.engines.analog import COMPONENTS as CIRCUITS
from spicenn.engines.analog import AnalogNetwork, Block, Stage, transient
from spicenn.engines.laws import known_law
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import InputError, Status, error_of
from spicenn.technology.variation import Cells

if TYPE_CHECKING:
    from spicenn.compiler.chip import Chip
    from spicenn.engines.ngspice.client import NgspiceEngine
    from spicenn.technology import Technology

Mode = Literal["hybrid", "analog"]
COMPONENTS = (*CIRCUITS, "dac", "adc")

# Called with the transients done and all of them.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Energy:
    """What inferences of one chip cost.

    layers : names, in order.
    energy : (sample, layer, component) [J], ``COMPONENTS`` in order.
    latency : (sample, layer) [s]; their sum is the inference's.
    """

    layers: tuple[str, ...]
    energy: Array
    latency: Array


def measure(
    chip: Chip,
    x: Any,
    engine: NgspiceEngine,
    *,
    mode: Mode = "hybrid",
    tolerance: float = 0.01,
    positions: int = 4,
    progress: Progress | None = None,
) -> Energy:
    """Measure a chip.

    Parameters
    ----------
    x : inputs (sample, …), or a tuple for several.
    tolerance : of settling, over the largest final output of a tile or a layer.
    positions : of a convolution's output positions so many are simulated, evenly spread;
        the others count as their mean.

    Latencies add what follows one after the other: positions, pulses, their conversions,
    and layers. A layer's tiles work side by side. In ``analog`` mode a layer's latency is
    what it settles after the layers before.

    Raises CompileError where the chip cannot be one analog circuit, InputError for
    arguments that do not fit, EngineError where a circuit does not settle.
    """
    if mode not in get_args(Mode):
        raise InputError(f"mode = {mode!r} is unknown", remedy="allowed: hybrid, analog")
    if positions < 1:
        raise InputError(f"positions = {positions!r} is not at least 1")
    if mode == "analog":
        return _analog(chip, x, engine, tolerance, progress)
    return _hybrid(chip, x, engine, tolerance, positions, progress)


def takes_time(technology: Technology) -> bool:
    """Whether a circuit of this technology settles later than its inputs do."""
    tia = technology.periphery.tia
    capacitances = (technology.c_wordline, technology.c_bitline, technology.c_cell, tia.c_in)
    return tia.bandwidth is not None or any(capacitances)


def _analog(
    chip: Chip, x: Any, engine: NgspiceEngine, tolerance: float, progress: Progress | None
) -> Energy:
    analog = analog_chip(chip)
    inputs = as_inputs(chip.design, x)
    volts = first_voltages(chip, inputs)
    layers = [layer for layer, _ in analog.chain.links]
    energy = np.zeros((len(volts), len(layers), len(COMPONENTS)))
    latency = np.zeros((len(volts), len(layers)))
    periphery = chip.design.technology.periphery
    for row, v in enumerate(volts):
        seen = transient(engine, analog.network, v, tolerance=tolerance)
        energy[row, :, : len(CIRCUITS)] = seen.energy
        settled = np.maximum.accumulate(seen.latency)
        latency[row] = np.diff(settled, prepend=0.0)
        if progress is not None:
            progress(row + 1, len(volts))
    # Numbers become voltages before the first layer, and numbers again behind the last.
    energy[:, 0, COMPONENTS.index("dac")] = layers[0].inputs * periphery.dac.energy
    energy[:, -1, COMPONENTS.index("adc")] = layers[-1].outputs * periphery.adc.energy
    latency[:, 0] += periphery.dac.time
    latency[:, -1] += periphery.adc.time
    # A sample whose values are several rows sends them through the circuit one by one.
    samples = len(inputs[0])
    return Energy(
        tuple(layer.name for layer in layers),
        energy.reshape(samples, -1, *energy.shape[1:]).sum(axis=1),
        latency.reshape(samples, -1, len(layers)).sum(axis=1),
    )


def _hybrid(
    chip: Chip,
    x: Any,
    engine: NgspiceEngine,
    tolerance: float,
    positions: int,
    progress: Progress | None,
) -> Energy:
    design = chip.design
    uses: list[tuple[PlacedTile, Array]] = []

    def observe(tile: PlacedTile, _: Cells, v: Array, _current: Array) -> None:
        uses.append((tile, v[0, 0]))  # (sample, position, pulse, wordline)

    inputs = as_inputs(design, x)
    # Which voltages a tile gets is the same to nine digits on either engine, where the
    # cells have a law; a transient follows for each.
    cell, temperature = design.technology.cell, design.technology.temperature
    lawful = cell.is_ohmic or known_law(cell, design.name, temperature) is not None
    first = NodalEngine() if lawful else engine
    result = run_chips(
        design, [chip.index], chip.seed, inputs, first, observer=observe,
        cells=lambda tile, _: chip.cells(tile),
        correct=chip.adapter.apply if chip.adapter else None,
    )  # fmt: skip
    if result.status[0] != Status.OK:
        raise error_of(Status(int(result.status[0])), result.message[0], where=repr(chip))
    samples = len(inputs[0])
    names = tuple(layer.name for layer in design.layers)
    energy = np.zeros((samples, len(names), len(COMPONENTS)))
    latency = np.zeros((samples, len(names)))
    chosen = [_spread(v.shape[1], positions) for _, v in uses]
    total = sum(v.shape[0] * len(at) * v.shape[2] for (_, v), at in zip(uses, chosen, strict=True))
    done = 0
    # Of one use of a layer the tiles settle side by side: per layer, what its uses took so far.
    times: dict[tuple[str, int], Array] = {}
    counts: dict[str, int] = {}
    for (tile, v), at in zip(uses, chosen, strict=True):
        use = counts.get(tile.name, 0)
        counts[tile.name] = use + 1
        network = _tile_network(chip, tile)
        layer = tile.layer.index
        settled = np.zeros((samples, len(at), v.shape[2]))
        spent = np.zeros((samples, len(at), v.shape[2], len(CIRCUITS)))
        for index in np.ndindex(settled.shape):
            volts = v[index[0], at[index[1]], index[2]]
            seen = transient(engine, network, volts, tolerance=tolerance)
            settled[index], spent[index] = seen.latency[0], seen.energy[0]
            done += 1
            if progress is not None:
                progress(done, total)
        scale = v.shape[1] / len(at)
        energy[:, layer, : len(CIRCUITS)] += scale * spent.sum(axis=(1, 2))
        key = (tile.layer.name, use)
        times[key] = np.maximum(times.get(key, 0.0), scale * settled)
        dacs, adcs = _conversions(design.mapping.slices, tile)
        each = v.shape[1] * v.shape[2]
        periphery = design.technology.periphery
        energy[:, layer, COMPONENTS.index("dac")] += each * dacs * periphery.dac.energy
        energy[:, layer, COMPONENTS.index("adc")] += each * adcs * periphery.adc.energy
        if tile.slot.row == 0 and tile.slot.column == 0:
            latency[:, layer] += each * (periphery.dac.time + periphery.adc.time)
    for (name, _), settled in times.items():
        latency[:, names.index(name)] += settled.sum(axis=(1, 2))
    return Energy(names, energy, latency)


def _tile_network(chip: Chip, tile: PlacedTile) -> AnalogNetwork:
    """One tile between its drivers and its amplifiers, all wordlines as inputs."""
    technology, crossbar = chip.design.technology, tile.crossbar
    outputs = crossbar.bitlines // 2
    resistance = feedback_resistance(tile, technology)
    stage = Stage(
        name=tile.name,
        inputs=crossbar.wordlines,
        bias=np.zeros(0),
        gain=1.0,
        outputs=outputs,
        blocks=(Block(replace(crossbar, r_driver=0.0, r_sense=0.0), chip.cells(tile), 0, 0),),
        r_first=resistance,
        r_feedback=resistance,
        tia_offset=np.zeros((2, outputs)),
        activation=None,
        neuron_offset=np.zeros(outputs),
    )
    return AnalogNetwork(tile.name, (stage,), technology.periphery, technology.temperature)


def _conversions(slices: int, tile: PlacedTile) -> tuple[int, int]:
    """Conversions of one pulse: a layer's DACs feed all of a row of tiles, bias rows need none."""
    layer, slot = tile.layer, tile.slot
    rows = max(0, min(layer.inputs, int(slot.rows.stop)) - int(slot.rows.start))
    return (rows if slot.column == 0 else 0), slot.signed_outputs * slices


def _spread(count: int, most: int) -> list[int]:
    return [int(k) for k in np.unique(np.linspace(0, count - 1, min(count, most)).round())]
