"""A circuit stepped from outside: what it was told to do is what ngspice has done."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import spicenn as sn
from spicenn.circuit.stepped import stepped
from spicenn.engines.ngspice.levels import Levels
from spicenn.engines.ngspice.stepped import SteppedCircuit, Threshold
from spicenn.errors import EngineError, InputError

pytestmark = pytest.mark.ngspice

RC = "rc\nvin in 0 dc 0 external\nr1 in out 1k\nc1 out 0 1n\n"  # 1 µs
STEP = 2e-8


def advance(block: SteppedCircuit, until: float) -> list[tuple[int, float]]:
    block.begin(until)
    return block.finish()


def test_a_crossing_is_where_the_closed_form_has_it_with_either_method():
    for method in ("trap", "gear"):
        with sn.Cosimulation(RC, max_step=STEP, method=method, rise=1e-9) as env:
            env.drive("vin", 1.0)
            seen = env.crossing("out", above=0.5, within=1e-5)
            env.run(until=seen)
        # Behind a slope of duration r from t = 0: 1 - v = τ/r (exp(r/τ) - 1) exp(-t/τ).
        exact = 1e-6 * np.log(1e3 * np.expm1(1e-3) / 0.5)
        assert seen.value == pytest.approx(exact, rel=0, abs=1e-4 * 1e-6), method


drives = st.lists(
    st.tuples(
        st.floats(0, 4),  # steps until the next
        st.floats(-2, 2),
        st.floats(1e-4, 3),  # steps
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings(max_examples=8)
@given(drives)
def test_a_source_is_the_piecewise_linear_waveform_that_was_asked_for(asked):
    """Also where slopes overlap and steps are longer than slopes: no jump, no corner missed."""
    with sn.Cosimulation(RC, probes=["in", "out"], max_step=STEP) as env:

        def driver(env):
            for wait, level, rise in asked:
                if wait > 1e-3:
                    yield env.timeout(wait * STEP)
                env.drive("vin", level, rise=rise * STEP)
            yield env.timeout(5 * STEP)

        env.process(driver(env))
        ds = env.run(until=(sum(wait for wait, _, _ in asked) + 5) * STEP)
    levels, now, t = Levels([b"vin"], [0.0]), 0.0, ds.time.values
    expected = np.zeros(len(t))
    starts = []
    for wait, level, rise in asked:
        now += wait * STEP if wait > 1e-3 else 0.0
        starts.append((now + 1e-3 * rise * STEP, rise * STEP, level))
    for k, (start, rise, level) in enumerate(starts):
        levels.take_up(start)
        levels.drive(0, start, rise, level)
        end = starts[k + 1][0] if k + 1 < len(starts) else np.inf
        part = (t >= start) & (t < end)
        expected[part] = [levels.at(0, time) for time in t[part]]
    steep = max(abs(level) + 2 for _, _, level in starts) / min(rise for _, rise, _ in starts)
    np.testing.assert_allclose(ds["in"].values, expected, rtol=0, atol=1e-9 + steep * 1e-20)
    for start, rise, _ in starts[-1:]:  # the last's corners are points
        for corner in (start, start + rise):
            assert np.abs(t - corner).min() < 1e-9 * STEP


def test_many_sources_are_answered_by_compiled_code_to_the_same_effect():
    few = ["t", "va s0 0 dc 0.25 external", "r0 s0 out 1k", "c0 out 0 1n"]
    many = [*few, *(f"vb{k} n{k} 0 dc {k} external" for k in range(70)),
            *(f"rb{k} n{k} 0 1k" for k in range(70))]  # fmt: skip
    traces = []
    for lines in (few, many):
        with sn.Cosimulation("\n".join(lines), probes=["s0", "out"], max_step=STEP) as env:
            env.drive("va", 1.0, rise=1e-8)
            ds = env.run(until=1e-6)
            traces.append(np.interp(np.linspace(0, 1e-6, 50), ds.time, ds["out"]))
            assert ds["s0"].values[-1] == 1.0
    np.testing.assert_allclose(traces[0], traces[1], rtol=0, atol=1e-6)
    with sn.Cosimulation("\n".join(many), probes=["n0", "n7", "n69"], max_step=STEP) as env:
        env.drive("vb7", -3.0, rise=1e-8)
        ds = env.run(until=1e-7)
    assert [float(ds[n].values[-1]) for n in ("n0", "n7", "n69")] == [0.0, -3.0, 69.0]


def test_a_circuits_own_pulses_keep_their_corners_where_steps_are_cut_and_restored():
    text = RC + "vp p 0 pulse(0 1 1.003e-7 1e-9 1e-9 5e-8 1.7e-7)\nrp p 0 1k\n"
    with sn.Cosimulation(text, max_step=STEP) as env:

        def busy(env):
            while True:
                yield env.timeout(1.37e-8)
                env.drive("vin", 1.0 - float(env.sample("in")))

        env.process(busy(env))
        ds = env.run(until=2e-6)
    t, p = ds.time.values, ds["p"].values
    phase = np.where(t < 1.003e-7, -1.0, (t - 1.003e-7) % 1.7e-7)
    expected = np.interp(phase, [0, 1e-9, 5.1e-8, 5.2e-8], [0, 1, 1, 0], left=0, right=0)
    np.testing.assert_allclose(p, expected, rtol=0, atol=1e-6)
    for corner in (1.003e-7, 1.013e-7, 1.513e-7, 1.523e-7, 1.003e-7 + 1.7e-7):
        assert np.abs(t - corner).min() < 1e-13


def test_initial_conditions_are_there_at_the_start():
    text = "t\nvin in 0 dc 0 external\nr1 in out 1k\nc1 out 0 1n ic=0.8\n"
    with sn.Cosimulation(text, max_step=STEP, initial_conditions=True) as env:
        assert env.sample("in") == 0.0
        fell = env.crossing("out", below=0.4, within=1e-5)
        env.run(until=fell)
    assert fell.value == pytest.approx(1e-6 * np.log(2), rel=1e-4, abs=0)


def test_current_sources_negative_thresholds_and_currents_as_probes():
    text = "t\niin 0 out dc 0 external\nr1 out m 1k\nvm m 0 0\nc1 out 0 1n\n"
    with sn.Cosimulation(text, probes=["out", "i(vm)"], max_step=STEP) as env:
        env.drive("iin", -1e-3, rise=1e-10)
        both = [
            env.crossing(p, below=level, within=1e-5)
            for p, level in (("out", -0.5), ("i(vm)", -5e-4))
        ]
        env.run(until=both[0] & both[1])
    for crossing in both:
        assert crossing.value == pytest.approx(1e-6 * np.log(2), rel=0, abs=2e-10)


def test_two_nodes_that_cross_together_are_both_reported():
    text = RC + "r2 in b 1k\nc2 b 0 1n\n"
    with sn.Cosimulation(text, max_step=STEP) as env:
        env.drive("vin", 1.0)
        store = env.monitor(["out", "b"], above=0.5)
        env.run(until=1.2e-6)
        spikes = [store.items[k] for k in range(len(store.items))]
    assert sorted(spike.node for spike in spikes) == ["b", "out"]
    assert abs(spikes[0].time - spikes[1].time) <= 1e-6 * STEP


def test_a_crossing_on_a_slope_and_a_stop_there_meet():
    """The node is the source: 0.5 is passed half way up, where a process wakes as well."""
    with sn.Cosimulation(RC, max_step=STEP) as env:
        rise = 1e-8
        env.drive("vin", 1.0, rise=rise)
        crossing, woken = env.crossing("in", above=0.5), []

        def sleeper(env):
            yield env.timeout(0.5 * rise + 1e-3 * rise)
            woken.append(env.sample("in"))

        env.process(sleeper(env))
        env.run(until=2e-8)
    assert crossing.value == pytest.approx(0.501 * rise, rel=0, abs=1e-6 * STEP)
    assert woken[0] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_picoseconds_and_milliseconds(scale):
    text = f"t\nvin in 0 dc 0 external\nr1 in out 1k\nc1 out 0 {1e-9 * scale!r}\n"
    with sn.Cosimulation(text, max_step=STEP * scale) as env:
        env.drive("vin", 1.0)
        seen = env.crossing("out", above=0.5, within=1e-5 * scale)
        env.run(until=seen)
    assert seen.value / scale == pytest.approx(1e-6 * np.log(2), rel=3e-4, abs=0)


def test_a_resonance_with_an_inductor_crosses_where_a_sine_does():
    text = "t\niin 0 a dc 0 external\nl1 a 0 1u\nc1 a 0 1n ic=1\n"  # LC/√: 31.6 ns
    with sn.Cosimulation(text, max_step=2e-9, probes=["a"], initial_conditions=True) as env:
        down = env.crossing("a", below=0.0, within=1e-6)
        env.run(until=down)
        up = env.crossing("a", above=0.0, within=1e-6)
        env.run(until=up)
    quarter = np.pi / 2 * np.sqrt(1e-6 * 1e-9)
    assert down.value == pytest.approx(quarter, rel=2e-3, abs=0)
    assert up.value - down.value == pytest.approx(2 * quarter, rel=2e-3, abs=0)


@pytest.mark.slow
def test_many_points_take_no_memory_beyond_their_record():
    """Three vectors of 8 bytes a point; a command that is kept would take 200."""
    with closing(SteppedCircuit(stepped(RC), max_step=1e-10)) as block:
        block.watch(Threshold(1, "out", 9.0, True, 0.0))
        advance(block, 1e-6)
        before = memory(block)
        advance(block, 7e-6)
        assert memory(block) - before < 100 * 60_000


def memory(block: SteppedCircuit) -> int:
    return int(psutil.Process(block._child.pid).memory_info().rss)


def test_bad_numbers_are_refused_before_a_process_is_started():
    with pytest.raises(InputError, match="max_step"):
        SteppedCircuit(stepped(RC), max_step=0.0)
    with pytest.raises(InputError, match="tolerance"):
        SteppedCircuit(stepped(RC), max_step=1e-9, tolerance=1e-20)
    with pytest.raises(InputError, match="method"):
        SteppedCircuit(stepped(RC), max_step=1e-9, method="euler")  # type: ignore[arg-type]


def test_a_circuit_that_does_not_load_is_an_error_of_the_engine():
    with pytest.raises(EngineError):
        SteppedCircuit(stepped("t\nm1 a b c d nothere\nr1 a 0 1\n"), max_step=1e-9)
