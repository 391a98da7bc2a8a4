"""What was measured, and one device's relays fitted to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.errors import CalibrationError
from spicenn.surrogate.hysteresis.preisach import Plane, relays

Array = NDArray[np.float64]

# Of a relay's own square beside its differences from its neighbours.
_ALONE = 0.1


@dataclass(frozen=True, eq=False)
class Record:
    """A device's response to a history that begins at the top level, which saturates it.

    Parameters
    ----------
    history : (step,) input.
    response : (step,).
    variance : (step,) of the response's noise.

    Raises CalibrationError for arrays that do not fit or a variance that is not positive.
    """

    history: Array
    response: Array
    variance: Array

    def __post_init__(self) -> None:
        for name in ("history", "response", "variance"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.ndim != 1 or not np.isfinite(values).all():
                raise CalibrationError(f"{name} is not finite steps", where="record")
            object.__setattr__(self, name, values)
        if not len(self.history) == len(self.response) == len(self.variance):
            raise CalibrationError("history, response and variance differ in length")
        if not np.all(self.variance > 0):
            raise CalibrationError("the variance must be positive", where="record")


def record_of_current(history: ArrayLike, current: ArrayLike, relative_noise: float) -> Record:
    """Take the logarithm of a current read with a relative noise: what a gap is linear in.

    A factor on the current, of the device's static law or of the tester, becomes an offset,
    which every fit here leaves free: nothing that does not change with the history counts.

    Raises CalibrationError where a current is not positive.
    """
    values = np.asarray(current, dtype=np.float64)
    if not np.all(values > 0):
        raise CalibrationError(
            "a current is not positive", remedy="read at more than the noise, or average"
        )
    variance = np.full(values.shape, relative_noise**2)
    return Record(np.asarray(history, dtype=np.float64), np.log(values), variance)


def fit_weights(
    plane: Plane,
    records: Sequence[Record],
    *,
    smoothness: float = 1e-3,
    floor: float = 0.0,
    nonnegative: bool = False,
) -> Array:
    """Fit the relays' weights of one device, each record with an offset of its own.

    Minimises Σ (y - offset - Σ μ γ)² / variance + smoothness · (|∇μ|² + 0.1 |μ|²) / s², with
    ∇ the differences between neighbours on the plane and s² the mean variance. From
    first-order reversal curves alone μ is the mixed second derivative of what they show (the
    Everett function); least squares takes any history and does not differentiate noise.

    Parameters
    ----------
    smoothness : without a unit; a larger one trades detail for noise.
    floor : variance added to every record's, of what no relays explain.
    nonnegative : forbid negative weights, as for a device whose response never falls while
        its input rises.

    Returns
    -------
    (relay,).

    Raises CalibrationError without records.
    """
    if not records:
        raise CalibrationError("no record", remedy="give at least one")
    rows, targets = [], []
    scale = float(np.mean(np.concatenate([r.variance for r in records]) + floor))
    for record in records:
        weight = np.sqrt(scale / (record.variance + floor))
        centred, target = _without_offset(relays(plane, record.history), record.response, weight)
        rows.append(centred)
        targets.append(target)
    matrix, target = np.concatenate(rows), np.concatenate(targets)
    normal = matrix.T @ matrix + smoothness * roughness(plane)
    if nonnegative:
        from scipy.optimize import nnls

        # |R μ - R⁻ᵀ Aᵀ y|² is the same sum, in as many rows as there are relays.
        lower = np.linalg.cholesky(normal)
        return np.asarray(nnls(lower.T, np.linalg.solve(lower, matrix.T @ target))[0])
    return np.asarray(np.linalg.solve(normal, matrix.T @ target))


def without_offset(record: Record, states: Array, floor: float) -> tuple[Array, Array]:
    """States (step, relay or basis) and response in units of the noise, any offset removed."""
    weight = 1 / np.sqrt(record.variance + floor)
    return _without_offset(states, record.response, weight)


def _without_offset(states: Array, response: Array, weight: Array) -> tuple[Array, Array]:
    """Project the weighted problem off the weighted constant."""
    constant = weight / np.linalg.norm(weight)
    matrix, target = states * weight[:, None], response * weight
    return matrix - np.outer(constant, constant @ matrix), target - constant * (constant @ target)


def roughness(plane: Plane) -> Array:
    """(relay, relay): |∇μ|² + 0.1 |μ|² as a quadratic form, see ``fit_weights``."""
    alpha, beta = plane.index
    number = {pair: k for k, pair in enumerate(zip(alpha.tolist(), beta.tolist(), strict=True))}
    pairs = [
        (k, number[other])
        for (a, b), k in number.items()
        for other in ((a + 1, b), (a, b + 1))
        if other in number
    ]
    rows = np.zeros((len(pairs), len(number)))
    for row, (one, other) in enumerate(pairs):
        rows[row, one], rows[row, other] = -1.0, 1.0
    return rows.T @ rows + _ALONE * np.eye(len(number))
