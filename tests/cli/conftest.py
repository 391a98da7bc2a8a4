"""A tiny design and study, made once, for every test of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import spicenn as sn
from spicenn.cli.app import program

MODEL = """
import torch
from torch import nn

class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.fc1 = nn.Linear(16, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))

def build():
    return Tiny().eval()

def broken():
    raise RuntimeError("no weights here")

def nothing():
    return 3
"""


@dataclass(frozen=True)
class Files:
    """Paths of what the tests work on; nothing in them is ever changed."""

    folder: Path
    design: Path
    x: Path
    y: Path
    store: Path
    surrogate: Path


class Shell:
    """Runs commands as a shell would."""

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(program, [str(a) for a in arguments], prog_name="spicenn")


def tiny_model() -> torch.nn.Module:
    """The model of ``tiny_model:build``."""
    namespace: dict[str, object] = {}
    exec(MODEL, namespace)
    model = namespace["build"]()  # type: ignore[operator]
    assert isinstance(model, torch.nn.Module)
    return model


@pytest.fixture
def spicenn() -> Shell:
    return Shell()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny_model.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (12, 16)).astype(np.float32)
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", rng.integers(0, 3, 12))
    model = tiny_model()
    design = sn.compile(model, x[:4], technology=sn.Technology.preset("rram-1r"), calibration=x)
    design.save(folder / "tiny.spicenn")
    ds = sn.monte_carlo(
        design, x, chips=4, seed=1, engine="nodal", store=folder / "a.zarr", workers=1
    )
    sn.fit(ds, rounds=1, iterations=1).save(folder / "surrogate.pt")
    return Files(
        folder,
        folder / "tiny.spicenn",
        folder / "x.npy",
        folder / "y.npy",
        folder / "a.zarr",
        folder / "surrogate.pt",
    )
