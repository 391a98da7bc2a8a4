"""Fold a BatchNorm into the layer before it, or leave it as a scale and a shift."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from spicenn.compiler.passes.canonical import CONV, LINEAR, Builder
from spicenn.compiler.passes.graph import Call, Graph, is_constant, redirect, rewire
from spicenn.compiler.program import Constant, Ref


def fold_batchnorm(graph: Graph) -> Graph:
    """Fold where the layer feeds nothing else and its weight serves nothing else.

    A weight with a second use must stay as it is: the two uses are one set of cells.
    """
    build = Builder(graph)
    users = graph.users()
    weights = Counter(
        call.args[1].name
        for call in graph.calls
        if call.op in (CONV, LINEAR) and is_constant(call.args[1])
    )
    values: dict[str, Ref] = {}
    for original in graph.calls:
        call = rewire(original, values)
        if call.op != "batch_norm":
            build.calls.append(call)
            continue
        scale, shift = _affine(call, build)
        place = _producer(call, build, users, weights)
        if place is None:
            _stay_digital(call, build, scale, shift)
            continue
        producer = build.calls[place]
        weight, bias = producer.args[1], producer.args[2]
        tensor = build.constants[weight.name].double()
        folded = build.names.fresh(f"{weight.name}.folded")
        build.constants[folded] = tensor * scale.reshape(-1, *[1] * (tensor.ndim - 1))
        if weight.name in build.origins:
            build.origins[folded] = build.origins[weight.name]
        if bias is not None:
            shift = shift + build.constants[bias.name].double() * scale
        shifted = build.names.fresh(f"{weight.name}.shift")
        build.constants[shifted] = shift
        args = (producer.args[0], Constant(folded), Constant(shifted), *producer.args[3:])
        build.calls[place] = replace(producer, args=args)
        values[call.name] = Ref(producer.name)
    return replace(
        redirect(graph, build.calls, values),
        constants=build.constants,
        origins=build.origins,
    )


def _affine(call: Call, build: Builder) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift, (channel,) float64."""
    weight, bias, mean, variance = call.args[1:5]
    if not (is_constant(mean) and is_constant(variance)):
        raise call.refuse("BatchNorm with statistics of the batch", "use running statistics")
    epsilon = float(call.args[6])
    scale = torch.rsqrt(build.constants[variance.name].double() + epsilon)
    if is_constant(weight):
        scale = scale * build.constants[weight.name].double()
    shift = -build.constants[mean.name].double() * scale
    if is_constant(bias):
        shift = shift + build.constants[bias.name].double()
    return scale, shift


def _producer(call: Call, build: Builder, users: Counter[str], weights: Counter[str]) -> int | None:
    x = call.args[0]
    if not isinstance(x, Ref) or users[x.name] != 1:
        return None
    for place, producer in enumerate(build.calls):
        if producer.name != x.name or producer.op not in (CONV, LINEAR):
            continue
        rank = len(producer.shape or ())
        # Channels are a Linear's last axis only where its output is (sample, channel).
        channels_fit = producer.op == CONV or rank == 2
        own = is_constant(producer.args[1]) and weights[producer.args[1].name] == 1
        return place if own and channels_fit else None
    return None


def _stay_digital(call: Call, build: Builder, scale: torch.Tensor, shift: torch.Tensor) -> None:
    shape = (-1, *[1] * (len(call.shape or ()) - 2))
    dtype = call.dtype or torch.float32
    names = []
    for label, tensor in (("scale", scale), ("shift", shift)):
        name = build.names.fresh(f"{call.name}.{label}")
        build.constants[name] = tensor.to(dtype).reshape(shape)
        names.append(Constant(name))
    scaled = build.add(call, "aten.mul.Tensor", call.args[0], names[0], base="scaled")
    build.add(call, "aten.add.Tensor", scaled, names[1])
