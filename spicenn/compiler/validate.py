"""Whether a design read from a file is one that ``compile`` could have made."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from spicenn.compiler.layer import Layer
from spicenn.compiler.program import CROSSBAR, Constant, Node, Program, Ref, leaves
from spicenn.compiler.tiling import tile_slots
from spicenn.errors import DesignError, InputError

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

_MOST_LENGTH = 2**31


def check_design(design: Design) -> None:
    """Raise DesignError saying what is wrong and where."""
    check_program(design.program, {layer.name for layer in design.layers}, set(design.constants))
    names = [layer.name for layer in design.layers]
    if len(set(names)) != len(names):
        raise DesignError("two layers have one name")
    for position, layer in enumerate(design.layers):
        if layer.index != position:
            raise DesignError(f"index {layer.index} is not {position}", where=_at(layer))
        check_layer(layer)
        try:
            tile_slots(layer, design.mapping, design.tile)
        except InputError as error:
            raise DesignError(error.what, where=_at(layer), remedy=error.remedy) from error
    if not names:
        raise DesignError("there is no layer")
    if design.example and len(design.example) != len(design.program.inputs):
        raise DesignError(f"{len(design.example)} examples for {len(design.program.inputs)} inputs")
    for port, array in zip(design.program.inputs, design.example, strict=False):
        if array.ndim == 0 or array.shape[1:] != port.shape or str(array.dtype) != port.dtype:
            raise DesignError("the example does not fit", where=f"input {port.name!r}")


def check_program(program: Program, layers: set[str], constants: set[str]) -> None:
    """Raise DesignError for a name that is taken or missing or an operator not allowed.

    A node sees only what comes before it: there can be no cycle.
    """
    from spicenn.compiler.operators import ALLOWED, DTYPES

    known: set[str] = set()
    for port in (*program.inputs, *program.outputs):
        if port.dtype not in DTYPES or any(not 0 <= n < _MOST_LENGTH for n in port.shape):
            raise DesignError("dtype or shape is not allowed", where=f"port {port.name!r}")
    for name in (port.name for port in program.inputs):
        _take(name, known)
    for node in program.nodes:
        where = f"node {node.name!r}"
        if node.op == CROSSBAR:
            _check_crossbar(node, layers)
        elif node.op not in ALLOWED:
            raise DesignError(f"operator {node.op!r} is not allowed", where=where)
        for leaf in leaves((node.args, tuple(value for _, value in node.kwargs))):
            _check_leaf(leaf, known, constants, where)
        _take(node.name, known)
    if len({port.name for port in program.outputs}) != len(program.outputs):
        raise DesignError("two outputs have one name")
    if not program.inputs or not program.outputs:
        raise DesignError("there is no input or no output")
    if len(program.results) != len(program.outputs):
        raise DesignError("results and outputs differ in number")
    for name in program.results:
        if name not in known:
            raise DesignError(f"no node is called {name!r}", where="results")


def check_layer(layer: Layer) -> None:
    """Raise DesignError for shapes, scales or a geometry that make no layer."""
    where = _at(layer)
    if layer.weight.ndim != 3 or layer.weight.size == 0:
        raise DesignError(f"weight of shape {layer.weight.shape}", where=where)
    if layer.bias is not None and layer.bias.shape != layer.weight.shape[:2]:
        raise DesignError(f"bias of shape {layer.bias.shape}", where=where)
    for array in (layer.weight, layer.bias):
        if array is not None and not np.all(np.isfinite(array)):
            raise DesignError("holds NaN or infinity", where=where)
    for key in ("input_scale", "weight_scale", "current_scale"):
        scale = getattr(layer, key)
        if not (math.isfinite(scale) and scale > 0):
            raise DesignError(f"{key} = {scale!r} is not a positive number", where=where)
    geometry = layer.convolution
    if geometry is None:
        if layer.groups != 1:
            raise DesignError("a plain linear map has one group", where=where)
        return
    axes = len(geometry.kernel)
    lengths = {len(geometry.stride), len(geometry.padding), len(geometry.dilation)}
    if axes not in (1, 2) or lengths != {axes}:
        raise DesignError("a convolution has one or two axes", where=where)
    positive = (*geometry.kernel, *geometry.stride, *geometry.dilation)
    sides = [side for pair in geometry.padding for side in pair]
    # A negative padding would crop; torch has it, this compiler never makes it.
    if not all(0 < n < _MOST_LENGTH for n in positive) or not all(
        0 <= n < _MOST_LENGTH for n in sides
    ):
        raise DesignError("the convolution's geometry is out of range", where=where)
    if layer.inputs % math.prod(geometry.kernel):
        raise DesignError("the kernel does not fit the weight", where=where)


def _check_crossbar(node: Node, layers: set[str]) -> None:
    where = f"node {node.name!r}"
    if len(node.args) != 2 or node.kwargs or not isinstance(node.args[1], Ref):
        raise DesignError("a crossbar takes a layer's name and one value", where=where)
    if node.args[0] not in layers:
        raise DesignError(f"no layer is called {node.args[0]!r}", where=where)


def _check_leaf(leaf: Any, known: set[str], constants: set[str], where: str) -> None:
    from spicenn.compiler.operators import is_number

    if isinstance(leaf, Ref):
        if leaf.name not in known:
            raise DesignError(f"nothing before it is called {leaf.name!r}", where=where)
    elif isinstance(leaf, Constant):
        if leaf.name not in constants:
            raise DesignError(f"no constant is called {leaf.name!r}", where=where)
    elif not (leaf is None or isinstance(leaf, str) or is_number(leaf)):
        raise DesignError(f"the argument {leaf!r} is no plain data", where=where)


def _take(name: str, known: set[str]) -> None:
    if name in known:
        raise DesignError(f"two values are called {name!r}", where="program")
    known.add(name)


def _at(layer: Layer) -> str:
    return f"layer {layer.name!r}"
