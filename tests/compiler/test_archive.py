"""A saved design comes back the same; a file that is not one is refused before it is used."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spicenn.compiler import archive
from spicenn.compiler.design import Design
from spicenn.compiler.mapping import Mapping
from spicenn.compiler.pipeline import compile
from spicenn.errors import DesignError
from spicenn.technology import Technology
from tests.compiler.zoo import build, compiled


@pytest.fixture(scope="module")
def design() -> Design:
    model, example = build("resnet-block")
    return compile(
        model,
        example,
        technology=Technology.preset("rram-1r"),
        mapping=Mapping(slices=2, cell_bits=3, input_bits=6, adc_bits=8),
    )


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def pack(content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return buffer.getvalue()


def edited(design: Design, edit: Callable[[dict[str, Any]], object]) -> bytes:
    content = members(design.to_bytes())
    document = json.loads(content["design.json"])
    edit(document)
    content["design.json"] = json.dumps(document).encode()
    return pack(content)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def test_everything_comes_back(design: Design, tmp_path: Path) -> None:
    design.save(tmp_path / "a b.design")
    loaded = Design.load(tmp_path / "a b.design")
    assert [p.name for p in tmp_path.iterdir()] == ["a b.design"]
    assert loaded.to_bytes() == design.to_bytes()
    assert loaded.hash == design.hash
    assert loaded.program == design.program
    assert loaded.technology == design.technology
    assert (loaded.tile, loaded.mapping) == (design.tile, design.mapping)
    assert loaded.versions == design.versions
    for a, b in zip(loaded.layers, design.layers, strict=True):
        assert np.array_equal(a.weight, b.weight)
        assert (a.name, a.convolution, a.signed, a.source) == (
            b.name,
            b.convolution,
            b.signed,
            b.source,
        )
    for name, array in design.constants.items():
        assert loaded.constants[name].dtype == array.dtype
        assert np.array_equal(loaded.constants[name], array)
    for found, kept in zip(loaded.example, design.example, strict=True):
        assert np.array_equal(found, kept)
    assert str(loaded) == str(design)


def test_infinite_arguments_and_integer_inputs_survive() -> None:
    design = compiled("tied-embedding")
    assert Design.from_bytes(design.to_bytes()).program == design.program

    class Masked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.fc(x)
            return y.masked_fill(x < 0, float("-inf")).softmax(-1)

    design = compile(Masked(), torch.ones(2, 3), technology=Technology.preset("ideal"))
    assert Design.from_bytes(design.to_bytes()).program == design.program


def test_the_hash_is_of_what_changes_a_result(design: Design) -> None:
    assert replace(design, versions={"torch": "0"}).hash == design.hash
    assert replace(design, example=()).hash == design.hash
    moved = tuple(replace(layer, source="elsewhere.py:1") for layer in design.layers)
    assert replace(design, layers=moved).hash == design.hash
    first = design.layers[0]
    for change in (
        {"weight": first.weight * (1 + 1e-15)},
        {"input_scale": first.input_scale * 2},
        {"signed": not first.signed},
        {"bias": None},
    ):
        layers = (replace(first, **change), *design.layers[1:])
        assert replace(design, layers=layers).hash != design.hash
    assert replace(design, mapping=Mapping()).hash != design.hash


def test_another_process_computes_the_same_hash(design: Design, tmp_path: Path) -> None:
    design.save(tmp_path / "d")
    code = (
        "import sys; from spicenn.compiler.design import Design; "
        "print(Design.load(sys.argv[1]).hash)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(archive.__file__).parents[2])},
    )
    assert run.stdout.strip() == design.hash


def node(document: dict[str, Any], op: str) -> dict[str, Any]:
    found: dict[str, Any] = next(n for n in document["program"]["nodes"] if n["op"] == op)
    return found


CROSSBAR = "spicenn.crossbar"
EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "version": (lambda d: d.update(format=99), "format 99"),
    "no version": (lambda d: d.pop("format"), "format None"),
    "unknown key": (lambda d: d.update(extra=1), "extra"),
    "missing key": (lambda d: d.pop("layers"), "layers"),
    "operator": (lambda d: node(d, "aten.relu.default").update(op="aten.load.default"), "allowed"),
    "python": (lambda d: node(d, "aten.relu.default").update(op="os.system"), "not allowed"),
    "dangling": (lambda d: node(d, CROSSBAR)["args"].__setitem__(1, {"ref": "gone"}), "'gone'"),
    "cycle": (
        lambda d: node(d, CROSSBAR)["args"].__setitem__(
            1, {"ref": d["program"]["nodes"][-1]["name"]}
        ),
        "nothing before it",
    ),
    "constant": (
        lambda d: node(d, "aten.relu.default").update(args=[{"constant": "gone"}]),
        "'gone'",
    ),
    "layer": (lambda d: node(d, CROSSBAR)["args"].__setitem__(0, "gone"), "no layer"),
    "argument": (lambda d: node(d, "aten.relu.default").update(args=[{"eval": "1"}]), "eval"),
    "name twice": (
        lambda d: d["program"]["nodes"][-1].update(name=d["program"]["nodes"][0]["name"]),
        "two values",
    ),
    "result": (lambda d: d["program"].update(results=["gone"]), "'gone'"),
    "array twice": (lambda d: d["layers"][0].update(weight=d["layers"][1]["weight"]), "used twice"),
    "array missing": (lambda d: d["layers"][0].update(weight=10**9), "missing"),
    "array left": (lambda d: d.update(example=[]), "belong to nothing"),
    "scale": (lambda d: d["layers"][0].update(input_scale=0.0), "input_scale"),
    "huge scale": (lambda d: d["layers"][0].update(input_scale=10**400), "too large"),
    "index": (lambda d: d["layers"][0].update(index=3), "index"),
    "geometry": (lambda d: d["layers"][0]["convolution"].update(stride=[0, 1]), "out of range"),
    "kernel": (lambda d: d["layers"][0]["convolution"].update(kernel=[5, 5]), "kernel"),
    "technology": (lambda d: d["technology"].update(g_min=1.0), "g_min"),
    "cell": (
        lambda d: d["technology"].update(
            cell={"name": "bad", "netlist": ".subckt bad a b g=1\n.control\n.endc\n.ends"}
        ),
        "control",
    ),
    "tile": (lambda d: d["tile"].update(wordlines=0), "wordlines"),
    "mapping": (lambda d: d["mapping"].update(colour=1), "colour"),
    "narrow": (lambda d: d["tile"].update(bitlines=2), "bitlines"),
    "dtype": (lambda d: d["program"]["inputs"][0].update(dtype="object"), "dtype"),
    "example": (lambda d: d["program"]["inputs"][0].update(shape=[1]), "example"),
}


@pytest.mark.parametrize("case", EDITS)
def test_a_tampered_document_is_refused(design: Design, case: str) -> None:
    edit, fact = EDITS[case]
    with pytest.raises(DesignError, match=fact):
        Design.from_bytes(edited(design, edit))


def test_tampered_arrays_are_refused(design: Design) -> None:
    content = members(design.to_bytes())
    for bad, fact in (
        (npy(np.array([object()])), "dtype object"),
        (npy(np.zeros(3, dtype="U4")), "dtype"),
        (npy(np.asfortranarray(np.ones((3, 4)))), "order"),
        (pickle.dumps("x"), "no array"),
        (content["arrays/0.npy"][:-8], "bytes"),
        (content["arrays/0.npy"] + bytes(8), "bytes"),
        (npy(np.full((1, 6, 27), np.nan)), "NaN"),
        (npy(np.zeros((6, 1, 27))), "shape"),
        (npy(np.zeros((1, 6, 27), np.float32)), "float64"),
    ):
        with pytest.raises(DesignError, match=fact):
            Design.from_bytes(pack({**content, "arrays/0.npy": bad}))


def test_a_file_that_is_no_design_is_refused(design: Design, tmp_path: Path) -> None:
    content = members(design.to_bytes())
    for bad in (
        b"",
        b"text",
        design.to_bytes()[:-100],
        pack({"design.json": b"{}"}),
        pack({"design.json": b"[" * 100_000}),
        pack({"design.json": b'{"format": NaN}'}),
        pack({**content, "../evil": b"x"}),
        pack({"other": b"x"}),
    ):
        with pytest.raises(DesignError):
            Design.from_bytes(bad)
    with pytest.raises(DesignError, match="nowhere"):
        Design.load(tmp_path / "nowhere")


def test_a_zip_bomb_is_refused_unread(design: Design) -> None:
    content = members(design.to_bytes())
    content["arrays/0.npy"] = bytes(50_000_000)
    with pytest.raises(DesignError, match="compressed"):
        Design.from_bytes(pack(content, zipfile.ZIP_DEFLATED))


def test_saving_to_a_place_that_is_not_there_says_so(design: Design, tmp_path: Path) -> None:
    with pytest.raises(DesignError, match="cannot be written"):
        design.save(tmp_path / "no" / "folder")
