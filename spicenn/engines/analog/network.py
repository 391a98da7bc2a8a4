"""A network without converters as a record: what is needed to write its circuit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit import Crossbar
from spicenn.errors import InputError
from spicenn.periphery.neuron import Activation
from spicenn.technology import Periphery
from spicenn.technology.osdi import CompiledModel
from spicenn.technology.record import REFERENCE_TEMPERATURE
from spicenn.technology.variation import Cells

Array = NDArray[np.float64]

# A driver, an amplifier and a neuron each have a subcircuit of their name.
PERIPHERY = ("driver", "tia")


@dataclass(frozen=True, eq=False)
class Block:
    """One tile of a stage.

    Parameters
    ----------
    crossbar : its circuit, without the resistances of drivers and amplifiers.
    cells : every cell.
    row, line : the stage's wordline and bitline that its first ones are.

    Raises InputError for cells that do not fit, and for resistances that the network's
    drivers and amplifiers would be in series with.
    """

    crossbar: Crossbar
    cells: Cells
    row: int
    line: int

    def __post_init__(self) -> None:
        crossbar = self.crossbar
        shape = (crossbar.wordlines, crossbar.bitlines)
        values = {"g": self.cells.g, **self.cells.parameters}
        for name, each in values.items():
            if each.shape != shape:
                raise InputError(
                    f"{name} has shape {each.shape}, expected {shape}",
                    where=f"tile {crossbar.name}",
                )
        if crossbar.r_driver or crossbar.r_sense:
            raise InputError(
                "has r_driver or r_sense of its own",
                where=f"tile {crossbar.name}",
                remedy="leave them 0: the network's periphery drives and senses its tiles",
            )
        if self.row < 0 or self.line < 0 or self.line % 2 or crossbar.bitlines % 2:
            raise InputError(
                f"row {self.row}, line {self.line}: it holds no whole pairs of bitlines",
                where=f"tile {crossbar.name}",
            )


@dataclass(frozen=True, eq=False)
class Stage:
    """One layer: tiles on common bitlines, a difference amplifier per output, neurons.

    Every tile has drivers of its own, one a wordline, as it has when layers run apart.

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
        shapes = (self.tia_offset.shape, self.neuron_offset.shape)
        if shapes != ((2, self.outputs), (self.outputs,)):
            raise InputError("offsets do not fit the outputs", where=f"stage {self.name}")
        if not self.blocks:
            raise InputError("a stage without a tile", where=f"stage {self.name}")
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
        self._check_names()

    @property
    def osdi(self) -> tuple[CompiledModel, ...]:
        """Compiled models of all cells, each once."""
        blocks = [block for stage in self.stages for block in stage.blocks]
        return tuple(dict.fromkeys(model for b in blocks for model in b.crossbar.cell.osdi))

    def inputs(self, v: Array) -> Array:
        """Return voltages as (sample, input). Raises InputError where they do not fit."""
        v = np.atleast_2d(np.asarray(v, dtype=np.float64))
        count = self.stages[0].inputs
        if v.ndim != 2 or v.shape[1] != count or not len(v) or not np.isfinite(v).all():
            raise InputError(
                f"v of shape {v.shape} must be finite, (sample, {count})", where=self.name
            )
        return v

    def _check_names(self) -> None:
        """A netlist has one subcircuit of a name, of all that the stages bring."""
        crossbars = [block.crossbar for stage in self.stages for block in stage.blocks]
        cells = {c.cell.name: c.cell.netlist for c in crossbars if not c.cell.is_ohmic}
        taken = {*get_args(Activation), *PERIPHERY, "diff_tia", *cells}
        for crossbar in crossbars:
            if crossbar.name in taken:
                raise InputError(
                    "two subcircuits of this name", where=f"tile {crossbar.name}",
                    remedy="give every tile of the network a name of its own",
                )  # fmt: skip
            taken.add(crossbar.name)
            if cells.get(crossbar.cell.name, "") != crossbar.cell.netlist:
                raise InputError(
                    f"two cells are called {crossbar.cell.name!r}",
                    where=f"tile {crossbar.name}",
                )
