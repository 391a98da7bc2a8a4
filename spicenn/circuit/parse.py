"""Reads back what ``render_crossbar`` wrote: the circuit is the text, not a promise."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit.crossbar import Crossbar
from spicenn.errors import NetlistError
from spicenn.technology import OHMIC, Cell

Array = NDArray[np.float64]

_TITLE = re.compile(r"\* spicenn crossbar (\S+): (\d+) wordlines x (\d+) bitlines")
_CELL = re.compile(r"\* cell (\S+), (\d+) lines(?:, in common: ([\w ]+))?")


def parse_crossbar(text: str) -> tuple[Crossbar, Array, Array, dict[str, Array]]:
    """Return the crossbar, its conductances, its inputs and its cells' own parameters.

    Returns
    -------
    crossbar, g (wordline, bitline) [S], v (sample, wordline) [V], parameters by name, each
    shaped as g. Values are those of the elements, not of comments; a comment only says
    which parameters all cells have in common. A resistor holds 1 / g, whose inverse may
    differ from g in its last bit; the resistance is exact.

    Raises NetlistError where the text is not a rendered crossbar.
    """
    lines = text.splitlines()
    title = _TITLE.fullmatch(lines[0]) if lines else None
    if title is None:
        raise NetlistError("not the netlist of a crossbar", where="line 1")
    name, rows, columns = title[1], int(title[2]), int(title[3])
    if rows * columns > len(lines):
        raise NetlistError(f"{rows} x {columns} cells in {len(lines)} lines", where="line 1")
    cell, common, lines = _take_cell(lines)
    g = np.full((rows, columns), np.nan)
    own: dict[str, Array] = {}
    inputs: dict[int, list[float]] = {}
    segment = {"rw": 0.0, "rb": 0.0, "rd": 0.0, "re": 0.0}
    celsius = 26.85
    for number, line in _logical(lines):
        words = line.split(";")[0].split()
        kind, _, index = words[0].partition("_")
        try:
            if kind in ("rc", "xc"):
                i, j = map(int, index.split("_"))
                if kind == "rc":
                    g[i, j] = 1.0 / float(words[3])
                    continue
                for key, _, value in (word.partition("=") for word in words[4:]):
                    into = g if key == "g" else own.setdefault(key, np.full_like(g, np.nan))
                    into[i, j] = float(value)
            elif kind in segment:
                segment[kind] = float(words[3])
            elif kind == "vi":
                inputs[int(index)] = [float(words[3])]
            elif kind == "bi":
                table = line[line.index("pwl(v(idx),") + 11 : line.rindex(")")]
                inputs[int(index)] = [float(x) for x in table.split(",")[1::2]]
            elif kind == ".temp":
                celsius = float(words[1])
        except (ValueError, IndexError, ZeroDivisionError) as error:
            raise NetlistError(f"cannot read {line[:60]!r}", where=f"line {number}") from error
    v = np.array([inputs.get(i, []) for i in range(rows)]).T if _equal(inputs, rows) else None
    if v is None or any(np.isnan(x).any() for x in (g, *own.values())):
        raise NetlistError("cells or inputs are missing", where=name)
    # One that is set for each cell after all stays one of the cells' own.
    alike = [key for key in common if key in own and (own[key] == own[key].flat[0]).all()]
    shared = tuple((key, float(own.pop(key).flat[0])) for key in alike)
    crossbar = Crossbar(
        name=name,
        wordlines=rows,
        bitlines=columns,
        r_wordline=segment["rw"],
        r_bitline=segment["rb"],
        r_driver=segment["rd"],
        r_sense=segment["re"],
        cell=replace(cell, parameters=shared),
        temperature=celsius + 273.15,
    )
    return crossbar, g, v, own


def _take_cell(lines: list[str]) -> tuple[Cell, list[str], list[str]]:
    """The cell without its parameters, the names of those in common, and the other lines."""
    for k, line in enumerate(lines):
        if match := _CELL.fullmatch(line):
            end = k + 1 + int(match[2])
            cell = Cell(match[1], "\n".join(lines[k + 1 : end]) + "\n")
            return cell, (match[3] or "").split(), lines[:k] + lines[end:]
    return OHMIC, [], lines


def _logical(lines: list[str]) -> list[tuple[int, str]]:
    """Lines without comments, continuations joined."""
    joined: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("+") and joined:
            joined[-1][1].append(line[2:])
        elif line and not line.startswith("*"):
            joined.append((number, [line]))
    return [(number, "".join(parts)) for number, parts in joined]


def _equal(inputs: dict[int, list[float]], rows: int) -> bool:
    return len(inputs) == rows and len({len(column) for column in inputs.values()}) == 1
