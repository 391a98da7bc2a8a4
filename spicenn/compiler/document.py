"""A design as plain JSON values and a list of arrays, and back with every check."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.compiler.layer import Convolution, Layer
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.program import Constant, Node, Port, Program, Ref
from spicenn.compiler.validate import check_design
from spicenn.errors import DesignError, SpicennError
from spicenn.technology.toml import from_dict, to_dict

T = TypeVar("T")
Arrays = list[NDArray[np.generic]]
_MOST_NESTING = 16


def to_document(design: Design, *, examples: bool = True) -> tuple[dict[str, Any], Arrays]:
    """Return JSON values and the arrays that they name by number."""
    arrays: Arrays = []

    def put(array: NDArray[np.generic]) -> int:
        arrays.append(array)
        return len(arrays) - 1

    program = design.program
    document: dict[str, Any] = {
        "name": design.name,
        "program": {
            "inputs": [_from_port(port) for port in program.inputs],
            "nodes": [
                {
                    "name": node.name,
                    "op": node.op,
                    "args": [_from_argument(argument) for argument in node.args],
                    "kwargs": [[key, _from_argument(value)] for key, value in node.kwargs],
                }
                for node in program.nodes
            ],
            "outputs": [_from_port(port) for port in program.outputs],
            "results": list(program.results),
        },
        "layers": [_from_layer(layer, put) for layer in design.layers],
        "constants": [[name, put(array)] for name, array in sorted(design.constants.items())],
        "technology": to_dict(design.technology),
        "tile": asdict(design.tile),
        "mapping": asdict(design.mapping),
        "example": [put(array) for array in design.example] if examples else [],
        "versions": dict(design.versions),
    }
    return document, arrays


def from_document(
    document: dict[str, Any],
    arrays: Arrays,
    *,
    allow_include: Sequence[str | Path] = (),
    trust_model: bool = False,
) -> Design:
    """Undo ``to_document``. Raises DesignError naming the key that is wrong."""
    read_technology = partial(from_dict, allow_include=allow_include, trust_model=trust_model)
    reader = _Reader(arrays)
    data = reader.keys(
        document,
        "design",
        {
            "name",
            "program",
            "layers",
            "constants",
            "technology",
            "tile",
            "mapping",
            "example",
            "versions",
        },
    )
    constants = {}
    for name, index in reader.pairs(data["constants"], "constants"):
        constants[name] = reader.array(index, f"constant {name!r}")
    design = Design(
        name=reader.text(data["name"], "name"),
        program=reader.program(data["program"]),
        layers=tuple(reader.layer(item) for item in reader.items(data["layers"], "layers")),
        constants=constants,
        technology=_record(read_technology, data["technology"], "technology"),
        tile=_record(lambda d: Tile(**d), data["tile"], "tile"),
        mapping=_record(lambda d: Mapping(**d), data["mapping"], "mapping"),
        example=tuple(
            reader.array(index, "example") for index in reader.items(data["example"], "example")
        ),
        versions=reader.texts(data["versions"], "versions"),
    )
    if reader.unread:
        raise DesignError(f"arrays {sorted(reader.unread)} belong to nothing")
    check_design(design)
    return design


def _from_port(port: Port) -> dict[str, Any]:
    return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}


def _from_layer(layer: Layer, put: Callable[[NDArray[np.generic]], int]) -> dict[str, Any]:
    return {
        "name": layer.name,
        "index": layer.index,
        "weight": put(layer.weight),
        "bias": None if layer.bias is None else put(layer.bias),
        "convolution": None if layer.convolution is None else asdict(layer.convolution),
        "signed": layer.signed,
        "input_scale": layer.input_scale,
        "weight_scale": layer.weight_scale,
        "current_scale": layer.current_scale,
        "source": layer.source,
    }


def _from_argument(argument: Any) -> Any:
    if isinstance(argument, Ref):
        return {"ref": argument.name}
    if isinstance(argument, Constant):
        return {"constant": argument.name}
    if isinstance(argument, tuple):
        return [_from_argument(item) for item in argument]
    if isinstance(argument, float) and argument in (float("inf"), float("-inf")):
        return {"float": str(argument)}  # JSON has no infinity
    return argument


def _record(build: Callable[[dict[str, Any]], T], value: Any, where: str) -> T:
    if not isinstance(value, dict):
        raise DesignError("is not a table", where=where)
    try:
        return build(value)
    except (SpicennError, TypeError, ValueError, AttributeError) as error:
        raise DesignError(str(error), where=where) from error


class _Reader:
    """Checked access to parsed JSON."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays
        self.unread = set(range(len(arrays)))

    def keys(self, value: Any, where: str, expected: set[str]) -> dict[str, Any]:
        if not isinstance(value, dict) or set(value) != expected:
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise DesignError(f"has {found}, not {sorted(expected)}", where=where)
        return value

    def items(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise DesignError("is not a list", where=where)
        return value

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise DesignError(f"{value!r} is not text", where=where)
        return value

    def texts(self, value: Any, where: str) -> dict[str, str]:
        if not isinstance(value, dict):
            raise DesignError("is not a table", where=where)
        return {key: self.text(text, where) for key, text in value.items()}

    def integer(self, value: Any, where: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise DesignError(f"{value!r} is not an integer", where=where)
        return value

    def integers(self, value: Any, where: str) -> tuple[int, ...]:
        return tuple(self.integer(item, where) for item in self.items(value, where))

    def number(self, value: Any, where: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise DesignError(f"{value!r} is not a number", where=where)
        try:
            return float(value)
        except OverflowError as error:
            raise DesignError("is too large", where=where) from error

    def pairs(self, value: Any, where: str) -> list[tuple[str, Any]]:
        result = []
        for item in self.items(value, where):
            if not isinstance(item, list) or len(item) != 2:
                raise DesignError(f"{item!r} is not a pair", where=where)
            result.append((self.text(item[0], where), item[1]))
        if len({name for name, _ in result}) != len(result):
            raise DesignError("repeats a name", where=where)
        return result

    def array(self, index: Any, where: str) -> NDArray[np.generic]:
        number = self.integer(index, where)
        if number not in self.unread:
            raise DesignError(f"array {number} is missing or used twice", where=where)
        self.unread.remove(number)
        return self._arrays[number]

    def float64(self, index: Any, where: str) -> NDArray[np.float64]:
        array = self.array(index, where)
        if array.dtype != np.float64:
            raise DesignError(f"dtype {array.dtype} is not float64", where=where)
        return array.astype(np.float64, copy=False)

    def program(self, value: Any) -> Program:
        data = self.keys(value, "program", {"inputs", "nodes", "outputs", "results"})
        return Program(
            inputs=tuple(self.port(p) for p in self.items(data["inputs"], "inputs")),
            nodes=tuple(self.node(n) for n in self.items(data["nodes"], "nodes")),
            outputs=tuple(self.port(p) for p in self.items(data["outputs"], "outputs")),
            results=tuple(
                self.text(name, "results") for name in self.items(data["results"], "results")
            ),
        )

    def port(self, value: Any) -> Port:
        data = self.keys(value, "port", {"name", "shape", "dtype"})
        return Port(
            self.text(data["name"], "port"),
            self.integers(data["shape"], "port"),
            self.text(data["dtype"], "port"),
        )

    def node(self, value: Any) -> Node:
        data = self.keys(value, "node", {"name", "op", "args", "kwargs"})
        name = self.text(data["name"], "node")
        where = f"node {name!r}"
        return Node(
            name,
            self.text(data["op"], where),
            tuple(self.argument(item, where) for item in self.items(data["args"], where)),
            tuple(
                (key, self.argument(item, where)) for key, item in self.pairs(data["kwargs"], where)
            ),
        )

    def argument(self, value: Any, where: str, depth: int = 0) -> Any:
        if depth > _MOST_NESTING:
            raise DesignError("an argument is nested too deeply", where=where)
        if isinstance(value, list):
            return tuple(self.argument(item, where, depth + 1) for item in value)
        if isinstance(value, dict):
            ((kind, name),) = value.items() if len(value) == 1 else [("", "")]
            if kind == "ref":
                return Ref(self.text(name, where))
            if kind == "constant":
                return Constant(self.text(name, where))
            if kind == "float" and name in ("inf", "-inf"):
                return float(name)
            raise DesignError(f"{value!r} is no argument", where=where)
        return value

    def layer(self, value: Any) -> Layer:
        data = self.keys(
            value,
            "layer",
            {
                "name",
                "index",
                "weight",
                "bias",
                "convolution",
                "signed",
                "input_scale",
                "weight_scale",
                "current_scale",
                "source",
            },
        )
        name = self.text(data["name"], "layer")
        where = f"layer {name!r}"
        if not isinstance(data["signed"], bool):
            raise DesignError("signed is neither true nor false", where=where)
        return Layer(
            name=name,
            index=self.integer(data["index"], where),
            weight=self.float64(data["weight"], where),
            bias=None if data["bias"] is None else self.float64(data["bias"], where),
            convolution=self.convolution(data["convolution"], where),
            signed=data["signed"],
            input_scale=self.number(data["input_scale"], where),
            weight_scale=self.number(data["weight_scale"], where),
            current_scale=self.number(data["current_scale"], where),
            source=self.text(data["source"], where),
        )

    def convolution(self, value: Any, where: str) -> Convolution | None:
        if value is None:
            return None
        data = self.keys(value, where, {"kernel", "stride", "padding", "dilation"})
        padding = []
        for pair in self.items(data["padding"], where):
            sides = self.integers(pair, where)
            if len(sides) != 2:
                raise DesignError("padding is not (before, after)", where=where)
            padding.append((sides[0], sides[1]))
        return Convolution(
            self.integers(data["kernel"], where),
            self.integers(data["stride"], where),
            tuple(padding),
            self.integers(data["dilation"], where),
        )
