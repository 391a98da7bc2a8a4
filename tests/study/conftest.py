"""A small compiled network, its inputs, and one cluster for the tests that need no own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import spicenn as sn
from spicenn.study.cluster import connect
from spicenn.technology import Cell

# No solution where a cell was programmed above the threshold, an ohmic cell otherwise.
PICKY = """
.subckt picky wordline bitline g=10u
bcell wordline bitline i={g}*v(wordline,bitline)
+ +(({g}>107u)?((v(wordline,bitline)>0.01)?1:-1):0)
.ends picky
"""


def compiled(**changes: Any) -> sn.Design:
    """Two layers on two tiles, with wires, programming error and read noise."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    x = torch.rand(8, 6)
    technology = sn.Technology.preset("rram-1r").replace(**changes)
    return sn.compile(
        model, x, technology=technology, tile=sn.Tile(wordlines=16, bitlines=16), calibration=x
    )


@pytest.fixture(scope="session")
def design() -> sn.Design:
    return compiled()


@pytest.fixture(scope="session")
def picky() -> sn.Design:
    return compiled(cell=Cell("picky", PICKY))


@pytest.fixture(scope="session")
def x() -> np.ndarray:
    return np.random.default_rng(5).uniform(0, 1, (5, 6)).astype(np.float32)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Address of a cluster of two workers."""
    with connect(None, 2) as connection:
        yield str(connection.client.scheduler.address)


@pytest.fixture(scope="session")
def finished(
    design: sn.Design, x: np.ndarray, address: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A complete store of six chips, tiles kept; tests copy it before they write."""
    path = tmp_path_factory.mktemp("study") / "store"
    sn.monte_carlo(
        design, x, chips=6, seed=7, engine="nodal", keep=("g", "g_target"), store=path,
        scheduler=address,
    )  # fmt: skip
    return path


def assert_same(a: xr.Dataset, b: xr.Dataset) -> None:
    """Equal bit for bit in everything but runtime and provenance."""
    aside = {"versions", "chunk"}
    assert {k: v for k, v in a.attrs.items() if k not in aside} == {
        k: v for k, v in b.attrs.items() if k not in aside
    }
    xr.testing.assert_identical(
        a.drop_vars("runtime", errors="ignore").drop_attrs(),
        b.drop_vars("runtime", errors="ignore").drop_attrs(),
    )
