"""``crossbar_currents`` solves Kirchhoff's laws, says how well, and refuses what it cannot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import spicenn as sn
from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff import CrossbarSolution, Sinh, effective_matrix, kernel
from spicenn.kirchhoff import linear as linear_module
from spicenn.kirchhoff.threads import share_out, thread_count
from tests.kirchhoff.reference import kirchhoff, sparse_voltages
from tests.kirchhoff.strategies import Case, cases

RTOL = 1e-9


def solved(case: Case, **options: Any) -> CrossbarSolution:
    solution = sn.crossbar_currents(
        case.g, case.v, r_wordline=case.r_wordline, r_bitline=case.r_bitline, details=True,
        **options,
    )  # fmt: skip
    assert isinstance(solution, CrossbarSolution)
    return solution


def flow(case: Case, solution: CrossbarSolution) -> float:
    """What the residual is over, see ``CrossbarSolution``."""
    through, by_one = np.abs(solution.cell_current).sum(), driven(case, solution)
    return float(through if through > 1e-14 * by_one else by_one)


def driven(case: Case, solution: CrossbarSolution) -> float:
    """What the nodes' voltages would drive one by one; rounding is relative to it."""
    word, bit = solution.wordline_voltage, solution.bitline_voltage
    return float((case.g * (abs(word) + abs(bit))).sum())


@settings(max_examples=150, deadline=None)
@given(cases(broken=True))
def test_currents_are_off_by_the_residual_at_most(case):
    solution = solved(case)
    expected = kirchhoff(*case)
    scale = flow(case, solution)
    assert solution.residual <= RTOL
    rounding = 1e-12 * scale + 1e-14 * driven(case, solution)
    bound = float(solution.residual) * scale + rounding
    assert np.abs(solution.current - expected.current).sum() <= bound
    everything = np.abs(solution.cell_current - expected.cell_current).sum()
    assert everything <= 1e3 * RTOL * scale


@settings(max_examples=100, deadline=None)
@given(cases(ideal=False))
def test_kirchhoffs_current_law_holds_at_every_node(case):
    """With the wires' currents taken from the voltages alone, by Ohm's law."""
    solution = solved(case)
    word, bit = solution.wordline_voltage, solution.bitline_voltage
    shape = case.g.shape
    along_word = (np.column_stack([case.v, word[:, :-1]]) - word) / case.r_wordline
    along_bit = (bit - np.vstack([bit[1:], np.zeros((1, shape[1]))])) / case.r_bitline
    cells = case.g * (word - bit)
    at_word = along_word - np.column_stack([along_word[:, 1:], np.zeros(shape[0])]) - cells
    at_bit = along_bit - np.vstack([np.zeros((1, shape[1])), along_bit[:-1]]) - cells
    # A voltage's last bit, through the wires at its node.
    wires = [1 / np.broadcast_to(r, shape) for r in (case.r_wordline, case.r_bitline)]
    bit_word = 1e-14 * (wires[0] + np.column_stack([wires[0][:, 1:], np.zeros(shape[0])]))
    bit_bit = 1e-14 * (wires[1] + np.vstack([np.zeros((1, shape[1])), wires[1][:-1]]))
    top = np.abs(case.v).max()
    left = RTOL * flow(case, solution)
    assert (np.abs(at_word) <= left + bit_word * top).all()
    assert (np.abs(at_bit) <= left + bit_bit * top).all()
    np.testing.assert_allclose(cells, solution.cell_current, rtol=0, atol=0)
    np.testing.assert_allclose(along_bit[-1], solution.current, rtol=1e-12, atol=0)


@settings(max_examples=60, deadline=None)
@given(cases(largest=6, broken=True))
def test_reciprocity(case):
    """What a volt at wordline i gives at bitline j is what one at j's end gives at i."""
    m, n = case.g.shape
    wires: dict[str, Any] = {"r_wordline": case.r_wordline, "r_bitline": case.r_bitline}
    matrix = effective_matrix(case.g, **wires, rtol=1e-12)
    back = linear_module.solve(
        case.g[None], case.r_wordline[None], case.r_bitline[None],
        v=np.zeros((1, n, m)), ends=np.eye(n)[None], rtol=1e-12,
    )  # fmt: skip
    scale = case.g.sum() or 1.0
    np.testing.assert_allclose(-back.source[0].T, matrix, rtol=0, atol=1e-12 * scale)


@settings(max_examples=60, deadline=None)
@given(cases(broken=True), st.floats(-2, 2), st.floats(-2, 2))
def test_superposition(case, a, b):
    rng = np.random.default_rng(0)
    other = rng.uniform(-0.2, 0.2, case.v.shape)
    both = np.stack([case.v, other, a * case.v + b * other])
    one, two, sum_ = sn.crossbar_currents(
        case.g, both, r_wordline=case.r_wordline, r_bitline=case.r_bitline
    )
    scale = np.abs(case.g).sum() * np.abs(both).max()
    np.testing.assert_allclose(a * one + b * two, sum_, rtol=0, atol=10 * RTOL * scale)


@pytest.mark.parametrize("size", [(128, 128), (70, 130), (130, 70)])
def test_against_sparse_lu(size):
    rng = np.random.default_rng(3)
    g = rng.uniform(1e-6, 1e-4, size)
    v = rng.uniform(0, 0.2, (2, size[0]))
    solution = sn.crossbar_currents(g, v, r_wordline=2.0, r_bitline=3.0, details=True)
    for sample in range(2):
        word, bit = sparse_voltages(g, v[sample], 2.0, 3.0)
        np.testing.assert_allclose(solution.wordline_voltage[sample], word, rtol=1e-8)
        np.testing.assert_allclose(solution.bitline_voltage[sample], bit, rtol=1e-8)
        np.testing.assert_allclose(solution.current[sample], bit[-1] / 3.0, rtol=1e-8)
    matrix = effective_matrix(g, r_wordline=2.0, r_bitline=3.0)
    np.testing.assert_allclose(v @ matrix, solution.current, rtol=1e-8)
    # The wires matter: the test is not passed by v @ g.
    assert np.abs(v @ g / solution.current - 1).min() > 0.02


def test_a_large_array_starts_from_a_coarse_one(monkeypatch):
    rng = np.random.default_rng(3)
    size = (301, 260)
    g, v = rng.uniform(1e-6, 1e-4, size), rng.uniform(-0.2, 0.2, size[0])
    solution = sn.crossbar_currents(g, v, r_wordline=2.0, r_bitline=3.0, details=True)
    word, bit = sparse_voltages(g, v, 2.0, 3.0)
    np.testing.assert_allclose(solution.bitline_voltage, bit, rtol=0, atol=1e-9 * bit.max())
    np.testing.assert_allclose(solution.wordline_voltage, word, rtol=0, atol=1e-9 * word.max())
    monkeypatch.setattr("spicenn.kirchhoff.coarse.LEAST", 1000)
    cold = sn.crossbar_currents(g, v, r_wordline=2.0, r_bitline=3.0, details=True)
    assert solution.iterations < cold.iterations
    # A line without any way out is at 0 V, so a guess has no place there.
    broken = np.full(size, 2.0)
    broken[:, 0] = np.inf
    floating = sn.crossbar_currents(g, v, r_wordline=broken, r_bitline=np.inf, details=True)
    assert (floating.bitline_voltage == 0).all()


def test_ideal_wires_are_a_product_to_the_last_digit():
    rng = np.random.default_rng(0)
    g, v = rng.uniform(0, 1e-4, (20, 30)), rng.uniform(-0.2, 0.2, (7, 20))
    current = sn.crossbar_currents(g, v, r_wordline=0.0, r_bitline=0.0)
    assert (np.abs(current - v @ g) <= 1e-15 * np.abs(v) @ g).all()
    one_sided = sn.crossbar_currents(g, v, r_wordline=0.0, r_bitline=5.0)
    expected = sn.crossbar_currents(g, v, r_wordline=1e-12, r_bitline=5.0)
    np.testing.assert_allclose(one_sided, expected, rtol=1e-9)


@pytest.mark.parametrize("r", [1e8, 1e10, 1e12, 1e14, 1e16])
def test_wires_that_outweigh_the_cells_are_right_or_refused(r):
    """Where cells' currents are lost in the rounding of their voltages, that is said."""
    g = 1e-5 * np.random.default_rng(5).uniform(1, 2, (4, 3))
    v = np.array([0.1, 0.2, 0.3, 0.2])
    expected = kirchhoff(g, v, np.full((4, 3), r), np.full((4, 3), r))
    try:
        current = sn.crossbar_currents(g, v, r_wordline=r, r_bitline=r)
    except ConvergenceError:
        assert r >= 1e12
    else:
        assert r <= 1e12
        error = np.abs(current - expected.current).sum()
        assert error <= 1e-9 * np.abs(expected.cell_current).sum()


def test_broken_lines_carry_nothing():
    rng = np.random.default_rng(1)
    g, v = rng.uniform(1e-6, 1e-4, (5, 4)), rng.uniform(0.1, 0.2, 5)
    r_bitline = np.full((5, 4), 2.0)
    r_bitline[4, 1] = np.inf
    solution = sn.crossbar_currents(g, v, r_wordline=2.0, r_bitline=r_bitline, details=True)
    assert solution.current[1] == 0
    assert (solution.current[[0, 2, 3]] > 0).all()
    # The bitline floats at a mean of its wordlines' voltages, and its cells' currents cancel.
    assert 0.1 < solution.bitline_voltage[0, 1] < 0.2
    assert abs(solution.cell_current[:, 1].sum()) < 1e-15
    everything = sn.crossbar_currents(g, v, r_wordline=np.inf, r_bitline=np.inf, details=True)
    for part in everything[:4]:
        assert (part == 0).all()
    no_input = sn.crossbar_currents(g, v, r_wordline=np.inf, r_bitline=2.0)
    assert (no_input == 0).all()


def test_dead_cells():
    g, v = np.full((3, 2), 1e-5), np.ones(3)
    g[:, 0] = 0.0
    current = sn.crossbar_currents(g, v, r_wordline=2.0, r_bitline=2.0)
    assert current[0] == 0
    assert current[1] > 0
    nothing = sn.crossbar_currents(np.zeros((3, 2)), v, r_wordline=2.0, r_bitline=2.0, details=True)
    assert (nothing.current == 0).all()
    np.testing.assert_array_equal(nothing.wordline_voltage, np.ones((3, 2)))
    assert nothing.residual == 0


# Shapes of g, v and a wire, and of the answer.
SHAPES = [
    ((4, 3), (4,), (), (3,)),
    ((4, 3), (2, 4), (), (2, 3)),
    ((4, 3), (9, 4), (4, 3), (9, 3)),  # more samples than lines: through the matrix
    ((5, 4, 3), (2, 4), (), (5, 2, 3)),
    ((5, 4, 3), (4,), (5, 1, 1), (5, 3)),
    ((5, 4, 3), (5, 2, 4), (4, 1), (5, 2, 3)),
    ((4, 3), (6, 2, 4), (1, 3), (6, 2, 3)),
    ((2, 1, 4, 3), (5, 2, 4), (), (2, 5, 2, 3)),
    ((4, 3), (2, 4), (7, 1, 1), (7, 2, 3)),
    ((1, 4, 3), (2, 4), (), (1, 2, 3)),
]


@pytest.mark.parametrize(("g_shape", "v_shape", "r_shape", "expected"), SHAPES)
def test_batches_broadcast(g_shape, v_shape, r_shape, expected):
    rng = np.random.default_rng(2)
    g, v = rng.uniform(1e-6, 1e-4, g_shape), rng.uniform(-0.2, 0.2, v_shape)
    r = rng.uniform(1, 9, r_shape)
    current = sn.crossbar_currents(g, v, r_wordline=r, r_bitline=3.0)
    assert current.shape == expected
    assert current.dtype == np.float64
    vs = v[np.newaxis] if v.ndim == 1 else v
    lead = expected[:-1] if v.ndim == 1 else expected[:-2]
    gs = np.broadcast_to(g, (*lead, 4, 3))
    rs = np.broadcast_to(np.broadcast_to(r, np.broadcast_shapes(r.shape, (1, 1))), (*lead, 4, 3))
    vs = np.broadcast_to(vs, (*lead, *vs.shape[-2:]))
    for at in np.ndindex(lead):
        for s in range(vs.shape[-2]):
            one = kirchhoff(gs[at], vs[at][s], rs[at], np.full((4, 3), 3.0)).current
            got = current[at] if v.ndim == 1 else current[at][s]
            np.testing.assert_allclose(got, one, rtol=1e-8, atol=1e-12)
    full = sn.crossbar_currents(g, v, r_wordline=r, r_bitline=3.0, details=True)
    assert full.cell_current.shape == (*expected[:-1], 4, 3)
    assert full.residual.shape == full.iterations.shape == expected[:-1]
    np.testing.assert_allclose(full.current, current, rtol=1e-8, atol=1e-15)
    tensors = sn.crossbar_currents(torch.as_tensor(g), v, r_wordline=r, r_bitline=3.0)
    assert isinstance(tensors, torch.Tensor)
    np.testing.assert_allclose(tensors.numpy(), current, rtol=0, atol=1e-14 * np.abs(current).max())


def test_a_problem_does_not_depend_on_its_batch():
    """To the last bit, whatever stands beside it and however many threads there are."""
    rng = np.random.default_rng(4)
    g, v = rng.uniform(1e-7, 1e-4, (40, 30, 20)), rng.uniform(-0.2, 0.2, (40, 6, 30))
    wires: dict[str, Any] = {"r_wordline": 50.0, "r_bitline": 20.0}
    together = sn.crossbar_currents(g, v, **wires, threads=3)
    np.testing.assert_array_equal(together, sn.crossbar_currents(g, v, **wires, threads=1))
    for chip in (0, 17, 39):
        alone = sn.crossbar_currents(g[chip], v[chip], **wires)
        np.testing.assert_array_equal(alone, together[chip])
        one = sn.crossbar_currents(g[chip], v[chip, 3], **wires)
        np.testing.assert_array_equal(one, together[chip, 3])


def test_without_a_folder_for_its_cache_the_kernel_still_compiles(monkeypatch):
    tried: list[bool] = []

    def njit(cache: bool = False, **_: Any) -> Any:
        tried.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(kernel, "njit", njit)
    assert kernel._compiled(abs) is abs
    assert tried == [True, False]


def test_many_threads_may_call_at_once():
    """Numba's own thread layer ends the process where they do."""
    rng = np.random.default_rng(4)
    g, v = rng.uniform(1e-7, 1e-4, (30, 64, 64)), rng.uniform(-0.2, 0.2, (3, 64))

    def call(_: int) -> np.ndarray:
        return np.asarray(sn.crossbar_currents(g, v, r_wordline=2.0, r_bitline=2.0, threads=2))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(16)))
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])


def test_threads_are_those_given(monkeypatch):
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6), raising=False)
    assert thread_count() == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert thread_count() == 4
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert thread_count() == 1
    assert thread_count(3) == 3
    monkeypatch.setenv("NUMBA_NUM_THREADS", "nonsense")
    assert thread_count() == 4
    for bad in (0, -1, 1.5, True, "2"):
        with pytest.raises(InputError, match="threads = "):
            thread_count(bad)


@pytest.mark.parametrize("problems", [1, 2, 7, 100])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_problem_is_run_once(problems, threads):
    seen: list[int] = []
    share_out(lambda a, b: seen.extend(range(a, b)), problems, 10**6, threads)
    assert sorted(seen) == list(range(problems))


G, V = np.full((4, 3), 1e-5), np.zeros((2, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"g": np.full(3, 1e-5)}, r"g has shape \(3,\), expected \(…, wordline, bitline\)"),
        ({"g": np.empty((0, 3))}, r"g has shape \(0, 3\)"),
        ({"g": G * [1, 1, np.nan]}, r"g holds nan at \(0, 2\): 4 of 12 values are not finite"),
        ({"g": -G}, r"g holds -1e-05 at \(0, 0\): 12 of 12 .* at least 0"),
        ({"g": G * np.inf}, "g holds inf"),
        ({"g": G * 1j}, "g has dtype complex128, expected real numbers"),
        ({"g": [[1e-5], [1e-5, 1e-5]]}, "g is no array"),
        ({"g": np.array([["a"]])}, "g has dtype <U1"),
        ({"v": np.zeros((2, 3))}, r"v has shape \(2, 3\), .* 4 wordlines as g of shape \(4, 3\)"),
        ({"v": np.zeros((0, 4))}, r"v has shape \(0, 4\)"),
        ({"v": np.full(4, np.inf)}, r"v holds inf at \(0, 0\)"),
        ({"v": 0.2}, r"v has shape \(\)"),
        ({"r_wordline": -1.0}, r"r_wordline holds -1.0 at \(0, 0\): 1 of 1 .* at least 0"),
        ({"r_bitline": np.nan}, "r_bitline holds nan"),
        ({"r_bitline": np.ones((3, 4))}, r"r_bitline has shape \(3, 4\), .* \(…, 4, 3\)"),
        (
            {"g": np.ones((5, 4, 3)), "v": np.ones((6, 2, 4))},
            r"do not broadcast: g \(5,\), v \(6,\)",
        ),
        ({"r_bitline": np.empty((0, 1, 1))}, r"r_bitline has shape \(0, 1, 1\)"),
        ({"v": None}, r"v is None"),
        ({"g": None}, r"g is None"),
        ({"g": [torch.ones(3, requires_grad=True)] * 4}, "g is no array"),
        ({"g": torch.eye(4).to_sparse()}, "g is a sparse tensor"),
        ({"g": torch.ones(4, 3, device="meta")}, "g holds no values"),
        ({"law": "sinh"}, "law = 'sinh' is not a law"),
        ({"law": Sinh}, "law = .*Sinh.* is not a law"),
        ({"rtol": 0.0}, r"rtol = 0.0 is not between 0 and 1"),
        ({"rtol": "x"}, "rtol = 'x'"),
        ({"threads": 0}, "threads = 0 is not a positive integer"),
        ({"g": torch.full((4, 3), 1e-5).to(torch.complex64)}, "g is complex"),
        ({"g": torch.full((4, 3), float("nan"))}, r"g holds nan at \(0, 0\)"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    arguments: dict[str, Any] = {"g": G, "v": V, "r_wordline": 2.0, "r_bitline": 2.0, **changes}
    with pytest.raises(InputError, match=message):
        sn.crossbar_currents(arguments.pop("g"), arguments.pop("v"), **arguments)


def test_integers_and_single_precision_are_taken():
    expected = sn.crossbar_currents(np.eye(2), np.ones(2), r_wordline=2.0, r_bitline=1.0)
    for dtype in (np.int8, np.float32, bool):
        got = sn.crossbar_currents(
            np.eye(2, dtype=dtype), np.ones(2, dtype), r_wordline=2, r_bitline=1
        )
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == np.float64
    backwards = np.array([1.0, 1.0])[::-1]
    tensor = sn.crossbar_currents(torch.eye(2), backwards, r_wordline=2, r_bitline=np.int8(1))
    scalars: dict[str, Any] = {"rtol": np.float32(1e-6), "threads": np.int64(1)}
    sn.crossbar_currents(np.eye(2), [1, 1], r_wordline=2, r_bitline=1, **scalars)
    assert tensor.dtype == torch.float64


def test_arguments_are_left_alone_and_may_be_read_only():
    g, v = np.full((3, 3), 1e-5), np.ones(3)
    for array in (g, v):
        array.flags.writeable = False
    sn.crossbar_currents(g, v, r_wordline=2.0, r_bitline=2.0)
    sn.crossbar_currents(np.asfortranarray(g)[:, ::-1], v[::-1], r_wordline=2.0, r_bitline=2.0)
    np.testing.assert_array_equal(g, np.full((3, 3), 1e-5))


@pytest.mark.parametrize("details", [False, True])
def test_an_unconverged_answer_is_an_error(monkeypatch, details):
    """What double precision cannot hold, and what an iteration limit cuts off."""
    rng = np.random.default_rng(0)
    g = rng.uniform(1e-6, 1e-4, (64, 64))
    arguments: dict[str, Any] = {"r_wordline": 100.0, "r_bitline": 100.0, "details": details}
    with pytest.raises(ConvergenceError, match=r"residual is .*, above rtol = 1e-17"):
        sn.crossbar_currents(g, np.ones(64), rtol=1e-17, **arguments)
    monkeypatch.setattr(linear_module, "iteration_limit", lambda m, n: 2)
    with pytest.raises(ConvergenceError, match="larger rtol"):
        sn.crossbar_currents(g, np.ones(64), **arguments)
    with pytest.raises(ConvergenceError):
        effective_matrix(g, r_wordline=100.0, r_bitline=100.0)


def test_a_loose_tolerance_is_kept_and_is_cheaper():
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (100, 100)), rng.uniform(0, 0.2, 100)
    fine = sn.crossbar_currents(g, v, r_wordline=20.0, r_bitline=20.0, details=True)
    loose = sn.crossbar_currents(g, v, r_wordline=20.0, r_bitline=20.0, details=True, rtol=1e-3)
    assert 1e-9 < loose.residual <= 1e-3
    assert loose.iterations < fine.iterations
    error = np.abs(loose.current - fine.current).sum() / np.abs(fine.cell_current).sum()
    assert 1e-9 < error <= loose.residual


def test_guesses_and_tolerances_are_per_problem():
    rng = np.random.default_rng(0)
    g, v = rng.uniform(1e-6, 1e-4, (2, 30, 30)), rng.uniform(0, 0.2, (2, 1, 30))
    wire = np.full((1, 1, 1), 20.0)
    full = linear_module.solve(g, wire, wire, v=v)
    warm = linear_module.solve(g, wire, wire, v=v, guess=full.on_bitline)
    assert (warm.iterations == 0).all()
    assert (full.iterations > 1).all()
    mixed = linear_module.solve(g, wire, wire, v=v, rtol=np.array([[1e-2], [1e-9]]))
    np.testing.assert_array_equal(mixed.current[1], full.current[1])
    assert mixed.iterations[0] < full.iterations[0]
    assert replace(mixed).residual[0] > 1e-9


def test_a_guess_where_no_current_can_flow_is_forgotten():
    wire = np.full((1, 1, 1), 2.0)
    fields = linear_module.solve(
        np.full((1, 2, 2), 1e-5), np.full((1, 1, 1), np.inf), wire, v=np.ones((1, 1, 2)),
        guess=np.full((1, 1, 2, 2), 0.3),
    )  # fmt: skip
    assert fields.residual <= RTOL
    assert (np.abs(fields.current) < 1e-20).all()


def test_power_in_is_power_out():
    rng = np.random.default_rng(5)
    g, v = rng.uniform(1e-6, 1e-4, (12, 9)), rng.uniform(-0.2, 0.2, 12)
    wire = np.full((1, 1, 1), 30.0)
    fields = linear_module.solve(g[None], wire, wire, v=v[None, None])
    drop = fields.on_wordline - fields.on_bitline
    cells = g * drop
    wires = 30.0 * (
        np.square(np.cumsum(cells[..., ::-1], axis=-1)).sum()
        + np.square(np.cumsum(cells, axis=-2)).sum()
    )
    assert float((fields.source[0, 0] * v).sum()) == pytest.approx(
        float((cells * drop).sum() + wires), rel=1e-9, abs=0
    )
    assert fields.source.sum() == pytest.approx(fields.current.sum(), rel=1e-8, abs=0)
