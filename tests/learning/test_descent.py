"""Coordinate descent against Newton's method, a bounded quadratic programme and ngspice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear
from scipy.special import wrightomega

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.descent import (
    circuit_of,
    leftover,
    log_wright_omega,
    resting_voltages,
    settle,
)
from spicenn.learning.elements import Diode
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.hardware import ideal_chip
from spicenn.learning.operating import operating_points
from spicenn.learning.resistive import IdealDiode, ResistiveNetwork, initial

JUNCTION = Diode(saturation=1e-12)
SIZES = [(2, 3), (3, 5, 2), (2, 6, 4, 3), (2, 4, 5, 4, 2)]


@pytest.fixture(scope="module")
def engine() -> Iterator[NgspiceEngine]:
    with NgspiceEngine(timeout=60) as opened:
        yield opened


def samples(network: ResistiveNetwork, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Inputs in -1 … 1 and targets [V]."""
    rng = np.random.default_rng(seed)
    return (
        rng.uniform(-1, 1, (count, network.features)),
        rng.uniform(-1, 1, (count, network.sizes[-1])),
    )


def test_the_wright_omega_function_is_that_of_scipy_over_all_of_its_range() -> None:
    z = np.concatenate([np.linspace(-60, 60, 20001), np.logspace(0, 7, 2001), [-700.0, -1e4]])
    exact = wrightomega(z)
    found = log_wright_omega(torch.tensor(z)).numpy()
    seen = exact > 0  # below, the function itself underflows
    assert np.abs(found - np.log(np.where(seen, exact, 1.0)))[seen].max() < 1e-14 * 60
    np.testing.assert_allclose(np.exp(found)[seen & (z > -60)], exact[seen & (z > -60)], rtol=1e-14)
    assert found[-1] == -1e4
    single = log_wright_omega(torch.tensor(z, dtype=torch.float32)).double().numpy()
    at = z.astype(np.float32).astype(np.float64)
    assert np.abs(single - np.log(wrightomega(np.maximum(at, -60))))[at > -60].max() < 1e-5


@settings(max_examples=30)
@given(
    sizes=st.sampled_from(SIZES),
    seed=st.integers(0, 10**6),
    gain=st.floats(0.1, 50.0),
    saturation=st.floats(-16, -6),
    emission=st.floats(0.5, 2.0),
    nudged=st.booleans(),
    linear=st.booleans(),
)
def test_it_finds_what_newtons_method_finds(
    sizes: tuple[int, ...], seed: int, gain: float, saturation: float, emission: float,
    nudged: bool, linear: bool,
) -> None:  # fmt: skip
    diode = None if linear else Diode(saturation=10**saturation, emission=emission)
    network = initial(sizes, seed=seed, gain=gain, diode=diode, least=1e-7)
    x, y = samples(network, 5, seed)
    nudge = (2e-6, y) if nudged else None
    graph, values, drive = network.to_network()
    exact = equilibrium(ideal_chip(graph), values, drive(x), nudge=nudge)
    found = resting_voltages(network, x, nudge=nudge)
    assert np.abs(found - exact).max() < 1e-9 * gain + 1e-9
    single = resting_voltages(network, x, nudge=nudge, dtype=torch.float32)
    assert np.abs(single - exact).max() < 1e-4 * gain


@pytest.mark.parametrize("sizes", SIZES)
def test_ideal_diodes_give_the_minimum_of_the_bounded_quadratic_programme(
    sizes: tuple[int, ...],
) -> None:
    network = initial(sizes, seed=3, gain=4.0, least=1e-7)
    x, y = samples(network, 4)
    beta = 2e-6
    nodes = network.sizes[1:]
    starts = np.cumsum([0, *nodes])
    matrix = np.diag(np.full(starts[-1], network.shunt))
    for k, g in enumerate(network.conductances):
        after = slice(starts[k], starts[k + 1])
        matrix[after, after] += np.diag(g.sum(1))
        if k:
            before = slice(starts[k - 1], starts[k])
            matrix[before, before] += np.diag(g.sum(0))
            matrix[after, before] -= g
            matrix[before, after] -= g.T
    outputs = slice(starts[-2], starts[-1])
    matrix[outputs, outputs] += beta * np.eye(nodes[-1])
    low, high = np.full((2, starts[-1]), [[-np.inf], [np.inf]])
    for k in range(len(nodes) - 1):
        low[starts[k] : starts[k + 1] : 2] = 0.0
        high[starts[k] + 1 : starts[k + 1] : 2] = 0.0
    found = resting_voltages(network, x, nudge=(beta, y))
    root = np.linalg.cholesky(matrix).T
    for volts, target, row in zip(network.voltages(x), y, found, strict=True):
        right = np.zeros(starts[-1])
        right[: nodes[0]] = network.conductances[0] @ volts
        right[outputs] += beta * target
        exact = lsq_linear(
            root, np.linalg.solve(root.T, right), bounds=(low, high), method="bvls", tol=1e-14
        ).x
        np.testing.assert_allclose(row[network.sizes[0] : -1], exact, rtol=0, atol=1e-9)


@pytest.mark.parametrize("diode", [None, IdealDiode(), JUNCTION])
def test_what_kirchhoffs_law_leaves_over_is_rounding_at_rest_and_seen_elsewhere(
    diode: Diode | IdealDiode | None,
) -> None:
    network = initial((3, 6, 5, 2), seed=1, gain=4.0, diode=diode)
    x, y = samples(network, 6)
    circuit = circuit_of(network, dtype=torch.float64)
    inputs, target = torch.tensor(network.voltages(x)), torch.tensor(y)
    nudge = (1e-6, target)
    free = settle(circuit, inputs)
    assert leftover(circuit, inputs, free) < 1e-16
    # The same voltages are no rest of the nudged network; its own are.
    assert leftover(circuit, inputs, free, nudge=nudge) > 1e-8
    cold = settle(circuit, inputs, nudge=nudge)
    warm = settle(circuit, inputs, nudge=nudge, start=free)
    assert leftover(circuit, inputs, warm, nudge=nudge) < 1e-16
    # The last sweep's changes are below 4e-12 V; what is to come is a few times that.
    assert float((warm.outputs - cold.outputs).abs().max()) < 1e-10
    assert warm.sweeps < cold.sweeps


def test_an_exponential_diode_of_small_emission_is_an_ideal_one_in_proportion() -> None:
    ideal = initial((4, 12, 3), seed=2, gain=6.0)
    x, _ = samples(ideal, 8)
    exact = resting_voltages(ideal, x)
    off = [
        np.abs(
            resting_voltages(
                ResistiveNetwork(
                    conductances=ideal.conductances, gain=6.0,
                    diode=Diode(saturation=1e-12, emission=n),
                ), x,
            ) - exact
        ).max()
        for n in (1e-2, 1e-3, 1e-4)
    ]  # fmt: skip
    assert off[1] < 1e-3
    assert off[0] / off[1] == pytest.approx(10, rel=0.1)
    assert off[1] / off[2] == pytest.approx(10, rel=0.1)


@pytest.mark.ngspice
@pytest.mark.parametrize("nudged", [False, True])
def test_ngspice_comes_to_rest_at_the_same_voltages(engine: NgspiceEngine, nudged: bool) -> None:
    network = initial((6, 12, 8, 3), seed=2, gain=8.0, diode=JUNCTION)
    x, y = samples(network, 6)
    nudge = (1e-6, y) if nudged else None
    graph, values, drive = network.to_network()
    found = operating_points(engine, ideal_chip(graph), values, drive(x), nudge=nudge)
    off = np.abs(found - resting_voltages(network, x, nudge=nudge)).max()
    # ngspice's k/q is 3.4e-7 less, and its junctions have 1 pS beside them (gmin).
    assert off < 1e-6


@pytest.mark.ngspice
def test_ngspice_with_nearly_ideal_diodes_is_within_a_millivolt_of_ideal_ones(
    engine: NgspiceEngine,
) -> None:
    network = initial((6, 12, 3), seed=2, gain=8.0)
    x, _ = samples(network, 6)
    exact = resting_voltages(network, x)
    off = []
    for emission in (1e-3, 1.0):
        graph, values, drive = network.to_network(Diode(saturation=1e-12, emission=emission))
        found = operating_points(engine, ideal_chip(graph), values, drive(x))
        off.append(np.abs(found - exact).max())
    assert off[0] < 1e-3
    assert off[1] > 0.1  # a silicon diode is no ideal one


def test_too_few_sweeps_and_a_nudge_that_leaves_no_rest_are_said() -> None:
    network = initial((3, 6, 5, 2), seed=1, gain=4.0)
    circuit = circuit_of(network)
    inputs = torch.tensor(network.voltages(samples(network, 2)[0]), dtype=torch.float32)
    with pytest.raises(ConvergenceError, match="after 2 sweeps"):
        settle(circuit, inputs, sweeps=2)
    target = torch.zeros(2, 2)
    least = float(circuit.totals[-1].min())
    with pytest.raises(InputError, match="stronger than"):
        settle(circuit, inputs, nudge=(-1.01 * least, target))
    # The outputs keep a conductance, the network as a whole no minimum.
    with pytest.raises(ConvergenceError):
        settle(circuit, inputs + 1, nudge=(-0.999 * least, target))
    with pytest.raises(InputError, match="float16"):
        circuit_of(network, dtype=torch.float16)
