"""Wires in a training loop: both methods against differences, and against each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import spicenn as sn
from spicenn.circuit import Crossbar
from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff import crossbar_currents
from spicenn.training.physics import physics_of
from spicenn.training.wires import (
    METHODS,
    Tiles,
    correction,
    effective,
    effective_weights,
    weights_correction,
)
from spicenn.training.wiring import Wiring

# Conductances are of order 1 in these, and so are wires: differences see all of them.
SMALL = (0.3, 0.2)
MICRO = 1e-6


def uniform(*shape: int, seed: int = 0, low: float = 0.1, high: float = 1.0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(low, high, shape))


def strong() -> tuple[Tensor, float]:
    """A tile of 128 × 64 cells in pairs whose wires take a fifth of the current."""
    return torch.from_numpy(np.random.default_rng(1).normal(0, 0.3, (128, 32))), 2.0


def cells(w: Tensor) -> Tensor:
    """(wordline, bitline) [S] of signed weights, 1–100 µS."""
    pairs = torch.stack([w.clamp(0, 1), (-w).clamp(0, 1)], dim=-1).flatten(-2)
    return (1 + 99 * pairs) * MICRO


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(3, 4), (2, 4, 3), (2, 2, 1, 5)])
def test_gradients_are_those_of_finite_differences(method: str, shape: tuple[int, ...]) -> None:
    g = uniform(*shape).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda g: effective(g, *SMALL, method=method), g, atol=1e-7, rtol=1e-5
    )


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_signed_weights_are_those_of_finite_differences(method: str) -> None:
    """Two groups, tiles of several shapes, weights of either sign and beyond the largest."""
    places = np.array(
        [(k, *o, *i) for k in (0, 1) for o in ((0, 2), (2, 3)) for i in ((0, 3), (3, 5))]
    )
    tiles = Tiles(
        places=places, g_min=0.05, g_max=1.0, r_wordline=0.3, r_bitline=0.2, r_driver=0.5,
        r_sense=0.1,
    )  # fmt: skip
    weight = uniform(2, 3, 5, low=-1.0, high=1.0)
    assert torch.autograd.gradcheck(
        lambda w: effective_weights(w, tiles, 0.9, method=method),
        weight.requires_grad_(), atol=1e-7, rtol=1e-5,
    )  # fmt: skip


def test_exact_is_what_currents_are() -> None:
    """With the segments of a circuit's record: a driver and an amplifier in series."""
    crossbar = Crossbar("tile", 6, 4, r_wordline=3.0, r_bitline=5.0, r_driver=80.0, r_sense=20.0)
    g, v = uniform(2, 6, 4) * 1e-4, uniform(3, 6, seed=1)
    along, down = crossbar.segments()
    found = v @ effective(g, along, torch.from_numpy(down))
    expected = crossbar_currents(g, v, r_wordline=along, r_bitline=down)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=0)


def test_a_correction_makes_ladders_exact_where_it_was_taken() -> None:
    w, r = strong()
    g = cells(w)
    kept = correction(g, r, r)
    found = effective(g, r, r, method="ladder", correction=kept)
    torch.testing.assert_close(found, effective(g, r, r), rtol=1e-5, atol=1e-6 * float(g.max()))
    # Without one they are not: of a twentieth of the current at most.
    missing = kept.sum() / found.sum()
    assert 1e-3 < float(missing) < 0.05


@pytest.mark.parametrize(("moved", "bound"), [(0.05, 1e-4), (0.2, 6e-4), (0.5, 3e-3)])
def test_error_between_two_looks_at_the_exact_solution(moved: float, bound: float) -> None:
    """Relative to the outputs (rms), for weights off by so much (rms over their own).

    A matrix that is kept, or attenuations that are, is off by as much as the weights are,
    or by a tenth of it.
    """
    w, r = strong()
    rng = np.random.default_rng(2)
    x = uniform(64, len(w), seed=3, low=0.0)
    now = w + moved * 0.3 * torch.from_numpy(rng.standard_normal(w.shape))
    g, later = cells(w), cells(now)
    exact = x @ effective(later, r, r)

    def error(matrix: Tensor) -> float:
        return float(torch.linalg.norm(x @ matrix - exact) / torch.linalg.norm(exact))

    kept = correction(g, r, r)
    corrected = error(effective(later, r, r, method="ladder", correction=kept))
    frozen = error(later * effective(g, r, r) / g)
    assert corrected < bound
    assert corrected < 0.1 * frozen


def test_gradient_of_ladders_is_near_the_exact_one() -> None:
    """Of a loss on the differences of pairs: cosine above 0.9995, attenuations alone 0.998."""
    w, r = strong()
    x, target = uniform(64, len(w), seed=4, low=0.0), uniform(64, 32, seed=5, low=-9.0, high=9.0)
    g = cells(w)
    kept, frozen = correction(g, r, r), effective(g, r, r) / g

    def slope(matrix: Any) -> Tensor:
        leaf = w.clone().requires_grad_()
        through = matrix(cells(leaf))
        signed = (through[:, 0::2] - through[:, 1::2]) / (99 * MICRO)
        ((x @ signed - target) ** 2).mean().backward()
        assert leaf.grad is not None
        return leaf.grad.flatten()

    exact = slope(lambda g: effective(g, r, r))
    ladder = slope(lambda g: effective(g, r, r, method="ladder", correction=kept))
    alone = slope(lambda g: g * frozen)
    assert float(torch.cosine_similarity(exact, ladder, dim=0)) > 0.9995
    assert float(torch.linalg.norm(ladder - exact)) < 0.25 * float(torch.linalg.norm(alone - exact))


@pytest.mark.parametrize("method", METHODS)
def test_signed_weights_are_differences_of_pairs(method: str) -> None:
    """A layer's tiles against the arrays that they are."""
    places = np.array([(0, 0, 2, 0, 4), (0, 2, 5, 0, 4), (0, 0, 2, 4, 6), (0, 2, 5, 4, 6)])
    tiles = Tiles(
        places=places, g_min=MICRO, g_max=100 * MICRO, r_wordline=20.0, r_bitline=30.0,
        r_driver=100.0, r_sense=50.0,
    )  # fmt: skip
    weight = uniform(1, 5, 6, low=-0.7, high=0.7)
    found = effective_weights(weight, tiles, 0.7, method=method)
    for _, o0, o1, i0, i1 in places:
        crossbar = Crossbar(
            "tile", i1 - i0, 2 * (o1 - o0), r_wordline=20.0, r_bitline=30.0, r_driver=100.0,
            r_sense=50.0,
        )  # fmt: skip
        matrix = effective(
            cells(weight[0, o0:o1, i0:i1].T / 0.7), *crossbar.segments(), method=method
        )
        signed = (matrix[:, 0::2] - matrix[:, 1::2]).T * 0.7 / (99 * MICRO)
        torch.testing.assert_close(found[0, o0:o1, i0:i1], signed, rtol=1e-9, atol=1e-13)


def test_a_correction_of_signed_weights_makes_ladders_exact() -> None:
    tiles = Tiles(
        places=np.array([(0, 0, 5, 0, 6)]), g_min=MICRO, g_max=100 * MICRO, r_wordline=200.0,
        r_bitline=300.0,
    )  # fmt: skip
    weight = uniform(1, 5, 6, low=-1.0)
    kept = weights_correction(weight, tiles, 1.0)
    exact = effective_weights(weight, tiles, 1.0)
    ladder = effective_weights(weight, tiles, 1.0, method="ladder")
    assert float((ladder - exact).abs().max()) > 1e-3
    found = effective_weights(weight, tiles, 1.0, method="ladder", correction=kept)
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_ideal_wires_leave_weights_as_they_are(method: str) -> None:
    tiles = Tiles(
        places=np.array([(0, 0, 3, 0, 4)]), g_min=MICRO, g_max=100 * MICRO, r_wordline=0.0,
        r_bitline=0.0,
    )  # fmt: skip
    weight = uniform(1, 3, 4, low=-1.0).float()
    torch.testing.assert_close(
        effective_weights(weight, tiles, 1.0, method=method), weight, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_are_kept(method: str, dtype: torch.dtype) -> None:
    g = (uniform(3, 4) * 1e-4).to(dtype).requires_grad_()
    found = effective(g, 2.0, 2.0, method=method)
    found.sum().backward()
    assert found.dtype == dtype
    assert g.grad is not None
    assert g.grad.dtype == dtype
    assert correction(g, 2.0, 2.0).dtype == dtype


def test_wires_of_every_array_by_itself() -> None:
    """Leading axes of the segments go with those of the cells."""
    g = uniform(2, 3, 4, 5) * 1e-4
    along, down = uniform(3, 4, 5, seed=1, high=50.0), uniform(2, 1, 1, 1, seed=2, high=50.0)
    found = effective(g, along, down, method="ladder")
    for i in range(2):
        for j in range(3):
            one = effective(g[i, j], along[j], float(down[i]), method="ladder")
            torch.testing.assert_close(found[i, j], one, rtol=1e-12, atol=0)


def test_threads_change_no_bit() -> None:
    g = uniform(16, 96, 96) * 1e-4
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = effective(g, 2.0, 2.0, method="ladder")
        torch.set_num_threads(2)
        assert torch.equal(effective(g, 2.0, 2.0, method="ladder"), one)
    finally:
        torch.set_num_threads(before)


def test_a_constant_correction_lets_only_the_ladders_gradient_through() -> None:
    g = (uniform(3, 4) * 1e-4).requires_grad_()
    kept = correction(g, 9.0, 9.0)
    assert not kept.requires_grad
    plain, corrected = (
        torch.autograd.grad(effective(g, 9.0, 9.0, method="ladder", correction=c).sum(), g)[0]
        for c in (None, kept)
    )
    assert torch.equal(plain, corrected)


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"method": "ladders"}, "ladders"),
        ({"method": "exact", "correction": torch.zeros(3, 4)}, "correction"),
        ({"g": torch.zeros(3)}, "wordline"),
        ({"g": torch.zeros(3, 4, dtype=torch.float16)}, "float16"),
        ({"r_wordline": torch.zeros(3, 3)}, "r_wordline"),
        ({"r_bitline": -1.0}, "r_bitline"),
        ({"r_bitline": torch.zeros(7, 1, 1), "g": torch.zeros(2, 3, 4)}, "broadcast"),
    ],
)
def test_what_does_not_fit_is_named(wrong: dict[str, Any], word: str) -> None:
    given: dict[str, Any] = {
        "g": torch.ones(3, 4),
        "r_wordline": 1.0,
        "r_bitline": 1.0,
        "method": "ladder",
    } | wrong
    with pytest.raises(InputError, match=word):
        effective(**given)


def test_a_layer_looks_again_when_its_weights_have_moved() -> None:
    """Kept while they move by less than a fifth, exact again a few passes after more."""
    technology = replace(sn.Technology.preset("ideal"), r_wordline=20.0, r_bitline=20.0)
    linear = torch.nn.Linear(40, 20)
    with torch.no_grad():
        linear.weight.copy_(uniform(20, 40, low=-1.0))
    design = sn.compile(
        linear, torch.rand(4, 40), technology=technology, tile=sn.Tile(wordlines=24, bitlines=16)
    )
    (physics,) = physics_of(design).values()
    one = torch.ones(())
    bias = linear.bias.detach()

    def error(wiring: Wiring, weight: Tensor) -> float:
        exact = Wiring(physics, "exact", weight)(weight, bias, one, one)
        found = wiring(weight, bias, one, one)
        return max(float((a - b).abs().max()) for a, b in zip(found, exact, strict=True))  # type: ignore[operator]

    weight = linear.weight.detach()
    wiring = Wiring(physics, "ladder", weight)
    assert error(wiring, weight) < 1e-5
    slightly, far = weight * 0.95, weight * 0.5
    errors = [error(wiring, slightly) for _ in range(12)]
    assert min(errors) == max(errors) > 1e-4
    errors = [error(wiring, far) for _ in range(12)]
    assert errors[0] > 1e-3
    assert errors[-1] < 1e-5


def test_the_exact_method_says_where_it_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    from spicenn.kirchhoff import linear

    monkeypatch.setattr(linear, "iteration_limit", lambda *_: 0)
    with pytest.raises(ConvergenceError, match="residual"):
        effective(uniform(30, 30) * 1e-4, 50.0, 50.0)
