"""The Preisach operator on a finite set of relays, for many histories at once.

y(t) = Σ μ(α, β) γ_αβ[x](t) over α ≥ β. The relay γ_αβ goes to +1 where x ≥ α, to -1 where
x < β, and keeps its state in between; with α = β it is a step without memory. Source:
Mayergoyz, Mathematical Models of Hysteresis and Their Applications, 2nd ed., ch. 1. For
relays the sum is exact: no step in time, and no error but rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Plane:
    """Relays of all pairs α ≥ β out of one set of thresholds.

    Parameters
    ----------
    thresholds : (threshold,) rising, in the input's unit.

    Raises InputError for thresholds that do not rise.
    """

    thresholds: Array

    def __post_init__(self) -> None:
        values = np.asarray(self.thresholds, dtype=np.float64)
        if values.ndim != 1 or not values.size or not np.all(np.diff(values) > 0):
            raise InputError("thresholds must be at least one and rise", where="Preisach plane")
        object.__setattr__(self, "thresholds", values)

    @classmethod
    def between(cls, levels: ArrayLike) -> Plane:
        """One threshold half way between every two neighbours of rising input levels."""
        values = np.asarray(levels, dtype=np.float64)
        return cls((values[1:] + values[:-1]) / 2)

    @property
    def index(self) -> NDArray[np.int64]:
        """(2, relay) index of the thresholds α and β of every relay."""
        return np.array(np.tril_indices(len(self.thresholds)))

    @property
    def up(self) -> Array:
        """(relay,) α, where a relay goes to +1."""
        return np.asarray(self.thresholds[self.index[0]])

    @property
    def down(self) -> Array:
        """(relay,) β, below which it goes to -1."""
        return np.asarray(self.thresholds[self.index[1]])


def relays(plane: Plane, history: ArrayLike, *, start: int = 1) -> Array:
    """States of all relays after every step of histories.

    Parameters
    ----------
    history : (…, step) input; between two steps it is monotone.
    start : +1 or -1, state of all relays before the first step.

    Returns
    -------
    (…, step, relay) of ±1.

    Raises InputError for a start that is neither, or an input that is not finite.
    """
    x = np.asarray(history, dtype=np.float64)
    if start not in (1, -1) or x.ndim < 1 or not np.isfinite(x).all():
        raise InputError(
            f"a history of shape {x.shape} from {start!r}: need finite steps from 1 or -1",
            where="relays",
        )
    # When x was last at or above each threshold, and last below: a relay's state is which of
    # its two came later. They meet only where neither has been, at 0.
    when = np.arange(1, x.shape[-1] + 1)[:, None]
    above = x[..., None] >= plane.thresholds
    last_above = np.maximum.accumulate(np.where(above, when, 0), axis=-2)
    last_below = np.maximum.accumulate(np.where(above, 0, when), axis=-2)
    alpha, beta = plane.index
    later = last_above[..., alpha] - last_below[..., beta]
    return np.where(later == 0, start, np.sign(later)).astype(np.float64)


def respond(plane: Plane, weights: ArrayLike, history: ArrayLike, *, start: int = 1) -> Array:
    """Output of the operator.

    Parameters
    ----------
    weights : (…, relay) μ.
    history : (step,) or with leading axes that broadcast against the weights'.

    Returns
    -------
    (…, step).

    Raises InputError as ``relays``.
    """
    states = relays(plane, history, start=start)
    mu = np.asarray(weights, dtype=np.float64)
    return np.asarray(np.einsum("...sr,...r->...s", states, mu))


def everett(plane: Plane, weights: ArrayLike, high: float, low: float) -> float:
    """Half of what the output changes by when a whole triangle of relays switches.

    The triangle holds the relays with low < β and α ≤ high: those that the input switches
    on its way from ``low`` up to ``high``.
    """
    inside = (plane.up <= high) & (plane.down > low)
    return float(np.asarray(weights, dtype=np.float64)[inside].sum())
