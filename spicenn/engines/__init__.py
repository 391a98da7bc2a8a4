"""Engines: circuit records and stimuli in, currents out. Each loads when it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spicenn.errors import InputError

if TYPE_CHECKING:
    from spicenn.engines.engine import Engine

__all__ = ["ENGINES", "open_engine", "opened"]

ENGINES = ("ngspice", "nodal")


def open_engine(name: str, **options: Any) -> Engine:
    """Return a new engine; close it, or use it as a context manager.

    Parameters
    ----------
    name : "ngspice" or "nodal".
    options : of ``NgspiceEngine``; the nodal engine has ``rtol`` and ``threads`` and
        ignores the others, so that a caller may exchange one for the other.

    Raises InputError for a name or an option that does not exist.
    """
    if name == "nodal":
        from spicenn.engines.nodal import NodalEngine

        return NodalEngine(**{key: options[key] for key in ("rtol", "threads") if key in options})
    if name == "ngspice":
        from spicenn.engines.ngspice.client import NgspiceEngine

        try:
            # It has one thread.
            return NgspiceEngine(**{k: v for k, v in options.items() if k != "threads"})
        except TypeError as error:
            raise InputError(f"the ngspice engine cannot take these options: {error}") from error
    raise InputError(f"no engine is called {name!r}", remedy="there are " + ", ".join(ENGINES))


@contextmanager
def opened(engine: str | Engine, **options: Any) -> Iterator[Engine]:
    """Yield an engine: a new one by its name, closed at the end, or the one given, left open."""
    if isinstance(engine, str):
        with open_engine(engine, **options) as running:
            yield running
    else:
        yield engine
