"""How a network's values went while it learnt, slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.learning.task import Task

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Abort:
    """A slot that the simulator gave up: which, what it said, which retry went through."""

    slot: int
    message: str
    retry: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Values at the ends of slots.

    first_slot : number of the first, counted from the schedule's begin.
    slot : how long one is [s].
    values : (slot + 1, value) [V], [S] of resistors: before the first and after each.
    examples : (slot,) that each showed.
    outputs : (slot, output) of the first network at the end of each [V].
    runtime : of the simulation [s].
    engine : which one says so.
    aborts : slots that were given up at first.
    """

    first_slot: int
    slot: float
    values: Array
    examples: NDArray[np.int64]
    outputs: Array
    runtime: float
    engine: str
    aborts: tuple[Abort, ...] = ()

    @property
    def time(self) -> Array:
        """(slot + 1,) [s] from the schedule's begin."""
        count = self.first_slot + np.arange(len(self.values))
        return np.asarray(self.slot * count, dtype=np.float64)

    def squared_error(self, task: Task) -> Array:
        """(slot,) mean over outputs of the squared error at the end of each slot [V^2]."""
        return np.asarray(((self.outputs - task.labels[self.examples]) ** 2).mean(axis=1))


def joined(parts: Sequence[Trajectory]) -> Trajectory:
    """Return parts that follow each other as one.

    Raises InputError where one does not begin at the slot at which the one before it ends.
    """
    if not parts:
        raise InputError("no part of a trajectory")
    for before, after in pairwise(parts):
        if after.first_slot != before.first_slot + len(before.examples):
            raise InputError(
                f"slot {after.first_slot} does not follow slot "
                f"{before.first_slot + len(before.examples) - 1}",
                where="trajectory",
            )
    first = parts[0]
    return Trajectory(
        first_slot=first.first_slot,
        slot=first.slot,
        values=np.concatenate([first.values[:1], *(part.values[1:] for part in parts)]),
        examples=np.concatenate([part.examples for part in parts]),
        outputs=np.concatenate([part.outputs for part in parts]),
        runtime=sum(part.runtime for part in parts),
        engine=first.engine,
        aborts=tuple(abort for part in parts for abort in part.aborts),
    )
