"""``fit`` and ``calibrate`` take every family, and ``report`` shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spicenn.cli.fit import fit
from spicenn.surrogate import Surrogate
from spicenn.surrogate.family import FAMILIES
from spicenn.surrogate.latent_files import load, load_chip
from tests.cli.conftest import Files, Shell


def test_the_command_knows_the_packages_families() -> None:
    (option,) = [p for p in fit.params if p.name == "family"]
    assert tuple(getattr(option.type, "choices", ())) == FAMILIES


@pytest.mark.parametrize("family", ["neural", "linear"])
def test_fit_calibrate_and_report(
    spicenn: Shell, files: Files, tmp_path: Path, family: str
) -> None:
    """Files go from command to command; a verdict decides the exit code, not the family."""
    made = spicenn("fit", files.store, "--family", family, "-o", tmp_path / "s.pt", "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout) == {
        "surrogate": str(tmp_path / "s.pt"),
        "family": family,
        "chips": 4,
    }
    assert load(tmp_path / "s.pt").provenance["family"] == family
    calibrated = spicenn(
        "calibrate", tmp_path / "s.pt", "--probes", files.x, "--chip", 9, "--seed", 1,
        "--engine", "nodal", "-o", tmp_path / "m.pt", "--json",
    )  # fmt: skip
    verdict = json.loads(calibrated.stdout)
    assert calibrated.exit_code == (0 if verdict["success"] else 3), calibrated.output
    kind = load_chip(tmp_path / "m.pt").provenance["kind"]
    assert kind == ("chip" if verdict["success"] else "population")
    reported = spicenn(
        "report", files.store, "--surrogate", tmp_path / "s.pt", "--calibrated",
        tmp_path / "m.pt", "--chip", 2, "-o", tmp_path / "r.html",
    )  # fmt: skip
    assert reported.exit_code == 0, reported.output


def test_wires_are_a_chips_own_where_it_is_said(
    spicenn: Shell, files: Files, tmp_path: Path
) -> None:
    """The structural family keeps their spread; another has none."""
    made = spicenn("fit", files.store, "--wires", "0.5", "-o", tmp_path / "s.pt")
    assert made.exit_code == 0, made.output
    assert Surrogate.load(tmp_path / "s.pt").wires == 0.5
    refused = spicenn(
        "fit", files.store, "--wires", "0.5", "--family", "linear", "-o", tmp_path / "l.pt"
    )
    assert refused.exit_code == 2
    assert not (tmp_path / "l.pt").exists()


def test_outputs_of_nothing_are_refused(spicenn: Shell, files: Files, tmp_path: Path) -> None:
    made = spicenn("fit", files.store, "--family", "linear", "-o", tmp_path / "s.pt")
    assert "fitted the linear family to 4 chips" in made.stdout
    np.save(tmp_path / "noise.npy", np.random.default_rng(0).normal(0, 50, (12, 3)))
    result = spicenn(
        "calibrate", tmp_path / "s.pt", "--probes", files.x, "--outputs", tmp_path / "noise.npy",
        "-o", tmp_path / "m.pt",
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    assert result.stdout.startswith("success   no: ")


def test_an_unknown_family_is_named(spicenn: Shell, files: Files, tmp_path: Path) -> None:
    result = spicenn("fit", files.store, "--family", "magic", "-o", tmp_path / "s.pt")
    assert result.exit_code == 2
    assert "'structural', 'neural', 'linear'" in result.stderr
