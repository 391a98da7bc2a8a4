"""Exact solution of resistive crossbars: Kirchhoff's laws, wires included.

Importing it loads neither torch nor numba.
"""

from spicenn.kirchhoff.currents import CrossbarSolution, crossbar_currents, effective_matrix
from spicenn.kirchhoff.laws import Law, Ohmic, Sinh
from spicenn.kirchhoff.noise import thermal_noise

__all__ = [
    "CrossbarSolution",
    "Law",
    "Ohmic",
    "Sinh",
    "crossbar_currents",
    "effective_matrix",
    "thermal_noise",
]
