"""Physics as loss terms, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import spicenn as sn
from spicenn.errors import InputError, TrainingError
from spicenn.training import Awareness, analog
from spicenn.training.draws import Draws
from spicenn.training.penalties import (
    PROJECTIONS,
    bit_depth_penalty,
    jacobian_penalty,
    range_penalty,
    step_penalty,
    watched_signals,
    weight_range_penalty,
)


def weight_of(net: nn.Module, name: str) -> nn.Parameter:
    return net.get_parameter(f"{name}.weight")


def grad_of(net: nn.Module, name: str) -> torch.Tensor:
    grad = weight_of(net, name).grad
    assert grad is not None
    return grad


def test_a_range_costs_the_square_of_the_excess_over_the_range() -> None:
    """By hand: 2 and -2 over ±1 are one of two too far each; the gradient is 2 excess/range²."""
    x = torch.tensor([2.0, -2.0, 0.5, 1.0], requires_grad=True)
    loss = range_penalty(x, -1.0, 1.0)
    assert float(loss.detach()) == pytest.approx((0.25 + 0.25) / 4)
    loss.backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.5, -0.5, 0.0, 0.0]) / 4)
    with pytest.raises(InputError, match="low end"):
        range_penalty(x, 1.0, 1.0)


@given(bits=st.integers(1, 8), seed=st.integers(0, 50))
def test_levels_cost_nothing_and_midpoints_a_quarter(bits: int, seed: int) -> None:
    levels = 2**bits
    rng = np.random.default_rng(seed)
    low = float(rng.uniform(-2, 0))
    high = low + float(rng.uniform(0.5, 3))
    grid = torch.linspace(low, high, levels, dtype=torch.float64)
    assert float(step_penalty(grid, low, high, levels)) == pytest.approx(0, abs=1e-20)
    assert float(step_penalty((grid[1:] + grid[:-1]) / 2, low, high, levels)) == pytest.approx(0.25)


def test_evenly_spread_values_cost_a_twelfth() -> None:
    x = torch.linspace(-1, 1, 160_001, dtype=torch.float64)
    assert float(step_penalty(x, -1.0, 1.0, 16)) == pytest.approx(1 / 12, rel=1e-3)
    with pytest.raises(InputError, match="two"):
        step_penalty(x, -1, 1, 1)


def test_descending_the_bit_depth_penalty_ends_on_the_layers_levels() -> None:
    """Every weight ends at one of 2^b - 1 levels, as ``Awareness.weight_bits`` has them."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    optimiser = torch.optim.SGD(net.parameters(), 1.0)
    limit = {"0": 0.5, "2": 0.8}
    before = float(bit_depth_penalty(net, 3, limit).detach())
    for _ in range(400):
        optimiser.zero_grad()
        bit_depth_penalty(net, 3, limit).backward()
        optimiser.step()
    assert before > 0.02
    for name, top in limit.items():
        steps = weight_of(net, name).detach() / (top / 3)
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        assert float(steps.abs().max()) < 3.001
    with pytest.raises(InputError, match="sign"):
        bit_depth_penalty(net, 1)


def test_weights_beyond_the_conductance_range() -> None:
    """Mean over all weights of all layers; limits by name; biases have no part in it."""
    net = nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1))
    with torch.no_grad():
        weight_of(net, "0").copy_(torch.tensor([[3.0, -1.0]]))
        weight_of(net, "1").fill_(1.0)
        net.get_parameter("0.bias").fill_(100.0)
    assert float(weight_range_penalty(net, 1.0).detach()) == pytest.approx((2 / 2) ** 2 / 3)
    assert float(weight_range_penalty(net, {"0": 3.0, "1": 0.5}).detach()) == pytest.approx(
        0.25 / 3
    )
    for limit in (None, 0.0, {"0": 1.0}):
        with pytest.raises(InputError, match="limit"):
            weight_range_penalty(net, limit)
    with pytest.raises(InputError, match="without"):
        weight_range_penalty(nn.ReLU(), 1.0)


def _analog(tile: sn.Tile | None = None) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    x = torch.rand(32, 8)
    tech = sn.Technology.preset("rram-1r")
    tile = tile or sn.Tile(wordlines=128, bitlines=128)
    design = sn.compile(model, x[:2], technology=tech, calibration=x, tile=tile)
    blind = Awareness(
        weight_noise=None, read_noise=None, weight_bits=None, input_bits=None, output_bits=None,
        wires="none", ranges="fixed",
    )  # fmt: skip
    return analog(model, design, awareness=blind), x


def test_analog_layers_know_their_designs_limit() -> None:
    """Weights as compiled cost nothing; grown by a quarter, their excess over twice the limit."""
    net, _ = _analog()
    assert float(weight_range_penalty(net).detach()) == 0.0
    with torch.no_grad():
        weight_of(net, "0").mul_(1.25)
    first = weight_of(net, "0").detach()
    limit = first.abs().max() / 1.25
    excess = (first.abs() - limit).clamp_min(0) / (2 * limit)
    wanted = excess.square().sum() / (6 * 8 + 3 * 6)
    assert float(weight_range_penalty(net).detach()) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.parametrize("tile", [None, sn.Tile(wordlines=4, bitlines=16)])
def test_signals_beyond_their_ranges(tile: sn.Tile | None) -> None:
    """Calibration inputs cost next to nothing; thrice as large they cost in both terms.

    Inputs exactly as by hand; gradients reach the weights through the converters' term, which
    the clamp in the layer itself hides from the task's loss.
    """
    net, x = _analog(tile)
    net.train()
    with watched_signals(net) as ranges:
        net(x)
    assert float(ranges.inputs().detach()) < 1e-4
    assert float(ranges.outputs().detach()) < 1e-4
    with watched_signals(net) as ranges:
        net(3 * x)
    full = net.get_buffer("0.input_range")
    by_hand = range_penalty(3 * x, 0.0, full)
    torch.testing.assert_close(ranges._inputs[0], by_hand)
    assert float(by_hand) > 0.1
    assert float(ranges.outputs().detach()) > 0.005
    ranges.outputs().backward()
    assert float(grad_of(net, "0").abs().max()) > 0
    assert not net.get_submodule("0")._forward_pre_hooks


def test_what_cannot_be_watched_is_refused() -> None:
    net, _ = _analog()
    with watched_signals(net) as ranges:
        pass
    with pytest.raises(InputError, match="no pass"):
        ranges.inputs()
    with pytest.raises(TrainingError, match=r"sn\.analog"), watched_signals(nn.Linear(1, 1)):
        pass


def _smooth() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def test_the_jacobian_of_a_linear_map_is_its_matrix() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(5, 4).double(), torch.randn(3, 5).double()
    power = net.weight.square().sum()
    torch.testing.assert_close(jacobian_penalty(net, x, squared=True), power)
    torch.testing.assert_close(jacobian_penalty(net, x), power.sqrt())


@pytest.mark.parametrize("squared", [False, True])
def test_the_exact_penalty_is_that_of_torchs_jacobian(squared: bool) -> None:
    """Mean over samples of the Frobenius norm, and its gradient by the parameters."""
    net, x = _smooth(), torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).double()
    each = [torch.autograd.functional.jacobian(net, row, create_graph=True) for row in x]
    norms = torch.stack([j.square().sum() for j in each])
    wanted = (norms if squared else norms.sqrt()).mean()
    got = jacobian_penalty(net, x, squared=squared)
    torch.testing.assert_close(got, wanted)
    parameters = [p for name, p in net.named_parameters() if name != "2.bias"]
    pairs = zip(
        torch.autograd.grad(got, parameters), torch.autograd.grad(wanted, parameters), strict=True
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b)


def test_the_estimate_has_the_exact_mean_and_its_own_stream() -> None:
    """4000 projections come within 4 standard errors; one output needs just one."""
    net, x = _smooth(), torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).double()
    exact = float(jacobian_penalty(net, x, squared=True).detach())
    draws = Draws(5, part=PROJECTIONS)
    singles = torch.stack(
        [
            jacobian_penalty(net, x, squared=True, projections=4, draws=draws).detach()
            for _ in range(500)
        ]
    )
    error = float(singles.std()) / 500**0.5
    assert error < 0.02 * exact
    assert abs(float(singles.mean()) - exact) < 4 * error
    torch.manual_seed(0)
    one = nn.Linear(4, 1).double()
    for squared in (False, True):
        torch.testing.assert_close(
            jacobian_penalty(one, x, squared=squared, projections=1, draws=draws),
            jacobian_penalty(one, x, squared=squared),
        )


def test_the_estimate_can_be_differentiated_and_exact_zero_has_no_slope() -> None:
    net, x = _smooth(), torch.ones(2, 4).double()
    jacobian_penalty(net, x, projections=2, draws=Draws(1, part=PROJECTIONS)).backward()
    assert float(grad_of(net, "0").abs().max()) > 0
    dead = nn.Sequential(nn.Linear(4, 2), nn.ReLU()).double()
    with torch.no_grad():
        dead.get_parameter("0.bias").fill_(-100)
    loss = jacobian_penalty(dead, x)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert bool(torch.isfinite(grad_of(dead, "0")).all())


def test_analog_networks_have_a_penalty() -> None:
    """Through steps and clamps, straight through, twice; as torch's own Jacobian has it."""
    net, x = _analog()
    got = jacobian_penalty(net.eval(), x[:4])
    each = [torch.autograd.functional.jacobian(net, row[None]) for row in x[:4]]
    wanted = torch.stack([j.square().sum().sqrt() for j in each]).mean()
    torch.testing.assert_close(got.detach(), wanted)
    got.backward()
    assert float(grad_of(net, "0").abs().max()) > 0


def test_a_wrong_call_is_refused() -> None:
    net, x = nn.Linear(4, 2), torch.zeros(3, 4)
    with pytest.raises(InputError, match="draws"):
        jacobian_penalty(net, x, projections=3)
    with pytest.raises(InputError, match="at least one"):
        jacobian_penalty(net, x, projections=0, draws=Draws(0, part=PROJECTIONS))
    with pytest.raises(InputError, match="samples"):
        jacobian_penalty(nn.Flatten(0), x)
