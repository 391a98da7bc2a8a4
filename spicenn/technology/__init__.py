"""What can be manufactured: records, presets as data, samplers."""

from spicenn.technology.cell import OHMIC, Cell
from spicenn.technology.mechanisms import Drift, Noise, Variation
from spicenn.technology.periphery import (
    Comparator,
    Converter,
    Driver,
    Neuron,
    Periphery,
    SampleHold,
    Tia,
)
from spicenn.technology.quantity import parse_quantity
from spicenn.technology.record import Corner, Drive, Technology

__all__ = [
    "OHMIC",
    "Cell",
    "Comparator",
    "Converter",
    "Corner",
    "Drift",
    "Drive",
    "Driver",
    "Neuron",
    "Noise",
    "Periphery",
    "SampleHold",
    "Technology",
    "Tia",
    "Variation",
    "parse_quantity",
]
