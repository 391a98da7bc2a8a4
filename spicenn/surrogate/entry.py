"""Which surrogate a record is for: a study's, of some family, or traces of spiking neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from spicenn.errors import InputError
from spicenn.surrogate import calibration, fitting
from spicenn.surrogate.affine import LinearSurrogate, fit_linear
from spicenn.surrogate.calibration import Calibration
from spicenn.surrogate.events import EventCalibration, EventSurrogate, fit_events, is_trace
from spicenn.surrogate.family import FAMILIES
from spicenn.surrogate.latent import LatentCalibration, LatentSurrogate
from spicenn.surrogate.neural import NeuralSurrogate, fit_neural
from spicenn.surrogate.population import Surrogate

if TYPE_CHECKING:
    import xarray as xr


@overload
def fit(
    ds: xr.Dataset, *, family: Literal["structural"] = "structural", **options: Any
) -> Surrogate: ...


@overload
def fit(ds: xr.Dataset, *, family: Literal["neural"], **options: Any) -> NeuralSurrogate: ...


@overload
def fit(ds: xr.Dataset, *, family: Literal["linear"], **options: Any) -> LinearSurrogate: ...


@overload
def fit(ds: xr.Dataset, *, family: str, **options: Any) -> Surrogate | LatentSurrogate: ...


@overload
def fit(ds: Sequence[xr.Dataset], **options: Any) -> EventSurrogate: ...


def fit(
    ds: xr.Dataset | Sequence[xr.Dataset], *, family: str = "structural", **options: Any
) -> Surrogate | LatentSurrogate | EventSurrogate:
    """Learn what a design's chips have in common, and how far they differ.

    Parameters
    ----------
    ds : a study's record, as ``monte_carlo`` returns it; or a list of traces of several
        chips' layers of spiking neurons, as ``cosim.characterize.trace_layer`` returns
        them (see ``events.fit_events``).
    family : of a study's surrogates. ``structural``: the design's tiles as effective
        matrices, one prior for each cell (``fitting.fit``). ``neural``: a learned basis of
        deviations from the ideal output (``neural.fit_neural``). ``linear``: an affine map
        of the inputs beside the ideal output, the baseline (``affine.fit_linear``). Their
        options are there.

    Raises InputError for an unknown family, CalibrationError where too few chips came out,
    DesignError where a study's record carries no design.
    """
    if family not in FAMILIES:
        raise InputError(
            f"{family!r} is no family of surrogates", remedy=f"use one of {', '.join(FAMILIES)}"
        )
    if isinstance(ds, list | tuple) or is_trace(ds):
        if family != "structural":
            raise InputError(f"traces of spiking neurons have no {family} family")
        # A single trace is refused there, as every single chip is.
        if isinstance(ds, list | tuple):
            return fit_events(ds, **options)
        return fit_events([cast("xr.Dataset", ds)], **options)
    study = cast("xr.Dataset", ds)
    if family == "neural":
        return fit_neural(study, **options)
    if family == "linear":
        return fit_linear(study, **options)
    return fitting.fit(study, **options)


@overload
def calibrate(surrogate: Surrogate, probes: Any, outputs: Any, **options: Any) -> Calibration: ...


@overload
def calibrate(
    surrogate: LatentSurrogate, probes: Any, outputs: Any, **options: Any
) -> LatentCalibration: ...


@overload
def calibrate(
    surrogate: Surrogate | LatentSurrogate, probes: Any, outputs: Any, **options: Any
) -> Calibration | LatentCalibration: ...


@overload
def calibrate(
    surrogate: EventSurrogate, probes: xr.Dataset, **options: Any
) -> EventCalibration: ...


def calibrate(
    surrogate: Surrogate | LatentSurrogate | EventSurrogate,
    probes: Any,
    outputs: Any = None,
    **options: Any,
) -> Calibration | LatentCalibration | EventCalibration:
    """Find one chip's own part from a few probes, or refuse to.

    Parameters
    ----------
    surrogate : from ``fit``; not changed.
    probes, outputs : (probe, …) inputs and what the chip gave, see
        ``calibration.calibrate`` for all options; or for a layer of spiking neurons one
        trace of the chip, see ``EventSurrogate.calibrate``.

    Raises CalibrationError for data that do not fit. A calibration that is refused is no
    error.
    """
    if isinstance(surrogate, EventSurrogate):
        return surrogate.calibrate(probes, **options)
    if isinstance(surrogate, LatentSurrogate):
        return surrogate.calibrate(probes, outputs, **options)
    return calibration.calibrate(surrogate, probes, outputs, **options)
