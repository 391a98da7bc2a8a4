"""Range checks of records' values, worded once."""

from __future__ import annotations

import math

from spicenn.errors import TechnologyError


def check_number(key: str, value: object, low: float, high: float, *, above: bool = False) -> None:
    """Raise TechnologyError unless value is a finite number in [low, high], or (low, high]."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if good and (low < value if above else low <= value) and value <= high:  # type: ignore[operator]
        return
    bracket = "(" if above else "["
    end = "]" if math.isfinite(high) else ")"
    raise TechnologyError(
        f"{key} = {value!r} is out of range", remedy=f"allowed: {bracket}{low:g}, {high:g}{end}"
    )


def check_choice(key: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise TechnologyError unless value is one of the words."""
    if value not in allowed:
        raise TechnologyError(
            f"{key} = {value!r} is unknown", remedy="allowed: " + ", ".join(allowed)
        )
