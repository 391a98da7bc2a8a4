"""A network that learns as a file: what plain ``ngspice -b`` runs, and how to read its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.circuit.raw import read_raw
from spicenn.errors import InputError
from spicenn.learning.contrast import value_per_volt
from spicenn.learning.disturbance import draw_with_before
from spicenn.learning.hardware import LearningChip
from spicenn.learning.rules import Rule, describe
from spicenn.learning.task import Schedule, Task
from spicenn.learning.transient import Solver, netlist_for

Array = NDArray[np.float64]

SCHEMA = 1


def write_learning(
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: ArrayLike,
    folder: str | Path,
    *,
    slots: int,
    first_slot: int = 0,
    seed: int | None = None,
    trial: int = 0,
    solver: Solver | None = None,
) -> Path:
    """Write the twins that ``learn_in_circuit`` simulates, and ``manifest.json``, last.

    ``ngspice -b -r learning.raw learning.cir`` runs all slots in one transient, and needs
    nothing else. The manifest says which vector is the value of which edge.

    Parameters
    ----------
    values : (value,) with which the first of these slots begins [V], [S].
    slots, first_slot, seed, trial, solver : as of ``learn_in_circuit``.

    Returns the manifest's path. Raises InputError for arguments that do not fit, or a folder
    that cannot be written.
    """
    task.check(chip.network)
    schedule.check(task)
    begin = np.asarray(values, dtype=np.float64)
    if slots < 1 or first_slot < 0:
        raise InputError(f"slots = {slots!r} from slot {first_slot!r}", where="write_learning")
    disturbance = draw_with_before(
        chip, rule, schedule.slot, slots=slots, first_slot=first_slot, seed=seed, trial=trial
    )
    solver = solver or Solver()
    text = netlist_for(
        solver, chip, begin, task, schedule, rule, slots=slots, first_slot=first_slot,
        disturbance=disturbance,
    )  # fmt: skip
    network, per_volt = chip.network, value_per_volt(chip)
    manifest: dict[str, Any] = {
        "schema": SCHEMA,
        "chip": chip.index,
        "seed": chip.seed,
        "hardware": chip.hardware.to_dict(),
        "rule": describe(rule),
        "solver": str(solver),
        "run": "ngspice -b -r learning.raw learning.cir",
        "read": "a vector times per_volt is the edge's value: the gate of a transistor [V], the "
        "conductance of a resistor [S]; slots end at multiples of slot [s]",
        "values": [
            {
                "edge": k, "from": network.edges[k].a, "to": network.edges[k].b,
                "vector": f"v(g_{k})", "per_volt": float(per_volt[n]), "begin": float(begin[n]),
            }
            for n, k in enumerate(network.learning)
        ],
        "outputs": {name: f"v(a_{name})" for name in network.outputs},
        "slot": schedule.slot,
        "first_slot": first_slot,
        "examples": schedule.examples(slots, first_slot).tolist(),
        "inputs": dict(zip(network.inputs, task.inputs.T.tolist(), strict=True)),
        "labels": dict(zip(network.outputs, task.labels.T.tolist(), strict=True)),
        "disturbed": None if disturbance is None else {"seed": seed, "trial": trial},
    }  # fmt: skip
    folder = Path(folder)
    path = folder / "manifest.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "learning.cir", text)
        _replace(path, json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise InputError(f"cannot be written: {error}", where=str(folder)) from error
    return path


def read_learning(folder: str | Path, raw: str | Path = "learning.raw") -> tuple[Array, Array]:
    """Return what a raw file says: values (slot + 1, value), and outputs (slot, output) [V].

    Parameters
    ----------
    folder : of ``write_learning``.
    raw : the file that ngspice wrote, in that folder.

    Raises InputError where there is none, or it ends before the last slot does, EngineError
    for a raw file that is not whole.
    """
    folder = Path(folder)
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        found = {name: np.real(v) for name, v in read_raw(folder / raw).items()}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", where=str(folder)) from error
    time = found["time"]
    ends = manifest["slot"] * np.arange(len(manifest["examples"]) + 1)
    if time[-1] < ends[-1] * (1 - 1e-9):
        raise InputError(
            f"the transient ends at {time[-1]:g} s, its last slot at {ends[-1]:g} s",
            where=str(folder / raw), remedy="see what ngspice says of it",
        )  # fmt: skip
    values = [
        part["per_volt"] * np.interp(ends, time, found[part["vector"]])
        for part in manifest["values"]
    ]
    outputs = [np.interp(ends[1:], time, found[name]) for name in manifest["outputs"].values()]
    return np.stack(values, axis=1), np.stack(outputs, axis=1)


def _replace(path: Path, content: str) -> None:
    """Write a file whole or not at all."""
    aside = path.with_name(path.name + ".part")
    aside.write_text(content)
    aside.replace(path)
