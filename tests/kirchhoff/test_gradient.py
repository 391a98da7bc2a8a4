"""Gradients of crossbar currents and voltages: finite differences, LU, reciprocity."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

import spicenn as sn
from spicenn.errors import ConvergenceError, InputError
from spicenn.kirchhoff import autograd, effective_matrix, tensor
from spicenn.kirchhoff.laws import Law, Ohmic, Pcm, Sinh
from spicenn.kirchhoff.linear import Fields
from spicenn.kirchhoff.transistors import Fefet, Rram1T1R

# The path of CUDA tensors, on the CPU's: it is asked for by name.
SOLVERS = [pytest.param(None, id="compiled"), pytest.param(tensor.solve, id="torch")]
LAWS = [pytest.param(None, id="ohmic"), pytest.param(Sinh(), id="sinh")]
M, N = 2, 3


def uniform(shape: tuple[int, ...], seed: int, low: float = 0.2, high: float = 1.0) -> Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform(low, high, shape)).requires_grad_()


def inputs(
    wires: tuple[int, ...] = (1, 1, 1), chips: int = 1, samples: int = 2, chips_v: int | None = None
) -> list[Tensor]:
    """g, v, r_wordline, r_bitline of order one: finite differences see all of them."""
    return [
        uniform((chips, M, N), 1),
        uniform((chips if chips_v is None else chips_v, samples, M), 2, -1.0, 1.0),
        uniform(wires, 3),
        uniform(wires, 4),
    ]


def check(tensors: list[Tensor], law: Law | None, solver: Any) -> None:
    """Current and both voltages, in every input, against central differences."""

    def outputs(*x: Tensor) -> tuple[Any, ...]:
        return autograd.currents(*x, law=law, rtol=1e-13, solver=solver)[:3]

    assert torch.autograd.gradcheck(outputs, tensors, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("wires", "solver"),
    [
        ((1, 1, 1), None),
        ((1, M, N), None),
        ((2, 1, 1), None),
        ((1, M, 1), None),
        ((1, 1, N), None),
        ((2, M, N), None),
        ((2, M, N), tensor.solve),
    ],
)
def test_wires_of_any_shape(wires: tuple[int, int, int], law: Law | None, solver: Any) -> None:
    """One value, one per segment, per line, per chip: summed over what shares it."""
    check(inputs(wires, chips=2), law, solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("law", LAWS)
def test_ideal_wires(law: Law | None, solver: Any) -> None:
    """At r = 0 too: differences are taken on both sides of it."""
    tensors = inputs((1, M, N))
    for r, zeros in ((tensors[2], slice(None)), (tensors[3], slice(0, None, 2))):
        r.data[..., zeros] = 0.0
    check(tensors, law, solver)
    tensors[2].data[0, 1:, 1:] = 0.3
    tensors[3].data[:] = 0.0
    check(tensors, law, solver)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("law", LAWS)
def test_batches_and_dead_cells(law: Law | None, solver: Any) -> None:
    """Inputs shared by chips; a wordline, a bitline and single cells without conductance."""
    tensors = inputs(chips=2, samples=3, chips_v=1)
    tensors[0].data[0, 1] = 0.0
    tensors[0].data[1, :, 2] = 0.0
    check(tensors, law, solver)


def test_an_ohmic_law_is_no_law() -> None:
    """The path of nonlinear cells, with slopes per sample, ends in the same gradients."""
    gradients = []
    for law in (None, Ohmic()):
        tensors = inputs((1, M, N), chips=2, samples=3)
        solution = autograd.currents(*tensors, law=law, rtol=1e-13)
        loss = sum((x * x).sum() for x in solution[:3] if x is not None)
        gradients.append(torch.autograd.grad(torch.as_tensor(loss), tensors))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_broken_wires_have_no_gradient() -> None:
    """An infinite segment stays so; the rest has the gradient of the array without it."""
    tensors = inputs((1, M, N))
    with torch.no_grad():
        tensors[2][0, 1, 2] = tensors[3][0, 1, 1] = torch.inf
    broken = torch.autograd.grad(autograd.currents(*tensors, rtol=1e-13)[0].sum(), tensors)
    assert broken[2][0, 1, 2] == 0.0
    assert broken[3][0, 1, 1] == 0.0
    with torch.no_grad():
        tensors[2][0, 1, 2] = tensors[3][0, 1, 1] = 1e13
    nearly = torch.autograd.grad(autograd.currents(*tensors, rtol=1e-13)[0].sum(), tensors)
    for ours, theirs in zip(broken, nearly, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def by_elimination(g: Any, v: Any, r_wordline: Any, r_bitline: Any) -> Any:
    """Currents of one array by a dense matrix of Kirchhoff's laws; complex arguments too."""
    m, n = g.shape
    node = np.arange(2 * m * n).reshape(2, m, n)
    A = np.zeros((2 * m * n,) * 2, g.dtype)
    b = np.zeros(2 * m * n, g.dtype)

    def connect(p: Any, q: Any, conductance: Any) -> None:
        A[p, p] += conductance
        A[q, q] += conductance
        A[p, q] -= conductance
        A[q, p] -= conductance

    for i in range(m):
        for j in range(n):
            connect(node[0, i, j], node[1, i, j], g[i, j])
            if j > 0:
                connect(node[0, i, j - 1], node[0, i, j], 1 / r_wordline[i, j])
            if i > 0:
                connect(node[1, i - 1, j], node[1, i, j], 1 / r_bitline[i - 1, j])
        A[node[0, i, 0], node[0, i, 0]] += 1 / r_wordline[i, 0]
        b[node[0, i, 0]] += v[i] / r_wordline[i, 0]
    ends = node[1, -1]
    A[ends, ends] += 1 / r_bitline[-1]
    return np.linalg.solve(A, b)[ends] / r_bitline[-1]


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1), st.floats(0.0, 4.0))
def test_real_arrays_against_lu(m: int, n: int, seed: int, decades: float) -> None:
    """In siemens and ohms, conductances over up to 4 decades, each gradient to 1e-7.

    A complex step through LU differentiates without a difference, so that small entries
    are known as well as large ones. Tolerance: of the largest in its tensor.
    """
    rng = np.random.default_rng(seed)
    given = [
        10.0 ** rng.uniform(-4.0 - decades, -4.0, (m, n)),
        rng.uniform(-1.0, 1.0, m),
        10.0 ** rng.uniform(-1.0, 3.0, (m, n)),
        10.0 ** rng.uniform(-1.0, 3.0, (m, n)),
    ]
    weight = rng.uniform(-1.0, 1.0, n)
    tensors = [torch.from_numpy(x)[None].requires_grad_() for x in given]
    tensors[1] = torch.from_numpy(given[1])[None, None].requires_grad_()
    current = autograd.currents(*tensors, rtol=1e-12)[0]
    ours = torch.autograd.grad((current[0, 0] * torch.from_numpy(weight)).sum(), tensors)
    for k, x in enumerate(given):
        expected = np.empty_like(x)
        for index in np.ndindex(x.shape):
            moved = [a.astype(complex) for a in given]
            moved[k][index] += 1e-30j * abs(x[index])
            expected[index] = (weight @ by_elimination(*moved)).imag / (1e-30 * abs(x[index]))
        atol = 1e-7 * np.abs(expected).max()
        np.testing.assert_allclose(ours[k].numpy().reshape(x.shape), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradient_of_the_inputs_is_the_transposed_matrix(solver: Any) -> None:
    """Reciprocity: a volt at a bitline's end gives at the source what that would give there."""
    g, _, *wires = (x.detach() for x in inputs((1, M, N)))
    matrix = autograd.currents(g, torch.eye(M).double()[None], *wires, rtol=1e-13)[0][0]
    v = torch.zeros(1, N, M, dtype=torch.float64, requires_grad=True)
    current = autograd.currents(g, v, *wires, rtol=1e-13, solver=solver)[0]
    (gradient,) = torch.autograd.grad(current, v, torch.eye(N).double()[None])
    torch.testing.assert_close(gradient[0], matrix.T, rtol=1e-12, atol=1e-13)


def counted(calls: list[dict[str, Any]]) -> Callable[..., Fields]:
    """Note the arguments of each solve."""

    def solver(*tensors: Tensor, **options: Any) -> Fields:
        calls.append(options)
        return autograd.compiled(*tensors, **options)

    return solver


@pytest.mark.parametrize("which", range(4))
def test_one_more_solve_and_only_what_is_asked_for(which: int) -> None:
    """Two linear solves in all; the inputs' gradient alone keeps and asks for no voltages."""
    tensors = inputs()
    for k, x in enumerate(tensors):
        x.requires_grad_(k == which)
    calls: list[dict[str, Any]] = []
    solution = autograd.currents(*tensors, voltages=False, solver=counted(calls))
    assert solution[1] is None
    assert solution[2] is None
    solution[0].sum().backward()
    assert [x.grad is not None for x in tensors] == [k == which for k in range(4)]
    assert [options["voltages"] for options in calls] == [which != 1] * 2


def test_nothing_is_kept_where_no_gradient_is_wanted() -> None:
    calls: list[dict[str, Any]] = []
    with torch.no_grad():
        solution = autograd.currents(*inputs(), voltages=False, solver=counted(calls))
    assert not solution[0].requires_grad
    assert [options["voltages"] for options in calls] == [False]


def test_residual_and_iterations_have_no_gradient() -> None:
    current, _, _, residual, iterations = autograd.currents(*inputs())
    assert current.requires_grad
    assert not residual.requires_grad
    assert not iterations.requires_grad


def test_second_derivatives_are_refused() -> None:
    """Never a gradient that silently counts as constant in a penalty on gradients."""
    tensors = inputs()
    current = autograd.currents(*tensors)[0].sum()
    with pytest.raises(InputError, match="create_graph"):
        torch.autograd.grad(current, tensors, create_graph=True)


def test_control_without_the_adjoint_the_check_fails() -> None:
    """The adjoint solved in the dark (the ends grounded): gradcheck sees it."""

    def dark(*tensors: Tensor, **options: Any) -> Fields:
        if options.get("ends") is not None:
            options["ends"] = torch.zeros_like(options["ends"])
        return autograd.compiled(*tensors, **options)

    with pytest.raises(GradcheckError):
        check(inputs(), None, dark)


def test_an_adjoint_that_does_not_converge_is_no_gradient() -> None:
    """The forward answer stands; the backward pass raises rather than guess."""

    def stopped(*tensors: Tensor, **options: Any) -> Fields:
        fields = autograd.compiled(*tensors, **options)
        if options.get("ends") is None:
            return fields
        return replace(fields, residual=torch.full_like(fields.residual, 1e-3))

    current = autograd.currents(*inputs(), solver=stopped)[0]
    with pytest.raises(ConvergenceError, match=r"residual is 1.0e-03"):
        current.sum().backward()


@pytest.mark.parametrize("law", LAWS)
def test_everything_is_made_where_the_arguments_are(law: Law | None) -> None:
    """What is left to torch's default device, here one without numbers, would not compute."""
    tensors = inputs((1, M, N), chips=2)
    with torch.device("meta"):
        solution = autograd.currents(*tensors, law=law, solver=tensor.solve)
        gradients = torch.autograd.grad(solution[0].sum(), tensors)
    assert {x.device.type for x in (*solution, *gradients) if x is not None} == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("law", LAWS)
def test_cuda_gives_the_gradients_of_the_cpu(law: Law | None) -> None:
    """The same call on tensors that live there; gradients live there too."""
    gradients = []
    for device in ("cpu", "cuda"):
        tensors = [x.detach().to(device).requires_grad_() for x in inputs((1, M, N), chips=3)]
        solution = autograd.currents(*tensors, law=law, rtol=1e-13)
        loss = sum((x * x).sum() for x in solution[:3] if x is not None)
        gradients.append(torch.autograd.grad(torch.as_tensor(loss), tensors))
        assert all(x.device.type == device for x in gradients[-1])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-10, atol=1e-11)


@pytest.mark.slow
def test_checking_arguments_that_need_gradients_warns_of_nothing():
    """In a process of its own: torch gives such a warning once."""
    program = (
        "import warnings; warnings.simplefilter('error'); import torch, spicenn as sn;"
        "g = torch.full((3, 2), 1e-5, dtype=torch.float64, requires_grad=True);"
        "sn.crossbar_currents(g, g[:, 0], r_wordline=2.0, r_bitline=g.sum()).sum().backward()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# Shapes of g, v and both wires; with more samples than lines it goes through the matrix.
PUBLIC = [
    ((3, 2), (3,), (), (3, 2)),
    ((3, 2), (7, 3), (), ()),
    ((2, 3, 4), (1, 3), (), (2, 1, 1)),
    ((2, 3, 4), (5, 3), (3, 4), (1, 4)),
]


@pytest.mark.parametrize("law", [None, Sinh(v0=0.1)])
@pytest.mark.parametrize(("g", "v", "r_wordline", "r_bitline"), PUBLIC)
def test_the_public_functions_have_these_gradients(g, v, r_wordline, r_bitline, law):
    """In units of one, where finite differences see all of it."""
    torch.manual_seed(0)
    inputs = tuple(
        (0.5 + torch.rand(shape, dtype=torch.float64)).requires_grad_()
        for shape in (g, v, r_wordline, r_bitline)
    )

    def currents(*x: Tensor) -> Any:
        return sn.crossbar_currents(
            x[0], x[1], r_wordline=x[2], r_bitline=x[3], law=law, rtol=1e-13
        )

    def matrix(*x: Tensor) -> Any:
        return effective_matrix(x[0], r_wordline=x[1], r_bitline=x[2], rtol=1e-13)

    assert torch.autograd.gradcheck(currents, inputs)
    assert torch.autograd.gradcheck(matrix, (inputs[0], *inputs[2:]))


GATED = [
    pytest.param(Rram1T1R(vgate=1.2, vto=0.2, kp=1.0, w=1.0, l=1.0), id="rram_1t1r"),
    pytest.param(Fefet(kp=1.0, w=1.0, l=1.0), id="fefet"),
]


@pytest.mark.slow
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("law", GATED)
def test_gated_cells_and_their_parameters(law: Any, solver: Any) -> None:
    """The matrix is not symmetric: a symmetric adjoint would be off in every digit."""
    tensors = inputs((2, M, N), chips=2)
    own = {"dvt": uniform((2, M, N), 5, -0.1, 0.1), "beta": uniform((2, M, N), 6, 0.5, 1.5)}

    def outputs(*x: Tensor) -> tuple[Any, ...]:
        parameters = dict(zip(own, x[4:], strict=True))
        return autograd.currents(*x[:4], law=law, parameters=parameters, rtol=1e-13, solver=solver)[
            :3
        ]

    assert torch.autograd.gradcheck(outputs, [*tensors, *own.values()], atol=1e-7, rtol=1e-5)


def test_parameters_of_any_law_have_gradients() -> None:
    """Through the public function, one value for all cells, and through a linear law."""
    g, v, *_ = (x.detach() for x in inputs())
    for law, name in ((Sinh(), "v0"), (Pcm(t=1e3), "nu"), (Fefet(kp=1.0, w=1.0, l=1.0), "beta")):
        value = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)

        def current(x: Tensor, law: Any = law, name: str = name) -> Tensor:
            found = sn.crossbar_currents(
                g, v, r_wordline=0.5, r_bitline=0.3, law=law, parameters={name: x}, rtol=1e-13
            )
            return torch.as_tensor(found)

        assert torch.autograd.gradcheck(current, [value], atol=1e-7, rtol=1e-5)
        # One that nobody asks for costs nothing and breaks nothing.
        assert not current(value.detach()).requires_grad
