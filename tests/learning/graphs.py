"""Random graphs of all elements, for tests of what solves them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicenn.learning.elements import Diode, Element, Resistor, Transistor
from spicenn.learning.hardware import Hardware, LearningChip, sample_chip
from spicenn.learning.network import Edge, Network

Array = NDArray[np.float64]

_ELEMENTS = (
    Transistor(), Transistor(gate=2.2), Resistor(learns=True), Resistor(conductance=5e-4),
    Diode(saturation=1e-9, emission=1.8),
)  # fmt: skip
_SPREAD = Hardware(
    threshold_std=0.02, twin_threshold_std=0.01, transconductance_std=0.1,
    twin_transconductance_std=0.05,
)  # fmt: skip


def random_chip(seed: int) -> tuple[LearningChip, Array, Array]:
    """A chip of a random connected graph, values of its edges, and inputs of three samples."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(3, 9))
    names = [*(f"n{k}" for k in range(size)), "0"]
    pairs = [(names[k], names[int(rng.integers(k))]) for k in range(1, size + 1)]
    for _ in range(int(rng.integers(2 * size))):
        a, b = rng.choice(size + 1, 2, replace=False)
        pairs.append((names[a], names[b]))
    elements: list[Element] = [_ELEMENTS[k] for k in rng.integers(len(_ELEMENTS), size=len(pairs))]
    elements[0] = _ELEMENTS[int(rng.integers(2)) * 2]
    network = Network(
        edges=tuple(Edge(a, b, e) for (a, b), e in zip(pairs, elements, strict=True)),
        inputs=("n0", "n1")[: int(rng.integers(1, 3))],
        outputs=("n2",) if size < 5 else ("n2", "n4"),
    )
    chip = sample_chip(network, _SPREAD, chip=int(rng.integers(100)), seed=seed)
    gates = rng.uniform(0.3, 4.0, len(network.learning))
    resistors = [isinstance(network.edges[k].element, Resistor) for k in network.learning]
    values = np.where(resistors, 1e-3 * gates, gates)
    return chip, values, rng.uniform(-0.4, 0.8, (3, len(network.inputs)))
