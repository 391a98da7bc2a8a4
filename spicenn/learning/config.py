"""What ``spicenn learn`` is to do, as a TOML file: read strictly into records.

    [network]   a graph, or one of the published examples
    [hardware]  the learning circuit and its imperfections, as of ``Hardware``
    [task]      inputs, labels, and when each is shown
    [rule]      what is done to the outputs
    [run]       by what, for how long, on which chips

Every error names the file, the line and the key. Arrays may lie in ``.npy`` files of the
configuration's folder; nothing in them is executed.
"""

from __future__ import annotations

import inspect
import math
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError, SpicennError
from spicenn.learning import examples
from spicenn.learning.contrast import value_range
from spicenn.learning.controller import Converters
from spicenn.learning.elements import Diode, Element, Resistor, Transistor
from spicenn.learning.hardware import Hardware
from spicenn.learning.network import Edge, Network, grid, layered
from spicenn.learning.plan import SLOTS_AT_ONCE, TIMEOUT, FastPlan, Plan, Settings, Start
from spicenn.learning.rules import (
    CoupledLearning,
    Desynchronous,
    Differential,
    EquilibriumPropagation,
    Overclamping,
    Rule,
    paired_with,
)
from spicenn.learning.tables import Table, quantity
from spicenn.learning.task import Task, cyclic
from spicenn.learning.transient import Solver
from spicenn.technology.toml import place_of

Array = NDArray[np.float64]

ENGINES = ("circuit", "controller", "events", "model", "fast")
_ELEMENTS: dict[str, type[Transistor] | type[Resistor] | type[Diode]] = {
    "transistor": Transistor, "resistor": Resistor, "diode": Diode,
}  # fmt: skip
_RULES: dict[str, Callable[..., Rule]] = {
    "coupled_learning": CoupledLearning,
    "overclamping": Overclamping,
    "equilibrium_propagation": EquilibriumPropagation,
}
_EXAMPLES = ("two_tasks", "regression", "xor")
_MOST = 10_000_000
_NPY = b"\x93NUMPY"
_DATASETS = ("digits", "mnist")


def load(path: str | Path) -> Plan | FastPlan:
    """Read a configuration. Raises InputError naming file, line and key."""
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"cannot be read: {what}", where=str(path)) from error
    return parse(text, where=str(path), folder=path.parent)


def parse(
    text: str, *, where: str = "configuration", folder: Path | None = None
) -> Plan | FastPlan:
    """Read a configuration from text.

    Parameters
    ----------
    where : what errors call it.
    folder : that its files lie in; without one it may name none.

    Raises InputError naming line and key.
    """
    try:
        root = Table("", tomllib.loads(text))
        by = root.table("run").choice("by", ENGINES, "circuit")
        plan = (_fast_plan if by == "fast" else _plan)(root, text, folder)
        root.close()
        return plan
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"is not TOML: {error}", where=where) from error
    except SpicennError as error:
        at = where + place_of(text, error.what)
        at = f"{at}, {error.where}" if error.where else at
        raise InputError(error.what, where=at, remedy=error.remedy) from error


def _plan(root: Table, text: str, folder: Path | None) -> Plan:
    parts = {name: root.table(name) for name in ("network", "hardware", "task", "rule", "run")}
    for name in parts:
        if name not in root and name != "hardware":
            raise InputError(f"{name} is missing", remedy=f"write a table [{name}]")
    rule = _rule(parts["rule"])
    hardware, listed = _hardware(parts["hardware"])
    bias: Array | None = None
    table = parts["network"]
    kind = table.choice("kind", ("grid", "layered", "graph", "example"))
    if kind == "example":
        for key in ("bias", "bias_speed"):
            if key in parts["hardware"]:
                raise InputError(
                    f"hardware.{key} is the example's own", remedy="give network.speeds"
                )
        network, bias, task = _example(table, hardware, rule)
    else:
        network = _network(table, kind)
        task = _task(parts["task"], folder)
    table.close()
    if not network.learning:
        raise InputError(
            "network has no edge that learns",
            remedy="leave a transistor's gate out, or give a resistor learns = true",
        )
    values, outputs = len(network.learning), len(network.outputs)
    if "bias_speed" in listed:
        bias = hardware.bias_of(_filled("hardware.bias_speed", listed["bias_speed"], values),
                                rule.rate)  # fmt: skip
    elif "bias" in listed:
        bias = _filled("hardware.bias", listed["bias"], values)
    offset = None
    if "output_offset" in listed:
        offset = _filled("hardware.output_offset", listed["output_offset"], outputs)
    task.check(network)
    if rule.clamp().paired:
        paired_with(outputs)
    order = parts["task"].choice("order", ("cyclic", "shuffled"), "cyclic")
    period = parts["task"].number("period")
    edge = parts["task"].number("edge", None)
    parts["task"].close()
    slot = cyclic(task, period, edge=edge).slot
    run, start = _settings(parts["run"], network, task, order, slot)
    plan = Plan(
        network=network, hardware=hardware, bias=bias, output_offset=offset, task=task,
        order=order, period=period, edge=edge, rule=rule, start=start, run=run, text=text,
    )  # fmt: skip
    _check_random(plan)
    return plan


# [network]


def _network(table: Table, kind: str) -> Network:
    temperature = table.number("temperature", 300.15)
    if kind == "layered":
        diode = _element(table.table("diode"), Diode) if "diode" in table else None
        return replace(
            layered(
                table.wholes("sizes"),
                element=_default_element(table, Resistor(learns=True)),
                diode=diode, temperature=temperature,
            ), shunt=table.number("shunt", 1e-10),
        )  # fmt: skip
    inputs, outputs = tuple(table.texts("inputs")), tuple(table.texts("outputs"))
    if kind == "grid":
        found = grid(
            table.whole("rows"), table.whole("columns"), inputs=inputs, outputs=outputs,
            periodic=table.flag("periodic", True),
            element=_default_element(table, Transistor()), temperature=temperature,
        )  # fmt: skip
        return replace(found, shunt=table.number("shunt", 1e-10))
    elements: dict[str, Element] = {"transistor": Transistor(), "resistor": Resistor()}
    elements |= {name: _any_element(part) for name, part in table.tables("elements").items()}
    edges = []
    for number, item in enumerate(table.raw("edges"), 1) if isinstance(
        table.raw("edges"), list) else _no_list(table, "edges"):  # fmt: skip
        words = item if isinstance(item, list) else []
        if len(words) not in (2, 3) or not all(isinstance(word, str) for word in words):
            raise InputError(
                f"network.edges: edge {number} is {str(item)[:60]}",
                remedy='write ["from", "to"] or ["from", "to", "element"]',
            )
        name = words[2] if len(words) == 3 else "transistor"
        if name not in elements:
            raise InputError(
                f"network.edges: edge {number} is of {name[:60]!r}, which is no element",
                remedy=f"there are {', '.join(elements)}; others stand in [network.elements.NAME]",
            )
        edges.append(Edge(words[0], words[1], elements[name]))
    return Network(
        edges=tuple(edges), inputs=inputs, outputs=outputs, temperature=temperature,
        shunt=table.number("shunt", 1e-10),
    )  # fmt: skip


def _no_list(table: Table, key: str) -> list[tuple[int, Any]]:
    raise InputError(f"{table.at(key)} is not a list")


def _default_element(table: Table, default: Element) -> Element:
    return _any_element(table.table("element")) if "element" in table else default


def _any_element(table: Table) -> Element:
    kind = _ELEMENTS[table.choice("kind", tuple(_ELEMENTS))]
    found: Element = _element(table, kind)
    return found


def _element(table: Table, kind: Any) -> Any:
    found = table.record(kind)
    table.close()
    return found


def _example(table: Table, hardware: Hardware, rule: Rule) -> tuple[Network, Array | None, Task]:
    """Call a function of ``examples`` with the keys that it has."""
    there = [name for name in _EXAMPLES if hasattr(examples, name)]
    build = getattr(examples, table.choice("example", there))
    hints = get_type_hints(build)
    given: dict[str, Any] = {}
    for name in inspect.signature(build).parameters:
        if name == "hardware":
            given[name] = hardware
        elif name == "rate":
            given[name] = rule.rate
        elif name not in ("seed", "chip") and name in table:  # chips are sampled here
            given[name] = _argument(table, name, hints[name])
    try:
        found = build(**given)
    except ValueError as error:
        if isinstance(error, SpicennError):
            raise
        raise InputError(f"network.example: {error}") from error
    return found.chip.network, found.chip.bias, found.task


def _argument(table: Table, name: str, kind: Any) -> Any:
    if kind in (bool, int, float):
        return {bool: table.flag, int: table.whole, float: table.number}[kind](name)
    parts = get_args(kind)
    found = table.texts(name) if str in parts else table.numbers(name)
    if len(found) != len(parts):
        raise InputError(f"{table.at(name)} has {len(found)} parts, not {len(parts)}")
    return tuple(found)


# [hardware], [rule]


def _hardware(table: Table) -> tuple[Hardware, dict[str, Any]]:
    """The record; bias and offset where they are given one by one, the bias as a speed."""
    listed: dict[str, Any] = {}
    for key in ("bias", "output_offset", "bias_speed"):
        if isinstance(table.raw(key, None), list):
            listed[key] = table.numbers(key)
        elif key == "bias_speed" and key in table:
            listed[key] = table.number(key)
    if "bias" in table and "bias_speed" in table:
        raise InputError(
            "hardware.bias_speed says what hardware.bias says", remedy="give one of them"
        )
    hardware = table.record(Hardware, skip=tuple(listed))
    table.close()
    return hardware, listed


def _filled(key: str, value: Any, size: int) -> Array:
    found = np.asarray(value, dtype=np.float64)
    if found.shape not in ((), (size,)):
        raise InputError(f"{key} has {found.size} numbers, not one or {size}")
    return np.array(np.broadcast_to(found, (size,)))


def _rule(table: Table) -> Rule:
    kind = _RULES[table.choice("name", tuple(_RULES))]
    share = table.number("share", 1.0)
    differential = table.flag("differential", False)
    rule = table.record(kind)
    table.close()
    if differential:
        if rule.nudges is not None:
            raise InputError(
                "rule.differential is of outputs that are clamped",
                remedy="take another rule, or leave it out",
            )
        rule = Differential(rule)
    if not 0 < share <= 1:
        raise InputError(f"rule.share = {share!r} is not in (0, 1]")
    return rule if share == 1.0 else Desynchronous(rule, share)


# [task]


def _task(table: Table, folder: Path | None) -> Task:
    name = table.text("name", None)
    if name is not None:
        raise InputError(
            f"task.name = {name[:60]!r} is for networks that are trained by = 'fast'",
            remedy="give inputs and labels [V]",
        )
    task = Task(_array(table, "inputs", folder), _array(table, "labels", folder))
    constants = table.numbers("constants", [])
    return task.with_constants(constants) if constants else task


def _array(table: Table, key: str, folder: Path | None) -> NDArray[Any]:
    """Rows of quantities, or a file's numbers."""
    value = table.raw(key)
    at = table.at(key)
    if isinstance(value, str):
        return _file(value, at, folder)
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise InputError(f"{at} is not a list of lists", remedy="write one list per example")
    rows = [[quantity(item, at) for item in row] for row in value]
    if len({len(row) for row in rows}) > 1:
        raise InputError(f"{at} has rows of different lengths")
    return np.array(rows)


def _file(name: str, key: str, folder: Path | None) -> NDArray[Any]:
    if folder is None:
        raise InputError(f"{key}: a file cannot be named here")
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        inside = path.is_relative_to(root) and not Path(name).is_absolute()
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{key} = {name[:60]!r} is not a path") from error
    if not inside:
        raise InputError(
            f"{key} = {name[:60]!r} is not in the configuration's folder",
            remedy="copy the file there, and give its path from there",
        )
    if path.suffix != ".npy":
        raise InputError(f"{key} = {name[:60]!r} is not a .npy file")
    try:
        with path.open("rb") as file:
            if file.read(len(_NPY)) != _NPY:
                raise InputError(f"{key} = {name[:60]!r} is no .npy file")
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise InputError(
            f"{key} = {name[:60]!r} cannot be read: {error.strerror or error}"
        ) from error
    except (ValueError, EOFError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        what = "holds Python objects" if "allow_pickle" in str(error) else "is damaged"
        raise InputError(f"{key} = {name[:60]!r} {what}", remedy="save plain numbers") from error
    if found.dtype.kind not in "fiu":
        raise InputError(f"{key} = {name[:60]!r} holds no numbers but {found.dtype}")
    return np.asarray(found)


# [run]


def _settings(
    table: Table, network: Network, task: Task, order: str, slot: float
) -> tuple[Settings, Start]:
    by = table.choice("by", ENGINES, "circuit")
    seed = table.whole("seed", None, least=0)
    slots = _slots(table, task, slot)
    chips = _chips(table)
    engine, options = None, _options(table, by, order)
    if by == "controller":
        engine = table.choice("engine", ("newton", "ngspice"), None)
    at_once = table.whole("slots_at_once", SLOTS_AT_ONCE)
    if options.get("batch"):  # whole rounds
        slots, at_once = (-(-count // len(task)) * len(task) for count in (slots, at_once))
    run = Settings(
        by=by, slots=slots, chips=chips, seed=seed, slots_at_once=at_once,
        timeout=table.number("timeout", TIMEOUT), engine=engine, options=options,
    )  # fmt: skip
    if not run.timeout > 0:
        raise InputError(f"run.timeout = {run.timeout!r} is not positive")
    start = _start(table, network)
    table.close()
    return run, start


def _options(table: Table, by: str, order: str) -> dict[str, Any]:
    """Of the way to learn."""
    found: dict[str, Any] = {}
    if by == "circuit":
        return {"solver": _solver(table.table("solver"))}
    if by == "model":
        return {"tolerance": table.number("tolerance")} if "tolerance" in table else {}
    found["updates"] = table.whole("updates", 1)
    part = table.table("converters")
    found["converters"] = part.record(Converters, skip=("converter",))
    part.close()
    if by == "events":
        return found | {"settling": table.number("settling", None)}
    batch = table.flag("batch", False)
    if batch and (order != "cyclic" or found["updates"] != 1):
        raise InputError(
            "run.batch is one update of all examples",
            remedy="with order = 'cyclic' and updates = 1",
        )
    return found | {"batch": batch}


def _slots(table: Table, task: Task, slot: float) -> int:
    periods, duration = table.whole("periods", None), table.number("duration", None)
    if (periods is None) == (duration is None):
        raise InputError(
            "run.periods or run.duration is missing"
            if periods is None
            else "run.duration says what run.periods says",
            remedy="give one of them",
        )
    if periods is not None:
        count: int = periods * len(task)
    else:
        if not duration > 0:
            raise InputError(f"run.duration = {duration!r} is not positive")
        slots = duration / slot
        count = math.ceil(slots * (1 - 1e-12)) if slots < _MOST else _MOST  # whole ones
    if count >= _MOST:
        raise InputError(
            f"run.{'duration' if periods is None else 'periods'} is of {_MOST} slots or more",
            remedy="run fewer: the record holds all of them",
        )
    return count


def _chips(table: Table) -> tuple[int, ...] | None:
    value = table.raw("chips", None)
    if value is None:
        return None
    if not isinstance(value, list):
        return tuple(range(table.whole("chips")))
    found = table.wholes("chips", least=0)
    if not found or len(set(found)) < len(found):
        raise InputError("run.chips is empty, or names one twice")
    return tuple(found)


def _start(table: Table, network: Network) -> Start:
    value = table.raw("start", None)
    size = len(network.learning)
    if isinstance(value, dict):
        part = table.table("start")
        low, high = part.number("low"), part.number("high")
        part.close()
        if not low < high:
            raise InputError(f"run.start.low = {low!r} is not below high = {high!r}")
        return Start(low=low, high=high)
    if value is None:
        elements = [network.edges[k].element for k in network.learning]
        if not all(isinstance(element, Resistor) for element in elements):
            raise InputError(
                "run.start is missing",
                remedy="give the gates' voltage, one for each, or {low = …, high = …} to draw from",
            )
        return Start(fixed=tuple(e.conductance for e in elements if isinstance(e, Resistor)))
    numbers = table.numbers("start") if isinstance(value, list) else table.number("start")
    found = _filled("run.start", numbers, size)
    return Start(fixed=tuple(found.tolist()))


def _solver(table: Table) -> Solver:
    default = Solver()
    names = ("reltol", "vntol", "abstol")
    given = {name: table.number(name) for name in names if name in table}
    for name, value in given.items():
        if not value > 0:
            raise InputError(f"{table.at(name)} = {value!r} is not positive")
    found = Solver(
        method=table.choice("method", ("gear", "trap"), default.method),
        steps=table.whole("steps", default.steps),
        tolerances=replace(default.tolerances, **given),
    )
    table.close()
    return found


def _check_random(plan: Plan) -> None:
    """Raise InputError where something is drawn from no seed, or would not be drawn."""
    hardware, run = plan.hardware, plan.run
    spread = [name for name, value in hardware.to_dict().items() if name.endswith("_std") and value]
    if spread and run.chips is None:
        raise InputError(
            f"hardware.{spread[0]} is drawn chip by chip, and run.chips is missing",
            remedy="say how many: chips = 10",
        )
    random = {
        "run.chips are drawn": run.chips is not None,
        "hardware.update_noise is drawn": hardware.update_noise > 0,
        "hardware.output_noise is drawn": hardware.output_noise > 0,
        "rule.share is drawn": plan.rule.share < 1,
        "run.start is drawn": plan.start.fixed is None,
        "task.order is drawn": plan.order == "shuffled",
    }
    for what, true in random.items():
        if true and run.seed is None:
            raise InputError(f"{what}, and run.seed is missing", remedy="give one: seed = 1")
    _check_begin(plan)


def _check_begin(plan: Plan) -> None:
    """Raise InputError where a chip would begin outside of what its capacitors hold."""
    low, high = value_range(plan.chip(plan.chips[0]))
    start = plan.start
    ends = ([start.low], [start.high]) if start.fixed is None else (start.fixed, start.fixed)
    if (np.array(ends[0]) < low).any() or (np.array(ends[1]) > high).any():
        raise InputError(
            "run.start is not within what the capacitors hold, "
            f"{float(low.min()):g} to {float(high.max()):g}",
            remedy="see hardware.gate_low, gate_high and conductance_per_volt",
        )


# by = "fast"


def _fast_plan(root: Table, text: str, folder: Path | None) -> FastPlan:
    from spicenn.learning.resistive import IdealDiode

    if "hardware" in root:
        raise InputError(
            "hardware is of networks that learn by themselves; by = 'fast' has none",
            remedy="leave [hardware] out",
        )
    network, rule, run = (root.table(name) for name in ("network", "rule", "run"))
    network.choice("kind", ("layered",))
    sizes = network.wholes("sizes")
    diode: Any = IdealDiode()
    word = network.raw("diode", "ideal")
    if isinstance(word, dict):
        diode = _element(network.table("diode"), Diode)
    elif network.choice("diode", ("ideal", "none"), "ideal") == "none":
        diode = None
    shape = {
        name: network.number(name, default)
        for name, default in (
            ("conductance", 1e-5), ("least", 0.0), ("gain", 1.0), ("temperature", 300.15),
        )
    }  # fmt: skip
    network.close()
    rule.choice("name", ("equilibrium_propagation",))
    options: dict[str, Any] = {
        "beta": rule.number("beta"),
        "centred": rule.flag("centred", True),
        "rates": rule.numbers("rates") if isinstance(rule.raw("rates"), list)
        else rule.number("rates"),
        "decay": rule.number("decay", 1.0),
        "least": shape["least"],
    }  # fmt: skip
    rule.close()
    run.choice("by", ENGINES)
    epochs, seed = run.whole("epochs"), run.whole("seed", least=0)
    options |= {"batch": run.whole("batch", 32), "save_every": run.whole("save_every", None)}
    options["device"] = run.choice("device", ("cpu", "cuda"), "cpu")
    if "tolerance" in run:
        options["tolerance"] = run.number("tolerance")
    if "sweeps" in run:
        options["sweeps"] = run.whole("sweeps")
    run.close()
    x, labels, validation = _samples(root.table("task"), folder)
    if len(sizes) < 2 or sizes[0] != x.shape[1]:
        raise InputError(
            f"network.sizes = {sizes} does not begin with the {x.shape[1]} features of a sample"
        )
    return FastPlan(
        sizes=tuple(sizes), x=x, labels=labels, validation=validation, seed=seed, epochs=epochs,
        options=options, diode=diode, text=text, **shape,
    )  # fmt: skip


def _samples(
    table: Table, folder: Path | None
) -> tuple[NDArray[Any], NDArray[Any], tuple[NDArray[Any], NDArray[Any]] | None]:
    """Inputs, labels, and those to look at."""
    validation: tuple[NDArray[Any], NDArray[Any]] | None = None
    if "name" in table:
        images = _images(table, folder)
        table.close()
        return (
            images.train.reshape(len(images.train), -1), images.train_labels,
            (images.test.reshape(len(images.test), -1), images.test_labels),
        )  # fmt: skip
    x, labels = _array(table, "inputs", folder), _labels(table, "labels", folder)
    if "validation_inputs" in table or "validation_labels" in table:
        validation = (
            _array(table, "validation_inputs", folder), _labels(table, "validation_labels", folder)
        )  # fmt: skip
    table.close()
    if x.ndim != 2 or not x.size:
        raise InputError(f"task.inputs of shape {x.shape} is not (sample, feature)")
    return x, labels, validation


def _labels(table: Table, key: str, folder: Path | None) -> NDArray[Any]:
    """Classes, or rows of voltages."""
    value = table.raw(key)
    if isinstance(value, list) and not any(isinstance(item, list) for item in value):
        return np.array(table.wholes(key, least=0))
    return _array(table, key, folder)


def _images(table: Table, folder: Path | None) -> Any:
    from spicenn.datasets import load_digits, load_mnist

    if table.choice("name", _DATASETS) == "digits":
        return load_digits(table.whole("training", 1297))
    limit, place = table.whole("limit", None), table.text("folder", None)
    if place is None:
        return load_mnist(limit=limit)
    root = (folder or Path()).resolve()
    path = (root / place).resolve()
    if not path.is_relative_to(root):
        raise InputError(f"task.folder = {place[:60]!r} is not in the configuration's folder")
    return load_mnist(path, limit=limit)
