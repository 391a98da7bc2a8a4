"""Offsets that differ from block to block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicenn.technology import Comparator, Neuron, Tia


def draw_offset(
    spec: Tia | Neuron | Comparator, rng: np.random.Generator, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Input offset voltages [V], normal; a neuron's is behind its input stage."""
    return spec.offset_sigma * rng.standard_normal(shape)
