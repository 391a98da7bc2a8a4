"""A heating record takes what a thermal network can be, and nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spicenn.errors import TechnologyError
from spicenn.technology.heating import Heating


def test_the_time_constant_is_resistance_times_capacitance():
    assert Heating(alpha=0.0, r_thermal=2e6, c_thermal=3e-12).time_constant == 6e-6


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alpha", math.inf),
        ("alpha", math.nan),
        ("r_thermal", 0.0),
        ("r_thermal", math.inf),
        ("c_thermal", -1e-12),
        ("r_coupling", 0.0),
        ("r_coupling", math.nan),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_name(key, value):
    good: dict[str, Any] = {"alpha": 1e-3, "r_thermal": 1e6}
    with pytest.raises(TechnologyError, match=key):
        Heating(**{**good, key: value})
