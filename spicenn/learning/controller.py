"""Learning by a controller: it reads both networks at rest, computes, and sets the gates.

What the circuit does all of the time it does a few times in every slot, as forward Euler
steps of the circuit's equation. As they get short it learns as the circuit does; its
converters' steps, where they are given, are what it cannot see or set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.contrast import Phases, speed, value_range
from spicenn.learning.disturbance import Disturbance, draw_disturbance
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.hardware import LearningChip
from spicenn.learning.operating import operating_points
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task
from spicenn.learning.trajectory import Trajectory, joined
from spicenn.periphery import adc, dac
from spicenn.technology import Converter

Array = NDArray[np.float64]

_SLOTS_AT_ONCE = 100


@dataclass(frozen=True, kw_only=True)
class Converters:
    """Steps in which a controller reads voltages and sets gates; None is as fine as numbers.

    What is set is also what it remembers: an update of less than half of a step is lost.

    reading_bits : of the ADC, for all nodes and outputs.
    reading_low, reading_high : its range [V].
    setting_bits : of the DAC of the gates, or conductances; its range is the hardware's.
    converter : nonlinearity of both.

    Raises InputError for a range that is none, or bits that no converter has.
    """

    reading_bits: int | None = None
    reading_low: float = -0.5
    reading_high: float = 0.5
    setting_bits: int | None = None
    converter: Converter = field(default_factory=Converter)

    def __post_init__(self) -> None:
        if not -math.inf < self.reading_low < self.reading_high < math.inf:
            raise InputError(
                f"a range from {self.reading_low!r} to {self.reading_high!r} V", where="Converters"
            )
        self.read(np.zeros(1))
        self.set(np.zeros(1), np.zeros(1), np.ones(1))

    def read(self, volts: Array) -> Array:
        """Voltages [V] as they are read; of any shape."""
        if self.reading_bits is None:
            return volts
        middle = (self.reading_low + self.reading_high) / 2
        lsb = (self.reading_high - self.reading_low) / 2.0**self.reading_bits
        levels = adc.transitions(self.reading_bits, lsb, self.converter)
        return np.asarray(middle + lsb * adc.codes(volts - middle, levels))

    def set(self, values: Array, low: Array, high: Array) -> Array:
        """Values (…, value) as they are set, of a range (value,)."""
        if self.setting_bits is None:
            return values
        steps = dac.levels(self.setting_bits, self.converter)
        codes = (values - low) / (high - low) * (len(steps) - 1)
        return np.asarray(low + (high - low) * dac.dac_output(codes, steps))


EXACT = Converters()


def learn_by_controller(
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: ArrayLike,
    *,
    slots: int,
    first_slot: int = 0,
    engine: Literal["newton"] | NgspiceEngine = "newton",
    updates: int = 1,
    batch: bool = False,
    converters: Converters = EXACT,
    seed: int | None = None,
    trial: int = 0,
    slots_at_once: int = _SLOTS_AT_ONCE,
    progress: Callable[[Trajectory], None] | None = None,
) -> Trajectory:
    """Have a controller set the gates, by the chip's own bias, leakage, offsets and noise.

    Parameters
    ----------
    values : (value,) with which it begins [V], [S].
    slots, first_slot, seed, trial : as of ``learn_in_circuit``; noise is the same draw.
    engine : that finds where networks rest: Newton's method, or ngspice.
    updates : in every slot, each of its part of the slot's time.
    batch : one update at the end of every round of the schedule, of all of its slots' time,
        from operating points at the same values: one sweep of all examples.
    converters : of what it reads and sets.
    progress : called with every part of so many slots, or of one round if that is more.

    Raises InputError for arguments that do not fit, or a batch that is not of whole rounds;
    ConvergenceError where a network finds no rest, and what ``NgspiceEngine.run`` raises.
    """
    begin = checked_values(chip, values)
    task.check(chip.network)
    schedule.check(task)
    if engine != "newton" and not isinstance(engine, NgspiceEngine):
        raise InputError(
            f"{engine!r} is no engine of a controller", where="learn_by_controller",
            remedy='give "newton" or an NgspiceEngine',
        )  # fmt: skip
    check_counts(slots, slots_at_once, first_slot, updates, where="learn_by_controller")
    round_ = len(schedule.order)
    if batch and (slots % round_ or first_slot % round_ or updates != 1):
        raise InputError(
            f"{slots} slots from slot {first_slot} with {updates} updates are no whole rounds of "
            f"{round_}", where="learn_by_controller",
            remedy="batches are one update of whole rounds of the schedule",
        )  # fmt: skip
    solve = partial(equilibrium, chip) if engine == "newton" else partial(
        operating_points, engine, chip)  # fmt: skip
    together = round_ if batch else 1
    desk = _Desk(
        chip, task, rule, schedule, solve, updates, together, converters,
        engine if isinstance(engine, str) else engine.name,
    )  # fmt: skip
    size = max(slots_at_once // together, 1) * together
    now = converters.set(begin, *value_range(chip))
    return in_parts(
        partial(_part, desk), chip, rule, schedule, now, slots=slots, first_slot=first_slot,
        size=size, seed=seed, trial=trial, progress=progress,
    )  # fmt: skip


def in_parts(
    advance: Callable[[Array, int, int, Disturbance], Trajectory],
    chip: LearningChip,
    rule: Rule,
    schedule: Schedule,
    values: Array,
    *,
    slots: int,
    first_slot: int,
    size: int,
    seed: int | None,
    trial: int,
    progress: Callable[[Trajectory], None] | None,
) -> Trajectory:
    """Go through slots, so many at a time, each part from the values that the last one left.

    advance : called with values (value,), first slot, slots and what is drawn of them.
    """
    parts: list[Trajectory] = []
    for done in range(0, slots, size):
        count = min(size, slots - done)
        drawn = draw_disturbance(
            chip, rule, schedule.slot, slots=count, first_slot=first_slot + done, seed=seed,
            trial=trial,
        )  # fmt: skip
        part = advance(values, first_slot + done, count, drawn)
        parts.append(part)
        values = part.values[-1]
        if progress is not None:
            progress(part)
    return joined(parts)


def check_counts(
    slots: int, slots_at_once: int, first_slot: int, updates: int, *, where: str
) -> None:
    """Raise InputError for numbers of slots or updates out of range."""
    if slots < 1 or slots_at_once < 1 or first_slot < 0 or updates < 1:
        raise InputError(
            f"slots = {slots!r}, {slots_at_once!r} at once, from slot {first_slot!r}, "
            f"{updates!r} updates each", where=where,
        )  # fmt: skip


def checked_values(chip: LearningChip, values: ArrayLike) -> Array:
    """(value,) of a chip. Raises InputError for others."""
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (len(chip.network.learning),) or not np.isfinite(found).all():
        raise InputError(
            f"values of shape {found.shape} are not finite and of "
            f"{len(chip.network.learning)} edges that learn", where="network",
        )  # fmt: skip
    return found


def updated(
    chip: LearningChip,
    values: Array,
    found: Phases,
    rule: Rule,
    duration: float,
    *,
    noise: Array | float,
    active: Array | float,
    converters: Converters,
) -> Array:
    """(value,) after a time [s] at the speed of what was read, (sample, …) of it one after another.

    Within the capacitors' range, in the converters' steps.
    """
    move = speed(chip, values, found, rule, noise=noise, active=active)
    low, high = value_range(chip)
    after = np.clip(values + duration * move.reshape(-1, len(values)).sum(axis=0), low, high)
    return converters.set(after, low, high)


@dataclass(frozen=True, eq=False)
class _Desk:
    """What a controller works on; ``solve`` is called as ``equilibrium`` is, without the chip.

    updates : in a slot; together : slots of one update.
    """

    chip: LearningChip
    task: Task
    rule: Rule
    schedule: Schedule
    solve: Callable[..., Array]
    updates: int
    together: int
    converters: Converters
    engine: str


def _observe(desk: _Desk, values: Array, inputs: Array, labels: Array) -> tuple[Array, Phases]:
    """Voltages (sample, node + 1) of the first network, and of both as they are read."""
    index, rule, read = desk.chip.network.output_index, desk.rule, desk.converters.read
    label = labels + desk.chip.output_offset
    if rule.nudges is None:
        first = desk.solve(values, inputs)
        free = read(first[..., index])
        second = desk.solve(values, inputs, copy=1, clamped=rule.clamped(free, label))
    else:
        first, second = (
            desk.solve(values, inputs, copy=copy, nudge=(beta, label))
            for copy, beta in enumerate(rule.nudges)
        )
        free = read(first[..., index])
    return first, Phases(read(first), read(second), rule.duty(free, label))


def _part(
    desk: _Desk, values: Array, first_slot: int, slots: int, drawn: Disturbance
) -> Trajectory:
    """So many slots, ``together`` of them at the same values.

    A slot's outputs are those of its last values, with which the next one begins: both
    examples are one sweep.
    """
    begun = perf_counter()
    shown = desk.schedule.examples(slots, first_slot)
    index = desk.chip.network.output_index
    passed, outputs = [values], []
    last: tuple[Array, Array] | None = None
    for begin in range(0, slots, desk.together):
        count = min(desk.together, slots - begin)
        of_slots = [drawn.at(first_slot + begin + k) for k in range(count)]
        noise, offset, active = (np.stack(np.broadcast_arrays(*of), axis=0)
                                 for of in zip(*of_slots, strict=True))  # fmt: skip
        examples = shown[begin : begin + count]
        inputs = desk.task.inputs[examples]
        labels = desk.task.labels[examples] + offset.reshape(count, -1)
        for update in range(desk.updates):
            swept = inputs, labels
            if last is not None and update == 0:
                swept = np.vstack([inputs, last[0]]), np.vstack([labels, last[1]])
            first, found = _observe(desk, values, *swept)
            if len(first) > count:
                outputs.append(first[count, index])
            values = updated(
                desk.chip, values,
                Phases(found.first[:count], found.second[:count], found.duty[:count]),
                desk.rule, desk.schedule.slot / desk.updates, noise=noise.reshape(count, -1),
                active=active.reshape(count, -1), converters=desk.converters,
            )  # fmt: skip
        outputs += list(first[: count - 1, index])
        passed += [passed[-1]] * (count - 1) + [values]
        last = inputs[-1:], labels[-1:]
    assert last is not None
    outputs.append(_observe(desk, values, *last)[0][0, index])
    return Trajectory(
        first_slot=first_slot,
        slot=desk.schedule.slot,
        values=np.stack(passed),
        examples=shown,
        outputs=np.stack(outputs),
        runtime=perf_counter() - begun,
        engine=desk.engine,
    )
