"""Self-heating: ngspice and Kirchhoff solve the same two networks, and closed forms agree."""

from __future__ import annotations

import re
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from spicenn.circuit import Crossbar
from spicenn.circuit.heating import render_heating
from spicenn.engines.heating import (
    HeatedEngine,
    heated,
    heated_currents,
    thermal_conductance,
    warm_up,
)
from spicenn.engines.nodal import NodalEngine
from spicenn.engines.superposition import superposed
from spicenn.errors import ConvergenceError, EngineError, InputError, Status
from spicenn.technology.heating import Heating

COUPLED = Heating(alpha=3e-3, r_thermal=4e6, r_coupling=1e6)
METALLIC = Heating(alpha=-3e-3, r_thermal=4e6, r_coupling=1e6)
ALONE = Heating(alpha=3e-3, r_thermal=2e6)


def array(
    rows: int, columns: int, samples: int = 3, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(1e-6, 1e-4, (rows, columns)), rng.uniform(-0.3, 0.3, (samples, rows))


@pytest.mark.ngspice
@pytest.mark.parametrize("wires", [(0.0, 0.0), (2.0, 5.0), (300.0, 0.0)])
@pytest.mark.parametrize(
    "heating", [COUPLED, METALLIC, ALONE], ids=["coupled", "metallic", "alone"]
)
def test_the_engines_agree(engine, wires, heating):
    """To 1e-9 of the largest current, where heat makes several per cent of it."""
    g, v = array(9, 7)
    crossbar = Crossbar("t", 9, 7, wires[0], wires[1], r_driver=3.0, r_sense=2.0)
    exact, simulated = (heated_currents(crossbar, heating, g, v, e) for e in ("nodal", engine))
    scale = np.abs(simulated.current).max()
    assert np.abs(exact.current - simulated.current).max() < 1e-9 * scale
    assert np.abs(exact.rise - simulated.rise).max() < 1e-8 * simulated.rise.max()
    cold = NodalEngine().solve(crossbar, g[None], v[None]).current[0]
    assert np.abs(exact.current - cold).max() > 5e-3 * scale


@pytest.mark.ngspice
def test_one_cell_is_its_closed_form(engine):
    """i = g v / (1 - alpha R g v²), T = R i v."""
    v, g = 0.4, 5e-5
    power = ALONE.alpha * ALONE.r_thermal * g * v * v
    current = g * v / (1 - power)
    crossbar = Crossbar("t", 1, 1)
    for running in ("nodal", engine):
        found = heated_currents(crossbar, ALONE, np.full((1, 1), g), np.full(1, v), running)
        assert found.current[0, 0] == pytest.approx(current, rel=1e-10, abs=0)
        assert found.rise[0, 0, 0] == pytest.approx(ALONE.r_thermal * current * v, rel=1e-9, abs=0)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    alpha=st.floats(-5e-3, 5e-3),
    r_coupling=st.sampled_from([3e5, 3e6, np.inf]),
    wires=st.sampled_from([0.0, 5.0]),
)
def test_what_is_dissipated_flows_to_ambient(seed, alpha, r_coupling, wires):
    """Energy: the sources' power less the wires' is the sum of rises over r_thermal."""
    heating = Heating(alpha=alpha, r_thermal=1e6, r_coupling=r_coupling)
    g, v = array(5, 4, 2, seed)
    found = heated_currents(Crossbar("t", 5, 4, wires, wires), heating, g, v)
    assert (found.rise >= 0).all()
    lost = found.rise.sum(axis=(1, 2)) / heating.r_thermal
    hot = g * (1 + alpha * found.rise)
    if wires == 0:
        np.testing.assert_allclose(found.current, np.einsum("si,sij->sj", v, hot), rtol=1e-8)
        np.testing.assert_allclose(lost, np.einsum("si,sij->s", v**2, hot), rtol=1e-8)
    else:
        assert (lost < np.einsum("si,sij->s", v**2, hot)).all()


def test_the_kernel_is_symmetric_positive_and_keeps_all_heat():
    """A watt anywhere raises the sum of all rises by r_thermal kelvins: none leaves at an edge."""
    kernel = np.linalg.inv(thermal_conductance(COUPLED, 4, 5).toarray())
    np.testing.assert_allclose(kernel, kernel.T, rtol=1e-12)
    assert (kernel > 0).all()
    np.testing.assert_allclose(kernel.sum(axis=0), COUPLED.r_thermal, rtol=1e-12)
    assert kernel[0, 1] > kernel[0, 2] > kernel[0, 4]


@pytest.mark.ngspice
def test_one_cell_warms_with_its_time_constant(engine):
    """Constant power: R C exactly; with feedback R C / (1 - alpha R g v²)."""
    v, g = 0.4, 5e-5
    for alpha in (0.0, 3e-3, -3e-3):
        heating = Heating(alpha=alpha, r_thermal=2e6, c_thermal=1e-12)
        loop = alpha * heating.r_thermal * g * v * v
        tau = heating.time_constant / (1 - loop)
        time = tau * np.array([0.1, 0.5, 1.0, 2.0, 5.0])
        settled = heating.r_thermal * g * v * v / (1 - loop)
        expected = settled * (1 - np.exp(-time / tau))
        for running, bound in (("nodal", 1e-8), (engine, 1e-4)):
            found = warm_up(
                Crossbar("t", 1, 1), heating, np.full((1, 1), g), np.full(1, v), time, running
            )
            np.testing.assert_allclose(found.rise[:, 0, 0], expected, rtol=bound)


@pytest.mark.ngspice
def test_an_array_warms_as_its_matrix_exponential(engine):
    """Ideal wires make the network linear: T(t) = (1 - exp(-M t / C)) T(∞)."""
    g, v = array(4, 3, 1)
    matrix = thermal_conductance(COUPLED, 4, 3).toarray()
    matrix -= np.diag(COUPLED.alpha * (g * v[0][:, None] ** 2).ravel())
    settled = np.linalg.solve(matrix, (g * v[0][:, None] ** 2).ravel())
    time = COUPLED.time_constant * np.array([0.05, 0.3, 1.0, 4.0])
    expected = [settled - expm(-matrix * t / COUPLED.c_thermal) @ settled for t in time]
    for running, bound in (("nodal", 1e-8), (engine, 1e-4)):
        found = warm_up(Crossbar("t", 4, 3), COUPLED, g, v[0], time, running)
        error = np.abs(found.rise.reshape(4, -1) - expected).max()
        assert error < bound * settled.max()


@pytest.mark.ngspice
def test_a_transient_with_wires_is_the_same_and_ends_where_heat_has_settled(engine):
    g, v = array(4, 3, 1)
    crossbar = Crossbar("t", 4, 3, 50.0, 50.0)
    time = COUPLED.time_constant * np.array([0.1, 1.0, 25.0])
    exact, simulated = (warm_up(crossbar, COUPLED, g, v[0], time, e) for e in ("nodal", engine))
    scale = exact.rise.max()
    assert np.abs(exact.rise - simulated.rise).max() < 1e-4 * scale
    assert np.abs(exact.current - simulated.current).max() < 1e-5 * np.abs(exact.current).max()
    settled = heated_currents(crossbar, COUPLED, g, v)
    assert np.abs(exact.rise[-1] - settled.rise[0]).max() < 1e-7 * scale


@pytest.mark.ngspice
def test_heat_that_runs_away_is_said_by_both(engine):
    """Just below alpha R g v² = 1 there is an answer, just above there is none."""
    g = np.full((1, 1), 1e-4)
    edge = 1 / np.sqrt(ALONE.alpha * ALONE.r_thermal * 1e-4)
    for running in ("nodal", engine):
        heated_currents(Crossbar("t", 1, 1), ALONE, g, np.full(1, 0.99 * edge), running)
        with pytest.raises(ConvergenceError, match="runs away"):
            heated_currents(Crossbar("t", 1, 1), ALONE, g, np.full(1, 1.01 * edge), running)


@pytest.mark.ngspice
def test_the_file_runs_in_plain_ngspice(engine, tmp_path):
    g, v = array(4, 3)
    crossbar = Crossbar("t", 4, 3, 2.0, 2.0)
    path = tmp_path / "heat.cir"
    path.write_text(render_heating(crossbar, COUPLED, g, v), encoding="ascii")
    done = subprocess.run(
        ["ngspice", "-b", path.name], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    rows = re.findall(r"^\d+\t.*$", done.stdout, re.MULTILINE)
    printed = np.array([[float(x) for x in row.split()[2:]] for row in rows])
    np.testing.assert_allclose(printed, heated_currents(crossbar, COUPLED, g, v).current, rtol=2e-6)


@pytest.mark.ngspice
def test_chips_that_fail_are_said_one_by_one(engine):
    """As an engine: the second chip runs away, the first and third are what they are alone."""
    g, v = array(3, 2)
    chips = np.stack([g, 40 * g, g / 2])
    crossbar = Crossbar("t", 3, 2)
    for running in (NodalEngine(), engine):
        solution = heated(running, COUPLED).solve(crossbar, chips, v[None])
        assert list(solution.status) == [Status.OK, Status.NOT_CONVERGED, Status.OK]
        assert "runs away" in solution.message[1]
        alone = heated_currents(crossbar, COUPLED, chips[2], v, running)
        np.testing.assert_allclose(solution.current[2], alone.current, rtol=1e-9)


def test_an_engine_that_adds_inputs_is_refused():
    with NodalEngine() as under, pytest.raises(EngineError, match="nothing of heat"):
        HeatedEngine(superposed(under), COUPLED)


@pytest.mark.parametrize("time", [[], [0.0, 1.0], [2.0, 1.0]])
def test_times_must_rise_from_above_zero(time):
    g, v = array(2, 2, 1)
    with pytest.raises(InputError, match="time"):
        warm_up(Crossbar("t", 2, 2), COUPLED, g, v[0], np.array(time))
