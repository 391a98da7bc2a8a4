"""One programmable element as a circuit: a resistor, or a subcircuit of ours or the user's."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from spicenn.errors import InputError, NetlistError
from spicenn.technology.quantity import parse_quantity

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
    parameters : (name, value) of subcircuit parameters that all cells of an array have in
        common and that differ from the defaults in the text.

    Raises NetlistError where the text holds anything but a subcircuit, or a parameter is
    not one of it.
    """

    name: str = "ohmic"
    netlist: str = ""
    parameters: tuple[tuple[str, float], ...] = ()

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
        for key, value in self.parameters:
            if key not in self.defaults or key == "g":
                known = ", ".join(sorted(self.defaults.keys() - {"g"})) or "none"
                raise NetlistError(
                    f"{key!r} is not a parameter of the cell",
                    where=self.name,
                    remedy=f"it has {known}",
                )
            if isinstance(value, bool) or not math.isfinite(value):
                raise NetlistError(f"{key} = {value!r} is not a number", where=self.name)

    @property
    def is_ohmic(self) -> bool:
        return not self.netlist

    @cached_property
    def defaults(self) -> Mapping[str, float]:
        """Parameters of the subcircuit's header with their values; not those set by a formula."""
        if not self.netlist:
            return {}
        pairs = (word.partition("=") for word in self._header if "=" in word)
        values = {}
        for key, _, text in pairs:
            try:
                values[key] = parse_quantity(text)
            except InputError:
                continue
        return values

    def parameter(self, key: str) -> float:
        """Value of a parameter that all cells have in common. Raises NetlistError without one."""
        values = {**self.defaults, **dict(self.parameters)}
        if key not in values:
            raise NetlistError(f"the cell has no parameter {key!r}", where=self.name)
        return values[key]

    @cached_property
    def _header(self) -> list[str]:
        """Words of the first .subckt line, continuations joined, blanks around "=" dropped."""
        words: list[str] = []
        for line in self.netlist.lower().splitlines():
            stripped = line.strip()
            if not words and stripped.startswith(".subckt"):
                words = [stripped]
            elif words and stripped.startswith("+"):
                words.append(stripped[1:])
            elif words and stripped and stripped[0] not in "*$;":
                break
        return re.sub(r"\s*=\s*", "=", " ".join(words)).split()

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
        header = self._header
        parameters = {word.split("=")[0] for word in header if "=" in word}
        if depth != 0 or header[1:2] != [self.name] or "g" not in parameters:
            raise NetlistError(
                f"expected '.subckt {self.name} wordline bitline g=…' up to '.ends'",
                where=self.name,
            )


OHMIC = Cell()
