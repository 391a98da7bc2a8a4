"""SPICE text as statements, and what none of them may hold, whoever wrote it.

ngspice runs shell commands from ``.control`` blocks at load, and some code models start
programs, load libraries or read files. So directives are allowed by name, and statements
that reach outside of the netlist are refused wherever they come from: a user's netlist, a
cell, a library that a cell is made of.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from spicenn.errors import NetlistError

# Code models that start a process, load a library or read a file of the machine.
_MODELS = frozenset({"d_process", "d_cosim", "d_source", "d_state", "filesource"})
# Parameters of code models and sources that name a file or a program.
_FILES = frozenset(
    {
        "file", "pwlfile", "input_file", "state_file", "process_file",
        "simulation", "sim_args", "lib_args",
    }
)  # fmt: skip
_UNPRINTABLE = re.compile(r"[^\t -~]")
_ASSIGNED = re.compile(rf"\b({'|'.join(sorted(_FILES))})\s*=")
# ngspice reads all of these as blanks between the words of a code model.
_BLANKS = re.compile(r"[\s=(),\[\]{}\"']+")


def statements(text: str, where: str) -> list[tuple[int, str]]:
    """Return statements with the number of their first line, continuations joined.

    Blank lines and lines of comment are left out. Raises NetlistError naming the line
    for a character that is not printable ASCII, or a comment that ngspice may obey.
    """
    joined: list[tuple[int, list[str]]] = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if bad := _UNPRINTABLE.search(line):
            raise NetlistError(
                f"character {bad[0]!a} is not allowed",
                where=f"{where}, line {number}",
                remedy="use printable ASCII",
            )
        stripped = line.strip()
        if stripped.startswith("*#"):  # a comment that ngspice may take as a command
            raise NetlistError(
                "*# is not allowed", where=f"{where}, line {number}", remedy="write a plain *"
            )
        if not stripped or stripped[0] in "*;$#":
            continue
        if stripped[0] == "+" and joined:
            joined[-1][1].append(stripped[1:].strip())
        else:
            joined.append((number, [stripped]))
    return [(number, " ".join(parts)) for number, parts in joined]


def check_statement(statement: str, directives: Collection[str], where: str) -> None:
    """Raise NetlistError for another directive than those, or for a way out of the netlist."""
    line = statement.lower()
    first = line.split()[0]
    if first.startswith(".") and first not in directives:
        raise NetlistError(
            f"{first} is not allowed",
            where=where,
            remedy="allowed are " + ", ".join(sorted(directives)),
        )
    if first == ".model":
        for word in _BLANKS.split(line)[2:]:
            if word in _MODELS:
                raise NetlistError(
                    f"the model type {word} reaches outside of the netlist", where=where
                )
            if word in _FILES:
                raise NetlistError("a netlist must not name files", where=where)
    if _ASSIGNED.search(line):
        raise NetlistError("a netlist must not name files", where=where)
