"""``spicenn train``: a design trains, is killed and goes on, on a chip and off it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
import torch

import spicenn as sn
from spicenn.cli import progress
from spicenn.training.run import CHECKPOINT, Progress, read_log
from tests.cli.conftest import Files, Shell


@dataclass(frozen=True)
class Task:
    """A problem that the tiny network can learn: which of three inputs is the largest."""

    x: Path
    y: Path


@pytest.fixture(scope="session")
def task(files: Files) -> Task:
    rng = np.random.default_rng(1)
    x = rng.uniform(0, 1, (240, 16)).astype(np.float32)
    paths = Task(files.folder / "train_x.npy", files.folder / "train_y.npy")
    np.save(paths.x, x)
    np.save(paths.y, x[:, :3].argmax(1))
    return paths


def _accuracy(design: sn.Design, task: Task) -> float:
    with torch.no_grad():
        scores = design.to_torch()(torch.as_tensor(np.load(task.x)))
    return float((scores.argmax(1).numpy() == np.load(task.y)).mean())


def test_a_saved_design_trains_without_its_models_code(
    spicenn: Shell, files: Files, task: Task, tmp_path: Path
) -> None:
    """It learns, says so, writes design, log and picture; given again it is done at once."""
    output, picture = tmp_path / "out" / "net.spicenn", tmp_path / "plots" / "log.png"
    command = [
        "train", files.design, task.x, task.y, "--seed", 1, "--epochs", 25, "--batch", 24,
        "--rate", 0.02, "--clip", 3, "--bits", 6, "--read-noise", "none", "--weight-noise", 0.02,
        "--validation", task.x, task.y, "-o", output, "--plot", picture, "--json",
    ]  # fmt: skip
    done = spicenn(*command)
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    trained = sn.Design.load(output)
    assert data["validation_accuracy"] > 0.8 > _accuracy(sn.Design.load(files.design), task)
    assert _accuracy(trained, task) == pytest.approx(data["validation_accuracy"], abs=0.05)
    log = read_log(data["log"])
    assert len(log) == 25
    assert log[-1].validation_accuracy == data["validation_accuracy"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    before = output.read_bytes()
    again = spicenn(*command[:-1])
    assert again.exit_code == 0, again.output
    assert "resumed     after 250 steps" in again.stdout
    assert f"accuracy {100 * data['validation_accuracy']:.2f} %" in again.stdout
    assert sn.Design.load(output).hash == trained.hash
    assert output.read_bytes() == before


def _command(files: Files, task: Task, output: Path, *more: Any) -> list[str]:
    command = [
        sys.executable, "-m", "spicenn", "train", files.design, task.x, task.y, "--seed", 5,
        "--batch", 4, "--epochs", 6, "--save-every", 20, "--chips", 2, "-o", output, *more,
    ]  # fmt: skip
    return [str(word) for word in command]


def _wait_for_steps(process: subprocess.Popen[str], folder: Path, steps: int) -> None:
    """Return once a checkpoint has so many steps; it is whole at any time."""
    checkpoint = folder / CHECKPOINT
    while process.poll() is None:
        if checkpoint.exists():
            content = torch.load(checkpoint, weights_only=True)
            if content["counters"]["total"] >= steps:
                return
        sleep(0.01)
    pytest.fail("the run ended before it could be stopped")


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_design(
    files: Files, task: Task, tmp_path: Path
) -> None:
    """SIGKILL, then SIGTERM, then the end: bit for bit the design of an unbroken run.

    SIGTERM exits with 130, one line that the same command goes on, and no traceback.
    """
    whole = subprocess.run(
        _command(files, task, tmp_path / "whole.spicenn"), capture_output=True, text=True
    )
    assert whole.returncode == 0, whole.stderr
    output = tmp_path / "broken.spicenn"
    folder = tmp_path / "broken.spicenn.training"
    command = _command(files, task, output)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for_steps(process, folder, 40)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    _wait_for_steps(process, folder, 100)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in errors
    assert errors.rstrip().endswith("interrupted")
    assert "Traceback" not in errors
    assert not output.exists()
    last = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    assert 100 <= json.loads(last.stdout)["resumed"] < 360
    one, two = (sn.Design.load(path) for path in (output, tmp_path / "whole.spicenn"))
    assert one.hash == two.hash


@pytest.mark.slow
@pytest.mark.ngspice
def test_in_the_loop_in_ngspice(spicenn: Shell, files: Files, task: Task, tmp_path: Path) -> None:
    """Two epochs on chip 7 in ngspice; the chip of what is written does what was logged.

    Steps on the nodal engine are the same to the simulator's tolerance.
    """
    x, y = tmp_path / "x.npy", tmp_path / "y.npy"
    np.save(x, np.load(task.x)[:16])
    np.save(y, np.load(task.y)[:16])
    found = {}
    for engine in ("ngspice", "nodal"):
        output = tmp_path / f"{engine}.spicenn"
        done = spicenn(
            "train", files.design, x, y, "--seed", 3, "--epochs", 2, "--batch", 8, "--rate", 0.01,
            "--in-the-loop", "--chip", 7, "--engine", engine, "--ranges", "fixed",
            "--validation", x, y, "-o", output, "--json",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        found[engine] = (json.loads(done.stdout), sn.Design.load(output))
    (data, trained), (other, twin) = found["ngspice"], found["nodal"]
    assert data["step"] == other["step"] == 4
    assert data["loss"] == pytest.approx(other["loss"], rel=1e-2)
    for one, two in zip(trained.layers, twin.layers, strict=True):
        np.testing.assert_allclose(one.weight, two.weight, atol=5e-3)
    assert trained.hash != sn.Design.load(files.design).hash
    outputs = trained.sample(7, 3).run(np.load(x), engine="nodal")
    logged = data["validation_loss"]
    ours = torch.nn.functional.cross_entropy(torch.as_tensor(outputs), torch.as_tensor(np.load(y)))
    assert float(ours) == pytest.approx(logged, rel=0.1)


def test_a_surrogate_stands_for_the_technology(
    spicenn: Shell, files: Files, task: Task, tmp_path: Path
) -> None:
    """A population's surrogate is taken; one of another design is refused in one line."""
    command = ["train", files.design, task.x, task.y, "--seed", 1, "--epochs", 1, "-o"]
    done = spicenn(*command, tmp_path / "a.spicenn", "--surrogate", files.surrogate)
    assert done.exit_code == 0, done.output
    other = tmp_path / "a.spicenn"
    refused = spicenn(
        "train", other, task.x, task.y, "--seed", 1, "-o", tmp_path / "b.spicenn",
        "--surrogate", files.surrogate,
    )  # fmt: skip
    assert refused.exit_code == 1
    assert "is of another design" in refused.stderr


# What is wrong, exit code, words of the message.
WRONG = [
    ("--chip 7", 2, "belong together"),
    ("--in-the-loop", 2, "belong together"),
    ("--bits many", 2, "neither a number"),
    ("--bits 1", 1, "2 … 24"),
    ("--clip 0", 2, "--clip"),
    ("--weight-noise -1", 1, "weight_noise"),
    ("--rate 1e30 --epochs 3", 1, "lower the rate"),
    ("--validation {x} {x}", 1, "labels"),
    ("--surrogate {x}", 1, "x.npy"),
    ("--plot {folder}/picture.nonsense --epochs 1", 1, "picture"),
    ("--log {x}", 1, "checkpoint"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG)
def test_wrong_inputs_end_as_one_line(
    spicenn: Shell, files: Files, tmp_path: Path, arguments: str, code: int, words: str
) -> None:
    given = arguments.format(x=files.x, folder=tmp_path).split()
    result = spicenn(
        "train", files.design, files.x, files.y, "--seed", 1, "-o", tmp_path / "o.spicenn", *given
    )
    assert result.exit_code == code, result.output
    assert words in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in result.output


def test_labels_that_do_not_fit_are_refused(spicenn: Shell, files: Files, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.full(12, 3))
    result = spicenn(
        "train", files.design, files.x, tmp_path / "y.npy", "--seed", 1, "-o", tmp_path / "o"
    )
    assert result.exit_code == 1
    assert "class 3" in result.stderr
    again = spicenn("train", files.design, files.x, files.y, "--seed", 1, "-o", tmp_path / "o")
    assert again.exit_code == 1
    assert "differs in labels" in again.stderr


def test_a_log_says_epoch_and_loss_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 6.0, 6.0, 7.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with progress.training_progress() as report:
        for step in (1, 2, 3):
            report(Progress(epoch=2, epochs=4, step=step, steps=3, loss=0.12345))
    assert capsys.readouterr().err == "epoch 2/4, loss 0.1235, 6 s\n"


def test_a_terminal_shows_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.training_progress() as report:
        report(Progress(epoch=1, epochs=2, step=3, steps=3, loss=0.5))
    assert "epoch 1/2" in capsys.readouterr().err
