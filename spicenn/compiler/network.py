"""A design's program as a network that trains, and a trained network's weights in a design."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from spicenn.compiler.calibration import calibrate_layers
from spicenn.compiler.convolution import digital_crossbar, kernel
from spicenn.compiler.exact import model_dtype
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.layer import Array, Convolution, Layer
from spicenn.compiler.program import execute
from spicenn.errors import CompileError, InputError

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

# How far a design's own arithmetic may be off the module that its weights come from.
_TOLERANCE = 1e-4


class Network(nn.Module):
    """A design's program with plain linear maps and convolutions in the place of tiles.

    Takes what the compiled model takes and returns its output, a tuple of several. Every
    layer is an ``nn.Linear``, ``nn.Conv1d`` or ``nn.Conv2d`` under its own name, so that its
    parameters are ``<layer>.weight`` and ``<layer>.bias``. What ``compile`` folded (batch
    normalisation) is part of the weights; dropout is gone.
    """

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.program, self._layers = design.program, {layer.name: layer for layer in design.layers}
        dtype = model_dtype(design)
        for layer in design.layers:
            _attach(self, layer.name, _plain(layer, dtype))
        # A constant's name may hold what a buffer's may not.
        self._constants = {name: f"constant_{i}" for i, name in enumerate(design.constants)}
        for name, key in self._constants.items():
            self.register_buffer(key, torch.tensor(design.constants[name]))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the model's output. Raises InputError for inputs that do not fit."""
        constants = {name: self.get_buffer(key) for name, key in self._constants.items()}

        def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.get_submodule(name)(_padded(x, self._layers[name]))
            return result

        outputs = execute(self.program, constants, inputs, crossbar)
        return outputs if len(outputs) > 1 else outputs[0]


def with_weights(
    design: Design,
    weights: nn.Module | Mapping[str, tuple[Any, Any]],
    calibration: Any = None,
) -> Design:
    """Return the design with other weights; see ``Design.with_weights``."""
    parameters: dict[str, Any]
    if isinstance(weights, nn.Module):
        weights = plain_copy(weights)
        parameters = dict(weights.named_parameters(remove_duplicate=False))
        pairs = {layer.name: _named(layer, parameters) for layer in design.layers}
    elif isinstance(weights, Mapping):
        if unknown := sorted(set(weights) - {layer.name for layer in design.layers}):
            design.layer(unknown[0])  # raises, naming the layers there are
        pairs = {
            layer.name: weights.get(layer.name, (layer.weight, layer.bias))
            for layer in design.layers
        }
    else:
        raise InputError(
            f"weights are a {type(weights).__name__}",
            remedy="give a torch module, or a mapping of layer names to (weight, bias)",
        )
    layers = tuple(_replaced(layer, *pairs[layer.name]) for layer in design.layers)
    changed = replace(design, layers=layers)
    if isinstance(weights, nn.Module):
        _check_same(changed, weights)
    if calibration is None:
        return changed
    constants = {name: torch.tensor(array) for name, array in design.constants.items()}
    inputs = [torch.as_tensor(array) for array in as_inputs(design, calibration)]
    return replace(
        changed,
        layers=calibrate_layers(
            layers, design.program, constants, inputs,
            technology=design.technology, tile=design.tile, mapping=design.mapping,
        ),
    )  # fmt: skip


def plain_copy(module: nn.Module) -> nn.Module:
    """Return a copy in ``eval()`` whose analog layers are the plain ones they stand for.

    An analog layer is one that has a method ``digital``, which returns its plain one.
    """
    result = copy.deepcopy(module)
    if (plain := _digital(result)) is not None:
        result = plain
    for name, child in list(result.named_modules()):
        if name and (plain := _digital(child)) is not None:
            owner, _, key = name.rpartition(".")
            setattr(result.get_submodule(owner), key, plain)
    # What the root was hooked with belongs to training.
    result._forward_pre_hooks.clear()
    return result.eval()


def _digital(module: nn.Module) -> nn.Module | None:
    method: Any = getattr(module, "digital", None)
    return method() if callable(method) else None


def _attach(root: nn.Module, name: str, module: nn.Module) -> None:
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, module)


def _plain(layer: Layer, dtype: torch.dtype) -> nn.Module:
    geometry, bias = layer.convolution, layer.bias is not None
    made: nn.Linear | nn.Conv1d | nn.Conv2d
    if geometry is None:
        made = nn.Linear(layer.inputs, layer.outputs, bias=bias, dtype=dtype)
    else:
        kind: Any = nn.Conv1d if len(geometry.kernel) == 1 else nn.Conv2d
        channels = layer.groups * layer.inputs // int(np.prod(geometry.kernel))
        made = kind(
            channels, layer.groups * layer.outputs, geometry.kernel, stride=geometry.stride,
            padding=tuple(a for a, _ in geometry.padding) if _even(geometry) else 0,
            dilation=geometry.dilation, groups=layer.groups, bias=bias, dtype=dtype,
        )  # fmt: skip
    with torch.no_grad():
        made.weight.copy_(kernel(torch.as_tensor(layer.weight), layer))
        if layer.bias is not None and made.bias is not None:
            made.bias.copy_(torch.as_tensor(layer.bias).flatten())
    return made


def _even(geometry: Convolution) -> bool:
    return all(before == after for before, after in geometry.padding)


def _padded(x: torch.Tensor, layer: Layer) -> torch.Tensor:
    """Pad where a convolution's two sides differ, which torch's own cannot."""
    geometry = layer.convolution
    if geometry is None or _even(geometry):
        return x
    return functional.pad(x, [side for pair in reversed(geometry.padding) for side in pair])


def _named(layer: Layer, parameters: Mapping[str, torch.Tensor]) -> tuple[Any, Any]:
    """Weight and bias of a layer in a module, by the layer's name."""
    name = layer.name
    for weight, bias in (
        (f"{name}.weight", f"{name}.bias"),
        (f"{name}_weight", f"{name}_bias"),  # attention's "in_proj_weight"
        (name, "bias" if name == "weight" else ""),  # a weight of the model itself
    ):
        if weight in parameters:
            return parameters[weight], parameters.get(bias)
    raise CompileError(
        "the module has no weight of this name",
        where=f"layer {layer.name!r}",
        remedy="give the module that was compiled, design.to_torch(), or weights by layer name",
    )


def _replaced(layer: Layer, weight: Any, bias: Any) -> Layer:
    where = f"layer {layer.name!r}"
    new = _array(weight, layer.weight, f"{where}, weight")
    if (bias is None) != (layer.bias is None):
        raise CompileError(
            f"{'a' if layer.bias is None else 'no'} bias is given where the design has "
            f"{'none' if layer.bias is None else 'one'}",
            where=where,
            remedy="compile the model anew",
        )
    return replace(
        layer,
        weight=new,
        bias=None if layer.bias is None else _array(bias, layer.bias, f"{where}, bias"),
        weight_scale=float(np.abs(new).max()) or 1.0,
    )


def _array(value: Any, like: Array, where: str) -> Array:
    value = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    array = np.asarray(value, dtype=np.float64)
    if array.size != like.size or (array.ndim > 0 and len(array) not in (len(like), _rows(like))):
        raise InputError(f"shape {array.shape} does not fit {like.shape}", where=where)
    if not np.isfinite(array).all():
        raise InputError("holds NaN or infinity", where=where)
    return array.reshape(like.shape).copy()


def _rows(like: Array) -> int:
    """Outputs of all groups: the first axis of torch's own weights."""
    return int(like.shape[0] * like.shape[1])


def _check_same(design: Design, module: nn.Module) -> None:
    """Raise CompileError where the module is not what the design computes with its weights."""
    constants = {name: torch.tensor(array) for name, array in design.constants.items()}
    inputs = [torch.as_tensor(array) for array in design.example]
    with torch.no_grad():
        own = execute(design.program, constants, inputs, digital_crossbar(design.layers))
        given = module(*inputs)
    given = given if isinstance(given, tuple | list) else (given,)
    for ours, theirs in zip(own, given, strict=False):
        if ours.is_floating_point():
            scale = float(theirs.abs().max()) or 1.0
            if (
                ours.shape != theirs.shape
                or float((ours - theirs).abs().max()) > _TOLERANCE * scale
            ):
                raise CompileError(
                    "the module computes something else than the design with its weights",
                    remedy="what compile folded into weights (batch normalisation) or left out "
                    "differs: compile the module anew, or train design.to_torch()",
                )
