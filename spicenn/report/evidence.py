"""How well a surrogate stands in for the simulator, on one chip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError
from spicenn.report.numbers import Array, full_scale, ideal_outputs, rms

if TYPE_CHECKING:
    from spicenn.surrogate.family import ChipModule, Family


@dataclass(frozen=True, eq=False)
class Evidence:
    """Outputs of one chip for the same samples, from the simulator and from models of it.

    chip, engine : what ``truth`` comes from.
    truth, ideal, before, after : (sample, output): the simulator, the network without
        analog errors, the population's surrogate and the calibrated one.
    probes : inputs that the calibration used.
    success, reason : what the calibration said.
    """

    chip: int
    engine: str
    truth: Array
    ideal: Array
    before: Array
    after: Array
    probes: str
    success: bool
    reason: str

    def error(self, value: Array) -> float:
        """Rms difference from the simulator over the range of the ideal outputs."""
        return rms(value - self.truth) / full_scale(self.ideal)

    @property
    def gain(self) -> float:
        """How many times smaller calibration makes the error."""
        after = self.error(self.after)
        return self.error(self.before) / after if after > 0 else np.inf


def gather(
    surrogate: Family,
    module: ChipModule,
    inputs: tuple[NDArray[Any], ...],
    truth: NDArray[Any],
    *,
    chip: int,
    engine: str,
    success: bool = True,
    reason: str = "",
) -> Evidence:
    """Predict what a chip gave, before and after calibration.

    Parameters
    ----------
    surrogate, module : of the population, and calibrated to the chip.
    inputs : one array per model input, sample axis first; not the probes.
    truth : (sample, …), the simulator's first output.

    Raises InputError where the two models are not of one design or shapes differ.
    """
    import torch

    if surrogate.design.hash != module.design.hash:
        raise InputError("the surrogate and the calibrated module are of different designs")
    design = surrogate.design
    ideal = ideal_outputs(design, inputs)[0]
    if ideal.shape != truth.shape:
        raise InputError(f"the simulator's output has shape {truth.shape}, not {ideal.shape}")
    tensors = [torch.tensor(array) for array in inputs]

    def first(model: ChipModule) -> Array:
        with torch.no_grad():
            outputs = model.eval()(*tensors)
        output = outputs[0] if isinstance(outputs, tuple) else outputs
        return _flat(np.asarray(output))

    return Evidence(
        chip,
        engine,
        _flat(truth),
        _flat(ideal),
        first(surrogate.module(draws=0)),
        first(module),
        module.provenance.get("probes", "?"),
        success,
        reason,
    )


def _flat(array: NDArray[Any]) -> Array:
    return np.asarray(array, dtype=np.float64).reshape(len(array), -1)
