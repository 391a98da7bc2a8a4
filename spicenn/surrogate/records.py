"""A study's record as arrays that a surrogate without a circuit's structure learns from."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler import Design
from spicenn.compiler.embedded import design_of, input_names, output_names
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.jacobian import linearise
from spicenn.compiler.structural import tile_moments
from spicenn.errors import CalibrationError, SpicennWarning, Status
from spicenn.surrogate.calibration import observed
from spicenn.surrogate.latent import Part, ideal_of
from spicenn.surrogate.module import as_tensors

if TYPE_CHECKING:
    from pathlib import Path

    import xarray as xr


@dataclass(frozen=True, eq=False)
class Record:
    """The chips of a study that came out.

    Parameters
    ----------
    design : whose chips.
    inputs : one tensor per model input, sample axis first.
    target : (chip, sample, output) float64, mean over trials.
    scatter : (sample, output), variance of one read about its chip's mean, pooled over the
        chips; None where the study has one trial.
    trials : reads behind each target.
    failed : chips that were left out.
    seed, engine : of the study, as text.
    """

    design: Design
    inputs: tuple[torch.Tensor, ...]
    target: torch.Tensor
    scatter: torch.Tensor | None
    trials: int
    failed: int
    seed: str
    engine: str

    @property
    def chips(self) -> int:
        """How many chips there are to learn from."""
        return len(self.target)

    @property
    def read(self) -> torch.Tensor:
        """Variance of one read (sample, output): the study's, or else the technology's."""
        return _stated(self.design, self.inputs) if self.scatter is None else self.scatter

    def part(self) -> Part:
        """All of it, beside the ideal network."""
        if self.target.shape[1] < 4:
            raise CalibrationError(
                f"{self.target.shape[1]} samples are too few to hold any out",
                remedy="run the study with at least 4 samples",
            )
        with torch.no_grad():
            ideal = ideal_of(self.design, self.inputs)
        return Part(ideal, self.target - ideal.value, self.read, self.trials)

    def provenance(self) -> dict[str, str]:
        """What a surrogate says of its origin."""
        return {
            "design_hash": self.design.hash,
            "seed": self.seed,
            "engine": self.engine,
            "chips": str(self.chips),
            "python": platform.python_version(),
            **{name: version(name) for name in ("spicenn", "torch", "numpy")},
        }


def read_record(
    ds: xr.Dataset,
    *,
    least: int,
    most: int | None = None,
    observations: int | None = None,
    allow_include: Sequence[str | Path] = (),
    trust_model: bool = False,
) -> Record:
    """Read a study's record.

    Parameters
    ----------
    least : chips that there must be. most : chips to take at most, evenly over the study.
    observations : samples times outputs to take of a chip at most, evenly.
    allow_include, trust_model : for the design in the record, as of ``Design.load``.

    Raises CalibrationError where fewer chips came out, or the record still has a swept
    dimension or lacks a variable; DesignError where it carries no design.
    """
    design = _selected(ds, design_of(ds, allow_include=allow_include, trust_model=trust_model))
    names = output_names(design)
    for name in (*names, *input_names(design), "status"):
        if name not in ds.variables:
            raise CalibrationError(f"the dataset has no variable {name!r}")
    status = np.asarray(ds["status"].values)
    good = np.flatnonzero(status == Status.OK)
    pending = int((status == Status.PENDING).sum())
    arrays = tuple(np.asarray(ds[name].values) for name in input_names(design))
    inputs = as_inputs(design, arrays if len(arrays) > 1 else arrays[0])
    ports = design.program.outputs
    outputs = sum(int(np.prod(port.shape)) for port in ports if "float" in port.dtype)
    wanted = None if observations is None else max(1, observations // max(1, outputs))
    samples, chosen = _spaced(len(inputs[0]), wanted), good[_spaced(len(good), most)]
    values = observed(
        design,
        {
            port.name: np.asarray(ds[name].isel(chip=chosen, sample=samples).values)
            for port, name in zip(ports, names, strict=True)
        },
    )
    finite = np.isfinite(values).all(axis=(1, 2, 3))
    if int(finite.sum()) < least:
        raise CalibrationError(
            f"{int(finite.sum())} of {ds.sizes['chip']} chips came out; this family needs at "
            f"least {least}",
            remedy="run more chips, or look at the record's status and message",
        )
    values = values[finite]
    trials = values.shape[1]
    scatter = values.var(axis=1, ddof=1).mean(axis=0) if trials > 1 else None
    return Record(
        design,
        as_tensors(tuple(array[samples] for array in inputs)),
        torch.as_tensor(values.mean(axis=1)),
        None if scatter is None else torch.as_tensor(scatter),
        trials,
        int(ds.sizes["chip"] - len(good) - pending + (~finite).sum()),
        str(ds.attrs.get("seed", "")),
        str(ds.attrs.get("engine", "")),
    )


def _spaced(available: int, most: int | None) -> NDArray[np.int64]:
    """Indices evenly over what there is, at most so many."""
    count = available if most is None else min(available, most)
    return np.unique(np.linspace(0, max(0, available - 1), count).round().astype(np.int64))


def _stated(design: Design, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Variance of one read of the mean chip, from the technology; (sample, output)."""
    with warnings.catch_warnings():
        # What effective matrices leave out is no part of a noise, and learnt here.
        warnings.simplefilter("ignore", SpicennWarning)
        moments = tile_moments(design)
    means = {moment.tile.name: moment.mean for moment in moments}
    noise = linearise(design, moments, means, inputs).noise
    return noise.diagonal(dim1=1, dim2=2)


def _selected(ds: xr.Dataset, design: Design) -> Design:
    """The design in the technology of the point of a sweep that was selected."""
    changes: dict[str, Any] = {}
    for name in ds.attrs.get("sweep", []):
        if name in ds.dims:
            raise CalibrationError(
                f"the record is swept over {name!r}",
                remedy=f"select one point, ds.sel({{{name!r}: …}})",
            )
        changes[name] = ds[name].item()
    return design.with_technology(**changes) if changes else design
