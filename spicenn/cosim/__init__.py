"""Event-driven co-simulation: analog circuits and digital processes under one clock."""

from spicenn.cosim.block import Block, Threshold
from spicenn.cosim.kernel import Cosimulation, Crossing, Spike

__all__ = ["Block", "Cosimulation", "Crossing", "Spike", "Threshold"]
