"""Tasks and schedules: which example each slot shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError
from spicenn.learning.network import graph
from spicenn.learning.task import Schedule, Task, cyclic, shuffled

TASK = Task([[0.1], [0.2], [0.3]], [[1.0], [2.0], [3.0]])


def test_a_cycle_shows_every_example_for_an_equal_part_of_its_period() -> None:
    schedule = cyclic(TASK, 0.3)
    assert schedule.slot == pytest.approx(0.1, rel=1e-15)
    assert schedule.period == pytest.approx(0.3, rel=1e-15)
    assert schedule.edge == pytest.approx(1e-5, rel=1e-12, abs=0)
    assert schedule.examples(7).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert schedule.examples(3, 5).tolist() == [2, 0, 1]


@given(order=st.lists(st.integers(0, 9), min_size=1, max_size=12), at=st.integers(0, 40))
def test_slots_from_anywhere_are_those_counted_from_the_begin(order: list[int], at: int) -> None:
    schedule = Schedule(order, 1e-3)
    assert schedule.examples(9, at).tolist() == schedule.examples(at + 9).tolist()[at:]


def test_each_pass_shows_every_example_once_in_an_order_of_its_own() -> None:
    schedule = shuffled(TASK, 0.3, passes=20, seed=1)
    orders = schedule.order.reshape(20, 3)
    assert (np.sort(orders, axis=1) == [0, 1, 2]).all()
    assert len({tuple(order) for order in orders.tolist()}) == 6
    assert schedule.slot == pytest.approx(0.1, rel=1e-15)
    np.testing.assert_array_equal(shuffled(TASK, 0.3, passes=20, seed=1).order, schedule.order)
    assert (shuffled(TASK, 0.3, passes=20, seed=2).order != schedule.order).any()


def test_constants_are_further_inputs() -> None:
    more = TASK.with_constants([5.0, 6.0])
    assert more.inputs.tolist() == [[0.1, 5.0, 6.0], [0.2, 5.0, 6.0], [0.3, 5.0, 6.0]]
    assert more.labels is not None
    assert len(more) == 3


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Task([1.0], [[1.0]]), "inputs of shape"),
        (lambda: Task([[1.0]], [[np.nan]]), "labels of shape"),
        (lambda: Task([[1.0], [2.0]], [[1.0]]), "2 inputs and 1 labels"),
        (lambda: Schedule([], 1.0), "list of examples"),
        (lambda: Schedule([0.5], 1.0), "list of examples"),
        (lambda: Schedule([-1], 1.0), "list of examples"),
        (lambda: Schedule([0], 0.0), "a slot of"),
        (lambda: Schedule([0], np.inf), "a slot of"),
        (lambda: Schedule([0], 1.0, 0.6), "a slot of"),
        (lambda: Schedule([3], 1.0).check(TASK), "example 3 is not one of the task's 3"),
        (lambda: shuffled(TASK, 1.0, passes=0, seed=1), "passes"),
        (
            lambda: TASK.check(graph([("a", "b"), ("b", "c")], inputs=["a", "c"], outputs=["b"])),
            "inputs are of 1 nodes; the network has 2: a, c",
        ),
        (
            lambda: TASK.check(graph([("a", "b"), ("b", "c")], inputs=["a"], outputs=["b", "c"])),
            "labels are of 1 nodes",
        ),
    ],
)
def test_what_is_no_task_or_schedule_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
