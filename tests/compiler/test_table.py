"""The printed design: every layer with its tiles and cells, and what stays digital."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.pipeline import compile
from spicenn.technology import Technology
from tests.compiler.zoo import compiled

IDEAL = Technology.preset("ideal")


def test_counts_tiles_and_cells() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3, bias=False))
    design = compile(model, torch.randn(4, 10), technology=IDEAL, tile=Tile(4, 8))
    lines = str(design).splitlines()
    # 10 inputs and one bias row on tiles of 4: three rows of tiles; 6 outputs, two lines each.
    first = next(line for line in lines if line.startswith("0 "))
    assert "10 -> 6" in first
    assert "3 x 2" in first
    assert "10 + 1 bias" in first
    assert str(11 * 6 * 2) in first
    second = next(line for line in lines if line.startswith("2 "))
    assert "2 x 1" in second
    assert "unsigned" in second
    assert f"{11 * 12 + 6 * 6} cells" in lines[0]
    assert "8 tiles" in lines[0]
    cells = sum(tile.g_target.size for tile in design.tiles)
    assert f"{cells} cells" in lines[0]
    assert "relu x1" in str(design)


def test_slices_take_cells() -> None:
    mapping = Mapping(slices=3, cell_bits=2, input_bits=4, dac_bits=1, adc_bits=7, bias="digital")
    design = compile(nn.Linear(5, 2), torch.randn(4, 5), technology=IDEAL, mapping=mapping)
    text = str(design)
    assert f"{5 * 2 * 2 * 3} cells" in text
    for part in ("3 x 2 bits", "inputs of 4 bits, 1 in a pulse", "ADC of 7 bits", "digital sum"):
        assert part in text


def test_names_the_users_line_and_a_shared_layers_uses() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(torch.relu(self.fc(x)))
            return y

    text = str(compile(Twice(), torch.randn(4, 3), technology=IDEAL))
    row = next(line for line in text.splitlines() if line.startswith("fc "))
    assert row.split()[4] == "2"
    assert f"{Path(__file__).name}:" in row


@pytest.mark.parametrize("name", ["named-strangely", "attention"])
def test_is_plain_text(name: str) -> None:
    text = str(compiled(name))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert all(line == line.rstrip() for line in text.splitlines())
    if name == "named-strangely":
        assert r"a b\nc" in text
