"""Recognise an einsum by a matrix as a linear map."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Permute x, map its last axis, permute the result; None leaves a step out."""

    turn_weight: bool
    before: tuple[int, ...] | None
    after: tuple[int, ...] | None


def as_linear(equation: str, weight_first: bool) -> Plan | None:
    """Return how to compute an einsum of x and a matrix, None where it is no linear map.

    The weight must be a matrix that shares one letter with x, which the result has not,
    and brings one letter that only the result has.
    """
    text = equation.replace(" ", "")
    if "->" not in text or "." in text:
        return None
    left, result = text.split("->")
    operands = left.split(",")
    if len(operands) != 2:
        return None
    w, x = operands if weight_first else (operands[1], operands[0])
    shared = set(w) & set(x)
    if len(w) != 2 or len(set(w)) != 2 or len(shared) != 1 or len(set(x)) != len(x):
        return None
    (summed,) = shared
    brought = w.replace(summed, "")
    rest = x.replace(summed, "")
    if len(set(result)) != len(result) or set(result) != set(rest) | {brought}:
        return None
    before = tuple(x.index(letter) for letter in rest + summed)
    after = tuple((rest + brought).index(letter) for letter in result)
    return Plan(
        turn_weight=w[0] == summed,
        before=None if before == tuple(range(len(x))) else before,
        after=None if after == tuple(range(len(result))) else after,
    )
