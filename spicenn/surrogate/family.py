"""What every family of surrogates can do, whatever its model of a chip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from spicenn.compiler import Design
from spicenn.surrogate.module import Prediction

# structural: effective matrices of tiles under the circuit's own program. neural: a learned
# basis of deviations from the ideal output. linear: an affine map of the inputs, the baseline.
FAMILIES = ("structural", "neural", "linear")


@runtime_checkable
class ChipModule(Protocol):
    """One chip, or the population, as an ``nn.Module`` with the model's signature and dtypes.

    Deterministic in ``eval()``; in ``train()`` every forward is one noisy read and, with
    ``vary_cells``, another chip of those that are still possible.
    """

    vary_cells: bool
    provenance: dict[str, str]

    @property
    def design(self) -> Design: ...

    def __call__(self, *inputs: torch.Tensor) -> Any: ...

    def train(self, mode: bool = True) -> Any: ...

    def eval(self) -> Any: ...

    def predict(self, *inputs: torch.Tensor) -> Prediction: ...

    def reseed(self, seed: int) -> None: ...

    def save(self, path: str | Path) -> None: ...


class Calibrated(Protocol):
    """A calibration's verdict: see ``calibration.Calibration``, which is the structural one."""

    @property
    def module(self) -> ChipModule: ...

    @property
    def success(self) -> bool: ...

    @property
    def reason(self) -> str: ...

    @property
    def residual(self) -> float: ...

    @property
    def heldout(self) -> float: ...

    @property
    def population(self) -> float: ...

    @property
    def misfit(self) -> float: ...

    @property
    def posterior(self) -> Any: ...


@runtime_checkable
class Family(Protocol):
    """A model of all chips of one design, as ``fit`` gives it and ``calibrate`` takes it."""

    @property
    def design(self) -> Design: ...

    @property
    def provenance(self) -> Mapping[str, str]: ...

    def module(self, *, draws: int = 16, seed: int = 0) -> ChipModule:
        """Return the population's model, ready to use."""

    def save(self, path: str | Path) -> None:
        """Write it to one file; ``latent_files.load`` reads every family's."""
