"""The hand-written subcircuits of ``netlists/``, by name."""

from __future__ import annotations

from importlib.resources import files

from spicenn.circuit.names import safe_name
from spicenn.errors import NetlistError
from spicenn.technology import Cell

_FOLDER = files("spicenn") / "netlists"


def cell_names() -> tuple[str, ...]:
    """Names of the cells that ship with spicenn, sorted."""
    return tuple(sorted(p.name[:-4] for p in _FOLDER.iterdir() if p.name.endswith(".lib")))


def load_cell(name: str) -> Cell:
    """Return a cell that ships with spicenn, e.g. ``"sinh"``.

    Raises NetlistError if there is none of that name.
    """
    if name != safe_name(name) or name not in cell_names():
        raise NetlistError(
            f"no cell is called {name!r}", remedy="there are " + ", ".join(cell_names())
        )
    return Cell(name, (_FOLDER / f"{name}.lib").read_text("ascii"))
