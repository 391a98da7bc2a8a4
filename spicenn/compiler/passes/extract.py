"""Turn every linear map by a constant into a layer and a crossbar call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from spicenn.compiler.layer import Convolution
from spicenn.compiler.passes.canonical import CONV, LINEAR
from spicenn.compiler.passes.export import storage_key
from spicenn.compiler.passes.graph import Call, Draft, Graph, Names, is_constant, names_of
from spicenn.compiler.program import CROSSBAR, Constant, Ref


@dataclass(frozen=True)
class _Use:
    """One use of a weight; uses with the same key share one set of cells."""

    call: Call
    key: tuple[Any, ...]
    bias: tuple[Any, ...] | None


def extract_layers(graph: Graph) -> Graph:
    """One layer per weight, however often it is used.

    Uses of one weight with different biases share the cells and add their biases
    digitally. A kernel used at two strides or dilations is two layers, since its
    inputs are laid out twice. Raises CompileError for weights that are not finite.
    """
    uses = {
        call.name: _use(call, graph.constants)
        for call in graph.calls
        if call.op in (CONV, LINEAR) and is_constant(call.args[1])
    }
    biases: dict[tuple[Any, ...], set[Any]] = {}
    for use in uses.values():
        biases.setdefault(use.key, set()).add(use.bias)
    layers: dict[tuple[Any, ...], Draft] = {}
    names, layer_names = names_of(graph), Names([])
    constants = dict(graph.constants)
    calls: list[Call] = []
    for call in graph.calls:
        if call.name not in uses:
            calls.append(call)
            continue
        use = uses[call.name]
        own_bias = len(biases[use.key]) == 1
        if use.key not in layers:
            name = layer_names.fresh(_name(call, graph))
            layers[use.key] = _draft(name, call, graph.constants, own_bias)
        crossbar = replace(
            call, op=CROSSBAR, args=(layers[use.key].name, call.args[0]), kwargs=(), target=None
        )
        if own_bias or use.bias is None:
            calls.append(crossbar)
            continue
        product = names.fresh("crossbar")
        bias = graph.constants[call.args[2].name]
        label = names.fresh(f"{call.args[2].name}.digital")
        shape = (-1, *[1] * len(call.args[3])) if call.op == CONV else (-1,)
        constants[label] = bias.to(call.dtype or bias.dtype).reshape(shape)
        calls.append(replace(crossbar, name=product))
        calls.append(
            replace(call, op="aten.add.Tensor", args=(Ref(product), Constant(label)), target=None)
        )
    return replace(graph, calls=tuple(calls), constants=constants, layers=tuple(layers.values()))


def _use(call: Call, constants: Mapping[str, torch.Tensor]) -> _Use:
    weight = constants[call.args[1].name]
    bias = call.args[2]
    geometry = call.args[3:] if call.op == CONV else ()
    key = (call.op, storage_key(weight), geometry)
    return _Use(call, key, None if bias is None else storage_key(constants[bias.name]))


def _draft(name: str, call: Call, constants: Mapping[str, torch.Tensor], own_bias: bool) -> Draft:
    weight = constants[call.args[1].name].detach().double()
    bias = None
    if own_bias and call.args[2] is not None:
        bias = constants[call.args[2].name].detach().double()
    for label, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise call.refuse(f"the {label} of layer {name!r} holds NaN or infinity")
    if weight.numel() == 0:
        raise call.refuse(f"the weight of layer {name!r} is empty")
    convolution, groups = None, 1
    if call.op == CONV:
        stride, padding, dilation, groups = call.args[3:7]
        convolution = Convolution(tuple(weight.shape[2:]), stride, padding, dilation)
    weight = weight.reshape(groups, weight.shape[0] // groups, -1).contiguous()
    if bias is not None:
        bias = bias.reshape(groups, -1).contiguous()
    return Draft(name, weight, bias, convolution, call.source)


def _name(call: Call, graph: Graph) -> str:
    """Prefer the path of the weight's module: attention has four maps in one module."""
    path = graph.origins.get(call.args[1].name, "")
    for ending in (".weight", "_weight"):
        if path.endswith(ending):
            owner = path.removesuffix(ending)
            if not call.module or owner == call.module or owner.startswith(call.module + "."):
                return owner
    return call.module or path or graph.name
