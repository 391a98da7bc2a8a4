"""A layer's input as the rows that meet its wordlines, and its results back in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch.nn import functional

from spicenn.compiler.layer import Convolution, Layer
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
    _check(x, layer)
    geometry = layer.convolution
    if geometry is None:
        return x.unsqueeze(-2)
    axes = len(geometry.kernel)
    taps = math.prod(geometry.kernel)
    channels = layer.groups * layer.inputs // taps
    windows = _padded(x, geometry)
    for axis in range(axes):
        # The window becomes the last axis; dilation keeps every d-th of its entries.
        windows = windows.unfold(2 + axis, _extent(geometry, axis), geometry.stride[axis])
        windows = windows[..., :: geometry.dilation[axis]]
    positions = windows.shape[2 : 2 + axes]
    grouped = windows.reshape(x.shape[0], layer.groups, channels // layer.groups, *positions, taps)
    order = (0, *range(3, 3 + axes), 1, 2, 3 + axes)
    return grouped.permute(order).reshape(x.shape[0], *positions, layer.groups, layer.inputs)


def row_elements(x: torch.Tensor, layer: Layer) -> int:
    """How many elements ``unfold`` makes of one sample, at most and roughly; at least 1."""
    geometry = layer.convolution
    taps = 1 if geometry is None else math.prod(geometry.kernel)
    return max(1, x[:1].numel() * taps)


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


def kernel(weight: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Return (group, output, input) as torch's own linear maps and convolutions take it."""
    geometry = layer.convolution
    if geometry is None:
        return weight[0]
    channels = layer.inputs // math.prod(geometry.kernel)
    return weight.reshape(layer.groups * layer.outputs, channels, *geometry.kernel)


def multiply(
    x: torch.Tensor, layer: Layer, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Compute a layer with other weights, by torch's own kernels; differentiable.

    Parameters
    ----------
    x : (..., input) of a linear map; (sample, channel, *spatial) of a convolution.
    weight : as ``kernel`` returns it, in the input's dtype.
    bias : (group · output,) or None.

    Returns
    -------
    (..., output), or (sample, channel, *spatial).

    Raises InputError where the shape does not fit the layer.
    """
    _check(x, layer)
    geometry = layer.convolution
    if geometry is None:
        return functional.linear(x, weight, bias)
    convolve = functional.conv1d if len(geometry.kernel) == 1 else functional.conv2d
    even = all(before == after for before, after in geometry.padding)
    return convolve(
        x if even else _padded(x, geometry),
        weight,
        bias,
        geometry.stride,
        tuple(before for before, _ in geometry.padding) if even else 0,
        geometry.dilation,
        layer.groups,
    )


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
            weight = kernel(torch.as_tensor(layer.weight, dtype=x.dtype), layer)
            tensors[key] = (weight, None if bias is None else bias.flatten())
        return multiply(x, layer, *tensors[key])

    return crossbar


def _check(x: torch.Tensor, layer: Layer) -> None:
    geometry = layer.convolution
    problem = ""
    if geometry is None:
        if x.ndim < 1 or x.shape[-1] != layer.inputs:
            problem = f"does not end in {layer.inputs}"
    else:
        axes = len(geometry.kernel)
        channels = layer.groups * layer.inputs // math.prod(geometry.kernel)
        if x.ndim != axes + 2 or x.shape[1] != channels:
            problem = f"is not (sample, {channels}, {axes} more axes)"
        elif any(
            x.shape[2 + axis] + sum(geometry.padding[axis]) < _extent(geometry, axis)
            for axis in range(axes)
        ):
            problem = "is smaller than the kernel"
    if problem:
        raise InputError(
            f"input of shape {tuple(x.shape)} {problem}", where=f"layer {layer.name!r}"
        )


def _padded(x: torch.Tensor, geometry: Convolution) -> torch.Tensor:
    # functional.pad counts axes from the last.
    padding = [side for pair in reversed(geometry.padding) for side in pair]
    return functional.pad(x, padding) if any(padding) else x


def _extent(geometry: Convolution, axis: int) -> int:
    return geometry.dilation[axis] * (geometry.kernel[axis] - 1) + 1
