"""Put the sample axis of every crossbar's input first, and refuse models that mix samples.

The chip needs to know which rows belong to which sample: trials and chips differ in
their noise. Attention works on (position, sample, channel) and on positions and samples
merged in one axis. Where the sample is, is read off a run: the rows of one sample alone
must be found among those of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from spicenn.compiler.passes.graph import Call, Draft, Graph, Names, names_of
from spicenn.compiler.passes.reference import close, observe
from spicenn.compiler.program import CROSSBAR, Ref


@dataclass(frozen=True)
class _Place:
    """``axis`` of the input holds (before, sample, after), merged."""

    axis: int
    before: int
    after: int


def put_samples_first(graph: Graph, inputs: Sequence[torch.Tensor]) -> Graph:
    """Move sample axes.

    Parameters
    ----------
    inputs : at least two samples that differ.

    Raises CompileError where a crossbar's input or an output of one sample depends on
    the other samples.
    """
    whole = observe(graph, inputs)
    alone = [observe(graph, [x[i : i + 1] for x in inputs]) for i in range(len(inputs[0]))]
    names = names_of(graph)
    count: Ref | None = None
    calls: list[Call] = []
    for call in graph.calls:
        if call.op != CROSSBAR:
            calls.append(call)
            continue
        place = _find(whole[call.args[1].name], [run[call.args[1].name] for run in alone])
        if place is None:
            raise call.refuse(
                "what a sample is computed from depends on the other samples of its batch",
                "a chip reads one sample at a time: keep samples apart (first axis)",
            )
        if place.axis == 0 and place.before == 1:
            calls.append(call)
            continue
        if count is None:
            count = Ref(names.fresh("samples"))
            calls.insert(0, Call(count.name, "sym.size", (Ref(graph.inputs[0].name), 0)))
        if place.axis and _layer(graph, call).convolution is not None:
            raise call.refuse("samples lie along a convolution's channels or positions")
        shape = whole[call.args[1].name].shape
        calls += _moved(call, place, tuple(shape), count, names)
    for _, value in graph.outputs:
        _check_output(graph, value, whole, alone)
    return replace(graph, calls=tuple(calls))


def _layer(graph: Graph, call: Call) -> Draft:
    return next(layer for layer in graph.layers if layer.name == call.args[0])


def _find(whole: torch.Tensor, alone: list[torch.Tensor]) -> _Place | None:
    samples = len(alone)
    if whole.ndim != alone[0].ndim:
        return None
    grown = [a for a in range(whole.ndim) if whole.shape[a] != alone[0].shape[a]]
    if len(grown) != 1 or whole.shape[grown[0]] != samples * alone[0].shape[grown[0]]:
        return None
    axis = grown[0]
    factor = int(alone[0].shape[axis])
    divisors = [d for d in range(1, factor + 1) if factor % d == 0]
    # The usual layouts first: samples before everything, then samples after everything.
    for before in sorted(divisors, key=lambda d: (d not in (1, factor), d)):
        parts = (before, samples, factor // before)
        split = whole.reshape(*whole.shape[:axis], *parts, *whole.shape[axis + 1 :])
        split = split.movedim(axis + 1, 0)
        if all(
            close(part.flatten(axis, axis + 1), one) for part, one in zip(split, alone, strict=True)
        ):
            return _Place(axis, before, factor // before)
    return None


def _moved(
    call: Call, place: _Place, shape: tuple[int, ...], count: Ref, names: Names
) -> list[Call]:
    """Split the axis, move the sample to the front, run the crossbar, go back."""
    made: list[Call] = []

    def add(op: str, *args: Any, name: str | None = None) -> Ref:
        label = name or names.fresh(op.split(".")[1])
        made.append(replace(call, name=label, op=op, args=args, kwargs=(), shape=None))
        return Ref(label)

    axis, x = place.axis, call.args[1]
    merged = (place.before, count, place.after)
    split = add("aten.reshape.default", x, (*shape[:axis], *merged, *shape[axis + 1 :]))
    first = add("aten.movedim.int", split, axis + 1, 0)
    if axis == 0:
        # A convolution keeps its channels and spatial axes behind one leading axis.
        first = add("aten.reshape.default", first, (-1, *shape[1:]))
    result = add(CROSSBAR, call.args[0], first)
    if axis == 0:
        result = add("aten.unflatten.int", result, 0, (count, place.before, place.after))
    back = add("aten.movedim.int", result, 0, axis + 1)
    add("aten.flatten.using_ints", back, axis, axis + 2, name=call.name)
    return made


def _check_output(
    graph: Graph, value: Any, whole: dict[str, torch.Tensor], alone: list[dict[str, torch.Tensor]]
) -> None:
    y = whole[value.name]
    for index, run in enumerate(alone):
        one = run[value.name]
        if (
            y.ndim > 0
            and y.shape[0] == len(alone)
            and one.shape == (1, *y.shape[1:])
            and close(y[index : index + 1], one)
        ):
            continue
        call = _first_mixed(graph, whole, alone, value.name)
        raise call.refuse(
            f"{call.op} makes a sample's output depend on the other samples, or moves the "
            "sample axis away from the front",
            "a chip reads one sample at a time: keep samples apart, on the first axis",
        )


def _first_mixed(
    graph: Graph,
    whole: dict[str, torch.Tensor],
    alone: list[dict[str, torch.Tensor]],
    output: str,
) -> Call:
    """Return the first call whose value has no place for samples, or the output's."""
    for call in graph.calls:
        value = whole.get(call.name)
        if isinstance(value, torch.Tensor) and value.numel() and call.op != "sym.size":
            parts = [run[call.name] for run in alone]
            varies = any(value.shape != part.shape for part in parts)
            if (varies or call.name == output) and _find(value, parts) is None:
                return call
    return next((c for c in graph.calls if c.name == output), Call(output, "the input"))
