"""A successive-approximation ADC: its circuit, and the process that is its controller.

The circuit is a sample and hold, a comparator and a resistive R-2R ladder; the controller
drives the sampling clock and the ladder's bits and reads the comparator. Source:
F. Maloberti, Data Converters, Springer, 2007, section 4.5.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from simpy.events import Event

from spicenn.circuit.names import safe_name
from spicenn.cosim.arguments import (
    check_count,
    check_finite,
    check_nodes,
    check_not_negative,
    check_positive,
    check_sources,
    process,
)
from spicenn.cosim.events import ProcessGenerator
from spicenn.cosim.kernel import Cosimulation
from spicenn.errors import InputError
from spicenn.periphery.comparator import comparator_instance
from spicenn.periphery.linearity import MOST_BITS
from spicenn.periphery.sample_hold import sample_hold_instance
from spicenn.technology import Comparator, SampleHold
from spicenn.technology.library import subcircuit_text


@dataclass(frozen=True, kw_only=True)
class SarAdc:
    """The digital pins of a successive-approximation ADC in a circuit.

    clock : external source of the sample and hold's switch, closed at 1 V, open at 0 V.
    bits : external sources of the DAC, the most significant first.
    low, high : levels of the bits [V].
    comparator : node; above ``threshold`` [V] the sample is above the DAC's output.
    """

    clock: str
    bits: tuple[str, ...]
    low: float
    high: float
    comparator: str
    threshold: float

    def within(self, block: str) -> SarAdc:
        """The same pins where the circuit is one of several blocks."""
        return SarAdc(
            clock=f"{block}:{self.clock}",
            bits=tuple(f"{block}:{bit}" for bit in self.bits),
            low=self.low,
            high=self.high,
            comparator=f"{block}:{self.comparator}",
            threshold=self.threshold,
        )


def sar_subcircuits() -> str:
    """The subcircuits that ``sar_circuit`` places: once in a netlist."""
    return subcircuit_text("comparator") + subcircuit_text("sample_hold")


def sar_circuit(
    name: str,
    node: str,
    bits: int,
    lsb: float,
    *,
    comparator: Comparator,
    sample_hold: SampleHold,
    offset: float = 0.0,
    resistance: float = 10e3,
    load: float = 10e-15,
) -> tuple[str, SarAdc]:
    """Return an ADC's lines for the top level of a netlist, and its digital pins.

    The codes are those of ``spicenn.periphery.adc``: signed, code k from (k - ½) lsb on. A
    ladder between ∓ 2^(bits-1) lsb gives (u - 2^(bits-1)) lsb for the DAC's code u; the half
    lsb comes from its last resistor, which ends at twice the lower level.

    Parameters
    ----------
    name : of the instance; its nodes and elements carry it.
    node : to convert.
    bits, lsb : resolution, and width of a code [V].
    offset : of the comparator [V]; every transition is later by it.
    resistance, load : the ladder's R [Ω], and the capacitance at its output [F]; it settles
        with the time constant R · load.

    Raises InputError for numbers out of range, NetlistError for names that cannot be one.
    """
    where = f"sar_circuit {name}"
    check_count("bits", bits, where)
    if bits > MOST_BITS:
        raise InputError(f"{bits} bits are more than {MOST_BITS}", where=where)
    span = 2 ** (bits - 1) * check_positive("lsb", lsb, where)
    r = check_positive("resistance", resistance, where)
    c = check_not_negative("load", load, where)
    check_finite("offset", offset, where)
    own = safe_name(name)
    held, dac, out, clock = (f"{own}_{part}" for part in ("held", "dac", "out", "clk"))
    # Least significant first: the ladder's end is at bit 0, its output at the last.
    rungs = [f"{own}_n{k}" for k in range(bits - 1)] + [dac]
    lines = [
        f"v{clock} {clock} 0 dc 0 external",
        sample_hold_instance(f"{own}_hold", (node, held, clock), sample_hold),
        f"vend_{own} {own}_end 0 {-2 * span!r}",
        f"rend_{own} {own}_end {rungs[0]} {2 * r!r}",
    ]
    for k, rung in enumerate(rungs):
        lines.append(f"v{own}_b{k} {own}_b{k} 0 dc {-span!r} external")
        lines.append(f"r{own}_b{k} {own}_b{k} {rung} {2 * r!r}")
        if k:
            lines.append(f"r{own}_s{k} {rungs[k - 1]} {rung} {r!r}")
    if c > 0:
        lines.append(f"c{own}_load {dac} 0 {c!r}")
    lines.append(f"v{own}_vdd {own}_vdd 0 {comparator.supply!r}")
    lines.append(
        comparator_instance(f"{own}_cmp", (held, dac, out, f"{own}_vdd"), comparator, offset)
    )
    pins = SarAdc(
        clock=f"v{clock}",
        bits=tuple(f"v{own}_b{k}" for k in reversed(range(bits))),
        low=-span,
        high=span,
        comparator=out,
        threshold=comparator.v_high / 2,
    )
    return "\n".join(lines) + "\n", pins


@process
def convert(
    env: Cosimulation, adc: SarAdc, *, acquire: float, bit_time: float
) -> Generator[Event, Any, int]:
    """Convert once; its value is the code: ``code = yield from convert(env, adc, …)``.

    The switch is closed for ``acquire``, held for one ``bit_time``, and every bit is tried
    for one: what the comparator says at its end decides the bit.

    Parameters
    ----------
    acquire : [s]. The sample is that of its end.
    bit_time : [s]; the ladder and the comparator have to settle within it.

    Returns
    -------
    A code in -2^(bits-1) … 2^(bits-1) - 1.

    Raises InputError for unknown pins or durations that are not above 0.
    """
    where = "convert"
    adc = _checked(env, adc, where)
    acquire = check_positive("acquire", acquire, where)
    bit_time = check_positive("bit_time", bit_time, where)
    return _convert(env, adc, acquire, bit_time)


@process
def digitize(
    env: Cosimulation,
    adc: SarAdc,
    *,
    period: float,
    acquire: float,
    bit_time: float,
    start: float = 0.0,
    number: int | None = None,
    name: str = "code",
) -> ProcessGenerator:
    """Convert every period, and record each code as an ``emit`` of ``name``.

    A record's value is the code, ``sampled`` the time of the sample [s]. The process's
    value is all codes (conversion,), where their number is given.

    Parameters
    ----------
    period : from one conversion's begin to the next [s].
    acquire, bit_time : of a conversion, see ``convert``.
    start : of the first one, from now [s].
    number : of conversions; endless if None.

    Raises InputError for unknown pins, durations out of range, or a conversion that is
    longer than the period.
    """
    where = "digitize"
    adc = _checked(env, adc, where)
    period = check_positive("period", period, where)
    acquire = check_positive("acquire", acquire, where)
    bit_time = check_positive("bit_time", bit_time, where)
    first = env.now + check_not_negative("start", start, where)
    if number is not None:
        number = check_count("number", number, where)
    needed = acquire + (1 + len(adc.bits)) * bit_time
    if needed > period * (1 + 1e-12):
        raise InputError(
            f"a conversion takes {needed:g} s and is due every {period:g} s",
            where=where,
            remedy="make the period longer, or acquire or bit_time shorter",
        )

    def run() -> Generator[Event, Any, NDArray[np.int64]]:
        codes: list[int] = []
        done = 0
        while number is None or done < number:
            due = first + done * period
            if due > env.now:
                yield env.timeout(due - env.now)
            code = yield from _convert(env, adc, acquire, bit_time)
            env.emit(name, code, sampled=due + acquire)
            if number is not None:
                codes.append(code)
            done += 1
        return np.array(codes, dtype=np.int64)

    return run()


@process
def latch(
    env: Cosimulation,
    node: str,
    *,
    threshold: float,
    period: float,
    output: str | None = None,
    low: float = 0.0,
    high: float = 1.0,
    start: float = 0.0,
    number: int | None = None,
    name: str = "decision",
) -> ProcessGenerator:
    """Clock a comparator: decide every period which side of a threshold a node is on.

    Each decision, 1 above the threshold and 0 else, is recorded as an ``emit`` of
    ``name``, and held by the output until the next one.

    Parameters
    ----------
    node : the comparator's output.
    threshold : [V].
    period, start : of the clock [s]; the first decision is at start + period, from now.
    output : external source to drive to ``low`` or ``high``, if any.
    number : of decisions; endless if None.

    Raises InputError for unknown names or numbers out of range.
    """
    where = "latch"
    (node,) = check_nodes(env, [node], where)
    threshold = check_finite("threshold", threshold, where)
    period = check_positive("period", period, where)
    levels = check_finite("low", low, where), check_finite("high", high, where)
    first = env.now + check_not_negative("start", start, where)
    if output is not None:
        (output,) = check_sources(env, [output], where)
    if number is not None:
        number = check_count("number", number, where)

    def run() -> ProcessGenerator:
        done = 0
        while number is None or done < number:
            done += 1
            yield env.timeout(first + done * period - env.now)
            decision = int(env.sample(node) > threshold)
            env.emit(name, decision)
            if output is not None:
                env.drive(output, levels[decision])

    return run()


def _convert(
    env: Cosimulation, adc: SarAdc, acquire: float, bit_time: float
) -> Generator[Event, Any, int]:
    env.drive(adc.clock, 1.0)
    for bit in adc.bits:
        env.drive(bit, adc.low)
    yield env.timeout(acquire)
    env.drive(adc.clock, 0.0)
    yield env.timeout(bit_time)
    code = 0
    for bit in adc.bits:
        env.drive(bit, adc.high)
        yield env.timeout(bit_time)
        above = env.sample(adc.comparator) > adc.threshold
        code = 2 * code + int(above)
        if not above:
            env.drive(bit, adc.low)
    return code - (1 << len(adc.bits) - 1)


def _checked(env: Cosimulation, adc: SarAdc, where: str) -> SarAdc:
    if not isinstance(adc, SarAdc):
        raise InputError(f"{adc!r} is not a SarAdc", where=where)
    check_sources(env, [adc.clock, *adc.bits], where)
    check_nodes(env, [adc.comparator], where)
    for key in ("low", "high", "threshold"):
        check_finite(key, getattr(adc, key), where)
    return adc
