"""Every mechanism of manufacture: its distribution, its moments, its independence of the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from spicenn.errors import TechnologyError
from spicenn.seeds import Purpose, generator
from spicenn.technology import Cell, Corner, Drift, Technology, Variation
from spicenn.technology.units import UNITS
from spicenn.technology.variation import (
    G_FLOOR,
    Site,
    correlated_field,
    drift_exponent,
    manufactured,
    manufactured_moments,
    wafer_position,
)

G_MAX = 1e-4
BASE = Technology(name="t", g_min=1e-6, g_max=G_MAX, v_read=0.2)
TRANSISTOR = Cell(
    "switched",
    ".subckt switched wordline bitline g=1u w=1u l=0.25u dvt=0 beta=1\n"
    "R1 wordline bitline {1/g}\n.ends switched\n",
)

# Each mechanism alone, at a size that is seen.
ALONE: dict[str, dict[str, Any]] = {
    "normal": {"programming_error": 0.05},
    "lognormal": {"programming_error": 0.1, "variation.programming_law": "lognormal"},
    "state-dependent": {
        "programming_error": 0.1,
        "variation.programming_law": "state-dependent",
        "variation.programming_coefficients": (0.2, 1.0, -0.5),
    },
    "cycle": {"variation.cycle_to_cycle": 0.03},
    "gradient": {"variation.gradient": 0.1},
    "correlated": {"variation.correlated": 0.08, "variation.correlation_length": 3.0},
    "wafer": {"variation.wafer": 0.2},
    "stuck_on": {"variation.stuck_on": 0.1},
    "stuck_off": {"variation.stuck_off": 0.1},
    "dead_wordlines": {"variation.dead_wordlines": 0.1},
    "dead_bitlines": {"variation.dead_bitlines": 0.1},
    "drift": {"drift.time": 1e4, "drift.nu": (0, 0.05, 0, 1), "drift.nu_sigma": (0, 0.02, 0, 1)},
}


def draw(technology: Technology, target: Any, chip: int = 0, site: Site | None = None, **key: int):
    def of(**more: int) -> Callable[[Purpose], np.random.Generator]:
        return lambda purpose: generator(2024, purpose, chip=chip, **more)

    return manufactured(technology, np.asarray(target), of(**key), of(), site)


def changed(name: str) -> Technology:
    return BASE.replace(ALONE[name])


def test_nothing_varies_unless_it_is_switched_on():
    target = np.linspace(1e-6, 1e-4, 12).reshape(3, 4)
    cells = draw(BASE, target)
    np.testing.assert_array_equal(cells.g, target)
    assert cells.parameters == {}
    mean, sigma = manufactured_moments(BASE, target)
    np.testing.assert_array_equal(mean, target)
    assert not sigma.any()


@pytest.mark.parametrize("name", ALONE)
def test_each_mechanism_alone_changes_cells_and_is_the_same_again(name):
    target = np.full((30, 30), 5e-5)
    site = Site(-0.5, 0.5, -0.5, 0.5)
    first, again = (draw(changed(name), target, site=site).g for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, draw(BASE, target).g)
    assert not np.array_equal(first, draw(changed(name), target, chip=1, site=site).g)


@pytest.mark.parametrize("name", ALONE)
def test_one_more_mechanism_leaves_the_draws_of_the_others(name):
    """The programming error that is left after the other's factor or cells are taken out."""
    target = np.full((20, 20), 5e-5)
    alone = draw(BASE.replace(programming_error=0.01), target).g
    both = BASE.replace({"programming_error": 0.01, **ALONE[name]})
    if "programming_error" in ALONE[name]:
        z = [draw(BASE.replace(programming_error=e), target).g - target for e in (0.01, 0.02)]
        np.testing.assert_allclose(2 * z[0], z[1], rtol=1e-9)
        return
    other = draw(changed(name), target).g
    mixed = draw(both, target).g
    if name == "cycle":
        np.testing.assert_allclose(mixed - other, alone - target, rtol=1e-9)
    elif name in ("stuck_on", "stuck_off", "dead_wordlines", "dead_bitlines"):
        same = other == target
        np.testing.assert_array_equal(mixed[same], alone[same])
        assert (mixed[~same] == other[~same]).all()
        assert (~same).any()
    else:
        np.testing.assert_allclose(mixed / alone, other / target, rtol=1e-12)


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("level", [1e-6, 1e-4])
def test_moments_over_chips_are_those_in_closed_form(name, level):
    """1,500 chips of 4 cells: means within 5 standard errors, deviations within 10 %."""
    target = np.full((2, 2), level)
    site = Site(-0.4, 0.4, -0.4, 0.4)
    g = np.stack([draw(changed(name), target, chip, site).g for chip in range(1500)])
    mean, sigma = manufactured_moments(changed(name), target, site)
    assert (np.abs(g.mean(0) - mean) <= 5 * sigma / np.sqrt(len(g)) + 1e-18).all()
    np.testing.assert_allclose(g.std(0), sigma, rtol=0.1, atol=1e-15)


def test_moments_of_all_mechanisms_together():
    """3,000 chips of 9 cells, every mechanism on: mean within 3 %, deviation within 10 %."""
    changes: dict[str, Any] = {}
    for name, each in ALONE.items():
        if name not in ("lognormal", "state-dependent"):
            changes |= {k: 0.02 if k.startswith("variation.stuck") else v for k, v in each.items()}
    technology, target = BASE.replace(changes), np.full((3, 3), 5e-5)
    site = Site(-0.4, 0.4, -0.4, 0.4)
    g = np.stack([draw(technology, target, chip, site).g for chip in range(3000)])
    mean, sigma = manufactured_moments(technology, target, site)
    np.testing.assert_allclose(g.mean(0), mean, rtol=0.03)
    np.testing.assert_allclose(g.std(0), sigma, rtol=0.1)


def test_programming_error_follows_its_law():
    """40,000 cells against each distribution; Kolmogorov-Smirnov at 1 %."""
    target = np.full((200, 200), 5e-5)
    normal = draw(changed("normal"), target).g.ravel()
    assert stats.kstest(normal, stats.norm(5e-5, 5e-6).cdf).pvalue > 0.01
    log = np.log(draw(changed("lognormal"), target).g.ravel() / 5e-5)
    assert stats.kstest(log, stats.norm(-0.005, 0.1).cdf).pvalue > 0.01
    polynomial = 0.1 * (0.2 + 0.5 - 0.5 * 0.25) * G_MAX
    state = draw(changed("state-dependent"), target).g.ravel()
    assert stats.kstest(state, stats.norm(5e-5, polynomial).cdf).pvalue > 0.01
    # The test has the power to tell them apart.
    assert stats.kstest(np.exp(log) * 5e-5, stats.norm(5e-5, 5e-6).cdf).pvalue < 1e-6


def test_a_cell_never_conducts_less_than_the_floor():
    g = draw(changed("normal"), np.full((200, 200), 1e-6)).g
    assert g.min() == G_FLOOR


def test_cycles_differ_and_the_device_stays():
    technology = BASE.replace({"programming_error": 0.05, "variation.cycle_to_cycle": 0.02})
    target = np.full((100, 100), 5e-5)

    def cycle(number: int) -> Any:
        def tile(purpose: Purpose) -> np.random.Generator:
            trial = number if purpose is Purpose.CYCLE_TO_CYCLE else 0
            return generator(1, purpose, trial=trial)

        return manufactured(technology, target, tile, lambda p: generator(1, p)).g

    first, second = cycle(0), cycle(1)
    # Common part 0.05, own part 0.02: correlation 25/29, within 4 standard errors.
    expected = 25 / 29
    found = np.corrcoef(first.ravel(), second.ravel())[0, 1]
    assert abs(found - expected) < 4 * (1 - expected**2) / 100


@pytest.mark.parametrize("length", [2.0, 5.0])
def test_a_correlated_field_has_the_stated_correlation(length):
    """600 fields of 24 x 24: along, across and diagonal, within 0.05 at every distance."""
    rng = np.random.default_rng(3)
    fields = np.stack([correlated_field(rng, (24, 24), length) for _ in range(600)])
    assert fields.std() == pytest.approx(1.0, rel=0.05)
    for d in range(0, 12, 2):
        along = np.mean(fields[:, :, 0] * fields[:, :, d])
        down = np.mean(fields[:, 0, :] * fields[:, d, :])
        diagonal = np.mean(fields[:, : 24 - d, : 24 - d] * fields[:, d:, d:])
        expected = np.exp(-(d**2) / (2 * length**2))
        np.testing.assert_allclose([along, down], expected, atol=0.06)
        assert diagonal == pytest.approx(np.exp(-(d**2) / length**2), abs=0.06)
    single = fields[:, 7, 11]
    assert stats.kstest(single, "norm").pvalue > 0.01


def test_a_gradient_is_one_plane_over_all_tiles_of_a_die():
    technology = changed("gradient")
    whole = draw(technology, np.full((8, 8), 5e-5), site=Site(-0.5, 0.5, -0.5, 0.5)).g
    # The lower right quarter, as a tile of its own.
    x = np.linspace(-0.5, 0.5, 8)
    quarter = Site(x[4], x[7], x[4], x[7])
    part = draw(technology, np.full((4, 4), 5e-5), site=quarter, row=3, column=1).g
    np.testing.assert_allclose(part, whole[4:, 4:], rtol=1e-12)
    # A plane: its second differences vanish.
    assert np.abs(np.diff(whole, 2, axis=0)).max() < 1e-18
    edges = [
        draw(technology, np.full((1, 1), 5e-5), chip, Site(0.5, 0.5, 0, 0)).g
        for chip in range(2000)
    ]
    assert np.std(edges) / 5e-5 == pytest.approx(0.05, rel=0.08)  # half of 0.1, centre to edge


def test_dies_cover_the_wafer_evenly_and_its_edge_differs_from_its_centre():
    positions = np.array([wafer_position(generator(1, Purpose.WAFER, chip=c)) for c in range(4000)])
    squared = np.square(positions).sum(1)
    assert stats.kstest(squared, "uniform").pvalue > 0.01
    g = np.array([draw(changed("wafer"), [[5e-5]], chip).g[0, 0] for chip in range(200)])
    r2 = np.array(
        [
            np.sum(np.square(wafer_position(generator(2024, Purpose.WAFER, chip=c))))
            for c in range(200)
        ]
    )
    np.testing.assert_allclose(g, 5e-5 * (1 + 0.2 * (r2 - 0.5)), rtol=1e-12)


def test_stuck_cells_and_dead_lines_occur_as_often_as_stated():
    """Counts within 4 binomial standard errors."""
    target = np.full((300, 300), 5e-5)
    on = draw(changed("stuck_on"), target).g
    off = draw(changed("stuck_off"), target).g
    for share in (np.mean(on == G_MAX), np.mean(off == G_FLOOR)):
        assert abs(share - 0.1) < 4 * np.sqrt(0.09 / 90_000)
    rows = draw(changed("dead_wordlines"), target).g == G_FLOOR
    columns = draw(changed("dead_bitlines"), target).g == G_FLOOR
    assert (rows.all(1) == rows.any(1)).all()
    assert (columns.all(0) == columns.any(0)).all()
    assert abs(rows.any(1).mean() - 0.1) < 4 * np.sqrt(0.09 / 300)
    assert abs(columns.any(0).mean() - 0.1) < 4 * np.sqrt(0.09 / 300)


def test_mismatch_follows_pelgrom():
    """σ(V_T) = A_VT / √(W L): 40,000 transistors, deviations within 3 %, KS at 1 %."""
    technology = BASE.replace(
        {"cell": TRANSISTOR, "variation.a_vt": 5e-9, "variation.a_beta": 2e-8}
    )
    parameters = draw(technology, np.full((200, 200), 5e-5)).parameters
    sigma = 5e-9 / np.sqrt(1e-6 * 0.25e-6)  # 10 mV
    assert stats.kstest(parameters["dvt"].ravel(), stats.norm(0, sigma).cdf).pvalue > 0.01
    assert parameters["beta"].std() == pytest.approx(0.04, rel=0.03)
    quarter = technology.replace(cell=Cell(TRANSISTOR.name, TRANSISTOR.netlist, (("w", 4e-6),)))
    halved = draw(quarter, np.full((200, 200), 5e-5)).parameters["dvt"]
    np.testing.assert_allclose(halved, parameters["dvt"] / 2, rtol=1e-12)


def test_corners_move_transistors_as_they_say():
    corners = (Corner("tt"), Corner("ss", threshold=0.03, beta=0.9))
    technology = BASE.replace(cell=TRANSISTOR, corners=corners)
    assert draw(technology, [[5e-5]]).parameters == {}
    slow = draw(technology.replace(corner="ss"), [[5e-5]]).parameters
    assert (slow["dvt"], slow["beta"]) == (0.03, 0.9)


def test_mismatch_without_a_transistor_is_refused():
    with pytest.raises(TechnologyError, match="no transistor"):
        BASE.replace({"variation.a_vt": 5e-9})


def test_corner_and_temperature_scale_every_conductance():
    corners = (Corner("tt"), Corner("ff", conductance=1.1))
    hot = BASE.replace(corners=corners, corner="ff", conductance_tc=-1e-3, temperature=350.0)
    target = np.array([[1e-6, 1e-4]])
    np.testing.assert_allclose(draw(hot, target).g, 1.1 * 0.95 * target, rtol=1e-15)
    np.testing.assert_allclose(manufactured_moments(hot, target)[0], 1.1 * 0.95 * target)


def test_pcm_drift_is_linear_in_the_logarithm_of_time_with_an_exponent_per_device():
    """aihwkit's published form; ν within 4 standard errors of its mean, KS at 1 %."""
    drift = Drift(nu=(-0.0155, 0.0244, 0.049, 0.1), nu_sigma=(-0.0125, -0.0059, 0.008, 0.045))
    pcm = BASE.replace(drift=drift)
    target = np.full((100, 100), 3e-5)
    logs = [
        np.log(draw(pcm.replace({"drift.time": t}), target).g / target) for t in (0.0, 1e3, 1e6)
    ]
    assert not logs[0].any()
    ratio = np.log1p(1e6 / 20) / np.log1p(1e3 / 20)
    np.testing.assert_allclose(logs[2], ratio * logs[1], rtol=1e-9)
    nu = -logs[1] / np.log1p(1e3 / 20)
    mean, sigma = drift_exponent(pcm, target[:1, :1])
    assert mean[0, 0] == max(0.049, -0.0155 * np.log(0.3) + 0.0244)
    assert stats.kstest(nu.ravel(), stats.norm(mean[0, 0], sigma[0, 0]).cdf).pvalue > 0.01


def test_a_cell_that_drifts_by_itself_gets_its_exponent():
    cell = Cell(
        "aging",
        ".subckt aging wordline bitline g=1u nu=0 t=0 t0=20\n"
        "R1 wordline bitline {1/(g*((t+t0)/t0)**(-nu))}\n.ends aging\n",
    )
    plain, own = changed("drift"), changed("drift").replace(cell=cell)
    target = np.full((5, 5), 5e-5)
    cells = draw(own, target)
    np.testing.assert_array_equal(cells.g, target)
    np.testing.assert_allclose(
        cells.g * (1 + 1e4 / 20) ** -cells.parameters["nu"], draw(plain, target).g, rtol=1e-12
    )


@given(
    st.sampled_from(["stuck_on", "stuck_off", "dead_wordlines", "dead_bitlines"]),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_larger_probability_keeps_every_defect(key, small, large):
    small, large = sorted((small, large))
    target = np.full((12, 12), 5e-5)
    few, many = (
        draw(BASE.replace({f"variation.{key}": p}), target).g != target for p in (small, large)
    )
    assert (few <= many).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variation.stuck_on": 1.5}, ["stuck_on", "1.5", "[0, 1]"]),
        ({"variation.stuck_on": 0.6, "variation.stuck_off": 0.6}, ["stuck_on + stuck_off"]),
        ({"variation.correlation_length": 0.0}, ["correlation_length", "(0"]),
        ({"variation.programming_law": "gamma"}, ["gamma", "lognormal"]),
        ({"drift.nu": (0.0, 0.0, 1.0, 0.5)}, ["low"]),
        ({"conductance_tc": -0.02, "temperature": 400.0}, ["conductance_tc", "400 K"]),
        ({"periphery.tia.gain": -1.0}, ["gain", "-1.0"]),
        ({"variation.nope": 1.0}, ["nope", "known"]),
        ({"name.nope": 1.0}, ["name"]),
    ],
)
def test_bad_values_of_inner_records_are_refused(change, words):
    with pytest.raises(TechnologyError) as error:
        BASE.replace(change)
    for word in words:
        assert word in str(error.value)


def test_every_number_of_a_technology_has_a_unit():
    from dataclasses import fields, is_dataclass

    def keys(record: Any, prefix: str = "") -> set[str]:
        found = set()
        for field in fields(record):
            value = getattr(record, field.name)
            if is_dataclass(value) and field.name != "cell":
                found |= keys(value, f"{prefix}{field.name}.")
            elif value is None or isinstance(value, float):
                found.add(prefix + field.name)
        return found

    assert keys(BASE) == {key for key, unit in UNITS.items() if unit}
    assert Variation() == BASE.variation
