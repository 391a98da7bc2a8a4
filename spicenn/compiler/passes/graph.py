"""What passes read and write: a model as a list of operator calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from spicenn.compiler.layer import Convolution
from spicenn.compiler.program import Constant, Port, Ref, leaves
from spicenn.errors import CompileError


@dataclass(frozen=True)
class Samples:
    """Length of an axis that holds every sample ``factor`` times."""

    factor: int


# None: a length that is no multiple of the number of samples.
Axis = int | Samples | None


@dataclass(frozen=True)
class Call:
    """One operator call.

    Parameters
    ----------
    name : unique in the graph.
    op : as in ``program.Node``.
    args, kwargs : as in ``program.Node``.
    module : path of the module that made the call.
    source : "file:line" of the user's own code, "" where there is none.
    shape : of the value, None where it is no single tensor.
    dtype : of the value.
    target : the callable; None for operators of this compiler.
    """

    name: str
    op: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    module: str = ""
    source: str = ""
    shape: tuple[Axis, ...] | None = None
    dtype: torch.dtype | None = None
    target: Callable[..., Any] | None = None

    def argument(self, position: int, key: str, default: Any = None) -> Any:
        """Return an argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return dict(self.kwargs).get(key, default)

    def refuse(self, what: str, remedy: str | None = None) -> CompileError:
        """Return the error that names this call's module and line."""
        return CompileError(what, where=location(self.module, self.source), remedy=remedy)


@dataclass(frozen=True)
class Draft:
    """A layer before its scales are known; tensors as in ``layer.Layer``."""

    name: str
    weight: torch.Tensor
    bias: torch.Tensor | None
    convolution: Convolution | None
    source: str


@dataclass(frozen=True)
class Graph:
    """A model in the middle of its compilation.

    Parameters
    ----------
    name : the model's class.
    inputs : the model's tensors.
    calls : in the order they run.
    outputs : name and value (a Ref or a Constant) of each.
    constants : parameters, buffers and what was computed from them.
    origins : path of the parameter that a constant is or was computed from.
    layers : filled by ``extract_layers``.
    """

    name: str
    inputs: tuple[Port, ...]
    calls: tuple[Call, ...]
    outputs: tuple[tuple[str, Any], ...]
    constants: Mapping[str, torch.Tensor]
    origins: Mapping[str, str]
    layers: tuple[Draft, ...] = ()

    def users(self) -> Counter[str]:
        """Count how often each value is used, outputs included."""
        count: Counter[str] = Counter()
        for argument in (*(c.args for c in self.calls), *(c.kwargs for c in self.calls)):
            count.update(leaf.name for leaf in leaves(argument) if isinstance(leaf, Ref))
        count.update(value.name for _, value in self.outputs if isinstance(value, Ref))
        return count

    def call(self, name: str) -> Call | None:
        """Return the call of that name, None for an input."""
        return next((call for call in self.calls if call.name == name), None)


class Names:
    """Hands out names that nothing else has."""

    def __init__(self, taken: Iterator[str] | list[str]) -> None:
        self._taken = set(taken)

    def fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def names_of(graph: Graph) -> Names:
    """Names for new calls and constants of a graph."""
    return Names(
        [*(p.name for p in graph.inputs), *(c.name for c in graph.calls), *graph.constants]
    )


def location(module: str, source: str) -> str:
    """Say where in the user's model something is."""
    at = f"module {module!r}" if module else "the model itself"
    return f"{at}, {source}" if source else at


def replace_values(argument: Any, values: Mapping[str, Any]) -> Any:
    """Replace Refs by name, in nested tuples as well."""
    if isinstance(argument, tuple):
        return tuple(replace_values(item, values) for item in argument)
    if isinstance(argument, Ref):
        return values.get(argument.name, argument)
    return argument


def rewire(call: Call, values: Mapping[str, Any]) -> Call:
    """Return a call whose arguments use other values."""
    return replace(
        call, args=replace_values(call.args, values), kwargs=replace_values(call.kwargs, values)
    )


def redirect(graph: Graph, calls: list[Call], values: Mapping[str, Any]) -> Graph:
    """Return a graph of other calls, whose outputs use other values."""
    outputs = tuple((name, replace_values(value, values)) for name, value in graph.outputs)
    return replace(graph, calls=tuple(calls), outputs=outputs)


def is_constant(argument: Any) -> bool:
    """True for one of the graph's constants."""
    return isinstance(argument, Constant)
