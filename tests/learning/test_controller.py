"""A controller learns as the circuit does, to the first order of its time between updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.contrast import phases, speed
from spicenn.learning.controller import Converters, learn_by_controller
from spicenn.learning.examples import HIGH, LOW, two_tasks
from spicenn.learning.hardware import Hardware, sample_chip
from spicenn.learning.model import learn_in_model
from spicenn.learning.network import grid, layered
from spicenn.learning.rules import CoupledLearning, EquilibriumPropagation, Overclamping, Rule
from spicenn.learning.task import Task, cyclic
from spicenn.learning.trajectory import Trajectory

EXAMPLE = two_tasks()
START = np.array([2.5, 2.5])
RULES: list[Rule] = [
    CoupledLearning(),
    Overclamping(low=LOW, high=HIGH, smoothing=1e-3),
    EquilibriumPropagation(beta=1e-3),
    EquilibriumPropagation(beta=1e-3, centred=True),
]


def run(rule: Rule, slots: int, period: float = 5e-3, **options: Any) -> Trajectory:
    schedule = cyclic(EXAMPLE.task, period)
    return learn_by_controller(
        EXAMPLE.chip, EXAMPLE.task, rule, schedule, START, slots=slots, **options
    )


def test_an_update_is_the_speed_at_rest_times_the_slot() -> None:
    rule = CoupledLearning()
    found = phases(EXAMPLE.chip, START, EXAMPLE.task.inputs[0], EXAMPLE.task.labels[0], rule)
    moved = run(rule, 1)
    expected = START + 2.5e-3 * speed(EXAMPLE.chip, START, found, rule)
    np.testing.assert_allclose(moved.values[1], expected, rtol=0, atol=1e-12)
    after = phases(
        EXAMPLE.chip, moved.values[1], EXAMPLE.task.inputs[0], EXAMPLE.task.labels[0], rule
    )
    index = EXAMPLE.chip.network.output_index
    np.testing.assert_allclose(moved.outputs[0], after.first[index], rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_its_error_falls_as_the_time_between_updates(rule: Rule) -> None:
    """Slope 1 of the largest difference to the transient's equation, from 4 to 16 updates."""
    exact = learn_in_model(
        EXAMPLE.chip, EXAMPLE.task, rule, cyclic(EXAMPLE.task, 5e-3), START, slots=6,
        tolerance=1e-7,
    )  # fmt: skip
    error = [np.abs(run(rule, 6, updates=n).values - exact.values).max() for n in (4, 16)]
    assert np.log(error[0] / error[1]) / np.log(4) == pytest.approx(1.0, abs=0.05)


def test_short_slots_learn_as_the_circuit_does() -> None:
    """Slope 1 also where slots themselves get short, for the same time in all."""
    error = []
    for slots in (4, 16):
        schedule = cyclic(EXAMPLE.task, 20e-3 / slots)
        setup = (EXAMPLE.chip, EXAMPLE.task, CoupledLearning(), schedule, START)
        moved, exact = (
            way(*setup, slots=slots).values for way in (learn_by_controller, learn_in_model)
        )
        error.append(np.abs(moved[-1] - exact[-1]).max())
    assert np.log(error[0] / error[1]) / np.log(4) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("batch", [False, True])
def test_a_run_is_gone_on_with_at_any_round(batch: bool) -> None:
    whole = run(RULES[0], 12, batch=batch)
    parts: list[Trajectory] = []
    again = run(RULES[0], 12, batch=batch, slots_at_once=4, progress=parts.append)
    assert [len(part.examples) for part in parts] == [4, 4, 4]
    np.testing.assert_array_equal(again.values, whole.values)
    np.testing.assert_allclose(again.outputs, whole.outputs, rtol=0, atol=1e-12)
    late = learn_by_controller(
        EXAMPLE.chip, EXAMPLE.task, RULES[0], cyclic(EXAMPLE.task, 5e-3), whole.values[6],
        slots=6, first_slot=6, batch=batch,
    )  # fmt: skip
    np.testing.assert_array_equal(late.values, whole.values[6:])
    np.testing.assert_array_equal(late.time, whole.time[6:])


def test_a_batch_moves_by_the_sum_of_its_examples() -> None:
    rule = CoupledLearning()
    found = phases(EXAMPLE.chip, START, EXAMPLE.task.inputs, EXAMPLE.task.labels, rule)
    moved = run(rule, 2, batch=True)
    expected = START + 2.5e-3 * speed(EXAMPLE.chip, START, found, rule).sum(axis=0)
    np.testing.assert_array_equal(moved.values[1], START)
    np.testing.assert_allclose(moved.values[2], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"slots": 3}, {"first_slot": 1}, {"updates": 2}])
def test_a_batch_of_no_whole_rounds_is_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(InputError, match="whole rounds"):
        run(RULES[0], **{"slots": 2, **arguments}, batch=True)


@settings(max_examples=50, deadline=None)
@given(
    bits=st.integers(1, 12), low=st.floats(-2, 1), span=st.floats(0.1, 4),
    part=st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_converters_are_off_by_half_a_step_at_most(
    bits: int, low: float, span: float, part: float
) -> None:
    """A range of 2^bits codes: the last one's upper half step is beyond all of them."""
    converters = Converters(
        reading_bits=bits, reading_low=low, reading_high=low + span, setting_bits=bits
    )
    step = span / 2**bits
    volts = np.array([low + part * (span - step / 2)])
    assert abs(converters.read(volts) - volts)[0] <= step / 2 * (1 + 1e-9)
    value = np.array([low + part * span])
    found = converters.set(value, np.array([low]), np.array([low + span]))
    assert abs(found - value)[0] <= span / (2**bits - 1) / 2 * (1 + 1e-9)
    np.testing.assert_allclose(
        converters.set(found, np.array([low]), np.array([low + span])), found, rtol=0, atol=1e-12
    )


def test_coarse_gates_stop_where_updates_are_lost() -> None:
    """Without bias 16 bits solve both tasks 10^4 times better than 6, which stand still."""
    chip = two_tasks(speeds=(0.0, 0.0)).chip
    schedule = cyclic(EXAMPLE.task, 20e-3)
    ends = {}
    for bits in (6, 16):
        found = learn_by_controller(
            chip, EXAMPLE.task, CoupledLearning(), schedule, START, slots=120, batch=True,
            converters=Converters(setting_bits=bits),
        )  # fmt: skip
        if bits == 6:
            step = 4.0 / 63
            np.testing.assert_allclose(
                (found.values[1:] - 1) / step, np.round((found.values[1:] - 1) / step), atol=1e-9
            )
            np.testing.assert_array_equal(found.values[-1], found.values[-20])
        ends[bits] = found.squared_error(EXAMPLE.task)[-2:].mean()
    assert ends[16] < 1e-4 * ends[6]


def test_coarse_readings_leave_an_error_of_their_size() -> None:
    """8 bits of 1 V are steps of 3.9 mV; 14 bits leave a hundred times less error."""
    chip = two_tasks(speeds=(0.0, 0.0)).chip
    schedule = cyclic(EXAMPLE.task, 20e-3)
    ends = [
        learn_by_controller(
            chip, EXAMPLE.task, CoupledLearning(), schedule, START, slots=120, batch=True,
            converters=Converters(reading_bits=bits),
        ).squared_error(EXAMPLE.task)[-2:].mean()
        for bits in (8, 14)
    ]  # fmt: skip
    assert ends[1] < 1e-2 * ends[0]


@pytest.mark.parametrize(
    "arguments",
    [{"reading_low": 1.0}, {"reading_bits": 0}, {"reading_bits": 21}, {"setting_bits": 21}],
)
def test_converters_that_there_are_not_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Converters(**arguments)


def test_gates_stay_in_their_range() -> None:
    chip = two_tasks(hardware=Hardware(gate_low=2.47, gate_high=2.55)).chip
    found = learn_by_controller(
        chip, EXAMPLE.task, CoupledLearning(), cyclic(EXAMPLE.task, 0.1), START, slots=6
    )
    assert found.values.min() == 2.47
    assert found.values.max() == 2.55


@pytest.mark.ngspice
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_ngspice_and_newton_teach_alike(rule: Rule, batch: bool) -> None:
    with NgspiceEngine() as engine:
        found = run(rule, 4, batch=batch, engine=engine)
    expected = run(rule, 4, batch=batch)
    assert found.engine == "ngspice"
    np.testing.assert_allclose(found.values, expected.values, rtol=0, atol=1e-8)
    np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=1e-9)


@pytest.mark.ngspice
def test_grids_with_mismatch_and_resistors_with_diodes_are_taught_alike() -> None:
    hardware = Hardware(
        bias_std=2e-4, threshold_std=0.01, twin_threshold_std=3e-3, leakage=1e-9,
        output_offset_std=1e-3,
    )  # fmt: skip
    for network, begin in (
        (grid(3, 3, inputs=("n0_0", "n1_1"), outputs=("n2_2", "n0_2")), 2.0),
        (layered([2, 3, 2]), 1.5e-3),
    ):
        chip = sample_chip(network, hardware, chip=2, seed=4)
        task = Task([[0.0, 0.4], [0.3, 0.1]], [[0.1, 0.2], [0.2, 0.1]])
        start = np.full(len(network.learning), begin)
        setup = (chip, task, CoupledLearning(), cyclic(task, 5e-3), start)
        with NgspiceEngine() as engine:
            found = learn_by_controller(*setup, slots=3, engine=engine)
        expected = learn_by_controller(*setup, slots=3)
        np.testing.assert_allclose(found.values / begin, expected.values / begin, rtol=0, atol=1e-8)
        np.testing.assert_allclose(found.outputs, expected.outputs, rtol=0, atol=1e-8)
