"""A design as a table of plain text: layer, tiles, cells, and what stays digital."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from spicenn.compiler.layer import Layer
from spicenn.compiler.program import CROSSBAR
from spicenn.compiler.tiling import TileSlot, bias_rows, tile_slots

if TYPE_CHECKING:
    from spicenn.compiler.design import Design

_HEADER = ("layer", "map", "uses", "tiles", "wordlines", "cells", "input scale", "drive", "source")


def render(design: Design) -> str:
    """Return the table; names of layers are escaped, lines are plain text."""
    program = design.program
    uses = Counter(node.args[0] for node in program.nodes if node.op == CROSSBAR)
    rows = [_row(design, layer, uses[layer.name]) for layer in design.layers]
    cells = sum(_cells(design, layer) for layer in design.layers)
    tiles = sum(len(_slots(design, layer)) for layer in design.layers)
    lines = [
        f"Design {_text(design.name)}: {len(rows)} layers, {tiles} tiles, {cells} cells",
        f"technology {_text(design.technology.name)}, tiles of {design.tile.wordlines} "
        f"wordlines x {design.tile.bitlines} bitlines, hash {design.hash[:12]}",
        "mapping: " + _mapping(design),
        "",
        *_columns([_HEADER, *rows]),
        "",
        *_digital(design),
    ]
    return "\n".join(line.rstrip() for line in lines)


def _row(design: Design, layer: Layer, uses: int) -> tuple[str, ...]:
    slots = _slots(design, layer)
    size = f"{layer.inputs} -> {layer.outputs}"
    if layer.groups > 1:
        size = f"{layer.groups} x ({size})"
    if layer.convolution is not None:
        size += " conv " + "x".join(map(str, layer.convolution.kernel))
    extra = bias_rows(layer, design.mapping)
    lines = f"{layer.inputs} + {extra} bias" if extra else str(layer.inputs)
    drive = design.technology.drive if layer.signed else "unsigned"
    shape = f"{1 + max(s.row for s in slots)} x {1 + max(s.column for s in slots)}"
    return (
        _text(layer.name),
        size,
        str(uses),
        shape,
        lines,
        str(_cells(design, layer)),
        f"{layer.input_scale:.4g}",
        drive,
        _text(layer.source) or "-",
    )


def _slots(design: Design, layer: Layer) -> tuple[TileSlot, ...]:
    return tile_slots(layer, design.mapping, design.tile)


def _cells(design: Design, layer: Layer) -> int:
    lines = 2 * design.mapping.slices
    return sum(s.wordlines * s.signed_outputs * lines for s in _slots(design, layer))


def _mapping(design: Design) -> str:
    m = design.mapping
    parts = [f"bias as {'rows' if m.bias == 'row' else 'digital sum'}"]
    parts.append(
        "analog weights" if m.cell_bits is None else f"weights over {m.slices} x {m.cell_bits} bits"
    )
    if m.input_bits is None:
        parts.append("analog inputs")
    else:
        parts.append(f"inputs of {m.input_bits} bits, {m.dac_bits or 'all'} in a pulse")
    parts.append("exact conversion" if m.adc_bits is None else f"ADC of {m.adc_bits} bits")
    return ", ".join(parts)


def _digital(design: Design) -> list[str]:
    from spicenn.compiler.operators import DYNAMIC_PRODUCTS

    ops = Counter(n.op for n in design.program.nodes if n.op.startswith("aten."))
    if not ops:
        return ["digital: nothing"]
    names = [f"{op.removeprefix('aten.').rsplit('.', 1)[0]} x{n}" for op, n in sorted(ops.items())]
    lines = ["digital, in torch: " + ", ".join(names)]
    products = [n for n in design.program.nodes if n.op in DYNAMIC_PRODUCTS]
    if products:
        lines.append(
            "dynamic products (attention: both factors are computed, no tile holds either) "
            "stay digital: " + ", ".join(node.name for node in products)
        )
    return lines


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]


def _text(text: str) -> str:
    """Names come from elsewhere: no line breaks, no control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
