"""Gains and offsets of converters, drawn anew for a pass of training."""

from __future__ import annotations

import torch

from spicenn.compiler.converter import pulse_sum
from spicenn.compiler.convolution import kernel
from spicenn.training.draws import Draws
from spicenn.training.physics import ConverterErrors, Physics


def with_errors(
    physics: Physics,
    errors: ConverterErrors,
    draws: Draws,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    scale: torch.Tensor,
    full: torch.Tensor,
    output_range: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights and bias with one draw of a layer's converters; see ``compiler.structure``.

    Every row of tiles has ADCs of its own; a row has one DAC, and bias rows have theirs.

    Parameters
    ----------
    weight, bias : as currents have them. scale : the largest weight. full : that times the
        input range. output_range : of the converters, over full.
    """
    layer, count = physics.layer, physics.bias_rows
    rows = layer.inputs + count
    gain = torch.ones(layer.groups, layer.outputs, rows, dtype=weight.dtype, device=weight.device)
    offset = torch.zeros(layer.groups, layer.outputs, dtype=weight.dtype, device=weight.device)
    shape = (layer.groups, layer.outputs)
    for cut in physics.row_cuts:
        if errors.adc_gain:
            drawn = draws.normal(shape, weight)[..., None]
            gain[..., cut] = 1.0 + errors.adc_gain * drawn
        if errors.adc_offset:
            offset += errors.adc_offset * draws.normal(shape, weight)
    offset *= output_range * pulse_sum(layer, physics.design.mapping, physics.design.technology)
    if errors.dac_offset:
        driven = errors.dac_offset * draws.normal((layer.groups, 1, layer.inputs), weight)
        matrix = weight.detach().reshape(*shape, layer.inputs) / scale
        offset += (matrix * driven * gain[..., : layer.inputs]).sum(-1)
    if errors.dac_gain:
        gain = gain * (1.0 + errors.dac_gain * draws.normal((layer.groups, 1, rows), weight))
    weight = weight * kernel(gain[..., : layer.inputs].contiguous(), layer)
    added = (offset * full).flatten()
    if bias is None:
        return weight, added
    return weight, bias * gain[..., layer.inputs :].mean(-1).flatten() + added
