"""Drop calls and constants that no output needs."""

from __future__ import annotations

from dataclasses import replace

from spicenn.compiler.passes.graph import Call, Graph
from spicenn.compiler.program import CROSSBAR, Constant, Ref, leaves


def prune(graph: Graph) -> Graph:
    """Keep what the outputs reach."""
    alive: set[str] = {value.name for _, value in graph.outputs if isinstance(value, Ref)}
    constants: set[str] = {v.name for _, v in graph.outputs if isinstance(v, Constant)}
    kept: list[Call] = []
    for call in reversed(graph.calls):
        if call.name not in alive:
            continue
        kept.append(call)
        for leaf in leaves((call.args, call.kwargs)):
            if isinstance(leaf, Ref):
                alive.add(leaf.name)
            elif isinstance(leaf, Constant):
                constants.add(leaf.name)
    kept.reverse()
    used = {call.args[0] for call in kept if call.op == CROSSBAR}
    return replace(
        graph,
        calls=tuple(kept),
        constants={name: t for name, t in graph.constants.items() if name in constants},
        layers=tuple(layer for layer in graph.layers if layer.name in used),
    )
