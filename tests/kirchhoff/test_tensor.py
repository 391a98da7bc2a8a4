"""The solver in torch against the compiled one, the truth, on CPU tensors and on CUDA's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.kirchhoff import linear, tensor
from spicenn.kirchhoff.kernel import NEGLIGIBLE
from spicenn.kirchhoff.linear import Fields

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    ),
]
EVERYTHING = ("current", "source", "on_wordline", "on_bitline")


def in_torch(problem: dict[str, Any], device: str = "cpu") -> Fields:
    """Solve by torch; NumPy arrays in and out."""

    def moved(x: Any) -> Any:
        return torch.from_numpy(x).to(device) if isinstance(x, np.ndarray) else x

    arguments = {name: moved(x) for name, x in problem.items()}
    fields = tensor.solve(**arguments)
    assert all(x.device.type == device for x in vars(fields).values() if x is not None)
    return Fields(*(None if x is None else x.cpu().numpy() for x in vars(fields).values()))


def compiled(problem: dict[str, Any]) -> Fields:
    return linear.solve(**problem, threads=1)


def ordinary(shape: tuple[int, int, int, int], seed: int = 0) -> dict[str, Any]:
    """Cells of 1 to 100 µS, segments of 1 to 3 Ω, inputs within a volt."""
    chips, samples, m, n = shape
    rng = np.random.default_rng(seed)
    return {
        "g": rng.uniform(1e-6, 1e-4, (chips, m, n)),
        "r_wordline": rng.uniform(1.0, 3.0, (chips, m, n)),
        "r_bitline": rng.uniform(1.0, 3.0, (1, 1, n)),
        "v": rng.uniform(-1.0, 1.0, (chips, samples, m)),
    }


@st.composite
def extreme(draw: st.DrawFn) -> dict[str, Any]:
    """Any conductances, wires, injections, ends and guesses that the solvers take.

    Cells up to 100 µS, ratios up to 1e8, wires of 0, 1e-3 … 1e5 Ω and infinity. Where all
    ways out are broken, injected current has no solution, and a guess far from zero no
    current that its residual could be compared with: wires break where there are neither.
    """
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, n = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    chips, samples = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    cells = (chips, samples, m, n)
    g = 10.0 ** rng.uniform(-4.0 - draw(st.floats(0.0, 8.0)), -4.0, (chips, m, n))
    g[rng.random(g.shape) < draw(st.sampled_from((0.0, 0.2, 1.0)))] = 0.0
    injections = [name for name in ("into_wordline", "into_bitline") if draw(st.booleans())]
    guessed = draw(st.booleans())
    whole = bool(injections) or guessed
    broken = st.just(0.0) if whole else st.sampled_from((0.0, 0.1, 0.5))

    def wires() -> Any:
        shape = (draw(st.sampled_from((1, chips))), *draw(st.sampled_from(((1, 1), (m, n)))))
        decades = (draw(st.floats(-3.0, 5.0)), draw(st.floats(-3.0, 5.0)))
        r = 10.0 ** (min(decades) + np.ptp(decades) * rng.random(shape))
        r[rng.random(shape) < draw(st.sampled_from((0.0, 0.3)))] = 0.0
        r[rng.random(shape) < draw(broken)] = np.inf
        return r

    problem = {
        "g": g,
        "r_wordline": wires(),
        "r_bitline": wires(),
        "v": rng.uniform(-1.0, 1.0, (draw(st.sampled_from((1, chips))), samples, m)),
    }
    for name in injections:
        problem[name] = g.mean() * rng.standard_normal(cells)
    if draw(st.booleans()):
        problem["ends"] = rng.uniform(-1.0, 1.0, (draw(st.sampled_from((1, chips))), samples, n))
    if guessed:
        problem["guess"] = rng.uniform(-1.0, 1.0, cells)
    return problem


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (2, 3, 1, 9), (2, 3, 9, 1), (3, 2, 5, 8), (2, 2, 33, 64), (1, 1, 64, 17)],
)
def test_ordinary_arrays_agree_to_rounding(shape: tuple[int, int, int, int], device: str) -> None:
    """Every node and current within 1e-12 of the largest, in as many iterations."""
    problem = ordinary(shape)
    ours, theirs = in_torch(problem, device), compiled(problem)
    for name in EVERYTHING:
        ours_x, theirs_x = getattr(ours, name), getattr(theirs, name)
        assert ours_x.shape == theirs_x.shape
        np.testing.assert_allclose(ours_x, theirs_x, rtol=0, atol=1e-12 * np.abs(theirs_x).max())
    np.testing.assert_array_equal(ours.iterations, theirs.iterations)
    assert ours.iterations.dtype == np.int64
    assert ours.residual.max() <= 1e-9


@settings(max_examples=200)
@given(extreme())
def test_extreme_arrays_agree_within_their_residuals(problem: dict[str, Any]) -> None:
    """Both residuals bound the error of the currents, so they bound the difference.

    Rounding adds to it: 1e-14 of what the nodes' voltages would drive through the cells.
    """
    ours, theirs = in_torch(problem), compiled(problem)
    cells = problem["g"][:, None]
    W, B = theirs.on_wordline, theirs.on_bitline
    driven = (cells * (np.abs(W) + np.abs(B))).sum((-2, -1))
    flow = (cells * np.abs(W - B)).sum((-2, -1))
    scale = np.where(flow > NEGLIGIBLE * driven, flow, driven)
    for name in ("into_wordline", "into_bitline"):
        scale += np.abs(problem.get(name, np.zeros_like(cells))).sum((-2, -1))
    assert ours.residual.max() <= 1e-9
    bound = (ours.residual + theirs.residual) * scale + 1e-14 * (driven + scale)
    for name in ("current", "source"):
        difference = np.abs(getattr(ours, name) - getattr(theirs, name)).sum(-1)
        assert (difference <= bound).all(), name


@pytest.mark.parametrize("device", DEVICES)
def test_residual_is_of_the_voltages_returned(device: str) -> None:
    """Recomputed from the voltages: what Kirchhoff's law leaves over at the wordlines."""
    into = np.full((2, 3, 12, 10), 1e-5)
    problem = ordinary((2, 3, 12, 10)) | {"rtol": np.full((2, 3), 1e-6), "into_wordline": into}
    problem["r_wordline"] = problem["r_wordline"] * 1e3
    fields = in_torch(problem, device)
    g, r = problem["g"][:, None], problem["r_wordline"][:, None]
    W, B = fields.on_wordline, fields.on_bitline
    before = np.concatenate([problem["v"][..., None], W[..., :-1]], -1)
    segment = (before - W) / r
    onward = np.concatenate([segment[..., 1:], np.zeros_like(segment[..., :1])], -1)
    left = np.abs(segment - onward + into - g * (W - B)).sum((-2, -1))
    flow = (np.abs(g * (W - B)) + into).sum((-2, -1))
    np.testing.assert_allclose(fields.residual, left / flow, rtol=1e-4)
    assert fields.residual.max() > 1e-12


def test_ideal_wires_and_broken_ones_are_exact() -> None:
    """r = 0 is the matrix product in no iterations; behind a break nothing flows."""
    problem = ordinary((2, 3, 6, 5))
    zero = np.zeros((1, 1, 1))
    ideal = in_torch(problem | {"r_wordline": zero, "r_bitline": zero})
    np.testing.assert_allclose(ideal.current, problem["v"] @ problem["g"], rtol=1e-14)
    assert not ideal.iterations.any()
    r = np.full((1, 6, 5), 2.0)
    r[0, :, 2] = np.inf
    broken = in_torch(problem | {"r_bitline": r})
    assert (broken.current[..., 2] == 0.0).all()
    assert (broken.current[..., 1] != 0.0).all()


@pytest.mark.parametrize("rtol", [(1e-9, 1e-9), (1e-3, 1e-12), (1e-20, 1e-9)])
def test_a_problem_that_is_done_stays_so(rtol: tuple[float, float]) -> None:
    """Easy, hopeless and hard problems share a batch: each has its own count and answer."""
    easy, hard = ordinary((1, 2, 16, 16)), ordinary((1, 2, 16, 16), seed=1)
    hard |= {name: hard[name] * 1e4 for name in ("r_wordline", "r_bitline")}
    both = {
        name: np.concatenate(
            [np.broadcast_to(p[name], (1, *p[name].shape[1:])) for p in (easy, hard)]
        )
        for name in easy
    }
    together = in_torch(both | {"rtol": np.array(rtol)[:, None] * np.ones((2, 2))})
    for chip, problem in enumerate((easy, hard)):
        alone = in_torch(problem | {"rtol": rtol[chip]})
        np.testing.assert_array_equal(together.iterations[chip], alone.iterations[0])
        np.testing.assert_allclose(together.current[chip], alone.current[0], rtol=1e-14, atol=1e-20)
    assert together.iterations[1].min() > together.iterations[0].max()


def test_a_guess_that_solves_it_is_kept() -> None:
    """No iteration from the solution itself; fewer from near it than from nothing."""
    problem = ordinary((2, 2, 16, 16))
    exact = in_torch(problem | {"rtol": 1e-14})
    again = in_torch(problem | {"guess": exact.on_bitline})
    assert not again.iterations.any()
    guess = exact.on_bitline.copy()
    near = in_torch(problem | {"guess": guess + 1e-6})
    assert (near.iterations < exact.iterations).all()
    np.testing.assert_array_equal(guess, exact.on_bitline)


def test_what_cannot_converge_is_returned_with_its_residual() -> None:
    """No tolerance is met at 0 or with numbers that overflow: given up, not raised."""
    problem = ordinary((2, 1, 8, 8))
    floor = in_torch(problem | {"rtol": 0.0})
    assert (floor.residual < 1e-13).all()
    assert (floor.iterations <= linear.iteration_limit(8, 8)).all()
    problem["g"][1] = 1e200
    problem["v"][1] = 1e200
    overflown = in_torch(problem)
    assert overflown.residual[0, 0] <= 1e-9
    assert not overflown.residual[1, 0] <= 1e-9


def test_voltages_only_where_asked_for() -> None:
    problem = ordinary((1, 2, 4, 3))
    lean, full = in_torch(problem | {"voltages": False}), in_torch(problem)
    assert lean.on_wordline is None
    assert lean.on_bitline is None
    np.testing.assert_array_equal(lean.current, full.current)


@pytest.mark.parametrize("device", DEVICES)
def test_arguments_stay_as_they_are(device: str) -> None:
    """Everything is broadcast and worked on in place inside: never on the caller's tensors."""
    problem = ordinary((2, 2, 5, 4)) | {
        "ends": np.full((1, 2, 4), 0.1),
        "into_wordline": np.full((2, 2, 5, 4), 1e-6),
        "into_bitline": np.full((2, 2, 5, 4), 1e-6),
        "guess": np.full((2, 2, 5, 4), 0.1),
    }
    tensors: dict[str, Any] = {
        name: torch.from_numpy(x).to(device, copy=True) for name, x in problem.items()
    }
    tensor.solve(**tensors)
    for name, x in tensors.items():
        np.testing.assert_array_equal(x.cpu().numpy(), problem[name], err_msg=name)
