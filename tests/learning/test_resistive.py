"""Deep resistive networks as records: what they are in a netlist, and what a file brings back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spicenn.errors import InputError
from spicenn.learning.elements import Diode, Resistor
from spicenn.learning.resistive import IdealDiode, ResistiveNetwork, initial

SMALL = ResistiveNetwork(
    conductances=(np.arange(1.0, 9.0).reshape(2, 4) * 1e-6, np.array([[1e-5, 2e-5]])),
    gain=3.0,
    diode=Diode(saturation=1e-12),
    shunt=2e-10,
)


def test_inputs_come_twice_amplified_as_they_are_and_with_the_other_sign() -> None:
    assert SMALL.sizes == (4, 2, 1)
    assert SMALL.features == 2
    np.testing.assert_array_equal(SMALL.voltages([[0.5, -1.0]]), [[1.5, -3.0, -1.5, 3.0]])


def test_the_graph_has_every_conductance_between_its_own_two_nodes() -> None:
    network, values, drive = SMALL.to_network()
    between = {
        (edge.a, edge.b): values[network.learning.index(k)]
        for k, edge in enumerate(network.edges)
        if isinstance(edge.element, Resistor)
    }
    assert between["x3", "h1_0"] == SMALL.conductances[0][0, 3]
    assert between["x0", "h1_1"] == SMALL.conductances[0][1, 0]
    assert between["h1_1", "y0"] == SMALL.conductances[1][0, 1]
    assert len(between) == 10
    assert network.shunt == 2e-10
    diodes = [(e.a, e.b) for e in network.edges if isinstance(e.element, Diode)]
    # Even hidden nodes cannot go below ground, odd ones not above.
    assert diodes == [("0", "h1_0"), ("h1_1", "0")]
    np.testing.assert_array_equal(drive([[1.0, 2.0]]), SMALL.voltages([[1.0, 2.0]]))


def test_an_ideal_diode_needs_one_that_stands_for_it_in_a_netlist() -> None:
    ideal = initial((2, 2, 1), seed=1)
    with pytest.raises(InputError, match="no netlist"):
        ideal.to_network()
    real = Diode(saturation=1e-9, emission=0.1)
    network, _, _ = ideal.to_network(real)
    assert [e.element for e in network.edges].count(real) == 2
    with pytest.raises(InputError, match="only an ideal diode"):
        SMALL.to_network(real)
    linear = initial((2, 2, 1), seed=1, diode=None)
    assert not any(isinstance(e.element, Diode) for e in linear.to_network()[0].edges)


@pytest.mark.parametrize("diode", [None, IdealDiode(), Diode(saturation=1e-14, emission=1.3)])
def test_a_file_brings_the_same_network_back(
    diode: Diode | IdealDiode | None, tmp_path: Path
) -> None:
    network = initial((3, 4, 2), seed=4, gain=7.0, diode=diode, temperature=310.0)
    network.save(tmp_path / "net.npz")
    found = ResistiveNetwork.load(tmp_path / "net.npz")
    for one, other in zip(network.conductances, found.conductances, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (found.gain, found.diode, found.temperature, found.shunt) == (
        7.0, diode, 310.0, network.shunt,
    )  # fmt: skip


def test_a_file_that_is_something_else_is_refused_and_pickles_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "net.npz"
    with pytest.raises(InputError, match="no resistive network"):
        ResistiveNetwork.load(path)
    path.write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="no resistive network"):
        ResistiveNetwork.load(path)
    np.savez(path, network=np.array(json.dumps({"spicenn": 1, "kind": "other"})))
    with pytest.raises(InputError, match="another kind"):
        ResistiveNetwork.load(path)
    SMALL.save(path)
    with np.load(path) as file:
        content = dict(file)
    content["conductances_0"] = np.array([{"a": 1}], dtype=object)
    np.savez(path, **content)
    with pytest.raises(InputError, match="no resistive network"):
        ResistiveNetwork.load(path)


def test_what_a_network_begins_with_is_drawn_from_its_seed_and_chip() -> None:
    one = initial((8, 50, 3), seed=5, conductance=1e-5, least=1e-8)
    same = initial((8, 50, 3), seed=5, conductance=1e-5, least=1e-8)
    other = initial((8, 50, 3), seed=5, conductance=1e-5, least=1e-8, chip=1)
    for k, (g, again, else_) in enumerate(
        zip(one.conductances, same.conductances, other.conductances, strict=True)
    ):
        np.testing.assert_array_equal(g, again)
        assert (g != else_).any()
        largest = 1e-5 / np.sqrt(g.shape[1])
        assert 0.9 * largest < g.max() <= largest
        # Half of the draws lie below 0: five standard deviations of a binomial.
        share, spread = np.mean(g == 1e-8), 0.5 / np.sqrt(g.size)
        assert abs(share - 0.5) < 5 * spread, k


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ((), "no conductances"),
        ((np.ones((2, 3)),), "two per feature"),
        ((np.ones((2, 4)), np.ones((1, 3))), "from 3 nodes"),
        ((-np.ones((2, 4)),), "0 or more"),
        ((np.full((2, 4), np.nan),), "finite"),
        ((np.ones(4),), "(to, from)"),
    ],
)
def test_conductances_that_are_no_network_are_refused(
    parts: tuple[np.ndarray, ...], what: str
) -> None:
    with pytest.raises(InputError) as error:
        ResistiveNetwork(conductances=parts)
    assert what in str(error.value)


def test_numbers_and_shapes_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="gain"):
        initial((2, 1), seed=1, gain=0.0)
    with pytest.raises(InputError, match="not this network's"):
        SMALL.with_conductances([np.ones((2, 4))])
    with pytest.raises(InputError, match="samples of shape"):
        SMALL.voltages([[1.0]])
    with pytest.raises(InputError, match="layers of"):
        initial((2, 0, 1), seed=1)
    with pytest.raises(InputError, match="least"):
        initial((2, 1), seed=1, least=-1.0)
