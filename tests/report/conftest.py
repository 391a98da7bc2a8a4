"""A study in memory, with a chip that failed and one that has not run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

import spicenn as sn
from spicenn.compiler.embedded import embed
from spicenn.errors import Status

CHIPS = 6
HOSTILE = "<script>alert(1)</script> $\\frac{ & \"quoted\" 'too'"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1 = nn.Linear(16, 6)
        self.fc2 = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc2(torch.relu(self.fc1(x)))
        return scores


@pytest.fixture(scope="package")
def x() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (20, 16)).astype(np.float32)


@pytest.fixture(scope="package")
def design(x: np.ndarray) -> sn.Design:
    return sn.compile(Net(), x[:4], technology=sn.Technology.preset("rram-1r"), calibration=x)


@pytest.fixture(scope="package")
def study(design: sn.Design, x: np.ndarray) -> xr.Dataset:
    """A record in memory: six chips, of which one did not converge and one has not run."""
    from spicenn.compiler.execute import run_chips
    from spicenn.engines import open_engine

    with open_engine("nodal") as engine:
        result = run_chips(design, range(CHIPS), 1, (x,), engine)
    output = result.output[design.program.outputs[0].name].copy()
    status = np.full(CHIPS, int(Status.OK), np.int8)
    status[2], status[5] = Status.NOT_CONVERGED, Status.PENDING
    output[[2, 5]] = np.nan
    messages = [""] * CHIPS
    messages[2] = HOSTILE
    return xr.Dataset(
        {
            "output": (("chip", "trial", "sample", "output_dim_0"), output),
            "input": (("sample", "input_dim_0"), x),
            "status": ("chip", status),
            "message": ("chip", np.array(messages, dtype=object)),
            "runtime": ("chip", np.full(CHIPS, 0.5), {"units": "s"}),
            "design": ("byte", embed(design)),
        },
        coords={"chip": np.arange(CHIPS), "trial": [0], "sample": np.arange(len(x))},
        attrs={
            "schema": 1,
            "seed": 1,
            "engine": "nodal",
            "design_hash": design.hash,
            "versions": {"spicenn": HOSTILE},
            "tolerances": {},
            "sweep": {},
        },
    )
