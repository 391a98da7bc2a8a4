"""Graphs: counts of edges, order of nodes, and networks that no circuit could be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.network import Edge, Network, graph, grid, layered


@given(rows=st.integers(3, 8), columns=st.integers(3, 8))
def test_a_torus_has_two_edges_a_node_and_four_at_each(rows: int, columns: int) -> None:
    torus = grid(rows, columns, inputs=["n0_0"], outputs=["n1_1"])
    assert len(torus.edges) == 2 * rows * columns
    degree = Counter(name for edge in torus.edges for name in (edge.a, edge.b))
    assert set(degree.values()) == {4}
    assert len(degree) == rows * columns
    assert len({frozenset((edge.a, edge.b)) for edge in torus.edges}) == len(torus.edges)


@given(rows=st.integers(1, 8), columns=st.integers(1, 8))
def test_a_grid_has_an_edge_between_neighbours_only(rows: int, columns: int) -> None:
    if rows * columns < 2:
        with pytest.raises(InputError, match="no edge"):
            grid(rows, columns, inputs=["n0_0"], outputs=["n0_0"])
        return
    last = f"n{rows - 1}_{columns - 1}"
    flat = grid(rows, columns, inputs=["n0_0"], outputs=[last], periodic=False)
    assert len(flat.edges) == rows * (columns - 1) + columns * (rows - 1)
    torus = grid(rows, columns, inputs=["n0_0"], outputs=[last])
    more = (rows if columns > 2 else 0) + (columns if rows > 2 else 0)
    assert len(torus.edges) == len(flat.edges) + more
    pairs = [frozenset((edge.a, edge.b)) for edge in torus.edges]
    assert len(set(pairs)) == len(pairs)


def test_layers_are_joined_all_to_all_with_diodes_up_and_down() -> None:
    made = layered([3, 4, 2], diode=Diode())
    kinds = Counter(type(edge.element).__name__ for edge in made.edges)
    assert kinds == {"Resistor": 3 * 4 + 4 * 2, "Diode": 4}
    assert made.inputs == ("x0", "x1", "x2")
    assert made.outputs == ("y0", "y1")
    diodes = [(edge.a, edge.b) for edge in made.edges if isinstance(edge.element, Diode)]
    assert diodes == [("0", "h1_0"), ("h1_1", "0"), ("0", "h1_2"), ("h1_3", "0")]
    assert len(made.learning) == 20


def test_nodes_come_inputs_first_and_values_in_the_order_of_edges() -> None:
    made = Network(
        edges=(
            Edge("mid", "out", Transistor()),
            Edge("in", "mid", Resistor()),
            Edge("out", "0", Resistor(learns=True)),
        ),
        inputs=("in",),
        outputs=("out",),
    )
    assert made.nodes == ("in", "mid", "out")
    assert made.index == {"in": 0, "mid": 1, "out": 2, "0": 3}
    assert made.learning == (0, 2)
    assert made.ends.tolist() == [[1, 2], [0, 1], [2, 3]]
    assert made.input_index.tolist() == [0]
    assert made.output_index.tolist() == [2]


@pytest.mark.parametrize(
    ("pairs", "inputs", "outputs", "said"),
    [
        ([("A", "b")], ["b"], ["A"], "not a node's name"),
        ([("a; .end", "b")], ["b"], ["b"], "not a node's name"),
        ([("a", "a")], ["a"], ["a"], "joins 'a' to itself"),
        ([("a", "b")], [], ["b"], "no input"),
        ([("a", "b")], ["a"], [], "no output"),
        ([("a", "b")], ["c"], ["b"], "'c' is no node"),
        ([("a", "0")], ["0"], ["a"], "'0' is no node"),
        ([("a", "b")], ["a", "a"], ["b"], "named twice"),
        ([("a", "b")], ["a"], ["a"], "an input and an output"),
        ([("a", "b"), ("c", "d")], ["a"], ["b"], "nothing joins 'c'"),
    ],
)
def test_what_is_no_network_is_refused(
    pairs: list[tuple[str, str]], inputs: list[str], outputs: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        graph(pairs, inputs=inputs, outputs=outputs)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layered([3]),
        lambda: layered([3, 0, 2]),
        lambda: graph([("a", "b")], inputs=["a"], outputs=["b"], temperature=0.0),
        lambda: Network(
            edges=(Edge("a", "b", Resistor()),), inputs=("a",), outputs=("b",), shunt=0.0
        ),
    ],
)
def test_sizes_out_of_range_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=r"layers of|temperature|shunt"):
        make()
