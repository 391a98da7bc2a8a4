"""Record how a chip's spiking layer answers to trains of pulses, to learn from or judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.spiking import SpikingLayer
from spicenn.cosim.block import Block
from spicenn.cosim.events import ProcessGenerator
from spicenn.cosim.kernel import Cosimulation
from spicenn.engines.analog.spiking import SUPPLIES, axon, membrane, spike
from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator
from spicenn.surrogate.events.model import circuit_model
from spicenn.surrogate.events.trace import describe

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, eq=False)
class Stimulus:
    """Pulses on axons.

    time : (pulse,) when each begins [s], ascending.
    axon : (pulse,) on which axon.
    until : when the record ends [s].
    """

    time: NDArray[np.float64]
    axon: NDArray[np.int64]
    until: float


def poisson_stimulus(
    axons: int,
    until: float,
    *,
    rate: float,
    width: float,
    seed: int,
    use: int = 0,
    spread: float = 0.0,
) -> Stimulus:
    """Random pulses, Poisson but for the time that an axon needs to come back.

    Parameters
    ----------
    until : duration [s]; the last two widths are left quiet.
    rate : of pulses per axon [1/s].
    width : of a pulse [s]; pulses of one axon begin 1.2 widths apart at least.
    seed, use : which one.
    spread : of the axons' rates, standard deviation of the logarithm.
    """
    if not 0 < rate * 1.2 * width < 1 or not until > 4 * width:
        raise InputError(
            f"pulses of {width:g} s at {rate:g} 1/s until {until:g} s do not fit",
            where="stimulus",
        )
    rng = generator(seed, Purpose.SPIKES, trial=use)
    times, which = [], []
    for i in range(axons):
        own = rate * float(np.exp(spread * rng.standard_normal() - spread**2 / 2))
        # No axon is ever busier than half of the time.
        pause = max(1.0 / own - 1.2 * width, 1.2 * width)
        begin = float(rng.exponential(pause))
        while begin < until - 2 * width:
            times.append(begin)
            which.append(i)
            begin += 1.2 * width + float(rng.exponential(pause))
    order = np.argsort(times, kind="stable")
    return Stimulus(np.array(times)[order], np.array(which, dtype=np.int64)[order], until)


def trace_layer(
    layer: SpikingLayer,
    stimulus: Stimulus,
    *,
    nominal: SpikingLayer | None = None,
    chip: int = 0,
    block: Block | None = None,
    membranes: bool = True,
    rise: float = 1e-9,
    max_step: float | None = None,
    progress: Any = None,
) -> xr.Dataset:
    """Run a stimulus on a layer and return its co-simulation's record.

    Parameters
    ----------
    nominal : what the layer was meant to be, see ``surrogate.events.nominal_layer``; the
        record carries its model, from which a fit starts. The layer itself if None.
    chip : number that the record carries.
    block : in the circuit's place; the layer in ngspice if None.
    membranes : whether membranes are recorded.
    max_step : of ngspice [s], twice a pulse's width if None.
    progress : see ``Cosimulation``.

    Raises as ``Cosimulation``.
    """
    supplies = {
        SUPPLIES[0]: layer.periphery.driver.supply,
        SUPPLIES[1]: layer.periphery.tia.supply,
        SUPPLIES[2]: layer.nominal.supply,
    }
    outputs = [spike(k) for k in range(layer.outputs)]
    probes = [*outputs, *SUPPLIES]
    probes += [membrane(k) for k in range(layer.outputs) if membranes]
    options: dict[str, Any] = {"rise": rise, "progress": progress}
    if block is None:
        step = 2 * layer.width if max_step is None else max_step
        options |= {"probes": probes, "max_step": step}
    with Cosimulation(layer.netlist() if block is None else block, **options) as env:
        env.process(play(env, stimulus, layer.amplitude, layer.width))
        env.monitor(outputs, above=layer.nominal.supply / 2)
        ds = env.run(until=stimulus.until)
    ds.attrs.update(
        describe(
            layer.inputs,
            layer.outputs,
            rise=rise,
            chip=chip,
            supplies=supplies,
            nominal=circuit_model(nominal or layer),
        )
    )
    return ds


def play(env: Cosimulation, stimulus: Stimulus, high: float, width: float) -> ProcessGenerator:
    """Pulse axons as a stimulus says: up to a level [V], and back after a width [s]."""
    edges = sorted(
        [(float(t), int(i), high) for t, i in zip(stimulus.time, stimulus.axon, strict=True)]
        + [
            (float(t) + width, int(i), 0.0)
            for t, i in zip(stimulus.time, stimulus.axon, strict=True)
        ]
    )
    for time, i, level in edges:
        if time > env.now:
            yield env.timeout(time - env.now)
        env.drive(axon(i), level)
