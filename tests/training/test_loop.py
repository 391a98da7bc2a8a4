"""In the loop the chip's values are those of the engine, and the derivatives the surrogate's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.compiler.adapter import Adapter
from spicenn.engines import open_engine
from spicenn.engines.superposition import superposed
from spicenn.errors import EngineError, TrainingError
from spicenn.training import Awareness, analog, in_loop

TECH = sn.Technology.preset("rram-1r").replace(programming_error=0.25)
FIXED = Awareness(ranges="fixed", weight_noise=None, read_noise=None)


def _task() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A trained two-layer network on a task of three classes."""
    torch.manual_seed(0)
    x = torch.rand(90, 8)
    labels = (x @ torch.randn(8, 3)).argmax(1)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimiser.step()
    return model, x, labels


def _steps(net: nn.Module, x: torch.Tensor, labels: torch.Tensor, count: int) -> list[float]:
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(count):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.ngspice
def test_values_are_ngspices_and_derivatives_the_surrogates() -> None:
    """Of a network whose weights have moved since it was compiled; every pass is another read."""
    model, x, _ = _task()
    design = sn.compile(model, x[:8], technology=TECH, calibration=x)
    net = analog(model, design, awareness=FIXED)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.9)
    with open_engine("ngspice") as engine:
        loop = in_loop(net, design.sample(4, 1), engine)
        y, again = loop(x), loop(x)
        truth = loop.programmed().run(x, engine)
    np.testing.assert_allclose(y.detach(), truth, rtol=1e-6, atol=1e-6)
    assert 1e-6 < float((again - y).detach().abs().max()) < 0.2
    y.sum().backward()
    looped = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    net(x).sum().backward()
    plain = [p.grad for p in net.parameters() if p.grad is not None]
    # The last layer's bias is not met by a chip's values; other gradients are taken at them.
    torch.testing.assert_close(looped[-1], plain[-1])
    assert all(
        float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0)) > 0.9
        for a, b in zip(looped, plain, strict=True)
    )
    assert not torch.equal(looped[0], plain[0])


@pytest.mark.slow
@pytest.mark.ngspice
def test_training_in_ngspice_is_for_that_chip() -> None:
    """A few steps with ngspice in the loop repair a bad chip; another chip's in the loop do not,
    and a Jacobian that is 30 % off still does."""
    model, x, labels = _task()
    design = sn.compile(model, x[:8], technology=TECH, calibration=x)

    def error(chip: sn.Chip) -> float:
        quiet = chip.design.with_technology(read_noise=0.0, bandwidth=0.0)
        y = torch.as_tensor(quiet.sample(chip.index, chip.seed).run(x, engine="nodal"))
        return float(nn.functional.cross_entropy(y, labels))

    raw = {index: error(design.sample(index, 1)) for index in range(6)}
    bad = max(raw, key=lambda index: raw[index])
    with open_engine("ngspice") as engine:
        ends = {}
        for name, index, off in (("own", bad, 0.0), ("off", bad, 0.3), ("other", bad + 6, 0.0)):
            net = analog(model, design, awareness=FIXED)
            loop = in_loop(net, design.sample(index, 1), superposed(engine), corruption=off)
            losses = _steps(loop, x, labels, 40)
            assert losses[-1] < losses[0]
            ends[name] = error(loop.programmed().design.sample(bad, 1))
    assert ends["own"] < 0.5 * raw[bad]
    assert ends["off"] < 0.6 * raw[bad]
    assert ends["other"] > 1.3 * ends["own"]


def test_a_corrected_chip_is_corrected_in_the_loop() -> None:
    """With its adapter, as when it runs."""
    model, x, _ = _task()
    design = sn.compile(model, x[:8], technology=TECH, calibration=x)
    net = analog(model, design, awareness=FIXED)
    adapter = Adapter(gain={"0": np.full(6, 1.3)}, offset={"0": np.full(6, 0.2)})
    chip = design.sample(0, 1)
    with open_engine("nodal") as engine:
        plain = in_loop(net, chip, engine)(x).detach()
        corrected = in_loop(net, chip.corrected(adapter), engine)(x).detach()
        truth = chip.corrected(adapter).run(x, engine)
    np.testing.assert_allclose(corrected, truth, rtol=1e-5, atol=1e-6)
    assert (corrected - plain).abs().max() > 0.1


def test_what_does_not_fit_is_refused() -> None:
    """A network without analog layers, a chip of another design, a measured chip; a failure of
    the engine is the tile's, and leaves the network as it was."""
    model, x, _ = _task()
    design = sn.compile(model, x[:8], technology=TECH, calibration=x)
    other = sn.compile(nn.Linear(8, 3), x[:8], technology=TECH)
    net = analog(model, design, awareness=FIXED)
    with open_engine("nodal") as engine:
        with pytest.raises(TrainingError, match="without analog layers"):
            in_loop(model, design.sample(0, 1), engine)
        with pytest.raises(TrainingError, match="no layer '0'"):
            in_loop(net, other.sample(0, 1), engine)
        measured = design.measured(design.sample(0, 1).conductances(), seed=1)
        with pytest.raises(TrainingError, match="measured"):
            in_loop(net, measured, engine)
        loop = in_loop(net, design.sample(0, 1), engine)
        before = net(x)

        def fails(*_: Any, **__: Any) -> Any:
            raise EngineError("no", where="tile")

        engine.solve = fails  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="tile: no"):
            loop(x)
    assert torch.equal(net(x), before)
