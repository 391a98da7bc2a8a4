"""Kirchhoff's laws without a simulator: the same circuit, solved in this process."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np

from spicenn.circuit import Crossbar
from spicenn.engines.engine import Array, Engine, Parameters, Solution, check_shapes
from spicenn.engines.laws import as_resistors, law_of, of_law
from spicenn.errors import Status
from spicenn.kirchhoff import newton
from spicenn.kirchhoff.arguments import tolerance
from spicenn.kirchhoff.matrix import product, solver
from spicenn.kirchhoff.threads import thread_count


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
        """See ``Engine.solve``.

        Raises EngineError for a cell whose law it does not know, InputError for a parameter
        that its law does not allow.
        """
        check_shapes(crossbar, g, v, parameters or {})
        crossbar, g, parameters = as_resistors(crossbar, g, parameters or {})
        law = law_of(crossbar.cell, crossbar.name, crossbar.temperature)
        wires = segments(crossbar)
        start = perf_counter()
        if law is None:
            current, residual = product(g, *wires, v, solver(self._rtol, self._threads))
        else:
            fields = newton.solve(
                law, g, *wires, v=v, parameters=of_law(law, parameters), rtol=self._rtol,
                threads=self._threads,
            )  # fmt: skip
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
    """Resistances [Ω] of the segments as ``linear.solve`` takes them, of all chips."""
    wordline, bitline = crossbar.segments()
    return wordline[np.newaxis], bitline[np.newaxis]
