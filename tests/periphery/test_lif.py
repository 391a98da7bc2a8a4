"""The spiking neuron's circuit against its closed forms, alone and stepped."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from spicenn.cosim import Cosimulation
from spicenn.errors import InputError
from spicenn.periphery.lif import Lif, first_spike, lif_instance
from spicenn.technology.library import subcircuit_text

START = 1e-7


def circuit(spec):
    return "\n".join([
        "one neuron",
        subcircuit_text("lif"),
        f"vdd vdd 0 {spec.supply!r}",
        "vin in 0 dc 0 external",
        lif_instance("n", ("in", "mem", "spk", "vdd"), spec),
    ])  # fmt: skip


def spikes(spec, v, until, probes=("mem", "spk")):
    """Times of spikes after a step of the input, and the record."""
    with Cosimulation(
        circuit(spec), max_step=2e-7, tolerance=1e-11, rise=1e-10, probes=list(probes)
    ) as env:
        store = env.monitor(["spk"], above=spec.supply / 2)

        def step(env):
            yield env.timeout(START)
            env.drive("vin", v)

        env.process(step(env))
        record = env.run(until=START + until)
        return np.array([spike.time for spike in store.items]) - START, record


@pytest.mark.ngspice
@pytest.mark.parametrize("v", [0.02, 0.05, 0.1, 0.2])
def test_first_spike_and_rate_are_the_closed_forms(v):
    """From twice rheobase on.

    A spike comes 12 to 30 ns after the membrane has met the threshold: the pair's output
    node of 5 fF has to cross 0.8 V, by a current that grows with what the membrane is
    beyond. The reset ends before the formula's time: its current source is λ (v_supply +
    v_rest + v_t) / 2 = 7 % above its current, and the switch lets go of a membrane that is
    driven by a slope s when its overdrive is sqrt(s / κ), κ = 10 β / 2 C; what is left is
    within 4 %.
    """
    spec = Lif()
    closed = first_spike(spec, v)
    times, _ = spikes(spec, v, 2.2 * (closed + spec.refractory))
    delay = times[0] - closed
    assert 12e-9 < delay < 30e-9
    period = float(np.diff(times)[0])
    slope = spec.gm * v / (spec.c_mem + spec.c_feedback)
    catch = 10 * spec.beta / (2 * (spec.c_mem + spec.c_feedback))
    mean = (spec.supply + spec.v_rest + spec.threshold) / 2
    held = spec.refractory / (1 + 0.05 * mean)
    held -= math.sqrt(slope / catch) * spec.c_ref / spec.i_ref
    assert period == pytest.approx(closed + delay + held, abs=0.04 * spec.refractory)
    assert period < closed + spec.refractory + delay


@pytest.mark.ngspice
def test_the_refractory_time_goes_as_the_reset_current():
    """Twice the current, half the time, within 2 %."""
    times = [spikes(Lif(i_ref=i), 0.1, 4.5e-6)[0] for i in (50e-9, 100e-9)]
    held = [float(np.diff(t)[0] - t[0]) for t in times]
    assert Lif(i_ref=100e-9).refractory == pytest.approx(Lif().refractory / 2, rel=1e-12, abs=0)
    assert held[1] / held[0] == pytest.approx(0.5, abs=0.02)


@pytest.mark.ngspice
def test_below_rheobase_it_comes_to_where_its_leak_holds_it_and_never_fires():
    spec = Lif()
    v = 0.9 * spec.swing / (spec.gm * spec.r_leak)
    assert first_spike(spec, v) == math.inf
    times, record = spikes(spec, v, 8e-5)
    assert len(times) == 0
    final = spec.v_rest + spec.gm * v * spec.r_leak
    assert float(record["mem"][-1]) == pytest.approx(final, abs=2e-3)


@pytest.mark.ngspice
@pytest.mark.parametrize(("c_ref", "v", "fires"), [
    (50e-15, 0.0105, False), (50e-15, 0.014, True), (200e-15, 0.0105, True),
])  # fmt: skip
def test_a_membrane_that_creeps_to_its_threshold_needs_a_large_reset_capacitor(c_ref, v, fires):
    """What a user has to know: below some 0.015 V/µs the reset begins before the output rises.

    Its own discharge then holds the membrane at the threshold, unless cref is large; slopes
    of input pulses are a hundred times that.
    """
    spec = Lif(c_ref=c_ref)
    slope = (spec.gm * v - spec.swing / spec.r_leak) / (spec.c_mem + spec.c_feedback)
    assert (slope > 0.015e6) == (v > 0.012)
    times, _ = spikes(spec, v, first_spike(spec, v) + 2e-6)
    assert bool(len(times)) == fires


@pytest.mark.ngspice
def test_the_floor_catches_a_membrane_by_a_square_law():
    """gm |v| = ½ 10 β (v_floor - v_mem)² and the leak: within 3 mV for λ and the leak."""
    spec = Lif()
    _, record = spikes(spec, -0.1, 3e-6)
    below = math.sqrt(2 * spec.gm * 0.1 / (10 * spec.beta))
    assert float(record["mem"][-1]) == pytest.approx(spec.v_floor - below, abs=3e-3)


@pytest.mark.ngspice
def test_an_offset_moves_the_threshold():
    """Within 3 ns: where the membrane is slower the comparator takes longer."""
    spec = Lif()
    with_offset = replace(spec, offset=0.05)
    (a, *_), _ = spikes(spec, 0.1, 2e-6)
    (b, *_), _ = spikes(with_offset, 0.1, 2e-6)
    expected = first_spike(with_offset, 0.1) - first_spike(spec, 0.1)
    assert b - a == pytest.approx(expected, abs=3e-9)


def test_values_out_of_range_and_levels_out_of_order_are_refused():
    with pytest.raises(InputError, match=r"c_mem = 0\.0 is out of range"):
        Lif(c_mem=0.0)
    with pytest.raises(InputError, match="gm = nan"):
        Lif(gm=math.nan)
    with pytest.raises(InputError, match="not in this order"):
        Lif(v_floor=0.6)
    with pytest.raises(InputError, match="not in this order"):
        Lif(v_th=1.5)
