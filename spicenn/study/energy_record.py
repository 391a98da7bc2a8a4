"""The record of energies: a Zarr group ``STORE/energy/MODE``, with a group per chip.

No array of the study beside it is touched, and a chip is there whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.compiler.energy import COMPONENTS, Mode
from spicenn.engines.analog import TRANSIENT
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError, Status, StoreError
from spicenn.study.plan import input_hash
from spicenn.study.record import open_zarr_group, reading
from spicenn.study.store import check_same, check_versions, is_record

if TYPE_CHECKING:
    import xarray as xr

MODES: tuple[Mode, ...] = get_args(Mode)
ENERGY_SCHEMA = 1
_FOLDER = "energy"
# What a folder made for energies alone says of itself.
_ALONE = "energy_only"
_CHIP = "chip_{:010d}"


@dataclass(frozen=True, eq=False)
class Measured:
    """One chip: energy (sample, layer, component) [J], latency (sample, layer) [s]."""

    energy: NDArray[np.float64]
    latency: NDArray[np.float64]
    status: Status
    message: str
    runtime: float


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that the numbers depend on, the chips aside."""

    design: Design
    inputs: tuple[NDArray[Any], ...]
    layers: tuple[str, ...]
    seed: int
    mode: Mode
    tolerance: float
    positions: int

    @property
    def samples(self) -> int:
        return int(self.inputs[0].shape[0])

    def identity(self) -> dict[str, Any]:
        return {
            "energy_schema": ENERGY_SCHEMA,
            "design_hash": self.design.hash,
            "input_hash": input_hash(self.inputs),
            "seed": int(self.seed),
            "mode": self.mode,
            "tolerance": self.tolerance,
            "positions": self.positions,
        }


def energy_of(store: str | Path, mode: Mode = "hybrid") -> xr.Dataset | None:
    """Open what ``measure_energy`` recorded in a store; None where there is none.

    Chips are those that have been measured so far, in the order of their indices.
    Raises InputError for an unknown mode, StoreError for a record that cannot be read.
    """
    if mode not in MODES:
        raise InputError(f"mode = {mode!r} is unknown", remedy="allowed: " + ", ".join(MODES))
    folder = Path(store) / _FOLDER / mode
    if not folder.is_dir():
        return None
    attributes = _read_attributes(folder)
    found = read_chips(folder)
    return dataset(found, sorted(found), attributes.pop("layers"), attributes)


class EnergyRecord:
    """What is written, by the one client that holds the store's lock."""

    def __init__(self, target: Path, plan: Plan) -> None:
        self._target, self._plan = target, plan
        self._folder = target / _FOLDER / plan.mode
        self.where = str(self._folder)
        self.versions: Mapping[str, str] = {}
        _check_store(target, plan)
        for leftover in target.parent.glob(f".{target.name}.{_FOLDER}-*.new"):
            shutil.rmtree(leftover, ignore_errors=True)  # of a client that was killed
        if self._folder.is_dir():
            attributes = _read_attributes(self._folder)
            check_same(attributes, plan.identity(), self.where, "measurement")
            self.versions = attributes["versions"]

    def chips(self, labels: Sequence[int]) -> dict[int, Measured]:
        """Those of the chips that are recorded."""
        return read_chips(self._folder, labels) if self._folder.is_dir() else {}

    def open(self, versions: Mapping[str, str]) -> None:
        """Make the record, or check that it was made with the same versions."""
        if self.versions:
            check_versions(self.versions, versions, self.where)
            return
        with self._writing():
            for group, attributes in (
                (self._target, {_ALONE: True}),
                (self._target / _FOLDER, {}),
            ):
                if not (group / "zarr.json").is_file():
                    _new_group(group, attributes, mode="a")
            attributes = attributes_of(self._plan.identity(), versions)
            with self._aside("record", self._folder) as aside:
                _new_group(aside, {**attributes, "layers": list(self._plan.layers)})
        self.versions = versions

    def write(self, label: int, measured: Measured) -> None:
        """Record one chip: written aside, then moved to its place in one step."""
        place = self._folder / _CHIP.format(label)
        with self._writing(), self._aside(_CHIP.format(label), place) as aside:
            group = _new_group(
                aside,
                {
                    "chip": label,
                    "status": int(measured.status),
                    "message": measured.message,
                    "runtime": measured.runtime,
                },
            )
            for name, value, units, dims in (
                ("energy", measured.energy, "J", ("sample", "layer", "component")),
                ("latency", measured.latency, "s", ("sample", "layer")),
            ):
                array = group.create_array(
                    name, shape=value.shape, chunks=value.shape, dtype=value.dtype,
                    dimension_names=dims, attributes={"units": units},
                )  # fmt: skip
                array[...] = value

    @contextmanager
    def _aside(self, name: str, place: Path) -> Iterator[Path]:
        # Outside the store: whoever lists its groups meanwhile never sees half a chip.
        aside = self._target.with_name(f".{self._target.name}.{_FOLDER}-{name}.new")
        shutil.rmtree(aside, ignore_errors=True)
        try:
            yield aside
            shutil.rmtree(place, ignore_errors=True)  # a failure that was run again
            aside.rename(place)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot be written: {error}",
                where=self.where,
                remedy="make room, then run the same again: what is recorded is kept",
            ) from error


def _check_store(target: Path, plan: Plan) -> None:
    """Raise StoreError unless the target is new, a study of these chips, or for energies alone."""
    if not is_record(target):
        return
    where = str(target)
    with reading(where):
        attributes = dict(open_zarr_group(target, mode="r").attrs)
    if attributes.get(_ALONE):
        return
    study = {key: plan.identity()[key] for key in ("design_hash", "seed")}
    check_same(attributes, study, where, "study")


def _new_group(path: Path, attributes: Mapping[str, Any], mode: Any = "w-") -> Any:
    import zarr

    group = zarr.open_group(path, mode=mode, zarr_format=3)
    group.attrs.update(attributes)
    return group


def _read_attributes(folder: Path) -> dict[str, Any]:
    where = str(folder)
    with reading(where):
        attributes = dict(open_zarr_group(folder, mode="r").attrs)
        if attributes.get("energy_schema") != ENERGY_SCHEMA:
            raise StoreError(
                f"has schema {attributes.get('energy_schema')!r} of energies, "
                f"this spicenn knows {ENERGY_SCHEMA}",
                where=where,
                remedy="read it with the spicenn that wrote it",
            )
        attributes["layers"] = [str(name) for name in attributes["layers"]]
        attributes["versions"] = dict(attributes["versions"])
    return attributes


def read_chips(folder: Path, labels: Sequence[int] | None = None) -> dict[int, Measured]:
    """Chips of a record by their index: those asked for that are there, or all."""
    names = (
        sorted(path.name for path in folder.glob("chip_*"))
        if labels is None
        else [_CHIP.format(label) for label in labels]
    )
    found = {}
    for path in (folder / name for name in names):
        if not path.is_dir():
            continue
        with reading(str(path)):
            group = open_zarr_group(path, mode="r")
            attributes = group.attrs
            runtime = attributes["runtime"]
            found[int(attributes["chip"])] = Measured(
                np.asarray(group["energy"][...], dtype=np.float64),
                np.asarray(group["latency"][...], dtype=np.float64),
                Status(int(attributes["status"])),
                str(attributes["message"]),
                float(runtime),
            )
    return found


def attributes_of(identity: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    return {
        **identity,
        "engine": NgspiceEngine.name,
        "tolerances": dict(TRANSIENT.as_dict()),
        "versions": dict(versions),
    }


def dataset(
    found: Mapping[int, Measured],
    labels: Sequence[int],
    layers: Sequence[str],
    attributes: Mapping[str, Any],
) -> xr.Dataset:
    import xarray as xr

    chips = [found[label] for label in labels]
    samples = chips[0].latency.shape[0] if chips else 0
    shape = (len(chips), samples, len(layers), len(COMPONENTS))
    flags = {
        "flag_values": [int(status) for status in Status],
        "flag_meanings": " ".join(status.name.lower() for status in Status),
    }
    energy = np.array([one.energy for one in chips]).reshape(shape)
    latency = np.array([one.latency for one in chips]).reshape(shape[:-1])
    return xr.Dataset(
        {
            "energy": (
                ("chip", "sample", "layer", "component"),
                energy,
                {"units": "J", "long_name": "energy of one inference"},
            ),
            "latency": (
                ("chip", "sample", "layer"),
                latency,
                {"units": "s", "long_name": "latency of one inference"},
            ),
            "status": ("chip", np.array([int(one.status) for one in chips], dtype=np.int8), flags),
            "message": ("chip", np.array([one.message for one in chips], dtype=object)),
            "runtime": ("chip", np.array([one.runtime for one in chips]), {"units": "s"}),
        },
        coords={
            "chip": np.array(labels, dtype=np.int64),
            "sample": np.arange(samples),
            "layer": np.array(list(layers), dtype=object),
            "component": np.array(COMPONENTS, dtype=object),
        },
        attrs=dict(attributes),
    )
