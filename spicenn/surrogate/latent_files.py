"""Files of latent families, and the file of any family by what it says that it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spicenn.compiler import Design
from spicenn.surrogate.files import (
    bad_file,
    load_module,
    load_surrogate,
    number,
    read_content,
    tensor_of,
    write_content,
)
from spicenn.surrogate.latent import (
    Decoder,
    LatentModule,
    LatentPosterior,
    LatentSurrogate,
)
from spicenn.surrogate.module import ChipModel
from spicenn.surrogate.population import Surrogate

# Numbers that shapes follow from, at most: a file cannot ask for all memory.
_LARGEST = 1_000_000
# Buffers of decoders that hold variances.
_VARIANCES = ("floor", "read")


def load(
    path: str | Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> Surrogate | LatentSurrogate:
    """Read a saved surrogate of any family. Raises DesignError where the file is not one.

    Parameters
    ----------
    allow_include, trust_model : for its design, as of ``Design.load``.
    """
    path = Path(path)
    if _kind(path) == "latent":
        return load_latent(path, allow_include=allow_include, trust_model=trust_model)
    return load_surrogate(path, allow_include=allow_include, trust_model=trust_model)


def load_chip(
    path: str | Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> ChipModel | LatentModule:
    """Read a saved module of any family. Raises DesignError where the file is not one."""
    path = Path(path)
    if _kind(path) == "latent module":
        return load_latent_module(path, allow_include=allow_include, trust_model=trust_model)
    return load_module(path, allow_include=allow_include, trust_model=trust_model)


def save_latent(surrogate: LatentSurrogate, path: Path) -> None:
    """See ``LatentSurrogate.save``."""
    meta = {
        "chips": surrogate.chips,
        "failed": surrogate.failed,
        **_form(surrogate.decoder),
    }
    tensors = _contiguous(surrogate.decoder)
    write_content(path, "latent", surrogate.design, tensors, meta, surrogate.provenance)


def load_latent(
    path: Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> LatentSurrogate:
    """Read a surrogate of the neural or linear family; see ``load``."""
    design, tensors, meta, provenance = read_content(path, "latent", allow_include, trust_model)
    decoder, kind = _decoder(path, design, tensors, meta, "")
    chips, failed = (int(number(path, meta, key)) for key in ("chips", "failed"))
    return kind(design, decoder, chips, failed, provenance)


def save_latent_module(module: LatentModule, path: Path) -> None:
    """See ``LatentModule.save``."""
    meta = {"seed": module.seed, "vary_cells": module.vary_cells, **_form(module.decoder)}
    tensors = _contiguous(module)
    write_content(path, "latent module", module.design, tensors, meta, module.provenance)


def load_latent_module(
    path: Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> LatentModule:
    """Read a chip of the neural or linear family; see ``load_chip``."""
    design, tensors, meta, provenance = read_content(
        path, "latent module", allow_include, trust_model
    )
    decoder, _ = _decoder(path, design, tensors, meta, "decoder.")
    size = decoder.latent
    module = LatentModule(
        design,
        decoder,
        LatentPosterior(
            tensor_of(path, tensors, "latent", (size,)),
            tensor_of(path, tensors, "root", (size, size)),
        ),
        tensor_of(path, tensors, "latents", (None, size)),
        seed=int(number(path, meta, "seed")),
        provenance=provenance,
    )
    module.vary_cells = bool(meta.get("vary_cells"))
    return module


def _form(decoder: Decoder) -> dict[str, Any]:
    return {"family": decoder.family, "shape": decoder.shape}


def _contiguous(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in module.state_dict().items()}


def _decoder(
    path: Path, design: Design, tensors: dict[str, Any], meta: dict[str, Any], prefix: str
) -> tuple[Decoder, type[LatentSurrogate]]:
    """The file's decoder, and the class of its family's surrogates."""
    from spicenn.surrogate.affine import LinearDecoder, LinearSurrogate
    from spicenn.surrogate.neural import NeuralDecoder, NeuralSurrogate

    kinds: dict[str, tuple[Callable[[int, dict[str, int]], Decoder], type[LatentSurrogate]]] = {
        "linear": (LinearDecoder, LinearSurrogate),
        "neural": (NeuralDecoder, NeuralSurrogate),
    }
    family, shape = meta.get("family"), meta.get("shape")
    if not isinstance(family, str) or family not in kinds or not isinstance(shape, dict):
        raise bad_file(path, "it names no family of surrogates")
    make, surrogate_class = kinds[family]
    sizes = {name: int(number(path, shape, name)) for name in shape}
    ports = design.program.outputs
    outputs = sum(int(np.prod(port.shape)) for port in ports if "float" in port.dtype)
    if max(sizes.values(), default=0) > _LARGEST:
        raise bad_file(path, "its sizes are not those of a surrogate")
    try:
        with torch.device("meta"):  # shapes alone: nothing is allocated before they fit
            blank = make(outputs, sizes)
    except (KeyError, RuntimeError) as error:
        raise bad_file(path, "its sizes are not those of its family") from error
    state = {}
    for name, value in blank.state_dict().items():
        found = tensor_of(path, tensors, prefix + name, tuple(value.shape))
        if found.dtype is not torch.float64:
            raise bad_file(path, f"{prefix + name!r} is not float64")
        if name in _VARIANCES and bool((found < 0).any()):
            raise bad_file(path, f"{prefix + name!r} is a negative variance")
        state[name] = found
    decoder = make(outputs, sizes)
    decoder.load_state_dict(state)
    decoder.requires_grad_(False)
    return decoder, surrogate_class


def _kind(path: Path) -> str:
    """What a file says that it holds; "" where it says nothing, which its reader refuses."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # torch raises many kinds, all of them "not such a file"
        return ""
    return str(content.get("kind")) if isinstance(content, dict) else ""
