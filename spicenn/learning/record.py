"""What chips did while they learnt, as one labelled record: ``record.zarr`` of a run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import ConvergenceError, SpicennError, Status, StoreError
from spicenn.learning.contrast import answers
from spicenn.learning.elements import Resistor
from spicenn.learning.hardware import LearningChip
from spicenn.learning.linear import span
from spicenn.learning.network import Network
from spicenn.learning.plan import Plan
from spicenn.learning.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

SCHEMA = 1
# A period that ends this much of D from where it began is one of a cycle.
_CLOSED = 0.1
_TEXT = ("message", "abort_message", "abort_settings", "edge", "unit", "node", "input_node")


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """How one chip's run stands.

    index : of the chip. chip : itself. trajectory : None before its first part.
    """

    index: int
    chip: LearningChip
    begin: Array
    trajectory: Trajectory | None
    status: Status
    message: str = ""


def value_names(network: Network) -> tuple[str, ...]:
    """Names of the values: their edges' numbers and ends."""
    return tuple(f"{k}:{network.edges[k].a}-{network.edges[k].b}" for k in network.learning)


def value_units(network: Network) -> tuple[str, ...]:
    """Units of the values: S of a resistor, V of a transistor's gate."""
    elements = (network.edges[k].element for k in network.learning)
    return tuple("S" if isinstance(element, Resistor) else "V" for element in elements)


def to_dataset(plan: Plan, outcomes: Sequence[Outcome], versions: Mapping[str, str]) -> xr.Dataset:
    """Return a run's record: chips, slots, values and outputs, with units in attrs.

    There are as many slots as the chip that is furthest has done; what others have not done
    of them is NaN, and -1 in ``example``.
    """
    import xarray as xr

    network = plan.network
    slots = max(len(o.trajectory.examples) if o.trajectory else 0 for o in outcomes)
    chips, values, outputs = len(outcomes), len(network.learning), len(network.outputs)
    value = np.full((chips, slots, values), np.nan)
    output = np.full((chips, slots, outputs), np.nan)
    squared = np.full((chips, slots), np.nan)
    example = np.full((chips, slots), -1, dtype=np.int64)
    aborts: list[tuple[Any, ...]] = []
    summary = np.full((4, chips), np.nan)
    for n, outcome in enumerate(outcomes):
        found = outcome.trajectory
        if found is None:
            continue
        done = len(found.examples)
        value[n, :done], output[n, :done] = found.values[1:], found.outputs
        squared[n, :done], example[n, :done] = (
            plan.judged(found).squared_error(plan.task),
            found.examples,
        )
        summary[:, n] = (found.runtime, *_summary(plan, outcome.chip, found))
        aborts += [(outcome.index, a.slot, a.retry, a.message, a.settings) for a in found.aborts]
    units = value_units(network)
    unit = units[0] if len(set(units)) == 1 else "V or S, see unit"
    schedule = plan.schedule
    columns = list(zip(*aborts, strict=True)) or [()] * 5
    return xr.Dataset(
        {
            "value": (("chip", "slot", "edge"), value, {
                "units": unit, "long_name": "of edges at the end of each slot"}),
            "start": (("chip", "edge"), np.stack([o.begin for o in outcomes]), {
                "units": unit, "long_name": "values before the first slot"}),
            "output": (("chip", "slot", "node"), output, {
                "units": "V", "long_name": "of the free network at the end of each slot"}),
            "example": (("chip", "slot"), example, {"long_name": "that a slot shows"}),
            "squared_error": (("chip", "slot"), squared, {
                "units": "V^2", "long_name": "mean over outputs at the end of each slot"}),
            "mean_square_error": (("chip",), summary[1], {
                "units": "V^2",
                "long_name": "over all examples and the ends of the last period's slots"}),
            "cycle": (("chip",), summary[2], {
                "units": unit, "long_name": "D, largest distance of values in the last period"}),
            "drift": (("chip",), summary[3], {
                "units": unit, "long_name": "distance of the last period's end and start"}),
            "bias": (("chip", "edge"), np.stack([o.chip.bias for o in outcomes]), {
                "units": "V^2"}),
            "leakage": (("chip", "edge"), np.stack([o.chip.leakage for o in outcomes]), {
                "units": "S"}),
            "output_offset": (
                ("chip", "node"), np.stack([o.chip.output_offset for o in outcomes]),
                {"units": "V"}),
            "runtime": (("chip",), summary[0], {"units": "s"}),
            "status": (("chip",), np.array([o.status for o in outcomes], dtype=np.int8), {
                "flag_values": [int(s) for s in Status],
                "flag_meanings": " ".join(s.name.lower() for s in Status)}),
            "message": (("chip",), _words([o.message for o in outcomes])),
            "abort_chip": (("abort",), np.array(columns[0], dtype=np.int64)),
            "abort_slot": (("abort",), np.array(columns[1], dtype=np.int64)),
            "abort_retry": (("abort",), np.array(columns[2], dtype=np.int64)),
            "abort_message": (("abort",), _words(columns[3])),
            "abort_settings": (("abort",), _words(columns[4])),
            "input": (("task_example", "input_node"), plan.task.inputs, {"units": "V"}),
            "label": (("task_example", "node"), plan.task.labels, {"units": "V"}),
        },
        coords={
            "chip": np.array([o.index for o in outcomes], dtype=np.int64),
            "slot": np.arange(slots),
            "time": ("slot", schedule.slot * np.arange(1, slots + 1), {
                "units": "s", "long_name": "of a slot's end"}),
            "edge": _words(value_names(network)),
            "unit": ("edge", _words(units)),
            "node": _words(network.outputs),
            "input_node": _words(network.inputs),
        },
        attrs={
            "learning": SCHEMA, "by": plan.run.by, "configuration": plan.text,
            "seed": -1 if plan.run.seed is None else plan.run.seed, "slot": schedule.slot,
            "versions": dict(versions),
        },
    )  # fmt: skip


def cycle_of(ds: xr.Dataset, chip: int) -> float:
    """D of a chip's limit cycle by its position; NaN where its values still move on."""
    cycle, drift = float(ds["cycle"][chip]), float(ds["drift"][chip])
    return cycle if drift <= _CLOSED * cycle else np.nan


def save_record(ds: xr.Dataset, path: Path) -> None:
    """Write a record in the place of an earlier one, whole at any time.

    Raises StoreError where it cannot be written.
    """
    # Text of a fixed width has no place in Zarr's specification.
    written = ds.assign({n: ds[n].astype(object) for n in _TEXT if n in ds.data_vars})
    written = written.assign_coords({n: ds[n].astype(object) for n in _TEXT if n in ds.coords})
    aside, old = (path.with_name(f".{path.name}.{word}") for word in ("new", "old"))
    try:
        for place in (aside, old):  # of a run that was killed here
            shutil.rmtree(place, ignore_errors=True)
        written.to_zarr(aside, mode="w-", zarr_format=3, consolidated=False)
        if path.exists():
            path.rename(old)
        aside.rename(path)
    except OSError as error:
        raise StoreError(f"cannot be written: {error.strerror}", where=str(path)) from error
    finally:
        for place in (aside, old):
            shutil.rmtree(place, ignore_errors=True)


def open_record(path: str | Path) -> xr.Dataset:
    """Read what ``save_record`` wrote into memory; nothing in it is executed.

    Raises StoreError where there is no such record.
    """
    import xarray as xr

    target = Path(path)
    if not target.is_dir():
        raise StoreError("there is no record", where=str(target))
    try:
        ds: xr.Dataset = xr.open_zarr(
            target, zarr_format=3, consolidated=False, chunks=None, decode_times=False
        ).load()
        if ds.attrs.get("learning") != SCHEMA:
            raise StoreError(
                f"is no record of learning of schema {SCHEMA}", where=str(target),
                remedy="open it with the version of spicenn that wrote it",
            )  # fmt: skip
        for name in _TEXT:
            words = [str(word) for word in ds[name].values]
            ds[name] = (ds[name].dims, _words(words))
    except SpicennError:
        raise
    except Exception as error:  # whatever a damaged store makes Zarr or xarray raise
        raise StoreError(
            f"is not a readable record: {type(error).__name__}: {error}", where=str(target)
        ) from error
    return ds


def _words(words: Sequence[str]) -> NDArray[np.str_]:
    return np.array([str(word) for word in words], dtype=np.str_)


def _summary(plan: Plan, chip: LearningChip, found: Trajectory) -> tuple[float, float, float]:
    """Mean squared error, D and drift of the last period; NaN what cannot be told."""
    size = len(plan.task)
    ends = found.values[1:][-size:]
    try:
        volts = answers(chip, ends[:, None, :], plan.task.inputs)
        error = float(((plan.answers(volts) - plan.task.labels) ** 2).mean())
    except ConvergenceError:
        error = np.nan
    alike = len(set(value_units(plan.network))) == 1
    if plan.order != "cyclic" or not alike or len(found.values) <= size:
        return error, np.nan, np.nan
    drift = float(np.linalg.norm(found.values[-1] - found.values[-1 - size]))
    return error, span(ends), drift
