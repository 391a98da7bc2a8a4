"""What running chips gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TileRecord:
    """What one tile did, on request.

    bitline_current : (chip, trial, sample, pulse, bitline) [A], noise included; a
        convolution's positions are part of ``pulse``'s sibling axis ``position``:
        (chip, trial, sample, position, pulse, bitline).
    g_target : (wordline, bitline) [S].
    g : (chip, wordline, bitline) [S].
    """

    bitline_current: Array | None
    g_target: Array | None
    g: Array | None


@dataclass(frozen=True, eq=False)
class Result:
    """Outputs of several chips, and how each run ended.

    output : per model output, (chip, trial, sample, …), NaN where the chip failed.
    status : (chip,) int8, values of ``errors.Status``.
    message : one sentence per chip, empty where all went well.
    runtime : (chip,) [s] of simulation.
    tiles : per tile name, what was asked to be kept.
    """

    output: Mapping[str, NDArray[np.floating]]
    status: NDArray[np.int8]
    message: tuple[str, ...]
    runtime: Array
    tiles: Mapping[str, TileRecord]
