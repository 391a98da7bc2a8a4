"""LIF neurons of torch: the exact leak, the circuit's semantics, and a gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from spicenn.cosim.neuron import LIF
from spicenn.errors import InputError
from spicenn.periphery.lif import Lif

DT = 5e-7


def lif(**values):
    return LIF(dt=DT, **{"tau": 1e-5, "refractory": 6e-7, "floor": -0.6, **values})


def series(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_a_membrane_leaks_exactly_and_an_input_lifts_it_by_its_weight():
    _, v = lif().trace(series(0.3, 0.0, 0.0, 0.4))
    keep = math.exp(-DT / 1e-5)
    expected = [0.3, 0.3 * keep, 0.3 * keep**2, 0.3 * keep**3 + 0.4]
    np.testing.assert_allclose(v[:, 0], expected, rtol=1e-15)


def test_it_fires_at_one_goes_back_to_rest_and_ignores_what_comes_too_early():
    spikes, v = lif(refractory=1.2e-6).trace(series(1.0, 0.7, 0.7, 0.7, 0.7))
    # Steps at 0.5 and 1.0 µs begin within 1.2 µs after the spike, the one at 1.5 µs does not.
    assert spikes[:, 0].tolist() == [1, 0, 0, 0, 1]
    assert v[1:3, 0].tolist() == [0, 0]
    assert v[3, 0] == 0.7


@pytest.mark.parametrize(
    ("refractory", "ignored"), [(0.0, 0), (4e-7, 0), (5e-7, 0), (6e-7, 1), (1e-6, 1), (1.1e-6, 2)]
)
def test_steps_that_begin_within_the_refractory_time_are_ignored(refractory, ignored):
    assert lif(refractory=refractory).ignored == ignored


def test_the_floor_is_where_inhibition_ends():
    _, v = lif().trace(series(-0.5, -0.5, 0.2))
    assert v[1, 0] == -0.6
    assert float(v[2, 0]) == pytest.approx(-0.6 * math.exp(-DT / 1e-5) + 0.2, rel=1e-14)


@given(st.lists(st.floats(-1.5, 1.5), min_size=1, max_size=30), st.floats(1e-7, 1e-4))
def test_membranes_stay_between_floor_and_input_and_spikes_are_where_they_reach_one(inputs, tau):
    spikes, v = lif(tau=tau).trace(series(*inputs))
    assert bool((v >= -0.6).all())
    assert torch.equal(spikes, (v >= 1).to(v.dtype))
    # Neurons know nothing of each other.
    pair = lif(tau=tau)(torch.cat([series(*inputs), -series(*inputs)], dim=1))
    assert torch.equal(pair[:, :1], spikes)


def test_the_gradient_of_a_spike_is_the_fast_sigmoids():
    x = series(0.25, 0.5).requires_grad_()
    spikes, _ = lif(slope=4.0).trace(x)
    spikes[-1].sum().backward()
    keep = math.exp(-DT / 1e-5)
    at = 0.25 * keep + 0.5
    expected = 1 / (1 + 4.0 * abs(at - 1)) ** 2
    np.testing.assert_allclose(x.grad[:, 0], [expected * keep, expected], rtol=1e-12)


def test_an_ordinary_loop_trains_it():
    """Four patterns, one class each; without training chance is 1/4, and it stays below 3/4."""
    torch.manual_seed(0)
    x = torch.zeros(10, 4, 8)
    for k in range(4):
        x[k, k, 2 * k] = x[k + 2, k, 2 * k + 1] = x[4, k, :4] = 1.0
    y = torch.arange(4)
    model: Any = nn.Sequential(
        nn.Linear(8, 8, bias=False), lif(slope=2.0), nn.Linear(8, 4, bias=False), lif(slope=2.0)
    )
    start = float((model(x).sum(0).argmax(1) == y).float().mean())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(40):
        s, v = model[3].trace(model[2](model[1](model[0](x))))
        loss = nn.functional.cross_entropy(3 * s.sum(0) + v.amax(0), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert start < 0.75
    assert bool((model(x).sum(0).argmax(1) == y).all())
    assert bool(model[0].weight.grad.abs().sum() > 0)


def test_a_circuit_has_the_modules_constants_and_back():
    module = lif(tau=7e-6, refractory=4e-7, floor=-0.8)
    circuit = module.circuit(Lif(c_node=10e-15))
    assert circuit.tau == pytest.approx(7e-6, rel=1e-12, abs=0)
    assert circuit.refractory == pytest.approx(4e-7, rel=1e-12, abs=0)
    assert (circuit.v_floor - circuit.v_rest) / circuit.swing == pytest.approx(-0.8, rel=1e-12)
    assert circuit.c_node == 10e-15
    back = LIF.like(circuit, dt=DT)
    assert back.tau == pytest.approx(7e-6, rel=1e-12, abs=0)
    assert back.floor == pytest.approx(-0.8, rel=1e-12)
    # Its defaults are the circuit's.
    assert LIF(dt=DT).circuit(Lif()).i_ref == pytest.approx(Lif().i_ref, rel=1e-12, abs=0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dt": 0.0}, "dt = 0.0 is not above 0"),
        ({"tau": math.inf}, "tau = inf"),
        ({"refractory": -1e-9}, "refractory = -1e-09"),
        ({"floor": 0.1}, "floor = 0.1 is above rest"),
        ({"slope": math.nan}, "slope = nan"),
    ],
)
def test_numbers_out_of_range_are_named(values, said):
    with pytest.raises(InputError, match=said):
        LIF(**{"dt": DT, **values})


def test_an_input_without_time_and_a_circuit_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="has no time"):
        lif()(torch.zeros(3))
    with pytest.raises(InputError, match="takes some time to be reset"):
        lif(refractory=0.0).circuit(Lif())
    with pytest.raises(InputError, match=r"a floor of -1\.2 is at -0\.1 V"):
        lif(floor=-1.2).circuit(Lif())
