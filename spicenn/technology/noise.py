"""How one read of a cell differs from the next: spectra, what a read sees of them, time series.

Spectra are one-sided, in A²/Hz, of the current of one cell. What a read sees is the
closed-form integral of each from ``Noise.low_frequency`` to ``Technology.bandwidth``;
white noise is integrated from zero on, the difference being one part in bandwidth over
low frequency. No bandwidth is no noise of any kind here but ``Technology.read_noise``,
which is given as a variance and has no spectrum.

Fluctuations are about the cell's programmed conductance: programming with verification
sets the mean of what is read, traps included, so no mechanism has a mean of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.technology.record import Technology

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rng = np.random.Generator

BOLTZMANN = 1.380649e-23
ELEMENTARY_CHARGE = 1.602176634e-19

# A record of 1/f noise is cut out of a period this many times as long: a Fourier series
# is periodic, and its two ends would be neighbours.
_PERIODS = 4
# Dwell times drawn at a time.
_DWELLS_AT_ONCE = 4096


def thermal_density(g: Any, temperature: float) -> Array:
    """4 k T g (Johnson, Nyquist, Phys. Rev. 32, 97 and 110, 1928).

    Parameters
    ----------
    g : any shape [S], small-signal.
    """
    return np.asarray(4 * BOLTZMANN * temperature * np.asarray(g, dtype=np.float64))


def shot_density(current: Any, fano: float) -> Array:
    """2 q F |I| (Schottky, Ann. Phys. 362, 541, 1918), in excess of the thermal noise.

    Parameters
    ----------
    current : any shape [A]; fano : F, 1 for a tunnel junction, 1/3 for a diffusive wire
        (Blanter, Büttiker, Physics Reports 336, 1, 2000).
    """
    return np.asarray(2 * ELEMENTARY_CHARGE * fano * np.abs(current))


def flicker_density(frequency: Any, current: Any, power: float) -> Array:
    """(K / f) I² (Hooge, Phys. Lett. A 29, 139, 1969).

    Parameters
    ----------
    frequency : [Hz], positive; current : [A]; they broadcast.
    power : K, relative power at 1 Hz [1/Hz].
    """
    return np.asarray(power * np.square(current) / np.asarray(frequency, dtype=np.float64))


def rtn_density(frequency: Any, step: Any, duty: float, time: float) -> Array:
    """4 ΔI² p (1 - p) τ / (1 + (2 π f τ)²) of a current with two states.

    Source: Machlup, Journal of Applied Physics 25, 341 (1954), with the mean times
    τ / (1 - p) in the one and τ / p in the other.

    Parameters
    ----------
    frequency : [Hz]; step : ΔI [A] between the states; they broadcast.
    duty : p, share of time in one of them; time : τ [s].
    """
    x = 2 * math.pi * time * np.asarray(frequency, dtype=np.float64)
    return np.asarray(4 * duty * (1 - duty) * time * np.square(step) / (1 + x * x))


def flicker_integral(low: float, high: float) -> float:
    """Integral of 1 / f between two frequencies [Hz]; 0 where high is not above low."""
    return math.log(high / low) if high > low else 0.0


def lorentzian_integral(time: float, low: float, high: float) -> float:
    """Share of a Lorentzian's whole power between two frequencies [Hz].

    (2 / π) (atan 2 π τ high - atan 2 π τ low); 0 where high is not above low.
    """
    x, y = 2 * math.pi * time * low, 2 * math.pi * time * high
    return 2 / math.pi * math.atan2(y - x, 1 + x * y) if high > low else 0.0


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

    Source: Nyquist 1928, seen from the virtual ground; of ideal wires, see
    ``spicenn.kirchhoff.thermal_noise`` for others.

    Parameters
    ----------
    g : (..., wordline, bitline) [S].

    Returns
    -------
    (..., bitline) [A].
    """
    density = 4 * BOLTZMANN * technology.temperature * g.sum(axis=-2)
    return np.asarray(np.sqrt(density * technology.bandwidth))


def shot_noise(technology: Technology, g: Array, v: Array) -> Array:
    """Standard deviation of a bitline's shot noise, sqrt(2 q F Σ |g v| · bandwidth).

    Parameters and result as ``read_noise``; the lines' ideal voltages again.
    """
    density = shot_density(np.abs(v) @ g, technology.noise.shot)
    return np.asarray(np.sqrt(density * technology.bandwidth))


def flicker_variance(technology: Technology) -> float:
    """Variance of a cell's 1/f noise in one read over its squared current."""
    noise = technology.noise
    return noise.flicker * flicker_integral(noise.low_frequency, technology.bandwidth)


def rtn_variance(technology: Technology) -> float:
    """Variance of one read of a cell that has a trap over its squared current.

    Of all that a trap does, a² p (1 - p), the part between ``low_frequency`` and the
    bandwidth. What is slower is a property of the chip, what is faster averages out.
    """
    noise = technology.noise
    whole = noise.rtn_amplitude**2 * noise.rtn_duty * (1 - noise.rtn_duty)
    return whole * lorentzian_integral(noise.rtn_time, noise.low_frequency, technology.bandwidth)


def rtn_static_variance(technology: Technology) -> float:
    """Variance over chips of a trap's power below low_frequency, over its squared current.

    See ``rtn_reads``; 0 for fast traps, which have next to none of it.
    """
    if not rtn_is_slow(technology):
        return 0.0
    noise = technology.noise
    whole = noise.rtn_amplitude**2 * noise.rtn_duty * (1 - noise.rtn_duty)
    return whole * lorentzian_integral(
        noise.rtn_time, 0.0, min(noise.low_frequency, technology.bandwidth)
    )


def rtn_is_slow(technology: Technology) -> bool:
    """True where a trap holds its state through a read: its time is 1 / bandwidth or longer."""
    return technology.noise.rtn_time * technology.bandwidth >= 1.0


def rtn_traps(technology: Technology, shape: tuple[int, ...], rng: Rng) -> tuple[Bools, Bools]:
    """Draw which cells have a trap, and which traps were filled when the chip was first seen.

    Both belong to the chip. Returns two arrays of the shape.
    """
    noise = technology.noise
    return rng.random(shape) < noise.rtn_share, rng.random(shape) < noise.rtn_duty


def rtn_reads(technology: Technology, filled: Bools, rng: Rng) -> Array:
    """Draw the relative change of current that slow traps make in one read.

    A trap that rarely switches within the observation, 1 / low_frequency, tends to be
    as it was: the states of two reads have as correlation the share of the power below
    low_frequency. The two levels are 1 apart in units of the amplitude, less what is
    above the bandwidth. So one read has the variance of all power below the bandwidth,
    and reads of one chip differ by ``rtn_variance``, on average over chips.

    Parameters
    ----------
    filled : the chip's states, of ``rtn_traps``.

    Returns an array of the same shape, of mean zero over chips.
    """
    noise = technology.noise
    seen = lorentzian_integral(noise.rtn_time, 0.0, technology.bandwidth)
    below = lorentzian_integral(noise.rtn_time, 0.0, noise.low_frequency)
    # Two reads have both kept the chip's state with the squared probability.
    keep = rng.random(filled.shape) < math.sqrt(min(below / seen, 1.0))
    fresh = rng.random(filled.shape) < noise.rtn_duty
    state = np.where(keep, filled, fresh)
    return np.asarray(noise.rtn_amplitude * math.sqrt(seen) * (noise.rtn_duty - state))


def white_series(density: Any, dt: float, count: int, rng: Rng) -> Array:
    """Draw white noise as a time series, of standard deviation sqrt(S / (2 dt)).

    Parameters
    ----------
    density : S, any shape, one-sided [unit²/Hz].
    dt : step [s]; the series' band ends at 1 / (2 dt). count : of steps.

    Returns
    -------
    (..., time) in the unit. Raises InputError for a dt or a count that is not positive.
    """
    _check_steps(dt, count)
    scale = np.sqrt(np.asarray(density, dtype=np.float64) / (2 * dt))
    return np.asarray(scale[..., np.newaxis] * rng.standard_normal((*scale.shape, count)))


def flicker_series(
    shape: tuple[int, ...], dt: float, count: int, rng: Rng, *, low_frequency: float
) -> Array:
    """Draw 1/f noise as a time series, S(f) = 1/f from low_frequency to 1 / (2 dt).

    A Fourier series with independent normal coefficients, each with the integral of the
    spectrum over its bin: the spectrum is right up to the last bin, where a sum of
    Lorentzians of a sampled process has ripples and folds what is above the band back
    into it. Power below half the first bin (1 / (4 count dt)) does not change visibly
    within the series and is one constant, so the corner may lie decades below it, and
    the variance is ln(1 / (2 dt low_frequency)) whatever the length.

    Parameters
    ----------
    shape : of leading axes, independent. dt : [s]. low_frequency : [Hz].

    Returns
    -------
    (..., time). Times sqrt(K) I it is the noise of ``flicker_density``. Zero where the
    band ends below low_frequency. Raises InputError as ``white_series``.
    """
    _check_steps(dt, count)
    if not 0 < low_frequency < math.inf:
        raise InputError(f"low_frequency = {low_frequency!r} is not positive")
    half = _PERIODS * count // 2
    first = 1.0 / (2 * half * dt)
    # The last bin ends in the middle, at the end of the band.
    edges = np.append(np.arange(half) + 0.5, half) * first
    edges = np.maximum(edges, low_frequency)
    sigma = np.sqrt(np.log(edges[1:] / edges[:-1]))
    slow = math.sqrt(flicker_integral(low_frequency, edges[0]))
    constant = slow * rng.standard_normal((*shape, 1))
    normal = rng.standard_normal((2, *shape, half))
    spectrum = np.zeros((*shape, half + 1), np.complex128)
    spectrum[..., 1:] = half * sigma * (normal[0] + 1j * normal[1])
    spectrum[..., -1] = 2 * half * sigma[-1] * normal[0, ..., -1]
    return np.asarray(np.fft.irfft(spectrum, 2 * half)[..., :count] + constant)


def rtn_switches(
    shape: tuple[int, ...], duty: float, time: float, duration: float, rng: Rng
) -> tuple[Bools, Array]:
    """Draw when traps switch: exponential dwell times, from a stationary start.

    Parameters
    ----------
    shape : of independent traps. duty : share of time filled.
    time : 1 / (1/τ_capture + 1/τ_emission) [s]: a trap stays filled for time / (1 - duty)
        and empty for time / duty, on average.
    duration : [s].

    Returns
    -------
    filled : (...,) at time 0; switches : (..., switch) [s], ascending; infinite where it
        would come after the duration. There are 2 duty (1 - duty) duration / time of
        them per trap, on average.
    """
    filled = rng.random(shape) < duty
    if not 0 < duty < 1:
        return filled, np.full((*shape, 0), math.inf)
    mean = np.array([time / duty, time / (1 - duty)])  # empty, filled
    expected = 2 * duration / mean.sum()
    step = min(_DWELLS_AT_ONCE, math.ceil(expected + 4 * math.sqrt(expected) + 4))
    step += step % 2
    # Without memory the first dwell, cut at time 0, is one as any other.
    order = (filled.astype(np.intp)[..., np.newaxis] + np.arange(step)) % 2
    at = np.zeros((*shape, 1))
    parts: list[Array] = []
    while at.size and at.min() <= duration:
        dwells = mean[order] * rng.standard_exponential((*shape, step))
        parts.append(at + np.cumsum(dwells, axis=-1))
        at = parts[-1][..., -1:]
    times = np.concatenate(parts, axis=-1) if parts else np.zeros((*shape, 0))
    return filled, np.where(times <= duration, times, math.inf)


def rtn_series(step: Any, duty: float, time: float, dt: float, count: int, rng: Rng) -> Array:
    """Draw a current with two states as a time series, about its mean.

    Parameters
    ----------
    step : (...,) ΔI [A]: the current's loss while the trap is filled.
    duty, time : as ``rtn_switches``. dt : [s]. count : of steps.

    Returns
    -------
    (..., time) [A], step · duty where the trap is empty, step · (duty - 1) where it is
    filled. Raises InputError as ``white_series``.
    """
    _check_steps(dt, count)
    step = np.asarray(step, dtype=np.float64)
    filled, times = rtn_switches(step.shape, duty, time, (count - 1) * dt, rng)
    flips = np.zeros((*step.shape, count), np.int64)
    *trap, _ = at = np.nonzero(np.isfinite(times))
    bins = np.minimum(np.ceil(times[at] / dt).astype(np.int64), count - 1)
    np.add.at(flips, (*trap, bins), 1)
    state = (filled[..., np.newaxis] + np.cumsum(flips, axis=-1)) % 2
    return np.asarray(step[..., np.newaxis] * (duty - state))


def cell_series(
    technology: Technology,
    g: Array,
    current: Array,
    dt: float,
    count: int,
    rng: Rng,
    traps: Bools | None = None,
) -> Array:
    """Draw the noise current of every cell as a time series: thermal, shot, 1/f and RTN.

    Its band ends at 1 / (2 dt): what is simulated filters it, and ``bandwidth`` only
    says whether there is any. ``read_noise`` has no spectrum and is not in it.

    Parameters
    ----------
    g : (...,) [S], small-signal.
    current : (..., time) or (..., 1) [A] through the cells, which shot, 1/f and RTN follow.
    traps : (...,), which cells have a trap; drawn if None.

    Returns
    -------
    (..., time) [A]. A mechanism draws from a generator of its own that ``rng`` spawns, so
    switching it changes no other's draw. Raises InputError as ``white_series``.
    """
    _check_steps(dt, count)
    noise, shape = technology.noise, np.shape(g)
    thermal, shot, flicker, rtn = rng.spawn(4)
    total = np.zeros((*shape, count))
    if technology.bandwidth == 0:
        return total
    total += white_series(thermal_density(g, technology.temperature), dt, count, thermal)
    if noise.shot:
        unit = white_series(np.ones(shape), dt, count, shot)
        total += np.sqrt(shot_density(current, noise.shot)) * unit
    if noise.flicker:
        unit = flicker_series(shape, dt, count, flicker, low_frequency=noise.low_frequency)
        total += math.sqrt(noise.flicker) * current * unit
    if noise.rtn_share and noise.rtn_amplitude:
        if traps is None:
            traps, _ = rtn_traps(technology, shape, rtn)
        step = np.full(int(traps.sum()), noise.rtn_amplitude)
        unit = rtn_series(step, noise.rtn_duty, noise.rtn_time, dt, count, rtn)
        total[traps] += np.broadcast_to(current, total.shape)[traps] * unit
    return total


def _check_steps(dt: float, count: int) -> None:
    if not 0 < dt < math.inf:
        raise InputError(f"dt = {dt!r} is not a positive time")
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise InputError(f"count = {count!r} is not a positive integer")
