"""Linear crossbars in NumPy: node voltages and currents of many arrays and inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import ConvergenceError
from spicenn.kirchhoff import coarse
from spicenn.kirchhoff.threads import share_out, thread_count

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Fields:
    """Solutions, (chip, sample) first; arrays, or tensors from the torch solver.

    current : (…, bitline) [A] out of the bitlines.
    source : (…, wordline) [A] into the wordlines.
    on_wordline, on_bitline : (…, wordline, bitline) [V]; None where not asked for.
    residual : (…) current that Kirchhoff's law leaves over at the nodes, summed, over
        the current through the cells and the currents given, summed. What is left over
        can only end in a source or a bitline: the currents out are off by at most that
        much in all. Where no current flows but for rounding, it is over what the cells'
        two voltages would drive one by one.
    iterations : (…) of conjugate gradients.
    """

    current: Any
    source: Any
    on_wordline: Any
    on_bitline: Any
    residual: Any
    iterations: Any


def solve(
    g: Array,
    r_wordline: Array,
    r_bitline: Array,
    *,
    v: Array,
    ends: Array | None = None,
    into_wordline: Array | None = None,
    into_bitline: Array | None = None,
    guess: Array | None = None,
    rtol: Array | float = 1e-9,
    voltages: bool = True,
    threads: int | None = None,
) -> Fields:
    """Solve every chip at every sample; never raises for one that does not converge.

    Parameters
    ----------
    g : (chip, wordline, bitline) [S], at least 0.
    r_wordline, r_bitline : (chip or 1, wordline or 1, bitline or 1) [Ω], 0 … ∞: the
        segment before a cell on its wordline, the one after it on its bitline.
    v : (chip or 1, sample, wordline) [V].
    ends : (chip or 1, sample, bitline) [V] at the bitlines' ends; the ground if None.
    into_wordline, into_bitline : (chip, sample, wordline, bitline) [A] into the nodes.
    guess : (chip, sample, wordline, bitline) [V] of the bitlines' nodes.
    rtol : scalar or (chip, sample), bound of the residual.
    voltages : whether to return the nodes' voltages.
    """
    # Numba and what it compiled take half a second to load: not for those who only import.
    from spicenn.kirchhoff.kernel import solve_range

    chips, wordlines, bitlines = g.shape
    samples = v.shape[1]
    batch = (chips, samples)
    cells = (*batch, wordlines, bitlines) if voltages else (0, 0, 0, 0)
    none = np.empty((0, 0, 0, 0))
    fields = Fields(
        np.empty((*batch, bitlines)),
        np.empty((*batch, wordlines)),
        np.empty(cells),
        np.empty(cells),
        np.empty(batch),
        np.empty(batch, np.int64),
    )
    read = [
        _plain(none if array is None else array)
        for array in (
            g, r_wordline, r_bitline, v,
            np.zeros((1, samples, bitlines)) if ends is None else ends,
            into_wordline, into_bitline, np.broadcast_to(np.asarray(rtol, np.float64), batch),
        )
    ]  # fmt: skip
    written = [
        fields.current, fields.source, fields.on_wordline, fields.on_bitline,
        fields.residual, fields.iterations,
    ]  # fmt: skip
    arrays: list[Any] = [*read, *written]
    limit = iteration_limit(wordlines, bitlines)
    begin = none if guess is None else _plain(guess)
    coarsely = (
        min(wordlines, bitlines) >= coarse.LEAST
        and all(x is None for x in (guess, ends, into_wordline, into_bitline))
        and bool(np.isfinite(r_wordline).all() and np.isfinite(r_bitline).all())
    )

    def run(start: int, stop: int) -> None:
        if not coarsely:
            solve_range(start, stop, limit, begin, *arrays)
            return
        for problem in range(start, stop):
            chip, sample = divmod(problem, samples)
            one, row, column = (
                array[min(chip, len(array) - 1)] for array in (g, r_wordline, r_bitline)
            )
            volts = v[min(chip, len(v) - 1), sample]
            near = coarse.bitline_guess(one, row, column, volts, solve)
            solve_range(problem, problem + 1, limit, near[np.newaxis, np.newaxis], *arrays)

    share_out(run, chips * samples, wordlines * bitlines, thread_count(threads))
    return fields if voltages else replace(fields, on_wordline=None, on_bitline=None)


def iteration_limit(wordlines: int, bitlines: int) -> int:
    """Iterations after which a solve is given up; usual ones take 2 to 30."""
    return 200 + 20 * (wordlines + bitlines)


def require_converged(residual: Any, rtol: float) -> None:
    """Raise ConvergenceError where a residual is not at most rtol."""
    worst = float(residual.max()) if residual.size else 0.0
    if not worst <= rtol:
        raise ConvergenceError(
            f"the residual is {worst:.1e}, above rtol = {rtol:g}",
            where="crossbar",
            remedy="ask for a larger rtol; at conductances or wires of extreme ratios "
            "double precision may not reach this one",
        )


def _plain(array: Array) -> Array:
    """One memory layout for all: each other one would be compiled anew."""
    return np.require(array, np.float64, ["C", "W"])
