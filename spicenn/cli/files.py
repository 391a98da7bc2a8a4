"""Files that users name: arrays, models, designs; hostile until shown otherwise."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicenn.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FACTORY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z")


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read a ``.npy`` (one array, named "") or a ``.npz`` (in the file's order).

    Nothing in the file is executed. Raises InputError naming the file.
    """
    import numpy as np

    where = str(path)
    if path.suffix not in (".npy", ".npz"):
        raise InputError(
            "is not a .npy or .npz file", where=where, remedy="write it with numpy.save"
        )
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"": loaded}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=where) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error}", where=where) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, MemoryError) as error:
        remedy = "save plain numbers" if "allow_pickle" in str(error) else None
        what = "holds Python objects" if remedy else f"is not a NumPy file: {error}"
        raise InputError(what, where=where, remedy=remedy) from error
    if not arrays:
        raise InputError("holds no array", where=where)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise InputError(
                f"array {name!r} has dtype {array.dtype}, which is not a number", where=where
            )
    return arrays


def load_array(path: Path) -> NDArray[Any]:
    """Read the one array of a file. Raises InputError where there are several."""
    arrays = load_arrays(path)
    if len(arrays) > 1:
        raise InputError(
            f"holds {len(arrays)} arrays, one is expected", where=str(path), remedy="save one alone"
        )
    return next(iter(arrays.values()))


def load_inputs(path: Path, names: tuple[str, ...] = ()) -> Any:
    """Read a model's input, or a tuple of them.

    Several arrays of a ``.npz`` go to the inputs of their names, or else in the
    file's order.
    """
    arrays = load_arrays(path)
    if len(arrays) > 1 and set(names) == set(arrays):
        return tuple(arrays[name] for name in names)
    return tuple(arrays.values()) if len(arrays) > 1 else next(iter(arrays.values()))


def load_labels(path: Path) -> NDArray[np.int64]:
    """Read the class of every sample; (sample,)."""
    import numpy as np

    array = load_array(path)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"labels have shape {array.shape} and dtype {array.dtype}, expected (sample,) integers",
            where=str(path),
        )
    return array.astype(np.int64)


def is_design(text: str) -> bool:
    """True for a path that can be a saved design: neither ``.pt2`` nor ``module:factory``."""
    return not text.endswith(".pt2") and _FACTORY.match(text) is None


def load_model(text: str) -> Any:
    """Load a ``.pt2`` or call ``module:factory``; both execute what they hold.

    Raises InputError where there is no such file, module or factory, or where the
    factory fails or returns no model.
    """
    if text.endswith(".pt2"):
        return _exported(Path(text))
    if _FACTORY.match(text) is None:
        raise InputError(
            f"{text!r} is neither a .pt2 file nor module:factory",
            remedy="write for example my_models.mlp:build",
        )
    return _built(text)


def _exported(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise InputError("there is no such file", where=str(path))
    try:
        return torch.export.load(str(path))
    except Exception as error:
        raise InputError(
            f"torch cannot load it: {error}",
            where=str(path),
            remedy="write it with torch.export.save, in this version of torch",
        ) from error


def _built(text: str) -> Any:
    import torch

    module_name, _, factory_name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        factory: Any = importlib.import_module(module_name)
        for part in factory_name.split("."):
            factory = getattr(factory, part)
        model = factory()
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error}", where=text, remedy="modules are looked for in the current folder"
        ) from error
    except AttributeError as error:
        raise InputError(f"{error}", where=text) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"the factory failed with {type(error).__name__}: {error}",
            where=f"{frame.filename}:{frame.lineno}",
        ) from error
    if not isinstance(model, torch.nn.Module):
        raise InputError(
            f"the factory returned {type(model).__name__}, not a torch.nn.Module", where=text
        )
    return model


def make_parent(path: Path) -> None:
    """Make the folder that a result goes to. Raises InputError where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder cannot be made: {error.strerror}", where=str(path)) from error
