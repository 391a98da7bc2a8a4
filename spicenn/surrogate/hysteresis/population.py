"""What devices of one process have in common, and the few directions in which they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import CalibrationError
from spicenn.surrogate.hysteresis.fitting import Record, fit_weights, roughness, without_offset
from spicenn.surrogate.hysteresis.preisach import Plane, relays

Array = NDArray[np.float64]

# Directions whose part of the response's variance is less are not told from rounding.
_LEAST_PART = 1e-12
# Of the largest variance of a coordinate, that of cycles to begin with.
_FIRST_CYCLE = 0.05


@dataclass(frozen=True, eq=False)
class Population:
    """A mean device and a low-rank basis of what others differ from it by.

    A device's weights are mean + c basis. In each record, a cycle of the device, it is
    c + δ instead: by what cycles differ, and by what a device that is not a sum of relays
    seems to be under another history.

    plane : the relays.
    mean : (relay,) weights of the mean device.
    basis : (rank, relay); a coordinate of 1 is 1 of the response, rms over the histories
        that the population was fitted to.
    spread : (rank, rank) covariance of c over the population.
    cycle : (rank, rank) covariance of δ.
    floor : variance of a response that the basis leaves over.
    """

    plane: Plane
    mean: Array
    basis: Array
    spread: Array
    cycle: Array
    floor: float

    @property
    def rank(self) -> int:
        """Length of a tag."""
        return len(self.basis)


@dataclass(frozen=True, eq=False)
class Tag:
    """What was learned of one device: coordinates in its population, as a Gaussian posterior.

    vector : (rank,) mean of c.
    covariance : (rank, rank).
    evidence : (rank,) and precision : (rank, rank) of the data alone, h and Λ: their
        likelihood is proportional to exp(hᵀc - ½ cᵀΛc). They are 0 where nothing was seen.
    """

    vector: Array
    covariance: Array
    evidence: Array
    precision: Array


def fit_population(
    plane: Plane,
    devices: Sequence[Sequence[Record]],
    *,
    rank: int = 8,
    smoothness: float = 1e-2,
    iterations: int = 30,
) -> Population:
    """Learn a population from devices that are none of those to be tagged.

    Every device's weights are fitted to all of its records; the principal directions of
    their differences, by what these do to the response, begin the basis. Mean, basis,
    spread, cycles' covariance and floor then maximise the likelihood of all records: factor
    analysis of a mixed-effects model by conditional expectation maximisation (Laird and
    Ware, Biometrics 38, 963 (1982); Meng and Rubin, Biometrika 80, 267 (1993)). The first
    fits alone would take for a device's own what only its cycles disagree about.

    Parameters
    ----------
    devices : of every device, its records.
    rank : of the basis; a tag has as many numbers.
    smoothness : of every device's weights, see ``fit_weights``.
    iterations : of the maximisation.

    Raises CalibrationError for fewer devices than ``rank`` + 1, or where they do not differ
    in as many directions.
    """
    if rank < 1 or len(devices) <= rank:
        raise CalibrationError(
            f"{len(devices)} devices do not make a basis of rank {rank}",
            remedy="measure more of them, or ask for a smaller rank",
        )
    weights = np.stack([fit_weights(plane, own, smoothness=smoothness) for own in devices])
    mean = weights.mean(axis=0)
    metric = _metric(plane, devices[0])
    basis, variance = _principal(weights - mean, metric, rank)
    population = Population(
        plane, mean, basis, np.diag(variance), _FIRST_CYCLE * variance.max() * np.eye(rank), 0.0
    )
    groups = _groups(plane, devices, smoothness)
    for _ in range(iterations):
        expected = _expected(population, devices, groups)
        population = _with_directions(expected.population, groups, expected)
    return _normalised(population, metric)


def tag(population: Population, records: Sequence[Record]) -> Tag:
    """Return the coordinates of a device and how well they are known.

    Parameters
    ----------
    records : what was measured, each in a cycle of its own and with an offset that is left
        free. Curves that were measured one after the other are better several records.

    Raises CalibrationError without records.
    """
    if not records:
        raise CalibrationError("no record", remedy="give at least one")
    return _tag(population, [_Projected.of(population, record) for record in records])


@dataclass(frozen=True, eq=False)
class _Projected:
    """A record less the mean device, and the basis' response to its history (step, rank)."""

    rest: Record
    states: Array

    @classmethod
    def of(cls, population: Population, record: Record, states: Array | None = None) -> _Projected:
        states = relays(population.plane, record.history) if states is None else states
        rest = replace(record, response=record.response - states @ population.mean)
        return cls(rest, states @ population.basis.T)

    def equations(self, floor: float) -> tuple[Array, Array]:
        """(row, rank) and (row,), in units of the noise."""
        return without_offset(self.rest, self.states, floor)


@dataclass(frozen=True, eq=False)
class _Group:
    """Records of one history.

    members : (device, record) of each.
    states : (step, relay), and the same about their mean over the steps.
    gram : (relay, relay) of the centred ones, with one record's share of the smoothness.
    response : (member, step) about their means.
    """

    members: tuple[tuple[int, int], ...]
    states: Array
    centred: Array
    gram: Array
    response: Array


@dataclass(frozen=True, eq=False)
class _Expected:
    """A population with new variances, and moments of (1, c + δ) of every record."""

    population: Population
    first: dict[tuple[int, int], Array]
    second: dict[tuple[int, int], Array]


def _tag(population: Population, records: Sequence[_Projected]) -> Tag:
    evidence, precision = np.zeros(population.rank), np.zeros_like(population.spread)
    for record in records:
        matrix, target = record.equations(population.floor)
        own = matrix.T @ matrix
        # Seen through a cycle's own δ of covariance W: Λ (1 + W Λ)⁻¹ and h alike, without an
        # inverse of a Λ that may not have one.
        through = np.linalg.inv(np.eye(population.rank) + own @ population.cycle)
        evidence += through @ (matrix.T @ target)
        precision += through @ own
    precision = (precision + precision.T) / 2
    covariance = np.linalg.inv(precision + np.linalg.inv(population.spread))
    return Tag(covariance @ evidence, covariance, evidence, precision)


def _groups(
    plane: Plane, devices: Sequence[Sequence[Record]], smoothness: float
) -> tuple[_Group, ...]:
    found: dict[bytes, list[tuple[int, int]]] = {}
    for d, own in enumerate(devices):
        for k, record in enumerate(own):
            found.setdefault(record.history.tobytes(), []).append((d, k))
    each = sum(map(len, devices)) / len(devices)
    share = smoothness / each * roughness(plane)
    groups = []
    for members in found.values():
        records = [devices[d][k] for d, k in members]
        states = relays(plane, records[0].history)
        centred = states - states.mean(axis=0)
        response = np.stack([record.response - record.response.mean() for record in records])
        gram = centred.T @ centred + share
        groups.append(_Group(tuple(members), states, centred, gram, response))
    return tuple(groups)


def _expected(
    population: Population, devices: Sequence[Sequence[Record]], groups: Sequence[_Group]
) -> _Expected:
    """Moments given the population, and spread, cycle and floor that they make likeliest."""
    one = np.eye(population.rank)
    spread, cycle = np.zeros_like(population.spread), np.zeros_like(population.cycle)
    squares, steps = 0.0, 0.0
    first, second = {}, {}
    states = {member: group.states for group in groups for member in group.members}
    for d, own_records in enumerate(devices):
        records = [
            _Projected.of(population, record, states[d, k]) for k, record in enumerate(own_records)
        ]
        own = _tag(population, records)
        spread += np.outer(own.vector, own.vector) + own.covariance
        for k, record in enumerate(records):
            matrix, target = record.equations(population.floor)
            gram = matrix.T @ matrix
            alone = population.cycle @ np.linalg.inv(one + gram @ population.cycle)
            delta = alone @ (matrix.T @ target - gram @ own.vector)
            pull = alone @ gram
            cycle += np.outer(delta, delta) + alone + pull @ own.covariance @ pull.T
            both = alone + (one - pull) @ own.covariance @ (one - pull).T
            # Each residual's square over its own noise, put back into the response's unit.
            left = target - matrix @ (own.vector + delta)
            square = left**2 + np.einsum("sr,rq,sq->s", matrix, both, matrix)
            total = record.rest.variance + population.floor
            # The free offset takes one of the steps, and its part of the noise.
            free = 1 - 1 / len(left)
            squares += float(np.sum(square * total - free * record.rest.variance))
            steps += free * len(left)
            mean = np.concatenate([[1.0], own.vector + delta])
            first[d, k], second[d, k] = mean, np.outer(mean, mean)
            second[d, k][1:, 1:] += both
    better = replace(
        population,
        spread=spread / len(devices),
        cycle=cycle / len(first),
        floor=max(squares / steps, 0.0),
    )
    return _Expected(better, first, second)


def _with_directions(
    population: Population, groups: Sequence[_Group], expected: _Expected
) -> Population:
    """Mean and basis by penalised least squares, one after the other."""
    directions = np.concatenate([population.mean[np.newaxis], population.basis])
    moments = [np.sum([expected.second[m] for m in group.members], axis=0) for group in groups]
    seen = np.sum(
        [
            np.array([expected.first[m] for m in group.members]).T @ group.response @ group.centred
            for group in groups
        ],
        axis=0,
    )
    for j in range(len(directions)):
        others = np.arange(len(directions)) != j
        target, matrix = seen[j].copy(), np.zeros_like(groups[0].gram)
        for moment, group in zip(moments, groups, strict=True):
            matrix += moment[j, j] * group.gram
            target -= group.gram @ (moment[j, others] @ directions[others])
        directions[j] = np.linalg.solve(matrix, target)
    return replace(population, mean=directions[0], basis=directions[1:])


def _normalised(population: Population, metric: Array) -> Population:
    """The same population in coordinates that do not correlate and have the response's unit."""
    lower = np.linalg.cholesky(population.basis @ metric @ population.basis.T)
    values, vectors = np.linalg.eigh(lower.T @ population.spread @ lower)
    vectors = vectors[:, np.argsort(values)[::-1]]
    turn = vectors.T @ lower.T
    return replace(
        population,
        basis=vectors.T @ np.linalg.solve(lower, population.basis),
        spread=turn @ population.spread @ turn.T,
        cycle=turn @ population.cycle @ turn.T,
    )


def _metric(plane: Plane, records: Sequence[Record]) -> Array:
    """(relay, relay): mean square response of weights, offsets aside, as a quadratic form."""
    total, steps = np.zeros((len(plane.up),) * 2), 0
    for record in records:
        states = relays(plane, record.history)
        centred = states - states.mean(axis=0)
        total += centred.T @ centred
        steps += len(centred)
    return total / steps


def _principal(weights: Array, metric: Array, rank: int) -> tuple[Array, Array]:
    """Basis (rank, relay) of the largest responses, and the variance (rank,) of coordinates."""
    values, vectors = np.linalg.eigh(metric)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    left, singular, _ = np.linalg.svd(weights @ root, full_matrices=False)
    if not singular[rank - 1] ** 2 > _LEAST_PART * singular[0] ** 2:
        raise CalibrationError(
            f"the devices do not differ in {rank} directions",
            where="fit_population",
            remedy="ask for a smaller rank",
        )
    # Weights are scores · basis, by least squares.
    basis = (left[:, :rank] / singular[:rank]).T @ weights
    return basis, singular[:rank] ** 2 / (len(weights) - 1)
