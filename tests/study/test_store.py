"""A store is only ever this study's; anything else is refused and left as it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import spicenn as sn
from spicenn.errors import DesignError, InputError, Status, StoreError
from spicenn.study import design_of, open_record, tile_record
from spicenn.study.lock import locked
from tests.study.conftest import assert_same

# No test here may get as far as running a chip.
NOWHERE = "tcp://127.0.0.1:1"


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished store."""
    return Path(shutil.copytree(finished, tmp_path / "store"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def again(design, x, store, *, chips=6, **changes):
    options = {"seed": 7, "engine": "nodal", "keep": ("g", "g_target"), "scheduler": NOWHERE}
    return sn.monte_carlo(design, x, chips=chips, store=store, **{**options, **changes})


def test_the_same_call_reads_the_store(design, x, store):
    before = content(store)
    assert_same(again(design, x, store), open_record(store))
    assert content(store) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 8}, "seed is 7, asked for 8"),
        ({"engine": "ngspice"}, "engine"),
        ({"trials": 2}, "trials"),
        ({"keep": ("g",)}, "keep"),
        ({"sweep": {"r_wordline": [1.0]}}, "sweep"),
    ],
)
def test_another_study_is_refused_by_what_differs(design, x, store, changes, said):
    before = content(store)
    with pytest.raises(StoreError, match=said):
        again(design, x, store, **changes)
    assert content(store) == before


def test_another_design_or_input_is_refused(design, x, store):
    with pytest.raises(StoreError, match="design_hash"):
        again(design.with_technology(r_wordline=3.0), x, store)
    with pytest.raises(StoreError, match="input_hash"):
        again(design, x * 0.5, store)


def test_an_unknown_schema_is_refused(design, x, store):
    edit(store, schema=2)
    for use in (lambda: again(design, x, store), lambda: open_record(store)):
        with pytest.raises(StoreError, match="schema 2"):
            use()


def edit(store: Path, **attributes) -> None:
    """Change attributes of the root, where readers and writers find them."""
    path = store / "zarr.json"
    data = json.loads(path.read_text("utf-8"))
    data["attributes"].update(attributes)
    path.write_text(json.dumps(data), "utf-8")


def test_a_foreign_folder_or_file_is_left_alone(design, x, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.txt").write_text("mine", "utf-8")
    for path in (folder, folder / "a.txt"):
        with pytest.raises(StoreError, match="not a study's record"):
            again(design, x, path)
        with pytest.raises(StoreError):
            open_record(path)
    assert [p.name for p in tmp_path.rglob("*")] == ["photos", "a.txt"]
    with pytest.raises(StoreError, match="cannot be written"):
        again(design, x, folder / "a.txt" / "store")
    with pytest.raises(StoreError, match="no record"):
        open_record(tmp_path / "missing")


@pytest.mark.parametrize("file", ["zarr.json", "status/zarr.json", "status/c/0", "chip/c/0"])
def test_a_damaged_store_is_refused_and_left_alone(design, x, store, file):
    (store / file).write_bytes(b"{damage")
    before = content(store)
    with pytest.raises(StoreError):
        again(design, x, store).load()
    assert content(store) == before


def test_a_second_client_is_refused(design, x, store):
    with locked(store), pytest.raises(StoreError, match="another study"):
        again(design, x, store)
    again(design, x, store)
    assert [p.name for p in store.parent.iterdir()] == ["store"]


def test_a_worker_of_other_versions_is_refused(design, x, store, address):
    versions = open_record(store).attrs["versions"]
    edit(store, versions={**versions, "numpy": "1.0"})
    with pytest.raises(StoreError, match=r"numpy .* made with 1\.0"):
        again(design, x, store, chips=7, scheduler=address)
    assert open_record(store).status.values[6] == Status.PENDING


def test_a_growth_that_was_killed_half_way_is_undone(design, x, store, address, tmp_path):
    """Arrays already longer than the consolidated sizes: read as before, then cut, then grown."""
    import zarr

    whole = again(design, x, tmp_path / "whole", chips=8, scheduler=address)
    group: Any = zarr.open_group(store, mode="r+", use_consolidated=False)
    for name in ("output", "status", "chip"):
        group[name].resize((9, *group[name].shape[1:]))
    (store / "status" / "c" / "0.abc.partial").write_bytes(b"half")
    assert open_record(store).sizes["chip"] == 6
    grown = again(design, x, store, chips=8, scheduler=address)
    assert_same(grown, whole)
    assert not list(store.rglob("*.partial"))


def test_crashes_and_timeouts_run_again_the_others_stay(design, x, store, address):
    import zarr

    good = open_record(store).load()
    group: Any = zarr.open_group(store, mode="r+", use_consolidated=False)
    group["status"][:] = [1, Status.TIMEOUT, Status.CRASH, Status.NOT_CONVERGED, 1, 1]
    group["output"][1:4] = np.nan
    ds = again(design, x, store, scheduler=address)
    assert ds.status.values.tolist() == [1, 1, 1, Status.NOT_CONVERGED, 1, 1]
    assert_same(ds.isel(chip=[0, 1, 2, 4, 5]), good.isel(chip=[0, 1, 2, 4, 5]))
    assert np.isnan(ds.output.values[3]).all()


def test_tiles_that_were_not_kept_are_named(store):
    with pytest.raises(InputError, match="kept: "):
        tile_record(store, "../other")
    with pytest.raises(InputError, match="does not come from a store"):
        tile_record(open_record(store).copy().drop_encoding(), "x0_r0_c0")


def test_a_dataset_without_its_design_says_so(store):
    with pytest.raises(DesignError, match="no design"):
        design_of(open_record(store)[["output"]])
