"""Feed-forward correction of self-heating: inputs are predistorted before they are applied.

v'_i = v_i / (1 + alpha ⟨ΔT⟩_i), where ⟨ΔT⟩_i is the mean rise along wordline i that the
target conductances, the inputs and the thermal network predict. Nothing of a chip is
measured. At the wordlines' own voltages a cell's power is g v_i², so that the rise of every
row is one matrix times the squared inputs, made once: ⟨ΔT⟩ = M v².
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from spicenn.arrays import as_like, namespace
from spicenn.circuit import Crossbar
from spicenn.compiler.design import Design
from spicenn.compiler.placement import place
from spicenn.engines.engine import Engine, Parameters, Solution, WrappedEngine
from spicenn.engines.heating import thermal_conductance
from spicenn.errors import InputError, TrainingError
from spicenn.technology.heating import Heating

Array = NDArray[np.float64]

# Of the prediction; each is one product, and leaves alpha ⟨ΔT⟩ of the last one's error.
ITERATIONS = 4


@dataclass(frozen=True, eq=False)
class FeedForward:
    """What a tile's inputs are predistorted with.

    alpha : of the cells [1/K].
    rise : M, (wordline, wordline) [K/V²]: mean rise of every wordline per squared voltage.
    v_limit : largest voltage that the drivers have [V].
    """

    alpha: float
    rise: Array
    v_limit: float = math.inf

    def shuffled(self, order: Any) -> FeedForward:
        """Rows' predictions given to other rows, in the order named: what a control is."""
        return FeedForward(self.alpha, self.rise[np.asarray(order)], self.v_limit)


@dataclass(frozen=True, eq=False)
class Predistorted:
    """Inputs to apply, and why; arrays or tensors as the inputs were, (…, wordline) each.

    voltage : [V], within the drivers' limit.
    rise : mean rise that is predicted for the wordline [K].
    clipped : where the limit cut the correction off; there it is incomplete.
    """

    voltage: Any
    rise: Any
    clipped: Any


def feed_forward(g_target: Array, heating: Heating, *, v_limit: float = math.inf) -> FeedForward:
    """Prepare the correction of one tile: one factorisation, one solve per wordline.

    Parameters
    ----------
    g_target : (wordline, bitline) [S], what was to be programmed.
    heating : of the array.
    v_limit : largest voltage that the drivers have [V].

    The mean along a wordline weighs a cell by its current, so that the wordline's currents
    are right in sum. Wires are left out: cells far down resistive lines are warmed less
    than is predicted.

    Raises InputError for conductances or a limit that do not fit.
    """
    g = np.asarray(g_target, np.float64)
    if g.ndim != 2 or g.size == 0 or not (np.all(np.isfinite(g)) and np.all(g > 0)):
        raise InputError(f"g_target of shape {g.shape} must be (wordline, bitline), positive")
    if not v_limit > 0:
        raise InputError(f"v_limit = {v_limit!r} is not positive")
    wordlines, bitlines = g.shape
    # Column k: powers of the cells of wordline k, at 1 V.
    power = np.zeros((wordlines, bitlines, wordlines))
    rows = np.arange(wordlines)
    power[rows, :, rows] = g
    network = splu(thermal_conductance(heating, wordlines, bitlines))
    rise = network.solve(power.reshape(-1, wordlines)).reshape(power.shape)
    share = g / g.sum(axis=1, keepdims=True)
    return FeedForward(heating.alpha, np.einsum("ij,ijk->ik", share, rise), float(v_limit))


def predistort(correction: FeedForward, v: Any, *, iterations: int = ITERATIONS) -> Predistorted:
    """Return the inputs that give, warm, the currents that v gives at ambient temperature.

    The first iteration predicts the rise with the cells' conductance at ambient and the
    inputs as they are; each further one with the inputs and conductances that the last one
    led to: g (1 + alpha ⟨ΔT⟩) v'² = g v² / (1 + alpha ⟨ΔT⟩).

    Parameters
    ----------
    v : (…, wordline) [V], an array or a tensor, which is differentiated through.
    iterations : at least 1; each is one matrix product.

    Raises InputError for inputs that do not fit, TrainingError where a negative alpha is
    predicted to leave a wordline without conductance.
    """
    xp = namespace(v)
    v = as_like(v)
    wordlines = len(correction.rise)
    if v.ndim < 1 or v.shape[-1] != wordlines:
        raise InputError(f"v has shape {tuple(v.shape)}, expected (…, {wordlines})")
    if iterations < 1:
        raise InputError(f"iterations = {iterations!r} is not at least 1")
    matrix = as_like(correction.rise, v)
    square = v * v
    factor = xp.ones_like(v)
    for _ in range(iterations):
        rise = (square / factor) @ matrix.T
        factor = 1 + correction.alpha * rise
        if not bool((factor > 0).all()):
            raise TrainingError(
                f"a predicted rise of {float(rise.max()):.3g} K leaves a wordline no conductance",
                where="feed-forward correction",
                remedy="lower the voltages or r_thermal: the linear law ends here",
            )
    wanted = v / factor
    limit = correction.v_limit
    voltage = xp.clip(wanted, -limit, limit) if limit < math.inf else wanted
    return Predistorted(voltage, rise, abs(wanted) > limit)


def corrected_inputs(
    g_target: Array,
    v: Any,
    heating: Heating,
    *,
    v_limit: float = math.inf,
    iterations: int = ITERATIONS,
) -> Any:
    """Return predistorted inputs (…, wordline) [V] in one call; see ``predistort``.

    For several batches on one tile, keep what ``feed_forward`` returns.
    """
    correction = feed_forward(g_target, heating, v_limit=v_limit)
    return predistort(correction, v, iterations=iterations).voltage


def design_corrections(
    design: Design, heating: Heating, *, v_limit: float = math.inf
) -> dict[str, FeedForward]:
    """Prepare the correction of every tile of a design, by the tile's name."""
    return {
        tile.name: feed_forward(tile.g_target, heating, v_limit=v_limit) for tile in place(design)
    }


class PredistortingEngine(WrappedEngine):
    """Another engine with every tile's inputs predistorted; the other one stays the caller's.

    Parameters
    ----------
    engine : what solves, e.g. ``engines.heating.heated(engine, heating)``.
    corrections : by the tile's name, of ``design_corrections``.
    iterations : of ``predistort``.
    """

    def __init__(
        self,
        engine: Engine,
        corrections: Mapping[str, FeedForward],
        iterations: int = ITERATIONS,
    ) -> None:
        super().__init__(engine, "predistorted")
        self._corrections, self._iterations = corrections, iterations

    def solve(
        self, crossbar: Crossbar, g: Array, v: Array, parameters: Parameters | None = None
    ) -> Solution:
        """See ``Engine.solve``. Raises InputError for a tile without a correction."""
        if crossbar.name not in self._corrections:
            raise InputError(
                f"no correction for the tile {crossbar.name!r}",
                remedy="there are " + (", ".join(sorted(self._corrections)) or "none"),
            )
        correction = self._corrections[crossbar.name]
        voltage = predistort(correction, v, iterations=self._iterations).voltage
        return self._engine.solve(crossbar, g, voltage, parameters)


def predistorted(
    engine: Engine, corrections: Mapping[str, FeedForward], iterations: int = ITERATIONS
) -> PredistortingEngine:
    """Return an engine that predistorts what it is given; see ``PredistortingEngine``."""
    return PredistortingEngine(engine, corrections, iterations)
