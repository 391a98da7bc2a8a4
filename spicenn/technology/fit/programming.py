"""Programmed conductances against their targets: how much they scatter, and by which law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.technology.fit.report import Finding, Row
from spicenn.technology.fit.table import Array, Table

# A spread of fewer has an error of over a third of itself.
FEWEST = 5
_MOST_DEGREE = 4
# No cell conducts less (``variation.G_FLOOR``): what is measured there is cut, not drawn.
_FLOOR = 1e-12
_NODES, _GRID = 40, 601


@dataclass(frozen=True)
class Cells:
    """One entry per cell and target, (cell,) each.

    target, g : [S], g the mean over its cycles.
    noise : standard deviation of that mean from cycle to cycle [S].
    """

    target: Array
    g: Array
    noise: Array

    @property
    def cut(self) -> NDArray[np.bool_]:
        """Where nothing is known but that the draw was below the floor."""
        return self.g <= _FLOOR


@dataclass(frozen=True)
class Law:
    """One candidate at its most likely parameters.

    spread : deviations over g_max of the likelihood's own form; the law's meaning is in
        ``Variation``.
    covariance : of ``spread``.
    """

    name: str
    spread: Array
    covariance: Array
    likelihood: float

    def bic(self, cells: int) -> float:
        """Bayesian information criterion (Schwarz 1978)."""
        return -2 * self.likelihood + len(self.spread) * math.log(cells)


def fit_programming(tables: Sequence[Table], g_max: float) -> Finding:
    """Fit the law of the programming error to all tables.

    Each law of ``Variation`` by its likelihood, values at the floor as censored ones; the
    one of the lowest BIC is taken. Where cycles are given, their spread is taken apart.

    Parameters
    ----------
    g_max : what deviations and ρ are relative to [S].

    Raises InputError where there are too few cells for a spread, or cells do not vary.
    """
    cells, cycle = _cells(tables, g_max)
    count = len(cells.g)
    laws = [law for law in (_normal(cells, g_max), _lognormal(cells, g_max)) if law is not None]
    laws += _polynomials(cells, g_max)
    best = min(laws, key=lambda law: law.bic(count))
    changes, rows = _result(best, cells, g_max)
    others = ", ".join(
        f"{_title(law)} +{law.bic(count) - best.bic(count):.3g}" for law in laws if law is not best
    )
    rows.insert(
        0,
        Row(
            "variation.programming_law", best.name,
            note=f"of the lowest BIC; others: {others}",
        ),
    )  # fmt: skip
    rows += cycle
    # Without cycles the programming error has them in it; twice would be too much.
    changes["variation.cycle_to_cycle"] = cycle[0].value if cycle else 0.0
    if not cycle:
        note = "no column cycle: it is part of the programming error"
        rows.append(Row("variation.cycle_to_cycle", 0.0, None, "1", "suggested", note))
    rows.append(_bias(cells, g_max))
    return Finding(changes, tuple(rows))


def _cells(tables: Sequence[Table], g_max: float) -> tuple[Cells, list[Row]]:
    """Mean of every cell over its cycles, and the row of the spread between them."""
    targets: list[float] = []
    means: list[float] = []
    counts: list[int] = []
    square, freedom = 0.0, 0
    devices: set[tuple[int, str]] = set()
    for index, table in enumerate(tables):
        target, g = table.numbers["target"], table.numbers["conductance"]
        names = table.labels.get("device")
        if "cycle" in table.labels and names is None:
            raise table.error(
                "cycles of which device? There is no column device", "cycle", 0,
                "add one, with one number if there is one device",
            )  # fmt: skip
        devices |= {(index, name) for name in names or map(str, range(len(table)))}
        groups = [np.array([point]) for point in range(len(table))]
        if "cycle" in table.labels:
            groups = [
                group[target[group] == level]
                for group in table.groups("device")
                for level in np.unique(target[group])
            ]
        for group in groups:
            targets.append(float(target[group[0]]))
            means.append(float(g[group].mean()))
            counts.append(len(group))
            if g[group].min() > _FLOOR:  # what is cut varies less than it was drawn
                square += float(np.sum((g[group] - g[group].mean()) ** 2))
                freedom += len(group) - 1
    if len(devices) < FEWEST:
        raise tables[0].error(
            f"{len(devices)} devices are too few for a spread", "conductance", 0,
            f"measure {FEWEST} at least, and tell them apart in a column device",
        )  # fmt: skip
    cycled = any("cycle" in table.labels for table in tables)
    if cycled and freedom < FEWEST - 1:
        table = next(table for table in tables if "cycle" in table.labels)
        raise table.error(
            "too few repeated cycles for a spread", "cycle", 0,
            "program the same devices to the same targets again, or drop the column",
        )  # fmt: skip
    sigma = math.sqrt(square / freedom) if freedom else 0.0
    cells = Cells(
        np.array(targets), np.array(means), sigma / np.sqrt(np.array(counts, dtype=float))
    )
    if not np.any(np.abs(cells.g - cells.target) > 0):
        raise tables[0].error(
            "every cell is at its target: there is no spread to fit", "conductance", 0,
            "are target and measured conductance the same column?",
        )  # fmt: skip
    if not cycled:
        return cells, []
    note = f"pooled over {len(means)} cells with {freedom} degrees of freedom"
    error = sigma / g_max / math.sqrt(2 * freedom)
    return cells, [Row("variation.cycle_to_cycle", sigma / g_max, error, "1", note=note)]


def _normal(cells: Cells, g_max: float) -> Law | None:
    """One deviation for all cells."""
    return _polynomial(cells, g_max, 0)


def _polynomials(cells: Cells, g_max: float) -> list[Law]:
    """Deviations that are polynomials of ρ, as far as the targets tell them apart."""
    levels = len(np.unique(cells.target))
    degrees = range(1, min(_MOST_DEGREE, levels - 1, len(cells.g) // FEWEST) + 1)
    return [law for law in (_polynomial(cells, g_max, d) for d in degrees) if law is not None]


def _polynomial(cells: Cells, g_max: float, degree: int) -> Law | None:
    """Most likely σ(ρ) / g_max of this degree.

    In Bernstein's basis with coefficients that are not negative, so that no target has a
    negative deviation; the result is in powers of ρ.
    """
    from scipy.optimize import minimize
    from scipy.special import comb

    rho = cells.target / g_max
    powers = np.arange(degree + 1)
    # Beyond g_max the polynomial is only what the powers make of it.
    inside = np.clip(rho, 0.0, 1.0)[:, np.newaxis]
    basis = comb(degree, powers) * inside**powers * (1 - inside) ** (degree - powers)
    x = rho[:, np.newaxis] ** powers
    start = math.sqrt(float(np.mean(((cells.g - cells.target) / g_max) ** 2)))

    def coefficients(log_b: Array) -> Array:
        # One that wants to be zero would go on for ever.
        return np.exp(math.log(start) + np.clip(log_b, -12.0, 6.0))

    def cost(log_b: Array) -> float:
        sigma = basis @ coefficients(log_b) * g_max
        return -_normal_likelihood(cells, np.hypot(sigma, cells.noise))

    # L-BFGS-B calls BLAS, whose threads wait for each other on a busy machine.
    found = minimize(cost, np.zeros(degree + 1), method="BFGS", options={"gtol": 1e-4})
    if not np.isfinite(found.fun):
        return None
    b = coefficients(found.x)
    # From Bernstein's basis to powers of ρ.
    spread = _to_powers(degree) @ b
    sigma = np.maximum(basis @ b, 1e-300)
    total = np.hypot(sigma, cells.noise / g_max)
    known = ~cells.cut
    weighed = (x * (sigma / total**2)[:, np.newaxis])[known]
    covariance = np.linalg.pinv(2 * weighed.T @ weighed)
    name = "normal" if degree == 0 else "state-dependent"
    return Law(name, spread, covariance, -float(found.fun))


def _to_powers(degree: int) -> Array:
    """Matrix from Bernstein's coefficients to those of powers."""
    from scipy.special import comb

    matrix = np.zeros((degree + 1, degree + 1))
    for k in range(degree + 1):
        for power in range(k, degree + 1):
            matrix[power, k] = (-1.0) ** (power - k) * comb(degree, power) * comb(power, k)
    return matrix


def _normal_likelihood(cells: Cells, sigma: Array) -> float:
    from scipy.special import log_ndtr

    sigma = np.maximum(sigma, 1e-300)
    z = (cells.g - cells.target) / sigma
    terms = -0.5 * z**2 - np.log(sigma) - 0.5 * math.log(2 * math.pi)
    cut = cells.cut
    if cut.any():
        terms[cut] = log_ndtr((_FLOOR - cells.target[cut]) / sigma[cut])
    return float(terms.sum())


def _lognormal(cells: Cells, g_max: float) -> Law | None:
    """Target times exp(s z - s²/2); impossible where a cell without target conducts."""
    from scipy.optimize import minimize_scalar

    if np.any((cells.target <= _FLOOR) & ~cells.cut):
        return None
    some = cells.target > _FLOOR

    def cost(log_s: float) -> float:
        return -lognormal_likelihood(cells, some, math.exp(log_s))

    ratio = np.maximum(cells.g[some], _FLOOR) / cells.target[some]
    start = math.log(max(float(np.sqrt(np.mean(np.log(ratio) ** 2))), 1e-9))
    found = minimize_scalar(
        cost, bounds=(start - 6, start + 3), method="bounded", options={"xatol": 1e-7}
    )
    if not np.isfinite(found.fun):
        return None
    step = 1e-3
    up, down = cost(float(found.x) + step), cost(float(found.x) - step)
    curvature = (up - 2 * float(found.fun) + down) / step**2
    s = math.exp(float(found.x))
    variance = s**2 / curvature if curvature > 0 else math.inf
    return Law("lognormal", np.array([s]), np.array([[variance]]), -float(found.fun))


def lognormal_likelihood(cells: Cells, some: NDArray[np.bool_], s: float) -> float:
    """Log likelihood of the cells that have a target, ``some``.

    Cycles add a normal deviation, whose convolution is by quadrature.
    """
    from scipy.special import log_ndtr, logsumexp

    target, g, noise = cells.target[some], cells.g[some], cells.noise[some]
    cut = g <= _FLOOR

    def log_density(values: Array) -> Array:
        """Of the lognormal law, [1/S]."""
        positive = np.maximum(values, 1e-300)
        z = (np.log(positive / target) + s**2 / 2) / s
        density = -0.5 * z**2 - np.log(positive * s) - 0.5 * math.log(2 * math.pi)
        return np.where(values > 0, density, -np.inf)

    below = log_ndtr((math.log(_FLOOR) - np.log(target) + s**2 / 2) / s)
    density = log_density(np.maximum(g, _FLOOR))
    if np.any(noise > 0):
        # Where cycles deviate little, the law is smooth on their scale: Gauss-Hermite over
        # them. Elsewhere their density is smooth on the grid of the law's own z.
        nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
        nodes, weights = nodes[:, np.newaxis], np.log(weights / weights.sum())[:, np.newaxis]
        by_cycle = logsumexp(log_density(g - noise * nodes) + weights, axis=0)
        z, step = np.linspace(-12.0, 12.0, _GRID, retstep=True)
        z = z[:, np.newaxis]
        width = np.maximum(noise, 1e-300)
        away = (g - target * np.exp(s * z - s**2 / 2)) / width
        logs = -0.5 * away**2 - 0.5 * z**2 - np.log(2 * math.pi * width)
        by_cell = logsumexp(logs, axis=0) + math.log(step)
        density = np.where(noise == 0, density, np.where(noise < 0.1 * s * g, by_cycle, by_cell))
    return float(np.sum(np.where(cut, below, density)))


def _result(law: Law, cells: Cells, g_max: float) -> tuple[dict[str, Any], list[Row]]:
    """The law's keys of the technology."""
    changes: dict[str, Any] = {
        "variation.programming_law": law.name,
        "variation.programming_coefficients": (1.0,),
    }
    errors = np.sqrt(np.maximum(np.diag(law.covariance), 0.0))
    count = len(cells.g)
    if law.name != "state-dependent":
        changes["programming_error"] = float(law.spread[0])
        meaning = "of ln g" if law.name == "lognormal" else "over g_max"
        note = f"standard deviation {meaning}; {count} cells"
        error = float(errors[0]) if np.isfinite(errors[0]) else None
        row = Row("programming_error", float(law.spread[0]), error, "1", note=note)
        return changes, [row]
    # σ / g_max = Σ a_k ρ^k = s Σ c_k ρ^k, with s the rms over the cells that were measured.
    x = (cells.target / g_max)[:, np.newaxis] ** np.arange(len(law.spread))
    s = math.sqrt(float(np.mean((x @ law.spread) ** 2)))
    slope = (x @ law.spread) @ x / len(x) / s
    s_error = math.sqrt(max(float(slope @ law.covariance @ slope), 0.0))
    c = law.spread / s
    jacobian = (np.eye(len(c)) - np.outer(c, slope)) / s
    c_errors = np.sqrt(np.maximum(np.diag(jacobian @ law.covariance @ jacobian.T), 0.0))
    changes["programming_error"] = s
    changes["variation.programming_coefficients"] = tuple(float(value) for value in c)
    return changes, [
        Row(
            "programming_error", s, s_error, "1",
            note=f"rms deviation over g_max of the {count} cells measured",
        ),
        Row(
            "variation.programming_coefficients", changes["variation.programming_coefficients"],
            tuple(float(value) for value in c_errors), "1",
            note="powers of target / g_max, whose errors are correlated; targets were at "
            f"{cells.target.min() / g_max:.2g} to {cells.target.max() / g_max:.2g} of g_max",
        ),
    ]  # fmt: skip


def _title(law: Law) -> str:
    return law.name if len(law.spread) == 1 else f"{law.name} of degree {len(law.spread) - 1}"


def _bias(cells: Cells, g_max: float) -> Row:
    """Mean deviation from the targets, which no law of ``Variation`` has."""
    away = (cells.g - cells.target) / g_max
    mean, error = float(away.mean()), float(away.std(ddof=1)) / math.sqrt(len(away))
    note = "mean deviation over g_max; the laws have none"
    if abs(mean) > 3 * error:
        note += ", and here it is more than three standard errors: the spread includes it"
    return Row("bias of programming", mean, error, "1", "observed", note)
