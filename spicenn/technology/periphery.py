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
    supply : supply voltage [V]; pays what the wordline takes.
    bias_current : supply current at rest [A].
    """

    resistance: float = 0.0
    supply: float = 1.8
    bias_current: float = 0.0

    def __post_init__(self) -> None:
        for key in ("resistance", "bias_current"):
            check_number(key, getattr(self, key), 0.0, math.inf)
        check_number("supply", self.supply, 0.0, math.inf, above=True)


@dataclass(frozen=True, kw_only=True)
class Converter:
    """A DAC or an ADC; its bits come from the mapping, its range from the layer.

    Gain and offset errors are those of its analog side: before an ADC's steps, behind a
    DAC's and its driver's sign. One without bits in the mapping has no steps, and has them.

    inl : largest deviation of its transfer curve from the straight line through its end
        points, a parabola [LSB].
    dnl : standard deviation of a step's width, drawn per converter and chip [LSB].
    gain : standard deviation of its relative gain error, drawn per converter and chip.
    offset : standard deviation of its offset over full scale, drawn per converter and chip.
    energy : of one conversion [J], declared.
    time : of one conversion [s], declared.
    """

    inl: float = 0.0
    dnl: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    energy: float = 0.0
    time: float = 0.0

    def __post_init__(self) -> None:
        check_number("inl", self.inl, -math.inf, math.inf)
        for key in ("dnl", "gain", "offset", "energy", "time"):
            check_number(key, getattr(self, key), 0.0, math.inf)

    @property
    def is_linear(self) -> bool:
        """True where every step has the same width."""
        return self.inl == 0.0 and self.dnl == 0.0

    @property
    def is_accurate(self) -> bool:
        """True where neither gain nor offset differ from converter to converter."""
        return self.gain == 0.0 and self.offset == 0.0


def _pair_offset(spec: Tia | Neuron | Comparator) -> float:
    """An offset of its own beside what a pair's mismatch adds, √2 A_VT / √(W L) (Pelgrom 1989)."""
    return math.hypot(spec.offset, math.sqrt(2 / (spec.width * spec.length)) * spec.a_vt)


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
    r_feedback : feedback resistor [Ω]; None has every tile's sized so that its largest
        bitline current, targets at full drive, takes the output to ``v_max`` (1 V
        without one).
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
    r_feedback: float | None = None
    supply: float = 1.8
    bias_current: float = 0.0
    width: float = 10e-6
    length: float = 1e-6
    a_vt: float = 0.0

    def __post_init__(self) -> None:
        for key in ("gain", "bandwidth", "v_max", "r_feedback"):
            if getattr(self, key) is not None:
                check_number(key, getattr(self, key), 0.0, math.inf, above=True)
        for key in ("offset", "c_in", "bias_current", "a_vt"):
            check_number(key, getattr(self, key), 0.0, math.inf)
        for key in ("supply", "width", "length"):
            check_number(key, getattr(self, key), 0.0, math.inf, above=True)

    @property
    def offset_sigma(self) -> float:
        """Standard deviation of the input offset voltage, mismatch of the pair included [V]."""
        return _pair_offset(self)

    @property
    def is_ideal(self) -> bool:
        """True where a settled output is the current times the resistor, whatever the chip."""
        return self.gain is None and self.v_max is None and self.offset_sigma == 0.0


@dataclass(frozen=True, kw_only=True)
class SampleHold:
    """A switch onto a hold capacitor.

    resistance : of the closed switch [Ω].
    capacitance : of the hold capacitor [F].
    leakage : constant current out of the capacitor while it holds [A].
    """

    resistance: float = 1e3
    capacitance: float = 1e-12
    leakage: float = 0.0

    def __post_init__(self) -> None:
        for key in ("resistance", "capacitance"):
            check_number(key, getattr(self, key), 0.0, math.inf, above=True)
        check_number("leakage", self.leakage, -math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Comparator:
    """Two voltages in, which one is larger out.

    gain : slope of the output at the threshold.
    offset : standard deviation of the input offset voltage [V], drawn per comparator.
    v_high : output when tripped [V]; 0 V otherwise.
    delay : time constant of the output's one pole [s].
    resistance : of its output [Ω].
    supply : supply voltage [V].
    bias_current : supply current at rest [A].
    width, length, a_vt : as of ``Tia``.
    """

    gain: float = 1e4
    offset: float = 0.0
    v_high: float = 1.8
    delay: float = 1e-9
    resistance: float = 1e3
    supply: float = 1.8
    bias_current: float = 0.0
    width: float = 10e-6
    length: float = 1e-6
    a_vt: float = 0.0

    def __post_init__(self) -> None:
        for key in ("gain", "v_high", "delay", "resistance", "supply", "width", "length"):
            check_number(key, getattr(self, key), 0.0, math.inf, above=True)
        for key in ("offset", "bias_current", "a_vt"):
            check_number(key, getattr(self, key), 0.0, math.inf)

    @property
    def offset_sigma(self) -> float:
        """Standard deviation of the input offset voltage, mismatch of the pair included [V]."""
        return _pair_offset(self)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """An activation function in CMOS, between supplies of ± half the supply voltage.

    Parameters
    ----------
    bias_current : of the differential pair, or of the ReLU's transconductor at rest [A].
    beta : transconductance parameter of its transistors, KP W / L [A/V²].
    threshold : magnitude of their threshold voltages [V].
    load : resistor that turns the output current into a voltage [Ω].
    input_gain : of the stage before the pair.
    supply : supply voltage [V].
    offset : standard deviation of the input offset voltage [V], drawn per neuron.
    width, length, a_vt : as of ``Tia``, for the pair or the transconductor's input.
    """

    bias_current: float = 10e-6
    beta: float = 1e-3
    threshold: float = 0.4
    load: float = 10e3
    input_gain: float = 1.0
    supply: float = 1.8
    offset: float = 0.0
    width: float = 10e-6
    length: float = 1e-6
    a_vt: float = 0.0

    def __post_init__(self) -> None:
        for key in (
            "bias_current", "beta", "threshold", "load", "input_gain", "supply", "width", "length",
        ):  # fmt: skip
            check_number(key, getattr(self, key), 0.0, math.inf, above=True)
        for key in ("offset", "a_vt"):
            check_number(key, getattr(self, key), 0.0, math.inf)

    @property
    def offset_sigma(self) -> float:
        """Standard deviation of the input offset voltage, mismatch of the pair included [V]."""
        return _pair_offset(self)


@dataclass(frozen=True, kw_only=True)
class Periphery:
    """All that surrounds the arrays of a technology."""

    driver: Driver = field(default_factory=Driver)
    dac: Converter = field(default_factory=Converter)
    adc: Converter = field(default_factory=Converter)
    tia: Tia = field(default_factory=Tia)
    sample_hold: SampleHold = field(default_factory=SampleHold)
    comparator: Comparator = field(default_factory=Comparator)
    neuron: Neuron = field(default_factory=Neuron)
