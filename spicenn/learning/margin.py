"""How much bias overclamping withstands: whether small errors of many tasks shrink or grow.

Near values that do all tasks, both what a task teaches and what the bias adds while it is
shown are in proportion to its error. What is left is which of the two is larger, in the
direction in which both tasks are wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.learning.contrast import answers, contrast, phases, value_per_volt
from spicenn.learning.hardware import LearningChip
from spicenn.learning.rules import Overclamping
from spicenn.learning.task import Task

Array = NDArray[np.float64]

_STEP = 1e-5  # of a capacitor, for the slopes of the answers [V]
# Errors' signs are all tried: at most this many.
_MOST = 12
# Of a sign: an eigenvector's part that is round-off has none.
_ZERO = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class Growth:
    """The direction in which small errors grow fastest, or shrink slowest.

    rate : of the errors along it [1/s]; minus infinity where no direction keeps its signs.
    direction : (value,) of unit length, in volts of the capacitors.
    signs : (example, output) of label − answer along it.
    """

    rate: float
    direction: Array
    signs: Array


def growth(chip: LearningChip, values: Array, task: Task, rule: Overclamping) -> Growth:
    """Compute how errors grow near values that do a task, all examples shown equally long.

    To first order an example's errors e are ``−J δ``, its duty the mean of ``|e| / full``, and
    its speed ``rate/(v0 R C)`` times the duty times its contrast at full rails and the bias:
    one linear map of δ for every choice of the errors' signs. Along an eigenvector that has
    the signs of its map, errors grow with the eigenvalue. Errors that go round from signs to
    signs are not among these.

    Parameters
    ----------
    values : (value,) at which every answer is its label, as the comparators see it.

    Raises InputError for a rule that is half of overclamping, or more than 12 labels.
    """
    if not (rule.amplitude and rule.time):
        raise InputError("half of overclamping does not fade with the error", where="growth")
    task.check(chip.network)
    examples, outputs = task.labels.shape
    if examples * outputs > _MOST:
        raise InputError(f"{examples * outputs} labels; at most {_MOST}", where="growth")
    values = np.asarray(values, dtype=np.float64)
    per_volt = value_per_volt(chip)
    size = len(values)
    moved = values + _STEP * per_volt * np.concatenate([np.eye(size), -np.eye(size)])
    found = answers(chip, moved[:, None], task.inputs)
    slopes = (found[:size] - found[size:]).transpose(1, 2, 0) / (2 * _STEP)
    here = answers(chip, values[None], task.inputs)
    hardware = chip.hardware
    scale = rule.rate / (hardware.v0 * hardware.resistance * hardware.capacitance)
    # Far from the comparator's own width, and of no size otherwise: only the sign counts.
    small = replace(rule, smoothing=1e-12)
    pushed = {}
    for pattern in product((-1.0, 1.0), repeat=outputs):
        label = here + 1e-9 * np.array(pattern) - chip.output_offset
        state = phases(chip, np.broadcast_to(values, (examples, size)), task.inputs, label, small)
        pushed[pattern] = contrast(chip, state) + chip.bias
    best = Growth(rate=-np.inf, direction=np.zeros(size), signs=np.zeros((examples, outputs)))
    for choice in product(pushed, repeat=examples):
        signs = np.array(choice)
        speed = np.stack([pushed[own][n] for n, own in enumerate(choice)])
        size_of = (signs[..., None] * slopes).mean(axis=1) / rule.full
        matrix = -scale * (speed.T @ size_of) / examples
        rates, vectors = np.linalg.eig(matrix)
        for rate, vector in zip(rates, vectors.T, strict=True):
            if abs(rate.imag) > _ZERO * abs(rate) or not abs(rate) > 0:
                continue
            error = -(slopes @ vector.real) * signs
            least = _ZERO * np.abs(error).max()
            for side in (1.0, -1.0):
                if (side * error >= -least).all() and least > 0 and rate.real > best.rate:
                    best = Growth(
                        rate=float(rate.real), direction=side * vector.real, signs=signs
                    )  # fmt: skip
    return best


def bias_margin(
    chip: LearningChip, values: Array, task: Task, rule: Overclamping, *, most: float = 64.0
) -> float:
    """By how much a chip's bias can be multiplied before errors grow; infinity beyond ``most``.

    0 where they grow without a bias. Bisected to a thousandth, of one change of sign.
    """

    def grows(multiple: float) -> bool:
        return growth(replace(chip, bias=chip.bias * multiple), values, task, rule).rate > 0

    if grows(0.0):
        return 0.0
    if not grows(most):
        return np.inf
    low, high = 0.0, most
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if grows(middle) else (middle, high)
    return (low + high) / 2
