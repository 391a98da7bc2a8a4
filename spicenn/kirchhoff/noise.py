"""Thermal noise of a resistive crossbar at its virtual grounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.constants import Boltzmann

from spicenn.arrays import is_tensor
from spicenn.errors import InputError
from spicenn.kirchhoff import linear
from spicenn.kirchhoff.arguments import NO_SAMPLES, arrays, checked_law, is_real, tolerance
from spicenn.kirchhoff.laws import GatedLaw, Law, small_signal, with_parameters
from spicenn.kirchhoff.linear import Array, require_converged
from spicenn.kirchhoff.threads import thread_count

# Node voltages held at a time.
_CELLS_AT_ONCE = 2**22


def thermal_noise(
    g: Any,
    *,
    r_wordline: Any,
    r_bitline: Any,
    temperature: float = 300.0,
    wires: bool = True,
    law: Law | GatedLaw | None = None,
    parameters: Mapping[str, Any] | None = None,
    rtol: float = 1e-9,
    threads: int | None = None,
) -> Array:
    """Power spectral density of the current out of every bitline, inputs held at 0 V.

    Every resistor adds 4 k T g times the squared transfer of its voltage to the
    bitline, which is by reciprocity the voltage that one volt at the bitline's end
    leaves across it (J. B. Johnson, H. Nyquist, Phys. Rev. 32, 97 and 110, 1928). For
    cells of any law that is exact in equilibrium, with their small-signal conductances;
    under a voltage, noise is no longer a matter of the law alone.

    Parameters
    ----------
    g, r_wordline, r_bitline, law, parameters, rtol, threads : as ``crossbar_currents``
        takes them, arrays.
    temperature : [K] of all of it.
    wires : count the wires' noise too; without, the cells' alone.

    Returns
    -------
    (…, bitline) [A²/Hz].

    Raises InputError and ConvergenceError as ``crossbar_currents``.
    """
    if not (is_real(temperature) and 0 <= temperature < math.inf):
        raise InputError(f"temperature = {temperature!r} is not finite and at least 0 K")
    if any(is_tensor(x) for x in (g, r_wordline, r_bitline, *(parameters or {}).values())):
        raise InputError("thermal_noise takes NumPy arrays", remedy="pass g.numpy()")
    given = arrays(g, NO_SAMPLES, r_wordline, r_bitline, parameters)
    rtol, threads = tolerance(rtol), thread_count(threads)
    cells = small_signal(with_parameters(checked_law(law), given.parameters), given.g)
    chips, wordlines, bitlines = given.g.shape
    density = np.empty((chips, bitlines))
    block = max(1, _CELLS_AT_ONCE // given.g.size)
    for start in range(0, bitlines, block):
        driven = np.arange(start, min(start + block, bitlines))
        ends = np.zeros((1, driven.size, bitlines))
        ends[0, np.arange(driven.size), driven] = 1.0
        fields = linear.solve(
            cells, given.r_wordline, given.r_bitline, v=np.zeros((1, driven.size, wordlines)),
            ends=ends, rtol=rtol, voltages=not wires, threads=threads,
        )  # fmt: skip
        require_converged(fields.residual, rtol)
        if wires:
            # All of a passive network at one temperature: the admittance of its port.
            density[:, driven] = -fields.current[:, np.arange(driven.size), driven]
        else:
            transfer = fields.on_wordline - fields.on_bitline
            density[:, driven] = np.einsum("cij,csij,csij->cs", cells, transfer, transfer)
    return np.asarray(4 * Boltzmann * float(temperature) * density.reshape(*given.batch, bitlines))
