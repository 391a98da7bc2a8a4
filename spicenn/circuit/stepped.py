"""A netlist made ready to be stepped from outside: what can be driven, read and recorded; pure.

Its own analyses and outputs are left out, its ``external`` sources are what a
co-simulation drives, and every node that is to be read while a step is still being tried
has a reader: a controlled source of no gain across the node, which adds nothing to the
circuit and whose voltage ngspice tells at any time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from spicenn.circuit.check import check_netlist
from spicenn.circuit.names import near
from spicenn.circuit.tolerances import Tolerances
from spicenn.errors import InputError, NetlistError
from spicenn.technology.quantity import parse_quantity

Method = Literal["trap", "gear"]

# When steps are as accurate as a threshold's crossing time is to be. At ngspice's own
# reltol the period of an RC oscillator is off by 1e-4.
STEPPED = Tolerances(reltol=1e-5, vntol=1e-8, abstol=1e-13)
# More nodes than this are recorded only where they are named.
_MOST_DEFAULT = 64
# Steps until ngspice ends by itself, which no run reaches.
_ENDLESS = 1e9
# Dropped: a co-simulation has one transient, and says what is kept of it.
_ANALYSES = frozenset(
    {
        ".op", ".dc", ".ac", ".tran", ".noise", ".tf", ".sens", ".pz", ".save", ".print",
        ".meas", ".measure", ".title", ".end",
    }
)  # fmt: skip
_GROUND = frozenset({"0", "gnd"})
_NODES = {"r": 2, "c": 2, "l": 2, "v": 2, "i": 2, "b": 2, "d": 2, "e": 2, "g": 2, "f": 2,
          "h": 2, "s": 4, "w": 2, "m": 4, "q": 3, "j": 3, "z": 3, "t": 4, "o": 4}  # fmt: skip
_NAME = re.compile(r"[a-z0-9_.#+\-\[\]/:]+\Z")
_EXPRESSION = re.compile(r"\{[^{}]*\}|'[^']*'")
_CURRENT = re.compile(r"i\((v[a-z0-9_.]*)\)\Z")


@dataclass(frozen=True)
class Source:
    """An external source: its name, whether it is a voltage, and where it starts [V] or [A]."""

    name: str
    is_voltage: bool
    level: float


@dataclass(frozen=True)
class Stepped:
    """A circuit that can be stepped.

    title : first line of the netlist.
    lines : its elements and options.
    sources : its external sources.
    probes : nodes and ``i(source)`` that can be read, and are recorded.
    """

    title: str
    lines: tuple[str, ...]
    sources: tuple[Source, ...]
    probes: tuple[str, ...]

    def reader(self, probe: str) -> str:
        """What ngspice is asked for to read a probe between two points."""
        if match := _CURRENT.match(probe):
            return f"@{match[1]}[i]"
        return f"@gread_{self.probes.index(probe)}[v]"

    def vector(self, probe: str) -> str:
        """Name of a probe's vector in the plot."""
        return f"{probe[2:-1]}#branch" if _CURRENT.match(probe) else probe

    def netlist(
        self,
        *,
        max_step: float,
        method: Method = "trap",
        tolerances: Tolerances = STEPPED,
        initial_conditions: bool = False,
    ) -> list[str]:
        """Lines for ngspice: the circuit, a reader per node, one transient without an end.

        Parameters
        ----------
        max_step : largest step [s].
        method : of integration.
        initial_conditions : start from ``ic=`` values and ``.ic`` (``uic``), not from the
            operating point.
        """
        saved = [f"i({probe[2:-1]})" if probe.startswith("i(") else f"v({probe})"
                 for probe in self.probes]  # fmt: skip
        readers = [
            f"gread_{k} {probe} 0 {probe} 0 0"
            for k, probe in enumerate(self.probes)
            if not _CURRENT.match(probe)
        ]
        start = " uic" if initial_conditions else ""
        return [
            f"* {self.title}",
            # Points of a slope may lie closer together than ngspice's least distance.
            f".options klu method={method} {tolerances.options()} chgtol=1e-18 "
            f"minbreak={max_step * 1e-12!r}",
            *self.lines,
            *readers,
            *(f".save {name}" for name in saved),
            f".tran {max_step!r} {max_step * _ENDLESS!r} 0 {max_step!r}{start}",
            ".end",
        ]


def stepped(text: str, probes: Sequence[str] | None = None, *, where: str = "circuit") -> Stepped:
    """Read a netlist whose first line is its title.

    Parameters
    ----------
    probes : nodes, e.g. ``"out"`` or ``"x1.mem"`` inside of a subcircuit, and currents
        ``"i(vdd)"``; every node of the top level if None, up to 64 of them.

    Raises NetlistError naming the line of what must not reach ngspice, InputError for a
    probe that cannot be one, or for too many nodes to record them all.
    """
    title, _, rest = text.lstrip("\n").partition("\n")
    kept: list[str] = []
    sources: list[Source] = []
    # Subcircuits by name, the whole under no name: their ports, nodes and instances.
    scopes = {"": _Scope()}
    within = [""]
    for line in check_netlist("*\n" + rest, where=where):
        words = _words(line)
        if words[0] == ".end":
            break
        if words[0] in _ANALYSES:
            continue
        kept.append(line)
        if words[0] == ".subckt" and len(words) > 1:
            within.append(words[1])
            scopes[words[1]] = _Scope(frozenset(words[2:]))
        elif words[0] == ".ends" and len(within) > 1:
            within.pop()
        elif words[0][0] != ".":
            scopes[within[-1]].add(words)
        if words[0][0] in "vi" and "external" in words:
            if len(within) > 1:
                raise NetlistError(
                    f"the external source {words[0]} is inside of a subcircuit",
                    where=where,
                    remedy="drive a port of the subcircuit by a source at the top level",
                )
            sources.append(_source(words, where))
            # ngspice adds a dc value of its own to what it is told.
            kept[-1] = " ".join([*words[:3], "dc 0 external"])
    top = [node for node in scopes[""].nodes if node not in _GROUND]
    if probes is None:
        if len(top) > _MOST_DEFAULT:
            raise InputError(
                f"{len(top)} nodes are too many to record them all",
                where=where,
                remedy="name those that processes read or you want to see: probes=[...]",
            )
        probes = top
    return Stepped(
        title=re.sub(r"[^ -~]", "?", title).lstrip("*").strip()[:200],
        lines=tuple(kept),
        sources=tuple(sources),
        probes=tuple(dict.fromkeys(_probe(probe, scopes, where) for probe in probes)),
    )


class _Scope:
    """Names at one level of the hierarchy."""

    def __init__(self, ports: frozenset[str] = frozenset()) -> None:
        self.ports = ports
        self.nodes: dict[str, None] = {}
        self.sources: set[str] = set()
        self.instances: dict[str, str] = {}

    def add(self, words: Sequence[str]) -> None:
        kind = words[0][0]
        if kind == "x":
            plain = [word for word in words[1:] if "=" not in word and word != "params:"]
            self.instances[words[0]] = plain[-1] if plain else ""
            self.nodes |= dict.fromkeys(plain[:-1])
            return
        if kind == "v":
            self.sources.add(words[0])
        self.nodes |= dict.fromkeys(words[1 : 1 + _NODES.get(kind, 0)])


def _words(line: str) -> list[str]:
    """Of a statement, an expression in braces or quotes without its blanks."""
    line = _EXPRESSION.sub(lambda found: "".join(found[0].split()), line)
    return re.sub(r"\s*=\s*", "=", line.lower()).replace(",", " ").split()


def _probe(probe: str, scopes: Mapping[str, _Scope], where: str) -> str:
    name = probe.strip().lower()
    if name.startswith("v(") and name.endswith(")"):
        name = name[2:-1]
    if name in _GROUND:
        raise InputError("ground is 0 V at all times", where=where, remedy="name another node")
    match = _CURRENT.match(name)
    if match is None and not _NAME.match(name):
        raise InputError(
            f"{probe[:80]!r} is not a probe",
            where=where,
            remedy="name a node, e.g. out or x1.mem, or a voltage source's current, i(vdd)",
        )
    if match is not None:
        known = sorted(scopes[""].sources)
        if match[1] not in known:
            raise InputError(
                f"there is no voltage source {match[1]!r} at the top level{near(match[1], known)}",
                where=where,
            )
    elif name not in scopes[""].nodes:
        _check_inner(name, scopes, where)
    return name


def _check_inner(name: str, scopes: Mapping[str, _Scope], where: str) -> None:
    """Raise InputError unless a name is that of a node inside of an instance."""
    *instances, node = name.split(".")
    scope, path = scopes[""], ""
    for instance in instances:
        if instance not in scope.instances:
            raise InputError(
                f"there is no instance {path}{instance!r} for the node {name!r}"
                f"{near(instance, list(scope.instances))}",
                where=where,
            )
        scope, path = scopes.get(scope.instances[instance], _Scope()), f"{path}{instance}."
    inner = [known for known in scope.nodes if known not in scope.ports | _GROUND]
    if not instances or node not in inner:
        raise InputError(
            f"there is no node {name!r}{near(node, inner)}",
            where=where,
            remedy="nodes inside of a subcircuit are <instance>.<node>, its ports have the "
            "names they are connected to",
        )


def _source(words: Sequence[str], where: str) -> Source:
    values = [w.removeprefix("dc=") for w in words[3:] if w not in ("dc", "external")]
    try:
        level = parse_quantity(values[0]) if values else 0.0
    except InputError as error:
        raise NetlistError(
            f"cannot read the level {values[0]!r} of {words[0]}",
            where=where,
            remedy="write e.g. vin in 0 dc 0.5 external",
        ) from error
    return Source(words[0], words[0][0] == "v", level)
