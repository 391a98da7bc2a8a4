"""Choose every layer's scales from calibration data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from spicenn.compiler.convolution import digital_crossbar, row_elements, unfold
from spicenn.compiler.ideal import ideal_differences, ideal_tiles
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.mapping import Mapping as Choices
from spicenn.compiler.mapping import Tile
from spicenn.compiler.program import Program, execute
from spicenn.compiler.tiling import bias_rows
from spicenn.errors import CompileError
from spicenn.technology import Technology

# Samples per run and driven values per product: they bound the memory, nothing else.
_SAMPLES = 128
_ELEMENTS = 1 << 23
# More lines than this for one bias mean that the input scale is off, not the bias.
_MOST_BIAS_ROWS = 1024

_Observer = Callable[[Layer, torch.Tensor], None]


def calibrate_layers(
    layers: Sequence[Layer],
    program: Program,
    constants: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    *,
    technology: Technology,
    tile: Tile,
    mapping: Choices,
) -> tuple[Layer, ...]:
    """Return the layers with their scales, set over all uses of each.

    Parameters
    ----------
    inputs : calibration samples, sample axis first.

    Raises CompileError where an input is not finite or a bias cannot be driven.
    """
    scaled = _input_scales(layers, program, constants, inputs, mapping)
    largest = {layer.name: 0.0 for layer in layers}

    def currents(layer: Layer, x: torch.Tensor) -> None:
        final = scaled[layer.name]
        tiles = ideal_tiles(final, tile, mapping, technology)
        for part in torch.split(x, max(1, _ELEMENTS // row_elements(x, layer))):
            rows = np.asarray(unfold(part, layer), dtype=np.float64)
            rows = rows.reshape(-1, layer.groups, layer.inputs)
            for difference in ideal_differences(rows, final, tiles, mapping, technology):
                peak = float(np.abs(difference).max(initial=0.0))
                largest[layer.name] = max(largest[layer.name], peak)

    _run(layers, program, constants, inputs, currents)
    return tuple(
        replace(scaled[layer.name], current_scale=largest[layer.name] or 1.0) for layer in layers
    )


def _input_scales(
    layers: Sequence[Layer],
    program: Program,
    constants: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    mapping: Choices,
) -> dict[str, Layer]:
    magnitudes: dict[str, list[Array]] = {layer.name: [] for layer in layers}
    signed = {layer.name: False for layer in layers}

    def collect(layer: Layer, x: torch.Tensor) -> None:
        values = np.asarray(x, dtype=np.float64).ravel()
        if not np.all(np.isfinite(values)):
            raise CompileError(
                "its input is NaN or infinite on the calibration data",
                where=f"layer {layer.name!r}",
            )
        signed[layer.name] |= bool((values < 0).any())
        magnitude = np.abs(values)
        if mapping.input_quantile == 1.0:
            magnitude = magnitude.max(initial=0.0, keepdims=True)
        magnitudes[layer.name].append(magnitude)

    _run(layers, program, constants, inputs, collect)
    result = {}
    for layer in layers:
        seen = np.concatenate(magnitudes[layer.name])
        # A quantile of 0 (most inputs are 0) would leave nothing to drive.
        scale = float(np.quantile(seen, mapping.input_quantile)) or float(seen.max()) or 1.0
        scaled = replace(
            layer,
            signed=signed[layer.name],
            input_scale=scale,
            weight_scale=float(np.abs(layer.weight).max()) or 1.0,
        )
        if bias_rows(scaled, mapping) > _MOST_BIAS_ROWS:
            raise CompileError(
                f"its bias needs {bias_rows(scaled, mapping)} wordlines: inputs reach only "
                f"{scale:.3g} on the calibration data",
                where=f"layer {layer.name!r}",
                remedy="use Mapping(bias='digital') or calibrate with typical inputs",
            )
        result[layer.name] = scaled
    return result


def _run(
    layers: Sequence[Layer],
    program: Program,
    constants: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    see: _Observer,
) -> None:
    known = {layer.name: layer for layer in layers}
    compute = digital_crossbar(layers)

    def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
        see(known[name], x)
        return compute(name, x)

    with torch.no_grad():
        for start in range(0, len(inputs[0]), _SAMPLES):
            execute(program, constants, [x[start : start + _SAMPLES] for x in inputs], crossbar)
