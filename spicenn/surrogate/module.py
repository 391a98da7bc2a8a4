"""A chip as an ordinary torch module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from spicenn.compiler import Design
from spicenn.compiler.jacobian import flatten_outputs, linearise
from spicenn.compiler.structural import TileMoments, forward, tile_moments, with_wires
from spicenn.compiler.structure import WIRES, Parameters, realise, structure_variance
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
    """The design's program with effective matrices as tiles, a chip's errors in them.

    Takes and returns what the compiled model does. In ``eval()`` it is deterministic;
    in ``train()`` every forward is one noisy read and, with ``vary_cells``, one draw
    of the cells that the probes do not rule out. Gradients flow to the inputs, through
    quantisation as if it were not there.

    Parameters
    ----------
    parameters : of the most probable chip: per tile name (wordline, output · slice) over
        g_max - g_min, and its converters as ``compiler.structure`` has them, zero where
        left out. Wires are a chip's own where these or the draws have them.
    draws : of possible chips, (draw, …) deviations from the parameters; zero where left out.
    floor : variance of an output that the model cannot explain.
    seed : of the noise that ``train()`` draws.
    provenance : where it comes from, as text.
    moments : the design's, where they are known already; large tiles take seconds. With
        derivatives by the wires where they are a chip's own.
    """

    def __init__(
        self,
        design: Design,
        parameters: Parameters,
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
        self._wires = WIRES in parameters or WIRES in draws
        if moments is None:
            moments = tile_moments(design, wires=self._wires)
        self._moments = moments
        self._rng = generator(seed, Purpose.TRAINING)
        count = len(draws[self.design.tiles[0].name]) if self.design.tiles else 0
        for name, (buffer, shape) in self._buffers_of.items():
            value = parameters.get(name, torch.zeros(shape, dtype=torch.float64))
            self.register_buffer(f"weight_{buffer}", value.clone())
            drawn = draws.get(name, torch.zeros(count, *shape))
            self.register_buffer(f"draws_{buffer}", drawn.to(torch.float32))
        self.eval()

    @property
    def _names(self) -> list[str]:
        return [tile.name for tile in self.design.tiles]

    @cached_property
    def _buffers_of(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """How the buffers of every parameter are called, and its shape."""
        return parameter_buffers(self.design, wires=self._wires)

    @property
    def wires(self) -> bool:
        """Whether the resistance of its wires is a chip's own."""
        return self._wires

    @property
    def moments(self) -> tuple[TileMoments, ...]:
        """The technology's own mean and spread of every tile."""
        return self._moments

    @property
    def draws(self) -> int:
        """How many draws of the cells there are."""
        return len(self.get_buffer(f"draws_{self._names[0]}")) if self._names else 0

    def parameters_of(self, draw: int | None = None) -> dict[str, torch.Tensor]:
        """Cells, converters and wires of the most probable chip, or of one draw."""
        result = {}
        for name, (buffer, _) in self._buffers_of.items():
            value = self.get_buffer(f"weight_{buffer}").to(torch.float64)
            if draw is not None:
                value = value + self.get_buffer(f"draws_{buffer}")[draw]
            result[name] = value
        return result

    def weights(self, draw: int | None = None) -> dict[str, torch.Tensor]:
        """Effective matrices per tile name: the most probable ones, or one draw.

        Wires and gains of converters are in them. Offsets are beside them, see
        ``parameters_of``.
        """
        tiled = with_wires(self._moments, self.parameters_of(draw))
        return realise(self.design.tiles, tiled).weights

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the model's output, or a tuple of several."""
        draw = None
        if self.training and self.vary_cells and self.draws:
            draw = int(self._rng.integers(self.draws))
        noise = self._rng if self.training else None
        chip = self.parameters_of(draw)
        outputs = forward(self.design, self._moments, chip, inputs, noise=noise)
        return outputs if len(outputs) > 1 else outputs[0]

    def predict(self, *inputs: torch.Tensor) -> Prediction:
        """Mean and standard deviation of one read; linear in the noise, free of ``train()``."""
        linear = linearise(self.design, self._moments, self.parameters_of(), inputs)
        read = linear.noise.diagonal(dim1=1, dim2=2)
        variance = read + self.floor
        with torch.no_grad():
            for draw in range(self.draws):
                outputs = forward(self.design, self._moments, self.parameters_of(draw), inputs)
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


def parameter_buffers(
    design: Design, *, wires: bool = False
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Every parameter's name to that of its buffers, without "." and ":", and its shape.

    Cells are called as their tile, converters ``structure_0``, … in the order of their keys,
    wires, where they are a chip's own, ``wires``.
    """
    result: dict[str, tuple[str, tuple[int, ...]]] = {
        tile.name: (tile.name, (tile.g_target.shape[0], tile.g_target.shape[1] // 2))
        for tile in design.tiles
    }
    for index, (name, value) in enumerate(structure_variance(design).items()):
        result[name] = (f"structure_{index}", tuple(value.shape))
    if wires:
        result[WIRES] = ("wires", (1,))
    return result


def as_tensors(inputs: tuple[np.ndarray[Any, Any], ...]) -> tuple[torch.Tensor, ...]:
    """Checked arrays as tensors that share nothing with them."""
    return tuple(torch.tensor(array) for array in inputs)
