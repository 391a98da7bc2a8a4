"""Spike sources: trains of the right statistics, codes of the right times, nothing drifts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.cosim import Cosimulation
from spicenn.cosim.routing import AddressBus, Pulses
from spicenn.cosim.sources import (
    AddressEvents,
    latency_code,
    play,
    poisson,
    rate_code,
    regular,
    spikes,
)
from spicenn.errors import InputError
from tests.cosim.wires import Wires


def passed(start, addresses=8, until=100.0):
    """Run a process that sends to a bus; (times, addresses) of what passed it."""
    with Cosimulation(Wires("v0")) as env:
        bus = AddressBus(env, {k: [] for k in range(addresses)})
        out = bus.listen()
        env.process(start(env, bus))
        env.run(until=until)
    return [event.time for event in out.items], [event.address for event in out.items]


def of(events, address):
    return events.times[events.addresses == address]


def test_trains_of_a_rate_code_are_poisson():
    # 200 trains of intensity 0.5 over 50 s at 2/s: counts of mean and variance 50,
    # intervals exponential. Bounds: four standard errors.
    events = rate_code(np.full((10, 20), 0.5), 50.0, rate=2.0, seed=3)
    counts = np.bincount(events.addresses, minlength=200)
    assert counts.mean() == pytest.approx(50, abs=4 * math.sqrt(50 / 200))
    assert counts.var() == pytest.approx(50, abs=4 * 50 * math.sqrt(2 / 199))
    intervals = np.concatenate([np.diff(of(events, k)) for k in range(200)])
    assert np.mean(intervals > 1.0) == pytest.approx(
        math.exp(-1), abs=4 * math.sqrt(0.25 / intervals.size) + 0.01  # short ones fit more often
    )  # fmt: skip
    assert abs(np.corrcoef(counts[:100], counts[100:])[0, 1]) < 4 / math.sqrt(100)
    assert np.all(np.diff(events.times) >= 0)
    assert events.times.max() < 50.0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.floats(0.1, 10.0), st.data())
def test_a_train_is_its_own_whatever_the_others_are_and_how_long_it_lasts(x, duration, data):
    events = rate_code(x, duration, rate=3.0, seed=5, trial=2)
    k = data.draw(st.integers(0, len(x) - 1))
    other = [0.25] * len(x)
    other[k] = x[k]
    longer = rate_code(other, 2 * duration, rate=3.0, seed=5, trial=2)
    mine = of(longer, k)
    np.testing.assert_array_equal(of(events, k), mine[mine < duration])
    # Twice the rate is the same train in half the time.
    fast = rate_code(x, duration / 2, rate=6.0, seed=5, trial=2)
    np.testing.assert_allclose(2 * of(fast, k), of(events, k), rtol=1e-12)


def test_another_seed_or_trial_is_another_train():
    trains = [
        tuple(rate_code([1.0], 5.0, rate=4.0, seed=seed, trial=trial).times)
        for seed in (0, 1)
        for trial in (0, 1)
    ]
    assert len(set(trains)) == 4


def test_the_poisson_process_sends_what_the_rate_code_tells():
    x = np.array([0.2, 0.0, 1.0])
    events = rate_code(x, 20.0, rate=2.0, seed=11, start=1.0)
    times, addresses = passed(
        lambda env, bus: poisson(env, bus, 2.0 * x, seed=11, start=1.0, until=21.0)
    )
    np.testing.assert_allclose(times, events.times, rtol=1e-12)
    np.testing.assert_array_equal(addresses, events.addresses)
    assert len(times) > 20


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
    st.floats(0.001, 0.9),
    st.none() | st.floats(0.1, 10),
)
def test_the_brighter_the_earlier_and_at_most_one_spike_each(x, threshold, tau):
    events = latency_code(x, 2.0, threshold=threshold, tau=tau, start=1.0)
    x = np.array(x)
    assert len(set(events.addresses)) == len(events.addresses)
    assert np.all(np.diff(events.times) >= 0)
    assert np.all(np.diff(x[events.addresses]) <= 0)
    assert np.all((events.times >= 1.0) & (events.times <= 3.0 * (1 + 1e-15)))
    assert np.all(x[events.addresses] > threshold)
    if tau is None:
        assert len(events.times) == np.count_nonzero(x > threshold)


def test_the_linear_code_runs_from_the_brightest_to_the_threshold():
    events = latency_code([[0.6, 1.0], [0.2, 0.1]], 4.0, threshold=0.2)
    np.testing.assert_array_equal(events.addresses, [1, 0])
    np.testing.assert_allclose(events.times, [0.0, 2.0])
    # The lower address first where they spike together.
    np.testing.assert_array_equal(latency_code([0.5, 0.9, 0.5], 1.0).addresses, [1, 0, 2])


@pytest.mark.ngspice
def test_the_logarithmic_code_is_when_an_rc_integrator_fires():
    x = [0.9, 0.35, 0.6]
    events = latency_code(x, 1e-5, threshold=0.3, tau=1e-6)
    lines = ["integrators"]
    for k in range(3):
        lines += [f"v{k} in{k} 0 {x[k]}", f"r{k} in{k} m{k} 1k", f"c{k} m{k} 0 1n"]
    netlist = "\n".join([*lines, ".ic v(m0)=0 v(m1)=0 v(m2)=0"])
    with Cosimulation(netlist, max_step=1e-8, initial_conditions=True) as env:
        store = env.monitor(["m0", "m1", "m2"], above=0.3)
        env.run(until=1e-5)
    assert [int(spike.node[1]) for spike in store.items] == events.addresses.tolist()
    # The trapezoidal rule's own error at a hundredth of tau, h² / 12, is 8.3e-6.
    np.testing.assert_allclose([spike.time for spike in store.items], events.times, rtol=1e-5)


def test_a_regular_train_does_not_drift():
    period = 0.1
    times, addresses = passed(
        lambda env, bus: regular(env, bus, period, address=3, start=0.05, number=900)
    )
    assert set(addresses) == {3}
    exact = 0.05 + period * np.arange(900)
    # A sum of 900 periods is off by 1e-12.
    np.testing.assert_allclose(times, exact, rtol=4e-16)
    endless, _ = passed(lambda env, bus: regular(env, bus, 2.0), until=9.0)
    assert endless == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_events_are_played_in_the_order_of_their_times():
    events = AddressEvents(np.array([3.0, 1.0, 3.0]), np.array([1, 2, 0]))
    times, addresses = passed(lambda env, bus: play(env, bus, events))
    assert (times, addresses) == ([1.0, 3.0, 3.0], [2, 1, 0])
    assert passed(lambda env, bus: spikes(env, bus, [2.0, 0.5], address=4)) == ([0.5, 2.0], [4, 4])
    assert passed(lambda env, bus: spikes(env, bus, [])) == ([], [])


@pytest.mark.ngspice
def test_a_code_of_pixels_drives_a_circuits_sources():
    netlist = "pixels\nv0 a 0 dc 0 external\nra a 0 1k\nv1 b 0 dc 0 external\nrb b 0 1k\n"
    events = latency_code([0.5, 1.0], 1e-7, threshold=0.0, start=1e-8)
    with Cosimulation(netlist, max_step=1e-9, rise=1e-10) as env:
        env.process(play(env, Pulses(env, ["v0", "v1"], width=5e-9, high=1.2), events))
        ds = env.run(until=1.5e-7)
    for node, time in (("a", 6e-8), ("b", 1e-8)):
        high = ds.time.values[ds[node].values > 0.6]
        assert high.min() == pytest.approx(time + 0.5e-10, rel=0, abs=0.6e-10)
        area = np.trapezoid(ds[node].values, ds.time.values)
        assert area == pytest.approx(1.2 * 5e-9, rel=1e-9)


def test_a_process_is_called_by_its_name_in_errors():
    class Broken(AddressBus):
        def send(self, address):
            raise InputError("no bus")

    with Cosimulation(Wires("v0")) as env:
        env.process(regular(env, Broken(env, {0: []}), 1.0, start=2.0))
        with pytest.raises(InputError, match="process regular, t = 2 s: no bus"):
            env.run(until=5.0)


def test_bad_input_is_refused_when_it_is_given():
    with Cosimulation(Wires("v0")) as env:
        pulses = Pulses(env, ["v0"], width=1.0)
        with pytest.raises(InputError, match=r"rate_code, address 1: intensity 1\.5"):
            rate_code([0.5, 1.5], 1.0, rate=1.0, seed=0)
        with pytest.raises(InputError, match="address 0: intensity nan"):
            latency_code([math.nan], 1.0)
        with pytest.raises(InputError, match=r"rate = -1\.0 is not above 0"):
            rate_code([0.5], 1.0, rate=-1.0, seed=0)
        with pytest.raises(InputError, match="seed -1"):
            rate_code([0.5], 1.0, rate=1.0, seed=-1)
        with pytest.raises(InputError, match=r"no intensity has a latency at a threshold of 1\.0"):
            latency_code([0.5], 1.0, threshold=1.0)
        with pytest.raises(InputError, match="threshold of 0"):
            latency_code([0.5], 1.0, threshold=0.0, tau=1.0)
        with pytest.raises(InputError, match="poisson, address 0: rate -3"):
            poisson(env, pulses, -3.0, seed=0)
        with pytest.raises(InputError, match="poisson: there is no address 1"):
            poisson(env, pulses, [1.0, 1.0], seed=0)
        with pytest.raises(InputError, match="seed -1"):
            poisson(env, pulses, [1.0], seed=-1)
        with pytest.raises(InputError, match="until = nan"):
            poisson(env, pulses, [1.0], seed=0, until=math.nan)
        with pytest.raises(InputError, match="period = 0 is not above 0"):
            regular(env, pulses, 0)
        with pytest.raises(InputError, match="number = 0 is not a whole number of 1 or more"):
            regular(env, pulses, 1.0, number=0)
        with pytest.raises(InputError, match="regular: there is no address 5"):
            regular(env, pulses, 1.0, address=5)
        with pytest.raises(InputError, match=r"play, event 1: a spike cannot be at -1\.0 s"):
            play(env, pulses, AddressEvents(np.array([1.0, -1.0]), np.array([0, 0])))
        with pytest.raises(InputError, match="a spike cannot be at nan s"):
            spikes(env, pulses, [math.nan])
        with pytest.raises(InputError, match=r"times are \(2,\), addresses \(1,\)"):
            play(env, pulses, AddressEvents(np.array([1.0, 2.0]), np.array([0])))
        with pytest.raises(InputError, match="addresses are float64, not integers"):
            play(env, pulses, AddressEvents(np.array([1.0]), np.array([0.5])))
