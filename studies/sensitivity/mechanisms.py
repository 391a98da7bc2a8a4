"""The non-idealities of the study, each alone, with a typical magnitude and its source."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import spicenn as sn

Settings = dict[str, Any]


@dataclass(frozen=True)
class Mechanism:
    """One non-ideality and its scale.

    Parameters
    ----------
    unit : of the magnitude; "bits" is the scale 2^-bits, shown as bits.
    set : technology keys at a magnitude; 0 switches it off.
    typical, source : a realistic magnitude and where it comes from.
    high : largest magnitude to try.
    exponent : the error of a current goes as magnitude ** exponent where it is small: 1/2 for
        a power, and for a share of independent cells, whose errors add in square.
    with_ : keys that hold at every magnitude, zero included.
    mapping : choices that hold at every magnitude.
    bits : the choice of the mapping that the magnitude sets, where it is a resolution.
    preset : the technology that it is studied in.
    alike : the same on every chip, so that one stands for all.
    chips : factor on their number: more where few chips have what many lose by, fewer where
        a cell's law takes Newton's method its time.
    """

    name: str
    unit: str
    set: Callable[[float], Settings]
    typical: float
    source: str
    high: float
    exponent: float = 1.0
    with_: Mapping[str, Any] = field(default_factory=dict)
    mapping: sn.Mapping = field(default_factory=sn.Mapping)
    bits: Literal["adc_bits", "input_bits", "cell_bits"] | None = None
    preset: str = "ideal"
    alike: bool = False
    chips: float = 1.0

    def show(self, x: float) -> str:
        """A magnitude as text, without its unit."""
        return f"{-math.log2(x):.2g}" if self.bits else f"{x:.3g}"


def _keys(*names: str) -> Callable[[float], Settings]:
    """Set every one of these keys to the magnitude."""
    return lambda x: dict.fromkeys(names, x)


def _none(_: float) -> Settings:
    return {}


def _drifted(x: float) -> Settings:
    return {"drift.time": _T0 * math.expm1(x)}


_ROUGH = "order of magnitude"
_AS_RRAM = f"{_ROUGH}, as preset rram-1r"
_AS_HFOX = f"{_ROUGH}, as preset hfox-1t1r"
_EIGHT = "8 bits in and out of a 64-core PCM chip: Le Gallo et al., Nat. Electron. 6, 680 (2023)"
_STUCK = (
    f"{_ROUGH}; of an early HfO2 test chip about a tenth was faulty, as quoted in Aguirre et "
    "al., Electronics 10, 2427 (2021)"
)

# σ over g_max at ρ = g/g_max, (0.26348 + 1.9650 ρ - 1.1731 ρ²) µS of 25 µS, and the exponents
# of the drift: the fit to a million PCM devices that aihwkit publishes, as in preset pcm.
_PCM = "PCM: Nandakumar et al., ICECS 2019; Joshi et al., Nat. Commun. 11, 2473 (2020)"
_PCM_SIGMA = (0.26348 / 25, 1.9650 / 25, -1.1731 / 25)
_T0 = 20.0
_PCM_DRIFT = {
    "drift.t0": _T0,
    "drift.nu": (-0.0155, 0.0244, 0.049, 0.1),
    "drift.nu_sigma": (-0.0125, -0.0059, 0.008, 0.045),
}
_YEAR = 365.25 * 86400.0

# Spectra are integrated over a bandwidth, which brings thermal noise along: the cold keeps
# it out, and nothing else of an ohmic cell without temperature coefficient knows it.
_COLD = {"bandwidth": 100e6, "temperature": 1e-6}
_ADC = sn.Mapping(adc_bits=8)
_DAC = sn.Mapping(input_bits=8)
_V0 = 0.25  # of preset rram-sinh [V]

MECHANISMS = (
    Mechanism(
        "programming error, normal", "σ / g_max", _keys("programming_error"),
        0.05, _AS_RRAM, 1.0,
    ),
    Mechanism(
        "programming error, lognormal", "σ of ln g", _keys("programming_error"),
        0.1, _ROUGH, 4.0, with_={"variation.programming_law": "lognormal"},
    ),
    Mechanism(
        "programming error, state-dependent", "× published σ(g)", _keys("programming_error"),
        1.0, _PCM, 50.0,
        with_={
            "variation.programming_law": "state-dependent",
            "variation.programming_coefficients": _PCM_SIGMA,
        },
    ),
    Mechanism(
        "cycle to cycle", "σ / g_max", _keys("variation.cycle_to_cycle"), 0.02, _ROUGH, 1.0
    ),
    Mechanism(
        "die gradient", "σ, edge to edge", _keys("variation.gradient"), 0.02, _ROUGH, 4.0
    ),
    Mechanism(
        "correlated field", "σ / g, over 8 cells", _keys("variation.correlated"),
        0.03, _ROUGH, 4.0, with_={"variation.correlation_length": 8.0},
    ),
    Mechanism("wafer", "centre to edge", _keys("variation.wafer"), 0.05, _ROUGH, 1.0),
    Mechanism(
        "stuck on", "share of cells", _keys("variation.stuck_on"), 0.01, _STUCK, 1.0, exponent=0.5
    ),
    Mechanism(
        "stuck off", "share of cells", _keys("variation.stuck_off"),
        0.01, _STUCK, 1.0, exponent=0.5,
    ),
    Mechanism(
        "dead wordlines", "share of lines", _keys("variation.dead_wordlines"),
        1e-3, _ROUGH, 1.0, exponent=0.5, chips=10.0,
    ),
    Mechanism(
        "dead bitlines", "share of lines", _keys("variation.dead_bitlines"),
        1e-3, _ROUGH, 1.0, exponent=0.5, chips=10.0,
    ),
    Mechanism(
        "cell levels", "bits", _none, 2.0**-4, f"{_ROUGH}: 16 levels", 2.0**-1, bits="cell_bits",
        alike=True,
    ),
    Mechanism(
        "cell nonlinearity", "V / V0, sinh", lambda x: {"v_read": (x or 1e-3) * _V0},
        0.8, "0.2 V over V0 = 0.25 V of the Stanford RRAM model, as preset rram-sinh", 3.0,
        exponent=2.0, preset="rram-sinh", alike=True,
    ),
    Mechanism(
        "threshold mismatch, 1T1R", "A_VT [V m]", _keys("variation.a_vt"),
        4.1e-9,
        "1 mV µm per nm of gate oxide, Pelgrom, Tuinhout, Vertregt, IEDM 1998, as preset "
        "hfox-1t1r",
        1e-6, preset="hfox-1t1r", chips=0.25,
    ),
    Mechanism(
        "gain mismatch, 1T1R", "A_β [m]", _keys("variation.a_beta"), 1e-8, _AS_HFOX, 1e-5,
        preset="hfox-1t1r", chips=0.25,
    ),
    Mechanism("drift", "ln(1 + t / 20 s)", _drifted, math.log1p(_YEAR / _T0),
        f"one year; {_PCM}", 40.0, with_=_PCM_DRIFT,
    ),
    Mechanism(
        "temperature", "K above 300 K, -0.1 %/K", lambda x: {"temperature": 300.0 + x},
        58.0, f"85 °C, the upper end of commercial parts; -0.1 %/K is an {_ROUGH}",
        900.0, with_={"conductance_tc": -1e-3}, alike=True,
    ),
    Mechanism("read noise", "σ / g", _keys("read_noise"), 0.01, _AS_RRAM, 10.0),
    Mechanism(
        "thermal noise", "bandwidth [Hz]", _keys("bandwidth"),
        100e6, f"{_ROUGH}: an array read in about 10 ns", 1e16, exponent=0.5,
    ),
    Mechanism(
        "shot noise", "Fano factor at 100 MHz", _keys("noise.shot"),
        1.0, "full shot noise: Schottky, Ann. Phys. 362, 541 (1918)", 1e8, exponent=0.5,
        with_=_COLD,
    ),
    Mechanism(
        "1/f noise", "S f / I², 1 Hz to 100 MHz", _keys("noise.flicker"),
        0.0088**2 * 3 / 1.7, f"mean over the states, as preset pcm; {_PCM}", 10.0, exponent=0.5,
        with_=_COLD,
    ),
    Mechanism(
        "telegraph noise", "ΔI / I, a trap in every cell", _keys("noise.rtn_amplitude"),
        0.1, _ROUGH, 1.0, with_={**_COLD, "noise.rtn_share": 1.0},
    ),
    Mechanism(
        "wires", "Ω per segment", _keys("r_wordline", "r_bitline"), 2.0, _AS_RRAM, 1e4,
        alike=True,
    ),
    Mechanism(
        "drivers", "Ω", _keys("periphery.driver.resistance"), 100.0, _AS_HFOX, 1e5, alike=True
    ),
    Mechanism(
        "amplifier offset", "V", _keys("periphery.tia.offset"),
        2e-3, f"{_ROUGH}: 1.8 mV for the 4.1 mV µm and 10 µm² of preset hfox-1t1r", 1.0,
    ),
    Mechanism(
        "amplifier gain", "1 / gain",
        lambda x: {"periphery.tia.gain": 1.0 / x if x else None},
        1e-3, f"{_ROUGH}: 60 dB", 1.0, alike=True,
    ),
    Mechanism(
        "ADC resolution", "bits", _none, 2.0**-8, _EIGHT, 2.0**-2, bits="adc_bits", alike=True
    ),
    Mechanism(
        "ADC INL", "LSB of 8 bits", _keys("periphery.adc.inl"), 0.5, _AS_HFOX, 100.0,
        mapping=_ADC, alike=True,
    ),
    Mechanism(
        "ADC DNL", "σ in LSB of 8 bits", _keys("periphery.adc.dnl"), 0.2, _AS_HFOX, 30.0,
        mapping=_ADC,
    ),
    Mechanism(
        "DAC resolution", "bits", _none, 2.0**-8, _EIGHT, 2.0**-2, bits="input_bits", alike=True
    ),
    Mechanism(
        "DAC INL", "LSB of 8 bits", _keys("periphery.dac.inl"), 0.5, _AS_HFOX, 100.0,
        mapping=_DAC, alike=True,
    ),
    Mechanism(
        "DAC DNL", "σ in LSB of 8 bits", _keys("periphery.dac.dnl"), 0.2, _AS_HFOX, 30.0,
        mapping=_DAC,
    ),
)  # fmt: skip
