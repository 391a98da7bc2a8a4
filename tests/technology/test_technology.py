"""Technologies are checked records; every refusal names the key, the value and the range."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spicenn.errors import InputError, NetlistError, TechnologyError
from spicenn.technology import Cell, Corner, Technology, parse_quantity
from spicenn.technology.noise import BOLTZMANN, read_noise, thermal_noise
from spicenn.technology.toml import from_dict, parse, to_dict

BASE: dict[str, Any] = {"name": "t", "g_min": 1e-6, "g_max": 1e-4, "v_read": 0.2}


@pytest.mark.parametrize("name", Technology.presets())
def test_presets_load_cite_a_source_and_survive_plain_values(name):
    technology = Technology.preset(name)
    assert technology.name == name
    assert technology.source
    assert from_dict(to_dict(technology)) == technology


def test_ideal_has_nothing_to_vary():
    ideal = Technology.preset("ideal")
    assert (ideal.r_wordline, ideal.r_bitline, ideal.programming_error) == (0, 0, 0)
    assert (ideal.read_noise, ideal.bandwidth) == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"g_min": 2e-4}, ["g_min", "0.0002", "g_max", "0.0001", "allowed"]),
        ({"r_wordline": -1.0}, ["r_wordline", "-1.0", "[0"]),
        ({"r_bitline": math.inf}, ["r_bitline", "inf"]),
        ({"v_read": 0.0}, ["v_read", "0.0", "(0"]),
        ({"temperature": -3.0}, ["temperature", "-3.0"]),
        ({"programming_error": math.nan}, ["programming_error", "nan"]),
        ({"g_max": "100u"}, ["g_max", "100u"]),
        ({"drive": "both"}, ["drive", "both", "bipolar, offset, two-phase"]),
        ({"corner": "xx"}, ["corner", "xx", "tt"]),
        ({"corners": (Corner("tt"), Corner("tt"))}, ["corners", "repeat"]),
    ],
)
def test_bad_values_are_refused_with_key_value_and_range(change, words):
    with pytest.raises(TechnologyError) as error:
        Technology(**{**BASE, **change})
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g_min = 1", ["'name'", "missing"]),
        ("nmae = 'x'", ["unknown key 'nmae'", "known", "name"]),
        ("name = ", ["not TOML", "Invalid value"]),
        ("name='x'\ng_min='1x'\ng_max=1\nv_read=1", ["g_min", "1x", "quantity"]),
        ("name='x'\ng_min=1e-6\ng_max=1e-4\nv_read=.2", ["not TOML"]),
        (
            "name='x'\ng_min=0\ng_max=1e-4\nv_read=1\ncorners=[{name='a', speed=1}]",
            ["corners.speed"],
        ),
        ("name='x'\ng_min=0\ng_max=1e-4\nv_read=1\ncell='ohmic'", ["cell", "table"]),
        (
            "name='x'\ng_min=0\ng_max=1e-4\nv_read=1\ncell={name='c', netlist='.control'}",
            [".control"],
        ),
    ],
)
def test_bad_files_are_refused_with_file_and_key(text, words, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(TechnologyError) as error:
        Technology.from_toml(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("g_min = '1x'\n", "line 4, column 1"),
        ("g_min = 0\n\n[variation]\nstuck_on = 2\n", "line 7, column 1"),
        ("g_min = 0\n[ periphery.tia ]\n  gain = -2\n", "line 6, column 3"),
        ("g_min = 0\n[variation]\nstuck = 2\n", "line 6, column 1"),
        ("g_min = 0\nperiphery.tia.gain = -2\n", "line 5, column 1"),
        ("g_min = 0\n[[corners]]\nname = 'tt'\nbeta = -1\n", "corner 'tt', beta"),
        ("g_min = \n", "line 4, column 9"),
    ],
)
def test_a_bad_value_is_found_by_line_and_column(text, place, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("name = 'x'\ng_max = 1e-4\nv_read = 0.2\n" + text, "utf-8")
    with pytest.raises(TechnologyError) as error:
        Technology.from_toml(path)
    assert str(path) in str(error.value)
    assert place in str(error.value)


def test_a_missing_file_and_a_missing_preset_say_so(tmp_path):
    with pytest.raises(TechnologyError, match="cannot be read"):
        Technology.from_toml(tmp_path / "none.toml")
    with pytest.raises(TechnologyError, match="rram-1r"):
        Technology.preset("nope")
    with pytest.raises(TechnologyError, match="known: "):
        Technology(**BASE).replace(r_wordlin=1.0)


def test_toml_takes_engineering_suffixes():
    text = "name='x'\ng_min='1u'\ng_max='100 uS'\nv_read='200m'\nr_wordline='2'\nbandwidth='1meg'"
    technology = parse(text, where="here")
    assert (technology.g_min, technology.g_max, technology.v_read) == (1e-6, 1e-4, 0.2)
    assert (technology.r_wordline, technology.bandwidth) == (2.0, 1e6)


@given(st.sampled_from(["f", "p", "n", "u", "m", "", "k", "meg", "g", "t"]), st.integers(1, 9999))
def test_suffixes_are_exact_to_the_last_bit(suffix, number):
    exponents = {"f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "k": 3, "meg": 6, "g": 9, "t": 12}
    assert parse_quantity(f"{number}{suffix}") == float(f"{number}e{exponents.get(suffix, 0)}")
    assert parse_quantity(f" {number} {suffix.upper()} ") == parse_quantity(f"{number}{suffix}")


@pytest.mark.parametrize("bad", ["", "u", "1uu", "1;2", "nan", "1 u\n.control", True])
def test_other_text_is_no_quantity(bad):
    with pytest.raises(InputError, match="not a quantity"):
        parse_quantity(bad)


SUBCIRCUIT = ".subckt mine w b g=1u\nB1 w b i={g}*v(w,b)\n.ends mine\n"


def test_a_cell_is_one_subcircuit():
    assert not Cell("mine", SUBCIRCUIT).is_ohmic
    assert Cell().is_ohmic


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("mine", SUBCIRCUIT + ".control\nshell ls\n.endc\n", ".control"),
        ("mine", SUBCIRCUIT.replace("B1", ".include /etc/passwd\nB1"), ".include"),
        ("mine", SUBCIRCUIT.replace("B1", ".tran 1 1\nB1"), ".tran"),
        ("mine", "R1 0 1 1\n" + SUBCIRCUIT, "outside"),
        ("mine", SUBCIRCUIT.replace(".ends mine", ""), "expected"),
        ("other", SUBCIRCUIT, "expected"),
        ("mine", SUBCIRCUIT.replace("g=1u", ""), "expected"),
        ("mine", SUBCIRCUIT.replace("B1", "\rB1"), "control"),
        ("Mine", SUBCIRCUIT, "not a cell name"),
        ("mine", "", "netlist"),
    ],
)
def test_hostile_cells_are_refused(name, text, words):
    with pytest.raises(NetlistError, match=words):
        Cell(name, text)


def test_noise_against_closed_forms():
    technology = Technology(**BASE, read_noise=0.02, bandwidth=1e8, temperature=300.0)
    g, v = np.full((4, 3), 2e-5), np.full((1, 4), 0.2)
    np.testing.assert_allclose(read_noise(technology, g, v), 0.02 * 2e-5 * 0.2 * 2.0)
    expected = math.sqrt(4 * BOLTZMANN * 300.0 * 4 * 2e-5 * 1e8)
    np.testing.assert_allclose(thermal_noise(technology, g), expected)
