"""Ladders of single lines: exact where one kind of wire is ideal, a lower bound elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from spicenn.kirchhoff import effective_matrix
from spicenn.kirchhoff.ladder import (
    gradient_range,
    matrix_range,
    weights_gradient_range,
    weights_range,
)
from tests.kirchhoff.strategies import Case, cases

Array = NDArray[Any]


def ladders(g: Array, rw: Array, rb: Array, dtype: Any = np.float64) -> Array:
    """Ladder matrices (…, m, n) of arrays with the same wires (m or 1, n or 1)."""
    arrays = np.ascontiguousarray(g.reshape(-1, *g.shape[-2:]), dtype)
    out = np.empty_like(arrays)
    matrix_range(0, len(arrays), arrays, *segments(arrays, rw, rb), out)
    result: Array = out.reshape(g.shape)
    return result


def segments(g: Array, rw: Array, rb: Array) -> tuple[Array, Array]:
    along, down = (np.broadcast_to(r, g.shape[-2:]).astype(g.dtype) for r in (rw, rb))
    return np.ascontiguousarray(along.T)[None], np.ascontiguousarray(down)[None]


def gradient(g: Array, rw: Array, rb: Array, bar: Array) -> Array:
    out = np.empty_like(g)
    gradient_range(0, 1, g[None], *segments(g, rw, rb), bar[None], out[None])
    return out


@given(case=cases(broken=True), along=st.booleans())
def test_is_exact_where_one_kind_of_wire_is_ideal(case: Case, along: bool) -> None:
    """Grounded bitlines leave every wordline by itself, and the other way round."""
    ideal = np.zeros((1, 1))
    rw, rb = (case.r_wordline, ideal) if along else (ideal, case.r_bitline)
    exact = effective_matrix(case.g, r_wordline=rw, r_bitline=rb, rtol=1e-12)
    np.testing.assert_allclose(
        ladders(case.g, rw, rb), exact, rtol=1e-9, atol=1e-11 * exact.max() + 1e-300
    )


@given(case=cases(broken=True))
def test_never_has_more_than_the_exact_solution(case: Case) -> None:
    """What is missing are further terms of a series, all of them positive."""
    exact = effective_matrix(case.g, r_wordline=case.r_wordline, r_bitline=case.r_bitline)
    ladder = ladders(case.g, case.r_wordline, case.r_bitline)
    assert (ladder >= 0).all()
    assert (ladder <= case.g * (1 + 1e-12)).all()
    assert (ladder <= exact + 1e-8 * exact.sum(-2).max()).all()


def test_misses_little_of_a_usual_tile() -> None:
    """128 × 128 cells up to 100 µS, 2 Ω: half the current is lost, ladders miss a tenth more."""
    g = np.random.default_rng(0).uniform(1e-6, 1e-4, (128, 128))
    r = np.full((1, 1), 2.0)
    exact = effective_matrix(g, r_wordline=2.0, r_bitline=2.0).sum()
    assert exact < 0.5 * g.sum()
    assert 0.9 * exact < ladders(g, r, r).sum() < exact


@given(case=cases(broken=True), seed=st.integers(0, 100))
def test_gradient_is_that_of_finite_differences(case: Case, seed: int) -> None:
    """In a random direction, relative to the cells so that every decade of them counts."""
    rng = np.random.default_rng(seed)
    g, wires = case.g, (case.r_wordline, case.r_bitline)
    bar, direction = rng.standard_normal((2, *g.shape))
    step = 1e-6
    ends = [ladders(g * (1 + sign * step * direction), *wires) for sign in (1, -1)]
    difference = ((ends[0] - ends[1]) * bar).sum() / (2 * step)
    parts = gradient(g, *wires, bar) * g * direction
    assert abs(parts.sum() - difference) <= 1e-7 * (abs(parts).sum() + abs(bar * g).sum())


def test_gradient_of_a_dead_cell_and_of_a_broken_wire() -> None:
    """A cell of 0 S gains with its own attenuations; behind a broken wire nothing counts."""
    g = np.array([[0.0, 1e-4], [1e-4, 1e-4]])
    rw, rb = np.array([[100.0, np.inf], [100.0, 100.0]]), np.full((1, 1), 50.0)
    bar = np.array([[1.0, 1.0], [0.0, 0.0]])
    found = gradient(g, rw, rb, bar)
    # Cell (0, 0) alone on what is left of its wordline; below it 100 µS on the bitline.
    y = 1e-4
    below = 1 / (1 + 50.0 * y)
    assert found[0, 0] == pytest.approx(below, rel=1e-12)
    assert found[0, 1] == 0.0


def test_an_array_is_the_same_in_any_batch_and_near_in_single_precision() -> None:
    rng = np.random.default_rng(1)
    g = rng.uniform(1e-6, 1e-4, (5, 17, 23))
    rw, rb = rng.uniform(0, 10, (1, 23)), rng.uniform(0, 10, (17, 1))
    whole = ladders(g, rw, rb)
    np.testing.assert_array_equal(ladders(g[3], rw, rb), whole[3])
    np.testing.assert_allclose(ladders(g, rw, rb, np.float32), whole, rtol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_signed_weights_are_pairs_of_cells(seed: int) -> None:
    """The kernel for a layer's tiles against the one for arrays, tile by tile."""
    rng = np.random.default_rng(seed)
    groups, outputs, rows = rng.integers(1, 3), rng.integers(1, 7), rng.integers(1, 9)
    weight, bar = rng.uniform(-1.2, 1.2, (2, groups, outputs, rows))
    weight[rng.random(weight.shape) < 0.2] = 0.0
    cut_o, cut_i = rng.integers(0, outputs), rng.integers(0, rows)
    places = np.array(
        [
            (group, o0, o1, i0, i1)
            for group in range(groups)
            for o0, o1 in ((0, cut_o), (cut_o, outputs))
            for i0, i1 in ((0, cut_i), (cut_i, rows))
            if o0 < o1 and i0 < i1
        ]
    )
    low, span, inverse = 1e-6, 99e-6, 1 / 1.1
    wires = rng.uniform(0, 100, 4)
    given_ = (places, weight, inverse, low, span, wires)
    out, slope = np.full_like(weight, np.nan), np.full_like(weight, np.nan)
    weights_range(0, len(places), *given_, out)
    weights_gradient_range(0, len(places), *given_, bar, slope)
    for group, o0, o1, i0, i1 in places:
        at = (group, slice(o0, o1), slice(i0, i1))
        x = weight[at].T * inverse
        g = np.stack([x, -x], axis=-1).clip(0, 1).reshape(len(x), -1) * span + low
        rw, rb = np.full((1, g.shape[1]), wires[0]), np.full((len(g), 1), wires[2])
        rw[0, 0] += wires[1]
        rb[-1, 0] += wires[3]
        matrix = ladders(g, rw, rb)
        signed = (matrix[:, 0::2] - matrix[:, 1::2]).T / (span * inverse)
        np.testing.assert_allclose(out[at], signed, rtol=1e-11, atol=1e-14)
        both = np.stack([bar[at].T, -bar[at].T], axis=-1).reshape(g.shape)
        by_cell = gradient(g, rw, rb, both)
        up = by_cell[:, 0::2] * ((x >= 0) & (x <= 1))
        down = by_cell[:, 1::2] * ((x <= 0) & (x >= -1))
        np.testing.assert_allclose(slope[at], (up - down).T, rtol=1e-9, atol=1e-12)
