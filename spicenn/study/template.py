"""The empty record: every array of the schema, nothing in it yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.embedded import VARIABLE, embed, input_names, output_names
from spicenn.compiler.result import Result
from spicenn.errors import Status
from spicenn.study.crosscheck import DISCREPANCY, LONG_NAME
from spicenn.study.plan import Study
from spicenn.study.task import Outcome
from spicenn.technology.units import UNITS

# A chunk of one array stays below this, whatever the number of chips in it.
_CHUNK_BYTES = 64 * 2**20
_LABELS = 4096  # chip labels in one chunk: far more than a study has tasks


@dataclass(frozen=True, eq=False)
class ArraySpec:
    """One array: what follows its sweep, chip, trial and sample axes is its own."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any
    fill: Any
    attributes: Mapping[str, Any]


def fill_template(
    group: Any, study: Study, chips: Sequence[int], sample: Outcome, chunk: int
) -> None:
    """Create every array of schema 1 in an empty Zarr group.

    sample : outcome of any task, for shapes, types, versions and tolerances.
    chunk : chips in one chunk.
    """
    result = sample.result
    for spec in _root_arrays(study, len(chips), result):
        _create(group, spec, study, chunk)
    for name, specs in _tile_arrays(study, len(chips), result).items():
        child = group.create_group(name)
        for spec in specs:
            _create(child, spec, study, chunk)
    _coordinates(group, study, chips)
    for name, array in zip(input_names(study.design), study.inputs, strict=True):
        dims = ("sample", *(f"{name}_dim_{k}" for k in range(array.ndim - 1)))
        _constant(group, name, array, dims, {"units": "1"})
    _constant(group, VARIABLE, embed(study.design), ("byte",), {"long_name": "saved Design"})
    group.attrs.update(
        {
            **study.identity(),
            "chunk": chunk,
            "outputs": list(output_names(study.design)),
            "inputs": list(input_names(study.design)),
            "tiles": sorted(result.tiles),
            "tolerances": dict(sample.tolerances),
            "versions": dict(sample.versions),
        }
    )


def _root_arrays(study: Study, chips: int, result: Result) -> list[ArraySpec]:
    lead = (*study.sweep.names, "chip")
    size = (*study.sweep.shape, chips)
    specs = []
    names = output_names(study.design)
    for name, value in zip(names, result.output.values(), strict=True):
        own = value.shape[3:]
        specs.append(
            ArraySpec(
                name,
                (*lead, "trial", "sample", *(f"{name}_dim_{k}" for k in range(len(own)))),
                (*size, study.trials, study.samples, *own),
                value.dtype,
                np.nan if value.dtype.kind == "f" else 0,
                {"units": "1"},
            )
        )
    flags = {
        "flag_values": [int(status) for status in Status],
        "flag_meanings": " ".join(status.name.lower() for status in Status),
    }
    specs += [
        ArraySpec("status", lead, size, np.dtype(np.int8), int(Status.PENDING), flags),
        ArraySpec("message", lead, size, "str", "", {}),
        ArraySpec("runtime", lead, size, np.dtype(np.float64), np.nan, {"units": "s"}),
    ]
    if study.crosscheck:
        about = {"units": "1", "long_name": LONG_NAME}
        specs.append(ArraySpec(DISCREPANCY, lead, size, np.dtype(np.float64), np.nan, about))
    return specs


def _tile_arrays(study: Study, chips: int, result: Result) -> dict[str, list[ArraySpec]]:
    lead, size = study.sweep.names, study.sweep.shape
    groups: dict[str, list[ArraySpec]] = {}
    for name, tile in result.tiles.items():
        specs = groups[name] = []
        for key, value, dims, units in (
            ("bitline_current", tile.bitline_current, _CURRENT, "A"),
            ("g", tile.g, ("chip", "wordline", "bitline"), "S"),
            ("g_target", tile.g_target, ("wordline", "bitline"), "S"),
        ):
            if value is None:
                continue
            shape = (chips, *value.shape[1:]) if dims[0] == "chip" else value.shape
            specs.append(
                ArraySpec(
                    key, (*lead, *dims), (*size, *shape), value.dtype, np.nan, {"units": units}
                )
            )
    return groups


_CURRENT = ("chip", "trial", "sample", "position", "pulse", "bitline")


def _create(group: Any, spec: ArraySpec, study: Study, chunk: int) -> None:
    depth = len(study.sweep.names)
    chunks = [1] * depth + [max(1, size) for size in spec.shape[depth:]]
    if "chip" in spec.dims:
        bytes_per_chip = 8 * int(np.prod(chunks[depth + 1 :], dtype=np.int64))
        chunks[depth] = max(1, min(chunk, _CHUNK_BYTES // bytes_per_chip))
    group.create_array(
        spec.name,
        shape=spec.shape,
        chunks=tuple(chunks),
        dtype=spec.dtype,
        fill_value=spec.fill,
        dimension_names=spec.dims,
        attributes=dict(spec.attributes),
    )


def _coordinates(group: Any, study: Study, chips: Sequence[int]) -> None:
    for name, values in zip(study.sweep.names, study.sweep.values, strict=True):
        textual = isinstance(values[0], str)
        array: NDArray[Any] = np.array(values, dtype=object if textual else np.float64)
        _constant(group, name, array, (name,), {"units": UNITS[name]} if UNITS[name] else {})
    _constant(group, "trial", np.arange(study.trials), ("trial",), {})
    _constant(group, "sample", np.arange(study.samples), ("sample",), {})
    labels = group.create_array(
        "chip",
        shape=(len(chips),),
        chunks=(_LABELS,),
        dtype=np.int64,
        fill_value=-1,
        dimension_names=("chip",),
    )
    labels[:] = np.array(chips, dtype=np.int64)


def _constant(
    group: Any, name: str, array: NDArray[Any], dims: tuple[str, ...], attributes: Mapping[str, Any]
) -> None:
    created = group.create_array(
        name,
        shape=array.shape,
        chunks=tuple(max(1, size) for size in array.shape),
        dtype="str" if array.dtype == object else array.dtype,
        dimension_names=dims,
        attributes=dict(attributes),
    )
    created[...] = array
