"""Derivatives of a design's outputs by every cell of a chip, kept in factors.

A layer's weight meets the outputs through z = drive @ weight, so the derivative by
one weight is the product of its row's drive and the output's derivative by z. The
Jacobian (samples · outputs by cells) is never written out where a factor will do. Of
converters and wires there are few: the derivatives by their numbers are written out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from spicenn.compiler.layer import Layer
from spicenn.compiler.structural import TileMoments, Use, forward, wires_of, with_wires
from spicenn.compiler.structure import (
    ADC_GAIN,
    ADC_OFFSET,
    DAC_GAIN,
    DAC_OFFSET,
    WIRES,
    Parameters,
    column,
    key,
    row,
)
from spicenn.compiler.tiling import slice_weights

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

# Elements of one temporary array of the kernel: 256 MB of float64.
_CHUNK = 1 << 25


@dataclass(frozen=True, eq=False)
class Factors:
    """One layer's derivatives at every sample, all of its uses along ``position``.

    drive : (sample, position, group, row).
    back : (sample, model output, position, group, output), scales included.
    pulses : Σ over pulses of their weights, by which an offset counts.
    """

    drive: torch.Tensor
    back: torch.Tensor
    pulses: float

    def of(self, moment: TileMoments) -> tuple[torch.Tensor, torch.Tensor]:
        """This tile's part: (sample, position, row), (sample, model output, position, output)."""
        slot = moment.tile.slot
        return (
            self.drive[:, :, slot.group, slot.rows],
            self.back[:, :, :, slot.group, slot.outputs],
        )


@dataclass(frozen=True, eq=False)
class Linearisation:
    """A design's outputs and their derivatives at one chip's parameters.

    Changes and variances of parameters are as ``structure.Parameters`` are; those left out
    do not change.

    value : (sample, output) float64, all floating-point outputs side by side.
    factors : per layer name.
    noise : (sample, output, output), covariance of one noisy read.
    parameters : of the chip.
    """

    design: Design
    moments: tuple[TileMoments, ...]
    value: torch.Tensor
    factors: Mapping[str, Factors]
    noise: torch.Tensor
    parameters: Parameters

    def apply(self, change: Parameters) -> torch.Tensor:
        """Jacobian times a change of the parameters; (sample, output)."""
        result = torch.zeros_like(self.value)
        for moment in self._varying(change):
            drive, back = self._of(moment)
            z = drive @ self._merge(change[moment.tile.name], moment)
            result = result + torch.einsum("npo,nkpo->nk", z, back)
        for name, feature in self._features(change):
            result = result + feature @ change[name].flatten()
        return result

    def adjoint(
        self, residual: torch.Tensor, wanted: Parameters | None = None
    ) -> dict[str, torch.Tensor]:
        """Transposed Jacobian times (sample, output).

        Parameters
        ----------
        wanted : whose names and shapes the result has; the chip's own if None.
        """
        result, wanted = {}, self.parameters if wanted is None else wanted
        for moment in self._varying(wanted):
            drive, back = self._of(moment)
            z = torch.einsum("nk,nkpo->npo", residual, back)
            merged = torch.einsum("npi,npo->io", drive, z)
            slices = self._slices(moment)
            result[moment.tile.name] = (merged[..., None] * slices).reshape(len(merged), -1)
        for name, feature in self._features(wanted):
            result[name] = torch.einsum("nk,nkf->f", residual, feature).reshape(wanted[name].shape)
        return result

    def kernel(self, other: Linearisation, variance: Parameters) -> torch.Tensor:
        """J diag(variance) J'ᵀ; (sample · output, other's sample · output).

        Parameters
        ----------
        other : about the same parameters.
        """
        n, k = self.value.shape
        m, j = other.value.shape
        result = torch.zeros(n * k, m * j, dtype=torch.float64)
        for moment in self._varying(variance):
            merged = self._merge_variance(variance[moment.tile.name], moment)
            result = result + _tile_kernel(self._of(moment), other._of(moment), merged)
        there = other._features(variance)
        for (name, left), (_, right) in zip(self._features(variance), there, strict=True):
            scaled = (left * variance[name].flatten()).flatten(0, 1)
            result = result + scaled @ right.flatten(0, 1).T
        return result

    def blocks(self, variance: Parameters) -> torch.Tensor:
        """The kernel's diagonal blocks alone; (sample, output, output)."""
        n, k = self.value.shape
        result = torch.zeros(n, k, k, dtype=torch.float64)
        for moment in self._varying(variance):
            drive, back = self._of(moment)
            merged = self._merge_variance(variance[moment.tile.name], moment)
            if back.shape[2] == 1:
                z = drive[:, 0].square() @ merged
                result = result + torch.einsum("nko,no,nlo->nkl", back[:, :, 0], z, back[:, :, 0])
                continue
            root = merged.sqrt()
            for index in range(n):  # a sample's features may be all that fits
                one = (torch.einsum("pi,kpo->kio", drive[index], back[index]) * root).flatten(1)
                result[index] += one @ one.T
        for name, feature in self._features(variance):
            scaled = feature * variance[name].flatten()
            result = result + scaled @ feature.transpose(1, 2)
        return result

    def spread_of(self, columns: torch.Tensor, variance: Parameters) -> dict[str, torch.Tensor]:
        """Square root of the variance times the transposed Jacobian times many columns.

        Parameters
        ----------
        columns : (sample, output, column).

        Returns
        -------
        Per name (parameter, column); of a tile's cells the slices are merged.
        """
        result = {}
        for moment in self._varying(variance):
            drive, back = self._of(moment)
            root = self._merge_variance(variance[moment.tile.name], moment).sqrt()
            z = torch.einsum("nkt,nkpo->npot", columns, back)
            merged = torch.einsum("npi,npot->iot", drive, z)
            result[moment.tile.name] = (merged * root[:, :, None]).flatten(0, 1)
        for name, feature in self._features(variance):
            root = variance[name].flatten().sqrt()
            result[name] = torch.einsum("nkt,nkf->ft", columns, feature) * root[:, None]
        return result

    @cached_property
    def _tiled(self) -> Parameters:
        """The parameters with wires in the tiles' matrices."""
        return with_wires(self.moments, self.parameters)

    def _varying(self, parameters: Parameters) -> Iterator[TileMoments]:
        """Tiles whose cells are among the parameters."""
        return (moment for moment in self.moments if moment.tile.name in parameters)

    def _of(self, moment: TileMoments) -> tuple[torch.Tensor, torch.Tensor]:
        """What the tile's DACs drive (sample, position, row), and its part of ``back``."""
        factors, tile = self.factors[moment.tile.layer.name], moment.tile
        drive, back = factors.of(moment)
        gain = row(self.parameters, DAC_GAIN, tile)
        offset = row(self.parameters, DAC_OFFSET, tile)
        if isinstance(gain, torch.Tensor):
            drive = drive * (1.0 + gain)
        if isinstance(offset, torch.Tensor):
            drive = drive + factors.pulses * offset
        return drive, back

    def _slices(self, moment: TileMoments) -> torch.Tensor:
        """What a difference of each slice counts, its ADC's gain included; (output, slice)."""
        slices = torch.as_tensor(slice_weights(self.design.mapping))
        gain = column(self.parameters, ADC_GAIN, moment.tile)
        if not isinstance(gain, torch.Tensor):
            return slices[None]
        return slices * (1.0 + gain.reshape(-1, len(slices)))

    def _merge(self, weight: torch.Tensor, moment: TileMoments) -> torch.Tensor:
        slices = self._slices(moment)
        return (weight.reshape(len(weight), -1, slices.shape[1]) * slices).sum(-1)

    def _merge_variance(self, variance: torch.Tensor, moment: TileMoments) -> torch.Tensor:
        slices = self._slices(moment)
        return (variance.reshape(len(variance), -1, slices.shape[1]) * slices**2).sum(-1)

    def _features(self, wanted: Parameters) -> Iterator[tuple[str, torch.Tensor]]:
        """Derivatives by converters and wires, (sample, output, number), of those wanted."""
        slices = torch.as_tensor(slice_weights(self.design.mapping))
        for moment in self.moments:
            name = key(ADC_GAIN, moment.tile)
            if name in wanted:
                drive, back = self._of(moment)
                z = drive @ self._tiled[moment.tile.name]
                z = z.reshape(*z.shape[:2], -1, len(slices)) * slices
                yield name, torch.einsum("npos,nkpo->nkos", z, back).flatten(2)
            name = key(ADC_OFFSET, moment.tile)
            if name in wanted:
                factors, layer = self.factors[moment.tile.layer.name], moment.tile.layer
                _, back = factors.of(moment)
                unit = slices * (factors.pulses * layer.current_scale)
                yield name, (back.sum(2)[..., None] * unit).flatten(2)
        for layer in self.design.layers:
            for mechanism in (DAC_GAIN, DAC_OFFSET):
                name = key(mechanism, layer)
                if name in wanted:
                    yield name, self._rows(layer, self.factors[layer.name], mechanism)
        if WIRES in wanted:
            yield WIRES, self._by_wires()

    def _by_wires(self) -> torch.Tensor:
        """Derivative by λ, which is zero where the chip has none; (sample, output, 1)."""
        result = torch.zeros_like(self.value)
        for moment in self.moments:
            drive, back = self._of(moment)
            z = drive @ self._merge(wires_of(moment), moment)
            result = result + torch.einsum("npo,nkpo->nk", z, back)
        if WIRES in self.parameters:
            result = result * self.parameters[WIRES].exp()
        return result.unsqueeze(-1)

    def _rows(self, layer: Layer, factors: Factors, mechanism: str) -> torch.Tensor:
        """Derivatives by one mechanism of a layer's DACs; (sample, output, group · row)."""
        drive = factors.drive if mechanism == DAC_GAIN else None
        n, k = self.value.shape
        groups, rows = factors.drive.shape[2:]
        parts = [torch.zeros(n, k, rows, dtype=torch.float64) for _ in range(groups)]
        for moment in self.moments:
            if moment.tile.layer is not layer:
                continue
            slot = moment.tile.slot
            _, back = factors.of(moment)
            merged = self._merge(self._tiled[moment.tile.name], moment)
            if drive is None:
                part = factors.pulses * (back.sum(2) @ merged.T)
            else:
                there = drive[:, :, slot.group, slot.rows]
                part = torch.einsum("npi,nkpi->nki", there, back @ merged.T)
            before, after = slot.rows.start, rows - slot.rows.stop
            padded = torch.nn.functional.pad(part, (before, after))
            parts[slot.group] = parts[slot.group] + padded
        return torch.cat(parts, dim=2)


def linearise(
    design: Design,
    moments: tuple[TileMoments, ...],
    parameters: Parameters,
    inputs: Sequence[torch.Tensor],
    *,
    differentiable: bool = False,
) -> Linearisation:
    """Outputs of a design and their derivatives by all of its cells, converters and wires.

    Parameters
    ----------
    parameters : of the chip, as ``structural.forward`` takes them.
    differentiable : keep the graph, so that a function of the result can be
        differentiated by the inputs.
    """
    uses: list[Use] = []
    with torch.enable_grad():
        outputs = forward(design, moments, parameters, inputs, uses=uses)
        flat = flatten_outputs(outputs)
        shifts = [use.shift for use in uses]
        columns = []
        for index in range(flat.shape[1]):
            # Samples do not meet in a model, so the sum's gradient holds each one's own.
            columns.append(
                torch.autograd.grad(
                    flat[:, index].sum(),
                    shifts,
                    retain_graph=True,
                    create_graph=differentiable,
                    materialize_grads=True,
                )
            )
    factors: dict[str, Factors] = {}
    noise = torch.zeros(flat.shape[0], flat.shape[1], flat.shape[1], dtype=torch.float64)
    for number, use in enumerate(uses):
        layer = use.layer
        scale = layer.input_scale * layer.weight_scale
        back = torch.stack([column[number] for column in columns], dim=1).to(torch.float64) * scale
        back = back.reshape(*back.shape[:3], layer.groups, layer.outputs)
        factor = Factors(use.drive, back, use.pulses)
        noise = noise + _read_covariance(design, moments, parameters, use, back)
        if layer.name in factors:
            first = factors[layer.name]
            factor = Factors(
                torch.cat([first.drive, factor.drive], dim=1),
                torch.cat([first.back, factor.back], dim=2),
                use.pulses,
            )
        factors[layer.name] = factor
    value = flat.to(torch.float64)
    if not differentiable:
        value, noise = value.detach(), noise.detach()
        factors = {
            name: Factors(factor.drive.detach(), factor.back.detach(), factor.pulses)
            for name, factor in factors.items()
        }
    return Linearisation(design, moments, value, factors, noise, dict(parameters))


def flatten_outputs(outputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """All floating-point outputs of a model side by side; (sample, output)."""
    return torch.cat([y.flatten(1) for y in outputs if y.is_floating_point()], dim=1)


def _read_covariance(
    design: Design,
    moments: Sequence[TileMoments],
    parameters: Parameters,
    use: Use,
    back: torch.Tensor,
) -> torch.Tensor:
    """Covariance of the outputs from the noise of one use; (sample, output, output).

    An offset of a DAC drives noise too, which is left out.
    """
    weights = torch.as_tensor(slice_weights(design.mapping)) ** 2
    layer = use.layer
    total = torch.zeros(*use.power.shape[:3], layer.outputs, dtype=torch.float64)
    for moment in moments:
        if moment.tile.layer is not layer:
            continue
        slot = moment.tile.slot
        power = use.power[:, :, slot.group, slot.rows]
        driven = row(parameters, DAC_GAIN, moment.tile)
        if isinstance(driven, torch.Tensor):
            power = power * (1.0 + driven).square()
        variance = power @ moment.read + use.gain * moment.thermal
        variance = variance * (1.0 + column(parameters, ADC_GAIN, moment.tile)) ** 2
        variance = (variance.reshape(*variance.shape[:-1], -1, len(weights)) * weights).sum(-1)
        before = (slot.outputs.start, layer.outputs - slot.outputs.stop)
        groups = (slot.group, layer.groups - 1 - slot.group)
        total = total + torch.nn.functional.pad(variance.unsqueeze(-2), (*before, *groups))
    return torch.einsum("nkpgo,npgo,nlpgo->nkl", back, total, back)


def _tile_kernel(
    left: tuple[torch.Tensor, torch.Tensor],
    right: tuple[torch.Tensor, torch.Tensor],
    variance: torch.Tensor,
) -> torch.Tensor:
    (drive, back), (drive2, back2) = left, right
    n, k, positions, outputs = back.shape
    m, j = back2.shape[:2]
    rows = drive.shape[-1]
    total = torch.zeros(n * k, m * j, dtype=torch.float64)
    if positions == 1:
        # One position: the kernel is Σ_o (drives' kernel under o's variances) ∘ (back backᵀ).
        step = max(1, _CHUNK // max(1, n * m * max(k, j), n * rows))
        for start in range(0, outputs, step):
            part = slice(start, start + step)
            scaled = drive[:, 0] * variance[:, part].T[:, None, :]
            gram = scaled @ drive2[:, 0].T  # (output, sample, other sample)
            a = back[:, :, 0, part].permute(0, 2, 1)  # (sample, output, model output)
            b = back2[:, :, 0, part].permute(2, 0, 1)  # (output, other sample, its output)
            weighted = (gram.permute(1, 2, 0)[:, :, None, :] * b.permute(1, 2, 0)[None]).reshape(
                n, m * j, -1
            )
            total = total + (weighted @ a).permute(0, 2, 1).reshape(n * k, m * j)
        return total
    step = max(1, _CHUNK // max(1, max(n * k, m * j) * rows))
    root = variance.clamp_min(0.0).sqrt()
    for start in range(0, outputs, step):
        part = slice(start, start + step)
        features = [
            (torch.einsum("npi,nkpo->nkio", d, b[..., part]) * root[:, part]).flatten(2)
            for d, b in (left, right)
        ]
        total = total + features[0].flatten(0, 1) @ features[1].flatten(0, 1).T
    return total
