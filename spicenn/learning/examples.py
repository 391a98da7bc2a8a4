"""Published examples: a network, its hardware, what it is to learn."""

from __future__ import annotations

from dataclasses import dataclass

from spicenn.learning.elements import Resistor, Transistor
from spicenn.learning.hardware import Hardware, LearningChip, ideal_chip
from spicenn.learning.network import Edge, Network
from spicenn.learning.task import Task

# The supplies of the networks of Dillavou et al. [V].
LOW, HIGH = 0.0181, 0.4351


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
