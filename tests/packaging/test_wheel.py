"""The built wheel, alone in a fresh environment, runs a chip in ngspice outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from scripts.setup_venv import pinned

ROOT = Path(__file__).resolve().parents[2]
ONE_CHIP = Path(__file__).with_name("one_chip.py")


def run(*argv: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed, without this checkout on its path."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in argv],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_carries_data_and_nothing_of_the_checkout(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"spicenn", "spicenn-0.1.0.dist-info"}
    assert "spicenn/py.typed" in names
    assert "spicenn/technology/presets/ideal.toml" in names
    hand_written = {path.name for path in (ROOT / "netlists").glob("*.lib")}
    assert {
        Path(name).name for name in names if name.startswith("spicenn/netlists/")
    } >= hand_written
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.timeout(480)
def test_a_fresh_environment_runs_a_chip(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "fresh"
    venv.EnvBuilder(with_pip=True, symlinks=True).create(home)
    python = home / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    # Byte code is left to the first import: most of what is installed is never imported here.
    pip = (python, "-m", "pip", "install", "-q", "--no-compile", "-c", constraints)
    run(*pip, pinned(constraints.read_text(), "torch"), cwd=tmp_path)
    run(*pip, wheel, cwd=tmp_path)
    assert str(home) in run(python, "-c", "import spicenn; print(spicenn.__file__)", cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    assert "ok" in run(python, ONE_CHIP, cwd=tmp_path)
    assert "compile" in run(home / "bin" / "spicenn", "--help", cwd=tmp_path)
