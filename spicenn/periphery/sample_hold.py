"""Sample and hold: a switch onto a capacitor (``netlists/sample_hold.lib``)."""

from __future__ import annotations

import math
from typing import Any

from spicenn.arrays import as_like, namespace
from spicenn.periphery.instance import instance
from spicenn.technology import SampleHold

BOLTZMANN = 1.380649e-23


def acquired(v: Any, before: Any, time: Any, spec: SampleHold) -> Any:
    """Voltage on the capacitor after the switch was closed for some time [V].

    It goes from ``before`` to v, less the drop that the leakage makes in the switch, with
    the time constant R C.
    """
    xp = namespace(v, before, time)
    final = v - spec.leakage * spec.resistance
    left = xp.exp(-as_like(time, v, before) / (spec.resistance * spec.capacitance))
    return final + (before - final) * left


def held(v: Any, time: Any, spec: SampleHold) -> Any:
    """Voltage that is left of v after the switch was open for some time, droop I / C [V]."""
    return v - spec.leakage / spec.capacitance * time


def acquisition_time(tolerance: float, spec: SampleHold) -> float:
    """Time until a step is sampled within a share of it [s]."""
    return -math.log(tolerance) * spec.resistance * spec.capacitance


def sampling_noise(spec: SampleHold, temperature: float) -> float:
    """Standard deviation of a sample, sqrt(k T / C) [V]."""
    return math.sqrt(BOLTZMANN * temperature / spec.capacitance)


def sample_hold_instance(name: str, nodes: tuple[str, str, str], spec: SampleHold) -> str:
    """Place one; nodes are in, out and clk (samples above 0.5 V)."""
    values = {"ron": spec.resistance, "chold": spec.capacitance, "ileak": spec.leakage}
    return instance(name, nodes, "sample_hold", values)
