"""One linear map of a model, in the form that goes on crossbars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Convolution:
    """Geometry of a convolution that becomes one matrix product per output position.

    Each tuple has one entry per spatial axis (1 or 2).
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear map z = x @ weight.T + bias, its scales and its place on the chip.

    Parameters
    ----------
    name : path of the module in the user's model ("encoder.0.fc1"), unique in a design.
    index : order of the layer in the program; part of every draw's key.
    weight : (group, output, input) float64; a convolution's input axis is
        (channel of the group, kernel positions), its output axis the group's channels.
    bias : (group, output) float64 or None.
    convolution : geometry, None for a plain linear map over the last axis.
    signed : whether inputs can be negative.
    input_scale : magnitude of an input that is driven at full scale.
    weight_scale : magnitude of a weight that takes the whole conductance range.
    current_scale : full scale of the converter, as a differential current over
        v_read (g_max - g_min).
    source : "file:line" in the user's model.
    """

    name: str
    index: int
    weight: Array
    bias: Array | None
    convolution: Convolution | None
    signed: bool
    input_scale: float
    weight_scale: float
    current_scale: float
    source: str = ""

    @property
    def groups(self) -> int:
        return int(self.weight.shape[0])

    @property
    def outputs(self) -> int:
        """Outputs of one group."""
        return int(self.weight.shape[1])

    @property
    def inputs(self) -> int:
        """Inputs of one group, bias rows not counted."""
        return int(self.weight.shape[2])
