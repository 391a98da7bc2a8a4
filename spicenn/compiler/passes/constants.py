"""Compute what does not depend on the inputs, so that every weight is a plain array."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from spicenn.compiler import operators
from spicenn.compiler.passes.graph import Call, Graph, is_constant, redirect, rewire
from spicenn.compiler.program import Constant, Ref, leaves


def fold_constants(graph: Graph) -> Graph:
    """Fold weight normalisation, parametrisations, slices of a joint weight and the like.

    The same computation made twice (a module called twice) gives one constant, which
    keeps its weight one set of cells. Random operators are left for the allow list.
    """
    constants, origins = dict(graph.constants), dict(graph.origins)
    values: dict[str, Any] = {}
    several: dict[str, tuple[torch.Tensor, ...]] = {}
    seen: dict[tuple[Any, ...], str] = {}
    calls: list[Call] = []
    for original in graph.calls:
        call = rewire(original, values)
        function = _function(call)
        key: tuple[Any, ...]
        if call.op == "getitem" and isinstance(call.args[0], Ref) and call.args[0].name in several:
            result: Any = several[call.args[0].name][call.args[1]]
            key = (call.op, call.args)
        elif function is None or not _foldable(call):
            calls.append(call)
            continue
        else:
            key = (call.op, call.args, call.kwargs)
            if key in seen and seen[key] in several:
                values[call.name] = Ref(seen[key])
                continue
            if key not in seen:
                result = _evaluate(call, function, constants)
        if key in seen:
            values[call.name] = Constant(seen[key])
            continue
        seen[key] = call.name
        if isinstance(result, torch.Tensor):
            constants[call.name] = result
            values[call.name] = Constant(call.name)
        elif isinstance(result, tuple | list):
            several[call.name] = tuple(result)
        else:  # a number
            values[call.name] = result
            del seen[key]
            continue
        parents = {origins[leaf.name] for leaf in leaves(call.args) if _known(leaf, origins)}
        if len(parents) == 1:
            origins[call.name] = parents.pop()
    folded = redirect(graph, calls, values)
    return replace(folded, constants=constants, origins=origins)


def _known(leaf: Any, origins: dict[str, str]) -> bool:
    return isinstance(leaf, Constant | Ref) and leaf.name in origins


def _function(call: Call) -> Callable[..., Any] | None:
    if call.target is not None:
        return call.target
    return operators.ALLOWED.get(call.op)


def _foldable(call: Call) -> bool:
    arguments = list(leaves((call.args, tuple(value for _, value in call.kwargs))))
    if any(isinstance(argument, Ref) for argument in arguments):
        return False
    tags = getattr(call.target, "tags", ())
    if torch.Tag.nondeterministic_seeded in tags:
        return False
    # Factories (arange, zeros) have no tensor argument: their value is constant too.
    return any(map(is_constant, arguments)) or call.shape is not None


def _evaluate(call: Call, function: Callable[..., Any], constants: dict[str, torch.Tensor]) -> Any:
    def resolve(argument: Any) -> Any:
        if isinstance(argument, Constant):
            return constants[argument.name]
        return operators.literal(argument, resolve)

    with torch.no_grad():
        try:
            return function(
                *(resolve(argument) for argument in call.args),
                **{key: resolve(value) for key, value in call.kwargs},
            )
        except (RuntimeError, IndexError, TypeError, ValueError) as error:
            raise call.refuse(f"{call.op} of constants failed: {error}") from error
