"""The hand-written subcircuits of ``netlists/``, by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from spicenn.errors import NetlistError
from spicenn.technology.cell import Cell

_FOLDER = files("spicenn") / "netlists"
# A cell has these ports and one conductance; everything else there is periphery.
_CELL = re.compile(r"^\.subckt\s+(\w+)\s+wordline\s+bitline\s.*\bg=", re.MULTILINE)


@cache
def subcircuit_text(name: str) -> str:
    """Return the text of ``netlists/NAME.lib``. Raises NetlistError if there is none."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name not in _names():
        raise NetlistError(
            f"no subcircuit is called {name!r}", remedy="there are " + ", ".join(_names())
        )
    return (_FOLDER / f"{name}.lib").read_text("ascii")


def cell_names() -> tuple[str, ...]:
    """Names of the cells that ship with spicenn, sorted."""
    return tuple(name for name in _names() if _CELL.search(subcircuit_text(name)))


def load_cell(name: str, **parameters: float) -> Cell:
    """Return a cell that ships with spicenn, e.g. ``load_cell("sinh", v0=0.3)``.

    Raises NetlistError if there is none of that name, or no such parameter.
    """
    if name not in cell_names():
        raise NetlistError(
            f"no cell is called {name!r}", remedy="there are " + ", ".join(cell_names())
        )
    return Cell(name, subcircuit_text(name), tuple(sorted(parameters.items())))


@cache
def _names() -> tuple[str, ...]:
    return tuple(sorted(p.name[:-4] for p in _FOLDER.iterdir() if p.name.endswith(".lib")))
