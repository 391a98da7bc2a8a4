"""The end of compilation: a graph as a program of plain data, checked against the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from spicenn.compiler.operators import DTYPES, is_number
from spicenn.compiler.passes.graph import Call, Graph
from spicenn.compiler.passes.reference import close, observe
from spicenn.compiler.program import Constant, Node, Port, Program, Ref, leaves
from spicenn.errors import CompileError


def check_against_model(graph: Graph, model: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    """Raise CompileError unless the graph computes what the model computes."""
    with torch.no_grad():
        expected = model(*(x.clone() for x in inputs))
    tensors = [y for y in pytree.tree_leaves(expected) if isinstance(y, torch.Tensor)]
    values = observe(graph, inputs)
    for (name, value), y in zip(graph.outputs, tensors, strict=True):
        if not close(values[value.name], y):
            raise CompileError(
                "the compiled model and the model disagree",
                where=f"output {name!r}",
                remedy="does the model draw random numbers, or keep state between calls?",
            )


def emit(graph: Graph, inputs: Sequence[torch.Tensor]) -> tuple[Program, dict[str, torch.Tensor]]:
    """Return the program and its constants. ``inputs`` tell the outputs' shapes."""
    values = observe(graph, inputs)
    nodes = tuple(
        Node(call.name, call.op, _plain(call, call.args), _keywords(call)) for call in graph.calls
    )
    outputs = []
    for name, value in graph.outputs:
        tensor = values[value.name]
        dtype = next((text for text, d in DTYPES.items() if d == tensor.dtype), None)
        if dtype is None:
            raise CompileError(f"output {name!r} has dtype {tensor.dtype}")
        outputs.append(Port(name, tuple(tensor.shape[1:]), dtype))
    program = Program(
        inputs=graph.inputs,
        nodes=nodes,
        outputs=tuple(outputs),
        results=tuple(value.name for _, value in graph.outputs),
    )
    constants = {name: t.detach().contiguous() for name, t in graph.constants.items()}
    for name, tensor in constants.items():
        if tensor.dtype not in DTYPES.values():
            raise CompileError(f"constant {name!r} has dtype {tensor.dtype}")
    return program, constants


def _keywords(call: Call) -> tuple[tuple[str, Any], ...]:
    return tuple((key, _plain(call, value)) for key, value in call.kwargs)


def _plain(call: Call, argument: Any) -> Any:
    for leaf in leaves(argument):
        if leaf is None or isinstance(leaf, str | Ref | Constant) or is_number(leaf):
            continue
        raise call.refuse(f"{call.op} has an argument {leaf!r}, which is no plain data")
    return argument
