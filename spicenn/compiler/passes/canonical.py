"""Bring every linear map by a constant to ``aten.linear.default`` or ``conv``.

``conv`` is this compiler's own: x, weight, bias, stride, ((before, after), …), dilation,
groups.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from spicenn.compiler.passes.einsum import as_linear
from spicenn.compiler.passes.graph import (
    Call,
    Graph,
    Names,
    is_constant,
    names_of,
    redirect,
)
from spicenn.compiler.program import Constant, Ref, leaves

LINEAR = "aten.linear.default"
CONV = "conv"


class Builder:
    """Calls and constants of the graph that a pass is making."""

    def __init__(self, graph: Graph) -> None:
        self.names: Names = names_of(graph)
        self.constants = dict(graph.constants)
        self.origins = dict(graph.origins)
        self.calls: list[Call] = []
        self._expanded = {c.name: c.args[0] for c in graph.calls if c.op == "aten.expand.default"}
        self._made: dict[tuple[str, str], Constant] = {}

    def constant(
        self, parent: Constant, change: str, function: Callable[[torch.Tensor], torch.Tensor]
    ) -> Constant:
        """Return a changed constant, the same one for the same change."""
        key = (parent.name, change)
        if key not in self._made:
            name = self.names.fresh(f"{parent.name}.{change}")
            self.constants[name] = function(self.constants[parent.name])
            if parent.name in self.origins:
                self.origins[name] = self.origins[parent.name]
            self._made[key] = Constant(name)
        return self._made[key]

    def add(self, call: Call, op: str, *args: Any, base: str | None = None) -> Ref:
        """Add a call where another one was; without ``base`` it takes that one's name."""
        name = call.name if base is None else self.names.fresh(base)
        self.calls.append(
            replace(call, name=name, op=op, args=args, kwargs=(), target=None)
            if base is None
            else replace(call, name=name, op=op, args=args, kwargs=(), target=None, shape=None)
        )
        return Ref(name)

    def unexpanded(self, value: Any) -> Any:
        """Return the matrix that a value repeats for every sample, other values as they are."""
        if not isinstance(value, Ref) or not is_constant(self._expanded.get(value.name)):
            return value
        constant: Constant = self._expanded[value.name]
        one_matrix = self.rank(constant) == 3 and self.constants[constant.name].shape[0] == 1
        return constant if one_matrix else value

    def rank(self, constant: Constant) -> int:
        return self.constants[constant.name].ndim


def canonicalize(graph: Graph) -> Graph:
    """Rewrite linear maps. Raises CompileError for one by a constant that has no mapping."""
    build = Builder(graph)
    for call in graph.calls:
        rule = next((r for prefix, r in _RULES if call.op.startswith(prefix)), None)
        if rule is None or not rule(call, build):
            build.calls.append(call)
    return replace(
        redirect(graph, build.calls, {}), constants=build.constants, origins=build.origins
    )


def _linear(call: Call, build: Builder) -> bool:
    x, weight, bias = call.args[0], call.args[1], call.argument(2, "bias")
    if not is_constant(weight):
        if is_constant(x):
            raise call.refuse("a constant is multiplied by a computed weight", _REMEDY)
        return False
    if bias is not None and not is_constant(bias):
        build.add(call, LINEAR, x, weight, None, base="linear")
        build.add(call, "aten.add.Tensor", Ref(build.calls[-1].name), bias)
        return True
    build.add(call, LINEAR, x, weight, bias)
    return True


def _matmul(call: Call, build: Builder) -> bool:
    """mm, matmul and bmm with one constant operand."""
    x, y = call.args
    if call.op == "aten.bmm.default":
        y = build.unexpanded(y)
    if is_constant(y) and isinstance(x, Ref):
        if build.rank(y) == 3 and build.constants[y.name].shape[0] == 1:
            y = build.constant(y, "matrix", lambda t: t[0])
        if build.rank(y) == 2:
            build.add(call, LINEAR, x, build.constant(y, "T", lambda t: t.T), None)
            return True
        if build.rank(y) == 1:
            row = build.constant(y, "row", lambda t: t[None])
            build.add(call, "aten.squeeze.dim", _before(call, build, LINEAR, x, row, None), -1)
            return True
        raise call.refuse(f"{call.op} by a constant of {build.rank(y)} axes", _REMEDY)
    if is_constant(x) and isinstance(y, Ref):
        if build.rank(x) != 2 or call.shape is None or len(call.shape) < 3:
            raise call.refuse(f"{call.op} of a constant from the left", _REMEDY)
        turned = _before(call, build, "aten.transpose.int", y, -1, -2)
        product = _before(call, build, LINEAR, turned, x, None)
        build.add(call, "aten.transpose.int", product, -1, -2)
        return True
    return False


def _before(call: Call, build: Builder, op: str, *args: Any) -> Ref:
    return build.add(call, op, *args, base=op.split(".")[1])


def _addmm(call: Call, build: Builder) -> bool:
    bias, x, y = call.args[:3]
    if any(float(value) != 1.0 for key, value in call.kwargs if key in ("alpha", "beta")):
        raise call.refuse("addmm with alpha or beta other than 1", "scale the weight instead")
    product = replace(call, args=(x, y), kwargs=(), name=build.names.fresh("addmm_product"))
    if not _matmul(product, build):
        build.add(product, "aten.mm.default", x, y)
    last = build.calls[-1]
    if last.op == LINEAR and is_constant(bias) and build.rank(bias) == 1:
        out = build.constants[last.args[1].name].shape[0]
        if build.constants[bias.name].shape[0] == out:
            build.calls[-1] = replace(last, name=call.name, args=(*last.args[:2], bias))
            return True
    build.add(call, "aten.add.Tensor", Ref(last.name), bias)
    return True


def _einsum(call: Call, build: Builder) -> bool:
    operands = call.args[1]
    if not any(map(is_constant, operands)):
        return False
    if len(operands) == 2 and sum(map(is_constant, operands)) == 1:
        plan = as_linear(str(call.args[0]), is_constant(operands[0]))
        if plan is not None:
            first = is_constant(operands[0])
            x, weight = (operands[1], operands[0]) if first else operands
            if plan.turn_weight:
                weight = build.constant(weight, "T", lambda t: t.T)
            if plan.before is not None:
                x = _before(call, build, "aten.permute.default", x, plan.before)
            if plan.after is None:
                build.add(call, LINEAR, x, weight, None)
            else:
                product = _before(call, build, LINEAR, x, weight, None)
                build.add(call, "aten.permute.default", product, plan.after)
            return True
    raise call.refuse(f"einsum {call.args[0]!r} by a constant has no mapping", _REMEDY)


def _conv(call: Call, build: Builder) -> bool:
    weight = call.args[1]
    if not is_constant(weight):
        raise call.refuse("a convolution by a computed weight", _REMEDY)
    axes = build.rank(weight) - 2
    names = ("bias", "stride", "padding", "dilation")
    bias, stride, padding, dilation = (
        call.argument(2 + i, name, default)
        for i, (name, default) in enumerate(zip(names, (None, 1, 0, 1), strict=True))
    )
    if call.op == "aten.convolution.default":
        if call.args[6]:
            return _unmapped(call, build)
        groups = call.args[8]
    else:
        groups = call.argument(6, "groups", 1)
    if axes > 2:
        raise call.refuse("a convolution over three axes has no mapping", _REMEDY)
    if bias is not None and not is_constant(bias):
        raise call.refuse("a convolution with a computed bias", _REMEDY)
    if call.shape is None or len(call.shape) != axes + 2:
        raise call.refuse("a convolution without a sample axis", "add one with unsqueeze(0)")
    kernel = build.constants[weight.name].shape[2:]
    stride, dilation = _spread(stride, axes), _spread(dilation, axes)
    if padding == "valid":
        padding = 0
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        pairs = tuple((total // 2, total - total // 2) for total in totals)
    else:
        pairs = tuple((p, p) for p in _spread(padding, axes))
    build.add(call, CONV, call.args[0], weight, bias, stride, pairs, dilation, groups)
    return True


def _spread(value: Any, axes: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, tuple) else (value,)
    return values * axes if len(values) == 1 else values


def _unmapped(call: Call, build: Builder) -> bool:
    if not any(map(is_constant, leaves(call.args))):
        return False
    if "conv" in call.op:
        raise call.refuse(
            f"a transposed convolution ({call.op}) has no mapping to crossbars",
            "upsample, then convolve",
        )
    raise call.refuse(f"{call.op} has no mapping to crossbars", _REMEDY)


_REMEDY = "write it with Linear, Conv1d or Conv2d modules"
_RULES: tuple[tuple[str, Callable[[Call, Builder], bool]], ...] = (
    ("aten.linear.", _linear),
    ("aten.addmm.", _addmm),
    ("aten.mm.", _matmul),
    ("aten.matmul.", _matmul),
    ("aten.bmm.", _matmul),
    ("aten.mv.", _matmul),
    ("aten.einsum.", _einsum),
    ("aten.conv_transpose", _unmapped),
    ("aten.bilinear", _unmapped),
    ("aten._trilinear", _unmapped),
    ("aten.baddbmm.", _unmapped),
    ("aten.addbmm.", _unmapped),
    ("aten.conv1d.", _conv),
    ("aten.conv2d.", _conv),
    ("aten.conv3d.", _conv),
    ("aten.convolution.", _conv),
)
