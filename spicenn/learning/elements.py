"""What an edge of a network can be: transistor, resistor, diode; their currents and slopes.

An edge goes from node a to node b, and its current is counted from a to b.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError

Array = NDArray[np.float64]

BOLTZMANN_OVER_CHARGE = 8.617333262e-5  # V/K
# A diode's exponential goes on as its tangent from here on: no solution lies there, and
# Newton's method can come from any side.
_DIODE_LARGEST = 10.0  # A


@dataclass(frozen=True, kw_only=True)
class Transistor:
    """n-MOSFET, its gate on a capacitor: a conductance S (G - V_T - mean voltage of its ends).

    LEVEL=1 without channel length modulation and body effect; junctions to its bulk, at
    ground, do not conduct at any voltage. Source: Dillavou et al.,
    PNAS 121, e2319718121, 2024.

    Parameters
    ----------
    transconductance : S = KP W/L [A/V^2].
    threshold : V_T [V].
    gate : its gate's voltage [V], fixed; None is an edge that learns.

    Raises InputError for a number out of range.
    """

    transconductance: float = 8.5e-4
    threshold: float = 0.7
    gate: float | None = None

    def __post_init__(self) -> None:
        _finite(self)
        if not self.transconductance > 0:
            raise InputError(f"transconductance = {self.transconductance!r} is not positive")

    @property
    def learns(self) -> bool:
        """Whether its gate is the network's to set."""
        return self.gate is None


@dataclass(frozen=True, kw_only=True)
class Resistor:
    """A conductance.

    Parameters
    ----------
    conductance : [S], 0 or more; where an edge that learns begins.
    learns : whether it is the network's to set.

    Raises InputError for a number out of range.
    """

    conductance: float = 1e-3
    learns: bool = False

    def __post_init__(self) -> None:
        _finite(self)
        if not self.conductance >= 0:
            raise InputError(f"conductance = {self.conductance!r} is negative")


@dataclass(frozen=True, kw_only=True)
class Diode:
    """A junction that conducts from a to b: I = I_s (exp(V / (n kT/q)) - 1).

    Parameters
    ----------
    saturation : I_s [A].
    emission : n; a small one is close to an ideal diode.

    Raises InputError for a number out of range.
    """

    saturation: float = 1e-12
    emission: float = 1.0

    def __post_init__(self) -> None:
        _finite(self)
        if not (self.saturation > 0 and self.emission > 0):
            raise InputError(
                f"a diode of saturation {self.saturation!r} A and emission {self.emission!r}",
                remedy="both are positive",
            )

    @property
    def learns(self) -> bool:
        """A diode never does."""
        return False

    def thermal_voltage(self, temperature: float) -> float:
        """n k T / q [V] at a temperature [K]."""
        return self.emission * BOLTZMANN_OVER_CHARGE * temperature


Element = Transistor | Resistor | Diode


def transistor_current(
    gate: Array, threshold: Array, transconductance: Array, a: Array, b: Array
) -> tuple[Array, Array, Array]:
    """Current from a to b [A] and its slopes by both voltages [S]; all arguments broadcast.

    Cut off, saturated and in triode, in either direction: the difference of one function of
    each end, S max(G - V_T - V, 0)^2 / 2.
    """
    drive = gate - threshold
    from_a, from_b = np.maximum(drive - a, 0.0), np.maximum(drive - b, 0.0)
    # The difference of the squares as a product: of two large ones it would lose a small current.
    across = np.minimum(a, drive) - np.minimum(b, drive)
    current = 0.5 * transconductance * across * (from_a + from_b)
    return current, transconductance * from_a, -transconductance * from_b


def diode_current(saturation: Array, thermal: Array, voltage: Array) -> tuple[Array, Array]:
    """Current [A] and slope [S] of junctions at a voltage [V]; all arguments broadcast."""
    top = np.log(_DIODE_LARGEST / saturation)
    reduced = voltage / thermal
    inside = np.minimum(reduced, top)
    grown = saturation * np.exp(inside)
    beyond = grown * (reduced - inside)
    return grown - saturation + beyond, grown / thermal


def _finite(element: Transistor | Resistor | Diode) -> None:
    for field in fields(element):
        value = getattr(element, field.name)
        if value is None or isinstance(value, bool):
            continue
        if not math.isfinite(value):
            raise InputError(f"{field.name} = {value!r} is not finite")
        # A NumPy number's repr is no number in a netlist.
        object.__setattr__(element, field.name, float(value))
