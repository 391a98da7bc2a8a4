"""Kirchhoff's laws without a simulator: the same circuit, solved in this process."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np

from spicenn.circuit import Crossbar, load_cell
from spicenn.engines.engine import Array, Engine, Parameters, Solution, check_shapes
from spicenn.errors import EngineError, Status
from spicenn.kirchhoff import newton
from spicenn.kirchhoff.arguments import tolerance
from spicenn.kirchhoff.laws import Law, Sinh
from spicenn.kirchhoff.matrix import product, solver
from spicenn.kirchhoff.threads import thread_count
from spicenn.technology import Cell

# The laws of the cells of ``netlists``, at the parameters that stand there.
_LAWS: Mapping[str, Law] = {"sinh": Sinh()}


class NodalEngine(Engine):
    """Every tile solved exactly, hundreds of times faster than by a simulator.

    Parameters
    ----------
    rtol, threads : see ``crossbar_currents``.

    Raises InputError for values that are not allowed there.
    """

    name = "nodal"

    def __init__(self, rtol: float = 1e-9, threads: int | None = None) -> None:
        self._rtol, self._threads = tolerance(rtol), threads
        thread_count(threads)

    @property
    def versions(self) -> Mapping[str, str]:
        import numba

        return {"numba": numba.__version__}

    @property
    def tolerances(self) -> Mapping[str, float]:
        return {"rtol": self._rtol}

    def solve(
        self, crossbar: Crossbar, g: Array, v: Array, parameters: Parameters | None = None
    ) -> Solution:
        """See ``Engine.solve``. Raises EngineError for a cell whose law it does not know."""
        check_shapes(crossbar, g, v, parameters or {})
        law = law_of(crossbar.cell, crossbar.name)
        wires = segments(crossbar)
        start = perf_counter()
        if law is None:
            current, residual = product(g, *wires, v, solver(self._rtol, self._threads))
        else:
            fields = newton.solve(law, g, *wires, v=v, rtol=self._rtol, threads=self._threads)
            current, residual = fields.current, fields.residual
        chips = g.shape[0]
        runtime = np.full(chips, (perf_counter() - start) / chips)
        worst = residual.max(axis=1)
        good = worst <= self._rtol
        status = np.where(good, Status.OK, Status.NOT_CONVERGED).astype(np.int8)
        message = tuple(
            "" if fine else f"residual {left:.1e} above {self._rtol:g}"
            for fine, left in zip(good, worst, strict=True)
        )
        current[~good] = np.nan
        return Solution(current, status, message, runtime)

    def close(self) -> None:
        """Nothing to release."""


def segments(crossbar: Crossbar) -> tuple[Array, Array]:
    """Resistances [Ω] of the segments as ``linear.solve`` takes them.

    What drives a wordline and what senses a bitline is in series with its outer segment.
    """
    wordline = np.full((1, 1, crossbar.bitlines), crossbar.r_wordline)
    bitline = np.full((1, crossbar.wordlines, 1), crossbar.r_bitline)
    wordline[..., 0] += crossbar.r_driver
    bitline[:, -1] += crossbar.r_sense
    return (
        wordline if crossbar.r_driver else wordline[..., :1],
        bitline if crossbar.r_sense else bitline[:, :1],
    )


def law_of(cell: Cell, where: str) -> Law | None:
    """Return the law of a cell; None where it is ohmic. Raises EngineError for an unknown one."""
    if cell.is_ohmic:
        return None
    # A user's own netlist may carry the name of one of ours.
    if cell.name in _LAWS and cell == load_cell(cell.name):
        return _LAWS[cell.name]
    raise EngineError(
        f"the nodal engine has no law for the cell {cell.name!r}",
        where=where,
        remedy="use engine='ngspice'",
    )
