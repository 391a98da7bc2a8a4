"""Whole networks of crossbars, amplifiers and neurons as one circuit.

``network`` holds the record, ``netlist`` its SPICE text, ``simulate`` runs it in ngspice
(operating points, transients with energy and latency), ``behaviour`` computes the same
from Kirchhoff's laws and the blocks' closed forms.
"""

from spicenn.engines.analog.behaviour import behaviour
from spicenn.engines.analog.netlist import block_nodes, render_network
from spicenn.engines.analog.network import AnalogNetwork, Block, Stage
from spicenn.engines.analog.settling import elmore_bitline, elmore_wordline, time_scale
from spicenn.engines.analog.simulate import (
    COMPONENTS,
    TRANSIENT,
    Transient,
    operating_points,
    transient,
)

__all__ = [
    "COMPONENTS",
    "TRANSIENT",
    "AnalogNetwork",
    "Block",
    "Stage",
    "Transient",
    "behaviour",
    "block_nodes",
    "elmore_bitline",
    "elmore_wordline",
    "operating_points",
    "render_network",
    "time_scale",
    "transient",
]
