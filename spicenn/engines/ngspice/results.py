"""Currents and statuses of several chips while they come in."""

from __future__ import annotations

import numpy as np

from spicenn.engines.engine import Array, Solution
from spicenn.errors import EngineError, SpicennError, Status


class Results:
    """A solution in the making; a chip that was not heard of stays pending."""

    def __init__(self, chips: int, samples: int, bitlines: int) -> None:
        self.current = np.full((chips, samples, bitlines), np.nan)
        self.status = np.full(chips, Status.PENDING, np.int8)
        self.message = [""] * chips
        self.runtime = np.zeros(chips)

    def put(self, chip: int, current: Array, runtime: float) -> None:
        self.current[chip], self.status[chip], self.runtime[chip] = current, Status.OK, runtime

    def fail(self, chip: int, error: SpicennError, runtime: float) -> None:
        status = error.status if isinstance(error, EngineError) else Status.ERROR
        self.status[chip], self.message[chip], self.runtime[chip] = status, str(error), runtime

    def solution(self) -> Solution:
        return Solution(self.current, self.status, tuple(self.message), self.runtime)
