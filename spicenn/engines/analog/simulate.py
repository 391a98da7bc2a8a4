"""Networks in ngspice: operating points, and transients with their energy and latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from spicenn.circuit import Tolerances
from spicenn.engines.analog.netlist import output_vectors, power_vectors, render_network
from spicenn.engines.analog.network import AnalogNetwork, Array, Stage
from spicenn.engines.analog.settling import time_scale
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import ConvergenceError, InputError

COMPONENTS = ("array", "driver", "tia", "neuron")

# A transient's steps are sized by these. An operating point's would take a hundred times
# as many, and its energies differ by less than the tolerance of settling.
TRANSIENT = Tolerances(reltol=1e-5, vntol=1e-9, abstol=1e-13)
# Noise is millionths of a signal.
NOISY = Tolerances(reltol=1e-8, vntol=1e-12, abstol=1e-15)
_DOUBLINGS = 8
# Outputs below it count as none [V]: a stage whose ReLUs are all off settles at its leakage.
_LEAST = 1e-3


@dataclass(frozen=True, eq=False)
class Transient:
    """What a network does after its inputs step from 0 V.

    time : (point,) [s] since the step begins.
    outputs : per stage, (point, output) [V].
    final : per stage, (output,) [V] at the operating point.
    latency : (stage,) [s] until all of a stage's outputs stay within the tolerance.
    energy : (stage, component) [J] until the last stage has settled, ``COMPONENTS`` in order.
    power : (stage, component) [W] at the operating point.
    """

    time: Array
    outputs: tuple[Array, ...]
    final: tuple[Array, ...]
    latency: Array
    energy: Array
    power: Array


def operating_points(
    engine: NgspiceEngine, network: AnalogNetwork, v: Array, *, timeout: float | None = None
) -> tuple[Array, ...]:
    """Settled outputs of every stage, (sample, output) [V].

    Parameters
    ----------
    v : (sample, input) [V] at the first stage's driver inputs.

    Raises InputError for voltages that do not fit, EngineError where ngspice finds none.
    """
    names = output_vectors(network)
    flat = [name for stage in names for name in stage]
    text = render_network(network, v)
    found = engine.run(text, flat, timeout=timeout, osdi=network.osdi)
    return tuple(np.stack([found[name] for name in stage], axis=-1) for stage in names)


def transient(
    engine: NgspiceEngine,
    network: AnalogNetwork,
    v: Array,
    *,
    tolerance: float = 0.01,
    rise: float | None = None,
    stop: float | None = None,
    noise: Sequence[str] = (),
    timeout: float | None = None,
) -> Transient:
    """Step all inputs and bias lines at once, and follow the network until it has settled.

    Parameters
    ----------
    v : (input,) [V].
    tolerance : of settling, over the largest final output of a stage.
    rise : time of the step [s]; a hundredth of the slowest time constant if None.
    stop : duration [s]; if None, as long as it takes.
    noise : lines of ``circuit.noise_sources``. What is noisy need not settle: a latency may
        be infinite, and energies end at ``stop``, which must be given.

    Raises InputError for arguments that do not fit, ConvergenceError where an output does
    not settle (within ``stop``, or at all).
    """
    if noise and stop is None:
        raise InputError("a noisy transient needs its duration, stop", where="transient")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance = {tolerance!r} is not in (0, 1)", where="transient")
    if np.ndim(v) != 1:
        raise InputError(f"v of shape {np.shape(v)} is not one sample", where=network.name)
    final = tuple(volts[0] for volts in operating_points(engine, network, v, timeout=timeout))
    scale = time_scale(network)
    rise = max(scale / 100, 1e-13) if rise is None else rise
    first = rise + scale * 4 if stop is None else stop
    if not 0 < rise < first < np.inf:
        raise InputError(
            f"rise = {rise!r} is not between 0 and stop = {first!r}", where="transient"
        )
    names = output_vectors(network)
    powers = [power_vectors(s, stage) for s, stage in enumerate(network.stages)]
    needed = [name for stage in names for name in stage]
    needed += [name for vectors in powers for group in vectors.values() for name in group]
    tolerances = NOISY if noise else TRANSIENT
    for doublings in range(_DOUBLINGS):
        wanted = first * 2.0**doublings
        text = render_network(network, v, tolerances=tolerances, step=(rise, wanted), extra=noise)
        found = engine.run(text, ["time", *needed], timeout=timeout, osdi=network.osdi)
        time = found["time"]
        outputs = tuple(np.stack([found[name] for name in stage], axis=-1) for stage in names)
        latency = np.array(
            [_settled(time, y, end, tolerance) for y, end in zip(outputs, final, strict=True)]
        )
        # Settled for good: half of the time went by without leaving the band again.
        if stop is not None or latency.max() <= wanted / 2:
            break
    late = not np.isfinite(latency).all() or (stop is None and latency.max() > wanted / 2)
    if late and not noise:
        raise ConvergenceError(
            f"outputs do not settle within {tolerance:g} in {wanted:.3g} s",
            where=f"stage {network.stages[int(np.argmax(latency))].name}",
            remedy="give more time, a larger tolerance, or look for an oscillation: an "
            "amplifier's bandwidth against the capacitance at its input",
        )
    curves = [
        _power(vectors, found, stage, network)
        for vectors, stage in zip(powers, network.stages, strict=True)
    ]
    end = min(float(latency.max()), float(time[-1]))
    energy = np.stack([[_integral(time, p, end) for p in stage] for stage in curves])
    power = np.stack([[p[-1] for p in stage] for stage in curves])
    return Transient(time, outputs, final, latency, energy, power)


def _settled(time: Array, y: Array, final: Array, tolerance: float) -> float:
    """When the last of a stage's outputs enters its band for good; infinite if none does."""
    # How far outside of the band the worst output is; below 0 inside.
    away = np.abs(y - final).max(axis=1) - tolerance * max(np.abs(final).max(), _LEAST)
    left = np.flatnonzero(~(away <= 0))
    if not left.size:
        return 0.0
    k = left[-1]
    if k == len(time) - 1:
        return float("inf")
    # Between two points, as the integrals are.
    return float(time[k] + (time[k + 1] - time[k]) * away[k] / (away[k] - away[k + 1]))


def _power(
    vectors: Mapping[str, list[str]],
    found: Mapping[str, Array],
    stage: Stage,
    network: AnalogNetwork,
) -> list[Array]:
    """Power of every component [W] at every point in time.

    A source's current is positive into its plus side. Drivers' supplies pay for what goes
    into the array as well; that part is the array's.
    """
    array = sum(
        found[volts] * found[current]
        for volts, current in zip(vectors["wordline"], vectors["current"], strict=True)
    )
    driver, tia, *neuron = (found[name] for name in vectors["supply"])
    periphery = network.periphery
    pair = 0.5 * periphery.neuron.supply
    zero = np.zeros_like(driver)
    return [
        np.asarray(array),
        np.asarray(-periphery.driver.supply * driver - array),
        -periphery.tia.supply * tia,
        pair * (neuron[1] - neuron[0]) if neuron else zero,
    ]


def _integral(time: Array, power: Array, end: float) -> float:
    """Trapezoidal integral from 0 to ``end``, between points as well."""
    whole = np.concatenate([[0.0], np.cumsum(0.5 * (power[1:] + power[:-1]) * np.diff(time))])
    return float(np.interp(end, time, whole))
