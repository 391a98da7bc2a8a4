"""CMOS neurons: the closed form is the transistors' circuit, value and slope."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from spicenn.errors import InputError
from spicenn.periphery.driver import driver_instance
from spicenn.periphery.mismatch import draw_offset
from spicenn.periphery.neuron import (
    check_headroom,
    neuron_instance,
    pair_current,
    relu_output,
    sigmoid_output,
    tanh_output,
)
from spicenn.technology import Driver, Neuron

MODELS = {"relu": relu_output, "tanh": tanh_output, "sigmoid": sigmoid_output}
SPECS = [
    Neuron(),
    Neuron(bias_current=4e-6, beta=4e-4, load=30e3, input_gain=0.5, supply=2.4),
]
SWEEP = np.linspace(-1.2, 1.2, 481)
SUPPLY = ["vdd vdd 0 {0}", "vss vss 0 -{0}"]


def swept(simulate, activation, spec, offset=0.0):
    lines = [
        *(line.format(spec.supply / 2) for line in SUPPLY), "vin in 0 0",
        neuron_instance("n", ("in", "out", "vdd", "vss"), activation, spec, offset),
    ]  # fmt: skip
    return simulate([activation], lines, ".dc vin -1.2 1.2 5m", ["v(out)"])["v(out)"]


@pytest.mark.ngspice
@pytest.mark.parametrize("spec", SPECS, ids=["default", "other"])
@pytest.mark.parametrize("activation", MODELS)
def test_the_closed_form_is_the_circuit(simulate, activation, spec):
    """To 1e-6 of the output's range, from both rails, through the middle, with an offset.

    What is left is the transistors' junctions, 10 fA each.
    """
    for offset in (0.0, 0.02):
        found = swept(simulate, activation, spec, offset)
        expected = MODELS[activation](SWEEP, spec, offset)
        assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.ngspice
@pytest.mark.parametrize("activation", MODELS)
def test_the_gradient_is_the_slope_of_the_circuit(simulate, activation):
    spec = SPECS[1]
    found = swept(simulate, activation, spec)
    x = torch.tensor(SWEEP, requires_grad=True)
    (slope,) = torch.autograd.grad(MODELS[activation](x, spec).sum(), x)
    measured = np.gradient(found, SWEEP)
    # Where the pair or the supply clips the slope jumps; a difference of 10 mV spans it.
    smooth = np.abs(np.gradient(slope.numpy())) < 0.02 * slope.abs().max().item()
    assert smooth.mean() > 0.9
    error = np.abs(measured - slope.numpy())[smooth]
    assert error.max() < 0.01 * slope.abs().max().item()


def test_how_far_the_square_law_is_from_the_functions_it_stands_for():
    spec = Neuron()
    u = np.linspace(-6, 6, 120001)
    v = u * math.sqrt(spec.bias_current / spec.beta)
    full = spec.load * spec.bias_current
    away = np.abs(tanh_output(v, spec) / full - np.tanh(u))
    assert away.max() == pytest.approx(0.1275, abs=1e-4)
    assert abs(u[away.argmax()]) == pytest.approx(1.25, abs=1e-3)
    logistic = 1 / (1 + np.exp(-2 * u))
    away = np.abs(sigmoid_output(v, spec) / full - logistic)
    assert away.max() == pytest.approx(0.1275 / 2, abs=1e-4)
    # Around 0 they are the same to third order.
    small = np.abs(u) < 0.1
    np.testing.assert_allclose(tanh_output(v, spec)[small] / full, np.tanh(u[small]), atol=3e-4)


def test_pair_steers_all_of_its_current_and_no_more():
    limit = math.sqrt(2 * 10e-6 / 1e-3)
    v = np.array([-5.0, -limit, 0.0, limit, 5.0])
    np.testing.assert_allclose(pair_current(v, 10e-6, 1e-3), [-1e-5, -1e-5, 0, 1e-5, 1e-5])


def test_relu_rests_at_0_follows_above_and_bends_towards_the_supply():
    spec = Neuron()
    y = relu_output(np.array([-9.0, -1e-3, 0.0, 1e-3, 0.1, 0.3, 0.7, 2.0, 99.0]), spec)
    np.testing.assert_array_equal(y[:3], 0.0)
    np.testing.assert_array_equal(y[3:6], [1e-3, 0.1, 0.3])
    assert (np.diff(y[5:]) > 0).all()
    # In the bend the output transistor is a triode: its law, and the load's.
    w, overdrive = 0.9 - y[7], math.sqrt(2 * 2.0 / (spec.beta * spec.load))
    assert y[7] / spec.load == pytest.approx(
        spec.beta * (overdrive * w - w * w / 2), rel=1e-12, abs=0
    )
    assert 0.85 < y[8] < 0.9


def test_tensors_and_arrays_give_the_same_and_gradients_are_finite_everywhere():
    v = np.concatenate([SWEEP, [0.0]])
    for model in MODELS.values():
        x = torch.tensor(v, requires_grad=True)
        y = model(x, Neuron())
        np.testing.assert_allclose(y.detach().numpy(), model(v, Neuron()), rtol=1e-13, atol=1e-18)
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert torch.isfinite(slope).all()
        assert (slope >= 0).all()


@pytest.mark.ngspice
@pytest.mark.parametrize("activation", MODELS)
def test_it_drives_the_next_layers_wordline_through_a_driver(simulate, activation):
    """The driver's input draws nothing, so the wordline has the neuron's own voltage, divided."""
    spec, driver = Neuron(), Driver(resistance=200.0)
    lines = [
        *(line.format(0.9) for line in SUPPLY), "vin in 0 0.08",
        neuron_instance("n", ("in", "mid", "vdd", "vss"), activation, spec),
        driver_instance("d", ("mid", "word", "vdd"), driver), "rword word 0 1k",
    ]  # fmt: skip
    found = simulate([activation, "driver"], lines, ".op", ["v(word)", "v(mid)"])
    expected = MODELS[activation](0.08, spec)
    assert found["v(mid)"][0] == pytest.approx(expected, rel=1e-6)
    assert found["v(word)"][0] == pytest.approx(expected / 1.2, rel=1e-6)


def test_a_supply_without_room_is_refused_where_the_closed_form_would_not_hold():
    for keys in ({"bias_current": 1e-3}, {"supply": 1.0}, {"load": 100e3}, {"threshold": 0.8}):
        with pytest.raises(InputError, match="neuron tanh"):
            neuron_instance("n", ("a", "b", "c", "d"), "tanh", Neuron(**keys))
    # A sigmoid's output stays above ground: its swing may be larger than a threshold.
    check_headroom("sigmoid", Neuron(load=60e3))
    with pytest.raises(InputError):
        check_headroom("tanh", Neuron(load=60e3))


def test_offsets_have_the_records_deviation():
    drawn = draw_offset(Neuron(offset=5e-3), np.random.default_rng(0), (10000,))
    assert drawn.std() == pytest.approx(5e-3, rel=4 / math.sqrt(20000))
