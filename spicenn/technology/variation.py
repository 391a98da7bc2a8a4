"""How a manufactured cell differs from its target.

Every mechanism has a generator of its own, so switching one changes no other's draw, and
is drawn only where it is on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.seeds import Purpose
from spicenn.technology.record import Technology

Array = NDArray[np.float64]

# No cell conducts less: an open cell still leaks, and a netlist needs a finite resistor.
G_FLOOR = 1e-12
_LEAST_BETA = 1e-3

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Cells:
    """One chip's copy of a tile's cells, or several chips', chip first.

    g : (…, wordline, bitline) [S].
    parameters : further parameters that differ from cell to cell, by name, same shape.
    """

    g: Array
    parameters: Mapping[str, Array]

    def at(self, index: Any) -> Cells:
        """What NumPy's indexing of every array by ``index`` gives."""
        return Cells(
            self.g[index], {name: values[index] for name, values in self.parameters.items()}
        )


@dataclass(frozen=True)
class Site:
    """Where a tile lies on its die, in units of the die's edges from its centre.

    left, right : of its first and last bitline; top, bottom : of its first and last
    wordline, each in [-1/2, 1/2].
    """

    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0

    def grid(self, shape: tuple[int, int]) -> tuple[Array, Array]:
        """Coordinates x (1, bitline) and y (wordline, 1) of the cells."""
        x = np.linspace(self.left, self.right, shape[1])[np.newaxis]
        y = np.linspace(self.top, self.bottom, shape[0])[:, np.newaxis]
        return x, y


def manufactured(
    technology: Technology,
    target: Array,
    tile: Callable[[Purpose], Rng],
    die: Callable[[Purpose], Rng],
    site: Site | None = None,
) -> Cells:
    """Draw every cell of a tile.

    In this order: corner and temperature, programming error, cycle to cycle, systematic
    fields, drift, cells that are stuck, lines that are dead; at least ``G_FLOOR``.

    Parameters
    ----------
    target : (wordline, bitline) [S].
    tile, die : the generator of a mechanism of this tile, or common to the whole chip;
        ``tile(Purpose.CYCLE_TO_CYCLE)`` is the programming cycle's.
    site : where the tile lies; the centre of its die if None.
    """
    variation, shape = technology.variation, target.shape
    g = _programmed(technology, target, tile(Purpose.PROGRAMMING_ERROR))
    if variation.cycle_to_cycle:
        scale = variation.cycle_to_cycle * technology.g_max
        g = g + scale * tile(Purpose.CYCLE_TO_CYCLE).standard_normal(shape)
    g = g * (1.0 + _fields(technology, shape, tile, die, site or Site()))
    good, on = _defects(technology, shape, tile)
    parameters: dict[str, Array] = {}
    if _drifts(technology):
        mean, sigma = drift_exponent(technology, target)
        nu = mean + sigma * tile(Purpose.DRIFT).standard_normal(shape)
        if "nu" in technology.cell.defaults:
            parameters["nu"] = np.where(good, nu, 0.0)
        else:
            g = g * np.exp(-nu * log_age(technology))
    g = np.where(good, g, np.where(on, technology.g_max * technology.conductance_factor, 0.0))
    parameters.update(_transistors(technology, shape, tile))
    return Cells(np.maximum(g, G_FLOOR), parameters)


def manufactured_moments(
    technology: Technology, target: Array, site: Site | None = None
) -> tuple[Array, Array]:
    """Mean and standard deviation over chips of every cell's conductance.

    Drift is in it also where the cell's subcircuit computes it; transistors are not, see
    ``parameters_at``. The
    floor is that of a normal variable censored from below (Greene, Econometric Analysis,
    ch. 19), which is exact where the programming error is normal and alone.

    Returns two arrays of the target's shape [S].
    """
    from scipy.special import ndtr

    variation = technology.variation
    mean, sigma = _programming_moments(technology, target)
    sigma = np.hypot(sigma, variation.cycle_to_cycle * technology.g_max)
    x, y = (site or Site()).grid(target.shape)
    # The fields' variance: the gradient's at this place, the correlated one's, the wafer's
    # (r² is uniform in [0, 1], of variance 1/12).
    fields = (
        variation.gradient**2 * (x * x + y * y)
        + variation.correlated**2
        + variation.wafer**2 / 12.0
    )
    sigma = np.sqrt(sigma**2 + fields * (sigma**2 + mean**2))
    age = log_age(technology)
    nu, nu_sigma = drift_exponent(technology, target)
    kept = np.exp(-nu * age + (nu_sigma * age) ** 2 / 2)
    spread = np.expm1((nu_sigma * age) ** 2)
    mean, sigma = mean * kept, kept * np.sqrt(sigma**2 + spread * (sigma**2 + mean**2))
    # Censored at the floor.
    positive = np.where(sigma > 0, sigma, 1.0)
    a = (G_FLOOR - mean) / positive
    density = np.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    above = ndtr(-a)
    first = a * (1 - above) + density  # of (g - mean) / sigma
    second = a * a * (1 - above) + a * density + above
    variance = np.where(sigma > 0, sigma**2 * np.maximum(second - first * first, 0.0), 0.0)
    mean = np.where(sigma > 0, mean + positive * first, np.maximum(mean, G_FLOOR))
    alive = (1 - variation.dead_wordlines) * (1 - variation.dead_bitlines)
    on = variation.stuck_on * alive
    good = alive - (variation.stuck_on + variation.stuck_off) * alive
    if good < 1:
        top = technology.g_max * technology.conductance_factor
        off = max(1 - good - on, 0.0)
        mixed = good * mean + on * top + off * G_FLOOR
        variance = (
            good * (variance + (mean - mixed) ** 2)
            + on * (top - mixed) ** 2
            + off * (G_FLOOR - mixed) ** 2
        )
        mean = mixed
    return mean, np.sqrt(variance)


def parameters_at(
    technology: Technology, dvt: Array | float = 0.0, beta: Array | float = 0.0
) -> dict[str, Array]:
    """Cells' further parameters that differ between chips, so many deviations from nominal.

    They go with the conductances of ``manufactured_moments``: those hold the drift also
    where the subcircuit computes it, so that the exponent ``nu`` is 0 here.

    Parameters
    ----------
    dvt, beta : of the threshold and of the transconductance, any shape.

    Source of the mismatch: Pelgrom, Duinmaijer, Welbers, IEEE JSSC 24, 1433 (1989).
    """
    cell, variation, corner = technology.cell, technology.variation, technology.process
    result = {}
    if _drifts(technology) and "nu" in cell.defaults:
        result["nu"] = np.zeros(())
    if technology.has_transistors:
        root = math.sqrt(cell.parameter("w") * cell.parameter("l"))
        if variation.a_vt or corner.threshold:
            result["dvt"] = np.asarray(corner.threshold + variation.a_vt / root * dvt)
        if variation.a_beta or corner.beta != 1.0:
            factor = np.maximum(1.0 + variation.a_beta / root * beta, _LEAST_BETA)
            result["beta"] = np.asarray(corner.beta * factor)
    return result


def drift_exponent(technology: Technology, target: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of ν of cells of a target [S]; see ``Drift``."""
    # The forms are logarithmic: a cell that is all off counts as one in a million.
    rho = np.log(np.maximum(target / technology.g_max, 1e-6))
    drift = technology.drift

    def of(a: float, b: float, low: float, high: float) -> Array:
        return np.clip(a * rho + b, low, high)

    return of(*drift.nu), of(*drift.nu_sigma)


def log_age(technology: Technology) -> float:
    """ln((t + t0) / t0)."""
    return math.log1p(technology.drift.time / technology.drift.t0)


def wafer_position(rng: Rng) -> tuple[float, float]:
    """Place of a die on its wafer, in units of its radius; uniform over the disk."""
    radius, angle = math.sqrt(rng.random()), 2 * math.pi * rng.random()
    return radius * math.cos(angle), radius * math.sin(angle)


def correlated_field(rng: Rng, shape: tuple[int, int], length: float) -> Array:
    """Draw a normal field of unit variance, correlation exp(-d² / (2 length²)) at distance d.

    Parameters
    ----------
    shape : (wordline, bitline); neighbours are at distance 1.

    The kernel is a product of one along each axis, so the field is exact.
    """
    white = rng.standard_normal(shape)
    return np.asarray(_root(shape[0], length) @ white @ _root(shape[1], length).T)


_NOTHING = (0.0, 0.0, 0.0, 0.0)


def _drifts(technology: Technology) -> bool:
    return technology.drift.nu_sigma != _NOTHING or technology.drift.nu != _NOTHING


def _programmed(technology: Technology, target: Array, rng: Rng) -> Array:
    nominal = target * technology.conductance_factor
    # The draw is made also at zero error, so that switching it on changes nothing else.
    z = rng.standard_normal(target.shape)
    error = technology.programming_error
    if technology.variation.programming_law == "lognormal":
        return np.asarray(nominal * np.exp(error * z - error**2 / 2))
    return np.asarray(nominal + _programming_sigma(technology, target) * z)


def _programming_sigma(technology: Technology, target: Array) -> Array:
    """Standard deviation of a normal programming error [S]."""
    sigma = np.full(target.shape, technology.programming_error * technology.g_max)
    if technology.variation.programming_law == "state-dependent":
        rho = target / technology.g_max
        powers = np.polynomial.polynomial.polyval(
            rho, technology.variation.programming_coefficients
        )
        sigma = sigma * np.maximum(powers, 0.0)
    return sigma


def _programming_moments(technology: Technology, target: Array) -> tuple[Array, Array]:
    mean = target * technology.conductance_factor
    if technology.variation.programming_law == "lognormal":
        return mean, mean * math.sqrt(math.expm1(technology.programming_error**2))
    return mean, _programming_sigma(technology, target)


def _fields(
    technology: Technology,
    shape: tuple[int, ...],
    tile: Callable[[Purpose], Rng],
    die: Callable[[Purpose], Rng],
    site: Site,
) -> Array | float:
    """Relative change of every cell that is systematic within a tile, a die or a wafer."""
    variation = technology.variation
    plane = (shape[0], shape[1])
    total: Array | float = 0.0
    if variation.gradient:
        across, down = variation.gradient * die(Purpose.GRADIENT).standard_normal(2)
        x, y = site.grid(plane)
        total = total + across * x + down * y
    if variation.correlated:
        field = correlated_field(tile(Purpose.CORRELATED), plane, variation.correlation_length)
        total = total + variation.correlated * field
    if variation.wafer:
        x0, y0 = wafer_position(die(Purpose.WAFER))
        total = total + variation.wafer * (x0 * x0 + y0 * y0 - 0.5)
    return total


def _defects(
    technology: Technology, shape: tuple[int, ...], tile: Callable[[Purpose], Rng]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells work, and which of the others are stuck on."""
    variation = technology.variation
    good, on = np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
    if variation.stuck_on or variation.stuck_off:
        u = tile(Purpose.STUCK).random(shape)
        on = u < variation.stuck_on
        good &= ~on & (u < 1.0 - variation.stuck_off)
    if variation.dead_wordlines or variation.dead_bitlines:
        u = tile(Purpose.DEAD_LINES).random(shape[0] + shape[1])
        dead = (u[: shape[0], np.newaxis] < variation.dead_wordlines) | (
            u[shape[0] :] < variation.dead_bitlines
        )
        good &= ~dead
        on &= ~dead
    return good, on


def _transistors(
    technology: Technology, shape: tuple[int, ...], tile: Callable[[Purpose], Rng]
) -> dict[str, Array]:
    """Threshold shift [V] and relative transconductance of every cell's transistor."""
    if not technology.has_transistors:
        return {}
    dvt, beta = tile(Purpose.MISMATCH).standard_normal((2, *shape))
    drawn = parameters_at(technology, dvt, beta)
    return {name: drawn[name] for name in ("dvt", "beta") if name in drawn}


@lru_cache(maxsize=16)
def _root(count: int, length: float) -> Array:
    """A square root of the kernel along one axis. It is nearly singular: no Cholesky."""
    distance = np.arange(count)[:, np.newaxis] - np.arange(count)
    values, vectors = np.linalg.eigh(np.exp(-0.5 * (distance / length) ** 2))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
