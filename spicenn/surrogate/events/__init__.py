"""Event-driven models of layers of spiking neurons: state, outputs, energy, latency per event."""

from spicenn.surrogate.events.block import LayerBlock
from spicenn.surrogate.events.model import LayerModel, circuit_model

__all__ = ["LayerBlock", "LayerModel", "circuit_model"]
