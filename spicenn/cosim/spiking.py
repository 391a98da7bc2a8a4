"""A spiking network from torch as crossbars with CMOS neurons, run event by event."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from spicenn.circuit.stepped import STEPPED
from spicenn.circuit.tolerances import Tolerances
from spicenn.compiler import Chip, Design, Mapping, Tile, compile
from spicenn.compiler.spiking import LifSpread, SpikingLayer, spiking_layer
from spicenn.cosim.block import Block
from spicenn.cosim.exact import exact_layer, through_bus
from spicenn.cosim.kernel import Cosimulation
from spicenn.cosim.neuron import LIF
from spicenn.cosim.presentation import Array, Presentation, joined, split
from spicenn.cosim.routing import AddressBus, Pulses, Route, collect
from spicenn.cosim.sources import AddressEvents, play
from spicenn.engines.analog.spiking import SUPPLIES, axon, membrane, spike
from spicenn.errors import CompileError, InputError
from spicenn.periphery.lif import Lif
from spicenn.surrogate.events import LayerBlock, circuit_model
from spicenn.technology import Technology

if TYPE_CHECKING:
    import xarray as xr

# What runs a layer: "ngspice", "events" (closed forms of its own devices), or a function
# that makes a block of a layer and its number.
Engine = str | Callable[[SpikingLayer, int], Block]

ENERGY = "energy"


@dataclass(frozen=True, eq=False)
class SpikingDesign:
    """A spiking network mapped to crossbars, without variation.

    design : its linear maps.
    neurons : of every layer, what they are meant to be.
    width : of a spike's pulse on a wordline [s].
    spread : of the neurons.
    """

    design: Design
    neurons: tuple[Lif, ...]
    width: float
    spread: LifSpread

    @property
    def weights(self) -> tuple[Array, ...]:
        """(output, input) of every layer."""
        return tuple(layer.weight[0] for layer in self.design.layers)

    def sample(self, chip: int, seed: int) -> SpikingChip:
        """Manufacture one chip: cells, amplifiers and neurons; see ``Design.sample``."""
        made = self.design.sample(chip=chip, seed=seed)
        layers = tuple(
            spiking_layer(made, layer, neuron, width=self.width, spread=self.spread)
            for layer, neuron in zip(self.design.layers, self.neurons, strict=True)
        )
        return SpikingChip(self, made, layers)

    def exact(
        self, images: Sequence[AddressEvents], *, delay: float, cycle: float = 0.0
    ) -> Presentation:
        """What the ideal network does, in closed form from event to event.

        Every image starts from rest. ``delay`` and ``cycle`` are those of ``SpikingChip.run``.
        """
        shown = []
        for image in images:
            events, layers = AddressEvents(image.times + delay, image.addresses), []
            for weights, neuron in zip(self.weights, self.neurons, strict=True):
                out = exact_layer(weights, [neuron] * len(weights), events, width=self.width)
                layers.append(out)
                events = through_bus(out, cycle=cycle, delay=delay)
            shown.append(tuple(layers))
        return _without_circuit(tuple(shown), self.weights)


@dataclass(frozen=True, eq=False)
class SpikingChip:
    """One manufactured spiking network.

    design : what it is a copy of.
    chip : its cells and amplifiers.
    layers : crossbars with their neurons, in order.
    """

    design: SpikingDesign
    chip: Chip
    layers: tuple[SpikingLayer, ...]

    def run(
        self,
        images: Sequence[AddressEvents],
        *,
        period: float,
        engine: Engine | Sequence[Engine] = "ngspice",
        delay: float,
        cycle: float = 0.0,
        rise: float | None = None,
        max_step: float | None = None,
        tolerance: float | None = None,
        tolerances: Tolerances = STEPPED,
        membranes: bool = False,
        timeout: float = 60.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Presentation:
        """Show images one after the other, and follow every spike.

        One co-simulation, one block per layer, each in a process of its own where it is a
        circuit. Inputs drive the first layer's wordlines; spikes of a layer pass a bus of
        address events to the next one's.

        Parameters
        ----------
        images : spikes of the inputs, times from an image's begin on, see ``latency_code``
            and ``rate_code``.
        period : from an image's begin to the next one's [s]: long enough for membranes to
            come to rest.
        engine : of all layers, or one each.
        delay : from a spike to the next layer's wordline, from the input as well [s].
        cycle : that an event takes a bus for [s].
        rise : of a pulse's slopes, a tenth of the width if None [s].
        max_step, tolerance : of ngspice, see ``Cosimulation``; the width, and a thousandth
            of it, if None [s].
        membranes : record them as well.
        progress : called with the number of images shown, and that of all.

        Returns
        -------
        Spikes and energies; the latter of drivers, amplifiers and neurons, without
        the sources of reference voltages.

        Raises InputError for images that do not fit, and what ``Cosimulation.run`` raises.
        """
        if not 0 < period < math.inf:
            raise InputError(f"period = {period!r} s is not a duration")
        if not images:
            raise InputError("there is no image")
        events = joined(images, period)
        engines = self._engines(engine)
        names = [f"layer{k}" for k in range(len(self.layers))]
        circuits: dict[str, Any] = {}
        probes = {}
        for k, (name, layer) in enumerate(zip(names, self.layers, strict=True)):
            circuits[name] = _circuit(engines[k], layer, k, tolerances, membranes)
            outputs = range(layer.outputs)
            probes[name] = [
                *SUPPLIES,
                *(spike(j) for j in outputs),
                *(membrane(j) for j in outputs if membranes),
            ]
        width = self.design.width
        rise = width / 10 if rise is None else rise
        total = len(images)
        with Cosimulation(
            circuits,
            probes=probes,
            max_step=width if max_step is None else max_step,
            tolerance=width / 1000 if tolerance is None else tolerance,
            rise=rise,
            delay=delay,
            tolerances=tolerances,
            timeout=timeout,
            progress=(lambda t, _: progress(min(int(t / period), total), total))
            if progress
            else None,
        ) as env:
            sources = [f"{names[0]}:{axon(i)}" for i in range(self.layers[0].inputs)]
            first = Pulses(env, sources, width=width, high=self.layers[0].amplitude)
            env.process(play(env, first, events))
            for k, layer in enumerate(self.layers):
                following = self.layers[k + 1] if k + 1 < len(self.layers) else None
                routes = {
                    j: [Route(source=f"{names[k + 1]}:{axon(j)}")] if following else []
                    for j in range(layer.outputs)
                }
                bus = AddressBus(
                    env, routes, width=width, cycle=cycle, name=names[k],
                    high=following.amplitude if following else 1.0,
                )  # fmt: skip
                nodes = [f"{names[k]}:{spike(j)}" for j in range(layer.outputs)]
                env.process(collect(env, nodes, bus, above=layer.nominal.supply / 2))
            record = env.run(until=total * period)
            steps = tuple(int(getattr(block, "steps", 0)) for block in env.blocks.values())
        spikes = [split(_sent(record, name), period, total) for name in names]
        energy = [
            _energies(record, name, layer, period, total)
            for name, layer in zip(names, self.layers, strict=True)
        ]
        return Presentation(
            spikes=tuple(zip(*spikes, strict=True)),
            outputs=self.layers[-1].outputs,
            energy=np.stack(energy, axis=1),
            steps=steps,
            record=record,
        )

    def _engines(self, engine: Engine | Sequence[Engine]) -> list[Engine]:
        alone = isinstance(engine, str) or callable(engine)
        engines = [engine] * len(self.layers) if alone else list(engine)  # type: ignore[arg-type]
        if len(engines) != len(self.layers):
            raise InputError(f"{len(engines)} engines for {len(self.layers)} layers")
        for each in engines:
            if isinstance(each, str) and each not in ("ngspice", "events"):
                raise InputError(
                    f"no engine is called {each!r}",
                    remedy='"ngspice", "events", or a function of a layer and its number',
                )
        return engines  # type: ignore[return-value]


def compile_spiking(
    model: nn.Sequential,
    *,
    technology: Technology,
    width: float,
    neuron: Lif | None = None,
    spread: LifSpread | None = None,
    tile: Tile | None = None,
    mapping: Mapping | None = None,
    calibration: Sequence[Any] | None = None,
) -> SpikingDesign:
    """Map ``nn.Sequential(Linear, LIF, Linear, LIF, …)`` to crossbars with CMOS neurons.

    Parameters
    ----------
    model : its Linear modules without bias.
    width : of an input spike's pulse [s].
    neuron : devices of the neurons; leak, reset current and floor are those that give the
        modules' time constants. ``Lif()`` if None.
    spread : of the neurons, none if None.
    tile, mapping : as of ``compile``.
    calibration : per layer (sample, input) spikes that come at the same time, 0 or 1: what
        amplifiers must not be overloaded by. If None, all that drive an output one way.

    Raises CompileError naming the module that cannot be a circuit.
    """
    names, linears, lifs = _modules(model)
    neurons = []
    for name, lif in zip(names[1::2], lifs, strict=True):
        try:
            neurons.append(lif.circuit(neuron or Lif()))
        except InputError as error:
            raise CompileError(error.what, where=f"module {name!r}", remedy=error.remedy) from error
    if calibration is None:
        calibration = [_worst(linear.weight) for linear in linears]
    if len(calibration) != len(linears):
        raise InputError(f"calibration of {len(calibration)} layers for {len(linears)}")
    given = [torch.as_tensor(c, dtype=linears[0].weight.dtype) for c in calibration]
    # All inputs of one model have as many samples.
    most = max(len(c) for c in given)
    given = [torch.cat([c] * math.ceil(most / len(c)))[:most] for c in given]
    maps = _Maps(dict(zip(names[::2], linears, strict=True)))
    design = compile(
        maps, tuple(given), technology=technology, tile=tile, mapping=mapping,
        calibration=tuple(given),
    )  # fmt: skip
    # A spike is there or not: full scale is 1, whatever the calibration shows.
    layers = tuple(
        replace(layer, input_scale=1.0, signed=False, source="") for layer in design.layers
    )
    design = replace(design, name=type(model).__name__, layers=layers)
    if not 0 < width < math.inf:
        raise InputError(f"width = {width!r} s is not a duration")
    return SpikingDesign(design, tuple(neurons), float(width), spread or LifSpread())


def binned(images: Sequence[AddressEvents], *, inputs: int, dt: float, steps: int) -> Tensor:
    """Spikes of every step, (time, image, input), for a network of ``LIF`` modules.

    Raises InputError for events beyond the last step.
    """
    x = torch.zeros(steps, len(images), inputs)
    for k, image in enumerate(images):
        # A time that is a step's begin but for rounding belongs to that step.
        at = np.floor(image.times / dt + 1e-6).astype(np.int64)
        if at.size and at.max() >= steps:
            raise InputError(
                f"an event at {image.times.max():g} s is beyond {steps} steps of {dt:g} s",
                where=f"image {k}",
            )
        index = (torch.as_tensor(at), torch.full((len(at),), k), torch.as_tensor(image.addresses))
        x.index_put_(index, torch.ones(len(at)), accumulate=True)
    return x


def run_model(model: nn.Sequential, images: Sequence[AddressEvents], *, steps: int) -> Presentation:
    """What the modules themselves do, in steps of their dt; a spike is at its step's begin."""
    _, linears, lifs = _modules(model)
    dt = lifs[0].dt
    x = binned(images, inputs=linears[0].in_features, dt=dt, steps=steps)
    shown: list[list[AddressEvents]] = [[] for _ in images]
    with torch.no_grad():
        for linear, lif in zip(linears, lifs, strict=True):
            x = lif(linear(x.to(linear.weight.dtype)))
            for k, layers in enumerate(shown):
                at, address = np.nonzero(x[:, k].numpy())
                times = np.asarray(at * dt, dtype=np.float64)
                layers.append(AddressEvents(times, address.astype(np.int64)))
    weights = [linear.weight.detach().numpy() for linear in linears]
    return _without_circuit(tuple(tuple(layers) for layers in shown), weights)


class _Maps(nn.Module):
    """Linear maps side by side, each with its own input."""

    def __init__(self, linears: dict[str, nn.Linear]) -> None:
        super().__init__()
        for name, linear in linears.items():
            self.add_module(name, linear)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(m(x) for m, x in zip(self.children(), inputs, strict=True))


def _modules(model: nn.Module) -> tuple[list[str], list[nn.Linear], list[LIF]]:
    remedy = "give nn.Sequential(nn.Linear(…, bias=False), LIF(…), …)"
    if not isinstance(model, nn.Sequential) or len(model) == 0:
        raise CompileError(
            f"a {type(model).__name__} is not a row of modules", where="model", remedy=remedy
        )
    linears: list[nn.Linear] = []
    lifs: list[LIF] = []
    for k, (name, module) in enumerate(model.named_children()):
        if k % 2 and isinstance(module, LIF):
            lifs.append(module)
            continue
        if k % 2 or not isinstance(module, nn.Linear):
            raise CompileError(
                f"a {type(module).__name__} where a {('Linear', 'LIF')[k % 2]} is expected",
                where=f"module {name!r}",
                remedy=remedy,
            )
        if getattr(module, "bias", None) is not None:  # torch says there always is one
            raise CompileError(
                "has a bias, which no spike drives",
                where=f"module {name!r}",
                remedy="use bias=False",
            )
        if linears and linears[-1].out_features != module.in_features:
            raise CompileError(
                f"takes {module.in_features} inputs, and {linears[-1].out_features} neurons "
                "come before it",
                where=f"module {name!r}",
            )
        linears.append(module)
    names = [name for name, _ in model.named_children()]
    if len(lifs) < len(linears):
        raise CompileError("no neurons follow it", where=f"module {names[-1]!r}", remedy=remedy)
    return names, linears, lifs


def _worst(weight: Tensor) -> Tensor:
    """Per output all inputs that drive it up, and all that drive it down."""
    w = weight.detach()
    return torch.cat([(w > 0), (w < 0)]).to(w.dtype)


def _circuit(
    engine: Engine, layer: SpikingLayer, k: int, tolerances: Tolerances, membranes: bool
) -> str | Block:
    if callable(engine):
        return engine(layer, k)
    if engine == "ngspice":
        return layer.netlist(tolerances=tolerances)
    recorded = [ENERGY, *(membrane(j) for j in range(layer.outputs) if membranes)]
    return LayerBlock(circuit_model(layer), record=recorded, name=f"layer{k}")


def _sent(record: xr.Dataset, name: str) -> AddressEvents:
    """Spikes of one layer: events of its bus, at the times at which they were sent to it."""
    chosen = (record["event_kind"].values == "emit") & (record["event_name"].values == name)
    if not chosen.any():
        return AddressEvents(np.zeros(0), np.zeros(0, dtype=np.int64))
    return AddressEvents(
        record["event_sent"].values[chosen], record["event_value"].values[chosen].astype(np.int64)
    )


def _energies(
    record: xr.Dataset, name: str, layer: SpikingLayer, period: float, images: int
) -> Array:
    """(image,) from a layer's supplies [J], NaN where neither they nor an energy is recorded."""
    borders = period * np.arange(images + 1)
    if f"{name}:{ENERGY}" in record:
        time = record[f"time_{name}"].values
        return np.diff(np.interp(borders, time, record[f"{name}:{ENERGY}"].values))
    volts = (layer.periphery.driver.supply, layer.periphery.tia.supply, layer.nominal.supply)
    if any(f"{name}:{supply}" not in record for supply in SUPPLIES):
        return np.full(images, np.nan)
    time = record[f"time_{name}"].values
    currents = np.stack([record[f"{name}:{supply}"].values for supply in SUPPLIES])
    power = -np.asarray(volts) @ currents
    pieces = np.diff(time) * (power[1:] + power[:-1]) / 2
    return np.diff(np.interp(borders, time, np.concatenate([[0.0], np.cumsum(pieces)])))


def _without_circuit(
    spikes: tuple[tuple[AddressEvents, ...], ...], weights: Sequence[Array]
) -> Presentation:
    layers = len(weights)
    return Presentation(
        spikes=spikes,
        outputs=len(weights[-1]),
        energy=np.full((len(spikes), layers), np.nan),
        steps=(0,) * layers,
    )
