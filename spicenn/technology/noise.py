"""How one read of a cell differs from the next."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicenn.technology.record import Technology

Array = NDArray[np.float64]

BOLTZMANN = 1.380649e-23


def read_noise(technology: Technology, g: Array, v: Array) -> Array:
    """Standard deviation of a bitline's current from fluctuations of its cells.

    Independent cells add in square, Σ (read_noise · g · v)², with the lines' ideal
    voltages: the drop along wires, a correction of a few per cent of the noise, is
    left out.

    Parameters
    ----------
    g : (..., wordline, bitline) [S]; v : (..., sample, wordline) [V].

    Returns
    -------
    (..., sample, bitline) [A].
    """
    return np.asarray(technology.read_noise * np.sqrt(np.square(v) @ np.square(g)))


def thermal_noise(technology: Technology, g: Array) -> Array:
    """Standard deviation of a bitline's thermal current, sqrt(4 k T Σ g · bandwidth).

    Source: Nyquist 1928, seen from the virtual ground; the wires' part is left out.

    Parameters
    ----------
    g : (..., wordline, bitline) [S].

    Returns
    -------
    (..., bitline) [A].
    """
    density = 4 * BOLTZMANN * technology.temperature * g.sum(axis=-2)
    return np.asarray(np.sqrt(density * technology.bandwidth))
