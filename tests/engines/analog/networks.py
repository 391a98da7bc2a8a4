"""Networks of random cells, as records."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Crossbar
from spicenn.engines.analog import AnalogNetwork, Block, Stage
from spicenn.periphery.neuron import Activation
from spicenn.technology import Periphery
from spicenn.technology.variation import Cells

Array = NDArray[np.float64]

V_READ = 0.2


def stage(
    name: str,
    inputs: int,
    outputs: int,
    activation: Activation | None,
    *,
    rows: tuple[int, ...] = (),
    columns: tuple[int, ...] = (),
    bias: int = 1,
    gain: float = 1.0,
    offsets: float = 0.0,
    resistors: tuple[float, float] = (2e3, 4e3),
    parameters: dict[str, float] | None = None,
    **crossbar: Any,
) -> Stage:
    """One layer of random cells from 1 to 100 µS.

    rows, columns : where wordlines and outputs are cut into tiles.
    offsets : standard deviation of the amplifiers' and the neurons' [V].
    parameters : standard deviation of the cells' own, by name.
    crossbar : keys of the record.
    """
    rng = np.random.default_rng([ord(c) for c in name])
    blocks = []
    for a, b in pairwise((0, *rows, inputs + bias)):
        for c, d in pairwise((0, *columns, outputs)):
            shape = (b - a, 2 * (d - c))
            own = {key: rng.normal(0, each, shape) for key, each in (parameters or {}).items()}
            cells = Cells(rng.uniform(1e-6, 1e-4, shape), own)
            record = Crossbar(f"{name}_{a}_{c}", *shape, **crossbar)
            blocks.append(Block(record, cells, a, 2 * c))
    return Stage(
        name, inputs, np.full(bias, V_READ), gain, outputs, tuple(blocks), *resistors,
        rng.normal(0, offsets, (2, outputs)), activation, rng.normal(0, offsets, outputs),
    )  # fmt: skip


def network(*stages: Stage, periphery: Periphery | None = None) -> AnalogNetwork:
    return AnalogNetwork("net", stages, periphery or Periphery())


def line(
    wordlines: int, g: Array, resistor: float, periphery: Periphery, **crossbar: Any
) -> AnalogNetwork:
    """One tile between its drivers and amplifiers that pass currents one to one, no bias."""
    g = np.atleast_2d(g)
    outputs = g.shape[1] // 2
    record = Crossbar("line_0", wordlines, g.shape[1], **crossbar)
    only = Stage(
        "line", wordlines, np.zeros(0), 1.0, outputs, (Block(record, Cells(g, {}), 0, 0),),
        resistor, resistor, np.zeros((2, outputs)), None, np.zeros(outputs),
    )  # fmt: skip
    return network(only, periphery=periphery)


def samples(count: int, inputs: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(-V_READ, V_READ, (count, inputs))
