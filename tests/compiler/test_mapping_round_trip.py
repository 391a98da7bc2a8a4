"""Weights to cells and back, inputs to pulses and back, a tile's sum against the matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spicenn.compiler.converter import combine, convert, driven, encode
from spicenn.compiler.ideal import ideal_differences, ideal_tiles
from spicenn.compiler.layer import Layer
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.tiling import (
    bias_rows,
    physical_weight,
    slice_weights,
    target_conductance,
    tile_slots,
    weight_of_conductance,
)
from spicenn.errors import InputError
from spicenn.technology import Technology

IDEAL = Technology.preset("ideal")
Drives = st.sampled_from(["bipolar", "offset", "two-phase"])


def layer_of(
    rng: np.random.Generator, inputs: int, outputs: int, *, bias: float, signed: bool
) -> Layer:
    weight = rng.uniform(-1.0, 1.0, (1, outputs, inputs))
    return Layer(
        "fc",
        0,
        weight,
        bias * rng.uniform(-1.0, 1.0, (1, outputs)) if bias else None,
        None,
        signed,
        input_scale=1.7,
        weight_scale=float(np.abs(weight).max()),
        current_scale=float(inputs + 5),
    )


@st.composite
def mappings(draw: st.DrawFn) -> Mapping:
    cell_bits = draw(st.none() | st.integers(1, 4))
    input_bits = draw(st.none() | st.integers(2, 8))
    return Mapping(
        bias=draw(st.sampled_from(["row", "digital"])),
        slices=1 if cell_bits is None else draw(st.integers(1, 3)),
        cell_bits=cell_bits,
        input_bits=input_bits,
        dac_bits=None if input_bits is None else draw(st.none() | st.integers(1, 8)),
    )


@given(mappings(), st.integers(0, 999))
def test_weights_come_back_from_their_cells(mapping: Mapping, seed: int) -> None:
    weight = np.random.default_rng(seed).uniform(-1.0, 1.0, (5, 3))
    weight[0] = [1.0, -1.0, 0.0]
    g = target_conductance(weight, mapping, IDEAL)
    assert g.shape == (5, 3 * mapping.slices * 2)
    assert g.min() >= IDEAL.g_min
    assert g.max() <= IDEAL.g_max * (1 + 1e-15)
    back = weight_of_conductance(g, mapping, IDEAL)
    bound = 1e-12 if mapping.weight_levels is None else 0.5 / mapping.weight_levels
    assert np.abs(back - weight).max() <= bound * (1 + 1e-9)
    np.testing.assert_allclose(back[0], weight[0], atol=1e-12)


def test_pair_0_is_plus_and_one_of_a_pair_rests_at_g_min() -> None:
    g = target_conductance(np.array([[0.5, -0.5]]), Mapping(), IDEAL)
    middle = IDEAL.g_min + 0.5 * (IDEAL.g_max - IDEAL.g_min)
    np.testing.assert_allclose(g, [[middle, IDEAL.g_min, IDEAL.g_min, middle]])


@given(mappings(), Drives, st.booleans(), st.integers(0, 999))
def test_inputs_come_back_from_their_pulses(
    mapping: Mapping, drive: str, signed: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    technology = IDEAL.replace(drive=drive)
    layer = layer_of(rng, 6, 2, bias=3.0, signed=signed)
    x = rng.uniform(-1.0 if signed else 0.0, 1.0, (4, 6)) * layer.input_scale
    x[0, :3] = [0.0, layer.input_scale, -layer.input_scale if signed else 0.0]
    code = encode(x, layer, mapping, technology)
    assert np.abs(code.fraction).max() <= 1.0
    if drive != "bipolar" or not signed:
        assert code.fraction.min() >= 0.0  # no driver of negative voltages is asked for
    total = np.tensordot(code.weight, code.fraction, 1)
    back = (total[:, :6] - code.offset) * layer.input_scale
    step = 0.0
    if mapping.input_bits is not None:
        # An offset drive spreads one bit more over twice the range, less one level.
        step = 1.0 / (2 ** (mapping.input_bits - signed) - 1)
    assert np.abs(back - x).max() <= (0.5 * step + 1e-12) * layer.input_scale
    np.testing.assert_allclose(back[0, :3], x[0, :3], atol=1e-12)
    # Bias rows carry exactly one, whatever the drive.
    np.testing.assert_allclose(total[:, 6:], 1.0, atol=1e-12)


@given(mappings(), Drives, st.booleans(), st.integers(1, 9), st.integers(6, 30), st.integers(0, 99))
@settings(max_examples=60)
def test_tiles_sum_to_the_matrix_product(
    mapping: Mapping, drive: str, signed: bool, wordlines: int, bitlines: int, seed: int
) -> None:
    """Whatever the tile, the sum over tiles, slices and pulses is the same quantised product."""
    rng = np.random.default_rng(seed)
    technology = IDEAL.replace(drive=drive)
    layer = layer_of(rng, 7, 4, bias=2.5, signed=signed)
    tile = Tile(wordlines=wordlines, bitlines=bitlines)
    x = rng.uniform(-1.0 if signed else 0.0, 1.0, (3, 7)) * layer.input_scale
    code = encode(x, layer, mapping, technology)
    z = np.zeros((3, 4))
    rows = physical_weight(layer, mapping)[0]
    held = weight_of_conductance(target_conductance(rows, mapping, technology), mapping, technology)
    tiles = ideal_tiles(layer, tile, mapping, technology)
    differences = ideal_differences(x[:, np.newaxis], layer, tiles, mapping, technology)
    for (slot, _), difference in zip(tiles, differences, strict=True):
        z[:, slot.outputs] += combine(difference, code.weight, layer, mapping)
    z -= code.offset * held[:7].sum(axis=0)
    z *= layer.input_scale * layer.weight_scale
    if mapping.bias == "digital":
        assert layer.bias is not None
        z += layer.bias
    total = np.tensordot(code.weight, code.fraction, 1)
    total[:, :7] -= code.offset
    # What torch drives a whole layer with is what the pulses add up to.
    whole = driven(torch.as_tensor(x), layer, mapping, technology)
    np.testing.assert_allclose(total[:, :7] * layer.input_scale, whole.numpy(), atol=1e-12)
    expected = total @ held * layer.input_scale * layer.weight_scale
    if mapping.bias == "digital":
        assert layer.bias is not None
        expected = expected + layer.bias
    np.testing.assert_allclose(z, expected, atol=1e-9)
    if mapping.weight_levels is None and mapping.input_bits is None:
        assert layer.bias is not None
        np.testing.assert_allclose(z, x @ layer.weight[0].T + layer.bias, atol=1e-9)


@given(st.integers(1, 40), st.integers(1, 20), st.integers(1, 12), st.integers(2, 14))
def test_tiles_cover_every_weight_once(
    inputs: int, outputs: int, wordlines: int, bitlines: int
) -> None:
    layer = layer_of(np.random.default_rng(0), inputs, outputs, bias=1.0, signed=True)
    rows = inputs + bias_rows(layer, Mapping())
    count = np.zeros((rows, outputs))
    slots = tile_slots(layer, Mapping(), Tile(wordlines, bitlines))
    for slot in slots:
        assert 1 <= slot.wordlines <= wordlines
        assert 1 <= slot.signed_outputs <= bitlines // 2
        count[slot.rows, slot.outputs] += 1
    assert np.all(count == 1)
    assert len({(slot.row, slot.column) for slot in slots}) == len(slots)


def test_slices_weigh_up_to_one() -> None:
    for bits, slices in ((1, 1), (2, 3), (4, 2)):
        weights = slice_weights(Mapping(slices=slices, cell_bits=bits))
        assert weights.sum() == pytest.approx(1.0)
        assert np.all(np.diff(weights) > 0)  # most significant last


@given(st.integers(2, 12), st.floats(-2.0, 2.0, allow_subnormal=False))
def test_a_converter_rounds_to_a_level_and_saturates(bits: int, value: float) -> None:
    layer = layer_of(np.random.default_rng(0), 3, 1, bias=0.0, signed=True)
    mapping = Mapping(adc_bits=bits)
    step = layer.current_scale / (2 ** (bits - 1) - 1)
    (out,) = convert(np.array([value * layer.current_scale]), layer, mapping)
    assert out / step == pytest.approx(round(out / step), abs=1e-9)
    assert out >= -(layer.current_scale + step) * (1 + 1e-12)
    assert out <= layer.current_scale * (1 + 1e-12)
    if abs(value) <= 1.0:
        assert abs(out - value * layer.current_scale) <= step / 2 * (1 + 1e-9)


@pytest.mark.parametrize(
    "keys",
    [
        {"slices": 2},
        {"dac_bits": 2},
        {"input_bits": 1},
        {"adc_bits": 1},
        {"cell_bits": 0},
        {"bias": "none"},
        {"input_quantile": 0.0},
        {"slices": 8, "cell_bits": 8},
        {"input_bits": 64},
        {"adc_bits": 64},
    ],
)
def test_choices_that_make_no_sense_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Mapping(**keys)  # type: ignore[arg-type]
