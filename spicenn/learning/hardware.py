"""What the learning circuit of an edge is made of, and one manufactured copy of it.

Imperfections stand where they arise. The bias is inside of the bracket that the learning
rate multiplies, as an offset of the multipliers is: a larger rate does not hide it. The
output's offset is in its comparison with the label. Leakage is at the capacitor. Unequal
transistors of the two networks are unequal transistors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.errors import InputError
from spicenn.learning.elements import Diode, Resistor, Transistor
from spicenn.learning.network import Network
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """An edge's learning circuit, the outputs' comparators, and how they vary.

    An edge's value x is its gate's voltage [V], or its conductance where it is a resistor:
    then ``conductance_per_volt`` times the capacitor's voltage. With u its voltage,
    ``du/dt = rate / (v0 R C) · duty · (ΔV_free² − ΔV_clamped² + bias)``, less leakage.

    capacitance, resistance : C [F] and R [Ω] of the integrator.
    v0 : scale of the multipliers [V].
    gate_low, gate_high : which the capacitor's voltage does not leave [V].
    conductance_per_volt : of a resistor that learns [S/V].
    node_capacitance : of every node of both networks to ground [F]; what a node does whose
        transistors are all off.
    bias, bias_std : mean and standard deviation over edges of the update's bias [V^2].
    output_offset, output_offset_std : of an output's comparison with its label [V].
    leakage, leakage_std : conductance from a capacitor to 0 V [S]; drawn values below 0 are 0.
    threshold_std : of transistors' thresholds, alike in both networks [V].
    twin_threshold_std : of the difference of the two networks' thresholds [V].
    transconductance_std : relative, of transistors and of resistors that do not learn.
    twin_transconductance_std : relative, of the difference of the two networks.
    update_noise : input-referred noise of an edge's update [V^2/√Hz].
    output_noise : of an output's comparison with its label [V/√Hz].

    The defaults are the circuit of Dillavou et al., PNAS 121, e2319718121, 2024, without
    imperfections. Raises InputError for a value out of range.
    """

    capacitance: float = 22e-9
    resistance: float = 1e5
    v0: float = 0.33
    gate_low: float = 1.0
    gate_high: float = 5.0
    conductance_per_volt: float = 1e-3
    node_capacitance: float = 1e-11
    bias: float = 0.0
    bias_std: float = 0.0
    output_offset: float = 0.0
    output_offset_std: float = 0.0
    leakage: float = 0.0
    leakage_std: float = 0.0
    threshold_std: float = 0.0
    twin_threshold_std: float = 0.0
    transconductance_std: float = 0.0
    twin_transconductance_std: float = 0.0
    update_noise: float = 0.0
    output_noise: float = 0.0

    def __post_init__(self) -> None:
        signed = ("bias", "output_offset", "gate_low", "gate_high")
        positive = ("capacitance", "resistance", "v0", "conductance_per_volt", "node_capacitance")
        for field in fields(self):
            key, value = field.name, getattr(self, field.name)
            good = isinstance(value, int | float) and not isinstance(value, bool)
            good = good and math.isfinite(value)
            if good and key not in signed:
                good = value > 0 if key in positive else value >= 0
            if not good:
                raise InputError(f"{key} = {value!r} is out of range", where="hardware")
            # A NumPy number's repr is no number in a netlist.
            object.__setattr__(self, key, float(value))
        if not self.gate_low < self.gate_high:
            raise InputError(
                f"gate_low = {self.gate_low!r} V is not below gate_high = {self.gate_high!r} V",
                where="hardware",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Hardware:
        """Return the record of a mapping. Raises InputError for an unknown key."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise InputError(
                    f"{key!r} is not a key", where="hardware", remedy="known: " + ", ".join(known)
                )
        return cls(**values)

    def to_dict(self) -> dict[str, float]:
        """Every value by its name."""
        return asdict(self)

    def bias_of(self, speed: ArrayLike, rate: float) -> Array:
        """Bias [V^2] that moves a capacitor at a speed [V/s] while it learns at a rate."""
        scale = self.v0 * self.resistance * self.capacitance / rate
        return np.asarray(np.asarray(speed, dtype=np.float64) * scale)


@dataclass(frozen=True, kw_only=True, eq=False)
class LearningChip:
    """One manufactured network and its twin, with the circuits that teach it.

    threshold, transconductance : (2, edge) of the free and the clamped network [V], [A/V^2];
        the second is a conductance [S] of a resistor that does not learn, NaN elsewhere.
    bias : (value,) of every edge that learns [V^2].
    leakage : (value,) [S].
    output_offset : (output,) [V].
    index, seed : which chip it is, None for one that was not drawn.

    Raises InputError for shapes that do not fit, or capacitors that may go below 0 V where
    resistors learn.
    """

    network: Network
    hardware: Hardware
    threshold: Array
    transconductance: Array
    bias: Array
    leakage: Array
    output_offset: Array
    index: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        elements = [edge.element for edge in self.network.edges]
        if self.hardware.gate_low < 0 and any(
            isinstance(element, Resistor) and element.learns for element in elements
        ):
            raise InputError(
                f"gate_low = {self.hardware.gate_low!r} V lets resistors learn to be negative",
                where="chip", remedy="let it be 0 V or more",
            )  # fmt: skip
        edges, values = len(self.network.edges), len(self.network.learning)
        shapes = {
            "threshold": (2, edges), "transconductance": (2, edges), "bias": (values,),
            "leakage": (values,), "output_offset": (len(self.network.outputs),),
        }  # fmt: skip
        for name, shape in shapes.items():
            found = np.asarray(getattr(self, name), dtype=np.float64)
            if found.shape != shape:
                raise InputError(f"{name} of shape {found.shape} is not {shape}", where="chip")
            object.__setattr__(self, name, found)


def ideal_chip(
    network: Network,
    hardware: Hardware | None = None,
    *,
    bias: ArrayLike | None = None,
    output_offset: ArrayLike | None = None,
) -> LearningChip:
    """Return a chip that is as drawn: every edge has the hardware's means.

    Parameters
    ----------
    bias : (value,) or one for all [V^2]; the hardware's if None.
    output_offset : (output,) or one for all [V]; the hardware's if None.

    Raises InputError for shapes that do not fit.
    """
    hardware = hardware or Hardware()
    values, outputs = len(network.learning), len(network.outputs)
    threshold, transconductance = _nominal(network)
    return LearningChip(
        network=network,
        hardware=hardware,
        threshold=np.stack([threshold] * 2),
        transconductance=np.stack([transconductance] * 2),
        bias=_filled("bias", hardware.bias if bias is None else bias, values),
        leakage=np.full(values, hardware.leakage),
        output_offset=_filled(
            "output_offset", hardware.output_offset if output_offset is None else output_offset,
            outputs,
        ),
    )  # fmt: skip


def sample_chip(network: Network, hardware: Hardware, *, chip: int, seed: int) -> LearningChip:
    """Return one manufactured chip; the same index and seed are the same chip.

    Every mechanism has a generator of its own, so that one more of them changes no other.
    Raises InputError for an index or a seed out of range.
    """
    edges, values = len(network.edges), len(network.learning)

    def draw(purpose: Purpose, *shape: int) -> Array:
        return generator(seed, purpose, chip=chip).standard_normal(shape)

    threshold, transconductance = _nominal(network)
    twin = np.array([-0.5, 0.5])[:, None]
    d_threshold = hardware.threshold_std * draw(Purpose.EDGE_THRESHOLD, edges) + (
        hardware.twin_threshold_std * twin * draw(Purpose.TWIN_THRESHOLD, edges)
    )
    d_trans = hardware.transconductance_std * draw(Purpose.EDGE_TRANSCONDUCTANCE, edges) + (
        hardware.twin_transconductance_std * twin * draw(Purpose.TWIN_TRANSCONDUCTANCE, edges)
    )
    leakage = hardware.leakage + hardware.leakage_std * draw(Purpose.EDGE_LEAKAGE, values)
    return LearningChip(
        network=network,
        hardware=hardware,
        threshold=threshold + d_threshold,
        # exp: a spread of any size leaves conductances positive.
        transconductance=transconductance * np.exp(d_trans),
        bias=hardware.bias + hardware.bias_std * draw(Purpose.EDGE_BIAS, values),
        leakage=np.maximum(leakage, 0.0),
        output_offset=hardware.output_offset
        + hardware.output_offset_std * draw(Purpose.OUTPUT_OFFSET, len(network.outputs)),
        index=chip,
        seed=seed,
    )


def start_values(network: Network, low: float, high: float, *, seed: int, chip: int = 0) -> Array:
    """Draw the values (value,) that a chip begins with, uniform in [low, high].

    Raises InputError unless low is at most high, both finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(f"values from {low!r} to {high!r} are no range", where="start_values")
    rng = generator(seed, Purpose.EDGE_START, chip=chip)
    return np.asarray(low + (high - low) * rng.random(len(network.learning)))


def _nominal(network: Network) -> tuple[Array, Array]:
    """(edge,) thresholds [V] and (edge,) transconductances [A/V^2] or conductances [S]."""
    threshold = np.full(len(network.edges), np.nan)
    strength = np.full(len(network.edges), np.nan)
    for k, edge in enumerate(network.edges):
        match edge.element:
            case Transistor(transconductance=s, threshold=v):
                threshold[k], strength[k] = v, s
            case Resistor(conductance=g, learns=False):
                strength[k] = g
            case Resistor() | Diode():
                pass
    return threshold, strength


def _filled(name: str, value: ArrayLike, size: int) -> Array:
    found = np.asarray(value, dtype=np.float64)
    if found.shape not in ((), (size,)) or not np.isfinite(found).all():
        raise InputError(f"{name} of shape {found.shape} is not finite and ({size},)")
    return np.array(np.broadcast_to(found, (size,)))
