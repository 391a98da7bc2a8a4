"""What a layer's tiles make of its inputs, given each tile's effective matrix.

Where nothing is rounded between the tiles, all of them together are one linear map,
which torch's own kernels compute. Converters need every tile's result by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from spicenn.compiler.converter import combine, driven, encode, pulse_sum
from spicenn.compiler.convolution import kernel, multiply, unfold
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.tiling import bias_rows, slice_weights, weight_of_conductance

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

# Per tile name: (wordline, output · slice), differential, over g_max - g_min.
Weights = Mapping[str, torch.Tensor]

# Noise of one tile's differences, from its (pulse, sample, position, wordline) drives.
Noise = Callable[[PlacedTile, Array], Array]


class Drive(NamedTuple):
    """Pulses as the converter makes them, and their sum as torch differentiates it."""

    fraction: Array  # (pulse, sample, position, row)
    weight: Array  # (pulse,)
    offset: float
    total: torch.Tensor  # (sample, position, row)
    power: torch.Tensor


def merged(
    design: Design,
    layer: Layer,
    tiles: Sequence[PlacedTile],
    weights: Weights,
    offsets: Weights | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight and bias, in the model's units, of a layer's tiles taken together.

    Parameters
    ----------
    tiles : all of the layer's.
    offsets : as for ``tiled_product``.

    Returns
    -------
    What ``convolution.multiply`` takes, float64; the bias is None where there is none.
    """
    mapping, scale = design.mapping, layer.input_scale * layer.weight_scale
    count = bias_rows(layer, mapping)
    shape = (layer.groups, layer.inputs + count, layer.outputs)
    rows = torch.zeros(shape, dtype=torch.float64, device=weights[tiles[0].name].device)
    for tile in tiles:
        part = merge_slices(design, weights[tile.name])
        rows[tile.slot.group, tile.slot.rows, tile.slot.outputs] = part
    weight, bias = rows[:, : layer.inputs], None
    if count:
        bias = rows[:, layer.inputs :].sum(1) * scale
    if layer.signed and design.technology.drive == "offset":
        # The offset meets the cells as they are, and what is subtracted is what they should be.
        error = weight.sum(1)
        for tile in tiles:
            error[tile.slot.group, tile.slot.outputs] -= _offset(design, tile).to(error.device)
        bias = error * scale if bias is None else bias + error * scale
    if offsets:
        added = torch.zeros(shape[0], shape[2], dtype=rows.dtype, device=rows.device)
        for tile in tiles:
            if tile.name in offsets:
                part = merge_slices(design, offsets[tile.name][None])[0]
                added[tile.slot.group, tile.slot.outputs] += part
        added *= pulse_sum(layer, mapping, design.technology) * scale
        bias = added if bias is None else bias + added
    if layer.bias is not None and mapping.bias == "digital":
        digital = _tensor(layer.bias, rows.device)
        bias = digital if bias is None else bias + digital
    weight = (weight * layer.weight_scale).transpose(1, 2).contiguous()
    return kernel(weight, layer), None if bias is None else bias.flatten()


def linear_product(
    design: Design, layer: Layer, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Compute a layer from ``merged`` weights, in their dtype; the result in the input's."""
    inputs = driven(x, layer, design.mapping, design.technology)
    return multiply(inputs.to(weight.dtype), layer, weight, bias).to(x.dtype)


def tiled_product(
    design: Design,
    layer: Layer,
    tiles: Sequence[PlacedTile],
    weights: Weights,
    x: torch.Tensor,
    noise: Noise | None = None,
    offsets: Weights | None = None,
) -> tuple[torch.Tensor, list[Drive]]:
    """Compute a layer tile by tile and pulse by pulse, in float64; the result in the input's.

    Values are what the converters give; gradients take quantisation as straight
    through and stop where an input saturates.

    Parameters
    ----------
    tiles : all of the layer's.
    noise : added to every tile's differences.
    offsets : (output · slice,) per tile name, added to the differences of every pulse.

    Returns
    -------
    What the layer puts out, before ``convolution.fold``, and the drives of every group.
    """
    rows = unfold(x, layer)
    positions = math.prod(rows.shape[1:-2])
    flat = rows.reshape(len(rows), positions, layer.groups, layer.inputs).to(torch.float64)
    drives = [_drive(flat[..., group, :], layer, design) for group in range(layer.groups)]
    z = torch.zeros(*flat.shape[:3], layer.outputs, dtype=torch.float64, device=x.device)
    for tile in tiles:
        slot = tile.slot
        offset = None if offsets is None else offsets.get(tile.name)
        part = _tile(design, tile, weights[tile.name], drives[slot.group], noise, offset)
        z[..., slot.group, slot.outputs] += part
    z = z * (layer.input_scale * layer.weight_scale)
    if layer.bias is not None and design.mapping.bias == "digital":
        z = z + _tensor(layer.bias, x.device)
    outputs = layer.groups * layer.outputs
    return z.reshape(*rows.shape[:-2], outputs).to(x.dtype), drives


def merge_slices(design: Design, weight: torch.Tensor) -> torch.Tensor:
    """Sum a tile's slices by their weights; (wordline, output)."""
    slices = _tensor(slice_weights(design.mapping), weight.device)
    return (weight.reshape(weight.shape[0], -1, len(slices)) * slices).sum(-1)


def _drive(x: torch.Tensor, layer: Layer, design: Design) -> Drive:
    drive = encode(x.detach().cpu().numpy(), layer, design.mapping, design.technology)
    total = _tensor(np.einsum("p,p...->...", drive.weight, drive.fraction), x.device)
    power = _tensor(np.einsum("p,p...->...", drive.weight**2, np.square(drive.fraction)), x.device)
    if x.requires_grad:
        u = (x / layer.input_scale).clamp(-1.0 if layer.signed else 0.0, 1.0)
        total = _straight_through(total, u)
        power = _straight_through(power, u * u)
    return Drive(drive.fraction, drive.weight, drive.offset, total, power)


def _straight_through(value: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Give the value the gradient of u, on the inputs' rows (bias rows have none)."""
    padded = torch.nn.functional.pad(u, (0, value.shape[-1] - u.shape[-1]))
    return value + (padded - padded.detach())


def _tile(
    design: Design,
    tile: PlacedTile,
    weight: torch.Tensor,
    drive: Drive,
    noise: Noise | None,
    offset: torch.Tensor | None,
) -> torch.Tensor:
    """Outputs of one tile in units of full range; (sample, position, output)."""
    layer, slot, mapping = tile.layer, tile.slot, design.mapping
    differentiated = drive.total.requires_grad or weight.requires_grad
    rounded = noise is not None or mapping.adc_bits is not None
    if differentiated or not rounded:
        z = drive.total[..., slot.rows] @ merge_slices(design, weight)
        if offset is not None:
            z = z + merge_slices(design, offset[None])[0] * float(drive.weight.sum())
    if rounded:
        fraction = drive.fraction[..., slot.rows]
        difference = fraction @ weight.detach().cpu().numpy()
        if noise is not None:
            difference = difference + noise(tile, fraction)
        if offset is not None:
            difference = difference + offset.detach().cpu().numpy()
        value = _tensor(
            combine(np.moveaxis(difference, 0, -2), drive.weight, layer, mapping), weight.device
        )
        z = z + (value - z.detach()) if differentiated else value
    return z - drive.offset * _offset(design, tile).to(z.device) if drive.offset else z


def _offset(design: Design, tile: PlacedTile) -> torch.Tensor:
    """Sum of the target weights that a full-scale offset on every input meets; (output,)."""
    slot = tile.slot
    inputs = max(0, min(tile.layer.inputs, slot.rows.stop) - slot.rows.start)
    target = weight_of_conductance(tile.g_target, design.mapping, design.technology)
    return _tensor(target[:inputs].sum(axis=0))


def _tensor(array: Array, device: torch.device | None = None) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64, device=device)
