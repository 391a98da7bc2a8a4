"""Conductances over time: g(t) = g0 ((t + t0) / t0)^-ν per device, then ν over ρ."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spicenn.technology.fit.report import Finding, Row
from spicenn.technology.fit.table import Array, Table

# A spread of fewer has an error of over a third of itself.
FEWEST = 5
_LEAST_RHO = 1e-6  # as the sampler takes a cell that is all off
_SHAPES = {"constant": 1, "line": 2, "clipped line": 4}


@dataclass(frozen=True)
class Device:
    """One device's readings: t [s] and ln g of (point,), and its target [S] or NaN."""

    t: Array
    log_g: Array
    target: float


@dataclass(frozen=True)
class Exponents:
    """One entry per device, (device,).

    rho : ln(target / g_max); nu, error : exponent and the standard error of its regression.
    """

    rho: Array
    nu: Array
    error: Array


@dataclass(frozen=True)
class Form:
    """clip(a ln ρ + b, low, high) with standard errors; None where the data have none."""

    shape: str
    value: tuple[float, float, float, float]
    error: tuple[float | None, ...]


def fit_drift(tables: Sequence[Table], g_max: float, t0: float | None = None) -> Finding:
    """Fit t0, ν and its spread to all tables.

    ν of a device is the slope of ln g over ln((t + t0) / t0); t0 has the smallest sum of
    squares over all devices. Mean and deviation of ν over ln ρ are the most likely ones
    with the regressions' own errors taken out; constant, line or clipped line by BIC.

    Parameters
    ----------
    g_max : what ρ is relative to [S]; ρ is that of g0 where no target is given.
    t0 : taken as given, if not None [s].

    Raises InputError where a device has fewer than two times, times go back within a
    device, a conductance is not positive, or devices are too few for a spread.
    """
    devices = [device for table in tables for device in _devices(table)]
    if len(devices) < FEWEST:
        raise tables[0].error(
            f"{len(devices)} devices are too few for a spread", "time", 0,
            f"measure {FEWEST} at least, and tell them apart in a column device",
        )  # fmt: skip
    points = sum(len(device.t) for device in devices)
    row = _reference_time(devices, points) if t0 is None else _given(t0)
    t0 = float(row.value)
    freedom = max(points - 2 * len(devices), 1)
    residual = math.sqrt(_cost(devices, t0) / freedom)
    exponents = _exponents(devices, t0, residual, g_max)
    mean, sigma = _most_likely(exponents)
    count = f"{len(devices)} devices, {points} readings"
    rows = (
        row,
        _form_row("drift.nu", mean, count),
        _form_row("drift.nu_sigma", sigma, count),
        Row(
            "residual of ln g", residual, residual / math.sqrt(2 * freedom), "1", "observed",
            "of one reading: what read noise and 1/f noise leave",
        ),
    )  # fmt: skip
    return Finding({"drift.t0": t0, "drift.nu": mean.value, "drift.nu_sigma": sigma.value}, rows)


def reference_conductances(tables: Sequence[Table]) -> Array:
    """First reading of every device [S]: its range, where no targets are known."""
    return np.array([math.exp(d.log_g[0]) for table in tables for d in _devices(table)])


def _devices(table: Table) -> list[Device]:
    t, g = table.numbers["time"], table.numbers["conductance"]
    target = table.numbers.get("target")
    found = []
    for group in table.groups("device"):
        bad = group[g[group] <= 0]
        if len(bad):
            raise table.error("has no logarithm: it is not positive", "conductance", int(bad[0]))
        back = group[1:][np.diff(t[group]) < 0]
        if len(back):
            raise table.error(
                "time goes back within a device", "time", int(back[0]),
                "tell devices apart in a column device, and keep each one's readings in order",
            )  # fmt: skip
        if len(np.unique(t[group])) < 2:
            raise table.error(
                "a single point: a device is read at two times at least", "time", int(group[0])
            )
        level = math.nan
        if target is not None:
            if len(np.unique(target[group])) > 1:
                other = group[target[group] != target[group[0]]][0]
                raise table.error("a device has two targets", "target", int(other))
            level = float(target[group[0]])
        found.append(Device(t[group], np.log(g[group]), level))
    return found


def _given(t0: float) -> Row:
    return Row("drift.t0", t0, None, "s", "given", "not fitted")


def _slopes(devices: Sequence[Device], t0: float) -> tuple[Array, Array, Array, float]:
    """Slope, intercept, Sxx of every device, and the sum of squared residuals."""
    slope, intercept, sxx = (np.empty(len(devices)) for _ in range(3))
    cost = 0.0
    for index, device in enumerate(devices):
        x = np.log1p(device.t / t0)
        dx, y = x - x.mean(), device.log_g
        sxx[index] = dx @ dx
        slope[index] = (dx @ y) / sxx[index]
        intercept[index] = y.mean() - slope[index] * x.mean()
        cost += float(np.sum((y - intercept[index] - slope[index] * x) ** 2))
    return slope, intercept, sxx, cost


def _cost(devices: Sequence[Device], t0: float) -> float:
    return _slopes(devices, t0)[3]


def _reference_time(devices: Sequence[Device], points: int) -> Row:
    """t0 at the least squares over all devices, with the error of its profile.

    Readings long after t0 are a pure power law and only bound it from above: then the
    bound is taken, which makes least of the time before the first reading.
    """
    from scipy.optimize import minimize_scalar

    times = np.concatenate([device.t for device in devices])
    low = math.log(float(times[times > 0].min())) - math.log(1e3)
    high = math.log(float(times.max())) + math.log(10.0)
    grid = np.linspace(low, high, 60)
    costs = np.array([_cost(devices, math.exp(x)) for x in grid])
    best = int(np.argmin(costs))
    step = grid[1] - grid[0]
    found = minimize_scalar(
        lambda x: _cost(devices, math.exp(x)),
        bounds=(max(grid[best] - step, low), min(grid[best] + step, high)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    least = min(float(found.fun), float(costs[best]))
    freedom = points - 2 * len(devices) - 1
    # One standard error: where the sum of squares has grown by one residual variance.
    allowed = least * (1 + 1 / freedom) if freedom > 0 else math.inf
    if freedom > 0 and costs[0] > allowed and costs[-1] > allowed:
        h = 0.05
        up, down = (_cost(devices, math.exp(float(found.x) + s * h)) for s in (1, -1))
        curvature = (up - 2 * least + down) / h**2
        t0 = math.exp(float(found.x))
        error = t0 * math.sqrt(2 * least / freedom / curvature) if curvature > 0 else None
        return Row("drift.t0", t0, error, "s", note="the least squares over all devices")
    inside = np.flatnonzero(costs <= allowed)
    t0 = min(math.exp(grid[inside[-1]]), float(times[times > 0].min()))
    return Row(
        "drift.t0", t0, None, "s", "suggested",
        "the data only bound it from above, and drift from t0 on is what they say",
    )  # fmt: skip


def _exponents(devices: Sequence[Device], t0: float, residual: float, g_max: float) -> Exponents:
    slope, intercept, sxx, _ = _slopes(devices, t0)
    target = np.array([device.target for device in devices])
    level = np.where(np.isnan(target), np.exp(intercept), target)
    rho = np.log(np.maximum(level / g_max, _LEAST_RHO))
    return Exponents(rho, -slope, residual / np.sqrt(sxx))


def _most_likely(exponents: Exponents) -> tuple[Form, Form]:
    """Mean and deviation of ν over ln ρ: shapes by BIC, parameters by likelihood."""
    rho, nu = exponents.rho, exponents.nu
    levels = len(np.unique(np.round(rho, 9)))
    shapes = [name for name, k in _SHAPES.items() if levels >= k and len(nu) >= FEWEST * k]
    start = _start(rho, nu)
    away = nu - _value(shapes[-1], start[shapes[-1]], rho)
    # Of a normal variable, E|x| = σ sqrt(2/π).
    spread = _start(rho, np.abs(away) * math.sqrt(math.pi / 2))
    best: tuple[float, str, str, Array] | None = None
    for mean in shapes:
        for sigma in shapes:
            begin = np.concatenate([start[mean], spread[sigma]])
            parameters, cost = _minimum(_negative(exponents, mean, sigma), begin)
            bic = 2 * cost + len(begin) * math.log(len(nu))
            if best is None or bic < best[0]:
                best = (bic, mean, sigma, parameters)
    assert best is not None
    _, mean, sigma, parameters = best
    covariance = _covariance(_negative(exponents, mean, sigma), parameters)
    k = _SHAPES[mean]
    return (
        _form(mean, parameters[:k], covariance[:k, :k], rho, -math.inf),
        _form(sigma, parameters[k:], covariance[k:, k:], rho, 0.0),
    )


def _value(shape: str, parameters: Array, rho: Array) -> Array:
    """The form's value; a clipped line is given by its two ends, (x, y) each.

    Its parameters are the smaller ln ρ and the distance to the larger, and the values there.
    """
    if shape == "constant":
        return np.full(rho.shape, parameters[0])
    if shape == "line":
        return np.asarray(parameters[0] * rho + parameters[1])
    left, width, first, second = parameters
    share = np.clip((rho - left) / max(abs(width), 1e-9), 0.0, 1.0)
    return np.asarray(first + share * (second - first))


def _start(rho: Array, y: Array) -> dict[str, Array]:
    """Least squares of each shape; the clipped line over a grid of its ends."""
    found = {"constant": np.array([y.mean()])}
    if np.ptp(rho) == 0:
        return found
    found["line"] = np.polyfit(rho, y, 1)
    ends = np.unique(np.quantile(rho, np.linspace(0, 1, 16)))
    least = math.inf
    for i, left in enumerate(ends):
        for right in ends[i + 1 :]:
            share = np.clip((rho - left) / (right - left), 0.0, 1.0)
            basis = np.stack([1 - share, share], axis=1)
            values = np.linalg.lstsq(basis, y, rcond=None)[0]
            cost = float(np.sum((basis @ values - y) ** 2))
            if cost < least:
                least = cost
                found["clipped line"] = np.array([left, right - left, *values])
    return found


def _negative(exponents: Exponents, mean: str, sigma: str) -> Callable[[Array], float]:
    """Minus the log likelihood of the exponents, regressions' errors included."""
    k = _SHAPES[mean]

    def cost(parameters: Array) -> float:
        away = exponents.nu - _value(mean, parameters[:k], exponents.rho)
        own = np.maximum(_value(sigma, parameters[k:], exponents.rho), 0.0)
        variance = np.maximum(own**2 + exponents.error**2, 1e-24)
        return float(np.sum(0.5 * away**2 / variance + 0.5 * np.log(2 * math.pi * variance)))

    return cost


def _minimum(cost: Callable[[Array], float], begin: Array) -> tuple[Array, float]:
    from scipy.optimize import minimize

    options = {"maxiter": 400 * len(begin), "xatol": 1e-7, "fatol": 1e-7, "adaptive": True}
    found = minimize(cost, begin, method="Nelder-Mead", options=options)
    # A simplex that has shrunk early starts anew at its end.
    found = minimize(cost, found.x, method="Nelder-Mead", options=options)
    return np.asarray(found.x), float(found.fun)


def _covariance(cost: Callable[[Array], float], at: Array) -> Array:
    """Inverse of the observed information, by differences of the likelihood."""
    count = len(at)
    step = np.maximum(1e-3 * np.abs(at), 1e-5)
    moves = np.diag(step)
    hessian = np.empty((count, count))
    here = cost(at)
    for i in range(count):
        for j in range(i, count):
            if i == j:
                second = cost(at + moves[i]) - 2 * here + cost(at - moves[i])
            else:
                same = cost(at + moves[i] + moves[j]) + cost(at - moves[i] - moves[j])
                apart = cost(at + moves[i] - moves[j]) + cost(at - moves[i] + moves[j])
                second = (same - apart) / 4
            hessian[i, j] = hessian[j, i] = second / (step[i] * step[j])
    return np.asarray(np.linalg.pinv(hessian))


def _form(shape: str, parameters: Array, covariance: Array, rho: Array, least: float) -> Form:
    """A shape as (a, b, low, high), at least ``least``; beyond the data it stays what it was."""

    def of(p: Array) -> Array:
        if shape == "constant":
            return np.array([0.0, p[0], p[0], p[0]])
        if shape == "line":
            a, b = p
            ends = a * np.array([rho.min(), rho.max()]) + b
        else:
            left, width, first, second = p
            a = (second - first) / max(abs(width), 1e-9)
            b, ends = first - a * left, np.array([first, second])
        return np.array([a, b, ends.min(), ends.max()])

    value = of(parameters)
    step = np.maximum(1e-4 * np.abs(parameters), 1e-7)
    jacobian = np.stack(
        [(of(parameters + d) - of(parameters - d)) / (2 * d.sum()) for d in np.diag(step)], axis=1
    )
    variance = np.diag(jacobian @ covariance @ jacobian.T)
    error = tuple(math.sqrt(v) if v > 0 else None for v in map(float, variance))
    value[2:] = np.maximum(value[2:], least)
    a, b, low, high = map(float, value)
    return Form(shape, (a, b, low, high), error)


def _form_row(key: str, form: Form, count: str) -> Row:
    note = f"(a, b, low, high) of clip(a ln rho + b, low, high), a {form.shape} by BIC; {count}"
    return Row(key, form.value, form.error, "1", note=note)
