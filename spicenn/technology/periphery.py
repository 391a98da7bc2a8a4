"""Specifications of the circuits around an array, as records; ideal by default.

One record drives both the behavioural model and the circuit (``spicenn.periphery``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from spicenn.technology.checks import check_number


@dataclass(frozen=True, kw_only=True)
class Driver:
    """What puts a voltage on a wordline.

    resistance : of its output [Ω].
    """

    resistance: float = 0.0

    def __post_init__(self) -> None:
        check_number("resistance", self.resistance, 0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Converter:
    """A DAC or an ADC; its bits come from the mapping, its range from the layer.

    inl : largest deviation of its transfer curve from the straight line, a smooth bow
        [LSB].
    dnl : standard deviation of a step's width, drawn per converter and chip [LSB].
    energy : of one conversion [J], declared.
    time : of one conversion [s], declared.
    """

    inl: float = 0.0
    dnl: float = 0.0
    energy: float = 0.0
    time: float = 0.0

    def __post_init__(self) -> None:
        check_number("inl", self.inl, -math.inf, math.inf)
        for key in ("dnl", "energy", "time"):
            check_number(key, getattr(self, key), 0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Tia:
    """A transimpedance amplifier: a bitline's virtual ground.

    Parameters
    ----------
    gain : open-loop gain at zero frequency; None is infinite.
    bandwidth : unity-gain bandwidth of the amplifier [Hz]; None is infinite.
    offset : standard deviation of the input offset voltage [V], drawn per amplifier.
    v_max : largest magnitude of the output [V]; None is unbounded.
    c_in : capacitance at its input [F].
    supply : supply voltage [V].
    bias_current : supply current at rest [A].
    width, length : of the input pair's transistors [m]; with ``a_vt`` the pair adds
        √2 A_VT / √(W L) to the offset's deviation (Pelgrom 1989).
    a_vt : of its transistors [V m].
    """

    gain: float | None = None
    bandwidth: float | None = None
    offset: float = 0.0
    v_max: float | None = None
    c_in: float = 0.0
    supply: float = 1.8
    bias_current: float = 0.0
    width: float = 10e-6
    length: float = 1e-6
    a_vt: float = 0.0

    def __post_init__(self) -> None:
        for key in ("gain", "bandwidth", "v_max"):
            if getattr(self, key) is not None:
                check_number(key, getattr(self, key), 0.0, math.inf, above=True)
        for key in ("offset", "c_in", "bias_current", "a_vt"):
            check_number(key, getattr(self, key), 0.0, math.inf)
        for key in ("supply", "width", "length"):
            check_number(key, getattr(self, key), 0.0, math.inf, above=True)

    @property
    def offset_sigma(self) -> float:
        """Standard deviation of the input offset voltage, mismatch of the pair included [V]."""
        return math.hypot(self.offset, math.sqrt(2 / (self.width * self.length)) * self.a_vt)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """An activation function in CMOS.

    Parameters
    ----------
    bias_current : of the differential pair [A].
    beta : transconductance parameter of its transistors, KP W / L [A/V²].
    supply : supply voltage [V].
    offset : standard deviation of the input offset voltage [V], drawn per neuron.
    """

    bias_current: float = 10e-6
    beta: float = 1e-3
    supply: float = 1.8
    offset: float = 0.0

    def __post_init__(self) -> None:
        for key in ("bias_current", "beta", "supply"):
            check_number(key, getattr(self, key), 0.0, math.inf, above=True)
        check_number("offset", self.offset, 0.0, math.inf)


@dataclass(frozen=True, kw_only=True)
class Periphery:
    """All that surrounds the arrays of a technology."""

    driver: Driver = field(default_factory=Driver)
    dac: Converter = field(default_factory=Converter)
    adc: Converter = field(default_factory=Converter)
    tia: Tia = field(default_factory=Tia)
    neuron: Neuron = field(default_factory=Neuron)
