"""Run a graph in torch with the model's own weights: the ideal that a chip is built for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from spicenn.compiler import operators
from spicenn.compiler.convolution import digital_crossbar
from spicenn.compiler.layer import Layer
from spicenn.compiler.passes.graph import Draft, Graph
from spicenn.compiler.program import CROSSBAR, resolver


def draft_layer(draft: Draft, index: int = 0) -> Layer:
    """Return a layer whose scales are not known yet."""
    return Layer(
        name=draft.name,
        index=index,
        weight=draft.weight.numpy(),
        bias=None if draft.bias is None else draft.bias.numpy(),
        convolution=draft.convolution,
        signed=True,
        input_scale=1.0,
        weight_scale=1.0,
        current_scale=1.0,
        source=draft.source,
    )


def observe(graph: Graph, inputs: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Return every value of a run, by name.

    Raises InputError naming module and line where an operator refuses its values.
    """
    crossbar = digital_crossbar(draft_layer(draft) for draft in graph.layers)
    values: dict[str, Any] = dict(zip((p.name for p in graph.inputs), inputs, strict=True))
    resolve = resolver(values, graph.constants)
    with torch.no_grad():
        for call in graph.calls:
            args = [resolve(argument) for argument in call.args]
            kwargs = {key: resolve(value) for key, value in call.kwargs}
            if call.op == CROSSBAR:
                values[call.name] = crossbar(args[0], args[1])
            else:
                where = f"{call.module or 'the model'}, {call.source}".rstrip(", ")
                values[call.name] = operators.call(call.op, args, kwargs, where)
    return values


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """True where two values agree but for rounding."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.dtype.is_floating_point:
        return torch.equal(a, b)
    # Summation order depends on the batch; what mixes samples shows far above this.
    tolerance = 1e-4 if a.dtype == torch.float32 else 1e-9
    finite = torch.isfinite(b)
    scale = float(b[finite].abs().max()) if bool(finite.any()) else 0.0
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
