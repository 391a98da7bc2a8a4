"""The surrogate of a layer: what its chips share, how they differ, and one chip's own."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spicenn.compiler.spiking import SpikingLayer
from spicenn.errors import CalibrationError, DesignError, InputError
from spicenn.surrogate.events.block import LayerBlock
from spicenn.surrogate.events.chip import Noise, Spread, fit_chip
from spicenn.surrogate.events.energy import EnergySpread, calibrate_energy
from spicenn.surrogate.events.fitting import fit_population
from spicenn.surrogate.events.model import (
    Array,
    LayerModel,
    circuit_model,
    from_plain,
    to_plain,
)
from spicenn.surrogate.events.replay import replay
from spicenn.surrogate.events.trace import Trace, nominal_of, read_trace

if TYPE_CHECKING:
    import xarray as xr

_SCHEMA = 1
# Share of a trace that a calibration is judged on, having not seen it.
_HELD_OUT = 0.3
# Fewer spikes than this in that share judge nothing.
_FEWEST = 3
# A calibration has to bring the voltage lacking at held-out spikes down to this share.
_BETTER = 0.9
# Held-out spikes whose voltage is further off than this do not belong to the chip [V].
_STRANGE = 0.1


@dataclass(frozen=True, eq=False)
class EventCalibration:
    """A chip's model, or the population's where the trace does not support one.

    Parameters
    ----------
    model : ready to use.
    success : whether it is the chip's own.
    reason : one sentence on why or why not.
    heldout, population : median voltage lacking at spikes that a calibration did not see
        [V], with it and with the population's model.
    """

    model: LayerModel
    success: bool
    reason: str
    heldout: float
    population: float

    def block(self, *, record: Sequence[str] | None = None, name: str = "layer") -> LayerBlock:
        """The chip's layer for a co-simulation; see ``LayerBlock``."""
        return LayerBlock(self.model, record=record, name=name)


@dataclass(frozen=True, eq=False)
class EventSurrogate:
    """What several chips' traces say of a layer.

    Parameters
    ----------
    model : the population's mean.
    nominal : what the fit started from.
    spread, energy : how chips differ.
    noise : what a chip's fitted model leaves.
    chips : how many were seen.
    provenance : what it was fitted to, as text.
    """

    model: LayerModel
    nominal: LayerModel
    spread: Spread
    noise: Noise
    energy: EnergySpread
    chips: int
    provenance: Mapping[str, str]

    def block(self, *, record: Sequence[str] | None = None, name: str = "layer") -> LayerBlock:
        """The population's layer for a co-simulation, of no chip in particular."""
        return LayerBlock(self.model, record=record, name=name)

    def for_layer(self, layer: SpikingLayer) -> LayerModel:
        """The model of a layer whose devices are known, of any size, with what was learned.

        What the circuit says of it is corrected as the traces corrected what it said of
        theirs: comparators, resets, floors and energies, as ratios or shifts.
        """
        model, start, found = circuit_model(layer), self.nominal, self.model

        def ratio(name: str) -> float:
            return float(np.mean(getattr(found, name)) / np.mean(getattr(start, name)))

        scaled = ("tau", "refractory", "fall", "catch", "grip", "power_axon", "power_slope",
                  "energy_catch", "power_rest", "power_near")  # fmt: skip
        gain = float((found.weights * start.weights).sum() / (start.weights**2).sum())
        return model.with_(
            **{name: getattr(model, name) * ratio(name) for name in scaled},
            weights=model.weights * gain,
            threshold=model.threshold + float(np.mean(found.threshold - start.threshold)),
            floor=model.floor + found.floor - start.floor,
            excess=found.excess,
            slope=found.slope,
            lag=found.lag,
            energy_spike=model.energy_spike * found.energy_spike / start.energy_spike,
            near=found.near,
        )

    def calibrate(self, trace: Trace | xr.Dataset, *, membranes: bool = False) -> EventCalibration:
        """Find one chip's constants from a trace: its inputs, outputs' times and supplies.

        The last part of the trace judges what the rest gives; where that is no better than
        the population it is refused.

        Parameters
        ----------
        membranes : use those of the trace too.

        Raises CalibrationError for a trace of another layer, or one without outputs.
        """
        seen = trace if isinstance(trace, Trace) else read_trace(trace)
        if (seen.axons, seen.neurons) != (self.model.axons, self.model.neurons):
            raise CalibrationError(
                f"a trace of {seen.axons} axons and {seen.neurons} neurons for a surrogate of "
                f"{self.model.axons} and {self.model.neurons}"
            )
        seen = seen if membranes else seen.without_membranes()
        until = seen.until * (1 - _HELD_OUT)
        out = seen.spike_time > until
        if int(out.sum()) < _FEWEST or int((~out).sum()) < _FEWEST:
            raise CalibrationError(
                f"{len(seen.spike_time)} spikes are too few to hold any out",
                remedy="record a longer probe, or one with more pulses",
            )
        first = fit_chip(self.model, self.spread, self.noise, seen.before(until), rounds=3)
        heldout = float(np.median(np.abs(replay(first, seen).lacking[out])))
        before = float(np.median(np.abs(replay(self.model, seen).lacking[out])))
        said = (
            f"median voltage lacking at held-out spikes went from {before:.3g} to {heldout:.3g} V"
        )
        if heldout > _STRANGE:
            return EventCalibration(
                self.model, False, f"{said}: the outputs are not those of these inputs",
                heldout, before,
            )  # fmt: skip
        if heldout > _BETTER * before:
            return EventCalibration(
                self.model, False, f"{said}: no clear improvement", heldout, before
            )
        model = fit_chip(self.model, self.spread, self.noise, seen, rounds=2, start=first)
        model = calibrate_energy(model, replay(model, seen), seen, self.energy)
        return EventCalibration(model, True, said, heldout, before)

    def save(self, path: str | Path) -> None:
        """Write it to one .npz file of numbers and text, without pickle."""
        meta = {
            "schema": _SCHEMA,
            "spread": asdict(self.spread),
            "noise": asdict(self.noise),
            "energy": asdict(self.energy),
            "chips": self.chips,
            "provenance": dict(self.provenance),
        }
        arrays: dict[str, Array] = {}
        for prefix, model in (("model", self.model), ("nominal", self.nominal)):
            arrays |= {f"{prefix}_{k}": np.asarray(v) for k, v in to_plain(model).items()}
        with Path(path).open("wb") as file:
            np.savez(file, meta=np.array(json.dumps(meta)), **arrays)  # type: ignore[arg-type]

    @staticmethod
    def load(path: str | Path) -> EventSurrogate:
        """Read a saved surrogate. Raises DesignError where the file is not one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                content = dict(file)
            meta: dict[str, Any] = json.loads(str(content.pop("meta")))
            if meta["schema"] != _SCHEMA:
                raise DesignError(f"schema {meta['schema']!r} is unknown", where=str(path))

            def model(prefix: str) -> LayerModel:
                start = f"{prefix}_"
                return from_plain(
                    {k[len(start) :]: v for k, v in content.items() if k.startswith(start)}
                )

            return EventSurrogate(
                model("model"),
                model("nominal"),
                Spread(**meta["spread"]),
                Noise(**meta["noise"]),
                EnergySpread(**meta["energy"]),
                int(meta["chips"]),
                {str(k): str(v) for k, v in meta["provenance"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, InputError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise DesignError(
                f"is not an event-driven surrogate: {error}",
                where=str(path),
                remedy="save it again with this version of spicenn",
            ) from None


def fit_events(traces: Sequence[xr.Dataset], *, rounds: int = 2) -> EventSurrogate:
    """Learn the population of a layer's chips from their traces, with membranes.

    Parameters
    ----------
    traces : of ``cosim.characterize.trace_layer``, of several chips of one design.
    rounds : alternations between chips and what they share.

    Raises CalibrationError where they are of fewer than two chips, or have no membranes.
    """
    if not len(traces):
        raise CalibrationError("there is no trace")
    return surrogate_of(nominal_of(traces[0]), [read_trace(ds) for ds in traces], rounds=rounds)


def surrogate_of(
    nominal: LayerModel, traces: Sequence[Trace], *, rounds: int = 2
) -> EventSurrogate:
    """As ``fit_events``, of traces that were read already."""
    found = fit_population(nominal, traces, rounds=rounds)
    provenance = {
        "chips": " ".join(str(trace.chip) for trace in traces),
        "spikes": str(sum(len(trace.spike_time) for trace in traces)),
        "python": platform.python_version(),
        **{name: version(name) for name in ("spicenn", "numpy")},
    }
    return EventSurrogate(
        found.model, nominal, found.spread, found.noise, found.energy,
        len({trace.chip for trace in traces}), provenance,
    )  # fmt: skip
