"""How a manufactured cell differs from its target, and how one read differs from the next."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from spicenn.technology.record import Technology

Array = NDArray[np.float64]

# No cell conducts less: an open cell still leaks, and a netlist needs a finite resistor.
G_FLOOR = 1e-12
BOLTZMANN = 1.380649e-23


def programmed(technology: Technology, target: Array, rng: np.random.Generator) -> Array:
    """Draw the conductance of every cell of a tile.

    Parameters
    ----------
    target : (wordline, bitline) [S].

    Returns
    -------
    (wordline, bitline) [S]: the corner's nominal value plus a normal programming
    error, at least ``G_FLOOR``.
    """
    # The draw is made also at zero error, so that switching it on changes nothing else.
    error = rng.standard_normal(target.shape) * (technology.programming_error * technology.g_max)
    return np.maximum(target * technology.process.conductance + error, G_FLOOR)


def programmed_moments(technology: Technology, target: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of ``programmed``, in closed form.

    Returns two arrays of the target's shape [S]. Source: moments of a normal
    variable censored from below (Greene, Econometric Analysis, ch. 19).
    """
    from scipy.special import ndtr

    nominal = target * technology.process.conductance
    sigma = technology.programming_error * technology.g_max
    if sigma == 0.0:
        return np.maximum(nominal, G_FLOOR), np.zeros_like(nominal)
    a = (G_FLOOR - nominal) / sigma
    density = np.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    above = ndtr(-a)
    first = a * (1 - above) + density  # of (g - nominal) / sigma
    second = a * a * (1 - above) + a * density + above
    return nominal + sigma * first, sigma * np.sqrt(np.maximum(second - first * first, 0.0))


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
