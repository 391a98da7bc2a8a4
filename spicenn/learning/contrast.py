"""What a rule makes of two equilibria: how fast every edge moves, and how large the error is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.learning.elements import Resistor
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.hardware import LearningChip
from spicenn.learning.rules import Rule
from spicenn.learning.task import Task

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Phases:
    """Both networks at rest: (…, node + 1) voltages each [V], and the duty (…,) of it."""

    first: Array
    second: Array
    duty: Array


def phases(
    chip: LearningChip,
    values: Array,
    inputs: Array,
    labels: Array,
    rule: Rule,
    start: Phases | None = None,
) -> Phases:
    """Solve for both networks under a rule.

    Parameters
    ----------
    values : (…, value). inputs : (…, input) [V]. labels : (…, output) [V].
    start : where to begin, an earlier result.

    Raises as ``equilibrium`` does.
    """
    label = np.asarray(labels, dtype=np.float64) + chip.output_offset
    at = chip.network.output_index
    begin = (None, None) if start is None else (start.first, start.second)
    if rule.nudges is None:
        first = equilibrium(chip, values, inputs, start=begin[0])
        free = first[..., at]
        clamped = rule.clamped(free, label)
        second = equilibrium(chip, values, inputs, copy=1, clamped=clamped, start=begin[1])
    else:
        first, second = (
            equilibrium(
                chip, values, inputs, copy=copy, nudge=(beta, label), start=begin[copy]
            )
            for copy, beta in enumerate(rule.nudges)
        )  # fmt: skip
        free = first[..., at]
    return Phases(first, second, rule.duty(free, label))


def contrast(chip: LearningChip, found: Phases) -> Array:
    """(…, value) difference of the squared voltages across the edges that learn [V^2]."""
    a, b = chip.network.ends[list(chip.network.learning)].T
    first, second = (v[..., a] - v[..., b] for v in (found.first, found.second))
    return np.asarray(first * first - second * second)


def speed(
    chip: LearningChip,
    values: Array,
    found: Phases,
    rule: Rule,
    *,
    noise: Array | float = 0.0,
    active: Array | float = 1.0,
) -> Array:
    """(…, value) by which values change per second, [V/s] or [S/s], within their range.

    ``rate/(V0 R C) · duty · (ΔV_1² − ΔV_2² + bias)`` of the capacitor, less leakage.

    Parameters
    ----------
    noise : (…, value) that adds to the bias [V^2].
    active : (…, value) 1 of the edges that take part, 0 of others.
    """
    hardware = chip.hardware
    scale = rule.rate / (hardware.v0 * hardware.resistance * hardware.capacitance)
    per_volt = value_per_volt(chip)
    bracket = contrast(chip, found) + chip.bias + noise
    driven = scale * found.duty[..., None] * active * bracket
    leaked = chip.leakage / hardware.capacitance * (values / per_volt)
    return np.asarray(per_volt * (driven - leaked))


def value_per_volt(chip: LearningChip) -> Array:
    """(value,) of an edge per volt of its capacitor: 1 of transistors, [S/V] of resistors."""
    network = chip.network
    return np.array([
        chip.hardware.conductance_per_volt
        if isinstance(network.edges[k].element, Resistor) else 1.0
        for k in network.learning
    ])  # fmt: skip


def value_range(chip: LearningChip) -> tuple[Array, Array]:
    """(value,) least and greatest that the capacitors' range allows."""
    per_volt = value_per_volt(chip)
    return chip.hardware.gate_low * per_volt, chip.hardware.gate_high * per_volt


def answers(chip: LearningChip, values: Array, inputs: Array, start: Array | None = None) -> Array:
    """(…, output) [V] of the free network."""
    found = equilibrium(chip, values, inputs, start=start)
    return np.asarray(found[..., chip.network.output_index])


def mean_square_error(chip: LearningChip, values: Array, task: Task) -> Array:
    """(…,) mean over examples and outputs of the squared error [V^2] for values (…, value).

    The labels are the task's own: the comparators' offsets are the chip's, not the user's.
    """
    found = answers(chip, np.asarray(values)[..., None, :], task.inputs)
    return np.asarray(((found - task.labels) ** 2).mean(axis=(-1, -2)))
