"""What a library defines at its top level, and which of it a subcircuit needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from spicenn.errors import NetlistError
from spicenn.technology.include import Statement

_VALUE = re.compile(r"([a-z_][a-z0-9_]*(?:\([^()]*\))?)\s*=(?!=)\s*")
_BLANKS = re.compile(r"[\s(),={}'\"]+")


@dataclass(frozen=True)
class Definition:
    """One top-level definition of a library: its kind, its name, its statements."""

    kind: str
    name: str
    body: tuple[Statement, ...]

    @property
    def text(self) -> tuple[str, ...]:
        return tuple(statement.text for statement in self.body)


@dataclass(frozen=True)
class Header:
    """A subcircuit's ports, and its parameters with their texts."""

    ports: tuple[str, ...]
    parameters: Mapping[str, str]


def definitions(library: Iterable[Statement]) -> list[Definition]:
    """Group a library's statements. Of a parameter given twice the last value counts."""
    found: dict[tuple[str, str], Definition] = {}
    block: list[Statement] = []
    depth = 0
    for statement in library:
        words = statement.text.split()
        if words[0] == ".subckt":
            if len(words) < 2:
                raise NetlistError("a subcircuit without a name", where=statement.where)
            depth += 1
        if depth:
            block.append(statement)
            depth -= words[0] == ".ends"
            if not depth:
                _put(found, Definition("subckt", block[0].text.split()[1], tuple(block)))
                block = []
            continue
        for definition in _single(statement, words):
            _put(found, definition)
    if depth:
        raise NetlistError("the subcircuit has no .ends", where=block[0].where)
    return list(found.values())


def _single(statement: Statement, words: list[str]) -> Iterator[Definition]:
    if words[0] == ".model" and len(words) > 2:
        yield Definition("model", words[1], (statement,))
    elif words[0] == ".func" and (match := re.match(r"\.func\s+([a-z_]\w*)\s*\(", statement.text)):
        yield Definition("func", match[1], (statement,))
    elif words[0] == ".param":
        _, values = assignments(statement.text[len(".param") :])
        for key, value in values.items():
            yield Definition(
                "param", key.partition("(")[0],
                (Statement(f".param {key}={value}", statement.where),),
            )  # fmt: skip
    else:
        raise NetlistError(
            f"{words[0]} is outside of a subcircuit",
            where=statement.where,
            remedy="a library holds subcircuits, models, parameters and functions; for "
            "another choice between them use sections",
        )


def _put(found: dict[tuple[str, str], Definition], new: Definition) -> None:
    key = (new.kind, new.name)
    old = found.get(key)
    if old is not None and new.kind != "param" and old.text != new.text:
        raise NetlistError(
            f"{new.name!r} is defined a second time, otherwise than in {old.body[0].where}",
            where=new.body[0].where,
        )
    if old is None or new.kind == "param":
        found[key] = new


def needed(library: list[Definition], theirs: Definition) -> list[Definition]:
    """What the subcircuit names, directly or not, in the library's order."""
    named: dict[str, list[Definition]] = {}
    for item in library:
        # The model of a size is called nch.1, nch.2, …; a transistor names nch.
        for name in {item.name, re.sub(r"\.\d+\Z", "", item.name)}:
            named.setdefault(name, []).append(item)
    kept, waiting = {id(theirs)}, [theirs]
    while waiting:
        item = waiting.pop()
        for line in item.text:
            for word in {*_BLANKS.split(line), *re.findall(r"[a-z_]\w*", line)}:
                for other in named.get(word, ()):
                    if id(other) not in kept:
                        kept.add(id(other))
                        waiting.append(other)
    return [item for item in library if id(item) in kept]


def header_of(line: str) -> Header:
    words, parameters = assignments(line)
    return Header(tuple(word for word in words[2:] if word != "params:"), parameters)


def assignments(text: str) -> tuple[list[str], dict[str, str]]:
    """Words before the first ``key=value``, and all of those with their values as written."""
    # Formulas are masked, so that a comparison or a call in one is no assignment.
    masked, depth, quoted = [], 0, ""
    for c in text:
        if quoted:
            quoted = "" if c == quoted else quoted
            masked.append("#")
        elif c in "'\"":
            quoted = c
            masked.append("#")
        else:
            depth += c == "{"
            masked.append("#" if depth else c)
            depth -= c == "}"
    plain = "".join(masked)
    matches = list(_VALUE.finditer(plain))
    ends = [match.start() for match in matches[1:]] + [len(text)]
    values = {
        re.sub(r"\s", "", match[1]): text[match.end() : end].strip().rstrip(",").rstrip()
        for match, end in zip(matches, ends, strict=True)
    }
    return text[: matches[0].start() if matches else len(text)].split(), values
