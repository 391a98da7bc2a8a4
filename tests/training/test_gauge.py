"""A gauge changes no output; the best one leaves less of the cells' errors in it."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spicenn.compiler import Design, Mapping, Tile
from spicenn.compiler.pipeline import compile
from spicenn.errors import InputError, TrainingError
from spicenn.technology import Technology
from spicenn.training.gauge import (
    Gauge,
    apply_gauge,
    chain_of,
    expected_error,
    fix_gauge,
    null_directions,
    row_max_gauge,
)

# One cell's error is 5 % of the range, whatever it is programmed to.
CELLS = Technology.preset("ideal").replace(programming_error=0.05)


def network(*sizes: int, seed: int = 0, spread: float = 1.0) -> Any:
    """Linear maps of given sizes in double precision, neurons' scales apart by ``spread``."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for k, (a, b) in enumerate(pairwise(sizes)):
        parts += [nn.ReLU()] if k else []
        parts.append(nn.Linear(a, b, dtype=torch.float64))
    model = nn.Sequential(*parts)
    with torch.no_grad():
        for layer in parts[:-1:2]:
            assert isinstance(layer, nn.Linear)
            scale = torch.exp(spread * torch.randn(len(layer.weight), 1, dtype=torch.float64))
            layer.weight.mul_(scale)
            layer.bias.mul_(scale[:, 0])
    return model


def design_of(model: nn.Module, x: torch.Tensor, **choices: object) -> Design:
    technology = choices.pop("technology", CELLS)
    assert isinstance(technology, Technology)
    mapping = Mapping(**{"bias": "digital", **choices})  # type: ignore[arg-type]
    return compile(
        model, x[:2], technology=technology, mapping=mapping, calibration=x, tile=Tile(64, 64)
    )


def inputs(count: int, width: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(
        count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


@cache
def drawn(sizes: tuple[int, ...]) -> Design:
    return design_of(network(*sizes), inputs(7, sizes[0]))


@pytest.mark.slow
@given(seed=st.integers(0, 2**16), sizes=st.sampled_from([(3, 2), (4, 1, 2), (5, 6, 4, 3)]))
@settings(max_examples=25, deadline=None)
def test_no_gauge_changes_an_output(seed: int, sizes: tuple[int, ...]) -> None:
    design, x = drawn(sizes), inputs(7, sizes[0], seed)
    rng = np.random.default_rng(seed)
    gauge = Gauge(
        scales=tuple(np.exp(rng.standard_normal(n)) for n in sizes[1:-1]),
        orders=tuple(rng.permutation(n) for n in sizes[1:-1]),
    )
    expected = design.to_torch()(x).detach()
    found = apply_gauge(design, gauge).to_torch()(x).detach()
    scale = max(1.0, float(expected.abs().max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * scale)


def test_a_pairs_common_mode_changes_no_output() -> None:
    x = inputs(5, 4)
    design = design_of(network(4, 3, 2), x)
    rng = np.random.default_rng(0)
    moved = {}
    for tile in design.tiles:
        common = np.repeat(
            1e-5 * rng.random((len(tile.g_target), tile.g_target.shape[1] // 2)), 2, 1
        )
        moved[tile.name] = tile.g_target + common
    targets = {tile.name: tile.g_target for tile in design.tiles}
    y = [design.measured(g, seed=0).to_torch()(x).detach() for g in (targets, moved)]
    np.testing.assert_allclose(y[0], y[1], rtol=0, atol=1e-12 * float(y[0].abs().max()) + 1e-13)


@pytest.mark.parametrize("sizes", [(5, 4, 3), (4, 5, 4, 2)])
def test_at_generic_inputs_the_gauge_is_all_that_the_outputs_do_not_see(
    sizes: tuple[int, ...],
) -> None:
    x = inputs(300, sizes[0])
    # Biases of 0: every neuron is on for some inputs and off for others.
    model = network(*sizes)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                layer.bias.zero_()
    value = x
    for layer in model[:-1]:
        value = layer(value)
        assert isinstance(layer, nn.Linear) or bool(
            ((value > 0).any(0) & (value == 0).any(0)).all()
        )
    design = design_of(model, x)
    found = null_directions(design, x)
    pairs = sum(a * b + b for a, b in pairwise(sizes))
    assert found.gauge == sum(sizes[1:-1]) + pairs
    assert found.found == found.gauge


def test_a_constant_input_and_a_dead_neuron_add_theirs() -> None:
    x = inputs(200, 5)
    model = network(5, 4, 3)
    whole = null_directions(design_of(model, x), x)
    still = x.clone()
    still[:, 0] = 0.0  # no weight of this input matters
    assert null_directions(design_of(model, still), still).found == whole.found + 4
    with torch.no_grad():
        model[0].bias[1] = -100.0
    # Its 5 weights and bias, and 3 behind it; one of them was its scale, counted already.
    assert null_directions(design_of(model, x), x).found == whole.found + 5 + 1 + 3 - 1


def test_too_few_values_say_nothing_of_the_rank() -> None:
    x = inputs(5, 5)
    with pytest.raises(InputError, match="at least 13 samples"):
        null_directions(design_of(network(5, 4, 3), x), x)


@pytest.mark.parametrize("bias", ["digital", "row"])
def test_the_expected_error_is_that_of_chips(bias: str) -> None:
    x = inputs(60, 6)
    technology = CELLS.replace(programming_error=0.01)
    design = design_of(network(6, 8, 3), x, technology=technology, bias=bias)
    y = design.to_torch()(x).detach().numpy()
    errors = [np.mean(np.square(design.sample(k, 3).to_torch()(x).numpy() - y)) for k in range(200)]
    found = np.sqrt(np.mean(errors) / np.mean(np.square(y)))
    # 200 chips: 5 % of statistics and of what is not linear.
    assert found == pytest.approx(expected_error(design, x), rel=0.1)


@pytest.mark.slow
def test_the_best_gauge_beats_the_network_as_drawn_and_row_max_on_chips() -> None:
    x = inputs(80, 6)
    design = design_of(network(6, 10, 8, 3, spread=0.7), x)
    fixed = fix_gauge(design, x)
    assert fixed.error < 0.98 * min(fixed.drawn, fixed.row_max)
    assert fixed.error == pytest.approx(expected_error(fixed.design, x), rel=1e-9)
    assert fixed.row_max == pytest.approx(
        expected_error(apply_gauge(design, row_max_gauge(design), x), x), rel=1e-9
    )
    y = design.to_torch()(x).detach().numpy()
    np.testing.assert_allclose(fixed.design.to_torch()(x).detach(), y, rtol=0, atol=1e-10)

    def chips(which: Design) -> float:
        return float(
            np.mean(
                [
                    np.mean(np.square(which.sample(k, 3).to_torch()(x).numpy() - y))
                    for k in range(60)
                ]
            )
        )

    assert chips(fixed.design) < chips(design)


def test_the_search_finds_the_minimum_of_a_network_with_one_hidden_neuron_at_any_scale() -> None:
    # Its scale is no freedom that matters: both layers have one neuron's range alone.
    x = inputs(40, 3)
    fixed = fix_gauge(design_of(network(3, 1, 2, spread=2.0), x), x)
    assert fixed.error == pytest.approx(fixed.drawn, rel=1e-9)


@pytest.mark.slow
def test_wires_tell_places_apart() -> None:
    x = inputs(40, 6).abs()
    wired = CELLS.replace(r_wordline=20.0, r_bitline=20.0)
    design = design_of(network(6, 12, 3), x, technology=wired)
    fixed = fix_gauge(design, x, order_steps=40)
    assert fixed.ordered < 0.95 * fixed.wires
    y = design.to_torch()(x).detach()
    np.testing.assert_allclose(fixed.design.to_torch()(x).detach(), y, rtol=0, atol=1e-10)
    again = fix_gauge(design, x, order_steps=40)
    for a, b in zip(fixed.gauge.orders, again.gauge.orders, strict=True):
        np.testing.assert_array_equal(a, b)


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.a(x))
        result: torch.Tensor = self.b(hidden) + hidden
        return result


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), (4,), "tanh"),
        (nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU()), (1, 8), "no plain linear map"),
        (Skip(), (4,), "takes what a hidden layer gives"),
    ],
)
def test_what_is_no_chain_is_refused_by_name(
    model: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    x = torch.rand(5, *shape)
    with pytest.raises(TrainingError, match=message):
        chain_of(design_of(model, x))


def test_what_has_no_gauge_to_choose_is_refused() -> None:
    x = inputs(5, 4)
    model = network(4, 3, 2)
    with pytest.raises(TrainingError, match="no cell of the technology has an error"):
        fix_gauge(design_of(model, x, technology=Technology.preset("ideal")), x)
    with pytest.raises(TrainingError, match="several cells"):
        fix_gauge(design_of(model, x, slices=2, cell_bits=2), x)
    with pytest.raises(InputError, match="does not fit"):
        apply_gauge(design_of(model, x), Gauge(scales=(-np.ones(3),), orders=(np.arange(3),)))
