"""Results of plain ngspice: its raw files, binary and ASCII."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import EngineError


def read_raw(path: str | Path) -> dict[str, NDArray[np.float64] | NDArray[np.complex128]]:
    """Return the first plot of a raw file: vectors by name, each (point,).

    Raises EngineError where the file is not a complete raw file.
    """
    data = Path(path).read_bytes()
    try:
        return _read(data)
    except (ValueError, KeyError, IndexError) as error:
        raise EngineError(f"is not a complete raw file: {error}", where=str(path)) from error


def _read(data: bytes) -> dict[str, NDArray[np.float64] | NDArray[np.complex128]]:
    binary = b"\nBinary:\n" in data
    head, mark, body = data.partition(b"\nBinary:\n" if binary else b"\nValues:\n")
    if not mark:
        raise ValueError("no values")
    text = head.decode("utf-8", "replace")
    fields = dict(
        line.split(":", 1) for line in text.splitlines() if ":" in line and line[0] != "\t"
    )
    count, points = int(fields["No. Variables"]), int(fields["No. Points"])
    if count < 1 or points < 1:
        raise ValueError("no points")
    names = [line.split()[1] for line in text.splitlines() if line.startswith("\t")]
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} variables")
    is_complex = "complex" in fields["Flags"]
    if binary:
        values = np.frombuffer(body, "<c16" if is_complex else "<f8", count * points)
    else:
        values = _ascii(body.decode(), count, points, is_complex)
    table = values.reshape(points, count).T
    return {name: column.copy() for name, column in zip(names, table, strict=True)}


def _ascii(
    text: str, count: int, points: int, is_complex: bool
) -> NDArray[np.float64] | NDArray[np.complex128]:
    words = text.split()
    if len(words) < points * (count + 1):
        raise ValueError("values are missing")
    # Each point starts with its number.
    kept = [w for k, w in enumerate(words[: points * (count + 1)]) if k % (count + 1)]
    if not is_complex:
        return np.array([float(w) for w in kept])
    return np.array([complex(*map(float, w.split(","))) for w in kept])
