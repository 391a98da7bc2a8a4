"""Records of circuits and their SPICE text; pure."""

from spicenn.circuit.crossbar import Crossbar
from spicenn.circuit.names import safe_name, unique_names

__all__ = ["Crossbar", "safe_name", "unique_names"]
