"""Writing a study's record: one client, whole tasks, status last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.embedded import output_names
from spicenn.errors import Status, StoreError
from spicenn.study.crosscheck import DISCREPANCY
from spicenn.study.lock import locked
from spicenn.study.plan import Study
from spicenn.study.record import (
    check_schema,
    consolidate,
    open_group,
    open_zarr_group,
    reading,
)
from spicenn.study.task import Outcome
from spicenn.study.template import fill_template

if TYPE_CHECKING:
    import xarray as xr

# A store holds numbers of one spicenn, one NumPy and one of whatever its engine names;
# these may differ between the workers that filled it.
_UNCOMPARED = frozenset({"python", "torch", "xarray", "zarr", "dask", "platform"})


class Store:
    """A record that is being written.

    Made by ``create`` or ``resume``; ``where`` names it in errors.
    """

    def __init__(self, store: Any, study: Study) -> None:
        self._store = store
        self.where = str(store) if isinstance(store, Path) else "the study's record"
        self._study = study
        self._group = open_zarr_group(store, mode="r+")
        self._written_targets: set[tuple[int, ...]] = set()
        self.chips: tuple[int, ...] = tuple(int(chip) for chip in self._group["chip"][:])

    @property
    def chunk(self) -> int:
        """Chips in one chunk, which is what one task runs."""
        return int(self._group.attrs["chunk"])

    def status(self) -> NDArray[np.int8]:
        """Status of every chip, (sweep…, chip)."""
        return np.asarray(self._group["status"][...], dtype=np.int8)

    def check_versions(self, outcome: Outcome) -> None:
        """Raise StoreError where a worker computes with other versions than the store holds."""
        check_versions(self._group.attrs["versions"], outcome.versions, self.where)
        tolerances = dict(outcome.tolerances)
        if self._group.attrs["tolerances"] != tolerances:
            raise StoreError(
                f"a worker's engine has tolerances {tolerances}, "
                f"the store has {self._group.attrs['tolerances']}",
                where=self.where,
            )

    def write(self, point: tuple[int, ...], start: int, outcome: Outcome) -> None:
        """Record what consecutive chips did at one point of the sweep; status comes last."""
        result = outcome.result
        chips = slice(start, start + len(result.status))
        values: dict[str, Any] = {}
        if result.output:  # a chip that took its worker along has none
            names = output_names(self._study.design)
            values.update(zip(names, result.output.values(), strict=True))
        values["message"] = np.array(result.message, dtype=object)
        values["runtime"] = result.runtime
        if self._study.crosscheck:
            unknown = np.full(len(result.status), np.nan)
            found = outcome.discrepancy
            values[DISCREPANCY] = unknown if found is None else found
        for name, value in values.items():
            self._put(name, (*point, chips), value)
        for tile, kept in result.tiles.items():
            for key in ("bitline_current", "g"):
                value = getattr(kept, key)
                if value is not None:
                    self._put(f"{tile}/{key}", (*point, chips), value)
            if kept.g_target is not None and point not in self._written_targets:
                self._put(f"{tile}/g_target", point, kept.g_target)
        self._written_targets.add(point)
        self._put("status", (*point, chips), result.status)

    def extend(self, chips: Sequence[int]) -> None:
        """Make room for more chips after the present ones.

        Readers see the new size at once when the consolidated metadata are
        replaced; until then, and after a kill before it, the old one.
        """
        if not chips:
            return
        old = len(self.chips)
        self._resize(old + len(chips))
        self._group["chip"][old:] = np.array(chips, dtype=np.int64)
        self._consolidate()
        self.chips = (*self.chips, *chips)

    def repair(self, length: int) -> None:
        """Undo an extension that was killed half way: cut every array to ``length`` chips."""
        if any(array.shape[axis] != length for array, axis in self._chip_arrays()):
            self._resize(length)
        self.chips = self.chips[:length]

    def dataset(self, chips: Sequence[int]) -> xr.Dataset:
        """Return the record of some chips, in the order asked for, lazily."""
        ds = open_group(self._store, self.where)
        if tuple(chips) == self.chips:
            return ds
        position = {chip: i for i, chip in enumerate(self.chips)}
        source = ds.encoding.get("source")
        ds = ds.isel(chip=[position[chip] for chip in chips])
        ds.encoding["source"] = source
        return ds

    def _put(self, name: str, index: tuple[Any, ...], value: Any) -> None:
        array = self._group[name]
        expected = array.shape[len(index) :]
        if np.shape(value)[len(np.shape(value)) - len(expected) :] != expected:
            raise StoreError(
                f"{name} has shape {np.shape(value)}, the store holds (…, {expected})",
                where=self.where,
            )
        try:
            array[index] = value
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error}",
                where=self.where,
                remedy="make room, then run the same again: what is recorded is kept",
            ) from error

    def _chip_arrays(self) -> Iterator[tuple[Any, int]]:
        tiles = [self._group[name] for name in self._group.attrs["tiles"]]
        for group in (self._group, *tiles):
            for _, array in group.arrays():
                names = array.metadata.dimension_names or ()
                if "chip" in names:
                    yield array, names.index("chip")

    def _resize(self, length: int) -> None:
        for array, axis in list(self._chip_arrays()):
            shape = list(array.shape)
            shape[axis] = length
            array.resize(tuple(shape))

    def _consolidate(self) -> None:
        consolidate_all(self._store, self._group.attrs["tiles"])


def consolidate_all(store: Any, tiles: Sequence[str]) -> None:
    """Consolidate the tiles' groups, then the root: a reader's sizes change with the root's."""
    for tile in tiles:
        consolidate(store, tile)
    consolidate(store)


def create(target: Any, study: Study, chips: Sequence[int], sample: Outcome, chunk: int) -> Store:
    """Write the empty record: aside, then moved to its place in one step."""
    if not isinstance(target, Path):
        _fill(target, study, chips, sample, chunk)
        return Store(target, study)
    aside = target.with_name(f".{target.name}.new")
    try:
        shutil.rmtree(aside, ignore_errors=True)  # of a client that was killed here
        _fill(aside, study, chips, sample, chunk)
        aside.rename(target)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(
            f"cannot be created: {error}", where=str(target), remedy="give another path"
        ) from error
    return Store(target, study)


def _fill(target: Any, study: Study, chips: Sequence[int], sample: Outcome, chunk: int) -> None:
    import zarr

    group = zarr.open_group(target, mode="w-", zarr_format=3)
    fill_template(group, study, chips, sample, chunk)
    consolidate_all(target, sorted(sample.result.tiles))


@contextmanager
def claimed(target: Path | None) -> Iterator[Any]:
    """Hold a store for writing; yield what Zarr takes. None is a store in memory.

    Raises StoreError where the path cannot become a store or another client has it.
    """
    if target is None:
        from zarr.storage import MemoryStore

        yield MemoryStore()
        return
    target = Path(os.path.abspath(target))  # noqa: PTH100 - keeps the user's symlinks
    with locked(target):
        yield target


def is_record(target: Path) -> bool:
    """Whether there is a record to go on with; False where there is nothing yet.

    Raises StoreError for anything else.
    """
    if not (target.exists() or target.is_symlink()):
        return False
    if target.is_dir() and not any(target.iterdir()):
        return False
    if not target.is_dir() or not (target / "zarr.json").is_file():
        raise StoreError(
            "exists and is not a study's record",
            where=str(target),
            remedy="give another path; nothing was changed",
        )
    return True


def resume(target: Any, study: Study) -> Store | None:
    """Open the store to go on with, None where there is none yet.

    Raises StoreError for anything that is there and is not this study's record.
    """
    if not isinstance(target, Path) or not is_record(target):
        return None
    where = str(target)
    with reading(where):
        attributes = dict(open_zarr_group(target, mode="r").attrs)
        check_schema(attributes, where)
        check_same(attributes, study.identity(), where)
        length = open_group(target, where).sizes["chip"]
        store = Store(target, study)
        for leftover in target.rglob("*.partial"):  # of a write that was killed
            leftover.unlink(missing_ok=True)
        store.repair(length)
        store.status()
        return store


def check_versions(stored: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Raise StoreError where what computes differs from what a store's numbers came from."""
    for name in sorted(set(stored) | set(found)):
        if name in _UNCOMPARED or (a := stored.get(name)) == (b := found.get(name)):
            continue
        raise StoreError(
            f"a worker has {name} {b}, the store was made with {a}",
            where=where,
            remedy=f"use {name} {a} to go on with this store, or start another store",
        )


def check_same(
    stored: Mapping[str, Any], asked: Mapping[str, Any], where: str, what: str = "study"
) -> None:
    """Raise StoreError where a store's attributes are not those asked for."""
    # A record without a crosscheck has no attribute for it.
    stored, asked = {"crosscheck": 0.0, **stored}, {"crosscheck": 0.0, **asked}
    different = [key for key in asked if stored.get(key) != asked[key]]
    if not different:
        return
    say: Callable[[Any], str] = lambda value: repr(value)[:60]  # noqa: E731
    raise StoreError(
        f"holds another {what}: "
        + "; ".join(
            f"{key} is {say(stored.get(key))}, asked for {say(asked[key])}" for key in different
        ),
        where=where,
        remedy="give another store, or ask for what this one holds",
    )


def pending(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Chips still to be run: never run, timed out or crashed."""
    again = [int(s) for s in Status if s.retried]
    return np.isin(status, again)
