"""The nodal engine and ngspice give the same currents of the same circuit."""

from __future__ import annotations

import numpy as np
import pytest

from spicenn.circuit import Crossbar, load_cell
from spicenn.engines import open_engine
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import EngineError, InputError, Status
from spicenn.technology import OHMIC, Cell
from tests.engines.conftest import chips

CELLS = {"ohmic": OHMIC, "sinh": load_cell("sinh")}


@pytest.mark.ngspice
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("wires", [(2.0, 3.0), (0.0, 0.0), (200.0, 0.0), (1e3, 1e3)])
@pytest.mark.parametrize("shape", [(7, 5), (24, 32)])
def test_agrees_with_ngspice(engine, name, wires, shape):
    g, v = chips(shape, 2, 3, inputs=2)
    crossbar = Crossbar("t", shape[0], shape[1], wires[0], wires[1], cell=CELLS[name])
    with open_engine("nodal") as nodal:
        exact = nodal.solve(crossbar, 1e-1 * g, 2 * v)
    simulated = engine.solve(crossbar, 1e-1 * g, 2 * v)
    assert list(exact.status) == list(simulated.status) == [Status.OK] * 2
    scale = np.abs(simulated.current).max()
    np.testing.assert_allclose(exact.current, simulated.current, rtol=0, atol=1e-8 * scale)


def test_the_cells_law_matters():
    g, v = chips((7, 5), 2, 3)
    ohmic, sinh = (
        NodalEngine().solve(Crossbar("t", 7, 5, 2.0, 2.0, cell=cell), g, v).current
        for cell in CELLS.values()
    )
    assert np.abs(ohmic - sinh).max() > 1e-3 * np.abs(ohmic).max()


@pytest.mark.parametrize("samples", [3, 40])
@pytest.mark.parametrize("name", CELLS)
def test_a_chip_does_not_depend_on_its_batch(samples, name):
    """To the last bit, with few samples and with so many that the matrix is used."""
    g, v = chips((9, 12), 6, samples, inputs=6)
    crossbar = Crossbar("t", 9, 12, 20.0, 20.0, cell=CELLS[name])
    together = NodalEngine().solve(crossbar, g, v).current
    for chip in (0, 3, 5):
        alone = NodalEngine().solve(crossbar, g[[chip]], v[[chip]]).current
        np.testing.assert_array_equal(alone[0], together[chip])


def test_a_chip_without_an_answer_is_a_status(monkeypatch):
    g, v = chips((9, 12), 3, 2)
    g[1] *= 1e4
    monkeypatch.setattr("spicenn.kirchhoff.linear.iteration_limit", lambda m, n: 2)
    solution = NodalEngine().solve(Crossbar("t", 9, 12, 20.0, 20.0), g, v)
    assert solution.status.tolist() == [Status.OK, Status.NOT_CONVERGED, Status.OK]
    assert "residual" in solution.message[1]
    assert np.isnan(solution.current[1]).all()
    assert np.isfinite(solution.current[[0, 2]]).all()


def test_versions_and_tolerances_are_told():
    engine = NodalEngine(rtol=1e-7)
    assert engine.tolerances == {"rtol": 1e-7}
    assert set(engine.versions) == {"numba"}
    with open_engine("nodal", rtol=1e-3, timeout=9.0) as loose:
        assert loose.tolerances == {"rtol": 1e-3}
    with pytest.raises(InputError, match="threads = 0"):
        open_engine("nodal", threads=0)
    with pytest.raises(InputError, match="rtol = 2"):
        open_engine("nodal", rtol=2)


def test_what_it_does_not_know_is_an_error():
    g, v = chips((2, 2), 1, 1)
    # A netlist of the user's own, though its name is one of ours.
    own = Cell("sinh", load_cell("sinh").netlist.replace("0.25", "0.26"))
    with pytest.raises(EngineError, match=r"no law for the cell 'sinh'.*engine='ngspice'"):
        NodalEngine().solve(Crossbar("t", 2, 2, cell=own), g, v)
    with pytest.raises(InputError, match="g has shape"):
        NodalEngine().solve(Crossbar("t", 3, 2), g, v)
