"""Training by equilibrium propagation: its gradient, its resumption, what it learns."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from spicenn.errors import InputError, TrainingError
from spicenn.learning.descent import circuit_of, settle
from spicenn.learning.elements import Diode
from spicenn.learning.propagation import Trained, accuracy, predict, slopes, train
from spicenn.learning.resistive import IdealDiode, ResistiveNetwork, initial
from spicenn.training.run import Progress, read_log

JUNCTION = Diode(saturation=1e-12)
DIODES = [None, IdealDiode(), JUNCTION]
G = 1e-5


def network(
    sizes: tuple[int, ...] = (3, 6, 5, 2), diode: Diode | IdealDiode | None = JUNCTION
) -> ResistiveNetwork:
    return initial(sizes, seed=2, gain=4.0, diode=diode, least=1e-7)


def data(net: ResistiveNetwork, count: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (count, net.features)), rng.uniform(-1, 1, (count, net.sizes[-1]))


def loss(net: ResistiveNetwork, x: np.ndarray, y: np.ndarray) -> float:
    found = predict(net, x, dtype=torch.float64, tolerance=1e-14)
    return float(((found - y) ** 2).sum() / 2 / len(x))


def flat(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    return np.concatenate([part.ravel() for part in parts])


def implicit(net: ResistiveNetwork, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The gradient by the implicit function theorem: one Newton step that autograd sees.

    Kirchhoff's law F(v, g) = 0 makes dv = -(∂F/∂v)^-1 (∂F/∂g) dg; a node that an ideal diode
    holds at 0 V stays there.
    """
    circuit = circuit_of(net, dtype=torch.float64)
    inputs = torch.tensor(net.voltages(x))
    rest = settle(circuit, inputs, tolerance=1e-14)
    weights = [weight.requires_grad_() for weight in circuit.weights]
    nodes = net.sizes[1:]
    starts = np.cumsum([0, *nodes])
    signs = torch.cat([*circuit.signs, torch.zeros(nodes[-1])])
    hidden = torch.arange(starts[-1]) < starts[-2]

    def leaving(v: torch.Tensor, volts: torch.Tensor) -> torch.Tensor:
        layers = [volts, *(v[a:b] for a, b in pairwise(starts))]
        total = net.shunt * v
        for k, weight in enumerate(weights):
            current = weight * (layers[k + 1][:, None] - layers[k][None, :])
            parts = [torch.zeros(size, dtype=v.dtype) for size in nodes]
            parts[k] = current.sum(1)
            if k:
                parts[k - 1] = -current.sum(0)
            total = total + torch.cat(parts)
        if isinstance(net.diode, Diode):
            thermal = net.diode.thermal_voltage(net.temperature)
            junction = net.diode.saturation * torch.expm1(-signs * v / thermal)
            total = total - torch.where(hidden, signs * junction, torch.zeros_like(v))
        return total

    found = torch.zeros((), dtype=torch.float64)
    for k, volts in enumerate(inputs):
        v = torch.cat([layer[k] for layer in rest.layers])
        jacobian = torch.autograd.functional.jacobian(lambda u, w=volts: leaving(u, w), v).detach()
        free = torch.ones(len(v), dtype=torch.bool)
        if isinstance(net.diode, IdealDiode):
            free = (v != 0) | ~hidden
        step = torch.linalg.solve(jacobian[free][:, free], leaving(v, volts)[free])
        moved = v.clone()
        moved[free] = v[free] - step
        error = moved[starts[-2] :] - torch.tensor(y[k])
        found = found + (error**2).sum() / 2 / len(x)
    return flat(tuple(part.numpy() for part in torch.autograd.grad(found, weights)))


@pytest.mark.parametrize("diode", DIODES)
@pytest.mark.parametrize("sizes", [(2, 3), (3, 6, 2), (3, 6, 5, 2)])
def test_the_local_rule_is_the_gradient_of_the_implicit_function(
    sizes: tuple[int, ...], diode: Diode | IdealDiode | None
) -> None:
    net = network(sizes, diode)
    x, y = data(net)
    exact = implicit(net, x, y)
    found = flat(slopes(net, x, y, beta=1e-4 * G, tolerance=1e-14))
    assert np.linalg.norm(found - exact) < 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize("diode", DIODES)
def test_the_local_rule_is_what_the_loss_does_when_a_conductance_changes(
    diode: Diode | IdealDiode | None,
) -> None:
    net = network(diode=diode)
    x, y = data(net)
    found = slopes(net, x, y, beta=1e-4 * G, tolerance=1e-14)
    largest = np.abs(flat(found)).max()
    step = 1e-4 * G
    for layer, to, of in ((0, 0, 0), (0, 5, 3), (1, 2, 1), (1, 4, 5), (2, 1, 4), (2, 0, 0)):
        ends = []
        for sign in (1, -1):
            moved = [part.copy() for part in net.conductances]
            moved[layer][to, of] += sign * step
            ends.append(loss(net.with_conductances(moved), x, y))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(
            found[layer][to, of], rel=1e-4, abs=1e-6 * largest
        )


def test_one_nudge_is_wrong_by_beta_and_two_by_its_square() -> None:
    net = network()
    x, y = data(net)
    exact = implicit(net, x, y)
    betas = np.array([0.0025, 0.005, 0.01]) * G
    for centred, order in ((False, 1), (True, 2)):
        off = [
            np.linalg.norm(flat(slopes(net, x, y, beta=b, centred=centred)) - exact) for b in betas
        ]
        assert np.polyfit(np.log(betas), np.log(off), 1)[0] == pytest.approx(order, abs=0.1)


def stop_at(step: int) -> Callable[[Progress], None]:
    seen = []

    def progress(at: Progress) -> None:
        seen.append(at)
        if len(seen) == step:
            raise KeyboardInterrupt

    return progress


def learn(
    directory: Path | None = None,
    epochs: int = 3,
    progress: Callable[[Progress], None] | None = None,
    rates: tuple[float, ...] = (2e-12, 1e-12, 1e-12),
) -> Trained:
    net = network()
    x, y = data(net, 20)
    return train(
        net, x, y.argmax(1), epochs=epochs, batch=4, rates=rates, beta=0.1 * G, seed=3,
        decay=0.9, validation=(x, y.argmax(1)), directory=directory, save_every=2,
        progress=progress,
    )  # fmt: skip


@pytest.mark.parametrize("kills", [(1,), (3, 4), (6, 1, 5)])
def test_a_killed_run_ends_as_an_unbroken_one(kills: tuple[int, ...], tmp_path: Path) -> None:
    whole = learn()
    for kill in kills:
        with pytest.raises(KeyboardInterrupt):
            learn(tmp_path, progress=stop_at(kill))
    found = learn(tmp_path)
    assert found.resumed > 0 or kills == (1,)
    for one, other in zip(whole.network.conductances, found.network.conductances, strict=True):
        np.testing.assert_array_equal(one, other)
    for a, b in zip(whole.log, found.log, strict=True):
        assert (a.epoch, a.step, a.loss, a.accuracy) == (b.epoch, b.step, b.loss, b.accuracy)
        assert (a.validation_loss, a.validation_accuracy) == (
            b.validation_loss, b.validation_accuracy,
        )  # fmt: skip
    assert read_log(tmp_path) == found.log
    # Nothing is left to do, and more epochs go on where it ended.
    again = learn(tmp_path)
    assert again.resumed == 15
    longer = learn(tmp_path, epochs=4)
    for one, other in zip(
        learn(epochs=4).network.conductances, longer.network.conductances, strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_a_directory_of_another_run_is_refused(tmp_path: Path) -> None:
    learn(tmp_path)
    with pytest.raises(TrainingError, match="differs in rates"):
        learn(tmp_path, rates=(1e-12, 1e-12, 1e-12))
    with pytest.raises(TrainingError, match="3 epochs already"):
        learn(tmp_path, epochs=2)


def test_a_rate_of_nought_leaves_a_layer_and_none_falls_below_the_least() -> None:
    net = network()
    x, y = data(net, 12)
    before = [part.copy() for part in net.conductances]
    seen: list[Progress] = []
    found = train(
        net, x, y, epochs=2, batch=5, rates=(0.0, 2e-11, 2e-11), beta=0.1 * G, seed=1,
        least=2e-7, progress=seen.append,
    )  # fmt: skip
    np.testing.assert_array_equal(
        found.network.conductances[0], np.maximum(before[0], 2e-7).astype(np.float32)
    )
    assert found.network.conductances[1].min() == np.float32(2e-7)
    assert (found.network.conductances[1] != before[1]).any()
    assert [(at.epoch, at.step, at.steps) for at in seen] == [
        (1, 1, 3), (1, 2, 3), (1, 3, 3), (2, 1, 3), (2, 2, 3), (2, 3, 3),
    ]  # fmt: skip
    for part, old in zip(net.conductances, before, strict=True):
        np.testing.assert_array_equal(part, old)
    assert found.log[0].accuracy is None


def test_a_step_moves_conductances_down_the_loss_by_the_rate() -> None:
    net = network()
    x, y = data(net, 8)
    slope = slopes(net, x, y, beta=0.01 * G)
    found = train(
        net, x, y, epochs=1, batch=8, rates=1e-12, beta=0.01 * G, seed=1, dtype=torch.float64
    )
    for part, old, down in zip(found.network.conductances, net.conductances, slope, strict=True):
        np.testing.assert_allclose(part, np.maximum(old - 1e-12 * down, 0.0), rtol=1e-9, atol=1e-18)
    assert loss(found.network, x, y) < loss(net, x, y)


@pytest.mark.slow
def test_xor_is_learnt_with_diodes_and_not_without() -> None:
    # The third feature is the same in all: a constant source.
    x = np.array([[0.0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
    labels = np.array([0, 1, 1, 0])

    def learnt(seed: int, diode: Diode | None) -> tuple[float, float]:
        net = initial((3, 16, 2), seed=seed, gain=8.0, diode=diode)
        found = train(
            net, x, labels, epochs=300, batch=4, rates=1e-11, beta=0.05 * G, seed=seed
        )  # fmt: skip
        return accuracy(found.network, x, labels), found.log[-1].loss

    for seed in range(3):
        right, off = learnt(seed, JUNCTION)
        assert right == 1.0
        assert off < 0.15
        # A quarter is what the best linear function of the inputs leaves.
        right, off = learnt(seed, None)
        assert right <= 0.75
        assert off > 0.2499


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"labels": np.array([0, 2, 1, 0, 0])}, "classes in 0"),
        ({"labels": np.zeros((4, 2))}, "as many labels"),
        ({"labels": np.zeros((5, 3))}, r"\(sample, 2\)"),
        ({"rates": (1.0, 2.0)}, "rates"),
        ({"rates": -1.0}, "rates"),
        ({"beta": 0.0}, "beta"),
        ({"batch": 0}, "batch"),
        ({"least": -1.0}, "least"),
    ],
)
def test_data_and_numbers_that_do_not_fit_are_refused(
    changes: dict[str, object], what: str
) -> None:
    net = network()
    x, _ = data(net)
    options: dict[str, object] = {
        "labels": np.zeros(5, dtype=int), "epochs": 1, "rates": 1e-12, "beta": 0.1 * G, "seed": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match=what):
        train(net, x, **(options | changes))  # type: ignore[arg-type]
