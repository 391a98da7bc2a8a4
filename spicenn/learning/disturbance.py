"""What is drawn anew in every slot: noise of updates and comparators, which edges take part.

Noise is white: of a one-sided density n per root of a hertz, its mean over a slot of T has the
variance n²/(2T), and no slot knows of another. It is drawn as that mean, constant in its slot;
what is faster averages out on the gates. Every slot has generators of its own, so that a run
can be resumed at any of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.learning.hardware import LearningChip
from spicenn.learning.rules import Rule
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Disturbance:
    """Of slots one after the other; None is what there is not.

    first_slot : number of the first, counted from the schedule's begin.
    update : (slot, value) that adds to the bias [V^2].
    output : (slot, output) that adds to the comparators' offset [V].
    active : (slot, value) whether an edge takes part.
    """

    first_slot: int
    update: Array | None = None
    output: Array | None = None
    active: NDArray[np.bool_] | None = None

    def at(self, slot: int) -> tuple[Array | float, Array | float, Array | float]:
        """Of one slot: what adds to the bias (value,) and to the labels (output,), and 1 of
        the edges (value,) that take part; 0, 0 and 1 where nothing is drawn.
        """
        k = slot - self.first_slot
        return (
            0.0 if self.update is None else self.update[k],
            0.0 if self.output is None else self.output[k],
            1.0 if self.active is None else self.active[k].astype(np.float64),
        )

    def spanning(self, first_slot: int, slots: int) -> Disturbance:
        """Of so many slots from one on, and of the one before the first.

        What is before all is as what follows it. Raises InputError for slots that were not
        drawn.
        """
        rows = np.arange(first_slot - 1, first_slot + slots) - self.first_slot
        rows[0] = max(rows[0], 0)
        parts = [part for part in (self.update, self.output, self.active) if part is not None]
        if rows.min() < 0 or any(rows.max() >= len(part) for part in parts):
            raise InputError(
                f"slots {first_slot} to {first_slot + slots - 1} were not drawn",
                where="disturbance",
            )
        return Disturbance(
            first_slot=first_slot - 1,
            update=None if self.update is None else self.update[rows],
            output=None if self.output is None else self.output[rows],
            active=None if self.active is None else self.active[rows],
        )


def is_disturbed(chip: LearningChip, rule: Rule) -> bool:
    """Whether anything is drawn for a chip under a rule."""
    hardware = chip.hardware
    return hardware.update_noise > 0 or hardware.output_noise > 0 or rule.share < 1


def draw_disturbance(
    chip: LearningChip,
    rule: Rule,
    slot: float,
    *,
    slots: int,
    first_slot: int = 0,
    seed: int | None,
    trial: int = 0,
) -> Disturbance:
    """Draw so many slots, from one on, keyed by seed, chip, trial and the slot's number.

    Parameters
    ----------
    slot : how long one is [s].

    Raises InputError where something is to be drawn and the seed is None, or numbers are out
    of range.
    """
    hardware = chip.hardware
    values, outputs = len(chip.network.learning), len(chip.network.outputs)
    if is_disturbed(chip, rule) and seed is None:
        raise InputError(
            "noise, or edges that take part at random, and no seed to draw them from",
            where="seed", remedy="name one",
        )  # fmt: skip
    density = 1 / math.sqrt(2 * slot)

    def draw(purpose: Purpose, size: int, uniform: bool = False) -> Array:
        assert seed is not None
        rngs = (
            generator(seed, purpose, chip=chip.index or 0, trial=trial, row=first_slot + k)
            for k in range(slots)
        )
        return np.array([r.random(size) if uniform else r.standard_normal(size) for r in rngs])

    update = output = active = None
    if hardware.update_noise > 0:
        update = hardware.update_noise * density * draw(Purpose.UPDATE_NOISE, values)
    if hardware.output_noise > 0:
        output = hardware.output_noise * density * draw(Purpose.OUTPUT_NOISE, outputs)
    if rule.share < 1:
        active = draw(Purpose.DESYNCHRONOUS, values, uniform=True) < rule.share
    return Disturbance(first_slot=first_slot, update=update, output=output, active=active)


def draw_with_before(
    chip: LearningChip,
    rule: Rule,
    slot: float,
    *,
    slots: int,
    first_slot: int = 0,
    seed: int | None,
    trial: int = 0,
) -> Disturbance | None:
    """Draw so many slots and the one before them, as a netlist of them needs; None for nothing.

    Raises as ``draw_disturbance`` does.
    """
    if not is_disturbed(chip, rule):
        return None
    before = min(first_slot, 1)
    return draw_disturbance(
        chip, rule, slot, slots=slots + before, first_slot=first_slot - before, seed=seed,
        trial=trial,
    )  # fmt: skip
