"""One tile as a circuit record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.technology import OHMIC, Cell


@dataclass(frozen=True)
class Crossbar:
    """All of a tile but its conductances: what stays the same from chip to chip.

    Input i drives the first cell of wordline i through one segment; each following
    cell through one more. Bitline j is sensed at a virtual ground after its last
    row, through one segment. Current out of a bitline into its ground is positive.

    Parameters
    ----------
    name : a safe identifier (see ``circuit.names``).
    wordlines, bitlines : physical lines.
    r_wordline, r_bitline : resistance of one wire segment [Ω]; 0 is an ideal wire.
    cell : circuit of one cell.
    temperature : [K].
    r_driver : output resistance of every wordline's driver [Ω].
    r_sense : input resistance of every bitline's amplifier [Ω].
    c_wordline, c_bitline : capacitance of one wire segment to ground [F].
    c_cell : capacitance of one cell, between its lines [F].
    """

    name: str
    wordlines: int
    bitlines: int
    r_wordline: float = 0.0
    r_bitline: float = 0.0
    cell: Cell = OHMIC
    temperature: float = 300.0
    r_driver: float = 0.0
    r_sense: float = 0.0
    c_wordline: float = 0.0
    c_bitline: float = 0.0
    c_cell: float = 0.0

    def __post_init__(self) -> None:
        if self.wordlines < 1 or self.bitlines < 1:
            raise InputError(
                f"{self.wordlines} x {self.bitlines} is no array", where=f"crossbar {self.name}"
            )

    def segments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Resistances [Ω] before every cell on its wordline, and after it on its bitline.

        Each (wordline or 1, bitline or 1). What drives a wordline and what senses a
        bitline is in series with its outer segment.
        """
        wordline = np.full((1, self.bitlines if self.r_driver else 1), self.r_wordline)
        bitline = np.full((self.wordlines if self.r_sense else 1, 1), self.r_bitline)
        wordline[0, 0] += self.r_driver
        bitline[-1, 0] += self.r_sense
        return wordline, bitline
