"""Exact solution of resistive crossbars: Kirchhoff's laws, wires included.

Importing it loads neither torch nor numba.
"""

from spicenn.kirchhoff.currents import CrossbarSolution, crossbar_currents, effective_matrix
from spicenn.kirchhoff.laws import GatedLaw, Law, Ohmic, Pcm, Sinh
from spicenn.kirchhoff.noise import thermal_noise
from spicenn.kirchhoff.transistors import Fefet, Rram1T1R

__all__ = [
    "CrossbarSolution",
    "Fefet",
    "GatedLaw",
    "Law",
    "Ohmic",
    "Pcm",
    "Rram1T1R",
    "Sinh",
    "crossbar_currents",
    "effective_matrix",
    "thermal_noise",
]
