"""What a layer's tiles do to its weights, in the form that training computes with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from spicenn.compiler import Design
from spicenn.compiler.converter import pulse_sum
from spicenn.compiler.convolution import kernel
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.product import merge_slices
from spicenn.compiler.structural import TileMoments, tile_moments, with_wires
from spicenn.compiler.structure import (
    ADC_GAIN,
    ADC_OFFSET,
    DAC_GAIN,
    DAC_OFFSET,
    Parameters,
    chip_structure,
    key,
    mechanism_of,
    realise,
    structure_variance,
)
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
class Pattern:
    """What one chip makes of a layer's weights: w · factor + what is added, and an offset.

    added : over the largest weight. factor : gains of converters, None for 1.
    offset : (group · output,) beside the products, over the largest weight and the input
        scale; None for 0.
    """

    added: Part
    factor: Part | None = None
    offset: torch.Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ConverterErrors:
    """Standard deviations of what every pass draws anew; see ``technology.Converter``."""

    adc_gain: float = 0.0
    adc_offset: float = 0.0
    dac_gain: float = 0.0
    dac_offset: float = 0.0

    def __bool__(self) -> bool:
        return any((self.adc_gain, self.adc_offset, self.dac_gain, self.dac_offset))


@dataclass(frozen=True, eq=False)
class Physics:
    """A layer's hardware.

    target : the design's own weights. mean : what currents make of them, on the average,
        without converters' errors.
    own : converters of the one chip that the hardware is; None where it is many.
    general : whether the hardware is a design, which says what chips are at any weights.
    errors : of converters, over chips.
    spread : standard deviation over chips, of what is not known of this one.
    read : variance of one read, per squared input over the input scale; its ``bias`` is the
        variance without input.
    plus, minus : share of a positive and of a negative weight that wires leave.
    patterns : of some chips, about the mean.
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
    own: Pattern | None
    general: bool
    errors: ConverterErrors
    patterns: tuple[Pattern, ...]

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
        return hardware.module.design
    if isinstance(hardware, Surrogate | ChipModel):
        return hardware.design
    raise TrainingError(
        f"hardware is a {type(hardware).__name__}, which has no weights of layers",
        remedy="give a Design, or what sn.fit or sn.calibrate returned of the structural family",
    )


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
    moments = tile_moments(design) if isinstance(hardware, Design) else hardware.moments
    mean = {moment.tile.name: moment.mean for moment in moments}
    spread = {moment.tile.name: moment.spread for moment in moments}
    own: Parameters = {}
    errors = structure_variance(design)
    if isinstance(hardware, Surrogate):
        mean, errors = dict(hardware.prior.mean), dict(hardware.prior.variance)
        spread = {name: errors[name].sqrt() for name in spread}
    elif isinstance(hardware, ChipModel):
        mean = own = dict(with_wires(moments, hardware.parameters_of()))
        draws = [
            with_wires(moments, hardware.parameters_of(draw)) for draw in range(hardware.draws)
        ]
        spread = {
            name: torch.stack([draw[name] - mean[name] for draw in draws]).square().mean(0).sqrt()
            if draws
            else torch.zeros_like(mean[name])
            for name in spread
        }
        errors = {}  # a chip's converters are its own
    made = _chips(hardware, design, mean, chips, seed)
    general = isinstance(hardware, Design)
    return {
        layer.name: _physics(design, layer, moments, mean, spread, own, errors, made, general)
        for layer in design.layers
    }


def _chips(
    hardware: Hardware, design: Design, mean: Parameters, chips: int, seed: int
) -> list[Parameters]:
    """Some chips in what they differ by; cells as deviations from the mean."""
    if isinstance(hardware, ChipModel):
        if hardware.draws < chips:
            raise TrainingError(
                f"{chips} chips asked for, and the calibrated model holds {hardware.draws} draws",
                remedy="calibrate with draws=…, or ask for fewer",
            )
        tiles = [tile.name for tile in design.tiles]
        found = [
            with_wires(hardware.moments, hardware.parameters_of(draw)) for draw in range(chips)
        ]
        return [{**chip, **{name: chip[name] - mean[name] for name in tiles}} for chip in found]
    technology = design.technology
    result: list[Parameters] = []
    for chip in design.sample(chips=range(chips), seed=seed):
        made = dict(chip_structure(design, chip.index, seed))
        for tile in design.tiles:
            cells = chip.cells(tile)
            _, g, _ = as_resistors(tile.crossbar, cells.g, cells.parameters)
            expected, _ = manufactured_moments(technology, tile.g_target, tile.site)
            deviation = (g - expected) * _share(design, tile, expected)
            deviation /= technology.g_max - technology.g_min
            made[tile.name] = torch.as_tensor(deviation[:, 0::2] - deviation[:, 1::2])
        result.append(made)
    return result


def _physics(
    design: Design,
    layer: Layer,
    moments: Sequence[TileMoments],
    mean: Mapping[str, torch.Tensor],
    spread: Mapping[str, torch.Tensor],
    own: Parameters,
    errors: Parameters,
    chips: Sequence[Parameters],
    general: bool,
) -> Physics:
    here = [moment for moment in moments if moment.tile.layer is layer]
    tiles = [moment.tile for moment in here]
    technology, mapping = design.technology, design.mapping
    sides = [_attenuation(design, moment.tile) for moment in here]
    plus = [torch.as_tensor(side[0]) for side in sides]
    minus = [torch.as_tensor(side[1]) for side in sides]
    target = [
        torch.as_tensor(weight_of_conductance(moment.tile.g_target, mapping, technology))
        for moment in here
    ]
    names = [moment.tile.name for moment in here]

    def whole(parts: Sequence[torch.Tensor], how: str) -> Part:
        return _part(design, layer, tiles, parts, how)

    read = whole([_squares(design, moment.read) for moment in here], "sum")
    thermal = torch.zeros(layer.groups, layer.outputs, dtype=torch.float64)
    for moment in here:
        slot = moment.tile.slot
        thermal[slot.group, slot.outputs] += _squares(design, moment.thermal[None])[0]
    return Physics(
        design,
        layer,
        tuple(tiles),
        whole(target, "sum"),
        whole([merge_slices(design, mean[name]) for name in names], "sum"),
        whole([_squares(design, spread[name].square()).sqrt() for name in names], "quadrature"),
        Part(read.weight, read.bias + thermal.flatten().to(read.bias.dtype)),
        whole(plus, "mean"),
        whole(minus, "mean"),
        _pattern(design, layer, tiles, own) if own else None,
        general,
        _errors(layer, tiles, errors),
        tuple(_pattern(design, layer, tiles, chip) for chip in chips),
    )


def _pattern(
    design: Design, layer: Layer, tiles: Sequence[PlacedTile], chip: Parameters
) -> Pattern:
    """One chip's part in a layer; its cells are taken as they are given."""
    names = [tile.name for tile in tiles]
    added = _part(design, layer, tiles, [merge_slices(design, chip[n]) for n in names], "sum")
    if not any(mechanism_of(name) for name in chip):
        return Pattern(added)
    gains = realise(tiles, {**chip, **{name: torch.ones_like(chip[name]) for name in names}})
    factor = [merge_slices(design, gains.weights[name]) for name in names]
    ones = [merge_slices(design, torch.ones_like(chip[name])) for name in names]
    factor = [f / one for f, one in zip(factor, ones, strict=True)]
    targets = {
        tile.name: _target(design, tile) for tile in tiles
    }  # what a DAC's offset meets; chips' own deviations from it are of second order
    offsets = realise(tiles, {**chip, **targets}).offsets
    offset = torch.zeros(layer.groups, layer.outputs, dtype=torch.float64)
    for tile in tiles:
        if tile.name in offsets:
            part = merge_slices(design, offsets[tile.name][None])[0]
            offset[tile.slot.group, tile.slot.outputs] += part
    pulses = pulse_sum(layer, design.mapping, design.technology)
    gain = _part(design, layer, tiles, factor, "mean")
    # Of several bias rows each has its own gain: their sum is what counts.
    driven = [merge_slices(design, chip[n]) * f for n, f in zip(names, factor, strict=True)]
    together = _part(design, layer, tiles, driven, "sum").bias / gain.bias
    return Pattern(Part(added.weight, together), gain, (pulses * offset).flatten().float())


def _target(design: Design, tile: PlacedTile) -> torch.Tensor:
    """Differences of a tile's targets, (wordline, output · slice) over g_max - g_min."""
    technology = design.technology
    difference = tile.g_target[:, 0::2] - tile.g_target[:, 1::2]
    return torch.as_tensor(difference / (technology.g_max - technology.g_min))


def _errors(layer: Layer, tiles: Sequence[PlacedTile], variance: Parameters) -> ConverterErrors:
    """Standard deviations from variances by ``structure.key``, which are alike in a layer."""

    def sigma(mechanism: str, owner: PlacedTile | Layer) -> float:
        found = variance.get(key(mechanism, owner))
        return 0.0 if found is None else float(found.mean().sqrt())

    return ConverterErrors(
        adc_gain=sigma(ADC_GAIN, tiles[0]), adc_offset=sigma(ADC_OFFSET, tiles[0]),
        dac_gain=sigma(DAC_GAIN, layer), dac_offset=sigma(DAC_OFFSET, layer),
    )  # fmt: skip


def _attenuation(design: Design, tile: PlacedTile) -> tuple[Array, Array]:
    """What wires leave of each pair's two cells, (wordline, output); 1 where that is no factor.

    With several slices the one of most weight stands for all.
    """
    g, _ = manufactured_moments(design.technology, tile.g_target, tile.site)
    share = _share(design, tile, g)
    pairs = share.reshape(len(g), -1, design.mapping.slices, 2)[:, :, -1]
    return pairs[..., 0], pairs[..., 1]


def _share(design: Design, tile: PlacedTile, g: Array) -> Array:
    """What wires leave of every cell's current, 1 for cells that are not linear."""
    if not is_linear(design.technology.cell):
        return np.ones_like(g)
    r_wordline, r_bitline = tile.crossbar.segments()
    matrix = effective_matrix(g, r_wordline=r_wordline, r_bitline=r_bitline)
    return np.asarray(matrix / g)


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
