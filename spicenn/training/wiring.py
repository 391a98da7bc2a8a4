"""A layer's weights as its wires let them through, differentiably."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from spicenn.compiler.convolution import kernel
from spicenn.compiler.placement import PlacedTile
from spicenn.engines.laws import is_linear
from spicenn.errors import TrainingError
from spicenn.training.awareness import Wires
from spicenn.training.physics import Physics
from spicenn.training.wires import correction, effective

# Passes in ``ladder`` between two looks at the exact solution.
_EVERY = 200


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
        self._corrections: dict[int, torch.Tensor] = {}
        self._sides = tuple(
            (part.weight.to(like), part.bias.to(like)) for part in (physics.plus, physics.minus)
        )
        self._batches = _alike(physics.tiles)

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
        self._corrections.clear()
        self._passes = 0

    def _solved(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        scale: torch.Tensor,
        full: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        layer, technology = self.physics.layer, self.physics.design.technology
        span = technology.g_max - technology.g_min
        count = self.physics.bias_rows
        rows = weight.reshape(layer.groups, layer.outputs, layer.inputs).transpose(1, 2) / scale
        if count:
            assert bias is not None
            share = (bias / (count * full)).reshape(layer.groups, 1, layer.outputs)
            rows = torch.cat([rows, share.expand(-1, count, -1)], dim=1)
        if self._passes % _EVERY == 0:
            self._corrections.clear()
        self._passes += 1
        result = torch.zeros_like(rows)
        for index, tiles in enumerate(self._batches):
            w = torch.stack([rows[t.slot.group, t.slot.rows, t.slot.outputs] for t in tiles])
            pairs = torch.stack([w.clamp_min(0), (-w).clamp_min(0)], dim=-1)
            g = technology.g_min + span * pairs.clamp_max(1.0).flatten(-2).double()
            wires = [torch.as_tensor(r, device=g.device) for r in tiles[0].crossbar.segments()]
            if self.kind == "exact":
                matrix = effective(g, *wires, method="exact")
            else:
                if index not in self._corrections:
                    self._corrections[index] = correction(g.detach(), *wires)
                matrix = effective(g, *wires, method="ladder", correction=self._corrections[index])
            matrix = ((matrix[..., 0::2] - matrix[..., 1::2]) / span).to(rows.dtype)
            for tile, part in zip(tiles, matrix, strict=True):
                slot = tile.slot
                result[slot.group, slot.rows, slot.outputs] = part
        inputs, biases = result[:, : layer.inputs], result[:, layer.inputs :]
        through = kernel((inputs * scale).transpose(1, 2).contiguous(), layer)
        return through, (biases.sum(1) * full).flatten() if count else None


def _through(w: torch.Tensor, plus: torch.Tensor, minus: torch.Tensor) -> torch.Tensor:
    return torch.where(w >= 0, w * plus, w * minus)


def _alike(tiles: Sequence[PlacedTile]) -> list[list[PlacedTile]]:
    """Tiles of one shape together, in order."""
    shapes: dict[tuple[int, ...], list[PlacedTile]] = {}
    for tile in tiles:
        shapes.setdefault(tile.g_target.shape, []).append(tile)
    return list(shapes.values())
