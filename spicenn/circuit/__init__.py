"""Records of circuits and their SPICE text; pure."""

from spicenn.circuit.check import check_command, check_netlist
from spicenn.circuit.crossbar import Crossbar
from spicenn.circuit.names import safe_name, unique_names
from spicenn.circuit.parse import parse_crossbar
from spicenn.circuit.raw import read_raw
from spicenn.circuit.render import comment_text, render_crossbar, render_live, render_subcircuit
from spicenn.circuit.tolerances import Tolerances
from spicenn.technology.library import cell_names, load_cell

__all__ = [
    "Crossbar",
    "Tolerances",
    "cell_names",
    "check_command",
    "check_netlist",
    "comment_text",
    "load_cell",
    "parse_crossbar",
    "read_raw",
    "render_crossbar",
    "render_live",
    "render_subcircuit",
    "safe_name",
    "unique_names",
]
