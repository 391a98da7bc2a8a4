"""One line of what a fit says: a value, how sure it is and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Origin = Literal["fitted", "suggested", "observed", "given", "assumed"]


@dataclass(frozen=True)
class Row:
    """One value of the report.

    Parameters
    ----------
    key : a technology's key, inner records dotted, or what was observed beside them.
    value : number, text or tuple; SI units.
    error : standard error of the value, or of each of its numbers; None where it has none.
    unit : of value and error, empty for text.
    origin : ``fitted`` to the data; ``suggested`` by them, a choice; ``observed`` in them,
        and no key of the technology; ``given`` by the user; ``assumed`` from the base.
    note : how it was found, one sentence.
    """

    key: str
    value: Any
    error: float | tuple[float | None, ...] | None = None
    unit: str = ""
    origin: Origin = "fitted"
    note: str = ""


@dataclass(frozen=True)
class Finding:
    """What one kind of measurement says.

    changes : keys of the technology, as ``Technology.replace`` takes them.
    rows : the report's lines on them.
    """

    changes: Mapping[str, Any]
    rows: tuple[Row, ...]
