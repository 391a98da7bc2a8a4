"""Numbers to voltages and currents to numbers: what the drivers and converters do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.mapping import Mapping
from spicenn.compiler.tiling import bias_rows, slice_weights
from spicenn.errors import InputError
from spicenn.periphery import adc, dac
from spicenn.technology import Converter, Technology

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


# What draws the converters of one chip, one generator per chip.
Generators = Sequence[np.random.Generator]

_LINEAR = Converter()


def encode(
    x: Array,
    layer: Layer,
    mapping: Mapping,
    technology: Technology,
    chips: Generators | None = None,
) -> Drive:
    """Turn a layer's inputs into pulses.

    With ``input_bits`` every wordline has a converter of magnitudes, all of its pulses'
    (``Technology.periphery.dac``); a sign is the driver's, which reverses the voltage.

    Parameters
    ----------
    x : (..., input) in the model's units; beyond the input scale it saturates.
    chips : draw the converters' steps; x is then (chip or 1, ..., input) and the pulses
        are (pulse, chip, ..., row). None has nominal converters.

    Raises InputError where a pulse has more bits than a table of levels may have.
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
    transfer = _transfer(layer, mapping, technology, x.shape[-1] + count, chips)
    for phase, sign in zip(phases, signs, strict=True):
        # The bias is driven once, in the first phase, at full scale over the phase's weight.
        drive = 1.0 / abs(sign) if sign > 0 else 0.0
        rows = np.full((*phase.shape[:-1], count), drive)
        for digit, weight in _pulses(
            np.concatenate([phase, rows], axis=-1), layer, mapping, technology, transfer
        ):
            fractions.append(digit)
            weights.append(sign * weight)
    return Drive(np.stack(fractions), np.array(weights), offset)


def _transfer(
    layer: Layer,
    mapping: Mapping,
    technology: Technology,
    rows: int,
    chips: Generators | None,
) -> Sequence[Array] | None:
    """Levels (row, level) of every chip's DACs, or of all chips' alike; None if linear."""
    spec = technology.periphery.dac
    if mapping.input_bits is None or spec.is_linear:
        return None
    size = _pulse_bits(mapping, layer, technology)
    if chips is None or spec.dnl == 0.0:
        return [dac.levels(size, spec, shape=(rows,))]
    return [dac.levels(size, spec, rng, (rows,)) for rng in chips]


def _pulse_bits(mapping: Mapping, layer: Layer, technology: Technology) -> int:
    """Bits of a magnitude that one pulse carries."""
    assert mapping.input_bits is not None
    bits, _ = resolution(mapping.input_bits, layer, technology)
    return min(mapping.dac_bits or bits, bits)


def _converted(code: NDArray[np.int64], sign: Array, transfer: Sequence[Array]) -> Array:
    """Signed magnitudes through every chip's converters; a chip axis where they differ."""
    if len(transfer) == 1:
        (levels,) = transfer
        return np.asarray(sign * levels[np.arange(code.shape[-1]), code])
    result = np.empty((len(transfer), *code.shape[1:]))
    for chip, levels in enumerate(transfer):
        own = chip if len(code) > 1 else 0
        result[chip] = sign[own] * levels[np.arange(code.shape[-1]), code[own]]
    return result


def _pulses(
    u: Array,
    layer: Layer,
    mapping: Mapping,
    technology: Technology,
    transfer: Sequence[Array] | None,
) -> list[tuple[Array, float]]:
    """Split fractions in [-1, 1] into pulses and their weights."""
    if mapping.input_bits is None:
        return [(u, 1.0)]
    bits, levels = resolution(mapping.input_bits, layer, technology)
    size = _pulse_bits(mapping, layer, technology)
    integer = np.rint(np.abs(u) * levels).astype(np.int64)
    result = []
    for pulse in range(math.ceil(bits / size)):
        digit = (integer >> (pulse * size)) & (2**size - 1)
        full = 2**size - 1
        if transfer is None:
            fraction = np.sign(u) * digit / full
        else:
            fraction = _converted(digit, np.sign(u), transfer)
        result.append((fraction, full * 2.0 ** (pulse * size) / levels))
    return result


def resolution(input_bits: int, layer: Layer, technology: Technology) -> tuple[int, int]:
    """Bits of a driven magnitude, and the levels above zero that it takes."""
    offset = layer.signed and technology.drive == "offset"
    # A sign takes one bit where the wordline carries it; phases and offsets drive magnitudes.
    bits = input_bits - 1 if layer.signed and not offset else input_bits
    # An even number of steps puts an offset drive's zero on a level.
    return bits, 2**bits - 1 - offset


def pulse_sum(layer: Layer, mapping: Mapping, technology: Technology) -> float:
    """What the pulses' weights add up to: the share of an ADC's offset in its layer's result."""
    return float(encode(np.zeros((1, layer.inputs)), layer, mapping, technology).weight.sum())


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
    _, levels = resolution(mapping.input_bits, layer, technology)
    # In double precision, as encode: next to a tie single precision would round elsewhere.
    u = clipped.detach().double() / scale
    if layer.signed and technology.drive == "offset":
        value = ((u + 1.0) / 2.0 * levels).round() * (2.0 / levels) - 1.0
    else:
        value = (u * levels).round() / levels
    value = (value * scale).to(x.dtype)
    return clipped + (value - clipped.detach()) if clipped.requires_grad else value


def convert(
    difference: Array,
    layer: Layer,
    mapping: Mapping,
    spec: Converter = _LINEAR,
    chips: Generators | None = None,
) -> Array:
    """Quantise differential currents, given over v_read (g_max - g_min), as the ADC does.

    A mid-tread converter of ``adc_bits`` over ± current_scale that saturates; in two's
    complement the negative side reaches one step further.

    Parameters
    ----------
    difference : (..., output · slice), each with a converter of its own.
    spec : of the converters' steps.
    chips : draw them; the difference is then (chip, ..., output · slice). None has
        nominal converters.

    Raises InputError where steps that are not equal need a table of too many levels.
    """
    if mapping.adc_bits is None:
        return difference
    top = 2 ** (mapping.adc_bits - 1) - 1
    step = layer.current_scale / top
    if spec.is_linear:
        return np.asarray(np.clip(np.rint(difference / step), -top - 1, top) * step)
    if chips is None or spec.dnl == 0.0:
        levels = adc.transitions(mapping.adc_bits, step, spec)
        return np.asarray(adc.codes(difference, levels) * step)
    if len(chips) != len(difference):
        raise InputError(f"{len(chips)} chips' converters for {len(difference)} chips' currents")
    result = np.empty_like(difference)
    for chip, rng in enumerate(chips):
        for output in range(difference.shape[-1]):
            levels = adc.transitions(mapping.adc_bits, step, spec, rng)
            result[chip, ..., output] = adc.codes(difference[chip, ..., output], levels) * step
    return result


def combine(
    difference: Array,
    drive_weight: Array,
    layer: Layer,
    mapping: Mapping,
    spec: Converter = _LINEAR,
    chips: Generators | None = None,
) -> Array:
    """Sum converted differences over slices and pulses into outputs in units of full range.

    Parameters
    ----------
    difference : (..., pulse, output · slice), differential currents over
        v_read (g_max - g_min), not yet converted.
    drive_weight : (pulse,).
    spec, chips : as for ``convert``.

    Returns
    -------
    (..., output).
    """
    outputs = difference.shape[-1] // mapping.slices
    shape = (*difference.shape[:-1], outputs, mapping.slices)
    converted = convert(difference, layer, mapping, spec, chips).reshape(shape)
    return np.asarray(
        np.einsum("...pos,p,s->...o", converted, drive_weight, slice_weights(mapping))
    )
