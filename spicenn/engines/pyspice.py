"""Hand tiles over to PySpice, so that its users can put a circuit of their own around them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from spicenn.circuit import Crossbar, render_subcircuit
from spicenn.technology.variation import Cells


def crossbars_to_circuit(title: str, tiles: Sequence[tuple[Crossbar, Cells]]) -> Any:
    """Return a ``PySpice.Spice.Netlist.Circuit`` of one subcircuit and instance per tile.

    Cells are bulk text, not one object each: an object per resistor costs more than
    the solution. Ports are ``TILE_in_i`` per wordline, then ``TILE_out_j`` per bitline.

    Parameters
    ----------
    tiles : circuit and cells of every tile.
    """
    with warnings.catch_warnings():
        # PySpice 1.5 holds unescaped backslashes, which newer Pythons report on import.
        warnings.simplefilter("ignore")
        from PySpice.Spice.Netlist import Circuit

    circuit = Circuit(title)
    texts = {}
    for crossbar, cells in tiles:
        if not crossbar.cell.is_ohmic:
            texts[crossbar.cell.name] = crossbar.cell.netlist
        texts[crossbar.name] = render_subcircuit(crossbar, cells.g, cells.parameters)
        inputs = [f"{crossbar.name}_in_{i}" for i in range(crossbar.wordlines)]
        outputs = [f"{crossbar.name}_out_{j}" for j in range(crossbar.bitlines)]
        circuit.X(crossbar.name, crossbar.name, *inputs, *outputs)
    circuit.raw_spice = "\n".join(texts.values()) + "\n"
    return circuit
