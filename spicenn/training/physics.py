"""What a layer's tiles do to its weights, in the form that training computes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spicenn.circuit import Crossbar
from spicenn.compiler import Design
from spicenn.compiler.convolution import kernel
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.product import merge_slices
from spicenn.compiler.structural import TileMoments, tile_moments
from spicenn.compiler.tiling import bias_rows, slice_weights, weight_of_conductance
from spicenn.engines.laws import as_resistors, is_linear
from spicenn.errors import TrainingError
from spicenn.kirchhoff.currents import effective_matrix
from spicenn.surrogate import Calibration, ChipModel, Surrogate
from spicenn.technology.variation import manufactured_moments

Hardware = Design | Surrogate | ChipModel | Calibration


@dataclass(frozen=True, eq=False)
class Part:
    """One number per weight, or what it comes to for the bias; torch's own layout.

    weight : (output, input) or a convolution's kernel; over the layer's largest weight.
    bias : (group · output,), of all bias rows together, over the largest weight and the
        input scale.
    """

    weight: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, eq=False)
class Physics:
    """A layer's hardware.

    target : the design's own weights. mean : what currents make of them, on the average.
    spread : standard deviation over chips, of what is not known of this one.
    read : variance of one read, per squared input over the input scale; its ``bias`` is the
        variance without input.
    plus, minus : share of a positive and of a negative weight that wires leave.
    patterns : what each of some chips adds to the weights.
    segments : resistances along wordlines and bitlines per tile, see ``Crossbar.segments``.
    """

    design: Design
    layer: Layer
    tiles: tuple[PlacedTile, ...]
    target: Part
    mean: Part
    spread: Part
    read: Part
    plus: Part
    minus: Part
    patterns: tuple[Part, ...]

    @property
    def bias_rows(self) -> int:
        """Wordlines that carry the bias."""
        return bias_rows(self.layer, self.design.mapping)

    @property
    def row_cuts(self) -> tuple[slice, ...]:
        """Rows of one group that meet in one tile, in order."""
        found = {tile.slot.rows.start: tile.slot.rows for tile in self.tiles}
        return tuple(found[start] for start in sorted(found))


def design_of(hardware: Hardware) -> Design:
    """Return the design whose chips the hardware is or models.

    Raises TrainingError for anything else.
    """
    if isinstance(hardware, Design):
        return hardware
    if isinstance(hardware, Calibration):
        hardware = hardware.module
    design = getattr(hardware, "design", None)
    if not isinstance(design, Design):
        raise TrainingError(
            f"hardware is a {type(hardware).__name__}",
            remedy="give a Design, or what sn.fit or sn.calibrate returned",
        )
    return design


def physics_of(hardware: Hardware, *, chips: int = 0, seed: int = 0) -> dict[str, Physics]:
    """Look at every layer of a piece of hardware; by layer name.

    Parameters
    ----------
    hardware : a design (its technology says what chips are like), a surrogate (a study said
        so), or one chip's calibrated model (what its probes say, and leave open).
    chips, seed : of how many chips, and which, the patterns are to be. Chips of a design or a
        surrogate are manufactured ones, those of a calibrated model its posterior's draws.

    Raises TrainingError for hardware of another kind, or with fewer draws than chips.
    """
    design = design_of(hardware)
    if isinstance(hardware, Calibration):
        hardware = hardware.module
    moments = getattr(hardware, "moments", None) or tile_moments(design)
    mean = {moment.tile.name: moment.mean for moment in moments}
    spread = {moment.tile.name: moment.spread for moment in moments}
    if isinstance(hardware, Surrogate):
        mean = dict(hardware.prior.mean)
        spread = {name: value.sqrt() for name, value in hardware.prior.variance.items()}
    elif isinstance(hardware, ChipModel):
        mean = hardware.weights()
        spread = {
            name: torch.stack(
                [hardware.weights(draw)[name] - mean[name] for draw in range(hardware.draws)]
            ).square().mean(0).sqrt()
            if hardware.draws
            else torch.zeros_like(value)
            for name, value in mean.items()
        }  # fmt: skip
    patterns = _patterns(hardware, design, mean, chips, seed)
    return {
        layer.name: _physics(design, layer, moments, mean, spread, patterns)
        for layer in design.layers
    }


def _patterns(
    hardware: Hardware, design: Design, mean: Mapping[str, torch.Tensor], chips: int, seed: int
) -> list[dict[str, torch.Tensor]]:
    """Deviation of each chip's weights from the mean, per tile name."""
    if not chips:
        return []
    if isinstance(hardware, ChipModel):
        if hardware.draws < chips:
            raise TrainingError(
                f"{chips} chips asked for, and the calibrated model holds {hardware.draws} draws",
                remedy="calibrate with draws=…, or ask for fewer",
            )
        return [
            {name: value - mean[name] for name, value in hardware.weights(draw).items()}
            for draw in range(chips)
        ]
    technology = design.technology
    result = []
    for chip in design.sample(chips=range(chips), seed=seed):
        pattern = {}
        for tile in design.tiles:
            cells = chip.cells(tile)
            _, g, _ = as_resistors(tile.crossbar, cells.g, cells.parameters)
            expected, _ = manufactured_moments(technology, tile.g_target, tile.site)
            deviation = (g - expected) / (technology.g_max - technology.g_min)
            pattern[tile.name] = torch.as_tensor(deviation[:, 0::2] - deviation[:, 1::2])
        result.append(pattern)
    return result


def _physics(
    design: Design,
    layer: Layer,
    moments: Sequence[TileMoments],
    mean: Mapping[str, torch.Tensor],
    spread: Mapping[str, torch.Tensor],
    patterns: Sequence[Mapping[str, torch.Tensor]],
) -> Physics:
    own = [moment for moment in moments if moment.tile.layer is layer]
    technology, mapping = design.technology, design.mapping
    sides = [_attenuation(design, moment.tile) for moment in own]
    plus = [torch.as_tensor(side[0]) for side in sides]
    minus = [torch.as_tensor(side[1]) for side in sides]
    target = [
        torch.as_tensor(weight_of_conductance(moment.tile.g_target, mapping, technology))
        for moment in own
    ]
    names = [moment.tile.name for moment in own]

    def whole(parts: Sequence[torch.Tensor], how: str) -> Part:
        return _part(design, layer, [moment.tile for moment in own], parts, how)

    read = whole([_squares(design, moment.read) for moment in own], "sum")
    thermal = torch.zeros(layer.groups, layer.outputs, dtype=torch.float64)
    for moment in own:
        slot = moment.tile.slot
        thermal[slot.group, slot.outputs] += _squares(design, moment.thermal[None])[0]
    return Physics(
        design,
        layer,
        tuple(moment.tile for moment in own),
        whole(target, "sum"),
        whole([merge_slices(design, mean[name]) for name in names], "sum"),
        whole([_squares(design, spread[name].square()).sqrt() for name in names], "quadrature"),
        Part(read.weight, read.bias + thermal.flatten().to(read.bias.dtype)),
        whole(plus, "mean"),
        whole(minus, "mean"),
        tuple(
            whole([merge_slices(design, pattern[name]) for name in names], "sum")
            for pattern in patterns
        ),
    )


def _attenuation(design: Design, tile: PlacedTile) -> tuple[Array, Array]:
    """What wires leave of each pair's two cells, (wordline, output); 1 where that is no factor.

    With several slices the one of most weight stands for all.
    """
    g, _ = manufactured_moments(design.technology, tile.g_target, tile.site)
    if not is_linear(design.technology.cell):
        share = np.ones_like(g)
    else:
        share = np.asarray(effective(tile.crossbar, g)) / g
    pairs = share.reshape(len(g), -1, design.mapping.slices, 2)[:, :, -1]
    return pairs[..., 0], pairs[..., 1]


def effective(crossbar: Crossbar, g: Any) -> Any:
    """Effective matrix of a tile's conductances (…, wordline, bitline) [S]."""
    r_wordline, r_bitline = crossbar.segments()
    return effective_matrix(g, r_wordline=r_wordline, r_bitline=r_bitline)


def _squares(design: Design, variance: torch.Tensor) -> torch.Tensor:
    """Variance of a tile's outputs from that of its slices; (row, output)."""
    slices = torch.as_tensor(slice_weights(design.mapping))
    return (variance.reshape(len(variance), -1, len(slices)) * slices.square()).sum(-1)


def _part(
    design: Design,
    layer: Layer,
    tiles: Sequence[PlacedTile],
    values: Sequence[torch.Tensor],
    how: str,
) -> Part:
    """Join tiles (wordline, output) to a layer; bias rows by their sum, mean or quadrature."""
    count = bias_rows(layer, design.mapping)
    rows = torch.zeros(layer.groups, layer.inputs + count, layer.outputs, dtype=torch.float64)
    for tile, value in zip(tiles, values, strict=True):
        rows[tile.slot.group, tile.slot.rows, tile.slot.outputs] = value.double()
    weight, bias = rows[:, : layer.inputs], rows[:, layer.inputs :]
    if how == "mean":
        merged = bias.mean(1) if count else torch.ones(layer.groups, layer.outputs)
    elif how == "sum":
        merged = bias.sum(1)
    else:
        merged = bias.square().sum(1).sqrt()
    return Part(
        kernel(weight.transpose(1, 2).contiguous(), layer).float(),
        merged.flatten().float(),
    )
