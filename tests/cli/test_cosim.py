"""``spicenn cosim`` runs a script's co-simulation, and keeps what was recorded however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import spicenn as sn
from spicenn.circuit import read_raw
from spicenn.cli import progress
from spicenn.cosim.store import load_record
from tests.cli.conftest import Shell

ROOT = Path(__file__).parents[2]
RESULTS = {"record.zarr", "traces.raw", "events.vcd", "picture.png"}

BLINK = """
import spicenn as sn

UNTIL = "4u"
CIRCUIT = "an RC\\nvin in 0 dc 0 external\\nr1 in out 1k\\nc1 out 0 1n"

def blink(env):
    while True:
        env.drive("vin", 1.0)
        yield env.crossing("out", above=0.7)
        env.emit("up")
        env.drive("vin", 0.0)
        yield env.crossing("out", below=0.3)

def build():
    print("the script's own words")
    env = sn.Cosimulation(CIRCUIT, max_step=1e-8)
    env.process(blink(env))
    return env
"""
# Processes that end a run after 2 us, by what they do.
ENDS = {
    "raises": "raise ValueError('no such luck')",
    "unknown": "env.drive('vim', 1.0)",
    "no_crossing": "yield env.crossing('out', above=5.0, within=1e-9)",
    "exits": "import sys; sys.exit(5)",
    "interrupts": "raise KeyboardInterrupt",
}


def ending(how: str) -> str:
    return BLINK.replace(
        "    return env",
        "    env.process(end(env))\n    return env\n\n\ndef end(env):\n"
        f"    yield env.timeout(2e-6)\n    {ENDS[how]}\n    yield env.timeout(1)\n",
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "blink.py"
    path.write_text(BLINK)
    return path


def names(folder: Path) -> set[str]:
    """Everything in a folder, hidden files included."""
    return {path.name for path in folder.iterdir()}


@pytest.mark.ngspice
def test_a_run_writes_the_record_of_the_same_run_from_python(
    spicenn: Shell, script: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs" / "blink"
    said = spicenn("cosim", script, "--trust-script", "--out", out)
    assert said.exit_code == 0, said.output
    assert names(out) == RESULTS
    assert names(tmp_path / "runs") == {"blink"}
    assert names(tmp_path) == {"blink.py", "runs"}  # nor a cache of the script

    namespace: dict[str, object] = {}
    exec(BLINK, namespace)
    with namespace["build"]() as env:  # type: ignore[operator]
        expected = env.run(until=4e-6)
    record = load_record(out / "record.zarr")
    xr.testing.assert_identical(record[list(expected.data_vars)], expected)
    raw = read_raw(out / "traces.raw")
    np.testing.assert_array_equal(raw["v(out)"], expected["out"].values)
    assert (out / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert "$var event 1 " in (out / "events.vcd").read_text("ascii")

    lines = said.stdout.splitlines()
    assert lines[0] == "the script's own words"
    assert lines[1].startswith("run       4 µs in ")
    assert f"points    {expected.sizes['time']}" in lines
    ups = int((expected["event_name"] == "up").sum())
    assert f"          {ups:>6} emit up" in lines
    assert f"picture   {out / 'picture.png'}" in lines


@pytest.mark.ngspice
def test_json_is_one_object_whatever_the_script_prints(
    spicenn: Shell, script: Path, tmp_path: Path
) -> None:
    said = spicenn(
        "cosim", script, "--trust-script", "--out", tmp_path / "o", "--until", "3u", "--json"
    )
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert "the script's own words" in said.stderr
    record = load_record(tmp_path / "o" / "record.zarr")
    assert found["time"] == pytest.approx(3e-6, rel=1e-12, abs=0)
    assert found["points"] == {"": record.sizes["time"]}
    assert sum(row["count"] for row in found["events"]) == record.sizes["event"]
    assert {"kind": "emit", "name": "up", "count": 2} in found["events"]


@pytest.mark.ngspice
def test_a_second_run_takes_the_place_of_the_first_and_leaves_other_files(
    spicenn: Shell, script: Path, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    command = ["cosim", script, "--trust-script", "--out", out]
    assert spicenn(*command).exit_code == 0
    (out / "view.gtkw").write_text("of GTKWave")
    (out / ".new").mkdir()
    (out / ".new" / "picture.png").write_text("of a run that was killed as it wrote")
    assert spicenn(*command, "--until", "1u").exit_code == 0
    assert float(load_record(out / "record.zarr").attrs["now"]) == 1e-6
    assert names(out) == RESULTS | {"view.gtkw"}


@pytest.mark.ngspice
@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("raises", 1, "{script}:25; process end, t = 2e-06 s: raised ValueError: no such luck"),
        ("unknown", 1, "{script}:25; process end, circuit, t = 2e-06 s: there is no external"),
        ("no_crossing", 1, "{script}:25; process end, t = 2.001e-06 s"),
        ("exits", 1, "a process ended Python"),
        ("interrupts", 130, "interrupted"),
    ],
)
def test_what_was_recorded_before_a_failure_is_kept(
    spicenn: Shell, script: Path, tmp_path: Path, how: str, code: int, words: str
) -> None:
    script.write_text(ending(how))
    out = tmp_path / "o"
    said = spicenn("cosim", script, "--trust-script", "--out", out)
    assert said.exit_code == code, said.output
    errors = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    assert words.format(script=script) in (errors[0] if errors else said.stderr)
    assert "what was recorded until t = 2" in said.stderr
    assert str(out) in said.stderr
    assert names(out) == RESULTS
    record = load_record(out / "record.zarr")
    assert float(record["time"][-1]) == pytest.approx(2e-6, rel=1e-2, abs=0)
    assert (record["event_name"] == "up").sum() == 1


@pytest.mark.ngspice
def test_a_circuit_that_fails_on_its_way_keeps_its_record(
    spicenn: Shell, script: Path, tmp_path: Path
) -> None:
    """A current without bounds once the node has passed 0.5 V: ngspice finds no next point."""
    wild = "b1 0 x i=exp(v(x)*1e3)*(v(out)>0.5?1:0)\\nr2 x 0 1k\\nc2 x 0 1p"
    script.write_text(BLINK.replace("c1 out 0 1n", "c1 out 0 1n\\n" + wild))
    out = tmp_path / "o"
    said = spicenn("cosim", script, "--trust-script", "--out", out)
    assert said.exit_code == 1, said.output
    assert "what was recorded until t = " in said.stderr
    assert names(out) >= {"record.zarr", "events.vcd", "picture.png"}
    assert load_record(out / "record.zarr").sizes["event"] == 1


def wait_for(text: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it never said {text!r}")


@pytest.mark.slow
@pytest.mark.ngspice
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_its_record_kept(
    script: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """In the middle of one long step of the circuit, where nothing happens but ngspice."""
    script.write_text(
        BLINK.replace("env.process(blink(env))", "env.process(wait(env))")
        + "\ndef wait(env):\n    yield env.timeout(1e-6)\n    env.emit('going')\n"
        "    print('going', flush=True)\n    yield env.timeout(10.0)\n"
    )
    out = tmp_path / "o"
    process = subprocess.Popen(
        [sys.executable, "-m", "spicenn", "cosim", str(script), "--trust-script", "--until", "20",
         "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for("going", process)
        time.sleep(0.6)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted"
    assert f"is in {out}" in errors
    assert names(out) == RESULTS
    record = load_record(out / "record.zarr")
    assert record["event_name"].values.tolist() == ["going"]
    # Traces come several times a second: of what was simulated after the event, a part is there.
    assert float(record["time"][-1]) > 2e-6
    assert "Traceback" not in errors


SCRIPTS = {
    "syntax": "def build(:\n",
    "null": "x = 1\0\n",
    "raising": "\nimport absent_module_of_this_test\n",
    "exiting": "import sys\nsys.exit(3)\n",
    "empty": "",
    "number": "build = 3",
    "nothing": "def build():\n    pass\n",
    "other": "UNTIL = 'soon'\ndef build():\n    pass\n",
    "past": "UNTIL = -1\ndef build():\n    pass\n",
    "bad": "import spicenn as sn\n\ndef build():\n    return sn.Cosimulation('', max_step=1)\n",
    "endless": BLINK.replace('UNTIL = "4u"', ""),
}


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("syntax", 1, "{script}:1: is not Python"),
        ("null", 1, "{script}"),
        ("raising", 1, "{script}:2: the script failed with ModuleNotFoundError: No module named"),
        ("exiting", 1, "{script}:2: the script failed with SystemExit: 3"),
        ("empty", 1, "{script}: has no function build()"),
        ("number", 1, "{script}: has no function build()"),
        ("nothing", 1, "{script}: build() returned NoneType, not a Cosimulation"),
        ("other", 1, "{script}: 'soon' is not a quantity"),
        ("past", 1, "{script}: UNTIL = -1 s"),
        pytest.param("bad", 1, "{script}:4", marks=pytest.mark.ngspice),
        pytest.param("endless", 2, "--until 20u, or UNTIL", marks=pytest.mark.ngspice),
    ],
)
def test_a_wrong_script_is_one_line_with_its_place(
    spicenn: Shell, tmp_path: Path, name: str, code: int, words: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPTS[name])
    said = spicenn("cosim", script, "--trust-script", "--out", tmp_path / "o")
    assert said.exit_code == code, said.output
    errors = [line for line in said.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: " + words.format(script=script)) or code == 2
    assert words.format(script=script) in errors[0]
    assert names(tmp_path) == {"script.py"}


def test_wrong_options_run_nothing(spicenn: Shell, script: Path, tmp_path: Path) -> None:
    """Each is found before the script is executed: it would leave a file."""
    script.write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "traces.raw").write_text("of something else")
    for options, code, words in (
        (["--out", tmp_path / "o"], 2, "--trust-script"),
        (["--trust-script"], 2, "--out"),
        (["--trust-script", "--out", tmp_path / "o", "--until", "soon"], 2, "not a quantity"),
        (["--trust-script", "--out", tmp_path / "o", "--until", "0"], 1, "--until = 0 s"),
        (["--trust-script", "--out", tmp_path / "o", "--until", "1e999"], 1, "--until = inf"),
        (["--trust-script", "--out", tmp_path / "file"], 1, "is not a folder"),
        (["--trust-script", "--out", tmp_path / "file" / "o"], 1, "file/o"),
        (["--trust-script", "--out", tmp_path / "full"], 1, "traces.raw which is not"),
    ):
        said = spicenn("cosim", script, *options)
        assert said.exit_code == code, (options, said.output)
        assert words in said.stderr
    said = spicenn("cosim", tmp_path / "none.py", "--trust-script", "--out", tmp_path / "o")
    assert (said.exit_code, "No such file" in said.stderr) == (1, True)
    assert names(tmp_path) == {"blink.py", "file", "full"}
    assert names(tmp_path / "full") == {"traces.raw"}


def test_a_log_says_time_events_and_rate_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 1.0, 5.0, 5.0, 5.0, 6.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    with progress.time_progress(1e-3) as report:
        report(1e-6, 3)  # after a second: too early
        report(2.5e-4, 500)
        report(2.6e-4, 510)
    assert capsys.readouterr().err == "250 µs of 1 ms, 500 events, 100/s, 5 s\n"


def test_a_terminal_shows_a_bar_to_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress.time_progress(1e-3) as report:
        report(5e-4, 42)
    said = capsys.readouterr().err
    assert "500 µs of 1 ms" in said
    assert "42 events" in said


@pytest.mark.ngspice
def test_progress_can_be_set_after_a_co_simulation_is_made() -> None:
    """The command's bar goes to a kernel that the script has made."""
    seen: list[tuple[float, int]] = []
    circuit = "an RC\nr1 in 0 1k\nvin in 0 1"
    with sn.Cosimulation(circuit, max_step=1e-8) as env:
        env.progress = lambda time, events: seen.append((time, events))
        env._shown = -1e9  # as if the last time were long ago
        env.process(iter_timeout(env))
        env.run(until=1e-6)
    assert seen[0][1] == 0
    assert 0 <= seen[0][0] <= 5e-7


def iter_timeout(env: sn.Cosimulation):
    yield env.timeout(5e-7)
