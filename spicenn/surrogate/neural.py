"""A learned model of a design's chips, without its circuit: a latent-linear network.

    y = nominal(x) + μ_θ(x) + B_θ(x) c + σ_θ(x) ⊙ ξ + e,    c ~ N(0, I), e ~ N(0, floor)

One trunk sees the inputs and what the ideal network computes from them; its heads are the
mean deviation μ, a basis B of deviation functions and the read noise σ. B has ``latent``
columns for which the network gives every output's part, and ``local`` features that every
output weighs on its own: the cells of a last layer are such, and with them every output of
every chip teaches the same features.

The model is linear in c, so c is integrated out exactly: training minimises the negative
log likelihood of whole chips (as probabilistic principal components, Tipping and Bishop
1999, with a network for the loadings), no sampled or variational latents. That is also what
keeps σ from collapsing: a chip cannot be learnt by heart in a latent that is integrated
out, and where the study has several trials σ is held to the spread of the reads themselves.
A part of chips and samples is held out; what is watched there is the prediction of held-out
samples of held-out chips given the others, which is what a calibration does. It decides when
to stop, and how much wider than in training the noise has to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler.threads import one_thread
from spicenn.errors import CalibrationError
from spicenn.seeds import Purpose, generator
from spicenn.surrogate.latent import (
    Decoded,
    Decoder,
    Ideal,
    LatentSurrogate,
    condition,
    ideal_of,
)
from spicenn.surrogate.records import read_record

if TYPE_CHECKING:
    import xarray as xr

# Latents in all: their covariance is factored in every step.
_LATENTS = 512
# Samples per step, samples that a held-out chip is known by, and steps between two looks.
_BATCH, _KNOWN, _LOOK = 32, 64, 20
# Looks without improvement before training ends.
_PATIENCE = 8
# Noise variance of an output, over its chips' mean square deviation, at least and at first.
_LEAST, _FIRST = 1e-8, 1e-2
# Factors by which held-out chips may show more noise than those that were trained on.
_WIDER = tuple(float(f) for f in np.logspace(-0.5, 2.5, 25))
# A feature that hardly varies in the study is not blown up by more than this.
_STEADY = 0.05


class NeuralDecoder(Decoder):
    """Trunk of two layers; every head sees the trunk and, past it, the standardised inputs."""

    family = "neural"

    def __init__(self, outputs: int, latent: int, shape: Mapping[str, int]) -> None:
        super().__init__(outputs, latent, shape)
        inputs, width, local = shape["inputs"], shape["width"], shape["local"]
        self._outputs, self._local = outputs, local
        self._shared = latent - outputs * local
        for name, size in {"centre": inputs, "steep": inputs, "scale": outputs}.items():
            self.register_buffer(name, torch.zeros(size, dtype=torch.float64))
        self.register_buffer("wider", torch.ones((), dtype=torch.float64))
        wide = width + inputs + 1
        for name, sizes in {
            "first": (inputs + 1, width),
            "second": (width + 1, width),
            "mean": (wide, outputs),
            "basis": (wide, outputs * self._shared),
            "features": (wide, local),
            "noise": (width + 1, outputs),
            "left_out": (outputs,),
        }.items():
            self.register_parameter(
                name, torch.nn.Parameter(torch.zeros(sizes, dtype=torch.float64))
            )

    def start(self, rng: np.random.Generator) -> None:
        """Draw the first weights; biases are the last row."""
        gain = {"first": 1.0, "second": 1.0, "basis": 0.3, "features": 0.3}
        with torch.no_grad():
            for name, factor in gain.items():
                weight = self.get_parameter(name)
                drawn = rng.standard_normal(tuple(weight.shape))
                weight.copy_(torch.as_tensor(drawn * factor / np.sqrt(len(weight))))
                weight[-1] = 0.0
            self.get_parameter("noise").zero_()
            self.get_parameter("noise")[-1] = float(np.log(_FIRST))
            self.get_parameter("left_out").fill_(float(np.log(_FIRST)))

    def forward(self, ideal: Ideal) -> Decoded:
        """See ``Decoder``."""
        return self.decode(self.standardised(ideal))

    def standardised(self, ideal: Ideal) -> torch.Tensor:
        """Return the inputs and the ideal network's values, (sample, feature)."""
        return (columns(ideal) - self.get_buffer("centre")) * self.get_buffer("steep")

    def decode(self, z: torch.Tensor) -> Decoded:
        """Return the heads' values in the outputs' units."""
        one = torch.ones(len(z), 1, dtype=torch.float64)
        weight = dict(self.named_parameters())
        h = torch.nn.functional.silu(torch.cat([z, one], 1) @ weight["first"])
        h = torch.nn.functional.silu(torch.cat([h, one], 1) @ weight["second"])
        seen = torch.cat([h, z, one], 1)
        scale = self.get_buffer("scale")
        parts = [(seen @ weight["basis"]).reshape(len(z), self._outputs, self._shared)]
        if self._local:
            own = torch.eye(self._outputs, dtype=torch.float64)
            parts.append(torch.einsum("ni,op->nopi", seen @ weight["features"], own).flatten(2))
        noise = torch.exp(torch.cat([h, one], 1) @ weight["noise"]) + _LEAST
        return Decoded(
            seen @ weight["mean"] * scale,
            torch.cat(parts, 2) * scale[:, None],
            noise * scale.square() * self.get_buffer("wider"),
        )

    def unexplained(self) -> torch.Tensor:
        """Variance of e while training, (output,)."""
        return (torch.exp(self.get_parameter("left_out")) + _LEAST) * self.get_buffer(
            "scale"
        ).square()


class NeuralSurrogate(LatentSurrogate):
    """See the module; ``latent.LatentSurrogate`` has what it can do."""


class _Data(NamedTuple):
    """z : (sample, feature); residual : (chip, sample, output); read : (sample, output)."""

    z: torch.Tensor
    residual: torch.Tensor
    read: torch.Tensor | None
    trials: int

    def of(self, chips: NDArray[np.int64], samples: NDArray[np.int64]) -> _Data:
        return _Data(
            self.z[samples],
            self.residual[chips][:, samples],
            None if self.read is None else self.read[samples],
            self.trials,
        )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """How to train: most steps, Adam's rate and decay, and the seed."""

    steps: int
    rate: float
    decay: float
    seed: int


@one_thread()
def fit_neural(
    ds: xr.Dataset,
    *,
    latent: int = 16,
    local: int = 16,
    width: int = 64,
    steps: int = 600,
    rate: float = 3e-3,
    decay: float = 1e-2,
    seed: int = 0,
    **reading: Any,
) -> NeuralSurrogate:
    """Learn the neural family from a study's record; 16 chips and more serve it.

    Parameters
    ----------
    latent : columns of the basis whose parts of every output the network gives.
    local : features that every output weighs on its own; less where there would be more
        than 512 latents in all.
    width : of the trunk's two layers.
    steps : of Adam at most; held-out chips and samples say when to stop.
    rate, decay : learning rate and decoupled weight decay.
    seed : of first weights, batches, and what is held out.
    reading : as of ``records.read_record``.

    Raises CalibrationError where fewer than four chips or eight samples came out.
    """
    if min(latent, width, steps) < 1 or local < 0:
        raise CalibrationError("latent, width and steps must be at least 1, local 0")
    record = read_record(ds, least=4, **reading)
    if record.target.shape[1] < 8:
        raise CalibrationError(
            f"{record.target.shape[1]} samples are too few to hold any out",
            remedy="run the study with at least 8 samples",
        )
    ideal = ideal_of(record.design, record.inputs)
    residual = record.target - ideal.value
    outputs = residual.shape[2]
    local = min(local, max(0, _LATENTS - latent) // outputs)
    decoder = NeuralDecoder(
        outputs,
        latent + outputs * local,
        {"inputs": columns(ideal).shape[1], "width": width, "local": local},
    )
    _standardise(decoder, ideal, residual)
    data = _Data(decoder.standardised(ideal), residual, record.read, record.trials)
    plan = _Plan(steps=steps, rate=rate, decay=decay, seed=seed)
    best, wider = _rehearse(decoder, data, plan)
    _train(decoder, data, plan, best)
    with torch.no_grad():
        if record.trials > 1:
            decoder.get_buffer("floor").copy_(decoder.unexplained() * wider)
        else:
            decoder.get_buffer("wider").fill_(wider)
    decoder.requires_grad_(False)
    return NeuralSurrogate(
        record.design,
        decoder,
        record.trials,
        record.chips,
        record.failed,
        {
            **record.provenance(),
            "family": "neural",
            "fit_seed": str(seed),
            "steps": str(best),
            "wider": f"{wider:.4g}",
        },
    )


def columns(ideal: Ideal) -> torch.Tensor:
    """All that the trunk sees, (sample, feature)."""
    return torch.cat([ideal.flat, ideal.hidden, ideal.value], dim=1)


def _standardise(decoder: NeuralDecoder, ideal: Ideal, residual: torch.Tensor) -> None:
    steep = []
    for block in (ideal.flat, ideal.hidden, ideal.value):
        std = block.std(0)
        least = _STEADY * float(std.max()) if std.numel() else 0.0
        steep.append(torch.where(std > 0, 1 / std.clamp_min(max(least, 1e-300)), 0.0))
    decoder.get_buffer("centre").copy_(columns(ideal).mean(0))
    decoder.get_buffer("steep").copy_(torch.cat(steep))
    power = residual.square().mean((0, 1))
    decoder.get_buffer("scale").copy_(power.clamp_min(max(1e-6 * float(power.max()), 1e-24)).sqrt())


def _rehearse(decoder: NeuralDecoder, data: _Data, plan: _Plan) -> tuple[int, float]:
    """Train without a quarter of chips and samples: best number of steps, and wider noise."""
    rng = generator(plan.seed, Purpose.TRAINING, layer=3)
    chips, samples = (rng.permutation(n) for n in data.residual.shape[:2])
    out, in_ = (np.sort(chips[k]) for k in (slice(len(chips) // 4), slice(len(chips) // 4, None)))
    quarter = len(samples) // 4
    rest = np.sort(samples[quarter:])
    unseen = data.of(out, np.sort(samples[:quarter]))
    known = data.of(out, np.sort(samples[quarter:][:_KNOWN]))
    best: tuple[float, int, float] = (np.inf, plan.steps, 1.0)
    looks = 0

    def look(step: int) -> bool:
        nonlocal best, looks
        looks += 1
        scores = [(_surprise(decoder, known, unseen, factor), factor) for factor in _WIDER]
        score, factor = min(scores)
        if score < best[0]:
            best, looks = (score, step, factor), 0
        return looks > _PATIENCE

    _train(decoder, data.of(in_, rest), plan, plan.steps, look)
    return best[1], best[2]


def _train(decoder: NeuralDecoder, data: _Data, plan: _Plan, steps: int, look: Any = None) -> None:
    """Start anew and take so many steps, or until ``look(step)`` says stop."""
    decoder.start(generator(plan.seed, Purpose.TRAINING, layer=4))
    rng = generator(plan.seed, Purpose.TRAINING, layer=5)
    optimiser = torch.optim.AdamW(decoder.parameters(), plan.rate, weight_decay=plan.decay)
    for step in range(1, steps + 1):
        count = len(data.z)
        chosen = rng.choice(count, min(count, _BATCH), replace=False)
        optimiser.zero_grad()
        loss = _likelihood(decoder, data.of(np.arange(len(data.residual)), chosen))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 10.0)
        optimiser.step()
        if look is not None and step % _LOOK == 0 and look(step):
            break


def _likelihood(decoder: NeuralDecoder, data: _Data) -> torch.Tensor:
    """Negative log likelihood of whole chips per observation, their latents integrated out."""
    decoded = decoder.decode(data.z)
    variance = _variance(decoder, decoded, data.trials, 1.0).flatten()
    rows = decoded.basis.flatten(0, 1)
    weighted = rows / variance[:, None]
    unit = torch.eye(rows.shape[1], dtype=torch.float64)
    factor = torch.linalg.cholesky(unit + weighted.T @ rows)
    error = (data.residual - decoded.mean).flatten(1)
    found = torch.linalg.solve_triangular(factor, weighted.T @ error.T, upper=False)
    chips = len(error)
    square = (error.square() / variance).sum() - found.square().sum()
    size = variance.log().sum() + 2 * factor.diagonal().log().sum()
    loss: torch.Tensor = (square / chips + size) / (2 * len(variance))
    if data.read is not None:
        # Reads about their own mean: chi-square, independent of the mean.
        own = (decoded.read.log() + data.read / decoded.read).mean()
        loss = loss + 0.5 * (data.trials - 1) * own
    return loss


def _variance(decoder: NeuralDecoder, decoded: Decoded, trials: int, wider: float) -> torch.Tensor:
    """Of a target about the model, (sample, output)."""
    if trials == 1:
        return decoded.read * wider
    return decoded.read / trials + decoder.unexplained() * wider


@torch.no_grad()
def _surprise(decoder: NeuralDecoder, known: _Data, unseen: _Data, wider: float) -> float:
    """Negative log likelihood of unseen samples given known ones, the mean over chips."""
    seen, new = decoder.decode(known.z), decoder.decode(unseen.z)
    around = _variance(decoder, seen, known.trials, wider)
    noise = _variance(decoder, new, unseen.trials, wider)
    total = 0.0
    for before, after in zip(known.residual, unseen.residual, strict=True):
        latent = condition(seen.basis, around, before - seen.mean)
        variance = noise + (new.basis @ latent.root).square().sum(-1)
        error = after - new.mean - new.basis @ latent.mean
        total += float((error.square() / variance + variance.log()).mean())
    return total / len(known.residual)
