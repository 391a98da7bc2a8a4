"""Laws of cells with a transistor whose gate is referred to the ground.

All are ngspice's LEVEL=1 model (Shichman and Hodges, IEEE J. Solid-State Circuits 3,
285, 1968) with gamma = 0 and lambda = 0, which conducts both ways: with the overdrives
p = (O - b)₊ at the bitline's end of the channel and q = (O - x)₊ at the other, whose
voltage is x,

    i = β/2 (p² - q²)

β and the threshold follow the temperature as they do in ngspice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from scipy.constants import Boltzmann, elementary_charge

from spicenn.arrays import namespace
from spicenn.kirchhoff.laws import check_values

# Where KP and VTO are given [K]: tnom of the models in ``netlists``.
NOMINAL_TEMPERATURE = 300.0
# ngspice's own reference, and its default of PHI.
_REFERENCE = 300.15
_PHI = 0.6


def transconductance_factor(temperature: float) -> float:
    """What a temperature [K] does to KP: mobility falls as T^-1.5."""
    return float((temperature / NOMINAL_TEMPERATURE) ** -1.5)


def threshold_shift(temperature: float) -> float:
    """What a temperature [K] adds to the threshold [V]: half of the changes of gap and PHI.

    About -1 mV/K. As ``MOS1temp`` of ngspice for a channel without body effect, after
    Vladimirescu and Liu, UCB/ERL M80/7 (1980).
    """

    def gap(kelvin: float) -> float:
        return 1.16 - 7.02e-4 * kelvin**2 / (kelvin + 1108.0)

    def shift(kelvin: float) -> float:
        thermal = kelvin * Boltzmann / elementary_charge
        reference = _REFERENCE * Boltzmann / elementary_charge
        exponent = 1.1150877 / (2 * reference) - gap(kelvin) / (2 * thermal)
        return float(-2 * thermal * (1.5 * math.log(kelvin / _REFERENCE) + exponent))

    at_reference = (_PHI - shift(NOMINAL_TEMPERATURE)) * _REFERENCE / NOMINAL_TEMPERATURE
    phi = temperature / _REFERENCE * at_reference + shift(temperature)
    return 0.5 * (gap(NOMINAL_TEMPERATURE) - gap(temperature)) + 0.5 * (phi - _PHI)


@dataclass(frozen=True)
class Rram1T1R:
    """A resistor g from the wordline, then the channel of its access transistor.

    The law of the cell ``rram_1t1r`` in ``netlists``: O = vgate - V_T and g (w - x) = i at
    the wordline's voltage w = u + b. With k = g / β and m = p² + 2 k (O - w), the current
    through both leaves

        q = m₊ / (k + √(k² + m₊))

    at the resistor's end, and none, q = 0, in saturation.

    Parameters
    ----------
    vgate : voltage of the gate [V].
    vto : threshold voltage at 300 K [V].
    kp : transconductance parameter at 300 K [A/V²].
    w, l : width and length of the channel [m].
    dvt : a cell's own addition to the threshold [V].
    beta : a cell's own factor on kp w / l.
    temperature : [K].
    """

    vgate: Any = 1.8
    vto: Any = 0.45
    kp: Any = 300e-6
    w: Any = 0.6e-6
    l: Any = 0.18e-6  # noqa: E741
    dvt: Any = 0.0
    beta: Any = 1.0
    temperature: float = NOMINAL_TEMPERATURE

    def __post_init__(self) -> None:
        check_values(
            self,
            positive=("kp", "w", "l", "beta", "temperature"),
            finite=("vgate", "vto", "dvt"),
        )

    def current(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        p, q, k = self._overdrives(u, g, b)
        # In triode the difference of the squares is written without taking it.
        triode = g * u * (p + q) / _nonzero(p + 2 * k + q)
        squares = 0.5 * self._strength() * (p * p - q * q)
        return namespace(u).where((p > 0) & (q > 0), triode, squares)

    def slope(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        _, q, k = self._overdrives(u, g, b)
        return g * q / _nonzero(k + q)

    def transconductance(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        p, q, k = self._overdrives(u, g, b)
        return g * (q - p) / _nonzero(k + q)

    def sensitivity(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        p, q, k = self._overdrives(u, g, b)
        across = namespace(u).where(
            p > 0, u * (p + q) / _nonzero(p + 2 * k + q), -0.5 * q * q / _nonzero(k)
        )
        return across * q / _nonzero(k + q)

    def _strength(self) -> Any:
        """β [A/V²]."""
        return self.beta * (self.kp * transconductance_factor(self.temperature) * self.w / self.l)

    def _overdrives(self, u: Any, g: Any, b: Any) -> tuple[Any, Any, Any]:
        """p, q and k [V]."""
        xp = namespace(u)
        k = g / self._strength()
        over = self.vgate - (self.vto + threshold_shift(self.temperature)) - self.dvt - b
        p = xp.clip(over, 0.0, None)
        m = xp.clip(p * p + 2 * k * (over - u), 0.0, None)
        return p, m / _nonzero(k + xp.sqrt(k * k + m)), k


@dataclass(frozen=True)
class Fefet:
    """A channel whose programmed threshold makes its conductance at 0 V and 300 K be g.

    The law of the cell ``fefet`` in ``netlists``: x is the wordline's voltage, and
    O = g / β - dvt at 300 K. It saturates at u = O: small g at smaller voltages.

    Parameters
    ----------
    kp, w, l, dvt, beta, temperature : as ``Rram1T1R``. What is programmed is g: beta
        changes how far the current stays linear, not its slope at 0 V.
    vread : voltage of the gate [V]; the threshold is programmed relative to it.
    """

    kp: Any = 100e-6
    w: Any = 0.2e-6
    l: Any = 0.2e-6  # noqa: E741
    vread: Any = 1.0
    dvt: Any = 0.0
    beta: Any = 1.0
    temperature: float = NOMINAL_TEMPERATURE

    def __post_init__(self) -> None:
        check_values(
            self, positive=("kp", "w", "l", "beta", "temperature"), finite=("vread", "dvt")
        )

    def current(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        p, q = self._overdrives(u, g, b)
        return 0.5 * self._strength() * self._drop(u, p, q) * (p + q)

    def slope(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        return self._strength() * self._overdrives(u, g, b)[1]

    def transconductance(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        p, q = self._overdrives(u, g, b)
        return self._strength() * (q - p)

    def sensitivity(self, u: Any, g: Any, b: Any) -> Any:
        """See ``GatedLaw``."""
        p, q = self._overdrives(u, g, b)
        return transconductance_factor(self.temperature) * self._drop(u, p, q)

    def _strength(self) -> Any:
        """β [A/V²] at the temperature."""
        return self._nominal() * transconductance_factor(self.temperature)

    def _nominal(self) -> Any:
        return self.beta * (self.kp * self.w / self.l)

    def _overdrives(self, u: Any, g: Any, b: Any) -> tuple[Any, Any]:
        xp = namespace(u)
        over = g / self._nominal() - threshold_shift(self.temperature) - self.dvt - b
        return xp.clip(over, 0.0, None), xp.clip(over - u, 0.0, None)

    @staticmethod
    def _drop(u: Any, p: Any, q: Any) -> Any:
        """p - q, in triode without taking the difference."""
        return namespace(u).where((p > 0) & (q > 0), u, p - q)


def _nonzero(x: Any) -> Any:
    """x, and 1 where it is 0: there the numerator is 0 as well."""
    return namespace(x).where(x > 0, x, 1.0)
