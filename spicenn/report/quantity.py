"""Numbers with their units, as people read them."""

from __future__ import annotations

import math

# Largest first.
PREFIXES = {
    "T": 1e12, "G": 1e9, "M": 1e6, "k": 1e3, "": 1.0, "m": 1e-3, "µ": 1e-6, "n": 1e-9,
    "p": 1e-12, "f": 1e-15, "a": 1e-18,
}  # fmt: skip
_SYMBOLS = {"ohm": "Ω", "1": ""}
# Units that a prefix goes in front of; products and powers are written out.
_PREFIXED = frozenset({"S", "V", "A", "F", "J", "s", "Hz", "Ω"})


def quantity(value: float, unit: str, *, digits: int = 4, spread: float = math.nan) -> str:
    """Return a value with its unit, e.g. 12.3 ± 0.4 pJ.

    Parameters
    ----------
    unit : in SI, as the record writes it: "1" is none, "ohm" is Ω.
    digits : significant ones.
    spread : of the value, left out where it is not finite, or 0.
    """
    unit = _SYMBOLS.get(unit, unit)
    if not math.isfinite(value):
        return "–"
    prefix = ""
    if unit in _PREFIXED and value:
        size = abs(value) * (1 + 1e-12)
        prefix = next((name for name, factor in PREFIXES.items() if factor <= size), "a")
    factor = PREFIXES[prefix]
    text = f"{value / factor:.{digits}g}"
    if math.isfinite(spread) and spread:
        text += f" ± {spread / factor:.2g}"
    return f"{text} {prefix}{unit}".rstrip()


def prefix_of(value: float) -> str:
    """Prefix that leaves at most three digits before the point of a column's largest number."""
    if not math.isfinite(value) or value <= 0:
        return ""
    fitting = [name for name, factor in PREFIXES.items() if factor <= value]
    return fitting[0] if fitting else list(PREFIXES)[-1]
