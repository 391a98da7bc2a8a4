"""A design's network is its model, and a trained network's weights make a design of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.compiler.layer import Array
from spicenn.errors import CompileError, InputError

# torch's remark on an even kernel, once per process.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

TECH = sn.Technology.preset("rram-1r")
X = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Convolutions with padding on one side only, groups, a shared layer, normalisation."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding="same", dilation=2),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
        )
        self.even = nn.Conv2d(4, 4, 2, padding="same", groups=2)
        self.same = nn.Linear(8, 8)
        self.out = nn.Linear(256, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.even(torch.relu(self.stem(x))))
        result: torch.Tensor = self.out(self.same(torch.tanh(self.same(y))).flatten(1))
        return result


def _net(norm: bool = False, seed: int = 0) -> Net:
    torch.manual_seed(seed)
    net = Net(norm)
    with torch.no_grad():
        net(X)
    return net.eval()


def _near(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a.detach(), b.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", [False, True])
def test_to_torch_is_the_model_and_trains(norm: bool) -> None:
    """Also with what was folded; every parameter gets a gradient."""
    net = _net(norm)
    plain = sn.compile(net, X, technology=TECH).to_torch()
    _near(plain(X), net(X))
    plain(X).square().sum().backward()
    names = {name for name, p in plain.named_parameters() if p.grad is not None}
    assert names == {
        f"{layer}.{kind}"
        for layer in ("stem.0", "even", "same", "out")
        for kind in ("weight", "bias")
        if (layer, kind) != ("out", "bias")
    }


def test_with_weights_is_a_new_compile() -> None:
    """Of the trained model, scales included; from the model's or the design's own network."""
    design = sn.compile(_net(), X, technology=TECH)
    trained = _net(seed=1)
    anew = sn.compile(trained, X, technology=TECH)
    plain = design.to_torch()
    plain.load_state_dict(trained.state_dict(), strict=False)
    for module in (trained, plain):
        moved = design.with_weights(module, calibration=X)
        assert moved.hash == anew.hash
    kept = design.with_weights(trained)
    assert [layer.input_scale for layer in kept.layers] == [
        layer.input_scale for layer in design.layers
    ]
    assert [layer.weight_scale for layer in kept.layers] == [
        layer.weight_scale for layer in anew.layers
    ]


def test_a_chip_keeps_its_draws() -> None:
    """The same cells of the same chip are as far off their targets as before."""
    torch.manual_seed(0)
    tech = TECH.replace(g_min=3e-5, g_max=6e-5, programming_error=0.01)
    first, second = (nn.Linear(6, 4) for _ in range(2))
    design = sn.compile(first, torch.rand(5, 6), technology=tech)
    moved = design.with_weights(second)

    def deviation(of: sn.Design) -> Array:
        return of.sample(3, 7).conductances()["weight_r0_c0"] - of.tiles[0].g_target

    assert np.abs(moved.tiles[0].g_target - design.tiles[0].g_target).max() > 1e-6
    np.testing.assert_allclose(deviation(moved)[:6], deviation(design)[:6], rtol=1e-9)


def test_weights_by_name() -> None:
    """Some layers alone; names, shapes and biases are checked."""
    design = sn.compile(_net(), X, technology=TECH)
    weight = np.ones((5, 256))
    moved = design.with_weights({"out": (weight, None)})
    assert np.array_equal(moved.layer("out").weight[0], weight)
    assert moved.layer("same") is not None
    assert np.array_equal(moved.layer("same").weight, design.layer("same").weight)
    for wrong in (
        {"no": (weight, None)},
        {"out": (weight.T, None)},
        {"out": (weight * np.nan, None)},
    ):
        with pytest.raises(InputError):
            design.with_weights(wrong)
    with pytest.raises(CompileError, match="a bias is given"):
        design.with_weights({"out": (weight, np.ones(5))})
    with pytest.raises(InputError, match="weights are a list"):
        design.with_weights([])  # type: ignore[arg-type]


def test_refuses_what_was_folded() -> None:
    """A model whose batch normalisation is in the design's weights is not their source."""
    net = _net(norm=True)
    with torch.no_grad():
        net.stem[1].weight.mul_(1.7)  # type: ignore[operator]
    design = sn.compile(net, X, technology=TECH)
    with pytest.raises(CompileError, match="compile the module anew"):
        design.with_weights(net)
    with pytest.raises(CompileError, match="no weight of this name"):
        design.with_weights(nn.Linear(3, 3))
