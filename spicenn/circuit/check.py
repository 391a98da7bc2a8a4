"""What a netlist may hold before it reaches ngspice.

ngspice runs shell commands from ``.control`` blocks at load, and some code models
start programs, load libraries or read files. So directives are allowed by name,
and everything else is refused.
"""

from __future__ import annotations

import re

from spicenn.errors import NetlistError

DIRECTIVES = frozenset(
    {
        ".subckt", ".ends", ".param", ".model", ".func", ".global", ".options", ".option",
        ".temp", ".save", ".ic", ".nodeset", ".op", ".dc", ".ac", ".tran", ".noise", ".tf",
        ".sens", ".pz", ".print", ".meas", ".measure", ".title", ".end",
    }
)  # fmt: skip

# Code models that start a process, load a library or read a file of the machine.
_MODELS = frozenset({"d_process", "d_cosim", "d_source", "d_state", "filesource"})
_FILES = re.compile(r"\b(process_file|simulation|sim_args|input_file|state_file|file|lib_args)\s*=")
_FIRST_WORDS = frozenset(
    {"op", "dc", "ac", "tran", "noise", "tf", "sens", "pz", "run", "alter", "altermod"}
)
_COMMAND = re.compile(r"[a-z0-9 \t_.=+\-@\[\]()#]*\Z")


def check_netlist(text: str, *, where: str = "netlist") -> list[str]:
    """Return the netlist's lines, without comments and with continuations joined.

    Raises NetlistError naming the line for a directive, a code model or a character
    that is not allowed.
    """
    joined: list[tuple[int, str]] = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        bad = next((c for c in line if not (" " <= c <= "~" or c == "\t")), None)
        if bad is not None:
            raise NetlistError(
                f"character {bad!a} is not allowed",
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
            first, head = joined[-1]
            joined[-1] = (first, f"{head} {stripped[1:].strip()}")
        else:
            joined.append((number, stripped))
    for number, line in joined:
        _check_line(line.lower(), f"{where}, line {number}")
    return [line for _, line in joined]


def _check_line(line: str, where: str) -> None:
    words = line.split()
    if words[0].startswith(".") and words[0] not in DIRECTIVES:
        raise NetlistError(
            f"{words[0]} is not allowed",
            where=where,
            remedy="allowed are " + ", ".join(sorted(DIRECTIVES)),
        )
    if words[0] == ".model" and any(re.split(r"[(\s]", word)[0] in _MODELS for word in words[2:3]):
        raise NetlistError(f"the model type {words[2]} reaches outside of the netlist", where=where)
    if _FILES.search(line):
        raise NetlistError("a netlist must not name files", where=where)


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
