"""How a network's values went while it learnt, slot by slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.learning.task import Task

Array = NDArray[np.float64]

_FORMAT = 1


@dataclass(frozen=True)
class Abort:
    """A slot that the simulator gave up at first.

    slot : its number, counted from the schedule's begin.
    message : what the simulator said.
    retry : which of the other settings went through, from 1.
    settings : those, in words.
    """

    slot: int
    message: str
    retry: int
    settings: str = ""


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

    def save(self, path: str | Path) -> None:
        """Write it as an npz file, which is there whole or not at all.

        Raises InputError where it cannot be written.
        """
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("wb") as file:
                np.savez(
                    file, format=_FORMAT, first_slot=self.first_slot, slot=self.slot,
                    values=self.values, examples=self.examples, outputs=self.outputs,
                    runtime=self.runtime, engine=self.engine,
                    abort_slot=np.array([abort.slot for abort in self.aborts], dtype=np.int64),
                    abort_message=np.array([abort.message for abort in self.aborts], dtype=np.str_),
                    abort_retry=np.array([abort.retry for abort in self.aborts], dtype=np.int64),
                    abort_settings=np.array(
                        [abort.settings for abort in self.aborts], dtype=np.str_
                    ),
                )  # fmt: skip
            partial.replace(path)
        except OSError as error:
            raise InputError(f"cannot be written: {error}", where=str(path)) from error

    @classmethod
    def load(cls, path: str | Path) -> Trajectory:
        """Read what ``save`` wrote. Raises InputError for anything else."""
        try:
            # Opened here: of a file that is no archive NumPy leaves its own open.
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as found:
                kept = {name: found[name] for name in found.files}
            return _from_arrays(kept)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
            raise InputError(what, where=str(path)) from error


def _from_arrays(kept: dict[str, NDArray[Any]]) -> Trajectory:
    """Undo ``save``. Raises KeyError or ValueError for what it did not write."""
    if int(kept["format"]) != _FORMAT:
        raise ValueError(f"it is of format {int(kept['format'])}, not {_FORMAT}")
    values, outputs, examples = (kept[name] for name in ("values", "outputs", "examples"))
    slots = len(examples)
    if values.ndim != 2 or outputs.ndim != 2 or (len(values), len(outputs)) != (slots + 1, slots):
        raise ValueError(f"values {values.shape} and outputs {outputs.shape} of {slots} slots")
    columns = [kept[f"abort_{name}"].tolist() for name in ("slot", "message", "retry", "settings")]
    return Trajectory(
        first_slot=int(kept["first_slot"]), slot=float(kept["slot"]),
        values=values.astype(np.float64), examples=examples.astype(np.int64),
        outputs=outputs.astype(np.float64), runtime=float(kept["runtime"]),
        engine=str(kept["engine"]),
        aborts=tuple(Abort(*row) for row in zip(*columns, strict=True)),
    )  # fmt: skip


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
