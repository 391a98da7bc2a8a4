"""A chip's model is an ordinary module, and survives being saved."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from spicenn.compiler import Design
from spicenn.errors import DesignError, InputError
from spicenn.surrogate import ChipModel, Surrogate, calibrate
from tests.surrogate.conftest import inputs


@pytest.fixture
def module(design: Design, surrogate: Surrogate) -> ChipModel:
    probes = inputs(16, 6)
    found = calibrate(surrogate, probes, design.sample(60, seed=8).run(probes, engine="nodal"))
    assert found.success
    return found.module


def test_signature_and_dtype(module: ChipModel) -> None:
    x = torch.as_tensor(inputs(5, 2))
    y = module(x)
    assert (y.shape, y.dtype) == ((5, 4), torch.float32)
    with pytest.raises(InputError):
        module(x[:, :3])


def test_eval_is_deterministic_and_train_has_the_chips_noise(
    design: Design, module: ChipModel
) -> None:
    x = torch.as_tensor(inputs(6, 2))
    assert torch.equal(module(x), module(x))
    module.train()
    assert not torch.equal(module(x), module(x))
    drawn = torch.stack([module(x) for _ in range(400)]).std(0).numpy()
    reads = design.sample(60, seed=8).run(x, engine="nodal", trials=400).std(0)
    # 24 ratios of two standard deviations of 400 draws, 5 % each.
    assert 0.9 < float(np.mean(drawn / reads)) < 1.1
    module.eval()
    np.testing.assert_allclose(module.predict(x).read_std.numpy() / drawn, 1.0, atol=0.25)


def test_noise_follows_its_seed(module: ChipModel) -> None:
    x = torch.as_tensor(inputs(6, 2))
    module.train()
    module.reseed(5)
    first = module(x)
    module.reseed(5)
    assert torch.equal(module(x), first)


def test_varying_cells_adds_their_spread(surrogate: Surrogate) -> None:
    x = torch.as_tensor(inputs(6, 2))
    module = surrogate.module(draws=32).train()
    noise = torch.stack([module(x) for _ in range(100)]).std(0).mean()
    module.vary_cells = True
    both = torch.stack([module(x) for _ in range(100)]).std(0).mean()
    assert both > 3 * noise


def test_gradients_reach_the_inputs(module: ChipModel) -> None:
    x = torch.as_tensor(inputs(3, 2)) * 0.8 + 0.1
    x.requires_grad_()
    module(x)[:, 1].sum().backward()
    assert x.grad is not None
    step = 1e-2
    moved = x.detach().clone()
    moved[:, 4] += step
    expected = (module(moved)[:, 1] - module(x.detach())[:, 1]) / step
    np.testing.assert_allclose(x.grad[:, 4], expected, rtol=0.02, atol=1e-3)


def test_saved_and_loaded(module: ChipModel, surrogate: Surrogate, tmp_path: Path) -> None:
    x = torch.as_tensor(inputs(5, 2))
    module.save(tmp_path / "chip.pt")
    torch.load(tmp_path / "chip.pt", weights_only=True)
    again = ChipModel.load(tmp_path / "chip.pt")
    assert torch.equal(again(x), module(x))
    assert torch.equal(again.predict(x).std, module.predict(x).std)
    assert again.provenance == module.provenance
    assert again.provenance["kind"] == "chip"
    assert torch.equal(copy.deepcopy(module)(x), module(x))

    surrogate.save(tmp_path / "population.pt")
    loaded = Surrogate.load(tmp_path / "population.pt")
    assert torch.equal(loaded.module()(x), surrogate.module()(x))
    assert loaded.spread_scale == surrogate.spread_scale


def test_state_dict_goes_through_plain_torch(
    module: ChipModel, surrogate: Surrogate, tmp_path: Path
) -> None:
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other = surrogate.module()
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    x = torch.as_tensor(inputs(5, 2))
    assert torch.equal(other(x), module(x))


class _Exploit:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


def test_hostile_files_are_refused(
    module: ChipModel, surrogate: Surrogate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "chip.pt"
    module.save(path)
    good = torch.load(path, weights_only=True)
    name = next(iter(good["tensors"]))
    bad = [
        _Exploit(),
        {**good, "meta": _Exploit()},
        [],
        {**good, "spicenn": 2},
        {**good, "kind": "surrogate"},
        {**good, "design": good["design"][:100]},
        {**good, "design": "text"},
        {**good, "meta": "{"},
        {**good, "meta": "{}"},
        {**good, "meta": good["meta"].replace('"floor": ', '"floor": -')},
        {**good, "meta": good["meta"].replace(module.design.hash, "0" * 64)},
        {**good, "tensors": {}},
        {**good, "tensors": {**good["tensors"], name: torch.zeros(2, 2)}},
        {**good, "tensors": {**good["tensors"], name: good["tensors"][name] * float("nan")}},
    ]
    for content in bad:
        torch.save(content, path)
        with pytest.raises(DesignError):
            ChipModel.load(path)
    path.write_bytes(b"not a file of torch")
    with pytest.raises(DesignError):
        ChipModel.load(path)
    surrogate.save(path)
    with pytest.raises(DesignError, match="module"):
        ChipModel.load(path)
    assert not (tmp_path / "harm").exists()
