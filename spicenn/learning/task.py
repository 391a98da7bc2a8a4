"""What a network is to learn, as data: inputs and labels, and when each is shown."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.errors import InputError
from spicenn.learning.network import Network
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]

# Of a slot: how long inputs and labels take to change. What is learnt in between is wrong.
_EDGE = 1e-4


@dataclass(frozen=True, eq=False)
class Task:
    """Examples: voltages of the inputs, and of the outputs that belong to them.

    inputs : (example, input) [V].
    labels : (example, output) [V].

    Raises InputError for shapes that do not fit or values that are not finite.
    """

    inputs: Array
    labels: Array

    def __init__(self, inputs: ArrayLike, labels: ArrayLike) -> None:
        for name, value in (("inputs", inputs), ("labels", labels)):
            found = np.array(value, dtype=np.float64)
            if found.ndim != 2 or not found.size or not np.isfinite(found).all():
                raise InputError(
                    f"{name} of shape {found.shape} are not finite and (example, node)",
                    where="task",
                )
            object.__setattr__(self, name, found)
        if len(self.inputs) != len(self.labels):
            raise InputError(
                f"there are {len(self.inputs)} inputs and {len(self.labels)} labels", where="task"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def check(self, network: Network) -> Task:
        """Return the task. Raises InputError unless it has a network's inputs and outputs."""
        for name, given, nodes in (
            ("inputs", self.inputs, network.inputs), ("labels", self.labels, network.outputs),
        ):  # fmt: skip
            if given.shape[1] != len(nodes):
                raise InputError(
                    f"{name} are of {given.shape[1]} nodes; the network has {len(nodes)}: "
                    + ", ".join(nodes[:8]),
                    where="task",
                )
        return self

    def with_constants(self, voltages: ArrayLike) -> Task:
        """Return the task with further inputs that are the same in all examples [V]."""
        constant = np.asarray(voltages, dtype=np.float64).ravel()
        more = np.broadcast_to(constant, (len(self), len(constant)))
        return Task(np.hstack([self.inputs, more]), self.labels)


@dataclass(frozen=True, eq=False)
class Schedule:
    """Examples one after the other, again and again.

    order : (slot,) number of the example that each slot shows.
    slot : how long a slot is [s].
    edge : how long inputs and labels take to change at its begin [s]; 1e-4 of a slot if None.

    Raises InputError for an empty order or times out of range.
    """

    order: NDArray[np.int64]
    slot: float
    edge: float

    def __init__(self, order: ArrayLike, slot: float, edge: float | None = None) -> None:
        found = np.array(order)
        if found.ndim != 1 or not found.size or found.dtype.kind not in "iu" or found.min() < 0:
            raise InputError("an order is a list of examples' numbers, 0 or more", where="schedule")
        rise = _EDGE * slot if edge is None else edge
        if not (math.isfinite(slot) and 0 < rise <= slot / 2):
            raise InputError(
                f"a slot of {slot!r} s with edges of {rise!r} s", where="schedule",
                remedy="edges are positive, and at most half a slot",
            )  # fmt: skip
        object.__setattr__(self, "order", found.astype(np.int64))
        object.__setattr__(self, "slot", float(slot))
        object.__setattr__(self, "edge", float(rise))

    @property
    def period(self) -> float:
        """After which it begins anew [s]."""
        return self.slot * len(self.order)

    def examples(self, slots: int, start: int = 0) -> NDArray[np.int64]:
        """(slots,) examples of so many slots, from a slot on."""
        return np.asarray(self.order[np.arange(start, start + slots) % len(self.order)])

    def check(self, task: Task) -> Schedule:
        """Return the schedule. Raises InputError where it names examples that there are not."""
        if self.order.max() >= len(task):
            raise InputError(
                f"example {self.order.max()} is not one of the task's {len(task)}",
                where="schedule",
            )
        return self


def cyclic(task: Task, period: float, *, edge: float | None = None) -> Schedule:
    """Show every example once per period [s], in their order."""
    return Schedule(np.arange(len(task)), period / len(task), edge)


def shuffled(
    task: Task, period: float, *, passes: int, seed: int, edge: float | None = None
) -> Schedule:
    """Show every example once per period [s], in a new order each, for so many passes.

    Raises InputError for fewer than one pass.
    """
    if passes < 1:
        raise InputError(f"passes = {passes!r} is not positive", where="schedule")
    rng = generator(seed, Purpose.TASK_ORDER)
    order = np.concatenate([rng.permutation(len(task)) for _ in range(passes)])
    return Schedule(order, period / len(task), edge)
