"""Arrays as hypothesis draws them: sizes, ratios, wires over decades, dead cells."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Case(NamedTuple):
    g: Array  # (wordline, bitline)
    v: Array  # (wordline,)
    r_wordline: Array  # (wordline or 1, bitline or 1)
    r_bitline: Array


@st.composite
def cases(draw: st.DrawFn, *, largest: int = 9, broken: bool = False, ideal: bool = True) -> Case:
    """Conductance ratios up to 1e8, wires over 8 decades, per segment or one for all.

    broken : infinite segments too. ideal : segments of 0 Ω too.
    """
    shape = draw(st.tuples(st.integers(1, largest), st.integers(1, largest)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    decades = draw(st.sampled_from([0.0, 2.0, 8.0]))
    g = 10 ** rng.uniform(-4 - decades, -4, shape)
    if draw(st.booleans()):
        g[rng.random(shape) < 0.2] = 0.0
    v = rng.uniform(-0.2, 0.2, shape[0])
    if draw(st.booleans()):
        v = np.abs(v)
    wires = []
    for _ in range(2):
        size = shape if draw(st.booleans()) else (1, 1)
        r = 10 ** rng.uniform(-3, 5, size)
        if ideal and draw(st.booleans()):
            r[rng.random(size) < 0.3] = 0.0
        if broken and draw(st.booleans()):
            r[rng.random(size) < 0.2] = np.inf
        wires.append(r)
    return Case(g, v, *wires)
