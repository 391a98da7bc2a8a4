"""The derivative of a network's error by each of its values, which rules of learning estimate.

The loss is the mean over samples of half the squared errors of all outputs,
``½ Σ_o (O − L)²`` [V^2]; its derivative is in V^2/S of a resistor that learns and in V of a
transistor's gate. Four ways lead to it. ``by_adjoint`` is exact. ``by_finite_differences``
knows nothing but outputs. ``by_equilibrium_propagation`` and ``by_coupled_learning`` compare
the squared voltages across an edge in two networks at rest, as circuits can.

**Where equilibrium propagation is the derivative.** Currents that leave the nodes are the
slopes of a scalar, the co-content, if and only if their Jacobian J by the nodes' voltages is
symmetric. It is for two-terminal elements: resistors add ½ g ΔV², whose derivative by g is
the local ½ ΔV², and diodes an integral of their current. A transistor whose gate is held
against ground has three: in triode its current S (G − V_T − V̄) (V_a − V_b), V̄ the mean
voltage of its ends, has the slopes s_a = S (G − V_T − V_a) and −s_b, which differ by S ΔV. Its
share of J is not symmetric, by ΔV / (2 (G − V_T − V̄)) of itself, and a network of such edges
has no co-content, unless a single node floats. Comparing S ΔV²/2 then
gives, for β → 0, ``S ΔV_k Δδ_k`` with J δ = −∂L/∂V in the place of ``−S ΔV_k Δλ_k`` with
Jᵀ λ = ∂L/∂V: off by the same order, and less and less the smaller the voltages are beside the
gates' drive. What is missing is local all the same. Jᵀ is the network's conductances at rest
with half of every edge's own signal, −S ΔV Δλ / 2, drawn from each of its two ends.

Sources: Millar, Phil. Mag. 42, 1150, 1951 (co-content); Scellier and Bengio, Front. Comput.
Neurosci. 11, 24, 2017; Kendall et al., arXiv 2006.01981; Laborieux et al., Front. Neurosci. 15,
633674, 2021 (centred); Stern et al., Phys. Rev. X 11, 021045, 2021 (coupled learning).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.circuit import Tolerances
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.contrast import Phases, contrast
from spicenn.learning.elements import Transistor
from spicenn.learning.equilibrium import edge_values, edges_of, equilibrium
from spicenn.learning.hardware import LearningChip
from spicenn.learning.netlist import OPERATING_TOLERANCES
from spicenn.learning.operating import operating_points
from spicenn.learning.rules import CoupledLearning, EquilibriumPropagation
from spicenn.learning.task import Task

Array = NDArray[np.float64]
Engine = Literal["newton"] | NgspiceEngine


def loss(
    chip: LearningChip,
    values: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    *,
    engine: Engine = "newton",
    tolerances: Tolerances | None = None,
) -> float:
    """Mean over samples of half the outputs' squared errors [V^2].

    Parameters
    ----------
    values : (value,) gates [V], conductances [S].
    inputs : (sample, input) [V]. labels : (sample, output) [V].
    engine : ``"newton"``, or an ngspice whose operating points are taken.
    tolerances : of ngspice.

    Raises InputError for shapes that do not fit, and what ``equilibrium`` or
    ``operating_points`` raise.
    """
    task = Task(inputs, labels).check(chip.network)
    found = _Rest(chip, task, engine, tolerances).at(_checked(chip, values))
    error = found[..., chip.network.output_index] - task.labels
    return float(0.5 * (error**2).sum(axis=-1).mean())


def by_adjoint(
    chip: LearningChip, values: ArrayLike, inputs: ArrayLike, labels: ArrayLike
) -> Array:
    """Differentiate Kirchhoff's law where the first network is at rest: exact.

    With J the Jacobian of the currents that leave the floating nodes and Jᵀ λ = ∂L/∂V,
    ``∂L/∂x_k = −∂I_k/∂x_k (λ_a − λ_b)``. Parameters and errors as of ``loss``.

    Returns (value,) [V^2/S], [V].
    """
    task = Task(inputs, labels).check(chip.network)
    network, values = chip.network, _checked(chip, values)
    v = equilibrium(chip, values, task.inputs)
    edges, own = edges_of(chip, 0), edge_values(chip, values)
    _, by_a, by_b = edges.currents(own, v)
    size = edges.nodes + 1
    jacobian = (np.hstack([by_a, by_b]) @ edges.scatter).reshape(-1, size, size)
    jacobian[:, np.arange(size), np.arange(size)] += edges.shunt
    free = np.setdiff1d(np.arange(edges.nodes), network.input_index)
    error = np.zeros_like(v)
    error[:, network.output_index] = v[:, network.output_index] - task.labels
    adjoint = np.zeros_like(v)
    try:
        adjoint[:, free] = np.linalg.solve(
            jacobian[:, free[None, :], free[:, None]], error[:, free, None]
        )[..., 0]
    except np.linalg.LinAlgError as failure:
        raise ConvergenceError(
            "the network's equations have no unique solution", where="by_adjoint"
        ) from failure
    learning = list(network.learning)
    a, b = network.ends[learning].T
    by_value = _strength(chip) * (_reach(chip, own, v, a) - _reach(chip, own, v, b))
    return np.asarray(-(by_value * (adjoint[:, a] - adjoint[:, b])).mean(axis=0))


def by_finite_differences(
    chip: LearningChip,
    values: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    step: ArrayLike,
    *,
    engine: Engine = "newton",
    tolerances: Tolerances | None = None,
) -> Array:
    """Central differences of the loss of the first network.

    Parameters
    ----------
    step : to either side, (value,) or one for all [S], [V].

    Others and errors as of ``loss``. Returns (value,) [V^2/S], [V].
    """
    task = Task(inputs, labels).check(chip.network)
    values = _checked(chip, values)
    steps = np.broadcast_to(np.asarray(step, dtype=np.float64), values.shape)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise InputError("a step is not finite and positive", where="by_finite_differences")
    rest = _Rest(chip, task, engine, tolerances)
    start = rest.at(values) if engine == "newton" else None
    at = chip.network.output_index
    high, low = (rest.at(values + sign * np.diag(steps), start=start)[..., at] for sign in (1, -1))
    # The squares' difference as a product: what both have in common leaves no round-off.
    both = high + low - 2 * task.labels
    return np.asarray(((high - low) * both).sum(axis=-1).mean(axis=-1) / (4 * steps))


def by_equilibrium_propagation(
    chip: LearningChip,
    values: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    beta: float,
    *,
    centred: bool = False,
    engine: Engine = "newton",
    tolerances: Tolerances | None = None,
) -> Array:
    """Compare squared voltages where the outputs are nudged by currents β (L − O) and not.

    ``(½ ΔV_2² − ½ ΔV_1²) / β`` of a conductance and S times that of a gate, the mean over
    samples; for β → 0 the derivative, where there is a co-content (see above). The two
    networks are the chip's own, and labels have its comparators' offsets: where the networks
    differ, the comparison does not vanish with β.

    Parameters
    ----------
    beta : the nudge [S].
    centred : nudge the first network by -β and divide by 2 β: off by β², not by β. It is a
        negative conductance: one larger than what holds an output leaves it no rest.

    Others and errors as of ``loss``. Returns (value,) [V^2/S], [V].
    """
    low, high = EquilibriumPropagation(beta=beta, centred=centred).nudges
    task = _seen(chip, Task(inputs, labels).check(chip.network))
    rest, values = _Rest(chip, task, engine, tolerances), _checked(chip, values)
    first = rest.at(values, nudge=low)
    second = rest.at(values, copy=1, nudge=high, start=first)
    return _signal(chip, first, second, 1 / (high - low))


def by_coupled_learning(
    chip: LearningChip,
    values: ArrayLike,
    inputs: ArrayLike,
    labels: ArrayLike,
    eta: float,
    *,
    scaled: bool = False,
    engine: Engine = "newton",
    tolerances: Tolerances | None = None,
) -> Array:
    """Compare squared voltages where the outputs are held nearer to their labels and where not.

    Holding outputs takes currents R⁻¹ δ, R the resistances that join the outputs' currents
    to their voltages, where the gradient has currents in proportion to the errors: with
    several outputs this is another direction for any eta. One output has one resistance, and
    each sample's direction is the gradient's; but resistances of samples differ in a network
    that is not linear, and so do the samples' weights.

    Parameters
    ----------
    eta : part of the way to the labels, in (0, 1].
    scaled : divide each sample by its clamp's current over its error, as equilibrium
        propagation divides by β: the derivative for eta → 0. Of a single output.

    Others and errors as of ``by_equilibrium_propagation``; InputError where several outputs
    are to be scaled. Returns (value,), ``(½ ΔV_2² − ½ ΔV_1²) / eta`` [V^2], times S [A/V^2] of
    gates; scaled in [V^2/S], [V].
    """
    rule = CoupledLearning(eta=eta)
    if scaled and len(chip.network.outputs) > 1:
        raise InputError(
            "clamps of several outputs have no one conductance", where="by_coupled_learning",
            remedy="take the direction alone, or equilibrium propagation",
        )  # fmt: skip
    task = _seen(chip, Task(inputs, labels).check(chip.network))
    rest, values = _Rest(chip, task, engine, tolerances), _checked(chip, values)
    first = rest.at(values)
    free = first[..., chip.network.output_index]
    second = rest.at(values, copy=1, clamped=rule.clamped(free, task.labels), start=first)
    if not scaled:
        return _signal(chip, first, second, 1 / eta)
    edges = edges_of(chip, 1)
    current = edges.currents(edge_values(chip, values, 1), second)[0] @ edges.gather
    drawn = (current + edges.shunt * second)[..., chip.network.output_index]
    error = task.labels - free
    # No error, no current, and nothing to learn.
    weight = np.divide(error, drawn, out=np.zeros_like(error), where=drawn != 0)
    return _signal(chip, first, second, weight)


def descend(
    gradient: Callable[[Array], Array],
    values: ArrayLike,
    *,
    steps: int,
    rate: float,
    low: ArrayLike,
    high: ArrayLike,
) -> Array:
    """Go down a gradient, whatever finds it, within a range.

    Parameters
    ----------
    gradient : of values (value,).
    rate : by which it is multiplied.
    low, high : that values do not leave.

    Returns (step + 1, value), the first ones given.
    """
    found = [np.asarray(values, dtype=np.float64)]
    for _ in range(steps):
        found.append(np.clip(found[-1] - rate * gradient(found[-1]), low, high))
    return np.array(found)


def cosine(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of the angle between two vectors. Raises InputError where one is 0."""
    first, second = np.ravel(a).astype(np.float64), np.ravel(b).astype(np.float64)
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not size > 0:
        raise InputError("a vector of length 0 has no direction", where="cosine")
    return float(first @ second) / size


@dataclass(frozen=True, eq=False)
class _Rest:
    """A chip at rest for all samples of a task, by either engine."""

    chip: LearningChip
    task: Task
    engine: Engine
    tolerances: Tolerances | None

    def at(
        self,
        values: Array,
        *,
        copy: int = 0,
        nudge: float = 0.0,
        clamped: Array | None = None,
        start: Array | None = None,
    ) -> Array:
        """(…, sample, node + 1) [V] for values (…, value); ngspice begins where it likes."""
        chip, inputs = self.chip, self.task.inputs
        pulled = (nudge, self.task.labels) if nudge else None
        if not isinstance(self.engine, NgspiceEngine):
            return equilibrium(
                chip, values[..., None, :], inputs, copy=copy, clamped=clamped, nudge=pulled,
                start=start,
            )  # fmt: skip
        found = [
            operating_points(
                self.engine, chip, each, inputs, copy=copy, clamped=clamped, nudge=pulled,
                tolerances=self.tolerances or OPERATING_TOLERANCES,
            )
            for each in values.reshape(-1, values.shape[-1])
        ]  # fmt: skip
        return np.reshape(found, (*values.shape[:-1], *found[0].shape))


def _checked(chip: LearningChip, values: ArrayLike) -> Array:
    found = np.asarray(values, dtype=np.float64)
    if found.shape != (len(chip.network.learning),) or not np.isfinite(found).all():
        raise InputError(
            f"values of shape {found.shape} are not finite and one for each of "
            f"{len(chip.network.learning)} edges that learn",
            where="network",
        )
    return found


def _seen(chip: LearningChip, task: Task) -> Task:
    """The task with the labels that the chip's comparators see."""
    return Task(task.inputs, task.labels + chip.output_offset)


def _signal(chip: LearningChip, first: Array, second: Array, weight: Array | float) -> Array:
    """(value,) mean over samples of S (½ ΔV_2² − ½ ΔV_1²), S = 1 of conductances."""
    differ = -contrast(chip, Phases(first, second, np.ones(len(first))))
    return np.asarray(0.5 * _strength(chip) * (weight * differ).mean(axis=0))


def _strength(chip: LearningChip) -> Array:
    """(value,) S of transistors, 1 of resistors."""
    edges = chip.network.edges
    return np.array([
        chip.transconductance[0, k] if isinstance(edges[k].element, Transistor) else 1.0
        for k in chip.network.learning
    ])  # fmt: skip


def _reach(chip: LearningChip, own: Array, v: Array, nodes: NDArray[np.int64]) -> Array:
    """(sample, value) voltage of one end [V], of a transistor no more than its channel has."""
    edges = chip.network.edges
    top = np.array([
        own[k] - chip.threshold[0, k] if isinstance(edges[k].element, Transistor) else np.inf
        for k in chip.network.learning
    ])  # fmt: skip
    return np.asarray(np.minimum(v[:, nodes], top))
