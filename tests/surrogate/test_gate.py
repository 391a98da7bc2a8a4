"""A calibration is judged by probes that it did not see, whatever the model behind it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from spicenn.errors import CalibrationError
from spicenn.surrogate.gate import Forecast, HeldOut, check, hold_out

PROBES, OUTPUTS = 24, 3


def judged(before: float, after: float, stated: float, seed: int = 0) -> HeldOut:
    """Errors of the population, of the calibrated model, and what that states; all rms."""
    rng = np.random.default_rng(seed)
    target = torch.as_tensor(rng.standard_normal((PROBES, OUTPUTS)))
    wrong = torch.as_tensor(rng.standard_normal((2, PROBES, OUTPUTS)))
    calibrated, population = target + after * wrong[0], target + before * wrong[1]

    def forecast(rest: NDArray[np.int64], out: NDArray[np.int64]) -> Forecast:
        assert not set(rest) & set(out)
        covariance = torch.eye(OUTPUTS, dtype=torch.float64).expand(len(out), -1, -1)
        return Forecast(calibrated[out], covariance * stated**2, population[out])

    return hold_out(forecast, target, folds=4, seed=seed)


@pytest.mark.parametrize("seed", range(20))
def test_an_honest_improvement_passes(seed: int) -> None:
    held = judged(1.0, 0.2, 0.2, seed)
    assert held.objection() is None
    calibrated, population, misfit = held.summary()
    assert calibrated == pytest.approx(0.2, rel=0.4, abs=0)
    assert population == pytest.approx(1.0, rel=0.4, abs=0)
    assert misfit == pytest.approx(1.0, rel=0.4, abs=0)


@pytest.mark.parametrize(
    ("before", "after", "stated", "word"),
    [
        (1.0, 0.2, 0.02, "times what the model allows"),
        (0.2, 0.2, 0.2, "no clear improvement"),
        (0.2, 1.0, 1.0, "no clear improvement"),
    ],
)
def test_what_does_not_help_or_is_too_sure_is_refused(
    before: float, after: float, stated: float, word: str
) -> None:
    assert word in str(judged(before, after, stated).objection())


def test_a_stranger_among_the_probes_is_named() -> None:
    held = judged(1.0, 0.2, 0.2)
    normalised = held.normalised.copy()
    normalised[[3, 9]] = 30.0
    found = HeldOut(held.calibrated, held.population, normalised, OUTPUTS).objection()
    assert "probes 3, 9 do not fit the others" in str(found)


@pytest.mark.parametrize(
    ("shape", "folds", "word"),
    [((24, 3), 1, "folds"), ((3, 3), 2, "too few"), ((6, 3), 8, "too few"), ((900, 9), 4, "8100")],
)
def test_bad_sizes_are_named(shape: tuple[int, int], folds: int, word: str) -> None:
    with pytest.raises(CalibrationError, match=word):
        check(torch.zeros(shape), folds)
