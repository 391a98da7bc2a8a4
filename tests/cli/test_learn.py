"""``spicenn learn``: a configuration runs, is stopped and goes on; wrong ones end in one line."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest

from spicenn.cli import progress
from spicenn.learning.record import open_record
from spicenn.learning.run import Progress
from tests.cli.conftest import Shell

CONFIG = """
[network]
kind = "example"
example = "two_tasks"
[task]
period = "20m"
[rule]
name = "coupled_learning"
[run]
by = "BY"
periods = 40
slots_at_once = 20
start = 2.5
"""
FAST = """
[network]
kind = "layered"
sizes = [2, 3, 2]
[task]
inputs = "x.npy"
labels = "y.npy"
[rule]
name = "equilibrium_propagation"
beta = "0.1u"
rates = "1n"
[run]
by = "fast"
epochs = 2
seed = 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Configurations of all kinds."""
    (tmp_path / "circuit.toml").write_text(CONFIG.replace("BY", "circuit"))
    (tmp_path / "controller.toml").write_text(CONFIG.replace("BY", "controller"))
    (tmp_path / "fast.toml").write_text(FAST)
    np.save(tmp_path / "x.npy", np.array([[0.0, 1.0], [1.0, 0.0]]))
    np.save(tmp_path / "y.npy", np.array([0, 1]))
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "thesis.txt").write_text("mine")
    return tmp_path


@pytest.mark.slow
@pytest.mark.ngspice
def test_a_configuration_runs_and_draws_its_cycle(spicenn: Shell, folder: Path) -> None:
    """The table has D of the published cycle; given again the run is done at once."""
    run = folder / "runs" / "two"
    done = spicenn("learn", folder / "circuit.toml", "-o", run, "--plot", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    (chip,) = data["chips"]
    assert chip["cycle"] == pytest.approx(0.1389, rel=1e-2)
    assert chip["mean_square_error"] == pytest.approx(9.1e-5, rel=2e-2)
    assert (chip["slots"], chip["aborts"], chip["status"], data["resumed"]) == (80, 0, "ok", 0)
    assert [Path(path).name for path in data["plots"]] == ["error.png", "plane.png"]
    for path in data["plots"]:
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    ds = open_record(data["record"])
    assert float(ds["cycle"][0]) == chip["cycle"]
    again = spicenn("learn", folder / "circuit.toml", "-o", run)
    assert again.exit_code == 0, again.output
    table = again.stdout.splitlines()
    assert table[0].split() == [
        "chip",
        "status",
        "slots",
        "squared",
        "error",
        "D",
        "aborts",
        "time",
    ]
    assert table[1].split()[:3] == ["0", "ok", "80"]
    assert "mV" in table[1]
    assert table[2] == "resumed     after 80 slots"


@pytest.mark.slow
@pytest.mark.ngspice
def test_a_stopped_command_says_so_and_goes_on_to_the_same_bits(folder: Path) -> None:
    """SIGTERM ends with 130, a record of what is done, and no traceback; SIGKILL with less."""
    command = [sys.executable, "-m", "spicenn", "learn", str(folder / "circuit.toml"), "-o"]
    text = CONFIG.replace("BY", "circuit").replace("periods = 40", "periods = 150")
    (folder / "circuit.toml").write_text(text)
    run, whole = folder / "run", folder / "whole"
    for number, parts in ((signal.SIGTERM, 3), (signal.SIGKILL, 8)):
        process = subprocess.Popen([*command, str(run)], stderr=subprocess.PIPE, text=True)
        end = monotonic() + 60
        while len(list(run.glob("chips/0/*.npz"))) < parts and monotonic() < end:
            assert process.poll() is None, "the run ended before it could be stopped"
            sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
        if number == signal.SIGTERM:
            assert process.returncode == 130
            assert "the same command goes on" in errors
            assert errors.rstrip().endswith("interrupted")
            assert 0 < int((open_record(run / "record.zarr")["example"] >= 0).sum()) < 300
    last = subprocess.run([*command, str(run), "--json"], capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert 160 <= json.loads(last.stdout)["resumed"] < 300
    other = subprocess.run([*command, str(whole)], capture_output=True, text=True)
    assert other.returncode == 0, other.stderr
    one, two = (open_record(path / "record.zarr") for path in (run, whole))
    np.testing.assert_array_equal(one["value"], two["value"])


def test_the_fast_path_trains_and_draws(spicenn: Shell, folder: Path) -> None:
    done = spicenn("learn", folder / "fast.toml", "-o", folder / "run", "--plot", "--json")
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert (data["epoch"], data["step"], data["resumed"]) == (2, 2, 0)
    assert Path(data["network"]).is_file()
    assert Path(data["plots"][0]).read_bytes().startswith(b"\x89PNG")
    again = spicenn("learn", folder / "fast.toml", "-o", folder / "run")
    assert "resumed     after 2 steps" in again.stdout


def test_a_dry_run_says_what_would_be_run(spicenn: Shell, folder: Path) -> None:
    """Sizes, slots, transients; nothing is written."""
    before = sorted(folder.rglob("*"))
    facts = json.loads(spicenn("learn", folder / "circuit.toml", "--dry-run", "--json").stdout)
    assert [facts[key] for key in ("nodes", "edges", "learning", "examples")] == [4, 3, 2, 2]
    assert facts["transients"] == "4 of 20 slots"
    assert facts["slots"] == "80 of 10 ms, 800 ms in all"
    lines = spicenn("learn", folder / "fast.toml", "--dry-run").stdout
    assert "4 → 3 → 2" in lines
    assert "18" in lines
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.ngspice
def test_netlists_run_in_plain_ngspice(spicenn: Shell, folder: Path) -> None:
    """What is written ends where the run does, to the solver's error."""
    from spicenn.learning.export import read_learning

    if shutil.which("ngspice") is None:
        pytest.skip("there is no ngspice program")
    done = spicenn("learn", folder / "circuit.toml", "--netlists", folder / "build", "--json")
    assert done.exit_code == 0, done.output
    (place,) = json.loads(done.stdout)["netlists"]
    command = ["ngspice", "-b", "-r", "learning.raw", "learning.cir"]
    subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=60)
    values, _ = read_learning(place)
    run = spicenn("learn", folder / "circuit.toml", "-o", folder / "run", "--json")
    ds = open_record(json.loads(run.stdout)["record"])
    np.testing.assert_allclose(values[1:], ds["value"][0], rtol=0, atol=2e-4)


# What is wrong, exit code, words of the message.
WRONG = [
    ("circuit.toml", 2, "-o DIR"),
    ("absent.toml -o run", 1, "absent.toml: cannot be read: No such file"),
    ("filled -o run", 1, "cannot be read"),
    ("x.npy -o run", 1, "x.npy: cannot be read"),
    ("circuit.toml -o filled", 1, "holds something that is no run"),
    ("circuit.toml -o x.npy", 1, "x.npy: cannot be written"),
    ("circuit.toml -o x.npy/run", 1, "cannot be written"),
    ("circuit.toml -o .", 1, "holds something that is no run"),
    ("circuit.toml -o /", 1, "is no folder of a run"),
    ("fast.toml -o /", 1, "is no folder of a run"),
    ("circuit.toml -o run --workers 0", 2, "--workers"),
    ("circuit.toml -o run --workers many", 2, "many"),
    ("circuit.toml --netlists x.npy", 1, "cannot be written"),
    ("fast.toml --netlists build", 1, "no circuit that learns by itself"),
    ("fast.toml -o filled", 1, "holds something that is no run"),
    ("circuit.toml extra -o run", 2, "unexpected extra argument"),
]


@pytest.mark.parametrize(("line", "code", "words"), WRONG, ids=[case[0] for case in WRONG])
def test_wrong_inputs_end_as_one_line(
    line: str, code: int, words: str, spicenn: Shell, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    result = spicenn("learn", *line.split())
    assert result.exit_code == code, result.output
    (said,) = result.stderr.splitlines()
    assert said.startswith("error: ")
    assert words in said
    assert "Traceback" not in result.output
    assert (folder / "filled" / "thesis.txt").read_text() == "mine"


def test_a_mistake_in_the_file_is_named_with_its_line(spicenn: Shell, folder: Path) -> None:
    path = folder / "wrong.toml"
    path.write_text(CONFIG.replace("BY", "circuit").replace("period =", "perod ="))
    result = spicenn("learn", path, "-o", folder / "run")
    assert result.exit_code == 1
    assert result.stderr == f"error: {path}: task.period is missing; is 'perod' meant?\n"
    path.write_text(CONFIG.replace("BY", "circuti"))
    result = spicenn("learn", path, "-o", folder / "run")
    assert f"{path}, line 10, column 1: run.by = 'circuti' is not known" in result.stderr
    assert not (folder / "run").exists()


@pytest.mark.ngspice
def test_failed_chips_exit_with_3_and_their_message(spicenn: Shell, folder: Path) -> None:
    text = CONFIG.replace("BY", "circuit").replace("start", 'timeout = "1m"\nstart')
    (folder / "circuit.toml").write_text(text)
    result = spicenn("learn", folder / "circuit.toml", "-o", folder / "run", "--plot")
    assert result.exit_code == 3, result.output
    assert "chip 0: ngspice gave no answer in 0.001 s" in result.stdout
    assert "plot" not in result.stdout


def test_a_log_says_slots_chips_and_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 6.0, 6.0, 7.0, 13.0, 13.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with progress.learning_progress() as report:
        for done, error in ((20, float("nan")), (30, 1e-3), (40, 2e-4)):
            report(
                Progress(done=done, slots=80, resumed=0, finished=1, failed=1, chips=3, error=error)
            )
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "slots 20/80, chips 1/3, 1 failed, no error yet, 6 s",
        "slots 40/80, chips 1/3, 1 failed, error 2.00e-04 V², 13 s",
    ]
