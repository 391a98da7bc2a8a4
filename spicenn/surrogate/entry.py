"""Which surrogate a record is for: a study's, or traces of a layer of spiking neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, overload

from spicenn.surrogate import calibration, fitting
from spicenn.surrogate.calibration import Calibration
from spicenn.surrogate.events import EventCalibration, EventSurrogate, fit_events, is_trace
from spicenn.surrogate.population import Surrogate

if TYPE_CHECKING:
    import xarray as xr


@overload
def fit(ds: xr.Dataset, **options: Any) -> Surrogate: ...


@overload
def fit(ds: Sequence[xr.Dataset], **options: Any) -> EventSurrogate: ...


def fit(ds: xr.Dataset | Sequence[xr.Dataset], **options: Any) -> Surrogate | EventSurrogate:
    """Learn what a design's chips have in common, and how far they differ.

    Parameters
    ----------
    ds : a study's record, as ``monte_carlo`` returns it (see ``fitting.fit`` for what
        options it has and what they do); or a list of traces of several chips' layers of
        spiking neurons, as ``cosim.characterize.trace_layer`` returns them (see
        ``events.fit_events``).

    Raises CalibrationError where fewer than two chips came out, DesignError where a
    study's record carries no design.
    """
    if isinstance(ds, list | tuple):
        return fit_events(ds, **options)
    study = cast("xr.Dataset", ds)
    if is_trace(study):
        return fit_events([study], **options)  # which is refused, as every single chip is
    return fitting.fit(study, **options)


@overload
def calibrate(surrogate: Surrogate, probes: Any, outputs: Any, **options: Any) -> Calibration: ...


@overload
def calibrate(
    surrogate: EventSurrogate, probes: xr.Dataset, **options: Any
) -> EventCalibration: ...


def calibrate(
    surrogate: Surrogate | EventSurrogate, probes: Any, outputs: Any = None, **options: Any
) -> Calibration | EventCalibration:
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
    return calibration.calibrate(surrogate, probes, outputs, **options)
