"""``crossbar_currents``: exact currents of crossbars, wires included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from spicenn.arrays import is_tensor
from spicenn.errors import InputError
from spicenn.kirchhoff import linear, newton
from spicenn.kirchhoff.arguments import NO_SAMPLES, Arrays, arrays, checked_law, tolerance
from spicenn.kirchhoff.laws import Cells, GatedLaw, Law, with_parameters
from spicenn.kirchhoff.linear import require_converged
from spicenn.kirchhoff.matrix import Solve, product, solver, transfer_matrix
from spicenn.kirchhoff.threads import thread_count


class CrossbarSolution(NamedTuple):
    """All of an operating point; arrays or tensors as the arguments.

    current : (…, sample, bitline) [A] out of the bitlines.
    wordline_voltage, bitline_voltage, cell_current : (…, sample, wordline, bitline)
        [V], [V], [A].
    residual : (…, sample). What Kirchhoff's law leaves over at the nodes, summed, over
        the cells' currents, summed: the bitline currents are off by at most this much
        of the cells' currents in all (twice that for nonlinear cells).
    iterations : (…, sample), of conjugate gradients, or of Newton's method.
    """

    current: Any
    wordline_voltage: Any
    bitline_voltage: Any
    cell_current: Any
    residual: Any
    iterations: Any


def crossbar_currents(
    g: Any,
    v: Any,
    *,
    r_wordline: Any,
    r_bitline: Any,
    rtol: float = 1e-9,
    law: Law | GatedLaw | None = None,
    parameters: Mapping[str, Any] | None = None,
    details: bool = False,
    threads: int | None = None,
) -> Any:
    """Solve crossbars with wire resistance exactly, many at a time.

    Input i drives the first cell of wordline i through one segment of wire, each
    following cell through one more. Bitline j ends in a virtual ground after its last
    cell and one segment; current out of it is positive.

    Parameters
    ----------
    g : (…, wordline, bitline) [S], at least 0; 0 is a dead cell.
    v : (…, sample, wordline) or (wordline,) [V]. The leading axes of all arguments
        broadcast.
    r_wordline, r_bitline : [Ω], one value or one per segment (…, wordline, bitline): the
        segment before the cell on its wordline, the one after it on its bitline. 0 is
        an ideal wire and infinity a broken one: a line without any way to a source or
        the ground carries no current and is given 0 V.
    rtol : bound of the residual (see ``CrossbarSolution``).
    law : current of a cell at its voltage, e.g. ``spicenn.kirchhoff.Sinh()``; None is ohmic.
    parameters : fields of the law that differ from cell to cell, e.g. ``{"dvt": …}``, each
        (…, wordline, bitline) or one value, in SI units.
    details : return a ``CrossbarSolution``, with the nodes' voltages and the residuals.
    threads : to use; None is every core that this process was given, within
        OMP_NUM_THREADS and NUMBA_NUM_THREADS.

    Returns
    -------
    (…, sample, bitline) [A], float64; tensors where an argument is one, differentiable
    in g, v, the wires and the parameters by one adjoint solve (first derivatives in backward mode;
    ``torch.func`` is not supported). On a CUDA device all of it runs there.

    Raises InputError naming the argument, and ConvergenceError rather than return an
    answer whose residual is above rtol. That may be so where broken wires leave nodes to
    nothing but transistors that are off, which have no voltage of their own.
    """
    rtol, threads, law = tolerance(rtol), thread_count(threads), checked_law(law)
    given, law = _linear_as_such(arrays(g, v, r_wordline, r_bitline, parameters), law)
    wires = (given.r_wordline, given.r_bitline)
    if law is None and not details:
        current, residual = product(given.g, *wires, given.v, _solver(given, rtol, threads))
        require_converged(residual, rtol)
        return current.reshape(*given.batch, -1)
    current, on_wordline, on_bitline, residual, iterations = _solved(
        given, rtol, law, threads, details
    )
    require_converged(residual, rtol)
    current = current.reshape(*given.batch, -1)
    if not details:
        return current
    cell, u = given.g[:, None], on_wordline - on_bitline
    if law is None:
        through = cell * u
    else:
        own = {name: x[:, None] for name, x in given.parameters.items()}
        through = Cells(with_parameters(law, own), cell).current(u, on_bitline)
    cells = (*given.batch, *given.g.shape[-2:])
    return CrossbarSolution(
        current,
        *(x.reshape(cells) for x in (on_wordline, on_bitline, through)),
        *(x.reshape(given.batch) for x in (residual, iterations)),
    )


def effective_matrix(
    g: Any,
    *,
    r_wordline: Any,
    r_bitline: Any,
    rtol: float = 1e-9,
    threads: int | None = None,
) -> Any:
    """Currents out of every bitline per volt on every wordline.

    Ohmic cells make a linear array, so this one matrix is all of it: ``v @ matrix`` are
    its currents for any input. With ideal wires it is g itself.

    Parameters
    ----------
    g, r_wordline, r_bitline, rtol, threads : as ``crossbar_currents``.

    Returns
    -------
    (…, wordline, bitline) [S]; a differentiable tensor where an argument is one.

    Raises InputError and ConvergenceError as ``crossbar_currents``.
    """
    rtol = tolerance(rtol)
    threads = thread_count(threads)
    given = arrays(g, NO_SAMPLES, r_wordline, r_bitline)
    matrix, residual = transfer_matrix(
        given.g, given.r_wordline, given.r_bitline, _solver(given, rtol, threads)
    )
    require_converged(residual, rtol)
    return matrix.reshape(*given.batch, *given.g.shape[-2:])


def _linear_as_such(given: Arrays, law: Any) -> tuple[Arrays, Any]:
    """A law that is linear as conductances and no law. Raises InputError for parameters."""
    if law is None and given.parameters:
        raise InputError("parameters are given, but no law that has them")
    if not hasattr(law, "conductance"):
        return given, law
    g = with_parameters(law, given.parameters).conductance(given.g)
    return replace(given, g=g, parameters={}), None


def _solver(given: Arrays, rtol: float, threads: int) -> Solve:
    """Currents and residuals alone, of arrays or tensors."""
    if not is_tensor(given.g):
        return solver(rtol, threads)
    from spicenn.kirchhoff import autograd

    def by_torch(g: Any, r_wordline: Any, r_bitline: Any, v: Any) -> tuple[Any, Any]:
        current, _, _, residual, _ = autograd.currents(
            g, v, r_wordline, r_bitline, rtol=rtol, threads=threads, voltages=False
        )
        return current, residual

    return by_torch


def _solved(
    given: Arrays, rtol: float, law: Law | GatedLaw | None, threads: int, voltages: bool
) -> tuple[Any, Any, Any, Any, Any]:
    """Currents, both kinds of voltages, residuals and iterations."""
    g, v, wires = given.g, given.v, (given.r_wordline, given.r_bitline)
    if is_tensor(g):
        from spicenn.kirchhoff import autograd

        return autograd.currents(
            g, v, *wires, law=law, parameters=given.parameters, rtol=rtol, threads=threads,
            voltages=voltages,
        )  # fmt: skip
    if law is None:
        fields = linear.solve(g, *wires, v=v, rtol=rtol, threads=threads)
    else:
        fields = newton.solve(
            law, g, *wires, v=v, parameters=given.parameters, rtol=rtol, threads=threads
        )
    return (
        fields.current, fields.on_wordline, fields.on_bitline, fields.residual, fields.iterations
    )  # fmt: skip
