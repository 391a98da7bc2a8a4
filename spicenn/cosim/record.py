"""The record of a co-simulation as an xarray Dataset: events, and traces of probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spicenn.cosim.block import Block

if TYPE_CHECKING:
    import xarray as xr

SCHEMA = 1
# Every event has these; what else is emitted takes another name.
FIELDS = frozenset({"time", "kind", "name", "value", "process"})


class Happening(NamedTuple):
    """One event: when [s], of what kind, its name and value, which process, other numbers."""

    time: float
    kind: str
    name: str
    value: float
    process: str
    fields: Mapping[str, float]


def dataset_of(
    blocks: Mapping[str, Block], happenings: Sequence[Happening], now: float
) -> xr.Dataset:
    """Return events over ``event`` and probes over ``time``, or ``time_<block>`` each.

    Events are in the order in which they happened; units are in ``attrs``.
    """
    import xarray as xr

    columns = {
        "event_time": np.array([h.time for h in happenings], dtype=np.float64),
        "event_kind": np.array([h.kind for h in happenings], dtype=np.str_),
        "event_name": np.array([h.name for h in happenings], dtype=np.str_),
        "event_value": np.array([h.value for h in happenings], dtype=np.float64),
        "event_process": np.array([h.process for h in happenings], dtype=np.str_),
    }
    for field in dict.fromkeys(name for h in happenings for name in h.fields):
        column = [h.fields.get(field, np.nan) for h in happenings]
        columns[f"event_{field}"] = np.array(column, dtype=np.float64)
    variables = {name: xr.Variable("event", values) for name, values in columns.items()}
    variables["event_time"].attrs["units"] = "s"
    coordinates = {}
    for name, block in blocks.items():
        time, traces = block.traces()
        dim = f"time_{name}" if name else "time"
        coordinates[dim] = xr.Variable(dim, time, {"units": "s"})
        for probe, values in traces.items():
            unit = "A" if probe.startswith("i(") else "V"
            full = f"{name}:{probe}" if name else probe
            variables[full] = xr.Variable(dim, values, {"units": unit})
    return xr.Dataset(variables, coordinates, {"cosimulation": SCHEMA, "now": now})
