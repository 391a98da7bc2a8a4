"""Inputs that tell most about a chip: Bayesian A-optimal design of the probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler.execute import as_inputs
from spicenn.compiler.jacobian import Linearisation, linearise
from spicenn.compiler.structural import TileMoments, tile_moments
from spicenn.compiler.structure import Parameters, draw_structure, structure_variance
from spicenn.compiler.threads import one_thread
from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

# Inputs whose prediction a step of the search looks at.
_TARGETS = 24
# Above so many observations (probes · outputs) a step would take seconds.
_SEARCH_LIMIT = 2600


@one_thread()
def probe_vectors(design: Design, x_like: Any, *, count: int, seed: int, steps: int = 100) -> Any:
    """Choose inputs whose outputs tell most about a chip, before any chip is seen.

    Starts from samples of ``x_like`` and moves them, within its range, so as to
    minimise the expected squared error that a calibration leaves on inputs like it
    (Bayesian A-optimality, Chaloner and Verdinelli 1995), averaged over chips drawn
    from the technology. Inputs of integers, and sets of many probes or outputs, stay
    samples of ``x_like``.

    Parameters
    ----------
    x_like : (sample, …) inputs like those the chip will see; a tuple for several.
    count : how many probes.
    steps : steps of the search; 0 only draws samples.

    Returns
    -------
    ndarray (count, …) of the model's input dtype, or a tuple of them. The same for
    the same arguments.

    Raises InputError for inputs that do not fit the design, or a count below 1.
    """
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise InputError(f"count = {count!r} is not a positive integer")
    if steps < 0:
        raise InputError(f"steps = {steps!r} is negative")
    like = as_inputs(design, x_like)
    rng = generator(seed, Purpose.PROBES)
    start = _draw(rng, len(like[0]), count)
    probes = tuple(array[start] for array in like)
    moments = tile_moments(design)
    varies = any(float(moment.spread.max()) > 0 for moment in moments)
    varies = varies or bool(structure_variance(design))
    outputs = sum(
        int(np.prod(port.shape)) for port in design.program.outputs if "float" in port.dtype
    )
    floats = all(array.dtype.kind == "f" for array in like)
    if steps and varies and floats and 0 < count * outputs <= _SEARCH_LIMIT:
        probes = _search(design, moments, like, probes, rng, steps)
    return probes if len(probes) > 1 else probes[0]


def _draw(rng: np.random.Generator, available: int, count: int) -> NDArray[np.int64]:
    """Indices of ``count`` samples, each as seldom repeated as can be."""
    rounds = -(-count // available)
    return np.concatenate([rng.permutation(available) for _ in range(rounds)])[:count]


def _search(
    design: Design,
    moments: tuple[TileMoments, ...],
    like: tuple[NDArray[Any], ...],
    start: tuple[NDArray[Any], ...],
    rng: np.random.Generator,
    steps: int,
) -> tuple[NDArray[Any], ...]:
    """Adam on the probes, each step with another chip and other target inputs."""
    bounds = [(float(array.min()), float(array.max())) for array in like]
    probes = [torch.tensor(array, requires_grad=True) for array in start]
    optimiser = torch.optim.Adam(
        [
            {"params": [probe], "lr": 0.05 * (high - low)}
            for probe, (low, high) in zip(probes, bounds, strict=True)
        ]
    )
    structure = structure_variance(design)
    variance = {moment.tile.name: moment.spread**2 for moment in moments} | structure

    def trial() -> tuple[dict[str, torch.Tensor], Linearisation]:
        chip = draw_chip(moments, rng, structure)
        index = rng.permutation(len(like[0]))[:_TARGETS]
        return chip, linearise(design, moments, chip, [torch.as_tensor(a[index]) for a in like])

    # The same few chips judge the start and the end: a search that lost is dropped.
    judges = [trial() for _ in range(3)]

    def judged() -> float:
        fixed = [probe.detach() for probe in probes]
        left = 0.0
        for chip, target in judges:
            seen = linearise(design, moments, chip, fixed)
            left += float(remaining_variance(seen, target, variance))
        return left

    before = judged()
    for step in range(steps):
        # Ending on small steps settles what single chips and targets disagree about.
        for group, (low, high) in zip(optimiser.param_groups, bounds, strict=True):
            group["lr"] = 0.05 * (high - low) * (1.0 - 0.9 * step / steps)
        optimiser.zero_grad()
        chip, target = trial()
        seen = linearise(design, moments, chip, probes, differentiable=True)
        descent(seen, target, variance).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        with torch.no_grad():
            for probe, (low, high) in zip(probes, bounds, strict=True):
                probe.clamp_(low, high)
    return tuple(probe.detach().numpy() for probe in probes) if judged() < before else start


def draw_chip(
    moments: tuple[TileMoments, ...],
    rng: np.random.Generator,
    structure: Parameters | None = None,
) -> dict[str, torch.Tensor]:
    """Draw one chip's parameters from the technology.

    Parameters
    ----------
    structure : variance of its converters, ``structure.structure_variance``; None has
        nominal ones.
    """
    cells = {
        moment.tile.name: moment.mean
        + moment.spread * torch.as_tensor(rng.standard_normal(tuple(moment.spread.shape)))
        for moment in moments
    }
    return cells | draw_structure(structure or {}, rng)


def remaining_variance(
    probes: Linearisation, targets: Linearisation, variance: Parameters
) -> torch.Tensor:
    """Share of the targets' variance over chips that is left when the probes are known.

    trace(K_tt − K_tp (K_pp + noise)⁻¹ K_pt) / trace(K_tt), a scalar.
    """
    total = targets.kernel(targets, variance).diagonal().sum()
    observed = with_noise(probes.kernel(probes, variance), probes.noise)
    cross = probes.kernel(targets, variance)
    factor = torch.linalg.cholesky(observed)
    whitened = torch.linalg.solve_triangular(factor, cross, upper=False)
    left: torch.Tensor = 1.0 - whitened.square().sum() / total
    return left


def descent(probes: Linearisation, targets: Linearisation, variance: Parameters) -> torch.Tensor:
    """A scalar whose gradient by the probes is that of ``remaining_variance``.

    With A = (K_pp + noise)⁻¹ K_pt held fixed the gradient is that of
    tr(Aᵀ (K_pp + noise) A) − 2 tr(Aᵀ K_pt), and A meets the kernels through Jᵀ A
    alone: no graph is kept of anything of size probes squared.
    """
    n, k = probes.value.shape
    identity = torch.eye(targets.value.numel(), dtype=torch.float64)
    wanted = targets.spread_of(identity.reshape(*targets.value.shape, -1), variance)
    with torch.no_grad():
        observed = with_noise(probes.kernel(probes, variance), probes.noise)
        a = torch.cholesky_solve(
            probes.kernel(targets, variance), torch.linalg.cholesky(observed)
        ).reshape(n, k, -1)
        total = sum(value.square().sum() for value in wanted.values())
    loss = torch.einsum("nkt,nkl,nlt->", a, probes.noise, a)
    for name, value in probes.spread_of(a, variance).items():
        loss = loss + (value - 2 * wanted[name]).mul(value).sum()
    return loss / total


def with_noise(kernel: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Add each sample's (output, output) covariance to a kernel's diagonal blocks.

    A trace of white noise (1e-9 of the mean variance) keeps a noise-free kernel positive.
    """
    n, k, _ = noise.shape
    jitter = 1e-9 * kernel.diagonal().mean().detach() * torch.eye(k, dtype=kernel.dtype)
    index = torch.arange(n)
    blocks = torch.zeros(n, n, k, k, dtype=kernel.dtype).index_put((index, index), noise + jitter)
    return kernel + blocks.permute(0, 2, 1, 3).reshape(n * k, n * k)
