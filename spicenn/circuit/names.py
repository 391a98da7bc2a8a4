"""Names that reach a netlist, and what to say of those that do not exist."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Sequence

from spicenn.errors import InputError


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


def near(name: str, known: Sequence[str]) -> str:
    """Return what an error adds to an unknown name: those that are like it, else the first."""
    if not known:
        return "; there are none"
    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return f"; there is {', '.join(close)}"
    return f"; there are {', '.join(known[:8])}{', …' if len(known) > 8 else ''}"


def known_name(
    text: str, known: Collection[str], what: str, *, where: str, remedy: str | None = None
) -> str:
    """Return one of the known names for what a user wrote: any case, a node as v(node) too.

    Raises InputError where there is none of this name.
    """
    name = text.strip().lower()
    if name.startswith("v(") and name.endswith(")"):
        name = name[2:-1]
    if name not in known:
        raise InputError(
            f"there is no {what} {text[:60]!r}{near(name, list(known))}", where=where, remedy=remedy
        )
    return name
