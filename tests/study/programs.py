"""Studies that other processes run, and the processes that they leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

# No main guard, as in a script that somebody writes in a minute. Each progress
# report is one line, so that a test knows how far the study is.
SCRIPT = """
import json
import sys
import time
import numpy as np
import spicenn as sn
import spicenn.study.schedule

spicenn.study.schedule.MOST_CHIPS = 3

def report(done, total, failed):
    print(done, flush=True)
    time.sleep(0.15)  # so that there is a middle to be killed in

folder, chips = sys.argv[1], int(sys.argv[2])
sn.monte_carlo(
    sn.Design.load(f"{folder}/design"),
    np.load(f"{folder}/x.npy"),
    chips=chips,
    seed=7,
    trials=2,
    keep=("g", "bitline_current"),
    store=f"{folder}/store",
    workers=2,
    progress=report,
    **json.loads(sys.argv[3]),
)
"""


class Program:
    """A running script, and every process that it started, told by their environment."""

    def __init__(self, folder: Path, chips: int, options: Mapping[str, object]) -> None:
        path = folder / "study.py"
        path.write_text(SCRIPT, "utf-8")
        self._token = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, str(path), str(folder), str(chips), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "SPICENN_TEST": self._token},
        )

    def wait_for(self, done: int) -> None:
        """Read its progress until so many chips are done."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        for line in self.process.stdout:
            if int(line) >= done:
                return
        raise AssertionError(f"ended before {done} chips:\n{self.process.stderr.read()}")

    def finish(self) -> tuple[int, str]:
        """Wait for its end; return its exit status and what it wrote to standard error."""
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors

    def family(self) -> list[psutil.Process]:
        """Every process of the study that lives."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def workers(self) -> list[psutil.Process]:
        return self._among("spicenn.study.worker")

    def simulators(self) -> list[psutil.Process]:
        return self._among("spicenn.engines.ngspice.child")

    def leftovers(self) -> list[psutil.Process]:
        """What is still there well after the study's end."""
        until(lambda: not self.family(), "the processes end")
        return self.family()

    def _among(self, module: str) -> list[psutil.Process]:
        found = []
        for process in self.family():
            try:
                if module in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return bool(
                process.status() != psutil.STATUS_ZOMBIE
                and process.environ().get("SPICENN_TEST") == self._token
            )
        except psutil.Error:
            return False


@contextmanager
def running(folder: Path, chips: int, **options: object) -> Iterator[Program]:
    """Run the script, more options its study's; nothing of it survives the test."""
    program = Program(folder, chips, options)
    try:
        yield program
    finally:
        for process in program.family():
            process.kill()
        program.process.kill()
        program.process.communicate()


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that must come; the bound is there only to end a failing test."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"not within 30 s: {what}")
