"""Refuse what neither a tile nor the digital part can compute."""

from __future__ import annotations

from spicenn.compiler import operators
from spicenn.compiler.passes.graph import Call, Graph
from spicenn.compiler.program import CROSSBAR

# Operators that a model of ours may well have, with what to do instead.
_REMEDIES = {
    "aten._native_batch_norm_legit": "use running statistics (track_running_stats=True)",
    "aten.instance_norm": "use GroupNorm with one group per channel",
    "aten.lstm": "recurrent modules have no mapping; unroll the cell into Linear modules",
    "aten.gru": "recurrent modules have no mapping; unroll the cell into Linear modules",
    "aten.rnn": "recurrent modules have no mapping; unroll the cell into Linear modules",
    "aten.native_dropout": "switch dropout off outside of training",
    "aten.bernoulli": "switch dropout off outside of training",
    "aten.rand": "draw noise outside of the model",
    "aten.nonzero": "the shape of a value must not depend on data",
}
_ATTENTION = "aten.scaled_dot_product_attention.default"
_GENERAL = "rewrite this part with the operators listed in spicenn.compiler.operators"


def check_operators(graph: Graph) -> Graph:
    """Return the graph. Raises CompileError naming operator, module and line."""
    for call in graph.calls:
        if call.op == _ATTENTION and call.argument(4, "dropout_p", 0.0):
            raise call.refuse("attention drops out at random", _REMEDIES["aten.native_dropout"])
        if call.op != CROSSBAR and call.op not in operators.ALLOWED:
            raise call.refuse(f"the operator {call.op} is not supported", remedy(call))
    return graph


def remedy(call: Call) -> str:
    """Return what to do about an operator that is not supported."""
    return next((text for op, text in _REMEDIES.items() if call.op.startswith(op)), _GENERAL)
