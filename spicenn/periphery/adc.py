"""Analog-to-digital converter: signed, mid-tread, by its transition levels.

With b bits it gives the codes -2^(b-1) … 2^(b-1) - 1; code k begins at (k - ½) LSB. Below
the first and above the last transition it saturates.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from spicenn.arrays import as_like, is_tensor, namespace
from spicenn.errors import NetlistError
from spicenn.periphery.instance import instance
from spicenn.periphery.linearity import Array, check_bits, step_widths
from spicenn.technology import Converter


def transitions(
    bits: int, lsb: float, spec: Converter, rng: np.random.Generator | None = None
) -> Array:
    """Inputs at which one converter's code changes; (2^bits - 1,), never decreasing.

    A drawn width below 0 is 0: an ADC misses that code (its DNL is -1) and the others
    make room, its codes stay in order.

    Parameters
    ----------
    lsb : mean width of a code, in the unit of the input.
    rng : draws the converter; None gives the nominal one.

    Raises InputError for more bits than a table of levels may have.
    """
    check_bits(bits, "adc")
    count = 2**bits - 2  # codes between the first and the last transition
    width = np.maximum(step_widths(count, spec, rng), 0.0)
    width = width * (count / width.sum()) if width.size else width
    first = -(2.0 ** (bits - 1)) + 0.5
    return np.concatenate([[first], first + np.cumsum(width)]) * lsb


def codes(v: Any, levels: Array) -> Any:
    """Codes of inputs of any shape, at one converter's transition levels; integers."""
    v = as_like(v)
    lowest = -(len(levels) + 1) // 2
    if is_tensor(v):
        return namespace(v).searchsorted(as_like(levels, v), v.detach(), side="right") + lowest
    return np.searchsorted(levels, v, side="right") + lowest


def adc_instance(name: str, nodes: tuple[str, str], bits: int, lsb: float) -> str:
    """Place the linear converter; nodes are in and code."""
    return instance(name, nodes, "adc", {"bits": bits, "lsb": lsb})


def subcircuit(name: str, levels: Array) -> str:
    """Return a flash converter of the given transition levels as ``.subckt NAME in code``.

    One comparator a level (``adc_level`` in ``netlists/adc.lib``); 1 V a code.
    Raises NetlistError unless the levels are finite and there is an odd number of them.
    """
    if len(levels) % 2 == 0 or not np.all(np.isfinite(levels)):
        raise NetlistError("2^bits - 1 finite transition levels are needed", where=name)
    lines = [
        instance(f"level_{k}", ("in", "code"), "adc_level", {"t": t})
        for k, t in enumerate(levels.tolist())
    ]
    return "\n".join(
        [
            f".subckt {name} in code",
            *lines,
            "* the lowest code, and 1 V for every ampere of the thermometer",
            f"ilowest code 0 {(len(levels) + 1) // 2}",
            "rsum code 0 1",
            f".ends {name}\n",
        ]
    )
