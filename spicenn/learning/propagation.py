"""Equilibrium propagation of deep resistive networks, by minibatches: what trains at scale.

Outputs are nudged by currents β (label - output) from both sides; each conductance then moves
by what the two states' squared voltages across it differ, and by nothing else. Sources:
Scellier and Bengio, Front. Comput. Neurosci. 11, 24, 2017; Laborieux et al., Front. Neurosci.
15, 633674, 2021 (nudges of both signs); Scellier, ICML 2024 (networks and rates).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spicenn.errors import InputError
from spicenn.learning.descent import Circuit, Rest, circuit_of, drive, rewired, settle, threads
from spicenn.learning.resistive import ResistiveNetwork
from spicenn.seeds import Purpose, generator
from spicenn.training.checkpoint import (
    Epoch,
    Progress,
    Tally,
    digest_of,
    read_checkpoint,
    write_checkpoint,
)

Array = NDArray[np.float64]

_KIND = "equilibrium propagation"
_ORDER = 13  # part of Purpose.TRAINING: the order of samples
# Samples of one look at outputs.
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Trained:
    """How a training ended. log : every epoch. resumed : steps a checkpoint had done already."""

    network: ResistiveNetwork
    log: tuple[Epoch, ...]
    resumed: int


def train(
    network: ResistiveNetwork,
    x: ArrayLike,
    labels: ArrayLike,
    *,
    epochs: int,
    rates: float | Sequence[float],
    beta: float,
    seed: int,
    batch: int = 32,
    centred: bool = True,
    decay: float = 1.0,
    least: float = 0.0,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    directory: str | Path | None = None,
    save_every: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    tolerance: float | None = None,
    sweeps: int = 2000,
) -> Trained:
    """Train a network; the one given stays as it is.

    With a ``directory`` a run that was killed goes on from its last checkpoint when it is
    called again with the same arguments, and on a CPU ends with the same conductances to the
    last bit. More epochs than before go on, too.

    Parameters
    ----------
    x : (sample, feature). labels : (sample,) classes, an output each, 1 V of its own and 0 V
        of others; or (sample, output) voltages [V]. The loss is half the squared error [V^2].
    rates : of every conductance matrix, or one for all [S^2/V^2]: conductances move by so
        much times the mean slope of the loss [V^2/S] at each step. 0 leaves a layer as it is.
    beta : the nudge [S].
    seed : of the order of samples.
    centred : compare nudges of β and -β; otherwise of β and none.
    decay : factor of all rates from epoch to epoch.
    least : conductance [S] that none leaves downwards.
    validation : (x, labels) to look at after every epoch.
    directory : where ``checkpoint.pt`` and ``log.jsonl`` are kept. The former is replaced in
        one go and read with ``weights_only=True``.
    save_every : steps between checkpoints within an epoch; None is at its end alone.
    progress : called after every step.
    dtype, device, tolerance, sweeps : as of ``settle``.

    Raises InputError for data or numbers that do not fit; ConvergenceError where a state is
    not found; TrainingError where the directory holds another run, more epochs or no
    checkpoint of ours.
    """
    started = monotonic()
    volts, target, classes = _samples(network, x, labels, dtype, device)
    checked = None if validation is None else _samples(network, *validation, dtype, device)
    if checked is not None and (checked[2] is None) != (classes is None):
        raise InputError("labels of training and validation are not both classes or both floats")
    step_of = _rates(network, rates)
    for name, count in (("epochs", epochs), ("batch", batch), ("save_every", save_every or 1)):
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise InputError(f"{name} = {count!r} is not an integer of at least 1")
    for name, number in (("beta", beta), ("decay", decay)):
        if not (math.isfinite(number) and number > 0):
            raise InputError(f"{name} = {number!r} is not positive")
    if not (math.isfinite(least) and least >= 0):
        raise InputError(f"least = {least!r} S is negative")
    circuit = circuit_of(network, dtype=dtype, device=device)
    weights = [weight.clamp(min=least) for weight in circuit.weights]
    options = {"tolerance": tolerance, "sweeps": sweeps}
    state = Tally()
    described: dict[str, str] = {}
    folder = None if directory is None else Path(directory)
    if folder is not None:
        described = {
            "data": digest_of(volts), "labels": digest_of(target),
            "validation": "" if checked is None else digest_of(*checked[:2]),
            "network": digest_of(*weights), "circuit": repr((network.diode, network.temperature,
            network.shunt)), "rates": repr(step_of), "decay": repr(decay), "beta": repr(beta),
            "centred": repr(centred), "least": repr(least), "seed": str(seed),
            "batch": str(batch), "save_every": str(save_every), "numbers": str(dtype),
            "descent": repr(options),
        }  # fmt: skip
        content = read_checkpoint(folder, _KIND, described, state, epochs)
        if content is not None:
            for weight, value in zip(weights, content["weights"], strict=True):
                weight.copy_(value)
    earlier, resumed = state.seconds, state.total

    def now() -> float:
        return earlier + monotonic() - started

    def keep() -> None:
        state.seconds = now()
        if folder is not None:
            write_checkpoint(folder, _KIND, described, state, {"weights": weights})

    if state.total == 0:
        keep()
    with threads(network):
        while len(state.log) < epochs:
            epoch = len(state.log) + 1
            factor = decay ** (epoch - 1)
            rng = generator(seed, Purpose.TRAINING, layer=_ORDER, trial=epoch)
            order = torch.split(torch.as_tensor(rng.permutation(len(volts))), batch)
            while state.step < len(order):
                chosen = order[state.step].to(volts.device)
                circuit = rewired(tuple(weights), network.shunt, circuit.diode)
                free, slopes = _slopes(
                    circuit, volts[chosen], target[chosen], beta, centred, tolerance, sweeps
                )
                for weight, slope, rate in zip(weights, slopes, step_of, strict=True):
                    if rate:
                        weight.sub_(slope, alpha=rate * factor).clamp_(min=least)
                loss = _loss(free.outputs, target[chosen])
                known = None if classes is None else classes[chosen]
                state.add(loss, _hits(free.outputs, known), len(chosen))
                if progress is not None:
                    progress(
                        Progress(
                            epoch=epoch, epochs=epochs, step=state.step, steps=len(order), loss=loss
                        )
                    )
                if save_every and state.step % save_every == 0 and state.step < len(order):
                    keep()
            seen: tuple[float | None, float | None] = (None, None)
            if checked is not None:
                circuit = rewired(tuple(weights), network.shunt, circuit.diode)
                found = _outputs(circuit, checked[0], tolerance, sweeps)
                seen = (
                    _loss(found, checked[1]),
                    (None if checked[2] is None else _hits(found, checked[2]) / len(found)),
                )
            state.close(epoch, seen, None if classes is None else state.hits, now())
            keep()
    learnt = [weight.double().cpu().numpy() for weight in weights]
    return Trained(network.with_conductances(learnt), tuple(state.log), resumed)


def slopes(
    network: ResistiveNetwork,
    x: ArrayLike,
    labels: ArrayLike,
    *,
    beta: float,
    centred: bool = True,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    tolerance: float | None = None,
    sweeps: int = 2000,
) -> tuple[Array, ...]:
    """Return what equilibrium propagation says of ∂loss/∂g: (to, from) [V^2/S] of every layer.

    The loss is the mean over samples of half the outputs' squared errors. Parameters and
    errors as of ``train``.
    """
    volts, target, _ = _samples(network, x, labels, dtype, device)
    circuit = circuit_of(network, dtype=dtype, device=device)
    with threads(network):
        _, found = _slopes(circuit, volts, target, beta, centred, tolerance, sweeps)
    return tuple(part.double().cpu().numpy() for part in found)


def predict(
    network: ResistiveNetwork,
    x: ArrayLike,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    tolerance: float | None = None,
    sweeps: int = 2000,
) -> Array:
    """Return the outputs (sample, output) [V] for samples (sample, feature).

    Raises InputError for another shape, ConvergenceError as ``settle`` does.
    """
    volts = torch.tensor(network.voltages(x), dtype=dtype, device=device)
    circuit = circuit_of(network, dtype=dtype, device=device)
    with threads(network):
        return _outputs(circuit, volts, tolerance, sweeps).double().cpu().numpy()


def accuracy(network: ResistiveNetwork, x: ArrayLike, labels: ArrayLike, **options: Any) -> float:
    """Return the share of samples whose class has the largest output; options of ``predict``."""
    found = predict(network, x, **options).argmax(axis=1)
    return float(np.mean(found == np.asarray(labels)))


@torch.no_grad()
def _slopes(
    circuit: Circuit, volts: Tensor, target: Tensor, beta: float, centred: bool,
    tolerance: float | None, sweeps: int,
) -> tuple[Rest, list[Tensor]]:  # fmt: skip
    """The free state, and of every layer what both states' squared voltages differ by, over β."""
    driven = drive(circuit, volts)

    def at(nudge: tuple[float, Tensor] | None, start: Rest | None) -> Rest:
        return settle(
            circuit, volts, nudge=nudge, start=start, driven=driven,
            tolerance=tolerance, sweeps=sweeps,
        )  # fmt: skip

    free = at(None, None)
    pulled = at((beta, target), free)
    other = at((-beta, target), free) if centred else free
    # a² - b² of voltages that hardly differ as (a - b)(a + b), with the inputs' a - b = 0.
    scale = 1.0 / (2.0 * (2.0 if centred else 1.0) * beta * len(volts))
    differ = [p - o for p, o in zip(pulled.layers, other.layers, strict=True)]
    both = [2.0 * volts, *(p + o for p, o in zip(pulled.layers, other.layers, strict=True))]
    found = []
    for k, after in enumerate(differ):
        slope = (after * both[k + 1]).sum(0)[:, None] - after.T @ both[k]
        if k:
            before = differ[k - 1]
            slope = slope + (before * both[k]).sum(0) - both[k + 1].T @ before
        found.append(slope * scale)
    return free, found


@torch.no_grad()
def _outputs(circuit: Circuit, volts: Tensor, tolerance: float | None, sweeps: int) -> Tensor:
    parts = [
        settle(circuit, part, tolerance=tolerance, sweeps=sweeps).outputs
        for part in torch.split(volts, _CHUNK)
    ]
    return torch.cat(parts)


def _samples(
    network: ResistiveNetwork,
    x: ArrayLike,
    labels: ArrayLike,
    dtype: torch.dtype,
    device: str | torch.device,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs [V], targets [V], classes or None."""
    volts = network.voltages(x)
    given, outputs = np.asarray(labels), network.sizes[-1]
    if not len(volts) or len(given) != len(volts):
        raise InputError(
            f"{len(volts)} samples and labels of shape {given.shape}",
            remedy="give as many labels as samples, at least one",
        )
    classes = None
    if given.dtype.kind in "iu":
        if given.ndim != 1 or given.min() < 0 or given.max() >= outputs:
            raise InputError(
                f"labels of shape {given.shape} are not (sample,) classes in 0 … {outputs - 1}"
            )
        classes = torch.tensor(given.astype(np.int64), device=device)
        given = np.eye(outputs)[given]
    if given.shape != (len(volts), outputs) or not np.isfinite(given).all():
        raise InputError(f"labels of shape {given.shape} are not finite and (sample, {outputs})")
    return (
        torch.tensor(volts, dtype=dtype, device=device),
        torch.tensor(given, dtype=dtype, device=device),
        classes,
    )


def _rates(network: ResistiveNetwork, rates: float | Sequence[float]) -> tuple[float, ...]:
    layers = len(network.conductances)
    found = (rates,) * layers if isinstance(rates, int | float) else tuple(rates)
    if len(found) != layers or not all(math.isfinite(rate) and rate >= 0 for rate in found):
        raise InputError(f"rates = {rates!r} are not {layers}, 0 or more")
    return tuple(float(rate) for rate in found)


def _loss(outputs: Tensor, target: Tensor) -> float:
    """Mean over samples of half the squared error [V^2]."""
    return 0.5 * float(((outputs - target) ** 2).sum()) / len(outputs)


def _hits(outputs: Tensor, classes: Tensor | None) -> int:
    return 0 if classes is None else int((outputs.argmax(1) == classes).sum())
