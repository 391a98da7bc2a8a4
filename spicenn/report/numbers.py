"""What a report states about a study, computed once: scores of chips, yield, failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.convolution import digital_crossbar
from spicenn.compiler.design import Design
from spicenn.compiler.embedded import design_of, input_names, output_names
from spicenn.compiler.program import execute
from spicenn.errors import InputError, Status
from spicenn.study import accuracy, quantile_interval, yield_interval
from spicenn.study.crosscheck import Agreement, agreement
from spicenn.study.statistics import Interval

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

# accuracy: share of samples classified as labelled; agreement: as the ideal network
# does; error: rms error over the range of the ideal network's outputs.
Kind = Literal["accuracy", "agreement", "error"]

# A chip passes where it loses at most this against the ideal network.
MARGIN = 0.05


@dataclass(frozen=True, eq=False)
class Point:
    """All chips at one point of a sweep.

    title : what the sweep sets there, empty without a sweep.
    score : (chip,) of the study's kind, NaN where the chip failed or has not run.
    status : (chip,) int8.
    messages : one per chip.
    median, tail : of the score, with intervals; the tail is the worst twentieth.
    passed : share of chips within ``MARGIN`` of the ideal, failed ones not among them.
    """

    title: str
    score: Array
    status: NDArray[np.int8]
    messages: tuple[str, ...]
    median: Interval
    tail: Interval
    passed: Interval

    @property
    def failed(self) -> int:
        """Chips that have run and failed."""
        return int(np.count_nonzero((self.status != Status.OK) & (self.status != Status.PENDING)))


@dataclass(frozen=True, eq=False)
class Numbers:
    """A study in numbers.

    ideal : score of the network without analog errors.
    threshold : score that separates passing chips.
    outputs, ideal_outputs : of the first model output, (chip, trial, sample, …) at the
        first point of the sweep, and (sample, …).
    inputs : of the first model input, (sample, …).
    runtime : [s] of simulation, all chips together.
    agreement : what the study's crosscheck found, None where it has none.
    """

    design: Design
    kind: Kind
    chips: tuple[int, ...]
    points: tuple[Point, ...]
    ideal: float
    threshold: float
    inputs: NDArray[Any]
    outputs: NDArray[Any]
    ideal_outputs: Array
    labels: NDArray[np.int64] | None
    runtime: float
    attributes: Mapping[str, Any]
    agreement: Agreement | None = None

    @property
    def higher_is_better(self) -> bool:
        return self.kind != "error"

    def worst(self, point: Point) -> int | None:
        """Position of the chip with the worst score, None where none has one."""
        if np.all(np.isnan(point.score)):
            return None
        return int(np.nanargmin(point.score if self.higher_is_better else -point.score))


def status_counts(ds: xr.Dataset) -> dict[Status, int]:
    """How many chips ended how, over all points of a sweep; only what occurs."""
    values = np.asarray(ds["status"].values)
    return {s: n for s in Status if (n := int(np.count_nonzero(values == s)))}


def ideal_outputs(design: Design, inputs: tuple[NDArray[Any], ...]) -> tuple[NDArray[Any], ...]:
    """What the model computes with exact arithmetic, (sample, …) per output."""
    import torch

    constants = {name: torch.as_tensor(array) for name, array in design.constants.items()}
    tensors = [torch.as_tensor(np.ascontiguousarray(array)) for array in inputs]
    with torch.no_grad():
        results = execute(design.program, constants, tensors, digital_crossbar(design.layers))
    return tuple(np.asarray(result) for result in results)


def numbers(
    ds: xr.Dataset,
    labels: NDArray[Any] | None = None,
    *,
    allow_include: Sequence[str | Path] = (),
    trust_model: bool = False,
) -> Numbers:
    """Compute what a report states.

    Parameters
    ----------
    ds : a study's record.
    labels : (sample,) classes; without them chips are compared with the ideal network.
    allow_include, trust_model : for the design in the record, as of ``Design.load``.

    Raises InputError where labels do not fit, DesignError for a record without a design,
    StoreError for a damaged one.
    """
    design = design_of(ds, allow_include=allow_include, trust_model=trust_model)
    name = output_names(design)[0]
    inputs = tuple(np.asarray(ds[key].values) for key in input_names(design))
    ideal = np.asarray(ideal_outputs(design, inputs)[0], dtype=np.float64)
    scores_classes = ideal.ndim == 2 and ideal.shape[1] > 1
    if labels is not None and not scores_classes:
        raise InputError(
            f"labels are for class scores, and the model's output has shape {ideal.shape[1:]}",
            remedy="leave the labels out",
        )
    kind: Kind = "accuracy" if labels is not None else "agreement" if scores_classes else "error"
    if kind == "error":
        score = _error(ds, name, ideal)
        ideal_score, threshold = 0.0, MARGIN
    else:
        wanted = ideal.argmax(axis=-1) if labels is None else np.asarray(labels)
        score = accuracy(ds, wanted, output=name).mean("trial")
        ideal_score = float((ideal.argmax(axis=-1) == wanted).mean())
        threshold = ideal_score - MARGIN
    sweep = list(ds.attrs.get("sweep", {}))
    points = _points(ds, score.transpose(*sweep, "chip"), sweep, kind, threshold)
    first = dict.fromkeys(sweep, 0)
    return Numbers(
        design,
        kind,
        tuple(int(chip) for chip in ds["chip"].values),
        points,
        ideal_score,
        threshold,
        inputs[0],
        np.asarray(ds[name].isel(first).transpose("chip", "trial", "sample", ...).values),
        ideal,
        None if labels is None else np.asarray(labels, dtype=np.int64),
        float(np.nansum(ds["runtime"].values)),
        dict(ds.attrs),
        agreement(ds),
    )


def full_scale(ideal: Array) -> float:
    """Range of the ideal outputs; 1 where there is none."""
    return float(np.ptp(ideal)) or 1.0


def rms(difference: Array) -> float:
    """Root of the mean square, NaN left out."""
    return float(np.sqrt(np.nanmean(np.square(difference))))


def _error(ds: xr.Dataset, name: str, ideal: Array) -> xr.DataArray:
    value = ds[name].load()
    own = [str(dim) for dim in value.dims if str(dim).startswith(f"{name}_dim_")]
    difference = value.transpose(..., "sample", *own) - ideal
    square = (difference**2).mean(["trial", "sample", *own])
    error: xr.DataArray = square**0.5 / full_scale(ideal)
    return error


def _points(
    ds: xr.Dataset, score: xr.DataArray, sweep: list[str], kind: Kind, threshold: float
) -> tuple[Point, ...]:
    points = []
    sign = -1.0 if kind == "error" else 1.0
    for index in product(*(range(ds.sizes[key]) for key in sweep)):
        at = dict(zip(sweep, index, strict=True))
        values = np.asarray(score.isel(at).values, dtype=np.float64)
        status = np.asarray(ds["status"].isel(at).values)
        good = np.nan_to_num(sign * values, nan=-np.inf) >= sign * threshold - 1e-12
        points.append(
            Point(
                ", ".join(f"{key} = {_plain(ds[key].values[i])}" for key, i in at.items()),
                values,
                status,
                tuple(str(m) for m in ds["message"].isel(at).values),
                _signed(quantile_interval(sign * values, 0.5), sign),
                _signed(quantile_interval(sign * values, 0.05), sign),
                yield_interval(good),
            )
        )
    return tuple(points)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _signed(interval: Interval, sign: float) -> Interval:
    if sign > 0:
        return interval
    return Interval(-interval.estimate, -interval.high, -interval.low)
