"""Published examples: a network, its hardware, what it is to learn."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.learning.elements import Resistor, Transistor
from spicenn.learning.hardware import Hardware, LearningChip, ideal_chip, sample_chip
from spicenn.learning.network import Edge, Network, grid
from spicenn.learning.task import Task

Array = NDArray[np.float64]

# The supplies of the networks of Dillavou et al. [V].
LOW, HIGH = 0.0181, 0.4351

# A curve that bends where transistors saturate. Source: Dillavou et al., PNAS 121,
# e2319718121, 2024, its nonlinear regression.
_CURVE = (
    (0.0005, 0.1088), (0.0628, 0.1472), (0.1251, 0.1872), (0.1873, 0.2256),
    (0.2479, 0.2649), (0.3118, 0.3041), (0.3724, 0.3041), (0.4347, 0.3041),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Example:
    """A chip and its task."""

    chip: LearningChip
    task: Task


def two_tasks(
    *,
    speeds: tuple[float, float] = (2.87, 4.72),
    rate: float = 2.0,
    hardware: Hardware | None = None,
) -> Example:
    """Return one output between two transistors and a resistor that is to do two tasks.

    Values are (G−, G+), the gates of the transistors to ``LOW`` and ``HIGH``; the input is
    joined to the output by 500 Ω. Source: example 1 of Dillavou, Guzman, Liu and Durian,
    arXiv 2505.22887.

    Parameters
    ----------
    speeds : at which the bias moves G− and G+ [V/s] at that rate; (0, 0) is no bias.
    rate : of the rule for which the speeds are meant.
    hardware : its bias is replaced; the default's if None.
    """
    network = Network(
        edges=(
            Edge("out", "low", Transistor()),
            Edge("high", "out", Transistor()),
            Edge("in", "out", Resistor(conductance=1 / 500)),
        ),
        inputs=("in", "low", "high"),
        outputs=("out",),
    )
    hardware = hardware or Hardware()
    task = Task([[HIGH], [LOW]], [[0.31], [0.14]]).with_constants([LOW, HIGH])
    return Example(ideal_chip(network, hardware, bias=hardware.bias_of(speeds, rate)), task)


def regression(
    *,
    hardware: Hardware | None = None,
    seed: int | None = None,
    chip: int = 0,
    nodes: tuple[str, str, str, str] = ("n3_3", "n1_1", "n1_3", "n2_2"),
) -> Example:
    """Return a 4 x 4 torus of 32 transistors that is to bend a straight line at eight points.

    The best straight line leaves 3.26e-4 V^2 (``straight_line_error``). To do better,
    transistors must saturate, and they do where their gate is less than V_T + ``HIGH``: with
    ``gate_low`` at 1.2 V none can, and in five arrangements of the nodes with eight starts each
    no error is below 2.3e-4 V^2 within 22 s; at the default, 1 V, they go down to 1.3e-5 V^2
    (examples shown all at once, Newton's method). These nodes have the smallest median.

    Parameters
    ----------
    hardware : the default's if None.
    seed, chip : a manufactured chip; an ideal one if the seed is None.
    nodes : of the input, ``LOW``, ``HIGH`` and the output. On a 4 x 4 torus a node and its
        antipode (two rows and two columns on) are equally far from the output.

    Raises InputError for nodes that the grid does not have, or has twice.
    """
    network = grid(4, 4, inputs=nodes[:3], outputs=nodes[3:])
    inputs, labels = np.array(_CURVE).T[..., np.newaxis]
    return Example(
        _made(network, hardware, seed, chip), Task(inputs, labels).with_constants([LOW, HIGH])
    )


def xor(
    *,
    hardware: Hardware | None = None,
    seed: int | None = None,
    chip: int = 0,
    level: float = 0.06,
    constants: tuple[float, float] = (0.11, 0.33),
    nodes: tuple[str, str, str, str, str, str] = ("n3_3", "n3_1", "n1_1", "n1_3", "n2_2", "n0_0"),
) -> Example:
    """Return a 4 x 4 torus of 32 transistors that is to tell whether two inputs differ.

    The answer is the difference of two outputs, 0 where both inputs are alike and ``level``
    where not; its rule is a ``Differential`` one, and labels are (L, -L). One output cannot do
    it, nor can any passive network's: every current rises with the voltage at its one end and
    falls with that at the other, so that a node's voltage rises with every input, and that of
    (1, 1) is not below that of (1, 0). A difference can, of an AND and an OR, but not if the
    network is linear: then it is affine in the inputs.

    Source: Dillavou et al., PNAS 121, e2319718121, 2024, figure 3: nodes, and constants of 0.11
    and 0.33 V. Its level is -0.087 V. Gates in 1 to 5 V come within 1 mV of that (nonlinear
    least squares), but coupled learning hardly does within seconds. Integrated by Newton's
    method from ten starts with gates in 1 to 2.2 V, without imperfections, in slots of 1.8 ms,
    all four cases are right after 2.3 s in 8 at a level of 0.06 V and in 7 at -0.087 V; in
    slots of 7 ms, whose ripple is larger than what is learnt, in none.

    Parameters
    ----------
    hardware, seed, chip : as of ``regression``.
    level : of the difference where the inputs differ [V], not 0.
    constants : of two further nodes [V].
    nodes : of the two inputs, the constants and both outputs.

    Raises InputError for a level of 0, or nodes that the grid does not have, or has twice.
    """
    if level == 0:
        raise InputError("a level of 0 V tells nothing apart", where="xor")
    network = grid(4, 4, inputs=nodes[:4], outputs=nodes[4:])
    inputs = [[a, b] for a in (LOW, HIGH) for b in (LOW, HIGH)]
    labels = [[0.0, 0.0] if a == b else [level, -level] for a, b in inputs]
    return Example(
        _made(network, hardware, seed, chip), Task(inputs, labels).with_constants(constants)
    )


def linear_counterpart(example: Example, values: Array) -> tuple[Example, Array]:
    """Return the same graph of resistors that learn, and the conductances it begins with [S].

    The control of whatever needs nonlinearity. A transistor's conductance is
    ``S (G − V_T − mean voltage)``; the resistor's is ``S (G − V_T)``, over the same range.
    Its bias, leakage and offsets are the chip's; nominal S and V_T are the edges'.

    Raises InputError for a network whose learning edges are not alike transistors.
    """
    network = example.chip.network
    kinds = {network.edges[k].element for k in network.learning}
    kind = next(iter(kinds), None)
    if len(kinds) != 1 or not isinstance(kind, Transistor):
        raise InputError("the edges that learn are not alike transistors", where="network")
    hardware = replace(
        example.chip.hardware,
        conductance_per_volt=kind.transconductance,
        gate_low=example.chip.hardware.gate_low - kind.threshold,
        gate_high=example.chip.hardware.gate_high - kind.threshold,
    )
    edges = tuple(
        replace(edge, element=Resistor(conductance=kind.transconductance, learns=True))
        if edge.element.learns else edge
        for edge in network.edges
    )  # fmt: skip
    linear = replace(network, edges=edges)
    bare = ideal_chip(linear, hardware)
    chip = replace(
        bare, bias=example.chip.bias, leakage=example.chip.leakage,
        output_offset=example.chip.output_offset,
        index=example.chip.index, seed=example.chip.seed,
    )  # fmt: skip
    begin = kind.transconductance * (np.asarray(values, dtype=np.float64) - kind.threshold)
    return Example(chip, example.task), begin


def straight_line_error(task: Task) -> float:
    """Mean squared error [V^2] of the best affine function of a task's inputs."""
    design = np.hstack([task.inputs, np.ones((len(task), 1))])
    best = np.linalg.lstsq(design, task.labels, rcond=None)[0]
    return float(np.mean((design @ best - task.labels) ** 2))


def _made(network: Network, hardware: Hardware | None, seed: int | None, chip: int) -> LearningChip:
    hardware = hardware or Hardware()
    if seed is None:
        return ideal_chip(network, hardware)
    return sample_chip(network, hardware, chip=chip, seed=seed)
