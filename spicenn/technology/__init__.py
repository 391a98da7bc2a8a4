"""What can be manufactured: records, presets as data, samplers."""

from spicenn.technology.cell import OHMIC, Cell
from spicenn.technology.mechanisms import Drift, Noise, Variation
from spicenn.technology.periphery import Converter, Driver, Neuron, Periphery, Tia
from spicenn.technology.quantity import parse_quantity
from spicenn.technology.record import Corner, Drive, Technology

__all__ = [
    "OHMIC",
    "Cell",
    "Converter",
    "Corner",
    "Drift",
    "Drive",
    "Driver",
    "Neuron",
    "Noise",
    "Periphery",
    "Technology",
    "Tia",
    "Variation",
    "parse_quantity",
]
