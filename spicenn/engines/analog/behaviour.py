"""A network without a simulator: Kirchhoff's laws in its tiles, closed forms around them.

What is left out: an amplifier of finite gain moves its bitline by millivolts, and in a
tile with wires that moves the currents of the other bitlines as well. Of that only the
bitline's own conductance is in the closed forms.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spicenn.engines.analog.network import AnalogNetwork, Array, Stage
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import Status, error_of
from spicenn.periphery.neuron import relu_output, sigmoid_output, tanh_output
from spicenn.periphery.tia import diff_tia_output
from spicenn.technology import Periphery

_NEURONS = {"relu": relu_output, "tanh": tanh_output, "sigmoid": sigmoid_output}


def behaviour(network: AnalogNetwork, v: Array) -> tuple[Array, ...]:
    """Settled outputs of every stage, (sample, output) [V].

    Parameters
    ----------
    v : (sample, input) [V] at the first stage's driver inputs.

    Raises InputError for voltages that do not fit, EngineError for a cell whose law the
    nodal engine does not know.
    """
    outputs = []
    volts = network.inputs(v)
    for stage in network.stages:
        volts = _stage(stage, network.periphery, volts)
        outputs.append(volts)
    return tuple(outputs)


def _stage(stage: Stage, periphery: Periphery, v: Array) -> Array:
    bias = np.broadcast_to(stage.bias, (len(v), len(stage.bias)))
    driven = np.concatenate([stage.gain * v, bias], axis=1)
    current = np.zeros((len(v), 2 * stage.outputs))
    conductance = np.zeros(2 * stage.outputs)
    for block in stage.blocks:
        crossbar = replace(block.crossbar, r_driver=periphery.driver.resistance)
        rows = slice(block.row, block.row + crossbar.wordlines)
        chip = block.cells.at(np.newaxis)
        solution = NodalEngine().solve(
            crossbar, chip.g, driven[np.newaxis, :, rows], chip.parameters
        )
        if solution.status[0] != Status.OK:
            raise error_of(
                Status(int(solution.status[0])), solution.message[0], where=crossbar.name
            )
        lines = slice(block.line, block.line + crossbar.bitlines)
        current[:, lines] += solution.current[0]
        conductance[lines] += block.cells.g.sum(axis=0)
    z = diff_tia_output(
        current[:, 0::2], current[:, 1::2], stage.r_first, stage.r_feedback, periphery.tia,
        (stage.tia_offset[0], stage.tia_offset[1]),
        (conductance[0::2], conductance[1::2]),
    )  # fmt: skip
    if stage.activation is None:
        return np.asarray(z)
    return np.asarray(_NEURONS[stage.activation](z, periphery.neuron, stage.neuron_offset))
