"""Transimpedance amplifier: a bitline's virtual ground, and its current as a voltage.

The model is the circuit of ``netlists/tia.lib``: output x where x + s(x) = gain (offset - v),
v the input node, from which r_feedback leads to the output, and the clamp
s(x) = ± gain v_max ((|x| / v_max - 1) / 0.001)² beyond v_max. What drives the input is a
current beside a conductance G (the bitline's cells): the noise gain N = 1 + r_feedback G is
what offsets are multiplied by and what the loop gain is divided by.

Currents into the amplifier are positive; the output is inverted.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.arrays import as_like, namespace
from spicenn.periphery.instance import instance
from spicenn.technology import Tia

# What stands for "no limit" in the circuit: errors of 1e-9, and no time of its own.
# A bandwidth that capacitances at the input could ring with would be no such thing.
_GAIN, _BANDWIDTH, _V_MAX = 1e9, 1e24, 1e6
# How far beyond v_max an input of v_max takes the output, over v_max.
_SOFTNESS = 0.001


def tia_output(
    current: Any, r_feedback: Any, spec: Tia, offset: Any = 0.0, conductance: Any = 0.0
) -> Any:
    """Settled output voltage [V].

    Parameters
    ----------
    current : short-circuit current of what drives the input [A], any shape.
    r_feedback : [Ω].
    offset : input offset voltage of every amplifier [V].
    conductance : of what drives the input [S].

    All broadcast. The circuit's equation is linear up to v_max and quadratic from there:
    with d = |x| / v_max - 1 and b = 1/gain + 1/N,
    (d / 0.001)² + b d + b = |offset - current r_feedback / N| / v_max.
    """
    xp = namespace(current, r_feedback, offset, conductance)
    current = as_like(current, r_feedback, offset, conductance)
    noise_gain = 1.0 + as_like(r_feedback * conductance, current)
    drive = offset - current * r_feedback / noise_gain
    slope = (0.0 if spec.gain is None else 1.0 / spec.gain) + 1.0 / noise_gain
    linear = drive / slope
    if spec.v_max is None:
        return linear
    excess = xp.clip(xp.abs(drive) / spec.v_max - slope, 0.0, None)
    # The form without a difference of equal numbers.
    over = 2.0 * excess / (slope + xp.sqrt(slope * slope + 4.0 * excess / _SOFTNESS**2))
    return xp.where(excess > 0.0, xp.sign(drive) * spec.v_max * (1.0 + over), linear)


def diff_tia_output(
    plus: Any,
    minus: Any,
    r_first: Any,
    r_feedback: Any,
    spec: Tia,
    offsets: tuple[Any, Any] = (0.0, 0.0),
    conductances: tuple[Any, Any] = (0.0, 0.0),
) -> Any:
    """Settled output of ``diff_tia``, r_feedback (plus - minus) but for its errors [V].

    Parameters
    ----------
    plus, minus : currents of a pair of bitlines [A].
    r_first : feedback of the first amplifier, and what leads from it to the second [Ω].
    offsets, conductances : of the first and of the second amplifier's input.
    """
    first = tia_output(plus, r_first, spec, offsets[0], conductances[0])
    return tia_output(
        minus + first / r_first, r_feedback, spec, offsets[1], conductances[1] + 1.0 / r_first
    )


def input_resistance(r_feedback: float, spec: Tia) -> float:
    """What a bitline sees below saturation, r_feedback / (1 + gain) [Ω]."""
    return 0.0 if spec.gain is None else r_feedback / (1.0 + spec.gain)


def closed_loop_bandwidth(r_feedback: float, spec: Tia, conductance: float = 0.0) -> float:
    """Bandwidth without input capacitance, GBW (1/N + 1/gain) [Hz]; infinite without a limit."""
    if spec.bandwidth is None:
        return math.inf
    noise_gain = 1.0 + r_feedback * conductance
    return spec.bandwidth * (1.0 / noise_gain + (0.0 if spec.gain is None else 1.0 / spec.gain))


def poles(
    r_feedback: float, spec: Tia, conductance: float = 0.0, capacitance: float = 0.0
) -> NDArray[np.complex128]:
    """Poles of the small-signal response [1/s], the slowest first.

    Roots of R C u s² + (R C / gain + N u) s + N / gain + 1 with u = 1 / (2π GBW).

    Parameters
    ----------
    capacitance : at the input beside the amplifier's own, the bitline's [F].
    """
    u = 0.0 if spec.bandwidth is None else 1.0 / (2.0 * math.pi * spec.bandwidth)
    inverse = 0.0 if spec.gain is None else 1.0 / spec.gain
    rc = r_feedback * (spec.c_in + capacitance)
    noise_gain = 1.0 + r_feedback * conductance
    found = np.roots([rc * u, rc * inverse + noise_gain * u, noise_gain * inverse + 1.0])
    return np.sort_complex(found.astype(np.complex128))[::-1]


def settling_time(
    tolerance: float,
    r_feedback: float,
    spec: Tia,
    conductance: float = 0.0,
    capacitance: float = 0.0,
) -> float:
    """Time after a small step until the output is within a share of it for good [s].

    Exact where there is one pole. Two poles of rate σ (the slower one's real part) leave
    at most (1 + σ t) exp(-σ t), what critical damping leaves; two real ones p < q at most
    q / (q - p) exp(-p t). The smaller bound is returned.

    Parameters
    ----------
    tolerance : between 0 and 1.
    capacitance : as for ``poles``.
    """
    found = poles(r_feedback, spec, conductance, capacitance)
    if found.size == 0:
        return 0.0
    rate = -float(found[0].real)
    if found.size == 1:
        return -math.log(tolerance) / rate
    x = -math.log(tolerance)
    for _ in range(100):  # x = ln((1 + x) / tolerance) contracts
        x = math.log((1.0 + x) / tolerance)
    if found[0].imag == 0.0 and found[1].real != found[0].real:
        fast = -float(found[1].real)
        x = min(x, math.log(fast / ((fast - rate) * tolerance)))
    return x / rate


def supply_current(current: Any, spec: Tia) -> Any:
    """Settled current out of the supply: at rest, and what goes through the feedback [A].

    Its integral times ``supply`` is the amplifier's energy.
    """
    return spec.bias_current + namespace(current).abs(current)


def tia_instance(
    name: str, nodes: tuple[str, str, str], spec: Tia, r_feedback: float, offset: float = 0.0
) -> str:
    """Place one amplifier; nodes are in, out and vdd. No limit is a very large one."""
    return instance(name, nodes, "tia", {"rf": r_feedback, "offset": offset, **_limits(spec)})


def diff_tia_instance(
    name: str,
    nodes: tuple[str, str, str, str],
    spec: Tia,
    r_first: float,
    r_feedback: float,
    offsets: tuple[float, float] = (0.0, 0.0),
) -> str:
    """Place a pair's two amplifiers; nodes are plus, minus, out and vdd."""
    values = {"r1": r_first, "rf": r_feedback, "offset1": offsets[0], "offset2": offsets[1]}
    return instance(name, nodes, "diff_tia", {**values, **_limits(spec)})


def _limits(spec: Tia) -> dict[str, float]:
    return {
        "gain": _GAIN if spec.gain is None else spec.gain,
        "gbw": _BANDWIDTH if spec.bandwidth is None else spec.bandwidth,
        "vmax": _V_MAX if spec.v_max is None else spec.v_max,
        "cin": spec.c_in,
        "ibias": spec.bias_current,
    }
