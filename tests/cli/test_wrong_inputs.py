"""Every wrong input ends as one line on standard error and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

import spicenn as sn
from spicenn.cli.app import program
from spicenn.errors import EngineError
from tests.cli.conftest import Files, Shell

COMMANDS = (
    "doctor", "technology", "compile", "train", "run", "energy", "fit", "calibrate", "report",
    "cosim", "learn", "demo",
)  # fmt: skip

# What is wrong, exit code, words of the message; {…} is a path of ``Files``, {out} a new one.
CASES = [
    ("nonsense", 2, "No such command"),
    ("doctor --wrong", 2, "No such option"),
    ("doctor extra", 2, "unexpected extra argument"),
    ("doctor --json=1", 2, "does not take a value"),
    ("compile tiny_model:build -o {out}", 2, "--trust-model"),
    ("compile tiny_model:build --trust-model -o {out}", 2, "--example"),
    ("compile tiny_model:build --trust-model --example {x}", 2, "-o DESIGN"),
    ("compile tiny_model:absent --trust-model --example {x} -o {out}", 1, "absent"),
    ("compile absent_module:build --trust-model --example {x} -o {out}", 1, "current folder"),
    ("compile tiny_model:broken --trust-model --example {x} -o {out}", 1, "no weights here"),
    ("compile tiny_model:nothing --trust-model --example {x} -o {out}", 1, "returned int"),
    ("compile absent.pt2 --trust-model --example {x} -o {out}", 1, "no such file"),
    ("compile {x}.pt2 --trust-model --example {x} -o {out}", 1, "no such file"),
    ("compile tiny_model:build --trust-model --example {folder}/none.npy -o {out}", 1, "no such"),
    ("compile tiny_model:build --trust-model --example {y} -o {out}", 1, ""),
    ("compile tiny_model:build --tile 128 -o {out}", 2, "128x128"),
    ("compile tiny_model:build --technology tin -o {out}", 2, "rram-1r"),
    ("compile tiny_model:build --technology none.toml -o {out}", 1, "none.toml"),
    ("compile {design} --netlists {out}", 2, "--chip and --seed"),
    ("compile {x} --netlists {out} --chip 1 --seed 1", 1, "x.npy"),
    ("run {design} {x} --chips 2 --store {out}", 2, "--seed"),
    ("run {design} {x} --chips 0 --seed 1 --store {out}", 2, "--chips"),
    ("run {folder}/none.spicenn {x} --chips 2 --seed 1 --store {out}", 1, "none.spicenn"),
    ("run {x} {x} --chips 2 --seed 1 --store {out}", 1, "x.npy"),
    ("run {design} {design} --chips 2 --seed 1 --store {out}", 1, ".npy"),
    ("run {design} {y} --chips 2 --seed 1 --store {out}", 1, "shape"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --sweep r_wordline", 2, "0,2,5"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --sweep r_wordline=2x", 2, "2x"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --timeout 1m", 2, "1m"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --sweep a=1 --sweep a=2", 2, "twice"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --sweep colour=1", 1, "colour"),
    ("run {design} {x} --chips 2 --seed 2 --store {store} --engine nodal", 1, "seed"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --crosscheck 5", 2, "--crosscheck"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --crosscheck 0.5", 1, "with itself"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --crosscheck-bound 0", 2, "bound"),
    ("run {design} {x} --chips 2 --seed 1 --store {out} --crosscheck-bound nan", 1, "bound = nan"),
    ("energy {folder}/none.zarr", 1, "no record"),
    ("energy {x}", 1, "x.npy"),
    ("energy {store} --chips 0", 2, "--chips"),
    ("energy {store} --chips 5", 1, "the study has 4 chips"),
    ("energy {store} --samples 13", 1, "the study has 12 inputs"),
    ("energy {store} --tolerance 1", 2, "--tolerance"),
    ("energy {store} --mode digital", 2, "digital"),
    ("fit {store}", 2, "-o"),
    ("fit {folder}/none.zarr -o {out}", 1, "no record"),
    ("fit {x} -o {out}", 1, "x.npy"),
    ("fit {folder} -o {out}", 1, "record"),
    ("calibrate {surrogate} -o {out}", 2, "--probes"),
    ("calibrate {surrogate} --probes {x} -o {out}", 2, "--outputs"),
    ("calibrate {surrogate} --probes {x} --chip 3 -o {out}", 2, "--seed"),
    ("calibrate {x} --probes {x} --outputs {x} -o {out}", 1, "x.npy"),
    ("calibrate {surrogate} --probes {x} --outputs {x} -o {out}", 1, "shape"),
    ("calibrate {folder}/none.pt --probes {x} --outputs {x} -o {out}", 1, "none.pt"),
    ("report {store}", 2, "-o"),
    ("report {folder}/none.zarr -o {out}", 1, "no record"),
    ("report {store} --labels {x} -o {out}", 1, "labels"),
    ("report {store} --chip 3 -o {out}", 2, "belong together"),
    ("report {store} -o {x}/page.html", 1, "page.html"),
    ("demo --chips 1", 2, "--chips"),
    ("demo --images many", 2, "many"),
    ("demo --out {x}/sub", 1, "x.npy"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code", "words"), CASES, ids=[case[0] for case in CASES])
def test_one_line_and_the_right_code(
    line: str,
    code: int,
    words: str,
    spicenn: Shell,
    files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files.folder)
    paths = {key: str(value) for key, value in vars(files).items()}
    result = spicenn(*(word.format(out=tmp_path / "out", **paths) for word in line.split()))
    assert result.exit_code == code, result.output
    lines = [text for text in result.stderr.splitlines() if not text.startswith("chips ")]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, spicenn: Shell) -> None:
    result = spicenn(name, "--help")
    assert result.exit_code == 0
    assert f"spicenn {name}" in result.stdout.split("Example", 1)[1]
    command = program.commands[name]
    for option in command.params:
        assert isinstance(option, click.Argument) or getattr(option, "help", None), option.name


def test_the_group_lists_every_command_and_exit_code(spicenn: Shell) -> None:
    result = spicenn("--help")
    assert tuple(program.list_commands(click.Context(program))) == COMMANDS
    for word in (*COMMANDS, "Exit codes", "130"):
        assert word in result.stdout


def test_arrays_of_objects_are_never_unpickled(
    spicenn: Shell, files: Files, tmp_path: Path
) -> None:
    """An object array would run code on load; here it would write a file."""
    mark = tmp_path / "pwned"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (mark,))

    np.save(tmp_path / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    result = spicenn(
        "run", files.design, tmp_path / "evil.npy", "--chips", 2, "--seed", 1, "--store",
        tmp_path / "s.zarr",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "Python objects" in result.stderr
    assert not mark.exists()


def test_a_bug_is_one_line_that_says_how_to_see_more(
    spicenn: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise KeyError("lost\nits way")

    monkeypatch.delenv("SPICENN_DEBUG", raising=False)
    monkeypatch.setattr("spicenn.cli.doctor._facts", broken)
    result = spicenn("doctor")
    assert result.exit_code == 70
    assert result.stderr.count("\n") == 1
    assert "SPICENN_DEBUG=1" in result.stderr


def test_control_characters_of_a_message_do_not_reach_the_terminal(
    spicenn: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostile() -> None:
        raise EngineError("\x1b[2Jgone\nfor good")

    monkeypatch.setattr("spicenn.cli.doctor._facts", hostile)
    result = spicenn("doctor")
    assert result.exit_code == 1
    assert result.stderr == "error: ?[2Jgone for good\n"


def test_an_interrupt_exits_with_130(spicenn: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("spicenn.cli.doctor._facts", interrupted)
    result = spicenn("doctor")
    # click itself ends the line that ^C is on.
    assert (result.exit_code, result.stderr.strip()) == (130, "interrupted")


def test_doctor_without_ngspice_exits_with_1_and_names_the_remedy(tmp_path: Path) -> None:
    environment = {**os.environ, "NGSPICE_LIBRARY_PATH": str(tmp_path / "none.so"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-m", "spicenn", "doctor"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 1
    assert "missing " in done.stdout
    assert "install libngspice" in done.stdout


def test_version_is_the_packages(spicenn: Shell) -> None:
    assert spicenn("--version").stdout == f"spicenn, version {sn.__version__}\n"
