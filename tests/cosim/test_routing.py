"""Address events: none is lost, each comes when it should, and a pulse is worth its charge."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.cosim import Cosimulation
from spicenn.cosim.routing import AddressBus, Pulses, Route, collect
from spicenn.cosim.sources import AddressEvents, play
from spicenn.errors import InputError
from tests.cosim.wires import Wires

# Times on a grid, so that events coincide, and off it.
moments = st.lists(st.integers(1, 40).map(float) | st.floats(0.0, 40.0), min_size=1, max_size=30)


def sent(env, sink, times, address=0):
    times = np.sort(np.asarray(times))
    env.process(play(env, sink, AddressEvents(times, np.full(times.shape, address))))
    return times


@given(moments, st.floats(0.1, 5.0))
def test_n_events_hold_a_source_high_for_n_widths(times, width):
    wires = Wires("v0")
    with Cosimulation(wires) as env:
        times = sent(env, Pulses(env, ["v0"], width=width, high=2.0, low=-1.0), times)
        env.run(until=1000.0)
    levels = [level for _, _, level, _ in wires.driven]
    assert levels == [2.0, -1.0] * (len(levels) // 2)
    edges = np.array([time for time, *_ in wires.driven]).reshape(-1, 2)
    assert np.sum(edges[:, 1] - edges[:, 0]) == pytest.approx(width * len(times), rel=1e-12)
    # It rises with the event that finds it low, and with no other. (Where one comes just as a
    # pulse ends, there are two pulses without a gap.)
    joined = [edges[0]]
    for rise, fall in edges[1:]:
        if rise - joined[-1][1] < 1e-9:
            joined[-1][1] = fall
        else:
            joined.append(np.array([rise, fall]))
    expected = [[times[0], times[0] + width]]
    for time in times[1:]:
        if time - expected[-1][1] < 1e-9:
            expected[-1][1] += width
        else:
            expected.append([time, time + width])
    np.testing.assert_allclose(joined, expected, rtol=0, atol=2e-9)


@given(moments, st.sampled_from([0.0, 0.25, 1.0, 3.7]), st.data())
def test_the_bus_carries_every_event_one_a_cycle_in_the_order_of_sending(times, cycle, data):
    addresses = data.draw(st.lists(st.integers(0, 3), min_size=len(times), max_size=len(times)))
    with Cosimulation(Wires("v0")) as env:
        bus = AddressBus(env, {k: [] for k in range(4)}, cycle=cycle)
        out = bus.listen()
        times = np.sort(times)
        env.process(play(env, bus, AddressEvents(times, np.array(addresses))))
        ds = env.run(until=1000.0)
    assert [event.address for event in out.items] == addresses
    assert [event.sent for event in out.items] == pytest.approx(times.tolist(), rel=1e-12)
    left, free = [], 0.0
    for time in times:
        free = max(time, free) + cycle
        left.append(free)
    assert [event.time for event in out.items] == pytest.approx(left, rel=1e-12)
    np.testing.assert_array_equal(ds.event_value, addresses)
    np.testing.assert_allclose(ds.event_time, left, rtol=1e-12)
    np.testing.assert_allclose(ds.event_sent, times, rtol=1e-12)
    assert bus.waiting == 0


def test_every_route_has_its_own_delay_and_the_bus_and_the_coupling_add_theirs():
    wires = Wires("va", "vb", "vc")
    table = {7: [Route(source="va"), Route(source="VB", delay=0.5)], 9: [Route(source="vc")]}
    with Cosimulation(wires, delay=1e-3) as env:
        bus = AddressBus(env, table, width=0.125, rise=0.01, cycle=0.25)
        env.process(play(env, bus, AddressEvents(np.array([1.0, 1.0]), np.array([7, 9]))))
        env.run(until=10.0)
    rises = {name: time for time, name, level, _ in wires.driven if level == 1.0}
    assert rises == pytest.approx({"va": 1.251, "vb": 1.751, "vc": 1.501}, rel=1e-12)
    assert {rise for *_, rise in wires.driven} == {0.01}


@pytest.mark.ngspice
def test_overlapping_pulses_lose_no_charge_in_a_circuit():
    # 1 µA into 1 pF: 10 ns are 10 mV, for each of seven events, however they fall.
    netlist = "integrator\niin 0 mem dc 0 external\ncmem mem 0 1p\nrleak mem 0 1e12\n"
    times = np.array([5e-9, 20e-9, 23e-9, 23e-9, 80e-9, 90e-9, 130e-9])
    with Cosimulation(netlist, max_step=1e-9) as env:
        sent(env, Pulses(env, ["iin"], width=10e-9, high=1e-6), times)
        env.run(until=200e-9)
        ds = env.dataset()
        assert env.sample("mem") == pytest.approx(70e-3, rel=1e-6)
    # Contiguous pulses (80 ns, 90 ns) are one rise to 20 mV over 20 ns.
    at = np.interp([79e-9, 101e-9], ds.time, ds["mem"])
    assert at[1] - at[0] == pytest.approx(20e-3, rel=1e-4)


@pytest.mark.ngspice
def test_spikes_of_one_block_are_pulses_of_another_with_their_delays():
    ramp = "layer1\niin 0 mem dc 1u external\ncmem mem 0 1p\n.ic v(mem)=0\n"
    target = "layer2\nvin0 in0 0 dc 0 external\nrin in0 out 1k\ncout out 0 1f\n"
    with Cosimulation(
        {"layer1": ramp, "layer2": target},
        max_step=1e-9, delay=0.5e-9, initial_conditions=True, rise=1e-11,
    ) as env:  # fmt: skip
        bus = AddressBus(
            env, {3: [Route(source="layer2:vin0", delay=7e-9)]}, width=5e-9, cycle=2e-9
        )
        env.process(collect(env, ["layer1:mem"], bus, above=0.05, addresses=[3]))
        ds = env.run(until=100e-9)
    events = {
        str(kind): float(time)
        for kind, time in zip(ds.event_kind.values[:3], ds.event_time.values[:3], strict=True)
    }
    assert events["crossing"] == pytest.approx(50e-9, rel=1e-5)  # 1 µA into 1 pF, 50 mV
    assert events["emit"] == pytest.approx(events["crossing"] + 2e-9, rel=1e-12)
    assert events["drive"] == pytest.approx(events["crossing"] + 9e-9, rel=1e-12)
    rising = slice(0, int(np.argmax(ds["layer2:in0"].values)) + 1)
    half = np.interp(0.5, ds["layer2:in0"][rising], ds.time_layer2[rising])
    assert half == pytest.approx(events["drive"] + 0.5e-9 + 0.5e-11, rel=0, abs=1e-13)


def test_bad_input_is_refused_when_it_is_given():
    with Cosimulation(Wires("v0", "v1")) as env:
        with pytest.raises(InputError, match="pulses; wires: there is no external source 'v2'"):
            Pulses(env, ["v0", "v2"], width=1.0)
        with pytest.raises(InputError, match="'v0' is not a list of sources"):
            Pulses(env, "v0", width=1.0)
        with pytest.raises(InputError, match=r"width = 0\.0 is not above 0"):
            Pulses(env, ["v0"], width=0.0)
        with pytest.raises(InputError, match="high = nan is not a finite number"):
            Pulses(env, ["v0"], width=1.0, high=float("nan"))
        with pytest.raises(InputError, match="a slope of 2 s does not fit a pulse of 1 s"):
            Pulses(env, ["v0"], width=1.0, rise=2.0)
        with pytest.raises(InputError, match="the routing table has no address"):
            AddressBus(env, {})
        with pytest.raises(InputError, match=r"bus aer: address -1 is not a whole number"):
            AddressBus(env, {-1: []})
        with pytest.raises(InputError, match="bus aer: width is missing"):
            AddressBus(env, {0: [Route(source="v0")]})
        with pytest.raises(InputError, match=r"bus out, address 4.*no external source 'w'"):
            AddressBus(env, {4: [Route(source="w")]}, width=1.0, name="out")
        with pytest.raises(InputError, match=r"address 4: delay = -1\.0 is below 0"):
            AddressBus(env, {4: [Route(source="v0", delay=-1.0)]}, width=1.0)
        with pytest.raises(InputError, match="'v0' is not a Route"):
            AddressBus(env, {4: ["v0"]}, width=1.0)  # type: ignore[list-item]
        with pytest.raises(InputError, match=r"cycle = -1\.0 is below 0"):
            AddressBus(env, {0: []}, cycle=-1.0)
        bus = AddressBus(env, {2: [], 5: []})
        with pytest.raises(InputError, match=r"no address 3 \(there are 2, from 2 to 5"):
            bus.send(3)
        with pytest.raises(InputError, match="collect: 1 addresses for 2 nodes"):
            collect(env, ["v0", "v1"], bus, above=0.5, addresses=[2])
        with pytest.raises(InputError, match="collect: there is no address 0"):
            collect(env, ["v0", "v1"], bus, above=0.5)
        with pytest.raises(InputError, match="collect: a node is named twice"):
            collect(env, ["v0", "V0"], bus, above=0.5, addresses=[2, 5])
        with pytest.raises(InputError, match="collect; wires: there is no probe 'out'"):
            collect(env, ["out"], bus, above=0.5, addresses=[2])
