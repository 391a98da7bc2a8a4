"""A layer's weights as its wires let them through, differentiably."""

from __future__ import annotations

import numpy as np
import torch

from spicenn.compiler.convolution import kernel
from spicenn.engines.laws import is_linear
from spicenn.errors import TrainingError
from spicenn.training.awareness import Wires
from spicenn.training.physics import Physics
from spicenn.training.wires import Tiles, effective_weights, weights_correction

# How far weights may move, rms over their own, between two looks at the exact solution. At
# a fifth the outputs of a tile that loses a fifth of its currents are off by 6e-4.
_MOVED = 0.2
# Passes between two measurements of that.
_EVERY = 10


class Wiring:
    """Weights and biases to what their tiles' currents make of them.

    Parameters
    ----------
    kind : see ``Awareness.wires``.
    like : whose dtype and device the result has.

    Raises TrainingError where tiles are no matrices of one cell per weight.
    """

    def __init__(self, physics: Physics, kind: Wires, like: torch.Tensor) -> None:
        self.kind, self.physics = kind, physics
        design = physics.design
        if kind in ("ladder", "exact") and (
            design.mapping.slices > 1 or not is_linear(design.technology.cell)
        ):
            raise TrainingError(
                f"wires = {kind!r} needs linear cells, one for each sign of a weight",
                where=f"layer {physics.layer.name!r}",
                remedy="use wires='frozen'",
            )
        self._passes = 0
        self._correction: torch.Tensor | None = None
        self._seen: torch.Tensor | None = None  # weights of that, over the largest
        self._sides = tuple(
            (part.weight.to(like), part.bias.to(like)) for part in (physics.plus, physics.minus)
        )
        self._tiles = _tiles(physics) if kind in ("ladder", "exact") else None

    def __call__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: torch.Tensor,
        full: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weight and bias as currents have them, in the units they come in.

        Parameters
        ----------
        weight : in torch's own layout. bias : of all bias rows together, or None.
        scale : the largest weight. full : that times the input range.
        """
        if self.kind == "none":
            return weight, bias
        if self.kind == "frozen":
            (plus_w, plus_b), (minus_w, minus_b) = self._sides
            through = _through(weight, plus_w, minus_w)
            return through, None if bias is None else _through(bias, plus_b, minus_b)
        return self._solved(weight, bias, scale, full)

    def refresh(self) -> None:
        """Look at the exact solution again at the next pass, and count passes from there.

        Two networks with the same weights then go on alike, whatever was before: a training
        run that is resumed needs nothing of it.
        """
        self._correction = self._seen = None
        self._passes = 0

    def _solved(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: torch.Tensor,
        full: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        layer, tiles = self.physics.layer, self._tiles
        assert tiles is not None
        count = self.physics.bias_rows
        rows = weight.reshape(layer.groups, layer.outputs, layer.inputs)
        if count:
            assert bias is not None
            share = (bias * (scale / (count * full))).reshape(layer.groups, layer.outputs, 1)
            rows = torch.cat([rows, share.expand(-1, -1, count)], dim=2)
        largest = float(scale)
        if self.kind == "exact":
            result = effective_weights(rows, tiles, largest)
        else:
            kept = self._corrected(rows.detach(), tiles, largest)
            result = effective_weights(rows, tiles, largest, method="ladder", correction=kept)
        if not count:
            return kernel(result, layer), None
        inputs, biases = result[..., : layer.inputs], result[..., layer.inputs :]
        through = kernel(inputs.contiguous(), layer)
        return through, (biases.sum(2) * (full / scale)).flatten()

    def _corrected(self, rows: torch.Tensor, tiles: Tiles, scale: float) -> torch.Tensor:
        """What the exact solution has over the ladders, for weights near these."""
        if self._seen is not None and self._passes % _EVERY == 0:
            moved = torch.linalg.vector_norm(rows / scale - self._seen)
            if float(moved) > _MOVED * float(torch.linalg.vector_norm(self._seen)):
                self.refresh()
        self._passes += 1
        if self._correction is None or self._correction.device != rows.device:
            self._correction = weights_correction(rows, tiles, scale)
            self._seen = rows / scale
        return self._correction


def _through(w: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor) -> torch.Tensor:
    return torch.where(w >= 0, w * plus, w * minus)


def _tiles(physics: Physics) -> Tiles:
    """Where a layer's weights and then its bias rows lie."""
    technology = physics.design.technology
    crossbar = physics.tiles[0].crossbar
    places = [
        (slot.group, slot.outputs.start, slot.outputs.stop, slot.rows.start, slot.rows.stop)
        for slot in (tile.slot for tile in physics.tiles)
    ]
    return Tiles(
        places=np.array(places, np.int64), g_min=technology.g_min, g_max=technology.g_max,
        r_wordline=crossbar.r_wordline, r_bitline=crossbar.r_bitline,
        r_driver=crossbar.r_driver, r_sense=crossbar.r_sense,
    )  # fmt: skip
