"""Names that reach a netlist: lower case, letters, digits and underscores, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterable


def safe_name(text: str) -> str:
    """Return ``text`` as an identifier that no SPICE parser can read as anything else.

    A module called ``.control`` becomes ``control``; nothing left becomes ``x``.
    """
    name = re.sub(r"[^a-z0-9]+", "_", text.lower().encode("ascii", "ignore").decode()).strip("_")
    return name if name[:1].isalpha() else f"x{name}"


def unique_names(texts: Iterable[str]) -> tuple[str, ...]:
    """Return one safe name per text, told apart by a number where two would be alike."""
    taken: set[str] = set()
    names = []
    for text in texts:
        base = name = safe_name(text)[:60]
        count = 1
        while name in taken:
            count += 1
            name = f"{base}_{count}"
        taken.add(name)
        names.append(name)
    return tuple(names)
