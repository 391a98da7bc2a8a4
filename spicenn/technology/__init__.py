"""What can be manufactured: records, presets as data, samplers."""

from spicenn.technology.cell import OHMIC, Cell
from spicenn.technology.quantity import parse_quantity
from spicenn.technology.record import Corner, Drive, Technology

__all__ = ["OHMIC", "Cell", "Corner", "Drive", "Technology", "parse_quantity"]
