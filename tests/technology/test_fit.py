"""Measured devices become a technology: what was put in comes out, within its stated error."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError, TechnologyError
from spicenn.seeds import generator
from spicenn.technology import Cell, Corner, Drift, Technology, Variation
from spicenn.technology.fit import Fitted, fit_technology, load_conductances
from spicenn.technology.fit.current import fit_current
from spicenn.technology.fit.drift import fit_drift
from spicenn.technology.fit.programming import Cells, fit_programming, lognormal_likelihood
from spicenn.technology.fit.table import Table, read_table
from spicenn.technology.library import load_cell
from spicenn.technology.toml import load, parse
from spicenn.technology.variation import manufactured
from spicenn.technology.writer import dumps, save

BASE = Technology(name="t", g_min=1e-6, g_max=25e-6, v_read=0.2)
# A fitted value may lie this many of its standard errors off the truth: one of a thousand
# values would not, and the seeds are fixed.
SIGMAS = 3.3


def write(path: Path, header: str, columns: Sequence[Any], separator: str = ",") -> Path:
    """A CSV file with full precision."""
    rows = zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    lines = [separator.join(header.split(",")), *(separator.join(map(str, r)) for r in rows)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def draw(technology: Technology, target: np.ndarray, seed: int, cycle: int = 0) -> np.ndarray:
    """Manufactured cells, from the sampler that chips are made with."""

    def tile(purpose):
        trial = cycle if purpose.name == "CYCLE_TO_CYCLE" else 0
        return generator(seed, purpose, trial=trial)

    return manufactured(technology, target, tile, tile).g


def near(fitted: Any, error: Any, truth: float) -> bool:
    assert error is not None
    assert error > 0
    return bool(abs(fitted - truth) < SIGMAS * error)


def rows(fitted: Fitted) -> dict[str, Any]:
    return {row.key: row for row in fitted.rows}


def curves(path: Path, v0: float | None, noise: float, count: int, seed: int = 1) -> Path:
    """Current-voltage curves of devices of 2 to 80 µS, noise relative to the largest current."""
    rng = np.random.default_rng(seed)
    v, i, device = [], [], []
    for index, g in enumerate(np.geomspace(2e-6, 80e-6, count)):
        sweep = np.linspace(-0.5, 0.5, 21)
        ideal = g * sweep if v0 is None else g * v0 * np.sinh(sweep / v0)
        v.append(sweep)
        i.append(ideal + noise * np.abs(ideal).max() * rng.standard_normal(len(sweep)))
        device += [f"d{index}"] * len(sweep)
    columns = [np.concatenate(v), np.concatenate(i), device]
    return write(path, "voltage [V],current [A],device", columns)


# Current-voltage curves


@pytest.mark.parametrize("v0", [0.2, 0.3, 0.6])
def test_sinh_curves_give_their_v0_and_conductances(tmp_path, v0):
    path = curves(tmp_path / "iv.csv", v0, 0.01, 12)
    fitted = fit_technology([path])
    row = rows(fitted)
    assert fitted.technology.cell == load_cell("sinh", v0=row["cell.parameters.v0"].value)
    assert near(row["cell.parameters.v0"].value, row["cell.parameters.v0"].error, v0)
    assert near(fitted.technology.g_min, row["g_min"].error, 2e-6)
    assert near(fitted.technology.g_max, row["g_max"].error, 80e-6)
    assert row["residual of the current"].value == pytest.approx(
        0.01 * math.sqrt(21) / np.linalg.norm(np.sinh(np.linspace(-0.5, 0.5, 21) / v0))
        * math.sinh(0.5 / v0), rel=0.2,
    )  # fmt: skip
    # Read where the current is 5 % above the ohmic one.
    x = fitted.technology.v_read / row["cell.parameters.v0"].value
    assert math.sinh(x) / x == pytest.approx(1.05, rel=1e-6)


def test_v0_is_within_its_error_as_often_as_it_should_be(tmp_path):
    """Of 60 data sets 68 % should lie within one standard error: 28 to 52 at five sigma."""
    inside = 0
    for seed in range(60):
        row = fit_current([read_table(curves(tmp_path / "iv.csv", 0.3, 0.02, 4, seed))]).rows[1]
        assert row.key == "cell.parameters.v0"
        inside += abs(row.value - 0.3) < row.error
    assert 28 <= inside <= 52


def test_ohmic_curves_stay_ohmic(tmp_path):
    fitted = fit_technology([curves(tmp_path / "iv.csv", None, 0.01, 25)])
    assert fitted.technology.cell.is_ohmic
    assert fitted.technology.v_read == 0.5
    assert "cell.parameters.v0" not in rows(fitted)
    note = rows(fitted)["g_max"].note
    assert note.startswith("95% quantile of 25 curves")
    assert 2e-6 < fitted.technology.g_min < 3e-6
    assert 60e-6 < fitted.technology.g_max < 80e-6


def test_noiseless_curves_are_exact(tmp_path):
    technology = Technology.fit([curves(tmp_path / "iv.csv", 0.25, 0.0, 3)]).technology
    assert technology.cell.parameter("v0") == pytest.approx(0.25, rel=1e-6)
    assert technology.g_max == pytest.approx(80e-6, rel=1e-6)


# Programming


def programming_file(
    path: Path, technology: Technology, levels: np.ndarray, each: int, seed: int, cycles: int = 0
) -> Path:
    target = np.repeat(levels[:, np.newaxis], each, axis=1)
    device = np.arange(target.size)
    if not cycles:
        g = draw(technology, target, seed)
        columns = [target.ravel(), g.ravel(), device]
        return write(path, "target [S],programmed [S],device", columns)
    drawn = [draw(technology, target, seed, cycle).ravel() for cycle in range(cycles)]
    columns = [
        np.tile(target.ravel(), cycles), np.concatenate(drawn), np.tile(device, cycles),
        np.repeat(np.arange(cycles), target.size),
    ]  # fmt: skip
    return write(path, "target [S],programmed [S],device,cycle", columns)


LEVELS = np.linspace(2e-6, 25e-6, 8)
# Programming error, law, and a spread from cycle to cycle that counts beside it.
LAWS = {
    "normal": (0.05, Variation(), 0.05),
    # So wide that the law's mean, the target, is far from its median.
    "lognormal": (1.0, Variation(programming_law="lognormal"), 0.004),
    "state-dependent": (
        0.01,
        Variation(programming_law="state-dependent", programming_coefficients=(1.05, 7.86, -4.69)),
        0.02,
    ),
}


@pytest.mark.parametrize("cycles", [0, 2])
@pytest.mark.parametrize("law", LAWS)
def test_each_law_is_told_from_the_others_and_its_spread_comes_back(tmp_path, law, cycles):
    spread, variation, by_cycle = LAWS[law]
    technology = BASE.replace(
        {
            "programming_error": spread,
            "variation": variation,
            "variation.cycle_to_cycle": by_cycle if cycles else 0.0,
        }
    )
    path = programming_file(tmp_path / "p.csv", technology, LEVELS, 100, 5, cycles)
    fitted = fit_technology([path])
    row = rows(fitted)
    result = fitted.technology
    assert result.variation.programming_law == law
    assert (result.g_min, result.g_max) == (2e-6, 25e-6)
    if cycles:
        assert near(
            result.variation.cycle_to_cycle, row["variation.cycle_to_cycle"].error, by_cycle
        )
    else:
        assert result.variation.cycle_to_cycle == 0.0
    if law != "state-dependent":
        assert near(result.programming_error, row["programming_error"].error, spread)
        return
    rho = LEVELS / 25e-6
    truth = spread * np.polynomial.polynomial.polyval(rho, variation.programming_coefficients)
    rms = math.sqrt(np.mean(truth**2))
    assert near(result.programming_error, row["programming_error"].error, rms)
    c = result.variation.programming_coefficients
    errors = row["variation.programming_coefficients"].error
    scaled = np.array(variation.programming_coefficients) * spread / rms
    assert len(c) == 3
    assert all(near(*item) for item in zip(c, errors, scaled, strict=True))
    # The deviation at every level, within the errors that Fisher's information allows.
    x = rho[:, np.newaxis] ** np.arange(3)
    total = np.sqrt(truth**2 + (by_cycle**2 / cycles if cycles else 0.0))
    weighed = x * (truth / total**2)[:, np.newaxis]
    allowed = np.sqrt(np.diag(x @ np.linalg.inv(2 * 100 * weighed.T @ weighed) @ x.T))
    found = result.programming_error * np.polynomial.polynomial.polyval(rho, c)
    assert np.all(np.abs(found - truth) < SIGMAS * allowed)


def test_cells_cut_at_the_floor_do_not_bias_the_spread(tmp_path):
    """Targets within a deviation of nothing, so that a third of the cells is cut."""
    technology = BASE.replace({"programming_error": 0.05})
    levels = np.array([0.2e-6, 0.5e-6, 0.8e-6, 1.25e-6])
    path = programming_file(tmp_path / "p.csv", technology, levels, 200, 3)
    g = read_table(path).numbers["conductance"]
    assert 0.2 < np.mean(g <= 1e-12) < 0.4
    fitted = fit_technology([path], given={"g_min": 0.0, "g_max": 25e-6})
    assert fitted.technology.variation.programming_law == "normal"
    error = rows(fitted)["programming_error"].error
    assert near(fitted.technology.programming_error, error, 0.05)


@pytest.mark.parametrize("s", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("noise", [1e-8, 3e-7, 2e-6])
def test_lognormal_cells_with_cycles_have_the_convolution_as_likelihood(s, noise):
    """Against adaptive integration over the cycles' deviation."""
    from scipy.integrate import quad

    target = 5e-6
    for g in (2e-6, 4.5e-6, 5e-6, 9e-6):

        def integrand(z, g=g):
            """Density of the law where the cycles' deviation is g - x, over its own z."""
            x = target * math.exp(s * z - s**2 / 2)
            return math.exp(-0.5 * z**2 - 0.5 * ((g - x) / noise) ** 2) / (2 * math.pi * noise)

        # Where x = g, and where z is likely.
        peak = (math.log(g / target) + s**2 / 2) / s
        width = noise / (g * s)
        near_peak = [peak + k * width for k in (-8, 0, 8)]
        ends = (min(-9.0, near_peak[0]), max(9.0, near_peak[2]))
        exact, _ = quad(
            integrand, *ends, points=[*near_peak, 0.0], epsabs=0, epsrel=1e-9, limit=500
        )
        cells = Cells(np.array([target]), np.array([g]), np.array([noise]))
        found = lognormal_likelihood(cells, np.array([True]), s)
        assert found == pytest.approx(math.log(exact), abs=1e-4)


def test_the_stated_error_of_a_spread_is_its_scatter_over_data_sets(tmp_path):
    """40 data sets: their scatter is known to 11 %, and is the stated error within 35 %."""
    found: list[Any] = []
    stated: list[Any] = []
    for seed in range(40):
        technology = BASE.replace({"programming_error": 0.05})
        path = programming_file(tmp_path / "p.csv", technology, LEVELS[2:5], 40, seed)
        row = fit_programming([read_table(path)], 25e-6).rows[1]
        assert row.key == "programming_error"
        found.append(row.value)
        stated.append(row.error)
    assert np.std(found) == pytest.approx(np.mean(stated), rel=0.35)
    assert abs(np.mean(found) - 0.05) < 4 * np.mean(stated) / math.sqrt(40)


def test_a_bias_is_reported_for_no_law_has_one(tmp_path):
    rng = np.random.default_rng(0)
    target = np.full(200, 10e-6)
    g = target + 1e-6 + 5e-7 * rng.standard_normal(200)
    path = write(tmp_path / "p.csv", "target [S],programmed [S]", [target, g])
    row = rows(fit_technology([path], given={"g_min": 0.0, "g_max": 20e-6}))["bias of programming"]
    assert near(row.value, row.error, 0.05)
    assert "more than three standard errors" in row.note


# Drift


def drift_file(path: Path, drift: Drift, devices: int, seed: int, noise: float = 0.01) -> Path:
    rng = np.random.default_rng(seed)
    target = 25e-6 * np.exp(rng.uniform(math.log(0.02), 0.0, (devices, 1)))
    times = np.geomspace(1.0, 1e6, 13)
    g = [
        draw(
            BASE.replace({"drift": drift, "drift.time": float(time)}), target, seed
        ).ravel()
        for time in times
    ]  # fmt: skip
    read = np.array(g) * np.exp(noise * rng.standard_normal((len(times), devices)))
    columns = [
        np.repeat(times, devices), read.ravel(), np.tile(np.arange(devices), len(times)),
        np.tile(target.ravel(), len(times)),
    ]  # fmt: skip
    return write(path, "time [s],conductance [S],device,target [S]", columns)


def clipped(form: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    return np.clip(form[0] * x + form[1], form[2], form[3])


PCM = Drift(nu=(-0.0155, 0.0244, 0.049, 0.1), nu_sigma=(-0.0125, -0.0059, 0.008, 0.045))


def test_pcm_drift_comes_back_over_rho(tmp_path):
    """The published PCM form, drawn by the chips' sampler: ν and its spread at five levels."""
    table = read_table(drift_file(tmp_path / "d.csv", PCM, 600, 7))
    finding = fit_drift([table], 25e-6)
    row = {item.key: item for item in finding.rows}
    assert near(row["drift.t0"].value, row["drift.t0"].error, 20.0)
    x = np.log([0.03, 0.1, 0.3, 0.6, 0.95])
    np.testing.assert_allclose(
        clipped(row["drift.nu"].value, x), clipped(PCM.nu, x), atol=0.006
    )  # three standard errors of ν at 120 devices to a level
    np.testing.assert_allclose(
        clipped(row["drift.nu_sigma"].value, x), clipped(PCM.nu_sigma, x), atol=0.005
    )
    assert row["residual of ln g"].value == pytest.approx(0.01, rel=0.05)


def test_a_line_of_drift_is_within_its_errors(tmp_path):
    drift = Drift(nu=(-0.01, 0.05, 0.0, 1.0), nu_sigma=(0.0, 0.01, 0.01, 0.01), t0=20.0)
    table = read_table(drift_file(tmp_path / "d.csv", drift, 150, 3))
    finding = fit_drift([table], 25e-6)
    nu: Any
    sigma: Any
    _, nu, sigma, _ = finding.rows
    assert "a line by BIC" in nu.note
    assert near(nu.value[0], nu.error[0], -0.01)
    assert near(nu.value[1], nu.error[1], 0.05)
    assert "a constant by BIC" in sigma.note
    assert near(sigma.value[1], sigma.error[1], 0.01)
    assert sigma.value[0] == 0.0
    assert sigma.error[0] is None


def test_late_readings_do_not_invent_a_reference_time(tmp_path):
    """Long after t0 drift is a pure power law: t0 is bounded from above, and said so."""
    rng = np.random.default_rng(0)
    times = np.tile(np.geomspace(1e4, 1e7, 10), 8)
    device = np.repeat(np.arange(8), 10)
    g = 1e-5 * times**-0.05 * np.exp(0.002 * rng.standard_normal(80))
    path = write(tmp_path / "d.csv", "t [s],g [S],device", [times, g, device])
    fitted = fit_technology([path])
    row = rows(fitted)["drift.t0"]
    assert row.origin == "suggested"
    assert row.error is None
    assert fitted.technology.drift.t0 <= 1e4
    given = rows(fit_technology([path], given={"drift.t0": 20.0}))["drift.t0"]
    assert (given.value, given.origin) == (20.0, "given")


def test_devices_that_drift_alike_have_no_spread(tmp_path):
    """With 10 % of read noise a slope errs by 0.007, which is no spread of devices."""
    drift = Drift(nu=(0.0, 0.05, 0.05, 0.05), t0=20.0)
    table = read_table(drift_file(tmp_path / "d.csv", drift, 60, 1, noise=0.1))
    row = {item.key: item for item in fit_drift([table], 25e-6, t0=20.0).rows}
    assert row["residual of ln g"].value == pytest.approx(0.1, rel=0.1)
    assert max(row["drift.nu_sigma"].value[2:]) < 0.0035


# All together


@pytest.mark.slow
@pytest.mark.ngspice
def test_several_files_make_one_technology_that_compiles(tmp_path):
    """Curves, programming and drift together; the file loads and carries a network."""
    import torch

    import spicenn as sn

    technology = BASE.replace({"programming_error": 0.03, "drift": PCM})
    files = [
        curves(tmp_path / "iv.csv", 0.3, 0.01, 6),
        programming_file(tmp_path / "p.csv", technology, LEVELS, 20, 2),
        drift_file(tmp_path / "d.csv", PCM, 40, 4),
    ]
    fitted = fit_technology(files, name="mine", base="rram-1r", given={"read_noise": 0.02})
    path = tmp_path / "mine.toml"
    fitted.save(path)
    assert list(tmp_path.glob("*.partial")) == []
    loaded = Technology.from_toml(path)
    assert loaded == fitted.technology
    assert loaded.name == "mine"
    assert loaded.r_wordline == 2.0
    assert loaded.read_noise == 0.02
    origins = {row.key: row.origin for row in fitted.rows}
    assert origins["r_wordline"] == "assumed"
    assert origins["read_noise"] == "given"
    assert origins["programming_error"] == "fitted"
    for file in files:
        assert file.name in loaded.source
        assert hashlib.sha256(file.read_bytes()).hexdigest() in loaded.source
    for words in ("126 points, 6 devices", "160 points, 160 devices", "520 points, 40 devices"):
        assert words in loaded.source
    assert "assumed, from 'rram-1r': r_wordline" in loaded.source
    assert "read_noise" not in loaded.source.split("assumed")[1].split("Source")[0]
    torch.manual_seed(0)
    design = sn.compile(torch.nn.Linear(3, 2), torch.rand(2, 3), technology=loaded)
    assert design.technology == loaded
    (g,) = design.sample(0, 1).conductances().values()
    assert np.isfinite(g).all()
    y = design.sample(0, 1).run(torch.rand(5, 3).numpy(), engine="ngspice")
    assert np.isfinite(y).all()


def test_what_is_fitted_cannot_be_given_too(tmp_path):
    path = programming_file(tmp_path / "p.csv", BASE.replace(programming_error=0.1), LEVELS, 5, 1)
    with pytest.raises(InputError, match="programming_error is given, and the data determine it"):
        fit_technology([path], given={"programming_error": 0.1})
    with pytest.raises(TechnologyError, match="'colour' is not a key"):
        fit_technology([path], given={"colour": 1.0})
    with pytest.raises(InputError, match=r"p\.csv, line \d+, column 'target \[S\]'.*g_max = 1e-05"):
        fit_technology([path], given={"g_max": 1e-5})


# Reading

UNITS = {"": 1.0, "m": 1e3, "u": 1e6, "µ": 1e6, "n": 1e9, "k": 1e-3}


@given(
    separator=st.sampled_from([",", ";", "\t"]),
    units=st.tuples(*[st.sampled_from(list(UNITS))] * 2),
    style=st.sampled_from(["{} [{}]", "{}[{}]", "{} ({})", "{}_{}", " {} [ {} ] "]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    decimal_comma=st.booleans(),
    swap=st.booleans(),
    quoted=st.booleans(),
    comments=st.booleans(),
)
def test_units_separators_and_layout_change_nothing(
    tmp_path_factory, separator, units, style, newline, decimal_comma, swap, quoted, comments
):
    target, g = np.array([1.0, 2.5, 0.125]) * 1e-6, np.array([1.25, 2.0, 0.0]) * 1e-6
    columns = []
    for name, unit, values in (("target", units[0], target), ("programmed", units[1], g)):
        texts = [repr(float(value * UNITS[unit])) for value in values]
        if decimal_comma and separator != ",":
            texts = [text.replace(".", ",") for text in texts]
        columns.append([style.format(name, unit + "S"), *texts])
    if swap:
        columns.reverse()
    quote = '"{}"' if quoted else "{}"
    lines = [
        separator.join(quote.format(word) for word in row) for row in zip(*columns, strict=True)
    ]
    if comments:
        lines = ["# measured on a Monday", "", *lines[:2], "  # a pause", "", *lines[2:]]
    path = tmp_path_factory.mktemp("csv") / "data.csv"
    path.write_bytes(("\ufeff" * comments + newline.join(lines)).encode())
    table = read_table(path)
    assert table.kind == "programming"
    np.testing.assert_allclose(table.numbers["target"], target, rtol=1e-15)
    np.testing.assert_allclose(table.numbers["conductance"], g, rtol=1e-15)


def test_numpys_own_header_is_a_header(tmp_path):
    path = tmp_path / "iv.csv"
    data = np.array([[-0.1, -1.0], [0.1, 1.0], [0.2, 2.0]])
    np.savetxt(path, data, delimiter=",", header="voltage [V],current [uA]")
    table = read_table(path)
    assert table.kind == "current-voltage"
    np.testing.assert_allclose(table.numbers["current"], data[:, 1] * 1e-6, rtol=1e-15)
    assert table.lines == (2, 3, 4)


def test_hours_and_days_are_times(tmp_path):
    path = write(tmp_path / "d.csv", "time [h],conductance [S]", [[0.5, 2.0], [1e-6, 1e-6]])
    assert read_table(path).numbers["time"].tolist() == [1800.0, 7200.0]


IV = "voltage [V],current [A],device\n"
PROG = "target [S],programmed [S],device\n"
TIME = "time [s],conductance [S],device\n"
# What is in the file, the line and the column that the error names, words of it.
BAD = [
    ("", 1, "1", "empty"),
    ("# only a comment\n\n", 1, "1", "empty"),
    ("1.0,2.0\n3,4\n", 1, "1", "no header"),
    ("voltage [V],current [A]\n", 2, "voltage [V]", "no data"),
    ("voltage [V],colour [A]\n1,2\n", 1, "colour [A]", "unknown"),
    ("voltage [V],v [V],current [A]\n1,2,3\n", 1, "v [V]", "both the voltage"),
    ("voltage [V],conductance [S]\n1,2\n", 1, "conductance [S]", "none of the known"),
    ("voltage [V],device\n1,2\n", 1, "device", "none of the known"),
    ("target [S],conductance [V]\n1,2\n", 1, "conductance [V]", "is in 'V', expected is S"),
    ("target [S],conductance [s]\n1,2\n", 1, "conductance [s]", "is in 's', expected is S"),
    ("target [S],conductance [MS]\n1,2\n", 1, "conductance [MS]", "capitals count"),
    ("target,conductance [S]\n1,2\n", 1, "target", "has no unit"),
    ("target [S],conductance []\n1,2\n", 1, "conductance []", "has no unit"),
    (IV.replace("device", "device [V]") + "1,2,3\n", 1, "device [V]", "has no unit"),
    (IV + "1,2,a\n1,nan,a\n", 3, "current [A]", "'nan' is not a finite number"),
    (IV + "1,2,a\n-inf,2,a\n", 3, "voltage [V]", "'-inf' is not a finite number"),
    (IV + "1,2,a\n\n1,two,a\n", 4, "current [A]", "'two' is not a finite number"),
    (IV + "1,,a\n", 2, "current [A]", "missing"),
    (IV + "1,1_0,a\n", 2, "current [A]", "'1_0'"),
    (IV + "1,٣,a\n", 2, "current [A]", "not a finite number"),
    (IV + "1,1e999,a\n", 2, "current [A]", "out of range"),
    (IV + "1,2,\n", 2, "device", "is empty"),
    (IV + "1,2\n", 2, "device", "2 values where the header has 3"),
    (IV + "1,2,a,b\n", 2, "device", "4 values where the header has 3"),
    (IV + "1,1,a\n2,2,a\n1,1,b\n", 4, "voltage [V]", "a single point"),
    (IV + "0,1,a\n1,2,a\n", 2, "voltage [V]", "a single point"),
    (IV + "1,-1,a\n2,-2,a\n3,-3,a\n", 2, "current [A]", "does not rise"),
    (IV + "1,1,a\n2,2,a\n3,9,a\n4,1,a\n", 4, "current [A]", "does not rise"),
    (IV + "1,0,a\n2,0,a\n3,0,a\n", 2, "current [A]", "no current"),
    (PROG + "1e-6,-1e-6,a\n", 2, "programmed [S]", "negative conductance"),
    (PROG + "-1e-6,1e-6,a\n", 2, "target [S]", "negative target"),
    (PROG + "1e-6,2e-6,a\n2e-6,1e-6,b\n", 2, "programmed [S]", "2 devices are too few"),
    (PROG + "".join(f"1e-6,1e-6,{k}\n" for k in range(9)), 2, "programmed [S]", "no spread"),
    (
        PROG.replace("device", "cycle") + "".join(f"{k}e-6,1e-6,1\n" for k in range(9)),
        2, "cycle", "no column device",
    ),
    (
        PROG.replace("device", "device,cycle") + "".join(f"{k}e-6,1e-6,{k},1\n" for k in range(9)),
        2, "cycle", "too few repeated cycles",
    ),
    (TIME + "-1,1e-6,a\n1,1e-6,a\n", 2, "time [s]", "negative time"),
    (TIME + "1,1e-6,a\n2,0,a\n", 3, "conductance [S]", "not positive"),
    (TIME + "1,1e-6,a\n3,1e-6,a\n2,1e-6,a\n", 4, "time [s]", "goes back"),
    (TIME + "1,1e-6,a\n1,1e-6,a\n", 2, "time [s]", "a single point"),
    (TIME + "1,1e-6,a\n2,1e-6,a\n1,1e-6,b\n2,1e-6,b\n", 2, "time [s]", "2 devices are too few"),
    (
        TIME.replace("device", "device,target [S]") + "1,1e-6,a,1e-6\n2,1e-6,a,2e-6\n",
        3, "target [S]", "two targets",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "words"), BAD)
def test_every_bad_file_is_refused_with_file_line_and_column(tmp_path, text, line, column, words):
    path = tmp_path / "bad.csv"
    path.write_text(text, "utf-8")
    with pytest.raises(InputError) as caught:
        fit_technology([path])
    title = column if column == "1" else repr(column)
    assert caught.value.where == f"{path}, line {line}, column {title}"
    assert words in str(caught.value)


def test_files_that_are_no_text_or_not_there_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path)
    path = tmp_path / "data.csv"
    path.write_bytes(b"voltage [V],current [A]\n\xff\xfe,1\n")
    with pytest.raises(InputError, match="line 2: is not text in UTF-8"):
        read_table(path)
    path.write_bytes(b"PK\x03\x04\x00\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_table(path)
    path.write_text('voltage [V],"current [A]\n1,2\n')
    with pytest.raises(InputError, match="line 1: is not CSV"):
        read_table(path)
    with pytest.raises(InputError, match="no file is given"):
        fit_technology([])


def test_groups_without_labels_are_one(tmp_path):
    table = read_table(write(tmp_path / "iv.csv", "v [V],i [A]", [[0.1, 0.2], [1.0, 2.0]]))
    assert [group.tolist() for group in table.groups("device", "state")] == [[0, 1]]
    assert isinstance(table, Table)


# Writing

SUBCIRCUIT = '.subckt mine w b g=1u k="2"\nB1 w b i={g}*v(w,b)\n.ends mine\n'.replace('"', "")


@pytest.mark.parametrize(
    "technology",
    [
        BASE,
        BASE.replace(cell=load_cell("sinh", v0=0.3)),
        BASE.replace(cell=Cell("mine", SUBCIRCUIT, (("k", 3.0),))),
        # A user's own cell under the name of one of ours keeps its text.
        BASE.replace(cell=Cell("sinh", SUBCIRCUIT.replace("mine", "sinh"))),
        BASE.replace({"drift": PCM, "periphery.tia.gain": 1e4, "noise.flicker": 1e-3}),
        BASE.replace(name='a "b"\n# c = 1', source='three """ quotes\\ and\na line'),
        Technology.preset("rram-1r"),
    ],
)
def test_a_written_technology_reads_back_the_same(technology, tmp_path):
    assert parse(dumps(technology), where="here") == technology
    technology.to_toml(tmp_path / "t.toml")
    assert load(tmp_path / "t.toml") == technology
    assert [path.name for path in tmp_path.iterdir()] == ["t.toml"]


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(TechnologyError, match="cannot be written"):
        save(BASE, tmp_path / "none" / "t.toml")
    (tmp_path / "t.toml").mkdir()
    with pytest.raises(TechnologyError, match="cannot be written"):
        save(BASE, tmp_path / "t.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["t.toml"]


def test_a_bases_text_cannot_leave_its_comment(tmp_path):
    corners = (Corner("tt"), Corner("x\nprogramming_error = 9\n"))
    base = BASE.replace(name="x\nprogramming_error = 9", corners=corners)
    fitted = fit_technology([curves(tmp_path / "iv.csv", None, 0.01, 3)], base=base)
    assert parse(fitted.to_toml(), where="here") == fitted.technology


# Conductance maps


def test_maps_are_read_from_npz_and_csv(tmp_path):
    a, b = np.arange(6.0).reshape(2, 3) * 1e-6, np.ones((1, 2), np.float32)
    np.savez(tmp_path / "maps.npz", fc1_r0_c0=a, fc2_r0_c0=b)
    maps = load_conductances(tmp_path / "maps.npz")
    assert list(maps) == ["fc1_r0_c0", "fc2_r0_c0"]
    np.testing.assert_array_equal(maps["fc1_r0_c0"], a)
    assert maps["fc2_r0_c0"].dtype == np.float64
    np.savetxt(tmp_path / "fc1_r0_c0.csv", a, delimiter=";", header="siemens")
    ((name, array),) = load_conductances(str(tmp_path / "fc1_r0_c0.csv")).items()
    assert name == "fc1_r0_c0"
    np.testing.assert_array_equal(array, a)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        ([[1.0, np.nan]], "'tile', wordline 0, bitline 1: nan S is not finite"),
        ([[1.0], [-1e-6]], "wordline 1, bitline 0: -1e-06 S is negative"),
        ([1.0, 2.0], "shape (2,)"),
        (np.ones((0, 2)), "shape (0, 2)"),
        ([[1j]], "complex128"),
        ([["a"]], "not a number"),
        ([[True]], "bool"),
    ],
)
def test_maps_that_are_none_are_refused(tmp_path, array, words):
    path = tmp_path / "m.npz"
    np.savez(path, tile=np.asarray(array))
    with pytest.raises(InputError) as caught:
        load_conductances(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_map_never_unpickles(tmp_path):
    mark = tmp_path / "pwned"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (mark,))

    path = tmp_path / "m.npz"
    np.savez(path, tile=np.array([Evil()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        load_conductances(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("m.npz", b"PK nothing", "not a NumPy archive"),
        ("m.csv", b"1,2\n3\n", "line 2: 1 values where the first row has 2"),
        ("m.csv", b"1,2\n3,x\n", "line 2, column 2: 'x' is not a finite number"),
        ("m.csv", b"# none\n", "empty"),
        ("m.csv", b"\xff\n", "UTF-8"),
        ("m.npy", b"", "neither a .npz nor a .csv"),
    ],
)
def test_map_files_that_cannot_be_read_are_refused(tmp_path, name, data, words):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_conductances(path)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="no such file"):
        load_conductances(tmp_path / "absent.npz")
