"""Write and verify: reaches its targets, says where it does not, sees what it disturbed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.circuit import Crossbar, load_cell
from spicenn.circuit.write import WRITE_TOLERANCES, Pulse, Scheme
from spicenn.cosim import Cosimulation
from spicenn.cosim.memristors import ArrayPins, MemristorArray, array_netlist
from spicenn.cosim.programming import Read, Staircase, nominal_pulse, write_blind, write_verify
from spicenn.errors import InputError
from spicenn.kirchhoff.memristor import Memristor

LAW = Memristor()
READ = Read.of(LAW)
UP = Staircase(first=Pulse(amplitude=1.0, width=20e-9), step=0.05, limit=2.0)
DOWN = Staircase(first=Pulse(amplitude=-1.1, width=20e-9), step=0.05, limit=2.0)


def column(rows=1, bitlines=1, **others):
    return Crossbar("column", rows, bitlines, cell=load_cell("memristor"), **others)


def programmed(block, targets, **others):
    """What the process returns, and the record."""
    arguments = {"increase": UP, "decrease": DOWN, "read": READ, **others}
    with Cosimulation(block) as env:
        process: Any = env.process(write_verify(env, block.pins, targets, **arguments))
        ds = env.run(process)
    return process.value, ds


def events(ds, name):
    of = ds.isel(event=ds.event_name.values == name)
    return of.event_value.values, of.event_wordline.values.astype(int)


@given(
    start=st.floats(20e-6, 600e-6),
    target=st.floats(20e-6, 600e-6),
    vel0=st.floats(5.0, 20.0),
)
@settings(max_examples=8, deadline=None)
def test_a_cell_comes_to_its_target_by_pulses_that_follow_from_its_reads(start, target, vel0):
    block = MemristorArray(column(), [[start]], {"vel0": [[vel0]]})
    found, ds = programmed(block, {(0, 0): target}, tolerance=0.1)
    reads, amplitudes = events(ds, "read")[0], events(ds, "pulse")[0]
    # Success is of the cell itself, not only of what was read.
    assert found.success.all()
    assert float(block.conductance[0, 0]) == pytest.approx(target, rel=0.1 + 1e-6)
    assert found.conductance[0] == pytest.approx(float(block.conductance[0, 0]), rel=1e-6)
    assert found.reads[0] == len(reads) == len(amplitudes) + 1
    assert found.pulses[0] == len(amplitudes)
    # A pulse goes where the read before it said, and higher until that changes.
    assert np.array_equal(amplitudes > 0, reads[:-1] < target)
    before = 0.0
    for amplitude in amplitudes:
        stairs = UP if amplitude > 0 else DOWN
        wanted = amplitude * before > 0
        expected = abs(before) + stairs.step if wanted else abs(stairs.first.amplitude)
        assert abs(amplitude) == pytest.approx(expected)
        before = amplitude
    # No pulse came after a good read.
    assert np.all(np.abs(reads[:-1] / target - 1) > 0.1)


@pytest.mark.ngspice
@pytest.mark.slow
def test_ngspice_and_the_law_program_alike():
    # Five cells that differ, half selected neighbours, the process the same. Bounds:
    # every pulse is the same one, conductances within the solvers' tolerances (1e-4 of a
    # change each, of which many add up).
    rng = np.random.default_rng(4)
    each = {
        "vel0": 10 * np.exp(0.3 * rng.standard_normal((5, 1))),
        "thickness": 12e-9 * (1 + 0.01 * rng.standard_normal((5, 1))),
    }
    g = np.full((5, 1), 300e-6)
    levels = np.array([150e-6, 25e-6, 80e-6, 290e-6, 400e-6])
    targets = {(i, 0): float(level) for i, level in enumerate(levels)}
    blocks: Any = {
        "law": (MemristorArray(column(5), g, each), {}),
        "ngspice": (
            array_netlist(column(5), g, each),
            {
                "max_step": 5e-9,
                "probes": ArrayPins(5, 1).probes,
                "tolerances": WRITE_TOLERANCES,
            },
        ),
    }
    results, pulses, reads = {}, {}, {}
    for name, (block, options) in blocks.items():
        with Cosimulation(block, **options) as env:
            process: Any = env.process(
                write_verify(
                    env, ArrayPins(5, 1), targets, increase=UP, decrease=DOWN, read=READ
                )
            )  # fmt: skip
            ds = env.run(process)
        results[name], pulses[name] = process.value, events(ds, "pulse")
        reads[name] = events(ds, "read")
    law, spice = results["law"], results["ngspice"]
    assert law.success.all()
    assert np.array_equal(law.pulses, spice.pulses)
    np.testing.assert_array_equal(pulses["law"], pulses["ngspice"])
    np.testing.assert_allclose(reads["law"][0], reads["ngspice"][0], rtol=5e-4)
    np.testing.assert_allclose(law.conductance, spice.conductance, rtol=5e-4)
    assert len(set(law.pulses)) > 1
    assert {np.sign(a) for a in pulses["law"][0]} == {-1.0, 1.0}


def test_a_cell_that_does_not_come_there_says_so():
    # The limit is too low to move it: it ends after the most pulses, and the others go on.
    weak = Staircase(first=Pulse(amplitude=-0.4, width=20e-9), step=0.05, limit=0.5)
    block = MemristorArray(column(2), [[300e-6], [100e-6]])
    targets = {(0, 0): 50e-6, (1, 0): 100e-6}
    found, ds = programmed(block, targets, decrease=weak, most=5)
    assert found.success.tolist() == [False, True]
    assert found.pulses.tolist() == [5, 0]
    assert found.conductance[0] == pytest.approx(300e-6, rel=1e-3)
    amplitudes = events(ds, "pulse")[0]
    assert amplitudes == pytest.approx([-0.4, -0.45, -0.5, -0.5, -0.5])
    last = ds.isel(event=ds.event_name.values == "programmed")
    assert last.event_success.values.tolist() == [0.0, 1.0]
    assert last.event_pulses.values.tolist() == [5.0, 0.0]


def test_disturbs_are_seen_by_the_verify_pass_and_written_again():
    # A bias that is bad on purpose: 0.85 of the amplitude on the other cells.
    harsh = Scheme("harsh", 0.85, 0.85)
    targets = {(0, 0): 150e-6, (1, 0): 30e-6}
    start = [[300e-6], [300e-6]]
    once, _ = programmed(MemristorArray(column(2), start), targets, scheme=harsh, passes=1)
    # Written first, disturbed by the second: what is told is what is there now.
    assert once.success.tolist() == [False, True]
    assert once.conductance[0] < 0.95 * 150e-6
    block = MemristorArray(column(2), start)
    found, ds = programmed(block, targets, scheme=harsh, passes=4)
    assert found.success.all()
    assert found.pulses[0] > once.pulses[0]
    np.testing.assert_allclose(found.conductance, block.conductance[:, 0], rtol=1e-6)
    rows = events(ds, "pulse")[1]
    assert np.count_nonzero(np.diff(rows)) >= 2


def test_a_scheme_disturbs_as_little_as_it_can():
    # On the selected bitline "grounded" leaves nothing on the others, V/2 and V/3 a share.
    changes = {}
    for scheme in ("grounded", "v/3", "v/2"):
        block = MemristorArray(column(2), [[300e-6], [300e-6]])
        programmed(block, {(0, 0): 50e-6}, scheme=scheme)
        changes[scheme] = 1 - float(block.conductance[1, 0]) / 300e-6
    assert changes["grounded"] == 0.0
    assert 0 < changes["v/3"] < 0.1 * changes["v/2"]
    assert changes["v/2"] < 0.02


def test_bitlines_are_biased_too():
    # Row and column neighbours of (0, 1) see half, the diagonal one nothing at V/2.
    block = MemristorArray(column(2, 2), np.full((2, 2), 300e-6))
    found, _ = programmed(block, {(0, 1): 100e-6})
    change = np.abs(block.conductance / 300e-6 - 1)
    assert found.success.all()
    assert 0 < change[0, 0] < 0.02
    assert change[1, 1] == pytest.approx(change[0, 0], rel=0.05)
    # What reading (0, 1) did to (0, 0), beside the half select.
    assert change[1, 0] == 0.0


def test_noise_is_drawn_from_the_seed_of_every_cell():
    def reads(cells, seed, trial=0):
        block = MemristorArray(column(2), [[100e-6], [100e-6]])
        with Cosimulation(block) as env:
            process: Any = env.process(
                write_blind(
                    env, block.pins, {cell: [] for cell in cells},
                    read=replace(READ, noise=1e-7), seed=seed, trial=trial,
                )
            )  # fmt: skip
            env.run(process)
        return dict(zip(process.value.cells, process.value.conductance, strict=True))

    both = reads([(0, 0), (1, 0)], 3)
    assert both == reads([(1, 0), (0, 0)], 3)
    assert both[1, 0] == reads([(1, 0)], 3)[1, 0]
    assert both[0, 0] != both[1, 0]
    assert len({both[0, 0], reads([(0, 0)], 4)[0, 0], reads([(0, 0)], 3, 1)[0, 0]}) == 3
    drawn = [reads([(0, 0)], 3, trial)[0, 0] for trial in range(60)]
    # 0.1 µA of noise at 0.1 V is 1 µS over the ratio; four standard errors of 60 draws.
    assert np.std(drawn) == pytest.approx(1e-6 / READ.ratio, rel=4 / np.sqrt(120))
    assert np.mean(drawn) == pytest.approx(100e-6, rel=0, abs=4 * 1e-6 / np.sqrt(60))


@pytest.mark.parametrize(("start", "target"), [(300e-6, 40e-6), (50e-6, 150e-6)])
def test_one_pulse_is_right_for_the_nominal_cell_only(start, target):
    pulse = nominal_pulse(LAW, start, target, width=50e-9)

    def shot(vel0):
        block = MemristorArray(column(), [[start]], {"vel0": [[vel0]]})
        with Cosimulation(block) as env:
            process: Any = env.process(write_blind(env, block.pins, {(0, 0): [pulse]}, read=READ))
            env.run(process)
        return process.value

    nominal = shot(LAW.vel0)
    assert nominal.conductance[0] == pytest.approx(target, rel=2e-4)
    assert (nominal.pulses[0], nominal.reads[0]) == (1, 1)
    assert abs(shot(1.5 * LAW.vel0).conductance[0] / target - 1) > 0.1


def test_several_columns_run_side_by_side_with_a_delay():
    # The process reads what it drove, though that arrives later.
    blocks = {name: MemristorArray(column(2), [[300e-6], [300e-6]]) for name in ("a", "b")}
    with Cosimulation(blocks, delay=2e-9) as env:
        running: list[Any] = [
            env.process(
                write_verify(
                    env, ArrayPins(2, 1, name), {(0, 0): goal, (1, 0): 200e-6},
                    increase=UP, decrease=DOWN, read=READ,
                )
            )
            for name, goal in (("a", 100e-6), ("b", 60e-6))
        ]  # fmt: skip
        env.run(env.all_of(running))
        for (_, block), process in zip(blocks.items(), running, strict=True):
            assert process.value.success.all()
            np.testing.assert_allclose(
                process.value.conductance, np.asarray(block.conductance)[:, 0], rtol=1e-6
            )
    alone, _ = programmed(
        MemristorArray(column(2), [[300e-6], [300e-6]]), {(0, 0): 60e-6, (1, 0): 200e-6}
    )
    assert np.array_equal(alone.pulses, running[1].value.pulses)


def test_a_read_knows_the_series_resistance_and_the_law():
    wired = column(1, r_driver=500.0, r_sense=500.0)
    for read, close in (
        (Read.of(LAW, series=1000.0), True),
        (Read.of(LAW), False),
        (Read(series=1000.0), False),
    ):
        block = MemristorArray(wired, [[200e-6]])
        with Cosimulation(block) as env:
            process: Any = env.process(write_blind(env, block.pins, {(0, 0): []}, read=read))
            env.run(process)
        # The law's ratio at the whole voltage, not at what the resistance leaves: 1 %.
        assert bool(abs(process.value.conductance[0] / 200e-6 - 1) < 0.01) is close


BAD = [
    ({"targets": {}}, "no cell is given"),
    ({"targets": {(1, 0): 1e-4}}, r"no cell \(1, 0\) in 1 x 1"),
    ({"targets": {(0, 0): -1e-4}}, r"target of \(0, 0\) = -0.0001 is not above 0"),
    ({"targets": {(0, 0): float("nan")}}, "not a finite number"),
    ({"tolerance": 0.0}, "tolerance = 0.0 is not above 0"),
    ({"most": 0}, "most = 0 is not a whole number"),
    ({"passes": 1.5}, "passes = 1.5 is not a whole number"),
    ({"increase": DOWN}, "increase.*goes the wrong way"),
    ({"decrease": UP}, "decrease.*goes the wrong way"),
    ({"scheme": "v/4"}, "no biasing scheme is called 'v/4'"),
    ({"rest": 0.0}, "rest = 0.0 is not above 0"),
    ({"read": replace(READ, noise=1e-9)}, "read noise needs a seed"),
    ({"read": None}, "None is not a Read"),
    ({"pins": "vw_0"}, "'vw_0' is not an ArrayPins"),
    ({"pins": ArrayPins(2, 1)}, "no external source 'vw_1'"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_arguments_are_named_before_anything_is_driven(change, message):
    block = MemristorArray(column(), [[1e-4]])
    arguments = {
        "pins": block.pins, "targets": {(0, 0): 5e-5},
        "increase": UP, "decrease": DOWN, "read": READ, **change,
    }  # fmt: skip
    with Cosimulation(block) as env, pytest.raises(InputError, match=message):
        write_verify(env, **arguments)


def test_bad_pulses_and_reads_are_named():
    for make, message in (
        (lambda: replace(UP, limit=0.5), "beyond the limit"),
        (lambda: replace(UP, step=-0.1), "step = -0.1 is below 0"),
        (lambda: replace(UP, first=Pulse(amplitude=0.0, width=1e-9)), "first pulse is"),
        (lambda: Read(voltage=0.0), "tells nothing"),
        (lambda: Read(time=0.0), "time = 0.0 is not above 0"),
        (lambda: Read(noise=-1.0), "noise = -1.0 is below 0"),
        (lambda: nominal_pulse(LAW, 1e-4, 1.0, width=1e-8), "no pulse.*a cell of this law has"),
        (lambda: nominal_pulse(LAW, 1e-4, 1e-4, width=1e-8), "no pulse"),
        (lambda: nominal_pulse(LAW, 1e-4, -1.0, width=1e-8), "target = -1.0 is not above 0"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    block = MemristorArray(column(), [[1e-4]])
    with Cosimulation(block) as env, pytest.raises(InputError, match=r"1.0 is not a Pulse"):
        write_blind(env, block.pins, {(0, 0): [1.0]}, read=READ)  # type: ignore[list-item]
