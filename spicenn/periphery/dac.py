"""Digital-to-analog converter of a magnitude, by its levels; a sign is the driver's."""

from __future__ import annotations

from typing import Any

import numpy as np

from spicenn.arrays import as_like, is_tensor, namespace
from spicenn.errors import NetlistError
from spicenn.periphery.instance import instance, table
from spicenn.periphery.linearity import Array, check_bits, step_widths
from spicenn.technology import Converter


def levels(
    bits: int,
    spec: Converter,
    rng: np.random.Generator | None = None,
    shape: tuple[int, ...] = (),
) -> Array:
    """Outputs of converters over full scale; (*shape, 2^bits), from 0 to 1.

    A drawn step below 0, DNL < -1, makes a converter that is not monotone.

    Parameters
    ----------
    rng : draws the converters; None gives the nominal one.

    Raises InputError for more bits than a table of levels may have.
    """
    check_bits(bits, "dac")
    count = 2**bits - 1
    width = step_widths(count, spec, rng, shape)
    result = np.zeros((*shape, count + 1))
    np.cumsum(width / count, axis=-1, out=result[..., 1:])
    result[..., -1] = 1.0  # exactly; the sum is off by rounding
    return result


def dac_output(code: Any, levels: Array) -> Any:
    """Outputs of one converter over full scale.

    Parameters
    ----------
    code : of any shape; rounded to an integer, beyond the first and the last it saturates.
    levels : (level,).
    """
    xp = namespace(code)
    code = as_like(code)
    index = xp.clip(xp.round(code), 0, len(levels) - 1)
    if is_tensor(code):
        return as_like(levels, code)[index.long()]
    return levels[index.astype(np.int64)]


def dac_instance(
    name: str,
    nodes: tuple[str, str],
    bits: int,
    full_scale: float,
    spec: Converter,
    resistance: float,
) -> str:
    """Place the nominal converter, its parabola in it; nodes are code and out.

    resistance : of the output [Ω], above 0.
    """
    values = {"bits": bits, "vfs": full_scale, "inl": spec.inl, "rout": resistance}
    return instance(name, nodes, "dac", values)


def subcircuit(name: str, levels: Array, full_scale: float, resistance: float) -> str:
    """Return a converter of the given levels as ``.subckt NAME code out``; 1 V a code.

    Raises NetlistError unless there are two finite levels or more and a resistance.
    """
    if len(levels) < 2 or not np.all(np.isfinite(levels)) or not resistance > 0:
        raise NetlistError("two levels and a resistance above 0 are needed", where=name)
    points = list(enumerate((levels * full_scale).tolist()))
    last = len(levels) - 1
    return "\n".join(
        [
            f".subckt {name} code out",
            f"bsource x 0 v=pwl(min(max(floor(v(code)+0.5),0),{last}),",
            f"+ {table(points)})",
            f"rout x out {float(resistance)!r}",
            f".ends {name}\n",
        ]
    )
