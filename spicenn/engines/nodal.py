"""Exact Kirchhoff solution of ohmic crossbars by one sparse factorisation per chip."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from spicenn.circuit import Crossbar
from spicenn.engines.engine import Array, Engine, Solution, check_shapes
from spicenn.errors import EngineError, Status

Index = NDArray[np.intp]


def effective_matrix(g: Array, r_wordline: float, r_bitline: float) -> Array:
    """Currents out of every bitline per volt on every wordline.

    A tile of ohmic cells is linear, so this one matrix is all of it.

    Parameters
    ----------
    g : (wordline, bitline) [S]; r_wordline, r_bitline : one wire segment [Ω].

    Returns
    -------
    (wordline, bitline) [S]; with ideal wires it is g itself.
    """
    if r_wordline == 0.0 and r_bitline == 0.0:
        return g.copy()
    voltage, word, bit = _solve(g, r_wordline, r_bitline)
    if r_bitline > 0:
        return np.asarray(voltage[bit[-1]].T / r_bitline)
    return np.asarray(np.einsum("rcs,rc->sc", voltage[word], g))


def node_voltages(g: Array, v: Array, r_wordline: float, r_bitline: float) -> tuple[Array, Array]:
    """Voltage at both ends of every cell.

    Parameters
    ----------
    g : (wordline, bitline) [S]; v : (wordline,) [V]; r_wordline, r_bitline : one wire
        segment [Ω].

    Returns
    -------
    Two arrays (wordline, bitline) [V]: on the wordlines and on the bitlines.
    """
    on_word = np.broadcast_to(v[:, np.newaxis], g.shape).copy()
    on_bit = np.zeros(g.shape)
    if r_wordline > 0 or r_bitline > 0:
        voltage, word, bit = _solve(g, r_wordline, r_bitline)
        nodes = voltage @ v
        if r_wordline > 0:
            on_word = nodes[word]
        if r_bitline > 0:
            on_bit = nodes[bit]
    return on_word, on_bit


def _solve(g: Array, r_wordline: float, r_bitline: float) -> tuple[Array, Index, Index]:
    """Voltages (node, source) per volt of each source, and the nodes of every cell.

    A node of -1 is the source or the ground itself. One of the resistances is positive.
    """
    rows, columns = g.shape
    cell = np.arange(g.size).reshape(g.shape)
    # Unknowns: the wordline node and the bitline node of every cell. An ideal wire
    # merges its nodes: with the source on the wordlines, with ground on the bitlines.
    word = cell if r_wordline > 0 else np.full_like(cell, -1)
    bit = cell + (g.size if r_wordline > 0 else 0) if r_bitline > 0 else np.full_like(cell, -1)
    size = g.size * ((r_wordline > 0) + (r_bitline > 0))
    i: list[Index] = []
    j: list[Index] = []
    value: list[Array] = []

    def branch(a: Index, b: Index, conductance: Array) -> None:
        a, b, c = a.ravel(), b.ravel(), conductance.ravel()
        for p, q, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
            keep = (p >= 0) & (q >= 0)
            i.append(p[keep])
            j.append(q[keep])
            value.append(sign * c[keep])

    source = np.zeros((size, rows))
    branch(word, bit, g)
    if r_wordline > 0:
        branch(word[:, :-1], word[:, 1:], np.full((rows, columns - 1), 1 / r_wordline))
        branch(word[:, :1], np.full((rows, 1), -1), np.full((rows, 1), 1 / r_wordline))
        source[word[:, 0], np.arange(rows)] = 1 / r_wordline
    else:
        np.add.at(source, (bit.ravel(), np.repeat(np.arange(rows), columns)), g.ravel())
    if r_bitline > 0:
        branch(bit[:-1], bit[1:], np.full((rows - 1, columns), 1 / r_bitline))
        branch(bit[-1:], np.full((1, columns), -1), np.full((1, columns), 1 / r_bitline))
    matrix = coo_array(
        (np.concatenate(value), (np.concatenate(i), np.concatenate(j))), shape=(size, size)
    ).tocsc()
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    return np.asarray(factor.solve(source)), word, bit


class NodalEngine(Engine):
    """Ohmic tiles without a simulator: the same circuit, solved in this process."""

    name = "nodal"
    tolerances: Mapping[str, float] = {}

    @property
    def versions(self) -> Mapping[str, str]:
        return {"scipy": scipy.__version__}

    def solve(self, crossbar: Crossbar, g: Array, v: Array) -> Solution:
        """See ``Engine.solve``. Raises EngineError for a cell that is not ohmic."""
        check_shapes(crossbar, g, v)
        if not crossbar.cell.is_ohmic:
            raise EngineError(
                f"the nodal engine has no law for the cell {crossbar.cell.name!r}",
                where=crossbar.name,
                remedy="use engine='ngspice'",
            )
        chips = g.shape[0]
        current = np.empty((chips, v.shape[1], crossbar.bitlines))
        runtime = np.empty(chips)
        for chip in range(chips):
            start = perf_counter()
            matrix = effective_matrix(g[chip], crossbar.r_wordline, crossbar.r_bitline)
            current[chip] = v[chip % v.shape[0]] @ matrix
            runtime[chip] = perf_counter() - start
        return Solution(current, np.full(chips, Status.OK, np.int8), ("",) * chips, runtime)

    def close(self) -> None:
        """Nothing to release."""
