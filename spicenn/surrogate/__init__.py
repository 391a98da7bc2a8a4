"""Population model of a design's chips, and its calibration to one of them."""

from spicenn.surrogate.calibration import Calibration, calibrate
from spicenn.surrogate.fitting import fit
from spicenn.surrogate.module import ChipModel, Prediction
from spicenn.surrogate.population import Surrogate

__all__ = ["Calibration", "ChipModel", "Prediction", "Surrogate", "calibrate", "fit"]
