"""Linear crossbars in torch, on any device: the method of `kernel`, all problems at once.

Where the compiled kernel walks along a line, a line is a parallel scan here: log2(length)
steps over whole arrays. With l[k] the link of nodes k and k + 1, x[k + 1] += l[k] x[k]
for all k in order is, for d = 1, 2, 4, …, x[k + d] += L_d[k] x[k] at once, with
L_2d[k] = L_d[k] L_d[k + d] (Hillis and Steele, CACM 29, 1170, 1986). All links are in
0 … 1: their products lose no digits, and may underflow to the zero that they mean.

Tensors are float64, (chip, sample, wordline, bitline); what one chip's samples share has
one sample. Scalars of a problem are (chip, sample, 1, 1). Problems that are done stay in
the batch and are frozen: their steps have length zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from spicenn.kirchhoff.kernel import NEGLIGIBLE
from spicenn.kirchhoff.linear import Fields, iteration_limit

# As the kernel's: checks of the residual that may bring no improvement.
_PATIENCE = 3
_CELLS = (-2, -1)


@dataclass(frozen=True, eq=False)
class _Lines:
    """The ladders of all wordlines, or of all bitlines, of every chip.

    axis : along which the lines run. first : whether a line's outer end, a source or a
    virtual ground, is at its first node; at its last otherwise.
    links : L_1, L_2, L_4, …, each (chip, 1, wordline, bitline) less its stride.
    q : (chip, 1, wordline, bitline) [Ω], turns current into voltage. t : the outermost
    segment's factor, admittance : [S] before that segment, both (chip, 1, line).
    """

    axis: int
    first: bool
    links: tuple[Tensor, ...]
    q: Tensor
    t: Tensor
    admittance: Tensor

    def gather(self, x: Tensor) -> Tensor:
        """Sum currents into the nodes towards the outer end, in place."""
        return self._scan(x, upwards=not self.first)

    def spread(self, x: Tensor, ends: Tensor | None = None) -> Tensor:
        """Turn gathered currents into voltages, in place; ends (…, line) [V] outside."""
        x *= self.q
        if ends is not None:
            x.select(self.axis, 0 if self.first else -1).addcmul_(self.t, ends)
        return self._scan(x, upwards=self.first)

    def outermost(self, x: Tensor) -> Tensor:
        """Return the nodes at the outer end, (…, line)."""
        return x.select(self.axis, 0 if self.first else -1)

    def _scan(self, x: Tensor, *, upwards: bool) -> Tensor:
        for link in self.links:
            length = link.shape[self.axis]
            low = x.narrow(self.axis, 0, length)
            high = x.narrow(self.axis, x.shape[self.axis] - length, length)
            # The product is complete before it is added: the two may overlap.
            if upwards:
                high += link * low
            else:
                low += link * high
        return x


def _factor(g: Tensor, r: Tensor, axis: int, *, first: bool) -> _Lines:
    """Sweep the ladders from their inner ends; g (chip, 1, m, n), r broadcasts with it."""
    broken = torch.isinf(r)
    finite = torch.where(broken, 0.0, r)
    # One node of every line at a time, in memory too.
    cells = g.movedim(axis, 0).contiguous()
    ohms = finite.expand(g.shape).movedim(axis, 0)
    whole = (~broken).to(g.dtype).expand(g.shape).movedim(axis, 0)
    y, t = torch.empty_like(cells), torch.empty_like(cells)
    order = range(len(cells) - 1, -1, -1) if first else range(len(cells))
    inner = None
    for k in order:
        if inner is None:
            y[k] = cells[k]
        else:
            torch.addcmul(cells[k], t[inner], y[inner], out=y[k])
        torch.div(whole[k], 1.0 + ohms[k] * y[k], out=t[k])
        inner = k
    admittance, t_end = y[inner], t[inner]
    link = (t[1:] if first else t[:-1]).movedim(0, axis).contiguous()
    t, y = t.movedim(0, axis), y.movedim(0, axis)
    # A line that ends in nothing has no voltage of its own: call it 0.
    q = torch.where(broken, torch.where(y > 0.0, 1.0 / y, 0.0), finite * t).contiguous()
    links = []
    while link.shape[axis] > 0:
        links.append(link)
        stride, length = len(cells) - link.shape[axis], link.shape[axis]
        left = max(length - stride, 0)
        link = link.narrow(axis, 0, left) * link.narrow(axis, length - left, left)
    return _Lines(axis, first, tuple(links), q, t_end, admittance)


def solve(
    g: Tensor,
    r_wordline: Tensor,
    r_bitline: Tensor,
    *,
    v: Tensor,
    ends: Tensor | None = None,
    into_wordline: Tensor | None = None,
    into_bitline: Tensor | None = None,
    guess: Tensor | None = None,
    rtol: Tensor | float = 1e-9,
    voltages: bool = True,
    threads: int | None = None,
) -> Fields:
    """Solve every chip at every sample, as `linear.solve` does, shapes and all.

    Tensors are float64 on one device; ``threads`` has no meaning here, torch's own
    setting holds. Not differentiable: `autograd.currents` is.
    """
    with torch.no_grad():
        return _solve(
            g, r_wordline, r_bitline, v, ends, into_wordline, into_bitline, guess, rtol, voltages
        )


def _solve(
    g: Tensor,
    r_wordline: Tensor,
    r_bitline: Tensor,
    v: Tensor,
    ends: Tensor | None,
    into_wordline: Tensor | None,
    into_bitline: Tensor | None,
    guess: Tensor | None,
    rtol: Tensor | float,
    voltages: bool,
) -> Fields:
    chips, wordlines, bitlines = g.shape
    samples = v.shape[1]
    limit = iteration_limit(wordlines, bitlines)
    g = g.unsqueeze(1)
    along_w = _factor(g, r_wordline.unsqueeze(1), -1, first=True)
    along_b = _factor(g, r_bitline.unsqueeze(1), -2, first=False)
    scalars = (chips, samples, 1, 1)
    bound = torch.as_tensor(rtol, dtype=g.dtype, device=g.device).expand(chips, samples)
    bound = bound.reshape(scalars)
    injected = g.new_zeros(scalars)
    for currents in (into_wordline, into_bitline):
        if currents is not None:
            injected = injected + _sum(currents.abs())
    b = g.new_zeros(chips, samples, wordlines, bitlines) if guess is None else guess
    done = torch.zeros(scalars, dtype=torch.int64, device=g.device)
    best = g.new_full(scalars, torch.inf)
    patience = torch.full_like(done, _PATIENCE)
    while True:
        # The wordlines' voltages for b, and with them the bitlines' own answer z.
        x = g * b
        if into_wordline is not None:
            x += into_wordline
        along_w.gather(x)
        norton = along_w.outermost(x).clone()
        along_w.spread(x, v)
        z = g * x
        if into_bitline is not None:
            z += into_bitline
        along_b.gather(z)
        out = along_b.outermost(z).clone()
        along_b.spread(z, ends)
        # Kirchhoff's law holds on the bitlines; g (z - b) is left over on the wordlines.
        r = (z - b).mul_(g)
        unbalanced = _sum(r.abs())
        flow = _sum((x - z).abs_().mul_(g))
        by_one = _sum(x.abs().add_(z.abs()).mul_(g))
        scale = torch.where(flow > NEGLIGIBLE * by_one, flow, by_one) + injected
        relative = torch.where(unbalanced == 0.0, 0.0, unbalanced / scale)
        patience -= (~(unbalanced < 0.5 * best)).to(patience.dtype)
        best = torch.minimum(best, unbalanced)
        unsolved = ~(relative <= bound) & (patience > 0) & (done < limit)
        if not bool(unsolved.any()):
            break
        # What is solved keeps its b, and so its answer at every later check.
        b = torch.where(unsolved, z, b)
        r = along_w.spread(along_w.gather(r)).mul_(g)
        del x, z
        done += _conjugate_gradients(
            g, along_w, along_b, b, r, torch.where(unsolved, bound * scale, torch.inf), limit - done
        )
    if ends is not None:
        out = out - along_b.admittance * ends
    return Fields(
        along_b.t * out,
        along_w.t * (along_w.admittance * v - norton),
        x if voltages else None,
        z if voltages else None,
        relative[..., 0, 0],
        done[..., 0, 0],
    )


def _conjugate_gradients(
    g: Tensor, along_w: _Lines, along_b: _Lines, b: Tensor, r: Tensor, target: Tensor, left: Tensor
) -> Tensor:
    """Move b until Σ g |T_b⁻¹ residual| is at most the target; return the iterations.

    r : residual at b, followed along. target : (chip, sample, 1, 1), infinite where b
    shall stay. left : iterations allowed.
    """
    done = torch.zeros_like(left)
    z = along_b.spread(along_b.gather(r.clone()))
    rz = _sum(r * z)
    p, u = z.clone(), r.clone()
    while True:
        active = (_sum(z.abs_().mul_(g)) > target) & (rz > 0.0) & (done < left)
        # The only word that the host waits for.
        if not bool(active.any()):
            return done
        x = along_w.spread(along_w.gather(g * p)).mul_(g)
        torch.sub(u, x, out=x)
        energy = _sum(p * x)
        active &= energy > 0.0
        step = torch.where(active, rz / energy, 0.0)
        b.addcmul_(step, p)
        r.addcmul_(step, x, value=-1.0)
        done += active
        # One that broke off takes no more steps.
        left = torch.where(active, left, done)
        z = along_b.spread(along_b.gather(x.copy_(r)))
        before, rz = rz, _sum(r * z)
        beta = torch.where(active, rz / before, 0.0)
        p.mul_(beta).add_(z)
        u.mul_(beta).add_(r)


def _sum(x: Tensor) -> Tensor:
    """Sum over the cells: a scalar for each problem."""
    return x.sum(_CELLS, keepdim=True)
