"""Gradients of crossbar currents by one adjoint solve, in torch.

Node voltages x solve A(p) x = s(p), A symmetric. For a loss with cotangents x̄, the
adjoint λ = A⁻¹ x̄ is the same crossbar with its sources at zero, the bitlines' ends at
the currents' cotangents and the nodes' cotangents as currents into them; then
dL/dp = λᵀ (∂s/∂p − ∂A/∂p x) (Director and Rohrer, IEEE Trans. Circuit Theory 16, 318,
1969). That is, with λ taken at the sources and the ends as well,

    cell      dL/dg = −(λ_W − λ_B) ∂i/∂g          = −(λ_W − λ_B) u where i = g u
    source    dL/dv = −(current of λ out of that source)
    segment   dL/dr = (current of x) (current of λ), along the wire in both

A nonlinear cell has its slope ∂i/∂u at the solution for a conductance in A. Where a
cell's current depends on its bitline's voltage as well, by τ = ∂i/∂b, A is not
symmetric. Its transpose takes -τ (λ_W - λ_B) into one of a cell's nodes (``Split``): λ is
found by ``krylov``, around the symmetric part, and what went into the nodes is part of
λ's currents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spicenn.errors import InputError
from spicenn.kirchhoff import linear, newton, tensor
from spicenn.kirchhoff.krylov import fixed_point, total
from spicenn.kirchhoff.laws import Cells, GatedLaw, Law, Split, with_parameters
from spicenn.kirchhoff.linear import Fields

Solver = Callable[..., Fields]


def currents(
    g: Tensor,
    v: Tensor,
    r_wordline: Tensor,
    r_bitline: Tensor,
    *,
    law: Law | GatedLaw | None = None,
    parameters: Mapping[str, Tensor] | None = None,
    rtol: float = 1e-9,
    threads: int | None = None,
    voltages: bool = True,
    solver: Solver | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor]:
    """Solve every chip at every sample, differentiably in all tensors.

    Parameters
    ----------
    g : (chip, wordline, bitline) [S]. v : (chip or 1, sample, wordline) [V].
    r_wordline, r_bitline : (chip or 1, wordline or 1, bitline or 1) [Ω].
        All float64, on one device.
    law : of every cell; None is i = g u.
    parameters : fields of the law that differ from cell to cell, each shaped as g.
    voltages : whether to return the nodes' voltages.
    solver : ``linear.solve`` for tensors, or ``tensor.solve``; None is the compiled one
        on the CPU and the one in torch elsewhere.

    Returns
    -------
    current (chip, sample, bitline) [A]; on_wordline, on_bitline (chip, sample, wordline,
    bitline) [V] or None; residual and iterations (chip, sample). The caller judges the
    residual. The backward pass raises ConvergenceError where the adjoint's is above rtol,
    and InputError where it is asked for second derivatives. An infinite segment has
    gradient zero. Nodes that broken wires cut off from every source and ground have no
    voltage of their own: a loss on them has no gradient, and may be such an error.
    """
    if solver is None:
        solver = compiled if g.device.type == "cpu" else tensor.solve
    own = dict(parameters or {})
    inputs = (g, v, r_wordline, r_bitline, *own.values())
    if not torch.is_grad_enabled():
        # Nothing will ask for a gradient: keep nothing for one.
        inputs = tuple(x.detach() for x in inputs)
    method = _Method(law, tuple(own), rtol, threads, voltages, solver)
    solution: Any = _Currents.apply(method, *inputs)  # type: ignore[no-untyped-call]
    return (*solution,)


def compiled(*tensors: Tensor, **options: Any) -> Fields:
    """``linear.solve`` for tensors on the CPU; nothing is copied."""

    def array(x: Any) -> Any:
        return x.detach().numpy() if isinstance(x, Tensor) else x

    fields = linear.solve(*map(array, tensors), **{k: array(x) for k, x in options.items()})
    return Fields(*(None if x is None else torch.from_numpy(x) for x in vars(fields).values()))


@dataclass(frozen=True, eq=False)
class _Method:
    law: Law | GatedLaw | None
    names: tuple[str, ...]  # of the parameters
    rtol: float
    threads: int | None
    voltages: bool
    solver: Solver

    def cells(self, g: Tensor, parameters: tuple[Tensor, ...]) -> Cells | None:
        """The cells' law, None where they are ohmic; with an axis of samples."""
        if self.law is None:
            return None
        each = {name: x[:, None] for name, x in zip(self.names, parameters, strict=True)}
        return Cells(with_parameters(self.law, each), g[:, None])

    def forward(
        self, g: Tensor, v: Tensor, r_wordline: Tensor, r_bitline: Tensor,
        parameters: tuple[Tensor, ...], *, voltages: bool,
    ) -> Fields:  # fmt: skip
        if self.law is None:
            return self.solver(
                g, r_wordline, r_bitline, v=v, rtol=self.rtol, voltages=voltages,
                threads=self.threads,
            )  # fmt: skip
        return newton.solve(
            self.law, g, r_wordline, r_bitline, v=v,
            parameters=dict(zip(self.names, parameters, strict=True)),
            rtol=self.rtol, threads=self.threads, linear_solve=self.solver,
        )  # fmt: skip

    def adjoint(
        self, slope: Tensor, split: Split | None, r_wordline: Tensor, r_bitline: Tensor, *,
        ends: Tensor, into_wordline: Tensor | None, into_bitline: Tensor | None, voltages: bool,
    ) -> tuple[Fields, Tensor | None, Tensor | None]:  # fmt: skip
        """Solve for λ; also what went into the nodes for it.

        slope (chip, 1 or sample, m, n), the samples' own or one for all; split of gated
        cells, whose slope it is.
        """
        batch = ends.shape[:2]
        shared = slope.shape[1] == 1 and split is None

        def folded(x: Tensor | None) -> Tensor | None:
            return x if shared or x is None else _problems(x, batch)

        def solved(
            ends: Tensor | None, word: Tensor | None, bit: Tensor | None, *, voltages: bool
        ) -> Fields:
            return self.solver(
                (slope if shared else _problems(slope, batch))[:, 0],
                r_wordline if shared else _per_problem(r_wordline, batch),
                r_bitline if shared else _per_problem(r_bitline, batch),
                v=still,
                ends=ends,
                into_wordline=word,
                into_bitline=bit,
                rtol=self.rtol if split is None else 0.1 * self.rtol,
                voltages=voltages,
                threads=self.threads,
            )

        still = folded(slope.new_zeros(*batch, slope.shape[2]))
        driven, word, bit = folded(ends), folded(into_wordline), folded(into_bitline)
        fields = solved(driven, word, bit, voltages=voltages or split is not None)
        residual = fields.residual
        if split is not None:
            part = Split(_problems(split.slope, batch), _problems(split.tail, batch))

            def response(current: Tensor) -> Tensor:
                more = solved(None, *part.at_nodes(current), voltages=True)
                linear.require_converged(more.residual, self.rtol)
                again: Tensor = -part.tail * (more.on_wordline - more.on_bitline)
                return again

            across = fields.on_wordline - fields.on_bitline
            scale = total(abs(part.slope * across))
            for x in (word, bit):
                scale = scale if x is None else scale + total(abs(x))
            current, left = fixed_point(
                -part.tail * across, response, bound=0.1 * self.rtol * scale
            )
            to_word, to_bit = part.at_nodes(current)
            word = to_word if word is None else word + to_word
            bit = to_bit if bit is None else bit + to_bit
            fields = solved(driven, word, bit, voltages=voltages)
            residual = fields.residual + left / torch.where(scale > 0, scale, 1.0)
        linear.require_converged(residual, self.rtol)

        def unfolded(x: Any) -> Any:
            return None if x is None else x.reshape(*batch, *x.shape[2:])

        return Fields(*map(unfolded, vars(fields).values())), unfolded(word), unfolded(bit)


class _Currents(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, method: _Method, g: Tensor, v: Tensor, r_wordline: Tensor, r_bitline: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        _, to_g, to_v, *others = ctx.needs_input_grad
        # Of ohmic cells the response to the sources is the same at any voltage.
        needed = to_g or any(others) or (to_v and method.law is not None)
        fields = method.forward(
            g, v, r_wordline, r_bitline, parameters, voltages=needed or method.voltages
        )
        on_wordline, on_bitline = fields.on_wordline, fields.on_bitline
        cells = (on_wordline, on_bitline) if needed else (None, None)
        ctx.save_for_backward(g, r_wordline, r_bitline, *cells, *parameters)
        ctx.method, ctx.shape_of_v = method, v.shape
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(fields.residual, fields.iterations)
        if not method.voltages:
            on_wordline = on_bitline = None
        return fields.current, on_wordline, on_bitline, fields.residual, fields.iterations

    @staticmethod
    def backward(
        ctx: Any, current: Tensor | None, on_wordline: Tensor | None, on_bitline: Tensor | None,
        *_: Any,
    ) -> tuple[Tensor | None, ...]:  # fmt: skip
        if torch.is_grad_enabled():
            # What follows is no function of the inputs to autograd: constant, silently.
            raise InputError(
                "create_graph = True asks for second derivatives; currents have first ones",
                where="crossbar",
                remedy="differentiate the gradient by finite differences",
            )
        method: _Method = ctx.method
        nothing = (None,) * len(method.names)
        if current is None and on_wordline is None and on_bitline is None:
            return None, None, None, None, None, *nothing
        g, r_wordline, r_bitline, W, B, *parameters = ctx.saved_tensors
        _, to_g, to_v, to_r_wordline, to_r_bitline, *to_parameters = ctx.needs_input_grad
        cell, cells = g[:, None], method.cells(g, tuple(parameters))
        u = None if W is None else W - B
        slope = cell if cells is None else cells.slope(u, B)
        split = cells.split(u, B) if cells is not None and cells.gated else None
        if split is not None:
            slope = split.slope
        if current is None:
            current = g.new_zeros(len(g), ctx.shape_of_v[1], g.shape[2])
        of_cells = to_g or to_r_wordline or to_r_bitline or any(to_parameters)
        adjoint, into_wordline, into_bitline = method.adjoint(
            slope, split, r_wordline, r_bitline,
            ends=current, into_wordline=on_wordline, into_bitline=on_bitline, voltages=of_cells,
        )  # fmt: skip
        for_g = for_v = for_r_wordline = for_r_bitline = None
        for_parameters: tuple[Tensor | None, ...] = nothing
        if to_v:
            for_v = -adjoint.source.sum_to_size(ctx.shape_of_v)
        if not of_cells:
            return None, None, for_v, None, None, *nothing
        across = adjoint.on_wordline - adjoint.on_bitline
        if to_g:
            sensitivity = u if cells is None else cells.sensitivity(u, B)
            for_g = -(across * sensitivity).sum(1)
        if any(to_parameters):
            assert u is not None
            for_parameters = _by_parameters(method, g, parameters, to_parameters, u, B, -across)
        through = cell * u if cells is None else cells.current(u, B)
        if to_r_wordline:
            for_r_wordline = _wires(r_wordline, _beyond, through, slope * across, into_wordline, -1)
        if to_r_bitline:
            for_r_bitline = _wires(r_bitline, _above, through, slope * across, into_bitline, 1)
        return None, for_g, for_v, for_r_wordline, for_r_bitline, *for_parameters


def _by_parameters(
    method: _Method, g: Tensor, parameters: list[Tensor], wanted: list[bool], u: Tensor, b: Tensor,
    cotangent: Tensor,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of the parameters, of which a law gives no derivatives itself."""
    with torch.enable_grad():
        leaves = [
            x.detach().requires_grad_(need) for x, need in zip(parameters, wanted, strict=True)
        ]
        cells = method.cells(g.detach(), tuple(leaves))
        assert cells is not None
        asked = [x for x, need in zip(leaves, wanted, strict=True) if need]
        found = torch.autograd.grad(cells.current(u, b), asked, cotangent, allow_unused=True)
    each = iter(found)
    return tuple(next(each) if need else None for need in wanted)


def _beyond(x: Tensor) -> Tensor:
    """Sum what a wordline's segment feeds: its own cell and those further out."""
    return x.flip(-1).cumsum(-1).flip(-1)


def _above(x: Tensor) -> Tensor:
    """Sum what a bitline's segment carries away: from its own cell and those above."""
    return x.cumsum(-2)


def _wires(
    r: Tensor, add: Callable[[Tensor], Tensor], cells: Tensor, adjoint_cells: Tensor,
    injected: Tensor | None, sign: int,
) -> Tensor:  # fmt: skip
    """Gradient of segments r: the product of what they carry in either solution.

    The currents are sums of the cells' and of those injected, which enter with a sign:
    no voltage is divided by a resistance, so r = 0 is like any other.
    """
    if injected is not None:
        adjoint_cells = adjoint_cells + sign * injected
    gradient = (add(cells) * add(adjoint_cells)).sum(1)
    return torch.where(torch.isinf(r), 0.0, gradient).sum_to_size(r.shape)


def _problems(x: Tensor, batch: tuple[int, ...]) -> Tensor:
    """(chip or 1, sample or 1, …) to (chip · sample, 1, …)."""
    return x.expand(*batch, *x.shape[2:]).reshape(batch[0] * batch[1], 1, *x.shape[2:])


def _per_problem(r: Tensor, batch: tuple[int, ...]) -> Tensor:
    """(chip or 1, …) to (chip · sample or 1, …)."""
    return r if len(r) == 1 else r.repeat_interleave(batch[1], 0)
