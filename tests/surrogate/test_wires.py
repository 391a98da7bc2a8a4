"""The resistance of a chip's wires is one number of its own, where a fit is told so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.embedded import embed
from spicenn.compiler.jacobian import flatten_outputs, linearise
from spicenn.compiler.structural import forward, tile_moments, with_wires
from spicenn.compiler.structure import ADC_GAIN, DAC_GAIN, WIRES, chip_structure
from spicenn.errors import DesignError, InputError, SpicennWarning
from spicenn.surrogate import ChipModel, Surrogate, calibrate, fit
from spicenn.surrogate.active import next_probes
from spicenn.technology import Technology
from spicenn.training.physics import physics_of
from tests.surrogate.conftest import compiled, dataset, inputs, mlp, single_thread

STRONG = {"r_wordline": 10.0, "r_bitline": 10.0}
# What wires of the calibrated chips have over the technology's.
FACTOR = 1.5


def scaled(design: Design, factor: float) -> Design:
    """The design with wires so many times as resistive."""
    technology = design.technology
    return design.with_technology(
        r_wordline=factor * technology.r_wordline, r_bitline=factor * technology.r_bitline
    )


def full(count: int, seed: int) -> Any:
    """Inputs without the correlations of pictures; (count, 64) float32."""
    return np.random.default_rng(seed).random((count, 64)).astype(np.float32)


def error_of(module: ChipModel, design: Design, chip: int, x: Any) -> float:
    quiet = design.with_technology(read_noise=0.0, bandwidth=0.0)
    truth = quiet.sample(chip, seed=8).run(x, engine="nodal")
    return float(np.sqrt(np.mean(np.square(module(torch.as_tensor(x)).numpy() - truth))))


def wide() -> Design:
    """A design of lines so long that their drop is a good part of every output."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    return compiled(net, full(64, 0), **STRONG)


@pytest.fixture(scope="module")
def strong() -> Design:
    with single_thread():
        return compiled(mlp(), inputs(64, 0), **STRONG)


@pytest.fixture(scope="module")
def population(strong: Design) -> Surrogate:
    with single_thread():
        fitted: Surrogate = fit(dataset(strong, inputs(24, 1)), wires=0.5)
        return fitted


def test_a_matrix_with_other_wires_is_right_to_first_order(strong: Design) -> None:
    """What is wrong with the change of a matrix falls with it, so the derivative is right."""
    moments = tile_moments(strong, wires=True)
    plain = {moment.tile.name: moment.mean for moment in moments}

    def share(factor: float) -> float:
        """Error of the change over the change, of all tiles."""
        there = {m.tile.name: m.mean for m in tile_moments(scaled(strong, factor))}
        found = with_wires(moments, {**plain, WIRES: torch.tensor([np.log(factor)])})
        wrong = sum(float((found[name] - there[name]).square().sum()) for name in plain)
        change = sum(float((there[name] - plain[name]).square().sum()) for name in plain)
        return float(np.sqrt(wrong / change))

    near, far = share(1.05), share(1.1)
    assert near < 0.01
    assert 1.8 < far / near < 2.2
    # The worst that is asked of it below.
    assert share(FACTOR) < 0.1


def test_a_derivative_is_the_difference_of_two_chips() -> None:
    design = compiled(nn.Sequential(nn.Linear(12, 6), nn.Tanh(), nn.Linear(6, 4)), inputs(64, 0))
    design = scaled(design, 20.0).with_technology({ADC_GAIN: 0.3, DAC_GAIN: 0.15})
    moments = tile_moments(design, wires=True)
    own = {moment.tile.name: moment.mean for moment in moments} | chip_structure(design, 3, 1)
    x = [torch.as_tensor(inputs(8, 2))]
    unit = {WIRES: torch.ones(1, dtype=torch.float64)}
    for wires in (0.0, 0.4):
        linear = linearise(design, moments, {**own, WIRES: wires * unit[WIRES]}, x)
        ahead, behind = (
            flatten_outputs(forward(design, moments, {**own, WIRES: at * unit[WIRES]}, x))
            for at in (wires + 0.03, wires - 0.03)
        )
        difference = ((ahead - behind) / 0.06).double()
        scale = float(difference.abs().max())
        assert scale > 1e-2
        # Outputs are float32, and a central difference of this step errs by 2e-4.
        torch.testing.assert_close(linear.apply(unit), difference, rtol=0, atol=1e-3 * scale)


@pytest.mark.slow
def test_chips_of_more_resistive_wires_are_found_with_few_probes() -> None:
    """Half more than the population's, at 24 probes of six chips, on inputs not seen."""
    with single_thread():
        design = wide()
        ds = dataset(design, full(24, 1))
        fixed, aware = fit(ds), fit(ds, wires=0.5)
        # A study whose wires are the technology's gives the same spreads, and no false floor.
        for layer, scale in aware.spread_scale.items():
            assert scale == pytest.approx(fixed.spread_scale[layer], rel=0.05)
        other, probes, test = scaled(design, FACTOR), full(24, 6), full(100, 7)
        errors, heldout, found, stated = [], [], [], []
        for chip in range(40, 46):
            seen = other.sample(chip, seed=8).run(probes, engine="nodal")
            both = [calibrate(known, probes, seen) for known in (fixed, aware)]
            assert all(one.success for one in both)
            errors.append([error_of(one.module, other, chip, test) for one in both])
            heldout.append([one.heldout for one in both])
            found.append(float(both[1].module.parameters_of()[WIRES]))
            stated.append(float(both[1].module.get_buffer("draws_wires").std()))
    before, after = np.array(errors).T
    assert np.median(after) < 0.8 * np.median(before)
    assert (after < before).all()
    assert np.mean(heldout, axis=0)[1] < 0.9 * np.mean(heldout, axis=0)[0]
    # The first order overstates what more resistance does at drops as large as these, so λ
    # comes out 0.05 below ln 1.5 whatever the probes; it stays within three deviations.
    missed = np.array(found) - np.log(FACTOR)
    assert (np.abs(missed) < 3 * np.array(stated)).all()
    assert (np.array(stated) < 0.1).all()
    assert np.abs(missed).max() < 0.1


@pytest.mark.slow
def test_a_study_of_chips_with_wires_of_their_own_does_not_blame_cells() -> None:
    """Wires from half to twice the technology's over a record, stated at the fit or not."""
    design = wide()
    parts = [
        dataset(scaled(design, factor), full(24, 1), chips=2, seed=seed)
        for seed, factor in enumerate((0.5, 0.7, 1.4, 2.0))
    ]
    ds = xr.concat([part[["output", "status"]] for part in parts], dim="chip")
    ds = ds.assign(input=parts[0]["input"], design=(("byte2",), embed(design)))
    ds.attrs.update(parts[0].attrs)
    blamed, stated = fit(ds), fit(ds, wires=0.5)
    assert min(blamed.spread_scale.values()) > 1.25
    assert all(0.8 < scale < 1.2 for scale in stated.spread_scale.values())
    assert stated.floor < 0.5 * blamed.floor


def test_probes_that_cells_do_not_blur_give_the_number_itself(strong: Design) -> None:
    """Cells as programmed: of a chip's unknowns λ alone is left, and is found."""
    design = strong.with_technology(programming_error=0.0, r_wordline=3.0, r_bitline=3.0)
    known = fit(dataset(design, inputs(24, 1)), wires=0.5)
    probes = inputs(64, 6)
    seen = scaled(design, FACTOR).sample(3, seed=8).run(probes, engine="nodal", trials=20)
    found = calibrate(known, probes, seen)
    assert found.success
    draws = found.module.get_buffer("draws_wires")
    missed = float(found.module.parameters_of()[WIRES]) - np.log(FACTOR)
    assert float(draws.std()) < 0.05
    assert abs(missed) < 3 * float(draws.std())


def test_off_it_is_as_if_it_were_not_there(design: Design, surrogate: Surrogate) -> None:
    x = torch.as_tensor(inputs(20, 7))
    off = fit(dataset(design, inputs(24, 1)), wires=0.0)
    assert off.wires == 0.0
    assert all(moment.wires is None for moment in off.moments)
    assert WIRES not in off.prior.variance
    probes = inputs(16, 6)
    seen = design.sample(40, seed=8).run(probes, engine="nodal")
    ours, theirs = (calibrate(known, probes, seen).module for known in (off, surrogate))
    assert not ours.wires
    assert "weight_wires" not in ours.state_dict()
    for one, other in ((ours, theirs), (off.module(), surrogate.module())):
        for found, expected in zip(one.predict(x), other.predict(x), strict=True):
            assert torch.equal(found, expected)


def test_a_population_and_a_chip_hold_it_and_keep_it(
    strong: Design, population: Surrogate, tmp_path: Path
) -> None:
    x, probes = torch.as_tensor(inputs(6, 2)), inputs(16, 6)
    seen = scaled(strong, FACTOR).sample(40, seed=8).run(probes, engine="nodal")
    found = calibrate(population, probes, seen)
    module = found.module
    assert set(module.parameters_of()) == set(population.prior.variance)
    assert float(module.parameters_of()[WIRES].abs()) > 1e-3
    tiled = with_wires(population.moments, module.parameters_of())
    for name, weight in module.weights().items():
        assert torch.equal(weight, tiled[name])
    module.save(tmp_path / "chip.pt")
    again = ChipModel.load(tmp_path / "chip.pt")
    assert again.wires
    assert torch.equal(again(x), module(x))
    assert torch.equal(again.predict(x).std, module.predict(x).std)
    population.save(tmp_path / "population.pt")
    loaded = Surrogate.load(tmp_path / "population.pt")
    assert loaded.wires == 0.5
    assert torch.equal(loaded.module().predict(x).std, population.module().predict(x).std)
    spread = population.module(draws=200).get_buffer("draws_wires").std()
    assert 0.4 < float(spread) < 0.6
    # Training looks at a chip's matrices as they are.
    layer = strong.layers[0].name
    none = {tile.name: torch.zeros(0, *tiled[tile.name].shape) for tile in strong.tiles}
    bare = {name: value for name, value in module.parameters_of().items() if name != WIRES}
    looked, without, folded = (
        physics_of(chip)[layer].mean.weight
        for chip in (
            module,
            ChipModel(strong, bare, none, floor=0.0, seed=0, provenance={}),
            ChipModel(strong, tiled, none, floor=0.0, seed=0, provenance={}),
        )
    )
    assert not torch.equal(looked, without)
    assert torch.equal(looked, folded)


def test_files_from_before_load_without_it_and_bad_ones_do_not(
    surrogate: Surrogate, tmp_path: Path
) -> None:
    path = tmp_path / "population.pt"
    surrogate.save(path)
    content = torch.load(path, weights_only=True)
    meta = json.loads(content["meta"])
    assert meta.pop("wires") == 0.0
    torch.save({**content, "meta": json.dumps(meta)}, path)
    assert Surrogate.load(path).wires == 0.0
    torch.save({**content, "meta": json.dumps({**meta, "wires": -1.0})}, path)
    with pytest.raises(DesignError, match="wires"):
        Surrogate.load(path)
    module = tmp_path / "module.pt"
    surrogate.module().save(module)
    content = torch.load(module, weights_only=True)
    meta = json.loads(content["meta"])
    assert meta.pop("wires") is False
    torch.save({**content, "meta": json.dumps(meta)}, module)
    assert not ChipModel.load(module).wires
    torch.save({**content, "meta": json.dumps({**meta, "wires": True})}, module)
    with pytest.raises(DesignError, match="weight_wires"):
        ChipModel.load(module)


def test_probes_are_chosen_with_it(strong: Design, population: Surrogate) -> None:
    """Before the chip is seen, and given what some probes told."""
    candidates = inputs(20, 9)
    first = next_probes(population, candidates, count=4)
    probes = inputs(16, 6)
    seen = scaled(strong, FACTOR).sample(40, seed=8).run(probes, engine="nodal")
    then = next_probes(calibrate(population, probes, seen), candidates, count=4)
    for chosen in (first, then):
        assert (np.diff(chosen.left) < 0).all()
    assert then.left[0] < first.left[0]


def test_where_it_is_no_parameter_it_is_refused(design: Design) -> None:
    x = inputs(24, 1)
    ideal = compiled(mlp(), inputs(64, 0), r_wordline=0.0, r_bitline=0.0)
    with pytest.raises(InputError, match="ideal"):
        fit(dataset(ideal, x, chips=2), wires=0.5)
    for bad in (-0.1, float("nan")):
        with pytest.raises(InputError, match="standard deviation"):
            fit(dataset(design, x, chips=2), wires=bad)
    bent = design.with_technology(cell=Technology.preset("rram-sinh").cell)
    with pytest.raises(InputError, match="not linear"):
        tile_moments(bent, wires=True)
    with pytest.warns(SpicennWarning, match="nonlinear"):
        tile_moments(bent)
    plain = tile_moments(design)
    own = {moment.tile.name: moment.mean for moment in plain}
    with pytest.raises(InputError, match="no derivative by its wires"):
        with_wires(plain, {**own, WIRES: torch.zeros(1)})
