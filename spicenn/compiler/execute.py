"""Run manufactured chips: the program in torch, every layer on an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler import readout
from spicenn.compiler.converter import Drive
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import PlacedTile, sample_tile, stack_cells
from spicenn.compiler.program import CrossbarCall, execute
from spicenn.compiler.reading import Read, add_noise
from spicenn.compiler.result import Result, TileRecord
from spicenn.compiler.tiling import weight_of_conductance
from spicenn.engines.engine import Engine
from spicenn.engines.laws import as_resistors, out_of_range
from spicenn.errors import ConvergenceError, InputError, Status, error_of
from spicenn.technology.variation import Cells

if TYPE_CHECKING:
    import torch

    from spicenn.compiler.chip import Chip
    from spicenn.compiler.design import Design

KEEP = frozenset({"bitline_current", "g_target", "g"})

# Cells of a tile of one chip.
CellSource = Callable[[PlacedTile, int], Cells]

# Called for every tile of every use: tile, its cells on every chip, chip first,
# (chip or 1, trial or 1, sample, position, pulse, wordline) voltages and the currents.
Observer = Callable[[PlacedTile, Cells, Array, Array], None]

# Takes a layer's name and its digital results (chip, trial, sample, position, output) in the
# model's units, and returns what the program goes on with. Called once for every use.
Correction = Callable[[str, Array], Array]


def run_chips(
    design: Design,
    chips: Sequence[int],
    seed: int,
    inputs: tuple[NDArray[Any], ...],
    engine: Engine,
    *,
    trials: int = 1,
    keep: frozenset[str] = frozenset(),
    observer: Observer | None = None,
    cells: CellSource | None = None,
    correct: Correction | None = None,
) -> Result:
    """Run the same inputs through several chips of one design.

    Parameters
    ----------
    chips : indices; with the seed they fix every cell and every read.
    inputs : one array per model input, sample axis first (see ``as_inputs``).
    trials : repeated noisy reads.
    keep : what to return per tile, any of ``KEEP``.
    cells : of a tile and a chip's index, where they are not those of the seed.
    correct : of every layer's results on all chips, before what follows; ``Adapter.apply``.

    A chip that fails gets NaN outputs, its status and its message; the others go on.
    """
    import torch

    if unknown := keep - KEEP:
        raise InputError(
            f"keep has {sorted(unknown)}", remedy="allowed: " + ", ".join(sorted(KEEP))
        )
    if trials < 1 or not chips:
        raise InputError("at least one chip and one trial are needed")
    samples = inputs[0].shape[0]
    source = cells or (lambda tile, chip: sample_tile(design, tile, chip, seed))
    run = _Run(design, tuple(chips), seed, engine, trials, samples, keep, observer, source, correct)
    copies = len(chips) * trials
    tensors = [torch.as_tensor(np.concatenate([array] * copies)) for array in inputs]
    constants = {name: torch.tensor(array) for name, array in design.constants.items()}
    with torch.no_grad():
        outputs = execute(design.program, constants, tensors, run.crossbar)
    return run.result(outputs)


def crossbar_call(
    design: Design,
    chip: int,
    seed: int,
    engine: Engine,
    samples: int,
    *,
    cells: CellSource | None = None,
    correct: Correction | None = None,
    use: int = 0,
) -> CrossbarCall:
    """Return what computes single layers on one chip: (layer name, inputs) to its results.

    Parameters
    ----------
    samples : of the batch, the first axis of every layer's inputs.
    cells, correct : as for ``run_chips``.
    use : number of the first read of every layer, which tells its noise from another's.

    The call raises an EngineError naming the tile where the engine fails.
    """
    source = cells or (lambda tile, index: sample_tile(design, tile, index, seed))
    run = _Run(design, (chip,), seed, engine, 1, samples, frozenset(), None, source, correct)
    run.uses = {layer.name: use for layer in design.layers}

    def crossbar(name: str, x: torch.Tensor) -> torch.Tensor:
        result = run.crossbar(name, x)
        if run.status[0] != Status.OK:
            where = f"layer {name!r} of chip {chip}"
            raise error_of(Status(int(run.status[0])), run.message[0], where=where)
        return result

    return crossbar


def run_chip(
    chip: Chip,
    inputs: tuple[NDArray[Any], ...],
    engine: Engine,
    *,
    trials: int = 1,
    correct: Correction | None = None,
) -> Result:
    """Run inputs through one chip, its own cells and adapter.

    Parameters
    ----------
    correct : in the place of the chip's adapter, as for ``run_chips``.

    Raises an EngineError where the chip fails.
    """
    if correct is None and chip.adapter is not None:
        correct = chip.adapter.apply
    result = run_chips(
        chip.design,
        [chip.index],
        chip.seed,
        inputs,
        engine,
        trials=trials,
        cells=lambda tile, _: chip.cells(tile),
        correct=correct,
    )
    if result.status[0] != Status.OK:
        raise error_of(Status(int(result.status[0])), result.message[0], where=repr(chip))
    return result


def layer_results(
    chip: Chip, inputs: tuple[NDArray[Any], ...], engine: Engine, *, trials: int = 1
) -> dict[str, Array]:
    """What every layer of a chip gives, digital and with the chip's adapter.

    Returns (trial, sample, position, output) in the model's units per layer name, in the
    order in which the program uses them; of a layer that it uses several times the first.
    Raises as ``run_chip``.
    """
    seen: dict[str, Array] = {}

    def record(name: str, z: Array) -> Array:
        if chip.adapter is not None:
            z = chip.adapter.apply(name, z)
        seen.setdefault(name, z[0].copy())
        return z

    run_chip(chip, inputs, engine, trials=trials, correct=record)
    return seen


def as_inputs(design: Design, x: Any) -> tuple[NDArray[Any], ...]:
    """Return a model's inputs as arrays of the right dtype, checked.

    Takes an array or tensor, or a tuple of them for a model of several inputs.
    Raises InputError for a wrong count, shape or dtype, no samples, or NaN.
    """
    ports = design.program.inputs
    given = x if isinstance(x, tuple | list) and len(ports) > 1 else (x,)
    if len(given) != len(ports):
        raise InputError(f"{len(given)} inputs given, the model takes {len(ports)}")
    arrays: list[NDArray[Any]] = []
    for value, port in zip(given, ports, strict=True):
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
        if array.ndim == 0 or array.shape[1:] != port.shape or array.shape[0] == 0:
            expected = ", ".join(["sample", *map(str, port.shape)])
            raise InputError(
                f"shape {array.shape} does not fit ({expected})", where=f"input {port.name}"
            )
        if not np.can_cast(array.dtype, port.dtype, "same_kind"):
            raise InputError(
                f"dtype {array.dtype} does not fit {port.dtype}", where=f"input {port.name}"
            )
        array = np.ascontiguousarray(array, dtype=port.dtype)
        if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise InputError("holds NaN or infinity", where=f"input {port.name}")
        if len({a.shape[0] for a in (*arrays, array)}) > 1:
            raise InputError("inputs differ in their number of samples")
        arrays.append(array)
    return tuple(arrays)


@dataclass
class _Run:
    """State of one pass: which chips are still alive, and what they did."""

    design: Design
    chips: tuple[int, ...]
    seed: int
    engine: Engine
    trials: int
    samples: int
    keep: frozenset[str]
    observer: Observer | None
    source: CellSource
    correct: Correction | None = None
    uses: dict[str, int] = field(default_factory=dict)
    cells: dict[str, Cells] = field(default_factory=dict)
    kept: dict[str, list[Array]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.chips)
        self.status = np.full(count, Status.OK, np.int8)
        self.message = [""] * count
        self.runtime = np.zeros(count)

    def crossbar(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """What one layer's tiles make of its inputs; x has (chip, trial, sample) folded first."""
        import torch

        from spicenn.compiler.convolution import fold, unfold

        layer = self.design.layer(name)
        use = self.uses.get(name, 0)
        self.uses[name] = use + 1
        rows = unfold(x, layer)
        values = np.asarray(rows, dtype=np.float64)
        grouped = values.reshape(
            len(self.chips), self.trials, self.samples, -1, layer.groups, layer.inputs
        ).copy()
        grouped[self.status != Status.OK] = 0.0  # a dead chip's values are NaN and go nowhere
        z = self._layer(layer, _distinct(grouped), use)
        tensor = torch.as_tensor(z.reshape(*values.shape[:-2], -1)).to(x.dtype)
        return fold(tensor, layer)

    def _layer(self, layer: Layer, x: Array, use: int) -> Array:
        """(chip, trial, sample, position, group, input) to (…, group · output)."""
        technology, mapping = self.design.technology, self.design.mapping
        span = technology.v_read * (technology.g_max - technology.g_min)
        z = np.zeros((*_full(x, self.chips, self.trials), layer.groups, layer.outputs))
        drives = [
            readout.encode(x[..., group, :], layer, group, self.design, self.chips, self.seed)
            for group in range(layer.groups)
        ]
        for tile in self.design.tiles:
            if tile.layer is not layer:
                continue
            slot = tile.slot
            drive = drives[slot.group]
            cells = self._cells(tile)
            _, g, _ = as_resistors(tile.crossbar, cells.g, cells.parameters)
            current = readout.apply(
                self._tile(tile, drive, use), g, tile, self.design, self.chips, self.seed
            )
            difference = (current[..., 0::2] - current[..., 1::2]) / span
            z[..., slot.group, slot.outputs] += readout.combine(
                difference, drive.weight, tile, self.design, self.chips, self.seed
            )
            if drive.offset:
                weight = weight_of_conductance(tile.g_target, mapping, technology)
                inputs = max(0, min(layer.inputs, slot.rows.stop) - slot.rows.start)
                z[..., slot.group, slot.outputs] -= drive.offset * weight[:inputs].sum(axis=0)
        z *= layer.input_scale * layer.weight_scale
        if layer.bias is not None and mapping.bias == "digital":
            z += layer.bias
        z = z.reshape(*z.shape[:-2], -1)
        return z if self.correct is None else self.correct(layer.name, z)

    def _tile(self, tile: PlacedTile, drive: Drive, use: int) -> Array:
        """Currents (chip, trial, sample, position, pulse, bitline) of one tile."""
        cells = self._cells(tile)  # may give chips up
        g = cells.g
        v = np.moveaxis(drive.fraction[..., tile.slot.rows], 0, -2) * self.design.technology.v_read
        chips, trials, *inner, wordlines = v.shape
        alive = np.flatnonzero(self.status == Status.OK)
        current = np.full((len(self.chips), trials, *inner, tile.crossbar.bitlines), np.nan)
        if alive.size:
            flat = v.reshape(chips, -1, wordlines)
            some = cells.at(alive)
            solution = self.engine.solve(
                tile.crossbar, some.g, flat if chips == 1 else flat[alive], some.parameters
            )
            current[alive] = solution.current.reshape(alive.size, *current.shape[1:])
            self.status[alive] = solution.status
            self.runtime[alive] += solution.runtime
            for chip, message in zip(alive, solution.message, strict=True):
                if message:
                    self.message[chip] = f"tile {tile.name}: {message}"
            current[alive[solution.status != Status.OK]] = np.nan
        if self.observer is not None:
            self.observer(tile, cells, v, current)
        current = self._add_noise(tile, g, v, current, use)
        if "bitline_current" in self.keep:
            whole = (len(self.chips), self.trials, *current.shape[2:])
            self.kept.setdefault(tile.name, []).append(np.broadcast_to(current, whole))
        return current

    def _cells(self, tile: PlacedTile) -> Cells:
        """Cells of every chip's copy, chip first."""
        if tile.name not in self.cells:
            cells = stack_cells([self.source(tile, chip) for chip in self.chips])
            for k, what in out_of_range(tile.crossbar, cells.parameters).items():
                self._fail(k, Status.ERROR, f"tile {tile.name}: {what}")
                # The others are computed in one go with it.
                for name, values in cells.parameters.items():
                    values[k] = tile.crossbar.cell.parameter(name)
            self.cells[tile.name] = cells
        return self.cells[tile.name]

    def _add_noise(self, tile: PlacedTile, g: Array, v: Array, current: Array, use: int) -> Array:
        technology = self.design.technology
        read = Read(technology, tile, self.seed, self.chips, self.trials, use)
        parameters = self._cells(tile).parameters
        try:
            return add_noise(read, g, v, current, parameters)
        except ConvergenceError:
            pass  # of one chip or a few: a chip's draws do not depend on the others
        result = np.full((len(self.chips), self.trials, *current.shape[2:]), np.nan)
        for k, chip in enumerate(self.chips):
            one = slice(k, k + 1)
            try:
                result[k] = add_noise(
                    replace(read, chips=(chip,)), g[one], v[one] if len(v) > 1 else v,
                    current[one], {name: values[one] for name, values in parameters.items()},
                )  # fmt: skip
            except ConvergenceError as error:
                self._fail(k, error.status, f"tile {tile.name}, noise: {error.what}")
        return result

    def _fail(self, position: int, status: Status, message: str) -> None:
        """Give one chip up, unless it has failed before."""
        if self.status[position] == Status.OK:
            self.status[position], self.message[position] = status, message

    def result(self, outputs: tuple[torch.Tensor, ...]) -> Result:
        shape = (len(self.chips), self.trials, self.samples)
        arrays = {}
        for port, tensor in zip(self.design.program.outputs, outputs, strict=True):
            array = np.array(tensor.numpy().reshape(*shape, *port.shape))
            if array.dtype.kind == "f":
                array[self.status != Status.OK] = np.nan
            arrays[port.name] = array
        tiles = {}
        if self.keep:
            for tile in self.design.tiles:
                currents = self.kept.get(tile.name)
                tiles[tile.name] = TileRecord(
                    # A layer used several times adds its positions in the order of use.
                    np.concatenate(currents, axis=3) if currents else None,
                    tile.g_target if "g_target" in self.keep else None,
                    self._cells(tile).g if "g" in self.keep else None,
                )
        return Result(arrays, self.status, tuple(self.message), self.runtime, tiles)


def _distinct(x: Array) -> Array:
    """Drop the chip and the trial axis to length 1 where all of them are alike.

    The first layer sees the same inputs on every chip: one stimulus serves all.
    """
    if np.array_equal(np.broadcast_to(x[:1, :1], x.shape), x):
        return x[:1, :1]
    if np.array_equal(np.broadcast_to(x[:, :1], x.shape), x, equal_nan=True):
        return x[:, :1]
    return x


def _full(x: Array, chips: tuple[int, ...], trials: int) -> tuple[int, ...]:
    """Shape of a layer's output without its last two axes, noise included."""
    return (len(chips), trials, *x.shape[2:4])
