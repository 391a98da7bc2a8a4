"""Measured conductance maps: what was read back from a chip's cells."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.technology.fit.table import NUMBER, Array

_MOST_BYTES = 2**32


def load_conductances(path: str | Path) -> dict[str, Array]:
    """Read conductance maps, (wordline, bitline) [S] by tile.

    ``.npz``: one array per tile, under the names that ``Design.tiles`` has. ``.csv``: one
    map, under the name of the file without its suffix; a row per wordline, numbers in
    siemens apart by commas, semicolons or tabs, blank lines and comments (#) skipped.

    Nothing in a file is executed. Raises InputError naming file and place for anything but
    finite conductances of at least 0 in two dimensions.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".csv"):
        raise InputError(
            "is neither a .npz nor a .csv file", where=str(path),
            remedy="write it with numpy.savez(path, fc1_r0_c0=g, …)",
        )  # fmt: skip
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"has more than {_MOST_BYTES} bytes", where=str(path))
        maps = _archive(path) if path.suffix == ".npz" else {path.stem: _text(path)}
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error}", where=str(path)) from error
    if not maps:
        raise InputError("holds no array", where=str(path))
    return {name: _checked(array, f"{path}, {name!r}") for name, array in maps.items()}


def _archive(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        # A small file may unpack to any size.
        if size <= _MOST_BYTES:
            with np.load(path, allow_pickle=False) as loaded:
                return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        if "allow_pickle" in str(error):
            raise InputError(
                "holds Python objects", where=str(path), remedy="save plain numbers"
            ) from error
        raise InputError(f"is not a NumPy archive: {error}", where=str(path)) from error
    raise InputError(f"unpacks to more than {_MOST_BYTES} bytes", where=str(path))


def _text(path: Path) -> Array:
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError("is not text in UTF-8", where=str(path)) from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines, 1):
        text = line.strip(" ")
        if not text.strip() or text.startswith("#"):
            continue
        words = [word.strip() for word in re.split(r"[;\t,]", text)]
        if rows and len(words) != len(rows[0]):
            raise InputError(
                f"{len(words)} values where the first row has {len(rows[0])}",
                where=f"{path}, line {number}",
            )
        for column, word in enumerate(words, 1):
            if not NUMBER.match(word):
                raise InputError(
                    f"{word!r} is not a finite number",
                    where=f"{path}, line {number}, column {column}",
                    remedy="a map is numbers alone, in siemens, a row per wordline",
                )
        rows.append([float(word) for word in words])
    if not rows:
        raise InputError("is empty", where=f"{path}, line 1, column 1")
    return np.array(rows)


def _checked(array: NDArray[np.generic], where: str) -> Array:
    if array.dtype.kind not in "fiu":
        raise InputError(f"has dtype {array.dtype}, which is not a number", where=where)
    if array.ndim != 2 or array.size == 0:
        raise InputError(f"has shape {array.shape}, expected is (wordline, bitline)", where=where)
    g = array.astype(np.float64)
    for bad, what in ((~np.isfinite(g), "is not finite"), (g < 0, "is negative")):
        if bad.any():
            i, j = map(int, np.argwhere(bad)[0])
            raise InputError(f"{g[i, j]:g} S {what}", where=f"{where}, wordline {i}, bitline {j}")
    return g
