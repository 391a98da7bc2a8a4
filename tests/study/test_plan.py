"""What a study may ask for, and how its chips are cut into tasks."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import spicenn as sn
from spicenn.compiler.execute import run_chips
from spicenn.engines import open_engine
from spicenn.errors import InputError, Status, TechnologyError
from spicenn.study.plan import chip_labels, plan
from spicenn.study.schedule import cut
from spicenn.study.sweep import parse_sweep
from spicenn.technology.units import UNITS


def test_chips_are_a_number_or_indices():
    assert chip_labels(3) == (0, 1, 2)
    assert chip_labels(np.array([5, 2])) == (5, 2)
    assert chip_labels(range(4, 6)) == (4, 5)


@pytest.mark.parametrize("chips", [0, -1, True, "12", [1, 1], [-1], [2**32], [0.5], 1.5, [True]])
def test_bad_chips_are_refused(chips):
    with pytest.raises(InputError):
        chip_labels(chips)


def test_a_sweep_is_a_product_in_the_order_given(design):
    sweep = parse_sweep(design, {"corner": ["tt", "ff"], "r_wordline": [1, 2, 3]}, frozenset())
    assert sweep.shape == (2, 3)
    points = list(sweep.points())
    assert points[4] == ((1, 1), {"corner": "ff", "r_wordline": 2.0})


WORDS = {
    "corner": ("tt", "ff"),
    "drive": ("bipolar", "two-phase"),
    "variation.programming_law": ("normal", "lognormal"),
}


@pytest.fixture(scope="module")
def switched() -> sn.Design:
    """Cells with transistors, whose amplifiers have no limits."""
    changes = {"periphery.tia.gain": None, "periphery.tia.v_max": None}
    technology = sn.Technology.preset("hfox-1t1r").replace(changes)
    return sn.compile(torch.nn.Linear(3, 2), torch.ones(2, 3), technology=technology)


@pytest.mark.parametrize("key", UNITS)
def test_every_key_that_has_a_unit_can_be_swept_and_run(switched, key):
    value = attrgetter(key)(switched.technology)
    # None stands for no limit, which a number replaces.
    values = WORDS.get(key) or ((1e3, 1e4) if value is None else (value, 1.01 * value or 1e-3))
    sweep = parse_sweep(switched, {key: values}, frozenset())
    assert [changes[key] for _, changes in sweep.points()] == list(values)
    for _, changes in sweep.points():
        varied = switched.with_technology(changes)
        assert attrgetter(key)(varied.technology) == changes[key]
        with open_engine("nodal") as engine:
            result = run_chips(varied, (0,), 7, (np.full((2, 3), 0.5, np.float32),), engine)
        assert result.status[0] == Status.OK, result.message


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"periphery.tia.gain": [None, 1e3]}, "None, which is not a number"),
        ({"resistance": [1.0]}, "'resistance'"),
        ({"cell": ["x"]}, "'cell'"),
        ({"corner": "tt"}, "not a list"),
        ({"r_wordline": []}, "empty"),
        ({"r_wordline": [1, 1.0]}, "repeats"),
        ({"r_wordline": ["1k"]}, "not a number"),
        ({"corner": [1]}, "not text"),
    ],
)
def test_bad_sweeps_are_refused_by_name(design, sweep, said):
    with pytest.raises(InputError, match=said):
        parse_sweep(design, sweep, frozenset())


def test_a_sweep_is_held_to_the_technology(design):
    with pytest.raises(TechnologyError, match="r_wordline"):
        parse_sweep(design, {"r_wordline": [1.0, -1.0]}, frozenset())
    with pytest.raises(InputError, match="drive"):
        parse_sweep(design, {"drive": ["offset"]}, frozenset({"bitline_current"}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": -1}, "seed"),
        ({"engine": "spectre"}, "spectre"),
        ({"trials": 0}, "trials"),
        ({"keep": ("voltage",)}, "voltage"),
        ({"keep": "voltage"}, "voltage"),
    ],
)
def test_bad_arguments_are_refused_by_name(design, x, change, said):
    good = {"seed": 1, "engine": "nodal", "trials": 1, "keep": (), "sweep": None}
    with pytest.raises(InputError, match=said):
        plan(design, x, **{**good, **change})


@given(st.lists(st.booleans(), min_size=1, max_size=50), st.integers(1, 9))
def test_jobs_hold_every_wanted_chip_once_and_keep_to_a_chunk(wanted, chunk):
    chips = [100 + i for i in range(len(wanted))]
    jobs = list(cut((), {}, chips, np.array(wanted), chunk))
    asked = [chip for chip, want in zip(chips, wanted, strict=True) if want]
    assert [chip for job in jobs for chip in job.chips] == asked
    for job in jobs:
        assert [100 + job.start + i for i in range(len(job.chips))] == list(job.chips)
        assert job.start // chunk == (job.start + len(job.chips) - 1) // chunk
