"""Active probes: the greedy choice is the brute-force one, and it pays on chips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.jacobian import Linearisation, linearise
from spicenn.compiler.probes import with_noise
from spicenn.errors import CalibrationError, InputError
from spicenn.surrogate import Surrogate, calibrate, fit
from spicenn.surrogate.active import next_probes
from spicenn.surrogate.posterior import Posterior, infer
from tests.surrogate.conftest import compiled, dataset, inputs


def posterior_of(surrogate: Surrogate, x: Any, index: int) -> tuple[Any, Posterior]:
    found = calibrate(surrogate, x, surrogate.design.sample(index, seed=8).run(x, engine="nodal"))
    assert found.posterior is not None
    return found, found.posterior


def at(surrogate: Surrogate, weights: Any, x: Any) -> Linearisation:
    return linearise(surrogate.design, surrogate.moments, weights, (torch.as_tensor(x),))


def inferred(surrogate: Surrogate, x: Any, seen: Any) -> Posterior:
    """The posterior whether or not a calibration would be accepted."""
    return infer(
        lambda weights: at(surrogate, weights, x),
        surrogate.prior,
        torch.as_tensor(seen, dtype=torch.float64),
        trials=1,
        iterations=5,
    )


def left_over(surrogate: Surrogate, weights: Any, probes: Any, targets: Any) -> float:
    """Summed posterior variance of the targets by one dense solve, linear about ``weights``."""
    prior = surrogate.prior
    seen, there = (at(surrogate, weights, x) for x in (probes, targets))
    floor = prior.floor * torch.eye(seen.value.shape[1], dtype=torch.float64)
    observed = with_noise(seen.kernel(seen, prior.variance), seen.noise + floor)
    cross = seen.kernel(there, prior.variance)
    whole = there.kernel(there, prior.variance)
    return float((whole - cross.T @ torch.linalg.solve(observed, cross)).diagonal().sum())


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.integers(1, 4))
def test_greedy_picks_are_the_brute_force_ones(surrogate: Surrogate, seed: int, count: int) -> None:
    pool, targets = inputs(9, seed), inputs(7, seed + 1)
    chosen = next_probes(surrogate, pool, count=count, targets_x=targets)
    weights = surrogate.prior.mean
    picked: list[int] = []
    for step in range(count):
        after = {
            i: left_over(surrogate, weights, pool[[*picked, i]], targets)
            for i in range(len(pool))
            if i not in picked
        }
        best = min(after, key=lambda i: after[i])
        assert after[int(chosen.index[step])] == pytest.approx(after[best], rel=1e-6)
        picked.append(int(chosen.index[step]))
        # What is said to be left is what is left.
        ratio = (
            chosen.left[step + 1]
            / chosen.left[1]
            * left_over(surrogate, weights, pool[picked[:1]], targets)
        )
        assert ratio == pytest.approx(after[picked[-1]], rel=1e-6)
    assert chosen.left[0] == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_array_equal(chosen.inputs, pool[chosen.index])


def test_given_probes_count_as_if_they_were_chosen(surrogate: Surrogate) -> None:
    # A posterior of some probes and a choice after it: the same variance as all in one solve.
    seen, pool, targets = inputs(12, 3), inputs(40, 4), inputs(10, 5)
    found, posterior = posterior_of(surrogate, seen, 45)
    chosen = next_probes(found, pool, count=5, targets_x=targets)
    for step in range(6):
        probes = np.concatenate([seen, chosen.inputs[:step]])
        whole = left_over(surrogate, posterior.weights, probes, targets)
        if step == 0:
            unit = whole / chosen.left[0]
        # The posterior's noise is the prior mean's; the dense solve has it at the weights.
        assert chosen.left[step] * unit == pytest.approx(whole, rel=2e-2)
    assert np.all(np.diff(chosen.left) < 0)


@settings(max_examples=6)
@given(st.integers(0, 10**6))
def test_never_twice_always_a_gain_and_the_same_again(surrogate: Surrogate, seed: int) -> None:
    pool = inputs(15, seed)
    twins = np.concatenate([pool, pool])
    chosen = next_probes(surrogate, twins, count=20)
    again = next_probes(surrogate, twins, count=20)
    assert len(set(chosen.index.tolist())) == len(chosen.index)
    assert np.all(np.diff(chosen.left) < 0)
    np.testing.assert_array_equal(chosen.index, again.index)
    np.testing.assert_array_equal(chosen.left, again.left)


def test_an_input_that_tells_nothing_is_not_chosen() -> None:
    # Without a bias an input of zeros drives no line: its output is noise alone.
    design = compiled(nn.Linear(12, 3, bias=False), inputs(64, 0), bandwidth=0.0)
    surrogate = fit(dataset(design, inputs(24, 1)))
    pool = np.concatenate([np.zeros((3, 12), np.float32), inputs(4, 2)])
    chosen = next_probes(surrogate, pool, count=7, targets_x=inputs(10, 3))
    assert sorted(chosen.index.tolist()) == [3, 4, 5, 6]


def test_chosen_probes_leave_less_error_than_random_ones(surrogate: Surrogate) -> None:
    design: Design = surrogate.design
    pool, test = inputs(200, 11), inputs(150, 12)
    quiet = design.with_technology(read_noise=0.0, bandwidth=0.0)
    first = next_probes(surrogate, pool, count=8)
    chips = range(60, 66)
    left, errors = np.empty((2, len(chips), 2))
    for row, index in enumerate(chips):
        reads = np.asarray(design.sample(index, seed=8).run(pool, engine="nodal"))
        truth = np.asarray(quiet.sample(index, seed=8).run(test, engine="nodal"))
        before = calibrate(surrogate, pool[first.index], reads[first.index])
        assert before.success
        then = next_probes(before, pool, count=8, targets_x=test)
        arms = (
            np.concatenate([first.index, then.index]),
            np.random.default_rng(index).permutation(len(pool))[:16],
        )
        for column, arm in enumerate(arms):
            posterior = inferred(surrogate, pool[arm], reads[arm])
            there = at(surrogate, posterior.weights, test)
            left[row, column] = posterior.covariance(there).diagonal(dim1=1, dim2=2).sum()
            errors[row, column] = np.mean(np.square(there.value.numpy() - truth))
    assert np.all(left[:, 0] < 0.9 * left[:, 1])
    active, random = np.mean(errors, axis=0)
    assert active < 0.8 * random


def test_more_trials_leave_less(surrogate: Surrogate) -> None:
    pool = inputs(30, 2)
    one = next_probes(surrogate, pool, count=4)
    many = next_probes(surrogate, pool, count=4, trials=16)
    assert many.left[-1] < one.left[-1]


@pytest.mark.slow
def test_five_hundred_candidates_of_ten_outputs_take_seconds() -> None:
    from time import process_time

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 10))
    surrogate = fit(dataset(compiled(model, inputs(64, 0)), inputs(24, 1)))
    found, _ = posterior_of(surrogate, inputs(64, 2), 45)
    start = process_time()
    chosen = next_probes(found, inputs(500, 3), count=32)
    assert process_time() - start < 8.0
    assert len(chosen.index) == 32


def test_what_does_not_fit_is_refused(surrogate: Surrogate) -> None:
    pool = inputs(10, 2)
    for count in (0, -1, True, 1.5):
        with pytest.raises(InputError, match="not a positive integer"):
            next_probes(surrogate, pool, count=count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="11 probes cannot be chosen from 10"):
        next_probes(surrogate, pool, count=11)
    with pytest.raises(InputError, match="does not fit"):
        next_probes(surrogate, pool[:, :5], count=2)
    with pytest.raises(InputError, match="trials"):
        next_probes(surrogate, pool, count=2, trials=0)
    with pytest.raises(CalibrationError, match="no posterior"):
        next_probes(object(), pool, count=2)  # type: ignore[arg-type]
    seen = surrogate.design.sample(45, seed=8).run(pool, engine="nodal")
    refused = calibrate(surrogate, pool, seen[::-1].copy())
    assert not refused.success
    with pytest.raises(CalibrationError, match="refused"):
        next_probes(refused, pool, count=2)
