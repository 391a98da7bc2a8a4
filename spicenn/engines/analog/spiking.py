"""A layer of spiking neurons behind a crossbar as one netlist to be stepped.

Wordlines ``x0_<i>`` are driven by the external sources ``vi_<i>``, one an axon; neuron k
has its membrane at ``mem_<k>`` and its output at ``spk_<k>``. ``i(vneu)`` is what the
neurons take, ``i(vdrv0)`` the drivers and ``i(vtia0)`` the amplifiers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spicenn.circuit.stepped import STEPPED
from spicenn.circuit.tolerances import Tolerances
from spicenn.engines.analog.netlist import render_network
from spicenn.engines.analog.network import AnalogNetwork, Stage
from spicenn.errors import InputError
from spicenn.periphery.lif import Lif, lif_instance
from spicenn.technology import Periphery
from spicenn.technology.library import subcircuit_text

SUPPLIES = ("i(vdrv0)", "i(vtia0)", "i(vneu)")


def axon(i: int) -> str:
    """Name of the source that drives input i."""
    return f"vi_{i}"


def membrane(k: int) -> str:
    """Node of neuron k's membrane."""
    return f"mem_{k}"


def spike(k: int) -> str:
    """Node of neuron k's output."""
    return f"spk_{k}"


def render_spiking(
    stage: Stage,
    neurons: Sequence[Lif],
    periphery: Periphery,
    *,
    name: str,
    temperature: float,
    tolerances: Tolerances = STEPPED,
    header: Sequence[str] = (),
) -> str:
    """Return the netlist of one layer, for a co-simulation.

    Parameters
    ----------
    stage : crossbars and difference amplifiers, no activation.
    neurons : one per output.
    temperature : [K].

    Raises InputError where neurons do not fit the stage, or have several supplies.
    """
    if len(neurons) != stage.outputs or stage.activation is not None:
        raise InputError(
            f"{len(neurons)} neurons for {stage.outputs} outputs", where=f"stage {stage.name}"
        )
    if len({spec.supply for spec in neurons}) != 1:
        raise InputError("neurons of a layer share one supply", where=f"stage {stage.name}")
    network = AnalogNetwork(name, (stage,), periphery, temperature)
    lines = [
        *subcircuit_text("lif").splitlines(),
        f"vneu neu 0 {neurons[0].supply!r}",
        *(
            lif_instance(f"n_{k}", (f"x1_{k}", membrane(k), spike(k), "neu"), spec)
            for k, spec in enumerate(neurons)
        ),
    ]
    return render_network(
        network,
        np.zeros((1, stage.inputs)),
        tolerances=tolerances,
        header=header,
        extra=lines,
        external=True,
    )
