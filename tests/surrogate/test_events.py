"""The event-driven layer: its closed forms, its block, its fit and its calibration."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import spicenn as sn
from spicenn.compiler.spiking import LifSpread, SpikingLayer, spiking_layer
from spicenn.cosim.characterize import play, poisson_stimulus, trace_layer
from spicenn.errors import CalibrationError, DesignError, InputError
from spicenn.periphery.lif import Lif, first_spike
from spicenn.surrogate.events import (
    EventSurrogate,
    LayerBlock,
    LayerModel,
    Trace,
    circuit_model,
    nominal_layer,
    rerun,
    run_layer,
)
from spicenn.surrogate.events.chip import Noise, Spread, fit_chip, usable
from spicenn.surrogate.events.energy import EnergySpread
from spicenn.surrogate.events.motion import move, move_with_gains
from spicenn.surrogate.events.replay import replay
from spicenn.surrogate.events.state import LayerState

WIDTH = 1e-7
WEIGHTS = [[0.5, 0.3, -0.2, 0.4], [0.2, 0.6, 0.5, -0.4], [-0.3, 0.4, 0.7, 0.3]]


def layer_of(chip: int = 0, spread: LifSpread | None = None) -> tuple[SpikingLayer, SpikingLayer]:
    """A layer of three neurons and four axons, and what it was meant to be."""
    model = torch.nn.Linear(4, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor(WEIGHTS))
    design = sn.compile(
        model, torch.ones(1, 4), technology=sn.Technology.preset("ideal"),
        calibration=torch.ones(2, 4),
    ).with_technology(programming_error=0.03)  # fmt: skip
    layer = design.layers[0]
    made = spiking_layer(design.sample(chip=chip, seed=3), layer, Lif(), width=WIDTH, spread=spread)
    return made, nominal_layer(design, layer, Lif(), width=WIDTH)


SPREAD = LifSpread(offset=5e-3, gm=0.03, c_mem=0.03, r_leak=0.05, i_ref=0.03)


@pytest.fixture(scope="module")
def model() -> LayerModel:
    return circuit_model(layer_of()[0])


def one(model: LayerModel, **changes: object) -> LayerModel:
    """Its first neuron alone."""
    names = ("drift", "tau", "threshold", "refractory", "catch", "grip", "fall", "power_slope",
             "energy_catch")  # fmt: skip
    cut = {name: getattr(model, name)[:1] for name in names}
    return model.with_(weights=model.weights[:, :1], **(cut | changes))


def synthetic(model: LayerModel, until: float, seed: int, chip: int = 0) -> Trace:
    """A trace that the model itself makes."""
    stimulus = poisson_stimulus(model.axons, until, rate=1e6, width=WIDTH, seed=seed)
    time = np.concatenate([stimulus.time, stimulus.time + WIDTH])
    order = np.argsort(time, kind="stable")
    axon = np.concatenate([stimulus.axon, stimulus.axon])[order]
    level = np.repeat([0.2, 0.0], len(stimulus.time))[order]
    sample = np.unique(np.concatenate([[0.0], time - 1e-10, [until]]))
    run = run_layer(model, time[order], axon, level, until, sample=sample)
    return Trace(
        axons=model.axons, neurons=model.neurons, edge_time=time[order], edge_axon=axon,
        edge_level=level, spike_time=run.spike_time, spike_neuron=run.spike_neuron,
        membrane_time=sample, membrane=run.membrane, energy_time=sample, energy=run.energy,
        until=until, chip=chip,
    )  # fmt: skip


@given(
    v=st.floats(0.05, 0.99),
    slope=st.floats(-1e7, 1e7),
    share=st.floats(0.05, 0.95),
    step=st.floats(1e-9, 2e-7),
)
@settings(max_examples=60, deadline=None)
def test_a_free_or_caught_membrane_may_be_looked_at_on_its_way(
    model: LayerModel, v: float, slope: float, share: float, step: float
) -> None:
    """Going on from half of the way ends where going all the way does, above and at the floor."""
    lone = one(model)
    before, drive, release = np.array([v]), np.array([slope]), np.array([-1.0])
    whole = move(lone, before, drive, release, 0.0, step)
    part = move(lone, before, drive, release, 0.0, share * step)
    rest = move(lone, part, drive, release, share * step, step)
    assert rest == pytest.approx(whole, rel=0, abs=2e-4)


@pytest.mark.parametrize("slope", [-8e6, -2e6, 3e5, 4e6])
@pytest.mark.parametrize("v", [0.12, 0.25, 0.5])
def test_the_floor_is_the_transistors_law(model: LayerModel, v: float, slope: float) -> None:
    """Against a numerical solution of the membrane with its leak and the square law."""
    lone = one(model)
    end = 1.5e-7

    def law(_: float, y: np.ndarray) -> np.ndarray:
        below = np.maximum(lone.floor - y, 0.0)
        return np.asarray(slope - (y - lone.rest) / lone.tau + lone.grip * below**2)

    exact = solve_ivp(law, (0, end), [v], rtol=1e-9, atol=1e-12).y[0, -1]
    ours = move(lone, np.array([v]), np.array([slope]), np.array([-1.0]), 0.0, end)
    assert ours[0] == pytest.approx(exact, rel=0, abs=1e-3)


@pytest.mark.parametrize("slope", [-5e6, -1e6, 1e6, 5e6])
def test_a_reset_lets_go_as_its_transistor_does(model: LayerModel, slope: float) -> None:
    """Against a numerical solution of the membrane and a transistor that is switched off
    slowly, from long before its release to long after.
    """
    lone = one(model, threshold=np.array([1e3]))
    release, end = 5e-7, 6e-7
    rest, catch, fall = lone.rest, float(lone.catch[0]), float(lone.fall[0])

    def law(t: float, y: np.ndarray) -> np.ndarray:
        spare = fall * (release - t)
        x = y - rest
        triode = 2 * spare * x - x**2
        saturated = np.where(x > 0, max(spare, 0.0) ** 2, -((spare - x) ** 2))
        on = np.where(x > 0, spare > 0, spare - x > 0)
        linear = np.where(x > 0, x < spare, spare > 0)
        held = np.where(on, np.where(linear, triode, saturated), 0.0)
        return slope - x / lone.tau - catch * held

    solved = solve_ivp(law, (0, end), [rest], rtol=1e-8, atol=1e-10, method="LSODA")
    v, now = np.array([rest]), 0.0
    for time in np.arange(1, 31) * 2e-8:
        v = move(lone, v, np.array([slope]), np.array([release]), now, float(time))
        now = float(time)
    assert v[0] == pytest.approx(solved.y[0, -1], rel=0, abs=0.015)


def test_gains_are_derivatives(model: LayerModel) -> None:
    """What ``move_with_gains`` says of a small change is what a small change does."""
    v, slope = np.array([0.7, 0.25, 0.15]), np.array([1e6, -3e6, -2e6])
    release = np.full(3, -1.0)
    at, kept, brought = move_with_gains(model, v, slope, release, 0.0, 1e-7)
    up = move(model, v + 1e-5, slope, release, 0.0, 1e-7)
    faster = move(model, v, slope + 1e2, release, 0.0, 1e-7)
    assert (up - at) / 1e-5 == pytest.approx(kept, rel=0.02, abs=1e-4)
    assert (faster - at) / 1e2 == pytest.approx(brought, rel=0.02, abs=1e-11)


def test_without_a_comparators_delay_it_fires_by_the_closed_form() -> None:
    """A constant input takes a neuron from rest to threshold in the RC's time."""
    layer, _ = layer_of()
    model = circuit_model(layer).with_(excess=np.array([math.log(1e-22)]))
    volts = 0.05
    run = run_layer(model, np.array([0.0]), np.array([3]), np.array([volts]), 2e-5)
    k = 0
    spec = layer.neurons[k]
    expected = first_spike(spec, model.weights[3, k] * volts * (spec.c_mem + 10e-15) / spec.gm)
    assert run.spike_time[run.spike_neuron == k][0] == pytest.approx(expected, rel=1e-5, abs=0)


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_looking_changes_nothing(model: LayerModel, seed: int) -> None:
    """Sampling at any times leaves outputs and energy as they are: events alone compute."""
    trace = synthetic(model, 8e-6, seed)
    rng = np.random.default_rng(seed)
    looked = np.sort(rng.uniform(0, 8e-6, 50))
    args = trace.edge_time, trace.edge_axon, trace.edge_level, 8e-6
    plain = run_layer(model, *args, sample=np.array([8e-6]))
    seen = run_layer(model, *args, sample=np.append(looked, 8e-6))
    assert np.array_equal(plain.spike_time, seen.spike_time)
    assert plain.energy[-1] == seen.energy[-1]


def test_energy_only_grows(model: LayerModel) -> None:
    """Supplies never get anything back."""
    assert (np.diff(synthetic(model, 2e-5, 1).energy) > 0).all()


def test_the_block_does_in_a_cosimulation_what_the_model_does_alone(model: LayerModel) -> None:
    """Same outputs at the same times, and its probes read what they are called."""
    stimulus = poisson_stimulus(4, 1e-5, rate=1e6, width=WIDTH, seed=5)
    block = LayerBlock(model)
    with sn.Cosimulation(block, rise=1e-9) as env:
        env.process(play(env, stimulus, 0.2, WIDTH))
        store = env.monitor([f"spk_{k}" for k in range(3)], above=0.9)
        ds = env.run(until=1e-5)
        energy = env.sample("energy")
        assert env.sample("mem_1") == ds["mem_1"].values[-1]
    time = np.concatenate([stimulus.time, stimulus.time + WIDTH]) + 0.5e-9
    order = np.argsort(time, kind="stable")
    run = run_layer(
        model, time[order], np.concatenate([stimulus.axon] * 2)[order],
        np.repeat([0.2, 0.0], len(stimulus.time))[order], 1e-5, sample=np.array([1e-5]),
    )  # fmt: skip
    assert len(store.items) == len(run.spike_time) > 5
    assert [s.time for s in store.items] == pytest.approx(run.spike_time.tolist(), rel=1e-9, abs=0)
    assert [s.node for s in store.items] == [f"spk_{k}" for k in run.spike_neuron]
    assert energy == pytest.approx(run.energy[0], rel=1e-9, abs=0)
    rises = (np.diff(ds["spk_0"].values) > 1.0).sum()
    assert rises == (run.spike_neuron == 0).sum()


def test_a_crossing_is_waited_for_and_watched_downwards(model: LayerModel) -> None:
    """One-shot crossings up and down, a pulse's width apart; a past one is found."""
    seen: list[float] = []
    with sn.Cosimulation(LayerBlock(model), rise=1e-9) as env:

        def process(env: sn.Cosimulation):
            env.drive("vi_3", 0.2)
            seen.append((yield env.crossing("spk_0", above=0.9)))
            assert env.sample("spk_0") == model.supply
            seen.append((yield env.crossing("spk_0", below=0.9)))
            env.drive("vi_3", 0.0)

        env.process(process(env))
        env.run(until=2e-6)
    assert seen[1] - seen[0] == pytest.approx(model.spike_width, rel=1e-6, abs=0)


def test_what_a_block_does_not_have_is_refused(model: LayerModel) -> None:
    """Unknown names say what is near; membranes cannot be watched."""
    block = LayerBlock(model)
    with pytest.raises(InputError, match="no probe 'mem_3'"):
        block.check_probe("mem_3")
    with pytest.raises(InputError, match="no external source 'vi_4'"):
        block.check_source("vi_4")
    with pytest.raises(InputError, match="not watched"), sn.Cosimulation(block) as env:
        env.monitor(["mem_0"], above=0.9)
    with pytest.raises(InputError, match="threshold"):
        model.with_(threshold=model.threshold - 0.6)


def test_a_models_own_run_replays_to_nothing(model: LayerModel) -> None:
    """Led through what it did itself, nothing lacks: membranes, and the voltage at spikes."""
    trace = synthetic(model, 3e-5, 2)
    found = replay(model, trace)
    assert len(trace.spike_time) > 20
    left = np.abs(found.membrane[usable(model, trace)])
    # A reset that lets go is followed in steps, which fall otherwise here.
    assert left.max() < 2e-3
    assert np.median(left) < 1e-6
    assert np.median(np.abs(found.lacking)) < 3e-4


TRUE_SPREAD = Spread(
    weight=1e5, gain=0.05, tau=0.05, refractory=0.03, drift=10.0, threshold=1e-3
)  # fmt: skip
NOISE = Noise(membrane=2e-4, spike=5e-4)


def other_chip(model: LayerModel, seed: int) -> LayerModel:
    rng = np.random.default_rng(seed)
    factor = 1 + 0.05 * rng.standard_normal(model.neurons)
    return model.with_(
        weights=model.weights * factor + 1e5 * rng.standard_normal(model.weights.shape),
        refractory=model.refractory * (1 + 0.02 * rng.standard_normal(model.neurons)),
    )


def test_a_chip_is_found_from_its_outputs_alone(model: LayerModel) -> None:
    """Weights of another chip, from the times of its outputs, to a fifth of their spread."""
    truth = other_chip(model, 4)
    trace = synthetic(truth, 6e-5, 3).without_membranes()
    found = fit_chip(model, TRUE_SPREAD, NOISE, trace, rounds=3)

    def off(m: LayerModel) -> float:
        return float(np.sqrt(np.mean((m.weights - truth.weights) ** 2)))

    assert off(found) < 0.25 * off(model)
    assert found.refractory == pytest.approx(truth.refractory, rel=5e-3, abs=0)


def surrogate(model: LayerModel) -> EventSurrogate:
    energy = EnergySpread(rest=0.01, axon=0.05, slope=0.02, spike=0.02, catch=0.05, noise=1e-13)
    return EventSurrogate(model, model, TRUE_SPREAD, NOISE, energy, 2, {"engine": "none"})


def test_calibration_is_judged_on_spikes_it_has_not_seen(model: LayerModel) -> None:
    """A chip's own trace is accepted and its model runs closer to it than the population's;
    outputs at other times are refused.
    """
    trace = synthetic(other_chip(model, 6), 6e-5, 7)
    learned = surrogate(model)
    result = learned.calibrate(trace)
    assert result.success
    assert result.heldout < 0.3 * result.population
    probe = synthetic(other_chip(model, 6), 2e-5, 8)

    def wrong(m: LayerModel) -> int:
        run = rerun(m, probe)
        early = [
            np.abs(run.spike_time[run.spike_neuron == k][:, None] - t).min(initial=1.0)
            for t, k in zip(probe.spike_time, probe.spike_neuron, strict=True)
        ]
        return int((np.array(early) > 1e-8).sum())

    assert wrong(result.model) < wrong(learned.model)
    rng = np.random.default_rng(0)
    torn = replace(trace, spike_time=np.sort(rng.uniform(0, 6e-5, len(trace.spike_time))))
    refused = learned.calibrate(torn)
    assert not refused.success
    assert refused.model is learned.model
    with pytest.raises(CalibrationError, match="too few"):
        learned.calibrate(trace.before(2e-6))


def test_a_surrogate_is_saved_without_pickle(model: LayerModel, tmp_path) -> None:
    """All that it holds comes back; what is no surrogate is refused."""
    path = tmp_path / "layer.npz"
    before = surrogate(model)
    before.save(path)
    after = EventSurrogate.load(path)
    assert np.array_equal(after.model.weights, model.weights)
    assert (after.spread, after.noise, after.energy) == (before.spread, before.noise, before.energy)
    assert after.provenance == {"engine": "none"}
    path.write_bytes(b"no such thing")
    with pytest.raises(DesignError, match="not an event-driven surrogate"):
        EventSurrogate.load(path)


@pytest.mark.ngspice
@pytest.mark.slow
def test_it_takes_the_circuits_place() -> None:
    """Learned from two chips' traces in ngspice, a third's block runs the same co-simulation:
    the same number of outputs, each within 3 ns, energy within 5 %.
    """
    traces, models = [], []
    for chip in range(3):
        layer, nominal = layer_of(chip, SPREAD)
        stimulus = poisson_stimulus(4, 6e-6, rate=1.5e6, width=WIDTH, seed=11, use=chip)
        traces.append(trace_layer(layer, stimulus, nominal=nominal, chip=chip))
        models.append((layer, stimulus))
    learned = sn.fit(traces[:2], rounds=1)
    with pytest.raises(CalibrationError, match="one chip"):
        sn.fit(traces[0])
    layer, stimulus = models[2]
    block = LayerBlock(learned.for_layer(layer))
    ours = trace_layer(layer, stimulus, block=block)
    spikes = {}
    for name, ds in (("circuit", traces[2]), ("block", ours)):
        chosen = ds["event_kind"].values == "crossing"
        order = np.lexsort((ds["event_time"].values[chosen], ds["event_name"].values[chosen]))
        spikes[name] = (
            ds["event_name"].values[chosen][order].tolist(),
            ds["event_time"].values[chosen][order],
        )
    assert spikes["block"][0] == spikes["circuit"][0]
    assert len(spikes["circuit"][0]) >= 5
    assert np.abs(spikes["block"][1] - spikes["circuit"][1]).max() < 3e-9
    seen = sn.surrogate.events.read_trace(traces[2])
    assert block.energy == pytest.approx(seen.energy[-1], rel=0.05, abs=0)


def test_a_state_is_where_its_events_left_it(model: LayerModel) -> None:
    """A copy goes its own way."""
    state = LayerState(model)
    twin = state.copy()
    state.drive(np.array([0]), np.array([0.2]))
    state.advance(1e-7)
    assert twin.time == 0.0
    assert np.all(twin.level == 0)
    assert np.all(twin.v == model.rest)
