"""Reads SPICE libraries: ``.include`` and ``.lib`` are followed, within allowed folders only.

What comes out is a list of checked statements without an ``.include`` left. Libraries may be
hostile: the folders hold after all links are resolved, depth, number and size are bounded,
and a statement is refused by file and line where it could reach outside of the netlist.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spicenn.errors import NetlistError
from spicenn.technology.cell import CELL_DIRECTIVES
from spicenn.technology.osdi import inside, read_bytes
from spicenn.technology.statements import check_statement, statements

MOST_DEPTH = 16
MOST_FILES = 256
MOST_BYTES = 32 * 2**20

_INCLUDE = re.compile(r"""\.(?:include|incl|inc)\s*("[^"]*"|'[^']*'|\S+)\s*\Z""", re.IGNORECASE)
_CALL = re.compile(r"""\.lib\s*("[^"]*"|'[^']*'|\S+)\s+(\S+)\s*\Z""", re.IGNORECASE)
_OPEN = re.compile(r"""\.lib\s+([^\s"']+)\s*\Z""", re.IGNORECASE)
_CLOSE = re.compile(r"\.endl(?:\s+(\S+))?\s*\Z", re.IGNORECASE)
# They tell other simulators what not to print; ngspice reads on after an included file's end.
_IGNORED = frozenset({".protect", ".unprotect", ".prot", ".unprot", ".end"})
# What ngspice takes for the beginning of a comment in a line.
_COMMENT = re.compile(r";|//|(?<=[ \t,])\$")


@dataclass(frozen=True)
class Statement:
    """One statement of a library, in lower case, and where it was."""

    text: str
    where: str


def read_library(
    path: Path, section: str | None, allow_include: Sequence[str | Path]
) -> list[Statement]:
    """Return the statements of a library, those of all it includes in their places.

    Parameters
    ----------
    section : the one between ``.lib SECTION`` and ``.endl``, in any case; None for what is
        outside of sections.
    allow_include : folders that may be read.

    Raises NetlistError naming file and line.
    """
    reader = _Reader(allow_include)
    real = inside(path, allow_include)
    return list(reader.read(real, section.lower() if section is not None else None, ()))


_Place = tuple[Path, str | None]


class _Reader:
    """Follows one library; counts what it reads."""

    def __init__(self, folders: Sequence[str | Path]) -> None:
        self._folders = folders
        self._files = 0
        self._bytes = 0

    def read(
        self, real: Path, section: str | None, outer: tuple[_Place, ...]
    ) -> Iterator[Statement]:
        place = (real, section)
        if place in outer:
            chain = " -> ".join(_name(*item) for item in (*outer, place))
            raise NetlistError(f"includes itself: {chain}", where=str(real))
        if len(outer) >= MOST_DEPTH:
            raise NetlistError(f"is included more than {MOST_DEPTH} levels deep", where=str(real))
        opened: list[str] = []  # the sections around a line, the innermost last
        seen: list[str] = []
        for number, line in statements(self._text(real), str(real)):
            where = f"{real}, line {number}"
            if match := _OPEN.match(line):
                opened.append(match[1].lower())
                seen.append(opened[-1])
            elif match := _CLOSE.match(line):
                if not opened or (match[1] and match[1].lower() != opened[-1]):
                    raise NetlistError(f"{line!r} ends no section", where=where)
                opened.pop()
            elif (section in opened) if section is not None else not opened:
                yield from self._statement(line, where, (*outer, place))
        if opened:
            raise NetlistError(f"the section {opened[-1]!r} has no .endl", where=str(real))
        if section is not None and section not in seen:
            raise NetlistError(
                f"has no section {section!r}",
                where=str(real),
                remedy="there are " + (", ".join(dict.fromkeys(seen)) or "none"),
            )

    def _statement(self, line: str, where: str, outer: tuple[_Place, ...]) -> Iterator[Statement]:
        call = _CALL.match(line)
        included = call or _INCLUDE.match(line)
        if included:
            try:
                real = inside(outer[-1][0].parent / included[1].strip("\"'"), self._folders)
            except NetlistError as error:
                at = f"{where}, {error.where}"
                raise NetlistError(error.what, where=at, remedy=error.remedy) from error
            yield from self.read(real, call[2].lower() if call else None, outer)
        elif line.split()[0].lower() not in _IGNORED:
            check_statement(line, CELL_DIRECTIVES, where)
            yield Statement(line.lower(), where)

    def _text(self, real: Path) -> str:
        """A file without comments, line by line the same as before."""
        self._files += 1
        if self._files > MOST_FILES:
            raise NetlistError(f"more than {MOST_FILES} files are included", where=str(real))
        data = read_bytes(real, MOST_BYTES - self._bytes)
        self._bytes += len(data)
        # Comments may hold any letters; every byte is one in this encoding.
        lines = re.split(r"\r\n|\r|\n", data.decode("latin-1"))
        return "\n".join(map(_without_comment, lines))


def _without_comment(line: str) -> str:
    stripped = line.strip()
    if stripped.startswith("*#"):
        return "*#"  # refused where statements are read
    if stripped.startswith(("*", "#", "$", ";")):
        return ""
    # A path may hold what would be a comment elsewhere.
    if _INCLUDE.match(stripped) or _CALL.match(stripped):
        return line
    return _COMMENT.split(line, maxsplit=1)[0]


def _name(path: Path, section: str | None) -> str:
    return path.name if section is None else f"{path.name} {section}"
