"""Drop calls that change no value and give every operator one form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from spicenn.compiler.passes.graph import Call, Graph, redirect, rewire
from spicenn.compiler.program import Ref

_IDENTITY = frozenset(
    f"aten.{name}"
    for name in (
        "alias.default",
        "clone.default",
        "contiguous.default",
        "detach.default",
        "lift_fresh.default",
        "lift_fresh_copy.default",
    )
)
_DROPOUT = frozenset(
    f"aten.{name}.default" for name in ("dropout", "feature_dropout", "alpha_dropout")
)
# Strides differ between the traced model and the chip; a view must not depend on them.
_VIEWS = frozenset({"aten.view.default", "aten._unsafe_view.default"})
_CHECKS = ("aten._assert", "aten.sym_constrain_range", "aten._functional_assert")
_NATIVE_BATCHNORM = "aten._native_batch_norm_legit_no_training.default"


def clean(graph: Graph) -> Graph:
    """Inline identities, drop assertions, turn views into reshapes."""
    values: dict[str, Any] = {}
    calls: list[Call] = []
    known: dict[str, Call] = {}
    for original in graph.calls:
        call = rewire(original, values)
        if call.op.startswith(_CHECKS):
            continue
        if call.op in _IDENTITY or _is_idle_dropout(call) or _keeps_dtype(call, graph, known):
            values[call.name] = call.args[0]
            continue
        if call.op in _VIEWS:
            call = replace(call, op="aten.reshape.default", target=None)
        if _is_batchnorm_value(call, known):
            # Of a BatchNorm's three results the model uses the first.
            place = next(i for i, c in enumerate(calls) if c.name == call.args[0].name)
            calls[place] = replace(
                calls[place], op="batch_norm", shape=call.shape, dtype=call.dtype
            )
            values[call.name] = call.args[0]
            continue
        calls.append(call)
        known[call.name] = call
    return redirect(graph, calls, values)


def _is_batchnorm_value(call: Call, known: dict[str, Call]) -> bool:
    if call.op != "getitem" or not isinstance(call.args[0], Ref) or call.args[1] != 0:
        return False
    source = known.get(call.args[0].name)
    return source is not None and source.op == _NATIVE_BATCHNORM


def _is_idle_dropout(call: Call) -> bool:
    return call.op in _DROPOUT and call.argument(2, "train") is False


def _keeps_dtype(call: Call, graph: Graph, known: dict[str, Call]) -> bool:
    """True for a copy to the dtype that the value already has; there is one device only."""
    if call.op != "aten._to_copy.default" or not isinstance(call.args[0], Ref):
        return False
    name = call.args[0].name
    if name in known:
        return known[name].dtype == call.dtype
    return any(
        port.name == name and f"torch.{port.dtype}" == str(call.dtype) for port in graph.inputs
    )
