"""Chips as points of a latent space that their outputs are linear in.

    y = nominal(x) + μ(x) + B(x) c + e,    c ~ N(0, I)

The nominal output is the ideal network's. μ, B and the variance of e are a ``Decoder``'s;
families differ in nothing else. Because y is linear in c, what probes tell of a chip is an
exact Gaussian, N(m, (I + Bᵀ S⁻¹ B)⁻¹) with S the variance of e, and so are intervals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.convolution import digital_crossbar
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.jacobian import flatten_outputs
from spicenn.compiler.program import execute
from spicenn.compiler.threads import one_thread
from spicenn.errors import CalibrationError
from spicenn.seeds import Purpose, generator
from spicenn.surrogate.calibration import targets
from spicenn.surrogate.gate import Forecast, HeldOut, accepted, check, hold_out
from spicenn.surrogate.module import Prediction, as_tensors

# Values per sample of one layer that a decoder may look at.
_WIDEST = 1024
# Samples that a held-out chip is known by.
_KNOWN = 48
# Unexplained variance that is tried, over the outputs' mean square deviation.
_FLOORS = tuple(float(f) for f in np.logspace(-6, 0, 19))


class Ideal(NamedTuple):
    """The ideal network at some inputs.

    outputs : as the model returns them.
    value : (sample, output) float64, floating-point outputs side by side.
    flat : (sample, input) float64, floating-point inputs side by side.
    hidden : (sample, value) float64, what its layers take and give.
    """

    outputs: tuple[torch.Tensor, ...]
    value: torch.Tensor
    flat: torch.Tensor
    hidden: torch.Tensor


class Decoded(NamedTuple):
    """A decoder's answer, all float64.

    mean : (sample, output), the mean deviation from the nominal output.
    basis : (sample, output, latent).
    read : (sample, output), variance of one read.
    """

    mean: torch.Tensor
    basis: torch.Tensor
    read: torch.Tensor


class Decoder(nn.Module):
    """μ, B and the read noise of a family; ``floor`` is what it knows that it cannot explain.

    A family's own is made from (outputs, shape) alone.

    Parameters
    ----------
    latent : dimension of c, which follows from the others.
    shape : numbers that its buffers' and parameters' shapes follow from.
    """

    # What files call it.
    family = ""

    def __init__(self, outputs: int, latent: int, shape: Mapping[str, int]) -> None:
        super().__init__()
        self.latent = latent
        self.shape = dict(shape)
        self.register_buffer("floor", torch.zeros(outputs, dtype=torch.float64))

    def forward(self, ideal: Ideal) -> Decoded:
        """Return mean, basis and read noise at the ideal network's inputs and values."""
        raise NotImplementedError


def principal(values: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centre (value,) of (sample, value), and leading components (value, at most rank).

    The first component has an rms of one; the others keep their proportion to it.
    """
    centre = values.mean(0)
    _, size, directions = torch.linalg.svd(values - centre, full_matrices=False)
    if not len(size) or float(size[0]) <= 0:
        return centre, torch.zeros(values.shape[1], 0, dtype=torch.float64)
    kept = min(rank, int((size > 1e-9 * size[0]).sum()))
    return centre, directions[:kept].T * (len(values) ** 0.5 / float(size[0]))


def ideal_of(design: Design, inputs: tuple[torch.Tensor, ...]) -> Ideal:
    """Run the ideal network; differentiable by its inputs."""
    constants = {name: torch.as_tensor(array) for name, array in design.constants.items()}
    compute = digital_crossbar(design.layers)
    count = len(inputs[0])
    seen: list[torch.Tensor] = []

    def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
        y = compute(name, x)
        for value in (x, y):
            if len(value) == count and value[0].numel() <= _WIDEST:
                seen.append(value.flatten(1).to(torch.float64))
        return y

    outputs = execute(design.program, constants, inputs, crossbar)
    flat = [x.flatten(1).to(torch.float64) for x in inputs if x.is_floating_point()]
    none = torch.zeros(count, 0, dtype=torch.float64)
    return Ideal(
        outputs,
        flatten_outputs(outputs).to(torch.float64),
        torch.cat([none, *flat], dim=1),
        torch.cat([none, *seen], dim=1),
    )


@dataclass(frozen=True, eq=False)
class LatentPosterior:
    """What probes tell of a chip: c ~ N(mean, root rootᵀ).

    mean : (latent,).
    root : (latent, latent).
    """

    mean: torch.Tensor
    root: torch.Tensor

    def covariance(self, basis: torch.Tensor) -> torch.Tensor:
        """Of the outputs of (sample, output, latent), noise left out; (sample, output, output)."""
        spread = basis @ self.root
        return spread @ spread.mT


def condition(
    basis: torch.Tensor, variance: torch.Tensor, residual: torch.Tensor
) -> LatentPosterior:
    """The latent's exact posterior under N(0, I) (Bishop 2006, eq. 3.50 and 3.51).

    Parameters
    ----------
    basis : (sample, output, latent).
    variance : (sample, output).
    residual : (…, sample, output); the posterior's mean is then (…, latent).
    """
    rows = basis.flatten(0, 1)
    weighted = rows / variance.flatten()[:, None]
    precision = torch.eye(rows.shape[1], dtype=torch.float64) + weighted.T @ rows
    factor = torch.linalg.cholesky(precision)
    seen = residual.flatten(-2) @ weighted
    mean = torch.cholesky_solve(seen.reshape(-1, rows.shape[1]).T, factor).T.reshape(seen.shape)
    unit = torch.eye(len(factor), dtype=torch.float64)
    root = torch.linalg.solve_triangular(factor.T, unit, upper=True)
    # One layout in memory, so that a saved one gives the same last bits.
    return LatentPosterior(mean, root.contiguous())


class Part(NamedTuple):
    """A part of a study: the ideal network at some samples, and some chips there.

    residual : (chip, sample, output), what the chips gave less the ideal output.
    read : (sample, output), variance of one read.
    trials : reads behind each residual.
    """

    ideal: Ideal
    residual: torch.Tensor
    read: torch.Tensor
    trials: int

    @property
    def power(self) -> torch.Tensor:
        """Mean square deviation of every output; (output,)."""
        power = self.residual.square().mean((0, 1))
        return power.clamp_min(max(1e-6 * float(power.max()), 1e-24))

    def of(self, chips: NDArray[np.int64] | slice, samples: NDArray[np.int64]) -> Part:
        """Some of the chips at some of the samples."""
        at = Ideal(
            tuple(y[samples] for y in self.ideal.outputs),
            self.ideal.value[samples],
            self.ideal.flat[samples],
            self.ideal.hidden[samples],
        )
        residual = self.residual[chips][:, samples]
        return Part(at, residual, self.read[samples], self.trials)


class Split(NamedTuple):
    """Three quarters of chips and samples to learn from; the other chips, to be predicted.

    learn : chips and samples of the larger part.
    known : other chips at its samples, as many as a calibration has.
    unseen : the same chips at the other samples.
    """

    learn: Part
    known: Part
    unseen: Part


def split(part: Part, seed: int) -> Split:
    """Hold a quarter of chips and samples out, at least one of each."""
    rng = generator(seed, Purpose.TRAINING, layer=3)
    chips, samples = (rng.permutation(n) for n in part.residual.shape[:2])
    c, n = max(1, len(chips) // 4), max(1, len(samples) // 4)
    out, rest = np.sort(chips[:c]), np.sort(samples[n:])
    known, new = np.sort(samples[n:][:_KNOWN]), np.sort(samples[:n])
    return Split(part.of(np.sort(chips[c:]), rest), part.of(out, known), part.of(out, new))


@torch.no_grad()
def best_floor(decoder: Decoder, parts: Split) -> tuple[float, float]:
    """How much variance a decoder leaves unexplained of chips that it was not fitted to.

    Unseen samples of held-out chips are predicted from known ones, as in a calibration.

    Returns
    -------
    Their mean negative log likelihood, and the floor that makes it least, over the
    outputs' mean square deviation.
    """
    seen, new = decoder(parts.known.ideal), decoder(parts.unseen.ideal)
    scores = []
    for factor in _FLOORS:
        floor = factor * parts.learn.power
        around, noise = (part.read / part.trials + floor for part in (parts.known, parts.unseen))
        roots = condition(seen.basis, around, (parts.known.residual - seen.mean))
        spread = (new.basis @ roots.root).square().sum(-1)
        error = (
            parts.unseen.residual - new.mean - torch.einsum("nod,cd->cno", new.basis, roots.mean)
        )
        variance = noise + spread
        scores.append((float((error.square() / variance + variance.log()).mean()) / 2, factor))
    return min(scores)


class LatentModule(nn.Module):
    """A chip, or the population, in a latent family: an ``nn.Module`` as ``ChipModel`` is.

    Parameters
    ----------
    decoder : shared with its surrogate; not trained any more.
    posterior : of the chip's latent; the prior's for the population.
    draws : (draw, latent), possible chips' latents that ``vary_cells`` chooses from.
    seed : of the noise that ``train()`` draws.
    provenance : where it comes from, as text.
    """

    def __init__(
        self,
        design: Design,
        decoder: Decoder,
        posterior: LatentPosterior,
        draws: torch.Tensor,
        *,
        seed: int,
        provenance: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.design = design
        self.decoder = decoder
        self.seed = seed
        self.provenance = dict(provenance)
        self.vary_cells = False
        self._rng = generator(seed, Purpose.TRAINING)
        self.register_buffer("latent", posterior.mean.clone())
        self.register_buffer("root", posterior.root.clone())
        self.register_buffer("latents", draws.clone())
        self.eval()

    @property
    def draws(self) -> int:
        """How many draws of the latent there are."""
        return len(self.get_buffer("latents"))

    @property
    def posterior(self) -> LatentPosterior:
        """Of the chip's latent."""
        return LatentPosterior(self.get_buffer("latent"), self.get_buffer("root"))

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the model's output, or a tuple of several."""
        ideal = ideal_of(self.design, inputs)
        decoded = self.decoder(ideal)
        latent = self.get_buffer("latent")
        if self.training and self.vary_cells and self.draws:
            latent = self.get_buffer("latents")[int(self._rng.integers(self.draws))]
        change = decoded.mean + decoded.basis @ latent
        if self.training:
            xi = torch.as_tensor(self._rng.standard_normal(tuple(change.shape)))
            change = change + decoded.read.sqrt() * xi
        outputs, start = [], 0
        for y in ideal.outputs:
            if y.is_floating_point():
                width = y[0].numel()
                y = (y + change[:, start : start + width].reshape(y.shape)).to(y.dtype)
                start += width
            outputs.append(y)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def predict(self, *inputs: torch.Tensor) -> Prediction:
        """Mean and standard deviation of one read, in closed form; free of ``train()``."""
        ideal = ideal_of(self.design, inputs)
        decoded = self.decoder(ideal)
        mean = ideal.value + decoded.mean + decoded.basis @ self.get_buffer("latent")
        open_ = (decoded.basis @ self.get_buffer("root")).square().sum(-1)
        variance = decoded.read + self.decoder.get_buffer("floor") + open_
        return Prediction(mean.detach(), variance.sqrt().detach(), decoded.read.sqrt().detach())

    def reseed(self, seed: int) -> None:
        """Start the noise of ``train()`` anew. Raises InputError for a bad seed."""
        self._rng, self.seed = generator(seed, Purpose.TRAINING), seed

    def save(self, path: str | Path) -> None:
        """Write design, decoder, latent and provenance to one file; see ``latent_files.load``."""
        from spicenn.surrogate.latent_files import save_latent_module

        save_latent_module(self, Path(path))

    def extra_repr(self) -> str:
        return f"{self.design!r}, {self.draws} draws"


@dataclass(frozen=True, eq=False)
class LatentCalibration:
    """As ``calibration.Calibration``, of a latent family.

    posterior : the chip's latent given the probes, None where refused.
    """

    module: LatentModule
    success: bool
    reason: str
    residual: float
    heldout: float
    population: float
    misfit: float
    posterior: LatentPosterior | None


@dataclass(frozen=True, eq=False)
class LatentSurrogate:
    """A model of all chips of one design whose outputs are linear in a latent.

    Parameters
    ----------
    design : whose chips.
    decoder : the family's functions.
    chips, failed : chips of the study that were used, that were left out.
    provenance : what it was fitted to, as text.
    """

    design: Design
    decoder: Decoder
    chips: int
    failed: int
    provenance: Mapping[str, str]

    @property
    def latent(self) -> int:
        """Dimension of a chip's latent."""
        return self.decoder.latent

    def module(self, *, draws: int = 16, seed: int = 0) -> LatentModule:
        """Return the population's model.

        Parameters
        ----------
        draws : chips that it holds for ``vary_cells``.
        seed : of them, and of the noise that ``train()`` draws.
        """
        unit = torch.eye(self.latent, dtype=torch.float64)
        prior = LatentPosterior(torch.zeros(self.latent, dtype=torch.float64), unit)
        return self._module(prior, draws, seed, layer=1, kind="population")

    @one_thread()
    def calibrate(
        self, probes: Any, outputs: Any, *, folds: int = 4, seed: int = 0, draws: int = 16
    ) -> LatentCalibration:
        """Find one chip's latent from its outputs at a few probes, or refuse to.

        Parameters are those of ``calibration.calibrate``, and so are the reasons to refuse.
        Raises CalibrationError for data of a wrong shape, NaN, fewer than four probes or
        too many observations.
        """
        inputs = as_tensors(as_inputs(self.design, probes))
        target, trials = targets(self.design, outputs, len(inputs[0]))
        if draws < 0:
            raise CalibrationError("draws must be at least 0")
        check(target, folds)
        with torch.no_grad():
            ideal = ideal_of(self.design, inputs)
            decoded = self.decoder(ideal)
        population = ideal.value + decoded.mean
        floor = self.decoder.get_buffer("floor")
        variance = decoded.read / trials + floor

        def at(samples: NDArray[np.int64]) -> LatentPosterior:
            return condition(
                decoded.basis[samples], variance[samples], (target - population)[samples]
            )

        def forecast(rest: NDArray[np.int64], out: NDArray[np.int64]) -> Forecast:
            known, basis = at(rest), decoded.basis[out]
            stated = known.covariance(basis) + torch.diag_embed(variance[out])
            return Forecast(population[out] + basis @ known.mean, stated, population[out])

        held = hold_out(forecast, target, folds=folds, seed=seed)
        if (objection := held.objection()) is not None:
            return self._verdict(held, self.module(), target - population, objection, None)
        known = at(np.arange(len(target)))
        return self._verdict(
            held,
            self._module(known, draws, seed, layer=2, kind="chip", probes=str(len(target))),
            target - population - decoded.basis @ known.mean,
            accepted(held, len(target), folds),
            known,
        )

    def save(self, path: str | Path) -> None:
        """Write it to one file that torch reads with weights_only; see ``latent_files.load``."""
        from spicenn.surrogate.latent_files import save_latent

        save_latent(self, Path(path))

    def _module(
        self, posterior: LatentPosterior, draws: int, seed: int, *, layer: int, **origin: str
    ) -> LatentModule:
        xi = generator(seed, Purpose.TRAINING, layer=layer).standard_normal((draws, self.latent))
        latents = posterior.mean + torch.as_tensor(xi) @ posterior.root.T
        provenance = {**self.provenance, **origin}
        return LatentModule(
            self.design, self.decoder, posterior, latents, seed=seed, provenance=provenance
        )

    @staticmethod
    def _verdict(
        held: HeldOut,
        module: LatentModule,
        residual: torch.Tensor,
        reason: str,
        posterior: LatentPosterior | None,
    ) -> LatentCalibration:
        rms = float(residual.square().mean().sqrt())
        return LatentCalibration(
            module, posterior is not None, reason, rms, *held.summary(), posterior
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.design!r}, {self.chips} chips, {self.failed} left out, "
            f"latent {self.latent})"
        )
