"""Programming memristors from outside: pulse, read, decide; and one pulse without a look.

The processes write any cells of an array (see ``cosim.memristors``), be it a cell, a
column or more, in ngspice or by its law.

Source: incremental step pulse programming is Suh et al., IEEE J. Solid-State Circuits 30,
1149 (1995); write and verify of resistive cells by it, in both directions: Alibart, Gao,
Hoskins, Strukov, Nanotechnology 23, 075201 (2012).
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy.events import Event

from spicenn.circuit.write import Pulse, Scheme, scheme_of
from spicenn.cosim.arguments import (
    check_count,
    check_finite,
    check_nodes,
    check_not_negative,
    check_positive,
    check_sources,
    process,
)
from spicenn.cosim.kernel import Cosimulation
from spicenn.cosim.memristors import ArrayPins, Cell
from spicenn.errors import InputError
from spicenn.kirchhoff.memristor import Memristor, respond
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]

# Amplitudes between which the pulse of a nominal cell is looked for [V].
_LEAST, _MOST = 0.05, 5.0
_RTOL = 1e-9


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """Pulses of one direction: the first, and every next one higher by a step.

    Parameters
    ----------
    first : its amplitude's sign is the direction: above 0 more conductance, below 0 less.
    step : by which the amplitude's size grows [V].
    limit : of the amplitude's size [V].

    Raises InputError for a first pulse of no amplitude, or beyond the limit, or a step
    below 0.
    """

    first: Pulse
    step: float
    limit: float

    def __post_init__(self) -> None:
        where = "staircase"
        if not isinstance(self.first, Pulse) or self.first.amplitude == 0:
            raise InputError(f"the first pulse is {self.first!r}", where=where)
        check_not_negative("step", self.step, where)
        check_positive("limit", self.limit, where)
        if abs(self.first.amplitude) > self.limit:
            raise InputError(
                f"the first amplitude, {self.first.amplitude:g} V, is beyond the limit of "
                f"{self.limit:g} V",
                where=where,
            )

    def pulse(self, k: int) -> Pulse:
        """The k-th pulse from 0."""
        first = self.first
        size = min(abs(first.amplitude) + k * self.step, self.limit)
        return Pulse(
            amplitude=math.copysign(size, first.amplitude),
            width=first.width,
            rise=first.rise,
            fall=first.fall,
        )


@dataclass(frozen=True, kw_only=True)
class Read:
    """How a cell is read: its wordline alone at a voltage, the current out of its bitline.

    The conductance is that at 0 V as far as the reader knows the cell: current over ratio
    times the voltage left by the series resistance.

    Parameters
    ----------
    voltage : [V]; so small that it does not write.
    time : from the end of the edge to the sample [s].
    edge : rise and fall of the wordline [s].
    ratio : of a cell's current to that of its conductance at 0 V, at the read voltage; see
        ``of``.
    series : resistance of the path [Ω].
    noise : standard deviation of a read current [A], normal.

    Raises InputError for numbers out of range.
    """

    voltage: float = 0.1
    time: float = 5e-9
    edge: float = 1e-9
    ratio: float = 1.0
    series: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        where = "read"
        if check_finite("voltage", self.voltage, where) == 0:
            raise InputError("a read at 0 V tells nothing", where=where)
        for key in ("time", "edge", "ratio"):
            check_positive(key, getattr(self, key), where)
        check_not_negative("series", self.series, where)
        check_not_negative("noise", self.noise, where)

    @classmethod
    def of(cls, law: Memristor, voltage: float = 0.1, **others: float) -> Read:
        """A read that knows how far a law's current at its voltage is from ohmic."""
        ratio = float(law.static.current(voltage, 1.0)) / voltage if voltage else 1.0
        return cls(voltage=voltage, ratio=ratio, **others)

    def conductance(self, current: float) -> float:
        """Conductance [S] that a current [A] stands for."""
        left = self.voltage - current * self.series
        return current / (self.ratio * left) if left else math.inf


@dataclass(frozen=True, eq=False)
class Programmed:
    """What a process did to cells, in the order in which it was given them.

    cells : (wordline, bitline) each.
    target : (cell,) [S]; NaN where there was none.
    conductance : (cell,) as read last, after the last pulse on any of them [S].
    pulses, reads : (cell,) how many.
    success : (cell,) whether the last read was within the tolerance of the target.
    """

    cells: tuple[Cell, ...]
    target: Array
    conductance: Array
    pulses: NDArray[np.int64]
    reads: NDArray[np.int64]
    success: NDArray[np.bool_]


@process
def write_verify(
    env: Cosimulation,
    pins: ArrayPins,
    targets: Mapping[Cell, float],
    *,
    increase: Staircase,
    decrease: Staircase,
    read: Read,
    tolerance: float = 0.05,
    most: int = 100,
    passes: int = 3,
    scheme: str | Scheme = "v/2",
    rest: float = 1e-9,
    seed: int | None = None,
    trial: int = 0,
) -> Generator[Event, Any, Programmed]:
    """Write cells one after the other, each by pulses and reads until a read is good.

    A cell below its target gets pulses that increase it, one above it pulses that decrease
    it. The amplitude grows by a step from pulse to pulse, and begins anew where the target
    has been passed. After a pass all cells that another's pulses may have disturbed are
    read again, and those no longer within the tolerance written again. A cell that has had
    its most pulses is left as it is: its result says so.

    Records ``pulse`` (value: amplitude [V]), ``read`` (value: conductance [S]) and at the
    end ``programmed`` (value: conductance; ``success``, ``pulses``, ``reads``), each with
    ``wordline``, ``bitline`` and ``target``.

    Parameters
    ----------
    targets : conductance at 0 V [S] by (wordline, bitline), in the order of writing.
    increase, decrease : pulses of either direction.
    tolerance : of a read, over the target.
    most : pulses on one cell.
    passes : over the cells; the last ends with the reading.
    scheme : bias of the lines that are not selected, of ``circuit.write.SCHEMES``.
    rest : time at 0 V after a pulse or a read [s].
    seed, trial : of the read noise; needed where there is some.

    Raises InputError for unknown cells or arguments out of range.
    """
    where = "write_verify"
    writer = _Writer(env, pins, list(targets), read, scheme, rest, seed, trial, where)
    wanted = {cell: check_positive(f"target of {cell}", g, where) for cell, g in targets.items()}
    tolerance = check_positive("tolerance", tolerance, where)
    most, passes = check_count("most", most, where), check_count("passes", passes, where)
    for key, staircase, sign in (("increase", increase, 1), ("decrease", decrease, -1)):
        if not isinstance(staircase, Staircase) or sign * staircase.first.amplitude <= 0:
            raise InputError(
                f"{key} = {staircase!r} goes the wrong way",
                where=where,
                remedy="an amplitude above 0 increases a conductance, one below 0 decreases it",
            )
    writer.targets = wanted

    def good(cell: Cell) -> bool:
        return abs(writer.found[cell] / wanted[cell] - 1) <= tolerance

    def write(cell: Cell) -> Generator[Event, Any, None]:
        way, k = None, 0
        while not good(cell) and writer.pulses[cell] < most:
            staircase = increase if writer.found[cell] < wanted[cell] else decrease
            way, k = (way, k + 1) if way is staircase else (staircase, 0)
            yield from writer.pulse(cell, staircase.pulse(k))
            yield from writer.read(cell)

    def run() -> Generator[Event, Any, Programmed]:
        for _ in range(passes):
            for cell in wanted:
                if cell in writer.unread:
                    yield from writer.read(cell)
                yield from write(cell)
            # What later pulses did to cells that were written before shows only now.
            for cell in wanted:
                if cell in writer.unread:
                    yield from writer.read(cell)
            if all(good(cell) or writer.pulses[cell] >= most for cell in wanted):
                break
        return writer.result({cell: good(cell) for cell in wanted})

    return run()


@process
def write_blind(
    env: Cosimulation,
    pins: ArrayPins,
    pulses: Mapping[Cell, Sequence[Pulse]],
    *,
    read: Read,
    scheme: str | Scheme = "v/2",
    rest: float = 1e-9,
    seed: int | None = None,
    trial: int = 0,
) -> Generator[Event, Any, Programmed]:
    """Write cells by pulses that were chosen before, then read every cell once.

    With one pulse each, of ``nominal_pulse``, this is one-shot programming. Records and
    value are those of ``write_verify``, without targets: nothing is a success.

    Parameters
    ----------
    pulses : by (wordline, bitline), in the order of writing.
    read, scheme, rest, seed, trial : see ``write_verify``.

    Raises InputError for unknown cells or arguments out of range.
    """
    where = "write_blind"
    writer = _Writer(env, pins, list(pulses), read, scheme, rest, seed, trial, where)
    listed = {cell: tuple(each) for cell, each in pulses.items()}
    for cell, each in listed.items():
        if wrong := [pulse for pulse in each if not isinstance(pulse, Pulse)]:
            raise InputError(f"{wrong[0]!r} is not a Pulse", where=f"{where}, cell {cell}")

    def run() -> Generator[Event, Any, Programmed]:
        for cell, each in listed.items():
            for pulse in each:
                yield from writer.pulse(cell, pulse)
        for cell in listed:
            yield from writer.read(cell)
        return writer.result(dict.fromkeys(listed, False))

    return run()


def nominal_pulse(
    law: Memristor, start: float, target: float, *, width: float, edge: float = 1e-9
) -> Pulse:
    """Return the one pulse that takes a cell of this very law to its target.

    Parameters
    ----------
    start, target : conductance at 0 V [S].
    width, edge : of the pulse [s].

    Raises InputError where no amplitude up to 5 V does it.
    """
    from scipy.optimize import brentq

    where = "nominal_pulse"
    start, target = check_positive("start", start, where), check_positive("target", target, where)
    sign = 1.0 if target > start else -1.0
    begin = float(law.state_of_conductance(start))
    wanted = float(law.state_of_conductance(target))

    def pulse(size: float) -> Pulse:
        return Pulse(amplitude=sign * size, width=width, rise=edge, fall=edge)

    def missed(size: float) -> float:
        one = pulse(size)
        time = np.cumsum([0.0, one.rise, one.width, one.fall])
        volts = one.amplitude * np.array([0.0, 1.0, 1.0, 0.0])
        return sign * (wanted - float(respond(law, time, volts, begin, rtol=_RTOL)[-1]))

    if start == target or missed(_LEAST) * missed(_MOST) > 0:
        raise InputError(
            f"no pulse of {width:g} s takes {start:g} S to {target:g} S",
            where=where,
            remedy=f"a cell of this law has {law.g_min:.3g} to {law.g_max:.3g} S",
        )
    return pulse(float(brentq(missed, _LEAST, _MOST, xtol=1e-12, rtol=1e-14)))


class _Writer:
    """Pulses and reads on an array, and the account of them."""

    def __init__(
        self,
        env: Cosimulation,
        pins: ArrayPins,
        cells: Sequence[Cell],
        read: Read,
        scheme: str | Scheme,
        rest: float,
        seed: int | None,
        trial: int,
        where: str,
    ) -> None:
        if not isinstance(pins, ArrayPins):
            raise InputError(f"{pins!r} is not an ArrayPins", where=where)
        if not isinstance(read, Read):
            raise InputError(f"{read!r} is not a Read", where=where)
        if not cells:
            raise InputError("no cell is given", where=where)
        for cell in cells:
            if cell not in pins.cells:
                raise InputError(
                    f"there is no cell {cell!r} in {pins.wordlines} x {pins.bitlines}",
                    where=where,
                    remedy="a cell is (wordline, bitline), from (0, 0) on",
                )
        self._env, self._pins, self._read = env, pins, read
        self._wordlines = [pins.wordline(i) for i in range(pins.wordlines)]
        self._bitlines = [pins.bitline(j) for j in range(pins.bitlines)]
        check_sources(env, [*self._wordlines, *self._bitlines], where)
        check_nodes(env, [pins.current(j) for j in range(pins.bitlines)], where)
        self._scheme = scheme_of(scheme)
        self._rest = check_positive("rest", rest, where)
        if read.noise and seed is None:
            raise InputError(
                "read noise needs a seed", where=where, remedy="give seed=…, a whole number"
            )
        self._noise = {
            (i, j): generator(seed or 0, Purpose.READ_NOISE, trial=trial, row=i, column=j)
            for i, j in (cells if read.noise else ())
        }
        self.targets: dict[Cell, float] = {}
        self.found = dict.fromkeys(cells, math.nan)
        self.pulses = dict.fromkeys(cells, 0)
        self.reads = dict.fromkeys(cells, 0)
        # Not read since the last pulse on any cell.
        self.unread = set(cells)

    def pulse(self, cell: Cell, pulse: Pulse) -> Generator[Event, Any, None]:
        """One pulse on a cell, all other lines as the scheme says."""
        env = self._env
        self._emit("pulse", cell, pulse.amplitude)
        biased = self._biased(cell, pulse.amplitude)
        for source, level in biased.items():
            env.drive(source, level, rise=pulse.rise)
        yield env.timeout(pulse.rise + pulse.width)
        for source in biased:
            env.drive(source, 0.0, rise=pulse.fall)
        yield env.timeout(pulse.fall + self._rest)
        self.pulses[cell] += 1
        self.unread.update(self.found)

    def read(self, cell: Cell) -> Generator[Event, Any, None]:
        """Read a cell into ``found``."""
        env, read = self._env, self._read
        wordline = self._wordlines[cell[0]]
        env.drive(wordline, read.voltage, rise=read.edge)
        # What is driven arrives later by the delay, what is sampled does not.
        yield env.timeout(env.delay + read.edge + read.time)
        current = env.sample(self._pins.current(cell[1]))
        if read.noise:
            current += read.noise * float(self._noise[cell].standard_normal())
        env.drive(wordline, 0.0, rise=read.edge)
        yield env.timeout(read.edge + self._rest)
        self.found[cell] = read.conductance(current)
        self.reads[cell] += 1
        self.unread.discard(cell)
        self._emit("read", cell, self.found[cell])

    def result(self, success: Mapping[Cell, bool]) -> Programmed:
        """The account, also as an event for every cell."""
        cells = tuple(self.found)
        for cell in cells:
            self._emit(
                "programmed", cell, self.found[cell], success=success[cell],
                pulses=self.pulses[cell], reads=self.reads[cell],
            )  # fmt: skip
        return Programmed(
            cells=cells,
            target=np.array([self.targets.get(cell, math.nan) for cell in cells]),
            conductance=np.array([self.found[cell] for cell in cells]),
            pulses=np.array([self.pulses[cell] for cell in cells]),
            reads=np.array([self.reads[cell] for cell in cells]),
            success=np.array([success[cell] for cell in cells]),
        )

    def _biased(self, cell: Cell, amplitude: float) -> dict[str, float]:
        """Level [V] of every source that is not at 0 V while a cell gets a pulse."""
        i, j = cell
        levels = dict.fromkeys(self._wordlines, amplitude * self._scheme.wordline)
        levels |= dict.fromkeys(self._bitlines, amplitude * self._scheme.bitline)
        levels |= {self._wordlines[i]: amplitude, self._bitlines[j]: 0.0}
        return {source: level for source, level in levels.items() if level}

    def _emit(self, name: str, cell: Cell, value: float, **fields: float) -> None:
        target = self.targets.get(cell, math.nan)
        self._env.emit(name, value, wordline=cell[0], bitline=cell[1], target=target, **fields)
