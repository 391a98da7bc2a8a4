"""Technologies written as TOML, and as a list of their keys; ``toml`` reads them back."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from spicenn.errors import TechnologyError
from spicenn.technology.cell import Cell
from spicenn.technology.library import cell_names, load_cell
from spicenn.technology.record import Technology


def flat(technology: Technology) -> dict[str, Any]:
    """Every key with its value, those of inner records dotted; corners by their names."""
    found: dict[str, Any] = {}

    def visit(value: Any, key: str) -> None:
        if isinstance(value, Cell):
            found[f"{key}.name"] = value.name
            found.update({f"{key}.parameters.{k}": v for k, v in value.parameters})
        elif is_dataclass(value):
            for field in fields(value):
                visit(getattr(value, field.name), f"{key}.{field.name}" if key else field.name)
        elif key == "corners":
            found[key] = tuple(corner.name for corner in value)
        else:
            found[key] = value

    visit(technology, "")
    return found


def dumps(technology: Technology) -> str:
    """Return TOML that ``toml.parse`` reads back as the same technology.

    Keys that have their default values are left out, and the text of a cell that ships
    with spicenn.
    """
    import tomli_w

    table = _changed(technology)
    if technology.cell != Cell():
        table["cell"] = _cell_table(technology.cell)
    return tomli_w.dumps(table, multiline_strings=True)


def save(technology: Technology, path: Path) -> None:
    """Write ``dumps``; a file is there whole or not at all. Raises TechnologyError."""
    write(dumps(technology), path)


def write(text: str, path: Path) -> None:
    """Write a text file whole or not at all. Raises TechnologyError naming it."""
    partial = path.with_name(path.name + ".partial")
    try:
        try:
            partial.write_text(text, "utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise TechnologyError(f"cannot be written: {error.strerror}", where=str(path)) from error


def _changed(record: Any) -> dict[str, Any]:
    """Keys of a record that are not at their defaults, as TOML's values."""
    table: dict[str, Any] = {}
    for field in fields(record):
        value = getattr(record, field.name)
        made = field.default_factory
        default = made() if made is not MISSING else field.default
        if isinstance(value, Cell) or value == default:
            continue
        if is_dataclass(value):
            table[field.name] = _changed(value)
        elif field.name == "corners":
            table[field.name] = [_changed(corner) for corner in value]
        else:
            table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def _cell_table(cell: Cell) -> dict[str, Any]:
    table: dict[str, Any] = {"name": cell.name}
    if cell.name not in cell_names() or load_cell(cell.name).netlist != cell.netlist:
        table["netlist"] = cell.netlist
    models = getattr(cell, "osdi", ())
    if models:
        table["osdi"] = [{"path": model.path, "sha256": model.sha256} for model in models]
    if cell.parameters:
        table["parameters"] = dict(cell.parameters)
    return table
