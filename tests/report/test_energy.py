"""The page shows what inferences cost where the store knows it, and only there."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import spicenn as sn
from spicenn.compiler.energy import COMPONENTS, Energy
from spicenn.errors import ConvergenceError, StoreError
from spicenn.report import numbers, write_report
from spicenn.report.energy import costs, energy_figure, recorded, statement
from spicenn.report.mechanisms import switched_on
from spicenn.report.page import _technology_rows
from spicenn.report.quantity import quantity
from spicenn.study import measure_energy
from spicenn.technology.units import UNITS
from tests.report.conftest import HOSTILE

FAILING = 1


def known(chip: sn.Chip, x: Any, *_: Any, **__: Any) -> Energy:
    """Costs that a test can compute: chip c takes (1 + c) times what chip 0 takes."""
    if chip.index == FAILING:
        raise ConvergenceError(HOSTILE)
    samples, layers = len(x), tuple(layer.name for layer in chip.design.layers)
    energy = np.zeros((samples, len(layers), len(COMPONENTS)))
    energy[:, :, COMPONENTS.index("array")] = 1e-12
    energy[:, 0, COMPONENTS.index("tia")] = 3e-12
    latency = np.array([[10e-9, 20e-9]] * samples)
    factor = 1 + chip.index
    return Energy(layers, factor * energy, factor * latency)


@pytest.fixture
def measured(
    study: xr.Dataset,
    design: sn.Design,
    x: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> xr.Dataset:
    """The study as if it lay in a store, with energies of chips 0, 1 and 2; chip 1 failed."""
    monkeypatch.setattr("spicenn.study.energy.measure", known)
    measure_energy(design, x[:2], chips=3, seed=1, store=tmp_path / "store")
    ds = study.copy()
    ds.encoding["source"] = str(tmp_path / "store")
    return ds


@pytest.mark.ngspice
def test_costs_are_means_over_samples_then_chips_and_failed_chips_are_counted(
    measured: xr.Dataset,
) -> None:
    (found,) = recorded(measured)
    assert (found.mode, found.chips, found.failed, found.samples) == ("hybrid", 3, 1, 2)
    # Chips 0 and 2 take 1 and 3 times 5 pJ and 30 ns: mean 2, deviation √2.
    assert found.total == pytest.approx(10e-12, rel=1e-12, abs=0)
    assert found.total_spread == pytest.approx(np.sqrt(2) * 5e-12, rel=1e-12, abs=0)
    assert found.total_latency == pytest.approx(60e-9, rel=1e-12, abs=0)
    assert found.latency == pytest.approx([20e-9, 40e-9], rel=1e-12, abs=0)
    assert found.layer_energy == pytest.approx([8e-12, 2e-12], rel=1e-12, abs=0)
    assert [found.components[k] for k in found.present] == ["array", "tia"]


@pytest.mark.ngspice
def test_the_page_holds_energy_and_latency_beside_the_score(
    measured: xr.Dataset, tmp_path: Path
) -> None:
    page = write_report(measured, tmp_path / "out", pictures=True)
    text = page.read_text("utf-8")
    section = text[text.index('<section id="energy-hybrid">') :].split("</section>", 1)[0]
    assert "10 ± 7.1 pJ and 60 ± 42 ns" in section
    assert "within 1 % of where they settle" in section
    assert "the median chip of this study has agreement" in section
    assert "free here" in section  # rram-1r declares no cost of conversions
    assert "no figure from a wall plug" in section
    assert section.count("<svg") == 1
    cells = re.findall(r'<td class="cost">([^<]*)</td>', section)
    assert cells[:4] == ["2 ± 1.4", "6 ± 4.2", "8 ± 5.7", "20 ± 14"]
    assert cells[-2:] == ["10 ± 7.1", "60 ± 42"]
    assert "<b>10 pJ</b>" in text
    assert "<b>60 ns</b>" in text
    assert "<script" not in text
    assert (tmp_path / "out" / "energy-hybrid.png").is_file()
    assert "energy-analog" not in text


@pytest.mark.ngspice
def test_a_damaged_record_is_an_error_and_no_page(measured: xr.Dataset, tmp_path: Path) -> None:
    (Path(measured.encoding["source"]) / "energy" / "hybrid" / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="energy/hybrid"):
        write_report(measured, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.ngspice
def test_a_record_of_failed_chips_alone_says_so(
    study: xr.Dataset, design: sn.Design, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spicenn.study.energy.measure", known)
    found = costs(measure_energy(design, x[:1], chips=[FAILING], seed=1))
    assert statement(found, design.technology) == "No chip was measured to its end."
    assert energy_figure(found) is None


def test_a_page_without_energies_says_nothing_of_them(study: xr.Dataset, tmp_path: Path) -> None:
    text = write_report(study, tmp_path / "r.html").read_text("utf-8")
    assert "latency" not in text
    assert "energy" not in text


def test_every_key_that_is_switched_on_is_listed_with_its_unit() -> None:
    """Each key that can be swept, changed alone in an ideal technology, shows under its record."""
    ideal = sn.Technology(name="t", g_min=1e-6, g_max=1e-4, v_read=0.2)
    still = switched_on(ideal)
    assert still.pop("technology") == "g_min 1 µS, g_max 100 µS, v_read 200 mV"
    assert set(still.values()) == {""}
    assert {"variation", "noise", "drift", "periphery.tia"} <= set(still)
    checked = 0
    for key, unit in UNITS.items():
        record, _, name = key.rpartition(".")
        if not unit or not record or key.startswith("variation.a_"):  # those need a transistor
            continue
        changed = switched_on(ideal.replace({key: 0.75}))
        symbol = {"1": "", "ohm": "Ω"}.get(unit, unit)
        assert changed[record].startswith(f"{name} "), key
        assert changed[record].endswith(symbol), key
        checked += 1
    assert checked > 30


def test_the_page_lists_what_is_on_and_what_is_off(study: xr.Dataset, design: sn.Design) -> None:
    stated = numbers(study)
    on = design.with_technology(
        {"variation.stuck_off": 0.01, "noise.flicker": 1e-9, "periphery.tia.gain": 100.0}
    )
    rows = _technology_rows(replace(stated, design=on))
    assert rows["variation"] == "stuck_off 0.01"
    assert rows["noise"] == "flicker 1e-09"
    assert rows["tia"] == "gain 100"
    assert "programming_error 0.05" in rows["technology"]
    assert rows["off or ideal"].split(", ") == [
        "drift", "driver", "dac", "adc", "sample_hold", "comparator", "neuron",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.25e-12, "J", "1.25 pJ"),
        (1e-6, "S", "1 µS"),
        (999.96e-9, "s", "1000 ns"),
        (0.0, "F", "0 F"),
        (-0.002, "V", "-2 mV"),
        (3.9e-3, "1/K", "0.0039 1/K"),
        (0.05, "1", "0.05"),
        (2.0, "ohm", "2 Ω"),
        (1e-21, "J", "0.001 aJ"),
        (float("nan"), "J", "–"),
    ],
)
def test_quantities_read_as_people_write_them(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
