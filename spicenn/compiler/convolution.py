"""A layer's input as the rows that meet its wordlines, and its results back in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch.nn import functional

from spicenn.compiler.layer import Layer
from spicenn.errors import InputError


def unfold(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Return the inputs of every group at every position (im2col); differentiable.

    Parameters
    ----------
    x : (..., input) of a linear map; (sample, channel, *spatial) of a convolution.

    Returns
    -------
    (..., 1, input), or (sample, *position, group, input) with the input axis ordered
    as (channel of the group, kernel position).

    Raises InputError where the shape does not fit the layer.
    """
    geometry = layer.convolution
    if geometry is None:
        if x.ndim < 1 or x.shape[-1] != layer.inputs:
            raise InputError(
                f"input of shape {tuple(x.shape)} does not end in {layer.inputs}",
                where=f"layer {layer.name!r}",
            )
        return x.unsqueeze(-2)
    axes = len(geometry.kernel)
    taps = math.prod(geometry.kernel)
    channels = layer.groups * layer.inputs // taps
    if x.ndim != axes + 2 or x.shape[1] != channels:
        raise InputError(
            f"input of shape {tuple(x.shape)} is not (sample, {channels}, {axes} more axes)",
            where=f"layer {layer.name!r}",
        )
    # functional.pad counts axes from the last.
    padding = [side for pair in reversed(geometry.padding) for side in pair]
    windows = functional.pad(x, padding) if any(padding) else x
    for axis in range(axes):
        extent = geometry.dilation[axis] * (geometry.kernel[axis] - 1) + 1
        if windows.shape[2 + axis] < extent:
            raise InputError(
                f"input of shape {tuple(x.shape)} is smaller than the kernel",
                where=f"layer {layer.name!r}",
            )
        # The window becomes the last axis; dilation keeps every d-th of its entries.
        windows = windows.unfold(2 + axis, extent, geometry.stride[axis])
        windows = windows[..., :: geometry.dilation[axis]]
    positions = windows.shape[2 : 2 + axes]
    grouped = windows.reshape(x.shape[0], layer.groups, channels // layer.groups, *positions, taps)
    order = (0, *range(3, 3 + axes), 1, 2, 3 + axes)
    return grouped.permute(order).reshape(x.shape[0], *positions, layer.groups, layer.inputs)


def fold(z: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Put a layer's results where the model expects them.

    Parameters
    ----------
    z : (..., group · output) as the positions of ``unfold``.

    Returns
    -------
    (..., output), or (sample, channel, *spatial).
    """
    return z if layer.convolution is None else z.movedim(-1, 1)


def digital_crossbar(layers: Iterable[Layer]) -> Callable[[str, torch.Tensor], torch.Tensor]:
    """Return a crossbar call that computes with the model's own weights, in the input's dtype.

    With it ``execute`` reproduces the torch model.
    """
    known = {layer.name: layer for layer in layers}
    tensors: dict[tuple[str, torch.dtype], tuple[torch.Tensor, torch.Tensor | None]] = {}

    def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
        layer = known[name]
        key = (name, x.dtype)
        if key not in tensors:
            bias = None if layer.bias is None else torch.as_tensor(layer.bias, dtype=x.dtype)
            tensors[key] = (torch.as_tensor(layer.weight, dtype=x.dtype), bias)
        weight, bias = tensors[key]
        z = torch.einsum("...gi,goi->...go", unfold(x, layer), weight)
        return fold((z if bias is None else z + bias).flatten(-2), layer)

    return crossbar
