"""SAR ADC and clocked comparator in ngspice: transitions where the model has them."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from spicenn.circuit.tolerances import Tolerances
from spicenn.cosim import Cosimulation
from spicenn.cosim.converter import (
    SarAdc,
    convert,
    digitize,
    latch,
    sar_circuit,
    sar_subcircuits,
)
from spicenn.errors import InputError
from spicenn.periphery.adc import codes, transitions
from spicenn.periphery.comparator import comparator_instance
from spicenn.technology import Comparator, Converter, SampleHold
from spicenn.technology.library import subcircuit_text
from tests.cosim.wires import Wires

# Ladder (0.1 ns), comparator (0.2 ns) and sample and hold (0.1 ns) settle to e^-25 within
# a bit's 5 ns: a decision is off by far less than a millionth of an LSB.
COMPARATOR = Comparator(gain=1e4, delay=0.2e-9)
HOLD = SampleHold(resistance=1e3, capacitance=0.1e-12)
TIMES = {"acquire": 10e-9, "bit_time": 5e-9}
# A decision is taken where everything has settled; how it gets there may be coarse. Not with
# the trapezoidal rule: at steps far longer than the time constants it rings about the end.
COARSE = Tolerances(reltol=1e-3, vntol=1e-6, abstol=1e-12)


def converter(bits, lsb, source="vin in 0 dc 0 external", comparator=COMPARATOR, offset=0.0):
    lines, adc = sar_circuit(
        "a", "in", bits, lsb, comparator=comparator, sample_hold=HOLD, offset=offset
    )
    netlist = f"converter\n{source}\n{sar_subcircuits()}{lines}"
    return netlist, adc


def simulation(netlist):
    return Cosimulation(
        netlist,
        max_step=5e-9,
        rise=5e-11,
        method="gear",
        tolerances=COARSE,
        probes=["in", "a_held", "a_out"],
    )


def converted(netlist, adc, voltages, **times):
    """Codes of voltages, converted one after the other."""

    def run(env):
        got = []
        for v in voltages:
            env.drive("vin", float(v))
            got.append((yield from convert(env, adc, **(times or TIMES))))
        return np.array(got)

    with simulation(netlist) as env:
        process = env.process(run(env))
        env.run(until=process)
    return process.value


@pytest.mark.ngspice
@pytest.mark.slow
def test_every_code_of_a_ramp_is_the_models():
    bits, lsb = 6, 20e-3
    levels = transitions(bits, lsb, Converter())
    # A ten-thousandth of an LSB before and after each of the 63 transitions, and far outside.
    ramp = np.sort(np.concatenate([levels - 1e-4 * lsb, levels + 1e-4 * lsb, [-1.0, 1.0]]))
    netlist, adc = converter(bits, lsb)
    found = converted(netlist, adc, ramp)
    np.testing.assert_array_equal(found, codes(ramp, levels))
    assert set(found.tolist()) == set(range(-32, 32))


@pytest.mark.ngspice
@pytest.mark.parametrize("offset", [7.3e-3, -12e-3])
def test_a_comparators_offset_moves_every_transition_by_exactly_itself(offset):
    # A loop closes in on a transition, as in IEEE Std 1241-2010, 4.7.
    bits, lsb = 4, 50e-3
    netlist, adc = converter(bits, lsb, offset=offset)

    def servo(env, k):
        low, high = (k - 1.5) * lsb, (k + 0.5) * lsb
        for _ in range(17):
            middle = (low + high) / 2
            env.drive("vin", middle)
            if (yield from convert(env, adc, **TIMES)) >= k:
                high = middle
            else:
                low = middle
        return (low + high) / 2

    def search(env):
        found = []
        for k in (-7, 0, 7):
            found.append((yield env.process(servo(env, k))))
        return np.array(found)

    with simulation(netlist) as env:
        process = env.process(search(env))
        env.run(until=process)
    nominal = transitions(bits, lsb, Converter())[[0, 7, 14]]
    # 17 halvings of 2 LSB leave ± 8e-6 of one.
    np.testing.assert_allclose(process.value, nominal + offset, rtol=0, atol=1e-5 * lsb)


@pytest.mark.ngspice
def test_a_comparator_that_does_not_settle_within_a_bit_errs():
    # The control of the two above: that codes are right there is the circuit's doing.
    lsb = 50e-3
    slow = Comparator(gain=1e4, delay=20e-9)
    v = np.array([-0.37, -0.11, 0.21])
    ideal = codes(v, transitions(4, lsb, Converter()))
    netlist, adc = converter(4, lsb, comparator=slow)
    assert np.any(converted(netlist, adc, v) != ideal)
    patient = converted(netlist, adc, v, acquire=10e-9, bit_time=400e-9)
    np.testing.assert_array_equal(patient, ideal)


@pytest.mark.ngspice
def test_a_sine_is_digitized_at_the_times_of_its_samples():
    lsb, frequency = 50e-3, 1e6
    netlist, adc = converter(4, lsb, source=f"vin in 0 sin(0 0.37 {frequency!r})")
    with simulation(netlist) as env:
        process = env.process(
            digitize(env, adc, period=50e-9, start=20e-9, number=30, name="sine", **TIMES)
        )
        ds = env.run(until=process)
    taken = ds.where(ds.event_name == "sine", drop=True)
    sampled = 20e-9 + 50e-9 * np.arange(30) + TIMES["acquire"]
    np.testing.assert_allclose(taken.event_sampled, sampled, rtol=1e-12)
    np.testing.assert_array_equal(taken.event_value, process.value)
    # The capacitor follows 0.1 ns late; the switch opens in the middle of the clock's slope.
    late = HOLD.resistance * HOLD.capacitance - 0.5 * 5e-11
    v = 0.37 * np.sin(2 * math.pi * frequency * (sampled - late))
    levels = transitions(4, lsb, Converter())
    assert np.abs(v[:, None] - levels).min() > 1e-4  # no sample is near a transition
    np.testing.assert_array_equal(process.value, codes(v, levels))


@pytest.mark.ngspice
def test_a_latched_comparator_holds_its_decision_until_the_next_clock():
    netlist = "\n".join(
        [
            "latch",
            "vplus p 0 sin(0 0.5 1e6)", "vminus m 0 0.1", "vdd vdd 0 1.8",
            "vq q 0 dc 0 external", "rq q 0 1k",
            comparator_instance("c", ("p", "m", "out", "vdd"), COMPARATOR),
            subcircuit_text("comparator"),
        ]
    )  # fmt: skip
    with Cosimulation(netlist, max_step=1e-8, rise=1e-10) as env:
        clocked = latch(env, "out", threshold=0.9, period=70e-9, output="vq", high=1.8, number=28)
        env.process(clocked)
        ds = env.run(until=2.02e-6)
    made = ds.where(ds.event_name == "decision", drop=True)
    clock = 70e-9 * np.arange(1, 29)
    np.testing.assert_allclose(made.event_time, clock, rtol=1e-12)
    expected = 0.5 * np.sin(2 * math.pi * 1e6 * clock) > 0.1
    assert 5 < expected.sum() < 23
    np.testing.assert_array_equal(made.event_value, expected)
    held = np.interp(clock + 35e-9, ds.time, ds["q"])
    np.testing.assert_allclose(held, 1.8 * expected, atol=1e-6)


def test_the_controller_tries_the_bits_from_the_most_significant_on():
    # A comparator that says yes all the time in one block, never in another.
    adc = SarAdc(
        clock="clk", bits=("b1", "b0"), low=-1.0, high=2.0, comparator="out", threshold=-0.5
    )
    for block, threshold, code in (("yes", -0.5, 1), ("no", 0.5, -2)):
        wires = Wires("clk", "b1", "b0", "out")
        pins = SarAdc(**{**vars(adc), "threshold": threshold}).within(block)
        with Cosimulation({block: wires, "other": Wires("x")}, delay=1e-3) as env:
            process = env.process(convert(env, pins, acquire=2.0, bit_time=1.0))
            env.run(until=process)
        assert process.value == code
        driven = [(time, name, level) for time, name, level, _ in wires.driven]
        trials = [(3.001, "b1", 2.0), (4.001, "b0", 2.0)]
        drops = [] if code == 1 else [(4.001, "b1", -1.0), (5.001, "b0", -1.0)]
        rest = [(0.001, "clk", 1.0), (0.001, "b1", -1.0), (0.001, "b0", -1.0), (2.001, "clk", 0.0)]
        expected = rest + trials + drops
        assert sorted((name, level, round(time, 9)) for time, name, level in driven) == sorted(
            (name, level, time) for time, name, level in expected
        )


def test_bad_input_is_refused_when_it_is_given():
    adc = SarAdc(clock="clk", bits=("b0",), low=0.0, high=1.0, comparator="out", threshold=0.5)
    with Cosimulation(Wires("clk", "b0", "out")) as env:
        with pytest.raises(InputError, match="convert; wires: there is no external source 'x'"):
            convert(env, SarAdc(**{**vars(adc), "bits": ("x",)}), acquire=1.0, bit_time=1.0)
        with pytest.raises(InputError, match="convert; wires: there is no probe 'x'"):
            convert(env, SarAdc(**{**vars(adc), "comparator": "x"}), acquire=1.0, bit_time=1.0)
        with pytest.raises(InputError, match="threshold = nan is not a finite number"):
            convert(env, SarAdc(**{**vars(adc), "threshold": math.nan}), acquire=1.0, bit_time=1.0)
        with pytest.raises(InputError, match="'adc' is not a SarAdc"):
            convert(env, "adc", acquire=1.0, bit_time=1.0)  # type: ignore[arg-type]
        with pytest.raises(InputError, match=r"acquire = 0\.0 is not above 0"):
            convert(env, adc, acquire=0.0, bit_time=1.0)
        with pytest.raises(InputError, match="a conversion takes 3 s and is due every 2 s"):
            digitize(env, adc, period=2.0, acquire=1.0, bit_time=1.0)
        with pytest.raises(InputError, match="number = -1 is not a whole number"):
            digitize(env, adc, period=9.0, acquire=1.0, bit_time=1.0, number=-1)
        with pytest.raises(InputError, match=r"latch: period = -1\.0 is not above 0"):
            latch(env, "out", threshold=0.5, period=-1.0)
        with pytest.raises(InputError, match="latch; wires: there is no external source 'q'"):
            latch(env, "out", threshold=0.5, period=1.0, output="q")
    place = partial(sar_circuit, comparator=COMPARATOR, sample_hold=HOLD)
    with pytest.raises(InputError, match="sar_circuit a: bits = 0 is not a whole number"):
        place("a", "in", 0, 0.1)
    with pytest.raises(InputError, match="64 bits are more than"):
        place("a", "in", 64, 0.1)
    with pytest.raises(InputError, match="lsb = inf is not a finite number"):
        place("a", "in", 4, math.inf)
    with pytest.raises(InputError, match="load = -1 is below 0"):
        place("a", "in", 4, 0.1, load=-1)
