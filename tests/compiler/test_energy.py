"""Energy and latency of inferences: what is counted, and what it scales with."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.compiler.energy import COMPONENTS, measure
from spicenn.compiler.tiling import bias_rows
from spicenn.engines import open_engine
from spicenn.errors import CompileError, InputError

IDEAL = sn.Technology.preset("ideal")
SEED = 5
DAC, ADC = COMPONENTS.index("dac"), COMPONENTS.index("adc")
ARRAY, DRIVER, TIA, NEURON = range(4)
CONVERTERS = {
    "periphery.dac.energy": 2e-13, "periphery.dac.time": 3e-9,
    "periphery.adc.energy": 5e-12, "periphery.adc.time": 7e-9,
}  # fmt: skip
FAST = {"periphery.tia.bandwidth": 1e9}

pytestmark = pytest.mark.ngspice


@pytest.fixture(scope="module")
def ngspice():
    with open_engine("ngspice") as engine:
        yield engine


@cache
def mlp(tile=(128, 128), **mapping):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = torch.rand(8, 5, dtype=torch.float64)
    design = sn.compile(
        model, x, technology=IDEAL, tile=sn.Tile(*tile), mapping=sn.Mapping(**mapping),
        calibration=x,
    )  # fmt: skip
    return design, x


def chip_of(changes, **arguments):
    design, x = mlp(**arguments)
    return design.with_technology(changes).sample(0, SEED), x


@cache
def convolutional():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 2, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2)
    ).double()
    x = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    return sn.compile(model, x, technology=IDEAL, calibration=x), x


def near(value, rel=1e-9):
    return pytest.approx(value, rel=rel, abs=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("tile", [(128, 128), (3, 4)], ids=["one tile", "many tiles"])
def test_every_conversion_of_an_mlp_is_paid_for(ngspice, tile):
    """A DAC for every input whatever the tiles, an ADC for every output of every row of tiles.

    Layer 0: 5 inputs to 4 outputs; layer 1: 4 to 2. Bias rows need no converter.
    """
    chip, x = chip_of({**CONVERTERS, **FAST}, tile=tile)
    found = measure(chip, x[:2], ngspice)
    assert found.layers == ("0", "2")
    assert found.energy.shape == (2, 2, len(COMPONENTS))
    for layer, (inputs, outputs) in enumerate([(5, 4), (4, 2)]):
        layers = chip.design.layers
        rows = math.ceil((inputs + bias_rows(layers[layer], chip.design.mapping)) / tile[0])
        assert rows > 1 or tile[0] == 128
        np.testing.assert_allclose(found.energy[:, layer, DAC], inputs * 2e-13, rtol=1e-12)
        np.testing.assert_allclose(found.energy[:, layer, ADC], rows * outputs * 5e-12, rtol=1e-12)
    silent, _ = chip_of(FAST, tile=tile)
    circuits = measure(silent, x[:2], ngspice)
    np.testing.assert_allclose(found.energy[..., :DAC], circuits.energy[..., :DAC], rtol=1e-12)
    assert not circuits.energy[..., DAC:].any()
    # Converters work side by side: one time each a layer.
    np.testing.assert_allclose(found.latency - circuits.latency, 10e-9, rtol=1e-6)
    assert (circuits.latency > 0).all()


def test_every_pulse_is_converted(ngspice):
    """6 bits, unsigned, 2 a pulse: three pulses one after the other."""
    chip, x = chip_of({**CONVERTERS, **FAST}, input_bits=6, dac_bits=2)
    found = measure(chip, x[:1], ngspice)
    assert found.energy[0, :, DAC].tolist() == [near(3 * 5 * 2e-13), near(3 * 4 * 2e-13)]
    assert found.energy[0, :, ADC].tolist() == [near(3 * 4 * 5e-12), near(3 * 2 * 5e-12)]
    assert (found.latency > 3 * 10e-9).all()


def test_slices_have_an_adc_each(ngspice):
    chip, x = chip_of({**CONVERTERS, **FAST}, slices=2, cell_bits=2)
    found = measure(chip, x[:1], ngspice)
    assert found.energy[0, :, ADC].tolist() == [near(2 * 4 * 5e-12), near(2 * 2 * 5e-12)]
    assert found.energy[0, :, DAC].tolist() == [near(5 * 2e-13), near(4 * 2e-13)]


@pytest.mark.slow
def test_a_convolution_is_sampled_at_positions_and_counted_at_all(ngspice):
    """3 x 3 positions, two groups of one channel: 4 inputs and 2 outputs each.

    Conversions are exact at any share of positions; circuits are the mean of those seen.
    """
    design, x = convolutional()
    chip = design.with_technology({**CONVERTERS, **FAST}).sample(0, SEED)
    every, some = (measure(chip, x[:1], ngspice, positions=count) for count in (9, 2))
    for found in (every, some):
        assert found.energy[0, 0, DAC] == near(9 * 2 * 4 * 2e-13)
        assert found.energy[0, 0, ADC] == near(9 * 2 * 2 * 5e-12)
        assert found.energy[0, 1, ADC] == near(2 * 5e-12)
        assert found.latency[0, 0] > 9 * 10e-9
    assert some.energy[0, 0, ARRAY] == near(every.energy[0, 0, ARRAY], 0.5)
    assert some.energy[0, 0, ARRAY] != every.energy[0, 0, ARRAY]
    np.testing.assert_allclose(some.energy[0, 1], every.energy[0, 1], rtol=1e-12)
    assert some.latency[0, 0] == near(every.latency[0, 0], 0.1)
    with pytest.raises(CompileError, match="convolution"):
        measure(chip, x[:1], ngspice, mode="analog")


def test_progress_counts_transients(ngspice):
    calls: list[tuple[int, int]] = []
    chip, x = chip_of(FAST, tile=(3, 4))
    measure(chip, x[:2], ngspice, progress=lambda done, total: calls.append((done, total)))
    transients = 2 * len(chip.design.tiles)
    assert transients > 8
    assert calls == [(k, transients) for k in range(1, transients + 1)]
    calls.clear()
    measure(chip, x[:2], ngspice, mode="analog", progress=lambda a, b: calls.append((a, b)))
    assert calls == [(1, 2), (2, 2)]
    design, images = convolutional()
    calls.clear()
    measure(
        design.with_technology(FAST).sample(0, SEED), images[:1], ngspice, positions=2,
        progress=lambda a, b: calls.append((a, b)),
    )  # fmt: skip
    assert calls[-1] == (2 * 2 + 1, 2 * 2 + 1)


def test_an_ohmic_arrays_energy_goes_as_the_square_of_the_read_voltage(ngspice):
    """Everything is linear below saturation and the time the same: within 1e-3, the transient's.

    The amplifiers' resistors shrink with the voltage, so that their outputs and therefore
    currents scale once and their energies with them: one power of v_read, at a fixed supply.
    """
    base = {"periphery.tia.c_in": 1e-14, "c_wordline": 1e-15, "periphery.driver.resistance": 500.0}
    energies = []
    for v_read in (0.1, 0.2):
        chip, x = chip_of({**base, "v_read": v_read})
        found = measure(chip, x[:2], ngspice, tolerance=1e-3)
        energies.append((found.energy.sum(axis=0), found.latency))
    (low, early), (high, late) = energies
    np.testing.assert_allclose(late, early, rtol=1e-3)
    np.testing.assert_allclose(high[:, ARRAY] / low[:, ARRAY], 4.0, rtol=2e-3)
    # A driver takes supply · |i| in all, of which the array's part is quadratic.
    np.testing.assert_allclose(
        (high[:, DRIVER] + high[:, ARRAY]) / (low[:, DRIVER] + low[:, ARRAY]), 2.0, rtol=2e-3
    )


@pytest.mark.parametrize("mode", ["hybrid", "analog"])
def test_without_capacitance_and_with_ideal_amplifiers_nothing_takes_time(ngspice, mode):
    """What is left is the rise of the step, 0.1 ps, in every layer."""
    chip, x = chip_of({})
    found = measure(chip, x[:2], ngspice, mode=mode)
    assert (found.latency >= 0).all()
    assert (found.latency.sum(axis=1) < 1e-12).all()
    assert (found.energy[..., ARRAY] < 1e-15).all()
    slow, _ = chip_of(FAST)
    assert (measure(slow, x[:2], ngspice, mode=mode).latency.sum(axis=1) > 1e-10).all()


def test_one_circuit_pays_for_its_ends_alone(ngspice):
    chip, x = chip_of({**CONVERTERS, **FAST})
    found = measure(chip, x[:2], ngspice, mode="analog")
    assert found.layers == ("0", "2")
    np.testing.assert_allclose(found.energy[..., DAC], [[5 * 2e-13, 0.0]] * 2, rtol=1e-12)
    np.testing.assert_allclose(found.energy[..., ADC], [[0.0, 2 * 5e-12]] * 2, rtol=1e-12)
    silent, _ = chip_of(FAST)
    circuits = measure(silent, x[:2], ngspice, mode="analog")
    added = found.latency - circuits.latency
    np.testing.assert_allclose(added, [[3e-9, 7e-9]] * 2, rtol=1e-6)
    assert (circuits.energy[:, 0, NEURON] > 0).all()
    assert not circuits.energy[:, 1, NEURON].any()
    hybrid = measure(silent, x[:2], ngspice)
    assert not hybrid.energy[..., NEURON].any()


@pytest.mark.slow
def test_rows_of_a_sample_follow_each_other(ngspice):
    """A linear layer over (sample, 3, 5) has its circuit used three times a sample."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    x = torch.rand(6, 5, dtype=torch.float64)
    rows = x.reshape(2, 3, 5)
    technology = IDEAL.replace({**CONVERTERS, **FAST})
    wide, single = (sn.compile(model, each, technology=technology) for each in (rows, x))
    for mode in ("hybrid", "analog"):
        together = measure(wide.sample(0, SEED), rows, ngspice, mode=mode, positions=3)
        apart = measure(single.sample(0, SEED), x, ngspice, mode=mode)
        assert together.energy.shape[0] == 2
        for name in ("energy", "latency"):
            a, b = getattr(together, name), getattr(apart, name)
            np.testing.assert_allclose(a, b.reshape(2, 3, *b.shape[1:]).sum(axis=1), rtol=1e-6)


def test_a_tighter_tolerance_takes_longer_and_costs_more(ngspice):
    chip, x = chip_of({**FAST, "periphery.tia.bias_current": 1e-5})
    loose, tight = (measure(chip, x[:1], ngspice, tolerance=t) for t in (0.1, 1e-3))
    # One pole after the other: at least ln(10) of the slowest's more.
    assert (tight.latency > loose.latency).all()
    assert (tight.energy[..., TIA] > loose.energy[..., TIA]).all()


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"mode": "digital"}, "mode = 'digital' is unknown"),
        ({"positions": 0}, "positions = 0"),
        ({"tolerance": 2.0}, "tolerance = 2.0"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(ngspice, wrong, match):
    chip, x = chip_of({})
    with pytest.raises(InputError, match=match):
        measure(chip, x[:1], ngspice, **wrong)
    with pytest.raises(InputError, match="shape"):
        measure(chip, x[:, :3], ngspice)
