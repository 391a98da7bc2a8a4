"""From measured files to one technology, and to what is known of each of its keys."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spicenn.errors import InputError
from spicenn.technology import toml, writer
from spicenn.technology.fit.current import fit_current
from spicenn.technology.fit.drift import fit_drift, reference_conductances
from spicenn.technology.fit.programming import fit_programming
from spicenn.technology.fit.report import Finding, Row
from spicenn.technology.fit.table import Array, Kind, Table, read_table
from spicenn.technology.record import Technology
from spicenn.technology.units import UNITS

_RANGE = ("g_min", "g_max")
# What the data say and a user may know better.
_MAY_BE_GIVEN = (*_RANGE, "v_read", "drift.t0")


@dataclass(frozen=True)
class Fitted:
    """A technology and where each of its numbers comes from.

    rows : one per key that was fitted, suggested, given or assumed, and per observation.
    """

    technology: Technology
    rows: tuple[Row, ...]

    def to_toml(self) -> str:
        """The technology as TOML, with the report above it as comments."""
        # A base's name is anybody's text, and a comment ends with its line.
        lines = ["# " + "".join(c if c.isprintable() else "?" for c in x) for x in self.lines()]
        return "\n".join([*lines, "", writer.dumps(self.technology)])

    def save(self, path: str | Path) -> None:
        """Write ``to_toml``; a file is there whole or not at all. Raises TechnologyError."""
        writer.write(self.to_toml(), Path(path))

    def lines(self) -> list[str]:
        """The report as a table: key, value, standard error, origin and note."""
        table = [("key", "value", "standard error", "origin", "")]
        for row in self.rows:
            value, error = number(row.value, row.unit), number(row.error, row.unit)
            table.append((row.key, value, error, row.origin, row.note))
        widths = [max(len(line[column]) for line in table) for column in range(4)]
        return ["  ".join((*map(str.ljust, line[:4], widths), line[4])).rstrip() for line in table]


def fit_technology(
    paths: Iterable[str | Path],
    *,
    name: str = "fitted",
    base: Technology | str = "ideal",
    given: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit a technology to measured CSV files.

    Parameters
    ----------
    paths : files of current-voltage curves, programmed conductances and drift, known by
        their columns; see ``table``. Several of a kind are fitted together; a device's
        name stands for one device within a file.
    name : what the technology is called.
    base : a technology, a preset's name or a .toml file, for all that the data do not say.
    given : keys that are known otherwise, as ``Technology.replace`` takes them. Of what
        data of these kinds determine, g_min, g_max, v_read and drift.t0 may be given.

    g_min and g_max hold the range that the curves give and all targets.

    Raises InputError naming file, line and column, TechnologyError for a base or a given
    key that does not exist.
    """
    tables = [read_table(Path(path)) for path in paths]
    if not tables:
        raise InputError("no file is given", remedy="name one CSV file at least")
    start = base if isinstance(base, Technology) else _base(base)
    known = dict(given or {})
    kinds: dict[Kind, list[Table]] = {}
    for table in tables:
        kinds.setdefault(table.kind, []).append(table)
    findings = []
    if "current-voltage" in kinds:
        findings.append(fit_current(kinds["current-voltage"]))
    targeted = [*kinds.get("programming", ()), *kinds.get("drift", ())]
    found = _range(findings, targeted, start, known)
    findings.append(found)
    g_max = float({**found.changes, **known}.get("g_max", start.g_max))
    if "programming" in kinds:
        findings.append(fit_programming(kinds["programming"], g_max))
    if "drift" in kinds:
        findings.append(fit_drift(kinds["drift"], g_max, known.get("drift.t0")))
    changes: dict[str, Any] = {}
    for finding in findings:
        changes |= finding.changes
    for key in known:
        if key in changes and key not in _MAY_BE_GIVEN:
            raise InputError(
                f"{key} is given, and the data determine it", remedy="drop one of the two"
            )
    rows = [
        row
        for finding in findings
        for row in finding.rows
        if row.key not in known and (row.key not in _RANGE or finding is found)
    ]
    rows += [Row(key, value, None, UNITS.get(key, ""), "given") for key, value in known.items()]
    assumed = _assumed(start, {*changes, *known})
    if "cell" in changes and not changes["cell"].defaults.keys() >= {"w", "l", "dvt", "beta"}:
        # The curves are those of the whole cell: a base's transistor is in them.
        changes |= {"variation.a_vt": 0.0, "variation.a_beta": 0.0}
        assumed = [row for row in assumed if row.key not in changes]
    technology = start.replace(
        {**changes, **known, "name": name, "source": _source(tables, start, assumed)}
    )
    return Fitted(technology, (*rows, *assumed))


def number(value: Any, unit: str) -> str:
    """A value of the report as text, in SI units."""
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return "(" + ", ".join(number(item, "") for item in value) + ")"
    if isinstance(value, int | float):
        return f"{value:.4g}" if unit in ("", "1") else f"{value:.4g} {unit}"
    return str(value)


def _base(name: str) -> Technology:
    if name.endswith(".toml"):
        return toml.load(Path(name))
    return toml.load_preset(name)


def _range(
    findings: Sequence[Finding],
    targeted: Sequence[Table],
    base: Technology,
    given: Mapping[str, Any],
) -> Finding:
    """g_min and g_max that hold the curves' range and all targets; one level is no range."""
    curves = {row.key: row for finding in findings for row in finding.rows if row.key in _RANGE}
    levels, what = np.empty(0), "target"
    with_targets = [table.numbers["target"] for table in targeted if "target" in table.numbers]
    if with_targets:
        levels = np.concatenate(with_targets)
    elif targeted and not curves:
        levels, what = reference_conductances(targeted), "reading"
    candidates = {key: [curves[key]] if key in curves else [] for key in _RANGE}
    if len(np.unique(levels)) > 1 or (curves and len(levels)):
        note = f"the least {what}"
        candidates["g_min"].append(Row("g_min", levels.min(), None, "S", "suggested", note))
        note = f"the largest {what}"
        candidates["g_max"].append(Row("g_max", levels.max(), None, "S", "suggested", note))
    rows = [
        choose(candidates[key], key=lambda row: float(row.value))
        for key, choose in (("g_min", min), ("g_max", max))
        if candidates[key] and key not in given
    ]
    changes = {row.key: float(row.value) for row in rows}
    low, high = (float({**changes, **given}.get(key, getattr(base, key))) for key in _RANGE)
    for table in targeted:
        target: Array = table.numbers.get("target", np.empty(0))
        beyond = np.flatnonzero((target < low) | (target > high))
        if len(beyond):
            point = int(beyond[0])
            raise table.error(
                f"{target[point]:.4g} S lies outside of g_min = {low:.4g} S to "
                f"g_max = {high:.4g} S", "target", point, "give g_min and g_max",
            )  # fmt: skip
    return Finding(changes, tuple(rows))


def _assumed(base: Technology, known: set[str]) -> list[Row]:
    """What the technology has from its base and not by default."""
    plain = writer.flat(Technology(name="", g_min=0.0, g_max=1.0, v_read=1.0))
    rows = []
    for key, value in writer.flat(base).items():
        if key in ("name", "source") or key in known or key.partition(".")[0] in known:
            continue
        if key in (*_RANGE, "v_read") or value != plain.get(key):
            note = f"from {base.name!r}, not from the data"
            rows.append(Row(key, value, None, UNITS.get(key, ""), "assumed", note))
    return rows


def _source(tables: Sequence[Table], base: Technology, assumed: Sequence[Row]) -> str:
    """Which files, and what is not from them."""
    from spicenn import __version__

    lines = [f"Fitted by spicenn {__version__} to measurements:"]
    for table in tables:
        devices = len(table.groups("device")) if "device" in table.labels else None
        count = f"{len(table)} points" + (f", {devices} devices" if devices else "")
        name = os.fspath(table.path.name)
        lines.append(f"{name} ({table.kind}, {count}, SHA-256 {table.digest});")
    if assumed:
        keys = ", ".join(row.key for row in assumed)
        lines.append(f"assumed, from {base.name!r}: {keys}.")
        lines.append(f"Source of {base.name!r}: {base.source or 'none is given'}")
    return "\n".join(lines)
