"""What a record of a co-simulation holds, by block and by event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

# Of every event; all other columns are numbers that ``emit`` was given by name.
COLUMNS = ("event_time", "event_kind", "event_name", "event_value", "event_process")
KINDS = ("drive", "crossing", "emit")


@dataclass(frozen=True, kw_only=True, eq=False)
class Traces:
    """What was recorded of one block.

    block : its name, empty for the only one.
    time : (point,) [s].
    values : (point,) of every probe by its own name.
    units : of every probe, "V" or "A".
    """

    block: str
    time: Array
    values: Mapping[str, Array]
    units: Mapping[str, str]

    def full(self, probe: str) -> str:
        """The probe's name in the record."""
        return f"{self.block}:{probe}" if self.block else probe


@dataclass(frozen=True, kw_only=True, eq=False)
class Happenings:
    """Events of one kind and name, in the order in which they happened.

    kind : "drive", "crossing" or "emit".
    time : (event,) [s].
    value : (event,); the level of a drive or crossing [V] or [A], NaN where there is none.
    fields : (event,) other numbers by name, those that any of the events has.
    """

    kind: str
    name: str
    time: Array
    value: Array
    fields: Mapping[str, Array]


def traces_of(ds: xr.Dataset) -> list[Traces]:
    """Traces of every block, in the order of the record."""
    found = []
    for dim in ds.coords:
        block = str(dim).removeprefix("time").removeprefix("_")
        mine = {
            str(name).removeprefix(f"{block}:") if block else str(name): variable
            for name, variable in ds.data_vars.items()
            if variable.dims == (dim,)
        }
        found.append(
            Traces(
                block=block,
                time=ds[dim].values,
                values={probe: variable.values for probe, variable in mine.items()},
                units={probe: str(variable.attrs["units"]) for probe, variable in mine.items()},
            )
        )
    return found


def happenings_of(ds: xr.Dataset) -> list[Happenings]:
    """Events by kind (drives, crossings, what was emitted), then by their first occurrence."""
    rows: dict[tuple[str, str], list[int]] = {}
    kinds, names = ds["event_kind"].values.tolist(), ds["event_name"].values.tolist()
    for k, key in enumerate(zip(kinds, names, strict=True)):
        rows.setdefault(key, []).append(k)
    extra = [str(name) for name, v in ds.data_vars.items()
             if v.dims == ("event",) and name not in COLUMNS]  # fmt: skip
    found = []
    for (kind, name), picked in sorted(rows.items(), key=lambda row: KINDS.index(row[0][0])):
        fields = {field.removeprefix("event_"): ds[field].values[picked] for field in extra}
        found.append(
            Happenings(
                kind=kind,
                name=name,
                time=ds["event_time"].values[picked],
                value=ds["event_value"].values[picked],
                fields={key: v for key, v in fields.items() if np.isfinite(v).any()},
            )
        )
    return found
