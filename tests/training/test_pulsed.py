"""Pulsed updates between soft bounds, against their recursion and closed forms."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spicenn.errors import InputError
from spicenn.training.pulsed import PulsedSGD, pulsed, symmetric_point


@given(
    n=st.integers(-60, 60),
    w=st.floats(-0.9, 0.9),
    up=st.floats(1e-3, 0.3),
    down=st.floats(1e-3, 0.3),
    bound=st.floats(1.0, 2.0),
)
def test_n_pulses_at_once_are_n_pulses(
    n: int, w: float, up: float, down: float, bound: float
) -> None:
    """The closed form against Δw = ±Δw_min (1 ∓ w/w_b), one after another."""
    by_hand = w
    for _ in range(abs(n)):
        by_hand += up * (1 - by_hand / bound) if n > 0 else -down * (1 + by_hand / bound)
    start = torch.tensor(w, dtype=torch.float64)
    got = pulsed(start, torch.tensor(n), up, down, bound)
    assert float(got) == pytest.approx(by_hand, rel=1e-12, abs=1e-12)


def test_pulses_saturate_at_the_bound_and_one_of_full_size_reaches_it() -> None:
    w = torch.tensor([-0.5, 0.2], dtype=torch.float64)
    many = pulsed(w, torch.tensor(10_000), 0.01, 0.02, 0.7)
    torch.testing.assert_close(many, torch.full_like(w, 0.7))
    torch.testing.assert_close(pulsed(w, torch.tensor(-1), 0.1, 0.7, 0.7), torch.full_like(w, -0.7))
    assert torch.equal(pulsed(w, torch.tensor(0), 0.1, 0.1, 0.7), w)


@given(up=st.floats(0.001, 0.05), down=st.floats(0.001, 0.05))
def test_alternating_pulses_lead_to_the_symmetric_point(up: float, down: float) -> None:
    """There a pulse up and one down are equal; pairs of them from anywhere end beside it."""
    point = symmetric_point(up, down, 1.5)
    w = torch.tensor(point, dtype=torch.float64)
    rise = pulsed(w, torch.tensor(1), up, down, 1.5) - w
    fall = w - pulsed(w, torch.tensor(-1), up, down, 1.5)
    assert float(rise) == pytest.approx(float(fall), rel=1e-9, abs=1e-12)
    ends = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    low, middle, high = pulsed(
        pulsed(ends, torch.tensor(1), up, down, 1.5), torch.tensor(-1), up, down, 1.5
    ).tolist()
    slope = (high - low) / 2  # a pair of pulses is an affine map: it contracts to one point
    assert 0 < slope < 1
    assert abs(middle / (1 - slope) - point) < max(up, down)


def _optimiser(p: Any, **options: Any) -> PulsedSGD:
    return PulsedSGD([p] if isinstance(p, torch.Tensor) else p, **options)


def test_a_step_rounds_at_random_with_the_right_mean() -> None:
    """Gradient for 2.3 pulses: two or three, 2.3 on the average, each the closed form's."""
    p = nn.Parameter(torch.zeros(20_000, dtype=torch.float64))
    optimiser = _optimiser(p, lr=1.0, step=0.01, bound=1.0, seed=3)
    p.grad = torch.full_like(p, -0.023)
    optimiser.step()
    pulses = optimiser.state[p]["pulses"]
    assert set(pulses.tolist()) == {2, 3}
    assert float(pulses.double().mean()) == pytest.approx(2.3, abs=4 * 0.46 / 20_000**0.5)
    wanted = pulsed(torch.zeros_like(p), pulses, 0.01, 0.01, 1.0)
    torch.testing.assert_close(p.detach(), wanted)


def test_pulses_are_limited_and_asymmetric() -> None:
    p = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimiser = _optimiser(p, lr=1.0, step=0.01, bound=1.0, asymmetry=0.5, max_pulses=4)
    p.grad = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    optimiser.step()
    assert optimiser.state[p]["pulses"].tolist() == [4, 4]
    assert p.tolist() == pytest.approx([1 - (1 - 0.015) ** 4, -(1 - (1 - 0.005) ** 4)])


def test_cells_differ_as_said_and_start_within_their_bounds() -> None:
    """ln Δw_min and ln w_b have the spread given, around the nominal values as medians."""
    p = nn.Parameter(torch.full((40_000,), 5.0))
    optimiser = _optimiser(p, step=0.01, bound=2.0, spread_step=0.3, spread_bound=0.1, seed=1)
    cells = optimiser.state[p]
    for key, nominal, spread in (("up", 0.01, 0.3), ("bound", 2.0, 0.1)):
        logs = (cells[key] / nominal).log()
        assert float(logs.mean()) == pytest.approx(0.0, abs=4 * spread / 200)
        assert float(logs.std()) == pytest.approx(spread, rel=0.02)
    assert torch.equal(p.detach(), cells["bound"])
    again = nn.Parameter(torch.full((40_000,), 5.0))
    _optimiser(again, step=0.01, bound=2.0, spread_step=0.3, spread_bound=0.1, seed=1)
    assert torch.equal(p, again)


def test_a_network_learns_in_pulses_with_biases_in_digital_memory() -> None:
    """A linear problem that is solvable within the bounds comes to a hundredth of its loss."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=rng)
    y = x @ torch.tensor([[0.5], [-0.3], [0.2], [0.0]]) + 0.7
    torch.manual_seed(0)
    net = nn.Linear(4, 1)
    optimiser = PulsedSGD(
        [{"params": [net.weight]}, {"params": [net.bias], "step": None}],
        lr=0.1, step=2e-3, asymmetry=0.05, spread_step=0.3, seed=2,
    )  # fmt: skip
    losses = []
    for _ in range(200):
        optimiser.zero_grad()
        loss = nn.functional.mse_loss(net(x), y)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.01 * losses[0]
    assert float(net.bias.detach()) == pytest.approx(0.7, abs=0.02)
    assert net.bias not in optimiser.state


def test_a_saved_optimiser_goes_on_to_the_last_bit() -> None:
    """Cells, wear and the rounding's stream come back, counts beyond float32's among them."""

    def build(seed: int) -> tuple[nn.Linear, PulsedSGD]:
        torch.manual_seed(0)
        net = nn.Linear(6, 3)
        return net, PulsedSGD(net.parameters(), lr=0.01, step=0.01, spread_step=0.4, seed=seed)

    def go_on(net: nn.Linear, optimiser: PulsedSGD, steps: int) -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            net(torch.ones(2, 6)).square().sum().backward()
            optimiser.step()

    net, optimiser = build(1)
    go_on(net, optimiser, 3)
    optimiser.state[net.weight]["pulses"][0, 0] = 2**24 + 1
    file = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict()}, file)
    go_on(net, optimiser, 5)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, resumed = build(99)
    other.load_state_dict(saved["net"])
    resumed.load_state_dict(saved["optimiser"])
    assert int(resumed.state[other.weight]["pulses"][0, 0]) == 2**24 + 1
    go_on(other, resumed, 5)
    for a, b in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(optimiser.state[a]["pulses"], resumed.state[b]["pulses"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.0}, "lr"),
        ({"step": 2.0}, "step"),
        ({"step": 0.0}, "step"),
        ({"bound": -1.0}, "bound"),
        ({"asymmetry": 1.0}, "asymmetry"),
        ({"spread_step": -0.1}, "spread_step"),
        ({"max_pulses": 0}, "max_pulses"),
        ({"seed": -1}, "seed"),
    ],
)
def test_values_that_are_not_allowed_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        _optimiser(nn.Parameter(torch.zeros(2)), **options)
