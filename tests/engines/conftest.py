"""One open engine for the tests of a module, and independent solutions to compare with."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import lil_array
from scipy.sparse.linalg import spsolve

from spicenn.engines.ngspice.client import NgspiceEngine

Array = NDArray[np.float64]


@pytest.fixture(scope="module")
def engine() -> Iterator[NgspiceEngine]:
    with NgspiceEngine(timeout=30.0) as running:
        yield running


def kirchhoff(g: Array, v: Array, r_wordline: float, r_bitline: float) -> Array:
    """Node equations of the array written out one by one; ideal wires are 1e-9 Ω ones."""
    rows, columns = g.shape
    wire_w, wire_b = max(r_wordline, 1e-9), max(r_bitline, 1e-9)
    size = 2 * rows * columns
    matrix, source = lil_array((size, size)), np.zeros((size, rows))

    def branch(a: int | None, b: int | None, conductance: float) -> None:
        for p, q in ((a, b), (b, a)):
            if p is not None:
                matrix[p, p] += conductance
                if q is not None:
                    matrix[p, q] -= conductance

    for i in range(rows):
        for j in range(columns):
            word, bit = i * columns + j, rows * columns + i * columns + j
            branch(word, bit, g[i, j])
            branch(word, word - 1 if j else None, 1 / wire_w)
            branch(bit, bit + columns if i < rows - 1 else None, 1 / wire_b)
        source[i * columns, i] = 1 / wire_w
    node = spsolve(matrix.tocsc(), source)
    return np.asarray((v @ node.reshape(size, rows)[-columns:].T) / wire_b)


def chips(
    shape: tuple[int, int], count: int, samples: int, seed: int = 1, inputs: int = 1
) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    g = rng.uniform(1e-6, 1e-4, (count, *shape))
    return g, rng.uniform(-0.2, 0.2, (inputs, samples, shape[0]))
