"""Time constants of a stage in closed form: lines by Elmore, amplifiers by their poles."""

from __future__ import annotations

import numpy as np

from spicenn.circuit import Crossbar
from spicenn.engines.analog.network import AnalogNetwork, Stage
from spicenn.periphery.tia import settling_time
from spicenn.technology import Periphery

# A time constant's share that is left of a step.
_LEFT = np.exp(-1.0)


def elmore_wordline(crossbar: Crossbar, r_driver: float = 0.0) -> float:
    """Elmore delay [s] from a driver to the last cell of a wordline.

    Σ over nodes of the resistance up to the node times its capacitance, cells' currents
    left out: (r_driver + k r) at the k-th of n nodes. With a cell's other side at ground its
    capacitance counts as the line's. Source: Elmore, J. Appl. Phys. 19, 55 (1948).
    """
    n, c = crossbar.bitlines, crossbar.c_wordline + crossbar.c_cell
    return c * (n * r_driver + crossbar.r_wordline * n * (n + 1) / 2)


def elmore_bitline(crossbar: Crossbar, r_sense: float = 0.0) -> float:
    """Elmore delay [s] from the first cell of a bitline to its amplifier."""
    n, c = crossbar.wordlines, crossbar.c_bitline + crossbar.c_cell
    return c * (n * r_sense + crossbar.r_bitline * n * (n + 1) / 2)


def stage_time(stage: Stage, periphery: Periphery) -> float:
    """Sum of the time constants [s] along a stage's slowest path."""
    lines = max(
        elmore_wordline(block.crossbar, periphery.driver.resistance)
        + elmore_bitline(block.crossbar)
        for block in stage.blocks
    )
    column = np.zeros(2 * stage.outputs)
    capacitance = np.zeros(2 * stage.outputs)
    for block in stage.blocks:
        at = slice(block.line, block.line + block.crossbar.bitlines)
        column[at] += block.cells.g.sum(axis=0)
        each = block.crossbar.c_bitline + block.crossbar.c_cell
        capacitance[at] += each * block.crossbar.wordlines
    amplifiers = sum(
        settling_time(_LEFT, r, periphery.tia, float(column.max()) + more, float(capacitance.max()))
        for r, more in ((stage.r_first, 0.0), (stage.r_feedback, 1.0 / stage.r_first))
    )
    return lines + amplifiers


def time_scale(network: AnalogNetwork) -> float:
    """Sum of all stages' time constants [s]; a picosecond where nothing takes time."""
    total = sum(stage_time(stage, network.periphery) for stage in network.stages)
    return max(total, 1e-12)
