"""Current-voltage curves: ohmic or sinh, one conductance per curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.technology.cell import OHMIC, Cell
from spicenn.technology.fit.report import Finding, Row
from spicenn.technology.fit.table import Array, Table
from spicenn.technology.library import load_cell

# The cell ``sinh`` goes on along its tangent beyond this many v0.
_BOUND = 3.0
# Where a read counts as linear: sinh(x) / x = 1 + this.
_NONLINEARITY = 0.05
# A rising law leaves measurement noise alone; a curve that switches leaves more than this
# share of its rms current.
_MOST_FALL = 0.25
_MANY_CURVES = 20
_QUANTILE = 0.05


@dataclass(frozen=True)
class Curve:
    """One sweep, v and i of (point,) [V], [A]."""

    v: Array
    i: Array

    @property
    def rms(self) -> float:
        """Its rms current, by which its residuals are weighed [A]."""
        return math.sqrt(float(np.mean(self.i**2)))


def fit_current(tables: Sequence[Table]) -> Finding:
    """Fit the cell and its conductances to all curves of all tables.

    Least squares with one v0 for all and a conductance per curve, each curve's residuals
    over its rms current. The cell is ``sinh`` where that lowers BIC, else ohmic.

    Raises InputError for a single point, a current that does not rise with the voltage,
    and a curve without current.
    """
    curves = [curve for table in tables for curve in _curves(table)]
    points = sum(len(curve.v) for curve in curves)
    ohmic = _cost(curves, None)
    v0 = _best_v0(curves)
    sinh = _cost(curves, v0)
    gain = _bic(ohmic, points, len(curves)) - _bic(sinh, points, len(curves) + 1)
    nonlinear = gain > 0 and points > len(curves) + 1
    chosen = v0 if nonlinear else None
    freedom = points - len(curves) - nonlinear
    noise = math.sqrt((sinh if nonlinear else ohmic) / max(freedom, 1))
    top = max(float(np.abs(curve.v).max()) for curve in curves)
    rows = [_law(chosen, gain), *_scale(curves, chosen, noise, top)]
    rows.append(
        Row(
            "residual of the current", noise, noise / math.sqrt(2 * max(freedom, 1)), "1",
            "observed", f"over each curve's rms current; {points} points, {len(curves)} curves",
        )
    )  # fmt: skip
    conductances, errors = _conductances(curves, chosen, noise)
    changes: dict[str, Any] = {"cell": _cell(chosen)}
    for key, value, error, note in _range(conductances, errors):
        changes[key] = value
        rows.append(Row(key, value, error, "S", note=note))
    changes["v_read"], note = _read_voltage(chosen, top)
    rows.append(Row("v_read", changes["v_read"], None, "V", "suggested", note))
    return Finding(changes, tuple(rows))


def _curves(table: Table) -> list[Curve]:
    """The sweeps of a table, told apart by device, state and cycle."""
    v, i = table.numbers["voltage"], table.numbers["current"]
    found = []
    for group in table.groups("device", "state", "cycle"):
        curve = Curve(v[group], i[group])
        if len(np.unique(curve.v[curve.v != 0.0])) < 2:
            raise table.error(
                "a single point: a curve has two voltages other than 0 V at least",
                "voltage",
                int(group[0]),
                "is the column device or state one number per curve?",
            )
        _check_rise(table, group, curve)
        found.append(curve)
    return found


def _check_rise(table: Table, group: NDArray[np.int64], curve: Curve) -> None:
    """Refuse what no cell does while it is read: a current that falls, or switches."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(curve.v, kind="stable")
    # Repeated voltages count as one: the order within them says nothing.
    _, place = np.unique(curve.v[order], return_inverse=True)
    count = np.bincount(place)
    mean = np.bincount(place, weights=curve.i[order]) / count
    rising = isotonic_regression(mean, weights=count.astype(float)).x
    away = np.abs(curve.i[order] - rising[place])
    rises = rising[-1] > rising[0] and float(curve.v @ curve.i) > 0
    if curve.rms > 0 and rises and math.sqrt(float(np.mean(away**2))) <= _MOST_FALL * curve.rms:
        return
    worst = int(group[order[int(np.argmax(away))]])
    raise table.error(
        "the current does not rise with the voltage" if curve.rms > 0 else "no current flows",
        "current",
        worst,
        "give the part of a curve that reads, not the one that switches; several devices need "
        "a column device",
    )


def _basis(v: Array, v0: float | None) -> Array:
    """Current of a unit conductance [V]: the laws of the cells ohmic and ``sinh``."""
    if v0 is None:
        return v
    x = v / v0
    inside = np.clip(x, -_BOUND, _BOUND)
    return np.asarray(v0 * (np.sinh(inside) + math.cosh(_BOUND) * (x - inside)))


def _conductances(curves: Sequence[Curve], v0: float | None, noise: float) -> tuple[Array, Array]:
    """Least squares conductance of every curve [S], and its standard error."""
    g = np.empty(len(curves))
    error = np.empty(len(curves))
    for index, curve in enumerate(curves):
        basis = _basis(curve.v, v0)
        power = float(basis @ basis)
        g[index] = float(basis @ curve.i) / power
        error[index] = noise * curve.rms / math.sqrt(power)
    return g, error


def _cost(curves: Sequence[Curve], v0: float | None) -> float:
    """Sum of squared residuals over rms currents, each conductance at its best."""
    total = 0.0
    for curve in curves:
        basis = _basis(curve.v, v0)
        g = float(basis @ curve.i) / float(basis @ basis)
        total += float(np.sum((curve.i - g * basis) ** 2)) / curve.rms**2
    return total


def _best_v0(curves: Sequence[Curve]) -> float:
    from scipy.optimize import minimize_scalar

    top = max(float(np.abs(curve.v).max()) for curve in curves)
    grid = np.log(top) + np.linspace(math.log(0.05), math.log(50.0), 40)
    costs = [_cost(curves, math.exp(x)) for x in grid]
    best = int(np.argmin(costs))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda x: _cost(curves, math.exp(x)), bounds=(low, high), method="bounded",
        options={"xatol": 1e-9},
    )  # fmt: skip
    return math.exp(float(found.x))


def _bic(cost: float, points: int, parameters: int) -> float:
    """Bayesian information criterion of a least squares fit (Schwarz 1978), up to a constant."""
    # Noiseless data would have no logarithm: what double precision leaves over counts.
    return points * math.log(max(cost / points, 1e-24)) + parameters * math.log(points)


def _cell(v0: float | None) -> Cell:
    return OHMIC if v0 is None else load_cell("sinh", v0=v0)


def _law(v0: float | None, gain: float) -> Row:
    name = "ohmic" if v0 is None else "sinh"
    other = "sinh" if v0 is None else "ohmic"
    return Row("cell.name", name, note=f"{other} has a BIC that is higher by {abs(gain):.4g}")


def _scale(curves: Sequence[Curve], v0: float | None, noise: float, top: float) -> list[Row]:
    """v0 with its standard error, from the curvature of the profile of the squares."""
    if v0 is None:
        return []
    step = 1e-3
    here = _cost(curves, v0)
    up, down = _cost(curves, v0 * math.exp(step)), _cost(curves, v0 * math.exp(-step))
    curvature = (up - 2 * here + down) / step**2
    error = v0 * noise * math.sqrt(2 / curvature) if curvature > 0 else None
    note = f"one for all curves, voltages up to {top:.4g} V"
    beyond = float(np.mean(np.abs(np.concatenate([c.v for c in curves])) > _BOUND * v0))
    if beyond:
        note += f"; {beyond:.0%} of the points lie beyond 3 v0, where the cell's law is its tangent"
    return [Row("cell.parameters.v0", v0, error, "V", note=note)]


def _range(g: Array, error: Array) -> list[tuple[str, float, float, str]]:
    """g_min and g_max as quantiles of the curves' conductances."""
    if len(np.unique(g)) < 2:
        return []
    if len(g) < _MANY_CURVES:
        low, high = int(np.argmin(g)), int(np.argmax(g))
        words = f"of {len(g)} curves' conductances"
        return [
            ("g_min", float(g[low]), float(error[low]), f"the least {words}"),
            ("g_max", float(g[high]), float(error[high]), f"the largest {words}"),
        ]
    from scipy.stats.mstats import hdquantiles, hdquantiles_sd

    # Harrell and Davis, Biometrika 69, 635 (1982): quantiles with standard errors.
    probabilities = (_QUANTILE, 1 - _QUANTILE)
    values, spread = hdquantiles(g, probabilities), hdquantiles_sd(g, probabilities)
    found = []
    for index, key in enumerate(("g_min", "g_max")):
        note = f"{probabilities[index]:.0%} quantile of {len(g)} curves' conductances"
        found.append((key, float(values[index]), float(spread[index]), note))
    return found


def _read_voltage(v0: float | None, top: float) -> tuple[float, str]:
    """A voltage to read at: as large as was measured, and where the cell is linear."""
    from scipy.optimize import brentq

    if v0 is not None:
        x = float(brentq(lambda x: math.sinh(x) / x - 1 - _NONLINEARITY, 0.1, 2.0))
        if x * v0 < top:
            return x * v0, f"where the current is {_NONLINEARITY:.0%} above the ohmic one"
    return top, "the largest voltage measured"
