"""A co-simulation's record for other programs' eyes: VCD, and SPICE's raw file."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from vcd import VCDWriter
from vcd.writer import Variable

from spicenn import __version__
from spicenn.circuit.names import safe_name, unique_names
from spicenn.circuit.raw import RawPlot, write_raw
from spicenn.cosim.reading import Array, Happenings, Traces, happenings_of, traces_of
from spicenn.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

_UNITS = {0: "s", -3: "ms", -6: "us", -9: "ns", -12: "ps", -15: "fs"}
_FINEST = -15
# Scope of an only block, and of each kind of event.
_ONLY = "circuit"
_SCOPES = {"drive": "drives", "crossing": "crossings", "emit": "events"}


class _Track(NamedTuple):
    """One variable of the file: where it is, and what it does; no values for a mark."""

    scope: str
    name: str
    time: Array
    values: Array | None


def write_traces(ds: xr.Dataset, path: str | Path) -> None:
    """Write the probes as a binary raw file, which ngspice and SPICE viewers open.

    Voltages are called ``v(node)``, currents ``i(source)``; every block with points is a
    plot of its own, on its own time, and its names are ``v(block.node)``. Raises InputError
    where no point was recorded.
    """
    plots = [_plot(traces) for traces in traces_of(ds) if traces.time.size]
    if not plots:
        raise InputError("no point was recorded", where=str(path))
    write_raw(path, plots)


def write_vcd(ds: xr.Dataset, path: str | Path) -> None:
    """Write probes, drives and events as a Value Change Dump, which GTKWave opens.

    Probes are reals in the scope of their block (``circuit`` for an only one), drives reals
    in ``drives``. What was emitted is a mark in ``events`` and, where it has them, reals
    ``name_value`` and ``name_field``; crossings are so in ``crossings``. Names are letters,
    digits and underscores: ``x1.mem`` is ``x1_mem``. The time scale is a power of ten of a
    second, at most half of the smallest gap between two times, not below 1 fs.
    """
    tracks = _tracks(ds)
    now = float(ds.attrs["now"])
    exponent = time_exponent([*(track.time for track in tracks), np.array([0.0, now])])
    scale = 10.0**-exponent
    unit = exponent - exponent % 3
    timescale = (10 ** (exponent % 3), _UNITS[unit])
    with (
        Path(path).open("w", encoding="ascii") as file,
        VCDWriter(file, timescale=timescale, date="", version=f"spicenn {__version__}") as writer,
    ):
        variables: list[Variable[float]] = []
        for track in tracks:
            kind = "event" if track.values is None else "real"
            init = None if track.values is None else math.nan
            variables.append(writer.register_var(track.scope, track.name, kind, init=init))
        writer.flush()  # before it, marks at 0 s would be lost
        ticks = [np.rint(track.time * scale).astype(np.int64) for track in tracks]
        which = np.repeat(np.arange(len(tracks)), [t.size for t in ticks])
        values = [np.ones(t.time.size) if t.values is None else t.values for t in tracks]
        at = np.concatenate([*ticks, np.zeros(0, np.int64)])
        order = np.argsort(at, kind="stable")
        level = np.concatenate([*values, np.zeros(0)])
        for k, tick, value in zip(
            which[order].tolist(), at[order].tolist(), level[order].tolist(), strict=True
        ):
            variable = variables[k]
            if tracks[k].values is None:
                writer.change(variable, tick, True)
                continue
            # A value that repeats is left out otherwise, and with it the end of what is flat.
            variable.value = math.nan
            writer.change(variable, tick, value)
        end = round(now * scale)
        writer.close(max(end, int(at.max(initial=0))))


def time_exponent(times: Sequence[Array]) -> int:
    """Power of ten [s] that tells times apart: half of their smallest gap, 1 fs at the least.

    Longer where the last one would need more digits than a double has.
    """
    known = np.unique(np.concatenate(times))
    gap = np.diff(known).min(initial=math.inf)
    exponent = 0 if math.isinf(gap) else math.floor(math.log10(gap / 2))
    exponent = min(max(exponent, _FINEST), 0)
    while known[-1] * 10.0**-exponent > 2.0**53:
        exponent += 1
    return exponent


def _tracks(ds: xr.Dataset) -> list[_Track]:
    """Everything that goes into a VCD, traces before events."""
    blocks = traces_of(ds)
    fixed = list(_SCOPES.values())
    scopes = unique_names([*fixed, *(traces.block or _ONLY for traces in blocks)])[len(fixed) :]
    tracks = []
    for scope, traces in zip(scopes, blocks, strict=True):
        names = unique_names(traces.values)
        for name, values in zip(names, traces.values.values(), strict=True):
            kept = _corners(values)
            tracks.append(_Track(scope, name, traces.time[kept], values[kept]))
    found = happenings_of(ds)
    for kind, scope in _SCOPES.items():
        parts = [part for group in found if group.kind == kind for part in _parts(group)]
        names = unique_names(name for name, _, _ in parts)
        tracks += [_Track(scope, name, *part[1:]) for name, part in zip(names, parts, strict=True)]
    return tracks


def _parts(group: Happenings) -> list[tuple[str, Array, Array | None]]:
    """Variables of events of one name: a real for drives; a mark, and what has values."""
    if group.kind == "drive":
        return [(group.name, group.time, group.value)]
    values = {"value": group.value, **group.fields}
    return [
        (group.name, group.time, None),
        *(
            (f"{group.name}_{key}", group.time[known], column[known])
            for key, column in values.items()
            if (known := np.isfinite(column)).any()
        ),
    ]


def _corners(values: Array) -> NDArray[np.bool_]:
    """All points but those inside of what is flat."""
    moved = np.diff(values) != 0
    return (
        np.concatenate([[True], moved]) | np.concatenate([moved, [True]])
        if values.size
        else (np.zeros(0, dtype=np.bool_))
    )


def _plot(traces: Traces) -> RawPlot:
    block = f"{safe_name(traces.block)}." if traces.block else ""
    vectors = {}
    for probe, values in traces.values.items():
        letter = "i" if traces.units[probe] == "A" else "v"
        own = probe[2:-1] if probe.startswith("i(") else probe
        vectors[re.sub(r"[^!-~]", "_", f"{letter}({block}{own})")] = values
    return RawPlot(title=traces.block or "co-simulation", time=traces.time, vectors=vectors)
