"""Leaky integrate-and-fire neuron: its circuit (``netlists/lif.lib``) and its closed forms."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from spicenn.errors import InputError
from spicenn.periphery.instance import instance


@dataclass(frozen=True, kw_only=True)
class Lif:
    """Values of a neuron's devices; ``netlists/lif.lib`` says what each does.

    Parameters
    ----------
    gm : of the input's transconductor [S].
    c_mem, r_leak : membrane [F] and its leak to rest [Ω].
    v_rest, v_floor, v_th : rest and reset, lower bound and threshold of the membrane [V].
    offset : of the comparator [V].
    bias_current : of the comparator [A].
    beta : KP W / L of its pair [A/V²].
    threshold : magnitude of all transistors' threshold voltages [V].
    c_ref, i_ref : capacitor and current that time the reset [F], [A].
    c_node, c_feedback : of every inner node, and from the output to the membrane [F].
    supply : [V].

    Raises InputError for a value out of range, or levels out of order.
    """

    gm: float = 5e-6
    c_mem: float = 1e-12
    r_leak: float = 10e6
    v_rest: float = 0.5
    v_floor: float = 0.2
    v_th: float = 1.0
    offset: float = 0.0
    bias_current: float = 1e-6
    beta: float = 100e-6
    threshold: float = 0.4
    c_ref: float = 50e-15
    i_ref: float = 50e-9
    c_node: float = 5e-15
    c_feedback: float = 10e-15
    supply: float = 1.8

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = -math.inf if field.name == "offset" else math.ulp(0.0)
            if not least <= value < math.inf:
                raise InputError(f"{field.name} = {value!r} is out of range", where="Lif")
        if not self.v_floor < self.v_rest < self.v_th < self.supply - self.threshold:
            raise InputError(
                f"v_floor {self.v_floor:g} V, v_rest {self.v_rest:g} V, v_th {self.v_th:g} V and "
                f"supply - threshold {self.supply - self.threshold:g} V are not in this order",
                where="Lif",
            )

    @property
    def swing(self) -> float:
        """From rest to threshold [V]; the unit of a membrane in the models of it."""
        return self.v_th - self.v_rest

    @property
    def tau(self) -> float:
        """Time constant of the membrane [s]."""
        return self.r_leak * (self.c_mem + self.c_feedback)

    @property
    def refractory(self) -> float:
        """For how long the membrane is held at rest after a spike, about [s].

        cref goes from the supply to one threshold voltage above rest at a constant current.
        """
        return self.c_ref * (self.supply - self.v_rest - self.threshold) / self.i_ref


def first_spike(spec: Lif, v: float) -> float:
    """Time from rest to threshold at a constant input voltage [s]; endless below rheobase.

    The membrane is an RC driven by the current gm v:
    t = -τ ln(1 - (v_th + offset - v_rest) / (gm v r_leak)).
    """
    final = spec.gm * v * spec.r_leak
    gap = spec.swing + spec.offset
    return -spec.tau * math.log1p(-gap / final) if final > gap else math.inf


def lif_instance(name: str, nodes: tuple[str, str, str, str], spec: Lif) -> str:
    """Place one; nodes are in, mem, spike and vdd."""
    values = {
        "gm": spec.gm,
        "cmem": spec.c_mem,
        "rleak": spec.r_leak,
        "vrest": spec.v_rest,
        "vfloor": spec.v_floor,
        "vth": spec.v_th,
        "offset": spec.offset,
        "ib": spec.bias_current,
        "beta": spec.beta,
        "vt": spec.threshold,
        "cref": spec.c_ref,
        "iref": spec.i_ref,
        "cnode": spec.c_node,
        "cfb": spec.c_feedback,
    }
    return instance(name, nodes, "lif", values)
