"""Each pass does its one thing: seen on small graphs, before and after."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import Tensor, nn

from spicenn.compiler.passes import eval_copy, export, run_passes
from spicenn.compiler.passes.batchnorm import fold_batchnorm
from spicenn.compiler.passes.canonical import CONV, LINEAR, canonicalize
from spicenn.compiler.passes.clean import clean
from spicenn.compiler.passes.constants import fold_constants
from spicenn.compiler.passes.einsum import as_linear
from spicenn.compiler.passes.graph import Graph, Samples
from spicenn.compiler.passes.prune import prune
from spicenn.compiler.passes.reference import close
from spicenn.compiler.passes.rename import make_safe, original
from spicenn.errors import CompileError
from tests.compiler.zoo import build


@cache
def traced(name: str) -> Graph:
    model, example = build(name)
    return export(eval_copy(model), example)


def ops(graph: Graph) -> list[str]:
    return [call.op for call in graph.calls]


def test_export_keeps_the_number_of_samples_open() -> None:
    graph = traced("positions-first")
    transposed = graph.calls[0]
    assert transposed.shape == (5, Samples(1), 4)
    assert [port.shape for port in graph.inputs] == [(5, 4)]


def test_export_notes_module_and_line() -> None:
    graph = traced("resnet-block")
    conv = next(call for call in graph.calls if call.op.startswith("aten.conv2d"))
    assert conv.module == "conv1"
    assert "zoo.py:" in conv.source


def test_clean_leaves_no_identities_views_or_checks() -> None:
    before, after = traced("transformer-encoder"), clean(traced("transformer-encoder"))
    assert "aten.clone.default" in ops(before)
    assert not {"aten.clone.default", "aten.view.default"} & set(ops(after))
    assert not any("assert" in op for op in ops(after))


def test_constants_are_folded_and_made_once() -> None:
    graph = fold_constants(clean(traced("reused-parametrized")))
    assert ops(graph) == [LINEAR, "aten.relu.default", LINEAR]
    first, second = (call for call in graph.calls if call.op == LINEAR)
    assert first.args[1] == second.args[1]


def test_prune_drops_what_no_output_needs() -> None:
    class Waste(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.unused(x)
            y: Tensor = self.used(x)
            return y

    graph = prune(clean(export(eval_copy(Waste()), (torch.randn(2, 3),))))
    assert ops(graph) == [LINEAR]
    assert set(graph.constants) == {"used.weight", "used.bias"}


@pytest.mark.parametrize(
    ("name", "form"),
    [("einsum", LINEAR), ("matmul", LINEAR), ("addmm", LINEAR), ("same-even-kernel", CONV)],
)
def test_every_linear_map_gets_one_form(name: str, form: str) -> None:
    graph = canonicalize(fold_constants(clean(traced(name))))
    assert ops(graph).count(form) == 1


def test_same_padding_puts_the_odd_one_last() -> None:
    graph = canonicalize(fold_constants(clean(traced("same-even-kernel"))))
    assert graph.calls[-1].args[4] == ((0, 1), (1, 2))


def test_batchnorm_folds_into_its_only_producer() -> None:
    def normalised(name: str) -> Graph:
        graph = canonicalize(prune(fold_constants(clean(traced(name)))))
        assert "batch_norm" in ops(graph)
        return fold_batchnorm(graph)

    assert ops(normalised("mlp-batchnorm")) == [LINEAR, "aten.relu.default", LINEAR]
    assert ops(normalised("two-users")).count("aten.mul.Tensor") == 1
    assert ops(normalised("shared-convolution")).count("aten.mul.Tensor") == 2


def test_passes_do_not_change_the_copy_that_they_read() -> None:
    model, example = build("resnet-block")
    copy = eval_copy(model)
    before = {key: value.clone() for key, value in copy.state_dict().items()}
    run_passes(export(copy, example))
    assert all(torch.equal(value, before[key]) for key, value in copy.state_dict().items())


@pytest.mark.parametrize(
    ("equation", "weight_first", "mapped"),
    [
        ("bi,oi->bo", False, True),
        ("bi,io->bo", False, True),
        ("oi,bti->bto", True, True),
        ("bit,oi->bot", False, True),
        ("bi,oi->b", False, False),  # the output is summed away
        ("bi,bi->b", False, False),
        ("bi,ii->bi", False, False),
        ("bi,oij->bo", False, False),
        ("...i,oi->...o", False, False),
    ],
)
def test_einsums_that_are_linear_maps(equation: str, weight_first: bool, mapped: bool) -> None:
    plan = as_linear(equation, weight_first)
    assert (plan is not None) == mapped
    if plan is None:
        return
    left, result = equation.split("->")
    sizes = {"b": 2, "t": 3, "i": 4, "o": 5}
    a, b = (torch.randn([sizes[letter] for letter in term]) for term in left.split(","))
    x, w = (b, a) if weight_first else (a, b)
    y = x.permute(plan.before) if plan.before else x
    y = y @ (w if plan.turn_weight else w.T)
    y = y.permute(plan.after) if plan.after else y
    torch.testing.assert_close(y, torch.einsum(equation, a, b))
    assert len(result) == y.ndim


def test_names_that_torch_would_read_as_code_are_put_aside() -> None:
    inner = nn.Linear(2, 2)
    model = nn.Sequential()
    model._modules['x"); import os #'] = nn.Sequential(inner)
    model._modules[".control"] = nn.ReLU()
    model._modules["plain name"] = nn.ReLU()
    renamed = make_safe(model)
    names = [name for name, _ in model.named_children()]
    assert names == ["renamed_0", "renamed_1", "plain name"]
    assert original("renamed_0.0.weight", renamed) == 'x"); import os #.0.weight'
    assert original("renamed_1", renamed) == ".control"
    assert original("plain name.weight", renamed) == "plain name.weight"
    inner._parameters['w"'] = nn.Parameter(torch.zeros(2))
    with pytest.raises(CompileError, match="cannot trace"):
        make_safe(model)


def test_rounding_is_not_a_difference() -> None:
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    assert close(x, x * (1 + 1e-6))
    assert not close(x, x * (1 + 1e-2))
    assert not close(x, x.double())
    assert not close(x, x[:4])
    assert close(torch.tensor([float("-inf"), 1.0]), torch.tensor([float("-inf"), 1.0]))
    assert not close(torch.tensor([1]), torch.tensor([2]))
