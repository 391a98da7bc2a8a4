"""From a torch model to a design, and from a design to manufactured chips."""

from spicenn.compiler.chip import Chip
from spicenn.compiler.design import Design
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.pipeline import compile

__all__ = ["Chip", "Design", "Mapping", "Tile", "compile"]
