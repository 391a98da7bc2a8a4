"""Draws of every slot: keyed by its number, with the spread that white noise has."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from spicenn.errors import InputError
from spicenn.learning.disturbance import Disturbance, draw_disturbance, draw_with_before
from spicenn.learning.hardware import Hardware, LearningChip, ideal_chip, sample_chip
from spicenn.learning.network import grid
from spicenn.learning.rules import CoupledLearning, Desynchronous, Rule

NETWORK = grid(4, 4, inputs=["n0_0"], outputs=["n2_2", "n3_1"])
NOISY = Hardware(update_noise=1e-5, output_noise=1e-4)
CHIP = ideal_chip(NETWORK, NOISY)
RULE = Desynchronous(CoupledLearning(), 0.3)
SLOT = 2e-3


def draws(
    slots: int, first_slot: int = 0, chip: LearningChip = CHIP, rule: Rule = RULE,
    seed: int = 4, trial: int = 0,
) -> Disturbance:  # fmt: skip
    return draw_disturbance(
        chip, rule, SLOT, slots=slots, first_slot=first_slot, seed=seed, trial=trial
    )


def assert_same(a: Disturbance, b: Disturbance) -> None:
    for name in ("update", "output", "active"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_a_slot_is_the_same_whichever_slots_are_drawn_with_it() -> None:
    whole, part = draws(20), draws(5, 8)
    for slot in range(8, 13):
        for a, b in zip(whole.at(slot), part.at(slot), strict=True):
            np.testing.assert_array_equal(a, b)
    assert_same(whole.spanning(8, 5), draws(6, 7))


def test_what_is_before_all_is_as_what_follows_it() -> None:
    span = draws(3).spanning(0, 3)
    assert span.update is not None
    assert span.update.shape == (4, 32)
    np.testing.assert_array_equal(span.update[0], span.update[1])
    with pytest.raises(InputError, match="slots 2 to 4 were not drawn"):
        draws(3).spanning(2, 3)
    with pytest.raises(InputError, match="were not drawn"):
        draws(3, 5).spanning(3, 3)
    with_before = draw_with_before(CHIP, RULE, SLOT, slots=3, first_slot=5, seed=4)
    assert with_before is not None
    assert_same(with_before, draws(4, 4))


def test_chips_trials_and_seeds_differ_and_one_mechanism_changes_no_other() -> None:
    base = draws(4)
    chip = sample_chip(NETWORK, NOISY, chip=3, seed=1)
    for other in (draws(4, chip=chip), draws(4, trial=1), draws(4, seed=5)):
        for a, b in zip(base.at(2), other.at(2), strict=True):
            assert not np.array_equal(a, b)
    quiet = draws(4, chip=ideal_chip(NETWORK, replace(NOISY, update_noise=0.0)))
    assert quiet.update is None
    np.testing.assert_array_equal(quiet.output, base.output)
    np.testing.assert_array_equal(quiet.active, base.active)
    np.testing.assert_array_equal(draws(4, rule=CoupledLearning()).update, base.update)


def test_noise_has_the_variance_of_its_mean_over_a_slot() -> None:
    """n²/(2T): 4.5 standard errors of 32,000 numbers' standard deviation are 1.8 %."""
    found = draws(1000)
    assert found.update is not None
    assert found.output is not None
    assert found.active is not None
    assert found.update.std() == pytest.approx(1e-5 / math.sqrt(2 * SLOT), rel=0.018, abs=0)
    assert abs(found.update.mean()) < 4.5 * 1e-5 / math.sqrt(2 * SLOT * 32_000)
    assert found.output.std() == pytest.approx(1e-4 / math.sqrt(2 * SLOT), rel=0.072, abs=0)
    # Neither slots nor edges know of each other: 4.5 / sqrt(32,000).
    lagged = np.corrcoef(found.update[1:].ravel(), found.update[:-1].ravel())[0, 1]
    across = np.corrcoef(found.update[:, 1:].ravel(), found.update[:, :-1].ravel())[0, 1]
    assert max(abs(lagged), abs(across)) < 0.0252
    # A binomial's mean, 4.5 standard errors.
    assert found.active.mean() == pytest.approx(0.3, abs=4.5 * math.sqrt(0.21 / 32_000))


def test_nothing_is_drawn_where_there_is_nothing() -> None:
    chip = ideal_chip(NETWORK)
    assert draw_with_before(chip, CoupledLearning(), SLOT, slots=3, seed=None) is None
    assert draw_disturbance(chip, CoupledLearning(), SLOT, slots=3, seed=None).at(1) == (0, 0, 1)


@pytest.mark.parametrize(
    ("chip", "rule"),
    [
        (CHIP, CoupledLearning()),
        (ideal_chip(NETWORK, Hardware(output_noise=1e-9)), CoupledLearning()),
        (ideal_chip(NETWORK), RULE),
    ],
)
def test_what_is_drawn_needs_a_seed(chip: LearningChip, rule: Rule) -> None:
    with pytest.raises(InputError, match="no seed"):
        draw_disturbance(chip, rule, SLOT, slots=3, seed=None)
    with pytest.raises(InputError, match="seed"):
        draw_disturbance(chip, rule, SLOT, slots=3, seed=-1)
