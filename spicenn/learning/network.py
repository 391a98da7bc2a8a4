"""Networks as graphs: edges between named nodes, nodes that are driven, nodes that answer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.learning.elements import Diode, Element, Resistor, Transistor

GROUND = "0"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\Z")


@dataclass(frozen=True)
class Edge:
    """An element between two nodes; a diode conducts from ``a`` to ``b``."""

    a: str
    b: str
    element: Element


@dataclass(frozen=True, kw_only=True)
class Network:
    """A graph of edges.

    Parameters
    ----------
    edges : the order of those that learn is the order of a network's values.
    inputs : nodes that a task drives.
    outputs : nodes that are read, and clamped or nudged.
    temperature : of the diodes [K].
    shunt : from every node to ground [S]: one whose transistors are all off has a voltage.

    Node ``"0"`` is ground. Raises InputError for names that no netlist may hold, an edge from
    a node to itself, terminals that are no nodes or are both, or a node that nothing joins
    to an input or ground.
    """

    edges: tuple[Edge, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    temperature: float = 300.15
    shunt: float = 1e-10

    def __post_init__(self) -> None:
        for edge in self.edges:
            for name in (edge.a, edge.b):
                if name != GROUND and not _NAME.match(name):
                    raise InputError(
                        f"{name[:60]!r} is not a node's name",
                        where="network",
                        remedy="use lower-case letters, digits and _, a letter first; 0 is ground",
                    )
            if edge.a == edge.b:
                raise InputError(f"an edge joins {edge.a!r} to itself", where="network")
        for what, terminals in (("input", self.inputs), ("output", self.outputs)):
            if not terminals:
                raise InputError(f"there is no {what}", where="network")
            for name, count in Counter(terminals).items():
                if name not in self.index or name == GROUND or count > 1:
                    raise InputError(
                        f"the {what} {name!r} is named twice"
                        if count > 1
                        else f"the {what} {name!r} is no node of an edge",
                        where="network",
                    )
        both = set(self.inputs) & set(self.outputs)
        if both:
            raise InputError(f"{sorted(both)[0]!r} is an input and an output", where="network")
        if not 0 < self.temperature < 1e4:
            raise InputError(f"temperature = {self.temperature!r} K is out of range")
        if not 0 < self.shunt < 1.0:
            raise InputError(f"shunt = {self.shunt!r} S is out of range")
        for name in ("temperature", "shunt"):
            # A NumPy number's repr is no number in a netlist; ngspice passes over such an option.
            object.__setattr__(self, name, float(getattr(self, name)))
        self._check_joined()

    @cached_property
    def nodes(self) -> tuple[str, ...]:
        """Names of all nodes but ground: inputs first, others as the edges name them."""
        named = (name for edge in self.edges for name in (edge.a, edge.b))
        return tuple(dict.fromkeys(n for n in (*self.inputs, *named) if n != GROUND))

    @cached_property
    def index(self) -> dict[str, int]:
        """Number of each node; ground comes last."""
        named = {name for edge in self.edges for name in (edge.a, edge.b)}
        order = [n for n in self.nodes if n in named]
        return {**{name: k for k, name in enumerate(order)}, GROUND: len(order)}

    @cached_property
    def learning(self) -> tuple[int, ...]:
        """Numbers of the edges that learn."""
        return tuple(k for k, edge in enumerate(self.edges) if edge.element.learns)

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """(edge, 2) numbers of the nodes a and b."""
        pairs = [(self.index[edge.a], self.index[edge.b]) for edge in self.edges]
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def input_index(self) -> NDArray[np.int64]:
        """(input,) numbers of the driven nodes."""
        return np.array([self.index[name] for name in self.inputs])

    @cached_property
    def output_index(self) -> NDArray[np.int64]:
        """(output,) numbers of the nodes that answer."""
        return np.array([self.index[name] for name in self.outputs])

    def _check_joined(self) -> None:
        reached = {GROUND, *self.inputs}
        neighbours: dict[str, list[str]] = {}
        for edge in self.edges:
            neighbours.setdefault(edge.a, []).append(edge.b)
            neighbours.setdefault(edge.b, []).append(edge.a)
        waiting = list(reached)
        while waiting:
            for name in neighbours.get(waiting.pop(), ()):
                if name not in reached:
                    reached.add(name)
                    waiting.append(name)
        alone = [name for name in self.nodes if name not in reached]
        if alone:
            raise InputError(f"nothing joins {alone[0]!r} to an input or ground", where="network")


def graph(
    pairs: Iterable[tuple[str, str]],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    element: Element | None = None,
    temperature: float = 300.15,
) -> Network:
    """Return any network whose edges are alike; ``Network`` takes edges that differ.

    Parameters
    ----------
    pairs : of nodes' names.
    element : of every edge; a transistor that learns if None.
    """
    kind = Transistor() if element is None else element
    return Network(
        edges=tuple(Edge(a, b, kind) for a, b in pairs),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        temperature=temperature,
    )


def grid(
    rows: int,
    columns: int,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    periodic: bool = True,
    element: Element | None = None,
    temperature: float = 300.15,
) -> Network:
    """Return a square grid; node ``n2_3`` is in row 2 and column 3, both from 0.

    Parameters
    ----------
    periodic : joins the last row and column to the first: a torus, with two edges per node.
        In a direction of two nodes that would be a second edge between the same two, and in
        one of a single node an edge to itself: there is none.

    Others as for ``graph``. Raises InputError for fewer than two nodes.
    """
    if rows < 1 or columns < 1 or rows * columns < 2:
        raise InputError(f"a grid of {rows} x {columns} nodes has no edge", where="grid")
    pairs = []
    for r in range(rows):
        for c in range(columns):
            if c + 1 < columns or (periodic and columns > 2):
                pairs.append((f"n{r}_{c}", f"n{r}_{(c + 1) % columns}"))
            if r + 1 < rows or (periodic and rows > 2):
                pairs.append((f"n{r}_{c}", f"n{(r + 1) % rows}_{c}"))
    return graph(pairs, inputs=inputs, outputs=outputs, element=element, temperature=temperature)


def layered(
    sizes: Sequence[int],
    *,
    element: Element | None = None,
    diode: Diode | None = None,
    temperature: float = 300.15,
) -> Network:
    """Return layers of nodes, each joined to all of the next.

    Inputs are ``x0 …``, hidden nodes ``h1_0 …`` by their layer, outputs ``y0 …``.

    Parameters
    ----------
    sizes : of the layers, the inputs' first.
    element : of every edge; a resistor that learns if None.
    diode : from ground to even and from odd hidden nodes to ground, so that the former stay
        above and the latter below: what makes the network nonlinear. None is a linear one.

    Raises InputError for fewer than two layers or an empty one.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"layers of {list(sizes)!r} nodes", where="layered")
    kind = Resistor(learns=True) if element is None else element
    last = len(sizes) - 1
    names = [
        [("x" if n == 0 else "y" if n == last else f"h{n}_") + str(k) for k in range(size)]
        for n, size in enumerate(sizes)
    ]
    edges = [Edge(a, b, kind) for before, after in pairwise(names) for b in after for a in before]
    if diode is not None:
        for layer in names[1:-1]:
            for k, name in enumerate(layer):
                ends = (GROUND, name) if k % 2 == 0 else (name, GROUND)
                edges.append(Edge(*ends, diode))
    return Network(
        edges=tuple(edges),
        inputs=tuple(names[0]),
        outputs=tuple(names[-1]),
        temperature=temperature,
    )
