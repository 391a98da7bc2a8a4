"""Operators that stay digital: the list that programs may call, and nothing else."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from spicenn.compiler.program import Program
from spicenn.errors import DesignError, InputError

_ATEN = """
__and__.Tensor __or__.Tensor abs.default adaptive_avg_pool1d.default adaptive_avg_pool2d.default
adaptive_max_pool1d.default adaptive_max_pool2d.default _adaptive_avg_pool2d.default
add.Scalar add.Tensor amax.default amin.default arange.default arange.start arange.start_step
argmax.default avg_pool1d.default avg_pool2d.default baddbmm.default bitwise_and.Tensor
bitwise_not.default bitwise_or.Tensor bmm.default cat.default celu.default chunk.default
clamp.Tensor clamp.default clamp_max.default clamp_min.default constant_pad_nd.default
cos.default cumsum.default div.Scalar div.Scalar_mode div.Tensor div.Tensor_mode einsum.default
elu.default embedding.default eq.Scalar eq.Tensor erf.default exp.default expand.default
expand_as.default expm1.default flatten.using_ints flip.default floor.default full.default
full_like.default gather.default ge.Scalar ge.Tensor gelu.default glu.default group_norm.default
gt.Scalar gt.Tensor hardshrink.default hardsigmoid.default hardswish.default hardtanh.default
index_select.default layer_norm.default le.Scalar le.Tensor leaky_relu.default
linalg_vector_norm.default linear.default log.default log1p.default log_sigmoid.default
log_softmax.int logical_and.default logical_not.default logical_or.default logsumexp.default
lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor matmul.default max.default max.dim
max_pool1d.default max_pool2d.default max_pool2d_with_indices.default maximum.default
mean.default mean.dim min.dim minimum.default mish.default mm.default movedim.int mul.Scalar
mul.Tensor narrow.default ne.Scalar ne.Tensor neg.default new_ones.default new_zeros.default
ones.default ones_like.default pad.default permute.default pixel_shuffle.default
pixel_unshuffle.default pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor prelu.default prod.dim_int
reciprocal.default reflection_pad1d.default reflection_pad2d.default relu.default relu6.default
repeat.default replication_pad1d.default replication_pad2d.default reshape.default
rms_norm.default roll.default round.default rsqrt.default rsub.Scalar rsub.Tensor
scalar_tensor.default scaled_dot_product_attention.default select.int selu.default
sigmoid.default sign.default silu.default sin.default slice.Tensor softmax.int softplus.default
softshrink.default sort.default split.Tensor split_with_sizes.default sqrt.default square.default
squeeze.default squeeze.dim squeeze.dims stack.default std.correction std.dim sub.Scalar
sub.Tensor sum.default sum.dim_IntList t.default tanh.default threshold.default topk.default
transpose.int tril.default triu.default unbind.int unflatten.int unsqueeze.default
upsample_bilinear2d.vec upsample_nearest1d.vec upsample_nearest2d.vec var.correction var.dim
where.ScalarOther where.ScalarSelf where.self zeros.default zeros_like.default
_softmax.default _log_softmax.default _to_copy.default
"""

# Two values of a run meet in these: no tile holds either of them.
DYNAMIC_PRODUCTS = frozenset(
    f"aten.{name}.default"
    for name in (
        "baddbmm",
        "bmm",
        "einsum",
        "linear",
        "matmul",
        "mm",
        "scaled_dot_product_attention",
    )
)


def _aten(name: str) -> Callable[..., Any]:
    packet, overload = name.rsplit(".", 1)
    function: Callable[..., Any] = getattr(getattr(torch.ops.aten, packet), overload)
    return function


def _is_factory(function: Any) -> bool:
    arguments = function._schema.arguments
    kinds = {str(argument.type) for argument in arguments}
    return "Tensor" not in kinds and any(argument.name == "device" for argument in arguments)


def _size(x: torch.Tensor, axis: int) -> int:
    return int(x.shape[axis])


def _item(values: Sequence[Any], index: int) -> Any:
    return values[index]


ALLOWED: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {f"aten.{name}": _aten(name) for name in _ATEN.split()}
    | {
        # Arithmetic on the number of samples.
        "sym.add": operator.add,
        "sym.floordiv": operator.floordiv,
        "sym.mul": operator.mul,
        "sym.neg": operator.neg,
        "sym.size": _size,
        "sym.sub": operator.sub,
        # One of several results of an operator.
        "getitem": _item,
    }
)

# What makes a tensor from numbers alone, and so has to be told where.
FACTORIES = frozenset(
    f"aten.{name}" for name in _ATEN.split() if _is_factory(ALLOWED[f"aten.{name}"])
)

DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {
        name: getattr(torch, name)
        for name in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
    }
)
_DTYPE_PREFIX = "dtype:"


def dtype_argument(dtype: torch.dtype) -> str:
    """Return a dtype as a program's argument."""
    return _DTYPE_PREFIX + str(dtype).removeprefix("torch.")


def literal(argument: Any, resolve: Callable[[Any], Any]) -> Any:
    """Return the value of an argument that is no Ref and no Constant."""
    if isinstance(argument, tuple):
        return [resolve(item) for item in argument]
    if isinstance(argument, str) and argument.startswith(_DTYPE_PREFIX):
        name = argument.removeprefix(_DTYPE_PREFIX)
        if name not in DTYPES:
            raise DesignError(f"dtype {name!r} is not allowed")
        return DTYPES[name]
    return argument


def call(op: str, args: list[Any], kwargs: dict[str, Any], where: str = "") -> Any:
    """Call an operator of the list.

    Raises DesignError for any other, InputError where the operator refuses its values.
    """
    if op not in ALLOWED:
        raise DesignError(f"operator {op!r} is not allowed", where=where or None)
    try:
        return ALLOWED[op](*args, **kwargs)
    except (RuntimeError, IndexError, TypeError, ValueError, KeyError, OverflowError) as error:
        first = str(error).strip().split("\n")[0]
        raise InputError(f"{op} failed: {first}", where=where or None) from error


def check_inputs(
    program: Program, inputs: Sequence[torch.Tensor], floating: torch.dtype | None = None
) -> None:
    """Raise InputError unless count, shapes, dtypes and numbers of samples fit.

    ``floating`` is expected in the place of a floating-point input's own dtype.
    """
    if len(inputs) != len(program.inputs):
        raise InputError(
            f"{len(inputs)} inputs given",
            remedy=f"the model takes {', '.join(port.name for port in program.inputs)}",
        )
    for port, x in zip(program.inputs, inputs, strict=True):
        expected = ", ".join(["sample", *map(str, port.shape)])
        if x.ndim != len(port.shape) + 1 or tuple(x.shape[1:]) != port.shape:
            raise InputError(
                f"shape {tuple(x.shape)} does not fit ({expected})", where=f"input {port.name}"
            )
        dtype = DTYPES.get(port.dtype)
        if floating is not None and dtype is not None and dtype.is_floating_point:
            dtype = floating
        if x.dtype != dtype:
            raise InputError(f"dtype {x.dtype} is not {dtype}", where=f"input {port.name}")
    if len({x.shape[0] for x in inputs}) > 1:
        raise InputError("inputs differ in their number of samples")


def is_number(value: Any) -> bool:
    """True for the plain numbers that a program may hold."""
    return isinstance(value, bool | int) or (isinstance(value, float) and not math.isnan(value))
