"""Linear theory of limit cycles: how far a bias drives values around while tasks alternate.

Close to a point every example i pulls the values g by a linear law,
``dg/dt = −M_i (g − G*_i) + B − leak g``, with ``M_i`` the derivative of what the rule does
without bias and ``B`` the speed of the bias alone. Slots are then matrix exponentials, and a
schedule shown for ever ends in the cycle that their product leaves as it is. Source: Guzman,
Liu, Dillavou and Durian, arXiv 2505.22887, for two examples; here any number of examples and
values.

Which rules: those whose speed is smooth in the error, of which the derivative at a solution
says something. These are coupled learning and equilibrium propagation. What overclamping does
is quadratic in a small error, or jumps with its sign: its derivative is 0 or that of the
comparator's smoothing, and no theory. Rules that draw by chance have no cycle.

What is left out: the capacitors' range, the time in which inputs change, update noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm

from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.contrast import (
    Phases,
    mean_square_error,
    phases,
    speed,
    value_per_volt,
    value_range,
)
from spicenn.learning.equilibrium import edge_values, edges_of, equilibrium
from spicenn.learning.hardware import LearningChip
from spicenn.learning.rules import CoupledLearning, EquilibriumPropagation, Rule
from spicenn.learning.task import Schedule, Task

Array = NDArray[np.float64]

# Directions in which a period pulls less than this of the strongest are not pulled at all.
_NEUTRAL = 1e-10
_ITERATIONS = 100
_HALVINGS = 12
# Of the iterated theory: points that are remembered, and how much of a step is taken.
_MEMORY = 3
_MIXED = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Linearisation:
    """What examples do to values close to a point, and what the network answers there.

    at : (value,) the point.
    speed : (example, value) there, of the rule without bias and leakage [V/s].
    pull : (example, value, value) M_i, how the speed falls with the values [1/s].
    drift : (value,) B, of the bias alone [V/s].
    leak : (value,) of the leakage [1/s].
    answer : (example, output) there [V].
    slope : (example, output, value) derivative of the answers.
    """

    at: Array
    speed: Array
    pull: Array
    drift: Array
    leak: Array
    answer: Array
    slope: Array

    @property
    def solutions(self) -> Array:
        """(example, value) G*_i: nearest to the point of those values with no speed.

        As many directions count as there are outputs: a task fixes no more of them, and what
        M_i pulls in others is the curvature of errors at the point.
        """
        outputs = self.answer.shape[1]
        moves = []
        for pull, speed_at in zip(self.pull, self.speed, strict=True):
            left, size, right = np.linalg.svd(pull)
            count = min(outputs, int((size > _NEUTRAL * size[0]).sum()))
            moves.append(right[:count].T @ ((left[:, :count].T @ speed_at) / size[:count]))
        return np.asarray(self.at + np.array(moves))

    def squared_error(self, values: Array, task: Task) -> Array:
        """(…,) mean squared error [V^2] at values (…, value) by the answers' derivative."""
        away = np.asarray(values) - self.at
        found = self.answer + np.einsum("eok,...k->...eo", self.slope, away)
        return np.asarray(((found - task.labels) ** 2).mean(axis=(-1, -2)))


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearCycle:
    """The cycle of a linearisation under a schedule.

    start : (value,) with which a period begins.
    ends : (slot, value) at the end of every slot; the last is ``start`` again.
    period : (value, value) what a period makes of a deviation from the cycle.
    open : distance by which the period misses its start [V]. It is 0 but for a bias in a
        direction in which no example pulls: values then drift, and there is no cycle.
    linearisation, schedule : of which it is.
    """

    start: Array
    ends: Array
    period: Array
    open: float
    linearisation: Linearisation
    schedule: Schedule

    @property
    def span(self) -> float:
        """D: largest distance of two values at ends of slots [V]."""
        return span(self.ends)

    @property
    def contraction(self) -> float:
        """What a period leaves of the slowest deviation from the cycle."""
        return float(np.abs(np.linalg.eigvals(self.period)).max())

    def path(self, points: int = 50) -> Array:
        """(slot · points + 1, value) through one period."""
        steps = _steps(self.linearisation, self.schedule, self.schedule.slot / points)
        now = self.start - self.linearisation.at
        found = [now]
        for example in self.schedule.order:
            held, moved = steps[int(example)]
            for _ in range(points):
                now = held @ now + moved
                found.append(now)
        return self.linearisation.at + np.array(found)

    def mean(self, points: int = 8) -> Array:
        """(value,) mean over time."""
        path = self.path(points)
        return np.asarray((path[1:] + path[:-1]).mean(axis=0) / 2)

    def squared_error(self, task: Task, chip: LearningChip | None = None) -> float:
        """Mean over examples and ends of slots of the squared error [V^2].

        chip : whose own network answers; None takes the linearised one.
        """
        if chip is None:
            return float(self.linearisation.squared_error(self.ends, task).mean())
        return float(mean_square_error(chip, self.ends, task).mean())


def span(ends: Array) -> float:
    """Largest distance of two of some points (point, value)."""
    return float(np.linalg.norm(ends[:, None] - ends[None], axis=-1).max())


class Responses(NamedTuple):
    """How nodes follow the values: (example, node + 1, value) of the first and second network."""

    first: Array
    second: Array


def responses(chip: LearningChip, values: Array, found: Phases, rule: Rule) -> Responses:
    """Return the derivatives of both networks' voltages by the values, exactly.

    They are those of the equilibria's own equations (the implicit function theorem): one
    linear solve with the Jacobian of Newton's method for each.

    Parameters
    ----------
    values : (value,).
    found : of ``phases`` for (example,).

    Raises InputError for a rule that is neither coupled learning nor equilibrium propagation.
    """
    _check_rule(rule)
    outputs = chip.network.output_index
    if isinstance(rule, CoupledLearning):
        first = _follow(chip, values, found.first, 0, 0.0, None)
        held = (1 - rule.eta) * first[:, outputs]
        return Responses(first, _follow(chip, values, found.second, 1, 0.0, held))
    assert rule.nudges is not None
    return Responses(
        *(
            _follow(chip, values, v, copy, beta, None)
            for copy, (v, beta) in enumerate(
                zip((found.first, found.second), rule.nudges, strict=True)
            )
        )
    )


def has_linear_law(rule: Rule) -> bool:
    """Whether a rule's speed is smooth and not 0 in first order, as the theory needs it."""
    return isinstance(rule, CoupledLearning | EquilibriumPropagation)


def _check_rule(rule: Rule) -> None:
    if not has_linear_law(rule):
        raise InputError(
            f"{type(rule).__name__} has no linear theory: its speed is not linear in a small error",
            where="linearise",
            remedy="the theory is of CoupledLearning and EquilibriumPropagation",
        )


def linearise(chip: LearningChip, task: Task, rule: Rule, values: Array) -> Linearisation:
    """Return the linear law of every example close to values (value,).

    Raises InputError for arguments that do not fit or a rule without a linear law, and as
    ``equilibrium`` does.
    """
    _check_rule(rule)
    task.check(chip.network)
    at = np.asarray(values, dtype=np.float64)
    if at.shape != (len(chip.network.learning),) or not np.isfinite(at).all():
        raise InputError(
            f"values of shape {at.shape} are not finite and of "
            f"{len(chip.network.learning)} edges", where="linearise",
        )  # fmt: skip
    hardware = chip.hardware
    scale = rule.rate / (hardware.v0 * hardware.resistance * hardware.capacitance)
    drift = value_per_volt(chip) * scale * chip.bias
    leak = chip.leakage / hardware.capacitance
    found = phases(chip, at, task.inputs, task.labels, rule)
    moved = responses(chip, at, found, rule)
    a, b = chip.network.ends[list(chip.network.learning)].T
    changes = [
        2 * (v[:, a] - v[:, b])[..., None] * (d[:, a] - d[:, b])
        for v, d in ((found.first, moved.first), (found.second, moved.second))
    ]
    factor = (scale * value_per_volt(chip))[:, None]
    free = found.first
    slope = moved.first[:, chip.network.output_index]
    if isinstance(rule, EquilibriumPropagation) and rule.nudges[0]:
        # Centred: the first network is nudged too, and answers are those of one that is not.
        free = equilibrium(chip, at, task.inputs)
        slope = _follow(chip, at, free, 0, 0.0, None)[:, chip.network.output_index]
    return Linearisation(
        at=at,
        speed=speed(chip, at, found, rule) - drift + leak * at,
        pull=-factor * (changes[0] - changes[1]),
        drift=drift,
        leak=leak,
        answer=free[:, chip.network.output_index],
        slope=slope,
    )


def propagators(matrix: Array, time: float) -> tuple[Array, Array]:
    """Return ``exp(−K t)`` and ``∫₀ᵗ exp(−K s) ds``; K (value, value) may be singular.

    Both are blocks of one exponential. Source: Van Loan, IEEE Trans. Automatic Control 23,
    395, 1978.
    """
    size = len(matrix)
    block = np.zeros((2 * size, 2 * size))
    block[:size, :size] = -matrix
    block[:size, size:] = np.eye(size)
    found = expm(block * time)
    return np.asarray(found[:size, :size]), np.asarray(found[:size, size:])


def linear_cycle(law: Linearisation, schedule: Schedule) -> LinearCycle:
    """Return the cycle in which a schedule ends.

    Where no example pulls, the cycle is the one nearest to the point of linearisation.

    Raises InputError where the schedule names examples that there are not.
    """
    if schedule.order.max() >= len(law.speed):
        raise InputError(
            f"example {schedule.order.max()} is not one of {len(law.speed)}", where="linear_cycle"
        )
    size = len(law.at)
    steps = _steps(law, schedule, schedule.slot)
    period, shift = np.eye(size), np.zeros(size)
    for example in schedule.order:
        held, moved = steps[int(example)]
        period, shift = held @ period, held @ shift + moved
    left = np.eye(size) - period
    away = np.linalg.pinv(left, rcond=_NEUTRAL) @ shift
    ends, now = [], away
    for example in schedule.order:
        held, moved = steps[int(example)]
        now = held @ now + moved
        ends.append(law.at + now)
    return LinearCycle(
        start=law.at + away,
        ends=np.array(ends),
        period=period,
        open=float(np.linalg.norm(now - away)),
        linearisation=law,
        schedule=schedule,
    )


def predict_cycle(
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: Array,
    *,
    tolerance: float = 1e-6,
    iterations: int = _ITERATIONS,
) -> LinearCycle:
    """Return the cycle that is linearised at its own mean over time.

    Parameters
    ----------
    values : (value,) where it is linearised first: a solution of the task, or close to one.
    tolerance : change of the mean, over D, at which it ends.

    Raises ConvergenceError where the mean does not settle: the cycle is then too large for a
    linear law, or there is none. Others as ``linearise``.
    """
    at = np.asarray(values, dtype=np.float64)
    low, high = value_range(chip)
    points: list[Array] = []
    misses: list[Array] = []
    for _ in range(iterations):
        cycle = linear_cycle(linearise(chip, task, rule, at), schedule)
        miss = cycle.mean() - at
        # Round-off of the values themselves is some 1e-12 of them.
        size = float(np.linalg.norm(miss))
        if size <= tolerance * cycle.span + 1e-11 * float(np.linalg.norm(at)):
            return cycle
        points, misses = [*points[-_MEMORY:], at], [*misses[-_MEMORY:], miss]
        # Anderson's mixing: where the misses of the last points, taken together, are least.
        step = _MIXED * miss
        if len(points) > 1:
            moved, changed = np.diff(points, axis=0).T, np.diff(misses, axis=0).T
            share = np.linalg.lstsq(changed, miss, rcond=1e-6)[0]
            step -= (moved + _MIXED * changed) @ share
        at = np.clip(at + step, low, high)
    raise ConvergenceError(
        f"the mean of the cycle still moves by {size:.1e} V", where="predict_cycle",
        remedy="the cycle is too large for a linear law, or a bias drives values where no "
        "example pulls: use linear_cycle, or find it in the circuit",
    )  # fmt: skip


def solve_task(chip: LearningChip, task: Task, values: Array, *, tolerance: float = 1e-13) -> Array:
    """Return values (value,) with which the network answers all examples best, close to some.

    By Gauss and Newton's method with the exact derivative and the shortest step.

    Parameters
    ----------
    values : (value,) to begin with.
    tolerance : change of the answers at which it ends [V].

    Raises ConvergenceError where it does not end, and as ``equilibrium`` does.
    """
    task.check(chip.network)
    now = np.asarray(values, dtype=np.float64)
    rule = CoupledLearning()
    low, high = value_range(chip)
    loss = float(mean_square_error(chip, now, task))
    for _ in range(_ITERATIONS):
        law = linearise(chip, task, rule, now)
        slope = law.slope.reshape(-1, len(now))
        rest = (task.labels - law.answer).ravel()
        step = np.linalg.lstsq(slope, rest, rcond=_NEUTRAL)[0]
        if float(np.abs(slope @ step).max()) <= tolerance:
            return now
        for halving in range(_HALVINGS):
            trial = np.clip(now + step / 2**halving, low, high)
            error = float(mean_square_error(chip, trial, task))
            if error < loss:
                now, loss = trial, error
                break
        else:
            # No shorter step is better: as close as numbers tell.
            return now
    raise ConvergenceError(
        f"a mean squared error of {loss:.1e} V^2 still falls", where="solve_task",
        remedy="begin closer to a solution",
    )  # fmt: skip


def _steps(law: Linearisation, schedule: Schedule, time: float) -> dict[int, tuple[Array, Array]]:
    """By example: what is left after a time of a deviation from the point, and what is added."""
    found = {}
    for example in np.unique(schedule.order):
        matrix, push = _law(law, int(example))
        held, gained = propagators(matrix, time)
        found[int(example)] = held, gained @ push
    return found


def _law(law: Linearisation, example: int) -> tuple[Array, Array]:
    """K and u of ``dx/dt = −K x + u``, x the deviation from the point."""
    matrix = law.pull[example] + np.diag(law.leak)
    return matrix, law.speed[example] + law.drift - law.leak * law.at


def _follow(
    chip: LearningChip, values: Array, v: Array, copy: int, nudge: float, held: Array | None
) -> Array:
    """(example, node + 1, value) derivative of a network's voltages v by its values.

    held : (example, output, value) derivative of the outputs where they are clamped.
    """
    network = chip.network
    edges = edges_of(chip, copy)
    size, count = edges.nodes + 1, len(network.learning)
    _, by_a, by_b = edges.currents(edge_values(chip, values, copy), v)
    jacobian = (np.hstack([by_a, by_b]) @ edges.scatter).reshape(-1, size, size)
    diagonal = np.arange(size)
    conductance = np.zeros(size)
    conductance[network.output_index] = nudge
    jacobian[:, diagonal, diagonal] += conductance + edges.shunt
    # A gate shifts the potentials of both ends at once; of a resistor dI/dg is the voltage.
    learning = np.array(network.learning)
    a, b = network.ends[learning].T
    by_value = np.where(
        np.isin(learning, edges.transistor), -(by_a + by_b)[:, learning], v[:, a] - v[:, b]
    )
    source = np.zeros((len(v), size, count))
    number = np.arange(count)
    source[:, a, number] += by_value
    source[:, b, number] -= by_value
    found = np.zeros_like(source)
    fixed = [*network.input_index.tolist(), edges.nodes]
    if held is not None:
        found[:, network.output_index] = held
        source += jacobian @ found
        fixed += network.output_index.tolist()
    free = np.setdiff1d(np.arange(size), fixed)
    if free.size:
        rows = np.ix_(np.arange(len(v)), free, free)
        found[:, free] = -np.linalg.solve(jacobian[rows], source[:, free])
    return found
