"""A crossbar as a netlist, written in bulk: an object per resistor costs more than the solve.

Names: input nodes ``in_i``, wordline nodes ``w_i_j``, bitline nodes ``b_i_j``; cells
``rc_i_j`` (``xc_i_j`` where the cell is a subcircuit), wire segments ``rw_i_j`` and
``rb_i_j``; the virtual ground of bitline j is the source ``vs_j``, and ``i(vs_j)``, the
current out of the bitline into it, is positive. An ideal wire merges its nodes. A driver
of some resistance is ``rd_i`` behind ``in_i``, an amplifier's ``re_j`` before ``vs_j``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit.check import check_netlist
from spicenn.circuit.crossbar import Crossbar
from spicenn.circuit.tolerances import Tolerances
from spicenn.errors import InputError

Array = NDArray[np.float64]

_PAIRS_PER_LINE = 4
_ZERO_CELSIUS = 273.15


def render_crossbar(
    crossbar: Crossbar,
    g: Array,
    v: Array,
    parameters: Mapping[str, Array] | None = None,
    *,
    tolerances: Tolerances | None = None,
    header: Sequence[str] = (),
    comments: Sequence[Sequence[str]] | None = None,
) -> str:
    """Return a netlist that plain ``ngspice -b`` runs.

    One sample is an operating point; several are one sweep of the index source
    ``vidx`` over 0, 1, … that looks each input up in a table.

    Parameters
    ----------
    g : (wordline, bitline) [S]. A resistor carries ``repr(1 / g)``: the text is exact,
        ngspice's own reading of it differs by up to 3 units in the last place.
    v : (sample, wordline) or (wordline,) [V].
    parameters : further parameters of every cell by name, each (wordline, bitline).
    tolerances : of the solver; the defaults of ``Tolerances``.
    header : comment lines, any text.
    comments : [wordline][bitline], a comment per cell, any text; empty for none.

    Raises InputError for shapes that do not fit, NetlistError for a cell with text
    that must not reach ngspice.
    """
    g, v = np.asarray(g, dtype=np.float64), np.atleast_2d(np.asarray(v, dtype=np.float64))
    shape = (crossbar.wordlines, crossbar.bitlines)
    if g.shape != shape:
        raise InputError(f"g has shape {g.shape}, expected {shape}", where=crossbar.name)
    if v.ndim != 2 or v.shape[1] != shape[0] or not len(v):
        raise InputError(
            f"v has shape {v.shape}, expected (sample, {shape[0]})", where=crossbar.name
        )
    if not (np.all(np.isfinite(g)) and np.all(g > 0) and np.all(np.isfinite(v))):
        raise InputError("g must be finite and positive, v finite", where=crossbar.name)
    samples = len(v)
    analysis = "op" if samples == 1 else "dc"
    body = [
        f"* spicenn crossbar {crossbar.name}: {shape[0]} wordlines x {shape[1]} bitlines",
        *(f"* {comment_text(line)}" for line in header),
        *_settings(crossbar, tolerances or Tolerances()),
        *(_levels(v[0]) if samples == 1 else input_tables(v)),
        *_array(crossbar, _values(crossbar, g, parameters or {}), comments),
        *_sense(crossbar),
        "* analysis",
        ".op" if samples == 1 else f".dc vidx 0 {samples - 1} 1",
        *words(f".print {analysis}", [f"i(vs_{j})" for j in range(shape[1])]),
        ".end",
    ]
    return "\n".join(body) + "\n"


def render_live(crossbar: Crossbar, tolerances: Tolerances) -> str:
    """Return the netlist of an ohmic crossbar whose cells and inputs are set from outside.

    Every cell is a resistor to be altered, every input an ``external`` source, and
    ``vidx`` an index source to be swept; it says no more than the circuit's shape,
    so that equal tiles share one loaded circuit.
    """
    cells = ["1k"] * (crossbar.wordlines * crossbar.bitlines)
    body = [
        "* spicenn crossbar",
        *_settings(crossbar, tolerances),
        "vidx idx 0 0",
        *(f"vi_{i} in_{i} 0 external" for i in range(crossbar.wordlines)),
        *_array(crossbar, cells, None),
        *_sense(crossbar),
        ".end",
    ]
    return "\n".join(body) + "\n"


def render_subcircuit(
    crossbar: Crossbar, g: Array, parameters: Mapping[str, Array] | None = None
) -> str:
    """Return the array alone as ``.subckt NAME in_0 … s_0 …``, for a circuit around it.

    Parameters
    ----------
    g : (wordline, bitline) [S].
    parameters : further parameters of every cell by name, each (wordline, bitline).

    The ports are the wordlines' inputs, then the bitlines' ends; a cell's own
    subcircuit is not repeated here. Capacitances are part of it: ``cw_i_j`` and ``cb_i_j``
    at the nodes of every cell, ``cc_i_j`` between them.
    """
    ports = [f"in_{i}" for i in range(crossbar.wordlines)]
    ports += [f"s_{j}" for j in range(crossbar.bitlines)]
    body = [
        *words(f".subckt {crossbar.name}", ports),
        *_array(
            crossbar, _values(crossbar, np.asarray(g, dtype=np.float64), parameters or {}), None
        ),
        *_capacitors(crossbar),
        f".ends {crossbar.name}",
    ]
    return "\n".join(body) + "\n"


def cell_nodes(crossbar: Crossbar) -> list[tuple[str, str]]:
    """Wordline and bitline node of every cell of a rendered crossbar, row by row.

    An ideal wire's nodes are its line's end.
    """
    first, last = _ends(crossbar)
    return [
        (
            f"w_{i}_{j}" if crossbar.r_wordline > 0 else f"{first}_{i}",
            f"b_{i}_{j}" if crossbar.r_bitline > 0 else f"{last}_{j}",
        )
        for i in range(crossbar.wordlines)
        for j in range(crossbar.bitlines)
    ]


def comment_text(text: str) -> str:
    """Return any text as printable ASCII on one line that ngspice reads as a comment."""
    clean = "".join(c if " " <= c <= "~" else "_" for c in text[:400])
    return clean.strip()


def _settings(crossbar: Crossbar, tolerances: Tolerances) -> list[str]:
    lines = [
        f".options klu {tolerances.options()}",
        f".temp {crossbar.temperature - _ZERO_CELSIUS!r}",
    ]
    if not crossbar.cell.is_ohmic:
        check_netlist(crossbar.cell.netlist, where=f"cell {crossbar.cell.name}")
        text = crossbar.cell.netlist.splitlines()
        names = " ".join(key for key, _ in crossbar.cell.parameters)
        common = f", in common: {names}" if names else ""
        lines += [f"* cell {crossbar.cell.name}, {len(text)} lines{common}", *text]
    return lines


def _levels(v: Array) -> list[str]:
    return [
        "* inputs [V]",
        *(f"vi_{i} in_{i} 0 {value!r}" for i, value in enumerate(v.tolist())),
    ]


def input_tables(v: Array, prefix: str = "in") -> list[str]:
    """Inputs (sample, line) [V] at nodes ``PREFIX_i`` as functions of the index source ``vidx``.

    A table has two points at least: two samples.
    """
    lines = ["* inputs [V], one per value of the index", "vidx idx 0 0"]
    for i, column in enumerate(v.T.tolist()):
        pairs = [f"{k},{value!r}" for k, value in enumerate(column)]
        lines += table(f"bi_{i} {prefix}_{i} 0 v=pwl(v(idx),", pairs)
    return lines


def table(head: str, pairs: Sequence[str]) -> list[str]:
    """A ``pwl(`` with its points "x,y", on lines that a reader can follow."""
    lines = [
        "+ " + ",".join(pairs[k : k + _PAIRS_PER_LINE]) + ","
        for k in range(0, len(pairs), _PAIRS_PER_LINE)
    ]
    return [head, *lines[:-1], lines[-1][:-1] + ")"]


def _values(crossbar: Crossbar, g: Array, parameters: Mapping[str, Array]) -> list[str]:
    cell = crossbar.cell
    if cell.is_ohmic:
        return list(map(repr, (1.0 / g).ravel().tolist()))
    common = "".join(f" {key}={float(value)!r}" for key, value in cell.parameters)
    values = [f"{cell.name} g={value!r}{common}" for value in g.ravel().tolist()]
    for key, each in parameters.items():
        column = each.ravel().tolist()
        values = [f"{value} {key}={x!r}" for value, x in zip(values, column, strict=True)]
    return values


def _ends(crossbar: Crossbar) -> tuple[str, str]:
    """Names of the array's own ends: what drives and what senses comes before the ports."""
    return "d" if crossbar.r_driver > 0 else "in", "e" if crossbar.r_sense > 0 else "s"


def _array(
    crossbar: Crossbar, values: Sequence[str], comments: Sequence[Sequence[str]] | None
) -> list[str]:
    rows, columns = crossbar.wordlines, crossbar.bitlines
    wired_word, wired_bit = crossbar.r_wordline > 0, crossbar.r_bitline > 0
    r_word, r_bit = repr(float(crossbar.r_wordline)), repr(float(crossbar.r_bitline))
    letter = "r" if crossbar.cell.is_ohmic else "x"
    every_column = range(columns)
    first, last = _ends(crossbar)
    nodes = cell_nodes(crossbar)
    lines = [f"* cells, {'ohm' if crossbar.cell.is_ohmic else 'siemens'}"]
    for i in range(rows):
        row = slice(i * columns, (i + 1) * columns)
        cells = [
            f"{letter}c_{i}_{j} {word} {bit} {value}"
            for j, ((word, bit), value) in enumerate(zip(nodes[row], values[row], strict=True))
        ]
        if comments is not None:
            cells = [
                f"{cell} ; {comment_text(text)}" if text else cell
                for cell, text in zip(cells, comments[i], strict=True)
            ]
        lines += cells
    if wired_word:
        lines.append("* wordline segments, ohm")
        for i in range(rows):
            lines.append(f"rw_{i}_0 {first}_{i} w_{i}_0 {r_word}")
            lines += [f"rw_{i}_{j} w_{i}_{j - 1} w_{i}_{j} {r_word}" for j in range(1, columns)]
    if wired_bit:
        lines.append("* bitline segments, ohm")
        for i in range(rows - 1):
            lines += [f"rb_{i}_{j} b_{i}_{j} b_{i + 1}_{j} {r_bit}" for j in every_column]
        lines += [f"rb_{rows - 1}_{j} b_{rows - 1}_{j} {last}_{j} {r_bit}" for j in every_column]
    if crossbar.r_driver > 0:
        lines.append("* drivers, ohm")
        lines += [f"rd_{i} in_{i} d_{i} {float(crossbar.r_driver)!r}" for i in range(rows)]
    if crossbar.r_sense > 0:
        lines.append("* inputs of the amplifiers, ohm")
        lines += [f"re_{j} e_{j} s_{j} {float(crossbar.r_sense)!r}" for j in every_column]
    return lines


def _capacitors(crossbar: Crossbar) -> list[str]:
    """Every segment's capacitance at the node of its cell; those of an ideal wire in parallel."""
    lines = []
    at = [f"{i}_{j}" for i in range(crossbar.wordlines) for j in range(crossbar.bitlines)]
    for index, (word, bit) in zip(at, cell_nodes(crossbar), strict=True):
        for name, nodes, value in (
            ("cw", f"{word} 0", crossbar.c_wordline),
            ("cb", f"{bit} 0", crossbar.c_bitline),
            ("cc", f"{word} {bit}", crossbar.c_cell),
        ):
            if value > 0:
                lines.append(f"{name}_{index} {nodes} {float(value)!r}")
    return ["* capacitances, farad", *lines] if lines else []


def _sense(crossbar: Crossbar) -> list[str]:
    return [
        "* virtual grounds",
        *(f"vs_{j} s_{j} 0 0" for j in range(crossbar.bitlines)),
        *words(".save", [f"i(vs_{j})" for j in range(crossbar.bitlines)]),
    ]


def words(head: str, words: list[str]) -> list[str]:
    """A directive with many words, on lines that a reader can follow."""
    lines = [f"+ {' '.join(words[k : k + 8])}" for k in range(0, len(words), 8)]
    return [f"{head} {lines[0][2:]}", *lines[1:]]
