"""``Chip.to_torch`` is the chip: what ``run`` gives, as an ordinary module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spicenn as sn
from spicenn.compiler import Chip, Mapping, Tile
from spicenn.compiler.exact import ChipModule
from spicenn.compiler.pipeline import compile
from spicenn.errors import EngineError, InputError
from spicenn.technology import Cell, Technology
from tests.compiler.zoo import ZOO, Lambda, build, inputs_like

# Wires that drop a few per cent over a tile of 5 x 6 cells; no noise, so that runs repeat.
WIRED = Technology.preset("rram-1r").replace(
    r_wordline=100.0, r_bitline=150.0, read_noise=0.0, bandwidth=0.0
)


def chip_of(
    name: str,
    dtype: torch.dtype = torch.float32,
    *,
    technology: Technology = WIRED,
    mapping: Mapping | None = None,
    tile: Tile | None = None,
) -> tuple[Chip, tuple[Tensor, ...]]:
    """A chip of one model of the zoo, and inputs of which some saturate."""
    model, example = build(name, dtype)
    design = compile(
        model, example, technology=technology, tile=tile or Tile(5, 6), mapping=mapping
    )
    return design.sample(chip=3, seed=1), inputs_like(example, 5)


def run(chip: Chip, inputs: tuple[Tensor, ...], engine: str = "nodal") -> list[np.ndarray]:
    y = chip.run(inputs if len(inputs) > 1 else inputs[0], engine=engine)
    return list(y.values()) if isinstance(y, dict) else [y]


def called(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    with torch.no_grad():
        y = module(*inputs)
    return list(y) if isinstance(y, tuple) else [y]


def agree(found: list[Tensor], expected: list[np.ndarray], tolerance: float) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.numpy().dtype == b.dtype
        np.testing.assert_allclose(a.numpy(), b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@pytest.mark.parametrize("name", ZOO)
def test_every_model_is_the_chip(name: str) -> None:
    chip, inputs = chip_of(name)
    agree(called(chip.to_torch(), inputs), run(chip, inputs), 1e-4)


@pytest.mark.parametrize(
    ("name", "drive"),
    [
        ("mlp", "offset"),
        ("grouped-dilated-cnn", "bipolar"),
        ("grouped-dilated-cnn", "two-phase"),
    ],
)
@pytest.mark.parametrize(
    "mapping",
    [
        Mapping(bias="digital"),
        Mapping(bias="row"),
        Mapping(slices=3, cell_bits=2),
        Mapping(slices=3, cell_bits=2, bias="digital"),
        Mapping(input_bits=5),
        Mapping(input_bits=6, dac_bits=1),
        Mapping(input_bits=6, dac_bits=4, slices=2, cell_bits=3, bias="digital"),
        Mapping(adc_bits=6),
        Mapping(adc_bits=5, input_bits=4, dac_bits=2, slices=2, cell_bits=2),
    ],
    ids=lambda m: "-".join(
        f"{key}={value}" for key, value in vars(m).items() if value not in (None, 1, 1.0)
    ),
)
def test_in_double_it_is_exact_however_numbers_are_mapped(
    name: str, mapping: Mapping, drive: str
) -> None:
    chip, inputs = chip_of(
        name,
        torch.float64,
        technology=WIRED.replace(drive=drive),
        mapping=mapping,
        tile=Tile(5, 2 * mapping.slices * 2),
    )
    module = chip.to_torch()
    expected = run(chip, inputs)
    agree(called(module, inputs), expected, 1e-8)
    # The wires are in it: as much as 1e-8 is far off without them.
    ideal = chip.design.with_technology(r_wordline=0.0, r_bitline=0.0).sample(chip=3, seed=1)
    straight = called(ideal.to_torch(), inputs)[0].numpy()
    assert np.abs(straight - expected[0]).max() > 1e-3 * np.abs(expected[0]).max()


@pytest.mark.parametrize("drive", ["bipolar", "two-phase", "offset"])
@pytest.mark.parametrize(
    "mapping",
    [
        Mapping(),
        Mapping(bias="digital"),
        Mapping(input_bits=6, dac_bits=2, slices=2, cell_bits=3),
        Mapping(adc_bits=5, input_bits=4, dac_bits=2, slices=2, cell_bits=2),
    ],
    ids=["row", "digital", "bits", "converted"],
)
@pytest.mark.parametrize("name", ["mlp", "grouped-dilated-cnn"])
def test_in_double_gains_and_offsets_of_converters_are_exact(
    name: str, mapping: Mapping, drive: str
) -> None:
    """Steps of ADCs and pulses of DACs, slices and bias rows included; the state holds them."""
    errors = {f"periphery.{side}.{which}": 0.1 for side in ("adc", "dac")
              for which in ("gain", "offset")}  # fmt: skip
    chip, inputs = chip_of(
        name,
        torch.float64,
        technology=WIRED.replace({**errors, "drive": drive}),
        mapping=mapping,
        tile=Tile(5, 2 * mapping.slices * 2),
    )
    module = chip.to_torch()
    expected = run(chip, inputs)
    agree(called(module, inputs), expected, 1e-8)
    again = ChipModule(chip.design)
    again.load_state_dict(module.state_dict())
    agree(called(again, inputs), expected, 1e-8)
    nominal = chip.design.with_technology(dict.fromkeys(errors, 0.0)).sample(chip=3, seed=1)
    straight = called(nominal.to_torch(), inputs)[0].numpy()
    assert np.abs(straight - expected[0]).max() > 1e-2 * np.abs(expected[0]).max()


@pytest.mark.parametrize(
    "name", ["same-even-kernel", "conv1d", "depthwise", "resnet-block", "transformer-encoder"]
)
def test_in_double_every_geometry_is_exact(name: str) -> None:
    chip, inputs = chip_of(name, torch.float64)
    agree(called(chip.to_torch(), inputs), run(chip, inputs), 1e-8)


def test_converters_give_the_same_codes_in_single_precision() -> None:
    """Some of so many fine conversions are next to a step; a code is 3e-5 of full scale."""
    chip, _ = chip_of("same-even-kernel", mapping=Mapping(adc_bits=16))
    inputs = inputs_like(build("same-even-kernel")[1], 64)
    agree(called(chip.to_torch(), inputs), run(chip, inputs), 2e-6)


@pytest.mark.ngspice
def test_it_is_the_chip_in_ngspice() -> None:
    chip, inputs = chip_of("grouped-dilated-cnn", torch.float64)
    agree(called(chip.to_torch(), inputs[:1]), run(chip, inputs[:1], "ngspice"), 1e-6)


@pytest.mark.parametrize("mapping", [Mapping(), Mapping(adc_bits=8)], ids=["merged", "tiled"])
def test_another_process_needs_the_design_and_the_buffers_alone(mapping: Mapping, tmp_path) -> None:
    chip, inputs = chip_of("resnet-block", mapping=mapping)
    module = chip.to_torch()
    torch.save(module.state_dict(), tmp_path / "chip.pt")
    other = ChipModule(chip.design)
    assert float(called(other, inputs)[0].abs().max()) != pytest.approx(
        float(called(module, inputs)[0].abs().max())
    )
    other.load_state_dict(torch.load(tmp_path / "chip.pt", weights_only=True))
    assert torch.equal(called(other, inputs)[0], called(module, inputs)[0])
    assert not list(module.parameters())


@pytest.mark.parametrize(
    "mapping", [Mapping(), Mapping(input_bits=8), Mapping(adc_bits=10)], ids=str
)
def test_gradients_reach_the_inputs_and_stop_at_saturation(mapping: Mapping) -> None:
    torch.manual_seed(0)
    x = torch.rand(4, 6, dtype=torch.float64) * 2 - 1
    design = compile(
        nn.Linear(6, 3).double(), x, technology=WIRED, tile=Tile(4, 4), mapping=mapping
    )
    module = design.sample(chip=0, seed=1).to_torch()
    probe = torch.zeros(1, 6, dtype=torch.float64)
    probe[0, 2] = 10.0
    probe.requires_grad_()
    module(probe).sum().backward()
    # The module is linear where nothing saturates: its gradient is its difference quotient.
    step = torch.eye(6, dtype=torch.float64) * 0.5 * float(x.abs().max())
    slope = (module(step) - module(-step)).sum(1).detach() / float(x.abs().max())
    assert probe.grad is not None
    assert float(probe.grad[0, 2]) == 0.0
    rest = [0, 1, 3, 4, 5]
    # Half a step of the coarsest converter here, over the slopes' own size.
    torch.testing.assert_close(probe.grad[0, rest], slope[rest], rtol=0.1, atol=0.02)


def test_float_and_double_and_their_inputs() -> None:
    chip, inputs = chip_of("two-inputs")
    module = chip.to_torch()
    before = called(module, inputs)[0]
    wide = tuple(x.double() for x in inputs)
    with pytest.raises(InputError, match="float64"):
        module(*wide)
    after = called(module.double(), wide)[0]
    assert after.dtype == torch.float64
    torch.testing.assert_close(after.float(), before)
    assert torch.equal(called(module.float(), inputs)[0], before)


def test_it_lives_on_one_device() -> None:
    """On the meta device, which refuses tensors of another: shapes alone."""
    model = Lambda(lambda s, v: s.a(v) * torch.ones(v.shape[0], 3).cumsum(1), a=nn.Linear(4, 3))
    x = torch.randn(5, 4)
    module = compile(model, x, technology=WIRED).sample(chip=3, seed=1).to_torch()
    y = called(module.to("meta"), (x.to("meta"),))[0]
    assert (y.device.type, y.shape) == ("meta", (5, 3))


def test_progress_and_cells_without_an_effective_matrix() -> None:
    chip, _ = chip_of("mlp")
    seen: list[tuple[int, int]] = []
    chip.to_torch(progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(chip.design.tiles),) * 2
    assert seen == sorted(seen)
    cell = Cell("sinh", ".subckt sinh w b g=1u\nB1 w b i = g*sinh(v(w,b))\n.ends sinh\n")
    bent = chip.design.with_technology(cell=cell).sample(chip=3, seed=1)
    with pytest.raises(
        EngineError, match=r"'sinh' is not known to be linear.*'nodal' or 'ngspice'"
    ):
        bent.to_torch()


@pytest.mark.ngspice
@pytest.mark.parametrize(
    "mapping", [Mapping(), Mapping(adc_bits=10, bias="digital")], ids=["merged", "tiled"]
)
def test_cells_that_drift_are_the_chip_at_its_time(mapping: Mapping) -> None:
    """Every cell with an exponent of its own; without the drift they are far off."""
    technology = Technology.preset("pcm").replace(
        {"r_wordline": 40.0, "r_bitline": 60.0, "noise.flicker": 0.0}, bandwidth=0.0
    )
    fresh, inputs = chip_of("mlp", torch.float64, technology=technology, mapping=mapping)
    aged = fresh.at(1e5)
    found = called(aged.to_torch(), inputs)
    expected = run(aged, inputs)
    agree(found, expected, 1e-8)
    if mapping.adc_bits is None:  # else a difference of 1e-9 may be a code
        agree(found, run(aged, inputs, "ngspice"), 1e-6)
    young = called(fresh.to_torch(), inputs)
    agree(young, run(fresh, inputs), 1e-8)
    assert np.abs(young[0].numpy() - expected[0]).max() > 0.1 * np.abs(expected[0]).max()


def test_no_samples_give_no_outputs() -> None:
    for mapping in (sn.Mapping(), sn.Mapping(adc_bits=8)):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
        x = torch.rand(6, 5)
        design = sn.compile(
            model, x, technology=sn.Technology.preset("rram-1r"), mapping=mapping, calibration=x
        )
        assert design.sample(chip=0, seed=1).to_torch()(x[:0]).shape == (0, 3)
