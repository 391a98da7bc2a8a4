"""``chip.run`` where ngspice fails: a typed error naming the tile, and a good run after it."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import psutil
import pytest
import torch

import spicenn as sn
from spicenn.circuit import Tolerances
from spicenn.compiler.execute import run_chips
from spicenn.compiler.placement import PlacedTile, sample_tile
from spicenn.compiler.result import Result
from spicenn.engines import open_engine
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import (
    ConvergenceError,
    EngineError,
    InputError,
    SimulationTimeout,
    SimulatorCrash,
    Status,
)
from spicenn.kirchhoff import thermal_noise
from spicenn.technology.variation import Cells

pytestmark = pytest.mark.ngspice

# Ohmic below 50 µS; above, a current that flips its sign at every iteration.
FLIPPING = sn.Cell(
    "flipping",
    """.subckt flipping wordline bitline g=1u
bcell wordline bitline i={g}*v(wordline,bitline)
+ +{u(g-50u)}*(v(wordline,bitline)>0.05?1:-1)
.ends flipping
""",
)
NO_MODEL = sn.Cell(
    "lost", ".subckt lost wordline bitline g=1u\nd1 wordline bitline nowhere\n.ends lost\n"
)


SWITCHED = sn.Technology.preset("hfox-1t1r").replace(
    {"periphery": sn.technology.Periphery(), "r_bitline": 10.0}
)


def three_chips(design: sn.Design, engine: str, worst: float = 1.0) -> Result:
    """Three chips, of which the second has a transistor of that strength."""

    def cells(tile: PlacedTile, chip: int) -> Cells:
        drawn = sample_tile(design, tile, chip, 1)
        beta = drawn.parameters["beta"].copy()
        if chip == 1:
            beta[0, 0] *= worst
        return Cells(drawn.g, {**drawn.parameters, "beta": beta})

    with open_engine(engine) as running:
        return run_chips(design, (0, 1, 2), 1, (X,), running, trials=2, cells=cells)


X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)


@pytest.fixture(scope="module")
def switched() -> sn.Design:
    torch.manual_seed(0)
    return sn.compile(torch.nn.Linear(2, 2), X, technology=SWITCHED)


@pytest.mark.parametrize("engine", ["nodal", "ngspice"])
def test_a_cell_out_of_range_is_its_chips_error_and_no_others(switched, engine):
    good = three_chips(switched, engine)
    bad = three_chips(switched, engine, worst=-1.0)
    assert list(good.status) == [Status.OK] * 3
    assert list(bad.status) == [Status.OK, Status.ERROR, Status.OK]
    assert "beta = -" in bad.message[1]
    assert "_r0_c0" in bad.message[1]
    (a,), (b,) = good.output.values(), bad.output.values()
    assert np.isnan(b[1]).all()
    np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])


def test_a_parameter_out_of_range_that_all_cells_share_is_an_error(switched):
    cell = sn.circuit.load_cell("rram_1t1r", kp=-1.0)
    with pytest.raises(InputError, match="kp"):
        three_chips(switched.with_technology(cell=cell), "nodal")


def test_noise_that_is_not_found_is_its_chips_status_and_no_others(switched, monkeypatch):
    good = three_chips(switched, "nodal")
    bad_g = switched.sample(1, seed=1).conductances()[switched.tiles[0].name]

    def picky(g, **more):
        if (g == bad_g).all(axis=(-2, -1)).any():
            raise ConvergenceError("residual 1 above 1e-06")
        return thermal_noise(g, **more)

    monkeypatch.setattr("spicenn.compiler.reading.thermal_density", picky)
    bad = three_chips(switched, "nodal")
    assert list(bad.status) == [Status.OK, Status.NOT_CONVERGED, Status.OK]
    assert "_r0_c0, noise: residual" in bad.message[1]
    (a,), (b,) = good.output.values(), bad.output.values()
    assert np.isnan(b[1]).all()
    np.testing.assert_array_equal(a[[0, 2]], b[[0, 2]])


def chip_of(weight: float, cell: sn.Cell) -> sn.Chip:
    """One weight; it sets its own scale, so its plus cell is at g_max and flips."""
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(weight)
    technology = sn.Technology.preset("ideal").replace(cell=cell, r_bitline=10.0)
    return sn.compile(model, torch.ones(1, 1), technology=technology).sample(chip=0, seed=1)


def is_good(engine: NgspiceEngine) -> bool:
    y = chip_of(0.5, sn.Cell()).run(torch.ones(1, 1), engine)
    # One cell at g_max behind 10 Ω: 0.1 % less than ideal.
    return bool(np.allclose(y, 0.5, rtol=2e-3))


@pytest.mark.parametrize(
    ("cell", "kind", "words"),
    [(FLIPPING, ConvergenceError, "no solution"), (NO_MODEL, EngineError, "nowhere")],
)
def test_a_failure_is_typed_and_names_the_tile(cell, kind, words):
    with NgspiceEngine(timeout=20.0) as engine:
        with pytest.raises(kind, match=words) as caught:
            chip_of(0.5, cell).run(torch.ones(1, 1), engine)
        assert "_r0_c0" in str(caught.value)
        assert is_good(engine)


def test_a_hang_ends_at_the_timeout():
    with NgspiceEngine(timeout=1.0, tolerances=Tolerances(itl1=10**9)) as engine:
        with pytest.raises(SimulationTimeout, match="no answer in 1 s"):
            chip_of(0.5, FLIPPING).run(torch.ones(1, 1), engine)
        assert is_good(engine)


def test_a_segmentation_fault_in_mid_analysis_is_an_error_and_not_the_end():
    with NgspiceEngine(timeout=20.0, tolerances=Tolerances(itl1=10**9)) as engine:
        assert is_good(engine)  # the simulator is up
        pid = engine.pid
        assert pid is not None
        chip, simulator = chip_of(0.5, FLIPPING), psutil.Process(pid)
        before = simulator.cpu_times().user

        def shoot() -> None:
            while simulator.cpu_times().user < before + 0.3:  # until it computes
                time.sleep(0.05)
            os.kill(pid, signal.SIGSEGV)

        thread = threading.Thread(target=shoot)
        thread.start()
        with pytest.raises(SimulatorCrash, match="SIGSEGV"):
            chip.run(torch.ones(1, 1), engine)
        thread.join()
        assert is_good(engine)
