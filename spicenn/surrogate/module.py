"""A chip as an ordinary torch module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.jacobian import flatten_outputs, linearise
from spicenn.compiler.structural import TileMoments, forward, tile_moments
from spicenn.seeds import Purpose, generator


class Prediction(NamedTuple):
    """What a chip is expected to give, all floating-point outputs side by side.

    mean : (sample, output).
    std : (sample, output) of one noisy read: read noise, what the probes left open
        about the cells, and what the model cannot explain.
    read_std : (sample, output), the read noise alone.
    """

    mean: torch.Tensor
    std: torch.Tensor
    read_std: torch.Tensor


class ChipModel(nn.Module):
    """The design's program with effective matrices as tiles.

    Takes and returns what the compiled model does. In ``eval()`` it is deterministic;
    in ``train()`` every forward is one noisy read and, with ``vary_cells``, one draw
    of the cells that the probes do not rule out. Gradients flow to the inputs, through
    quantisation as if it were not there.

    Parameters
    ----------
    weights : per tile name, (wordline, output · slice) over g_max - g_min.
    draws : per tile name, (draw, wordline, output · slice) deviations of possible
        cells from ``weights``.
    floor : variance of an output that the model cannot explain.
    seed : of the noise that ``train()`` draws.
    provenance : where it comes from, as text.
    moments : the design's, where they are known already; large tiles take seconds.
    """

    def __init__(
        self,
        design: Design,
        weights: Mapping[str, torch.Tensor],
        draws: Mapping[str, torch.Tensor],
        *,
        floor: float,
        seed: int,
        provenance: Mapping[str, str],
        moments: tuple[TileMoments, ...] | None = None,
    ) -> None:
        super().__init__()
        self.design = design
        self.floor = floor
        self.seed = seed
        self.provenance = dict(provenance)
        self.vary_cells = False
        self._moments = tile_moments(design) if moments is None else moments
        self._rng = generator(seed, Purpose.TRAINING)
        for name in self._names:
            self.register_buffer(f"weight_{name}", weights[name].clone())
            self.register_buffer(f"draws_{name}", draws[name].to(torch.float32))
        self.eval()

    @property
    def _names(self) -> list[str]:
        return [tile.name for tile in self.design.tiles]

    @property
    def draws(self) -> int:
        """How many draws of the cells there are."""
        return len(self.get_buffer(f"draws_{self._names[0]}")) if self._names else 0

    def weights(self, draw: int | None = None) -> dict[str, torch.Tensor]:
        """Effective matrices per tile name: the most probable ones, or one draw."""
        result = {}
        for name in self._names:
            weight = self.get_buffer(f"weight_{name}").to(torch.float64)
            if draw is not None:
                weight = weight + self.get_buffer(f"draws_{name}")[draw]
            result[name] = weight
        return result

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the model's output, or a tuple of several."""
        draw = None
        if self.training and self.vary_cells and self.draws:
            draw = int(self._rng.integers(self.draws))
        noise = self._rng if self.training else None
        outputs = forward(self.design, self._moments, self.weights(draw), inputs, noise=noise)
        return outputs if len(outputs) > 1 else outputs[0]

    def predict(self, *inputs: torch.Tensor) -> Prediction:
        """Mean and standard deviation of one read; linear in the noise, free of ``train()``."""
        linear = linearise(self.design, self._moments, self.weights(), inputs)
        read = linear.noise.diagonal(dim1=1, dim2=2)
        variance = read + self.floor
        with torch.no_grad():
            for draw in range(self.draws):
                outputs = forward(self.design, self._moments, self.weights(draw), inputs)
                error = flatten_outputs(outputs).to(torch.float64) - linear.value
                variance = variance + error.square() / self.draws
        return Prediction(linear.value, variance.sqrt(), read.sqrt())

    def reseed(self, seed: int) -> None:
        """Start the noise of ``train()`` anew. Raises InputError for a bad seed."""
        self._rng, self.seed = generator(seed, Purpose.TRAINING), seed

    def save(self, path: str | Path) -> None:
        """Write design, cells and provenance to one file that torch reads with weights_only."""
        from spicenn.surrogate.files import save_module

        save_module(self, Path(path))

    @staticmethod
    def load(
        path: str | Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
    ) -> ChipModel:
        """Read a saved module. Raises DesignError where the file is not one.

        Parameters
        ----------
        allow_include, trust_model : for its design, as of ``Design.load``.
        """
        from spicenn.surrogate.files import load_module

        return load_module(Path(path), allow_include=allow_include, trust_model=trust_model)

    def extra_repr(self) -> str:
        return f"{self.design!r}, {self.draws} draws"


def as_tensors(inputs: tuple[np.ndarray[Any, Any], ...]) -> tuple[torch.Tensor, ...]:
    """Checked arrays as tensors that share nothing with them."""
    return tuple(torch.tensor(array) for array in inputs)
