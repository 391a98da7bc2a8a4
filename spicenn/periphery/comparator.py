"""Comparator: offset, finite gain and one pole (``netlists/comparator.lib``)."""

from __future__ import annotations

import math
from typing import Any

from spicenn.arrays import as_like, namespace
from spicenn.periphery.instance import instance
from spicenn.technology import Comparator


def comparator_output(plus: Any, minus: Any, spec: Comparator, offset: Any = 0.0) -> Any:
    """Settled output [V], v_high / 2 (1 + tanh(2 gain (plus - minus - offset) / v_high))."""
    xp = namespace(plus, minus, offset)
    over = as_like(plus - minus - offset)
    return 0.5 * spec.v_high * (1.0 + xp.tanh(2.0 * spec.gain / spec.v_high * over))


def decision_time(spec: Comparator, overdrive: float = math.inf) -> float:
    """Time from a step of the input until the output is half way up, from 0 V [s].

    The pole's response to the settled output; τ ln 2 for a large overdrive [V], endless
    for none.
    """
    final = math.tanh(2.0 * spec.gain / spec.v_high * overdrive)
    return math.inf if final <= 0 else -spec.delay * math.log1p(-1.0 / (1.0 + final))


def comparator_instance(
    name: str, nodes: tuple[str, str, str, str], spec: Comparator, offset: float = 0.0
) -> str:
    """Place one; nodes are plus, minus, out and vdd."""
    values = {
        "gain": spec.gain,
        "offset": offset,
        "vhigh": spec.v_high,
        "tau": spec.delay,
        "rout": spec.resistance,
        "ibias": spec.bias_current,
    }
    return instance(name, nodes, "comparator", values)
