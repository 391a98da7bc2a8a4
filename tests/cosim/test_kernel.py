"""The kernel against an analog side in closed form: nothing lost, doubled, late or out of order."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Generator, Sequence
from types import FrameType
from typing import Any

import numpy as np
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

import spicenn as sn
from spicenn.errors import ConvergenceError, CosimulationError, InputError, NoCrossing
from tests.cosim.fakes import Exponentials

# Sums of a few doubles and a logarithm.
_EXACT = 1e-13


def one(*taus: float, delay: float = 0.0, **options: Any) -> sn.Cosimulation:
    return sn.Cosimulation(Exponentials(taus), rise=0.0, delay=delay, **options)


def events(env: sn.Cosimulation) -> list[tuple[Any, ...]]:
    ds = env.dataset()
    columns = [ds[f"event_{name}"].values.tolist() for name in ("time", "kind", "name", "process")]
    values = [None if math.isnan(value) else value for value in ds["event_value"].values.tolist()]
    return list(zip(*columns, values, strict=True))


def relaxation(
    env: sn.Cosimulation, node: str = "n0", source: str = "v0"
) -> Generator[Any, Any, Any]:
    """Charge to 3/4 of the supply, discharge to 1/4, for ever."""
    while True:
        env.drive(source, 1.0)
        yield env.crossing(node, above=0.75)
        env.drive(source, 0.0)
        yield env.crossing(node, below=0.25)


# Times.


def test_a_relaxation_oscillator_keeps_its_closed_form_over_a_thousand_periods():
    """Charging from 0 to 3/4 takes tau ln 4, from then on every half period is tau ln 3."""
    env = one(2e-6)
    env.process(relaxation(env))
    ds = env.run(until=2e-6 * (math.log(4) + 2000.5 * math.log(3)))
    times = ds["event_time"].values[ds["event_kind"].values == "crossing"]
    expected = 2e-6 * (math.log(4) + math.log(3) * np.arange(2001))
    np.testing.assert_allclose(times, expected, rtol=1e-12)


def test_the_value_of_a_crossing_is_the_time_at_which_it_is_delivered_to_the_last_bit():
    env = one(0.3)
    seen = []

    def watcher(env):
        env.drive("v0", 1.0)
        for level in np.linspace(0.01, 0.99, 99):
            time = yield env.crossing("n0", above=level)
            seen.append((time, env.now))

    env.process(watcher(env))
    env.run(until=10.0)
    assert len(seen) == 99
    assert all(time == now for time, now in seen)


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=2, max_size=2).map(sorted))
def test_a_run_ends_at_its_time_to_the_last_bit(times):
    env = one(1.0)
    for until in times:
        if until > env.now:
            env.run(until=until)
            assert env.now == until


LEVELS = st.sampled_from([0.0, 0.5, 1.0, -1.0])
DRIVES = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), LEVELS), min_size=1, max_size=14)


def passings(
    tau: float, drives: Sequence[tuple[float, float]], level: float, sign: float, until: float
) -> list[float]:
    """When a node at 0 that follows these (start, level) passes a level, from the formula."""
    found, value, target, time = [], 0.0, 0.0, 0.0
    armed = sign * (value - level) < 0
    for start, after in [*drives, (until, 0.0)]:
        end = value if start == time else target + (value - target) * math.exp((time - start) / tau)
        if armed and sign * (target - level) > 0:
            when = time + tau * math.log((target - value) / (target - level))
            if when < start:
                found.append(when)
                armed = False
        if sign * (end - level) < 0:
            armed = True
        value, target, time = end, after, start
    return found


@settings(max_examples=60)
@given(drives=DRIVES, cuts=st.lists(st.floats(0.01, 3.9), max_size=4), split=st.booleans())
def test_monitors_deliver_every_passing_in_order(drives, cuts, split):
    """Open loop: what they report is what the formula of the waveform says, for one block and
    for three under a delay, however the run is cut."""
    taus, delay = (0.3, 0.17, 0.41), 0.05
    if split:
        blocks = {f"b{k}": Exponentials((tau,)) for k, tau in enumerate(taus)}
        env = sn.Cosimulation(blocks, rise=0.0, delay=delay)
        names = [(f"b{k}:n0", f"b{k}:v0") for k in range(3)]
    else:
        env = one(*taus, delay=delay)
        names = [(f"n{k}", f"v{k}") for k in range(3)]
    got = []

    def driver(env):
        for time, k, level in sorted(drives, key=lambda drive: drive[0]):
            if time / 4 > env.now:
                yield env.timeout(time / 4 - env.now)
            env.drive(names[k][1], level)

    def reader(env, store, sign):
        while True:
            spike = yield store.get()
            got.append((spike.time, [node for node, _ in names].index(spike.node), sign))
            assert spike.time == env.now

    env.process(driver(env))
    nodes = [node for node, _ in names]
    env.process(reader(env, env.monitor(nodes, above=0.25), 1))
    env.process(reader(env, env.monitor(nodes, below=0.25), -1))
    for until in sorted({*cuts, 4.0}):
        env.run(until=until)

    expected = []
    for k, tau in enumerate(taus):
        mine = sorted((t / 4 + delay, j) for j, (t, _, _) in enumerate(drives) if drives[j][1] == k)
        steps = [(start, drives[j][2]) for start, j in mine]
        for sign in (1, -1):
            expected += [(when, k, sign) for when in passings(tau, steps, 0.25, sign, 4.0)]
    expected.sort()
    assert [(k, sign) for _, k, sign in got] == [(k, sign) for _, k, sign in expected]
    np.testing.assert_allclose([t for t, _, _ in got], [t for t, _, _ in expected], rtol=_EXACT)


# Programs of several processes, drawn at random.

NODES, STEPS = st.integers(0, 2), st.integers(0, 6).map(lambda k: k / 8)
ACTIONS = st.one_of(
    st.tuples(st.just("wait"), STEPS),
    st.tuples(st.just("drive"), NODES, LEVELS),
    st.tuples(st.just("cross"), NODES, st.booleans(), st.none() | STEPS.filter(bool)),
    st.tuples(st.just("race"), NODES, st.booleans(), STEPS),
    st.tuples(st.just("both"), NODES, st.booleans(), STEPS),
    st.tuples(st.just("poke"), NODES),
)
PROGRAMS = st.lists(st.lists(ACTIONS, max_size=7), min_size=1, max_size=3)


def script(env, actions, name):
    """Do what is drawn; what happens, and what the node is at then, goes to the record."""
    for kind, *how in actions:
        try:
            if kind == "wait":
                yield env.timeout(how[0])
                env.emit("waited")
            elif kind == "drive":
                env.drive(name(how[0], "v"), how[1])
            elif kind == "poke":
                other = env.processes[how[0] % len(env.processes)]
                if other.is_alive and other is not env.active_process:
                    other.interrupt("poked")
            else:
                node = name(how[0], "n")
                level = 0.3 + 0.1 * how[0]
                side = {"above": level} if how[1] else {"below": level}
                within = how[2] if kind == "cross" else None
                crossing = env.crossing(node, within=within, **side)
                if kind == "cross":
                    time = yield crossing
                    assert time == env.now
                    env.emit("crossed", time, at=env.sample(node))
                elif kind == "race":
                    done = yield crossing | env.timeout(how[2])
                    env.emit("raced", float(crossing in done))
                else:
                    yield crossing & env.timeout(how[2])
                    env.emit("both", crossing.value)
        except NoCrossing:
            env.emit("none")
        except simpy.Interrupt:
            env.emit("poked")


def play(program, taus, *, cuts=(), split=False, delay=0.0, most_at_once=10_000):
    """The record of a program, and the one who ran it."""
    if split:
        blocks: Any = {f"b{k}": Exponentials((tau,)) for k, tau in enumerate(taus)}
    else:
        blocks = {"b": Exponentials(taus)}
    env: Any = sn.Cosimulation(blocks, rise=0.0, delay=delay, most_at_once=most_at_once)
    env.processes = []

    def name(k: int, kind: str) -> str:
        return f"b{k}:{kind}0" if split else f"b:{kind}{k}"

    for k, actions in enumerate(program):
        env.processes.append(env.process(script(env, actions, name), name=f"p{k}"))
    for until in [*sorted(cuts), 5.0]:
        env.run(until=until)
    assert all(not process.triggered or process.ok for process in env.processes)
    return events(env), env


@settings(max_examples=60)
@given(PROGRAMS)
def test_a_program_gives_the_same_events_in_every_run(program):
    """Nodes that follow at once included, so that everything coincides that can."""
    taus = (0.3, 0.0, 0.41)
    record, env = play(program, taus)
    again, _ = play(program, taus)
    assert record == again
    assert [e[0] for e in record] == sorted(e[0] for e in record)
    # Nobody looks out for what was lost, but for what an interrupt took from a condition.
    alive = sum(process.is_alive for process in env.processes)
    alive += sum(kind == "poke" for actions in program for kind, *_ in actions)
    env.run(until=env.now + 1.0)
    assert env.blocks["b"].watching <= alive


@settings(max_examples=60)
@given(
    program=PROGRAMS,
    cuts=st.lists(st.floats(0.01, 4.9), min_size=1, max_size=4, unique=True),
    most=st.integers(200, 10_000),
)
def test_events_do_not_depend_on_how_a_run_is_cut_nor_on_what_is_taken_for_a_loop(
    program, cuts, most
):
    taus = (0.3, 0.0, 0.41)
    assert play(program, taus)[0] == play(program, taus, cuts=cuts, most_at_once=most)[0]


@settings(max_examples=60)
@given(PROGRAMS, st.sampled_from([0.03, 0.2, 1.0]))
def test_events_do_not_depend_on_windows_when_circuits_run_at_the_same_time(program, delay):
    """Three nodes in one block, which is never ahead of the clock, and in three, which are."""
    taus = (0.3, 0.17, 0.41)
    together, _ = play(program, taus, delay=delay)
    apart, _ = play(program, taus, delay=delay, split=True)
    renamed = [
        (t, kind, f"b:{name[3]}{name[1]}" if name[:1] == "b" and ":" in name else name, *rest)
        for t, kind, name, *rest in apart
    ]
    assert [e[1:3] for e in renamed] == [e[1:3] for e in together]
    np.testing.assert_allclose([e[0] for e in renamed], [e[0] for e in together], rtol=_EXACT)


# What coincides.


def test_a_crossing_and_a_timeout_at_one_time_both_arrive_then():
    env = one(1.0)
    when = math.log(2)
    seen = []

    def crosser(env):
        env.drive("v0", 1.0)
        yield env.crossing("n0", above=0.5)
        seen.append(("crossing", env.now))

    def timer(env):
        yield env.timeout(when)
        seen.append(("timeout", env.now))

    def either(env):
        yield env.crossing("n0", above=0.5) | env.timeout(when)
        seen.append(("any", env.now))

    def both(env):
        done = yield env.crossing("n0", above=0.5) & env.timeout(when)
        seen.append(("all", env.now))
        assert len(done.todict()) == 2

    def deadline(env):
        yield env.crossing("n0", above=0.5, within=when)
        seen.append(("in time", env.now))

    for process in (crosser, timer, either, both, deadline):
        env.process(process(env))
    env.run(until=2.0)
    assert sorted(name for name, _ in seen) == ["all", "any", "crossing", "in time", "timeout"]
    assert {now for _, now in seen} == {when}


def test_every_crossing_that_coincides_with_others_arrives():
    env = one(1.0, 1.0, delay=0.25)
    seen = []

    def crosser(env, node):
        yield env.crossing(node, above=0.5)
        seen.append((node, env.now))

    for node in ("n0", "n1", "n0", "n1"):
        env.process(crosser(env, node))
    store = env.monitor(["n0", "n1"], above=0.5)
    env.drive("v0", 1.0)
    env.drive("v1", 1.0)
    env.run(until=2.0)
    assert seen == [(node, 0.25 + math.log(2)) for node in ("n0", "n1", "n0", "n1")]
    assert [spike.node for spike in store.items] == ["n0", "n1"]


def test_a_drive_that_causes_a_crossing_at_once():
    """A node without inertia crosses when its source does; the answer to that as well."""
    env = one(0.0)
    seen = []

    def bounce(env):
        yield env.timeout(1.0)
        for _ in range(5):
            env.drive("v0", 1.0)
            seen.append((yield env.crossing("n0", above=0.5)))
            env.drive("v0", 0.0)
            seen.append((yield env.crossing("n0", below=0.5)))

    env.process(bounce(env))
    env.run(until=2.0)
    assert seen == [1.0] * 10


def test_a_node_that_is_beyond_has_to_come_back_first():
    env = one(1.0)
    env.drive("v0", 1.0)
    env.run(until=2.0)
    seen = []

    def late(env):
        env.drive("v0", 0.0)
        seen.append((yield env.crossing("n0", above=0.5, within=5.0)))

    def swing(env):
        yield env.timeout(3.0)
        env.drive("v0", 1.0)

    env.process(late(env))
    env.process(swing(env))
    env.run(until=10.0)
    low = (1 - math.exp(-2)) * math.exp(-3)
    assert seen == [pytest.approx(5.0 + math.log((1 - low) / 0.5), rel=_EXACT)]


# Ends, interrupts, losers.


def test_a_process_ends_while_others_wait_and_gives_back_its_value():
    env = one(1.0)

    def short(env):
        env.drive("v0", 1.0)
        yield env.timeout(0.1)
        return 42

    def waits(env, child):
        value = yield child
        time = yield env.crossing("n0", above=0.5, within=5.0)
        return value, time

    child = env.process(short(env))
    parent = env.process(waits(env, child))
    env.run(until=parent)
    assert child.value == 42
    assert parent.value == (42, math.log(2))
    assert parent.name == "waits"


def test_an_interrupted_process_waits_no_longer_and_its_crossing_is_forgotten():
    env = one(1.0)
    seen: list[Any] = []

    def waits(env):
        env.drive("v0", 1.0)
        try:
            yield env.crossing("n0", above=0.5)
            seen.append("crossed")
        except simpy.Interrupt as interrupt:
            seen.append((interrupt.cause, env.now))
        yield env.timeout(5.0)

    def interrupts(env):
        yield env.timeout(0.5)
        process.interrupt("now")

    process = env.process(waits(env))
    env.process(interrupts(env))
    env.run(until=4.0)
    assert seen == [("now", 0.5)]
    assert _only(env).watching == 0
    assert not [e for e in events(env) if e[1] == "crossing"]


@pytest.mark.parametrize("within", [None, 1e3])
def test_ten_thousand_lost_races_leave_nothing_behind(within):
    """The loser is no longer looked out for; its deadline ends no run, nor fills the queue."""
    env = one(1.0)
    env.drive("v0", 1.0)
    block: Any = env.blocks[""]

    def racer(env):
        for k in range(10_000):
            yield env.crossing("n0", above=2.0, within=within) | env.timeout(0.001)
            if within is None:
                assert len(env._queue) < 5
            assert block.watching <= 2, k

    process = env.process(racer(env))
    env.run()
    assert process.ok
    assert env.now == pytest.approx(10.0, rel=1e-9)
    assert block.most_watches <= 2
    assert not env._crossings
    assert not env._held
    assert not env._queue


def test_a_deadline_that_nobody_waits_for_fails_nobody():
    env = one(1.0)

    def racer(env):
        late = env.crossing("n0", above=2.0, within=0.5)
        yield late | env.timeout(0.1)
        yield env.timeout(1.0)
        # It is still held: who asks now is told.
        with pytest.raises(NoCrossing, match=r"n0 above 2 did not happen within 0.5 s"):
            yield late

    process = env.process(racer(env))
    env.run(until=2.0)
    assert process.ok


def test_one_crossing_may_be_waited_for_again_and_again():
    env = one(1.0)
    turns = []

    def polls(env):
        env.drive("v0", 1.0)
        crossing = env.crossing("n0", above=0.9)
        while not crossing.triggered:
            yield crossing | env.timeout(0.1)
            turns.append(env.now)
        return crossing.value

    process = env.process(polls(env))
    env.run(until=process)
    assert process.value == turns[-1] == math.log(10)
    assert len(turns) == math.ceil(math.log(10) / 0.1)
    assert _only(env).most_watches == 1


def test_a_crossing_that_is_only_held_has_happened_when_it_is_asked_for():
    env = one(1.0)

    def later(env):
        env.drive("v0", 1.0)
        crossing = env.crossing("n0", above=0.5)
        yield env.timeout(2.0)
        return (yield crossing), env.now

    process = env.process(later(env))
    env.run(until=process)
    assert process.value == (math.log(2), 2.0)


def test_a_spike_that_lost_a_race_is_kept_where_the_request_is_withdrawn():
    env = one(1.0)
    store = env.monitor("n0", above=0.5)

    def reader(env):
        env.drive("v0", 1.0)
        got = store.get()
        yield got | env.timeout(0.1)
        got.cancel()
        return (yield store.get())

    process = env.process(reader(env))
    env.run(until=1.0)
    assert process.value == sn.cosim.Spike("n0", math.log(2))


# Several blocks, ahead of the clock.


def _only(env: sn.Cosimulation) -> Any:
    return env.blocks[""]


def _noted(order: list[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        order.append(name)
        return call(*arguments)

    return noted


def ahead() -> tuple[sn.Cosimulation, Exponentials, Exponentials]:
    a, b = Exponentials((1.0,), name="a"), Exponentials((1.0,), name="b")
    return sn.Cosimulation({"a": a, "b": b}, rise=0.0, delay=1.0), a, b


def test_all_blocks_are_sent_on_before_any_is_waited_for(monkeypatch):
    env, a, b = ahead()
    order: list[str] = []
    for block in (a, b):
        monkeypatch.setattr(block, "begin", _noted(order, "begin", block.begin))
        monkeypatch.setattr(block, "finish", _noted(order, "finish", block.finish))
    env.run(until=10.0)
    assert order == ["begin", "begin", "finish", "finish"] * 10


def test_a_crossing_is_found_that_lies_in_the_past_of_a_block_and_a_sample_is_of_now():
    env, _, b = ahead()
    seen = []

    def late(env):
        env.drive("a:v0", 1.0)  # at 1
        env.drive("b:v0", 1.0)
        yield env.timeout(1.0)
        yield env.crossing("a:n0", above=0.3)
        assert b.time == 2.0  # while a stopped where it crossed
        assert env.sample("b:n0") == pytest.approx(0.3, rel=1e-12)
        # That was crossed before it was asked for; this is in b's past, but to come.
        passed = env.crossing("b:n0", above=0.2)
        # Of what comes after it, b is there already.
        env.timeout(0.4).callbacks.append(lambda _: seen.append(env.now))
        seen.append((yield env.crossing("b:n0", above=0.4)))
        assert seen == [env.now]
        assert env.sample("b:n0") == pytest.approx(0.4, rel=1e-12)
        assert not passed.triggered

    env.process(late(env))
    env.run(until=5.0)
    assert seen == [pytest.approx(t, rel=_EXACT) for t in (1 - math.log(0.6), 1.4 - math.log(0.7))]


def test_a_monitor_that_begins_in_the_past_of_a_block_misses_nothing():
    env, _, _ = ahead()
    env.drive("b:v0", 1.0)
    stores = []

    def early(env):
        yield env.timeout(1.05)
        env.drive("a:v0", 1.0)
        yield env.timeout(0.1)
        for level in (0.2, 0.3, 0.4):
            stores.append(env.monitor("b:n0", above=level))

    env.process(early(env))
    env.run(until=8.0)
    times = [[spike.time for spike in store.items] for store in stores]
    assert times == [[pytest.approx(1 - math.log(1 - x), rel=_EXACT)] for x in (0.2, 0.3, 0.4)]


def test_a_delay_that_is_lost_in_the_time_is_refused():
    env = sn.Cosimulation({k: Exponentials((1.0,)) for k in "ab"}, rise=0.0, delay=1e-18)
    for block in env.blocks.values():
        block.begin(1.0)
        block.finish()
    with pytest.raises(CosimulationError, match="a delay of 1e-18 s is nothing"):
        env.run(until=2.0)


# Runs, and what goes wrong in them.


def test_run_until_an_event_and_until_nothing_is_left():
    env = one(1.0)
    flag = env.event()

    def setter(env):
        yield env.timeout(1.0)
        flag.succeed()
        yield env.timeout(1.0)

    env.process(setter(env))
    env.run(until=flag)
    assert env.now == 1.0
    env.run()
    assert env.now == 2.0
    with pytest.raises(CosimulationError, match="nothing is left to be done, and the event"):
        env.run(until=env.event())


@pytest.mark.parametrize("until", [0.0, -1.0, math.nan, math.inf])
def test_a_run_ends_after_now(until):
    env = one(1.0)
    with pytest.raises(InputError, match="is not after now"):
        env.run(until=until)


def test_a_run_goes_on_after_a_process_failed_and_not_to_the_old_end():
    env = one(1.0)

    def fails(env):
        yield env.timeout(1.0)
        raise ValueError("no luck")

    def works(env):
        env.drive("v0", 1.0)
        yield env.timeout(2.5)
        env.emit("worked")

    env.process(fails(env))
    env.process(works(env))
    with pytest.raises(CosimulationError, match=r"process fails, t = 1 s: raised ValueError"):
        env.run(until=2.0)
    assert [e[1:3] for e in events(env)] == [("drive", "v0")]
    env.run(until=4.0)
    assert env.now == 4.0
    assert events(env)[-1][:3] == (2.5, "emit", "worked")


class _Odd(Exception):
    """One that cannot be made from its arguments, as SimPy would."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")


@pytest.mark.parametrize("error", [ValueError("odd"), _Odd(7, "odd"), RuntimeError("odd")])
def test_what_a_process_raises_is_the_cause_with_its_traceback(error):
    env = one(1.0)

    def culprit(env):
        yield env.timeout(0.5)
        raise error

    env.process(culprit(env), name="cell 3")
    with pytest.raises(CosimulationError) as caught:
        env.run(until=1.0)
    assert caught.value.__cause__ is error
    assert caught.value.where == "process cell 3, t = 0.5 s"
    frames = []
    assert error is not None
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "culprit"


def test_an_error_of_ours_keeps_its_type_and_parts_and_says_the_time_once():
    env = one(1.0)

    def asks(env):
        yield env.timeout(0.5)
        env.drive("v7", 1.0)

    env.process(asks(env))
    with pytest.raises(InputError) as caught:
        env.run(until=1.0)
    assert caught.value.where == "process asks, fake, t = 0.5 s"
    assert isinstance(caught.value.__cause__, InputError)


def test_who_waits_for_a_process_that_fails_gets_its_very_error():
    env = one(1.0)

    def child(env):
        yield env.timeout(0.5)
        env.crossing("n9", above=1.0)

    def parent(env):
        try:
            yield env.process(child(env))
        except InputError as error:
            return error.what, error.where

    process = env.process(parent(env))
    env.run(until=1.0)
    assert process.value == ("there is no probe 'n9'", "fake")


@pytest.mark.parametrize("value", [3, None, "foreign"])
def test_a_process_that_yields_no_event_of_this_environment_is_told_where(value):
    env = one(1.0)
    value = simpy.Environment().event() if value == "foreign" else value

    def confused(env):
        yield env.timeout(0.5)
        yield value

    env.process(confused(env))
    with pytest.raises(InputError, match=r"process confused, t = 0.5 s: yielded") as caught:
        env.run(until=1.0)
    cause: Any = caught.value.__cause__
    trace = cause.__traceback__
    names = []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert names[-1] == "confused"


def test_two_processes_that_let_no_time_pass_are_named():
    env = one(1.0, most_at_once=1000)
    stores = simpy.Store(env), simpy.Store(env)

    def player(env, mine, other):
        while True:
            ball = yield mine.get()
            yield other.put(ball)

    env.process(player(env, *stores), name="ping")
    env.process(player(env, *stores[::-1]), name="pong")

    def serve(env):
        yield env.timeout(0.5)
        yield stores[0].put("ball")

    env.process(serve(env))
    with pytest.raises(CosimulationError, match=r"t = 0.5 s: 1001 events and no time") as caught:
        env.run(until=1.0)
    assert "ping" in str(caught.value)
    assert "pong" in str(caught.value)


def test_a_process_that_yields_what_is_over_for_ever_is_named():
    """SimPy gives it no event in between: it would never come back."""
    env = one(1.0, most_at_once=1000)

    def stuck(env):
        done = env.timeout(0.25)
        while True:
            yield done

    env.process(stuck(env))
    with pytest.raises(CosimulationError, match="most active: stuck"):
        env.run(until=1.0)


def test_a_loop_through_a_circuit_without_inertia_is_named():
    env = one(0.0, most_at_once=1000)
    env.process(relaxation(env), name="oscillator")
    with pytest.raises(CosimulationError, match="most active: oscillator"):
        env.run(until=1.0)


@pytest.mark.parametrize("delay", [-1.0, math.nan, math.inf])
def test_a_timeout_that_is_no_duration_is_refused(delay):
    env = one(1.0)

    def sleeper(env):
        yield env.timeout(delay)

    env.process(sleeper(env))
    with pytest.raises(InputError, match="process sleeper, t = 0 s: a timeout of"):
        env.run(until=1.0)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda env: env.crossing("n0", above=math.nan), "no node can pass nan"),
        (lambda env: env.crossing("n0", below=math.inf), "no node can pass inf"),
        (lambda env: env.crossing("n0"), "above or below"),
        (lambda env: env.crossing("n0", above=1.0, below=0.0), "above or below"),
        (lambda env: env.crossing("n0", above=1.0, within=0.0), "not a duration"),
        (lambda env: env.crossing("n5", above=1.0), "no probe 'n5'"),
        (lambda env: env.monitor([], above=1.0), "needs a node"),
        (lambda env: env.monitor(["n0", "n5"], above=1.0), "no probe 'n5'"),
        (lambda env: env.monitor(["n0"]), "above or below"),
        (lambda env: env.drive("v0", math.nan), "cannot drive to nan"),
        (lambda env: env.drive("v0", 1.0, rise=-1.0), "a rise of -1.0 s"),
        (lambda env: env.sample("n5"), "no probe 'n5'"),
        (lambda env: env.emit("x", time=1.0), "field 'time' of its own"),
        (lambda env: env.process(lambda: None), "is not a generator"),
    ],
)
def test_bad_input_is_refused_at_once_and_leaves_nothing_behind(ask, said):
    env = one(1.0)
    with pytest.raises(InputError, match=said):
        ask(env)
    env.run(until=1.0)
    assert _only(env).watching == 0
    assert not events(env)


@pytest.mark.parametrize(
    ("circuit", "options", "said"),
    [
        ({}, {}, "no circuit"),
        ({"a:b": Exponentials((1.0,))}, {}, "cannot be a block's name"),
        ({k: Exponentials((1.0,)) for k in "ab"}, {}, "delay above 0"),
        (Exponentials((1.0,)), {"delay": -1.0}, "delay = -1.0 s"),
        (Exponentials((1.0,)), {"most_at_once": 0}, "most_at_once = 0"),
        (Exponentials((1.0,), time=1.0), {}, "has been run to 1 s already"),
        ("circuit.cir", {}, "is not a netlist"),
        ("t\nr1 a 0 1\n", {}, "max_step is missing"),
    ],
)
def test_what_cannot_be_co_simulated_is_refused(circuit, options, said):
    with pytest.raises(InputError, match=said):
        sn.Cosimulation(circuit, **options)


def test_who_waits_for_what_cannot_come_is_told_for_what():
    env = one(1.0)
    env.drive("v0", 1.0)

    def waits(env):
        yield env.crossing("n0", above=2.0) & env.event()

    def reads(env):
        yield env.monitor("n0", below=-1.0).get()

    env.process(waits(env))
    env.process(reads(env))
    env.run(until=1.0)
    said = r"t = 1 s: nothing is scheduled.*: waits for n0 above 2; reads for a spike of n0"
    with pytest.raises(CosimulationError, match=said):
        env.run()


def test_a_block_that_fails_does_so_after_all_that_came_before_it():
    """b fails at 2.5 in the window in which a crosses at 2.2, and c at 2.8."""
    blocks = {k: Exponentials((1.0,), name=k) for k in "abc"}
    env = sn.Cosimulation(blocks, rise=0.0, delay=1.0)
    b, whole = blocks["b"], Exponentials.finish

    def finish(self: Exponentials = b) -> list[tuple[int, float]]:
        if self._until <= 2.5:
            return whole(self)
        self._until = 2.5
        whole(self)
        raise ConvergenceError("no solution", where="b, t = 2.5 s")

    b.finish = finish  # type: ignore[method-assign]
    seen = []

    def crosser(env, block, when):
        env.drive(f"{block}:v0", 1.0)
        seen.append((yield env.crossing(f"{block}:n0", above=1 - math.exp(1 - when))))

    env.process(crosser(env, "a", 2.2))
    env.process(crosser(env, "c", 2.8))
    for _ in range(2):  # and again
        with pytest.raises(ConvergenceError, match=r"b, t = 2.5 s: no solution"):
            env.run(until=5.0)
        assert seen == [pytest.approx(2.2, rel=1e-12)]
    assert b.closed
    assert not blocks["a"].closed


def test_an_interrupt_from_the_keyboard_loses_nothing():
    """It comes while the second of two blocks is waited for; the run can go on after it."""

    def run(interrupted: bool) -> list[tuple[Any, ...]]:
        env, _, b = ahead()
        env.process(relaxation(env, "a:n0", "b:v0"), name="one")
        env.process(relaxation(env, "b:n0", "a:v0"), name="two")
        if interrupted:
            whole, left = b.finish, itertools.count()

            def finish() -> list[tuple[int, float]]:
                if next(left) == 3:
                    raise KeyboardInterrupt
                return whole()

            b.finish = finish  # type: ignore[method-assign]
            with pytest.raises(KeyboardInterrupt):
                env.run(until=20.0)
            assert len(env.dataset()["event_time"]) > 0
        env.run(until=20.0)
        assert env.now == 20.0
        return events(env)

    assert run(True) == run(False)


def test_progress_reports_time_and_events(monkeypatch):
    monkeypatch.setattr("spicenn.cosim.kernel._INTERVAL", 0.0)
    seen: list[tuple[float, int]] = []
    env = one(1.0, progress=lambda time, count: seen.append((time, count)))
    env.process(relaxation(env))
    env.run(until=5.0)
    time, count = seen[-1]
    assert time == pytest.approx(events(env)[-1][0])
    assert count == len(events(env))
    assert seen == sorted(seen)


# Cost.


def _lines(nodes: int) -> int:
    """Lines of the kernel executed in a run, beside which that many nodes are monitored."""
    env = one(1.0, *([1.0] * nodes))
    env.monitor([f"n{k}" for k in range(1, nodes + 1)], above=0.5)
    env.process(relaxation(env))
    env.run(until=1.0)
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith("kernel.py"):
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        env.run(until=8.0)
    finally:
        sys.settrace(before)
    return lines


def test_an_advance_costs_the_same_beside_two_thousand_monitored_nodes():
    assert _lines(1) == _lines(2000)
