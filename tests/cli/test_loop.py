"""The commands together do what the API does, from a model to a report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from time import sleep

import numpy as np
import pytest

import spicenn as sn
from spicenn.study import open_record
from tests.cli.conftest import Files, Shell


@pytest.mark.slow
@pytest.mark.ngspice
def test_the_whole_loop_in_ngspice(
    spicenn: Shell, files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compile, run, fit, calibrate and report; each --json parses and names its file."""
    monkeypatch.chdir(files.folder)
    design, store = tmp_path / "out" / "net.spicenn", tmp_path / "out" / "s.zarr"
    compiled = spicenn(
        "compile", "tiny_model:build", "--trust-model", "--example", files.x, "-o", design,
        "--netlists", tmp_path / "nets", "--chip", 7, "--seed", 3, "--tile", "32x32", "--json",
    )  # fmt: skip
    assert compiled.exit_code == 0, compiled.output
    data = json.loads(compiled.stdout)
    assert data["tile"] == [32, 32]
    assert [layer["cells"] for layer in data["layers"]] == [17 * 12, 7 * 6]
    assert data["hash"] == sn.Design.load(design).hash
    assert (tmp_path / "nets" / "fc1_r0_c0.cir").is_file()

    ran = spicenn(
        "run", design, files.x, "--chips", 3, "--seed", 3, "--store", store, "--workers", 1,
        "--json",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["status"] == {"ok": 3}
    assert "chips 3/3" in ran.stderr
    record = open_record(store)
    assert record.attrs["engine"] == "ngspice"
    alone = sn.Design.load(design).sample(chip=2, seed=3).run(np.load(files.x), engine="nodal")
    np.testing.assert_allclose(record["output"].sel(chip=2, trial=0), alone, rtol=1e-4, atol=1e-6)

    again = spicenn("run", design, files.x, "--chips", 3, "--seed", 3, "--store", store)
    assert again.exit_code == 0
    assert "3 of 3 ok" in again.stdout

    fitted = spicenn("fit", store, "-o", tmp_path / "s.pt", "--json")
    assert fitted.exit_code == 0, fitted.output
    assert json.loads(fitted.stdout)["chips"] == 3

    calibrated = spicenn(
        "calibrate", tmp_path / "s.pt", "--probes", files.x, "--chip", 9, "--seed", 3,
        "--engine", "nodal", "-o", tmp_path / "chip.pt", "--json",
    )  # fmt: skip
    verdict = json.loads(calibrated.stdout)
    assert calibrated.exit_code == (0 if verdict["success"] else 3)

    reported = spicenn(
        "report", store, "--labels", files.y, "--surrogate", tmp_path / "s.pt", "--calibrated",
        tmp_path / "chip.pt", "--chip", 9, "-o", tmp_path / "r.html", "--json",
    )  # fmt: skip
    assert reported.exit_code == 0, reported.output
    assert json.loads(reported.stdout)["score"] == "accuracy"
    assert "<svg" in (tmp_path / "r.html").read_text("utf-8")


def test_a_refused_calibration_exits_with_3(spicenn: Shell, files: Files, tmp_path: Path) -> None:
    """Outputs that are not the probes' are refused, said so, and the module is written."""
    outputs = np.random.default_rng(0).normal(0, 50, (12, 3))
    np.save(tmp_path / "noise.npy", outputs)
    result = spicenn(
        "calibrate", files.surrogate, "--probes", files.x, "--outputs", tmp_path / "noise.npy",
        "-o", tmp_path / "m.pt",
    )  # fmt: skip
    assert result.exit_code == 3, result.output
    assert result.stdout.startswith("success   no: ")
    assert (tmp_path / "m.pt").is_file()


def test_a_sweep_becomes_dimensions_and_its_own_figure(
    spicenn: Shell, files: Files, tmp_path: Path
) -> None:
    store = tmp_path / "w.zarr"
    ran = spicenn(
        "run", files.design, files.x, "--chips", 2, "--seed", 1, "--store", store, "--engine",
        "nodal", "--workers", 1, "--sweep", "r_wordline=0,1k", "--sweep", "corner=tt,ss",
        "--sweep", "variation.stuck_on=0,10m", "--sweep", "variation.programming_law=lognormal",
    )  # fmt: skip
    assert ran.exit_code == 0, ran.output
    record = open_record(store)
    assert list(record["variation.stuck_on"].values) == [0.0, 0.01]
    assert list(record["variation.programming_law"].values) == ["lognormal"]
    assert dict(record.sizes)["r_wordline"] == 2
    assert list(record["r_wordline"].values) == [0.0, 1000.0]
    assert list(record["corner"].values) == ["tt", "ss"]
    page = spicenn("report", store, "-o", tmp_path / "folder")
    assert page.exit_code == 0, page.output
    shown = (tmp_path / "folder" / "index.html").read_text("utf-8")
    # Titles are broken at their commas.
    assert ">r_wordline = 1000" in shown
    assert "variation.stuck_on = 0.01<" in shown


def test_help_loads_nothing_heavy() -> None:
    """``spicenn --help`` costs neither torch nor dask nor numpy, in a fresh process."""
    code = (
        "import sys; from spicenn.cli import main; sys.argv = ['spicenn', '--help']; "
        "code = main(); heavy = {'torch', 'dask', 'numpy', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy or code else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ")


def test_python_m_spicenn_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "spicenn", "--version"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"spicenn, version {sn.__version__}\n")


@pytest.mark.slow
def test_an_exported_program_compiles_and_keeps_its_files_name(
    spicenn: Shell, files: Files, tmp_path: Path
) -> None:
    """A .pt2 gives the same tiles as the module that it was exported from."""
    import torch

    from tests.cli.conftest import tiny_model

    exported = torch.export.export(
        tiny_model(), (torch.rand(2, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(exported, tmp_path / "net.pt2")
    result = spicenn(
        "compile", tmp_path / "net.pt2", "--trust-model", "--example", files.x, "-o",
        tmp_path / "net.spicenn",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    design = sn.Design.load(tmp_path / "net.spicenn")
    assert design.name == "net"
    assert [layer.weight.shape for layer in design.layers] == [(1, 6, 16), (1, 3, 6)]


@pytest.mark.slow
@pytest.mark.ngspice
def test_interrupt_keeps_what_is_finished_and_the_same_command_goes_on(
    files: Files, tmp_path: Path
) -> None:
    """SIGINT during a study: exit code 130, no traceback, then the rest alone is run."""
    command = [
        sys.executable, "-m", "spicenn", "run", str(files.design), str(files.x), "--chips", "400",
        "--seed", "1", "--store", str(tmp_path / "s.zarr"), "--workers", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    store = tmp_path / "s.zarr"
    while process.poll() is None and not (store.exists() and _finished(store)):
        sleep(0.05)
    assert process.poll() is None, "the study ended before it could be interrupted"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert errors.rstrip().endswith("interrupted")
    assert "Traceback" not in errors
    finished = _finished(store)
    assert 0 < finished < 400
    command[command.index("400")] = str(finished)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert f"{finished} of {finished} ok" in again.stdout


def _finished(store: Path) -> int:
    """How many chips a record holds so far."""
    return int((open_record(store)["status"] == 1).sum())


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.filterwarnings("always::spicenn.errors.SpicennWarning")
def test_a_crosscheck_is_one_line_and_exits_with_3_where_ngspice_disagrees(
    spicenn: Shell, files: Files, tmp_path: Path
) -> None:
    command = [
        "run", files.design, files.x, "--chips", 3, "--seed", 1, "--engine", "nodal", "--workers",
        1, "--crosscheck", 0.5,
    ]  # fmt: skip
    good = spicenn(*command, "--store", tmp_path / "a.zarr")
    assert good.exit_code == 0, good.output
    assert "checked   2 runs compared with ngspice, worst discrepancy" in good.stdout
    assert "warning" not in good.stderr
    page = spicenn("report", tmp_path / "a.zarr", "-o", tmp_path / "a.html")
    assert page.exit_code == 0, page.output
    assert 'id="crosscheck"' in (tmp_path / "a.html").read_text("utf-8")

    # No two solvers agree to the last bit of a double.
    command += ["--store", tmp_path / "b.zarr", "--crosscheck-bound", 1e-18]
    bad = spicenn(*command)
    assert bad.exit_code == 3, bad.output
    (line,) = [line for line in bad.stdout.splitlines() if line.startswith("checked")]
    assert line.startswith("checked   DISAGREES: 2 of 2 runs")
    assert "warning: crosscheck: 2 of 2 runs" in bad.stderr
    again = spicenn(*command, "--json")
    assert again.exit_code == 3
    found = json.loads(again.stdout)["crosscheck"]
    assert {key: found[key] for key in ("share", "runs", "exceeded", "failed", "ok")} == {
        "share": 0.5, "runs": 2, "exceeded": 2, "failed": 0, "ok": False,
    }  # fmt: skip
    assert 0 < found["worst"] < 1e-8
