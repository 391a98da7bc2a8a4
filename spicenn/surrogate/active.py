"""Active probes: the next inputs that tell most about one chip, given what has been seen of it.

``compiler.probes`` chooses probes before any chip is there. Here the chip's posterior says
what its probes left open; inputs are taken one by one from a set of candidates, each the one
that lowers the expected squared error on the inputs that matter the most.

Adaptivity has a bound of its own: of a model that is linear in what is unknown, the posterior
variance does not depend on the values seen, and probes could as well be chosen beforehand.
What a chip's own outputs add is where the network bends: which of its units are on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler import Design
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.jacobian import Linearisation, linearise
from spicenn.compiler.structural import TileMoments
from spicenn.compiler.threads import one_thread
from spicenn.errors import CalibrationError, InputError
from spicenn.surrogate.calibration import Calibration
from spicenn.surrogate.module import as_tensors
from spicenn.surrogate.population import Surrogate
from spicenn.surrogate.posterior import Posterior, Prior

# Candidates that stand for the inputs that matter, where none are given.
_TARGETS = 64
# White noise that keeps a candidate's covariance positive, over its mean variance; and the
# share of the targets' variance that counts as no gain.
_JITTER, _NOTHING = 1e-9, 1e-12


@dataclass(frozen=True, eq=False)
class NextProbes:
    """Candidates in the order that they were chosen in.

    inputs : (probe, …) as ``calibrate`` takes them, a tuple for a model of several.
    index : (probe,), their places among the candidates.
    left : (probe + 1,), expected variance of the targets, summed, over the population's:
        before the first and after each.
    """

    inputs: Any
    index: NDArray[np.int64]
    left: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of a chip: its most probable cells, and the outputs that told."""

    design: Design
    moments: tuple[TileMoments, ...]
    prior: Prior
    posterior: Posterior | None

    def linearise(self, inputs: tuple[torch.Tensor, ...]) -> Linearisation:
        weights = self.prior.mean if self.posterior is None else self.posterior.weights
        return linearise(self.design, self.moments, weights, inputs)


@one_thread()
def next_probes(
    known: Surrogate | Calibration,
    candidates_x: Any,
    *,
    count: int,
    targets_x: Any = None,
    trials: int = 1,
) -> NextProbes:
    """Choose the candidates whose outputs tell most about a chip.

    Greedy: each choice lowers the posterior variance of the targets' outputs, summed, by as
    much as any candidate would, given the probes that were seen and the choices before it.
    Variances are those of the structural surrogate's Gaussian posterior, linear about the
    chip's most probable cells.

    Parameters
    ----------
    known : the structural surrogate before any probe of the chip, or the calibration to it.
    candidates_x : (candidate, …) inputs; a tuple for a model of several.
    count : how many to choose; fewer come back where no further candidate has anything to tell.
    targets_x : inputs that the chip is to be known at; candidates, evenly taken, if None.
    trials : reads that each chosen probe will have.

    No candidate is chosen twice. The same arguments give the same choice.

    Raises InputError for inputs that do not fit, more probes than candidates or a count below
    1; CalibrationError for a calibration that was refused, or of another family.

    Source: Bayesian A-optimality (Chaloner and Verdinelli, Statistical Science 10, 273, 1995),
    greedily and by block Cholesky steps.
    """
    state = _known(known)
    candidates = as_inputs(state.design, candidates_x)
    available = len(candidates[0])
    if not isinstance(count, int | np.integer) or isinstance(count, bool) or count < 1:
        raise InputError(f"count = {count!r} is not a positive integer")
    if count > available:
        raise InputError(f"{count} probes cannot be chosen from {available} candidates")
    if trials < 1:
        raise InputError(f"trials = {trials!r} is below 1")
    wanted = as_tensors(_targets(state.design, candidates, targets_x))
    index, left = _greedy(state, as_tensors(candidates), wanted, int(count), trials)
    inputs = tuple(array[index] for array in candidates)
    return NextProbes(inputs if len(inputs) > 1 else inputs[0], index, left)


def _known(known: Any) -> _Known:
    if isinstance(known, Surrogate):
        return _Known(known.design, known.moments, known.prior, None)
    posterior = getattr(known, "posterior", None)
    if isinstance(posterior, Posterior):
        linear = posterior.linear
        return _Known(linear.design, linear.moments, posterior.prior, posterior)
    if isinstance(known, Calibration):
        raise CalibrationError(
            f"the calibration was refused and says nothing of the chip: {known.reason}",
            remedy="give the surrogate, or more probes to the calibration",
        )
    raise CalibrationError(
        f"{type(known).__name__} has no posterior over cells to choose by",
        remedy="give a structural surrogate or its calibration",
    )


def _targets(
    design: Design, candidates: tuple[NDArray[Any], ...], given: Any
) -> tuple[NDArray[Any], ...]:
    if given is not None:
        return as_inputs(design, given)
    available = len(candidates[0])
    places = np.linspace(0, available - 1, min(available, _TARGETS)).round().astype(np.int64)
    return tuple(array[places] for array in candidates)


def _greedy(
    state: _Known,
    candidates: tuple[torch.Tensor, ...],
    wanted: tuple[torch.Tensor, ...],
    count: int,
    trials: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Indices of the choices, and the share of the targets' variance left before and after."""
    there, targets = state.linearise(candidates), state.linearise(wanted)
    variance = state.prior.variance
    n, k = there.value.shape
    # Covariances of the candidates with the targets, and with themselves, given what was seen.
    cross = there.kernel(targets, variance)
    own = there.blocks(variance)
    total = float(targets.blocks(variance).diagonal(dim1=1, dim2=2).sum())
    left = total
    # A candidate's row times its transpose is what is known of it: (candidate · output, known).
    known = torch.zeros(n * k, 0, dtype=torch.float64)
    if state.posterior is not None:
        seen, factor = state.posterior.linear, state.posterior.factor
        known = _whitened(factor, seen.kernel(there, variance)).T
        at_targets = _whitened(factor, seen.kernel(targets, variance)).T
        cross = cross - known @ at_targets.T
        own = own - torch.einsum("nkr,nlr->nkl", *[known.reshape(n, k, -1)] * 2)
        left -= float(at_targets.square().sum())
    noise = there.noise / trials + _floor(there, state.prior) * torch.eye(k, dtype=torch.float64)
    cross = cross.reshape(n, k, -1)
    index: list[int] = []
    shares = [left / total if total > 0 else 0.0]
    for _ in range(count):
        roots = _roots(own, noise)
        gains = _whitened(roots, cross).square().sum((1, 2))
        gains[index] = -torch.inf  # every candidate once
        best = int(gains.argmax())
        if not float(gains[best]) > _NOTHING * total:
            break
        index.append(best)
        left -= float(gains[best])
        shares.append(left / total)
        # Of the chosen one with all candidates, given what is known: one block Cholesky step.
        row = slice(best * k, (best + 1) * k)
        chosen = state.linearise(tuple(value[best : best + 1] for value in candidates))
        with_all = there.kernel(chosen, variance) - known @ known[row].T
        step = _whitened(roots[best], with_all.T).T
        known = torch.cat([known, step], dim=1)
        steps = step.reshape(n, k, k)
        cross = cross - steps @ _whitened(roots[best], cross[best])
        own = own - steps @ steps.mT
    return np.array(index, dtype=np.int64), np.array(shares)


def _roots(own: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Cholesky factors of every candidate's covariance of one read; (candidate, k, k)."""
    covariance = own + noise
    k = covariance.shape[1]
    mean = covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-300)
    jitter = _JITTER * mean[:, None, None] * torch.eye(k, dtype=torch.float64)
    factor: torch.Tensor = torch.linalg.cholesky(covariance + jitter)
    return factor


def _whitened(factor: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    solved: torch.Tensor = torch.linalg.solve_triangular(factor, value, upper=False)
    return solved


def _floor(linear: Linearisation, prior: Prior) -> float:
    """As ``posterior.infer`` has it."""
    spread = float(linear.noise.diagonal(dim1=1, dim2=2).mean())
    return max(prior.floor, 1e-6 * spread, 1e-24)
