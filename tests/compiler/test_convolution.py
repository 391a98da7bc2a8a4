"""im2col meets torch's own convolution for every geometry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from spicenn.compiler.convolution import digital_crossbar, fold, unfold
from spicenn.compiler.layer import Convolution, Layer
from spicenn.errors import InputError


def layer_of(weight: torch.Tensor, groups: int, geometry: Convolution | None) -> Layer:
    flat = weight.reshape(groups, weight.shape[0] // groups, -1).numpy()
    return Layer("conv", 0, flat, None, geometry, True, 1.0, 1.0, 1.0)


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int, Convolution]:
    axes = draw(st.integers(1, 2))
    several = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731
    groups, inner, outer = (draw(st.integers(1, 3)) for _ in range(3))
    kernel, stride, dilation = several(1, 3), several(1, 3), several(1, 3)
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(axes))
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    lengths = [e + draw(st.integers(0, 4)) for e in extents]
    rng = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(2, groups * inner, *lengths, generator=rng, dtype=torch.float64)
    weight = torch.randn(groups * outer, inner, *kernel, generator=rng, dtype=torch.float64)
    return x, weight, groups, Convolution(kernel, stride, padding, dilation)


@given(cases())
@settings(max_examples=60)
def test_unfold_multiply_fold_is_a_convolution(
    case: tuple[torch.Tensor, torch.Tensor, int, Convolution],
) -> None:
    x, weight, groups, geometry = case
    layer = layer_of(weight, groups, geometry)
    sides = [side for pair in reversed(geometry.padding) for side in pair]
    torch_conv = functional.conv1d if len(geometry.kernel) == 1 else functional.conv2d
    expected = torch_conv(
        functional.pad(x, sides), weight, None, geometry.stride, 0, geometry.dilation, groups
    )
    rows = unfold(x, layer)
    assert rows.shape == (2, *expected.shape[2:], groups, layer.inputs)
    z = torch.einsum("...gi,goi->...go", rows, torch.as_tensor(layer.weight)).flatten(-2)
    torch.testing.assert_close(fold(z, layer), expected)
    torch.testing.assert_close(digital_crossbar([layer])("conv", x), expected)


def test_unfold_and_fold_have_gradients() -> None:
    weight = torch.randn(4, 1, 3, 3, dtype=torch.float64)
    geometry = Convolution((3, 3), (2, 1), ((1, 0), (0, 2)), (1, 2))
    layer = layer_of(weight, 2, geometry)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: digital_crossbar([layer])("conv", v), (x,))


def test_a_linear_map_has_one_group() -> None:
    layer = layer_of(torch.randn(3, 4), 1, None)
    assert unfold(torch.randn(2, 5, 4), layer).shape == (2, 5, 1, 4)
    assert fold(torch.randn(2, 5, 3), layer).shape == (2, 5, 3)


@pytest.mark.parametrize("shape", [(2, 3, 9, 9), (2, 2, 9), (2, 2, 1, 9)])
def test_inputs_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    geometry = Convolution((3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1))
    layer = layer_of(torch.randn(4, 2, 3, 3), 1, geometry)
    with pytest.raises(InputError, match="layer 'conv'"):
        unfold(torch.zeros(shape), layer)


def test_a_linear_input_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InputError, match="does not end in 4"):
        unfold(torch.zeros(2, 3), layer_of(torch.as_tensor(np.ones((3, 4))), 1, None))
