"""Where a network's voltages come to rest, in ngspice: what ``equilibrium`` is checked against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Tolerances
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.hardware import LearningChip
from spicenn.learning.netlist import OPERATING_TOLERANCES, operating_netlist, operating_vectors

Array = NDArray[np.float64]


def operating_points(
    engine: NgspiceEngine,
    chip: LearningChip,
    values: Array,
    inputs: Array,
    *,
    copy: int = 0,
    clamped: Array | None = None,
    nudge: tuple[float, Array] | None = None,
    tolerances: Tolerances = OPERATING_TOLERANCES,
) -> Array:
    """Simulate the operating points of one copy of a network, all samples in one sweep.

    Parameters
    ----------
    values : (value,). inputs : (sample, input) [V].
    Others as of ``equilibrium``, (sample, output).

    Returns (sample, node + 1) [V]. Raises InputError for shapes that do not fit or numbers
    that are not finite, and what ``NgspiceEngine.run`` raises.
    """
    network, samples = chip.network, len(inputs)
    outputs = clamped if clamped is not None else None if nudge is None else nudge[1]
    for name, given, shape in (
        ("values", values, (len(network.learning),)),
        ("inputs", inputs, (samples, len(network.inputs))),
        ("outputs' voltages", outputs, (samples, len(network.outputs))),
    ):
        if given is not None and not (np.shape(given) == shape and np.isfinite(given).all()):
            raise InputError(
                f"{name} of shape {np.shape(given)} are not finite and {shape}",
                where="operating_points",
            )
    text = operating_netlist(
        chip, values, inputs, copy=copy, clamped=clamped, nudge=nudge, tolerances=tolerances
    )
    vectors = operating_vectors(chip, copy)
    found = engine.run(text, list(dict.fromkeys(vectors)))
    volts = np.array([found[name] for name in vectors]).T
    return np.hstack([volts, np.zeros((len(volts), 1))])
