"""A training run that can be killed, of any network of torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import nn

from spicenn.errors import InputError, TrainingError
from spicenn.seeds import Purpose, generator
from spicenn.training.checkpoint import (
    CHECKPOINT,
    LOG,
    Epoch,
    Progress,
    Tally,
    digest_of,
    read_checkpoint,
    read_log,
    write_checkpoint,
)
from spicenn.training.draws import Draws
from spicenn.training.layers import Analog
from spicenn.training.loop import InLoop

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Penalty = Callable[[nn.Module, torch.Tensor], torch.Tensor]

__all__ = ["CHECKPOINT", "LOG", "Epoch", "Progress", "Run", "read_log", "train"]

_KIND = "training"
# Parts of Purpose.TRAINING: the order of samples, and torch's own generator (dropout).
_ORDER, _TORCH = 11, 12
# Samples of one pass of a validation.
_CHUNK = 1024


@dataclass(frozen=True)
class Run:
    """How a run ended. log : every epoch. resumed : steps that a checkpoint had done already."""

    log: tuple[Epoch, ...]
    resumed: int


def train(
    net: nn.Module,
    data: Any,
    labels: Any,
    *,
    epochs: int,
    seed: int,
    batch: int = 64,
    optimiser: torch.optim.Optimizer | None = None,
    rate: float = 1e-3,
    loss: Loss | None = None,
    penalty: Penalty | None = None,
    validation: tuple[Any, Any] | None = None,
    directory: str | Path | None = None,
    save_every: int | None = None,
    configuration: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Train a network in place: any module, of ``sn.analog`` or in the loop.

    With a ``directory`` a run that was killed goes on from its last checkpoint when it is
    called again with the network and optimiser as they were at first, and on a CPU ends with
    the same weights to the last bit. More epochs than before go on, too.

    Parameters
    ----------
    data : (sample, …), or a tuple of a network's several inputs.
    labels : (sample,) integers for cross entropy of (sample, class) results; floats of the
        results' shape for mean squares.
    seed : of the order of samples, and of torch's own noise while it trains.
    optimiser : over the network's parameters; None is Adam at ``rate``.
    loss, penalty : the task's own loss; what is added to it, a function of network and inputs
        (the first of several). A checkpoint knows functions by their names alone.
    validation : (data, labels) to look at after every epoch.
    directory : where ``checkpoint.pt`` and ``log.jsonl`` are kept. The former is replaced in
        one go and read with ``weights_only=True``.
    save_every : steps between checkpoints within an epoch; None is at its end alone.
    configuration : what else a run is, by name; a resumed one must have the same.
    progress : called after every step.

    Raises InputError for data that do not fit; TrainingError where the loss is not finite,
    or the directory holds another configuration, more epochs or no checkpoint of ours.
    """
    started = monotonic()
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    x, y = _samples(data, labels, device)
    checked = None if validation is None else _samples(*validation, device)
    if checked is not None and checked[1].is_floating_point() != y.is_floating_point():
        raise InputError("labels of training and validation are not both classes or both floats")
    for name, value in (("epochs", epochs), ("batch", batch), ("save_every", save_every or 1)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} = {value!r} is not an integer of at least 1")
    if optimiser is None:
        optimiser = torch.optim.Adam(net.parameters(), rate)
    measure = loss or (_mean_squares if y.is_floating_point() else _cross_entropy)
    folder = None if directory is None else Path(directory)
    state = Tally()
    with torch.random.fork_rng(devices=[]):
        words = generator(seed, Purpose.TRAINING, layer=_TORCH)
        torch.manual_seed(int(words.integers(2**63 - 1)))
        described: dict[str, str] = {}
        if folder is not None:
            described = _described(
                net, optimiser, (x, y, checked), seed, batch, save_every, measure, penalty,
                configuration or {},
            )  # fmt: skip
            _resume(folder, net, optimiser, state, described, epochs)
        earlier, resumed = state.seconds, state.total

        def keep() -> None:
            state.seconds = earlier + monotonic() - started
            if folder is not None:
                _write(folder, net, optimiser, state, described)
            # Noted whether it is written or not, so that all runs are alike.
            _refresh(net)

        _refresh(net)
        if folder is not None and state.total == 0:
            keep()
        while len(state.log) < epochs:
            epoch = len(state.log) + 1
            rng = generator(seed, Purpose.TRAINING, layer=_ORDER, trial=epoch)
            order = torch.split(torch.as_tensor(rng.permutation(len(y))), batch)
            net.train()
            while state.step < len(order):
                chosen = order[state.step].to(device)
                inputs, target = tuple(part[chosen] for part in x), y[chosen]
                optimiser.zero_grad()
                result = net(*inputs)
                cost = measure(result, target)
                if penalty is not None:
                    cost = cost + penalty(net, inputs[0])
                number = float(cost.detach())
                if not math.isfinite(number):
                    raise TrainingError(
                        f"the loss is {number} in step {state.step + 1} of epoch {epoch}",
                        remedy="lower the rate, or look at the data",
                    )
                cost.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                state.add(number, _hits(result, target), len(target))
                if progress is not None:
                    progress(
                        Progress(
                            epoch=epoch, epochs=epochs, step=state.step, steps=len(order),
                            loss=number,
                        )
                    )  # fmt: skip
                if save_every and state.step % save_every == 0 and state.step < len(order):
                    keep()
            seen = (None, None) if checked is None else _evaluated(net, *checked, measure)
            seconds = earlier + monotonic() - started
            state.close(epoch, seen, None if y.is_floating_point() else state.hits, seconds)
            keep()
    return Run(tuple(state.log), resumed)


def _samples(
    data: Any, labels: Any, device: torch.device
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    given = data if isinstance(data, tuple | list) else (data,)
    x = tuple(torch.as_tensor(part).to(device) for part in given)
    y = torch.as_tensor(labels).to(device)
    if y.ndim < 1 or len(y) == 0 or any(part.ndim < 1 or len(part) != len(y) for part in x):
        raise InputError(
            f"data of shapes {[tuple(part.shape) for part in x]} and labels of {tuple(y.shape)}",
            remedy="give as many labels as samples, at least one",
        )
    if not y.is_floating_point():
        y = y.long()
        if y.ndim != 1 or int(y.min()) < 0:
            raise InputError(
                f"labels of shape {tuple(y.shape)}, the least {int(y.min())}",
                remedy="classes are (sample,) integers from 0; for regression give floats",
            )
    return x, y


def _cross_entropy(result: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if result.ndim != 2 or int(target.max()) >= result.shape[1]:
        raise InputError(
            f"results of shape {tuple(result.shape)} cannot have class {int(target.max())}",
            remedy="the network returns (sample, class)",
        )
    return nn.functional.cross_entropy(result, target)


def _mean_squares(result: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if result.shape != target.shape:
        raise InputError(
            f"results of shape {tuple(result.shape)} and targets of {tuple(target.shape)}",
            remedy="floats have the results' shape; for classes give integers",
        )
    return nn.functional.mse_loss(result, target)


def _hits(result: torch.Tensor, target: torch.Tensor) -> int:
    if target.is_floating_point() or result.ndim != 2:
        return 0
    return int((result.detach().argmax(1) == target).sum())


def _evaluated(
    net: nn.Module, x: tuple[torch.Tensor, ...], y: torch.Tensor, measure: Loss
) -> tuple[float, float | None]:
    """Mean loss, and accuracy or None."""
    net.eval()
    total, hits = 0.0, 0
    with torch.no_grad():
        for rows in torch.split(torch.arange(len(y)), _CHUNK):
            chosen = rows.to(y.device)
            result = net(*(part[chosen] for part in x))
            total += float(measure(result, y[chosen])) * len(rows)
            hits += _hits(result, y[chosen])
    return total / len(y), None if y.is_floating_point() else hits / len(y)


def _analogs(net: nn.Module) -> list[Analog]:
    return [module for module in net.modules() if isinstance(module, Analog)]


def _refresh(net: nn.Module) -> None:
    """What the layers remember of wires is no part of a checkpoint: it is found again after."""
    for layer in _analogs(net):
        layer.wiring.refresh()


def _streams(net: nn.Module) -> list[Draws]:
    """Noise of analog layers, each stream once; other modules' is in their state_dict."""
    return list({id(layer.draws): layer.draws for layer in _analogs(net)}.values())


def _loops(net: nn.Module) -> list[InLoop]:
    return [module for module in net.modules() if isinstance(module, InLoop)]


def _unsaved(net: nn.Module) -> dict[str, torch.Tensor]:
    """Buffers that a state_dict leaves out: ranges that follow the signals, among others."""
    saved = net.state_dict().keys()
    return {name: value for name, value in net.named_buffers() if name not in saved}


def _write(
    folder: Path,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: Tally,
    described: dict[str, str],
) -> None:
    content = {
        "net": net.state_dict(),
        "buffers": _unsaved(net),
        "streams": [(draws.state(), draws.chip) for draws in _streams(net)],
        "passes": [loop.passes for loop in _loops(net)],
        "torch": torch.get_rng_state(),
        "optimiser": optimiser.state_dict(),
    }
    write_checkpoint(folder, _KIND, described, state, content)


def _resume(
    folder: Path,
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: Tally,
    described: dict[str, str],
    epochs: int,
) -> None:
    """Put everything where a checkpoint says it was, if there is one."""
    content = read_checkpoint(folder, _KIND, described, state, epochs)
    if content is None:
        return
    net.load_state_dict(content["net"])
    own = _unsaved(net)
    with torch.no_grad():
        for name, value in content["buffers"].items():
            own[name].copy_(value)
    for draws, (stream, chip) in zip(_streams(net), content["streams"], strict=True):
        draws.restore(stream)
        draws.chip = chip
    for loop, passes in zip(_loops(net), content["passes"], strict=True):
        loop.passes = passes
    torch.set_rng_state(content["torch"])
    optimiser.load_state_dict(content["optimiser"])


def _described(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    samples: Sequence[Any],
    seed: int,
    batch: int,
    save_every: int | None,
    measure: Loss,
    penalty: Penalty | None,
    others: Mapping[str, Any],
) -> dict[str, str]:
    """What makes a run what it is, in words and digests, by name."""
    (x, y), checked = samples[:2], samples[2]
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimiser.param_groups
    ]
    hardware = [
        f"{layer.physics.design.hash} {layer.settings} {layer.wiring.kind}"
        for layer in _analogs(net)
    ]
    chips = [f"{loop.chip.index} {loop.chip.seed} {loop.engine.name}" for loop in _loops(net)]
    distortions = [layer.distortion for layer in _analogs(net)]
    result = {
        "data": digest_of(*x),
        "labels": digest_of(y),
        "validation": "" if checked is None else digest_of(*checked[0], checked[1]),
        "network": repr(net) + digest_of(*(value for _, value in sorted(_tensors(net).items()))),
        "optimiser": f"{type(optimiser).__qualname__} {groups}",
        "hardware": "\n".join(hardware),
        "chip": "\n".join(chips) + digest_of(*(d for d in distortions if d is not None)),
        "seed": str(seed),
        "batch": str(batch),
        "save_every": str(save_every),
        "loss": _name(measure),
        "penalty": "" if penalty is None else _name(penalty),
    }
    return result | {f"configuration.{name}": repr(value) for name, value in others.items()}


def _tensors(net: nn.Module) -> dict[str, torch.Tensor]:
    return {**net.state_dict(), **_unsaved(net)}


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))
