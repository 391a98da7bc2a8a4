"""Every random number comes from here.

One root seed and a fixed key per draw (what for, which chip, which trial, which
tile) name an independent generator, so chip 7 is the same chip whatever the
study around it, and a new mechanism changes no existing draw.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from spicenn.errors import InputError


class Purpose(IntEnum):
    """What a generator is for. Numbers are part of the record's contract: never renumber."""

    PROGRAMMING_ERROR = 1
    READ_NOISE = 2
    THERMAL_NOISE = 3
    PROBES = 4
    TRAINING = 5
    CYCLE_TO_CYCLE = 6
    GRADIENT = 7
    CORRELATED = 8
    WAFER = 9
    STUCK = 10
    DEAD_LINES = 11
    MISMATCH = 12
    DRIFT = 13
    SHOT_NOISE = 20
    FLICKER_NOISE = 21
    RTN = 22
    TRANSIENT_NOISE = 23
    TIA_OFFSET = 30
    ADC_STEPS = 31
    DAC_STEPS = 32
    NEURON_OFFSET = 33
    COMPARATOR = 34
    ADC_GAIN = 35
    ADC_OFFSET = 36
    DAC_GAIN = 37
    DAC_OFFSET = 38
    SPIKES = 40
    CELL_LAW = 41
    SPIKING_NEURON = 42
    HYSTERESIS = 43
    EDGE_THRESHOLD = 50
    TWIN_THRESHOLD = 51
    EDGE_TRANSCONDUCTANCE = 52
    TWIN_TRANSCONDUCTANCE = 53
    EDGE_BIAS = 54
    EDGE_LEAKAGE = 55
    OUTPUT_OFFSET = 56
    EDGE_START = 57
    UPDATE_NOISE = 58
    OUTPUT_NOISE = 59
    TASK_ORDER = 60
    DESYNCHRONOUS = 61


def generator(
    seed: int,
    purpose: Purpose,
    *,
    chip: int = 0,
    trial: int = 0,
    layer: int = 0,
    row: int = 0,
    column: int = 0,
    use: int = 0,
) -> np.random.Generator:
    """Return the generator of one mechanism of one tile of one chip.

    ``use`` tells apart the reads of a layer that a model calls more than once.

    Raises InputError unless the seed is a non-negative integer and each part of
    the key fits 32 bits (NumPy would split a larger one into two words, so that
    2**32 would be the same key as (0, 1)).
    """
    if not _is_integer(seed) or seed < 0:
        raise InputError(f"seed {seed!r} is not a non-negative integer")
    key: tuple[int, ...] = (int(purpose), chip, trial, layer, row, column)
    names = ("purpose", "chip", "trial", "layer", "tile row", "tile column", "use")
    if use:  # a first use keeps the short key
        key = (*key, use)
    for name, part in zip(names, key, strict=False):
        if not _is_integer(part) or not 0 <= part < 2**32:
            raise InputError(f"{name} {part!r} is not an integer in 0 … 2**32 - 1")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(int(seed), spawn_key=key)))


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
