"""Small chips and a study of them, made once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.embedded import embed
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.pipeline import compile
from spicenn.engines.nodal import NodalEngine
from spicenn.surrogate import Surrogate, fit
from spicenn.technology import Technology


@contextmanager
def single_thread() -> Iterator[None]:
    """Problems of this size lose by threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with single_thread():
        yield


def inputs(count: int, seed: int) -> Any:
    """Correlated inputs in [0, 1], as pictures are; (count, 12) float32."""
    mix = np.random.default_rng(99).random((4, 12))
    mixed = np.random.default_rng(seed).random((count, 4)) @ mix
    return (mixed / mix.sum(0)).astype(np.float32)


def compiled(model: nn.Module, x: Any, **changes: Any) -> Design:
    """Compile for rram-1r with some changes of the technology."""
    technology = Technology.preset("rram-1r").replace(**changes)
    return compile(
        model, torch.as_tensor(x[:4]), technology=technology, calibration=torch.as_tensor(x)
    )


def mlp() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 4))


def dataset(design: Design, x: Any, *, chips: int = 8, seed: int = 3) -> Any:
    """A study's record, run in this process on the exact engine."""
    import xarray as xr

    result = run_chips(design, range(chips), seed, as_inputs(design, x), NodalEngine())
    (output,) = result.output.values()
    dims = [f"output_dim_{k}" for k in range(output.ndim - 3)]
    return xr.Dataset(
        {
            "output": (("chip", "trial", "sample", *dims), output),
            "input": (("sample", *(f"input_dim_{k}" for k in range(x.ndim - 1))), x),
            "status": (("chip",), result.status),
            "design": (("byte",), embed(design)),
        },
        attrs={"seed": seed, "engine": "nodal"},
    )


@pytest.fixture(scope="session")
def design() -> Design:
    return compiled(mlp(), inputs(64, 0))


@pytest.fixture(scope="session")
def surrogate(design: Design) -> Surrogate:
    with single_thread():  # made before any test's own fixture
        fitted: Surrogate = fit(dataset(design, inputs(24, 1)))
        return fitted
