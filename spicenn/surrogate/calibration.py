"""Fit a chip's own part from a few probes, or refuse to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler import Design
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.jacobian import Linearisation, linearise
from spicenn.compiler.structure import Parameters
from spicenn.compiler.threads import one_thread
from spicenn.errors import CalibrationError
from spicenn.seeds import Purpose, generator
from spicenn.surrogate.gate import Forecast, HeldOut, accepted, check, hold_out
from spicenn.surrogate.module import ChipModel, as_tensors
from spicenn.surrogate.population import Surrogate
from spicenn.surrogate.posterior import Posterior, infer


@dataclass(frozen=True, eq=False)
class Calibration:
    """A chip's model, or the population's where the probes do not support one.

    Parameters
    ----------
    module : ready to use, in ``eval()``.
    success : whether the module is the chip's own.
    reason : one sentence on why or why not.
    residual : rms of the probes' outputs about the module's, in the outputs' units.
    heldout : rms error on probes that a calibration did not see.
    population : rms error of the population model on the same probes.
    misfit : held-out errors over their stated standard deviations, rms; 1 is ideal.
    posterior : the chip's parameters given the probes, None where refused.
    """

    module: ChipModel
    success: bool
    reason: str
    residual: float
    heldout: float
    population: float
    misfit: float
    posterior: Posterior | None


@one_thread()
def calibrate(
    surrogate: Surrogate,
    probes: Any,
    outputs: Any,
    *,
    folds: int = 4,
    seed: int = 0,
    iterations: int = 5,
    draws: int = 16,
) -> Calibration:
    """Find one chip's cells, converters and wires from its outputs at a few probes.

    The calibration is first judged: each of ``folds`` parts of the probes is
    predicted from the others. It is refused where those predictions are not better
    than the population's, or are further off than the model can explain, as when
    outputs and probes do not belong together.

    Parameters
    ----------
    surrogate : from ``fit``; not changed.
    probes : (probe, …) inputs; a tuple for a model of several.
    outputs : (probe, …) or (trial, probe, …) what the chip gave; a dict of them by
        name for a model of several outputs.
    folds : parts that the probes are split into.
    seed : of the split and of the posterior's draws.
    iterations : Gauss–Newton steps at most.
    draws : posterior draws that the module keeps.

    Raises CalibrationError for data of a wrong shape, NaN, fewer than four probes or
    more observations than fit into memory. A calibration that is refused is no error.
    """
    inputs = as_tensors(as_inputs(surrogate.design, probes))
    target, trials = targets(surrogate.design, outputs, len(inputs[0]))
    if iterations < 1 or draws < 0:
        raise CalibrationError("iterations must be at least 1 and draws 0")
    check(target, folds)
    if not any(bool((value > 0).any()) for value in surrogate.prior.variance.values()):
        return _refused(
            surrogate,
            inputs,
            target,
            None,
            "the technology has no programming error, and no errors of converters: every chip "
            "is the population's",
        )
    held = _held_out(surrogate, inputs, target, trials, folds, seed, iterations)
    if (objection := held.objection()) is not None:
        return _refused(surrogate, inputs, target, held, objection)
    posterior = infer(
        lambda weights: linearise(surrogate.design, surrogate.moments, weights, inputs),
        surrogate.prior,
        target,
        trials=trials,
        iterations=iterations,
    )
    heldout, population, misfit = held.summary()
    return Calibration(
        _module(surrogate, posterior, len(target), draws, seed),
        True,
        accepted(held, len(target), folds),
        float(posterior.residual.square().mean().sqrt()),
        heldout,
        population,
        misfit,
        posterior,
    )


def observed(design: Design, outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """Floating-point outputs side by side; (..., sample, output).

    Raises CalibrationError where a name is missing or a shape does not fit.
    """
    columns = []
    for port in design.program.outputs:
        if "float" not in port.dtype:
            continue
        if port.name not in outputs:
            raise CalibrationError(f"output {port.name!r} is missing")
        array = np.asarray(outputs[port.name])
        lead = array.ndim - len(port.shape)
        if lead < 1 or array.shape[lead:] != port.shape or array.dtype.kind not in "fiu":
            expected = ", ".join(["probe", *map(str, port.shape)])
            raise CalibrationError(
                f"shape {array.shape} does not end in ({expected})", where=f"output {port.name}"
            )
        columns.append(array.astype(np.float64).reshape(*array.shape[:lead], -1))
    if not columns:
        raise CalibrationError("the model has no floating-point output to learn from")
    return np.concatenate(columns, axis=-1)


def targets(design: Design, outputs: Any, count: int) -> tuple[torch.Tensor, int]:
    """Mean over trials (probe, output), and the number of trials.

    Raises CalibrationError where outputs do not fit the design or the number of probes.
    """
    if not isinstance(outputs, Mapping):
        if len(design.program.outputs) > 1:
            raise CalibrationError(
                "the model has several outputs", remedy="give a dict of them by name"
            )
        value = outputs.detach().cpu().numpy() if hasattr(outputs, "detach") else outputs
        outputs = {design.program.outputs[0].name: np.asarray(value)}
    values = observed(design, outputs)
    if values.ndim == 2:
        values = values[np.newaxis]
    if values.ndim != 3 or values.shape[0] == 0 or values.shape[1] != count:
        raise CalibrationError(
            f"outputs of {values.shape[-2]} probes for {count} probes",
            remedy="give (probe, …) or (trial, probe, …), in the order of the probes",
        )
    if not np.all(np.isfinite(values)):
        raise CalibrationError(
            "outputs hold NaN or infinity", remedy="leave failed probes out, inputs and outputs"
        )
    return torch.as_tensor(values.mean(axis=0)), values.shape[0]


def _held_out(
    surrogate: Surrogate,
    inputs: tuple[torch.Tensor, ...],
    target: torch.Tensor,
    trials: int,
    folds: int,
    seed: int,
    iterations: int,
) -> HeldOut:
    """Predict every probe from the other folds."""
    prior = surrogate.prior

    def at(samples: NDArray[np.int64], weights: Parameters) -> Linearisation:
        chosen = tuple(value[samples] for value in inputs)
        return linearise(surrogate.design, surrogate.moments, weights, chosen)

    def forecast(rest: NDArray[np.int64], out: NDArray[np.int64]) -> Forecast:
        posterior = infer(
            lambda weights: at(rest, weights),
            prior,
            target[rest],
            trials=trials,
            iterations=iterations,
        )
        there = at(out, posterior.weights)
        floor = torch.eye(target.shape[1], dtype=torch.float64) * prior.floor
        stated = posterior.covariance(there) + there.noise / trials + floor
        return Forecast(there.value, stated, at(out, prior.mean).value)

    return hold_out(forecast, target, folds=folds, seed=seed)


def _refused(
    surrogate: Surrogate,
    inputs: tuple[torch.Tensor, ...],
    target: torch.Tensor,
    held: HeldOut | None,
    reason: str,
) -> Calibration:
    module = surrogate.module()
    residual = target - module.predict(*inputs).mean
    rms = float(residual.square().mean().sqrt())
    heldout, population, misfit = (rms, rms, float("nan")) if held is None else held.summary()
    return Calibration(module, False, reason, rms, heldout, population, misfit, None)


def _module(
    surrogate: Surrogate, posterior: Posterior, probes: int, draws: int, seed: int
) -> ChipModel:
    rng = generator(seed, Purpose.TRAINING, layer=2)
    drawn = [posterior.draw(rng) for _ in range(draws)]
    return ChipModel(
        surrogate.design,
        posterior.weights,
        {
            name: torch.stack([one[name] for one in drawn])
            if drawn
            else torch.zeros(0, *weight.shape)
            for name, weight in posterior.weights.items()
        },
        floor=surrogate.floor,
        seed=seed,
        provenance={**surrogate.provenance, "kind": "chip", "probes": str(probes)},
        moments=surrogate.moments,
    )
