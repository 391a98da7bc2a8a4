"""Training for hardware: analog layers, physics-informed losses, in the loop, between chips."""

from spicenn.training.analog import analog, analog_layers, draws_of, refresh
from spicenn.training.awareness import Awareness
from spicenn.training.loop import InLoop, in_loop

__all__ = ["Awareness", "InLoop", "analog", "analog_layers", "draws_of", "in_loop", "refresh"]
