"""Trace a copy of the user's model with torch.export and read the trace as a Graph."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import InputKind, OutputKind

from spicenn.compiler.operators import DTYPES, dtype_argument
from spicenn.compiler.passes.graph import Axis, Call, Graph, Names, Samples
from spicenn.compiler.passes.origin import Origin, failure
from spicenn.compiler.passes.rename import make_safe, original
from spicenn.compiler.program import Constant, Port, Ref
from spicenn.errors import CompileError

_TORCH_LOCK = threading.Lock()
# What only says where a tensor lives; there is one place.
_DROPPED = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking"})
_SYMBOLIC = {
    "add": "sym.add",
    "sub": "sym.sub",
    "mul": "sym.mul",
    "floordiv": "sym.floordiv",
    "neg": "sym.neg",
    "getitem": "getitem",
}


def export(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Graph:
    """Trace a model with a free number of samples.

    Parameters
    ----------
    model : an ``eval_copy``; its modules may be renamed.
    inputs : an example with at least two samples.

    Raises CompileError naming the module and the user's line where tracing fails.
    """
    renamed = make_safe(model)
    samples = torch.export.Dim("samples")
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    inputs = tuple(x.clone() for x in inputs)
    for x in inputs:
        shapes[x] = {0: samples}
    with _tracing():
        try:
            # What fails here fails for a reason of the model's, and says so best.
            model(*inputs)
            dynamic = shapes.dynamic_shapes(model, inputs)  # type: ignore[no-untyped-call]
            exported = torch.export.export(model, inputs, dynamic_shapes=dynamic, strict=False)
            program = exported.run_decompositions({})
        except Exception as error:
            # torch.export raises a dozen unrelated types.
            raise failure(error, model, inputs, renamed) from error
    return _read(program, type(model).__name__, len(inputs), renamed)


@contextmanager
def _tracing() -> Iterator[None]:
    """Trace without gradients, warnings and the fused attention that hides its projections."""
    with _TORCH_LOCK, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        # A failure is raised with what matters of it; torch would also print its trace.
        silenced = [logger for logger in _torch_loggers() if not logger.disabled]
        for logger in silenced:
            logger.disabled = True
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
            for logger in silenced:
                logger.disabled = False


def _torch_loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict
    return [
        logger
        for name, logger in tuple(known.items())
        if name.split(".")[0] == "torch" and isinstance(logger, logging.Logger)
    ]


def _read(
    exported: torch.export.ExportedProgram, name: str, count: int, renamed: Mapping[str, str]
) -> Graph:
    constants, origins, fixed = _constants(exported, renamed)
    nodes = list(exported.graph.nodes)
    names = Names(list(constants))
    known: dict[str, Any] = dict(fixed)
    inputs: list[Port] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind is not InputKind.USER_INPUT:
            continue
        node = next((n for n in nodes if n.name == spec.arg.name), None)
        if node is None or not isinstance(node.meta.get("val"), torch.Tensor):
            raise CompileError(f"the input {spec.arg.name!r} is not a tensor")
        port = names.fresh(node.name)
        known[node.name] = Ref(port)
        shape = _shape(node.meta["val"])
        inputs.append(Port(port, _static(shape, port), _dtype_name(node.meta["val"], port)))
    if len(inputs) != count:
        raise CompileError("every input must be a tensor")
    calls = []
    for node in nodes:
        if node.op == "call_function":
            call = _call(node, names, known, renamed)
            known[node.name] = Ref(call.name)
            calls.append(call)
        elif node.op not in ("placeholder", "output"):
            raise CompileError(
                "control flow operators (torch.cond, while_loop, …) have no mapping",
                remedy="a chip is one fixed circuit: use torch.where instead",
            )
    return Graph(name, tuple(inputs), tuple(calls), _outputs(exported, known), constants, origins)


def _constants(
    exported: torch.export.ExportedProgram, renamed: Mapping[str, str]
) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, Constant]]:
    """Parameters and buffers by path; tensors that are tied share one entry."""
    constants: dict[str, torch.Tensor] = {}
    origins: dict[str, str] = {}
    placeholders: dict[str, Constant] = {}
    stored: dict[tuple[Any, ...], str] = {}
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            continue
        target = str(spec.target)
        tensor = exported.state_dict.get(target, exported.constants.get(target))
        path = original(target, renamed)
        if not isinstance(tensor, torch.Tensor):
            raise CompileError(f"{path!r} is not a tensor", remedy="register it as a buffer")
        key = storage_key(tensor)
        if key not in stored:
            stored[key] = path
            constants[path] = tensor.detach()
            origins[path] = path
        placeholders[spec.arg.name] = Constant(stored[key])
    return constants, origins, placeholders


def storage_key(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Two tensors with the same key are the same numbers in the same place."""
    if tensor.numel() == 0:
        return (id(tensor),)
    place = (tensor.untyped_storage().data_ptr(), tensor.storage_offset())
    # The stride of an axis of length 1 says nothing.
    stride = tuple(s if n > 1 else 0 for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    return (*place, tuple(tensor.shape), stride, tensor.dtype)


def _call(node: Any, names: Names, known: Mapping[str, Any], renamed: Mapping[str, str]) -> Call:
    target = node.target
    origin = Origin.of(node)
    if isinstance(target, torch._ops.OpOverload):
        op, function = str(target), target
        if op == "aten.sym_size.int":
            op = "sym.size"
    elif getattr(target, "__name__", "") in _SYMBOLIC:
        op, function = _SYMBOLIC[target.__name__], None
    else:
        op, function = str(getattr(target, "__name__", target)), None
    value = node.meta.get("val")
    tensor = isinstance(value, torch.Tensor)
    base = re.sub(r"[^a-z0-9]+", "_", op.removeprefix("aten.").split(".")[0].lower()).strip("_")
    if base.startswith("native_batch_norm"):
        base = "batch_norm"
    return Call(
        name=names.fresh(base or "value"),
        op=op,
        args=tuple(_argument(argument, known) for argument in node.args),
        kwargs=tuple(
            (key, _argument(value, known))
            for key, value in sorted(node.kwargs.items())
            if key not in _DROPPED
        ),
        module=original(origin.module, renamed),
        source=origin.source,
        shape=_shape(value) if tensor else None,
        dtype=value.dtype if tensor else None,
        target=None if op.startswith("sym.") else function,
    )


def _argument(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, torch.fx.Node):
        return known[value.name]
    if isinstance(value, list | tuple):
        return tuple(_argument(item, known) for item in value)
    if isinstance(value, torch.dtype):
        return dtype_argument(value)
    if isinstance(value, torch.device | torch.layout | torch.memory_format):
        return None
    return value


def _shape(value: torch.Tensor) -> tuple[Axis, ...]:
    return tuple(_axis(length) for length in value.shape)


def _axis(length: Any) -> Axis:
    if isinstance(length, int):
        return length
    expression = length.node.expr
    symbols = expression.free_symbols
    if len(symbols) == 1:
        (symbol,) = symbols
        factor = expression / symbol
        if factor.is_Integer and factor > 0:
            return Samples(int(factor))
    return None


def _static(shape: tuple[Axis, ...], name: str) -> tuple[int, ...]:
    rest = tuple(length for length in shape[1:] if isinstance(length, int))
    if not shape or shape[0] != Samples(1) or len(rest) != len(shape) - 1:
        raise CompileError(
            "the first axis is not the sample, or another changes its length with it",
            where=name,
            remedy="put samples first and keep every other length fixed",
        )
    return rest


def _dtype_name(value: torch.Tensor, name: str) -> str:
    for text, dtype in DTYPES.items():
        if value.dtype == dtype:
            return text
    raise CompileError(
        f"dtype {value.dtype} has no mapping", where=name, remedy="use float32 or float64"
    )


def _outputs(
    exported: torch.export.ExportedProgram, known: Mapping[str, Any]
) -> tuple[tuple[str, Any], ...]:
    values: list[Any] = []
    for spec in exported.graph_signature.output_specs:
        if spec.kind is OutputKind.USER_OUTPUT:
            values.append(known.get(getattr(spec.arg, "name", ""), None))
            if values[-1] is None and getattr(spec.arg, "value", None) is not None:
                raise CompileError("an output is not a tensor")
        else:
            raise CompileError(
                f"the model changes {spec.target!r} while it runs",
                remedy="a model must be a function of its inputs; keep state outside",
            )
    names = _output_names(exported.call_spec.out_spec, len(values))
    outputs = tuple((n, v) for n, v in zip(names, values, strict=True) if v is not None)
    if not outputs:
        raise CompileError("the model returns no tensor")
    if any(isinstance(value, Constant) for _, value in outputs):
        raise CompileError("an output does not depend on the inputs")
    return outputs


def _output_names(spec: Any, count: int) -> list[str]:
    """Name one output "output", several by their key or their position."""
    from torch.utils import _pytree as pytree

    skeleton = pytree.tree_unflatten(list(range(count)), spec)
    if count == 1 and isinstance(skeleton, int):
        return ["output"]
    names = Names([])
    result = []
    for path, _ in pytree.tree_flatten_with_path(skeleton)[0]:
        parts = [str(getattr(p, "key", getattr(p, "idx", getattr(p, "name", "")))) for p in path]
        text = re.sub(r"\W+", "_", "_".join(parts), flags=re.ASCII).strip("_")
        result.append(names.fresh(text if text[:1].isalpha() else f"output_{text or 0}"))
    return result
