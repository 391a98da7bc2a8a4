"""A network without converters as a record: what is needed to write its circuit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Crossbar
from spicenn.errors import InputError
from spicenn.periphery.neuron import Activation
from spicenn.technology import Periphery
from spicenn.technology.record import REFERENCE_TEMPERATURE
from spicenn.technology.variation import Cells

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Block:
    """One tile of a stage.

    crossbar : its circuit; drivers and amplifiers are the stage's.
    cells : every cell.
    row, line : the stage's wordline and bitline that its first ones are.
    """

    crossbar: Crossbar
    cells: Cells
    row: int
    line: int


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer: drivers, tiles on common bitlines, a difference amplifier per output, neurons.

    Parameters
    ----------
    name : what it is called in comments and errors.
    inputs : wordlines driven by the stage before, or by the network's sources.
    bias : (wordline,) voltages of the wordlines that follow [V].
    gain : of the drivers of the inputs.
    outputs : pairs of bitlines; bitline 2 k is the plus line of output k.
    blocks : the tiles.
    r_first, r_feedback : of the difference amplifier, see ``netlists/tia.lib`` [Ω].
    tia_offset : (2, output) input offset voltages of its two amplifiers [V].
    activation : neuron behind each amplifier, None where there is none.
    neuron_offset : (output,) [V].
    """

    name: str
    inputs: int
    bias: Array
    gain: float
    outputs: int
    blocks: tuple[Block, ...]
    r_first: float
    r_feedback: float
    tia_offset: Array
    activation: Activation | None
    neuron_offset: Array

    def __post_init__(self) -> None:
        if self.tia_offset.shape != (2, self.outputs) or self.neuron_offset.shape != (
            self.outputs,
        ):
            raise InputError("offsets do not fit the outputs", where=f"stage {self.name}")
        for block in self.blocks:
            rows = block.row + block.crossbar.wordlines
            lines = block.line + block.crossbar.bitlines
            if rows > self.wordlines or lines > 2 * self.outputs:
                raise InputError(
                    f"tile {block.crossbar.name} reaches beyond the stage",
                    where=f"stage {self.name}",
                )

    @property
    def wordlines(self) -> int:
        return self.inputs + len(self.bias)


@dataclass(frozen=True, eq=False)
class AnalogNetwork:
    """Stages in the order in which signals pass them.

    periphery : drivers, amplifiers and neurons of all stages.
    temperature : [K].
    """

    name: str
    stages: tuple[Stage, ...]
    periphery: Periphery
    temperature: float = REFERENCE_TEMPERATURE

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("a network without a stage", where=self.name)
        for before, after in pairwise(self.stages):
            if before.outputs != after.inputs:
                raise InputError(
                    f"{before.outputs} outputs drive {after.inputs} inputs",
                    where=f"stage {after.name}",
                )
