"""Programs run allow-listed operators only, and say what is wrong with their inputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from spicenn.compiler.operators import ALLOWED
from spicenn.compiler.program import CROSSBAR, Constant, Node, Port, Program, Ref, execute
from spicenn.errors import DesignError, InputError

X = Port("x", (3,), "float32")


def program(*nodes: Node) -> Program:
    return Program((X,), nodes, (Port("output", (3,), "float32"),), (nodes[-1].name,))


def no_crossbar(layer: str, x: Tensor) -> Tensor:
    raise AssertionError(layer)


def test_values_flow_by_name() -> None:
    graph = program(
        Node("n", "sym.size", (Ref("x"), 0)),
        Node("layer", CROSSBAR, ("fc", Ref("x"))),
        Node("cat", "aten.cat.default", ((Ref("layer"), Constant("c")), 0)),
        Node("cut", "aten.slice.Tensor", (Ref("cat"), 0, 0, Ref("n"))),
        Node("out", "aten._to_copy.default", (Ref("cut"),), (("dtype", "dtype:float64"),)),
    )
    constants = {"c": torch.ones(2, 3)}
    (y,) = execute(graph, constants, (torch.ones(4, 3),), lambda layer, x: 2 * x)
    assert y.dtype == torch.float64
    assert torch.equal(y, torch.full((4, 3), 2.0, dtype=torch.float64))


def test_gradients_flow_through() -> None:
    graph = program(
        Node("layer", CROSSBAR, ("fc", Ref("x"))), Node("r", "aten.relu.default", (Ref("layer"),))
    )
    x = torch.ones(2, 3, requires_grad=True)
    execute(graph, {}, (x,), lambda layer, v: 3 * v)[0].sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, torch.full((2, 3), 3.0))


@pytest.mark.parametrize(
    "op", ["aten.load.default", "os.system", "prim.device", "aten.rand.default"]
)
def test_other_operators_are_refused(op: str) -> None:
    with pytest.raises(DesignError, match="not allowed"):
        execute(program(Node("n", op, (Ref("x"),))), {}, (torch.ones(2, 3),), no_crossbar)


def test_an_operator_that_fails_names_its_node() -> None:
    bad = program(Node("n7", "aten.reshape.default", (Ref("x"), (7,))))
    with pytest.raises(InputError, match="n7"):
        execute(bad, {}, (torch.ones(2, 3),), no_crossbar)


@pytest.mark.parametrize(
    ("inputs", "fact"),
    [
        ((), "0 inputs"),
        ((torch.ones(2, 4),), "shape"),
        ((torch.ones(3),), "shape"),
        ((torch.ones(2, 3).double(),), "float64"),
    ],
)
def test_inputs_that_do_not_fit(inputs: tuple[Tensor, ...], fact: str) -> None:
    graph = program(Node("r", "aten.relu.default", (Ref("x"),)))
    with pytest.raises(InputError, match=fact):
        execute(graph, {}, inputs, no_crossbar)


def test_the_list_holds_nothing_random_and_nothing_in_place() -> None:
    for name, function in ALLOWED.items():
        if not isinstance(function, torch._ops.OpOverload):
            continue
        assert not function._schema.is_mutable, name
        # Attention is random only where it is told to drop out, which the compiler refuses.
        if name != "aten.scaled_dot_product_attention.default":
            assert torch.Tag.nondeterministic_seeded not in function.tags, name
