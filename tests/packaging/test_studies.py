"""Every study runs: ``studies/*/run.py --smoke``, found by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(path.parent for path in (ROOT / "studies").glob("*/run.py"))


def test_every_study_folder_can_be_run() -> None:
    folders = [path for path in (ROOT / "studies").glob("[!_.]*") if path.is_dir()]
    assert [path.name for path in sorted(folders)] == [path.name for path in STUDIES]


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_smoke(study: Path, tmp_path: Path) -> None:
    # From elsewhere: a study may not depend on the folder it is called from.
    done = subprocess.run(
        [sys.executable, str(study / "run.py"), "--smoke"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
