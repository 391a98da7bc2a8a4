"""Every model of the zoo compiles, and its program computes what the model computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spicenn.compiler.convolution import digital_crossbar
from spicenn.compiler.design import Design
from spicenn.compiler.pipeline import compile
from spicenn.compiler.program import CROSSBAR, execute
from spicenn.technology import Technology
from tests.compiler.zoo import ZOO, build, compiled, inputs_like

IDEAL = Technology.preset("ideal")


def run(design: Design, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    constants = {name: torch.as_tensor(array) for name, array in design.constants.items()}
    with torch.no_grad():
        return execute(design.program, constants, inputs, digital_crossbar(design.layers))


def flat(y: object) -> list[Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(y) if isinstance(t, Tensor)]


@pytest.mark.parametrize("name", ZOO)
def test_program_computes_what_the_model_computes(name: str) -> None:
    model, example = build(name)
    design = compiled(name)
    for samples in (1, 2, 64):
        inputs = inputs_like(example, samples)
        with torch.no_grad():
            expected = flat(model(*inputs))
        outputs = run(design, inputs)
        assert [tuple(y.shape[1:]) for y in outputs] == [p.shape for p in design.program.outputs]
        for y, target in zip(outputs, expected, strict=True):
            assert y.dtype == target.dtype
            torch.testing.assert_close(y, target, rtol=1e-5, atol=1e-5)
    assert Design.from_bytes(design.to_bytes()).hash == design.hash
    assert "digital" in str(design)


@pytest.mark.parametrize(
    "name",
    [
        "grouped-dilated-cnn",
        "resnet-block",
        "conv1d",
        "cross-attention",
        "tied-embedding",
        "transformer-encoder",
        "tied-weights",
        "folded-frames",
    ],
)
def test_an_ideal_chip_computes_what_the_model_computes(name: str) -> None:
    """Over many small tiles, solved by Kirchhoff: layers, positions and samples meet again."""
    model, example = build(name)
    design = compiled(name)
    assert len(design.tiles) > len(design.layers)
    x = tuple(e.numpy() for e in example)
    found = design.sample(chip=0, seed=1).run(x if len(x) > 1 else x[0], engine="nodal")
    outputs = list(found.values()) if isinstance(found, dict) else [found]
    with torch.no_grad():
        expected = flat(model(*example))
    for y, target in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(y, target.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["resnet-block", "grouped-dilated-cnn", "transformer-encoder", "weight-norm"]
)
def test_double_precision_survives(name: str) -> None:
    model, example = build(name, torch.float64)
    design = compile(model, example, technology=IDEAL)
    inputs = inputs_like(example, 3)
    with torch.no_grad():
        expected = model(*inputs)
    (y,) = run(design, inputs)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)


def layers(name: str) -> dict[str, int]:
    """Layers of a model and how often each is used."""
    design = compiled(name)
    return dict(Counter(n.args[0] for n in design.program.nodes if n.op == CROSSBAR))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("reused-module", {"0": 3}),
        ("reused-parametrized", {"0": 2}),
        ("shared-convolution", {"conv": 2}),
        ("tied-weights", {"a": 2}),
        # The output's weight is the embedding's; a transpose is wired differently.
        ("tied-embedding", {"encode": 1, "encode_2": 1, "embedding": 1}),
        ("attention", {"attention.in_proj": 1, "attention.out_proj": 1}),
        ("cross-attention", None),
        ("named-strangely", {"a b\nc": 1, "größe;": 1, '"); raise SystemExit #': 1}),
    ],
)
def test_one_set_of_cells_per_weight(name: str, expected: dict[str, int] | None) -> None:
    if expected is None:
        assert len(layers(name)) == 4
    else:
        assert layers(name) == expected


def test_folding_needs_a_layer_of_its_own() -> None:
    """BatchNorm disappears behind its one producer and stays where something else reads it."""

    def digital(name: str) -> list[str]:
        design = compiled(name)
        return [node.op for node in design.program.nodes if node.op.startswith("aten.")]

    assert digital("mlp-batchnorm") == ["aten.relu.default"]
    assert "aten.mul.Tensor" not in digital("resnet-block")
    assert digital("two-users").count("aten.mul.Tensor") == 1
    assert digital("shared-convolution").count("aten.mul.Tensor") == 2
    assert digital("linear-3d-batchnorm").count("aten.mul.Tensor") == 1


@pytest.mark.parametrize(
    "name", ["attention", "positions-first", "folded-frames", "vision-transformer"]
)
def test_samples_come_first_on_every_crossbar(name: str) -> None:
    """The chip reads (chip, trial, sample) off the first axis: rows must follow the samples."""
    _, example = build(name)
    design = compiled(name)
    constants = {key: torch.as_tensor(array) for key, array in design.constants.items()}
    digital = digital_crossbar(design.layers)
    seen: dict[int, list[Tensor]] = {}
    inputs = inputs_like(example, 3)

    for samples in (1, 3):

        def crossbar(layer: str, x: Tensor, samples: int = samples) -> Tensor:
            seen.setdefault(samples, []).append(x)
            return digital(layer, x)

        execute(design.program, constants, tuple(x[:samples] for x in inputs), crossbar)
    for one, three in zip(seen[1], seen[3], strict=True):
        assert three.shape[0] == 3 * one.shape[0]
        torch.testing.assert_close(three[: one.shape[0]], one, rtol=1e-4, atol=1e-5)


def test_attention_says_what_stays_digital() -> None:
    text = str(compiled("attention"))
    assert "dynamic products" in text
    assert "attention.in_proj" in text


def test_the_users_model_is_untouched() -> None:
    model, example = build("resnet-block")
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    compile(model, example, technology=IDEAL)
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_fused_attention_is_switched_back_on() -> None:
    model, example = build("attention")
    assert torch.backends.mha.get_fastpath_enabled()
    compile(model, example, technology=IDEAL)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_model_of_one_linear_compiles_from_one_sample() -> None:
    design = compile(nn.Linear(3, 2), torch.randn(1, 3), technology=IDEAL)
    assert run(design, (torch.zeros(5, 3),))[0].shape == (5, 2)
