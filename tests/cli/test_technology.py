"""``spicenn technology``: list, show and fit, and every wrong use as one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from spicenn.cli.app import program
from spicenn.technology import Technology
from tests.cli.conftest import Shell


@pytest.fixture
def iv(tmp_path: Path) -> Path:
    """Two ohmic devices of 10 and 50 µS, with a little noise."""
    rng = np.random.default_rng(0)
    lines = ["voltage [V],current [uA],device"]
    for device, g in (("a", 10.0), ("b", 50.0)):
        for v in np.linspace(-0.2, 0.2, 9):
            lines.append(f"{v},{g * v + 0.01 * g * rng.standard_normal()},{device}")
    path = tmp_path / "iv.csv"
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_the_list_has_every_preset_with_cell_and_source(spicenn: Shell) -> None:
    result = spicenn("technology", "list")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(Technology.presets())
    for line in lines:
        preset = Technology.preset(line.split()[0])
        assert line.split()[1] == preset.cell.name
        assert preset.source.split()[0] in line
    data = json.loads(spicenn("technology", "list", "--json").stdout)
    assert [item["name"] for item in data["technologies"]] == list(Technology.presets())


def test_show_prints_keys_with_units_and_the_source(spicenn: Shell) -> None:
    result = spicenn("technology", "show", "rram-1r")
    assert result.exit_code == 0
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line}
    assert lines["g_max"] == ["0.0001", "S"]
    assert lines["r_wordline"] == ["2", "ohm"]
    assert lines["programming_error"] == ["0.05"]
    assert lines["cell.name"] == ["ohmic"]
    assert lines["variation.correlation_length"] == ["8", "cells"]
    assert "Order of magnitude of published" in result.stdout
    data = json.loads(spicenn("technology", "show", "rram-1r", "--json").stdout)
    assert data["g_max"] == 1e-4
    assert data["periphery"]["tia"]["gain"] is None


def test_fit_writes_a_technology_that_show_reads(spicenn: Shell, iv: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "mine.toml"
    result = spicenn(
        "technology", "fit", iv, "-o", output, "--base", "rram-1r", "--set", "v_read=150m",
        "--set", "drive=offset",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["key", "value", "standard", "error", "origin"]
    assert lines[-1] == f"technology {output}"
    (g_max,) = (line for line in lines if line.startswith("g_max"))
    assert "fitted" in g_max
    assert "the largest of 2 curves' conductances" in g_max
    (v_read,) = (line for line in lines if line.startswith("v_read"))
    assert "given" in v_read
    technology = Technology.from_toml(output)
    assert technology.name == "mine"
    assert (technology.v_read, technology.drive, technology.r_bitline) == (0.15, "offset", 2.0)
    assert technology.g_max == pytest.approx(50e-6, rel=0.02)
    # The report stands in the file, too.
    assert all(f"# {line}" in output.read_text("utf-8") for line in lines[:-1])
    shown = spicenn("technology", "show", output)
    assert shown.exit_code == 0
    assert "iv.csv (current-voltage, 18 points, 2 devices, SHA-256" in shown.stdout


def test_fit_prints_json(spicenn: Shell, iv: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.toml"
    result = spicenn("technology", "fit", iv, "-o", output, "--name", "lab", "--json")
    assert result.exit_code == 0
    data = json.loads(result.stdout)
    assert (data["technology"], data["name"]) == (str(output), "lab")
    row = next(row for row in data["report"] if row["key"] == "g_max")
    assert row["origin"] == "fitted"
    assert row["unit"] == "S"
    assert abs(row["value"] - 50e-6) < 4 * row["error"]


WRONG = [
    ("technology nonsense", 2, "No such command"),
    ("technology show", 2, "NAME|FILE.toml"),
    ("technology show tin", 2, "rram-1r"),
    ("technology show none.toml", 1, "none.toml"),
    ("technology fit -o {out}", 2, "DATA.csv"),
    ("technology fit {iv}", 2, "-o"),
    ("technology fit {iv} -o mine.txt", 1, "mine.txt: a technology is a .toml file"),
    ("technology fit none.csv -o {out}", 1, "none.csv: there is no such file"),
    ("technology fit {bad} -o {out}", 1, "bad.csv, line 3, column 'current [A]': 'x'"),
    ("technology fit {iv} -o {out} --base tin", 2, "rram-1r"),
    ("technology fit {iv} -o {out} --set v_read", 2, "v_read"),
    ("technology fit {iv} -o {out} --set v_read=2x", 2, "2x"),
    ("technology fit {iv} -o {out} --set v_read=1,2", 2, "several values"),
    ("technology fit {iv} -o {out} --set v_read=1 --set v_read=2", 2, "given twice"),
    ("technology fit {iv} -o {out} --set colour=1", 1, "'colour' is not a key"),
    ("technology fit {iv} -o {out} --set v_read=-1", 1, "v_read = -1.0 is out of range"),
    ("technology fit {iv} -o {iv}/mine.toml", 1, "iv.csv"),
]


@pytest.mark.parametrize(("line", "code", "words"), WRONG, ids=[case[0] for case in WRONG])
def test_wrong_uses_end_as_one_line_and_write_nothing(
    line: str,
    code: int,
    words: str,
    spicenn: Shell,
    iv: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / "bad.csv"
    bad.write_text("voltage [V],current [A]\n1,1\n2,x\n")
    before = sorted(tmp_path.iterdir())
    paths = {"out": tmp_path / "out.toml", "iv": iv, "bad": bad}
    result: Result = spicenn(*(word.format(**paths) for word in line.split()))
    assert result.exit_code == code, result.output
    (message,) = result.stderr.splitlines()
    assert message.startswith("error: ")
    assert words in message
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["list", "show", "fit"])
def test_every_subcommand_has_help_with_an_example(name: str, spicenn: Shell) -> None:
    result = spicenn("technology", name, "--help")
    assert result.exit_code == 0
    assert f"spicenn technology {name}" in result.stdout.split("Example", 1)[1]
    group = program.commands["technology"]
    for option in group.commands[name].params:  # type: ignore[attr-defined]
        assert option.param_type_name == "argument" or getattr(option, "help", None)
