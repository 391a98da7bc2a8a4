"""A second truth: node equations written out one by one, eliminated in extended precision."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

Array = NDArray[np.float64]


class Reference(NamedTuple):
    """Of one input: currents (bitline,), voltages and cell currents (wordline, bitline)."""

    current: Array
    wordline_voltage: Array
    bitline_voltage: Array
    cell_current: Array


def kirchhoff(
    g: Array, v: Array, r_wordline: Array, r_bitline: Array, offset: Array | None = None
) -> Reference:
    """Solve one array; wires of 0 Ω merge their nodes, broken ones are left out.

    offset : current from wordline to bitline beside g u, as of a cell's companion.
    """
    m, n = g.shape
    r_wordline, r_bitline = np.broadcast_to(r_wordline, (m, n)), np.broadcast_to(r_bitline, (m, n))
    # Terminals: sources, then the ground; then wordline nodes, then bitline nodes.
    ground, word, bit = m, m + 1, m + 1 + m * n
    parent = list(range(bit + m * n))

    def find(a: int) -> int:
        while parent[a] != a:
            a = parent[a]
        return a

    branches: list[tuple[int, int, float]] = []

    def wire(a: int, b: int, r: float) -> None:
        if r == 0:
            # The smaller index stays: terminals come first.
            low, high = sorted((find(a), find(b)))
            parent[high] = low
        elif r < np.inf:
            branches.append((a, b, 1 / r))

    for i in range(m):
        for j in range(n):
            here = i * n + j
            wire(i if j == 0 else word + here - 1, word + here, r_wordline[i, j])
            wire(bit + here, ground if i == m - 1 else bit + here + n, r_bitline[i, j])
            branches.append((word + here, bit + here, g[i, j]))
    root = [find(a) for a in range(len(parent))]
    free = sorted({a for a in root if a > ground})
    index = {a: k for k, a in enumerate(free)}
    voltage = {**dict(enumerate(v)), ground: 0.0}
    matrix = np.zeros((len(free),) * 2, np.longdouble)
    rhs = np.zeros(len(free), np.longdouble)

    def stamp(a: int, b: int, conductance: float) -> None:
        for p, q in ((root[a], root[b]), (root[b], root[a])):
            if p != q and p in index:
                matrix[index[p], index[p]] += conductance
                if q in index:
                    matrix[index[p], index[q]] -= conductance
                else:
                    rhs[index[p]] += np.longdouble(conductance) * voltage[q]

    for a, b, conductance in branches:
        stamp(a, b, conductance)
    if offset is not None:
        for here, amount in enumerate(offset.ravel()):
            for node, sign in ((word + here, -1), (bit + here, 1)):
                if root[node] in index:
                    rhs[index[root[node]]] += np.longdouble(sign * amount)
    node = _eliminate(matrix, rhs)
    voltage |= {a: node[k] for a, k in index.items()}
    everywhere = np.array([voltage[a] for a in root], np.longdouble)
    on_word = everywhere[word:bit].reshape(m, n)
    on_bit = everywhere[bit:].reshape(m, n)
    cells = np.array(g, np.longdouble) * (on_word - on_bit)
    if offset is not None:
        cells = cells + offset
    # Out of a bitline flows what its cells put in below its last break.
    current = np.zeros(n, np.longdouble)
    for j in range(n):
        broken = np.flatnonzero(np.isinf(r_bitline[:, j]))
        current[j] = cells[(broken[-1] + 1 if broken.size else 0) :, j].sum()
    return Reference(*(np.asarray(x, np.float64) for x in (current, on_word, on_bit, cells)))


def _eliminate(a: NDArray[np.longdouble], b: NDArray[np.longdouble]) -> NDArray[np.longdouble]:
    """Gauss without pivots, as a diagonally dominant matrix allows; an island is at 0 V."""
    a, b = a.copy(), b.copy()
    size = len(b)
    # What is left of an island's last diagonal element is rounding.
    least = 1e-16 * np.diag(a)
    alive = np.zeros(size, bool)
    for k in range(size):
        alive[k] = a[k, k] > least[k]
        if alive[k]:
            column = a[k + 1 :, k] / a[k, k]
            a[k + 1 :, k:] -= column[:, None] * a[k, k:]
            b[k + 1 :] -= column * b[k]
    x = np.zeros(size, np.longdouble)
    for k in np.flatnonzero(alive)[::-1]:
        x[k] = (b[k] - a[k, k + 1 :] @ x[k + 1 :]) / a[k, k]
    return x


def sparse_voltages(
    g: Array, v: Array, r_wordline: float, r_bitline: float, ends: Array | None = None
) -> tuple[Array, Array]:
    """Voltages on the wordlines and the bitlines, (wordline, bitline) each, by sparse LU.

    ends : (bitline,) voltages at the bitlines' ends; the ground if None.
    """
    m, n = g.shape

    def ladder(length: int) -> sp.csr_array:
        """One line, its first node tied to a terminal, over the wire's conductance."""
        main = np.r_[np.full(length - 1, 2.0), 1.0]
        off = np.full(length - 1, -1.0)
        return sp.diags_array([off, main, off], offsets=[-1, 0, 1], shape=(length, length)).tocsr()

    cells = sp.diags_array(g.ravel())
    along_word = sp.kron(sp.eye_array(m), ladder(n)) / r_wordline
    along_bit = sp.kron(ladder(m)[::-1, ::-1], sp.eye_array(n)) / r_bitline
    matrix = sp.block_array([[along_word + cells, -cells], [-cells, along_bit + cells]]).tocsc()
    rhs = np.zeros((2, m, n))
    rhs[0, :, 0] = v / r_wordline
    rhs[1, -1] = 0.0 if ends is None else ends / r_bitline
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    word, bit = factor.solve(rhs.ravel()).reshape(2, m, n)
    return word, bit
