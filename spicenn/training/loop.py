"""In the loop: a chip gives the values, its surrogate the derivatives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from spicenn.compiler import Chip
from spicenn.compiler.execute import crossbar_call
from spicenn.engines.engine import Engine
from spicenn.errors import TrainingError
from spicenn.seeds import Purpose, generator
from spicenn.training.analog import analog_layers, weights_of
from spicenn.training.layers import Analog
from spicenn.training.physics import Physics


class InLoop(nn.Module):
    """A network whose layers are run on one chip; its parameters are the network's own.

    At every forward pass the chip is programmed with the weights as they are (its cells keep
    their deviations) and every layer's inputs are driven through it: what follows sees the
    chip's results. Backwards, a layer is what the analog network takes it to be, at the
    inputs that it had on the chip.

    Parameters
    ----------
    net : of ``sn.analog``; its hardware is the surrogate.
    chip : of the design that the network was made for. A measured chip cannot be
        programmed.
    engine : an open engine, of the caller's.
    corruption : relative standard deviation of an error of every weight as derivatives see
        it, fixed for the whole training: what a surrogate's Jacobian may be off.
    seed : of the corruption.

    Raises TrainingError for a network without analog layers, or a chip that does not fit.
    """

    def __init__(
        self, net: nn.Module, chip: Chip, engine: Engine, *, corruption: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.net = net
        self.chip, self.engine, self.passes = chip, engine, 0
        layers = analog_layers(net)
        _check(chip, layers)
        self._factors = {
            name: _factor(name, layer, chip, corruption, seed, index)
            for index, (name, layer) in enumerate(layers.items())
        }

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return what the network gives on the chip. Raises EngineError where the engine fails."""
        layers = analog_layers(self.net)
        chip = self.programmed()
        call = crossbar_call(
            chip.design, chip.index, chip.seed, self.engine, len(inputs[0]), use=self.passes,
            cells=lambda tile, _: chip.cells(tile),
            correct=None if chip.adapter is None else chip.adapter.apply,
        )  # fmt: skip
        # Every pass is another read.
        self.passes += 1

        def runner(name: str) -> Any:
            return lambda x: call(name, x.detach().cpu()).to(x)

        try:
            for name, layer in layers.items():
                layer.runner, layer.distortion = runner(name), self._factors[name]
            return self.net(*inputs)
        finally:
            for layer in layers.values():
                layer.runner = layer.distortion = None

    def programmed(self) -> Chip:
        """The chip with the weights and ranges as they are."""
        design = self.chip.design
        layers = analog_layers(self.net)
        changed = design.with_weights(weights_of(layers))
        ranged = tuple(
            replace(
                layer,
                input_scale=float(layers[layer.name].input_range),
                current_scale=float(layers[layer.name].output_range),
            )
            for layer in changed.layers
        )
        return replace(self.chip, design=replace(changed, layers=ranged))


def in_loop(
    net: nn.Module, chip: Chip, engine: Engine, *, corruption: float = 0.0, seed: int = 0
) -> InLoop:
    """Return a network that runs on a chip forwards and on its surrogate backwards.

    ``with open_engine("ngspice") as engine: loop = in_loop(net, chip, engine)``, then train
    ``loop`` as any module, and take ``loop.programmed()`` for the chip afterwards. See
    ``InLoop`` for the arguments and what is raised.
    """
    return InLoop(net, chip, engine, corruption=corruption, seed=seed)


def _factor(
    name: str, layer: Analog, chip: Chip, corruption: float, seed: int, index: int
) -> torch.Tensor | None:
    """What derivatives see every weight multiplied by: its error, and the chip's adapter."""
    corrected = chip.adapter is not None and name in chip.adapter.gain
    if not corruption and not corrected:
        return None
    factor = torch.ones(layer.weight.shape, dtype=torch.float64)
    if corruption:
        rng = generator(seed, Purpose.TRAINING, layer=4, row=index)
        factor += corruption * torch.as_tensor(rng.standard_normal(tuple(factor.shape)))
    if chip.adapter is not None and corrected:
        gain = torch.as_tensor(chip.adapter.gain[name])
        factor *= gain.reshape(-1, *[1] * (factor.ndim - 1))
    return factor.to(layer.weight)


def _check(chip: Chip, layers: dict[str, Analog]) -> None:
    if chip.measured is not None:
        raise TrainingError(
            "a chip whose cells were measured cannot be programmed with other weights",
            where=repr(chip),
            remedy="train on chip.design.sample(…)",
        )
    theirs = {layer.name: layer for layer in chip.design.layers}
    for name, layer in layers.items():
        physics: Physics = layer.physics
        if name not in theirs or theirs[name].weight.shape != physics.layer.weight.shape:
            raise TrainingError(
                f"the chip has no layer {name!r} of this shape",
                where=repr(chip),
                remedy="take a chip of the design that the network was made for",
            )
