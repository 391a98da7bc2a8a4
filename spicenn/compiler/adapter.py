"""A digital gain and offset per output of a layer: what one chip needs before a frozen network.

A chip's columns differ by what their converters and amplifiers do, and that is affine in the
layer's result. An adapter undoes it where the result is digital already, so that neither
cells nor weights change: ẑ = gain ⊙ z + offset.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spicenn.arrays import as_like, is_tensor
from spicenn.compiler.layer import Array
from spicenn.errors import DesignError, InputError

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

_FORMAT = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter:
    """Corrections of layers' results, in the model's units.

    Parameters
    ----------
    gain, offset : (output,) per layer name, a convolution's output being its channel; a
        layer that is not named stays as it is.

    Raises InputError unless both name the same layers, with finite values of one shape.
    """

    gain: Mapping[str, Array]
    offset: Mapping[str, Array]

    def __post_init__(self) -> None:
        if set(self.gain) != set(self.offset):
            odd = min(set(self.gain) ^ set(self.offset))
            raise InputError("has a gain or an offset, not both", where=f"layer {odd!r}")
        gain = {name: _vector(value, name, "gain") for name, value in self.gain.items()}
        offset = {name: _vector(self.offset[name], name, "offset") for name in gain}
        for name in gain:
            if gain[name].shape != offset[name].shape:
                raise InputError(
                    f"{len(gain[name])} gains for {len(offset[name])} offsets",
                    where=f"layer {name!r}",
                )
        object.__setattr__(self, "gain", gain)
        object.__setattr__(self, "offset", offset)

    def __repr__(self) -> str:
        return f"Adapter({', '.join(repr(name) for name in self.gain) or 'identity'})"

    def check(self, design: Design) -> None:
        """Raise InputError where it does not fit a design."""
        for name, gain in self.gain.items():
            layer = design.layer(name)  # raises for a layer that there is not
            if len(gain) != layer.groups * layer.outputs:
                raise InputError(
                    f"{len(gain)} gains for {layer.groups * layer.outputs} outputs",
                    where=f"layer {name!r}",
                    remedy="an adapter is of one design",
                )

    def apply(self, name: str, z: Any, *, axis: int = -1) -> Any:
        """Correct one layer's results.

        Parameters
        ----------
        z : array or tensor with the outputs along ``axis``; differentiable.
        """
        if name not in self.gain:
            return z
        shape = [1] * z.ndim
        shape[axis] = -1
        gain, offset = self.gain[name].reshape(shape), self.offset[name].reshape(shape)
        if is_tensor(z):  # in its dtype and on its device
            return z * as_like(gain, z) + as_like(offset, z)
        return gain * z + offset

    def save(self, path: str | Path) -> None:
        """Write plain arrays as ``.npz``, never pickle. Raises DesignError."""
        path = Path(path)
        arrays: dict[str, Any] = {"format": np.array(_FORMAT), "layers": np.array(list(self.gain))}
        for k, name in enumerate(self.gain):
            arrays |= {f"gain_{k}": self.gain[name], f"offset_{k}": self.offset[name]}
        try:
            with path.open("wb") as file:  # given a name, NumPy would append a suffix
                np.savez(file, allow_pickle=False, **arrays)
        except OSError as error:
            raise DesignError(f"cannot be written: {error}", where=str(path)) from error

    @staticmethod
    def load(path: str | Path) -> Adapter:
        """Read what ``save`` wrote. Raises DesignError for anything else."""
        path = Path(path)
        try:
            with zipfile.ZipFile(path) as archive:
                if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
                    raise ValueError("its members are compressed")
            with np.load(path, allow_pickle=False) as arrays:
                if int(arrays["format"]) != _FORMAT:
                    raise ValueError(f"its format is not {_FORMAT}")
                names = [str(name) for name in arrays["layers"]]
                return Adapter(
                    gain={name: arrays[f"gain_{k}"] for k, name in enumerate(names)},
                    offset={name: arrays[f"offset_{k}"] for k, name in enumerate(names)},
                )
        except OSError as error:
            raise DesignError(f"cannot be read: {error}", where=str(path)) from error
        except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DesignError(
                f"is no adapter: {error}",
                where=str(path),
                remedy="adapters are written by Adapter.save",
            ) from error


def _vector(value: Any, name: str, what: str) -> Array:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"its {what} is no array of numbers", where=f"layer {name!r}") from error
    if array.ndim != 1 or not np.isfinite(array).all():
        raise InputError(
            f"its {what} of shape {array.shape} is not one finite number per output",
            where=f"layer {name!r}",
        )
    return array
