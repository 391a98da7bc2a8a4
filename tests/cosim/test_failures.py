"""What goes wrong in a co-simulation with ngspice: its type, what it names, what is kept.

Every circuit is an RC of 1 µs and what is to fail beside it.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import psutil
import pytest
import simpy

import spicenn as sn
from spicenn.engines.ngspice.stepped import SteppedCircuit
from spicenn.errors import (
    ConvergenceError,
    CosimulationError,
    EngineError,
    InputError,
    MissingModelError,
    NetlistError,
    NoCrossing,
    SimulationTimeout,
    SimulatorCrash,
    SingularMatrixError,
)

pytestmark = pytest.mark.ngspice

TAU, STEP = 1e-6, 2e-8
RC = "rc\nvin in 0 dc 0 external\nr1 in out 1k\nc1 out 0 1n\n"
# The last circuit's x has a solution as long as out is below 0.5 V.
PARABOLA = RC + "b1 x 0 i = v(x)*v(x) + v(out) - 0.5\nr2 x 0 1e12\n"
# x grows for ever, by 1e3 (1 - x + x²) V/s: there is no operating point, and Newton's method
# ends as it does where there is one that it cannot find.
GROWING = RC + "b1 0 x i = 1u*(1 + v(x)*v(x))\nr2 x 0 1meg\nc2 x 0 1n ic=0\n"


def cosimulation(circuit: Any = RC, **options: Any) -> sn.Cosimulation:
    return sn.Cosimulation(circuit, **{"max_step": STEP, "rise": 1e-9, **options})


def simulator(env: sn.Cosimulation, name: str = "") -> psutil.Process:
    block = env.blocks[name]
    assert isinstance(block, SteppedCircuit)
    return psutil.Process(block._child.pid)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def charge(env: sn.Cosimulation) -> Generator[Any, Any, Any]:
    """Leaves a drive at 0 s and a crossing at ln 2 µs in the record."""
    env.drive("vin", 1.0)
    yield env.crossing("out", above=0.5)


def check_kept(env: sn.Cosimulation, end: float, *, crossings: int = 1) -> None:
    """The record holds the charging of the RC up to a time [s], and what happened on the way."""
    ds = env.dataset()
    kinds = ds["event_kind"].values.tolist()
    assert kinds.count("drive") == 1
    assert kinds.count("crossing") == crossings
    times = ds["time"].values
    assert times[0] == 0
    assert times[-1] == pytest.approx(end, rel=1e-9, abs=0)
    assert np.diff(times).min() > 0
    # The slope of 1 ns is a delay of half of it; steps of τ/50 and the first ones after a
    # corner, of lower order, are off by a few 1e-5.
    late = times > 2e-9
    expected = -np.expm1(-(times[late] - 0.5e-9) / TAU)
    np.testing.assert_allclose(ds["out"].values[late], expected, rtol=0, atol=1e-4)


# What a process asks for.


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda env: env.crossing("outt", above=0.5), r"no probe 'outt'; there is out"),
        (lambda env: env.monitor(["in", "0ut"], above=0.5), r"no probe '0ut'; there is out"),
        (lambda env: env.sample("ou"), r"no probe 'ou'; there is out"),
        (lambda env: env.sample("i(vinn)"), r"no probe 'i\(vinn\)'"),
        (lambda env: env.drive("vinn", 1.0), r"no external source 'vinn'; there is vin"),
        (lambda env: env.drive("r1", 1.0), "no external source 'r1'"),
        (lambda env: env.crossing("0", above=0.5), "no probe '0'"),
        (lambda env: env.crossing("gnd", above=0.5), "no probe 'gnd'"),
        (lambda env: env.crossing("out", above=float("nan")), "no node can pass nan"),
        (lambda env: env.crossing("out"), "above or below a threshold"),
        (lambda env: env.crossing("out", above=0.5, below=0.5), "above or below a threshold"),
    ],
)
def test_a_request_that_cannot_be_met_names_process_and_time_and_the_run_can_go_on(ask, said):
    with cosimulation() as env:

        def asks(env):
            yield env.timeout(1e-6)
            ask(env)

        env.process(charge(env))
        env.process(asks(env), name="controller")
        with pytest.raises(InputError, match=said) as caught:
            env.run(until=2e-6)
        where = caught.value.where
        assert where is not None
        assert where.startswith("process controller, ")
        assert "t = 1e-06 s" in where
        check_kept(env, 1e-6)
        env.run(until=2e-6)
        check_kept(env, 2e-6)


def test_where_nothing_is_scheduled_the_waiting_process_and_its_threshold_are_named():
    """Also where the circuit alone would get there: nobody can tell, it may take for ever."""
    with cosimulation() as env:

        def waits(env):
            yield env.process(charge(env))
            yield env.crossing("out", above=1.5)

        env.process(waits(env), name="late")
        with pytest.raises(CosimulationError, match=r"t = 0 s: .* charge for out above 0\.5"):
            env.run()
        env.run(until=2e-6)
        with pytest.raises(CosimulationError, match=r"t = 2e-06 s: .* late for out above 1\.5"):
            env.run()
        check_kept(env, 2e-6)


def test_a_deadline_is_met_in_the_process_to_the_last_bit_and_can_be_caught():
    with cosimulation() as env:

        def patient(env):
            yield env.process(charge(env))
            asked = env.now
            try:
                yield env.crossing("out", above=1.5, within=1e-6)
            except NoCrossing as error:
                return asked, env.now, str(error), env.sample("out")

        process = env.process(patient(env))
        env.run(until=5e-6)
        result: Any = process.value
        asked, failed, said, value = result
        assert failed == asked + 1e-6
        assert "out above 1.5 did not happen within 1e-06 s; the node is at 0.81" in said
        assert value == pytest.approx(1 - 0.5 * np.exp(-1), rel=0, abs=1e-4)
        check_kept(env, 5e-6)


def test_a_deadline_that_nobody_catches_ends_the_run_there():
    with cosimulation() as env:

        def hopeful(env):
            env.drive("vin", 1.0)
            yield env.crossing("out", above=1.5, within=1e-6)

        env.process(hopeful(env))
        with pytest.raises(NoCrossing, match=r"process hopeful, t = 1e-06 s: out above 1.5"):
            env.run(until=5e-6)
        check_kept(env, 1e-6, crossings=0)


def test_two_processes_that_play_ping_pong_without_delay_are_named():
    with cosimulation(most_at_once=2000) as env:
        table = simpy.Store(env), simpy.Store(env)

        def player(env, mine, other):
            while True:
                yield other.put((yield mine.get()))

        def serves(env):
            yield env.timeout(1e-6)
            yield table[0].put("ball")

        env.process(charge(env))
        env.process(player(env, *table), name="ping")
        env.process(player(env, *table[::-1]), name="pong")
        env.process(serves(env))
        with pytest.raises(CosimulationError, match="no time has passed") as caught:
            env.run(until=2e-6)
        assert caught.value.where == "t = 1e-06 s"
        assert "ping" in caught.value.what
        assert "pong" in caught.value.what
        check_kept(env, 1e-6)


def test_what_a_process_raises_is_the_cause_and_an_error_of_ours_keeps_its_type():
    original = ZeroDivisionError("by zero")

    def raises(env, error):
        yield env.crossing("out", above=0.25)
        raise error

    with cosimulation() as env:
        env.drive("vin", 1.0)
        env.process(raises(env, original), name="decoder")
        with pytest.raises(CosimulationError, match="raised ZeroDivisionError: by zero") as caught:
            env.run(until=2e-6)
        assert caught.value.__cause__ is original
        assert caught.value.where == f"process decoder, t = {env.now:.6g} s"
        assert env.now == pytest.approx(TAU * np.log(4 / 3) + 0.5e-9, rel=1e-4, abs=0)
        check_kept(env, env.now)
    with cosimulation() as env:
        env.drive("vin", 1.0)
        env.process(raises(env, NetlistError("odd", where="cell 7")), name="decoder")
        with pytest.raises(NetlistError, match=r"process decoder, cell 7, t = .* s: odd"):
            env.run(until=2e-6)


# What the circuit does on its way.


@pytest.mark.parametrize(
    "law",
    [
        "i = v(x)*v(x) + v(out) - 0.5",  # its two solutions meet and are gone
        "v = ln(0.5 - v(out))",  # a pole
        "v = sqrt(0.5 - v(out))",  # not a number
    ],
)
def test_a_circuit_without_a_next_point_fails_there_and_again(law):
    before = children()
    with cosimulation(RC + f"b1 x 0 {law}\nr2 x 0 1e12\n") as env:
        pid = simulator(env).pid
        assert children() - before == {pid}
        env.process(charge(env))

        def beats(env):
            while True:
                yield env.timeout(1e-7)
                env.emit("beat", env.sample("out"))

        env.process(beats(env))
        end, said = 0.0, ""
        for again in range(2):
            with pytest.raises(ConvergenceError, match='trouble with node "x"') as caught:
                env.run(until=5e-6)
            error, block = caught.value, env.blocks[""]
            if not again:
                end, said = block.time, str(error)
            assert str(error) == said
            assert error.where == f"circuit, t = {block.time:.6g} s"
            # It names what failed, and nothing of the operating point before.
            assert "Timestep too small" in error.what
            assert "Initial Transient" not in error.what
            assert "   " not in error.what  # no table
            assert error.remedy
            # The threshold itself may have been passed on the very last points.
            crossings = env.dataset()["event_kind"].values.tolist().count("crossing")
            check_kept(env, end, crossings=crossings)
            beats_kept = int((env.dataset()["event_name"] == "beat").sum())
            assert beats_kept == 6
            assert env.now <= end
            assert children() == before
    # Out is at 0.5 V after ln 2; the parabola's x gets there with an endless slope.
    assert end == pytest.approx(TAU * np.log(2), rel=0.02, abs=0)


def test_a_circuit_without_an_operating_point_is_not_run_in_the_search_for_it():
    """ngspice's last resort is a transient of its own, of which no point is the circuit's.

    It ends, called back at every step, short of its last time point: "Timestep too small".
    From initial conditions the same circuit runs.
    """
    before = children()
    with pytest.raises(ConvergenceError, match="no solution") as caught:
        cosimulation(GROWING)
    assert "initial timepoint" in str(caught.value)
    assert caught.value.where == "circuit"
    assert children() == before
    with cosimulation(GROWING, initial_conditions=True) as env:
        env.process(charge(env))
        assert env.blocks[""].time == 0
        ds = env.run(until=2e-6)
    third = math.sqrt(3)
    exact = (1 + third * np.tan(third / 2 * 1e3 * ds["time"].values - np.pi / 6)) / 2
    np.testing.assert_allclose(ds["x"].values, exact, rtol=0, atol=1e-6)


def later(seconds: float, action: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer


@pytest.mark.parametrize("while_it_runs", [False, True])
def test_a_simulator_that_is_killed_is_a_crash_at_a_time(while_it_runs):
    before = children()
    with cosimulation() as env:
        env.process(charge(env))
        env.run(until=1e-6)
        child = simulator(env)
        timer = None
        if while_it_runs:
            timer = later(0.3, lambda: os.kill(child.pid, signal.SIGKILL))
        else:
            os.kill(child.pid, signal.SIGKILL)
        reached = []
        for _ in range(2):
            with pytest.raises(SimulatorCrash, match="SIGKILL") as caught:
                env.run(until=1.0)
            assert caught.value.where is not None
            assert "t = " in caught.value.where
            reached.append(float(env.dataset()["time"].values[-1]))
        if timer is not None:
            timer.join()
        assert reached[1] == reached[0]
        assert children() == before
        ds = env.dataset()
        assert ds["event_kind"].values.tolist() == ["drive", "crossing"]
        # What had come back: all up to the last run's end.
        check_kept(env, reached[0])
        assert reached[0] >= (1e-6 * (1 - 1e-12))


def test_a_simulator_that_is_silent_is_a_timeout_at_a_time():
    before = children()
    with cosimulation(timeout=0.5) as env:
        env.process(charge(env))
        env.run(until=1e-6)
        child = simulator(env)
        child.suspend()
        start = time.monotonic()
        with pytest.raises(SimulationTimeout, match=r"no answer in 0.5 s") as caught:
            env.run(until=2e-6)
        assert 0.4 < time.monotonic() - start < 20
        assert caught.value.where is not None
        assert "t = 1e-06 s" in caught.value.where
        assert children() == before
        check_kept(env, 1e-6)


def test_one_of_two_circuits_fails_and_the_other_ones_record_is_whole():
    before = children()
    with cosimulation({"good": RC, "bad": PARABOLA}, delay=1e-7) as env:
        env.drive("good:vin", 1.0)
        env.drive("bad:vin", 1.0)
        with pytest.raises(ConvergenceError, match="bad, t = ") as caught:
            env.run(until=5e-6)
        bad = env.blocks["bad"].time
        assert f"t = {bad:.6g} s" in str(caught.value)
        ds = env.dataset()
        assert ds["time_bad"].values[-1] == pytest.approx(bad, rel=1e-9, abs=0)
        # Never further ahead of it than the delay, and not behind the clock.
        good = float(ds["time_good"].values[-1])
        assert env.now <= good <= bad + 1e-7
        assert children() - before == {simulator(env, "good").pid}
    assert children() == before


# What cannot be begun.


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (RC + ".control\nshell true\n.endc\n", NetlistError, r"line 5.*\.control"),
        (RC + ".include /etc/passwd\n", NetlistError, r"line 5.*\.include"),
        (RC + "r2 out\n", EngineError, "r2"),
        (RC + "r2 out 0 {nothing}\n", EngineError, "nothing"),
        (RC + "d1 out 0 dnone\n", MissingModelError, "dnone"),
        (RC + "x1 out none\n", MissingModelError, "none"),
        (RC + "v2 in 0 1\n", SingularMatrixError, "singular"),
    ],
)
def test_a_netlist_that_cannot_be_run_is_refused_and_leaves_no_process(text, kind, said):
    before = children()
    with pytest.raises(kind, match=said) as caught:
        cosimulation(text)
    assert "circuit" in str(caught.value.where)
    assert children() == before


def test_a_probe_inside_of_a_subcircuit_is_named_with_near_ones():
    text = RC + ".subckt cell a\nr1 a mid 1k\nr2 mid 0 1k\n.ends\nx1 out cell\n"
    with cosimulation(text, probes=["out", "x1.mid"]) as env:
        assert env.sample("x1.mid") == pytest.approx(0.0, abs=1e-9)
        with pytest.raises(InputError, match=r"no probe 'x1.midd'; there is x1.mid"):
            env.sample("x1.midd")
    for probe, said in [
        ("x1.midd", r"no node 'x1.midd'; there is mid"),
        ("x2.mid", r"no instance 'x2'.*; there are x1"),
        ("x1.x3.mid", r"no instance x1.'x3'"),
        ("x1.a", "no node 'x1.a'"),  # a port is called by what it is connected to
        ("0", "ground is 0 V"),
        ("i(v9)", "no voltage source 'v9'"),
    ]:
        with pytest.raises(InputError, match=said):
            cosimulation(text, probes=[probe])


def test_several_circuits_without_a_delay_and_a_circuit_without_a_step_are_refused():
    before = children()
    with pytest.raises(InputError, match="max_step is missing"):
        sn.Cosimulation(RC)
    with pytest.raises(InputError, match="only with a delay above 0"):
        cosimulation({"a": RC, "b": RC})
    # The second one fails: the first one's process is ended as well.
    with pytest.raises(NetlistError, match="b, line"):
        cosimulation({"a": RC, "b": RC + ".include x\n"}, delay=1e-9)
    assert children() == before


# What goes right.


def test_a_run_to_its_end_leaves_no_error_and_no_process(recwarn, capfd):
    """The transient has no end in ngspice, so what it says wrongly at one cannot come:
    "Timestep too small", where a step is cut from outside to meet the final time.
    """
    before = children()
    with cosimulation() as env:
        env.process(charge(env))
        for until in (1e-6, 2e-6, 2.5e-6):
            env.run(until=until)
            assert env.now == until
        block = env.blocks[""]
        assert isinstance(block, SteppedCircuit)
        block._child._errors.seek(0)
        assert block._child._errors.read() == b""
        assert block._child.alive
    assert children() == before
    env.close()  # again
    check_kept(env, 2.5e-6)
    del env, block
    gc.collect()
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")


def test_a_co_simulation_that_is_let_go_of_leaves_no_process():
    before = children()
    env = cosimulation()
    env.process(charge(env))
    env.run(until=1e-6)
    assert len(children() - before) == 1
    del env
    gc.collect()
    assert children() == before
