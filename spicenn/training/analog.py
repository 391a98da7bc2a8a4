"""``analog``: a model whose layers compute as the hardware would, to be trained as ever."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.convolution import kernel
from spicenn.compiler.layer import Layer
from spicenn.errors import TrainingError
from spicenn.training.awareness import Awareness
from spicenn.training.draws import Draws
from spicenn.training.layers import Analog, analog_layer
from spicenn.training.physics import Hardware, design_of, physics_of

# How far a model's weights may be from those of its design.
_TOLERANCE = 1e-5


def analog(
    model: nn.Module,
    hardware: Hardware,
    *,
    awareness: Awareness | None = None,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of a model that knows its hardware while it trains.

    Its linear maps and convolutions that are layers of the design become analog ones with the
    same parameters under the same names: any loop, optimiser and ``state_dict`` work as
    before. In ``train()`` a forward pass has noise, steps and ranges as ``awareness`` says;
    in ``eval()`` it is deterministic, with wires and steps and without noise. Afterwards
    ``design.with_weights(net, calibration=x)`` is the design to manufacture.

    Parameters
    ----------
    model : what the design was compiled from, or ``design.to_torch()``; it stays as it is.
    hardware : a Design: chips are what the technology says. A Surrogate: what a study says.
        A calibrated chip (of ``sn.calibrate``): this chip, and what its probes leave open.
    awareness : which of it counts; None is all.
    seed : of the noise, and of the chips of a population.

    Raises TrainingError for a layer of the design that is no plain linear map or convolution
    of the model, or has other weights there (batch normalisation that compile folded).
    """
    design = design_of(hardware)
    awareness = awareness or Awareness()
    draws = Draws(seed, awareness.chips)
    net = copy.deepcopy(model)
    twins: dict[nn.Module, Analog] = {}
    for physics in physics_of(hardware, chips=awareness.chips, seed=seed).values():
        found = _module(net, design, physics.layer)
        twins[found] = analog_layer(found, physics, awareness, draws)
    if net in twins:
        net = twins[net]
    for owner in list(net.modules()):
        for key, child in list(owner._modules.items()):
            if child is not None and child in twins:
                owner._modules[key] = twins[child]
    if awareness.chips:
        net.register_forward_pre_hook(_NextChip(draws))
    return net


class _NextChip:
    """Puts another chip of the population in force at every pass in ``train()``."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws

    def __call__(self, module: nn.Module, _: Any) -> None:
        if module.training:
            self.draws.next_chip()


def analog_layers(net: nn.Module) -> dict[str, Analog]:
    """Return a network's analog layers by the names of their design's layers.

    Raises TrainingError where it has none.
    """
    found = {module.physics.layer.name: module for module in _analogs(net)}
    if not found:
        raise TrainingError(
            f"a {type(net).__name__} without analog layers", remedy="make it with sn.analog"
        )
    return found


def draws_of(net: nn.Module) -> Draws:
    """Return the noise that an analog network's layers share. Raises as ``analog_layers``."""
    return next(iter(analog_layers(net).values())).draws


def weights_of(
    layers: Mapping[str, Analog],
) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
    """Return weight and bias of every layer as they are, as ``Design.with_weights`` takes them."""
    return {
        name: (layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
        for name, layer in layers.items()
    }


def refresh(net: nn.Module) -> None:
    """Look at the hardware again, at an analog network's weights as they are.

    What wires attenuate, what cells near the least conductance add on the average and how
    far chips spread depends on the weights; a network keeps what it was at those of its
    design. In the course of a training once in some epochs is enough.

    Raises TrainingError where the hardware is no design: a study or a chip's probes are of
    the weights that they were made with.
    """
    layers = analog_layers(net)
    first = next(iter(layers.values()))  # all are of one piece of hardware
    physics, draws = first.physics, first.draws
    if not physics.general:
        raise TrainingError(
            "only a design says what chips are at other weights",
            where=f"layer {physics.layer.name!r}",
            remedy="make the network anew from a surrogate of the design with its weights",
        )
    moved = physics.design.with_weights(weights_of(layers))
    for name, physics in physics_of(moved, chips=draws.chips, seed=draws.seed).items():
        layers[name].see(physics)


def _analogs(net: nn.Module) -> Iterator[Analog]:
    return (module for module in net.modules() if isinstance(module, Analog))


def _module(net: nn.Module, design: Design, layer: Layer) -> nn.Module:
    """The model's own module of a layer, checked."""
    where = f"layer {layer.name!r}"
    remedy = "train design.to_torch(), which has every layer as a plain one"
    # The one weight of a bare linear map is called what its parameter is.
    name = "" if layer.name == "weight" and isinstance(net, nn.Linear) else layer.name
    try:
        found = net.get_submodule(name)
    except AttributeError:
        raise TrainingError(
            "the model has no module of this name", where=where, remedy=remedy
        ) from None
    weight = getattr(found, "weight", None)
    if not isinstance(weight, torch.Tensor):
        raise TrainingError(f"is a {type(found).__name__}", where=where, remedy=remedy)
    own = kernel(torch.as_tensor(layer.weight), layer)
    scale = float(own.abs().max()) or 1.0
    if own.shape != weight.shape or _off(own, weight) > _TOLERANCE * scale:
        raise TrainingError(
            "the model's weights are not those that were compiled",
            where=where,
            remedy=f"compile this model; where batch normalisation was folded, {remedy}",
        )
    return found


def _off(own: torch.Tensor, weight: torch.Tensor) -> float:
    return float((own - weight.detach().cpu().double()).abs().max())
