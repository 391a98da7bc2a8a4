"""How the cells of an array warm themselves and each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from spicenn.technology.checks import check_number


@dataclass(frozen=True, kw_only=True)
class Heating:
    """Temperature coefficient of the cells and the thermal network that they are nodes of.

    A cell's power p = i v warms it by T above ambient and changes its conductance to
    g (1 + alpha T). Heat flows to ambient through every cell's own resistance and to the
    four neighbours of its array: C dT/dt = p - T / r_thermal - Σ (T - T_near) / r_coupling.
    A cell at an edge has fewer neighbours; nothing else is lost there.

    Parameters
    ----------
    alpha : relative change of the conductance per kelvin [1/K]; Ea / (k T0²) of a
        conduction that is activated, negative of a metallic one.
    r_thermal : of one cell to ambient [K/W].
    c_thermal : of one cell [J/K].
    r_coupling : between neighbouring cells [K/W]; infinite where each is on its own. One
        cell's heat fades over about sqrt(r_thermal / r_coupling) cells.

    Raises TechnologyError for a value out of range.
    """

    alpha: float
    r_thermal: float
    c_thermal: float = 1e-12
    r_coupling: float = math.inf

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, -math.inf, math.inf)
        check_number("r_thermal", self.r_thermal, 0.0, math.inf, above=True)
        check_number("c_thermal", self.c_thermal, 0.0, math.inf, above=True)
        if self.r_coupling != math.inf:
            check_number("r_coupling", self.r_coupling, 0.0, math.inf, above=True)

    @property
    def time_constant(self) -> float:
        """r_thermal · c_thermal [s], of a cell at constant power, or of an array heated evenly."""
        return self.r_thermal * self.c_thermal
