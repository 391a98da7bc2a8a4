"""The package's root: every public name is there, and importing it is light."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import spicenn

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", spicenn.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(spicenn, name) is not None
    assert name in dir(spicenn)


@pytest.mark.parametrize("name", ["calibrate", "compile", "fit", "monte_carlo"])
def test_functions_are_not_the_modules_of_the_same_name(name: str) -> None:
    assert callable(getattr(spicenn, name))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = spicenn.no_such_name  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", ["spicenn", "spicenn.technology", "spicenn.circuit"])
def test_light_imports_load_no_heavy_library(module: str) -> None:
    heavy = ("torch", "dask", "distributed", "xarray", "zarr", "sklearn", "matplotlib", "PySpice")
    code = f"import sys, {module}; print(*(set({heavy!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_netlists_travel_by_a_symlink() -> None:
    link = ROOT / "spicenn" / "netlists"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "netlists"


def test_the_licence_is_stated_where_it_is_looked_for() -> None:
    assert (ROOT / "LICENSE").read_text().lstrip().startswith("GNU GENERAL PUBLIC LICENSE")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "GPL-3.0-or-later"


def test_ci_runs_the_test_command_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert [line for line in lines[1:] if line and not line.startswith("cd ")] == [
        "set -euo pipefail",
        "exec make test",
    ]
