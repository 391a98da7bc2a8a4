"""Technologies as TOML: the presets that ship and the files that users write."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, get_type_hints

from spicenn.errors import InputError, NetlistError, TechnologyError
from spicenn.technology.cell import Cell
from spicenn.technology.library import load_cell
from spicenn.technology.osdi import CompiledModel, compiled_model
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


def load(
    path: Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> Technology:
    """Load a technology from a file. Raises TechnologyError naming file and key.

    A cell that names a file (``[cell] file = …``, with the arguments of ``Cell.from_file``)
    is read relative to the technology's folder, from the allowed folders alone.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TechnologyError(f"cannot be read: {error}", where=str(path)) from error
    return parse(
        text,
        where=str(path),
        folder=path.parent,
        allow_include=allow_include,
        trust_model=trust_model,
    )


def parse(
    text: str,
    *,
    where: str,
    folder: Path | None = None,
    allow_include: Sequence[str | Path] = (),
    trust_model: bool = False,
) -> Technology:
    """Read a technology from TOML text; values may carry engineering suffixes ("100u").

    Raises TechnologyError for bad TOML, unknown or missing keys and values out of range.
    """
    try:
        return from_dict(
            tomllib.loads(text),
            folder=folder,
            allow_include=allow_include,
            trust_model=trust_model,
        )
    except tomllib.TOMLDecodeError as error:
        raise TechnologyError(f"is not TOML: {error}", where=where) from error
    except (TechnologyError, InputError, NetlistError) as error:
        at = where + place_of(text, error.what)
        at = f"{at}, {error.where}" if error.where else at
        raise TechnologyError(error.what, where=at, remedy=error.remedy) from error


def place_of(text: str, what: str) -> str:
    """Line and column of the key that an error is about, where the text sets it on a line.

    TOML's parser keeps no positions. Errors name the key first, dotted.
    """
    named = re.match(r"(?:unknown key )?'?([A-Za-z_][\w-]*(?:\.[\w-]+)*)", what)
    if named is None:
        return ""
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\[?\s*([\w.-]+)\s*\]", line):
            table = header[1] + "."
        elif (key := re.match(r"(\s*)([\w.-]+)\s*=", line)) and table + key[2] == named[1]:
            return f", line {number}, column {len(key[1]) + 1}"
    return ""


def from_dict(
    data: dict[str, Any],
    *,
    folder: Path | None = None,
    allow_include: Sequence[str | Path] = (),
    trust_model: bool = False,
) -> Technology:
    """Build a technology from plain values, as in a TOML file or a saved design.

    Parameters
    ----------
    folder : where a cell's files are; without one it may name none but compiled models.
    allow_include, trust_model : see ``Cell.from_file``.
    """
    if isinstance(data, dict) and "cell" in data:
        files = _Files(folder, allow_include, trust_model)
        data = {**data, "cell": _cell(data["cell"], "cell", files)}
    technology = _record(Technology, data)
    assert isinstance(technology, Technology)
    return technology


def to_dict(technology: Technology) -> dict[str, Any]:
    """Return plain values from which ``from_dict`` builds the same technology."""
    data = asdict(technology)
    data["corners"] = list(data["corners"])
    data["cell"]["parameters"] = dict(data["cell"]["parameters"])
    data["cell"]["osdi"] = list(data["cell"]["osdi"])
    if not data["cell"]["osdi"]:  # as it was before there were any
        del data["cell"]["osdi"]
    for side in ("dac", "adc"):
        for error in ("gain", "offset"):
            if not data["periphery"][side][error]:
                del data["periphery"][side][error]
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
        return value
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


@dataclass(frozen=True)
class _Files:
    """Which files a technology's cell may be made of, and how they are found."""

    folder: Path | None
    allow_include: Sequence[str | Path]
    trust_model: bool


_OF_FILE = ("file", "subckt", "section", "ports", "ties", "conductance", "g")


def _cell(table: Any, key: str, files: _Files) -> Cell:
    """A cell of ours by its name alone, any with its netlist, or one of a file."""
    if not isinstance(table, dict):
        raise TechnologyError(f"{key} = {table!r} is not a table")
    known = [field.name for field in fields(Cell)]
    if "file" in table:
        known = [*_OF_FILE, *(name for name in known if name != "netlist")]
    for name in table:
        if name not in known:
            raise TechnologyError(
                f"unknown key {key + '.' + name!r}", remedy="known: " + ", ".join(known)
            )
    given = table.get("parameters", {})
    if not isinstance(given, dict):
        raise TechnologyError(f"{key}.parameters = {given!r} is not a table")
    parameters = {k: _quantity(v, f"{key}.parameters.{k}") for k, v in given.items()}
    models = _items(table.get("osdi", ()), f"{key}.osdi")
    if "file" in table:
        return _cell_of_file(table, key, parameters, models, files)
    name, netlist = table.get("name", "ohmic"), table.get("netlist", "")
    if not (isinstance(name, str) and isinstance(netlist, str)):
        raise TechnologyError(f"{key}: name and netlist are text")
    if name != "ohmic" and not netlist:
        return load_cell(name, **parameters)
    osdi = tuple(_model(item, f"{key}.osdi", files) for item in models)
    return Cell(name, netlist, tuple(sorted(parameters.items())), osdi)


def _cell_of_file(
    table: dict[str, Any], key: str, parameters: dict[str, float], models: list[Any], files: _Files
) -> Cell:
    if files.folder is None:
        raise TechnologyError(f"{key}.file: a file cannot be named here")
    for word in ("name", "file", "section", "subckt", "conductance", *(["osdi"] if models else ())):
        values = models if word == "osdi" else [table.get(word, "")]
        if not all(isinstance(value, str) for value in values):
            raise TechnologyError(f"{key}.{word} = {table[word]!r} is not text")
    ports, ties = table.get("ports"), table.get("ties", {})
    if not isinstance(ties, dict):
        raise TechnologyError(f"{key}.ties = {ties!r} is not a table")
    lines = ("wordline", "bitline")
    return Cell.from_file(
        files.folder / table["file"],
        table.get("name"),
        allow_include=files.allow_include,
        section=table.get("section"),
        subckt=table.get("subckt"),
        ports=ports if ports is None or isinstance(ports, dict) else _items(ports, f"{key}.ports"),
        ties={k: v if v in lines else _quantity(v, f"{key}.ties.{k}") for k, v in ties.items()},
        conductance=table.get("conductance"),
        parameters=parameters,
        osdi=[files.folder / model for model in models],
        trust_model=files.trust_model,
        g=_quantity(table.get("g", 10e-6), f"{key}.g"),
    )


def _model(item: Any, key: str, files: _Files) -> CompiledModel:
    """A compiled model by path and digest, or in a file of the user's by its path alone."""
    if isinstance(item, str) and files.folder is not None:
        path, sha256 = files.folder / item, None
    elif isinstance(item, dict) and set(item) == {"path", "sha256"}:
        path, sha256 = Path(str(item["path"])), str(item["sha256"])
    else:
        raise TechnologyError(f"{key} = {item!r} is not a path with its SHA-256")
    return compiled_model(
        path, allow_include=files.allow_include, trust_model=files.trust_model, sha256=sha256
    )


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
