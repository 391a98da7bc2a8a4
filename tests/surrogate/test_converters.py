"""Gains and offsets of converters are a chip's own few parameters beside its many cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.embedded import embed
from spicenn.compiler.structure import (
    ADC_GAIN,
    ADC_OFFSET,
    DAC_GAIN,
    chip_structure,
    key,
    realise,
)
from spicenn.errors import DesignError
from spicenn.surrogate import ChipModel, Surrogate, calibrate, fit
from spicenn.surrogate.gate import HeldOut
from tests.surrogate.conftest import compiled, dataset, inputs, mlp, single_thread

ERRORS = {ADC_GAIN: 0.3, ADC_OFFSET: 0.1, DAC_GAIN: 0.15}


def quiet(design: Design) -> Design:
    return design.with_technology(read_noise=0.0, bandwidth=0.0)


def full(count: int, seed: int) -> Any:
    """Inputs without the correlations of pictures; (count, 12) float32."""
    return np.random.default_rng(seed).random((count, 12)).astype(np.float32)


def rms(error: Any) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def error_of(module: ChipModel, design: Design, chip: int, x: Any) -> float:
    truth = quiet(design).sample(chip, seed=8).run(x, engine="nodal")
    return rms(module(torch.as_tensor(x)).numpy() - truth)


@pytest.fixture(scope="module")
def built() -> tuple[Design, Surrogate, Surrogate]:
    """A design whose converters err, and its population with and without knowing that."""
    with single_thread():
        design = compiled(mlp(), full(64, 0)).with_technology(ERRORS)
        ds = dataset(design, full(24, 1), chips=10)
        plain = design.with_technology(dict.fromkeys(ERRORS, 0.0))
        unaware = ds.drop_vars("design").assign(design=(("byte2",), embed(plain)))
        return design, fit(ds), fit(unaware)


def test_the_study_confirms_the_technology_and_each_spread_is_its_own(
    built: tuple[Design, Surrogate, Surrogate],
) -> None:
    _, surrogate, unaware = built
    assert set(surrogate.structure_scale) == set(ERRORS)
    assert all(0.6 < scale < 1.5 for scale in surrogate.structure_scale.values())
    assert all(0.6 < scale < 1.5 for scale in surrogate.spread_scale.values())
    # Without them cells take the blame, and too much of it.
    assert unaware.structure_scale == {}
    assert max(unaware.spread_scale.values()) > 1.5


@pytest.mark.slow
def test_fewer_probes_do_where_the_structure_is_known(
    built: tuple[Design, Surrogate, Surrogate], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six probes of six chips, on inputs not seen: median error, against cells alone.

    Cells whose spread the study has raised to explain converters: the best that they can do.
    """
    design, surrogate, unaware = built
    # How good the models are, not whether six probes can show it.
    monkeypatch.setattr(HeldOut, "objection", lambda held: None)
    probes, test = full(6, 6), full(100, 7)
    errors = []
    for chip in range(40, 46):
        seen = design.sample(chip, seed=8).run(probes, engine="nodal")
        errors.append(
            [
                error_of(calibrate(known, probes, seen, draws=0).module, design, chip, test)
                for known in (surrogate, unaware)
            ]
        )
    structured, cells = np.median(errors, axis=0)
    assert structured < 0.85 * cells


def test_one_layers_offsets_and_cells_are_bayesian_linear_regression() -> None:
    """An offset is a regressor of ones with a variance of its own."""
    x = inputs(20, 5)
    design = compiled(
        nn.Linear(12, 3), inputs(64, 0), r_wordline=0.0, r_bitline=0.0
    ).with_technology({ADC_OFFSET: 0.2})
    surrogate = fit(dataset(design, inputs(24, 1)))
    seen = design.sample(5, seed=8).run(x, engine="nodal")
    found = calibrate(surrogate, x, seen)
    assert found.success
    assert found.posterior is not None
    (tile,), (layer,) = design.tiles, design.layers
    name = key(ADC_OFFSET, tile)
    scale, count = layer.input_scale * layer.weight_scale, tile.g_target.shape[0] - 12
    rows = np.hstack([np.clip(x / layer.input_scale, 0, 1), np.ones((20, count))]) * scale
    rows = np.hstack([rows, np.full((20, 1), layer.current_scale * scale)])
    prior, noise = surrogate.prior, found.posterior.noise.numpy()
    for output in range(3):
        variance = np.append(prior.variance[tile.name][:, output], prior.variance[name][output])
        mean = np.append(prior.mean[tile.name][:, output], 0.0)
        r = np.diag(1 / noise[:, output, output])
        precision = rows.T @ r @ rows + np.diag(1 / variance)
        expected = np.linalg.solve(precision, rows.T @ r @ (seen[:, output] - rows @ mean))
        weights = found.posterior.weights
        own = np.append(weights[tile.name][:, output], weights[name][output]) - mean
        np.testing.assert_allclose((own - expected) / np.sqrt(variance), 0.0, atol=1e-4)


@pytest.mark.slow
def test_converters_alone_are_reproduced() -> None:
    """Cells as programmed: a chip is its converters, and the module has them.

    To the read noise, of most chips; a network's units that switch can hide the way there.
    """
    design = compiled(mlp(), inputs(64, 0), programming_error=0.0).with_technology(ERRORS)
    surrogate = fit(dataset(design, inputs(24, 1)))
    probes, test = inputs(24, 6), inputs(100, 7)
    gained, alike = [], []
    for chip in range(41, 46):
        seen = design.sample(chip, seed=8).run(probes, engine="nodal")
        found = calibrate(surrogate, probes, seen, draws=0)
        assert found.success
        before = error_of(surrogate.module(draws=0), design, chip, test)
        gained.append(before / error_of(found.module, design, chip, test))
        own, true = found.module.parameters_of(), chip_structure(design, chip, 8)
        last = key(ADC_GAIN, design.tiles[-1])
        alike.append(np.corrcoef(own[last], true[last])[0, 1])
    assert np.median(alike) > 0.95
    assert np.median(gained) > 20
    assert min(gained) > 3


def test_a_module_holds_its_converters_and_keeps_them(
    built: tuple[Design, Surrogate, Surrogate], tmp_path: Path
) -> None:
    design, surrogate, _ = built
    probes, x = full(16, 6), torch.as_tensor(full(6, 2))
    seen = design.sample(60, seed=8).run(probes, engine="nodal")
    found = calibrate(surrogate, probes, seen)
    module = found.module
    own = module.parameters_of()
    assert set(own) == set(surrogate.prior.variance)
    matrices = realise(design.tiles, own)
    for name, weight in module.weights().items():
        assert torch.equal(weight, matrices.weights[name])
    module.save(tmp_path / "chip.pt")
    again = ChipModel.load(tmp_path / "chip.pt")
    assert torch.equal(again(x), module(x))
    assert torch.equal(again.predict(x).std, module.predict(x).std)
    surrogate.save(tmp_path / "population.pt")
    loaded = Surrogate.load(tmp_path / "population.pt")
    assert loaded.structure_scale == surrogate.structure_scale
    assert torch.equal(loaded.module()(x), surrogate.module()(x))
    module.train()
    module.vary_cells = True
    assert not torch.equal(module(x), module(x))


def test_files_from_before_there_were_converters_load_and_bad_ones_do_not(
    surrogate: Surrogate, tmp_path: Path
) -> None:
    path = tmp_path / "population.pt"
    surrogate.save(path)
    content = torch.load(path, weights_only=True)
    meta = content["meta"]
    assert '"structure_scale": {}' in meta
    torch.save({**content, "meta": meta.replace('"structure_scale": {}, ', "")}, path)
    assert Surrogate.load(path).structure_scale == {}
    bad = meta.replace('"structure_scale": {}', '"structure_scale": {"nonsense": 1.0}')
    torch.save({**content, "meta": bad}, path)
    with pytest.raises(DesignError, match="structure_scale"):
        Surrogate.load(path)
