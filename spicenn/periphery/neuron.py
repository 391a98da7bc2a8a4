"""Activation functions in CMOS: square-law tanh and sigmoid, a rectifier as ReLU.

Closed forms of ``netlists/tanh.lib``, ``sigmoid.lib`` and ``relu.lib``, all transistors
LEVEL=1 with lambda = gamma = 0. Inputs are of either sign and see a gate; outputs drive
the input of a ``driver``. Gradients flow through every one.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.periphery.arrays import as_like, namespace
from spicenn.periphery.instance import instance
from spicenn.technology import Neuron

Activation = Literal["relu", "tanh", "sigmoid"]


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

    With V = input_gain v + offset, A = loop_gain: the follower's square law at the gate
    voltage A (V - y), beta/2 (A (V - y) - y - threshold)² = y / load, is quadratic in
    sqrt(y). The gate goes no further than the supply, where y stays.
    """
    xp = namespace(v, offset)
    gate = spec.loop_gain * (spec.input_gain * as_like(v, offset) + offset) - spec.threshold
    root = _follower(xp.clip(gate, 0.0, None), spec.loop_gain + 1.0, spec)
    most = _follower(np.maximum(0.5 * spec.supply - spec.threshold, 0.0), 1.0, spec)
    return xp.clip(root, None, float(most)) ** 2


def _follower(gate: Any, slope: float, spec: Neuron) -> Any:
    """sqrt(y) where slope · y + sqrt(2 y / (beta · load)) = gate."""
    half = 0.5 * math.sqrt(2.0 / (spec.beta * spec.load))
    # The form without a difference of equal numbers, for gates near 0.
    return gate / (half + namespace(gate).sqrt(half * half + slope * gate))


def _pair(v: Any, spec: Neuron, offset: Any) -> Any:
    volts = spec.input_gain * as_like(v, offset) + offset
    return pair_current(volts, spec.bias_current, spec.beta)


def draw_offset(
    spec: Neuron, rng: np.random.Generator, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Offset voltages of neurons, behind the input stage [V]."""
    return spec.offset * rng.standard_normal(shape)


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
        "beta": spec.beta,
        "vt": spec.threshold,
        "rload": spec.load,
        "gain": spec.input_gain,
        "offset": offset,
    }
    if activation == "relu":
        return instance(name, nodes, activation, {**values, "loop": spec.loop_gain})
    check_headroom(activation, spec)
    return instance(name, nodes, activation, {**values, "ib": spec.bias_current})


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
