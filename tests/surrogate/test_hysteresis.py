"""Hysteresis as a tag: the operator's exact properties, and inference against plain Gaussians."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import multivariate_normal

from spicenn.circuit.histories import reversal_history
from spicenn.errors import CalibrationError, InputError
from spicenn.surrogate.hysteresis import (
    HysteresisSurrogate,
    Plane,
    Population,
    Record,
    everett,
    fit_population,
    fit_weights,
    identify,
    record_of_current,
    relays,
    respond,
    tag,
)

Array = NDArray[np.float64]

LEVELS = np.linspace(-1.0, 1.0, 9)
PLANE = Plane.between(LEVELS)
COUNT = len(PLANE.up)
# Thresholds themselves among them, where "at" and "below" part.
inputs = st.floats(-1.5, 1.5) | st.sampled_from(PLANE.thresholds.tolist())
history = st.lists(inputs, min_size=1, max_size=12)
# Whole weights: sums of them are exact in any order.
whole = arrays(np.float64, COUNT, elements=st.integers(-5, 5).map(float))


# The operator.


@given(history, st.sampled_from([1, -1]))
def test_relays_are_those_of_the_definition_step_by_step(x, start):
    state = np.full(COUNT, float(start))
    for k, value in enumerate(x):
        state = np.where(value >= PLANE.up, 1.0, np.where(value < PLANE.down, -1.0, state))
        np.testing.assert_array_equal(relays(PLANE, x, start=start)[k], state)


@given(arrays(np.float64, (2, 3, 6), elements=inputs), arrays(np.float64, (2, 1, COUNT)))
def test_many_histories_at_once_are_each_alone(x, weights):
    weights = np.nan_to_num(weights, nan=0.0, posinf=1.0, neginf=1.0).clip(-9, 9)
    together = respond(PLANE, weights, x)
    for i, j in np.ndindex(2, 3):
        alone = respond(PLANE, weights[i, 0], x[i, j])
        np.testing.assert_allclose(together[i, j], alone, rtol=1e-12, atol=1e-12)


@given(history, inputs, inputs, st.lists(st.floats(0, 1), max_size=8))
def test_wiping_out(before, a, b, shares):
    """What happened between two extremes is forgotten once the second is reached."""
    within = [a + share * (b - a) for share in shares]
    straight = relays(PLANE, [*before, a, b])[-1]
    np.testing.assert_array_equal(relays(PLANE, [*before, a, *within, b])[-1], straight)


@given(history, history, inputs, inputs, whole)
def test_congruency(one, other, a, b, weights):
    """A loop between the same two inputs has the same shape, whatever came before it."""
    loops = [respond(PLANE, weights, [*before, a, b, a, b]) for before in (one, other)]
    shapes = [np.diff(loop[-3:]) for loop in loops]
    np.testing.assert_array_equal(shapes[0], shapes[1])
    np.testing.assert_array_equal(shapes[0][0], -shapes[0][1])


@given(history, st.lists(st.integers(1, 3), min_size=12, max_size=12))
def test_rate_independence(x, times):
    """Dwelling at an input, and points on the way to it, change nothing."""
    slow, at = [], []
    for k, (value, repeats) in enumerate(zip(x, times, strict=False)):
        if k:
            slow += list(np.linspace(x[k - 1], value, repeats + 1)[1:-1])
        slow += [value] * repeats
        at.append(len(slow) - 1)
    np.testing.assert_array_equal(relays(PLANE, slow)[at], relays(PLANE, x))


@given(st.lists(inputs, min_size=2, max_size=12, unique=True), whole, st.booleans())
def test_a_staircase_has_the_closed_form_of_everetts_function(values, weights, ends_low):
    """Shrinking extremes M1 > M2 > …, m1 < m2 < … from below: y = y₋ + 2 Σ ± E (Mayergoyz)."""
    ordered = sorted(values)
    half = len(ordered) // 2
    low, high = ordered[:half], ordered[half:][::-1][:half]
    y = float(-weights.sum())
    extremes = [-np.inf]
    for k in range(half):
        extremes += [high[k], low[k]]
    x = extremes[1:] if ends_low else extremes[1:-1]
    for last, now in pairwise([-np.inf, *x]):
        rising = now > last
        y += 2 * (1 if rising else -1) * everett(PLANE, weights, max(last, now), min(last, now))
    if x:
        assert respond(PLANE, weights, x, start=-1)[-1] == y


def test_arguments_of_the_operator_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="rise"):
        Plane(np.array([0.0, 0.0]))
    with pytest.raises(InputError, match="from 0"):
        relays(PLANE, [0.0], start=0)
    with pytest.raises(InputError, match="finite"):
        relays(PLANE, [np.nan])


# One device.

CURVES = [reversal_history(LEVELS, [k])[0] for k in range(len(LEVELS) - 1)]


def records_of(
    weights: Array, noise: float, rng: np.random.Generator, curves: list[Array] = CURVES
) -> list[Record]:
    """Curves of a Preisach device, each with an offset and white noise."""
    found = []
    for x in curves:
        y = respond(PLANE, weights, x) + rng.normal() + noise * rng.standard_normal(len(x))
        found.append(Record(x, y, np.full(len(x), noise**2)))
    return found


def test_reversal_curves_tell_every_relay_whatever_their_offsets():
    rng = np.random.default_rng(1)
    truth = rng.standard_normal(COUNT)
    found = fit_weights(PLANE, records_of(truth, 1e-6, rng), smoothness=1e-10)
    np.testing.assert_allclose(found, truth, atol=1e-4)
    # A history that none of the curves holds.
    x = rng.uniform(-1, 1, 40)
    np.testing.assert_allclose(respond(PLANE, found, x), respond(PLANE, truth, x), atol=1e-3)


def test_no_weight_is_negative_where_that_is_asked_for():
    rng = np.random.default_rng(2)
    truth = rng.uniform(0, 1, COUNT)
    records = records_of(truth, 0.3, rng)
    free, bound = (fit_weights(PLANE, records, nonnegative=sign) for sign in (False, True))
    assert free.min() < 0 <= bound.min()
    assert np.linalg.norm(bound - truth) < np.linalg.norm(free - truth)


def test_a_factor_on_the_current_is_no_part_of_a_device():
    rng = np.random.default_rng(3)
    current = np.exp(respond(PLANE, rng.standard_normal(COUNT) / 9, CURVES[0]))
    one, other = (
        fit_weights(PLANE, [record_of_current(CURVES[0], gain * current, 0.01)])
        for gain in (1e-6, 3e-2)
    )
    np.testing.assert_allclose(one, other, atol=1e-9)
    with pytest.raises(CalibrationError, match="not positive"):
        record_of_current(CURVES[0], 0 * current, 0.01)


# A population: low rank, every record in a cycle of its own.

RANK, NOISE = 2, 0.05


def made_population(seed: int = 4) -> Population:
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((RANK, COUNT)) / COUNT**0.5
    return Population(
        PLANE, rng.standard_normal(COUNT), basis, np.diag([1.0, 0.3]),
        np.array([[0.02, 0.01], [0.01, 0.03]]), 0.001,
    )  # fmt: skip


def measured(
    population: Population, c: Array, rng: np.random.Generator, curves: list[Array] = CURVES
) -> list[Record]:
    """Records of a device drawn from the model itself."""
    found = []
    total = np.sqrt(NOISE**2 + population.floor)
    for x in curves:
        own = c + rng.multivariate_normal(np.zeros(RANK), population.cycle)
        weights = population.mean + own @ population.basis
        y = respond(PLANE, weights, x) + 3 * rng.normal() + total * rng.standard_normal(len(x))
        found.append(Record(x, y, np.full(len(x), NOISE**2)))
    return found


def likelihood(
    population: Population, records: list[Record], vector: Array, covariance: Array
) -> float:
    """Logarithm of the density of all steps at once, for c of a mean and a covariance."""
    states = [relays(PLANE, r.history) for r in records]
    design = np.concatenate([s @ population.basis.T for s in states])
    total = design @ covariance @ design.T
    at, target = 0, []
    for r, s in zip(records, states, strict=True):
        own, here = s @ population.basis.T, slice(at, at + len(s))
        total[here, here] += own @ population.cycle @ own.T + 1e4
        total[here, here] += np.diag(r.variance + population.floor)
        target.append(r.response - s @ population.mean)
        at += len(s)
    rest = np.concatenate(target) - design @ vector
    return float(multivariate_normal(cov=total).logpdf(rest))


def test_scores_are_the_likelihoods_of_the_data_themselves():
    """Against Gaussians of all steps, offsets included as a broad one, with no algebra shared."""
    population, rng = made_population(), np.random.default_rng(5)
    curves = [CURVES[1], CURVES[4]]
    devices = [rng.multivariate_normal(np.zeros(RANK), population.spread) for _ in range(3)]
    enrolled = [tag(population, measured(population, c, rng, curves)) for c in devices]
    again = measured(population, devices[1], rng, [CURVES[2], CURVES[5]])

    found = identify(tag(population, again), enrolled, spread=population.spread)
    nothing = likelihood(population, again, np.zeros(RANK), population.spread)
    exact = [likelihood(population, again, e.vector, e.covariance) - nothing for e in enrolled]
    np.testing.assert_allclose(found.score, exact, rtol=1e-4, atol=1e-3)
    assert found.index == 1
    assert found.margin == pytest.approx(exact[1] - max(exact[0], exact[2]), rel=1e-3)


def test_a_posterior_covers_and_distances_follow_chi_squared():
    population, rng = made_population(), np.random.default_rng(6)
    inside, distances = [], []
    for _ in range(100):
        c = rng.multivariate_normal(np.zeros(RANK), population.spread)
        own = tag(population, measured(population, c, rng, CURVES[:3]))
        error = c - own.vector
        inside.append(np.abs(error) < 1.6449 * np.sqrt(np.diag(own.covariance)))
        again = tag(population, measured(population, c, rng, CURVES[3:6]))
        found = identify(again, [own, again], spread=population.spread, least_margin=np.inf)
        other = identify(again, [own, own], spread=population.spread)
        assert not found.decided
        # Two that are the same are never told apart.
        assert other.margin == pytest.approx(0, abs=1e-9)
        assert not other.decided
        distances.append(other.distance)
    # Three standard deviations of 200 shares and of 100 values of χ² with two degrees.
    assert np.mean(inside) == pytest.approx(0.9, abs=3 * (0.09 / 200) ** 0.5)
    assert np.mean(distances) == pytest.approx(RANK, abs=3 * 2 / 100**0.5)


def test_a_device_without_hysteresis_says_nothing():
    """A response that never changes does not tell one device from another."""
    population = made_population()
    flat = Population(
        PLANE, np.zeros(COUNT), population.basis, population.spread, population.cycle, 0.001
    )
    rng = np.random.default_rng(7)
    still = np.zeros(COUNT)
    tags = [tag(flat, records_of(still, NOISE, rng)) for _ in range(6)]
    found = identify(tags[0], tags[1:], spread=flat.spread)
    assert not found.decided
    # The same procedure decides, and rightly, where the devices move.
    moving = [np.array([a, b]) for a in (-1.0, 0.0, 1.0) for b in (-0.5, 0.5)]
    enrolled = [tag(population, measured(population, c, rng)) for c in moving]
    for k, c in enumerate(moving):
        again = identify(
            tag(population, measured(population, c, rng)), enrolled, spread=population.spread
        )
        assert (again.index, again.decided) == (k, True)


@pytest.mark.slow
def test_a_fit_finds_the_population_that_made_the_data():
    truth, rng = made_population(), np.random.default_rng(8)
    devices = [
        measured(truth, rng.multivariate_normal(np.zeros(RANK), truth.spread), rng)
        for _ in range(60)
    ]
    found = fit_population(PLANE, devices, rank=RANK, smoothness=1e-4, iterations=15)
    # Four standard deviations of a variance of 0.0035 from 60 devices' 4300 steps.
    assert found.floor == pytest.approx(truth.floor, abs=4 * 0.0035 * (2 / 4300) ** 0.5)
    # Bases may turn; what they make of weights may not.
    for part, bound in (("spread", 0.4), ("cycle", 0.25)):
        made, again = (p.basis.T @ getattr(p, part) @ p.basis for p in (truth, found))
        # Four standard deviations of 60 devices' variance, of 480 cycles'.
        assert np.linalg.norm(made - again) < bound * np.linalg.norm(made), part
    # Coordinates do not correlate, and have the response's unit.
    np.testing.assert_allclose(found.spread, np.diag(np.diag(found.spread)), atol=1e-9)
    states = np.concatenate([s - s.mean(axis=0) for s in (relays(PLANE, x) for x in CURVES)])
    unit = found.basis @ (states.T @ states / len(states)) @ found.basis.T
    np.testing.assert_allclose(unit, np.eye(RANK), atol=1e-9)


@pytest.mark.slow
def test_no_iteration_of_a_fit_makes_the_data_less_likely():
    """Expectation maximisation climbs, or a moment is wrong: at noise that hides much."""
    truth, rng = made_population(), np.random.default_rng(11)
    devices = []
    for _ in range(12):
        c = rng.multivariate_normal(np.zeros(RANK), truth.spread)
        devices.append(
            [
                Record(r.history, r.response + rng.normal(size=len(r.history)), r.variance + 1.0)
                for r in measured(truth, c, rng, CURVES[::2])
            ]
        )
    climb = []
    for iterations in range(1, 8):
        found = fit_population(PLANE, devices, rank=RANK, smoothness=1e-9, iterations=iterations)
        zero = np.zeros(RANK)
        climb.append(sum(likelihood(found, own, zero, found.spread) for own in devices))
    assert np.all(np.diff(climb) > 0)


def test_the_tag_is_what_a_surrogate_needs_to_know_of_a_device():
    population, rng = made_population(), np.random.default_rng(9)
    x = np.concatenate([[1.0], rng.uniform(-1, 1, 30)])
    errors: dict[str, list[float]] = {"with": [], "without": []}
    inside = []
    for _ in range(40):
        c = rng.multivariate_normal(np.zeros(RANK), population.spread)
        y = respond(PLANE, population.mean + c @ population.basis, x)
        own = tag(population, measured(population, c, rng))
        for name, context in (("with", own), ("without", None)):
            answer = HysteresisSurrogate(population, context)(x)
            assert (answer.mean[0], answer.std[0]) == (0.0, 0.0)
            errors[name].append(float(np.mean((answer.mean - y + y[0]) ** 2)))
        inside.append(np.abs(answer.mean - y + y[0])[1:] < 1.6449 * answer.std[1:])
    # Eight records leave a cycle's variance over eight of the spread's.
    assert np.mean(errors["with"]) < 0.1 * np.mean(errors["without"])
    # Its own floor and a cycle's shift are in the interval and not in this truth.
    assert np.mean(inside) > 0.85


def test_what_cannot_be_fitted_or_compared_is_refused():
    population, rng = made_population(), np.random.default_rng(10)
    own = tag(population, measured(population, np.zeros(RANK), rng))
    with pytest.raises(CalibrationError, match="no record"):
        tag(population, [])
    with pytest.raises(CalibrationError, match="no record"):
        fit_weights(PLANE, [])
    with pytest.raises(CalibrationError, match="nothing to compare"):
        identify(own, [own], spread=population.spread)
    with pytest.raises(CalibrationError, match="2 devices"):
        fit_population(PLANE, [records_of(np.zeros(COUNT), 0.1, rng)] * 2, rank=2)
    with pytest.raises(CalibrationError, match="3 directions"):
        fit_population(PLANE, [records_of(np.ones(COUNT), 1e-9, rng)] * 5, rank=3)
    with pytest.raises(CalibrationError, match="differ in length"):
        Record(np.zeros(3), np.zeros(2), np.ones(3))
    with pytest.raises(CalibrationError, match="variance"):
        Record(np.zeros(3), np.zeros(3), np.zeros(3))
