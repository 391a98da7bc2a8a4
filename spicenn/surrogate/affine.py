"""The plain linear baseline: a chip adds an affine map of the inputs to the ideal output.

    y = nominal(x) + [1, x] A + e

A is a chip's own. Over chips it is matrix normal, A ~ N(Ā, U ⊗ V) with U over inputs and V
over outputs, which few chips fix: every output of every chip says something about U, every
input about V. Ā, U and V are found by expectation and conditional maximisation of their
likelihood (Meng and Rubin 1993; matrix normal: Dutilleul 1999). A's posterior is ridge
regression with U and V as the ridge. The variance of e beyond read noise is what makes
held-out samples of held-out chips likeliest: where there are as many features as samples,
what is left over of the samples that were fitted says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from spicenn.compiler.threads import one_thread
from spicenn.errors import CalibrationError
from spicenn.surrogate.latent import (
    Decoded,
    Decoder,
    Ideal,
    LatentSurrogate,
    Part,
    best_floor,
    principal,
    split,
)
from spicenn.surrogate.records import read_record

if TYPE_CHECKING:
    import xarray as xr

# Coefficients of a chip at most: their covariance is inverted.
_COEFFICIENTS = 1500
# Least spread of an eigenvalue of U and V, over their mean.
_RIDGE = 1e-6


class LinearDecoder(Decoder):
    """Features f = [1, principal components of x]; B(x) is the Kronecker product of f and V."""

    family = "linear"

    def __init__(self, outputs: int, shape: Mapping[str, int]) -> None:
        inputs, rank = shape["inputs"], shape["rank"]
        super().__init__(outputs, (rank + 1) * outputs, shape)
        for name, size in {
            "centre": (inputs,),
            "components": (inputs, rank),
            "shared": (rank + 1, outputs),
            "left": (rank + 1, rank + 1),
            "right": (outputs, outputs),
            "read": (outputs,),
        }.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))

    def features(self, ideal: Ideal) -> torch.Tensor:
        """Return (sample, rank + 1): one, and the inputs' principal components."""
        x = (ideal.flat - self.get_buffer("centre")) @ self.get_buffer("components")
        return torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x], dim=1)

    def forward(self, ideal: Ideal) -> Decoded:
        """See ``Decoder``."""
        f = self.features(ideal)
        basis = torch.einsum("ni,ko->noik", f @ self.get_buffer("left"), self.get_buffer("right").T)
        return Decoded(
            f @ self.get_buffer("shared"),
            basis.flatten(2),
            self.get_buffer("read").expand(len(f), -1),
        )


class LinearSurrogate(LatentSurrogate):
    """See the module; ``latent.LatentSurrogate`` has what it can do."""


@one_thread()
def fit_linear(
    ds: xr.Dataset, *, rank: int = 64, iterations: int = 30, seed: int = 0, **reading: Any
) -> LinearSurrogate:
    """Learn the linear baseline from a study's record.

    Parameters
    ----------
    rank : principal components of the inputs that A maps, at most; less where a chip would
        have too many coefficients.
    iterations : steps of expectation–maximisation at most.
    seed : of the chips and samples that are held out to learn the variance of e.
    reading : as of ``records.read_record``.

    Raises CalibrationError where fewer than two chips, or four samples, came out.
    """
    if rank < 1 or iterations < 1:
        raise CalibrationError("rank and iterations must be at least 1")
    record = read_record(ds, least=2, **reading)
    part = record.part()
    parts = split(part, seed)
    _, factor = best_floor(_decoder(parts.learn, rank, iterations), parts)
    decoder = _decoder(part, rank, iterations)
    decoder.get_buffer("floor").copy_(factor * part.power)
    return LinearSurrogate(
        record.design,
        decoder,
        record.chips,
        record.failed,
        {**record.provenance(), "family": "linear", "fit_seed": str(seed)},
    )


def _decoder(part: Part, rank: int, iterations: int) -> LinearDecoder:
    outputs = part.residual.shape[2]
    centre, components = principal(
        part.ideal.flat, max(0, min(rank, _COEFFICIENTS // max(1, outputs) - 1))
    )
    inputs, rank = components.shape
    decoder = LinearDecoder(outputs, {"inputs": inputs, "rank": rank})
    decoder.get_buffer("centre").copy_(centre)
    decoder.get_buffer("components").copy_(components)
    found = matrix_normal(decoder.features(part.ideal), part.residual, iterations)
    for name in ("left", "right"):
        decoder.get_buffer(name).copy_(getattr(found, name))
    decoder.get_buffer("shared").copy_(found.mean)
    decoder.get_buffer("read").copy_(part.read.mean(0))
    return decoder


@dataclass(frozen=True, eq=False)
class MatrixNormal:
    """mean (feature, output); U = left leftᵀ, V = right rightᵀ; variance of e, of every output."""

    mean: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    variance: torch.Tensor


def matrix_normal(features: torch.Tensor, residual: torch.Tensor, iterations: int) -> MatrixNormal:
    """Expectation–maximisation; residual is (chip, sample, output)."""
    chips, samples, outputs = residual.shape
    size = features.shape[1]
    gram = features.T @ features
    power = float(residual.square().mean())
    sigma = max(0.1 * power, 1e-24)
    left = torch.eye(size, dtype=torch.float64)
    right = torch.eye(outputs, dtype=torch.float64) * max(power, 1e-24) ** 0.5
    mean = torch.zeros(size, outputs, dtype=torch.float64)
    each = residual.square().mean((0, 1))
    for _ in range(iterations):
        # In these coordinates prior, likelihood and so the posterior are diagonal.
        strength, turn = torch.linalg.eigh(left.T @ gram @ left)
        strength = strength.clamp_min(0)
        v, w = torch.linalg.eigh(right @ right.T)
        side = left @ turn
        spread = v / (1 + strength[:, None] * v / sigma)

        def solve(
            seen: torch.Tensor,
            noise: float,
            side: torch.Tensor = side,
            strength: torch.Tensor = strength,
            v: torch.Tensor = v,
            w: torch.Tensor = w,
        ) -> torch.Tensor:
            z = side.T @ features.T @ seen @ w / noise
            return z * v / (1 + strength[:, None] * v / noise)

        mean = side @ solve(residual.mean(0), sigma / chips) @ w.T
        z = solve(residual - features @ mean, sigma)
        error = residual - features @ (mean + side @ z @ w.T)
        open_ = strength @ spread  # per rotated output, summed over samples
        each = (error.square().mean((0, 1)) + w.square() @ open_ / samples).clamp_min(1e-24)
        before, sigma = sigma, float(each.mean())
        inner = torch.einsum("cij,clj->il", z / v, z) + torch.diag(chips * (spread / v).sum(1))
        grown = _root(inner / (chips * outputs))
        # V given the new U: both from the old ones would take the change of scale twice.
        inverse = torch.cholesky_inverse(grown)
        outer = torch.einsum("cij,il,clm->jm", z, inverse, z)
        outer = outer + torch.diag(chips * inverse.diagonal() @ spread)
        left = side @ grown
        right = w @ _root(outer / (chips * size))
        if abs(sigma / before - 1) < 1e-3:
            break
    return MatrixNormal(mean, left, right, each)


def _root(matrix: torch.Tensor) -> torch.Tensor:
    ridge = _RIDGE * float(matrix.diagonal().mean()) + 1e-30
    root: torch.Tensor = torch.linalg.cholesky(matrix + ridge * torch.eye(len(matrix)))
    return root
