"""What a netlist may hold before it reaches ngspice.

Directives are allowed by name; what no statement may hold is in ``technology.statements``,
because a cell is text too and is checked before there is a circuit.
"""

from __future__ import annotations

import re

from spicenn.errors import NetlistError
from spicenn.technology.statements import check_statement, statements

DIRECTIVES = frozenset(
    {
        ".subckt", ".ends", ".param", ".model", ".func", ".global", ".options", ".option",
        ".temp", ".save", ".ic", ".nodeset", ".op", ".dc", ".ac", ".tran", ".noise", ".tf",
        ".sens", ".pz", ".print", ".meas", ".measure", ".title", ".end",
        ".if", ".elseif", ".else", ".endif",
    }
)  # fmt: skip

_FIRST_WORDS = frozenset(
    {"op", "dc", "ac", "tran", "noise", "tf", "sens", "pz", "run", "alter", "altermod"}
)
_COMMAND = re.compile(r"[a-z0-9 \t_.=+\-@\[\]()#]*\Z")


def check_netlist(text: str, *, where: str = "netlist") -> list[str]:
    """Return the netlist's lines, without comments and with continuations joined.

    Raises NetlistError naming the line for a directive, a code model or a character
    that is not allowed.
    """
    lines = statements(text, where)
    for number, line in lines:
        check_statement(line, DIRECTIVES, f"{where}, line {number}")
    return [line for _, line in lines]


def check_command(command: str) -> str:
    """Return an interactive command in the form ngspice expects, or raise NetlistError.

    Analyses, ``run``, ``alter`` and ``altermod`` are allowed; several joined by
    ``;``, shell escapes and everything else are not.
    """
    text = command.strip().lower()
    first = text.split()[0] if text else ""
    if first not in _FIRST_WORDS or not _COMMAND.match(text) or len(text) > 900:
        raise NetlistError(
            f"the command {command[:80]!r} is not allowed",
            remedy="allowed are " + ", ".join(sorted(_FIRST_WORDS)),
        )
    return text
