"""Learning by a digital process beside the circuit: the controller of ``controller``, in time.

The twin networks are a block of a co-simulation, in ngspice, with node capacitances and with
sources for inputs, clamps or labels, and gates. A process drives them, waits for the nodes to
settle, samples and sets. What it learns is what ``learn_by_controller`` learns, as far as the
nodes have settled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.cosim.events import ProcessGenerator
from spicenn.cosim.kernel import Cosimulation
from spicenn.errors import InputError
from spicenn.learning.contrast import Phases, value_per_volt, value_range
from spicenn.learning.controller import (
    EXACT,
    Converters,
    check_counts,
    checked_values,
    in_parts,
    updated,
)
from spicenn.learning.disturbance import Disturbance
from spicenn.learning.elements import Transistor
from spicenn.learning.equilibrium import edge_values
from spicenn.learning.hardware import LearningChip
from spicenn.learning.netlist import (
    LEARNING_TOLERANCES,
    fixed_edge,
    floating_nodes,
    node_name,
    operating_vectors,
    shunts,
)
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task
from spicenn.learning.trajectory import Trajectory

Array = NDArray[np.float64]

# One co-simulation: what was seen of every node is in memory.
_SLOTS_AT_ONCE = 100
_ZERO_CELSIUS = 273.15


def learn_by_events(
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: ArrayLike,
    *,
    slots: int,
    first_slot: int = 0,
    updates: int = 1,
    settling: float | None = None,
    converters: Converters = EXACT,
    seed: int | None = None,
    trial: int = 0,
    slots_at_once: int = _SLOTS_AT_ONCE,
    progress: Callable[[Trajectory], None] | None = None,
) -> Trajectory:
    """Have a process in a co-simulation set the gates of a circuit in ngspice.

    An update takes two waits: for the first network to settle, then, where a rule clamps, for
    the second, and what is left of its time is for the gates. Everything that is driven takes
    the schedule's edge to change.

    Parameters
    ----------
    updates : in every slot.
    settling : [s] of one wait; a quarter of an update's time if None.
    slots_at_once : in one co-simulation.

    Others as of ``learn_by_controller``. Raises InputError for arguments that do not fit, or
    waits that are longer than a third of an update or not longer than an edge; and what
    ``Cosimulation`` raises.
    """
    now = converters.set(checked_values(chip, values), *value_range(chip))
    task.check(chip.network)
    schedule.check(task)
    check_counts(slots, slots_at_once, first_slot, updates, where="learn_by_events")
    each = schedule.slot / updates
    wait = each / 4 if settling is None else settling
    if not schedule.edge < wait <= each / 3 < math.inf:
        raise InputError(
            f"waits of {wait:g} s, with edges of {schedule.edge:g} s and an update every "
            f"{each:g} s", where="learn_by_events",
            remedy="give waits longer than an edge, and at most a third of an update's time",
        )  # fmt: skip
    bench = _Bench(chip, task, rule, schedule, updates, wait, converters)
    return in_parts(
        partial(_part, bench), chip, rule, schedule, now, slots=slots, first_slot=first_slot,
        size=slots_at_once, seed=seed, trial=trial, progress=progress,
    )  # fmt: skip


def driven_netlist(
    chip: LearningChip, values: Array, inputs: Array, labels: Array, rule: Rule
) -> str:
    """Return twins whose inputs, clamps or labels, and gates are ``external`` sources.

    Sources: ``vg_k`` of the gate of edge k that learns, ``vx_n`` of an input; of an output n
    ``vb_n`` holds the second network's where the rule clamps, ``vl_n`` is its label where it
    nudges. Nodes are those of ``learning_netlist``.

    Parameters
    ----------
    values : (value,). inputs : (input,) [V]. labels : (output,) [V]; at which sources begin.
    """
    network, hardware = chip.network, chip.hardware
    celsius = network.temperature - _ZERO_CELSIUS
    begin = values / value_per_volt(chip)
    number = {k: n for n, k in enumerate(network.learning)}
    models: dict[str, str] = {}
    body: list[str] = []
    for k, edge in enumerate(network.edges):
        if k in number:
            body.append(_external(f"g_{k}", begin[number[k]]))
        elif isinstance(edge.element, Transistor):
            body.append(f"vg_{k} g_{k} 0 {float(edge_values(chip, values)[k])!r}")
        for copy, prefix in enumerate(("a_", "b_")):
            a, b = (node_name(chip, name, prefix) for name in (edge.a, edge.b))
            if k in number and not isinstance(edge.element, Transistor):
                gain = float(hardware.conductance_per_volt)
                body.append(f"b{prefix}{k} {a} {b} i={gain!r}*v(g_{k})*v({a},{b})")
            else:
                own = float(edge_values(chip, values, copy)[k])
                body += fixed_edge(chip, k, (a, b), copy, own, models, f"{prefix}{k}")
    body += [_external(f"x_{name}", v) for name, v in zip(network.inputs, inputs, strict=True)]
    for name, label in zip(network.outputs, labels, strict=True):
        if rule.nudges is None:
            body.append(_external(f"b_{name}", label))
            continue
        body.append(_external(f"l_{name}", label))
        body += [
            f"bn_{prefix}{name} l_{name} {prefix}{name} "
            f"i={float(beta)!r}*v(l_{name},{prefix}{name})"
            for prefix, beta in zip(("a_", "b_"), rule.nudges, strict=True)
            if beta != 0
        ]
    for prefix in ("a_", "b_"):
        body += shunts(chip, prefix)
        body += [
            f"cn_{prefix}{name} {prefix}{name} 0 {float(hardware.node_capacitance)!r}"
            for name in floating_nodes(chip)
        ]
    title = f"* spicenn twins of {len(network.edges)} edges that are driven"
    options = f".options temp={celsius!r} tnom={celsius!r}"
    return "\n".join([title, options, *models.values(), *body, ".end"]) + "\n"


@dataclass(frozen=True, eq=False)
class _Bench:
    """What a process works on."""

    chip: LearningChip
    task: Task
    rule: Rule
    schedule: Schedule
    updates: int
    wait: float
    converters: Converters


def _part(
    bench: _Bench, values: Array, first_slot: int, slots: int, drawn: Disturbance
) -> Trajectory:
    begun = perf_counter()
    chip, task, schedule = bench.chip, bench.task, bench.schedule
    shown = schedule.examples(slots, first_slot)
    text = driven_netlist(
        chip, values, task.inputs[shown[0]], task.labels[shown[0]] + chip.output_offset, bench.rule
    )
    passed, outputs = [values], list[Array]()
    with Cosimulation(
        text, probes=_probes(chip), max_step=bench.wait, rise=schedule.edge, method="gear",
        tolerances=LEARNING_TOLERANCES,
    ) as env:  # fmt: skip
        teacher = _teach(env, bench, shown, drawn, passed, outputs)
        env.run(until=env.process(teacher, "teacher"))
    return Trajectory(
        first_slot=first_slot,
        slot=schedule.slot,
        values=np.stack(passed),
        examples=shown,
        outputs=np.stack(outputs),
        runtime=perf_counter() - begun,
        engine="ngspice",
    )


def _teach(
    env: Cosimulation, bench: _Bench, shown: NDArray[np.int64], drawn: Disturbance,
    passed: list[Array], outputs: list[Array],
) -> ProcessGenerator:  # fmt: skip
    """Show examples, one per slot, and append the values and outputs of each one's end."""
    chip, rule, schedule = bench.chip, bench.rule, bench.schedule
    network, read = chip.network, bench.converters.read
    index, each, wait = network.output_index, schedule.slot / bench.updates, bench.wait
    per_volt = value_per_volt(chip)
    at: dict[str, float] = {}

    def drive(names: Iterator[str], volts: Array) -> None:
        for name, v in zip(names, volts.tolist(), strict=True):
            if at.get(name) != v:
                env.drive(name, v)
                at[name] = v

    def nodes(prefix: str) -> Array:
        named = (node_name(chip, name, prefix) for name in network.nodes)
        return np.array([*(env.sample(name) for name in named), 0.0])

    values = passed[-1]
    for k, example in enumerate(shown.tolist()):
        noise, offset, active = drawn.at(drawn.first_slot + k)
        label = bench.task.labels[example] + chip.output_offset + offset
        drive((f"vx_{name}" for name in network.inputs), bench.task.inputs[example])
        if rule.nudges is not None:
            drive((f"vl_{name}" for name in network.outputs), label)
        for update in range(bench.updates):
            start = k * schedule.slot + update * each
            yield env.timeout(start + wait - env.now)
            free = read(nodes("a_")[index])
            if rule.nudges is None:
                drive((f"vb_{name}" for name in network.outputs), rule.clamped(free, label))
            yield env.timeout(start + 2 * wait - env.now)
            found = Phases(read(nodes("a_")), read(nodes("b_")), rule.duty(free, label))
            values = updated(
                chip, values, found, rule, each, noise=noise, active=active,
                converters=bench.converters,
            )  # fmt: skip
            drive((f"vg_{n}" for n in network.learning), values / per_volt)
        yield env.timeout((k + 1) * schedule.slot - env.now)
        passed.append(values)
        outputs.append(nodes("a_")[index])


def _probes(chip: LearningChip) -> list[str]:
    vectors = (name for copy in (0, 1) for name in operating_vectors(chip, copy))
    return [name[2:-1] for name in dict.fromkeys(vectors)]


def _external(node: str, volts: float) -> str:
    return f"v{node} {node} 0 dc {float(volts)!r} external"
