"""What one read of a tile adds to its currents: every mechanism by itself, if it is on.

Noise is added to bitline currents: into a virtual ground that is the same as noise in
every cell. Cells are independent, so what is white within a read needs one draw per
bitline; what is slow against a batch of reads needs one per cell. Currents of single
cells are g v at the lines' ideal voltages: the drop along wires, a correction of a few
per cent of the noise, is left out. A linear cell counts with the conductance that it has
by then, a nonlinear one with its programmed, small-signal conductance.

Which reads share a draw
------------------------
read, thermal, shot : none; every pulse of every sample of every trial is drawn anew.
flicker : the reads of a trial. The power of 1/f noise is equal in every decade, and of
    the decades between ``low_frequency`` and the bandwidth most lie below what one batch
    of reads spans; a trial is one look at the chip.
RTN of traps slower than 1 / bandwidth : the reads of a trial, as flicker.
RTN of faster traps : none. A read averages over many of their states, which makes it
    normal, with the power of the Lorentzian below the bandwidth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Crossbar
from spicenn.compiler.layer import Array
from spicenn.compiler.placement import PlacedTile, tile_generator
from spicenn.engines.laws import as_resistors, known_law
from spicenn.kirchhoff.noise import thermal_noise as thermal_density
from spicenn.seeds import Purpose
from spicenn.technology import Technology
from spicenn.technology.noise import (
    cell_series,
    flicker_variance,
    read_noise,
    rtn_is_slow,
    rtn_reads,
    rtn_traps,
    rtn_variance,
    shot_noise,
    thermal_noise,
)

# A noise is small: six digits of its size are plenty.
_RTOL = 1e-6


@dataclass(frozen=True, eq=False)
class Read:
    """One use of a tile by several chips, repeated in trials: what keys its draws.

    chips : their indices; use : which of the layer's uses in the program.
    """

    technology: Technology
    tile: PlacedTile
    seed: int
    chips: Sequence[int]
    trials: int
    use: int = 0

    def generator(
        self, purpose: Purpose, chip: int, trial: int, use: int = 0
    ) -> np.random.Generator:
        """Generator of one mechanism, one chip (its index) and one trial."""
        return tile_generator(self.seed, purpose, self.tile, chip, trial, use)


def add_noise(
    read: Read,
    g: Array,
    v: Array,
    current: Array,
    parameters: Mapping[str, Array] | None = None,
) -> Array:
    """Return a tile's currents as they are read.

    Parameters
    ----------
    g : (chip, wordline, bitline) [S].
    v : (chip or 1, trial or 1, sample, position, pulse, wordline) [V].
    current : (chip, trial or 1, sample, position, pulse, bitline) [A]; NaN where a chip
        failed.
    parameters : further parameters of every cell by name, each shaped as g.

    Returns
    -------
    (chip, trial, sample, position, pulse, bitline) [A]; ``current`` itself where
    nothing is on.
    """
    technology = read.technology
    crossbar, g, parameters = as_resistors(read.tile.crossbar, g, parameters or {})
    over = g[:, np.newaxis, np.newaxis, np.newaxis]  # over trial, sample, position
    if technology.read_noise:
        current = _add_white(read, Purpose.READ_NOISE, read_noise(technology, over, v), current)
    if technology.bandwidth:
        alive = np.isfinite(current).all(axis=(1, 2, 3, 4, 5))
        own = {name: values[alive] for name, values in parameters.items()}
        sigma = np.full((len(g), g.shape[-1]), np.nan)
        if alive.any():
            sigma[alive] = thermal_sigma(technology, crossbar, g[alive], own)
        sigma = sigma[:, np.newaxis, np.newaxis, np.newaxis, np.newaxis]
        current = _add_white(read, Purpose.THERMAL_NOISE, sigma, current)
    if technology.noise.shot and technology.bandwidth:
        current = _add_white(read, Purpose.SHOT_NOISE, shot_noise(technology, over, v), current)
    if flicker_variance(technology):
        current = _add_flicker(read, g, v, current)
    if technology.noise.rtn_share and rtn_variance(technology):
        current = _add_rtn(read, g, v, current)
    return current


def thermal_sigma(
    technology: Technology,
    crossbar: Crossbar,
    g: Array,
    parameters: Mapping[str, Array] | None = None,
) -> Array:
    """Standard deviation of every bitline's thermal current in one read.

    With the wires', the drivers' and the amplifiers' resistances: exact for ohmic cells.
    Nonlinear ones count with their small-signal conductance at 0 V, or with g where no
    law of theirs is known.

    Parameters
    ----------
    g : (..., wordline, bitline) [S].
    parameters : further parameters of every cell by name, each shaped as g.

    Returns
    -------
    (..., bitline) [A]. Raises ConvergenceError as ``kirchhoff.thermal_noise``.
    """
    r_wordline, r_bitline = crossbar.segments()
    law = known_law(crossbar.cell, crossbar.name, technology.temperature)
    if law is None and not (r_wordline.any() or r_bitline.any()):
        return thermal_noise(technology, g)
    density = thermal_density(
        g, r_wordline=r_wordline, r_bitline=r_bitline, temperature=technology.temperature,
        law=law, parameters=None if law is None else parameters, rtol=_RTOL,
    )  # fmt: skip
    return np.asarray(np.sqrt(density * technology.bandwidth))


def cell_traps(
    technology: Technology, tile: PlacedTile, chip: int, seed: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which cells of one chip's copy of a tile have a trap, and which are filled at first.

    Each (wordline, bitline); see ``technology.noise.rtn_traps``.
    """
    rng = tile_generator(seed, Purpose.RTN, tile, chip)
    return rtn_traps(technology, tile.g_target.shape, rng)


def transient_noise(
    read: Read, chip: int, trial: int, g: Array, current: Array, dt: float, count: int
) -> Array:
    """Noise of every cell of one chip in the time domain, from wordline to bitline.

    Parameters
    ----------
    chip : its index.
    g : (wordline, bitline) [S]; current : (wordline, bitline, time or 1) [A] through
        the cells, which shot noise, 1/f noise and RTN follow.
    dt : [s]; count : of steps.

    Returns
    -------
    (wordline, bitline, time) [A]. The chip's traps are those of its reads.
    """
    traps, _ = cell_traps(read.technology, read.tile, chip, read.seed)
    rng = read.generator(Purpose.TRANSIENT_NOISE, chip, trial, read.use)
    return cell_series(read.technology, g, current, dt, count, rng, traps)


def _add_white(read: Read, purpose: Purpose, sigma: Array, current: Array) -> Array:
    """A normal draw of its own for every read of every bitline."""
    draw = np.empty(_whole(read, current))
    for c, chip in enumerate(read.chips):
        for trial in range(read.trials):
            rng = read.generator(purpose, chip, trial, read.use)
            draw[c, trial] = rng.standard_normal(draw.shape[2:])
    return np.asarray(current + sigma * draw)


def _add_flicker(read: Read, g: Array, v: Array, current: Array) -> Array:
    """A normal draw for every cell and trial, common to all uses of a layer."""
    scale = np.sqrt(flicker_variance(read.technology))
    result = np.array(np.broadcast_to(current, _whole(read, current)))
    for c, chip in enumerate(read.chips):
        for trial in range(read.trials):
            rng = read.generator(Purpose.FLICKER_NOISE, chip, trial)
            change = scale * g[c] * rng.standard_normal(g[c].shape)
            result[c, trial] += _of(v, c, trial) @ change
    return result


def _add_rtn(read: Read, g: Array, v: Array, current: Array) -> Array:
    """Trial 0 of the key is the chip's traps; a read's is one more than its trial."""
    technology = read.technology
    slow = rtn_is_slow(technology)
    result = np.array(np.broadcast_to(current, _whole(read, current)))
    for c, chip in enumerate(read.chips):
        traps, filled = cell_traps(technology, read.tile, chip, read.seed)
        trapped = np.where(traps, g[c], 0.0)
        for trial in range(read.trials):
            volts = _of(v, c, trial)
            if slow:
                rng = read.generator(Purpose.RTN, chip, trial + 1)
                result[c, trial] += volts @ (trapped * rtn_reads(technology, filled, rng))
            else:
                rng = read.generator(Purpose.RTN, chip, trial + 1, read.use)
                variance = rtn_variance(technology) * (np.square(volts) @ np.square(trapped))
                result[c, trial] += np.sqrt(variance) * rng.standard_normal(variance.shape)
    return result


def _whole(read: Read, current: Array) -> tuple[int, ...]:
    return (len(read.chips), read.trials, *current.shape[2:])


def _of(v: Array, chip: int, trial: int) -> Array:
    """One chip's and trial's voltages; those of the first where all share them."""
    return np.asarray(v[chip if len(v) > 1 else 0, trial if v.shape[1] > 1 else 0])
