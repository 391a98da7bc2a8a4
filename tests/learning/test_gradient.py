"""Gradients of a network's loss: four ways to one number, and where two of them part from it."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.elements import Diode, Element, Resistor, Transistor
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.examples import two_tasks
from spicenn.learning.gradient import (
    by_adjoint,
    by_coupled_learning,
    by_equilibrium_propagation,
    by_finite_differences,
    cosine,
    descend,
    loss,
)
from spicenn.learning.hardware import Hardware, LearningChip, ideal_chip, sample_chip
from spicenn.learning.network import Edge, Network, grid, layered
from spicenn.learning.operating import operating_points

Array = NDArray[np.float64]
Case = tuple[LearningChip, Array, Array, Array]
# Of differences of squares of about 1 V that a solver leaves [V^2].
ROUND_OFF = 1e-14


def drawn(seed: int, kinds: str = "rd", samples: int = 3) -> Case:
    """A random graph of resistors (r), diodes (d) and transistors (t) that learn, and a task."""
    rng = np.random.default_rng(seed)
    nodes = int(rng.integers(5, 9))
    # A ring and as many chords: no output hangs on a single edge, which no current passes.
    pairs = [(k, (k + 1) % nodes) for k in range(nodes)]
    pairs += [(int(a), int(b)) for a, b in (rng.choice(nodes, 2, False) for _ in range(nodes))]
    learning: list[Element] = []
    learning += [Resistor(learns=True)] if "r" in kinds else []
    learning += [Transistor()] if "t" in kinds else []
    edges = [Edge(f"n{a}", f"n{b}", learning[rng.integers(len(learning))]) for a, b in pairs]
    if "d" in kinds:
        edges += [Edge(f"n{k}", "0", Diode()) for k in range(2, nodes - 2)]
    network = Network(
        edges=tuple(edges), inputs=("n0", "n1"), outputs=(f"n{nodes - 2}", f"n{nodes - 1}")
    )
    values = np.array([
        rng.uniform(2.0, 4.0) if isinstance(edges[k].element, Transistor)
        else rng.uniform(1e-4, 2e-3) for k in network.learning
    ])  # fmt: skip
    high = 0.45 if "t" in kinds else 2.0
    inputs, labels = rng.uniform(0, high, (samples, 2)), rng.uniform(0, high, (samples, 2))
    return ideal_chip(network), values, inputs, labels


def layers(seed: int, outputs: int = 3, samples: int = 4) -> Case:
    """Four inputs, six hidden nodes with diodes that conduct for some samples."""
    rng = np.random.default_rng(seed)
    network = layered([4, 6, outputs], diode=Diode())
    values = rng.uniform(2e-5, 2e-4, len(network.learning))
    inputs, labels = rng.uniform(-3, 3, (samples, 4)), rng.uniform(-0.5, 0.5, (samples, outputs))
    return ideal_chip(network), values, inputs, labels


def off(found: Array, right: Array) -> float:
    """Length of the difference, over that of what is right."""
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


@given(seed=st.integers(0, 2**32 - 1), kinds=st.sampled_from(["r", "rd", "t", "rt", "rdt"]))
@settings(max_examples=25, deadline=None)
def test_the_adjoint_is_what_finite_differences_find(seed: int, kinds: str) -> None:
    """Any graph of any elements: to 1e-6 of the gradient, and round-off of squares of volts."""
    case = drawn(seed, kinds)
    right, step = by_adjoint(*case), 1e-4 * case[1]
    error = np.abs(by_finite_differences(*case, step) - right)
    assert (error < 1e-6 * np.linalg.norm(right) + ROUND_OFF / step).all()


@given(seed=st.integers(0, 2**32 - 1), kinds=st.sampled_from(["r", "rd"]))
@settings(max_examples=25, deadline=None)
def test_equilibrium_propagation_is_the_gradient_of_resistors_and_diodes(
    seed: int, kinds: str
) -> None:
    """Any such graph, centred, for a nudge of 1/5000 of the least conductance: to 1e-6."""
    case = drawn(seed, kinds)
    right, beta = by_adjoint(*case), 2e-8
    error = np.abs(by_equilibrium_propagation(*case, beta=beta, centred=True) - right)
    assert (error < 1e-6 * np.linalg.norm(right) + ROUND_OFF / beta).all()


@pytest.mark.parametrize(("centred", "ratio"), [(False, 4.0), (True, 16.0)])
def test_the_error_in_beta_is_of_first_and_of_second_order(centred: bool, ratio: float) -> None:
    """A fourth of the nudge: a fourth of the error, or a sixteenth; within 10 %."""
    case = layers(0)
    right = by_adjoint(*case)
    errors = [
        off(by_equilibrium_propagation(*case, beta=beta, centred=centred), right)
        for beta in (4e-7, 1e-7)
    ]
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.1)


def test_the_loss_is_a_mean_over_samples_and_a_sum_over_outputs() -> None:
    """Samples one by one: their mean is that of all; and the loss is what it says."""
    chip, values, inputs, labels = layers(1)
    ways: list[Callable[[LearningChip, Array, Array, Array], ArrayLike]] = [
        by_adjoint,
        lambda c, v, x, y: by_equilibrium_propagation(c, v, x, y, 1e-7),
        lambda c, v, x, y: by_coupled_learning(c, v, x, y, 0.1),
        lambda c, v, x, y: by_finite_differences(c, v, x, y, 1e-4 * v),
        loss,
    ]
    for way in ways:
        parts = np.array([way(chip, values, inputs[[k]], labels[[k]]) for k in range(4)])
        assert parts.mean(axis=0) == pytest.approx(
            way(chip, values, inputs, labels), rel=1e-6, abs=1e-9 * np.abs(parts).max()
        )
    outputs = equilibrium(chip, values, inputs)[:, chip.network.output_index]
    squares = ((outputs - labels) ** 2).sum(axis=1)
    assert loss(chip, values, inputs, labels) == pytest.approx(squares.mean() / 2, rel=1e-12)


def test_a_single_floating_node_has_a_co_content_of_transistors_too() -> None:
    """Example 1: equilibrium propagation gives its gates' gradient, to 1e-6."""
    example = two_tasks()
    case = (example.chip, np.array([2.6, 2.9]), example.task.inputs, example.task.labels)
    found = by_equilibrium_propagation(*case, beta=1e-6, centred=True)
    assert off(found, by_adjoint(*case)) < 1e-6


def transistors(scale: float) -> Case:
    """A torus of transistors; voltages are this part of 0.45 V."""
    rng = np.random.default_rng(1)
    network = grid(4, 4, inputs=["n0_0", "n1_2", "n3_3"], outputs=["n0_2", "n2_2"])
    values = rng.uniform(1.5, 4.0, len(network.learning))
    inputs, labels = rng.uniform(0, 0.45, (4, 3)), rng.uniform(0, 0.45, (4, 2))
    return ideal_chip(network), values, scale * inputs, scale * labels


def test_several_floating_nodes_of_transistors_have_none() -> None:
    """What it is off by does not fade with beta, and is in proportion to the voltages."""
    errors = []
    for scale in (0.2, 0.1):
        case = transistors(scale)
        right = by_adjoint(*case)
        found = [
            by_equilibrium_propagation(*case, beta=beta, centred=True) for beta in (1e-6, 1e-7)
        ]
        errors.append(off(found[1], right))
        assert off(found[0], right) == pytest.approx(errors[-1], rel=1e-3)
    assert 1e-4 < errors[1] < 1e-2
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)


def test_a_saturated_transistor_feels_its_gate_by_its_channels_ends() -> None:
    """Gates so low that channels end before their drains: the adjoint knows it, to 1e-6."""
    chip, values, inputs, labels = transistors(1.0)
    values = 0.75 + (values - 1.5) / 5
    v = equilibrium(chip, values, inputs)
    highest = v[:, chip.network.ends].max(axis=2)
    saturated = (highest > values - chip.threshold[0]).mean()
    assert 0.05 < saturated < 0.5
    case = (chip, values, inputs, labels)
    assert off(by_finite_differences(*case, 1e-5), by_adjoint(*case)) < 1e-6


def test_half_of_every_edges_signal_at_its_ends_is_what_is_missing() -> None:
    """Conductances at rest, and −S ΔV Δλ / 2 drawn from both ends of each: the gradient."""
    chip, values, inputs, labels = transistors(1.0)
    network = chip.network
    v = equilibrium(chip, values, inputs)
    size = len(network.nodes)
    a, b = network.ends.T
    s = chip.transconductance[0]
    free = np.setdiff1d(np.arange(size), network.input_index)
    gradient = np.zeros(len(values))
    for k, volts in enumerate(v):
        across = volts[a] - volts[b]
        conductance = s * (values - chip.threshold[0] - (volts[a] + volts[b]) / 2)
        matrix = network.shunt * np.eye(size)
        for e, (i, j) in enumerate(zip(a, b, strict=True)):
            for end, sign in ((i, 1), (j, -1)):
                matrix[end, i] += sign * conductance[e] - s[e] * across[e] / 2
                matrix[end, j] += -sign * conductance[e] + s[e] * across[e] / 2
        error = np.zeros(size)
        error[network.output_index] = volts[network.output_index] - labels[k]
        adjoint = np.zeros(size)
        adjoint[free] = np.linalg.solve(matrix[np.ix_(free, free)], error[free])
        gradient -= s * across * (adjoint[a] - adjoint[b]) / len(v)
    assert off(gradient, by_adjoint(chip, values, inputs, labels)) < 1e-10


def test_one_outputs_coupled_learning_goes_down_the_gradient() -> None:
    """One sample: its direction; several samples: scaled, to first order in eta."""
    chip, values, inputs, labels = layers(2, outputs=1)
    for k in range(4):
        case = (chip, values, inputs[k : k + 1], labels[k : k + 1])
        assert cosine(by_coupled_learning(*case, eta=1e-4), by_adjoint(*case)) > 1 - 1e-7
    right = by_adjoint(chip, values, inputs, labels)
    errors = [
        off(by_coupled_learning(chip, values, inputs, labels, eta, scaled=True), right)
        for eta in (4e-4, 1e-4)
    ]
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


def test_several_outputs_coupled_learning_goes_another_way() -> None:
    """Its angle to the gradient does not fade with eta, and it has no scale."""
    case = layers(0)
    right = by_adjoint(*case)
    angles = [1 - cosine(by_coupled_learning(*case, eta=eta), right) for eta in (1e-2, 1e-4)]
    assert angles[1] > 1e-3
    assert angles[0] == pytest.approx(angles[1], rel=1e-2)
    assert 1 - cosine(by_equilibrium_propagation(*case, beta=1e-8, centred=True), right) < 1e-9
    with pytest.raises(InputError, match="several outputs"):
        by_coupled_learning(*case, eta=0.1, scaled=True)


def test_a_contrast_of_other_edges_is_no_gradient() -> None:
    """The control: shuffled over the edges, it has the gradient's length and not its way."""
    case = layers(0)
    right = by_adjoint(*case)
    found = by_equilibrium_propagation(*case, beta=1e-8, centred=True)
    rng = np.random.default_rng(0)
    angles = [cosine(rng.permutation(found), right) for _ in range(200)]
    assert np.abs(angles).max() < 0.9
    assert abs(np.mean(angles)) < 0.2


def test_a_chips_own_offsets_and_twins_are_in_its_estimate() -> None:
    """An offset of the comparison is one of the label; unequal twins' contrast goes as 1/beta."""
    chip, values, inputs, labels = layers(3)
    moved = ideal_chip(chip.network, output_offset=[0.01, -0.02, 0.03])
    assert by_equilibrium_propagation(moved, values, inputs, labels, 1e-6) == pytest.approx(
        by_equilibrium_propagation(chip, values, inputs, labels + moved.output_offset, 1e-6),
        rel=1e-9,
    )
    assert (
        off(by_adjoint(moved, values, inputs, labels), by_adjoint(chip, values, inputs, labels))
        == 0
    )
    net = transistors(1.0)
    unequal = sample_chip(net[0].network, Hardware(twin_threshold_std=1e-3), chip=0, seed=1)
    sizes = [
        np.linalg.norm(by_equilibrium_propagation(unequal, *net[1:], beta=beta))
        for beta in (1e-8, 1e-9)
    ]
    assert sizes[1] / sizes[0] == pytest.approx(10, rel=0.05)


def test_a_gradient_is_gone_down() -> None:
    """A step is -rate times it, no value leaves the range, and the loss falls."""
    chip, values, inputs, labels = layers(4)
    path = descend(
        lambda now: by_equilibrium_propagation(chip, now, inputs, labels, 1e-7, centred=True),
        values, steps=20, rate=2e-9, low=1e-5, high=3e-4,
    )  # fmt: skip
    assert path.shape == (21, len(values))
    assert path.min() >= 1e-5
    assert path.max() <= 3e-4
    losses = [loss(chip, now, inputs, labels) for now in path]
    assert (np.diff(losses) < 0).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda c, v, x, y: by_adjoint(c, v[1:], x, y),
        lambda c, v, x, y: by_adjoint(c, v, x[:, 1:], y),
        lambda c, v, x, y: loss(c, v * np.nan, x, y),
        lambda c, v, x, y: by_finite_differences(c, v, x, y, 0.0),
        lambda c, v, x, y: by_equilibrium_propagation(c, v, x, y, 0.0),
        lambda c, v, x, y: by_coupled_learning(c, v, x, y, 1.5),
        lambda c, v, x, y: cosine(v, 0 * v),
        lambda c, v, x, y: equilibrium(c, v, x * np.nan),
        lambda c, v, x, y: equilibrium(c, v, x, nudge=(1e-6, y * np.inf)),
        # A sweep over fewer voltages than samples would go on with the last.
        lambda c, v, x, y: operating_points(NgspiceEngine(), c, v, x, clamped=y[1:]),
        lambda c, v, x, y: operating_points(NgspiceEngine(), c, v, np.hstack([x, x])),
        lambda c, v, x, y: operating_points(NgspiceEngine(), c, v, x * np.nan),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[..., object]) -> None:
    """Shapes, numbers that are not finite, steps and nudges that are none."""
    with pytest.raises(InputError):
        call(*layers(0))


@pytest.mark.ngspice
def test_ngspice_finds_the_same_gradients() -> None:
    """To 2e-6: its k/q is CODATA's of 2014, 3e-7 off, and so are the diodes' voltages."""
    several, one = layers(0), layers(2, outputs=1)
    with NgspiceEngine() as engine:
        assert loss(*several, engine=engine) == pytest.approx(loss(*several), rel=2e-6)
        for way in (
            lambda **how: by_finite_differences(*one, 1e-4 * one[1], **how),
            lambda **how: by_equilibrium_propagation(*several, 1e-7, **how),
            lambda **how: by_equilibrium_propagation(*several, 1e-7, centred=True, **how),
            lambda **how: by_coupled_learning(*several, 1e-2, **how),
            lambda **how: by_coupled_learning(*one, 1e-2, scaled=True, **how),
        ):
            assert off(way(engine=engine), way()) < 2e-6


@pytest.mark.ngspice
def test_ngspice_finds_the_same_gradients_of_gates() -> None:
    """Transistors have no temperature: to 1e-7, the nudge's round-off."""
    case = transistors(1.0)
    with NgspiceEngine() as engine:
        found = by_equilibrium_propagation(*case, 1e-6, centred=True, engine=engine)
        assert off(found, by_equilibrium_propagation(*case, 1e-6, centred=True)) < 1e-7
        steps = by_finite_differences(*case, 1e-3, engine=engine)
        assert off(steps, by_adjoint(*case)) < 1e-6
