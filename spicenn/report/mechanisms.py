"""What a technology switches on beyond an ideal one, read off its records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from spicenn.report.quantity import quantity
from spicenn.technology import Technology
from spicenn.technology.units import UNITS

# Not mechanisms: what the technology is called, and which circuits and corners it has.
_ASIDE = frozenset({"name", "source", "cell", "corners"})
_TOP = "technology"


def switched_on(technology: Technology) -> dict[str, str]:
    """Keys that differ from their defaults, which are off or ideal, by the record they are in.

    What has no default (conductances, the read voltage) is listed as well. Every record
    that there is has an entry, empty where all of it is at its defaults.
    """
    found: dict[str, list[str]] = {}
    for record, key, text in _changed(technology, ""):
        entry = found.setdefault(record or _TOP, [])
        if key:
            entry.append(f"{key} {text}")
    return {record: ", ".join(entry) for record, entry in found.items()}


def _changed(record: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Yield (record, key, value) of what is not at its default, (record, "", "") of each record."""
    yield path, "", ""
    for item in fields(record):
        if not path and item.name in _ASIDE:
            continue
        value = getattr(record, item.name)
        dotted = f"{path}.{item.name}" if path else item.name
        if is_dataclass(value):
            yield from _changed(value, dotted)
        elif value != _default(item):
            yield path, item.name, _text(value, UNITS.get(dotted, ""))


def _default(item: Field[Any]) -> Any:
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else MISSING


def _text(value: Any, unit: str) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_text(one, unit) for one in value) + ")"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "none" if value is None else str(value)
    return quantity(value, unit)
