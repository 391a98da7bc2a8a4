"""What the documents show runs as it stands, and the API reference is current."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def execute(code, folder):
    script = folder / "example.py"
    script.write_text(code, "utf-8")
    # As a plain script without a main guard: what a reader would do.
    return subprocess.run(
        [sys.executable, script.name],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.ngspice
def test_the_readme_example_runs_and_calibrates(tmp_path):
    (code,) = blocks(ROOT / "README.md")
    assert len([line for line in code.splitlines() if line.strip()]) <= 26
    result = execute(code, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].startswith("True")
    assert (tmp_path / "runs" / "chip100" / "manifest.json").is_file()


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.parametrize(
    "page", ["schema", "technology", "circuits", "cosim", "training", "learning"]
)
def test_a_pages_examples_run(page, tmp_path):
    code = blocks(DOCS / f"{page}.md")
    assert code
    result = execute("\n".join(code), tmp_path)
    assert result.returncode == 0, result.stderr


def test_the_api_reference_is_current():
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "api_reference.py"), "--check"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.ngspice
def test_the_tutorial_runs(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(DOCS / "tutorial.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    assert all(
        output.output_type != "error"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    )
