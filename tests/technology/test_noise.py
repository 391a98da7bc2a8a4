"""Series have the spectra of theory, closed forms are their integrals, traps wait exponentially.

A periodogram's bins are independent chi-square variables of two degrees each (Hann's
window: 1.94 bins count as one), so an average of n of them lies within the quantiles of
2 n degrees. Bounds here are those at 1e-4 to either side.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.signal import welch
from scipy.stats import chi2, kstest

from spicenn.errors import InputError
from spicenn.technology import Noise, Technology
from spicenn.technology.noise import (
    BOLTZMANN,
    ELEMENTARY_CHARGE,
    cell_series,
    flicker_density,
    flicker_integral,
    flicker_series,
    flicker_variance,
    lorentzian_integral,
    read_noise,
    rtn_density,
    rtn_is_slow,
    rtn_reads,
    rtn_series,
    rtn_static_variance,
    rtn_switches,
    rtn_traps,
    rtn_variance,
    shot_density,
    shot_noise,
    thermal_density,
    thermal_noise,
    white_series,
)

BASE: dict[str, Any] = {"name": "t", "g_min": 1e-6, "g_max": 1e-4, "v_read": 0.2}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def bounds(count: float, tail: float = 1e-4) -> tuple[float, float]:
    """Quantiles of the mean of ``count`` independent bins of a periodogram over its truth."""
    low, high = chi2.ppf([tail, 1 - tail], 2 * count) / (2 * count)
    return float(low), float(high)


def assert_spectrum(
    series: Any,
    dt: float,
    density: Any,
    *,
    window: str = "hann",
    first: int = 8,
    last: float = 0.5,
    events: float = math.inf,
) -> None:
    """Ratios of the periodograms' mean to the density, averaged over each octave, are 1.

    events : of a process whose power goes with their number, which scatters as Poisson's.
    """
    f, found = welch(
        series, fs=1 / dt, window=window, nperseg=series.shape[-1], detrend=False, axis=-1
    )
    ratio = found.reshape(-1, f.size).mean(axis=0)[1:-1] / density(f[1:-1])
    independent = math.prod(series.shape[:-1]) / (1.94 if window == "hann" else 1.0)
    edge = first
    while 2 * edge <= last * f.size * 2:
        part = ratio[edge - 1 : 2 * edge - 1]
        low, high = bounds(1 / (1 / (independent * part.size) + 1 / events))
        assert low < part.mean() < high, (edge, part.mean(), low, high)
        edge *= 2
    assert edge > first


def test_densities_are_those_of_theory():
    assert thermal_density(1e-3, 300.0) == pytest.approx(1.657e-23, rel=1e-3, abs=0)
    assert shot_density(-1e-3, 1.0) == pytest.approx(3.204e-22, rel=1e-3, abs=0)
    # At qV = 2kT, a tunnel junction's shot noise is as large as a resistor's thermal noise.
    v = 2 * BOLTZMANN * 300.0 / ELEMENTARY_CHARGE
    assert shot_density(1e-5 * v, 1.0) == pytest.approx(
        float(thermal_density(1e-5, 300.0)), rel=1e-12, abs=0
    )
    np.testing.assert_allclose(flicker_density([1.0, 10.0], 2e-6, 1e-4), [4e-16, 4e-17])
    # Half of the plateau at the corner 1 / (2 π τ).
    plateau, corner = rtn_density([0.0, 1 / (2 * math.pi * 1e-3)], 1e-6, 0.3, 1e-3)
    assert plateau == pytest.approx(4 * 0.21 * 1e-3 * 1e-12, rel=1e-12, abs=0)
    assert corner == pytest.approx(plateau / 2, rel=1e-12, abs=0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1e8), (1e3, 1e4), (1e5, 1e6), (2.0, 1.0)])
def test_closed_forms_are_the_integrals_of_the_densities(low, high):
    def integral(density: Any) -> float:
        if high <= low:
            return 0.0
        return float(quad(lambda u: density(math.exp(u)) * math.exp(u), *np.log([low, high]))[0])

    expected = integral(lambda f: float(flicker_density(f, 1.0, 1.0)))
    assert flicker_integral(low, high) == pytest.approx(expected, rel=1e-9)
    for duty, time in ((0.5, 1e-3), (0.1, 3e-7), (0.9, 10.0)):
        expected = integral(lambda f, p=duty, t=time: float(rtn_density(f, 1.0, p, t)))
        found = duty * (1 - duty) * lorentzian_integral(time, low, high)
        assert found == pytest.approx(expected, rel=1e-6, abs=0)
    assert lorentzian_integral(1e-3, 0.0, 1e15) == pytest.approx(1.0)


def test_what_a_read_sees_follows_from_the_densities():
    technology = Technology(
        **BASE, bandwidth=1e8,
        noise=Noise(shot=0.5, flicker=1e-6, rtn_amplitude=0.1, rtn_duty=0.25, rtn_time=1e-2),
    )  # fmt: skip
    g, v = rng().uniform(1e-6, 1e-4, (4, 3)), rng(1).uniform(-0.2, 0.2, (5, 4))
    shot = ELEMENTARY_CHARGE * np.abs(v[:, :, None] * g).sum(axis=1) * 1e8
    np.testing.assert_allclose(np.square(shot_noise(technology, g, v)), shot)
    assert flicker_variance(technology) == pytest.approx(1e-6 * math.log(1e8))
    assert rtn_variance(technology) == pytest.approx(
        0.01 * 0.1875 * (1 - 2 / math.pi * math.atan(2 * math.pi * 1e-2)), rel=1e-6
    )
    quiet = technology.replace(bandwidth=0.0)
    assert not shot_noise(quiet, g, v).any()
    assert (flicker_variance(quiet), rtn_variance(quiet), rtn_static_variance(quiet)) == (0, 0, 0)
    assert not read_noise(quiet, g, v).any()
    assert not thermal_noise(quiet, g).any()


def test_white_series_have_their_density_at_every_frequency():
    dt, density = 1e-9, np.array([1e-22, 4e-20])
    series = white_series(density, dt, 4096, rng())
    assert series.shape == (2, 4096)
    for each, s in zip(series, density, strict=True):
        assert_spectrum(each[None], dt, lambda f, s=s: np.full(f.shape, s), window="boxcar")
    # χ²: 8192 squares over their variance.
    total = (np.square(series) / (density[:, None] / (2 * dt))).sum()
    assert chi2.ppf(1e-4, 8192) < total < chi2.ppf(1 - 1e-4, 8192)


@pytest.mark.parametrize("low_frequency", [1e-3, 1e3])
def test_flicker_series_are_one_over_f_over_three_decades(low_frequency):
    dt, count = 1e-6, 4096
    series = flicker_series((64,), dt, count, rng(), low_frequency=low_frequency)
    # The record resolves 244 Hz; where the corner is above it, from 2 kHz on.
    assert_spectrum(series, dt, lambda f: 1 / f, first=16)


def test_flicker_series_have_all_the_power_above_their_corner():
    """About zero, where a record's own mean is most of its power: 4000 records."""
    dt, count = 1e-6, 64
    for low in (1e-3, 10.0, 1e5):
        series = flicker_series((4000,), dt, count, rng(), low_frequency=low)
        expected = flicker_integral(low, 1 / (2 * dt))
        variance = np.square(series).mean(axis=0)
        low_bound, high_bound = chi2.ppf([1e-5, 1 - 1e-5], 4000) / 4000
        assert (variance > low_bound * expected).all()
        assert (variance < high_bound * expected).all()
    assert not flicker_series((3,), 1.0, 8, rng(), low_frequency=1.0).any()


def test_rtn_series_are_lorentzians_with_their_corner():
    time, duty, step = 1e-3, 0.3, 2e-6
    dt = time / 50
    series = rtn_series(np.full(1000, step), duty, time, dt, 4096, rng())
    more: dict[str, Any] = {"first": 4, "events": 2 * duty * (1 - duty) * series.size / 50}
    assert_spectrum(series, dt, lambda f: rtn_density(f, step, duty, time), last=0.05, **more)
    # Above that the sampled process is what is seen: it folds what is beyond the band.
    rho = math.exp(-dt / time)

    def sampled(f: Any) -> Any:
        whole = 2 * dt * duty * (1 - duty) * step**2 * (1 - rho**2)
        return whole / (1 - 2 * rho * np.cos(2 * math.pi * f * dt) + rho**2)

    assert_spectrum(series, dt, sampled, **more)
    assert set(np.unique(series)) == {step * duty, step * (duty - 1)}


@pytest.mark.parametrize("duty", [0.5, 0.1])
def test_traps_dwell_exponentially_and_start_stationary(duty):
    time, duration = 1e-3, 40.0
    filled, switches = rtn_switches((2000,), duty, time, 40 * time, rng())
    # Filled for the share duty: at first, after a while, and on average.
    sigma = math.sqrt(duty * (1 - duty) / 2000)
    for at in (0.0, time, 39 * time):
        state = (filled + (switches <= at).sum(axis=-1)) % 2
        assert abs(state.mean() - duty) < 4 * sigma
    first, times = rtn_switches((), duty, time, duration, rng(1))
    times = times[np.isfinite(times)]
    assert 0 < times[0] < times[-1] <= duration
    dwells = np.diff(times)
    was_filled = bool(first) ^ (np.arange(1, len(dwells) + 1) % 2 == 1)
    for state, mean in ((True, time / (1 - duty)), (False, time / duty)):
        part = dwells[was_filled == state]
        assert len(part) > 3000
        assert kstest(part, "expon", args=(0, mean)).pvalue > 1e-3
        # The other state's mean is not it.
        assert kstest(part, "expon", args=(0, 1.3 * mean)).pvalue < 1e-4


def test_traps_of_one_state_never_switch():
    for duty in (0.0, 1.0):
        filled, switches = rtn_switches((5,), duty, 1e-3, 1.0, rng())
        assert (filled == bool(duty)).all()
        assert switches.size == 0
        assert not rtn_series(np.ones(5), duty, 1e-3, 1e-4, 10, rng()).any()


def test_dwells_drawn_in_several_rounds_are_one_process(monkeypatch):
    monkeypatch.setattr("spicenn.technology.noise._DWELLS_AT_ONCE", 6)
    _, times = rtn_switches((3,), 0.4, 1e-3, 1.0, rng())
    finite = times[np.isfinite(times)]
    expected = 3 * 2 * 0.24 * 1.0 / 1e-3
    assert abs(finite.size - expected) < 5 * math.sqrt(expected)
    for each in times:
        assert (np.diff(each[np.isfinite(each)]) > 0).all()


@pytest.mark.parametrize("time", [1e-2, 1.0])
def test_reads_of_slow_traps_have_the_power_in_the_band(time):
    """200 chips of 50 traps, 60 reads: within a chip and between chips, within 4 %."""
    technology = Technology(
        **BASE, bandwidth=1e3,
        noise=Noise(rtn_share=0.5, rtn_amplitude=0.1, rtn_duty=0.3, rtn_time=time),
    )  # fmt: skip
    assert rtn_is_slow(technology)
    traps, filled = rtn_traps(technology, (200, 50), rng())
    assert abs(traps.mean() - 0.5) < 5 * 0.5 / 100
    reads = np.stack([rtn_reads(technology, filled, rng(k + 1)) for k in range(60)])
    assert reads.var(axis=0, ddof=1).mean() == pytest.approx(rtn_variance(technology), rel=0.04)
    whole = rtn_variance(technology) + rtn_static_variance(technology)
    assert np.square(reads).mean() == pytest.approx(whole, rel=0.04)
    assert abs(reads.mean()) < 5 * math.sqrt(whole / (200 * 50))


def all_on(**noise: Any) -> Technology:
    values = {
        "shot": 1.0, "flicker": 1e-6, "rtn_share": 0.5, "rtn_amplitude": 0.05, "rtn_time": 1e-7,
    }  # fmt: skip
    return Technology(**BASE, bandwidth=1e8, noise=Noise(**{**values, **noise}))


def test_a_cells_series_is_the_sum_of_its_mechanisms_spectra():
    technology = all_on(rtn_share=1.0, low_frequency=1e3)
    g, current, dt = 1e-5, 2e-6, 2e-9
    series = cell_series(technology, np.full(256, g), np.full((256, 1), current), dt, 4096, rng())

    def density(f: Any) -> Any:
        noise = technology.noise
        return (
            thermal_density(g, technology.temperature)
            + shot_density(current, noise.shot)
            + flicker_density(f, current, noise.flicker)
            + rtn_density(f, noise.rtn_amplitude * current, noise.rtn_duty, noise.rtn_time)
        )

    assert_spectrum(series, dt, density, last=0.05)


def test_one_mechanism_in_time_changes_no_others_draw():
    g, current = np.full((3, 2), 1e-5), rng().uniform(-1e-6, 1e-6, (3, 2, 50))

    def drawn(**noise: Any) -> Any:
        return cell_series(all_on(**noise), g, current, 1e-9, 50, rng(7))

    off: dict[str, Any] = {"shot": 0.0, "flicker": 0.0, "rtn_share": 0.0}
    thermal = drawn(**off)
    assert thermal.shape == (3, 2, 50)
    assert thermal.any()
    alone = {key: drawn(**{k: v for k, v in off.items() if k != key}) - thermal for key in off}
    assert all(part.any() for part in alone.values())
    np.testing.assert_allclose(drawn(), thermal + sum(alone.values()), rtol=0, atol=1e-20)
    quiet = all_on().replace(bandwidth=0.0)
    assert not cell_series(quiet, g, current, 1e-9, 50, rng(7)).any()
    # Traps given are the ones there are.
    traps = np.zeros((3, 2), np.bool_)
    traps[1, 1] = True
    technology = all_on(shot=0.0, flicker=0.0)
    found = cell_series(technology, g, current, 1e-9, 50, rng(7), traps) - thermal
    assert np.flatnonzero(found.any(axis=-1)).tolist() == [3]


@pytest.mark.parametrize(
    ("dt", "count"), [(0.0, 3), (-1.0, 3), (math.nan, 3), (1.0, 0), (1.0, 2.0)]
)
def test_wrong_steps_are_named(dt, count):
    for draw in (
        lambda: white_series(1.0, dt, count, rng()),
        lambda: flicker_series((), dt, count, rng(), low_frequency=1.0),
        lambda: rtn_series(1.0, 0.5, 1.0, dt, count, rng()),
    ):
        with pytest.raises(InputError, match="positive"):
            draw()
    with pytest.raises(InputError, match="low_frequency"):
        flicker_series((), 1.0, 3, rng(), low_frequency=0.0)
