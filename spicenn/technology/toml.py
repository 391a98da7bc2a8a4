"""Technologies as TOML: the presets that ship and the files that users write."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from spicenn.errors import InputError, NetlistError, TechnologyError
from spicenn.technology.cell import Cell
from spicenn.technology.quantity import parse_quantity
from spicenn.technology.record import Corner, Technology

_TEXT = frozenset({"name", "drive", "corner", "source"})
_PRESETS = files("spicenn.technology") / "presets"


def preset_names() -> tuple[str, ...]:
    """Names of the shipped technologies, sorted."""
    return tuple(sorted(p.name[:-5] for p in _PRESETS.iterdir() if p.name.endswith(".toml")))


def load_preset(name: str) -> Technology:
    """Load one shipped technology. Raises TechnologyError if there is none of that name."""
    if name not in preset_names():
        raise TechnologyError(
            f"no preset is called {name!r}", remedy="there are " + ", ".join(preset_names())
        )
    return parse((_PRESETS / f"{name}.toml").read_text("utf-8"), where=f"preset {name}")


def load(path: Path) -> Technology:
    """Load a technology from a file. Raises TechnologyError naming file and key."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TechnologyError(f"cannot be read: {error}", where=str(path)) from error
    return parse(text, where=str(path))


def parse(text: str, *, where: str) -> Technology:
    """Read a technology from TOML text; values may carry engineering suffixes ("100u").

    Raises TechnologyError for bad TOML, unknown or missing keys and values out of range.
    """
    try:
        return from_dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise TechnologyError(f"is not TOML: {error}", where=where) from error
    except (TechnologyError, InputError, NetlistError) as error:
        at = f"{where}, {error.where}" if error.where else where
        raise TechnologyError(error.what, where=at, remedy=error.remedy) from error


def from_dict(data: dict[str, Any]) -> Technology:
    """Build a technology from plain values, as in a TOML file or a saved design."""
    known = [field.name for field in fields(Technology)]
    _refuse_unknown(data, known)
    values = {key: _value(key, value) for key, value in data.items()}
    for key in ("name", "g_min", "g_max", "v_read"):
        if key not in values:
            raise TechnologyError(f"key {key!r} is missing")
    return Technology(**values)


def to_dict(technology: Technology) -> dict[str, Any]:
    """Return plain values from which ``from_dict`` builds the same technology."""
    data = asdict(technology)
    data["corners"] = list(data["corners"])
    return data


def _value(key: str, value: Any) -> Any:
    if key == "corners":
        return tuple(
            _table(Corner, key, item, {"conductance", "wire_resistance"}) for item in value
        )
    if key == "cell":
        return _table(Cell, key, value, set())
    if key in _TEXT:
        return value
    return _quantity(key, value)


def _table(record: Any, key: str, table: Any, quantities: set[str]) -> Any:
    if not isinstance(table, dict):
        raise TechnologyError(f"{key} = {table!r} is not a table")
    _refuse_unknown(table, [field.name for field in fields(record)], prefix=f"{key}.")
    try:
        return record(
            **{k: _quantity(f"{key}.{k}", v) if k in quantities else v for k, v in table.items()}
        )
    except TypeError as error:
        raise TechnologyError(f"{key}: {error}") from error


def _quantity(key: str, value: Any) -> float:
    try:
        return parse_quantity(value)
    except (InputError, TypeError) as error:
        raise TechnologyError(
            f"{key} = {value!r} is not a quantity", remedy="write for example 1e-4 or '100u'"
        ) from error


def _refuse_unknown(data: dict[str, Any], known: list[str], prefix: str = "") -> None:
    for key in data:
        if key not in known:
            raise TechnologyError(
                f"unknown key {prefix + key!r}", remedy="known: " + ", ".join(sorted(known))
            )
