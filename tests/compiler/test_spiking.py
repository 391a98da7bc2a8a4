"""A chip's layer with spiking neurons: its text, its charges, its spread, what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import spicenn as sn
from spicenn.compiler.spiking import LifSpread, spiking_layer
from spicenn.errors import CompileError, InputError
from spicenn.periphery.lif import Lif

GOLDEN = Path(__file__).parent / "goldens" / "spiking_layer.cir"
WIDTH = 1e-7


def design(weights, technology="ideal", bias=False, **changes):
    w = torch.tensor(weights)
    linear = nn.Linear(w.shape[1], w.shape[0], bias=bias)
    with torch.no_grad():
        linear.weight.copy_(w)
    tech = sn.Technology.preset(technology)
    ones = torch.ones(1, w.shape[1])
    return sn.compile(
        linear, ones, technology=tech.replace(**changes) if changes else tech, calibration=ones
    )


def layer(weights, *, chip=0, spread=None, neuron=None, **options):
    d = design(weights, **options)
    made = d.sample(chip=chip, seed=1)
    return spiking_layer(made, d.layers[0], neuron or Lif(), width=WIDTH, spread=spread)


def test_text_is_the_golden_one(regenerate):
    """Signs, names, pulses' levels: whatever changes in a layer's netlist shows here."""
    spread = LifSpread(offset=1e-3, gm=0.05, c_mem=0.02, r_leak=0.1, i_ref=0.05)
    text = layer([[0.5, -0.25]], technology="rram-1r", spread=spread).netlist()
    if regenerate:
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), "run pytest --regenerate if the change is meant"


@pytest.mark.ngspice
def test_a_spike_through_a_weight_lifts_a_membrane_by_the_weight():
    """To 1 %: half a pulse's leak, 0.5 %, and what the comparator's rest takes."""
    weights = np.array([[0.3, 0.6], [-0.4, 0.2]])
    built = layer(weights.astype(np.float32).tolist(), neuron=Lif(r_leak=1e9))
    nodes = ["mem_0", "mem_1", "spk_0", "spk_1"]
    spec = built.nominal
    with sn.Cosimulation(built.netlist(), max_step=1e-7, rise=5e-9, probes=nodes) as env:
        seen = []

        def pulses(env):
            for i in range(2):
                yield env.timeout(1e-6)
                before = np.array([env.sample(f"mem_{k}") for k in range(2)])
                env.drive(f"vi_{i}", built.amplitude)
                yield env.timeout(WIDTH)
                env.drive(f"vi_{i}", 0.0)
                yield env.timeout(1e-8)
                after = np.array([env.sample(f"mem_{k}") for k in range(2)])
                seen.append((after - before) / spec.swing)

        env.process(pulses(env))
        env.run(until=3e-6)
    np.testing.assert_allclose(np.array(seen).T, weights, rtol=0.01)


def test_spreads_are_drawn_per_neuron_and_chip_and_one_changes_no_other():
    weights = np.full((400, 1), 0.5, dtype=np.float32).tolist()
    offset = LifSpread(offset=5e-3)
    both = LifSpread(offset=5e-3, r_leak=0.1)
    a, b = layer(weights, spread=offset), layer(weights, spread=both)
    assert [n.offset for n in a.neurons] == [n.offset for n in b.neurons]
    assert {n.r_leak for n in a.neurons} == {Lif().r_leak}
    n = 400
    offsets = np.array([neuron.offset for neuron in b.neurons])
    leaks = np.log([neuron.r_leak / Lif().r_leak for neuron in b.neurons])
    # A deviation of n draws is within four of its own deviations, 1/√(2 n).
    assert offsets.std() == pytest.approx(5e-3, rel=4 / math.sqrt(2 * n), abs=0)
    assert leaks.std() == pytest.approx(0.1, rel=4 / math.sqrt(2 * n))
    assert abs(np.corrcoef(offsets, leaks)[0, 1]) < 4 / math.sqrt(n)
    other = layer(weights, spread=both, chip=1)
    assert other.neurons[0] != b.neurons[0]
    assert layer(weights, spread=both).neurons == b.neurons
    assert set(layer(weights).neurons) == {layer(weights).nominal}


def test_the_transconductor_is_sized_for_the_pulse():
    """gm v width / C is the swing for a weight of 1, whatever the amplifier's volts are."""
    for scale in (1.0, 3.0):
        built = layer([[0.5 * scale, -0.25 * scale]])
        span = 99e-6  # of the preset's conductances
        largest = 0.5 * scale
        volts = built.stage.r_feedback * built.amplitude * span / largest
        spec = built.nominal
        charge = spec.gm * volts * WIDTH / (spec.c_mem + spec.c_feedback)
        assert charge == pytest.approx(spec.swing, rel=1e-9)


def test_a_bias_a_width_and_a_deviation_out_of_range_are_refused():
    d = design([[0.5, 0.5]], bias=True)
    with pytest.raises(CompileError, match="has a bias"):
        spiking_layer(d.sample(chip=0, seed=1), d.layers[0], Lif(), width=WIDTH)
    d = design([[0.5, 0.5]])
    with pytest.raises(InputError, match="width = 0"):
        spiking_layer(d.sample(chip=0, seed=1), d.layers[0], Lif(), width=0.0)
    with pytest.raises(InputError, match="gm = -1 is no deviation"):
        LifSpread(gm=-1)


def test_neurons_that_do_not_fit_a_stage_are_refused():
    from dataclasses import replace

    built = layer([[0.5], [0.25]])
    with pytest.raises(InputError, match="1 neurons for 2 outputs"):
        replace(built, neurons=built.neurons[:1]).netlist()
    odd = replace(built.nominal, supply=2.0)
    with pytest.raises(InputError, match="share one supply"):
        replace(built, neurons=(built.neurons[0], odd)).netlist()
