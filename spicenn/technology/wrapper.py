"""A user's subcircuit as a cell: what it needs of its library, inside a wrapper of ours.

The wrapper has the cell's ports and parameters and holds, one level deeper, the library::

    .subckt NAME wordline bitline g=1e-05 w=1e-06
    .param spicenn_a0={g} spicenn_a1={w}
    .subckt NAME_library spicenn_p0 … spicenn_v0=0 spicenn_v1=0
    .param … .func … .model … .subckt THEIRS … .ends
    xcell spicenn_p0 … THEIRS gprog={spicenn_v0} w={spicenn_v1}
    .ends NAME_library
    xlibrary wordline bitline … NAME_library spicenn_v0={spicenn_a0} spicenn_v1={spicenn_a1}
    .ends NAME

ngspice keeps models, parameters, functions and subcircuits of a subcircuit to itself, so
that no name of the library can meet one of the crossbar. It takes the parameters of a
subcircuit's body for ones of its header and evaluates an instance's formulas among them: a
library's own ``w`` would capture the ``w`` in ``w={w}``. So values cross each border under
names that no library has.

A process kit has thousands of models, and each cell would carry all of them: only what the
subcircuit's text names, and what that names in turn, is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from spicenn.errors import NetlistError
from spicenn.technology.cell import Cell
from spicenn.technology.checks import check_number
from spicenn.technology.definitions import (
    Definition,
    Header,
    definitions,
    header_of,
    needed,
)
from spicenn.technology.include import Statement, read_library
from spicenn.technology.osdi import compiled_model
from spicenn.technology.quantity import parse_quantity

# Of one cell's text, which every netlist of a study repeats.
MOST_CHARACTERS = 2 * 2**20

_PORTS = ("wordline", "bitline")
_WIDTH = 100
_NAME = re.compile(r"[a-z_][a-z0-9_]*\Z")
_FORMULA = re.compile(r"([a-z_][a-z0-9_]*)\s*=\s*\{([a-z0-9_ .+*/()^,<>=?:&|!-]+)\}\s*")
# ngspice's suffixes: another letter, "a" for one, may be a scale that we would misread.
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?(?:meg|[tgkmunpf])?\Z")
_OURS = "spicenn_"
# The cell's own parameter, and what ngspice multiplies every instance's current by.
_RESERVED = frozenset({"g", "m"})


def cell_from_file(
    path: Path,
    name: str | None,
    *,
    allow_include: Sequence[str | Path],
    section: str | None,
    subckt: str | None,
    ports: Sequence[str] | Mapping[str, str] | None,
    ties: Mapping[str, float | str],
    conductance: str | None,
    parameters: Mapping[str, float],
    osdi: Sequence[str | Path],
    trust_model: bool,
    g: float,
) -> Cell:
    """See ``Cell.from_file``."""
    models = tuple(
        compiled_model(model, allow_include=allow_include, trust_model=trust_model)
        for model in osdi
    )
    library = definitions(read_library(path, section, allow_include))
    theirs = _chosen(library, subckt, path, section)
    header = header_of(theirs.text[0])
    name = name or _cell_name(theirs.name)
    where = f"{path}, subcircuit {theirs.name}"
    nodes, sources = _nodes(header, ports, ties, where)
    check_number("g", g, 0.0, float("inf"), above=True)
    formulas = _formulas(header, conductance, where)
    own = _own(header, formulas, parameters, where)
    kept, called = _renamed(needed(library, theirs), theirs, name, where)
    passed = {**formulas, **{key: key for key in own}}
    inner = [f"{_OURS}v{k}" for k in range(len(passed))]
    outer = [f"{_OURS}a{k}" for k in range(len(passed))]
    borders = [f"{_OURS}p{k}" for k in range(len(nodes))]
    title = f"* subcircuit {theirs.name} of {path.name}"
    lines = [
        _plain(title if section is None else f"{title}, section {section}"),
        f".subckt {name} wordline bitline g={float(g)!r}"
        + "".join(f" {key}={value!r}" for key, value in own.items()),
        *(f".param {a}={{{text}}}" for a, text in zip(outer, passed.values(), strict=True)),
        f".subckt {name}_library {' '.join(borders)}" + "".join(f" {v}=0" for v in inner),
        *(line for definition in kept for line in definition.text),
        f"xcell {' '.join(borders)} {called}"
        + "".join(f" {key}={{{v}}}" for key, v in zip(passed, inner, strict=True)),
        f".ends {name}_library",
        *sources,
        f"xlibrary {' '.join(nodes)} {name}_library"
        + "".join(f" {v}={{{a}}}" for v, a in zip(inner, outer, strict=True)),
        f".ends {name}",
    ]
    text = "".join(f"{line}\n" for long in lines for line in _folded(long))
    if len(text) > MOST_CHARACTERS:
        raise NetlistError(
            f"needs {len(text)} characters of its library, more than {MOST_CHARACTERS}",
            where=where,
        )
    return Cell(
        name, text, tuple(sorted((key, float(parameters[key])) for key in parameters)), models
    )


def _chosen(
    library: list[Definition], subckt: str | None, path: Path, section: str | None
) -> Definition:
    blocks = {item.name: item for item in library if item.kind == "subckt"}
    known = ", ".join(sorted(blocks)) or "none"
    at = str(path) if section is None else f"{path}, section {section}"
    if subckt is not None:
        if subckt.lower() not in blocks:
            raise NetlistError(
                f"no subcircuit is called {subckt!r}", where=at, remedy=f"there are {known}"
            )
        return blocks[subckt.lower()]
    if len(blocks) != 1:
        raise NetlistError(
            f"holds {len(blocks)} subcircuits", where=at, remedy=f"name one as subckt: {known}"
        )
    return next(iter(blocks.values()))


def _nodes(
    header: Header,
    ports: Sequence[str] | Mapping[str, str] | None,
    ties: Mapping[str, float | str],
    where: str,
) -> tuple[list[str], list[str]]:
    """What each of the user's ports is joined to, and the sources that hold tied ones."""
    tied = {key.lower(): value for key, value in ties.items()}
    free = [port for port in header.ports if port not in tied]
    if isinstance(ports, Mapping):
        chosen = [str(ports.get(port, "")).lower() for port in _PORTS]
    elif ports is not None:
        chosen = [str(port).lower() for port in ports]
    else:
        chosen = list(_PORTS) if set(_PORTS) <= set(free) else free
    listed = " ".join(header.ports)
    unknown = sorted(tied.keys() - set(header.ports))
    if unknown:
        raise NetlistError(
            f"has no port {unknown[0]!r}", where=where, remedy=f"its ports are {listed}"
        )
    if len(chosen) != 2 or chosen[0] == chosen[1] or not set(chosen) <= set(free):
        raise NetlistError(
            f"{chosen} are not two of its free ports",
            where=where,
            remedy=f'its ports are {listed}; write for example ports=("d", "s") and '
            'ties={"gate": 1.2}',
        )
    left = [port for port in free if port not in chosen]
    if left:
        raise NetlistError(
            f"the port {left[0]!r} is joined to nothing",
            where=where,
            remedy=f'hold it at a voltage, for example ties={{"{left[0]}": 0.0}}',
        )
    joined = dict(zip(chosen, _PORTS, strict=True))
    sources = []
    for k, (port, value) in enumerate(tied.items()):
        if isinstance(value, str):
            if value not in _PORTS:
                raise NetlistError(
                    f"ties: {port} = {value!r} is neither a voltage nor one of {_PORTS}",
                    where=where,
                )
            joined[port] = value
            continue
        check_number(f"ties: {port}", value, -float("inf"), float("inf"))
        joined[port] = f"{_OURS}t{k}" if value else "0"
        if value:
            sources.append(f"v{_OURS}{k} {joined[port]} 0 {float(value)!r}")
    return [joined[port] for port in header.ports], sources


def _formulas(header: Header, conductance: str | None, where: str) -> dict[str, str]:
    """The user's parameters that the conductance sets, each as a formula of g."""
    text = (conductance or "g").lower().strip()
    found: dict[str, str] = {}
    if _NAME.match(text):
        found[text] = "g"
    else:
        matches = list(_FORMULA.finditer(text))
        if not matches or "".join(match[0] for match in matches) != text:
            raise NetlistError(
                f"conductance = {text!r} is neither a parameter nor parameters as formulas",
                where=where,
                remedy='write "gprog", or for example "vth={0.4+1e3*g}"',
            )
        found = {match[1]: match[2].strip() for match in matches}
    for key in found:
        _check_parameter(header, key, where)
    return found


def _own(
    header: Header, formulas: Mapping[str, str], given: Mapping[str, float], where: str
) -> dict[str, float]:
    """Parameters that the cell takes over from the user's header, with their defaults."""
    own: dict[str, float] = {}
    for key, text in header.parameters.items():
        # A formula stays the subcircuit's own.
        if key not in {*formulas, *_RESERVED} and _NAME.match(key) and _NUMBER.match(text):
            own[key] = parse_quantity(text)
    for key, value in given.items():
        _check_parameter(header, key, where)
        if key in formulas:
            raise NetlistError(f"the conductance sets {key!r}", where=where)
        if key in _RESERVED:
            raise NetlistError(
                f"the parameter {key!r} cannot be set",
                where=where,
                remedy="g is the cell's conductance, m the number of equal instances",
            )
        check_number(f"parameters: {key}", value, -float("inf"), float("inf"))
        own.setdefault(key, float(value))
    return own


def _check_parameter(header: Header, key: str, where: str) -> None:
    if key not in header.parameters:
        raise NetlistError(
            f"has no parameter {key!r}",
            where=where,
            remedy="it has " + (", ".join(header.parameters) or "none"),
        )


def _renamed(
    kept: list[Definition], theirs: Definition, name: str, where: str
) -> tuple[list[Definition], str]:
    """Give the user's subcircuit another name than the wrapper's, which ngspice would confuse."""
    taken = {
        statement.text.split()[1]
        for item in kept
        for statement in (item.body[1:] if item is theirs else item.body)
        if statement.text.startswith(".subckt ")
    }
    clash = sorted({name, f"{name}_library", f"{name}_subcircuit"} & taken)
    if clash:
        raise NetlistError(
            f"the library has a subcircuit {clash[0]!r} too",
            where=where,
            remedy="give the cell another name",
        )
    if theirs.name not in (name, f"{name}_library"):
        return kept, theirs.name
    called = f"{name}_subcircuit"
    first, *middle, last = theirs.body
    header = re.sub(r"\S+", called, first.text[len(".subckt") :], count=1)
    body = (
        Statement(f".subckt{header}", first.where),
        *middle,
        Statement(f".ends {called}", last.where),
    )
    new = Definition("subckt", called, body)
    return [new if item is theirs else item for item in kept], called


def _cell_name(subckt: str) -> str:
    name = re.sub(r"[^a-z0-9_]", "_", subckt)
    return name if name[0].isalpha() else f"cell_{name}"


def _folded(line: str) -> Iterator[str]:
    """A long statement on several lines, broken at blanks."""
    head = ""
    for word in line.split(" "):
        if head and len(head) + 1 + len(word) > _WIDTH:
            yield head
            head = f"+ {word}"
        else:
            head = f"{head} {word}" if head else word
    yield head


def _plain(text: str) -> str:
    return "".join(c if " " <= c <= "~" else "_" for c in text)
