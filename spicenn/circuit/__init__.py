"""Records of circuits and their SPICE text; pure."""

from spicenn.circuit.check import check_command, check_netlist
from spicenn.circuit.crossbar import Crossbar
from spicenn.circuit.names import safe_name, unique_names
from spicenn.circuit.noise import noise_sources, render_noise
from spicenn.circuit.parse import parse_crossbar
from spicenn.circuit.raw import RawPlot, read_raw, write_raw
from spicenn.circuit.render import (
    cell_nodes,
    comment_text,
    render_crossbar,
    render_live,
    render_subcircuit,
)
from spicenn.circuit.tolerances import Tolerances
from spicenn.technology.library import cell_names, load_cell

__all__ = [
    "Crossbar",
    "RawPlot",
    "Tolerances",
    "cell_names",
    "cell_nodes",
    "check_command",
    "check_netlist",
    "comment_text",
    "load_cell",
    "noise_sources",
    "parse_crossbar",
    "read_raw",
    "render_crossbar",
    "render_live",
    "render_noise",
    "render_subcircuit",
    "safe_name",
    "unique_names",
    "write_raw",
]
