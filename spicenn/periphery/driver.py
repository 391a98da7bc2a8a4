"""Driver of a wordline: a voltage behind a resistance (``netlists/driver.lib``)."""

from __future__ import annotations

from typing import Any

from spicenn.arrays import as_like, namespace
from spicenn.periphery.instance import instance
from spicenn.technology import Driver

# A netlist's resistor is not 0; against a wordline's kilohms this is.
_LEAST_RESISTANCE = 1e-6


def driver_output(v: Any, conductance: Any, spec: Driver) -> Any:
    """Voltage at the beginning of a wordline [V].

    conductance : from there to ground, all that the driver sees [S].
    """
    return v / (1.0 + spec.resistance * conductance)


def supply_current(current: Any, spec: Driver) -> Any:
    """Current out of the supply while the driver gives ``current`` [A].

    Its integral times ``supply`` is the driver's energy. It does not depend on the sign: a
    wordline below ground is charged from the supply as well.
    """
    return spec.bias_current + namespace(current).abs(as_like(current))


def driver_instance(name: str, nodes: tuple[str, str, str], spec: Driver, gain: float = 1.0) -> str:
    """Place one; nodes are in, out and vdd. No resistance is 1 µΩ."""
    resistance = max(spec.resistance, _LEAST_RESISTANCE)
    values = {"gain": gain, "rout": resistance, "ibias": spec.bias_current}
    return instance(name, nodes, "driver", values)
