"""Amplifiers and converters of manufactured chips: off they change nothing, on they do what
their models say, drawn once per chip whatever the company."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import spicenn as sn
from spicenn.compiler import readout
from spicenn.compiler.converter import convert, encode
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.structural import tile_moments
from spicenn.engines import open_engine
from spicenn.errors import EngineError, InputError, SpicennWarning
from spicenn.periphery import adc, dac
from spicenn.periphery.tia import tia_instance, tia_output
from spicenn.seeds import Purpose, generator
from spicenn.technology import Converter
from spicenn.technology.library import subcircuit_text

IDEAL = sn.Technology.preset("ideal")
SEED = 11


@cache
def compiled(tile, mapping):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(9, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = torch.rand(8, 9, dtype=torch.float64)
    return sn.compile(model, x, technology=IDEAL, tile=tile, mapping=mapping), x


def design_of(changes=None, tile=None, **mapping):
    design, x = compiled(tile or sn.Tile(5, 8), sn.Mapping(**mapping))
    return design.with_technology(changes or {}), x


def outputs(design, x, chips=(0, 4), trials=1):
    with open_engine("nodal") as engine:
        result = run_chips(design, chips, SEED, as_inputs(design, x), engine, trials=trials)
    return result.output[design.program.outputs[0].name]


EVERYTHING = {
    "periphery.tia.gain": 300.0,
    "periphery.tia.v_max": 0.8,
    "periphery.tia.offset": 1e-4,
    "periphery.adc.inl": 0.5,
    "periphery.adc.dnl": 0.3,
    "periphery.dac.inl": 0.4,
    "periphery.dac.dnl": 0.2,
}
BITS = {"input_bits": 6, "dac_bits": 3, "adc_bits": 7}


@pytest.mark.parametrize("mapping", [{}, {"input_bits": 6, "adc_bits": 7}], ids=["analog", "bits"])
def test_specifications_that_touch_no_settled_output_change_no_bit(mapping):
    """Bandwidth, energy, supply and a drawn but absent converter: the arithmetic is the same."""
    design, x = design_of(**mapping)
    before = outputs(design, x)
    changes = {
        "periphery.tia.bandwidth": 1e8, "periphery.tia.c_in": 1e-12,
        "periphery.tia.bias_current": 1e-5, "periphery.adc.energy": 1e-12,
        "periphery.adc.time": 1e-8, "periphery.dac.energy": 1e-12,
    }  # fmt: skip
    if not mapping:
        changes |= {key: value for key, value in EVERYTHING.items() if "tia" not in key}
    np.testing.assert_array_equal(outputs(design.with_technology(changes), x), before)


@pytest.mark.parametrize("key", EVERYTHING)
def test_every_mechanism_acts_alone(key):
    design, x = design_of(**BITS)
    if key == "periphery.tia.v_max":  # sized never to be reached unless the resistor is larger
        design = design.with_technology({"periphery.tia.r_feedback": 1e5})
    before = outputs(design, x)
    after = outputs(design.with_technology({key: EVERYTHING[key]}), x)
    assert not np.array_equal(before, after)
    drawn = key.endswith(("offset", "dnl"))
    np.testing.assert_array_equal(before[0], before[1])
    assert np.array_equal(after[0], after[1]) != drawn


def test_a_chips_periphery_does_not_depend_on_its_company_its_trials_or_other_mechanisms():
    design, x = design_of(EVERYTHING, **BITS)
    together = outputs(design, x, chips=(2, 4, 9))
    np.testing.assert_allclose(outputs(design, x, chips=(4,))[0], together[1], rtol=1e-12)
    np.testing.assert_allclose(outputs(design, x[:3], chips=(4,))[0, 0], together[1, 0, :3])
    trials = outputs(design, x, chips=(4,), trials=2)
    np.testing.assert_array_equal(trials[0, 0], trials[0, 1])
    assert not np.array_equal(together[0], together[1])
    # Cells are drawn under other keys: the same with and without a periphery.
    varied = design.with_technology(programming_error=0.05)
    plain = varied.with_technology(dict.fromkeys(EVERYTHING, 0.0) | {
        "periphery.tia.gain": None, "periphery.tia.v_max": None})  # fmt: skip
    for name, g in varied.sample(chip=4, seed=SEED).conductances().items():
        np.testing.assert_array_equal(g, plain.sample(chip=4, seed=SEED).conductances()[name])


def test_amplifiers_of_a_tile_are_the_model_with_offsets_of_their_own():
    """Through ``apply`` against the amplifier's equation line by line."""
    design, _ = design_of(
        {"periphery.tia.gain": 200.0, "periphery.tia.offset": 1e-3, "periphery.tia.v_max": 0.5,
         "periphery.tia.r_feedback": 3e4}
    )  # fmt: skip
    tile = design.tiles[0]
    spec = design.technology.periphery.tia
    rng = np.random.default_rng(0)
    chips = (3, 8)
    current = rng.normal(0, 2e-5, (2, 1, 4, 1, 1, tile.crossbar.bitlines))
    g = np.stack([tile.g_target, 1.1 * tile.g_target])
    read = readout.apply(current, g, tile, design, chips, SEED)
    for c, chip in enumerate(chips):
        draw = generator(SEED, Purpose.TIA_OFFSET, chip=chip).standard_normal((g.shape[-1],))
        for j in range(g.shape[-1]):
            expected = tia_output(
                current[c, ..., j], 3e4, spec, 1e-3 * float(draw[j]), g[c, :, j].sum()
            )
            np.testing.assert_allclose(read[c, ..., j], -expected / 3e4, rtol=1e-12)


@pytest.mark.ngspice
def test_a_tile_with_real_amplifiers_in_ngspice_reads_what_apply_says():
    """Drivers, cells and amplifiers as one circuit; offset, finite gain and saturation on."""
    design, _ = design_of(
        {"periphery.tia.gain": 150.0, "periphery.tia.offset": 2e-3, "periphery.tia.v_max": 0.25,
         "periphery.tia.r_feedback": 8e3}
    )  # fmt: skip
    tile = design.tiles[0]
    technology, g = design.technology, tile.g_target
    spec = technology.periphery.tia
    v = np.array([0.2, 0.13, -0.05, 0.18, 0.2])
    draw = generator(SEED, Purpose.TIA_OFFSET, chip=5).standard_normal((g.shape[1],))
    lines = ["* tile", ".options klu reltol=1e-9 vntol=1e-12 abstol=1e-15",
             subcircuit_text("tia"), "vdd vdd 0 1.8"]  # fmt: skip
    lines += [f"v{i} w{i} 0 {x!r}" for i, x in enumerate(v.tolist())]
    lines += [
        f"r{i}_{j} w{i} b{j} {float(1 / g[i, j])!r}"
        for i in range(g.shape[0])
        for j in range(g.shape[1])
    ]
    lines += [
        tia_instance(f"a{j}", (f"b{j}", f"o{j}", "vdd"), spec, 8e3, 2e-3 * float(draw[j]))
        for j in range(g.shape[1])
    ]
    names = [f"v(o{j})" for j in range(g.shape[1])]
    with open_engine("ngspice") as engine:
        found = engine.run("\n".join([*lines, ".op", ".end"]), names)  # type: ignore[attr-defined]
    current = (v @ g).reshape(1, 1, 1, 1, 1, -1)
    read = readout.apply(current, g[np.newaxis], tile, design, (5,), SEED).ravel()
    np.testing.assert_allclose([found[name][0] for name in names], -8e3 * read, rtol=1e-6)
    ideal = current.ravel() * 8e3
    assert np.abs(ideal).max() > 0.26  # one saturates
    assert 0.25 < np.abs(8e3 * read).max() < 0.2503
    assert np.median(np.abs(read * 8e3 - ideal)) > 1e-3  # offsets and gains do matter


def test_the_input_resistance_may_be_in_the_circuit_or_in_the_amplifier():
    """Currents that were solved with ``r_sense`` give the same reading as those of a short."""
    design, _ = design_of({"periphery.tia.gain": 50.0, "periphery.tia.offset": 1e-3})
    tile = design.tiles[0]
    g = tile.g_target[np.newaxis]
    r = readout.feedback_resistance(tile, design.technology) / 51
    short = (np.linspace(-0.2, 0.2, len(g[0])) @ g[0]).reshape(1, 1, 1, 1, 1, -1)
    loaded = short / (1 + r * g.sum(1))
    sensed = replace(tile, crossbar=replace(tile.crossbar, r_sense=r))
    np.testing.assert_allclose(
        readout.apply(loaded, g, sensed, design, (0,), SEED),
        readout.apply(short, g, tile, design, (0,), SEED), rtol=1e-12,
    )  # fmt: skip


def test_the_resistor_takes_the_largest_line_to_full_scale():
    design, _ = design_of({"periphery.tia.v_max": 0.6})
    for tile in design.tiles:
        r = readout.feedback_resistance(tile, design.technology)
        largest = (design.technology.v_read * tile.g_target).sum(0).max()
        assert r * largest == pytest.approx(0.6)
    assert readout.feedback_resistance(tile, IDEAL) * largest == pytest.approx(1.0)
    given = IDEAL.replace({"periphery.tia.r_feedback": 5e3})
    assert readout.feedback_resistance(tile, given) == 5e3


def test_drawn_adcs_convert_every_output_of_every_chip_by_its_own_levels():
    design, _ = design_of(adc_bits=5)
    layer, spec = design.layers[0], Converter(inl=0.6, dnl=0.4)
    rng = np.random.default_rng(0)
    difference = rng.uniform(-1.2, 1.2, (2, 1, 50, 1, 1, 3)) * layer.current_scale
    converted = convert(
        difference, layer, design.mapping, spec, [np.random.default_rng(k) for k in (5, 6)]
    )
    step = layer.current_scale / 15
    for chip, key in enumerate((5, 6)):
        own = np.random.default_rng(key)
        for output in range(3):
            levels = adc.transitions(5, step, spec, own)
            expected = step * adc.codes(difference[chip, ..., output], levels)
            np.testing.assert_array_equal(converted[chip, ..., output], expected)
    nominal = convert(difference, layer, design.mapping, Converter(dnl=0.4))
    np.testing.assert_array_equal(nominal, convert(difference, layer, design.mapping))
    with pytest.raises(InputError, match="chips"):
        convert(difference, layer, design.mapping, spec, [rng])


@pytest.mark.parametrize("drive", ["bipolar", "two-phase", "offset"])
def test_drawn_dacs_drive_every_row_of_every_chip_by_its_own_levels(drive):
    spec = Converter(inl=0.3, dnl=0.2)
    design, x = design_of({"drive": drive}, input_bits=5, dac_bits=2)
    layer = design.layers[0]
    signed = replace(layer, signed=True)
    values = (x.numpy() - 0.4)[np.newaxis, np.newaxis, :, np.newaxis]
    real = design.technology.replace({"periphery.dac.inl": 0.3, "periphery.dac.dnl": 0.2})
    linear = encode(values, signed, design.mapping, design.technology)
    drawn = encode(values, signed, design.mapping, real, [np.random.default_rng(k) for k in (1, 2)])
    np.testing.assert_array_equal(drawn.weight, linear.weight)
    assert drawn.fraction.shape == (linear.fraction.shape[0], 2, *linear.fraction.shape[2:])
    digits = np.rint(np.abs(linear.fraction) * 3).astype(int)
    rows = linear.fraction.shape[-1]
    for chip, key in enumerate((1, 2)):
        table = dac.levels(2, spec, np.random.default_rng(key), (rows,))
        expected = np.sign(linear.fraction) * table[np.arange(rows), digits]
        np.testing.assert_allclose(drawn.fraction[:, chip], expected[:, 0], rtol=1e-15)
    # Ends are exact: zero drives nothing, full scale all.
    for end in (0, 3):
        at = np.broadcast_to(digits == end, drawn.fraction.shape)
        np.testing.assert_array_equal(np.abs(drawn.fraction[at]), end / 3)


def test_a_row_has_one_dac_in_every_tile_column():
    """Narrow tiles and wide ones see the same drives: converters belong to rows."""
    changes = {"periphery.dac.dnl": 0.3}
    wide, x = design_of(changes, tile=sn.Tile(16, 64), input_bits=5)
    narrow, _ = design_of(changes, tile=sn.Tile(16, 2), input_bits=5)
    assert len(narrow.tiles) > len(wide.tiles)
    np.testing.assert_allclose(outputs(narrow, x), outputs(wide, x), rtol=1e-10)


def test_worse_converters_cost_more():
    design, x = design_of(adc_bits=8)
    exact = outputs(design_of()[0], x)

    def error(sigma):
        changed = design.with_technology({"periphery.adc.dnl": sigma})
        return np.sqrt(np.mean((outputs(changed, x, chips=range(20)) - exact[:1]) ** 2))

    assert error(0.0) < error(1.0) < error(4.0)


def test_effective_matrices_say_what_they_leave_out():
    design, _ = design_of({"periphery.tia.offset": 1e-3, "periphery.adc.inl": 0.5})
    assert readout.beyond_matrices(design_of(adc_bits=6)[0]) == ()
    assert readout.beyond_matrices(design) == ("periphery.tia",)  # there is no ADC
    with pytest.raises(EngineError, match=r"periphery\.tia"):
        design.sample(chip=0, seed=1).to_torch()
    with pytest.warns(SpicennWarning, match=r"periphery\.tia"):
        tile_moments(design)


def test_drawn_converters_have_a_limit_of_bits_and_linear_ones_have_none():
    design, x = design_of(adc_bits=24, input_bits=24)
    assert np.isfinite(outputs(design, x)).all()
    for key in ("adc", "dac"):
        with pytest.raises(InputError, match="24 bits"):
            outputs(design.with_technology({f"periphery.{key}.dnl": 0.1}), x)


ERRORS = {
    "periphery.adc.gain": 0.3,
    "periphery.adc.offset": 0.1,
    "periphery.dac.gain": 0.15,
    "periphery.dac.offset": 0.05,
}


@given(
    key=st.sampled_from(sorted(ERRORS)),
    bits=st.sampled_from([{}, BITS]),
    drive=st.sampled_from(["bipolar", "two-phase", "offset"]),
)
@settings(max_examples=12)
def test_each_error_of_converters_acts_alone_and_without_steps_as_well(key, bits, drive):
    """Zero changes no bit; one that is on makes chips differ, and no other draw moves."""
    design, x = design_of({"drive": drive}, **bits)
    before = outputs(design, x)
    np.testing.assert_array_equal(outputs(design.with_technology(dict.fromkeys(ERRORS, 0.0)), x),
                                  before)  # fmt: skip
    after = outputs(design.with_technology({key: ERRORS[key]}), x)
    assert not np.array_equal(after[0], after[1])
    side, which = key.split(".")[1:]

    def drawn(changes):
        changed = design.with_technology(changes)
        if side == "adc":
            return getattr(readout.adc_errors(design.tiles[0], changed, (0, 4), SEED), which)
        layer = design.layers[0]
        return getattr(readout.dac_errors(layer, 0, 9, changed, (0, 4), SEED), which)

    np.testing.assert_array_equal(drawn({key: ERRORS[key]}), drawn(ERRORS))


def test_errors_of_converters_are_normal_with_the_stated_deviation():
    """4000 chips: mean within 4 standard errors of 0, deviation within 4 of the stated."""
    design, _ = design_of(ERRORS)
    chips = range(4000)
    adc_errors = readout.adc_errors(design.tiles[0], design, chips, SEED)
    dac_errors = readout.dac_errors(design.layers[0], 0, 9, design, chips, SEED)
    for errors, side in ((adc_errors, "adc"), (dac_errors, "dac")):
        for name, drawn in errors._asdict().items():
            sigma = ERRORS[f"periphery.{side}.{name}"]
            assert abs(drawn.mean()) < 4 * sigma / np.sqrt(drawn.size)
            assert drawn.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * drawn.size))
            assert np.abs(np.corrcoef(drawn.T) - np.eye(drawn.shape[1])).max() < 5 / np.sqrt(4000)
    assert np.abs(np.corrcoef(adc_errors.gain.ravel(), adc_errors.offset.ravel())[0, 1]) < 0.05


def test_a_chip_keeps_its_converters_whatever_is_programmed():
    """Other weights of the same shape: the errors are the chip's, its company is nothing."""
    design, x = design_of(ERRORS)
    moved = replace(
        design, layers=tuple(replace(layer, weight=-0.5 * layer.weight) for layer in design.layers)
    )
    for tile, other in zip(design.tiles, moved.tiles, strict=True):
        assert not np.array_equal(tile.g_target, other.g_target)
        before = readout.adc_errors(tile, design, (4,), SEED)
        after = readout.adc_errors(other, moved, (0, 4), SEED)
        np.testing.assert_array_equal(before.gain[0], after.gain[1])
        np.testing.assert_array_equal(before.offset[0], after.offset[1])
    together = outputs(design, x, chips=(2, 4, 9))
    np.testing.assert_allclose(outputs(design, x, chips=(4,))[0], together[1], rtol=1e-12)


@pytest.mark.parametrize("drive", ["bipolar", "two-phase", "offset"])
def test_errors_of_converters_are_the_stated_equation(drive):
    """One layer by hand: rows and columns of the effective matrix scaled, offsets added."""
    design, _ = design_of({**ERRORS, "drive": drive}, dac_bits=2, input_bits=4)
    layer = replace(design.layers[0], signed=True)
    tile = replace(design.tiles[0], layer=layer)
    x = np.random.default_rng(2).uniform(-1, 1, (1, 1, 6, 1, 9))
    nominal = encode(x, layer, design.mapping, design.technology)
    drive_ = readout.encode(x, layer, 0, design, (0, 4), SEED)
    rows = drive_.fraction.shape[-1]  # the bias has one of its own
    matrix = np.random.default_rng(3).normal(size=(rows, tile.crossbar.bitlines // 2))
    found = readout.combine(
        np.moveaxis(drive_.fraction @ matrix, 0, -2), drive_.weight, tile, design, (0, 4), SEED
    )
    dacs = readout.dac_errors(layer, 0, rows, design, (0, 4), SEED)
    adcs = readout.adc_errors(tile, design, (0, 4), SEED)
    total = np.einsum("p,p...->...", nominal.weight, nominal.fraction)[0, 0, :, 0]
    pulses = nominal.weight.sum()
    assert (pulses == 0) == (drive == "two-phase")  # where a cell's offset cancels
    for c in range(2):
        u = total * (1 + dacs.gain[c]) + pulses * dacs.offset[c]
        z = u @ matrix * (1 + adcs.gain[c]) + pulses * layer.current_scale * adcs.offset[c]
        np.testing.assert_allclose(found[c, 0, :, 0], z, rtol=1e-10, atol=1e-12)


@pytest.mark.ngspice
def test_ngspice_and_nodal_agree_on_a_chip_with_converter_errors():
    design, x = design_of({**ERRORS, "programming_error": 0.05, "r_wordline": 2.0,
                           "r_bitline": 2.0})  # fmt: skip
    chip = design.sample(chip=3, seed=SEED)
    np.testing.assert_allclose(chip.run(x), chip.run(x, "nodal"), rtol=1e-7, atol=1e-9)


def test_matrices_hold_the_errors_of_converters_and_not_their_steps():
    assert readout.beyond_matrices(design_of(ERRORS, adc_bits=6)[0]) == ()
    stepped = design_of({**ERRORS, "periphery.adc.dnl": 0.3}, adc_bits=6)[0]
    assert readout.beyond_matrices(stepped) == ("periphery.adc",)
