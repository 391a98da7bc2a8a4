"""One programmable element as a circuit: a resistor, or a subcircuit of ours or the user's.

A cell is text: nothing of it lies in another file when ngspice reads it, so that a saved
design is self-contained. ``Cell.from_file`` makes it from a user's file or a foundry's
library. The one exception is compiled Verilog-A, native code that needs ``trust_model``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from spicenn.errors import InputError, NetlistError
from spicenn.technology.osdi import CompiledModel
from spicenn.technology.quantity import parse_quantity
from spicenn.technology.statements import check_statement, statements

# What a cell may contain: instances and these directives. Everything else that
# starts with a dot could run a command, read a file or change the analysis.
CELL_DIRECTIVES = frozenset(
    {
        ".subckt", ".ends", ".param", ".model", ".func",
        ".if", ".elseif", ".else", ".endif",
    }
)  # fmt: skip
_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True)
class Cell:
    """A two-terminal element between wordline and bitline, programmed by one conductance.

    Parameters
    ----------
    name : the subcircuit's name, lower case.
    netlist : text of ``.subckt NAME wordline bitline g=…`` up to ``.ends``, which may hold
        models, parameters, functions and subcircuits of its own; empty for the ohmic cell,
        which is emitted as a plain resistor.
    parameters : (name, value) of subcircuit parameters that all cells of an array have in
        common and that differ from the defaults in the text.
    osdi : compiled Verilog-A that the text's models need; see ``CompiledModel``.

    Raises NetlistError where the text holds anything but subcircuits, or a parameter is
    not one of it.
    """

    name: str = "ohmic"
    netlist: str = ""
    parameters: tuple[tuple[str, float], ...] = ()
    osdi: tuple[CompiledModel, ...] = ()

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
        elif self.osdi:
            raise NetlistError("a resistor needs no compiled model", where=self.name)
        if not all(isinstance(model, CompiledModel) for model in self.osdi):
            raise NetlistError(
                f"osdi = {self.osdi!r} is not a tuple of compiled models",
                where=self.name,
                remedy="use Cell.from_file(…, osdi=[path]) or compiled_model(path, …)",
            )
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

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        allow_include: Sequence[str | Path],
        section: str | None = None,
        subckt: str | None = None,
        ports: Sequence[str] | Mapping[str, str] | None = None,
        ties: Mapping[str, float | str] | None = None,
        conductance: str | None = None,
        parameters: Mapping[str, float] | None = None,
        osdi: Sequence[str | Path] = (),
        trust_model: bool = False,
        g: float = 10e-6,
    ) -> Cell:
        """Make a cell of a user's subcircuit, or of one in a foundry's library.

        ``.include`` and ``.lib`` are followed now, within the allowed folders alone, and what
        the subcircuit needs of them is copied into the cell, every line of it checked. Nothing
        but this text ever reaches ngspice, and a saved design, which holds it, needs no file
        of the library. A confidential library therefore travels with the design.

        Parameters
        ----------
        path : file that holds the subcircuit, or includes it.
        name : what the cell is called; the subcircuit's name if None.
        allow_include : folders that may be read. ``path``, every file that it names and every
            compiled model must lie in one of them once symbolic links are resolved.
        section : of ``path``, as in ``.lib PATH SECTION``; None for what is outside of sections.
        subckt : name of the user's subcircuit; may be left out where the file has one alone.
        ports : the user's ports that wordline and bitline are joined to, as a pair or as
            ``{"wordline": …, "bitline": …}``; by default those of these names, else the two
            that are not tied.
        ties : what each further port is held at: a voltage against ground [V], or
            ``"wordline"`` or ``"bitline"``.
        conductance : the user's parameter that takes the cell's conductance, or parameters as
            formulas of ``g``, e.g. ``"vth={0.4+1e3*g}"``; ``"g"`` if None.
        parameters : values of further parameters of the subcircuit, which all cells share.
            Its other numeric parameters keep their defaults and become the cell's.
        osdi : compiled Verilog-A models that the subcircuit uses. They are native code, which
            ngspice loads and runs, and are named by path and SHA-256, not copied.
        trust_model : allow that code to run.
        g : the conductance where an instance names none [S].

        Raises NetlistError naming file and line of what is missing, is not allowed or does
        not fit.
        """
        from spicenn.technology.wrapper import cell_from_file

        return cell_from_file(
            Path(path), name, allow_include=allow_include, section=section, subckt=subckt,
            ports=ports, ties=ties or {}, conductance=conductance, parameters=parameters or {},
            osdi=osdi, trust_model=trust_model, g=g,
        )  # fmt: skip

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
        if "\r" in self.netlist:
            raise NetlistError("control characters in the netlist", where=self.name)
        depth = 0
        for number, line in statements(self.netlist, self.name):
            where = f"{self.name}, line {number}"
            check_statement(line, CELL_DIRECTIVES, where)
            directive = line.split()[0].lower()
            if depth == 0 and directive != ".subckt":
                raise NetlistError("text outside of the subcircuit", where=where)
            depth += {".subckt": 1, ".ends": -1}.get(directive, 0)
        header = self._header
        parameters = {word.split("=")[0] for word in header if "=" in word}
        if depth != 0 or header[1:2] != [self.name] or "g" not in parameters:
            raise NetlistError(
                f"expected '.subckt {self.name} wordline bitline g=…' up to '.ends'",
                where=self.name,
            )


OHMIC = Cell()
