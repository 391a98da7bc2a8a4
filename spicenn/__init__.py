"""From a trained PyTorch network to analog chips in ngspice, and back.

Names load on first use: ``import spicenn`` costs neither torch nor dask.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    # A module may be named after its function: take the function from there, beyond doubt.
    from spicenn.compiler import Chip, Design, Mapping, Tile
    from spicenn.compiler.compile import compile
    from spicenn.errors import SpicennError, Status
    from spicenn.study import monte_carlo
    from spicenn.surrogate.calibrate import calibrate
    from spicenn.surrogate.fit import fit
    from spicenn.technology import Cell, Technology, parse_quantity

__all__ = [
    "Cell",
    "Chip",
    "Design",
    "Mapping",
    "SpicennError",
    "Status",
    "Technology",
    "Tile",
    "__version__",
    "calibrate",
    "compile",
    "fit",
    "monte_carlo",
    "parse_quantity",
]

_HOME = {
    "Cell": "spicenn.technology",
    "Chip": "spicenn.compiler",
    "Design": "spicenn.compiler",
    "Mapping": "spicenn.compiler",
    "SpicennError": "spicenn.errors",
    "Status": "spicenn.errors",
    "Technology": "spicenn.technology",
    "Tile": "spicenn.compiler",
    "calibrate": "spicenn.surrogate",
    "compile": "spicenn.compiler",
    "fit": "spicenn.surrogate",
    "monte_carlo": "spicenn.study",
    "parse_quantity": "spicenn.technology",
}


if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        # Kept as a plain attribute, so that the next access does not come here again.
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
