"""Tolerances reach ngspice as numbers that it reads."""

import numpy as np
import pytest

from spicenn.circuit import Tolerances
from spicenn.errors import InputError


def test_numpy_numbers_are_written_like_plain_ones() -> None:
    """``reltol=np.float64(1e-06)`` is no number to ngspice, which would keep its 1e-3."""
    drawn = Tolerances(reltol=np.float64(1e-6), itl1=np.int64(100))  # type: ignore[arg-type]
    assert drawn.options() == Tolerances(reltol=1e-6, itl1=100).options()
    assert "reltol=1e-06" in drawn.options()


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_tolerance_is_positive_and_finite(value: float) -> None:
    """Anything else is an InputError."""
    with pytest.raises(InputError, match="reltol"):
        Tolerances(reltol=value)
