"""Tables of a TOML file, read strictly: every key is asked for once, and no other may be there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import Any, TypeVar, get_type_hints

from spicenn.errors import InputError
from spicenn.technology.quantity import parse_quantity

Record = TypeVar("Record")
_REQUIRED: Any = object()


class Table:
    """One table. Errors name the key first, dotted, so that its line can be found.

    Parameters
    ----------
    name : as the file writes it, "" of the file itself.
    values : of a TOML parser.

    Raises InputError for what is no table; its methods for a key that is missing, or of
    another type.
    """

    def __init__(self, name: str, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise InputError(f"{name} = {values!r} is not a table", remedy=f"write [{name}]")
        self.name = name
        self._values = values
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        self._ask(key)
        return key in self._values

    def at(self, key: str) -> str:
        """A key's full name."""
        return f"{self.name}.{key}" if self.name else key

    def raw(self, key: str, default: Any = _REQUIRED) -> Any:
        """What the file has there."""
        self._ask(key)
        if key in self._values:
            return self._values[key]
        if default is not _REQUIRED:
            return default
        unknown = [name for name in self._values if name not in self._known]
        raise InputError(f"{self.at(key)} is missing{_like(key, unknown)}")

    def number(self, key: str, default: Any = _REQUIRED) -> Any:
        """A quantity; engineering suffixes are read."""
        value = self.raw(key, default)
        return value if value is default else quantity(value, self.at(key))

    def numbers(self, key: str, default: Any = _REQUIRED) -> Any:
        """A list of quantities."""
        value = self.raw(key, default)
        if value is default:
            return value
        return [quantity(item, self.at(key)) for item in self._list(key, value)]

    def whole(self, key: str, default: Any = _REQUIRED, *, least: int = 1) -> Any:
        """An integer of at least so much."""
        value = self.raw(key, default)
        return value if value is default else integer(value, self.at(key), least)

    def wholes(self, key: str, default: Any = _REQUIRED, *, least: int = 1) -> Any:
        """A list of integers of at least so much."""
        value = self.raw(key, default)
        if value is default:
            return value
        return [integer(item, self.at(key), least) for item in self._list(key, value)]

    def flag(self, key: str, default: Any = _REQUIRED) -> Any:
        """True or false."""
        value = self.raw(key, default)
        if value is not default and not isinstance(value, bool):
            raise InputError(f"{self.at(key)} = {value!r} is neither true nor false")
        return value

    def text(self, key: str, default: Any = _REQUIRED) -> Any:
        """Any text."""
        value = self.raw(key, default)
        if value is not default and not isinstance(value, str):
            raise InputError(f"{self.at(key)} = {value!r} is not text")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        found = self._list(key, self.raw(key))
        for item in found:
            if not isinstance(item, str):
                raise InputError(f"{self.at(key)} = {item!r} is not text")
        return found

    def choice(self, key: str, choices: Sequence[str], default: Any = _REQUIRED) -> Any:
        """One of several words."""
        value = self.text(key, default)
        if value is not default and value not in choices:
            raise InputError(
                f"{self.at(key)} = {value[:60]!r} is not known{_like(value, choices)}",
                remedy=f"there are {', '.join(choices)}",
            )
        return value

    def table(self, key: str) -> Table:
        """A table within, empty where there is none."""
        return Table(self.at(key), self.raw(key, {}))

    def tables(self, key: str) -> dict[str, Table]:
        """Tables within one, by their names."""
        within = self.raw(key, {})
        Table(self.at(key), within)
        return {name: Table(f"{self.at(key)}.{name}", part) for name, part in within.items()}

    def record(self, kind: Callable[..., Record], *, skip: Sequence[str] = ()) -> Record:
        """Build a dataclass of numbers, flags and texts from the keys of its fields.

        Raises InputError where the record does, naming the key.
        """
        hints = get_type_hints(kind)
        readers = {bool: self.flag, int: self.whole, int | None: self.whole, str: self.text}
        given = {}
        for field in fields(kind):  # type: ignore[arg-type]
            if field.name in skip:
                continue
            needed = field.default is MISSING and field.default_factory is MISSING
            default = _REQUIRED if needed else field.default
            value = readers.get(hints[field.name], self.number)(field.name, default)
            if field.name in self._values:
                given[field.name] = value
        try:
            return kind(**given)
        except InputError as error:
            first = error.what.split(" ", 1)[0]
            prefix = f"{self.name}." if first in hints else f"[{self.name}]: "
            raise InputError(prefix + error.what, remedy=error.remedy) from error

    def close(self) -> None:
        """Raise InputError where a key was never asked for."""
        for key in self._values:
            if key not in self._known:
                raise InputError(
                    f"unknown key {self.at(key[:60])!r}{_like(key, self._known)}",
                    remedy=f"known: {', '.join(self._known)}",
                )

    def _ask(self, key: str) -> None:
        if key not in self._known:
            self._known.append(key)

    def _list(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise InputError(f"{self.at(key)} = {str(value)[:60]!r} is not a list")
        return value


def quantity(value: Any, key: str) -> float:
    """Return a number or text with a suffix as SI. Raises InputError naming the key."""
    try:
        found = parse_quantity(value)
    except (InputError, TypeError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(
            f"{key} = {str(value)[:60]!r} is not a quantity",
            remedy="write for example 1e-4 or '100u'",
        )
    return found


def integer(value: Any, key: str, least: int) -> int:
    """Return an integer. Raises InputError naming the key."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
        raise InputError(f"{key} = {str(value)[:60]!r} is not an integer of at least {least}")
    return value


def _like(name: str, known: Sequence[str]) -> str:
    """What an error adds to a name that is like a known one."""
    close = get_close_matches(name[:60], known, 1)
    return f"; is {close[0]!r} meant?" if close else ""
