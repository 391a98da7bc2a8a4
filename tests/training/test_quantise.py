"""Steps, limits and partial sums: values, and what their gradients are meant to be."""

from __future__ import annotations

import pytest
import torch

from spicenn.training.partial import partial_sums
from spicenn.training.quantise import converted, quantised


@pytest.mark.parametrize("signed", [False, True])
def test_inputs_are_driven_in_steps_within_their_range(signed: bool) -> None:
    x = torch.tensor([-3.0, -0.26, 0.0, 0.26, 1.0, 2.0, 5.0], dtype=torch.float64)
    found = quantised(x, torch.tensor(2.0), signed, 4)
    low = [-2.0, -0.5] if signed else [0.0, 0.0]
    assert found.tolist() == [*low, 0.0, 0.5, 1.0, 2.0, 2.0]


def test_gradients_of_driven_inputs() -> None:
    """By x: passed within the range, its end included. By the range: what steps leave over
    within it, and the result over the range beyond it (LSQ)."""
    x = torch.tensor([-3.0, 0.3, 0.0, 2.0, 5.0], dtype=torch.float64, requires_grad=True)
    full = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    bar = torch.tensor([1.0, 10.0, 100.0, 1e3, 1e4], dtype=torch.float64)
    quantised(x, full, True, 4).backward(bar)
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 10.0, 100.0, 1e3, 0.0]
    assert full.grad is not None
    assert float(full.grad) == pytest.approx(-1.0 + 10.0 * (0.5 - 0.3) / 2 + 1e4, rel=1e-12)


def test_gradient_by_the_range_without_steps_is_that_of_clipping() -> None:
    x = torch.linspace(-3, 3, 13, dtype=torch.float64)
    full = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f: quantised(x, f, True, None), full)


def test_a_converter_has_one_step_more_below_and_stops_gradients_beyond() -> None:
    z = torch.tensor([-9.0, -1.3, 0.4, 1.0, 1.2], dtype=torch.float64, requires_grad=True)
    found = converted(z, 1.0, 4)
    assert found.tolist() == [-1.25, -1.25, 0.5, 1.0, 1.0]
    found.backward(torch.ones_like(z))
    assert z.grad is not None
    assert z.grad.tolist() == [0.0, 0.0, 1.0, 1.0, 0.0]


def test_a_range_of_nothing_gives_nothing() -> None:
    x = torch.tensor([0.0, 1.0])
    assert quantised(x, torch.tensor(0.0), True, 127).abs().max() < 1e-20
    assert converted(x, 0.0, 127).abs().max() < 1e-20


@pytest.mark.parametrize("lead", [(3,), (2, 2)])
def test_partial_sums_are_products_over_parts_of_the_inputs(lead: tuple[int, ...]) -> None:
    """And so are their gradients."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(*lead, 2, 7, generator=random, dtype=torch.float64)
    weight = torch.randn(2, 3, 7, generator=random, dtype=torch.float64)
    cuts = [slice(0, 4), slice(4, 6), slice(6, 7)]
    found = partial_sums(rows, weight, cuts)
    expected = [torch.einsum("...gi,goi->...go", rows[..., c], weight[..., c]) for c in cuts]
    torch.testing.assert_close(found, torch.stack(expected))
    leaves = (rows.requires_grad_(), weight.requires_grad_())
    assert torch.autograd.gradcheck(lambda r, w: partial_sums(r, w, cuts), leaves)
