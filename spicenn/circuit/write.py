"""Writing an array: pulses, how the lines are biased, and the whole as a netlist; pure.

A pulse of amplitude A selects one cell: its wordline is driven to A and its bitline to
0, all others as the scheme says. Between pulses every line is at 0 V. A positive
amplitude sets a memristor (more conductance), a negative one resets it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from spicenn.circuit.check import check_netlist
from spicenn.circuit.crossbar import Crossbar
from spicenn.circuit.render import render_subcircuit
from spicenn.circuit.tolerances import Tolerances
from spicenn.errors import InputError

Array = NDArray[np.float64]

# What a cell is during a pulse, in the order of ``cell_classes``' numbers.
CELL_CLASSES = (
    "selected",
    "half-selected on the wordline",
    "half-selected on the bitline",
    "unselected",
)

# A SET runs away, the faster the narrower its gap is, and with it an early error: by one
# decade where a cell of 10 uS ends at 250 uS. Its state is still right to 2e-4 at 1e-8.
WRITE_TOLERANCES = Tolerances(reltol=1e-8, vntol=1e-9, abstol=1e-15)
# A transient's steps are at most the longest plateau over this, and stop so often on an
# edge: a disturbed state moves too little for the simulator's own control to see, but
# its velocity runs up an exponential there. Changes are then right to 1e-4.
_STEPS_PER_PLATEAU = 100
_STOPS_PER_EDGE = 8
_WORDS_PER_LINE = 8
_ZERO_CELSIUS = 273.15


@dataclass(frozen=True, kw_only=True)
class Pulse:
    """One trapezoidal pulse.

    Parameters
    ----------
    amplitude : of the selected wordline over the selected bitline, signed [V].
    width : of the plateau [s].
    rise, fall : of the edges [s].

    Raises InputError for a value that is not finite, or a time that is not positive.
    """

    amplitude: float
    width: float
    rise: float = 1e-9
    fall: float = 1e-9

    def __post_init__(self) -> None:
        _check("amplitude", self.amplitude, -math.inf)
        for key in ("width", "rise", "fall"):
            _check(key, getattr(self, key), 0.0)


@dataclass(frozen=True)
class Scheme:
    """Voltages of the lines that are not selected, over the pulse's amplitude.

    Source of V/2 and V/3: Chen, IEEE Trans. Electron Devices 60, 1318 (2013).

    Parameters
    ----------
    wordline, bitline : of the other wordlines and of the other bitlines.
    """

    name: str
    wordline: float
    bitline: float


# "grounded" leaves the whole amplitude on the other cells of the selected wordline.
SCHEMES: Mapping[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("v/2", 1 / 2, 1 / 2),
        Scheme("v/3", 1 / 3, 2 / 3),
        Scheme("grounded", 0.0, 0.0),
    )
}

# (wordline, bitline, pulse)
Target = tuple[int, int, Pulse]


@dataclass(frozen=True, eq=False)
class Drive:
    """Voltages of all lines' drivers, linear between the points.

    time : (point,) [s], rising from 0.
    wordline : (point, wordline) [V]. bitline : (point, bitline) [V].
    plateau, end : (pulse,) index of the points at which a plateau ends, and its pulse.
    """

    time: Array
    wordline: Array
    bitline: Array
    plateau: NDArray[np.int64]
    end: NDArray[np.int64]


def scheme_of(scheme: str | Scheme) -> Scheme:
    """Return a scheme by its name, or the one given. Raises InputError for an unknown one."""
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        raise InputError(
            f"no biasing scheme is called {scheme!r}", remedy="there are " + ", ".join(SCHEMES)
        )
    return SCHEMES[scheme]


def cell_classes(crossbar: Crossbar, wordline: int, bitline: int) -> NDArray[np.int64]:
    """What each cell is while one is selected: (wordline, bitline) indices of CELL_CLASSES."""
    on_wordline = np.arange(crossbar.wordlines)[:, None] == wordline
    on_bitline = np.arange(crossbar.bitlines) == bitline
    return np.asarray(np.where(on_wordline, 0, 2) + np.where(on_bitline, 0, 1))


def write_drive(
    crossbar: Crossbar,
    targets: Sequence[Target],
    scheme: str | Scheme = "v/2",
    *,
    rest: float = 1e-9,
) -> Drive:
    """Return what the drivers do while cells are written one after the other.

    Parameters
    ----------
    targets : (wordline, bitline, pulse) each.
    rest : time at 0 V before, between and after the pulses [s].

    Raises InputError for no target, a cell outside of the array, an unknown scheme.
    """
    bias = scheme_of(scheme)
    if not targets:
        raise InputError("no pulse is given", where=crossbar.name)
    levels = []
    for k, (i, j, pulse) in enumerate(targets):
        if not (0 <= i < crossbar.wordlines and 0 <= j < crossbar.bitlines):
            raise InputError(
                f"cell ({i}, {j}) is outside of {crossbar.wordlines} x {crossbar.bitlines}",
                where=f"{crossbar.name}, pulse {k}",
            )
        wordline = np.full(crossbar.wordlines, bias.wordline)
        bitline = np.full(crossbar.bitlines, bias.bitline)
        wordline[i], bitline[j] = 1.0, 0.0
        levels.append((wordline * pulse.amplitude, bitline * pulse.amplitude))
    return _drive([pulse for _, _, pulse in targets], levels, rest)


def read_drive(
    crossbar: Crossbar,
    pulse: Pulse,
    reads: int,
    *,
    inputs: Array | None = None,
    rest: float = 1e-9,
) -> Drive:
    """Return what the drivers do in a train of reads: bitlines at 0 V.

    Parameters
    ----------
    inputs : (wordline,) share of the amplitude on every wordline; all of it if None.

    Raises InputError for no read, or inputs that do not fit.
    """
    if not reads >= 1:
        raise InputError(f"reads = {reads!r} is not positive", where=crossbar.name)
    share = np.ones(crossbar.wordlines) if inputs is None else np.asarray(inputs, np.float64)
    if share.shape != (crossbar.wordlines,) or not np.all(np.isfinite(share)):
        raise InputError(
            f"inputs of shape {share.shape} must be finite, one of {crossbar.wordlines} wordlines",
            where=crossbar.name,
        )
    level = (share * pulse.amplitude, np.zeros(crossbar.bitlines))
    return _drive([pulse] * reads, [level] * reads, rest)


def render_write(
    crossbar: Crossbar,
    g: Array,
    drive: Drive,
    *,
    probes: Iterable[tuple[int, int]] = (),
    tolerances: Tolerances = WRITE_TOLERANCES,
) -> str:
    """Return a transient of the whole array that plain ``ngspice -b`` runs.

    Every line has its driver: ``Crossbar.r_driver`` before a wordline, ``r_sense`` after
    a bitline. The cells start at g.

    Parameters
    ----------
    g : (wordline, bitline) [S].
    probes : cells whose own voltage is saved beside all cells' states.

    Raises InputError for shapes that do not fit, NetlistError for a cell with text that
    must not reach ngspice.
    """
    g = np.asarray(g, dtype=np.float64)
    shape = (crossbar.wordlines, crossbar.bitlines)
    if g.shape != shape:
        raise InputError(f"g has shape {g.shape}, expected {shape}", where=crossbar.name)
    if not (np.all(np.isfinite(g)) and np.all(g > 0)):
        raise InputError("g must be finite and positive", where=crossbar.name)
    check_netlist(crossbar.cell.netlist, where=f"cell {crossbar.cell.name}")
    ports = [f"in_{i}" for i in range(shape[0])] + [f"s_{j}" for j in range(shape[1])]
    saved = [state_node(i, j) for i, j in np.ndindex(shape)]
    saved += [across_node(i, j) for i, j in dict.fromkeys(probes)]
    body = [
        f"* spicenn write of crossbar {crossbar.name}: {shape[0]} wordlines x {shape[1]} bitlines",
        # One error of the charge in trtol = 1 of the tolerance: a state is a charge.
        f".options klu {tolerances.options()} trtol=1 chgtol=1e-18",
        f".temp {crossbar.temperature - _ZERO_CELSIUS!r}",
        f"* cell {crossbar.cell.name}",
        *crossbar.cell.netlist.splitlines(),
        *render_subcircuit(replace(crossbar, name="array"), g).splitlines(),
        *_lines("xarray", [*ports, "array"]),
        "* drivers [V]",
        *_sources("vw", "in", drive.time, drive.wordline),
        *_sources("vb", "s", drive.time, drive.bitline),
        "* holds the steps on the edges",
        *_lines("vstop stop 0 pwl(", [*(f"{t!r} 0" for t in _stops(drive)), ")"]),
        *_lines(".save", saved),
        f".tran {_step(drive)!r} {float(drive.time[-1])!r}",
        ".end",
    ]
    return "\n".join(body) + "\n"


def state_node(wordline: int, bitline: int) -> str:
    """Vector of a cell's state: its gap, 1 V per nm."""
    return f"v(xarray.xc_{wordline}_{bitline}.gap)"


def across_node(wordline: int, bitline: int) -> str:
    """Vector of the voltage across a cell, wordline over bitline."""
    return f"v(xarray.xc_{wordline}_{bitline}.across)"


def _drive(pulses: Sequence[Pulse], levels: Sequence[tuple[Array, Array]], rest: float) -> Drive:
    _check("rest", rest, 0.0)
    steps, shape = [0.0], [0.0]
    for pulse in pulses:
        steps += [rest, pulse.rise, pulse.width, pulse.fall]
        shape += [0.0, 1.0, 1.0, 0.0]
    steps, shape = [*steps, rest], [*shape, 0.0]
    # The points of pulse k are 4 k + 1 … 4 k + 4; before the first and after the last is 0 V.
    of = np.clip((np.arange(len(steps)) - 1) // 4, 0, len(pulses) - 1)
    on = np.array(shape)[:, None]
    first = 4 * np.arange(len(pulses))
    return Drive(
        time=np.cumsum(steps),
        wordline=on * np.array([wordline for wordline, _ in levels])[of],
        bitline=on * np.array([bitline for _, bitline in levels])[of],
        plateau=first + 3,
        end=first + 4,
    )


def _step(drive: Drive) -> float:
    """Longest step of the transient [s]; its own error control takes shorter ones."""
    return float(np.diff(drive.time).max() / _STEPS_PER_PLATEAU)


def _stops(drive: Drive) -> list[float]:
    edges = np.concatenate([drive.plateau - 2, drive.plateau])
    share = np.arange(_STOPS_PER_EDGE) / _STOPS_PER_EDGE
    start, end = drive.time[edges, None], drive.time[edges + 1, None]
    stops: list[float] = np.sort((start + share * (end - start)).ravel()).tolist()
    return stops


def _sources(letter: str, node: str, time: Array, volts: Array) -> list[str]:
    lines = []
    for k, column in enumerate(volts.T):
        kept = np.ones(len(time), bool)
        # A point between two of its own value says nothing.
        kept[1:-1] = (column[1:-1] != column[:-2]) | (column[1:-1] != column[2:])
        points = zip(time[kept].tolist(), column[kept].tolist(), strict=True)
        words = [word for t, v in points for word in (repr(t), repr(v))]
        lines += _lines(f"{letter}_{k} {node}_{k} 0 pwl(", [*words, ")"])
    return lines


def _lines(head: str, words: Sequence[str]) -> list[str]:
    cuts = [*range(0, len(words), _WORDS_PER_LINE), len(words)]
    return [head, *(f"+ {' '.join(words[a:b])}" for a, b in pairwise(cuts))]


def _check(key: str, value: float, above: float) -> None:
    if not (isinstance(value, int | float) and above < value < math.inf):
        wanted = "finite" if above == -math.inf else "finite and positive"
        raise InputError(f"{key} = {value!r} is not {wanted}", where="pulse")
