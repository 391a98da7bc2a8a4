"""What can be manufactured: one frozen record, SI units, checked on construction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from dataclasses import replace as _replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from spicenn.errors import TechnologyError
from spicenn.technology.cell import OHMIC, Cell
from spicenn.technology.checks import check_choice, check_number
from spicenn.technology.mechanisms import Drift, Noise, Variation
from spicenn.technology.periphery import Periphery

if TYPE_CHECKING:
    from spicenn.technology.fit import Fitted

Drive = Literal["bipolar", "offset", "two-phase"]

# Where conductances and resistances are given [K].
REFERENCE_TEMPERATURE = 300.0


@dataclass(frozen=True)
class Corner:
    """A systematic process point: what it does to the nominal values of every cell and wire.

    conductance, wire_resistance, capacitance : factors.
    threshold : added to the threshold voltage of the cells' transistors [V].
    beta : factor on their transconductance parameter.
    """

    name: str
    conductance: float = 1.0
    wire_resistance: float = 1.0
    capacitance: float = 1.0
    threshold: float = 0.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        at = f"corner {self.name!r}, "
        for key in ("conductance", "wire_resistance", "capacitance", "beta"):
            check_number(at + key, getattr(self, key), 0.0, math.inf, above=True)
        check_number(at + "threshold", self.threshold, -math.inf, math.inf)


@dataclass(frozen=True, kw_only=True)
class Technology:
    """A crossbar technology. Every quantity is in SI units.

    Parameters
    ----------
    name : what the record and the netlists call it.
    g_min, g_max : conductance range of a cell [S].
    v_read : voltage that encodes a full-scale input [V].
    r_wordline, r_bitline : resistance of one wire segment [Ω]; 0 is an ideal wire.
    programming_error : standard deviation of a programmed conductance over g_max, drawn
        once per cell and chip and cut at ``G_FLOOR``; see ``Variation`` for other laws.
    read_noise : standard deviation of one read of a cell over its conductance,
        drawn anew for every read.
    temperature : [K].
    conductance_tc, wire_tc : relative change per kelvin of cells' conductances and of
        wires' resistances, from ``REFERENCE_TEMPERATURE`` on [1/K].
    bandwidth : read bandwidth that noise is integrated over [Hz]; 0 is none.
    c_wordline, c_bitline : capacitance of one wire segment to ground [F].
    c_cell : capacitance of one cell, between its lines [F].
    drive : how a signed input reaches a wordline: ``bipolar`` voltages, an
        ``offset`` that is subtracted digitally, or ``two-phase`` (positive part,
        then negative part).
    cell : circuit of one cell.
    variation, noise, drift : further mechanisms; all off by default.
    periphery : drivers, converters, amplifiers and neurons; ideal by default.
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
    temperature: float = REFERENCE_TEMPERATURE
    conductance_tc: float = 0.0
    wire_tc: float = 0.0
    bandwidth: float = 0.0
    c_wordline: float = 0.0
    c_bitline: float = 0.0
    c_cell: float = 0.0
    drive: Drive = "bipolar"
    cell: Cell = OHMIC
    variation: Variation = field(default_factory=Variation)
    noise: Noise = field(default_factory=Noise)
    drift: Drift = field(default_factory=Drift)
    periphery: Periphery = field(default_factory=Periphery)
    corners: tuple[Corner, ...] = (Corner("tt"),)
    corner: str = "tt"
    source: str = ""

    def __post_init__(self) -> None:
        for key in ("name", "corner", "source"):
            if not isinstance(getattr(self, key), str):
                raise TechnologyError(f"{key} = {getattr(self, key)!r} is not text")
        check_number("g_min", self.g_min, 0.0, math.inf)
        check_number("g_max", self.g_max, 0.0, math.inf, above=True)
        if not self.g_min < self.g_max:
            raise TechnologyError(
                f"g_min = {self.g_min!r} is not below g_max = {self.g_max!r}",
                remedy="allowed: 0 <= g_min < g_max, in siemens",
            )
        check_number("v_read", self.v_read, 0.0, math.inf, above=True)
        for key in (
            "r_wordline", "r_bitline", "programming_error", "read_noise", "bandwidth",
            "c_wordline", "c_bitline", "c_cell",
        ):  # fmt: skip
            check_number(key, getattr(self, key), 0.0, math.inf)
        check_number("temperature", self.temperature, 0.0, math.inf, above=True)
        for key in ("conductance_tc", "wire_tc"):
            check_number(key, getattr(self, key), -1.0, 1.0)
            factor = self._thermal_factor(getattr(self, key))
            check_number(f"factor of {key} at {self.temperature:g} K", factor, 0, 1e3, above=True)
        check_choice("drive", self.drive, get_args(Drive))
        mismatch = [key for key in ("a_vt", "a_beta") if getattr(self.variation, key)]
        if mismatch and not self.has_transistors:
            raise TechnologyError(
                f"variation.{mismatch[0]} is set, and {self.cell.name!r} has no transistor",
                remedy="its subcircuit needs the parameters w, l, dvt and beta",
            )
        names = [corner.name for corner in self.corners]
        if len(set(names)) != len(names):
            raise TechnologyError(f"corners {names} repeat a name")
        check_choice("corner", self.corner, tuple(names))

    @property
    def process(self) -> Corner:
        """The corner in force."""
        return next(corner for corner in self.corners if corner.name == self.corner)

    @property
    def has_transistors(self) -> bool:
        """Whether the cell has a transistor whose mismatch is a parameter of each cell."""
        return self.cell.defaults.keys() >= {"w", "l", "dvt", "beta"}

    @property
    def conductance_factor(self) -> float:
        """What corner and temperature do to every cell's conductance."""
        return self.process.conductance * self._thermal_factor(self.conductance_tc)

    @property
    def wire_factor(self) -> float:
        """What corner and temperature do to every wire's resistance."""
        return self.process.wire_resistance * self._thermal_factor(self.wire_tc)

    def _thermal_factor(self, coefficient: float) -> float:
        return 1.0 + coefficient * (self.temperature - REFERENCE_TEMPERATURE)

    def replace(self, changes: Mapping[str, Any] | None = None, **more: Any) -> Technology:
        """Return a copy with some keys changed, checked like any other.

        Keys of inner records are dotted: ``replace({"variation.stuck_on": 0.01})``.
        Raises TechnologyError for a key that does not exist.
        """
        changed: Technology = _changed(self, {**(changes or {}), **more})
        return changed

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
    def from_toml(
        path: str | Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
    ) -> Technology:
        """Load a technology from a TOML file. Raises TechnologyError with file and key.

        Parameters
        ----------
        allow_include : folders that a cell's files may lie in; see ``Cell.from_file``.
        trust_model : allow compiled models (OSDI), which are native code.
        """
        from spicenn.technology.toml import load

        return load(Path(path), allow_include=allow_include, trust_model=trust_model)

    @staticmethod
    def fit(
        paths: Iterable[str | Path],
        *,
        name: str = "fitted",
        base: Technology | str = "ideal",
        given: Mapping[str, Any] | None = None,
    ) -> Fitted:
        """Fit a technology to measured CSV files; see ``fit_technology``."""
        from spicenn.technology.fit import fit_technology

        return fit_technology(paths, name=name, base=base, given=given)

    def to_toml(self, path: str | Path) -> None:
        """Write a file that ``from_toml`` reads. Raises TechnologyError where it cannot be."""
        from spicenn.technology.writer import save

        save(self, Path(path))


def _changed(record: Any, changes: Mapping[str, Any]) -> Any:
    """Replace keys of a record, and by dotted names those of the records in it."""
    known = {item.name for item in fields(record)}
    flat: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for key, value in changes.items():
        head, dot, rest = key.partition(".")
        if head not in known or (dot and not is_dataclass(getattr(record, head))):
            raise TechnologyError(
                f"{key!r} is not a key of a technology",
                remedy="known: " + ", ".join(sorted(known)),
            )
        if dot:
            inner.setdefault(head, {})[rest] = value
        else:
            flat[key] = value
    for head, deeper in inner.items():
        flat[head] = _changed(flat.get(head, getattr(record, head)), deeper)
    return _replace(record, **flat)
