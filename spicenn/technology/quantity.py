"""Engineering suffixes, parsed only where people type: TOML files and the command line."""

from __future__ import annotations

import re

from spicenn.errors import InputError

# SPICE's suffixes: "m" is milli and "meg" is mega, in either case; µ and u are micro.
_EXPONENT = {
    "t": 12, "g": 9, "meg": 6, "k": 3, "": 0, "m": -3,
    "u": -6, "µ": -6, "μ": -6, "n": -9, "p": -12, "f": -15,
}  # fmt: skip
_NUMBER = re.compile(
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(meg|[tgkmuµμnpf]?)\s*(s|v|a|f|j|m|ohm|ω|hz|k)?\s*\Z",
    re.IGNORECASE,
)


def parse_quantity(text: str | float) -> float:
    """Return the SI value of a number or of text such as ``"100u"``, ``"2 k"`` or ``"1meg"``.

    A unit (S, V, A, F, J, m, ohm, Ω, Hz, K) may follow; a scale is read before a unit:
    ``"1m"`` is a thousandth. Raises InputError for anything else.
    """
    if isinstance(text, bool):
        raise InputError(f"{text!r} is not a quantity")
    if isinstance(text, int | float):
        return float(text)
    match = _NUMBER.match(text)
    if match is None:
        raise InputError(f"{text!r} is not a quantity", remedy="write for example 100u, 2k or 1e-6")
    number, scale, _ = match.groups()
    # Dividing by 1e6 is exact where multiplying by 1e-6 is not: "100u" must be 1e-4.
    exponent = _EXPONENT[scale.lower()]
    return float(number) * 10.0**exponent if exponent >= 0 else float(number) / 10.0**-exponent
