"""What a design's chips share and how they differ: one effective weight per row and output.

A tile of ohmic cells is a linear map whatever its wires, so its chip is known when
the effective matrix is: mean and spread of that matrix over chips follow from the
technology. ``forward`` is the design's own program with these matrices as tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from spicenn.compiler.converter import combine, encode
from spicenn.compiler.convolution import fold, unfold
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.program import execute
from spicenn.compiler.tiling import slice_weights, weight_of_conductance
from spicenn.engines.nodal import effective_matrix
from spicenn.technology.variation import programmed_moments, read_noise, thermal_noise

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

# Per tile name: (wordline, output · slice), differential, over g_max - g_min.
Weights = Mapping[str, torch.Tensor]


class TileMoments(NamedTuple):
    """One tile's differential effective matrix over all chips, over g_max - g_min.

    tile : where it is.
    mean, spread : (wordline, output · slice) float64, mean and standard deviation.
    read : (wordline, output · slice), variance of one read per squared drive fraction.
    thermal : (output · slice,), variance of one read without drive.
    """

    tile: PlacedTile
    mean: torch.Tensor
    spread: torch.Tensor
    read: torch.Tensor
    thermal: torch.Tensor


@dataclass(frozen=True, eq=False)
class Use:
    """One pass of rows through a layer, kept for its derivatives.

    layer : whose tiles.
    shift : zeros in the graph of the outputs, added to the layer's result
        (sample, position, group · output).
    drive : (sample, position, group, row) in units of v_read; the pulses' sum.
    power : the same shape; squares of the pulses, weighted, summed.
    gain : Σ over pulses of their squared weights.
    """

    layer: Layer
    shift: torch.Tensor
    drive: torch.Tensor
    power: torch.Tensor
    gain: float


def tile_moments(design: Design) -> tuple[TileMoments, ...]:
    """Mean and spread of every tile's effective matrix, from the technology alone.

    The mean is the effective matrix of the mean conductances. A cell's spread is
    attenuated by its wires as its mean is; what a cell does to its neighbours through
    the wires, a second-order effect, is left to the fit.
    """
    technology = design.technology
    span = technology.g_max - technology.g_min
    result = []
    for tile in design.tiles:
        mean, spread = programmed_moments(technology, tile.g_target)
        crossbar = tile.crossbar
        effective = effective_matrix(mean, crossbar.r_wordline, crossbar.r_bitline)
        spread = spread * effective / mean
        rms = np.hypot(mean, spread)
        # One wordline at a time: a cell's noise is its share of its bitline's.
        read = np.square(read_noise(technology, rms[:, np.newaxis, :], np.ones((1, 1)))[:, 0])
        thermal = np.square(thermal_noise(technology, mean)) / technology.v_read**2
        result.append(
            TileMoments(
                tile,
                _tensor(_plus(effective) - _minus(effective)) / span,
                _tensor(np.hypot(_plus(spread), _minus(spread))) / span,
                _tensor(_plus(read) + _minus(read)) / span**2,
                _tensor(_plus(thermal) + _minus(thermal)) / span**2,
            )
        )
    return tuple(result)


def forward(
    design: Design,
    moments: Sequence[TileMoments],
    weights: Weights,
    inputs: Sequence[torch.Tensor],
    *,
    noise: np.random.Generator | None = None,
    uses: list[Use] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Run the design's program with effective matrices as tiles.

    Values are what the converters give; gradients take quantisation as straight
    through and stop where an input saturates.

    Parameters
    ----------
    weights : (wordline, output · slice) per tile name, over g_max - g_min.
    inputs : one tensor per model input, sample axis first.
    noise : draws read and thermal noise from it; None is noise-free.
    uses : gets every use of a layer, in order; its shifts are in the outputs' graph.
    """

    def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
        layer = design.layer(name)
        rows = unfold(x, layer)
        flat = rows.reshape(rows.shape[0], -1, layer.groups, layer.inputs).to(torch.float64)
        drives = [_drive(flat[..., group, :], layer, design) for group in range(layer.groups)]
        z = torch.zeros(*flat.shape[:3], layer.outputs, dtype=torch.float64)
        for moment in moments:
            if moment.tile.layer is not layer:
                continue
            slot = moment.tile.slot
            part = _tile(design, moment, weights[moment.tile.name], drives[slot.group], noise)
            z = z + _placed(part, slot.group, slot.outputs, layer)
        z = z * (layer.input_scale * layer.weight_scale)
        if layer.bias is not None and design.mapping.bias == "digital":
            z = z + _tensor(layer.bias)
        result = z.reshape(*rows.shape[:-2], -1).to(x.dtype)
        if uses is not None:
            shift = torch.zeros(*flat.shape[:2], result.shape[-1], dtype=x.dtype)
            shift.requires_grad_()
            result = result + shift.reshape(result.shape)
            uses.append(
                Use(
                    layer,
                    shift,
                    torch.stack([drive.total for drive in drives], dim=2),
                    torch.stack([drive.power for drive in drives], dim=2),
                    float(np.square(drives[0].weight).sum()),
                )
            )
        return fold(result, layer)

    constants = {name: torch.as_tensor(array) for name, array in design.constants.items()}
    return execute(design.program, constants, inputs, crossbar)


class _Drive(NamedTuple):
    """Pulses as the converter makes them, and their sum as torch differentiates it."""

    fraction: Array  # (pulse, sample, position, row)
    weight: Array  # (pulse,)
    offset: float
    total: torch.Tensor  # (sample, position, row)
    power: torch.Tensor


def _drive(x: torch.Tensor, layer: Layer, design: Design) -> _Drive:
    drive = encode(x.detach().cpu().numpy(), layer, design.mapping, design.technology)
    total = _tensor(np.einsum("p,p...->...", drive.weight, drive.fraction))
    power = _tensor(np.einsum("p,p...->...", drive.weight**2, np.square(drive.fraction)))
    if x.requires_grad:
        u = (x / layer.input_scale).clamp(-1.0 if layer.signed else 0.0, 1.0)
        total = _straight_through(total, u)
        power = _straight_through(power, u * u)
    return _Drive(drive.fraction, drive.weight, drive.offset, total, power)


def _straight_through(value: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Give the value the gradient of u, on the inputs' rows (bias rows have none)."""
    padded = torch.nn.functional.pad(u, (0, value.shape[-1] - u.shape[-1]))
    return value + (padded - padded.detach())


def _tile(
    design: Design,
    moment: TileMoments,
    weight: torch.Tensor,
    drive: _Drive,
    noise: np.random.Generator | None,
) -> torch.Tensor:
    """Outputs of one tile in units of full range; (sample, position, output)."""
    layer, slot, mapping = moment.tile.layer, moment.tile.slot, design.mapping
    slices = _tensor(slice_weights(mapping))
    merged = (weight.reshape(weight.shape[0], -1, mapping.slices) * slices).sum(-1)
    z = drive.total[..., slot.rows] @ merged
    if noise is not None or mapping.adc_bits is not None:
        fraction = drive.fraction[..., slot.rows]
        difference = fraction @ weight.detach().cpu().numpy()
        if noise is not None:
            variance = np.square(fraction) @ moment.read.numpy() + moment.thermal.numpy()
            difference = difference + np.sqrt(variance) * noise.standard_normal(variance.shape)
        value = combine(np.moveaxis(difference, 0, -2), drive.weight, layer, mapping)
        z = z + (_tensor(value) - z.detach())
    if drive.offset:
        inputs = max(0, min(layer.inputs, slot.rows.stop) - slot.rows.start)
        target = weight_of_conductance(moment.tile.g_target, mapping, design.technology)
        z = z - drive.offset * _tensor(target[:inputs].sum(axis=0))
    return z


def _placed(part: torch.Tensor, group: int, outputs: slice, layer: Layer) -> torch.Tensor:
    """Embed one tile's outputs into its layer's (…, group, output)."""
    if layer.groups == 1 and outputs == slice(0, layer.outputs):
        return part.unsqueeze(-2)
    padded = torch.nn.functional.pad(part, (outputs.start, layer.outputs - outputs.stop))
    return torch.nn.functional.pad(padded.unsqueeze(-2), (0, 0, group, layer.groups - 1 - group))


def _plus(g: Array) -> Array:
    return g[..., 0::2]


def _minus(g: Array) -> Array:
    return g[..., 1::2]


def _tensor(array: Array) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64)
