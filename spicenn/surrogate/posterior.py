"""Gaussian posterior of a chip's parameters given outputs: Gauss–Newton in the dual.

Parameters are its cells, its converters' gains and offsets, and where a surrogate was fitted
with them its wires' resistance (``compiler.structure``). A gain multiplies what cells do, which
no Gaussian over effective matrices says; over the parameters themselves the prior is
independent, and the derivatives carry the product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from spicenn.compiler.jacobian import Linearisation
from spicenn.compiler.probes import with_noise
from spicenn.compiler.structure import Parameters, mechanism_of

# Parameters to the linearisation at the probes about them.
Linearise = Callable[[Parameters], Linearisation]

# Standard deviation of the noise of the first stage, over the noise's own.
_TEMPER = 10.0


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known of a chip before its probes.

    mean : per tile name (wordline, output · slice); that of converters and wires is zero.
    variance : of every parameter, independent.
    floor : variance of an output that the model cannot explain.
    """

    mean: Mapping[str, torch.Tensor]
    variance: Mapping[str, torch.Tensor]
    floor: float


@dataclass(frozen=True, eq=False)
class Posterior:
    """Laplace approximation at the most probable parameters.

    weights : the most probable parameters, per tile name the cells' effective matrix.
    linear : outputs and derivatives there.
    factor : Cholesky factor of the outputs' covariance J V Jᵀ + noise.
    noise : (sample, output, output), floor included.
    prior : what it started from.
    target : (sample, output), the outputs seen.
    """

    weights: Mapping[str, torch.Tensor]
    linear: Linearisation
    factor: torch.Tensor
    noise: torch.Tensor
    prior: Prior
    target: torch.Tensor

    @property
    def residual(self) -> torch.Tensor:
        """Seen less modelled outputs, (sample, output)."""
        return self.target - self.linear.value

    def covariance(self, linear: Linearisation) -> torch.Tensor:
        """Posterior covariance of other inputs' outputs, per sample; (sample, output, output).

        Noise of reading them is not part of it.
        """
        n, k = linear.value.shape
        cross = self.linear.kernel(linear, self.prior.variance)
        whitened = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        w = whitened.reshape(-1, n, k)
        return linear.blocks(self.prior.variance) - torch.einsum("onk,onl->nkl", w, w)

    def draw(self, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draw the parameters' deviation from the most probable ones (Matheron's rule)."""
        deviation = {
            name: value.sqrt() * torch.as_tensor(rng.standard_normal(tuple(value.shape)))
            for name, value in self.prior.variance.items()
        }
        seen = self.linear.apply(deviation)
        xi = torch.as_tensor(rng.standard_normal(tuple(seen.shape)))
        root = torch.linalg.cholesky(self.noise)
        seen = seen + torch.einsum("nkl,nl->nk", root, xi)
        alpha = torch.cholesky_solve(seen.reshape(-1, 1), self.factor).reshape(seen.shape)
        correction = self.linear.adjoint(alpha, deviation)
        return {
            name: value - self.prior.variance[name] * correction[name]
            for name, value in deviation.items()
        }


def infer(
    linearise: Linearise, prior: Prior, target: torch.Tensor, *, trials: int, iterations: int
) -> Posterior:
    """Most probable parameters and their covariance, given outputs.

    Minimises ½ Σ rᵀ (noise)⁻¹ r + ½ δᵀ V⁻¹ δ over the parameters' deviations δ from the
    prior mean by Gauss–Newton with step halving, each step solved with the outputs'
    covariance (samples · outputs squared) and not with the parameters'.

    Where converters vary, whose gains may switch a network's units on and off, the noise is
    first taken as ten times what it is, so that the few numbers of converters are found
    before those of cells; and as gains scale noise as well, it is computed anew at the end.

    Parameters
    ----------
    target : (sample, output), mean over trials of the outputs seen.
    trials : reads behind each target.
    iterations : linearisations at most, of each such stage.
    """
    delta = {name: torch.zeros_like(value) for name, value in prior.variance.items()}
    linear = linearise(prior.mean)
    noise = _noise(linear, prior, trials)
    if any(mechanism_of(name) for name in prior.variance):
        for scale in (_TEMPER**2, 1.0):
            delta, linear = _descend(
                linearise, prior, target, scale * noise, (delta, linear), iterations
            )
            noise = _noise(linear, prior, trials)
    delta, linear = _descend(linearise, prior, target, noise, (delta, linear), iterations)
    factor = _factor(linear, prior, noise)
    return Posterior(_about(prior, delta), linear, factor, noise, prior, target)


def _descend(
    linearise: Linearise,
    prior: Prior,
    target: torch.Tensor,
    noise: torch.Tensor,
    start: tuple[dict[str, torch.Tensor], Linearisation],
    iterations: int,
) -> tuple[dict[str, torch.Tensor], Linearisation]:
    """Gauss–Newton from a deviation and its linearisation to better ones, for one noise."""
    delta, linear = start
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(noise))

    def cost(linear: Linearisation, delta: Parameters) -> float:
        r = target - linear.value
        misfit = float(torch.einsum("nk,nkl,nl->", r, inverse, r))
        return misfit + sum(
            float((delta[name].square() / value.clamp_min(1e-300)).sum())
            for name, value in prior.variance.items()
        )

    best = cost(linear, delta)
    for _ in range(iterations):
        factor = _factor(linear, prior, noise)
        pseudo = target - linear.value + linear.apply(delta)
        alpha = torch.cholesky_solve(pseudo.reshape(-1, 1), factor).reshape(pseudo.shape)
        ahead = {
            name: prior.variance[name] * value
            for name, value in linear.adjoint(alpha, delta).items()
        }
        step, moved = 1.0, False
        while step > 0.05:
            tried = {name: (1 - step) * delta[name] + step * ahead[name] for name in delta}
            there = linearise(_about(prior, tried))
            new = cost(there, tried)
            if new < best:
                moved = True
                break
            step /= 2
        if not moved:
            break
        gain, best, delta, linear = best - new, new, tried, there
        if gain < 3e-3 * best:
            break
    return delta, linear


def _about(prior: Prior, delta: Parameters) -> dict[str, torch.Tensor]:
    """The prior's mean and a deviation from it."""
    return {
        name: prior.mean[name] + value if name in prior.mean else value
        for name, value in delta.items()
    }


def _noise(linear: Linearisation, prior: Prior, trials: int) -> torch.Tensor:
    """Covariance of the target about the model, floor included."""
    k = linear.value.shape[1]
    spread = float(linear.noise.diagonal(dim1=1, dim2=2).mean())
    floor = max(prior.floor, 1e-6 * spread, 1e-24)
    return linear.noise / trials + floor * torch.eye(k, dtype=torch.float64)


def _factor(linear: Linearisation, prior: Prior, noise: torch.Tensor) -> torch.Tensor:
    kernel = linear.kernel(linear, prior.variance)
    factor: torch.Tensor = torch.linalg.cholesky(with_noise(kernel, noise))
    return factor
