"""Technologies as TOML: the presets that ship and the files that users write."""

from __future__ import annotations

import tomllib
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from spicenn.errors import InputError, NetlistError, TechnologyError
from spicenn.technology.cell import Cell
from spicenn.technology.library import load_cell
from spicenn.technology.quantity import parse_quantity
from spicenn.technology.record import Corner, Technology

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
    technology = _record(Technology, data)
    assert isinstance(technology, Technology)
    return technology


def to_dict(technology: Technology) -> dict[str, Any]:
    """Return plain values from which ``from_dict`` builds the same technology."""
    data = asdict(technology)
    data["corners"] = list(data["corners"])
    data["cell"]["parameters"] = dict(data["cell"]["parameters"])
    return data


def _record(kind: Any, table: Any, prefix: str = "") -> Any:
    """Build a record from a table; the types of its fields say how values are read."""
    if not isinstance(table, dict):
        raise TechnologyError(f"{prefix[:-1]} = {table!r} is not a table")
    known = {field.name: field for field in fields(kind)}
    hints = get_type_hints(kind)
    for key in table:
        if key not in known:
            raise TechnologyError(
                f"unknown key {prefix + key!r}", remedy="known: " + ", ".join(sorted(known))
            )
    for key, field in known.items():
        if key not in table and field.default is MISSING and field.default_factory is MISSING:
            raise TechnologyError(f"key {prefix + key!r} is missing")
    values = {key: _value(hints[key], value, prefix + key) for key, value in table.items()}
    try:
        return kind(**values)
    except TechnologyError as error:
        raise TechnologyError(prefix + error.what, remedy=error.remedy) from error


def _value(kind: Any, value: Any, key: str) -> Any:
    if kind is Cell:
        return _cell(value, key)
    if is_dataclass(kind):
        return _record(kind, value, f"{key}.")
    if kind == tuple[Corner, ...]:
        return tuple(_record(Corner, item, f"{key}.") for item in _items(value, key))
    if getattr(kind, "__origin__", None) is tuple:
        return tuple(_quantity(item, key) for item in _items(value, key))
    if kind == float | None and value is None:
        return None
    if kind in (float, float | None):
        return _quantity(value, key)
    return value  # text; the record checks it


def _cell(table: Any, key: str) -> Cell:
    """A cell of ours by its name alone, or any with its netlist."""
    if not isinstance(table, dict):
        raise TechnologyError(f"{key} = {table!r} is not a table")
    known = [field.name for field in fields(Cell)]
    for name in table:
        if name not in known:
            raise TechnologyError(
                f"unknown key {key + '.' + name!r}", remedy="known: " + ", ".join(known)
            )
    given = table.get("parameters", {})
    if not isinstance(given, dict):
        raise TechnologyError(f"{key}.parameters = {given!r} is not a table")
    parameters = {k: _quantity(v, f"{key}.parameters.{k}") for k, v in given.items()}
    name, netlist = table.get("name", "ohmic"), table.get("netlist", "")
    if not (isinstance(name, str) and isinstance(netlist, str)):
        raise TechnologyError(f"{key}: name and netlist are text")
    if name != "ohmic" and not netlist:
        return load_cell(name, **parameters)
    return Cell(name, netlist, tuple(sorted(parameters.items())))


def _items(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise TechnologyError(f"{key} = {value!r} is not a list")
    return list(value)


def _quantity(value: Any, key: str) -> float:
    try:
        return parse_quantity(value)
    except (InputError, TypeError) as error:
        raise TechnologyError(
            f"{key} = {value!r} is not a quantity", remedy="write for example 1e-4 or '100u'"
        ) from error
