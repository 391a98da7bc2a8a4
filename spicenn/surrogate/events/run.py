"""A layer's model run by itself, without a co-simulation around it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.surrogate.events.model import Array, LayerModel
from spicenn.surrogate.events.state import LayerState
from spicenn.surrogate.events.trace import Trace


@dataclass(frozen=True, eq=False)
class Run:
    """What a model did.

    spike_time, spike_neuron : (spike,), in order [s].
    membrane : (sample, neuron) [V]; energy : (sample,) [J], at the times asked for.
    events : edges and spikes.
    """

    spike_time: Array
    spike_neuron: NDArray[np.int64]
    membrane: Array
    energy: Array
    events: int


def run_layer(
    model: LayerModel,
    edge_time: Array,
    edge_axon: NDArray[np.int64],
    edge_level: Array,
    until: float,
    *,
    sample: Array | None = None,
    membranes: bool = True,
) -> Run:
    """Run a layer from rest.

    Parameters
    ----------
    edge_time, edge_axon, edge_level : (edge,), middle of each drive's slope [s], ascending;
        whose; the level that it goes to [V].
    until : [s].
    sample : (sample,) times at which membranes and energy are read [s], ascending.
    membranes : whether membranes are; if not they come back empty.

    Raises InputError for times that do not ascend.
    """
    if np.any(np.diff(edge_time) < 0):
        raise InputError("edges are not in order of time", where="run_layer")
    sample = np.zeros(0) if sample is None else sample
    state = LayerState(model)
    edges = edge_time + model.lag
    # Edges at one time are one event.
    starts = np.flatnonzero(np.diff(edges, prepend=-math.inf) > 0)
    ends = np.append(starts[1:], len(edges))
    times, neurons, read, energy = [], [], [], []
    at = 0
    taken = 0
    while True:
        edge = float(edges[starts[at]]) if at < len(starts) else math.inf
        first = float(state.fires.min())
        time = min(edge, first)
        while taken < len(sample) and sample[taken] <= min(time, until):
            energy.append(state.energy_at(float(sample[taken])))
            if membranes:
                read.append(state.voltage(float(sample[taken])))
            taken += 1
        if time > until:
            break
        if first <= edge:
            k = int(state.fires.argmin())
            times.append(time)
            neurons.append(k)
            state.fire(k, time)
        else:
            state.advance(time)
            chosen = slice(starts[at], ends[at])
            change_edges(state, edge_axon[chosen], edge_level[chosen])
            at += 1
    return Run(
        np.array(times),
        np.array(neurons, dtype=np.int64),
        np.array(read).reshape(-1, model.neurons),
        np.array(energy),
        len(starts) + len(times),
    )


def change_edges(state: LayerState, axons: NDArray[np.int64], levels: Array) -> None:
    """Take axons to levels [V]; of several levels for one axon the last holds."""
    if len(axons) > 1:
        final = dict(zip(axons.tolist(), levels.tolist(), strict=True))
        axons, levels = np.array(list(final)), np.array(list(final.values()))
    state.drive(axons, levels - state.level[axons])


def rerun(model: LayerModel, trace: Trace) -> Run:
    """Give a model the inputs of a trace; read it where the trace was read.

    Energies are at ``energy_time``, membranes at ``membrane_time``, which are among them.
    """
    order = np.argsort(trace.edge_time, kind="stable")
    run = run_layer(
        model,
        trace.edge_time[order],
        trace.edge_axon[order],
        trace.edge_level[order],
        trace.until,
        sample=trace.energy_time,
        membranes=len(trace.membrane_time) > 0,
    )
    rows = np.searchsorted(trace.energy_time, trace.membrane_time)
    membrane = run.membrane[rows] if len(rows) else run.membrane
    return Run(run.spike_time, run.spike_neuron, membrane, run.energy, run.events)
