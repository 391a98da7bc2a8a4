"""Numbers to voltages and currents to numbers: what the drivers and converters do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.mapping import Mapping
from spicenn.compiler.tiling import bias_rows, slice_weights
from spicenn.technology import Technology

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Drive:
    """Pulses that carry one batch of inputs.

    fraction : (pulse, ..., row) of v_read on every wordline, bias rows last.
    weight : (pulse,) of each pulse's result in the sum.
    offset : what an offset drive adds to every input, over the input scale.
    """

    fraction: Array
    weight: Array
    offset: float


def encode(x: Array, layer: Layer, mapping: Mapping, technology: Technology) -> Drive:
    """Turn a layer's inputs into pulses.

    Parameters
    ----------
    x : (..., input) in the model's units; beyond the input scale it saturates.
    """
    low = -1.0 if layer.signed else 0.0
    u = np.clip(x / layer.input_scale, low, 1.0)
    offset = 0.0
    phases, signs = [u], [1.0]
    if layer.signed and technology.drive == "two-phase":
        phases, signs = [np.maximum(u, 0.0), np.maximum(-u, 0.0)], [1.0, -1.0]
    elif layer.signed and technology.drive == "offset":
        phases, signs, offset = [(u + 1.0) / 2.0], [2.0], 1.0
    count = bias_rows(layer, mapping)
    fractions: list[Array] = []
    weights: list[float] = []
    for phase, sign in zip(phases, signs, strict=True):
        # The bias is driven once, in the first phase, at full scale over the phase's weight.
        drive = 1.0 / abs(sign) if sign > 0 else 0.0
        rows = np.full((*phase.shape[:-1], count), drive)
        for digit, weight in _pulses(
            np.concatenate([phase, rows], axis=-1), layer, mapping, technology
        ):
            fractions.append(digit)
            weights.append(sign * weight)
    return Drive(np.stack(fractions), np.array(weights), offset)


def _pulses(
    u: Array, layer: Layer, mapping: Mapping, technology: Technology
) -> list[tuple[Array, float]]:
    """Split fractions in [-1, 1] into pulses and their weights."""
    if mapping.input_bits is None:
        return [(u, 1.0)]
    bits, levels = _resolution(mapping.input_bits, layer, technology)
    size = min(mapping.dac_bits or bits, bits)
    integer = np.rint(np.abs(u) * levels).astype(np.int64)
    result = []
    for pulse in range(math.ceil(bits / size)):
        digit = (integer >> (pulse * size)) & (2**size - 1)
        full = 2**size - 1
        result.append((np.sign(u) * digit / full, full * 2.0 ** (pulse * size) / levels))
    return result


def _resolution(input_bits: int, layer: Layer, technology: Technology) -> tuple[int, int]:
    """Bits of a driven magnitude, and the levels above zero that it takes."""
    offset = layer.signed and technology.drive == "offset"
    # A sign takes one bit where the wordline carries it; phases and offsets drive magnitudes.
    bits = input_bits - 1 if layer.signed and not offset else input_bits
    # An even number of steps puts an offset drive's zero on a level.
    return bits, 2**bits - 1 - offset


def driven(x: torch.Tensor, layer: Layer, mapping: Mapping, technology: Technology) -> torch.Tensor:
    """Return the inputs that the pulses of ``encode`` add up to, in the model's units.

    The gradient stops where an input saturates and takes rounding as straight through.

    Parameters
    ----------
    x : of any shape, on any device.
    """
    scale = layer.input_scale
    clipped = x.clamp(-scale if layer.signed else 0.0, scale)
    if mapping.input_bits is None:
        return clipped
    _, levels = _resolution(mapping.input_bits, layer, technology)
    # In double precision, as encode: next to a tie single precision would round elsewhere.
    u = clipped.detach().double() / scale
    if layer.signed and technology.drive == "offset":
        value = ((u + 1.0) / 2.0 * levels).round() * (2.0 / levels) - 1.0
    else:
        value = (u * levels).round() / levels
    value = (value * scale).to(x.dtype)
    return clipped + (value - clipped.detach()) if clipped.requires_grad else value


def convert(difference: Array, layer: Layer, mapping: Mapping) -> Array:
    """Quantise differential currents, given over v_read (g_max - g_min), as the ADC does.

    A uniform mid-tread converter of ``adc_bits`` over ± current_scale that saturates;
    in two's complement the negative side reaches one step further.
    """
    if mapping.adc_bits is None:
        return difference
    top = 2 ** (mapping.adc_bits - 1) - 1
    step = layer.current_scale / top
    return np.asarray(np.clip(np.rint(difference / step), -top - 1, top) * step)


def combine(difference: Array, drive_weight: Array, layer: Layer, mapping: Mapping) -> Array:
    """Sum converted differences over slices and pulses into outputs in units of full range.

    Parameters
    ----------
    difference : (..., pulse, output · slice), differential currents over
        v_read (g_max - g_min), not yet converted.
    drive_weight : (pulse,).

    Returns
    -------
    (..., output).
    """
    outputs = difference.shape[-1] // mapping.slices
    shape = (*difference.shape[:-1], outputs, mapping.slices)
    converted = convert(difference, layer, mapping).reshape(shape)
    return np.asarray(
        np.einsum("...pos,p,s->...o", converted, drive_weight, slice_weights(mapping))
    )
