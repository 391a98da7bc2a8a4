"""Which law a cell's subcircuit obeys: the cells that ship, by name and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from spicenn.circuit import Crossbar
from spicenn.engines.engine import Array, Parameters
from spicenn.errors import EngineError, InputError
from spicenn.kirchhoff.laws import GatedLaw, Law, Pcm, Sinh, with_parameters
from spicenn.kirchhoff.transistors import Fefet, Rram1T1R
from spicenn.technology import OHMIC, Cell
from spicenn.technology.library import subcircuit_text

# The fields of a law are parameters of its cell's header. At an operating point a
# memristor stays at the state that it starts with, and is what ``sinh`` is.
_LAWS: Mapping[str, type[Any]] = {
    "fefet": Fefet,
    "memristor": Sinh,
    "pcm": Pcm,
    "rram_1t1r": Rram1T1R,
    "sinh": Sinh,
}


def law_of(cell: Cell, where: str, temperature: float) -> Law | GatedLaw | None:
    """Return the law of a cell with what its array has in common; None where it is ohmic.

    Parameters
    ----------
    where : what an error names.
    temperature : of the array [K].

    Raises EngineError for a cell whose law is not known here, InputError for a parameter
    out of range.
    """
    if cell.is_ohmic:
        return None
    if not _is_ours(cell):
        why = (
            "its netlist is not the one that ships under this name"
            if cell.name in _LAWS
            else "the cells that have one are " + ", ".join(_LAWS)
        )
        raise EngineError(
            f"the nodal engine has no law for the cell {cell.name!r}: {why}",
            where=where,
            remedy="use engine='ngspice'",
        )
    kind = _LAWS[cell.name]
    names = {field.name for field in fields(kind)}
    values = {key: cell.parameter(key) for key in cell.defaults if key in names}
    if "temperature" in names:
        values["temperature"] = temperature
    law: Law | GatedLaw = kind(**values)
    return law


def known_law(cell: Cell, where: str, temperature: float) -> Law | GatedLaw | None:
    """Return what ``law_of`` does, and None also for a cell whose law is not known here."""
    try:
        return law_of(cell, where, temperature)
    except EngineError:
        return None


def of_law(law: Any, parameters: Parameters) -> dict[str, Array]:
    """Parameters of cells that their law takes; a memristor has more, for what moves it."""
    names = {field.name for field in fields(law)}
    return {name: values for name, values in parameters.items() if name in names}


def out_of_range(crossbar: Crossbar, parameters: Parameters) -> dict[int, str]:
    """Chips of which some cell has a parameter that its law does not allow, and what it is.

    Parameters
    ----------
    parameters : of the cells, each (chip, wordline, bitline). Nothing is known of cells
        without a law here.

    Raises InputError where a parameter that all cells have in common is out of range.
    """
    law = known_law(crossbar.cell, crossbar.name, crossbar.temperature)
    own = of_law(law, parameters) if law is not None else {}
    wrong: dict[int, str] = {}
    try:
        with_parameters(law, own)
    except InputError:
        for chip in range(len(next(iter(own.values())))):
            try:
                with_parameters(law, {name: values[chip] for name, values in own.items()})
            except InputError as error:
                wrong[chip] = error.what
    return wrong


def is_linear(cell: Cell) -> bool:
    """Whether a tile of these cells is a linear map: resistors, or what ``as_resistors`` knows."""
    return cell.is_ohmic or (_is_ours(cell) and hasattr(_LAWS[cell.name], "conductance"))


def as_resistors(
    crossbar: Crossbar, g: Array, parameters: Parameters
) -> tuple[Crossbar, Array, Parameters]:
    """Write a linear cell as the resistor that it is; return any other as it is given.

    Parameters
    ----------
    g : (…, wordline, bitline) [S]. parameters : of the cells, each shaped as g.
    """
    if crossbar.cell.is_ohmic or not is_linear(crossbar.cell):
        return crossbar, g, parameters
    law: Any = law_of(crossbar.cell, crossbar.name, crossbar.temperature)
    effective = with_parameters(law, parameters).conductance(g)
    return replace(crossbar, cell=OHMIC), effective, {}


def _is_ours(cell: Cell) -> bool:
    """Whether cell and text are of those that ship: a user's own may carry a name of ours."""
    return cell.name in _LAWS and not cell.osdi and cell.netlist == subcircuit_text(cell.name)
