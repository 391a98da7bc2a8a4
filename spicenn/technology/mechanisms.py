"""What makes chips differ and reads fluctuate, as records; all of it is off by default.

Each key switches one mechanism alone. How they are drawn is in ``variation`` and
``noise``; none of them changes another's draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from spicenn.technology.checks import check_choice, check_number

ProgrammingLaw = Literal["normal", "lognormal", "state-dependent"]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How manufactured cells differ from their targets, beyond the technology's scale.

    Parameters
    ----------
    programming_law : distribution of ``Technology.programming_error`` s: ``normal`` with
        s · g_max as its deviation; ``lognormal``, the target times exp(s z - s²/2);
        ``state-dependent``, normal with s · g_max · Σ_k c_k ρ^k at ρ = target / g_max.
    programming_coefficients : the c_k.
    cycle_to_cycle : standard deviation over g_max of one programming cycle to the next.
    gradient : standard deviation of a die's linear gradient, from edge to edge, relative.
    correlated : standard deviation of a correlated field, relative to the conductance.
    correlation_length : distance in cells at which its correlation is exp(-1/2).
    wafer : relative change of the conductance from a wafer's centre to its edge, as r².
    stuck_on, stuck_off : probability of a cell that stays at g_max, or at ``G_FLOOR``.
    dead_wordlines, dead_bitlines : probability of a line whose cells are all open.
    a_vt : A_VT of the cell's transistor [V m]: σ(V_T) = A_VT / √(W L) of each one. Where a
        foundry gives that of a pair's difference, as Pelgrom did, it is √2 too large here.
    a_beta : Pelgrom's A_β [m]: σ(β) / β = A_β / √(W L).

    Raises TechnologyError naming the key, the value and the allowed range.
    """

    programming_law: ProgrammingLaw = "normal"
    programming_coefficients: tuple[float, ...] = (1.0,)
    cycle_to_cycle: float = 0.0
    gradient: float = 0.0
    correlated: float = 0.0
    correlation_length: float = 8.0
    wafer: float = 0.0
    stuck_on: float = 0.0
    stuck_off: float = 0.0
    dead_wordlines: float = 0.0
    dead_bitlines: float = 0.0
    a_vt: float = 0.0
    a_beta: float = 0.0

    def __post_init__(self) -> None:
        check_choice("programming_law", self.programming_law, get_args(ProgrammingLaw))
        for value in self.programming_coefficients:
            check_number("programming_coefficients", value, -math.inf, math.inf)
        for key in ("cycle_to_cycle", "gradient", "correlated", "a_vt", "a_beta"):
            check_number(key, getattr(self, key), 0.0, math.inf)
        check_number("correlation_length", self.correlation_length, 0.0, math.inf, above=True)
        check_number("wafer", self.wafer, -1.0, 1.0)
        for key in ("stuck_on", "stuck_off", "dead_wordlines", "dead_bitlines"):
            check_number(key, getattr(self, key), 0.0, 1.0)
        check_number("stuck_on + stuck_off", self.stuck_on + self.stuck_off, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Fluctuations of a cell's current beyond thermal noise and ``Technology.read_noise``.

    A read sees each integrated from ``low_frequency`` to ``Technology.bandwidth``; without
    a bandwidth there are none. They are about the programmed conductance, which is the
    mean of what is read.

    Parameters
    ----------
    shot : Fano factor F of the cells' shot noise, S = 2 q F |I| [A²/Hz]; 0 is none.
    flicker : relative power of 1/f noise at 1 Hz, S / I² = flicker / f [1/Hz].
    low_frequency : inverse of the time over which a chip is observed [Hz].
    rtn_share : share of cells with an active trap.
    rtn_amplitude : loss of current while the trap is filled, over the mean current.
    rtn_duty : share of time that it is filled.
    rtn_time : 1 / (1/τ_capture + 1/τ_emission) [s].

    Raises TechnologyError naming the key, the value and the allowed range.
    """

    shot: float = 0.0
    flicker: float = 0.0
    low_frequency: float = 1.0
    rtn_share: float = 0.0
    rtn_amplitude: float = 0.0
    rtn_duty: float = 0.5
    rtn_time: float = 1e-3

    def __post_init__(self) -> None:
        for key in ("shot", "flicker"):
            check_number(key, getattr(self, key), 0.0, math.inf)
        for key in ("rtn_share", "rtn_amplitude", "rtn_duty"):
            check_number(key, getattr(self, key), 0.0, 1.0)
        for key in ("low_frequency", "rtn_time"):
            check_number(key, getattr(self, key), 0.0, math.inf, above=True)


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Loss of conductance with time, g(t) = g0 ((t + t0) / t0)^-ν, ν drawn per device.

    At ρ = g_target / g_max, ν is normal with mean clip(a ln ρ + b, low, high) and a
    deviation of the same form; negative draws are taken as they are.

    Parameters
    ----------
    time : t, since programming [s]; 0 is no drift.
    t0 : time of the reference read [s].
    nu : (a, b, low, high) of the mean; all zero is no drift.
    nu_sigma : (a, b, low, high) of the standard deviation.

    Source of the form: Nandakumar et al., ICECS 2019; Joshi et al., Nature Communications
    11, 2473 (2020), as in aihwkit's PCM model.

    Raises TechnologyError naming the key, the value and the allowed range.
    """

    time: float = 0.0
    t0: float = 20.0
    nu: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    nu_sigma: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        check_number("time", self.time, 0.0, math.inf)
        check_number("t0", self.t0, 0.0, math.inf, above=True)
        for key in ("nu", "nu_sigma"):
            values = getattr(self, key)
            check_number(f"length of {key}", len(values), 4, 4)
            for value in values:
                check_number(key, value, -math.inf, math.inf)
            check_number(f"{key}'s low", values[2], -math.inf, values[3])
