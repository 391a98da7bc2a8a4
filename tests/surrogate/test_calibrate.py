"""A chip's own part comes out of a few probes, or the calibration refuses itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spicenn.compiler import Design
from spicenn.errors import CalibrationError
from spicenn.surrogate import Surrogate, calibrate, fit
from tests.surrogate.conftest import compiled, dataset, inputs


def quiet(design: Design) -> Design:
    return design.with_technology(read_noise=0.0, bandwidth=0.0)


def rms(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def test_one_linear_layer_is_bayesian_linear_regression() -> None:
    x = inputs(20, 5)
    model = nn.Linear(12, 3)
    # Ideal wires, digital-like: the whole chip is one matrix with independent entries.
    design = compiled(model, inputs(64, 0), r_wordline=0.0, r_bitline=0.0)
    surrogate = fit(dataset(design, inputs(24, 1)))
    seen = design.sample(5, seed=8).run(x, engine="nodal")
    found = calibrate(surrogate, x, seen)
    assert found.success

    (tile,), (layer,) = design.tiles, design.layers
    prior = surrogate.prior
    scale = layer.input_scale * layer.weight_scale
    rows = (
        np.hstack(
            [np.clip(x / layer.input_scale, 0, 1), np.ones((20, tile.g_target.shape[0] - 12))]
        )
        * scale
    )
    mean, variance = prior.mean[tile.name].numpy(), prior.variance[tile.name].numpy()
    assert found.posterior is not None
    noise = found.posterior.noise.numpy()
    for output in range(3):
        r = np.diag(1 / noise[:, output, output])
        precision = rows.T @ r @ rows + np.diag(1 / variance[:, output])
        expected = (
            np.linalg.solve(precision, rows.T @ r @ (seen[:, output] - rows @ mean[:, output]))
            + mean[:, output]
        )
        weights = found.module.weights()[tile.name].numpy()[:, output]
        spread = np.sqrt(variance[:, output])
        np.testing.assert_allclose((weights - expected) / spread, 0.0, atol=1e-4)
        # The stated uncertainty of the probes' outputs is the closed form's, too.
        covariance = found.posterior.covariance(found.posterior.linear)[:, output, output]
        np.testing.assert_allclose(
            covariance, np.diag(rows @ np.linalg.inv(precision) @ rows.T), rtol=1e-4
        )


@pytest.mark.parametrize("index", [40, 41, 42])
def test_error_on_new_inputs_falls_below_a_fifth(
    design: Design, surrogate: Surrogate, index: int
) -> None:
    probes, test = inputs(32, 6), inputs(200, 7)
    truth = quiet(design).sample(index, seed=8).run(test, engine="nodal")
    before = rms(surrogate.module()(torch.as_tensor(test)).numpy() - truth)
    seen = design.sample(index, seed=8).run(probes, engine="nodal")
    found = calibrate(surrogate, probes, seen)
    assert found.success
    assert found.heldout < found.population
    assert rms(found.module(torch.as_tensor(test)).numpy() - truth) < before / 5
    # Cells, read noise and floor together state the error of one read.
    read = design.sample(index, seed=8).run(test, engine="nodal")
    mean, std, _ = (value.numpy() for value in found.module.predict(torch.as_tensor(test)))
    assert 0.8 < np.mean(np.abs(read - mean) < 1.645 * std) < 0.98


def test_more_trials_serve(design: Design, surrogate: Surrogate) -> None:
    probes, test = inputs(12, 6), inputs(100, 7)
    truth = quiet(design).sample(43, seed=8).run(test, engine="nodal")
    chip = design.sample(43, seed=8)
    one = calibrate(surrogate, probes, chip.run(probes, engine="nodal"))
    many = calibrate(surrogate, probes, chip.run(probes, engine="nodal", trials=20))
    x = torch.as_tensor(test)
    assert rms(many.module(x).numpy() - truth) < rms(one.module(x).numpy() - truth)


def test_what_does_not_belong_together_is_refused(design: Design, surrogate: Surrogate) -> None:
    probes = inputs(24, 6)
    seen = design.sample(50, seed=8).run(probes, engine="nodal")
    order = np.random.default_rng(0).permutation(24)
    swapped = seen.copy()
    swapped[[3, 9]] = seen[[9, 3]]
    population = surrogate.module()(torch.as_tensor(probes))
    for wrong in (seen[order], swapped, seen[::-1].copy()):
        found = calibrate(surrogate, probes, wrong)
        assert not found.success
        assert found.reason
        assert found.posterior is None
        assert torch.equal(found.module(torch.as_tensor(probes)), population)


def test_nothing_to_calibrate_is_refused() -> None:
    design = compiled(nn.Linear(12, 3), inputs(64, 0), programming_error=0.0)
    surrogate = fit(dataset(design, inputs(24, 1)))
    probes = inputs(12, 6)
    found = calibrate(surrogate, probes, design.sample(5, seed=8).run(probes, engine="nodal"))
    assert not found.success
    assert "programming error" in found.reason


def test_noise_alone_is_refused(design: Design, surrogate: Surrogate) -> None:
    # A chip that is exactly the population's: all that differs is read noise.
    loud = Surrogate(
        surrogate.design,
        surrogate.shift,
        dict.fromkeys(surrogate.spread_scale, 1e-3),
        surrogate.floor,
        surrogate.chips,
        surrogate.failed,
        surrogate.provenance,
    )
    module = loud.module(draws=0)
    probes = inputs(16, 6)
    module.train()
    seen = module(torch.as_tensor(probes)).numpy()
    assert not calibrate(loud, probes, seen).success


def test_arguments_are_not_changed(design: Design, surrogate: Surrogate) -> None:
    probes = inputs(12, 6)
    seen = design.sample(44, seed=8).run(probes, engine="nodal")
    copies = probes.copy(), seen.copy()
    before = {name: value.clone() for name, value in surrogate.prior.mean.items()}
    first = calibrate(surrogate, probes, seen)
    again = calibrate(surrogate, probes, seen)
    np.testing.assert_array_equal(probes, copies[0])
    np.testing.assert_array_equal(seen, copies[1])
    assert all(torch.equal(surrogate.prior.mean[name], value) for name, value in before.items())
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name])


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda y: y[:-1], "outputs of 11 probes"),
        (lambda y: y[:, :2], "does not end in"),
        (lambda y: np.where(np.arange(len(y))[:, None] == 2, np.nan, y), "NaN"),
        (lambda y: {"nonsense": y}, "missing"),
        (lambda y: y.astype(str), "does not end in"),
    ],
)
def test_bad_outputs_are_named(design: Design, surrogate: Surrogate, change, what) -> None:
    probes = inputs(12, 6)
    seen = design.sample(44, seed=8).run(probes, engine="nodal")
    with pytest.raises(CalibrationError, match=what):
        calibrate(surrogate, probes, change(seen))


def test_too_few_probes(surrogate: Surrogate) -> None:
    with pytest.raises(CalibrationError, match="3 probes are too few"):
        calibrate(surrogate, inputs(3, 0), np.zeros((3, 4)))


def test_a_convolution_is_calibrated() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)
    )
    pictures = [
        np.random.default_rng(seed).random((count, 1, 4, 4)).astype(np.float32)
        for seed, count in ((0, 48), (1, 24), (2, 40), (3, 100))
    ]
    design = compiled(model, pictures[0])
    surrogate = fit(dataset(design, pictures[1]))
    seen = design.sample(9, seed=8).run(pictures[2], engine="nodal")
    found = calibrate(surrogate, pictures[2], seen)
    truth = quiet(design).sample(9, seed=8).run(pictures[3], engine="nodal")
    x = torch.as_tensor(pictures[3])
    before = rms(surrogate.module()(x).numpy() - truth)
    assert found.success
    assert rms(found.module(x).numpy() - truth) < before / 5
