"""From a trained PyTorch network to analog chips in ngspice, and back.

Names load on first use: ``import spicenn`` costs neither torch nor dask.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from spicenn import cosim as cosim
    from spicenn import datasets as datasets
    from spicenn import kirchhoff as kirchhoff
    from spicenn import learning as learning
    from spicenn import training as training
    from spicenn.circuit.write import Pulse
    from spicenn.compiler import Chip, Design, Mapping, Tile, compile
    from spicenn.cosim import Cosimulation
    from spicenn.cosim.neuron import LIF
    from spicenn.cosim.spiking import compile_spiking
    from spicenn.engines.write import read_disturb, write_pulses
    from spicenn.errors import SpicennError, Status
    from spicenn.kirchhoff import crossbar_currents
    from spicenn.study import (
        accuracy,
        design_of,
        energy_of,
        measure_energy,
        monte_carlo,
        open_record,
        quantile_interval,
        tile_record,
        yield_interval,
    )
    from spicenn.surrogate import Calibration, Surrogate, calibrate, fit
    from spicenn.surrogate.active import next_probes
    from spicenn.surrogate.judge import judge
    from spicenn.technology import Cell, Corner, Technology, parse_quantity
    from spicenn.training import Awareness, in_loop
    from spicenn.training.analog import analog
    from spicenn.training.migrate import migrate

__all__ = [
    "LIF",
    "Awareness",
    "Calibration",
    "Cell",
    "Chip",
    "Corner",
    "Cosimulation",
    "Design",
    "Mapping",
    "Pulse",
    "SpicennError",
    "Status",
    "Surrogate",
    "Technology",
    "Tile",
    "__version__",
    "accuracy",
    "analog",
    "calibrate",
    "compile",
    "compile_spiking",
    "crossbar_currents",
    "design_of",
    "energy_of",
    "fit",
    "in_loop",
    "judge",
    "measure_energy",
    "migrate",
    "monte_carlo",
    "next_probes",
    "open_record",
    "parse_quantity",
    "quantile_interval",
    "read_disturb",
    "tile_record",
    "write_pulses",
    "yield_interval",
]

_HOME = {
    "Awareness": "spicenn.training",
    "Calibration": "spicenn.surrogate",
    "Cell": "spicenn.technology",
    "Chip": "spicenn.compiler",
    "Corner": "spicenn.technology",
    "Cosimulation": "spicenn.cosim",
    "Design": "spicenn.compiler",
    "LIF": "spicenn.cosim.neuron",
    "Mapping": "spicenn.compiler",
    "Pulse": "spicenn.circuit.write",
    "SpicennError": "spicenn.errors",
    "Status": "spicenn.errors",
    "Surrogate": "spicenn.surrogate",
    "Technology": "spicenn.technology",
    "Tile": "spicenn.compiler",
    "accuracy": "spicenn.study",
    "analog": "spicenn.training.analog",
    "calibrate": "spicenn.surrogate",
    "compile": "spicenn.compiler",
    "compile_spiking": "spicenn.cosim.spiking",
    "crossbar_currents": "spicenn.kirchhoff",
    "design_of": "spicenn.study",
    "energy_of": "spicenn.study",
    "fit": "spicenn.surrogate",
    "in_loop": "spicenn.training",
    "judge": "spicenn.surrogate.judge",
    "measure_energy": "spicenn.study",
    "migrate": "spicenn.training.migrate",
    "monte_carlo": "spicenn.study",
    "next_probes": "spicenn.surrogate.active",
    "open_record": "spicenn.study",
    "parse_quantity": "spicenn.technology",
    "quantile_interval": "spicenn.study",
    "read_disturb": "spicenn.engines.write",
    "tile_record": "spicenn.study",
    "write_pulses": "spicenn.engines.write",
    "yield_interval": "spicenn.study",
}

# Parts that users reach as they are, e.g. ``sn.kirchhoff.Sinh()``.
_MODULES = ("cosim", "datasets", "kirchhoff", "learning", "training")


if not TYPE_CHECKING:  # a type checker would take any name for granted

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f"spicenn.{name}")
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        # Kept as a plain attribute, so that the next access does not come here again.
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
