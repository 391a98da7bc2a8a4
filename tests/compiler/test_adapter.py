"""An adapter is a gain and an offset of every output of a layer, on every engine alike."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from spicenn.compiler import Chip, Mapping, Tile
from spicenn.compiler.adapter import Adapter
from spicenn.compiler.execute import as_inputs, layer_results
from spicenn.compiler.pipeline import compile
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import DesignError, InputError
from spicenn.technology import Technology
from tests.compiler.zoo import build, inputs_like

QUIET = Technology.preset("rram-1r").replace(read_noise=0.0, bandwidth=0.0)


def chip_of(name: str, mapping: Mapping | None = None) -> tuple[Chip, tuple[np.ndarray, ...]]:
    model, example = build(name)
    design = compile(model, example, technology=QUIET, tile=Tile(16, 16), mapping=mapping)
    chip = design.sample(chip=2, seed=5)
    return chip, as_inputs(design, tuple(inputs_like(example, 4)) if len(example) > 1 else
                           inputs_like(example, 4)[0])  # fmt: skip


def adapter_of(chip: Chip, seed: int = 0) -> Adapter:
    rng = np.random.default_rng(seed)
    counts = {layer.name: layer.groups * layer.outputs for layer in chip.design.layers}
    return Adapter(
        gain={name: 1 + 0.2 * rng.standard_normal(n) for name, n in counts.items()},
        offset={name: 0.1 * rng.standard_normal(n) for name, n in counts.items()},
    )


@pytest.mark.parametrize("name", ["mlp", "grouped-dilated-cnn"])
def test_it_comes_after_the_layer_and_before_what_follows(name: str) -> None:
    chip, x = chip_of(name)
    adapter = adapter_of(chip)
    raw = layer_results(chip, x, NodalEngine())
    corrected = layer_results(chip.corrected(adapter), x, NodalEngine())
    first, *rest = raw
    expected = raw[first] * adapter.gain[first] + adapter.offset[first]
    np.testing.assert_array_equal(corrected[first], expected)
    for later in rest:  # sees other inputs
        plain = raw[later] * adapter.gain[later] + adapter.offset[later]
        assert np.abs(corrected[later] - plain).max() > 1e-3


@pytest.mark.parametrize("mapping", [None, Mapping(adc_bits=8, input_bits=6)])
@pytest.mark.parametrize("name", ["mlp", "grouped-dilated-cnn"])
def test_the_module_has_it_as_well(name: str, mapping: Mapping | None) -> None:
    chip, x = chip_of(name, mapping)
    chip = chip.corrected(adapter_of(chip))
    y = chip.run(x[0], engine="nodal")
    module = chip.to_torch()
    np.testing.assert_allclose(module(torch.as_tensor(x[0])).detach(), y, rtol=1e-4, atol=1e-4)
    assert module.double()(torch.as_tensor(x[0]).double()).dtype is torch.float64


@pytest.mark.ngspice
def test_ngspice_gives_what_the_exact_engine_gives() -> None:
    chip, x = chip_of("mlp")
    chip = chip.corrected(adapter_of(chip))
    np.testing.assert_allclose(
        chip.run(x[0], engine="ngspice"), chip.run(x[0], engine="nodal"), rtol=1e-5, atol=1e-6
    )


def test_none_takes_it_away_and_the_identity_changes_nothing() -> None:
    chip, x = chip_of("mlp")
    y = chip.run(x[0], engine="nodal")
    changed = chip.corrected(adapter_of(chip))
    assert np.abs(changed.run(x[0], engine="nodal") - y).max() > 1e-2
    np.testing.assert_array_equal(changed.corrected(None).run(x[0], engine="nodal"), y)
    identity = chip.corrected(Adapter(gain={}, offset={}))
    np.testing.assert_array_equal(identity.run(x[0], engine="nodal"), y)


def test_circuits_do_not_change_but_for_what_drives_deeper_layers(tmp_path: Path) -> None:
    chip, x = chip_of("mlp")
    corrected = chip.corrected(adapter_of(chip))

    def texts(which: Chip, engine: str | None) -> dict[str, str]:
        folder = tmp_path / f"{which!r} {engine}"
        which.to_spice(folder, x[0], engine=engine)
        return {path.name: path.read_text() for path in folder.iterdir()}

    assert texts(chip, None) == texts(corrected, None)
    plain, driven = texts(chip, "nodal"), texts(corrected, "nodal")
    first = chip.design.tiles[0].name
    last = chip.design.tiles[-1].name
    assert plain[f"{first}.cir"] == driven[f"{first}.cir"]
    assert plain[f"{last}.cir"] != driven[f"{last}.cir"]


def test_one_analog_circuit_has_nothing_to_correct() -> None:
    chip, x = chip_of("mlp")
    with pytest.raises(InputError, match="digital results"):
        chip.corrected(adapter_of(chip)).run_analog(x[0], engine="nodal")
    with pytest.raises(InputError, match="digital results"):
        chip.corrected(adapter_of(chip)).transient(x[0][:1])


def test_what_does_not_fit_is_refused() -> None:
    chip, _ = chip_of("mlp")
    name = chip.design.layers[0].name
    with pytest.raises(InputError, match="no layer is called 'nowhere'"):
        chip.corrected(Adapter(gain={"nowhere": np.ones(2)}, offset={"nowhere": np.zeros(2)}))
    with pytest.raises(InputError, match="gains for"):
        chip.corrected(Adapter(gain={name: np.ones(2)}, offset={name: np.zeros(2)}))
    with pytest.raises(InputError, match="not both"):
        Adapter(gain={name: np.ones(2)}, offset={})
    with pytest.raises(InputError, match="2 gains for 3 offsets"):
        Adapter(gain={name: np.ones(2)}, offset={name: np.zeros(3)})
    with pytest.raises(InputError, match="finite"):
        Adapter(gain={name: np.array([1.0, np.nan])}, offset={name: np.zeros(2)})


def test_a_file_brings_back_the_same_numbers_and_others_are_refused(tmp_path: Path) -> None:
    chip, _ = chip_of("grouped-dilated-cnn")
    adapter = adapter_of(chip)
    path = tmp_path / "adapter.npz"
    adapter.save(path)
    loaded = Adapter.load(path)
    assert list(loaded.gain) == list(adapter.gain)
    for name in adapter.gain:
        np.testing.assert_array_equal(loaded.gain[name], adapter.gain[name])
        np.testing.assert_array_equal(loaded.offset[name], adapter.offset[name])
    Adapter(gain={}, offset={}).save(path)
    assert not Adapter.load(path).gain
    with pytest.raises(DesignError, match="cannot be read"):
        Adapter.load(tmp_path / "none.npz")
    with pytest.raises(DesignError, match="cannot be written"):
        adapter.save(tmp_path / "nowhere" / "adapter.npz")
    path.write_bytes(b"no archive")
    with pytest.raises(DesignError, match="no adapter"):
        Adapter.load(path)
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(path, format=1, layers=["a"], gain_0=objects, offset_0=objects)
    with pytest.raises(DesignError, match="no adapter"):
        Adapter.load(path)
    np.savez_compressed(path, format=1, layers=np.array([], dtype=str))
    with pytest.raises(DesignError, match="compressed"):
        Adapter.load(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(DesignError, match="no adapter"):
        Adapter.load(path)


def test_a_chip_says_that_it_is_corrected() -> None:
    chip, _ = chip_of("mlp")
    assert "corrected" in repr(chip.corrected(adapter_of(chip)))
