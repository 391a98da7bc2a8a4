"""Digital controllers in the loop with a circuit, against the exact solution of the loop."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn

from spicenn.cosim import Cosimulation
from spicenn.cosim.control import network, sampled
from spicenn.engines.ngspice.stepper import LEAD
from spicenn.errors import CosimulationError, InputError
from tests.cosim.wires import Wires

# Two RC stages that load each other; time constants 0.5 µs and 2 µs:
# C1 v1' = (u - v1) / R1 - (v1 - v2) / R2, C2 v2' = (v1 - v2) / R2.
R1, C1, R2, C2 = 1e3, 1e-9, 2e3, 0.5e-9
PLANT = f"plant\nvu u 0 dc 0 external\nr1 u a {R1}\nc1 a 0 {C1}\nr2 a b {R2}\nc2 b 0 {C2}\n"
A = np.array([[-(1 / R1 + 1 / R2) / C1, 1 / (R2 * C1)], [1 / (R2 * C2), -1 / (R2 * C2)]])
B = np.array([1 / (R1 * C1), 0.0])
PERIOD, DELAY, RISE, STEP, SAMPLES = 0.4e-6, 0.1e-6, 5e-9, 10e-9, 40


def exact(law, inputs, rise=RISE):
    """Samples (sample, input) of the loop: the plant by the matrix exponential, slopes too."""
    augmented = np.zeros((4, 4))  # state, the source's value and its slope
    augmented[:2, :2], augmented[:2, 2], augmented[2, 3] = A, B, 1.0

    def after(x, u, slope, time):
        return (expm(augmented * time) @ np.array([*x, u, slope]))[:2]

    x, u, samples = np.zeros(2), 0.0, []
    for _ in range(SAMPLES):
        samples.append([{"a": x[0], "b": x[1]}[node] for node in inputs])
        new = float(np.squeeze(law(np.array(samples[-1]))))
        x = after(x, u, 0.0, DELAY + LEAD * rise)
        if rise:
            x = after(x, u, (new - u) / rise, rise)
        x = after(x, new, 0.0, PERIOD - DELAY - (1 + LEAD) * rise)
        u = new
    return np.array(samples)


class PI:
    """u = k_p e + k_i T Σ e, of the error to a set point."""

    def __init__(self, setpoint=0.5, kp=1.2, ki=8e5):
        self.setpoint, self.kp, self.ki = setpoint, kp, ki
        self.total = 0.0

    def __call__(self, values):
        error = self.setpoint - values[0]
        self.total += error * PERIOD
        return self.kp * error + self.ki * self.total


def kept(law):
    """The law, and a list of what it was called with."""
    seen = []

    def call(values):
        seen.append(values.copy())
        return law(values)

    return call, seen


@pytest.mark.ngspice
@pytest.mark.slow
def test_a_pi_loop_is_the_exact_discrete_time_solution():
    errors = []
    for step in (2 * STEP, STEP):
        law, seen = kept(PI())
        with Cosimulation(PLANT, max_step=step, rise=RISE) as env:
            env.process(sampled(env, PERIOD, ["b"], law, ["vu"], delay=DELAY, number=SAMPLES))
            ds = env.run(until=SAMPLES * PERIOD)
        found = np.array(seen)
        errors.append(np.abs(found - exact(PI(), "b")).max())
    # What is left is the trapezoidal rule's, of the second order in the step.
    assert errors[1] < 3e-6
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.15)
    assert abs(found[-1, 0] - 0.5) < 1e-4  # it regulates
    assert found.max() > 0.55  # having overshot: the loop is not trivial
    # With slopes taken for steps the solution is another.
    assert np.abs(found - exact(PI(), "b", rise=0.0)).max() > 5e-4
    drives = ds.where(ds.event_kind == "drive", drop=True)
    times = PERIOD * np.arange(SAMPLES) + DELAY
    np.testing.assert_allclose(drives.event_time, times, rtol=1e-12)


@pytest.mark.parametrize("delay", [0.0, 0.25, 1.0, 2.5])
def test_every_samples_output_comes_its_delay_later(delay):
    wires = Wires("x", "y")
    calls = iter(range(100))
    with Cosimulation(wires) as env:
        env.process(
            sampled(
                env, 1.0, ["x"], lambda _: [float(k := next(calls)), -float(k)], ["x", "y"],
                delay=delay, start=0.5, rise=0.1, number=5,
            )
        )  # fmt: skip
        env.run(until=50.0)
    times = 0.5 + np.arange(5) + delay
    for name, sign in (("x", 1), ("y", -1)):
        driven = [(t, level) for t, source, level, _ in wires.driven if source == name]
        np.testing.assert_allclose([t for t, _ in driven], times, rtol=1e-15)
        assert [level for _, level in driven] == [sign * k for k in range(5)]


@pytest.mark.ngspice
def test_a_monitor_says_when_to_sample():
    # On every upward passing of 0.3 V by a sine, sample its quadrature.
    netlist = (
        "quadrature\nvs s 0 sin(0 1 1e6)\nrs s 0 1k\nvc c 0 sin(0 1 1e6 0 0 90)\nrc c 0 1k\n"
        "vq q 0 dc 0 external\nrq q 0 1k\n"
    )
    law, seen = kept(lambda values: 2 * values[1])
    with Cosimulation(netlist, max_step=1e-8) as env:
        ups = env.monitor(["s"], above=0.3)
        env.process(sampled(env, ups, ["s", "c"], law, ["vq"]))
        env.run(until=4e-6)
        assert env.sample("q") == pytest.approx(2 * math.sqrt(1 - 0.3**2), rel=1e-6)
    np.testing.assert_allclose(seen, 4 * [[0.3, math.sqrt(1 - 0.3**2)]], rtol=1e-6)


def feedforward():
    torch.manual_seed(7)
    module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    layers: Any = module
    (w1, b1), (w2, b2) = (
        (layer.weight.detach().numpy(), layer.bias.detach().numpy())
        for layer in (layers[0], layers[2])
    )
    return module, lambda v: w2 @ np.tanh(w1 @ v + b1) + b2


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.readout = nn.RNN(2, 6), nn.Linear(6, 1)

    def forward(self, x, state):
        y, state = self.cell(x, state)
        return self.readout(y), state


def recurrent():
    torch.manual_seed(8)
    module = Recurrent().double()
    w = {name: value.detach().numpy() for name, value in module.named_parameters()}
    h = np.zeros(6)

    def law(v):
        nonlocal h
        h = np.tanh(
            w["cell.weight_ih_l0"] @ v + w["cell.bias_ih_l0"]
            + w["cell.weight_hh_l0"] @ h + w["cell.bias_hh_l0"]
        )  # fmt: skip
        return w["readout.weight"] @ h + w["readout.bias"]

    return module, law


@pytest.mark.ngspice
@pytest.mark.parametrize("build", [feedforward, recurrent])
def test_a_torch_module_in_the_loop_is_the_loop_written_out(build):
    module, law = build()
    with Cosimulation(PLANT, max_step=STEP, rise=RISE) as env:
        env.process(
            network(
                env, PERIOD, ["a", "b"], module, ["vu"],
                recurrent=build is recurrent, delay=DELAY, number=SAMPLES,
            )
        )  # fmt: skip
        ds = env.run(until=SAMPLES * PERIOD)
    nodes = exact(law, "ab")
    law_again = build()[1]
    expected = [float(law_again(values)[0]) for values in nodes]
    driven = ds.where(ds.event_kind == "drive", drop=True).event_value
    np.testing.assert_allclose(driven, expected, rtol=0, atol=3e-6)
    found = np.array([np.interp(PERIOD * np.arange(SAMPLES), ds.time, ds[n]) for n in "ab"]).T
    np.testing.assert_allclose(found, nodes, rtol=0, atol=3e-6)
    assert np.ptp(expected) > 0.02  # the loop moves


class Counter(nn.Module):
    """Keeps its own state, draws a number, and tells what it was run with."""

    count: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))
        self.weight = nn.Parameter(torch.ones(1))
        self.graphs = []

    def forward(self, x):
        self.count += 1
        y = self.weight * self.count + 0 * torch.rand(1)
        self.graphs.append((self.training, y.requires_grad, x.dtype, tuple(x.shape)))
        return y


def test_a_module_keeps_its_own_state_which_a_trial_run_does_not_touch():
    wires = Wires("x", "y")
    module = Counter()
    module.train()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    with Cosimulation(wires) as env:
        process = network(env, 1.0, ["x", "y"], module, ["y"], rise=0.1, number=3)
        assert float(module.count) == 0
        assert torch.equal(torch.random.get_rng_state(), before)
        env.process(process)
        env.run(until=10.0)
    assert [level for _, _, level, _ in wires.driven] == [1.0, 2.0, 3.0]
    assert module.graphs == 3 * [(False, False, torch.float32, (1, 2))]


def test_what_a_law_returns_is_checked_by_process_and_time():
    cases: list[tuple[Any, str]] = [
        (lambda v: [1.0, 2.0], r"values of the shape \(2,\) were returned for 1 outputs"),
        (lambda v: math.nan, "nan was returned for x"),
        (lambda v: "high", "a str was returned, not numbers"),
        (lambda v: None, "nan was returned for x"),
    ]
    for law, said in cases:
        with Cosimulation(Wires("x")) as env:
            env.process(sampled(env, 1.0, ["x"], law, ["x"], start=2.0), name="valve")
            with pytest.raises(InputError, match=f"process valve, t = 2 s: {said}"):
                env.run(until=5.0)
    with Cosimulation(Wires("x")) as env:
        env.process(sampled(env, 1.0, ["x"], lambda v: 1 / 0, ["x"]))
        with pytest.raises(CosimulationError, match="process sampled, t = 0 s: raised ZeroDiv"):
            env.run(until=5.0)


class Late(nn.Module):
    """Good at first: what a trial run cannot find."""

    count: torch.Tensor

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count += 1
        return x[:, :1] if self.count < 2 else x @ torch.zeros(5, 1)


def test_bad_input_is_refused_when_it_is_given():
    with Cosimulation(Wires("x", "y")) as env:

        def good(values):
            return 0.0

        with pytest.raises(InputError, match="sampled; wires: there is no probe 'z'"):
            sampled(env, 1.0, ["z"], good, ["x"])
        with pytest.raises(InputError, match="sampled; wires: there is no external source 'z'"):
            sampled(env, 1.0, ["x"], good, ["z"])
        with pytest.raises(InputError, match="'x' is not a list of nodes"):
            sampled(env, 1.0, "x", good, ["x"])
        with pytest.raises(InputError, match=r"sampled: period = -1\.0 is not above 0"):
            sampled(env, -1.0, ["x"], good, ["x"])
        with pytest.raises(InputError, match="delay = inf is not a finite number"):
            sampled(env, 1.0, ["x"], good, ["x"], delay=math.inf)
        with pytest.raises(InputError, match="is not a function of the inputs"):
            sampled(env, 1.0, ["x"], 3.0, ["x"])  # type: ignore[arg-type]
        with pytest.raises(InputError, match="network: function is not a torch module"):
            network(env, 1.0, ["x"], good, ["x"])  # type: ignore[arg-type]
        with pytest.raises(
            InputError, match=r"network: the module failed on inputs of the shape \(1, 2\): "
        ):
            network(env, 1.0, ["x", "y"], nn.Linear(3, 1), ["x"])
        with pytest.raises(InputError, match=r"network: values of the shape \(3,\) were returned"):
            network(env, 1.0, ["x", "y"], nn.Linear(2, 3), ["x"])
        with pytest.raises(InputError, match="network: the module returned tuple, not a tensor"):
            network(env, 1.0, ["x", "y"], nn.RNN(2, 1), ["x"])
        with pytest.raises(InputError, match="network: a recurrent module returned Tensor"):
            network(env, 1.0, ["x", "y"], nn.RNNCell(2, 1), ["x"], recurrent=True)
        with pytest.raises(InputError, match="network: number = 0 is not a whole number"):
            network(env, 1.0, ["x", "y"], nn.Linear(2, 1), ["x"], number=0)
        env.process(network(env, 1.0, ["x", "y"], Late(), ["x"], rise=0.1), name="late")
        with pytest.raises(InputError, match=r"process late, t = 1 s: the module failed on inputs"):
            env.run(until=5.0)
