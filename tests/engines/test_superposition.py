"""Superposed engines give what the engine under them gives, and ask it once per tile."""

from __future__ import annotations

import numpy as np
import pytest

from spicenn.circuit import Crossbar
from spicenn.engines import open_engine
from spicenn.engines.engine import Array, Parameters, Solution
from spicenn.engines.nodal import NodalEngine
from spicenn.engines.superposition import superposed
from spicenn.errors import EngineError, Status
from spicenn.technology import Technology

BAR = Crossbar("x", wordlines=6, bitlines=4, r_wordline=20.0, r_bitline=30.0)


def _tiles(chips: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(3)
    return rng.uniform(1e-6, 1e-4, (chips, 6, 4)), rng.uniform(-0.2, 0.2, (chips, 9, 6))


@pytest.mark.ngspice
@pytest.mark.parametrize("own", [True, False])
def test_equals_ngspice(own: bool) -> None:
    """ngspice itself, to what its tolerances leave, for inputs of all chips and of each."""
    g, v = _tiles(2)
    v = v if own else v[:1]
    with open_engine("ngspice") as engine:
        truth = engine.solve(BAR, g, v)
        added = superposed(engine).solve(BAR, g, v)
    scale = np.abs(truth.current).max()
    assert np.abs(added.current - truth.current).max() < 1e-9 * scale
    assert list(added.status) == [Status.OK, Status.OK]
    assert np.all(added.runtime > 0)


class _Counting(NodalEngine):
    """The nodal engine, and how many copies of tiles it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def solve(
        self, crossbar: Crossbar, g: Array, v: Array, parameters: Parameters | None = None
    ) -> Solution:
        self.asked.append(len(g))
        result = super().solve(crossbar, g, v, parameters)
        if np.any(g > 5e-5):
            return result
        # What stands for a chip that failed.
        failed = np.full(len(g), Status.NOT_CONVERGED, np.int8)
        return Solution(result.current * np.nan, failed, ("no",), result.runtime)


def test_asks_once_per_copy_and_keeps_no_failure() -> None:
    """A copy that was solved is not simulated again, one of other wires or cells is, and so is
    one that failed."""
    g, v = _tiles(3)
    engine = _Counting()
    added = superposed(engine)
    first = added.solve(BAR, g, v)
    again = added.solve(BAR, g[::-1], v[::-1])
    assert engine.asked == [3]
    assert np.array_equal(first.current, again.current[::-1])
    other = Crossbar("x", wordlines=6, bitlines=4, r_wordline=21.0, r_bitline=30.0)
    added.solve(other, g[:1], v[:1])
    added.solve(BAR, 0.999 * g[:1], v[:1])
    assert engine.asked == [3, 1, 1]
    for _ in range(2):
        failed = added.solve(BAR, np.full((1, 6, 4), 1e-6), v[:1])
        assert failed.status[0] == Status.NOT_CONVERGED
        assert np.isnan(failed.current).all()
    assert engine.asked == [3, 1, 1, 1, 1]
    added.close()
    added.solve(BAR, g[:1], v[:1])
    assert engine.asked[-1] == 1


def test_refuses_cells_that_are_not_linear() -> None:
    """Currents of a sinh cell do not add."""
    cell = Technology.preset("rram-sinh").cell
    bar = Crossbar("x", wordlines=6, bitlines=4, cell=cell)
    g, v = _tiles(1)
    with pytest.raises(EngineError, match="do not add"):
        superposed(open_engine("nodal")).solve(bar, g, v)
