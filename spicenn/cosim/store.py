"""A co-simulation's record on disk: one Zarr group, which holds numbers and text alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import numpy as np

from spicenn.cosim.reading import COLUMNS, KINDS
from spicenn.cosim.record import SCHEMA
from spicenn.errors import SpicennError, StoreError

if TYPE_CHECKING:
    import xarray as xr

_TEXT = ("event_kind", "event_name", "event_process")


def save_record(ds: xr.Dataset, path: str | Path) -> None:
    """Write the record of a co-simulation: aside, then moved to its place in one step.

    Names keep their letters, digits and ``_.-~()[]+:``; what else they hold is written
    as in an address, ``%2F``. Raises StoreError where there is something already or
    it cannot be written.
    """
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise StoreError(
            "exists", where=str(target), remedy="give another path; nothing was changed"
        )
    # Text of a fixed width has no place in Zarr's specification.
    written = ds.assign({name: ds[name].astype(object) for name in _TEXT})
    written = written.rename({name: _quoted(str(name)) for name in ds.variables})
    aside = target.with_name(f".{target.name}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed here
        written.to_zarr(aside, mode="w-", zarr_format=3, consolidated=False)
        aside.rename(target)
    except OSError as error:
        raise StoreError(
            f"cannot be written: {error.strerror}", where=str(target), remedy="give another path"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load_record(path: str | Path) -> xr.Dataset:
    """Read what ``save_record`` wrote, as ``Cosimulation.dataset`` returned it.

    Nothing in it is executed. Raises StoreError where there is no record or it is not what
    it claims to be.
    """
    import xarray as xr

    target = Path(path)
    if not target.is_dir():
        raise StoreError("there is no record", where=str(target))
    try:
        lazy = xr.open_zarr(
            target, zarr_format=3, consolidated=False, chunks=None, decode_times=False
        )
        _check(lazy, str(target))
        ds = lazy.load()
        text = {name: np.array([str(x) for x in ds[name].values], dtype=np.str_) for name in _TEXT}
        ds = ds.assign({name: ("event", column) for name, column in text.items()})
        ds = ds.rename({name: unquote(str(name)) for name in ds.variables})
        _check_loaded(ds, str(target))
    except SpicennError:
        raise
    except Exception as error:  # whatever a damaged store makes Zarr or xarray raise
        raise StoreError(
            f"is not a readable record: {type(error).__name__}: {error}", where=str(target)
        ) from error
    loaded: xr.Dataset = ds
    return loaded


def is_cosimulation(path: Path) -> bool:
    """Whether a path is a co-simulation's record, by its attributes alone."""
    import zarr

    try:
        group = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)
        return "cosimulation" in group.attrs
    except Exception:
        return False


def _quoted(name: str) -> str:
    quoted = quote(name, safe="()[]+:")
    # Names that Zarr keeps for itself, and those of folders.
    if quoted.startswith("__") or not quoted.strip(".") or quoted == "zarr.json":
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    return quoted


def _check(ds: xr.Dataset, where: str) -> None:
    schema = ds.attrs.get("cosimulation")
    if schema is None:
        raise StoreError("is a Zarr group but not a co-simulation's record", where=where)
    if schema != SCHEMA or isinstance(schema, bool):
        raise StoreError(
            f"has schema {schema!r}, this version reads schema {SCHEMA}",
            where=where,
            remedy="open it with the version of spicenn that wrote it",
        )
    for name in COLUMNS:
        if name not in ds.data_vars or ds[name].dims != ("event",):
            raise StoreError(f"has no column {name}", where=where)


def _check_loaded(ds: xr.Dataset, where: str) -> None:
    for name, variable in ds.variables.items():
        along = variable.dims[0] if variable.ndim == 1 else None
        traced = along in ds.coords and str(along).startswith("time")
        text = name in _TEXT
        if (
            not (traced or along == "event")
            or variable.dtype.kind != ("U" if text else "f")
            or (traced and variable.attrs.get("units") not in ("s", "V", "A"))
        ):
            raise StoreError(f"{str(name)[:60]!r} is neither a trace nor of events", where=where)
    unknown = set(ds["event_kind"].values.tolist()) - set(KINDS)
    if unknown:
        raise StoreError(f"has events of kind {min(unknown)[:60]!r}", where=where)
