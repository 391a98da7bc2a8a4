"""Analog layers are what the exact engine computes, train as torch's own, and have the noise
that chips have."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.compiler.execute import run_chips
from spicenn.engines import open_engine
from spicenn.errors import InputError, TrainingError
from spicenn.training import Awareness, analog, analog_layers, draws_of, refresh
from spicenn.training.awareness import Wires
from spicenn.training.layers import AnalogConv2d, AnalogLinear

TECH = sn.Technology.preset("rram-1r")
QUIET = TECH.replace(programming_error=0.0, read_noise=0.0, bandwidth=0.0)
RNG = torch.Generator().manual_seed(0)
X = torch.rand(40, 16, generator=RNG)


def _perceptron(seed: int = 0, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(16, 7, bias), nn.ReLU(), nn.Linear(7, 3, bias))


def _convolutional() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(),
        nn.Conv2d(4, 4, 2, groups=2), nn.Flatten(), nn.Linear(36, 3),
    )  # fmt: skip


def _design(model: nn.Module, technology: sn.Technology = QUIET, **mapping: Any) -> sn.Design:
    return sn.compile(
        model, X[:8], technology=technology, tile=sn.Tile(12, 10), calibration=X,
        mapping=sn.Mapping(**mapping),
    )  # fmt: skip


def _chip(design: sn.Design, chip: int = 0, seed: int = 0) -> torch.Tensor:
    return torch.as_tensor(design.sample(chip, seed).run(X, engine="nodal"))


MAPPINGS: list[dict[str, Any]] = [
    {}, {"bias": "digital"}, {"input_bits": 5}, {"adc_bits": 6, "input_bits": 6},
]  # fmt: skip


@pytest.mark.parametrize("wires", ["frozen", "ladder", "exact"])
@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
@pytest.mark.parametrize("model", [_perceptron(), _convolutional()], ids=["mlp", "conv"])
def test_without_noise_it_is_the_chip(
    model: nn.Module, mapping: dict[str, Any], wires: Wires
) -> None:
    """Wires, steps and several tiles: as the exact engine runs a chip without errors.

    Where tiles are converted one by one, biases are converted with the last of them.
    """
    design = _design(model, **{**mapping, **({"bias": "digital"} if "adc_bits" in mapping else {})})
    net = analog(model, design, awareness=Awareness(wires=wires, ranges="fixed"))
    truth, ideal = _chip(design), model(X)
    assert (truth - ideal).abs().max() > 1e-3
    for mode in (True, False):  # no noise is drawn where there is none
        off = (net.train(mode)(X) - truth).abs()
        # A code next to a step may fall to its other side.
        assert off.median() < 1e-5
        assert (off < 1e-5).float().mean() > (0.98 if mapping.get("adc_bits") else 0.999)


def test_trains_as_ever() -> None:
    """Parameters under the model's names, shared with no one; a loop fits a task, and the
    design of the trained weights is what the network gives in eval()."""
    model = _perceptron()
    design = _design(model, TECH)
    net = analog(model, design, awareness=Awareness(clip=2.5), seed=3)
    assert isinstance(net[0], AnalogLinear)  # type: ignore[index]
    assert {k: v.shape for k, v in net.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }
    before = copy.deepcopy(model.state_dict())
    target = X @ torch.randn(16, 3, generator=torch.Generator().manual_seed(1)) * 0.3
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = (net(X) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-10:]) < 0.3 * losses[0]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    trained = design.with_weights(net, calibration=X)
    plain = _perceptron()
    plain.load_state_dict(net.state_dict())
    assert trained.hash == design.with_weights(plain, calibration=X).hash


def test_refresh_looks_at_the_weights_as_they_are() -> None:
    """What cells near the least conductance and wires do on the average depends on the weights:
    after they have moved, eval() is the mean chip again."""
    model, other = _perceptron(), _perceptron(seed=4)
    net = analog(model, _design(model, TECH), awareness=Awareness(ranges="fixed")).eval()
    net.load_state_dict(other.state_dict())
    moved = _design(model, TECH).with_weights(other)
    study = run_chips(moved, range(200), 0, (X.numpy(),), open_engine("nodal"))
    mean = torch.as_tensor(next(iter(study.output.values()))[:, 0].mean(0))
    with torch.no_grad():
        before = (net(X) - mean).square().mean().sqrt()
        refresh(net)
        after = (net(X) - mean).square().mean().sqrt()
    assert after < 0.5 * before
    spread = analog_layers(net)["0"].get_buffer("spread_weight")
    fresh = analog(other, moved).get_submodule("0").get_buffer("spread_weight")
    torch.testing.assert_close(spread, fresh)


@pytest.mark.slow
@pytest.mark.parametrize("mapping", [{}, {"bias": "digital"}], ids=str)
@pytest.mark.parametrize("model", [_perceptron(), _convolutional()], ids=["mlp", "conv"])
def test_noise_is_that_of_chips(model: nn.Module, mapping: dict[str, Any]) -> None:
    """Mean and spread of the outputs over passes are those over chips, each read once: cells,
    reads, gains and offsets of converters."""
    periphery = {
        "periphery.adc.gain": 0.05, "periphery.adc.offset": 0.02, "periphery.dac.gain": 0.04,
        "periphery.dac.offset": 0.01, "read_noise": 0.05,
    }  # fmt: skip
    design = _design(model, TECH.replace(periphery), **mapping)
    net = analog(model, design, awareness=Awareness(ranges="fixed"), seed=1)
    passes = 300
    with torch.no_grad():
        ours = torch.stack([net(X) for _ in range(passes)])
    study = run_chips(design, range(passes), 0, (X.numpy(),), open_engine("nodal"))
    chips = torch.as_tensor(next(iter(study.output.values()))[:, 0])
    # Standard errors: 1/√(2·300) of a deviation, 1/√300 of a mean, over 120 outputs.
    ratio = ours.std(0) / chips.std(0)
    assert abs(float(ratio.mean()) - 1) < 0.08
    assert float((ratio - 1).abs().max()) < 0.4
    distance = (ours.mean(0) - chips.mean(0)).abs() / chips.std(0)
    assert float(distance.max()) < 6 / passes**0.5 + 0.05


@pytest.mark.parametrize("model", [_perceptron(), _convolutional()], ids=["mlp", "conv"])
def test_population_is_of_manufactured_chips(model: nn.Module) -> None:
    """Every pass is one of the chips that the design makes of the seed, all of them in turn;
    with ideal wires to rounding."""
    ideal = TECH.replace(
        {"r_wordline": 0.0, "r_bitline": 0.0, "read_noise": 0.0, "bandwidth": 0.0,
         "periphery.adc.gain": 0.2, "periphery.adc.offset": 0.1, "periphery.dac.gain": 0.1}
    )  # fmt: skip
    design = _design(model, ideal)
    net = analog(model, design, awareness=Awareness(chips=3, ranges="fixed"), seed=11)
    truth = [_chip(design, chip, 11) for chip in range(3)]
    assert (truth[0] - truth[1]).abs().max() > 0.05
    seen = set()
    with torch.no_grad():
        for _ in range(20):
            y = net(X)
            seen.add(draws_of(net).chip)
            assert (y - truth[draws_of(net).chip]).abs().max() < 1e-5
    assert seen == {0, 1, 2}


@pytest.mark.slow
def test_knows_the_chip_it_was_calibrated_to() -> None:
    """From a calibrated model eval() is that chip, converters' gains and offsets with it."""
    model = _perceptron()
    tech = TECH.replace({"periphery.adc.gain": 0.1, "periphery.adc.offset": 0.05})
    design = _design(model, tech)
    study = sn.monte_carlo(design, X, chips=8, seed=1, engine="nodal", workers=1)
    surrogate = sn.fit(study)
    probes = design.probe_vectors(X, count=40, seed=1, steps=0)
    chip = design.sample(70, 2)
    found = sn.calibrate(surrogate, probes, chip.run(probes, engine="nodal"), draws=6)
    assert found.success
    truth = torch.as_tensor(chip.run(X, engine="nodal"))
    with torch.no_grad():
        for hardware in (found, found.module):
            net = analog(model, hardware, awareness=Awareness(ranges="fixed")).eval()
            known = (net(X) - truth).square().mean().sqrt()
            general = analog(model, surrogate, awareness=Awareness(ranges="fixed")).eval()
            unknown = (general(X) - truth).square().mean().sqrt()
            assert known < 0.4 * unknown
            assert (net(X) - found.module(X)).abs().max() < 1e-4
    with pytest.raises(TrainingError, match="holds 6 draws"):
        analog(model, found, awareness=Awareness(chips=7))
    analog(model, found, awareness=Awareness(chips=6)).train()(X)


def test_seeds_and_copies() -> None:
    """The same seed gives the same noise, another other noise; a copy goes on by itself, and a
    stream goes on where another was."""
    model = _perceptron()
    design = _design(model, TECH)
    first, second, other = (analog(model, design, seed=seed) for seed in (1, 1, 2))
    a = first(X)
    assert torch.equal(a, second(X))
    assert not torch.equal(a, other(X))
    clone = copy.deepcopy(first)
    state = draws_of(first).state()
    b = first(X)
    assert torch.equal(b, clone(X))
    draws_of(second).restore(state)
    assert torch.equal(b, second(X))
    assert not torch.equal(a, b)


def test_each_part_of_the_awareness_counts() -> None:
    """Switched alone, every key changes a pass in train(), and none of them one that was there."""
    model = _perceptron()
    nothing = Awareness(
        weight_noise=None, read_noise=None, weight_bits=None, input_bits=None, output_bits=None,
        wires="none", ranges="fixed",
    )  # fmt: skip
    design = _design(model, TECH)
    quiet = analog(model, design, awareness=nothing)
    # What chips of few conductances near the least have in common is left.
    assert (quiet(X) - model(X)).abs().max() < 0.1
    keys: list[dict[str, Any]] = [
        {"weight_noise": 0.1}, {"read_noise": 0.1}, {"weight_bits": 3}, {"input_bits": 3},
        {"output_bits": 3}, {"wires": "frozen"}, {"clip": 0.5}, {"chips": 2},
    ]  # fmt: skip
    for key in keys:
        known = (
            Awareness(**{**{f: getattr(nothing, f) for f in nothing.__slots__}, **key})
            if hasattr(nothing, "__slots__")
            else Awareness(**{**vars(nothing), **key})
        )
        changed = analog(model, design, awareness=known)
        assert (changed(X) - quiet(X)).abs().max() > 1e-3, key


def test_gradients_are_those_of_the_chip() -> None:
    """With exact wires, by finite differences through the exact engine, weights and biases."""
    model, x = _perceptron().double(), X.double()
    tech = QUIET.replace(r_wordline=40.0, r_bitline=40.0)
    design = sn.compile(model, x[:8], technology=tech, tile=sn.Tile(12, 10), calibration=x)
    net = analog(model, design, awareness=Awareness(wires="exact", ranges="fixed"))
    loss = net(x).square().sum()
    loss.backward()
    scales = {layer.name: layer.weight_scale for layer in design.layers}
    for name, index in (
        ("0.weight", (2, 3)),
        ("2.weight", (1, 4)),
        ("0.bias", (1,)),
        ("2.bias", (0,)),
    ):
        weight = dict(net.named_parameters())[name]
        step, values = 1e-3, []
        for sign in (1, -1):
            plain = copy.deepcopy(model)
            with torch.no_grad():
                dict(plain.named_parameters())[name][index] += sign * step
            moved = design.with_weights(plain)
            assert {la.name: la.weight_scale for la in moved.layers} == scales
            run = moved.sample(0, 0).run(x, engine="nodal")
            values.append(float(np.square(run).sum()))
        expected = (values[0] - values[1]) / (2 * step)
        assert weight.grad is not None
        assert float(weight.grad[index]) == pytest.approx(expected, rel=2e-3)


def test_ranges() -> None:
    """Tracked ranges follow the data and forget slowly; learnt ones have a gradient of
    their own."""
    model = _perceptron()
    design = _design(model)
    net = analog(model, design)
    layer = analog_layers(net)["0"]
    net(5 * X)
    assert float(layer.input_range) == pytest.approx(float(5 * X.max()))
    net(X)
    assert 0.98 * float(5 * X.max()) < float(layer.input_range) < float(5 * X.max())
    learnt = analog(model, design, awareness=Awareness(ranges="learn", input_bits=4))
    assert "0.input_range" in dict(learnt.named_parameters())
    learnt(3 * X).square().sum().backward()
    grad = dict(learnt.named_parameters())["0.input_range"].grad
    assert grad is not None
    assert float(grad) != 0.0


def test_bad_input() -> None:
    """What does not fit is named, with what to do."""
    model = _perceptron()
    design = _design(model)
    with pytest.raises(TrainingError, match="hardware is a list"):
        analog(model, [])  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"not those that were compiled.*compile this model"):
        analog(_perceptron(seed=5), design)
    with pytest.raises(TrainingError, match="no module of this name"):
        analog(nn.Tanh(), design)
    with pytest.raises(TrainingError, match="without analog layers"):
        analog_layers(model)
    with pytest.raises(InputError, match="does not end in 16"):
        analog(model, design)(torch.rand(3, 5))
    for wrong in (
        {"weight_noise": -1.0}, {"clip": 0.0}, {"input_bits": 1}, {"wires": "no"}, {"chips": -1},
        {"ranges": "x"}, {"read_noise": float("nan")}, {"clip": "hardware"},
    ):  # fmt: skip
        with pytest.raises(InputError, match=next(iter(wrong))):
            Awareness(**wrong)

    class Own(nn.Linear):
        """A subclass may compute anything."""

    own = nn.Sequential(Own(16, 7))
    with pytest.raises(TrainingError, match="is a Own"):
        analog(own, _design(own))


def test_plain_layers_come_back() -> None:
    """with_weights takes a network's convolutions and linear maps as plain ones."""
    model = _convolutional()
    net = analog(model, _design(model))
    layer = analog_layers(net)["1"]
    assert isinstance(layer, AnalogConv2d)
    plain = layer.digital()
    assert type(plain) is nn.Conv2d
    y = X.reshape(-1, 1, 4, 4)
    assert torch.equal(plain(y), model[1](y))
