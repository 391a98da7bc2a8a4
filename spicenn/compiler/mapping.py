"""How numbers become lines, pulses and cells: the choices of one mapping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from spicenn.errors import InputError

Bias = Literal["row", "digital"]

# Integers of so many bits are exact in double precision, with room for their sums.
_MOST_BITS = 32


@dataclass(frozen=True)
class Tile:
    """Size of one physical crossbar, in lines. A signed output takes two bitlines."""

    wordlines: int = 128
    bitlines: int = 128

    def __post_init__(self) -> None:
        _at_least("wordlines", self.wordlines, 1)
        _at_least("bitlines", self.bitlines, 2)


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """Choices that turn a weight matrix and its inputs into conductances and voltages.

    Parameters
    ----------
    bias : ``"row"`` adds wordlines driven at full scale, as many as the largest bias
        needs; ``"digital"`` adds the bias after conversion.
    slices : cells over which one weight is spread, most significant last.
    cell_bits : levels of one cell as bits; None programs an analog value, possible
        with one slice only.
    input_bits : resolution of an input including its sign; None drives an analog voltage.
    dac_bits : bits of an input's magnitude sent in one pulse; None sends all in one.
    adc_bits : resolution of each tile's conversion of one differential output, before
        partial sums; None converts exactly.
    input_quantile : share of the calibration inputs' magnitudes that full scale covers.
    """

    bias: Bias = "row"
    slices: int = 1
    cell_bits: int | None = None
    input_bits: int | None = None
    dac_bits: int | None = None
    adc_bits: int | None = None
    input_quantile: float = 1.0

    def __post_init__(self) -> None:
        if self.bias not in get_args(Bias):
            raise InputError(
                f"bias = {self.bias!r} is unknown", remedy="allowed: " + ", ".join(get_args(Bias))
            )
        _at_least("slices", self.slices, 1)
        for key, low in (("cell_bits", 1), ("input_bits", 2), ("dac_bits", 1), ("adc_bits", 2)):
            if getattr(self, key) is not None:
                _at_least(key, getattr(self, key), low)
            if (getattr(self, key) or 0) > _MOST_BITS:
                raise InputError(f"{key} = {getattr(self, key)!r} is more than {_MOST_BITS} bits")
        if self.slices * (self.cell_bits or 0) > _MOST_BITS:
            raise InputError(f"slices x cell_bits is more than {_MOST_BITS} bits")
        if self.slices > 1 and self.cell_bits is None:
            raise InputError("slices > 1 needs cell_bits", remedy="say how many bits a cell holds")
        if self.dac_bits is not None and self.input_bits is None:
            raise InputError("dac_bits needs input_bits", remedy="say how many bits an input has")
        if not 0.0 < self.input_quantile <= 1.0:
            raise InputError(f"input_quantile = {self.input_quantile!r} is not in (0, 1]")

    @property
    def weight_levels(self) -> int | None:
        """Largest integer magnitude of a weight, None where weights stay analog."""
        return None if self.cell_bits is None else 2 ** (self.cell_bits * self.slices) - 1


def _at_least(key: str, value: object, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise InputError(f"{key} = {value!r} is not an integer of at least {low}")
