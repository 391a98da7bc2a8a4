"""``spicenn energy`` prints what the API returns, and its exit code says how it went."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spicenn as sn
from spicenn.compiler.energy import measure
from spicenn.errors import ConvergenceError
from spicenn.study import energy_of
from tests.cli.conftest import Files, Shell

pytestmark = pytest.mark.ngspice


@pytest.fixture
def store(files: Files, tmp_path: Path) -> Path:
    return Path(shutil.copytree(files.store, tmp_path / "a.zarr"))


@pytest.mark.slow
def test_energy_is_printed_recorded_and_shown_by_the_report(
    spicenn: Shell, store: Path, tmp_path: Path
) -> None:
    command = ["energy", store, "--samples", 2, "--chips", 2, "--workers", 1]
    said = spicenn(*command)
    assert said.exit_code == 0, said.output
    assert "chips 2/2" in said.stderr
    assert "nothing in the technology 'rram-1r' takes time" in said.stderr
    recorded = energy_of(store)
    assert recorded is not None
    assert dict(recorded.sizes) == {"chip": 2, "sample": 2, "layer": 2, "component": 6}

    again = spicenn(*command, "--json")
    assert again.exit_code == 0, again.output
    found = json.loads(again.stdout)
    per_chip = recorded.energy.sum(["layer", "component"]).mean("sample")
    assert found["energy"]["mean"] == pytest.approx(float(per_chip.mean()), rel=1e-12, abs=0)
    assert found["energy"]["deviation"] == pytest.approx(
        float(per_chip.std(ddof=1)), rel=1e-9, abs=0
    )
    late = recorded.latency.sel(layer="fc2").mean()
    assert found["layers"]["fc2"]["latency"]["mean"] == pytest.approx(float(late), rel=1e-12, abs=0)

    lines = said.stdout.splitlines()
    assert lines[1] == "mode      hybrid, settled within 1 %"
    assert lines[2] == "chips     2 of 2 ok, 2 inputs each"
    parts = [line.split() for line in lines]
    assert ["fc1", "tia"] in [part[:2] for part in parts]
    # Ideal converters are free and a hybrid chip has no neurons: no lines of zeros.
    assert not {"neuron", "dac", "adc"} & {part[1] for part in parts if len(part) > 1}
    assert any(part[:1] == ["inference"] and "±" in part for part in parts)

    page = spicenn("report", store, "-o", tmp_path / "r.html")
    assert page.exit_code == 0, page.output
    assert '<section id="energy-hybrid">' in (tmp_path / "r.html").read_text("utf-8")


def test_a_chip_that_fails_is_named_and_the_exit_code_is_3(
    spicenn: Shell, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = measure

    def sometimes(chip: sn.Chip, *arguments: Any, **options: Any) -> Any:
        if chip.index == 1:
            raise ConvergenceError("no end to it", where="stage fc1")
        return real(chip, *arguments, **options)

    monkeypatch.setattr("spicenn.study.energy.measure", sometimes)
    said = spicenn("energy", store, "--samples", 1, "--chips", 2)
    assert said.exit_code == 3
    assert "chips     1 of 2 ok, 1 input each" in said.stdout
    assert "chip 1: stage fc1: no end to it" in said.stdout
    shown = json.loads(spicenn("energy", store, "--samples", 1, "--chips", 2, "--json").stdout)
    assert (shown["chips"], shown["failed"], shown["energy"]["deviation"]) == (2, 1, None)
    assert np.isfinite(shown["energy"]["mean"])


def test_another_tolerance_than_the_recorded_one_is_one_line(spicenn: Shell, store: Path) -> None:
    command = ["energy", store, "--samples", 1, "--chips", 1]
    assert spicenn(*command).exit_code == 0
    said = spicenn(*command, "--tolerance", 0.05)
    assert said.exit_code == 1
    (line,) = said.stderr.splitlines()
    assert line.startswith("error: ")
    assert "tolerance is 0.01, asked for 0.05" in line
