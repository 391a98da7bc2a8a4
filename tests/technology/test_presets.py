"""The presets hold the numbers that they cite, and every one of them carries a network."""

from __future__ import annotations

import math
import tomllib
from importlib.resources import files

import numpy as np
import pytest

from spicenn.seeds import generator
from spicenn.technology import Technology
from spicenn.technology.toml import parse
from spicenn.technology.variation import manufactured, manufactured_moments
from spicenn.technology.writer import dumps


@pytest.mark.parametrize("name", Technology.presets())
def test_presets_round_trip_through_toml(name):
    technology = Technology.preset(name)
    text = dumps(technology)
    assert parse(text, where=name) == technology
    # A cell that ships is named, not copied.
    assert "netlist" not in tomllib.loads(text).get("cell", {})


@pytest.mark.parametrize("name", Technology.presets())
def test_presets_say_what_is_quoted_and_what_is_an_order_of_magnitude(name):
    """Whoever reads a number must be able to tell a citation from a guess."""
    source = Technology.preset(name).source
    assert "rder of magnitude" in source or "rders of magnitude" in source or name == "ideal"
    assert all(character.isprintable() for character in source)


def test_pcm_is_the_published_fit():
    """At five states: σ of programming in µS, mean and σ of ν after a day, 1/f current noise."""
    pcm = Technology.preset("pcm")
    rho = np.array([[0.05, 0.2, 0.5, 0.8, 1.0]])
    target = rho * 25e-6
    _, sigma = manufactured_moments(pcm, target)
    published = (0.26348 + 1.9650 * rho - 1.1731 * rho**2) * 1e-6
    # The least state is cut at no conductance in one of a hundred thousand.
    np.testing.assert_allclose(sigma, published, rtol=1e-3)
    many = np.repeat(target, 20_000, axis=0)
    cells = manufactured(pcm, many, lambda p: generator(1, p), lambda p: generator(1, p))
    nu = cells.parameters["nu"]
    mean = np.clip(-0.0155 * np.log(rho) + 0.0244, 0.049, 0.1)
    spread = np.clip(-0.0125 * np.log(rho) - 0.0059, 0.008, 0.045)
    np.testing.assert_allclose(nu.mean(0), mean[0], atol=5 * spread.max() / math.sqrt(20_000))
    np.testing.assert_allclose(nu.std(0), spread[0], rtol=5 / math.sqrt(40_000))
    # 1/f over 20 s, currents of states uniform in [0, 1] added in square: midpoint rule.
    states = (np.arange(100_000) + 0.5) / 100_000
    q = np.minimum(0.0088 * states**-0.65, 0.2)
    decades = math.log((20.0 + 250e-9) / 500e-9)
    relative = math.sqrt(np.sum((q * states) ** 2) / np.sum(states**2) * decades)
    ours = math.sqrt(pcm.noise.flicker * math.log(pcm.bandwidth / pcm.noise.low_frequency))
    assert ours == pytest.approx(relative, rel=1e-3)


def test_hfox_is_the_published_fit():
    hfox = Technology.preset("hfox-1t1r")
    rho = np.array([[0.0, 0.25, 0.5, 0.75, 1.0]])
    published = 0.348 + 16.030 * rho - 43.853 * rho**2 + 45.393 * rho**3 - 16.815 * rho**4
    assert published.min() > 0
    # Cells far from the floor only: below it the moments are those of what is left.
    _, sigma = manufactured_moments(hfox, rho * 40e-6)
    np.testing.assert_allclose(sigma[:, 1:], published[:, 1:] * 1e-6, rtol=1e-3)
    # Pelgrom: 4.1 mV µm over the square root of 0.6 µm x 0.18 µm.
    many = np.full((200, 200), 20e-6)
    cells = manufactured(hfox, many, lambda p: generator(2, p), lambda p: generator(2, p))
    threshold = cells.parameters["dvt"].std()
    assert threshold == pytest.approx(4.1e-3 / math.sqrt(0.6 * 0.18), rel=5 / math.sqrt(80_000))
    adc = hfox.periphery.adc
    assert adc.energy == pytest.approx(2.47e-6 / 200e3, rel=1e-9, abs=0)
    assert adc.time == pytest.approx(1 / 200e3, rel=1e-9, abs=0)


@pytest.mark.parametrize("name", Technology.presets())
def test_deviations_are_positive_over_the_whole_range(name):
    variation = Technology.preset(name).variation
    rho = np.linspace(0, 1, 1001)
    assert np.polynomial.polynomial.polyval(rho, variation.programming_coefficients).min() > 0


def test_fefet_programs_its_range_within_its_memory_window():
    fefet = Technology.preset("fefet")
    cell = fefet.cell
    slope = cell.parameter("kp") * cell.parameter("w") / cell.parameter("l")
    assert (fefet.g_max - fefet.g_min) / slope == pytest.approx(1.0, abs=0.05)
    assert fefet.g_max / fefet.g_min == pytest.approx(45, rel=0.02)


@pytest.mark.ngspice
@pytest.mark.slow
@pytest.mark.parametrize("name", Technology.presets())
def test_every_preset_carries_a_network_in_both_engines(name):
    """ngspice and the exact solver agree on one chip, and its output follows the model's."""
    import torch

    import spicenn as sn

    torch.manual_seed(0)
    model = torch.nn.Linear(8, 4).double()
    x = torch.rand(10, 8, dtype=torch.float64) - 0.3
    technology = Technology.preset(name)
    design = sn.compile(model, x, technology=technology, calibration=x)
    chip = design.sample(3, seed=1)
    truth = chip.run(x.numpy(), engine="ngspice")
    exact = chip.run(x.numpy(), engine="nodal")
    scale = np.abs(truth).max()
    assert np.abs(truth - exact).max() < 1e-6 * scale
    ideal = model(x).detach().numpy()
    assert np.corrcoef(truth.ravel(), ideal.ravel())[0, 1] > 0.95
    fraction = np.abs(truth - ideal).max() / np.abs(ideal).max()
    assert fraction < 1e-9 if name == "ideal" else fraction > 1e-3


def test_shipped_cells_are_named_in_the_files():
    folder = files("spicenn.technology") / "presets"
    for name in Technology.presets():
        table = tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))
        assert set(table.get("cell", {})) <= {"name", "parameters"}
