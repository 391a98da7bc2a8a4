"""One programmable element as a circuit: a resistor, or a subcircuit of ours or the user's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spicenn.errors import NetlistError

# What a cell may contain: instances and these directives. Everything else that
# starts with a dot could run a command, read a file or change the analysis.
_ALLOWED_DIRECTIVES = frozenset({".subckt", ".ends", ".param", ".model", ".func"})
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True)
class Cell:
    """A two-terminal element between wordline and bitline, programmed by one conductance.

    Parameters
    ----------
    name : the subcircuit's name, lower case.
    netlist : text of ``.subckt NAME wordline bitline g=…`` up to ``.ends``; empty
        for the ohmic cell, which is emitted as a plain resistor.

    Raises NetlistError where the text holds anything but a subcircuit.
    """

    name: str = "ohmic"
    netlist: str = ""

    def __post_init__(self) -> None:
        if not _IDENTIFIER.match(self.name):
            raise NetlistError(
                f"{self.name!r} is not a cell name",
                where="cell",
                remedy="use lower-case letters, digits and underscores",
            )
        if self.netlist:
            self._check()
        elif self.name != "ohmic":
            raise NetlistError("a cell other than 'ohmic' needs a netlist", where=self.name)

    @property
    def is_ohmic(self) -> bool:
        return not self.netlist

    def _check(self) -> None:
        if any((ord(c) < 32 and c not in "\n\t") or ord(c) > 126 for c in self.netlist):
            raise NetlistError("control or non-ASCII characters in the netlist", where=self.name)
        lines = [line.strip().lower() for line in self.netlist.splitlines()]
        code = [(n, line) for n, line in enumerate(lines, 1) if line and line[0] not in "*$;"]
        depth = 0
        for number, line in code:
            directive = line.split()[0]
            if directive.startswith(".") and directive not in _ALLOWED_DIRECTIVES:
                raise NetlistError(
                    f"{directive} is not allowed in a cell",
                    where=f"{self.name}, line {number}",
                    remedy="allowed are " + ", ".join(sorted(_ALLOWED_DIRECTIVES)),
                )
            if depth == 0 and directive != ".subckt":
                raise NetlistError(
                    "text outside of the subcircuit", where=f"{self.name}, line {number}"
                )
            depth += {".subckt": 1, ".ends": -1}.get(directive, 0)
        header = code[0][1].split() if code else []
        if depth != 0 or header[1:2] != [self.name] or "g" not in _parameters(header[2:]):
            raise NetlistError(
                f"expected '.subckt {self.name} wordline bitline g=…' up to '.ends'",
                where=self.name,
            )


def _parameters(words: list[str]) -> set[str]:
    return {word.split("=")[0] for word in words if "=" in word}


OHMIC = Cell()
