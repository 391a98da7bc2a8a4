"""Training for hardware: analog layers, physics-informed losses, in the loop, between chips."""

from spicenn.training.analog import analog, analog_layers, draws_of, refresh
from spicenn.training.awareness import Awareness
from spicenn.training.loop import InLoop, in_loop
from spicenn.training.penalties import (
    bit_depth_penalty,
    jacobian_penalty,
    watched_signals,
    weight_range_penalty,
)
from spicenn.training.pulsed import PulsedSGD
from spicenn.training.residual import LiteralResidual, StochasticResidual
from spicenn.training.run import read_log, train

__all__ = [
    "Awareness",
    "InLoop",
    "LiteralResidual",
    "PulsedSGD",
    "StochasticResidual",
    "analog",
    "analog_layers",
    "bit_depth_penalty",
    "draws_of",
    "in_loop",
    "jacobian_penalty",
    "read_log",
    "refresh",
    "train",
    "watched_signals",
    "weight_range_penalty",
]
