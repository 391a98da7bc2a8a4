"""Measured data as CSV: a header with units, then numbers; every error names its place.

The separator is a semicolon, a tab or a comma, whichever the header has first in this
order. Lines that are blank or start with ``#`` are skipped, but where the first line is
a number, the comment above it is the header, as ``numpy.savetxt`` writes it. With
semicolons or tabs a number may have a decimal comma.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.technology.quantity import parse_quantity

Array = NDArray[np.float64]
Kind = Literal["current-voltage", "programming", "drift"]

_MOST_BYTES = 2**28
# A finite number as people and instruments write it.
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\Z", re.ASCII)
# SPICE reads "M" as milli and physics as mega: it is not taken at all.
_SCALES = ("", "f", "p", "n", "u", "µ", "μ", "m", "k", "meg", "G", "T")
_UNIT = {
    "voltage": "V",
    "current": "A",
    "conductance": "S",
    "target": "S",
    "time": "s",
}
_LONG_TIMES = {"min": 60.0, "h": 3600.0, "d": 86400.0}
_LABELS = ("device", "state", "cycle")
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "voltage": ("v", "bias"),
    "current": ("i",),
    "target": ("g_target", "target_conductance", "target_g"),
    "conductance": (
        "g", "programmed", "programmed_conductance", "g_programmed", "measured",
        "measured_conductance", "g_measured",
    ),
    "time": ("t",),
    "device": ("cell", "device_id", "cell_id"),
    "state": ("level",),
    "cycle": (),
}  # fmt: skip
_ROLE = {name: role for role, names in _SYNONYMS.items() for name in (role, *names)}
# What each kind must have, and what it may have beside.
_KINDS: Mapping[Kind, tuple[frozenset[str], frozenset[str]]] = {
    "current-voltage": (frozenset({"voltage", "current"}), frozenset(_LABELS)),
    "programming": (frozenset({"target", "conductance"}), frozenset({"device", "cycle"})),
    "drift": (frozenset({"time", "conductance"}), frozenset({"device", "target"})),
}
_FORMS = (
    "voltage [V], current [A], device, state; or target [S], programmed [S], device, cycle; "
    "or time [s], conductance [S], device, target"
)


@dataclass(frozen=True, eq=False)
class Table:
    """One file of measurements, in SI units.

    Parameters
    ----------
    path : where it was read.
    digest : SHA-256 of the file.
    kind : what was measured, known from the columns.
    numbers : (point,) by role: voltage, current, conductance, target, time.
    labels : text of (point,) by role: device, state, cycle.
    lines : line of each point in the file.
    titles : the header's own words by role.
    """

    path: Path
    digest: str
    kind: Kind
    numbers: Mapping[str, Array]
    labels: Mapping[str, tuple[str, ...]]
    lines: tuple[int, ...]
    titles: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.lines)

    def groups(self, *roles: str) -> list[NDArray[np.int64]]:
        """Indices of the points that share these labels, in the order of the file.

        A label that the file does not have tells nothing apart.
        """
        keys = [self.labels[role] for role in roles if role in self.labels]
        if not keys:
            return [np.arange(len(self))]
        found: dict[tuple[str, ...], list[int]] = {}
        for index, key in enumerate(zip(*keys, strict=True)):
            found.setdefault(key, []).append(index)
        return [np.array(group) for group in found.values()]

    def error(self, what: str, role: str, point: int, remedy: str | None = None) -> InputError:
        """Return an error about one point, naming file, line and column."""
        where = _place(self.path, self.lines[point], self.titles.get(role, role))
        return InputError(what, where=where, remedy=remedy)


def read_table(path: Path) -> Table:
    """Read one CSV file. Raises InputError with file, line and column for all that is wrong."""
    data = _read(path)
    rows = _rows(data, path)
    header_line, header = next(rows)
    separator = next((c for c in ";\t," if c in header), ",")
    titles = _split(header, separator, path, header_line)
    columns = [_column(title, path, header_line) for title in titles]
    roles = [role for role, _ in columns]
    for role in roles:
        same = [title for title, other in zip(titles, roles, strict=True) if other == role]
        if len(same) > 1:
            raise InputError(
                f"columns {' and '.join(map(repr, same))} are both the {role}",
                where=_place(path, header_line, same[1]),
                remedy="keep one of them",
            )
    kind = _kind(roles, path, header_line, titles)
    texts: list[list[str]] = []
    lines: list[int] = []
    for number, line in rows:
        words = _split(line, separator, path, number)
        if len(words) != len(titles):
            raise InputError(
                f"{len(words)} values where the header has {len(titles)} columns",
                where=_place(path, number, titles[min(len(words), len(titles) - 1)]),
            )
        texts.append(words)
        lines.append(number)
    if not texts:
        raise InputError(
            "holds a header and no data", where=_place(path, header_line + 1, titles[0])
        )
    numbers: dict[str, Array] = {}
    labels: dict[str, tuple[str, ...]] = {}
    for index, (role, scale) in enumerate(columns):
        column = [row[index] for row in texts]
        if scale is None:
            labels[role] = _labels(column, path, lines, titles[index])
        else:
            numbers[role] = _numbers(column, scale, separator, path, lines, titles[index])
    table = Table(
        path,
        hashlib.sha256(data).hexdigest(),
        kind,
        numbers,
        labels,
        tuple(lines),
        dict(zip(roles, titles, strict=True)),
    )
    _check_signs(table)
    return table


def _place(path: Path, line: int, column: str) -> str:
    return f"{path}, line {line}, column {column!r}"


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"has more than {_MOST_BYTES} bytes", where=str(path))
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError("there is no such file", where=str(path)) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _rows(data: bytes, path: Path) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, the header first."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = f"{path}, line {1 + data.count(bytes([10]), 0, error.start)}"
        raise InputError(
            "is not text in UTF-8", where=place, remedy="save it as CSV, UTF-8"
        ) from error
    if "\0" in text:
        raise InputError("is not a text file", where=str(path), remedy="save it as CSV")
    comment: tuple[int, str] | None = None
    first = True
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        stripped = line.strip(" ")
        if not stripped.strip():
            continue
        if stripped.startswith("#"):
            comment = (number, stripped.lstrip("# ")) if first else comment
            continue
        if first and NUMBER.match(re.split(r"[;\t,]", stripped)[0].strip(' "')):
            if comment is None:
                raise InputError(
                    "has no header: its first line is a number",
                    where=f"{path}, line {number}, column 1",
                    remedy=f"name the columns, for example {_FORMS}",
                )
            yield comment
        first = False
        yield number, stripped
    if first:
        raise InputError(
            "is empty",
            where=f"{path}, line 1, column 1",
            remedy=f"expected is a header, for example {_FORMS}, and data",
        )


def _split(line: str, separator: str, path: Path, number: int) -> list[str]:
    try:
        words = next(csv.reader([line], delimiter=separator, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise InputError(f"is not CSV: {error}", where=f"{path}, line {number}") from error
    return [word.strip() for word in words]


def _column(title: str, path: Path, line: int) -> tuple[str, float | str | None]:
    """Role of a column and its scale: a prefix of ``_SCALES``, seconds, or None for a label."""
    where = _place(path, line, title)
    bracketed = re.fullmatch(r"(.*?)\s*[\[(]\s*([^\[\]()]*?)\s*[\])]", title)
    name, unit = (bracketed[1], bracketed[2]) if bracketed else (title, None)
    word = re.sub(r"[\s_\-]+", "_", name.strip().lower())
    if unit is None and word not in _ROLE and "_" in name.strip():
        name, _, unit = name.strip().rpartition("_")
        word = re.sub(r"[\s_\-]+", "_", name.strip().lower())
    if word not in _ROLE:
        raise InputError(
            f"column {title!r} is unknown", where=where, remedy=f"columns are {_FORMS}"
        )
    role = _ROLE[word]
    if role in _LABELS:
        if unit:
            raise InputError(f"a {role} has no unit, and {unit!r} is given", where=where)
        return role, None
    expected = _UNIT[role]
    if not unit:
        raise InputError(
            f"the {role} has no unit",
            where=where,
            remedy=f"write it in brackets, for example '{role} [{expected}]'",
        )
    if role == "time" and unit in _LONG_TIMES:
        return role, _LONG_TIMES[unit]
    prefix = unit.removesuffix(expected)
    if prefix == unit or prefix not in _SCALES:
        raise InputError(
            f"the {role} is in {unit!r}, expected is {expected} with a prefix of "
            + " ".join(_SCALES[1:]),
            where=where,
            remedy="capitals count; write meg for 1e6" if prefix != unit else None,
        )
    return role, prefix


def _kind(roles: list[str], path: Path, line: int, titles: list[str]) -> Kind:
    given = set(roles)
    for kind, (needed, more) in _KINDS.items():
        if needed <= given and given <= needed | more:
            return kind
    # The first column that does not go with the ones before it.
    odd = next(
        (
            title
            for index, title in enumerate(titles)
            if not any(set(roles[: index + 1]) <= need | more for need, more in _KINDS.values())
        ),
        titles[-1],
    )
    raise InputError(
        f"columns {', '.join(map(repr, titles))} are none of the known measurements",
        where=_place(path, line, odd),
        remedy=f"expected are {_FORMS}",
    )


def _labels(words: list[str], path: Path, lines: list[int], title: str) -> tuple[str, ...]:
    for word, line in zip(words, lines, strict=True):
        if not word:
            raise InputError("is empty", where=_place(path, line, title))
    return tuple(words)


def _numbers(
    words: list[str],
    scale: float | str,
    separator: str,
    path: Path,
    lines: list[int],
    title: str,
) -> Array:
    values = np.empty(len(words))
    for index, (word, line) in enumerate(zip(words, lines, strict=True)):
        if separator != "," and word.count(",") == 1 and "." not in word:
            word = word.replace(",", ".")
        if not NUMBER.match(word):
            raise InputError(
                f"{word!r} is not a finite number" if word else "a number is missing",
                where=_place(path, line, title),
            )
        value = float(word) * scale if isinstance(scale, float) else parse_quantity(word + scale)
        if not np.isfinite(value):
            raise InputError(f"{word!r} is out of range", where=_place(path, line, title))
        values[index] = value
    return values


def _check_signs(table: Table) -> None:
    for role in ("conductance", "target", "time"):
        below = np.flatnonzero(table.numbers.get(role, np.zeros(1)) < 0)
        if len(below):
            raise table.error(f"a negative {role}", role, int(below[0]))
