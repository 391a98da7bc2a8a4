"""One bad chip ends as a status; the next one comes out right; nothing outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from spicenn.circuit import Crossbar
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.engines.ngspice.facts import ngspice_facts
from spicenn.errors import (
    ConvergenceError,
    EngineError,
    MissingModelError,
    NgspiceNotFound,
    SimulationTimeout,
    SimulatorCrash,
    SingularMatrixError,
    Status,
)
from spicenn.technology import Cell
from tests.engines.conftest import chips

GOOD = "good\nv1 a 0 1\nr1 a 0 2\n.op\n.end"
FLIP_FLOP = "b1 b 0 i=v(b)>0.5?1:-1"  # Newton jumps from one side to the other for ever

# Ohmic below 50 µS; above, a current that flips its sign at every iteration.
FLIPPING = Cell(
    "flipping",
    """.subckt flipping wordline bitline g=1u
bcell wordline bitline i={g}*v(wordline,bitline)
+ +{u(g-50u)}*(v(wordline,bitline)>0.05?1:-1)
.ends flipping
""",
)


def is_good(engine: NgspiceEngine) -> bool:
    return bool(engine.run(GOOD, ["i(v1)"])["i(v1)"][0] == pytest.approx(-0.5))


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        (f"r1 a b 1\n{FLIP_FLOP}", ConvergenceError, "no solution"),
        ("v2 a 0 2\nr1 a 0 1", SingularMatrixError, "singular"),
        ("d1 a 0 dmissing", MissingModelError, "dmissing"),
        ("x1 a 0 nosuch", MissingModelError, "nosuch"),
        ("r1 a 0 {foo}", EngineError, "foo"),
        ("b1 a 0 i=foo(v(a))", EngineError, "foo"),
        ("r1 a", EngineError, "cannot read"),
        ("zz a b c", MissingModelError, "zz a b c"),
    ],
)
def test_failures_have_types_and_a_good_run_follows(engine, lines, kind, words):
    with pytest.raises(kind, match=words) as caught:
        engine.run(f"bad\nv1 a 0 1\n{lines}\n.op\n.end", ["i(v1)"])
    assert type(caught.value) is kind
    assert caught.value.remedy
    assert is_good(engine)


def test_a_vector_that_is_not_there_is_named(engine):
    with pytest.raises(EngineError, match="nowhere"):
        engine.run(GOOD, ["i(v1)", "v(nowhere)"])
    assert is_good(engine)


def test_a_sweep_that_stops_half_way_is_a_failure(engine):
    """Its plot exists and holds the points up to there."""
    netlist = "bad\nv1 a 0 0\nr1 a b 1\nb1 b 0 i=v(a)>0.45?(v(b)>0.2?1:-1):0\n.end"
    with pytest.raises(ConvergenceError):
        engine.run(netlist, ["v(b)"], ["dc v1 0 1 0.1"])


def test_a_chip_that_does_not_converge_leaves_its_neighbours_right():
    g, v = chips((2, 2), 4, 1)
    g[:] = 1e-5
    g[2, 1, 1] = 9e-5
    with NgspiceEngine(timeout=20.0) as engine:
        solution = engine.solve(Crossbar("t", 2, 2, 10.0, 10.0, FLIPPING), g, v)
        expected = engine.solve(Crossbar("t", 2, 2, 10.0, 10.0), g, v).current
    assert list(solution.status) == [Status.OK, Status.OK, Status.NOT_CONVERGED, Status.OK]
    assert "no solution" in solution.message[2]
    assert np.isnan(solution.current[2]).all()
    np.testing.assert_allclose(solution.current[[0, 1, 3]], expected[[0, 1, 3]], rtol=1e-8)


def test_a_chip_that_hangs_is_ended_at_its_timeout():
    """A real analysis: Newton allowed a thousand million iterations on a law without a solution."""
    from spicenn.circuit import Tolerances

    g, v = chips((2, 2), 3, 1)
    g[:] = 1e-5
    g[1, 0, 0] = 9e-5
    with NgspiceEngine(timeout=1.5, tolerances=Tolerances(itl1=10**9)) as engine:
        first = started(engine)
        solution = engine.solve(Crossbar("t", 2, 2, 10.0, 10.0, FLIPPING), g, v)
        assert list(solution.status) == [Status.OK, Status.TIMEOUT, Status.OK]
        assert "1.5 s" in solution.message[1]
        assert solution.runtime[1] == 1.5
        assert np.isfinite(solution.current[[0, 2]]).all()
        assert gone(first)
        hanging = f"bad\nv1 a 0 1\nr1 a b 1\n{FLIP_FLOP}\n.options itl1=1000000000\n.op\n.end"
        with pytest.raises(SimulationTimeout):
            engine.run(hanging, ["v(b)"], timeout=0.5)
        assert is_good(engine)


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_in_the_middle_is_one_chips_status(how):
    crossbar = Crossbar("t", 24, 24, 2.0, 2.0)
    g, v = chips((24, 24), 4, 40)
    with NgspiceEngine(timeout=30.0) as engine:
        expected = engine.solve(crossbar, g, v)
        killer = threading.Timer(1.6 * expected.runtime.min(), os.kill, (started(engine), how))
        killer.start()
        solution = engine.solve(crossbar, g, v)
        killer.join()
        crashed = np.flatnonzero(solution.status == Status.CRASH)
        assert len(crashed) == 1
        assert how.name in solution.message[crashed[0]]
        fine = solution.status == Status.OK
        assert fine.sum() == 3
        np.testing.assert_array_equal(solution.current[fine], expected.current[fine])
        threading.Timer(0.3, os.kill, (started(engine), how)).start()
        hanging = f"bad\nv1 a 0 1\nr1 a b 1\n{FLIP_FLOP}\n.options itl1=1000000000\n.op\n.end"
        with pytest.raises(SimulatorCrash, match=how.name):
            engine.run(hanging, ["v(b)"])
        assert is_good(engine)


def test_an_idle_process_that_died_is_replaced_silently(engine):
    assert is_good(engine)
    pid = started(engine)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    assert is_good(engine)


def test_missing_library_is_an_error_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("NGSPICE_LIBRARY_PATH", str(tmp_path / "libngspice.so"))
    g, v = chips((2, 2), 1, 1)
    with NgspiceEngine() as engine, pytest.raises(NgspiceNotFound, match="NGSPICE_LIBRARY_PATH"):
        engine.solve(Crossbar("t", 2, 2), g, v)
    facts = ngspice_facts()
    assert not facts.usable
    assert facts.remedy


def test_user_files_are_not_executed(monkeypatch, tmp_path):
    """A .spiceinit in the folder or at home would change results from one machine to the next."""
    (tmp_path / ".spiceinit").write_text("shell touch executed\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with NgspiceEngine() as engine:
        assert is_good(engine)
    assert [path.name for path in tmp_path.iterdir()] == [".spiceinit"]


def started(engine: NgspiceEngine) -> int:
    assert engine.versions
    assert engine.pid is not None
    return engine.pid


def gone(pid: int | None) -> bool:
    """No such process, or one that only waits to be collected."""
    if pid is None:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip() in ("", "Z", "Z+", "Zs")


def wait_until_gone(pid: int | None) -> None:
    deadline = time.monotonic() + 20
    while not gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.05)


PARENT = """
import os, sys, threading, time
from spicenn.engines.ngspice.client import NgspiceEngine
engine = NgspiceEngine(timeout=600.0)
engine.versions
print(engine.pid, flush=True)
if sys.argv[1] == "forked":
    helper = os.fork()
    if not helper:
        time.sleep(30)
        os._exit(0)
    print(helper, flush=True)
if sys.argv[1] == "busy":
    hanging = ("bad\\nv1 a 0 1\\nr1 a b 1\\nb1 b 0 i=v(b)>0.5?1:-1\\n"
               ".options itl1=1000000000\\n.op\\n.end")
    threading.Thread(target=engine.run, args=(hanging, ["v(b)"]), daemon=True).start()
    time.sleep(0.3)
    print("busy", flush=True)
if sys.argv[1] != "leave":
    time.sleep(600)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_no_process_outlives_a_killed_parent(state):
    """kill -9 of the parent, also while libngspice computes and hears nothing."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, state], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if state == "busy":
            parent.stdout.readline()
        assert not gone(child)
        parent.kill()
        wait_until_gone(child)


def test_no_process_outlives_a_parent_whose_fork_holds_the_pipe():
    """Then the pipe never closes: the simulator must see that its parent is gone."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, "forked"], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child, helper = int(parent.stdout.readline()), int(parent.stdout.readline())
        parent.kill()
        try:
            wait_until_gone(child)
            assert not gone(helper)
        finally:
            os.kill(helper, signal.SIGKILL)


def test_no_process_is_left_without_a_close():
    done = subprocess.run(
        [sys.executable, "-c", PARENT, "leave"], stdout=subprocess.PIPE, check=True
    )
    wait_until_gone(int(done.stdout))
    engine = NgspiceEngine()
    assert is_good(engine)
    pid = engine.pid
    del engine
    wait_until_gone(pid)


def test_the_process_survives_the_thread_that_started_it():
    """Dask's worker threads come and go; a parent-death signal is sent for a thread's death too."""
    with NgspiceEngine() as engine:
        thread = threading.Thread(target=lambda: engine.versions)
        thread.start()
        thread.join()
        pid = engine.pid
        time.sleep(1.0)
        assert is_good(engine)
        assert engine.pid == pid
