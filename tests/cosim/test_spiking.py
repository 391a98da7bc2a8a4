"""Spiking networks: torch's, the exact one's and ngspice's spikes are the same; what is refused."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import spicenn as sn
from spicenn.circuit.tolerances import Tolerances
from spicenn.compiler.spiking import LifSpread
from spicenn.cosim.exact import exact_layer, through_bus
from spicenn.cosim.neuron import LIF
from spicenn.cosim.presentation import UNDECIDED, Presentation, joined, split
from spicenn.cosim.sources import AddressEvents
from spicenn.cosim.spiking import binned, compile_spiking, run_model
from spicenn.errors import CompileError, InputError
from spicenn.periphery.lif import Lif
from spicenn.surrogate.events import LayerBlock, circuit_model

DT, WIDTH, DELAY, CYCLE, PERIOD = 5e-7, 1e-7, 5e-7, 1e-8, 6e-5
TOLERANCES = Tolerances(reltol=1e-4, vntol=1e-7, abstol=1e-11)


def lif(**values):
    return LIF(dt=DT, **{"tau": 1e-5, "refractory": 7e-7, "floor": -0.6, **values})


@cache
def network():
    torch.manual_seed(0)
    model: Any = nn.Sequential(
        nn.Linear(6, 5, bias=False), lif(), nn.Linear(5, 3, bias=False), lif()
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight.normal_(0.2, 0.5)
        model[2].weight.normal_(0.3, 0.5)
    return model


def images(count=2):
    """Twenty spikes each, no two of one input at one time."""
    rng = np.random.default_rng(2)
    chosen = [np.sort(rng.choice(12 * 6, 20, replace=False)) for _ in range(count)]
    return [AddressEvents(np.asarray(c // 6 * DT, np.float64), c % 6) for c in chosen]


def design(technology="ideal", **options):
    preset = sn.Technology.preset(technology)
    return compile_spiking(network(), technology=preset, width=WIDTH, **options)


def shown(chip, engine="ngspice", count=2, **options):
    return chip.run(
        images(count), period=PERIOD, delay=DELAY, cycle=CYCLE, engine=engine,
        tolerances=TOLERANCES, **options,
    )  # fmt: skip


def events(*pairs):
    return AddressEvents(
        np.array([t for t, _ in pairs], dtype=float), np.array([a for _, a in pairs], dtype=int)
    )


def by_neuron(layer, k):
    return layer.times[layer.addresses == k]


# The exact layer.


def test_an_exact_neuron_meets_its_threshold_where_an_rc_does():
    spec = Lif(r_leak=2e6)
    weight = 1.8
    out = exact_layer(np.array([[weight]]), [spec], events((1e-6, 0)), width=1e-6)
    final = weight / 1e-6 * spec.tau
    first = 1e-6 - spec.tau * math.log1p(-1 / final)
    assert out.times == pytest.approx([first], rel=1e-12, abs=0)
    # Held past the pulse's end, it does not fire again.
    assert first + spec.refractory > 2e-6


def test_a_long_pulse_fires_a_neuron_at_the_closed_forms_rate():
    spec = Lif()
    times = exact_layer(np.array([[40.0]]), [spec], events((0.0, 0)), width=2e-5).times
    final = 40.0 / 2e-5 * spec.tau
    period = -spec.tau * math.log1p(-1 / final) + spec.refractory
    np.testing.assert_allclose(np.diff(times), period, rtol=1e-9)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=25), st.integers(0, 9))
def test_an_exact_layer_is_its_neurons_and_waits_for_nobody(pairs, seed):
    """Later events, other neurons and another beginning change no spike before or beside them."""
    weights = np.random.default_rng(seed).normal(0.3, 0.7, (3, 4))
    given_ = events(*sorted((t * 1e-7, a) for t, a in pairs))
    spec = Lif()
    out = exact_layer(weights, [spec] * 3, given_, width=WIDTH)
    for k in range(3):
        alone = exact_layer(weights[k : k + 1], [spec], given_, width=WIDTH)
        assert np.array_equal(by_neuron(out, k), alone.times)
    early = AddressEvents(given_.times[given_.times < 3e-6], given_.addresses[given_.times < 3e-6])
    before = exact_layer(weights, [spec] * 3, early, width=WIDTH)
    assert np.array_equal(before.times[before.times < 3e-6], out.times[out.times < 3e-6])
    later = AddressEvents(given_.times + 1e-6, given_.addresses)
    moved = exact_layer(weights, [spec] * 3, later, width=WIDTH)
    assert moved.addresses.tolist() == out.addresses.tolist()
    np.testing.assert_allclose(moved.times - 1e-6, out.times, rtol=0, atol=1e-15)
    for k in range(3):
        assert np.all(np.diff(by_neuron(out, k)) >= spec.refractory)


def test_pulses_of_one_address_prolong_each_other_without_loss_of_charge():
    """Two at once lift a membrane by twice the weight, over two widths."""
    spec = Lif(r_leak=1e12)
    weights = np.array([[0.6]])
    out = exact_layer(weights, [spec], events((0.0, 0), (0.0, 0)), width=1e-6)
    assert out.times == pytest.approx([1e-6 / 0.6], rel=1e-6, abs=0)


def test_a_floor_forgets_inhibition():
    spec = Lif(r_leak=1e12)
    weights = np.array([[-0.7, 1.7]])
    given_ = events((0.0, 0), (1e-6, 0), (2e-6, 1))
    out = exact_layer(weights, [spec], given_, width=1e-6)
    # From -0.6, not -1.4.
    assert out.times == pytest.approx([2e-6 + 1.6 / 1.7 * 1e-6], rel=1e-6, abs=0)


def test_a_bus_lets_one_event_pass_a_cycle():
    out = through_bus(events((0.0, 2), (0.0, 1), (5.0, 0)), cycle=1.0, delay=10.0)
    assert out.times.tolist() == [11.0, 12.0, 16.0]
    assert out.addresses.tolist() == [2, 1, 0]


# What spikes stand for.


def test_counts_decide_then_the_first_spike_and_silence_is_undecided():
    spikes = tuple(
        (layer,)
        for layer in (events((1.0, 1), (2.0, 0), (3.0, 0)), events((1.0, 2), (2.0, 0)), events())
    )
    p = Presentation(spikes=spikes, outputs=3, energy=np.full((3, 1), np.nan), steps=(0,))
    assert p.decode().tolist() == [0, 2, UNDECIDED]
    assert p.decode("first").tolist() == [1, 2, UNDECIDED]
    assert p.layer_counts.tolist() == [[3], [2], [0]]
    with pytest.raises(InputError, match="no code is called 'last'"):
        p.decode("last")  # type: ignore[arg-type]


def test_images_in_a_row_come_back_as_they_were():
    row = joined([events((0.5, 1)), events(), events((0.0, 2), (0.25, 0))], 1.0)
    back = split(row, 1.0, 3)
    assert [i.times.tolist() for i in back] == [[0.5], [], [0.0, 0.25]]
    assert back[2].addresses.tolist() == [2, 0]
    with pytest.raises(InputError, match="image 1: events from 2 to 2 s"):
        joined([events(), events((2.0, 0))], 1.0)


def test_events_are_put_into_the_step_in_which_they_are():
    x = binned([events((2 * DT, 1), (2.4 * DT, 1), (3 * DT, 0))], inputs=2, dt=DT, steps=4)
    assert x[:, 0].tolist() == [[0, 0], [0, 0], [0, 2], [1, 0]]
    with pytest.raises(InputError, match="beyond 3 steps"):
        binned([events((3 * DT, 0))], inputs=2, dt=DT, steps=3)


# Networks.


def test_in_steps_and_in_closed_form_the_same_neurons_fire_in_the_first_layer():
    """A spike of the exact network lies within its pulse, in the step where torch has it.

    Not where a membrane ends within a pulse's own leak, 0.5 %, of the threshold: 1 of 12 seeds.
    """
    steps = run_model(network(), images(), steps=20)
    exact = design().exact(images(), delay=DELAY, cycle=CYCLE)
    for a, b in zip(steps.spikes, exact.spikes, strict=True):
        for k in range(5):
            early, late = by_neuron(a[0], k), by_neuron(b[0], k) - DELAY
            assert len(early) == len(late)
            assert np.all((late >= early) & (late <= early + WIDTH))


@pytest.mark.ngspice
@pytest.mark.slow
def test_ngspice_has_the_exact_networks_spikes():
    """Two layers, two images: every spike, 5 to 70 ns late in the first layer.

    A comparator takes 10 to 35 ns; where the membrane grazes the threshold, a delay of
    some nanoseconds of its own offset shows as more. The second layer adds its own delay to
    that of the spikes it is driven by.
    """
    found = shown(design().sample(chip=0, seed=1))
    exact = design().exact(images(), delay=DELAY, cycle=CYCLE)
    assert found.layer_counts.tolist() == exact.layer_counts.tolist()
    assert found.layer_counts.min() > 3
    for a, b in zip(found.spikes, exact.spikes, strict=True):
        for layer, most in ((0, 7e-8), (1, 2e-7)):
            for k in range(5):
                late = by_neuron(a[layer], k) - by_neuron(b[layer], k)
                assert np.all((late > 5e-9) & (late < most))
    assert found.decode().tolist() == exact.decode().tolist()
    assert min(found.steps) > 100


@pytest.mark.ngspice
@pytest.mark.slow
def test_a_model_of_events_takes_a_layers_place():
    """Spikes within 40 ns and energies within 10 % of ngspice's, one layer each way."""
    chip = design("rram-1r").sample(chip=3, seed=1)
    whole = shown(chip, count=1)
    assert np.all(whole.energy > 0)

    def events_of(layer, k):
        return LayerBlock(circuit_model(layer), record=["energy"], name=f"layer{k}")

    mixed = shown(chip, engine=["ngspice", events_of], count=1)
    fast = shown(chip, engine="events", count=1)
    for found in (mixed, fast):
        assert found.layer_counts.tolist() == whole.layer_counts.tolist()
        np.testing.assert_allclose(found.energy, whole.energy, rtol=0.1)
        for a, b in zip(found.spikes[0], whole.spikes[0], strict=True):
            for k in range(5):
                late = by_neuron(a, k) - by_neuron(b, k)
                assert np.all(np.abs(late) < 4e-8)
    assert mixed.steps[0] > 0 == mixed.steps[1]


def test_chips_differ_and_a_chip_is_itself():
    """On the model of events: variation moves spikes; without it all chips are the same."""
    spread = LifSpread(offset=0.02)
    first, again, other = (
        shown(design("rram-1r", spread=spread).sample(chip=c, seed=1), engine="events")
        for c in (0, 0, 1)
    )
    times = [[layer.times.tolist() for image in p.spikes for layer in image]
             for p in (first, again, other)]  # fmt: skip
    assert times[0] == times[1]
    assert times[0] != times[2]
    ideal = [shown(design().sample(chip=c, seed=1), engine="events") for c in (0, 1)]
    assert ideal[0].layer_counts.tolist() == ideal[1].layer_counts.tolist()
    np.testing.assert_array_equal(ideal[0].spikes[0][1].times, ideal[1].spikes[0][1].times)


def test_images_do_not_disturb_each_other():
    """The same image first and second: the same spikes, as membranes have come to rest."""
    image = images(1)[0]
    chip = design().sample(chip=0, seed=1)
    done = []
    found = chip.run(
        [image, image], period=2e-4, delay=DELAY, engine="events",
        progress=lambda k, n: done.append((k, n)),
    )  # fmt: skip
    for a, b in zip(*found.spikes, strict=True):
        assert a.addresses.tolist() == b.addresses.tolist()
        np.testing.assert_allclose(a.times, b.times, rtol=0, atol=1e-10)
    # Between events the model's record of its energy is a straight line.
    np.testing.assert_allclose(found.energy[0], found.energy[1], rtol=1e-3)
    assert all(n == 2 for _, n in done)


# What is refused.


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Linear(2, 2, bias=False), "a Linear is not a row of modules"),
        (nn.Sequential(), "a Sequential is not a row"),
        (nn.Sequential(nn.Linear(2, 2), lif()), "module '0': has a bias"),
        (nn.Sequential(nn.Linear(2, 2, bias=False)), "module '0': no neurons follow it"),
        (nn.Sequential(lif(), nn.Linear(2, 2, bias=False)), "module '0': a LIF where a Linear"),
        (nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU()), "module '1': a ReLU where a LIF"),
        (
            nn.Sequential(nn.Linear(2, 2, bias=False), lif(), nn.Linear(3, 1, bias=False), lif()),
            "module '2': takes 3 inputs, and 2 neurons come before it",
        ),
        (
            nn.Sequential(nn.Linear(2, 2, bias=False), lif(refractory=0.0)),
            "module '1': a circuit takes some time",
        ),
        (
            nn.Sequential(nn.Linear(2, 2, bias=False), lif(floor=-1.5)),
            "module '1': a floor of -1.5",
        ),
    ],
)
def test_what_has_no_circuit_is_named(model, said):
    with pytest.raises(CompileError) as caught:
        compile_spiking(model, technology=sn.Technology.preset("ideal"), width=WIDTH)
    assert said in str(caught.value)


def test_wrong_runs_are_refused():
    chip = design().sample(chip=0, seed=1)
    right = {"period": PERIOD, "delay": DELAY, "engine": "events"}
    for changes, said in (
        ({"period": 0.0}, "period = 0.0 s"),
        ({"engine": "spectre"}, "no engine is called 'spectre'"),
        ({"engine": ["events"]}, "1 engines for 2 layers"),
        ({"delay": 0.0}, "delay above 0"),
    ):
        with pytest.raises(InputError) as caught:
            chip.run(images(), **{**right, **changes})
        assert said in str(caught.value)
    with pytest.raises(InputError, match="there is no image"):
        chip.run([], **right)
    with pytest.raises(InputError, match="there is no address 6"):
        chip.run([events((0.0, 6))], **right)
    with pytest.raises(InputError, match="width = 0"):
        compile_spiking(network(), technology=sn.Technology.preset("ideal"), width=0.0)
    with pytest.raises(InputError, match="calibration of 1 layers"):
        design(calibration=[np.ones((1, 6))])
