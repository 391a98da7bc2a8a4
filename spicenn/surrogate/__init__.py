"""Population model of a design's chips, and its calibration to one of them."""

from spicenn.surrogate.calibrate import Calibration, calibrate
from spicenn.surrogate.fit import fit
from spicenn.surrogate.module import ChipModel, Prediction
from spicenn.surrogate.population import Surrogate

__all__ = ["Calibration", "ChipModel", "Prediction", "Surrogate", "calibrate", "fit"]
