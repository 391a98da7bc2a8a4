"""Families of surrogates: each calibrates, states its errors, refuses itself and is saved."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.embedded import embed, input_names, output_names
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.pipeline import compile
from spicenn.datasets import load_digits
from spicenn.engines import open_engine
from spicenn.engines.nodal import NodalEngine
from spicenn.engines.superposition import superposed
from spicenn.errors import CalibrationError, DesignError, InputError, Status
from spicenn.surrogate.affine import LinearSurrogate, matrix_normal
from spicenn.surrogate.entry import calibrate, fit
from spicenn.surrogate.family import FAMILIES, ChipModule, Family
from spicenn.surrogate.latent import LatentModule, LatentSurrogate, condition, ideal_of
from spicenn.surrogate.latent_files import load, load_chip
from spicenn.surrogate.neural import NeuralSurrogate
from spicenn.surrogate.population import Surrogate
from spicenn.technology import Technology
from tests.surrogate.conftest import compiled, dataset, inputs, single_thread

LATENT = ("neural", "linear")
# Short trainings: what is proved here does not need the last step.
SHORT: dict[str, dict[str, Any]] = {"neural": {"steps": 40, "latent": 160}, "linear": {}}


def rms(error: Any) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


def quiet(design: Design) -> Design:
    return design.with_technology(read_noise=0.0, bandwidth=0.0)


@pytest.fixture(scope="module")
def record(design: Design) -> Any:
    with single_thread():
        return dataset(design, inputs(60, 1), chips=16)


@pytest.fixture(scope="module")
def fitted(record: Any) -> dict[str, LatentSurrogate]:
    result: dict[str, LatentSurrogate] = {}
    with single_thread():
        for family in LATENT:
            surrogate = fit(record, family=family, **SHORT[family])
            assert isinstance(surrogate, LatentSurrogate)
            result[family] = surrogate
    return result


@given(
    probes=st.integers(1, 5),
    outputs=st.integers(1, 3),
    latent=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_the_posterior_is_that_of_a_joint_gaussian(
    probes: int, outputs: int, latent: int, seed: int
) -> None:
    """Conditioning (c, y) written out in full gives the same mean and covariance."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((probes, outputs, latent))
    variance = rng.uniform(0.1, 2, (probes, outputs))
    residual = rng.standard_normal((2, probes, outputs))
    found = condition(*(torch.as_tensor(a) for a in (basis, variance, residual)))
    rows = basis.reshape(-1, latent)
    gain = rows.T @ np.linalg.inv(rows @ rows.T + np.diag(variance.ravel()))
    np.testing.assert_allclose(found.mean, residual.reshape(2, -1) @ gain.T, atol=1e-9)
    np.testing.assert_allclose(found.root @ found.root.T, np.eye(latent) - gain @ rows, atol=1e-9)
    stated = found.covariance(torch.as_tensor(basis))
    assert stated.shape == (probes, outputs, outputs)


def test_chips_that_are_affine_are_learnt_to_their_noise(design: Design) -> None:
    """Outputs made by the linear family's own equation: errors and intervals are its own."""
    rng = np.random.default_rng(0)
    x, test = inputs(60, 1), inputs(150, 7)
    left = rng.standard_normal((13, 13)) * 0.3
    right = np.linalg.cholesky(0.5 * np.eye(4) + 0.5) * 0.2

    def chip(at: Any) -> Any:
        change = left @ rng.standard_normal((13, 4)) @ right.T
        ideal = ideal_of(design, (torch.as_tensor(at),)).value.numpy()
        return ideal + np.hstack([np.ones((len(at), 1)), at]) @ change

    ds = dataset(design, x, chips=16)
    sigma = 0.02
    made = np.stack([chip(x) for _ in range(16)])[:, np.newaxis]
    made = made + sigma * rng.standard_normal((16, 3, 60, 4))
    ds = ds.drop_vars("output").assign(output=(("chip", "trial", "sample", "o"), made))
    surrogate = fit(ds, family="linear")
    probes, errors, inside = inputs(40, 6), [], []
    for _ in range(8):
        both = chip(np.concatenate([probes, test]))
        seen = both[:40] + sigma * rng.standard_normal((40, 4))
        read = both[40:] + sigma * rng.standard_normal((150, 4))
        found = calibrate(surrogate, probes, seen)
        assert found.success, found.reason
        mean, std, own = (a.numpy() for a in found.module.predict(torch.as_tensor(test)))
        errors.append(rms(mean - both[40:]))
        inside.append(np.mean(np.abs(read - mean) < 1.645 * std))
        assert own.mean() == pytest.approx(sigma, rel=0.1, abs=0)
    # Inputs vary in four directions: five coefficients of 40 reads, and little more.
    assert float(np.mean(errors)) < sigma * 1.3 * np.sqrt(5 / 40)
    assert 0.86 < float(np.mean(inside)) < 0.94


def test_matrix_normal_finds_both_covariances() -> None:
    """Many chips' coefficients with known covariances over inputs and over outputs."""
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal((4, 4)), rng.standard_normal((3, 3))
    features = torch.as_tensor(rng.standard_normal((30, 4)))
    shared = rng.standard_normal((4, 3))
    change = left @ rng.standard_normal((400, 4, 3)) @ right.T + shared
    seen = features @ torch.as_tensor(change)
    seen = seen + 0.1 * torch.as_tensor(rng.standard_normal((400, 30, 3)))
    found = matrix_normal(features, seen, 100)
    # 400 draws: a covariance's entries are known to about 1 / sqrt(400 · 3).
    truth = np.kron(left @ left.T, right @ right.T)
    mine = np.kron(found.left @ found.left.T, found.right @ found.right.T)
    assert np.linalg.norm(mine - truth) < 0.12 * np.linalg.norm(truth)
    np.testing.assert_allclose(found.variance, 0.01, rtol=0.1)
    assert rms(found.mean.numpy() - shared) < 0.2 * rms(change - shared)


@pytest.mark.parametrize("family", LATENT)
def test_unseen_chips_come_closer_and_intervals_hold(
    design: Design, fitted: dict[str, LatentSurrogate], family: str
) -> None:
    """Calibrated on 32 probes of chips that the fit never saw: below a third of before."""
    surrogate = fitted[family]
    probes, test = inputs(32, 6), inputs(200, 7)
    x = torch.as_tensor(test)
    before, after, inside = [], [], []
    for index in range(40, 46):
        truth = quiet(design).sample(index, seed=8).run(test, engine="nodal")
        chip = design.sample(index, seed=8)
        found = calibrate(surrogate, probes, chip.run(probes, engine="nodal"))
        assert found.success, found.reason
        assert found.heldout < found.population
        mean, std, _ = (value.numpy() for value in found.module.predict(x))
        np.testing.assert_allclose(found.module(x).numpy(), mean, atol=1e-5)
        before.append(rms(surrogate.module().predict(x).mean.numpy() - truth))
        after.append(rms(mean - truth))
        inside.append(np.mean(np.abs(chip.run(test, engine="nodal") - mean) < 1.645 * std))
    assert rms(after) < rms(before) / 3
    assert 0.82 < float(np.mean(inside)) < 0.97


@pytest.mark.parametrize("family", LATENT)
def test_what_does_not_belong_together_is_refused(
    design: Design, fitted: dict[str, LatentSurrogate], family: str
) -> None:
    probes = inputs(24, 6)
    seen = design.sample(50, seed=8).run(probes, engine="nodal")
    population = fitted[family].module()(torch.as_tensor(probes))
    for wrong in (seen[np.random.default_rng(0).permutation(24)], seen[::-1].copy()):
        found = calibrate(fitted[family], probes, wrong)
        assert not found.success
        assert found.reason
        assert found.posterior is None
        assert torch.equal(found.module(torch.as_tensor(probes)), population)


@pytest.mark.parametrize("family", LATENT)
def test_a_module_is_the_models_and_noisy_in_train(
    design: Design, fitted: dict[str, LatentSurrogate], family: str
) -> None:
    module = fitted[family].module(draws=64)
    x = torch.as_tensor(inputs(6, 2))
    assert (module(x).shape, module(x).dtype) == ((6, 4), torch.float32)
    assert torch.equal(module(x), module(x))
    with pytest.raises(InputError):
        module(x[:, :3])
    module.train()
    drawn = torch.stack([module(x) for _ in range(300)]).std(0)
    # 24 ratios of standard deviations of 300 draws, 4 % each.
    own = module.predict(x).read_std
    assert float((drawn / own).mean()) == pytest.approx(1.0, rel=0.04, abs=0)
    # The technology's read noise is what the chips of the study have.
    reads = design.sample(60, seed=8).run(x, engine="nodal", trials=300).std(0)
    assert 0.85 < float((own / torch.as_tensor(reads)).mean()) < 1.15
    module.vary_cells = True
    assert torch.stack([module(x) for _ in range(100)]).std(0).mean() > 3 * drawn.mean()
    module.reseed(5)
    first = module(x)
    module.reseed(5)
    assert torch.equal(module(x), first)
    x = (x * 0.8 + 0.1).requires_grad_()
    module.eval()(x)[:, 1].sum().backward()
    assert x.grad is not None
    step = 1e-2
    moved = x.detach().clone()
    moved[:, 4] += step
    expected = (module(moved)[:, 1] - module(x.detach())[:, 1]) / step
    np.testing.assert_allclose(x.grad[:, 4], expected.detach(), rtol=0.05, atol=2e-3)


@pytest.mark.parametrize("family", LATENT)
def test_the_same_seed_gives_the_same_surrogate(
    record: Any, fitted: dict[str, LatentSurrogate], family: str
) -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = fit(record, family=family, **SHORT[family])
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(again, LatentSurrogate)
    for name, value in fitted[family].decoder.state_dict().items():
        assert torch.equal(again.decoder.state_dict()[name], value), name
    x = torch.as_tensor(inputs(5, 2))
    one, other = again.module(seed=1).train(), fitted[family].module(seed=2).train()
    assert not torch.equal(one(x), other(x))


def test_another_seed_gives_another_network(
    record: Any, fitted: dict[str, LatentSurrogate]
) -> None:
    other = fit(record, family="neural", **{**SHORT["neural"], "steps": 0}, seed=1)
    mine = fitted["neural"].decoder.state_dict()["first"]
    assert not torch.equal(other.decoder.state_dict()["first"], mine)


@pytest.mark.parametrize("family", LATENT)
def test_saved_and_loaded(
    design: Design, fitted: dict[str, LatentSurrogate], tmp_path: Path, family: str
) -> None:
    surrogate, x = fitted[family], torch.as_tensor(inputs(5, 2))
    probes = inputs(16, 6)
    seen = design.sample(60, seed=8).run(probes, engine="nodal")
    surrogate.save(tmp_path / "s.pt")
    torch.load(tmp_path / "s.pt", weights_only=True)
    again = load(tmp_path / "s.pt")
    assert type(again) is type(surrogate)
    assert again.provenance == surrogate.provenance
    assert again.provenance["family"] == family
    module, other = (calibrate(s, probes, seen).module for s in (surrogate, again))
    assert torch.equal(other(x), module(x))
    module.save(tmp_path / "m.pt")
    loaded = load_chip(tmp_path / "m.pt")
    assert isinstance(loaded, LatentModule)
    assert torch.equal(loaded(x), module(x))
    assert torch.equal(loaded.predict(x).std, module.predict(x).std)
    assert torch.equal(loaded.train()(x), module.train()(x))
    assert loaded.provenance == module.provenance
    assert torch.equal(copy.deepcopy(module).eval()(x), module.eval()(x))


class _Exploit:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("harm"),)


@pytest.mark.parametrize("family", LATENT)
def test_hostile_files_are_refused(
    fitted: dict[str, LatentSurrogate],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.pt"
    fitted[family].save(path)
    good = torch.load(path, weights_only=True)
    name = next(iter(good["tensors"]))
    bad = [
        _Exploit(),
        {**good, "meta": _Exploit()},
        [],
        {},
        {**good, "spicenn": 2},
        {**good, "kind": "nonsense"},
        {**good, "design": good["design"][:100]},
        {**good, "meta": "{}"},
        {**good, "meta": good["meta"].replace(f'"{family}"', '"structural"')},
        {**good, "meta": good["meta"].replace('"rank": ', '"rank": 1e30, "r": ')},
        {**good, "meta": good["meta"].replace('"rank": ', '"rank": 999999, "r": ')},
        {**good, "meta": good["meta"].replace('"rank": ', '"r": ')},
        {**good, "meta": good["meta"].replace('"shape": {', '"shape": {"more": -1, ')},
        {**good, "meta": good["meta"].replace('"rank": ', '"rank": 1')},
        {**good, "tensors": {}},
        {**good, "tensors": {**good["tensors"], name: torch.zeros(2, 2)}},
        {**good, "tensors": {**good["tensors"], "floor": good["tensors"]["floor"] * np.nan}},
        {**good, "tensors": {**good["tensors"], "floor": -1 - good["tensors"]["floor"]}},
    ]
    for number, content in enumerate(bad):
        torch.save(content, path)
        with pytest.raises(DesignError):
            assert load(path) is None, f"file {number} was read"
    fitted[family].module().save(path)
    with pytest.raises(DesignError, match="no surrogate"):
        load(path)
    fitted[family].save(path)
    with pytest.raises(DesignError, match="no module"):
        load_chip(path)
    assert not (tmp_path / "harm").exists()


def test_every_family_keeps_the_protocol(record: Any, surrogate: Surrogate) -> None:
    made = [surrogate, *(fit(record, family=name, **SHORT[name]) for name in LATENT)]
    assert set(FAMILIES) == {"structural", *LATENT}
    for one in made:
        assert isinstance(one, Family)
        assert isinstance(one.module(draws=2, seed=1), ChipModule)
    assert [type(one) for one in made] == [Surrogate, NeuralSurrogate, LinearSurrogate]


def test_an_unknown_family_is_named(record: Any) -> None:
    with pytest.raises(InputError, match="use one of structural, neural, linear"):
        fit(record, family="magic")


def test_too_small_studies_are_named(design: Design) -> None:
    with pytest.raises(CalibrationError, match="3 of 3 chips came out"):
        fit(dataset(design, inputs(8, 1), chips=3), family="neural")
    with pytest.raises(CalibrationError, match="3 samples are too few"):
        fit(dataset(design, inputs(3, 1), chips=4), family="linear")


def test_failed_chips_are_left_out_and_counted(record: Any) -> None:
    broken = record.copy(deep=True)
    broken["status"][3] = Status.CRASH
    broken["output"][5] = np.nan
    surrogate = fit(broken, family="linear")
    assert (surrogate.chips, surrogate.failed) == (14, 2)


class _Two(nn.Module):
    """Two inputs of several ranks, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.a, self.b = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.relu(self.a(x) + y.flatten(1))
        return self.b(h), h.unsqueeze(1)


@pytest.mark.parametrize("family", LATENT)
def test_several_inputs_and_outputs_of_any_rank(family: str) -> None:
    rng = np.random.default_rng(0)

    def both(count: int) -> tuple[Any, Any]:
        return (
            rng.random((count, 12)).astype(np.float32),
            rng.random((count, 5, 1)).astype(np.float32),
        )

    x = both(40)
    tensors = tuple(torch.as_tensor(a) for a in x)
    design = compile(
        _Two(),
        tuple(t[:4] for t in tensors),
        technology=Technology.preset("rram-1r"),
        calibration=tensors,
    )
    result = run_chips(design, range(8), 1, as_inputs(design, x), NodalEngine())
    variables: dict[str, Any] = {
        "status": (("chip",), result.status),
        "design": (("byte",), embed(design)),
    }
    for name, array in zip(input_names(design), x, strict=True):
        variables[name] = (("sample", *(f"{name}_{k}" for k in range(array.ndim - 1))), array)
    for name, output in zip(output_names(design), result.output.values(), strict=True):
        dims = [f"{name}_{k}" for k in range(output.ndim - 3)]
        variables[name] = (("chip", "trial", "sample", *dims), output)
    ds = xr.Dataset(variables)
    surrogate = fit(ds, family=family, **SHORT[family])
    probes = both(32)
    seen = design.sample(30, seed=1).run(probes, engine="nodal")
    found = calibrate(surrogate, probes, seen)
    assert found.success, found.reason
    one, two = found.module(*(torch.as_tensor(a) for a in probes))
    assert (one.shape, two.shape) == ((32, 3), (32, 1, 5))


@pytest.fixture(scope="module")
def digits() -> tuple[Design, dict[str, Any]]:
    """A 64-16-10 network on digits, 16 chips of 60 images."""
    with single_thread():
        images = load_digits(400)
        x = images.train.reshape(400, -1).astype(np.float32)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        labels = torch.as_tensor(images.train_labels)
        for batch in torch.arange(400).repeat(40).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(torch.as_tensor(x[batch])), labels[batch]).backward()
            optimiser.step()
        design = compiled(model.eval(), x)
        ds = dataset(design, x[:60], chips=16)
        test = images.test[:150].reshape(150, -1).astype(np.float32)
        return design, {
            "record": ds,
            "probes": x[60:124],
            "test": test,
        }


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.parametrize("family", LATENT)
def test_digits_in_ngspice(digits: tuple[Design, dict[str, Any]], family: str) -> None:
    """Fitted to exact solutions, calibrated and judged on unseen chips in ngspice."""
    design, data = digits
    surrogate = fit(data["record"], family=family, **({"steps": 60} if family == "neural" else {}))
    x = torch.as_tensor(data["test"])
    before, after, inside = [], [], []
    with open_engine("ngspice", timeout=100) as engine:
        for index in range(70, 74):
            fast = superposed(engine)
            chip = design.sample(index, seed=8)
            truth = quiet(design).sample(index, seed=8).run(data["test"], fast)
            found = calibrate(surrogate, data["probes"], chip.run(data["probes"], fast))
            assert found.success, found.reason
            mean, std, _ = (value.numpy() for value in found.module.predict(x))
            before.append(rms(surrogate.module().predict(x).mean.numpy() - truth))
            after.append(rms(mean - truth))
            inside.append(np.mean(np.abs(chip.run(data["test"], fast) - mean) < 1.645 * std))
    assert rms(after) < rms(before) / 2
    assert 0.80 < float(np.mean(inside)) < 0.97
