"""What a chip's converters and amplifiers make of its inputs and currents.

Every wordline of a layer has a DAC, every bitline of a tile an amplifier, every differential
output of a tile an ADC. What differs from chip to chip is drawn here, under keys of its own;
with an ideal ``Technology.periphery`` nothing is, and nothing changes a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spicenn.compiler.converter import Drive
from spicenn.compiler.converter import combine as combine_currents
from spicenn.compiler.converter import encode as encode_inputs
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.placement import PlacedTile, tile_generator
from spicenn.periphery.mismatch import draw_offset
from spicenn.periphery.tia import tia_output
from spicenn.seeds import Purpose, generator
from spicenn.technology import Converter, Technology

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

# Full scale of an amplifier whose output has no bound [V].
_FULL_SCALE = 1.0


class Errors(NamedTuple):
    """Errors of every chip's converters; (chip, converter) each.

    gain : relative.
    offset : over full scale.
    """

    gain: Array
    offset: Array


def encode(
    x: Array, layer: Layer, group: int, design: Design, chips: Sequence[int], seed: int
) -> Drive:
    """Turn inputs into pulses, through the DACs of every chip.

    A row of a layer has one DAC, which feeds that row in every tile column. What it drives
    is fraction · (1 + gain error) + offset, also where the mapping gives it no steps.

    Parameters
    ----------
    x : (chip or 1, trial or 1, sample, position, input) of one group, in the model's units.
    chips : indices.

    Returns
    -------
    Pulses (pulse, chip or 1, trial or 1, sample, position, row). Raises InputError as
    ``converter.encode``.
    """
    technology, draws = design.technology, None
    if design.mapping.input_bits is not None and technology.periphery.dac.dnl:
        draws = [
            generator(seed, Purpose.DAC_STEPS, chip=chip, layer=layer.index, row=group)
            for chip in chips
        ]
    drive = encode_inputs(x, layer, design.mapping, technology, draws)
    if technology.periphery.dac.is_accurate:
        return drive
    errors = dac_errors(layer, group, drive.fraction.shape[-1], design, chips, seed)
    gain, offset = (part[:, np.newaxis, np.newaxis, np.newaxis] for part in errors)
    return replace(drive, fraction=drive.fraction * (1.0 + gain) + offset)


def apply(
    current: Array, g: Array, tile: PlacedTile, design: Design, chips: Sequence[int], seed: int
) -> Array:
    """Return a tile's bitline currents as its amplifiers' outputs report them.

    That is -V_out / r_feedback: finite gain, offset and saturation are in it, nothing of it
    is noise. An offset also drives current through the bitline's cells, whose conductance is
    taken as the sum of g: the drop along wires is left out of the error, and a nonlinear
    cell counts with its small-signal conductance. A saturated amplifier lets its bitline go;
    what that does to other bitlines through the wordlines is left out too.

    Parameters
    ----------
    current : (chip, trial, sample, position, pulse, bitline) [A], into inputs at 0 V behind
        ``Crossbar.r_sense``.
    g : (chip, wordline, bitline) [S].
    chips : indices, one for every chip in the arrays.

    Returns
    -------
    The shape of ``current`` [A]; ``current`` itself where the amplifiers are ideal.
    """
    spec = design.technology.periphery.tia
    if spec.is_ideal:
        return current
    shape = (len(chips), 1, 1, 1, 1, g.shape[-1])
    offset = np.zeros((len(chips), g.shape[-1]))
    if spec.offset_sigma:
        for c, chip in enumerate(chips):
            rng = tile_generator(seed, Purpose.TIA_OFFSET, tile, chip)
            offset[c] = draw_offset(spec, rng, offset[c].shape)
    conductance = g.sum(axis=-2).reshape(shape)
    resistance = feedback_resistance(tile, design.technology)
    # What flows into an input of some resistance is not all that a short would draw.
    short = current * (1.0 + conductance * tile.crossbar.r_sense)
    output = tia_output(short, resistance, spec, offset.reshape(shape), conductance)
    return np.asarray(-output / resistance)


def combine(
    difference: Array,
    drive_weight: Array,
    tile: PlacedTile,
    design: Design,
    chips: Sequence[int],
    seed: int,
) -> Array:
    """Convert a tile's differences by every chip's ADCs and sum over slices and pulses.

    Every conversion is of difference · (1 + gain error) + offset · current_scale, also where
    the mapping gives the converters no steps.

    Parameters
    ----------
    difference : (chip, trial, sample, position, pulse, output · slice), over
        v_read (g_max - g_min).
    drive_weight : (pulse,).

    Returns
    -------
    (chip, trial, sample, position, output). Raises InputError as ``converter.convert``.
    """
    mapping, spec, draws = design.mapping, design.technology.periphery.adc, None
    if mapping.adc_bits is not None and spec.dnl:
        draws = [tile_generator(seed, Purpose.ADC_STEPS, tile, chip) for chip in chips]
    if not spec.is_accurate:
        errors = adc_errors(tile, design, chips, seed)
        gain, offset = (part.reshape(len(chips), 1, 1, 1, 1, -1) for part in errors)
        difference = difference * (1.0 + gain) + offset * tile.layer.current_scale
    return combine_currents(difference, drive_weight, tile.layer, mapping, spec, draws)


def adc_errors(tile: PlacedTile, design: Design, chips: Sequence[int], seed: int) -> Errors:
    """Gain errors and offsets of every chip's ADCs of one tile; (chip, output · slice) each."""

    def own(purpose: Purpose, chip: int) -> np.random.Generator:
        return tile_generator(seed, purpose, tile, chip)

    spec, count = design.technology.periphery.adc, tile.crossbar.bitlines // 2
    return _errors(spec, count, chips, own, Purpose.ADC_GAIN, Purpose.ADC_OFFSET)


def dac_errors(
    layer: Layer, group: int, rows: int, design: Design, chips: Sequence[int], seed: int
) -> Errors:
    """Gain errors and offsets of every chip's DACs of one group of a layer; (chip, row) each.

    Parameters
    ----------
    rows : of the group, bias rows included.
    """

    def own(purpose: Purpose, chip: int) -> np.random.Generator:
        return generator(seed, purpose, chip=chip, layer=layer.index, row=group)

    spec = design.technology.periphery.dac
    return _errors(spec, rows, chips, own, Purpose.DAC_GAIN, Purpose.DAC_OFFSET)


def _errors(
    spec: Converter,
    count: int,
    chips: Sequence[int],
    own: Callable[[Purpose, int], np.random.Generator],
    gain: Purpose,
    offset: Purpose,
) -> Errors:
    """Draw ``count`` converters of every chip, each mechanism under a key of its own."""

    def drawn(purpose: Purpose, sigma: float) -> Array:
        if sigma == 0.0:
            return np.zeros((len(chips), count))
        return np.stack([sigma * own(purpose, chip).standard_normal(count) for chip in chips])

    return Errors(drawn(gain, spec.gain), drawn(offset, spec.offset))


def feedback_resistance(tile: PlacedTile, technology: Technology) -> float:
    """Feedback resistor of a tile's amplifiers [Ω].

    Without ``Tia.r_feedback`` the tile's largest bitline current, its targets with every
    wordline at v_read, takes an output to v_max, or to 1 V without one. One line's current
    sizes it and not the range of the differences (``Layer.current_scale``): what a pair has
    in common passes through its amplifiers as well.
    """
    spec = technology.periphery.tia
    if spec.r_feedback is not None:
        return spec.r_feedback
    largest = technology.v_read * float(tile.g_target.sum(axis=0).max())
    return (spec.v_max or _FULL_SCALE) / largest


def beyond_matrices(design: Design) -> tuple[str, ...]:
    """Keys of the periphery in force that effective matrices of tiles do not hold.

    Gain and offset errors of converters they do hold, with an offset beside each; see
    ``structure``.
    """
    periphery, mapping = design.technology.periphery, design.mapping
    parts = (
        ("periphery.tia", not periphery.tia.is_ideal),
        ("periphery.dac", mapping.input_bits is not None and not periphery.dac.is_linear),
        ("periphery.adc", mapping.adc_bits is not None and not periphery.adc.is_linear),
    )
    return tuple(name for name, on in parts if on)
