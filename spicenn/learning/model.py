"""Learning inside the circuit, computed: the transient's own differential equation in Python.

Nodes follow the gates within nanoseconds and gates take milliseconds, so that both networks
are at rest at every instant: Newton's method gives their voltages, and the gates are all that
is left of the differential equation. Many runs are integrated at once, each with its own
steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.contrast import Phases, contrast, phases, value_per_volt
from spicenn.learning.disturbance import draw_disturbance, is_disturbed
from spicenn.learning.hardware import LearningChip
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task
from spicenn.learning.trajectory import Trajectory, joined

Array = NDArray[np.float64]

# Of the clamps that keep capacitors in range [S]: glim of netlists/self_adjusting_*.lib.
_LIMIT = 1e-3
# Error of a step [V].
_TOLERANCE = 1e-6
_SLOTS_AT_ONCE = 100
# Of a capacitor's voltage, to see how its speed changes [V]: squares of voltages are known to
# 1e-13 V^2, and sharp comparators bend within microvolts.
_NUDGE = 1e-6
# A step of less than this part of a slot does not come to its end.
_SHORTEST = 1e-12

# RODAS, a Rosenbrock method of six stages, of order 4 with one of order 3 inside, stiffly
# accurate and L-stable: sharp comparators and the clamps of the range are stiff. Source:
# E. Hairer and G. Wanner, Solving Ordinary Differential Equations II, Springer, 1996, IV.7.
_GAMMA = 0.25
_LAST = (1.221224509226641, 6.019134481288629, 12.53708332932087, -0.6878860361058950)
_A = (
    (),
    (1.544,),
    (0.9466785280815826, 0.2557011698983284),
    (3.314825187068521, 2.896124015972201, 0.9986419139977817),
    _LAST,
    (*_LAST, 1.0),
)
_C = (
    (),
    (-5.6688,),
    (-2.430093356833875, -0.2063599157091915),
    (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
    (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
    (8.083246795921522, -7.981132988064893, -31.52159432874371, 16.31930543123136,
     -6.058818238834054),
)  # fmt: skip
_LATER = (0.0, 0.386, 0.21, 0.63, 1.0, 1.0)
_BY_TIME = (0.25, -0.1043, 0.1035, -0.0362, 0.0, 0.0)
_WEIGHTS = (*_LAST, 1.0, 1.0)
_ORDER = 4

# (state, point, value) voltages [V] at (state, point) times, of some runs -> their speeds,
# without the clamps of their range.
Slope = Callable[[Array, Array, NDArray[np.int64]], Array]


def learn_in_model(
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: ArrayLike,
    *,
    slots: int,
    first_slot: int = 0,
    seed: int | None = None,
    trial: int = 0,
    tolerance: float = _TOLERANCE,
    slots_at_once: int = _SLOTS_AT_ONCE,
    progress: Callable[[Trajectory], None] | None = None,
) -> Trajectory:
    """Compute what ``learn_in_circuit`` simulates.

    Parameters
    ----------
    values : (value,) with which it begins [V], [S].
    slots, first_slot, seed, trial : as of ``learn_in_circuit``; noise is the same draw.
    tolerance : error of a step, in volts of a capacitor.
    progress : called with every part of so many slots.

    Raises InputError for arguments that do not fit, ConvergenceError where Newton's method
    finds no rest or no step is short enough.
    """
    shown = None if progress is None else lambda parts: progress(parts[0])
    return learn_many(
        chip, task, rule, schedule, np.asarray(values, dtype=np.float64)[None],
        slots=slots, first_slot=first_slot, seed=seed, trials=[trial], tolerance=tolerance,
        slots_at_once=slots_at_once, progress=shown,
    )[0]  # fmt: skip


def learn_many(
    chips: LearningChip | Sequence[LearningChip],
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: ArrayLike,
    *,
    slots: int,
    first_slot: int = 0,
    seed: int | None = None,
    trials: Sequence[int] | None = None,
    tolerance: float = _TOLERANCE,
    slots_at_once: int = _SLOTS_AT_ONCE,
    progress: Callable[[list[Trajectory]], None] | None = None,
) -> list[Trajectory]:
    """Compute many runs of one task and rule at once: each is ``learn_in_model`` of its own.

    Chips that differ only in bias, leakage and offsets, or not at all, cost little more
    than one of them; unequal transistors are solved chip by chip.

    Parameters
    ----------
    chips : one for all runs, or one each, of one network.
    values : (run, value) [V], [S]; (value,) is the same begin for all chips.
    trials : (run,) of each; 0 of all if None.

    Others as of ``learn_in_model``; ``progress`` is called with the parts of all runs.

    Raises as ``learn_in_model`` does, naming the run.
    """
    values = np.asarray(values, dtype=np.float64)
    many = [chips] * (len(values) if values.ndim == 2 else 1) if isinstance(
        chips, LearningChip) else list(chips)  # fmt: skip
    if not many:
        raise InputError("there is no chip", where="learn_many")
    network = many[0].network
    begin = np.broadcast_to(values, (len(many), values.shape[-1])) if values.ndim == 1 else values
    if begin.shape != (len(many), len(network.learning)) or not np.isfinite(begin).all():
        raise InputError(
            f"values of shape {values.shape} are not finite and of {len(many)} runs and "
            f"{len(network.learning)} edges that learn", where="learn_many",
        )  # fmt: skip
    if any(chip.network is not network and chip.network != network for chip in many):
        raise InputError("chips of several networks cannot be run at once", where="learn_many")
    task.check(network)
    schedule.check(task)
    if slots < 1 or slots_at_once < 1 or first_slot < 0 or not 0 < tolerance < math.inf:
        raise InputError(
            f"slots = {slots!r}, {slots_at_once!r} at once, from slot {first_slot!r}, "
            f"tolerance = {tolerance!r} V", where="learn_many",
        )  # fmt: skip
    if trials is not None and len(trials) != len(many):
        raise InputError(f"{len(trials)} trials are not of {len(many)} runs", where="learn_many")
    bench = _bench(many, rule, seed, trials or [0] * len(many))
    state = _State(begin / bench.per_volt, None, np.full(len(many), schedule.slot))
    parts: list[list[Trajectory]] = []
    done = 0
    while done < slots:
        count = min(slots_at_once, slots - done)
        state, part = _part(bench, task, schedule, state, first_slot + done, count, tolerance)
        parts.append(part)
        done += count
        if progress is not None:
            progress(part)
    return [joined(of_run) for of_run in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class _Bench:
    """Runs side by side.

    chips, trials : of each; seed : of what is drawn.
    alike : chips whose transistors differ; group : (run,) which of them a run has.
    scale : (run, 1, 1) speed of a capacitor by its bracket [1/(V s)].
    per_volt : (run, value). leak : (run, 1, value) [1/s].
    low, high, pull : (run, 1) range [V], and how fast the clamps bring back to it [1/s].
    """

    rule: Rule
    chips: tuple[LearningChip, ...]
    seed: int | None
    trials: tuple[int, ...]
    alike: tuple[LearningChip, ...]
    group: NDArray[np.int64]
    scale: Array
    per_volt: Array
    leak: Array
    low: Array
    high: Array
    pull: Array


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Of one slot, all runs: (run, value) bias [V^2], part taken, (run, output) offset [V]."""

    bias: Array
    active: Array
    offset: Array


@dataclass(frozen=True, eq=False)
class _State:
    """Capacitors (run, value) [V], both networks where they were last, steps (run,) [s]."""

    volts: Array
    found: Phases | None
    step: Array


def _bench(
    chips: Sequence[LearningChip], rule: Rule, seed: int | None, trials: Sequence[int]
) -> _Bench:
    alike: dict[tuple[bytes, bytes, object], int] = {}
    firsts: list[LearningChip] = []
    group = []
    for chip in chips:
        key = (chip.threshold.tobytes(), chip.transconductance.tobytes(), chip.hardware)
        if key not in alike:
            alike[key] = len(firsts)
            firsts.append(replace(chip, output_offset=np.zeros_like(chip.output_offset)))
        group.append(alike[key])
    hardware = [chip.hardware for chip in chips]
    scale = [rule.rate / (h.v0 * h.resistance * h.capacitance) for h in hardware]
    return _Bench(
        rule=rule,
        chips=tuple(chips),
        seed=seed,
        trials=tuple(trials),
        alike=tuple(firsts),
        group=np.array(group),
        scale=np.array(scale)[:, None, None],
        per_volt=np.stack([value_per_volt(chip) for chip in chips]),
        leak=np.stack([chip.leakage[None] / chip.hardware.capacitance for chip in chips]),
        low=np.array([[h.gate_low] for h in hardware]),
        high=np.array([[h.gate_high] for h in hardware]),
        pull=np.array([[_LIMIT / h.capacitance] for h in hardware]),
    )


def _part(
    bench: _Bench, task: Task, schedule: Schedule, state: _State, first_slot: int, slots: int,
    tolerance: float,
) -> tuple[_State, list[Trajectory]]:  # fmt: skip
    begun = perf_counter()
    index = bench.alike[0].network.output_index
    shown = schedule.examples(slots + 1, first_slot - 1)
    volts, outputs = [state.volts], []
    drawn = _draw(bench, schedule.slot, first_slot, slots)
    for examples, disturbed in zip(pairwise(shown.tolist()), pairwise(drawn), strict=True):
        state = _slot(bench, task, schedule, state, examples, disturbed, tolerance)
        assert state.found is not None
        volts.append(state.volts)
        outputs.append(state.found.first[:, 0][:, index])
    spent = (perf_counter() - begun) / len(bench.group)
    return state, [
        Trajectory(
            first_slot=first_slot,
            slot=schedule.slot,
            values=np.stack([v[run] * bench.per_volt[run] for v in volts]),
            examples=shown[1:],
            outputs=np.stack([v[run] for v in outputs]),
            runtime=spent,
            engine="model",
        )
        for run in range(len(bench.group))
    ]


def _draw(bench: _Bench, slot: float, first_slot: int, slots: int) -> list[_Drawn]:
    """Of the slot before the first, and of so many."""
    found = []
    for chip, trial in zip(bench.chips, bench.trials, strict=True):
        bias, active = np.tile(chip.bias, (slots + 1, 1)), np.ones((slots + 1, len(chip.bias)))
        offset = np.tile(chip.output_offset, (slots + 1, 1))
        if is_disturbed(chip, bench.rule):
            before = min(first_slot, 1)
            drawn = draw_disturbance(
                chip, bench.rule, slot, slots=slots + before, first_slot=first_slot - before,
                seed=bench.seed, trial=trial,
            ).spanning(first_slot, slots)  # fmt: skip
            for k in range(slots + 1):
                more_bias, more_offset, active[k] = drawn.at(drawn.first_slot + k)
                bias[k] += more_bias
                offset[k] += more_offset
        found.append((bias, active, offset))
    return [_Drawn(*(np.stack([run[n][k] for run in found]) for n in range(3)))
            for k in range(slots + 1)]  # fmt: skip


def _slot(
    bench: _Bench, task: Task, schedule: Schedule, state: _State, examples: tuple[int, int],
    drawn: tuple[_Drawn, _Drawn], tolerance: float,
) -> _State:  # fmt: skip
    """One slot: from an example, and what was drawn with it, to the next."""
    runs = np.arange(len(bench.group))
    kept = state.found
    (before, now), (then, later) = examples, drawn

    def slope(volts: Array, time: Array, rows: NDArray[np.int64]) -> Array:
        nonlocal kept
        part = np.minimum(time / schedule.edge, 1.0)[..., None]
        inputs, labels = (
            (1 - part) * shown[before] + part * shown[now] for shown in (task.inputs, task.labels)
        )
        offset, bias, active = (
            (1 - part) * old[rows, None] + part * new[rows, None]
            for old, new in ((then.offset, later.offset), (then.bias, later.bias),
                             (then.active, later.active))
        )  # fmt: skip
        start = None if kept is None else _some(kept, rows)
        found = _rest(bench, volts, inputs, labels + offset, rows, start)
        if kept is None:
            kept = Phases(*(v[:, :1].copy() for v in (found.first, found.second, found.duty)))
        else:
            for old, new in zip(
                (kept.first, kept.second, kept.duty), (found.first, found.second, found.duty),
                strict=True,
            ):  # fmt: skip
                old[rows] = new[:, :1]
        return _speed(bench, volts, found, rows, bias, active)

    volts, _ = _integrate(bench, slope, state.volts, 0.0, schedule.edge, np.full(len(runs), np.inf),
                          tolerance)  # fmt: skip
    volts, step = _integrate(
        bench, slope, volts, schedule.edge, schedule.slot, state.step, tolerance
    )
    slope(volts[:, None], np.full((len(runs), 1), schedule.slot), runs)
    return _State(volts, kept, step)


def _some(found: Phases, rows: NDArray[np.int64]) -> Phases:
    return Phases(found.first[rows], found.second[rows], found.duty[rows])


def _rest(
    bench: _Bench, volts: Array, inputs: Array, labels: Array, rows: NDArray[np.int64],
    start: Phases | None,
) -> Phases:  # fmt: skip
    """Both networks of some runs, (state, point, …)."""
    group = bench.group[rows]
    parts: list[tuple[NDArray[np.int64], Phases]] = []
    for n in np.unique(group):
        own = np.flatnonzero(group == n)
        begin = None if start is None else _some(start, own)
        run = rows[own]
        try:
            found = phases(
                bench.alike[n], volts[own] * bench.per_volt[run, None], inputs[own],
                labels[own], bench.rule, begin,
            )  # fmt: skip
        except ConvergenceError as error:
            raise ConvergenceError(
                error.what, where=f"learn_in_model, runs {run[0]} to {run[-1]}",
                remedy=error.remedy,
            ) from error  # fmt: skip
        parts.append((own, found))
    if len(parts) == 1:
        return parts[0][1]
    order = np.argsort(np.concatenate([own for own, _ in parts]))
    return Phases(
        *(
            np.concatenate([getattr(found, name) for _, found in parts])[order]
            for name in ("first", "second", "duty")
        )
    )


def _speed(
    bench: _Bench, volts: Array, found: Phases, rows: NDArray[np.int64], bias: Array,
    active: Array,
) -> Array:  # fmt: skip
    """(state, point, value) by which capacitors change within their range [V/s]."""
    bracket = contrast(bench.chips[0], found) + bias
    driven = bench.scale[rows] * found.duty[..., None] * active * bracket
    return np.asarray(driven - bench.leak[rows] * volts)


def _beyond(bench: _Bench, volts: Array, rows: NDArray[np.int64]) -> Array:
    """(state, value) by which capacitors are above their range, or, below 0, under it [V]."""
    over, under = volts - bench.high[rows], bench.low[rows] - volts
    return np.asarray(np.maximum(over, 0) - np.maximum(under, 0))


def _integrate(
    bench: _Bench, slope: Slope, volts: Array, begin: float, end: float, step: Array,
    tolerance: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Go from one time to another; returns voltages (run, value) and the steps to go on with.

    A step on which a capacitor meets its clamp or leaves it is as short as the clamp is fast:
    a longer one takes the clamp, which only pushes, for a spring.

    step : (run,) to begin with [s].
    """
    volts, step = volts.copy(), step.copy()
    time = np.full(len(volts), begin)
    rows = np.arange(len(volts))
    while rows.size:
        left = end - time[rows]
        last = step[rows] >= left * (1 - 1e-9)
        size = np.where(last, left, step[rows])
        moved, error = _step(bench, slope, volts[rows], time[rows], size, rows)
        before, after = (np.sign(_beyond(bench, v, rows)) for v in (volts[rows], moved))
        met = (before != after).any(axis=1) & (size * bench.pull[rows, 0] > 1)
        good = (error <= tolerance) & ~met
        factor = np.clip(0.9 * (tolerance / np.maximum(error, 1e-300)) ** (1 / _ORDER), 0.2, 5.0)
        # A step that the end has cut short says nothing against a longer one.
        wanted = np.where(met, np.minimum(size * factor, 0.99 / bench.pull[rows, 0]), size * factor)
        step[rows] = np.where(good & last & np.isfinite(step[rows]),
                              np.maximum(step[rows], wanted), wanted)  # fmt: skip
        volts[rows[good]] = moved[good]
        time[rows[good]] += size[good]
        if (~good & (wanted < _SHORTEST * (end - begin))).any():
            raise ConvergenceError(
                f"no step is short enough for an error of {tolerance:g} V",
                where="learn_in_model", remedy="smooth the rule's sign, or raise the tolerance",
            )  # fmt: skip
        rows = rows[~(good & last)]
    return volts, step


def _step(
    bench: _Bench, slope: Slope, volts: Array, time: Array, size: Array, rows: NDArray[np.int64]
) -> tuple[Array, Array]:
    """One step of each state: where it ends (state, value), and its error (state,) [V]."""
    count = volts.shape[1]
    later = _NUDGE * size
    # The state itself, every voltage a little larger, a little later.
    points = np.repeat(volts[:, None], count + 2, axis=1)
    points[:, np.arange(count) + 1, np.arange(count)] += _NUDGE
    times = np.repeat(time[:, None], count + 2, axis=1)
    times[:, -1] += later
    around = slope(points, times, rows)
    jacobian = (around[:, 1:-1] - around[:, :1]).swapaxes(1, 2) / _NUDGE
    by_time = (around[:, -1] - around[:, 0]) / later[:, None]
    beyond, pull = _beyond(bench, volts, rows), bench.pull[rows]
    jacobian[:, np.arange(count), np.arange(count)] -= pull * (beyond != 0)
    here = around[:, 0] - pull * beyond
    inverse = 1 / size[:, None]
    matrix = np.eye(count) * (inverse / _GAMMA)[..., None] - jacobian
    stages: list[Array] = []
    for a, c, at, share in zip(_A, _C, _LATER, _BY_TIME, strict=True):
        moved = sum((x * k for x, k in zip(a, stages, strict=True)), start=volts)
        if any(a):
            here = slope(moved[:, None], (time + at * size)[:, None], rows)[:, 0]
            here = here - pull * _beyond(bench, moved, rows)
        right = here + share * size[:, None] * by_time
        right = right + inverse * sum((x * k for x, k in zip(c, stages, strict=True)), start=0.0)
        stages.append(np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0]))
    ends = sum((x * k for x, k in zip(_WEIGHTS, stages, strict=True)), start=volts)
    return np.asarray(ends), np.abs(stages[-1]).max(axis=1)
