"""Networks that learn in their own physics: self-adjusting edges, twins, local rules.

A network is a graph of transistors, resistors and diodes (``network``), a chip one
manufactured copy of it (``hardware``), a task examples and their schedule (``task``), and a
rule what is done to the outputs of its second copy (``rules``). Chips learn inside a
transient of ngspice (``transient``), by the transient's own equation (``model``), by a
controller (``controller``) or event by event (``events``): ``learn`` is the way in. Networks
at rest are solved by Newton's method (``equilibrium``) and by ngspice (``operating``); those
of layers, at the scale of digits, by exact coordinate descent (``resistive``, ``descent``,
``propagation``, which load torch).
"""

from __future__ import annotations

from spicenn.learning.contrast import answers, mean_square_error
from spicenn.learning.controller import Converters, learn_by_controller
from spicenn.learning.cycle import LimitCycle, find_cycle
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.equilibrium import equilibrium
from spicenn.learning.export import write_learning
from spicenn.learning.hardware import (
    Hardware,
    LearningChip,
    ideal_chip,
    sample_chip,
    start_values,
)
from spicenn.learning.learn import learn
from spicenn.learning.linear import predict_cycle
from spicenn.learning.model import learn_in_model, learn_many
from spicenn.learning.network import Edge, Network, graph, grid, layered
from spicenn.learning.operating import operating_points
from spicenn.learning.rules import (
    CoupledLearning,
    Desynchronous,
    Differential,
    EquilibriumPropagation,
    Overclamping,
)
from spicenn.learning.task import Schedule, Task, cyclic, shuffled
from spicenn.learning.trajectory import Trajectory
from spicenn.learning.transient import Solver, learn_in_circuit

__all__ = [
    "Converters",
    "CoupledLearning",
    "Desynchronous",
    "Differential",
    "Diode",
    "Edge",
    "EquilibriumPropagation",
    "Hardware",
    "LearningChip",
    "LimitCycle",
    "Network",
    "Overclamping",
    "Resistor",
    "Schedule",
    "Solver",
    "Task",
    "Trajectory",
    "Transistor",
    "answers",
    "cyclic",
    "equilibrium",
    "find_cycle",
    "graph",
    "grid",
    "ideal_chip",
    "layered",
    "learn",
    "learn_by_controller",
    "learn_in_circuit",
    "learn_in_model",
    "learn_many",
    "mean_square_error",
    "operating_points",
    "predict_cycle",
    "sample_chip",
    "shuffled",
    "start_values",
    "write_learning",
]
