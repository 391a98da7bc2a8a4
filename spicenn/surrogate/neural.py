"""A learned model of a design's chips, without its circuit: a latent-linear network.

    y = nominal(x) + μ_θ(x) + B_θ(x) c + σ_θ(x) ⊙ ξ + e,    c ~ N(0, I), e ~ N(0, floor)

A trunk sees the inputs and what the ideal network computes from them. Its heads are the mean
deviation μ, the read noise σ and features φ, ψ of the basis B = [φ ⊗ R, ψ ⊗ Q]: a chip's
deviation is any combination of features times patterns of outputs (the columns of R and Q),
so every output of every chip teaches the same features. μ, φ and R start at the optimum of
the linear family on all that the trunk sees; ψ is the trunk's own.

The model is linear in c, so c is integrated out exactly: training minimises the negative log
likelihood of whole chips (probabilistic principal components, Tipping and Bishop 1999, with
a network for the loadings). There are no sampled or variational latents, and a chip cannot
be learnt by heart in a latent that is integrated out, which is how variances collapse. σ is
fitted to the spread of the reads alone, not to the model's errors. A quarter of chips and
samples is held out; what is watched is the prediction of held-out samples of held-out chips
given the others, which is what a calibration does. It says when to stop, and the floor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spicenn.compiler.threads import one_thread
from spicenn.errors import CalibrationError
from spicenn.seeds import Purpose, generator
from spicenn.surrogate.affine import matrix_normal
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

# Patterns of outputs at most, and observations per step.
_PATTERNS, _OBSERVATIONS = 16, 240
# Principal components of all that the trunk sees, and steps of the start's optimisation.
_RANK, _START = 96, 30
# Steps between two looks at what is held out, and looks without improvement to the end.
_LOOK, _PATIENCE = 20, 5
# Variances over the outputs' mean square deviation are at least this.
_LEAST = 1e-8
# A value that hardly varies in the study is not blown up by more than this.
_STEADY = 0.05


class NeuralDecoder(Decoder):
    """Trunk of two layers and its heads; see the module."""

    family = "neural"

    def __init__(self, outputs: int, shape: Mapping[str, int]) -> None:
        seen, rank, width = shape["seen"], shape["rank"], shape["width"]
        linear, learned, patterns = shape["linear"], shape["learned"], shape["patterns"]
        super().__init__(outputs, (linear + learned) * patterns, shape)
        for name, sizes in {
            "centre": (seen,),
            "components": (seen, rank),
            "scale": (outputs,),
        }.items():
            self.register_buffer(name, torch.zeros(sizes, dtype=torch.float64))
        for name, sizes in {
            "first": (rank + 1, width),
            "second": (width + 1, width),
            "mean": (rank + 1 + width, outputs),
            "noise": (rank + 1 + width, outputs),
            "left": (rank + 1 + width, linear),
            "right": (outputs, patterns),
            "own_left": (width + 1, learned),
            "own_right": (outputs, patterns),
            "left_out": (outputs,),
        }.items():
            parameter = torch.nn.Parameter(torch.zeros(sizes, dtype=torch.float64))
            self.register_parameter(name, parameter)

    def forward(self, ideal: Ideal) -> Decoded:
        """See ``Decoder``."""
        return self.decode(self.standardised(ideal))

    def standardised(self, ideal: Ideal) -> torch.Tensor:
        """Return (sample, rank + 1): one, and components of all that the trunk sees."""
        z = (columns(ideal) - self.get_buffer("centre")) @ self.get_buffer("components")
        return torch.cat([torch.ones(len(z), 1, dtype=torch.float64), z], dim=1)

    def decode(self, z: torch.Tensor) -> Decoded:
        """Return the heads' values, in the outputs' units."""
        weight = dict(self.named_parameters())
        scale = self.get_buffer("scale")
        h = torch.nn.functional.silu(z @ weight["first"])
        one = torch.ones(len(z), 1, dtype=torch.float64)
        h = torch.cat([one, h], 1)
        h = torch.nn.functional.silu(h @ weight["second"])
        both = torch.cat([z, h], 1)
        own = torch.cat([one, h], 1) @ weight["own_left"]
        basis = torch.cat(
            [
                torch.einsum("ni,op->noip", both @ weight["left"], weight["right"]).flatten(2),
                torch.einsum("ni,op->noip", own, weight["own_right"]).flatten(2),
            ],
            dim=2,
        )
        return Decoded(
            both @ weight["mean"] * scale,
            basis * scale[:, None],
            (torch.exp(both @ weight["noise"]) + _LEAST) * scale.square(),
        )

    def unexplained(self) -> torch.Tensor:
        """Variance of e while training, (output,)."""
        floor = torch.exp(self.get_parameter("left_out")) + _LEAST
        return floor * self.get_buffer("scale").square()


class NeuralSurrogate(LatentSurrogate):
    """See the module; ``latent.LatentSurrogate`` has what it can do."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Sizes and schedule of a training; see ``fit_neural``."""

    latent: int
    width: int
    steps: int
    rate: float
    decay: float
    seed: int


@one_thread()
def fit_neural(
    ds: xr.Dataset,
    *,
    latent: int = 480,
    width: int = 64,
    steps: int = 400,
    rate: float = 2e-3,
    decay: float = 1e-2,
    seed: int = 0,
    **reading: Any,
) -> NeuralSurrogate:
    """Learn the neural family from a study's record; 16 chips and more serve it.

    Parameters
    ----------
    latent : dimension of c at most. A chip's deviations are sums of those of thousands of
        cells: a small dimension does not hold those of an unseen chip.
    width : of the trunk's two layers.
    steps : of Adam at most; held-out chips and samples say when to stop.
    rate, decay : learning rate and decoupled weight decay.
    seed : of first weights, batches, and what is held out.
    reading : as of ``records.read_record``.

    Raises CalibrationError where fewer than four chips or samples came out.
    """
    if min(latent, width) < 1 or steps < 0:
        raise CalibrationError("latent and width must be at least 1, steps 0")
    record = read_record(ds, least=4, **reading)
    part = record.part()
    plan = _Plan(latent=latent, width=width, steps=steps, rate=rate, decay=decay, seed=seed)
    parts = split(part, seed)
    rehearsed = _start(parts.learn, plan)
    best = (*best_floor(rehearsed, parts), 0)
    since = 0

    def look(step: int) -> bool:
        nonlocal best, since
        found = (*best_floor(rehearsed, parts), step)
        since += 1
        if found[0] < best[0]:
            best, since = found, 0
        return since > _PATIENCE

    _train(rehearsed, parts.learn, plan, steps, look)
    _, factor, best_step = best
    decoder = _start(part, plan)
    _train(decoder, part, plan, best_step)
    decoder.get_buffer("floor").copy_(factor * part.power)
    decoder.requires_grad_(False)
    return NeuralSurrogate(
        record.design,
        decoder,
        record.chips,
        record.failed,
        {
            **record.provenance(),
            "family": "neural",
            "fit_seed": str(seed),
            "steps": str(best_step),
        },
    )


def columns(ideal: Ideal) -> torch.Tensor:
    """All that the trunk sees, (sample, value)."""
    return torch.cat([ideal.flat, ideal.hidden, ideal.value], dim=1)


def _start(part: Part, plan: _Plan) -> NeuralDecoder:
    """The linear family's optimum on all that the trunk sees, and a trunk that adds nothing."""
    outputs = part.residual.shape[2]
    seen = columns(part.ideal)
    steep = torch.cat([_steep(block) for block in (part.ideal.flat, part.ideal.hidden)])
    steep = torch.cat([steep, _steep(part.ideal.value)])
    _, components = principal(seen * steep, min(_RANK, plan.latent))
    components = components * steep[:, None]
    rank = components.shape[1]
    patterns = min(outputs, _PATTERNS)
    features = max(1, plan.latent // patterns)
    learned = features // 4
    linear = min(features - learned, rank + 1)
    decoder = NeuralDecoder(
        outputs,
        {
            "seen": seen.shape[1],
            "rank": rank,
            "width": plan.width,
            "linear": linear,
            "learned": learned,
            "patterns": patterns,
        },
    )
    decoder.get_buffer("centre").copy_(seen.mean(0))
    decoder.get_buffer("components").copy_(components)
    decoder.get_buffer("scale").copy_(part.power.sqrt())
    z = decoder.standardised(part.ideal)
    found = matrix_normal(z, part.residual / part.power.sqrt(), _START)
    rng = generator(plan.seed, Purpose.TRAINING, layer=4)
    weight = dict(decoder.named_parameters())
    with torch.no_grad():
        for name in ("first", "second", "own_left"):
            drawn = rng.standard_normal(tuple(weight[name].shape))
            weight[name].copy_(torch.as_tensor(drawn / np.sqrt(len(weight[name]))))
        weight["mean"][: rank + 1] = found.mean
        weight["left"][: rank + 1] = _leading(found.left, linear)
        weight["right"].copy_(_leading(found.right, patterns))
        weight["own_right"].copy_(0.1 * _leading(found.right, patterns))
        read = (part.read / part.power).mean(0)
        weight["noise"][0] = read.clamp_min(_LEAST).log()
        left_out = (found.variance - read / part.trials).clamp_min(0.1 * found.variance)
        weight["left_out"].copy_(left_out.clamp_min(_LEAST).log())
    return decoder


def _steep(block: torch.Tensor) -> torch.Tensor:
    """One over the values' standard deviations, 0 where they do not vary."""
    std = block.std(0)
    least = max(_STEADY * float(std.max()), 1e-300) if std.numel() else 1.0
    return torch.where(std > 0, 1 / std.clamp_min(least), 0.0)


def _leading(root: torch.Tensor, count: int) -> torch.Tensor:
    """Leading columns of another root of root rootᵀ: those that hold most of it."""
    u, size, _ = torch.linalg.svd(root)
    leading: torch.Tensor = (u * size)[:, :count]
    return leading


def _train(
    decoder: NeuralDecoder,
    part: Part,
    plan: _Plan,
    steps: int,
    look: Callable[[int], bool] | None = None,
) -> None:
    """Take so many steps, or until ``look(step)`` says stop."""
    rng = generator(plan.seed, Purpose.TRAINING, layer=5)
    optimiser = torch.optim.AdamW(decoder.parameters(), plan.rate, weight_decay=plan.decay)
    z = decoder.standardised(part.ideal)
    count, outputs = part.residual.shape[1:]
    batch = min(count, max(2, _OBSERVATIONS // outputs))
    for step in range(1, steps + 1):
        chosen = rng.choice(count, batch, replace=False)
        optimiser.zero_grad()
        loss = _likelihood(
            decoder, z[chosen], part.residual[:, chosen], part.read[chosen], part.trials
        )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        if look is not None and step % _LOOK == 0 and look(step):
            break


def _likelihood(
    decoder: NeuralDecoder,
    z: torch.Tensor,
    residual: torch.Tensor,
    read: torch.Tensor,
    trials: int,
) -> torch.Tensor:
    """Negative log likelihood of whole chips per observation, their latents integrated out."""
    decoded = decoder.decode(z)
    # The errors must not pull at the read noise: it has the reads themselves.
    variance = (decoded.read.detach() / trials + decoder.unexplained()).flatten()
    rows = decoded.basis.flatten(0, 1)
    error = (residual - decoded.mean).flatten(1)
    if len(rows) <= rows.shape[1]:
        factor = torch.linalg.cholesky(rows @ rows.T + torch.diag(variance))
        square = torch.linalg.solve_triangular(factor, error.T, upper=False).square().sum()
        size = 2 * factor.diagonal().log().sum()
    else:
        weighted = rows / variance[:, None]
        unit = torch.eye(rows.shape[1], dtype=torch.float64)
        factor = torch.linalg.cholesky(unit + weighted.T @ rows)
        found = torch.linalg.solve_triangular(factor, weighted.T @ error.T, upper=False)
        square = (error.square() / variance).sum() - found.square().sum()
        size = variance.log().sum() + 2 * factor.diagonal().log().sum()
    loss: torch.Tensor = (square / len(error) + size) / (2 * len(variance))
    # Reads about their own mean: chi-square, independent of the mean.
    own: torch.Tensor = 0.5 * (decoded.read.log() + read / decoded.read).mean()
    return loss + own
