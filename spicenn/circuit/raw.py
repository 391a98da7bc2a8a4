"""Raw files of plain ngspice: read, binary and ASCII, and written, binary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import EngineError, InputError

_NAME = re.compile(r"[!-~]+\Z")


@dataclass(frozen=True, kw_only=True, eq=False)
class RawPlot:
    """One transient of a raw file.

    title : what viewers call it.
    time : (point,) [s].
    vectors : (point,) [V] or [A] each, by name: ``v(out)``, or ``i(vdd)`` for a current.
    """

    title: str
    time: NDArray[np.float64]
    vectors: Mapping[str, NDArray[np.float64]]


def write_raw(path: str | Path, plots: Sequence[RawPlot]) -> None:
    """Write transients one after the other into a binary raw file, time as their scale.

    ngspice's ``load`` and viewers of SPICE waveforms open it; ``read_raw`` reads it back bit
    by bit. Raises InputError for a plot without points, vectors of another length than
    their time, or a name that a raw file cannot hold.
    """
    if not plots:
        raise InputError("there is no plot to be written", where=str(path))
    data = [part for plot in plots for part in _written(plot, str(path))]
    Path(path).write_bytes(b"".join(data))


def _written(plot: RawPlot, where: str) -> tuple[bytes, bytes]:
    columns = {"time": plot.time, **plot.vectors}
    points = len(plot.time)
    if points == 0:
        raise InputError(f"the plot {plot.title!r} has no points", where=where)
    for name, column in columns.items():
        if not _NAME.match(name) or (name == "time" and column is not plot.time):
            raise InputError(f"no vector can be called {name!r}", where=where)
        if column.shape != (points,):
            raise InputError(f"{name} has shape {column.shape}, its time ({points},)", where=where)
    head = [
        f"Title: {re.sub(r'[^ -~]', '?', plot.title).strip()[:200]}",
        "Plotname: Transient Analysis",
        "Flags: real",
        f"No. Variables: {len(columns)}",
        f"No. Points: {points}",
        "Variables:",
        *(f"\t{k}\t{name}\t{_kind(name)}" for k, name in enumerate(columns)),
        "Binary:\n",
    ]
    table = np.stack(list(columns.values()), axis=1)
    return "\n".join(head).encode("ascii"), table.astype("<f8").tobytes()


def _kind(name: str) -> str:
    if name == "time":
        return "time"
    return "current" if name.startswith("i(") else "voltage"


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
