"""Population model of a design's chips, and its calibration to one of them.

``events`` has that of a layer of spiking neurons; ``fit`` and ``calibrate`` take its traces.
"""

from spicenn.surrogate.calibration import Calibration
from spicenn.surrogate.entry import calibrate, fit
from spicenn.surrogate.events import EventCalibration, EventSurrogate, LayerBlock
from spicenn.surrogate.module import ChipModel, Prediction
from spicenn.surrogate.population import Surrogate

__all__ = [
    "Calibration",
    "ChipModel",
    "EventCalibration",
    "EventSurrogate",
    "LayerBlock",
    "Prediction",
    "Surrogate",
    "calibrate",
    "fit",
]
