"""What a network is told of its hardware while it trains, as one record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from spicenn.errors import InputError

Wires = Literal["none", "frozen", "ladder", "exact"]
Ranges = Literal["track", "learn", "fixed"]
Known = Literal["hardware"]

# Integers of so many bits are exact in single precision.
_MOST_BITS = 24


@dataclass(frozen=True, kw_only=True)
class Awareness:
    """Which of the hardware's properties a forward pass in ``train()`` has.

    ``"hardware"`` stands for what the design, the surrogate or the chip says.

    Parameters
    ----------
    weight_noise : standard deviation of what is added to every weight, drawn anew for every
        forward pass, over the layer's largest weight; None is none.
    read_noise : standard deviation of one read of a weight, over the largest weight, drawn
        anew for every sample; None is none. Independent noise of each weight and read is, to
        the last moment, noise of the output: that is what is drawn.
    chips : 0, or how many chips of the hardware there are; every forward pass is then one
        of them in the place of ``weight_noise``, with all of its mechanisms.
    clip : weights are kept within so many standard deviations of their layer's, None is
        free. They are clipped in place at every forward pass in ``train()``.
    weight_bits, input_bits, output_bits : resolutions, straight through backwards; None is
        unbounded. A sign takes one bit of an input's and of an output's.
    wires : ``none``; ``frozen``, attenuations as they are with the design's weights;
        ``ladder``, of the weights as they are, line by line, with the rest of the exact
        solution as of its last refresh; ``exact``, Kirchhoff's laws at every pass.
    ranges : of inputs and converters: ``track`` the largest values of training, ``learn``
        the inputs' by gradient, or ``fixed`` to the design's.

    Raises InputError naming the key and what is allowed.
    """

    weight_noise: float | Known | None = "hardware"
    read_noise: float | Known | None = "hardware"
    chips: int = 0
    clip: float | None = None
    weight_bits: int | Known | None = "hardware"
    input_bits: int | Known | None = "hardware"
    output_bits: int | Known | None = "hardware"
    wires: Wires = "frozen"
    ranges: Ranges = "track"

    def __post_init__(self) -> None:
        for key in ("weight_noise", "read_noise", "clip"):
            value = getattr(self, key)
            if value is None or (value == "hardware" and key != "clip"):
                continue
            if not _is_number(value) or not 0 <= value < math.inf or (key == "clip" and value == 0):
                raise InputError(f"{key} = {value!r} is not a finite number above 0")
        for key in ("weight_bits", "input_bits", "output_bits"):
            value = getattr(self, key)
            if value is None or value == "hardware":
                continue
            if (
                not isinstance(value, int)
                or isinstance(value, bool)
                or not 2 <= value <= _MOST_BITS
            ):
                raise InputError(f"{key} = {value!r} is not an integer in 2 … {_MOST_BITS}")
        if not isinstance(self.chips, int) or isinstance(self.chips, bool) or self.chips < 0:
            raise InputError(f"chips = {self.chips!r} is not an integer of at least 0")
        for key, allowed in (("wires", get_args(Wires)), ("ranges", get_args(Ranges))):
            if getattr(self, key) not in allowed:
                raise InputError(
                    f"{key} = {getattr(self, key)!r} is unknown",
                    remedy="allowed: " + ", ".join(allowed),
                )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
