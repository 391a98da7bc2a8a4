"""The digital part of a design: an allow-listed graph of ATen operators as plain data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# The one operator that is not ATen: run this layer on its crossbars.
CROSSBAR = "spicenn.crossbar"


@dataclass(frozen=True)
class Ref:
    """A use of another node's value."""

    name: str


@dataclass(frozen=True)
class Constant:
    """A use of one of the design's arrays."""

    name: str


@dataclass(frozen=True)
class Node:
    """One operator call.

    Parameters
    ----------
    name : unique in the program.
    op : "aten.relu.default", "sym.mul", … from ``operators.ALLOWED``, or ``CROSSBAR``,
        whose arguments are a layer's name and a Ref to its input.
    args, kwargs : None, bool, int, float, str, Ref, Constant or (nested) tuples of these.
    """

    name: str
    op: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Port:
    """One input or output of the model. ``shape`` leaves the sample axis out."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Program:
    """Nodes in the order they run; an output names the node that computes it."""

    inputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Port, ...]
    results: tuple[str, ...]

    @cached_property
    def finished(self) -> tuple[frozenset[str], ...]:
        """Names of the values that nothing after each node uses."""
        later = set(self.results)
        result = []
        for node in reversed(self.nodes):
            arguments = (node.args, tuple(value for _, value in node.kwargs))
            names = {leaf.name for leaf in leaves(arguments) if isinstance(leaf, Ref)}
            result.append(frozenset({*names, node.name} - later))
            later |= names
        return tuple(reversed(result))


def leaves(argument: Any) -> Iterator[Any]:
    """Walk through nested tuples."""
    if isinstance(argument, tuple):
        for item in argument:
            yield from leaves(item)
    else:
        yield argument


CrossbarCall = Callable[[str, "torch.Tensor"], "torch.Tensor"]


def resolver(
    values: Mapping[str, Any], constants: Mapping[str, torch.Tensor]
) -> Callable[[Any], Any]:
    """Return what turns an argument into the value that it stands for, as of then."""
    from spicenn.compiler.operators import literal

    def resolve(argument: Any) -> Any:
        if isinstance(argument, Ref):
            return values[argument.name]
        if isinstance(argument, Constant):
            return constants[argument.name]
        return literal(argument, resolve)

    return resolve


def execute(
    program: Program,
    constants: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    crossbar: CrossbarCall,
    *,
    floating: torch.dtype | None = None,
) -> tuple[torch.Tensor, ...]:
    """Run a program. ``crossbar(layer name, x)`` computes what the tiles compute.

    Differentiable where its operators and ``crossbar`` are. Every input has the
    sample axis first. ``floating`` is the dtype of floating-point inputs where it is
    another than the compiled model's. Raises InputError for inputs of a wrong count,
    shape or dtype, DesignError for an operator that is not allowed.
    """
    from spicenn.compiler.operators import FACTORIES, call, check_inputs

    check_inputs(program, inputs, floating)
    values: dict[str, Any] = dict(zip((p.name for p in program.inputs), inputs, strict=True))
    resolve = resolver(values, constants)
    for node, finished in zip(program.nodes, program.finished, strict=True):
        args = [resolve(argument) for argument in node.args]
        kwargs = {key: resolve(value) for key, value in node.kwargs}
        if node.op == CROSSBAR:
            values[node.name] = crossbar(args[0], args[1])
        else:
            if node.op in FACTORIES:
                kwargs["device"] = inputs[0].device
            values[node.name] = call(node.op, args, kwargs, node.name)
        del args, kwargs
        for name in finished:  # a large batch's activations do not all fit
            values.pop(name)
    return tuple(values[name] for name in program.results)
