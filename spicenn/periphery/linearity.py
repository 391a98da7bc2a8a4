"""What INL and DNL are: how a converter's steps are drawn and how they are measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.technology import Converter

Array = NDArray[np.float64]

# A table of more levels than 2**20 fills memory before it says anything.
MOST_BITS = 20


def check_bits(bits: int, where: str) -> None:
    """Raise InputError unless a converter of so many bits can have a table of levels."""
    if not 1 <= bits <= MOST_BITS:
        raise InputError(
            f"a converter of {bits} bits has no table of its levels",
            where=where,
            remedy=f"use 1 to {MOST_BITS} bits, or a linear converter (inl = dnl = 0)",
        )


def step_widths(
    count: int,
    spec: Converter,
    rng: np.random.Generator | None = None,
    shape: tuple[int, ...] = (),
) -> Array:
    """Width of every step of a converter between its end points [LSB]; they add up to count.

    A parabola bends the transfer curve by ``inl`` at its middle. Widths vary about it
    independently, as those of a resistor string do; what they add up to is taken out, since
    end points carry no nonlinearity, and their deviation kept at ``dnl``. So the curve
    wanders between its ends like a Brownian bridge, by up to about dnl √count / 2.

    Parameters
    ----------
    rng : draws the converters; None gives the nominal one.
    shape : of the converters drawn.

    Returns
    -------
    (*shape, count); a step below 0 goes backwards.
    """
    t = np.linspace(0.0, 1.0, count + 1)
    bow = t * (1.0 - t)
    peak = bow.max(initial=0.0)
    width = 1.0 + (np.diff(bow) * (spec.inl / peak) if peak > 0 else np.zeros(count))
    if rng is None or spec.dnl == 0.0:
        return np.broadcast_to(width, (*shape, count))
    z = rng.standard_normal((*shape, count))
    if count < 2:  # one step is its own end points
        return width + 0.0 * z
    z -= z.mean(axis=-1, keepdims=True)
    return np.asarray(width + spec.dnl * np.sqrt(count / (count - 1)) * z)


def end_point(levels: Array) -> tuple[Array, Array]:
    """Measure DNL and INL of levels or transition levels by the end-point method.

    Parameters
    ----------
    levels : (..., level), two at least; of an ADC the transition levels.

    Returns
    -------
    DNL (..., level - 1) of every step and INL (..., level), in LSB of the line through
    the first and the last. Source: IEEE Std 1241-2010, terminal-based linearity.
    """
    levels = np.asarray(levels, dtype=np.float64)
    count = levels.shape[-1] - 1
    first = levels[..., :1]
    lsb = (levels[..., -1:] - first) / count
    return np.diff(levels, axis=-1) / lsb - 1.0, (levels - first) / lsb - np.arange(count + 1)
