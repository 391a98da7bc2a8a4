"""Networks as SPICE text: one at rest, and twins that learn in one transient; pure.

Names: node ``n`` of the first network is ``a_n``, of the second ``b_n``, an input's ``x_n`` in
both; the gate of edge k is ``g_k``, the label of output n ``l_n``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Tolerances
from spicenn.errors import InputError
from spicenn.learning.contrast import value_per_volt
from spicenn.learning.disturbance import Disturbance
from spicenn.learning.elements import Diode, Element, Resistor, Transistor
from spicenn.learning.equilibrium import edge_values
from spicenn.learning.hardware import LearningChip
from spicenn.learning.network import GROUND
from spicenn.learning.rules import Rule, paired_with
from spicenn.learning.task import Schedule, Task
from spicenn.technology.library import subcircuit_text

Array = NDArray[np.float64]

# A resistor in a netlist has a conductance; one of 0 S is left out of the current.
_LEAST = 1e-15  # S
_WORDS_PER_LINE = 8
# At least so much may lie across an edge; see ``self_adjusting_transistor.lib``.
_MOST = 10.0  # V
# Edges from which on KLU is faster than Sparse. It keeps its order of pivots whatever becomes
# of their sizes, and loses all digits where transistors are cut off: small networks do without.
_KLU_EDGES = 200
_ZERO_CELSIUS = 273.15

# Of a transient: squares of 1e-7 V are told apart, and a charge's error is one of the gate's.
LEARNING_TOLERANCES = Tolerances(reltol=1e-7, vntol=1e-10, abstol=1e-13)
# Of a network at rest: its squares are compared.
OPERATING_TOLERANCES = Tolerances(reltol=1e-9, vntol=1e-12, abstol=1e-15)


def operating_netlist(
    chip: LearningChip,
    values: Array,
    inputs: Array,
    *,
    copy: int = 0,
    clamped: Array | None = None,
    nudge: tuple[float, Array] | None = None,
    tolerances: Tolerances = OPERATING_TOLERANCES,
) -> str:
    """Return one copy of a network at rest, swept over samples by an index source.

    Parameters
    ----------
    values : (value,). inputs : (sample, input) [V].
    copy, clamped, nudge : as of ``equilibrium``, (sample, output).

    Its voltages are ``operating_vectors``.
    """
    network = chip.network
    names = ["a_", "b_"][copy]
    lines = [
        f"* spicenn network of {len(network.edges)} edges, {len(inputs)} samples",
        _options(tolerances, network.temperature),
    ]
    own = edge_values(chip, np.asarray(values, dtype=np.float64), copy)
    models: dict[str, str] = {}
    body = []
    for k, edge in enumerate(network.edges):
        ends = tuple(node_name(chip, name, names) for name in (edge.a, edge.b))
        if isinstance(edge.element, Transistor):
            body.append(f"vg_{k} g_{k} 0 {float(own[k])!r}")
        body += fixed_edge(chip, k, ends, copy, float(own[k]), models, f"_{k}")
    for j, name in enumerate(network.inputs):
        body += _swept(f"x_{name}", inputs[:, j])
    for j, name in enumerate(network.outputs):
        if clamped is not None:
            body += _swept(node_name(chip, name, names), clamped[:, j])
        elif nudge is not None and nudge[0] != 0:
            body += _swept(f"l_{name}", nudge[1][:, j])
            body.append(
                f"bn_{name} l_{name} {names}{name} i={float(nudge[0])!r}*v(l_{name},{names}{name})"
            )
    body += shunts(chip, names)
    analysis = [".op"] if len(inputs) == 1 else [f".dc vidx 0 {len(inputs) - 1} 1"]
    saved = _long(".save", list(dict.fromkeys(operating_vectors(chip, copy))))
    return "\n".join(
        [*lines, "vidx idx 0 0", *models.values(), *body, *saved, *analysis, ".end"]
    ) + "\n"  # fmt: skip


def operating_vectors(chip: LearningChip, copy: int) -> list[str]:
    """Vector of every node of the network, in order, without ground."""
    return [f"v({node_name(chip, name, ['a_', 'b_'][copy])})" for name in chip.network.nodes]


def learning_netlist(
    chip: LearningChip,
    values: Array,
    task: Task,
    schedule: Schedule,
    rule: Rule,
    *,
    slots: int,
    first_slot: int = 0,
    method: str = "gear",
    max_step: float | None = None,
    tolerances: Tolerances = LEARNING_TOLERANCES,
    klu: bool | None = None,
    disturbance: Disturbance | None = None,
) -> str:
    """Return twins that learn: clamps, shared gates, their update and the tasks' switching.

    Parameters
    ----------
    values : (value,) with which the first of these slots begins.
    slots : how many, one after the other.
    first_slot : number of the first, counted from the schedule's begin.
    method : of integration, ``gear`` or ``trap``.
    max_step : largest step [s]; an eighth of a slot if None.
    klu : whether that solver is used; None leaves it to the network's size.
    disturbance : of these slots, and of the one before them if there is one; None is none.

    Its gates are ``v(g_k)`` for each edge k that learns, its outputs ``v(a_n)``.
    """
    network, hardware = chip.network, chip.hardware
    if values.shape != (len(network.learning),):
        raise InputError(
            f"values of shape {values.shape} are not of {len(network.learning)} edges that learn",
            where="network",
        )
    begin = values / value_per_volt(chip)
    models: dict[str, str] = {}
    body: list[str] = []
    texts = {rule.clamp().subcircuit}
    number = {k: n for n, k in enumerate(network.learning)}
    if disturbance is not None:
        disturbance = disturbance.spanning(first_slot, slots)
    window = _Window(schedule=schedule, slots=slots, first_slot=first_slot)
    common = {
        "c": hardware.capacitance, "k": rule.rate / (hardware.v0 * hardware.resistance),
        "low": hardware.gate_low, "high": hardware.gate_high,
        "most": max(_MOST, 10 * float(max(np.abs(task.inputs).max(), np.abs(task.labels).max()))),
    }  # fmt: skip
    for k, edge in enumerate(network.edges):
        first, second = (
            tuple(node_name(chip, name, prefix) for name in (edge.a, edge.b))
            for prefix in ("a_", "b_")
        )
        if k not in number:
            fixed = [edge_values(chip, values, copy)[k] for copy in (0, 1)]
            if isinstance(edge.element, Transistor):
                body.append(f"vg_{k} g_{k} 0 {float(fixed[0])!r}")
            for copy, ends in enumerate((first, second)):
                body += fixed_edge(
                    chip, k, ends, copy, float(fixed[copy]), models, f"{'ab'[copy]}_{k}"
                )
            continue
        n = number[k]
        name = _self_adjusting(edge.element)
        texts.add(name)
        own = {**common, "b": chip.bias[n], "gleak": chip.leakage[n]}
        duty = "duty"
        if disturbance is not None:
            duty, lines = _disturbed(k, n, common["k"], window, disturbance)
            body += lines
        if isinstance(edge.element, Transistor):
            own |= {
                "s": chip.transconductance[0, k], "vt": chip.threshold[0, k],
                "sc": chip.transconductance[1, k], "vtc": chip.threshold[1, k],
            }  # fmt: skip
        else:
            own |= {"cpv": hardware.conductance_per_volt}
        words = [f"{key}={float(value)!r}" for key, value in own.items()]
        body += _long(f"xe_{k}", [*first, *second, f"g_{k}", duty, name, *words])
        body.append(f".ic v(g_{k})={float(begin[n])!r}")
    for j, name in enumerate(network.inputs):
        body += window.shown(f"x_{name}", task.inputs[:, j])
    clamp = rule.clamp()
    words = [f"{key}={float(value)!r}" for key, value in clamp.parameters.items()]
    for j, name in enumerate(network.outputs):
        label = task.labels[:, j] + chip.output_offset[j]
        noise = None if disturbance is None else disturbance.output
        body += window.shown(f"l_{name}", label, None if noise is None else noise[:, j])
        shown = f"l_{name}"
        if clamp.paired:
            other = network.outputs[paired_with(len(network.outputs))[j]]
            shown = f"d_{name}"
            body.append(f"b{shown} {shown} 0 v=v(l_{name})+v(a_{other})")
        ports = [f"a_{name}", f"b_{name}", shown, f"e_{name}"]
        body += _long(f"xo_{name}", [*ports, clamp.subcircuit, *words])
    for prefix in ("a_", "b_"):
        body += shunts(chip, prefix)
        body += [
            f"cn_{prefix}{name} {prefix}{name} 0 {hardware.node_capacitance!r}"
            for name in floating_nodes(chip)
        ]
    parts = "+".join(f"v(e_{name})" for name in network.outputs)
    body.append(f"bduty duty 0 v=min(1,({parts})/{len(network.outputs)})")
    step = schedule.slot / 8 if max_step is None else max_step
    end = slots * schedule.slot
    klu = len(network.edges) >= _KLU_EDGES if klu is None else klu
    # Charges of the gates hold the steps; those of the nodes, a thousandth, follow.
    chgtol = hardware.capacitance  # times 1 V
    saved = [f"v(g_{k})" for k in network.learning] + [f"v(a_{name})" for name in network.outputs]
    lines = [
        f"* spicenn twins of {len(network.edges)} edges that learn, {slots} slots",
        _options(tolerances, network.temperature, klu=klu)
        + f" method={method} trtol=1 chgtol={chgtol!r}",
        *(line for name in sorted(texts) for line in _library(name)),
        *models.values(),
        *body,
        *_long(".save", saved),
        f".tran {step!r} {end!r} 0 {step!r}",
        ".end",
    ]
    return "\n".join(lines) + "\n"


def _self_adjusting(element: Element) -> str:
    kind = "transistor" if isinstance(element, Transistor) else "resistor"
    return f"self_adjusting_{kind}"


def fixed_edge(
    chip: LearningChip, k: int, ends: Sequence[str], copy: int, value: float,
    models: dict[str, str], suffix: str,
) -> list[str]:  # fmt: skip
    """Lines of an edge whose value does not change in this netlist; models are added."""
    a, b = ends
    match chip.network.edges[k].element:
        case Transistor():
            s, vt = float(chip.transconductance[copy, k]), float(chip.threshold[copy, k])
            model = _model(models, f"nmos(level=1 vto={vt!r} kp={s!r} lambda=0 gamma=0 is=1e-60)")
            return [f"m{suffix} {a} g_{k} {b} 0 {model} w=1u l=1u"]
        case Resistor():
            return [f"r{suffix} {a} {b} {1 / max(value, _LEAST)!r}"]
        case Diode(saturation=saturation, emission=emission):
            model = _model(models, f"d(is={saturation!r} n={emission!r})")
            return [f"d{suffix} {a} {b} {model}"]


def _model(models: dict[str, str], text: str) -> str:
    """Name of the model of this text, made where there is none yet."""
    if text not in models:
        models[text] = f".model md{len(models)} {text}"
    return models[text].split()[1]


def node_name(chip: LearningChip, name: str, prefix: str) -> str:
    if name == GROUND:
        return name
    return f"x_{name}" if name in chip.network.inputs else prefix + name


def shunts(chip: LearningChip, prefix: str) -> list[str]:
    """From the nodes that are not driven to ground."""
    shunt = 1 / chip.network.shunt
    return [f"rs_{prefix}{name} {prefix}{name} 0 {shunt!r}" for name in floating_nodes(chip)]


def floating_nodes(chip: LearningChip) -> list[str]:
    """Nodes that are not driven."""
    return [name for name in chip.network.nodes if name not in chip.network.inputs]


def _swept(node: str, volts: Array) -> list[str]:
    """A node held at one voltage per sample."""
    if len(volts) == 1 or np.all(volts == volts[0]):
        return [f"v_{node} {node} 0 {float(volts[0])!r}"]
    pairs = [f"{k},{float(v)!r}" for k, v in enumerate(volts)]
    return _long(f"b_{node} {node} 0 v=pwl(v(idx),", [",".join(pairs[k : k + 4]) + "," for k in
                 range(0, len(pairs) - 4, 4)] + [",".join(pairs[(len(pairs) - 1) // 4 * 4 :])],
                 ")")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Window:
    """The slots of one transient: so many of a schedule, from one on."""

    schedule: Schedule
    slots: int
    first_slot: int

    def shown(self, node: str, volts: Array, noise: Array | None = None) -> list[str]:
        """A node held at the voltage (example,) of what each slot shows.

        noise : (slot + 1,) that is added, the slot before the first ahead.
        """
        # Not repeated by the source: one point in some thousand fell on the end of the repeat
        # just so that ngspice 46 gave 1 V there.
        level = volts[self.schedule.examples(self.slots + 1, self.first_slot - 1)]
        return self.held(node, level if noise is None else level + noise)

    def held(self, node: str, level: Array) -> list[str]:
        """A node at level[0], then at each of the others for a slot."""
        if np.all(level == level[0]):
            return [f"v_{node} {node} 0 {float(level[0])!r}"]
        points = [f"0 {float(level[0])!r}"]
        for k, value in enumerate(level[1:]):
            start = k * self.schedule.slot
            points += [
                f"{start + self.schedule.edge!r} {float(value)!r}",
                f"{start + self.schedule.slot!r} {float(value)!r}",
            ]
        return _long(f"v_{node} {node} 0 pwl(", points, ")")


def _disturbed(
    k: int, n: int, gain: float, window: _Window, disturbance: Disturbance
) -> tuple[str, list[str]]:
    """Node of the share of the time for which edge k moves, and lines of what disturbs it."""
    duty = "duty"
    lines: list[str] = []
    if disturbance.active is not None:
        duty = f"d_{k}"
        lines += window.held(f"m_{k}", disturbance.active[:, n].astype(np.float64))
        lines.append(f"b{duty} {duty} 0 v=v(duty)*v(m_{k})")
    if disturbance.update is not None:
        lines += window.held(f"w_{k}", disturbance.update[:, n])
        lines.append(f"bw_{k} 0 g_{k} i={gain!r}*v({duty})*v(w_{k})")
    return duty, lines


def _options(tolerances: Tolerances, temperature: float, *, klu: bool = True) -> str:
    celsius = temperature - _ZERO_CELSIUS
    # A diode's parameters are meant at the network's own temperature.
    return (
        f".options {'klu ' if klu else ''}{tolerances.options()} temp={celsius!r} tnom={celsius!r}"
    )


def _library(name: str) -> list[str]:
    return [line for line in subcircuit_text(name).splitlines() if not line.startswith("*")]


def _long(head: str, words: Sequence[str], end: str = "") -> list[str]:
    cuts = [*range(0, len(words), _WORDS_PER_LINE), len(words)]
    lines = [head, *(f"+ {' '.join(words[a:b])}" for a, b in pairwise(cuts))]
    return [*lines[:-1], lines[-1] + end]
