"""Chips: the same draws for the same chip, one mechanism at a time, with the spread asked for."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spicenn.errors import InputError
from spicenn.learning.contrast import value_range
from spicenn.learning.elements import Diode
from spicenn.learning.hardware import (
    Hardware,
    LearningChip,
    ideal_chip,
    sample_chip,
    start_values,
)
from spicenn.learning.network import grid, layered

GRID = grid(4, 4, inputs=["n0_0", "n0_2"], outputs=["n2_2", "n3_1"])
LARGE = grid(40, 50, inputs=["n0_0"], outputs=["n2_2"])
SPREAD = Hardware(
    bias=1e-3, bias_std=1e-4, output_offset=2e-3, output_offset_std=1e-3, leakage=1e-9,
    leakage_std=1e-10, threshold_std=0.02, twin_threshold_std=0.01, transconductance_std=0.05,
    twin_transconductance_std=0.02,
)  # fmt: skip
ARRAYS = ("threshold", "transconductance", "bias", "leakage", "output_offset")


def arrays(chip: LearningChip) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    return {name: getattr(chip, name) for name in ARRAYS}


def test_a_chip_is_the_same_whenever_it_is_drawn_and_no_two_are_alike() -> None:
    first, again = (arrays(sample_chip(GRID, SPREAD, chip=7, seed=3)) for _ in range(2))
    other = arrays(sample_chip(GRID, SPREAD, chip=8, seed=3))
    seed = arrays(sample_chip(GRID, SPREAD, chip=7, seed=4))
    for name in ARRAYS:
        np.testing.assert_array_equal(first[name], again[name])
        assert not np.any(first[name] == other[name])
        assert not np.any(first[name] == seed[name])


@pytest.mark.parametrize(
    ("mechanism", "touches"),
    [
        ("bias_std", "bias"),
        ("output_offset_std", "output_offset"),
        ("leakage_std", "leakage"),
        ("threshold_std", "threshold"),
        ("twin_threshold_std", "threshold"),
        ("transconductance_std", "transconductance"),
        ("twin_transconductance_std", "transconductance"),
    ],
)
def test_one_mechanism_more_changes_no_other(mechanism: str, touches: str) -> None:
    with_it = arrays(sample_chip(GRID, SPREAD, chip=1, seed=3))
    without = arrays(sample_chip(GRID, replace(SPREAD, **{mechanism: 0.0}), chip=1, seed=3))
    for name in ARRAYS:
        assert np.array_equal(with_it[name], without[name]) == (name != touches)


def test_spreads_are_those_asked_for() -> None:
    """4,000 edges: 4.5 standard errors of a standard deviation are 5 %, of a mean 0.071 of it."""
    chip = sample_chip(LARGE, SPREAD, chip=0, seed=1)
    n = len(LARGE.edges)
    assert n == 4000
    drawn = {
        "bias": (chip.bias, 1e-3, 1e-4),
        "leakage": (chip.leakage, 1e-9, 1e-10),
        "threshold": (chip.threshold.mean(axis=0), 0.7, 0.02),
        "twins": (chip.threshold[1] - chip.threshold[0], 0.0, 0.01),
        "strength": (np.log(chip.transconductance / 8.5e-4).mean(axis=0), 0.0, 0.05),
        "twin strengths": (np.diff(np.log(chip.transconductance), axis=0)[0], 0.0, 0.02),
    }
    for name, (found, mean, std) in drawn.items():
        assert abs(found.mean() - mean) < 4.5 * std / math.sqrt(n), name
        assert abs(found.std() / std - 1) < 0.05, name


def test_mechanisms_know_nothing_of_each_other() -> None:
    """Correlations over 4,000 edges are below 4.5 / sqrt(4,000)."""
    chip = sample_chip(LARGE, SPREAD, chip=0, seed=1)
    drawn = [chip.bias, chip.leakage]
    for pair in (chip.threshold, np.log(chip.transconductance)):
        drawn += [pair.mean(axis=0), pair[1] - pair[0]]
    correlation = np.corrcoef(drawn) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(4000)


def test_leakage_is_never_negative_and_strength_never_zero() -> None:
    hardware = Hardware(leakage_std=1e-9, transconductance_std=3.0)
    chip = sample_chip(LARGE, hardware, chip=0, seed=1)
    assert chip.leakage.min() == 0
    assert chip.transconductance.min() > 0


def test_an_ideal_chip_has_the_hardwares_means_or_what_is_given() -> None:
    chip = ideal_chip(GRID, SPREAD)
    np.testing.assert_array_equal(chip.threshold, np.full((2, 32), 0.7))
    np.testing.assert_array_equal(chip.bias, np.full(32, 1e-3))
    np.testing.assert_array_equal(chip.output_offset, np.full(2, 2e-3))
    given = ideal_chip(GRID, SPREAD, bias=np.arange(32.0), output_offset=0.5)
    np.testing.assert_array_equal(given.bias, np.arange(32.0))
    np.testing.assert_array_equal(given.output_offset, [0.5, 0.5])
    with pytest.raises(InputError, match=r"bias of shape \(3,\)"):
        ideal_chip(GRID, bias=np.zeros(3))
    with pytest.raises(InputError, match="not finite"):
        ideal_chip(GRID, output_offset=math.nan)
    with pytest.raises(InputError, match="leakage of shape"):
        replace(chip, leakage=np.zeros(3))


def test_edges_without_a_threshold_or_strength_have_none() -> None:
    chip = sample_chip(layered([2, 2, 1], diode=Diode()), SPREAD, chip=0, seed=1)
    assert np.isnan(chip.threshold).all()
    assert np.isnan(chip.transconductance).all()
    assert len(chip.bias) == 6


def test_a_bias_of_a_speed_moves_a_capacitor_at_it() -> None:
    hardware = Hardware()
    bias = hardware.bias_of([2.87, 4.72], 2.0)
    scale = 2.0 / (hardware.v0 * hardware.resistance * hardware.capacitance)
    np.testing.assert_allclose(scale * bias, [2.87, 4.72], rtol=1e-14)


def test_values_begin_within_their_range_the_same_for_the_same_chip() -> None:
    begin = start_values(LARGE, 1.0, 3.0, seed=5, chip=2)
    np.testing.assert_array_equal(begin, start_values(LARGE, 1.0, 3.0, seed=5, chip=2))
    assert not np.any(begin == start_values(LARGE, 1.0, 3.0, seed=5, chip=3))
    assert 1.0 <= begin.min() < 1.01
    assert 2.99 < begin.max() <= 3.0
    # 4.5 standard errors of the mean of 4,000 uniform numbers.
    assert abs(begin.mean() - 2.0) < 4.5 * 2 / math.sqrt(12 * 4000)
    for low, high in ((3.0, 1.0), (0.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(InputError, match="no range"):
            start_values(LARGE, low, high, seed=5)


def test_the_range_of_a_conductance_is_the_capacitors() -> None:
    hardware = Hardware(gate_low=0.5, gate_high=4.0, conductance_per_volt=2e-3)
    low, high = value_range(ideal_chip(layered([2, 1]), hardware))
    np.testing.assert_allclose([low, high], [[1e-3, 1e-3], [8e-3, 8e-3]], rtol=1e-15)


def test_a_record_goes_to_a_mapping_and_back() -> None:
    assert Hardware.from_dict(SPREAD.to_dict()) == SPREAD
    with pytest.raises(InputError, match="'baias' is not a key"):
        Hardware.from_dict({"baias": 1.0})


@pytest.mark.parametrize(
    "values",
    [
        {"capacitance": 0.0},
        {"bias": math.nan},
        {"bias_std": -1.0},
        {"threshold_std": True},
        {"v0": "1"},
        {"gate_low": 5.0, "gate_high": 5.0},
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"out of range|not below"):
        Hardware(**values)


def test_resistors_that_learn_may_not_become_negative() -> None:
    hardware = Hardware(gate_low=-0.1)
    ideal_chip(grid(2, 2, inputs=["n0_0"], outputs=["n1_1"]), hardware)  # transistors may
    with pytest.raises(InputError, match="negative"):
        ideal_chip(layered([1, 1]), hardware)
