"""Activation functions in CMOS: square-law tanh and sigmoid, a mirror as ReLU.

Closed forms of ``netlists/tanh.lib``, ``sigmoid.lib`` and ``relu.lib``, all transistors
LEVEL=1 with lambda = gamma = 0. Inputs are of either sign and see a gate; outputs drive
the input of a ``driver``. Gradients flow through every one.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from spicenn.arrays import as_like, namespace
from spicenn.errors import InputError
from spicenn.periphery.instance import instance
from spicenn.technology import Neuron

Activation = Literal["relu", "tanh", "sigmoid"]

# A square root has no slope at 0.
_LEAST = 1e-12


def pair_current(v: Any, bias_current: float, beta: float) -> Any:
    """Difference of the currents of a differential pair [A] at the input voltage v [V].

    beta / 2 v sqrt(4 bias_current / beta - v²) up to |v| = sqrt(2 bias_current / beta),
    where one side has all the current. Source: Gray, Hurst, Lewis, Meyer, Analysis and
    Design of Analog Integrated Circuits, section 3.5.3.
    """
    xp = namespace(v)
    limit = math.sqrt(2.0 * bias_current / beta)
    inside = xp.clip(as_like(v), -limit, limit)
    return 0.5 * beta * inside * xp.sqrt(4.0 * bias_current / beta - inside * inside)


def tanh_output(v: Any, spec: Neuron, offset: Any = 0.0) -> Any:
    """Output of the tanh neuron [V], ± load · bias_current at most.

    Over V0 = sqrt(bias_current / beta) the pair's law is u sqrt(1 - u²/4): tanh's slope at
    0, 1 from u = sqrt(2) on, and away from tanh(u) by at most 0.1275, at u = 1.25.
    """
    return spec.load * _pair(v, spec, offset)


def sigmoid_output(v: Any, spec: Neuron, offset: Any = 0.0) -> Any:
    """Output of the sigmoid neuron [V], from 0 to load · bias_current.

    It stands for the logistic function of 2 u, u as in ``tanh_output``, and leaves it by at
    most 0.0638 of its range.
    """
    return 0.5 * spec.load * (spec.bias_current + _pair(v, spec, offset))


def relu_output(v: Any, spec: Neuron, offset: Any = 0.0) -> Any:
    """Output of the ReLU neuron [V].

    V = input_gain v + offset where it is positive, until the mirror's output transistor
    leaves saturation: with w = supply/2 - y below its overdrive o = sqrt(2 V / (beta load))
    y / load = beta (o w - w²/2), quadratic in w.
    """
    xp = namespace(v, offset)
    rectified = xp.clip(spec.input_gain * as_like(v, offset) + offset, 0.0, None)
    top, strength = 0.5 * spec.supply, spec.beta * spec.load
    overdrive = xp.sqrt(2.0 / strength * xp.clip(rectified, _LEAST, None))
    slope = 1.0 + strength * overdrive
    # The form without a difference of equal numbers; below the bend it is not used.
    root = xp.sqrt(xp.clip(slope * slope - 2.0 * strength * top, _LEAST, None))
    bent = top - 2.0 * top / (slope + root)
    return xp.where(top - rectified >= overdrive, rectified, bent)


def relu_range(spec: Neuron) -> float:
    """Output up to which the ReLU is linear [V]; from there on it bends towards its supply.

    There supply/2 - y is the overdrive sqrt(2 y / (beta load)) of the mirror's output.
    """
    half = math.sqrt(0.5 / (spec.beta * spec.load))
    # The form without a difference of equal numbers.
    top = 0.5 * spec.supply
    return (top / (half + math.sqrt(half * half + top))) ** 2


def _pair(v: Any, spec: Neuron, offset: Any) -> Any:
    volts = spec.input_gain * as_like(v, offset) + offset
    return pair_current(volts, spec.bias_current, spec.beta)


def neuron_instance(
    name: str,
    nodes: tuple[str, str, str, str],
    activation: Activation,
    spec: Neuron,
    offset: float = 0.0,
) -> str:
    """Place one; nodes are in, out, vdd and vss, supplies of ± half the supply voltage.

    Raises InputError where the supply leaves a transistor of the pair no room to saturate,
    so that the closed form would not hold.
    """
    values = {
        "ib": spec.bias_current,
        "beta": spec.beta,
        "vt": spec.threshold,
        "rload": spec.load,
        "gain": spec.input_gain,
        "offset": offset,
    }
    if activation != "relu":
        check_headroom(activation, spec)
    return instance(name, nodes, activation, values)


def check_headroom(activation: Activation, spec: Neuron) -> None:
    """Raise InputError unless every transistor of a pair saturates over its whole output."""
    overdrive = math.sqrt(2.0 * spec.bias_current / spec.beta)
    half, swing = 0.5 * spec.supply, spec.load * spec.bias_current
    needs = [
        (spec.threshold + 2.0 * overdrive, half, "the tail needs half a supply of"),
        (swing + overdrive, half, "the output needs half a supply of"),
    ]
    if activation == "tanh":
        needs.append((swing, spec.threshold, "the output's swing needs a threshold of"))
    for need, has, what in needs:
        if need > has:
            raise InputError(
                f"{what} {need:.3g} V and has {has:.3g} V",
                where=f"neuron {activation}",
                remedy="raise the supply or lower bias_current, load or the overdrive",
            )
