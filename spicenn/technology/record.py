"""What can be manufactured: one frozen record, SI units, checked on construction."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from dataclasses import replace as _replace
from pathlib import Path
from typing import Literal, get_args

from spicenn.errors import TechnologyError
from spicenn.technology.cell import OHMIC, Cell

Drive = Literal["bipolar", "offset", "two-phase"]


def _check(key: str, value: object, low: float, high: float, *, open_low: bool = False) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if good and (low < value if open_low else low <= value) and value <= high:  # type: ignore[operator]
        return
    bracket = "(" if open_low else "["
    raise TechnologyError(
        f"{key} = {value!r} is out of range", remedy=f"allowed: {bracket}{low:g}, {high:g})"
    )


@dataclass(frozen=True)
class Corner:
    """A systematic process point: factors on the nominal values of every cell and wire."""

    name: str
    conductance: float = 1.0
    wire_resistance: float = 1.0

    def __post_init__(self) -> None:
        for key in ("conductance", "wire_resistance"):
            _check(f"corner {self.name!r}, {key}", getattr(self, key), 0.0, math.inf, open_low=True)


@dataclass(frozen=True, kw_only=True)
class Technology:
    """A crossbar technology. Every quantity is in SI units.

    Parameters
    ----------
    name : what the record and the netlists call it.
    g_min, g_max : conductance range of a cell [S].
    v_read : voltage that encodes a full-scale input [V].
    r_wordline, r_bitline : resistance of one wire segment [Ω]; 0 is an ideal wire.
    programming_error : standard deviation of a programmed conductance over
        g_max, drawn once per cell and chip (normal, cut at ``G_FLOOR``).
    read_noise : standard deviation of one read of a cell over its conductance,
        drawn anew for every read.
    temperature : [K].
    bandwidth : read bandwidth that thermal noise is integrated over [Hz]; 0 is none.
    drive : how a signed input reaches a wordline: ``bipolar`` voltages, an
        ``offset`` that is subtracted digitally, or ``two-phase`` (positive part,
        then negative part).
    cell : circuit of one cell.
    corners, corner : the systematic process points there are, and the one in force.
    source : where the numbers come from.

    Raises TechnologyError naming the key, the value and the allowed range.
    """

    name: str
    g_min: float
    g_max: float
    v_read: float
    r_wordline: float = 0.0
    r_bitline: float = 0.0
    programming_error: float = 0.0
    read_noise: float = 0.0
    temperature: float = 300.0
    bandwidth: float = 0.0
    drive: Drive = "bipolar"
    cell: Cell = OHMIC
    corners: tuple[Corner, ...] = (Corner("tt"),)
    corner: str = "tt"
    source: str = ""

    def __post_init__(self) -> None:
        for key in ("name", "corner", "source"):
            if not isinstance(getattr(self, key), str):
                raise TechnologyError(f"{key} = {getattr(self, key)!r} is not text")
        _check("g_min", self.g_min, 0.0, math.inf)
        _check("g_max", self.g_max, 0.0, math.inf, open_low=True)
        if not self.g_min < self.g_max:
            raise TechnologyError(
                f"g_min = {self.g_min!r} is not below g_max = {self.g_max!r}",
                remedy="allowed: 0 <= g_min < g_max, in siemens",
            )
        _check("v_read", self.v_read, 0.0, math.inf, open_low=True)
        for key in ("r_wordline", "r_bitline", "programming_error", "read_noise", "bandwidth"):
            _check(key, getattr(self, key), 0.0, math.inf)
        _check("temperature", self.temperature, 0.0, math.inf, open_low=True)
        if self.drive not in get_args(Drive):
            raise TechnologyError(
                f"drive = {self.drive!r} is unknown",
                remedy="allowed: " + ", ".join(get_args(Drive)),
            )
        names = [corner.name for corner in self.corners]
        if len(set(names)) != len(names):
            raise TechnologyError(f"corners {names} repeat a name")
        if self.corner not in names:
            raise TechnologyError(
                f"corner = {self.corner!r} is unknown", remedy="allowed: " + ", ".join(names)
            )

    @property
    def process(self) -> Corner:
        """The corner in force."""
        return next(corner for corner in self.corners if corner.name == self.corner)

    def replace(self, **changes: object) -> Technology:
        """Return a copy with some keys changed, checked like any other.

        Raises TechnologyError for a key that does not exist.
        """
        known = {field.name for field in fields(self)}
        for key in changes:
            if key not in known:
                raise TechnologyError(
                    f"{key!r} is not a key of a technology",
                    remedy="known: " + ", ".join(sorted(known)),
                )
        return _replace(self, **changes)  # type: ignore[arg-type]

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Names of the technologies that ship with spicenn."""
        from spicenn.technology.toml import preset_names

        return preset_names()

    @staticmethod
    def preset(name: str) -> Technology:
        """Load a technology that ships with spicenn. Raises TechnologyError if there is none."""
        from spicenn.technology.toml import load_preset

        return load_preset(name)

    @staticmethod
    def from_toml(path: str | Path) -> Technology:
        """Load a technology from a TOML file. Raises TechnologyError with file and key."""
        from spicenn.technology.toml import load

        return load(Path(path))
