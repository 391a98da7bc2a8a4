"""Monte Carlo studies over many manufactured chips, their record and its statistics."""

from spicenn.compiler.embedded import design_of
from spicenn.study.energy import measure_energy
from spicenn.study.energy_record import energy_of
from spicenn.study.record import open_record, tile_record
from spicenn.study.run import monte_carlo
from spicenn.study.statistics import accuracy, quantile_interval, yield_interval

__all__ = [
    "accuracy",
    "design_of",
    "energy_of",
    "measure_energy",
    "monte_carlo",
    "open_record",
    "quantile_interval",
    "tile_record",
    "yield_interval",
]
