"""Circuits in ngspice under one clock: the same network as one circuit, and closed forms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import spicenn as sn
from spicenn.circuit.stepped import stepped
from spicenn.cosim.block import Block
from spicenn.engines.ngspice.stepped import SteppedCircuit
from tests.cosim.fakes import Exponentials

pytestmark = pytest.mark.ngspice

# Neurons whose membranes follow a supply through 1 kΩ: they charge to 3/4 V, fire, and are
# discharged to 1/4 V. A spike reaches the next one as a pulse through 2 kΩ.
TAUS = (0.8e-6, 1.0e-6, 1.3e-6)
SUPPLY, REST, PULSE = 1.4, -0.4, 2e-7
STEP, RISE, DELAY = 5e-9, 1e-10, 1.5e-7
PERIOD = 2e-6
UNTIL = 12 * PERIOD
RC = "rc\nvin in 0 dc 0 external\nr1 in out 1k\nc1 out 0 1n\n"  # 1 µs


def neuron(k: int) -> str:
    return (
        f"vs{k} s{k} 0 dc 0 external\nvp{k} p{k} 0 dc 0 external\n"
        f"rs{k} s{k} m{k} 1k\nrp{k} p{k} m{k} 2k\nc{k} m{k} 0 {TAUS[k] / 1e3!r}\n"
    )


def in_one() -> str:
    return "ring\n" + "".join(neuron(k) for k in range(3))


def apart() -> dict[str, Any]:
    return {f"b{k}": f"neuron {k}\n{neuron(k)}" for k in range(3)}


class Membrane(Exponentials):
    """A neuron in closed form; a slope is taken for a step in its middle."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.inputs = {"s": 0.0, "p": 0.0}

    def check_probe(self, probe: str) -> str:
        return super().check_probe(f"n{'0' if probe[0] == 'm' else probe}")

    def check_source(self, source: str) -> str:
        assert source[1] in self.inputs
        return source

    def drive(self, source: str, level: float, start: float, rise: float) -> None:
        self.inputs[source[1]] = level
        together = (2 * self.inputs["s"] + self.inputs["p"]) / 3
        # Slopes begin a thousandth late.
        super().drive("v0", together, start + 0.501 * rise, rise)


def membrane(k: int) -> Membrane:
    return Membrane((TAUS[k] * 2 / 3,), name=f"b{k}")


def fire(env: sn.Cosimulation, k: int, at: str) -> Generator[Any, Any, Any]:
    """Charge, fire, have the next one pulsed, discharge, for ever."""
    own, other = at.format(k), (k + 1) % 3
    while True:
        env.drive(f"{own}vs{k}", SUPPLY)
        yield env.crossing(f"{own}m{k}", above=0.75)
        env.emit("spike", k)
        env.process(pulse(env, f"{at.format(other)}vp{other}"))
        env.drive(f"{own}vs{k}", REST)
        yield env.crossing(f"{own}m{k}", below=0.25)
        env.emit("reset", k)


def pulse(env: sn.Cosimulation, source: str) -> Generator[Any, Any, Any]:
    env.drive(source, 1.0)
    yield env.timeout(PULSE)
    env.drive(source, 0.0)


def ring(
    circuit: Any, *, until: float = UNTIL, step: float = STEP,
    look: Callable[[sn.Cosimulation], None] = lambda env: None,
) -> tuple[NDArray[np.float64], list[tuple[str, float]], xr.Dataset]:  # fmt: skip
    """When spikes and resets were, what they were, and the record."""
    at = "b{}:" if isinstance(circuit, dict) else ""
    with sn.Cosimulation(circuit, max_step=step, rise=RISE, delay=DELAY) as env:
        look(env)
        for k in range(3):
            env.process(fire(env, k, at), name=f"neuron {k}")
        ds = env.run(until=until)
    emitted = (ds["event_kind"] == "emit").values
    names, values = ds["event_name"].values[emitted], ds["event_value"].values[emitted]
    what = list(zip(names.tolist(), values.tolist(), strict=True))
    return ds["event_time"].values[emitted], what, ds


def check_near_exact(times: NDArray[np.float64], exact: NDArray[np.float64], step: float) -> None:
    """Times of the ring are off by what its integration makes of it, and no more.

    A trapezoidal step h takes exp(-x), x = h/τ, for (1 - x/2)/(1 + x/2) = exp(-x - x³/12 …):
    a membrane moves faster by up to x²/12. Behind a corner ngspice's first step is of first
    order and a tenth of the slope, which is that part of the slope taken for its end: early
    by 0.1²/2 of its duration, at either corner. Each neuron hears of four slopes a period.
    A pulse of 1/3 V that comes early by d moves the crossing of whom it is for, either way, by
    up to d/3 (1 - exp(-PULSE/τ))/(2/3 SUPPLY - 3/4) < 0.6 d.
    """
    off = exact * (step / (min(TAUS) * 2 / 3)) ** 2 / 12
    off += 4 * np.ceil(exact / PERIOD) * 0.01 * RISE
    assert np.all(np.abs(times - exact) <= 1.6 * off)


@pytest.mark.slow
def test_a_ring_of_neurons_apart_is_the_same_network_as_in_one_circuit():
    """Three processes of ngspice exchange their events; the other network is one circuit.

    What they choose for steps differs, and so do their times, but by less than either does
    from the closed form; the more so the shorter the steps.
    """
    exact, what, _ = ring({f"b{k}": membrane(k) for k in range(3)})
    assert len(what) > 70
    assert {name for name, _ in what} == {"spike", "reset"}
    assert {k for _, k in what} == {0, 1, 2}
    differences = []
    for step in (2 * STEP, STEP):
        together, said, _ = ring(in_one(), step=step)
        separate, said_apart, ds = ring(apart(), step=step)
        assert said == what
        assert said_apart == what
        check_near_exact(together, exact, step)
        check_near_exact(separate, exact, step)
        differences.append(np.abs(separate - together).max())
        ends = {float(ds[f"time_b{k}"].values[-1]) for k in range(3)}
        assert min(ends) >= UNTIL * (1 - 1e-12)
        assert max(ends) <= (UNTIL + DELAY) * (1 + 1e-12)
    assert differences[1] < 1e-5 * PERIOD
    assert differences[1] < differences[0]


def test_circuits_that_run_at_the_same_time_give_the_same_events_in_every_run():
    """To the last bit: which process is faster does not matter."""
    first, again = (ring(apart(), until=4 * PERIOD) for _ in range(2))
    assert len(first[1]) > 20
    assert first[0].tobytes() == again[0].tobytes()
    assert first[1] == again[1]
    xr.testing.assert_identical(first[2], again[2])


def test_a_neuron_in_closed_form_takes_a_circuits_place_in_the_ring():
    exact, what, _ = ring({f"b{k}": membrane(k) for k in range(3)})
    times, said, ds = ring({**apart(), "b1": membrane(1)})
    assert said == what
    check_near_exact(times, exact, STEP)
    assert "b1:n0" in ds
    assert "b2:m2" in ds


def test_all_circuits_are_sent_on_before_any_is_waited_for():
    """So they run at the same time; and windows are as long as the delay, not as a step."""
    log: list[tuple[str, str]] = []

    def look(env: sn.Cosimulation) -> None:
        for name, block in env.blocks.items():
            spy(log, name, block)

    _, what, ds = ring(apart(), until=4 * PERIOD, look=look)
    underway: set[str] = set()
    most, waiting = [0], False
    for call, name in log:
        if call == "begin":
            assert not waiting, "one is sent on while another one, begun before, was waited for"
            assert name not in underway
            underway.add(name)
            most[-1] = len(underway)
        else:
            underway.remove(name)
            waiting = bool(underway)
            if not underway:
                most.append(0)
    together = sum(count == 3 for count in most)
    assert together >= 0.5 * 4 * PERIOD / DELAY
    points = sum(ds.sizes[f"time_b{k}"] for k in range(3))
    assert len(log) / 2 < points / 5
    assert what


def spy(log: list[tuple[str, str]], name: str, block: Block) -> None:
    begin, finish = block.begin, block.finish

    def begins(until: float) -> None:
        log.append(("begin", name))
        begin(until)

    def finishes() -> list[tuple[int, float]]:
        log.append(("finish", name))
        return finish()

    block.begin, block.finish = begins, finishes  # type: ignore[method-assign]


def charged(time: float) -> float:
    """An RC of 1 µs that was driven to 1 V at 0 s."""
    return -math.expm1(-(time - DELAY - 0.501 * RISE) / 1e-6)


def test_a_circuit_that_is_ahead_is_sampled_now_and_looked_back_at():
    """The one is stopped by its crossing, the other one has gone on to the window's end.

    Between points of distance h its record is a straight line: a value is low by up to
    h²/(8 τ²), a crossing late by up to h²/(8 τ).
    """
    found: list[tuple[float, float, float]] = []
    straight = (STEP / 1e-6) ** 2 / 8

    with sn.Cosimulation(
        {"slow": RC, "fast": RC}, max_step=STEP, rise=RISE, delay=DELAY
    ) as env:  # fmt: skip
        slow = env.blocks["slow"]

        def watcher(env):
            env.drive("slow:vin", 1.0)
            env.drive("fast:vin", 1.0)
            for level in (0.3, 0.52, 0.7):
                now = yield env.crossing("fast:out", above=level)
                assert now == env.now
                ahead = slow.time - now
                assert 0.05 * DELAY < ahead <= DELAY
                assert env.sample("slow:out") == pytest.approx(
                    charged(now), rel=0, abs=straight + 1e-5
                )
                # Passed already where the block is, not yet where the clock is.
                for part in (0.25, 0.75):
                    due = now + part * ahead
                    later = env.crossing("slow:out", above=charged(due))
                    found.append((due, (yield later), env.now))
                    assert slow.time >= due
                # Passed before now: it has to come back, and does not.
                old = env.crossing("slow:out", above=charged(now - 0.1 * DELAY))
                yield env.timeout(0.5 * DELAY)
                assert not old.triggered

        env.process(watcher(env))
        env.run(until=3e-6)
    assert len(found) == 6
    for due, time, now in found:
        assert time == now
        assert time == pytest.approx(due, rel=0, abs=straight * 1e-6 + 1e-5 * 1e-6)


def test_a_monitor_of_several_circuits_delivers_their_spikes_in_the_order_of_time():
    with sn.Cosimulation(
        {f"b{k}": RC.replace("1n", f"{1 + 0.1 * k}n") for k in range(3)},
        max_step=STEP, rise=RISE, delay=DELAY,
    ) as env:  # fmt: skip
        store = env.monitor([f"b{k}:out" for k in (2, 0, 1)], above=0.5)
        got = []

        def reader(env):
            for k in range(3):
                env.drive(f"b{k}:vin", 1.0)
            while True:
                spike = yield store.get()
                assert spike.time == env.now
                got.append(spike)

        env.process(reader(env))
        env.run(until=2e-6)
    assert [spike.node for spike in got] == ["b0:out", "b1:out", "b2:out"]
    exact = [
        DELAY + 0.501 * RISE + (1 + 0.1 * k) * 1e-6 * math.log(2) for k in range(3)
    ]  # fmt: skip
    times = [spike.time for spike in got]
    np.testing.assert_allclose(times, exact, rtol=1e-5)
    assert all(a < b for a, b in itertools.pairwise(times))


@pytest.mark.slow
def test_circuits_on_a_long_way_are_all_listened_to_or_they_would_wait_for_each_other():
    """What each records on it is more than a pipe holds, and is told every quarter of a second.

    The other is heard of while the one that is waited for first is under way.
    """
    heard: list[str] = []

    def circuit(name: str) -> SteppedCircuit:
        return SteppedCircuit(
            stepped(RC), max_step=1e-8, name=name, progress=lambda _: heard.append(name)
        )

    blocks = {name: circuit(name) for name in "ab"}
    with sn.Cosimulation(blocks, delay=1.0) as env:
        env.run(until=2e-3)
    first = heard[: len(heard) - heard[::-1].index("a")]
    assert first.count("a") >= 3
    assert first.count("b") >= 0.5 * first.count("a")


def test_every_drive_under_way_in_a_long_delay_arrives():
    """Twenty are sent before the first begins: each holds the source in its own stretch."""
    with sn.Cosimulation(RC, max_step=STEP, delay=1e-6, rise=RISE) as env:

        def driver(env):
            for k in range(20):
                env.drive("vin", float(k))
                yield env.timeout(5e-8)

        env.process(driver(env))
        ds = env.run(until=3e-6)
    middles = 1e-6 + 5e-8 * (np.arange(20) + 0.5)
    np.testing.assert_allclose(np.interp(middles, ds["time"], ds["in"]), range(20), atol=1e-9)
