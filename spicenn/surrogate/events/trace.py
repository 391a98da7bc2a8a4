"""A co-simulation of one spiking layer, as the events, membranes and energies to learn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import CalibrationError
from spicenn.surrogate.events.model import Array, LayerModel, from_plain, to_plain

if TYPE_CHECKING:
    import xarray as xr

# Name of what tells a layer's trace from others, among a dataset's attributes.
ATTRIBUTE = "spiking_layer"


@dataclass(frozen=True, eq=False, kw_only=True)
class Trace:
    """What happened at one layer.

    Parameters
    ----------
    axons, neurons : their numbers.
    edge_time, edge_axon, edge_level : (edge,), middle of a drive's slope [s], which axon,
        what level it goes to [V].
    spike_time, spike_neuron : (spike,), half-way up of an output [s], and whose.
    membrane_time : (sample,) [s], just before edges; membrane : (sample, neuron) [V].
        Both are empty where membranes were not seen.
    energy_time : (window + 1,) [s]; energy : (window + 1,) from all supplies up to then [J].
    until : the end [s].
    chip : which one.
    """

    axons: int
    neurons: int
    edge_time: Array
    edge_axon: NDArray[np.int64]
    edge_level: Array
    spike_time: Array
    spike_neuron: NDArray[np.int64]
    membrane_time: Array
    membrane: Array
    energy_time: Array
    energy: Array
    until: float
    chip: int

    def before(self, time: float) -> Trace:
        """What had happened by then."""
        edges, spikes = self.edge_time <= time, self.spike_time <= time
        samples, windows = self.membrane_time <= time, self.energy_time <= time
        return replace(
            self,
            edge_time=self.edge_time[edges],
            edge_axon=self.edge_axon[edges],
            edge_level=self.edge_level[edges],
            spike_time=self.spike_time[spikes],
            spike_neuron=self.spike_neuron[spikes],
            membrane_time=self.membrane_time[samples],
            membrane=self.membrane[samples],
            energy_time=self.energy_time[windows],
            energy=self.energy[windows],
            until=time,
        )

    def without_membranes(self) -> Trace:
        """The same seen from outside: inputs, outputs and supplies."""
        return replace(self, membrane_time=np.zeros(0), membrane=np.zeros((0, self.neurons)))


def read_trace(ds: xr.Dataset) -> Trace:
    """Events, membranes and energies of a layer's co-simulation.

    Membranes are read a tenth of a slope before every edge, energies at the middles
    between one edge's end and the next one's begin where they are more than a slope apart.

    Raises CalibrationError for a dataset that is not the trace of a spiking layer.
    """
    facts = _facts(ds)
    axons, neurons, rise = int(facts["axons"]), int(facts["neurons"]), float(facts["rise"])
    kind = ds["event_kind"].values
    name = ds["event_name"].values.astype(str)
    time, value = ds["event_time"].values, ds["event_value"].values
    drives = np.flatnonzero((kind == "drive") & np.char.startswith(name, "vi_"))
    spikes = np.flatnonzero((kind == "crossing") & np.char.startswith(name, "spk_"))
    at = ds["time"].values
    before = np.unique(np.clip(time[drives] - 0.1 * rise, 0.0, None))
    seen = all(f"mem_{k}" in ds for k in range(neurons))
    membrane = [np.interp(before, at, ds[f"mem_{k}"].values) for k in range(neurons) if seen]
    power = np.zeros(len(at))
    for source, volts in facts["supplies"].items():
        power -= float(volts) * ds[source].values
    cumulated = np.concatenate([[0.0], np.cumsum(np.diff(at) * (power[1:] + power[:-1]) / 2)])
    bounds = np.unique(np.concatenate([[0.0], before, [float(at[-1])]]))
    return Trace(
        axons=axons,
        neurons=neurons,
        edge_time=time[drives] + rise / 2,
        edge_axon=np.array([int(name[j][3:]) for j in drives], dtype=np.int64),
        edge_level=value[drives],
        spike_time=time[spikes],
        spike_neuron=np.array([int(name[j][4:]) for j in spikes], dtype=np.int64),
        membrane_time=before if seen else np.zeros(0),
        membrane=np.stack(membrane, axis=1) if seen else np.zeros((0, neurons)),
        energy_time=bounds,
        energy=np.interp(bounds, at, cumulated),
        until=float(at[-1]),
        chip=int(facts["chip"]),
    )


def nominal_of(ds: xr.Dataset) -> LayerModel:
    """What the layer of a trace was meant to be. Raises CalibrationError as ``read_trace``."""
    return from_plain(_facts(ds)["nominal"])


def is_trace(ds: Any) -> bool:
    """Whether a dataset is the trace of a spiking layer."""
    return ATTRIBUTE in getattr(ds, "attrs", {})


def describe(
    axons: int,
    neurons: int,
    *,
    rise: float,
    chip: int,
    supplies: Mapping[str, float],
    nominal: LayerModel,
) -> dict[str, str]:
    """Attributes that make a co-simulation's dataset a trace to learn from.

    Parameters
    ----------
    rise : of every drive's slope [s].
    supplies : voltages by the name of their current, ``i(vneu)`` and so on [V].
    nominal : what every chip was meant to be, from which a fit starts.
    """
    facts = {
        "axons": axons, "neurons": neurons, "rise": rise, "chip": chip, "supplies": dict(supplies),
        "nominal": to_plain(nominal),
    }  # fmt: skip
    return {ATTRIBUTE: json.dumps(facts)}


def _facts(ds: xr.Dataset) -> dict[str, Any]:
    if not is_trace(ds):
        raise CalibrationError(
            "the dataset is not the trace of a spiking layer",
            remedy="record it with spicenn.cosim.characterize.trace_layer",
        )
    facts = json.loads(ds.attrs[ATTRIBUTE])
    missing = {"axons", "neurons", "rise", "chip", "supplies", "nominal"} - set(facts)
    if missing:
        raise CalibrationError(f"the trace does not say its {', '.join(sorted(missing))}")
    for name in ("event_time", "time", *facts["supplies"]):
        if name not in ds.variables:
            raise CalibrationError(f"the trace has no {name!r}")
    return dict(facts)
