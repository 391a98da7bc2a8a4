"""``compile``: from a trained torch model to a design."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

from spicenn.compiler.design import Design
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.errors import CompileError, InputError
from spicenn.technology import Technology

if TYPE_CHECKING:
    import torch
    from torch import nn

# Samples that a design keeps for netlists, and that a compiled program is checked with.
_EXAMPLES = 4


def compile(
    model: nn.Module | torch.export.ExportedProgram,
    example: Any,
    *,
    technology: Technology,
    tile: Tile | None = None,
    mapping: Mapping | None = None,
    calibration: Any = None,
) -> Design:
    """Map a model's linear algebra to crossbar tiles; the rest stays digital.

    Parameters
    ----------
    model : any module that ``torch.export`` can trace, or what it exported; it keeps
        its mode and weights.
    example : tensor or array, or a tuple of them for several inputs; sample axis first.
    technology : what the tiles are made of.
    tile, mapping : size of a tile, and how numbers become conductances and voltages.
    calibration : inputs like those the chip will see, as ``example``; they set the
        scales of inputs and converters. The example serves where there are none.

    Raises
    ------
    CompileError : naming the module and the user's line, where something has no mapping.
    InputError : for an example or calibration data of a wrong kind.
    """
    from spicenn.compiler.calibration import calibrate_layers
    from spicenn.compiler.passes import eval_copy, export, put_samples_first, run_passes
    from spicenn.compiler.passes.emit import check_against_model, emit
    from spicenn.compiler.passes.reference import draft_layer

    _check_records(technology, tile, mapping)
    tile, mapping = tile or Tile(), mapping or Mapping()
    given = _as_tensors(example, "example")
    data = given if calibration is None else _as_tensors(calibration, "calibration")
    _check_alike(given, data)
    copy = eval_copy(model)
    graph = run_passes(export(copy, _two_samples(given)))
    if not graph.layers:
        raise CompileError(
            "the model holds no linear map with constant weights",
            remedy="crossbars compute Linear, Conv1d and Conv2d; there is nothing to put on them",
        )
    samples = _different_samples(data)
    graph = put_samples_first(graph, samples)
    check_against_model(graph, copy, samples)
    program, constants = emit(graph, samples)
    layers = calibrate_layers(
        [draft_layer(draft, index) for index, draft in enumerate(graph.layers)],
        program,
        constants,
        data,
        technology=technology,
        tile=tile,
        mapping=mapping,
    )
    design = Design(
        name=graph.name,
        program=program,
        layers=layers,
        constants={name: tensor.numpy() for name, tensor in constants.items()},
        technology=technology,
        tile=tile,
        mapping=mapping,
        example=tuple(x[:_EXAMPLES].numpy().copy() for x in given),
        versions=_versions(),
    )
    _check_tile(design)
    return design


def _check_records(technology: object, tile: object, mapping: object) -> None:
    for key, value, kind in (
        ("technology", technology, Technology),
        ("tile", tile or Tile(), Tile),
        ("mapping", mapping or Mapping(), Mapping),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{key} is a {type(value).__name__}", remedy=f"give a {kind.__name__}")


def _check_tile(design: Design) -> None:
    from spicenn.compiler.tiling import tile_slots

    for layer in design.layers:
        tile_slots(layer, design.mapping, design.tile)


def _as_tensors(values: Any, what: str) -> tuple[torch.Tensor, ...]:
    import numpy as np
    import torch

    items = tuple(values) if isinstance(values, tuple | list) else (values,)
    tensors = []
    for item in items:
        if isinstance(item, np.ndarray):
            item = torch.from_numpy(np.ascontiguousarray(item))
        if not isinstance(item, torch.Tensor):
            raise InputError(
                f"{what} holds a {type(item).__name__}",
                remedy="give a tensor or an array, or a tuple of them",
            )
        tensor = item.detach().cpu().contiguous()
        if tensor.ndim == 0 or tensor.shape[0] == 0:
            raise InputError(f"{what} has no sample axis", remedy="put samples on the first axis")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{what} holds NaN or infinity")
        tensors.append(tensor)
    if not tensors:
        raise InputError(f"{what} is empty")
    if len({len(tensor) for tensor in tensors}) > 1:
        raise InputError(f"the inputs of {what} differ in their number of samples")
    return tuple(tensors)


def _check_alike(example: tuple[torch.Tensor, ...], data: tuple[torch.Tensor, ...]) -> None:
    if len(example) != len(data):
        raise InputError(
            f"calibration has {len(data)} inputs", remedy=f"the example has {len(example)}"
        )
    for a, b in zip(example, data, strict=True):
        if a.shape[1:] != b.shape[1:] or a.dtype != b.dtype:
            raise InputError(
                f"calibration of shape {tuple(b.shape)}, {b.dtype} is not like the example",
                remedy=f"expected (sample, {', '.join(map(str, a.shape[1:]))}), {a.dtype}",
            )


def _two_samples(example: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Raise a batch of 1 to 2: torch.export takes a length of 1 for a fixed one."""
    import torch

    return tuple(x[:2] if len(x) > 1 else torch.cat([x, x]) for x in example)


def _different_samples(data: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Return a few samples of which no two are alike, the only one and its mirror at worst."""
    import torch

    chosen = [0]
    for i in range(1, len(data[0])):
        if len(chosen) < _EXAMPLES and not any(
            all(torch.equal(x[i], x[j]) for x in data) for j in chosen
        ):
            chosen.append(i)
    if len(chosen) > 1:
        return tuple(x[chosen] for x in data)
    return tuple(_with_mirror(x[:1]) for x in data)


def _with_mirror(x: torch.Tensor) -> torch.Tensor:
    import torch

    mirror = x.flip(tuple(range(1, x.ndim)))
    if x.is_floating_point():
        # A number by itself has no mirror image; half of it stays in its range.
        mirror = mirror / 2
    return torch.cat([x, mirror])


def _versions() -> dict[str, str]:
    import numpy
    import torch

    from spicenn import __version__

    return {
        "spicenn": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": numpy.__version__,
    }
