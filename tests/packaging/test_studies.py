"""Every study runs: ``studies/*/run.py --smoke``, found by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted(path.parent for path in (ROOT / "studies").glob("*/run.py"))


def test_every_study_has_a_readme_and_a_name_that_types_check_under() -> None:
    described = sorted(path.parent for path in (ROOT / "studies").glob("*/README.md"))
    assert described == STUDIES
    # The type checker tells the studies' run.py apart by the folder, as a package.
    assert [path.name for path in STUDIES if not path.name.isidentifier()] == []


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_smoke(study: Path, tmp_path: Path) -> None:
    # From elsewhere: a study may not depend on the folder it is called from.
    done = subprocess.run(
        [sys.executable, str(study / "run.py"), "--smoke"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=220,  # of busy machines; 10 s a part is the aim
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
