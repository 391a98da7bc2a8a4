"""Lines of a netlist that place a subcircuit."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from spicenn.errors import NetlistError

_WORD = re.compile(r"[a-z0-9_][a-z0-9_.]*\Z")


def instance(
    name: str, nodes: Sequence[str], subcircuit: str, parameters: Mapping[str, float]
) -> str:
    """Return ``xNAME nodes… SUBCIRCUIT key=value…`` on one line.

    Raises NetlistError for a name or a node that is no plain lower-case word, or a value
    that is not finite.
    """
    for word in (name, *nodes, subcircuit):
        if not _WORD.match(word):
            raise NetlistError(
                f"{word!r} is not a name",
                where=f"instance of {subcircuit}",
                remedy="use lower-case letters, digits and underscores",
            )
    for key, value in parameters.items():
        if not math.isfinite(value):
            raise NetlistError(f"{key} = {value!r} is not finite", where=f"x{name}")
    values = [f"{key}={float(value)!r}" for key, value in parameters.items()]
    return " ".join([f"x{name}", *nodes, subcircuit, *values])


def table(points: Sequence[tuple[float, float]]) -> str:
    """Arguments of ``pwl``, four points a line."""
    pairs = [f"{float(x)!r},{float(y)!r}" for x, y in points]
    lines = [",".join(pairs[k : k + 4]) for k in range(0, len(pairs), 4)]
    return ",\n+ ".join(lines)
