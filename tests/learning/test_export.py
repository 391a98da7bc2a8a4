"""A learning circuit as a file: plain ngspice teaches it the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import EngineError, InputError
from spicenn.learning.elements import Resistor, Transistor
from spicenn.learning.examples import two_tasks
from spicenn.learning.export import read_learning, write_learning
from spicenn.learning.hardware import Hardware, sample_chip
from spicenn.learning.network import Edge, Network
from spicenn.learning.rules import CoupledLearning, Desynchronous, Overclamping, Rule
from spicenn.learning.task import Task, cyclic
from spicenn.learning.transient import learn_in_circuit

NETWORK = Network(
    edges=(
        Edge("in", "out", Transistor()), Edge("out", "0", Resistor(learns=True)),
        Edge("in", "out", Resistor(conductance=1e-4)),
    ),
    inputs=("in",),
    outputs=("out",),
)  # fmt: skip
TASK = Task([[0.4], [0.2]], [[0.2], [0.1]])
BEGIN = np.array([2.5, 1.5e-3])


@pytest.mark.ngspice
@pytest.mark.skipif(shutil.which("ngspice") is None, reason="needs the ngspice program")
@pytest.mark.parametrize(
    "rule",
    [Overclamping(low=0.0, high=0.45), Desynchronous(CoupledLearning(), 0.5)],
    ids=["overclamping", "desynchronous"],
)
def test_plain_ngspice_gives_the_same_values(
    engine: NgspiceEngine, tmp_path: Path, rule: Rule
) -> None:
    """To 1e-12 of them: it is the same text."""
    hardware = Hardware(bias_std=1e-3, update_noise=1e-5, output_noise=1e-5)
    chip = sample_chip(NETWORK, hardware, chip=1, seed=2)
    schedule = cyclic(TASK, 5e-3)
    manifest = write_learning(
        chip, TASK, rule, schedule, BEGIN, tmp_path / "made" / "here", slots=7, first_slot=3, seed=5
    )
    subprocess.run(
        ["ngspice", "-b", "-r", "learning.raw", "learning.cir"], cwd=manifest.parent, check=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    values, outputs = read_learning(manifest.parent)
    found = learn_in_circuit(
        engine, chip, TASK, rule, schedule, BEGIN, slots=7, first_slot=3, seed=5
    )
    np.testing.assert_allclose(values, found.values, rtol=1e-12)
    np.testing.assert_allclose(outputs, found.outputs, rtol=1e-12)
    assert np.abs(np.diff(values, axis=0)).max() > 1e-4


def test_the_manifest_says_what_is_what(tmp_path: Path) -> None:
    chip = sample_chip(NETWORK, Hardware(), chip=1, seed=2)
    path = write_learning(
        chip, TASK, CoupledLearning(), cyclic(TASK, 5e-3), BEGIN, tmp_path, slots=3, first_slot=1
    )
    said = json.loads(path.read_text())
    assert [part["vector"] for part in said["values"]] == ["v(g_0)", "v(g_1)"]
    assert [part["per_volt"] for part in said["values"]] == [1.0, 1e-3]
    assert [(part["from"], part["to"]) for part in said["values"]] == [("in", "out"), ("out", "0")]
    assert said["outputs"] == {"out": "v(a_out)"}
    assert said["examples"] == [1, 0, 1]
    assert said["labels"] == {"out": [0.2, 0.1]}
    assert (said["chip"], said["seed"], said["disturbed"]) == (1, 2, None)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["learning.cir", "manifest.json"]


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    example = two_tasks()
    schedule = cyclic(example.task, 5e-3)
    arguments = (example.chip, example.task, CoupledLearning(), schedule, np.array([2.5, 2.5]))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_learning(*arguments, tmp_path / "file", slots=1)
    with pytest.raises(InputError, match="slots = 0"):
        write_learning(*arguments, tmp_path, slots=0)
    with pytest.raises(InputError, match="cannot be read"):
        read_learning(tmp_path)
    write_learning(*arguments, tmp_path, slots=1)
    with pytest.raises(InputError, match=r"cannot be read.*learning\.raw"):
        read_learning(tmp_path)
    (tmp_path / "learning.raw").write_text("Title: x\n")
    with pytest.raises(EngineError, match="not a complete raw file"):
        read_learning(tmp_path)
