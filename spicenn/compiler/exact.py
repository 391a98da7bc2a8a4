"""One manufactured chip as an ordinary torch module: every tile's Kirchhoff solution, once.

A tile of linear cells is a linear map whatever its wires. Its effective matrix is
computed once per chip; from then on every input costs a plain matrix product. Gains of
converters scale its rows and columns, their offsets are added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from spicenn.compiler.convolution import fold, row_elements
from spicenn.compiler.layer import Layer
from spicenn.compiler.operators import DTYPES
from spicenn.compiler.placement import PlacedTile, stack_cells
from spicenn.compiler.product import Weights, linear_product, merged, tiled_product
from spicenn.compiler.program import execute
from spicenn.compiler.readout import beyond_matrices
from spicenn.compiler.structure import chip_structure, has_offsets, realise
from spicenn.engines.laws import as_resistors, is_linear
from spicenn.errors import EngineError
from spicenn.kirchhoff.currents import effective_matrix

if TYPE_CHECKING:
    from spicenn.compiler.adapter import Adapter
    from spicenn.compiler.chip import Chip
    from spicenn.compiler.design import Design

# Called with the tiles done and all tiles.
Progress = Callable[[int, int], None]

# Cells that are solved at a time, and elements of one layer's drives: they bound the memory.
_CELLS = 1 << 20
_ELEMENTS = 1 << 24


def chip_module(chip: Chip, progress: Progress | None = None) -> ChipModule:
    """Compute every tile's effective matrix of a chip and return it as a module.

    Raises EngineError for a cell that is not linear, or a periphery that no effective
    matrix holds.
    """
    design = chip.design
    if beyond := beyond_matrices(design):
        raise EngineError(
            f"{', '.join(beyond)}: not part of effective matrices",
            where=f"design {design.name!r}",
            remedy="use chip.run(x, engine='nodal' or 'ngspice'), or an ideal periphery",
        )
    cell = design.technology.cell
    if not is_linear(cell):
        raise EngineError(
            f"the cell {cell.name!r} is not known to be linear, and only tiles of linear cells "
            "have an effective matrix",
            where=f"design {design.name!r}",
            remedy="use chip.run(x, engine='nodal' or 'ngspice'), or a linear cell",
        )
    module = ChipModule(design, chip.adapter)
    done, structure = 0, chip_structure(design, chip.index, chip.seed)
    for layer in module.crossbars:
        weights: dict[str, torch.Tensor] = {}
        for batch in _batches(layer.tiles):
            weights.update(effective_weights(chip, batch))
            done += len(batch)
            if progress is not None:
                progress(done, len(design.tiles))
        layer.set_weights(*realise(layer.tiles, {**weights, **structure}))
    return module


def effective_weights(chip: Chip, tiles: Sequence[PlacedTile]) -> dict[str, torch.Tensor]:
    """Differential effective matrices of tiles of one shape.

    Returns (wordline, output · slice) per tile name, over g_max - g_min, float64.
    """
    technology = chip.design.technology
    cells = stack_cells([chip.cells(tile) for tile in tiles])
    _, g, _ = as_resistors(tiles[0].crossbar, cells.g, cells.parameters)
    r_wordline, r_bitline = tiles[0].crossbar.segments()
    matrix = effective_matrix(g, r_wordline=r_wordline, r_bitline=r_bitline)
    difference = (matrix[..., 0::2] - matrix[..., 1::2]) / (technology.g_max - technology.g_min)
    return {tile.name: torch.as_tensor(part) for tile, part in zip(tiles, difference, strict=True)}


def _batches(tiles: Sequence[PlacedTile]) -> Iterator[list[PlacedTile]]:
    """Tiles of one shape, so many that they fit."""
    shapes: dict[tuple[int, int], list[PlacedTile]] = {}
    for tile in tiles:
        rows, columns = tile.g_target.shape
        shapes.setdefault((rows, columns), []).append(tile)
    for (rows, columns), alike in shapes.items():
        size = max(1, _CELLS // (rows * columns))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


class ChipModule(nn.Module):
    """A chip's program with its effective matrices as layers.

    Takes what the compiled model takes and returns its output, a tuple of several. It
    is deterministic: wires, programming errors and converters are in it, noisy reads
    are not (``Chip.run`` draws them). Gradients flow to the inputs, through
    quantisation as if it were not there, and stop where an input saturates.

    Weights and the model's constants are buffers in the model's dtype. Without
    converters a layer is one ``functional.linear`` or convolution. With ``adc_bits`` it
    is computed tile by tile as the chip does, slower, from buffers in double precision
    (until ``.float()``): single precision would land on another code where a current is
    next to a step.

    A chip's ``Adapter`` is part of it and not of its state.

    Constructed from a design alone its weights are zero, to be loaded:
    ``module.load_state_dict(torch.load(path, weights_only=True))``.
    """

    def __init__(self, design: Design, adapter: Adapter | None = None) -> None:
        super().__init__()
        self.design, self.adapter = design, adapter
        dtype = model_dtype(design)
        # Follows ``.double()`` and ``.float()``: the dtype of inputs.
        self.register_buffer("_dtype", torch.empty(0, dtype=dtype), persistent=False)
        tiles: dict[str, list[PlacedTile]] = {layer.name: [] for layer in design.layers}
        for tile in design.tiles:
            tiles[tile.layer.name].append(tile)
        self.layers = nn.ModuleList(
            _TiledLayer(design, layer, tiles[layer.name])
            if design.mapping.adc_bits
            else _MergedLayer(design, layer, tiles[layer.name], dtype)
            for layer in design.layers
        )
        # A constant's name may hold what a buffer's may not.
        self._constants = {name: f"constant_{i}" for i, name in enumerate(design.constants)}
        for name, key in self._constants.items():
            self.register_buffer(key, torch.tensor(design.constants[name]))
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the model's output, or a tuple of several.

        Raises InputError for inputs that do not fit the model.
        """
        constants = {name: self.get_buffer(key) for name, key in self._constants.items()}
        layers = {layer.layer.name: layer for layer in self.crossbars}
        dtype = self.get_buffer("_dtype").dtype

        def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = layers[name](x)
            if self.adapter is not None:
                axis = -1 if layers[name].layer.convolution is None else 1
                result = self.adapter.apply(name, result, axis=axis)
            return result

        outputs = execute(self.design.program, constants, inputs, crossbar, floating=dtype)
        return outputs if len(outputs) > 1 else outputs[0]

    @property
    def crossbars(self) -> tuple[_Layer, ...]:
        """The design's layers, in order."""
        return tuple(layer for layer in self.layers if isinstance(layer, _Layer))

    def extra_repr(self) -> str:
        return repr(self.design)


class _Layer(nn.Module):
    """One layer of the chip. Takes what ``program.execute`` hands to a crossbar."""

    def __init__(self, design: Design, layer: Layer, tiles: list[PlacedTile]) -> None:
        super().__init__()
        self.design, self.layer, self.tiles = design, layer, tiles

    def set_weights(self, weights: Weights, offsets: Weights) -> None:
        """Take over the effective matrices of all of its tiles, and the offsets there are."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self.layer.name!r}, {len(self.tiles)} tiles"


class _MergedLayer(_Layer):
    """A layer as one weight and one bias: what its tiles and their bias rows add up to."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self, design: Design, layer: Layer, tiles: list[PlacedTile], dtype: torch.dtype
    ) -> None:
        super().__init__(design, layer, tiles)
        nothing = {
            tile.name: torch.zeros(tile.g_target.shape[0], tile.g_target.shape[1] // 2)
            for tile in tiles
        }
        weight, bias = merged(design, layer, tiles, nothing)
        if bias is None and has_offsets(design):
            bias = torch.zeros(layer.groups * layer.outputs)
        self.register_buffer("weight", torch.zeros_like(weight, dtype=dtype))
        self.register_buffer("bias", None if bias is None else torch.zeros_like(bias, dtype=dtype))

    def set_weights(self, weights: Weights, offsets: Weights) -> None:
        weight, bias = merged(self.design, self.layer, self.tiles, weights, offsets)
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear_product(self.design, self.layer, x, self.weight, self.bias)


class _TiledLayer(_Layer):
    """A layer whose tiles are converted one by one before they are added."""

    def __init__(self, design: Design, layer: Layer, tiles: list[PlacedTile]) -> None:
        super().__init__(design, layer, tiles)
        for tile in tiles:
            rows, columns = tile.g_target.shape
            self.register_buffer(tile.name, torch.zeros(rows, columns // 2, dtype=torch.float64))
            if has_offsets(design):
                offset = torch.zeros(columns // 2, dtype=torch.float64)
                self.register_buffer(f"{tile.name}_offset", offset)

    def set_weights(self, weights: Weights, offsets: Weights) -> None:
        for name, weight in weights.items():
            self.get_buffer(name).copy_(weight)
        for name, offset in offsets.items():
            self.get_buffer(f"{name}_offset").copy_(offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = {tile.name: self.get_buffer(tile.name).double() for tile in self.tiles}
        offsets = {
            name: self.get_buffer(f"{name}_offset").double()
            for name in (weights if has_offsets(self.design) else ())
        }
        size = max(1, _ELEMENTS // row_elements(x, self.layer))

        def product(part: torch.Tensor) -> torch.Tensor:
            z, _ = tiled_product(
                self.design, self.layer, self.tiles, weights, part, offsets=offsets
            )
            return fold(z, self.layer)

        return torch.cat([product(part) for part in torch.split(x, size)])


def model_dtype(design: Design) -> torch.dtype:
    """The model's dtype: of its first floating-point output, else input."""
    program = design.program
    for port in (*program.outputs, *program.inputs):
        dtype = DTYPES[port.dtype]
        if dtype.is_floating_point:
            return dtype
    return torch.float32
