"""The demo runs to its report, and a second run finds everything done."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Shell


@pytest.mark.slow
def test_demo_twice(spicenn: Shell, tmp_path: Path) -> None:
    """The second run simulates no chip, fits nothing and ends with the same page."""
    arguments = (
        "demo", "--out", tmp_path / "a folder", "--chips", 4, "--images", 6, "--engine", "nodal",
        "--workers", 1,
    )  # fmt: skip
    first = spicenn(*arguments)
    assert first.exit_code == 0, first.output
    named = [line.split(maxsplit=1)[1] for line in first.stdout.splitlines() if line[:2] == "  "]
    written = [line for line in first.stdout.splitlines() if str(tmp_path) in line][:8]
    for line in written:
        path = tmp_path / line[line.index("a folder") :]
        assert path.exists(), line
    assert len(written) == 8
    assert sum(" --" in command for command in named) == 3
    page = (tmp_path / "a folder" / "report.html").read_bytes()
    store = tmp_path / "a folder" / "study_6.zarr"
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}

    second = spicenn(*arguments)
    assert second.exit_code == 0, second.output
    assert "of an earlier run" in second.stderr
    assert (tmp_path / "a folder" / "report.html").read_bytes() == page
    after = {path: path.stat().st_mtime_ns for path in store.rglob("*") if path.is_file()}
    assert after == before
