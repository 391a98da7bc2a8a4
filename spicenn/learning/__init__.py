"""Networks that learn in their own physics: self-adjusting edges, twins, local rules.

A network is a graph of transistors, resistors and diodes (``network``), a chip one
manufactured copy of it (``hardware``), a task examples and their schedule (``task``), and a
rule what is done to the outputs of its second copy (``rules``). Chips learn inside a
transient of ngspice (``transient``) or by a controller; networks at rest are solved by
Newton's method (``equilibrium``) and by ngspice (``operating``).
"""

from __future__ import annotations

from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.hardware import (
    Hardware,
    LearningChip,
    ideal_chip,
    sample_chip,
    start_values,
)
from spicenn.learning.network import Edge, Network, graph, grid, layered
from spicenn.learning.rules import CoupledLearning, EquilibriumPropagation, Overclamping
from spicenn.learning.task import Schedule, Task, cyclic, shuffled
from spicenn.learning.trajectory import Trajectory
from spicenn.learning.transient import learn_in_circuit

__all__ = [
    "CoupledLearning",
    "Diode",
    "Edge",
    "EquilibriumPropagation",
    "Hardware",
    "LearningChip",
    "Network",
    "Overclamping",
    "Resistor",
    "Schedule",
    "Task",
    "Trajectory",
    "Transistor",
    "cyclic",
    "graph",
    "grid",
    "ideal_chip",
    "layered",
    "learn_in_circuit",
    "sample_chip",
    "shuffled",
    "start_values",
]
