"""A chip is the same chip however it is asked for, and ideal chips compute what torch computes."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.engines import open_engine
from spicenn.engines.engine import Solution
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import InputError, Status

IDEAL = sn.Technology.preset("ideal")
RRAM = sn.Technology.preset("rram-1r")


def mlp(signed_input=True):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 3))
    x = torch.randn(6, 10) if signed_input else torch.rand(6, 10)
    return model, x


def cnn():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )
    return model, torch.randn(3, 2, 4, 4)


def compiled(model, x, technology=IDEAL, **more):
    return sn.compile(model, x, technology=technology, **more)


def run(design, x, chips=(0,), engine="nodal", **more):
    with open_engine(engine) as running:
        return run_chips(design, chips, 5, as_inputs(design, x), running, **more)


@pytest.mark.ngspice
@pytest.mark.parametrize("network", [mlp, cnn])
def test_a_network_on_ideal_chips_equals_torch_in_ngspice(network):
    model, x = network()
    y = compiled(model, x).sample(chip=3, seed=1).run(x, engine="ngspice")
    torch.testing.assert_close(torch.tensor(y), model(x).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("drive", ["bipolar", "offset", "two-phase"])
@pytest.mark.parametrize(
    "mapping",
    [
        sn.Mapping(bias="digital"),
        sn.Mapping(bias="row"),
        sn.Mapping(slices=8, cell_bits=2),
        sn.Mapping(input_bits=16, dac_bits=1),
        sn.Mapping(input_bits=16, dac_bits=5, slices=5, cell_bits=3, bias="digital"),
    ],
    ids=["digital-bias", "row-bias", "sliced", "bit-serial", "all"],
)
def test_every_encoding_computes_the_same_product(drive, mapping):
    model, x = mlp()
    design = compiled(model, x, IDEAL.replace(drive=drive), mapping=mapping)
    y = run(design, x).output[design.program.outputs[0].name][0, 0]
    # 15 and 16 bits leave rounding errors of about 1e-4 of full scale.
    bound = 1e-5 if mapping.input_bits is mapping.cell_bits is None else 2e-3
    assert np.abs(y - model(x).detach().numpy()).max() < bound


def test_coarse_converters_cost_accuracy_and_fine_ones_do_not():
    model, x = mlp()
    exact = model(x).detach().numpy()

    def error(**mapping):
        design = compiled(model, x, mapping=sn.Mapping(**mapping))
        return np.abs(run(design, x).output[design.program.outputs[0].name][0, 0] - exact).max()

    assert error(adc_bits=14) < 1e-3 < error(adc_bits=4)


@pytest.mark.parametrize("tile", [(128, 128), (4, 128), (128, 4), (3, 2), (5, 6)])
def test_tiling_does_not_change_an_ideal_chip(tile):
    model, x = cnn()
    design = compiled(model, x, tile=sn.Tile(*tile))
    y = run(design, x).output[design.program.outputs[0].name][0, 0]
    np.testing.assert_allclose(y, model(x).detach().numpy(), atol=2e-6)


def test_conventions_plus_minus_and_sign():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.5)
    design = compiled(model, torch.tensor([[2.0]]))
    (tile,) = design.tiles
    np.testing.assert_allclose(tile.g_target, [[IDEAL.g_max, IDEAL.g_min]])
    result = run(design, torch.tensor([[2.0]]), keep=frozenset({"bitline_current"}))
    current = result.tiles[tile.name].bitline_current
    assert current.shape == (1, 1, 1, 1, 1, 2)  # chip, trial, sample, position, pulse, bitline
    # A positive input drives a positive voltage; its current flows out of the bitline.
    np.testing.assert_allclose(current.ravel(), IDEAL.v_read * np.array([IDEAL.g_max, IDEAL.g_min]))


def test_a_chip_does_not_depend_on_its_company():
    model, x = mlp()
    design = compiled(model, x, RRAM)
    name = design.program.outputs[0].name
    together = run(design, x, chips=(2, 7, 9), trials=3).output[name]
    alone = run(design, x[:2], chips=(7,), trials=2).output[name]
    # Batched sums differ in their last bits; draws must not.
    np.testing.assert_allclose(alone[0], together[1, :2, :2], rtol=1e-5, atol=1e-6)
    assert not np.allclose(together[0], together[1], rtol=1e-3)
    assert not np.allclose(together[0, 0], together[0, 1], rtol=1e-6)
    chip = design.sample(chip=7, seed=5)
    np.testing.assert_allclose(chip.run(x, engine="nodal"), together[1, 0], rtol=1e-5, atol=1e-6)
    assert [c.index for c in design.sample(chips=range(3), seed=5)] == [0, 1, 2]


def test_switching_one_mechanism_changes_no_other_draw():
    model, x = mlp()
    base = compiled(model, x, RRAM)
    cells = base.sample(chip=1, seed=5).conductances()
    quiet = base.with_technology(read_noise=0.0, bandwidth=0.0, r_wordline=0.0)
    for name, g in quiet.sample(chip=1, seed=5).conductances().items():
        np.testing.assert_array_equal(g, cells[name])
    outputs = {
        (read, thermal): run(base.with_technology(read_noise=read, bandwidth=thermal), x).output[
            base.program.outputs[0].name
        ]
        for read in (0.0, 0.01)
        for thermal in (0.0, 1e8)
    }
    # One layer's noises add linearly, so a mechanism contributes the same with the other on or off.
    linear = compiled(nn.Linear(10, 3).double(), x.double(), RRAM)
    values = {
        key: run(linear.with_technology(read_noise=key[0], bandwidth=key[1]), x.double()).output[
            linear.program.outputs[0].name
        ]
        for key in outputs
    }
    np.testing.assert_allclose(
        values[0.01, 1e8] - values[0.0, 1e8], values[0.01, 0.0] - values[0.0, 0.0], atol=1e-12
    )
    assert not np.allclose(values[0.01, 0.0], values[0.0, 0.0])
    assert not np.array_equal(values[0.0, 1e8], values[0.0, 0.0])


def test_retiling_one_layer_changes_no_other_layers_cells():
    model, x = mlp()
    wide = compiled(model, x, RRAM).sample(chip=1, seed=5).conductances()
    # Ten wordlines cut the first layer (10 inputs and its bias) but not the second.
    narrow = compiled(model, x, RRAM, tile=sn.Tile(10, 128)).sample(chip=1, seed=5).conductances()
    second = [name for name in wide if name.startswith("x2")]
    assert second
    for name in second:
        np.testing.assert_array_equal(wide[name], narrow[name])


def test_read_noise_has_the_stated_size():
    """400 trials of one output: the deviation within 5 % of Σ (σ g v)² plus thermal."""
    model = nn.Linear(8, 1, bias=False).double()
    x = torch.rand(1, 8, dtype=torch.float64)
    design = compiled(model, x, IDEAL.replace(read_noise=0.05, bandwidth=1e9))
    (tile,) = design.tiles
    y = run(design, x, trials=400).output[design.program.outputs[0].name][0, :, 0, 0]
    layer = tile.layer
    v = IDEAL.v_read * np.clip(x.numpy() / layer.input_scale, 0, 1)
    variance = ((0.05 * tile.g_target * v.T) ** 2).sum() + 4 * 1.380649e-23 * 300 * 1e9 * (
        tile.g_target.sum()
    )
    scale = layer.input_scale * layer.weight_scale / (IDEAL.v_read * (IDEAL.g_max - IDEAL.g_min))
    assert y.std() == pytest.approx(scale * np.sqrt(variance), rel=0.1)


def test_a_layer_called_twice_is_one_set_of_cells_read_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(4, 4)

        def forward(self, x):
            return self.map(x), self.map(x)

    torch.manual_seed(0)
    x = torch.rand(3, 4)
    design = compiled(Twice(), x, RRAM)
    assert len(design.tiles) == 1
    first, second = run(design, x).output.values()
    assert not np.array_equal(first, second)
    quiet = design.with_technology(read_noise=0.0, bandwidth=0.0)
    first, second = run(quiet, x).output.values()
    np.testing.assert_array_equal(first, second)


class OneBadChip(NodalEngine):
    """The real nodal engine, told that one of the chips it is given failed."""

    def solve(self, crossbar, g, v, parameters=None):
        solution = super().solve(crossbar, g, v, parameters)
        status, current = solution.status.copy(), solution.current.copy()
        messages = [""] * len(g)
        if crossbar.name.startswith("x0"):
            status[1], messages[1], current[1] = Status.SINGULAR, "no solution", np.nan
        else:
            assert len(g) == 2  # a chip that failed is not simulated any further
        return Solution(current, status, tuple(messages), solution.runtime)


def test_one_failed_chip_is_nan_and_leaves_the_others_alone():
    model, x = mlp()
    design = compiled(model, x, RRAM, mapping=sn.Mapping(input_bits=8, adc_bits=8))
    name = design.program.outputs[0].name
    good = run(design, x, chips=(0, 1, 2)).output[name]
    result = run_chips(design, (0, 1, 2), 5, as_inputs(design, x), OneBadChip())
    assert list(result.status) == [Status.OK, Status.SINGULAR, Status.OK]
    assert np.isnan(result.output[name][1]).all()
    np.testing.assert_array_equal(result.output[name][[0, 2]], good[[0, 2]])
    assert result.message[1].endswith("no solution")
    assert "x0_r0_c0" in result.message[1]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((2, 9), np.float32), "shape"),
        (np.zeros((0, 10), np.float32), "shape"),
        (np.full((2, 10), np.nan, np.float32), "NaN"),
        (np.zeros((2, 10), np.complex64), "dtype"),
        (np.array(["a"] * 10)[None], "dtype"),
        (3.0, "shape"),
    ],
)
def test_bad_inputs_are_refused_by_name(bad, words):
    model, x = mlp()
    with pytest.raises(InputError, match=words):
        compiled(model, x).sample(chip=0, seed=1).run(bad, engine="nodal")


def test_sampling_needs_a_seed_and_one_kind_of_index():
    model, x = mlp()
    design = compiled(model, x)
    for arguments in ({"chip": 1}, {"seed": 1}, {"chip": 1, "chips": [1], "seed": 1}):
        with pytest.raises(InputError):
            design.sample(**arguments)
    with pytest.raises(InputError, match="chip"):
        design.sample(chip=-1, seed=1)
    with pytest.raises(InputError, match="seed"):
        design.sample(chip=1, seed=-1)


def test_keep_returns_the_cells_that_were_simulated():
    model, x = mlp()
    design = compiled(model, x, RRAM)
    result = run(design, x, chips=(4,), keep=frozenset({"g", "g_target"}))
    for name, g in design.sample(chip=4, seed=5).conductances().items():
        np.testing.assert_array_equal(result.tiles[name].g[0], g)
        assert result.tiles[name].bitline_current is None
    with pytest.raises(InputError, match="allowed"):
        run(design, x, keep=frozenset({"voltage"}))
    assert json.dumps(list(result.tiles))  # names are plain text
