"""Event-driven models of layers of spiking neurons: state, outputs, energy, latency per event."""

from spicenn.surrogate.events.block import LayerBlock
from spicenn.surrogate.events.model import LayerModel, circuit_model, nominal_layer
from spicenn.surrogate.events.population import EventCalibration, EventSurrogate, fit_events
from spicenn.surrogate.events.run import Run, rerun, run_layer
from spicenn.surrogate.events.trace import Trace, is_trace, read_trace

__all__ = [
    "EventCalibration",
    "EventSurrogate",
    "LayerBlock",
    "LayerModel",
    "Run",
    "Trace",
    "circuit_model",
    "fit_events",
    "is_trace",
    "nominal_layer",
    "read_trace",
    "rerun",
    "run_layer",
]
