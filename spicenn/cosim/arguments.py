"""Arguments of the processes that ship with spicenn: checked before a process starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import wraps
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

from spicenn.cosim.events import ProcessGenerator
from spicenn.cosim.kernel import Cosimulation
from spicenn.errors import InputError

P = ParamSpec("P")
G = TypeVar("G", bound=ProcessGenerator)


def process(function: Callable[P, G]) -> Callable[P, G]:
    """Let errors call a process by the name of the function that returned its generator.

    Such a function checks its arguments when it is called; a generator function would only
    do so at its first step.
    """

    @wraps(function)
    def begin(*arguments: P.args, **keywords: P.kwargs) -> G:
        generator = function(*arguments, **keywords)
        generator.__name__ = function.__name__  # type: ignore[attr-defined]
        return generator

    return begin


def check_finite(name: str, value: Any, where: str) -> float:
    """The value as a float. Raises InputError unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name} = {value!r} is not a finite number", where=where)
    return float(value)


def check_positive(name: str, value: Any, where: str) -> float:
    """The value as a float. Raises InputError unless it is finite and above 0."""
    if not check_finite(name, value, where) > 0:
        raise InputError(f"{name} = {value!r} is not above 0", where=where)
    return float(value)


def check_not_negative(name: str, value: Any, where: str) -> float:
    """The value as a float. Raises InputError unless it is finite and 0 or more."""
    if not check_finite(name, value, where) >= 0:
        raise InputError(f"{name} = {value!r} is below 0", where=where)
    return float(value)


def check_count(name: str, value: Any, where: str) -> int:
    """The value as an int. Raises InputError unless it is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"{name} = {value!r} is not a whole number of 1 or more", where=where)
    return int(value)


def check_nodes(env: Cosimulation, nodes: Iterable[str], where: str) -> tuple[str, ...]:
    """Nodes by their own names. Raises InputError for an unknown one or what is no list."""
    return _check_names(nodes, "nodes", env.check_node, where)


def check_sources(env: Cosimulation, sources: Iterable[str], where: str) -> tuple[str, ...]:
    """Sources by their own names. Raises InputError for an unknown one or what is no list."""
    return _check_names(sources, "sources", env.check_source, where)


def _check_names(
    names: Iterable[str], what: str, check: Callable[[str], str], where: str
) -> tuple[str, ...]:
    listed = () if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    if not listed or not all(isinstance(name, str) for name in listed):
        raise InputError(
            f"{names!r} is not a list of {what}",
            where=where,
            remedy="give a list of names, also of a single one",
        )
    known = []
    for name in listed:
        try:
            known.append(check(name))
        except InputError as error:
            inner = f"{where}; {error.where}" if error.where else where
            raise InputError(error.what, where=inner, remedy=error.remedy) from None
    return tuple(known)
