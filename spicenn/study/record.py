"""Reading a study's record."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicenn.errors import InputError, SpicennError, StoreError
from spicenn.study.plan import SCHEMA

if TYPE_CHECKING:
    import xarray as xr


def open_record(path: str | Path) -> xr.Dataset:
    """Open a study's store, finished or not, lazily.

    Returns the root of the record (see the schema page); chips that have not run
    have status 0 and NaN outputs. Raises StoreError where there is no record or
    its schema is unknown.
    """
    return open_group(Path(path), str(path))


def tile_record(record: str | Path | xr.Dataset, tile: str) -> xr.Dataset:
    """Open what one tile did: ``bitline_current``, ``g``, ``g_target`` as far as kept.

    Parameters
    ----------
    record : a store's path, or a dataset that came lazily from one.
    tile : its name; the record's attribute ``tiles`` lists them.

    Raises InputError for a tile that was not kept, StoreError as ``open_record``.
    """
    if isinstance(record, str | Path):
        root, path = open_record(record), Path(record)
    else:
        root = record
        source = root.encoding.get("source")
        if source is None:
            raise InputError(
                "the dataset does not come from a store on disk",
                remedy="give the store's path; a study without a store has none",
            )
        path = Path(source)
    kept = root.attrs.get("tiles", [])
    if tile not in kept:
        raise InputError(
            f"no tile {tile!r} was kept",
            where=str(path),
            remedy="kept: " + (", ".join(kept) or "none; ask monte_carlo for keep=('g', …)"),
        )
    child = open_group(path, f"{path}/{tile}", tile)
    whole = open_record(path)
    coordinates = {
        name: whole[name]
        for name in ("chip", "trial", "sample", *whole.attrs["sweep"])
        if name in child.dims
    }
    if "chip" in child.dims:  # may already be longer, if a client was killed as it grew
        child = child.isel(chip=slice(whole.sizes["chip"]))
    child = child.assign_coords(coordinates)
    wanted = {name: root[name].values for name in coordinates if root.sizes.get(name)}
    selected: xr.Dataset = child.sel(wanted)
    return selected


def open_group(store: Any, where: str, group: str | None = None) -> xr.Dataset:
    """Open one group of a Zarr store that is a record. Raises StoreError."""
    import xarray as xr

    if isinstance(store, Path) and not store.is_dir():
        raise StoreError("there is no record", where=where)
    with reading(where):
        root = open_zarr_group(store, mode="r")
        check_schema(dict(root.attrs), where)
        # The consolidated metadata name the arrays as they were when last complete:
        # a study killed while it grew reads as it was before.
        ds: Any = xr.open_zarr(store, group=group, consolidated=True, chunks={}, decode_times=False)
    opened: xr.Dataset = ds
    opened.encoding["source"] = str(store) if isinstance(store, Path) else None
    return opened


def open_zarr_group(store: Any, mode: str) -> Any:
    """Open a store's root group as it is now, consolidated metadata left aside."""
    import zarr

    return zarr.open_group(store, mode=mode, use_consolidated=False)  # type: ignore[arg-type]


def consolidate(store: Any, group: str | None = None) -> None:
    """Write the metadata of all arrays into their group's."""
    import zarr

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(store, path=group)


def check_schema(attributes: dict[str, Any], where: str) -> None:
    """Raise StoreError unless the attributes are those of a record we know."""
    schema = attributes.get("schema")
    if schema is None or "design_hash" not in attributes:
        raise StoreError(
            "is a Zarr group but not a study's record",
            where=where,
            remedy="give another path; nothing was changed",
        )
    if schema != SCHEMA or isinstance(schema, bool):
        raise StoreError(
            f"has schema {schema!r}, this version reads schema {SCHEMA}",
            where=where,
            remedy="open it with the version of spicenn that wrote it (see its attributes)",
        )


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a damaged store makes Zarr or xarray raise into a StoreError."""
    try:
        yield
    except SpicennError:
        raise
    except Exception as error:
        raise StoreError(
            f"is not a readable record: {type(error).__name__}: {error}",
            where=where,
            remedy="give another path, or move this one away; nothing was changed",
        ) from error
