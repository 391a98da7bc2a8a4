"""Stochastic residual layers: what they compute, draw and learn."""

from __future__ import annotations

import copy
import io
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spicenn.errors import InputError
from spicenn.training.residual import LiteralResidual, StochasticResidual


def linear(seed: int = 0, inputs: int = 3, outputs: int = 3) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(inputs, outputs)


def test_the_literal_form_is_relu_plus_gaussian_noise() -> None:
    """Its residual has mean 0, the std given and no dependence on x; r may be negative."""
    layer = LiteralResidual(std=0.25, seed=1)
    x = torch.linspace(-1, 1, 40_000)
    noise = layer(x) - x.relu()
    assert abs(float(noise.mean())) < 4 * 0.25 / 200
    assert float(noise.std()) == pytest.approx(0.25, rel=0.02)
    halves = noise[:20_000].std() / noise[20_000:].std()
    assert float(halves) == pytest.approx(1.0, abs=0.03)
    assert float(layer(x).min()) < -0.5
    assert torch.equal(layer.eval()(x), x.relu())


def test_the_literal_form_beside_a_layer() -> None:
    """With ``skip`` the result is f(x) + ReLU(x) + ε, without it f(x) + ε; shapes are checked."""
    f, x = linear(), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    one, two = (LiteralResidual(f, std=0.1, skip=skip, seed=4) for skip in (False, True))
    torch.testing.assert_close(two(x) - one(x), x.relu())
    assert torch.equal(one.eval()(x), f(x))
    with pytest.raises(InputError, match="skip=False"):
        LiteralResidual(linear(outputs=2), std=0.1, skip=True)(x)
    with pytest.raises(InputError, match="std"):
        LiteralResidual(std=math.nan)


def test_a_stochastic_residual_starts_as_its_layer_with_the_spread_given() -> None:
    f = linear()
    layer = StochasticResidual(f, features=3, context=2, spread=0.3, seed=2)
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer.eval()(x), f(x))
    mean, std = layer.moments(x, torch.ones(2))
    torch.testing.assert_close(mean, f(x))
    torch.testing.assert_close(std, torch.full_like(std, 0.3))
    assert float((layer.train()(x) - f(x)).detach().std()) == pytest.approx(0.3, rel=0.02)
    layer.eval().noisy = True
    assert not torch.equal(layer(x), f(x))


def _made(kind: str) -> Any:
    if kind == "literal":
        return LiteralResidual(linear(), std=0.2, seed=9)
    return StochasticResidual(linear(), features=3, seed=9)


@pytest.mark.parametrize("kind", ["literal", "stochastic"])
def test_noise_is_reproducible_and_goes_on_after_a_restart(kind: str) -> None:
    """The same seed draws the same; a state_dict read with weights_only goes on; so do copies."""
    x = torch.ones(4, 3)
    one, two = _made(kind), _made(kind)
    torch.manual_seed(1)
    first = one(x)
    torch.manual_seed(2)
    assert torch.equal(first, two(x))
    assert not torch.equal(first, one(x))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    third = _made(kind)
    third.load_state_dict(torch.load(file, weights_only=True))
    copied = copy.deepcopy(one)
    following = one(x)
    assert torch.equal(following, third(x))
    assert torch.equal(following, copied(x))


@given(seed=st.integers(0, 100), beta=st.sampled_from([0.0, 0.5]))
def test_nll_is_that_of_torch(seed: int, beta: float) -> None:
    """Plain: minus the log density of torch's Normal; β-NLL: weighted by σ^(2β), detached."""
    rng = torch.Generator().manual_seed(seed)
    layer = StochasticResidual(linear(), features=3, context=1, seed=seed).double()
    with torch.no_grad():
        for p in layer.head.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=rng))
    x, y = (torch.randn(6, 3, generator=rng).double() for _ in range(2))
    mean, std = layer.moments(x, torch.tensor([0.5]))
    each = -torch.distributions.Normal(mean, std).log_prob(y) * std.detach() ** (2 * beta)
    got = layer.nll(x, y, torch.tensor([0.5]), beta=beta)
    torch.testing.assert_close(got, each.mean())
    wanted = torch.autograd.grad(each.mean(), list(layer.head.parameters()), retain_graph=True)
    grads = torch.autograd.grad(got, list(layer.head.parameters()))
    for a, b in zip(grads, wanted, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_nll_finds_mean_and_spread_of_two_chips(beta: float) -> None:
    """Made results f(x) + c·sin x + (0.1 + 0.05x²)ξ, σ from 0.1 to 0.3: on new x of
    each chip the mean is off by less than 0.05, σ by less than 12 %.

    The control is a residual without context, which cannot tell the chips apart.
    """
    rng = torch.Generator().manual_seed(3)

    def measured(count: int) -> tuple[torch.Tensor, ...]:
        x = 4 * torch.rand(count, 1, generator=rng) - 2
        c = torch.randint(2, (count, 1), generator=rng) * 2.0 - 1.0
        std = 0.1 + 0.05 * x.square()
        return x, c, x + c * x.sin(), std

    x, c, mean, std = measured(4000)
    y = mean + std * torch.randn(x.shape, generator=rng)

    def fitted(context: int) -> StochasticResidual:
        layer = StochasticResidual(nn.Identity(), features=1, context=context, hidden=24, seed=1)
        optimiser = torch.optim.Adam(layer.parameters(), 1e-2)
        for _ in range(500):
            optimiser.zero_grad()
            layer.nll(x, y, c[:, :context], beta=beta).backward()
            optimiser.step()
        return layer

    new_x, new_c, new_mean, new_std = measured(1000)
    aware, unaware = fitted(1), fitted(0)
    with torch.no_grad():
        found, spread = aware.moments(new_x, new_c)
        blind, _ = unaware.moments(new_x, new_c[:, :0])
    assert float((found - new_mean).square().mean().sqrt()) < 0.05
    assert float((spread / new_std - 1).square().mean().sqrt()) < 0.12
    assert float((blind - new_mean).square().mean().sqrt()) > 0.5


def test_images_have_their_features_along_channels() -> None:
    """Every position of an image is a sample of its own; a context per sample reaches all."""
    layer = StochasticResidual(
        nn.Conv2d(2, 3, 3, padding=1), features=2, outputs=3, context=1, dim=1, seed=0
    )
    with torch.no_grad():
        for p in layer.head.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    x = torch.randn(4, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    c = torch.arange(4.0)[:, None]
    mean, std = layer.moments(x, c)
    assert mean.shape == std.shape == (4, 3, 5, 6)
    alone = layer.head(torch.cat([x[2, :, 1, 4], c[2]]))[:3] + layer.layer(x)[2, :, 1, 4]
    torch.testing.assert_close(mean[2, :, 1, 4], alone)


@pytest.mark.parametrize(
    ("x", "c", "words"),
    [
        (torch.zeros(2, 4), None, "3 features"),
        (torch.zeros(2, 3), torch.zeros(3), "context"),
        (torch.zeros(2, 3), torch.zeros(5, 1), "context"),
    ],
)
def test_what_does_not_fit_is_refused(x: torch.Tensor, c: Any, words: str) -> None:
    layer = StochasticResidual(nn.Identity(), features=3, context=1)
    with pytest.raises(InputError, match=words):
        layer(x, c)


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="sizes"):
        StochasticResidual(nn.Identity(), features=0)
    with pytest.raises(InputError, match="floor < spread"):
        StochasticResidual(nn.Identity(), features=1, spread=0.0)
    with pytest.raises(InputError, match="outputs"):
        StochasticResidual(nn.Linear(3, 2), features=3)(torch.zeros(1, 3))
    with pytest.raises(InputError, match="target"):
        StochasticResidual(nn.Identity(), features=1).nll(torch.zeros(1, 1), torch.zeros(1))
