"""Surrogates and modules as files that torch reads with ``weights_only=True``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spicenn.compiler import Design
from spicenn.compiler.structure import MECHANISMS
from spicenn.errors import DesignError
from spicenn.surrogate.module import ChipModel, parameter_buffers
from spicenn.surrogate.population import Surrogate

_SCHEMA = 1


def save_module(module: ChipModel, path: Path) -> None:
    """See ``ChipModel.save``."""
    meta = {
        "seed": module.seed,
        "floor": module.floor,
        "vary_cells": module.vary_cells,
        "wires": module.wires,
    }
    tensors = {name: value.contiguous() for name, value in module.state_dict().items()}
    write_content(path, "module", module.design, tensors, meta, module.provenance)


def load_module(
    path: Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> ChipModel:
    """See ``ChipModel.load``."""
    design, tensors, meta, provenance = read_content(path, "module", allow_include, trust_model)
    weights, draws = {}, {}
    wires = bool(meta.get("wires", False))
    for name, (buffer, shape) in parameter_buffers(design, wires=wires).items():
        weights[name] = tensor_of(path, tensors, f"weight_{buffer}", shape)
        draws[name] = tensor_of(path, tensors, f"draws_{buffer}", (None, *shape))
    if len({len(value) for value in draws.values()}) > 1:
        raise bad_file(path, "tiles differ in their number of draws")
    module = ChipModel(
        design,
        weights,
        draws,
        floor=number(path, meta, "floor"),
        seed=int(number(path, meta, "seed")),
        provenance=provenance,
    )
    module.vary_cells = bool(meta.get("vary_cells"))
    return module


def save_surrogate(surrogate: Surrogate, path: Path) -> None:
    """See ``Surrogate.save``."""
    meta = {
        "floor": surrogate.floor,
        "chips": surrogate.chips,
        "failed": surrogate.failed,
        "spread_scale": dict(surrogate.spread_scale),
        "structure_scale": dict(surrogate.structure_scale),
        "wires": surrogate.wires,
    }
    tensors = {f"shift_{name}": value for name, value in surrogate.shift.items()}
    write_content(path, "surrogate", surrogate.design, tensors, meta, surrogate.provenance)


def load_surrogate(
    path: Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> Surrogate:
    """See ``Surrogate.load``."""
    design, tensors, meta, provenance = read_content(path, "surrogate", allow_include, trust_model)
    scales = meta.get("spread_scale")
    if not isinstance(scales, dict) or set(scales) != {layer.name for layer in design.layers}:
        raise bad_file(path, "its spread_scale does not name the design's layers")
    structure = meta.get("structure_scale", {})
    if not isinstance(structure, dict) or not set(structure) <= set(MECHANISMS):
        raise bad_file(path, "its structure_scale names no mechanisms of converters")
    return Surrogate(
        design,
        {
            name: tensor_of(path, tensors, f"shift_{name}", shape)
            for name, shape in _shapes(design).items()
        },
        {name: number(path, scales, name) for name in scales},
        number(path, meta, "floor"),
        int(number(path, meta, "chips")),
        int(number(path, meta, "failed")),
        provenance,
        {name: number(path, structure, name) for name in structure},
        number(path, {"wires": 0.0, **meta}, "wires"),
    )


def write_content(
    path: Path,
    kind: str,
    design: Design,
    tensors: Mapping[str, torch.Tensor],
    meta: Mapping[str, Any],
    provenance: Mapping[str, str],
) -> None:
    data = bytearray(design.to_bytes())
    content = {
        "spicenn": _SCHEMA,
        "kind": kind,
        "design": torch.frombuffer(data, dtype=torch.uint8),
        "tensors": dict(tensors),
        "meta": json.dumps({**meta, "provenance": dict(provenance)}),
    }
    torch.save(content, path)


def read_content(
    path: Path, kind: str, allow_include: Sequence[str | Path], trust_model: bool
) -> tuple[Design, dict[str, Any], dict[str, Any], dict[str, str]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, all of them "not such a file"
        raise bad_file(path, f"torch cannot read it: {type(error).__name__}") from error
    if not isinstance(content, dict) or content.get("spicenn") != _SCHEMA:
        raise bad_file(path, f"it is not a file of schema {_SCHEMA}")
    if content.get("kind") != kind:
        raise bad_file(path, f"it holds no {kind} but {content.get('kind')!r:.40}")
    design, tensors, meta = (content.get(key) for key in ("design", "tensors", "meta"))
    if not (
        isinstance(design, torch.Tensor)
        and design.dtype is torch.uint8
        and isinstance(tensors, dict)
        and isinstance(meta, str)
    ):
        raise bad_file(path, "a part is missing or of a wrong type")
    try:
        fields = json.loads(meta)
    except ValueError as error:
        raise bad_file(path, "its metadata are not JSON") from error
    provenance = fields.get("provenance") if isinstance(fields, dict) else None
    if not isinstance(provenance, dict):
        raise bad_file(path, "it has no provenance")
    loaded = Design.from_bytes(
        design.numpy().tobytes(), allow_include=allow_include, trust_model=trust_model
    )
    if provenance.get("design_hash") != loaded.hash:
        raise bad_file(path, "its design is not the one that its provenance names")
    return loaded, tensors, fields, {str(key): str(value) for key, value in provenance.items()}


def _shapes(design: Design) -> dict[str, tuple[int, int]]:
    """(wordline, output · slice) per tile name."""
    return {
        tile.name: (tile.g_target.shape[0], tile.g_target.shape[1] // 2) for tile in design.tiles
    }


def tensor_of(
    path: Path, tensors: dict[str, Any], name: str, shape: tuple[int | None, ...]
) -> torch.Tensor:
    value = tensors.get(name)
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        raise bad_file(path, f"{name!r} is missing or not a tensor of floats")
    fits = value.ndim == len(shape) and all(
        want in (None, have) for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits or value.layout is not torch.strided or not bool(torch.isfinite(value).all()):
        raise bad_file(path, f"{name!r} has a wrong shape or values that are not finite")
    return value


def number(path: Path, data: Mapping[str, Any], key: str) -> float:
    value = data.get(key)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not np.isfinite(value) or value < 0:  # type: ignore[arg-type,operator]
        raise bad_file(path, f"{key!r} is not a number of at least 0")
    return value  # type: ignore[return-value]


def bad_file(path: Path, what: str) -> DesignError:
    return DesignError(what, where=str(path), remedy="save it again with this version of spicenn")
