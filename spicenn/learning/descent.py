"""Where a deep resistive network comes to rest: exact coordinate descent, a layer at a time.

The voltages minimise the co-content, which is convex; nodes of a layer are joined to other
layers only, so that each takes its own minimum given those at once. Odd layers, then even
ones. Source: Scellier, A fast algorithm to simulate nonlinear resistive networks, ICML 2024,
for ideal diodes; an exponential diode's node is solved by the Wright omega function.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spicenn.compiler.threads import one_thread
from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.elements import Diode
from spicenn.learning.resistive import ResistiveNetwork

# Largest change of a voltage in the last sweep over the largest voltage of a source.
_TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-12}
_SWEEPS = 2000
# Networks of fewer conductances are solved by one thread: several would wait for each other.
_MANY = 1_000_000
# Below minus this the logarithm of omega(z) is z, to the last bit.
_FAINT = 60.0
# Steps of Halley's method from the worst of its starting points to the last bit.
_STEPS = {torch.float32: 2, torch.float64: 3}


@dataclass(frozen=True, eq=False)
class Circuit:
    """A network as tensors.

    weights : (to, from) [S]. totals : (node,) of every layer after the inputs, all that joins
    a node to others [S]. signs : (node,) of the hidden layers, 1 where a node stays at 0 V or
    above and -1 where below. bounds : (node,) of the hidden layers, where ideal diodes let
    voltages be [V]. diode : I_s [A] and n kT/q [V] of an exponential diode, (0, 0) of an ideal
    one, None of a linear network.
    """

    weights: tuple[Tensor, ...]
    totals: tuple[Tensor, ...]
    signs: tuple[Tensor, ...]
    bounds: tuple[tuple[Tensor, Tensor], ...]
    diode: tuple[float, float] | None


@dataclass(frozen=True, eq=False)
class Rest:
    """Voltages at rest: (sample, node) [V] of every layer after the inputs.

    sweeps : how many it took. change : largest of the last one [V].
    """

    layers: tuple[Tensor, ...]
    sweeps: int
    change: float

    @property
    def outputs(self) -> Tensor:
        """(sample, output) [V]."""
        return self.layers[-1]


def circuit_of(
    network: ResistiveNetwork,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Circuit:
    """Return a network as tensors. Raises InputError for another type of numbers."""
    if dtype not in _TOLERANCE:
        raise InputError(f"{dtype} is not float32 or float64", where="descent")
    weights = tuple(torch.tensor(part, dtype=dtype, device=device) for part in network.conductances)
    match network.diode:
        case None:
            diode = None
        case Diode() as d:
            diode = d.saturation, d.thermal_voltage(network.temperature)
        case _:
            diode = 0.0, 0.0
    return rewired(weights, network.shunt, diode)


def rewired(
    weights: tuple[Tensor, ...], shunt: float, diode: tuple[float, float] | None
) -> Circuit:
    """Return the circuit of weights [S], all of one type and device."""
    totals = []
    for k, weight in enumerate(weights):
        total = weight.sum(1) + shunt
        totals.append(total + weights[k + 1].sum(0) if k + 1 < len(weights) else total)
    signs = tuple(
        1.0 - 2.0 * (torch.arange(len(weight), device=weight.device) % 2).to(weight.dtype)
        for weight in weights[:-1]
    )
    inf = math.inf
    bounds = tuple(
        (
            torch.where(sign > 0, 0.0, -inf).to(sign.dtype),
            torch.where(sign > 0, inf, 0.0).to(sign.dtype),
        )
        for sign in signs
    )
    return Circuit(weights, tuple(totals), signs, bounds, diode)


@torch.no_grad()
def settle(
    circuit: Circuit,
    inputs: Tensor,
    *,
    nudge: tuple[float, Tensor] | None = None,
    start: Rest | None = None,
    driven: Tensor | None = None,
    tolerance: float | None = None,
    sweeps: int = _SWEEPS,
) -> Rest:
    """Find the voltages at rest of a batch.

    Parameters
    ----------
    inputs : (sample, input node) [V].
    nudge : β [S] and targets (sample, output) [V]: the outputs are given the currents
        β (target - output). Below 0 it must leave the network a rest.
    start : where to begin, an earlier result; 0 V if None.
    driven : ``drive(circuit, inputs)``, where it is known.
    tolerance : largest change of a voltage in the last sweep over the largest voltage of a
        source; 2e-6 in single precision and 1e-12 in double if None. What is left to the rest
        is as much, or some times that in networks of many layers, which settle slowly.
    sweeps : the most.

    Raises InputError for a β that leaves an output no conductance, ConvergenceError where the
    sweeps do not suffice.
    """
    found = drive(circuit, inputs) if driven is None else driven
    layers = _start(circuit, found, start)
    totals = list(circuit.totals)
    scale = float(inputs.abs().max()) if inputs.numel() else 0.0
    pull: Tensor | None = None
    if nudge is not None:
        beta, target = nudge
        totals[-1] = totals[-1] + beta
        if not float(totals[-1].min()) > 0:
            raise InputError(
                f"a nudge of {beta!r} S is stronger than an output's conductances",
                where="descent", remedy="take a smaller one",
            )  # fmt: skip
        pull = beta * target
        scale = max(scale, float(target.abs().max()))
    limit = _TOLERANCE[found.dtype] if tolerance is None else tolerance
    order = [*range(0, len(layers), 2), *range(1, len(layers), 2)]
    change = math.inf
    for sweep in range(1, sweeps + 1):
        moved = []
        for k in order:
            new = _node(circuit, k, _arriving(circuit, k, layers, found, pull), totals[k])
            moved.append(torch.dist(new, layers[k], math.inf))
            layers[k] = new
        change = float(torch.stack(moved).amax())
        if change <= limit * scale:
            return Rest(tuple(layers), sweep, change)
        if not math.isfinite(change):
            break
    raise ConvergenceError(
        f"a voltage still changes by {change:.1e} V after {sweep} sweeps", where="descent",
        remedy="allow more sweeps, a larger tolerance, or a nudge less negative",
    )  # fmt: skip


@torch.no_grad()
def leftover(
    circuit: Circuit,
    inputs: Tensor,
    rest: Rest,
    *,
    nudge: tuple[float, Tensor] | None = None,
) -> float:
    """Return the largest current that Kirchhoff's law leaves over at a node [A].

    What an ideal diode carries that conducts is its own; at a node that one keeps from 0 V
    it is none.
    """
    found, worst = drive(circuit, inputs), 0.0
    layers, totals, pull = list(rest.layers), list(circuit.totals), None
    if nudge is not None:
        totals[-1] = totals[-1] + nudge[0]
        pull = nudge[0] * nudge[1]
    for k, v in enumerate(layers):
        rest_of = totals[k] * v - _arriving(circuit, k, layers, found, pull)
        if k < len(circuit.signs) and circuit.diode is not None:
            saturation, thermal = circuit.diode
            sign = circuit.signs[k]
            if thermal == 0.0:
                # At 0 V the diode may bring what keeps the node there, and not the contrary.
                rest_of = torch.where(v == 0, (sign * rest_of).clamp(max=0.0), rest_of)
            else:
                rest_of = rest_of - sign * saturation * torch.expm1(-sign * v / thermal)
        worst = max(worst, float(rest_of.abs().amax()))
    return worst


def drive(circuit: Circuit, inputs: Tensor) -> Tensor:
    """Currents (sample, node) [A] that the inputs send to the first layer, were it at 0 V."""
    return inputs @ circuit.weights[0].T


def resting_voltages(
    network: ResistiveNetwork,
    x: ArrayLike,
    *,
    nudge: tuple[float, ArrayLike] | None = None,
    dtype: torch.dtype = torch.float64,
    device: str | torch.device = "cpu",
    tolerance: float | None = None,
    sweeps: int = _SWEEPS,
) -> NDArray[np.float64]:
    """Return (sample, node + 1) voltages [V] in the order of ``to_network()``, ground last.

    Parameters
    ----------
    x : (sample, feature). nudge : β [S] and targets (sample, output) [V].
    Others as of ``settle``, with its errors.
    """
    volts = network.voltages(x)
    circuit = circuit_of(network, dtype=dtype, device=device)
    inputs = torch.tensor(volts, dtype=dtype, device=device)
    pushed = None
    if nudge is not None:
        pushed = nudge[0], torch.tensor(np.asarray(nudge[1]), dtype=dtype, device=device)
    with threads(network):
        rest = settle(circuit, inputs, nudge=pushed, tolerance=tolerance, sweeps=sweeps)
    found = [layer.double().cpu().numpy() for layer in rest.layers]
    return np.hstack([volts, *found, np.zeros((len(volts), 1))])


def threads(network: ResistiveNetwork) -> AbstractContextManager[None]:
    """Return a context in which torch has the threads that a network is worth."""
    count = sum(part.size for part in network.conductances)
    return one_thread() if count < _MANY else nullcontext()


def log_wright_omega(z: Tensor) -> Tensor:
    """Return y with y + exp(y) = z: the logarithm of the Wright omega function of real z.

    The function itself underflows where its logarithm is z, and a diode's voltage needs the
    latter. Halley's method from log log (1 + exp z), which is right on both sides. The
    function: Lawrence, Corless and Jeffrey, ACM Trans. Math. Softw. 38, 20, 2012.
    """
    y = torch.where(z < -_FAINT, z, torch.log(torch.nn.functional.softplus(z)))
    for _ in range(_STEPS[z.dtype]):
        w = torch.exp(y)
        f, slope = y + w - z, 1.0 + w
        y = y - 2.0 * f * slope / (2.0 * slope * slope - f * w)
    return y


def _start(circuit: Circuit, driven: Tensor, start: Rest | None) -> list[Tensor]:
    if start is not None:
        return list(start.layers)
    return [driven.new_zeros(len(driven), len(weight)) for weight in circuit.weights]


def _arriving(
    circuit: Circuit, k: int, layers: list[Tensor], driven: Tensor, pull: Tensor | None
) -> Tensor:
    """Current (sample, node) [A] that would reach a layer at 0 V from all around."""
    weights = circuit.weights
    if k + 1 < len(layers):
        current = driven if k == 0 else layers[k - 1] @ weights[k].T
        return torch.addmm(current, layers[k + 1], weights[k + 1])
    if k == 0:
        return driven if pull is None else driven + pull
    if pull is None:
        return layers[k - 1] @ weights[k].T
    return torch.addmm(pull, layers[k - 1], weights[k].T)


def _node(circuit: Circuit, k: int, current: Tensor, total: Tensor) -> Tensor:
    """Voltages at which a layer's nodes take the current that arrives."""
    if circuit.diode is None or k >= len(circuit.signs):
        return current / total
    saturation, thermal = circuit.diode
    if thermal == 0.0:
        low, high = circuit.bounds[k]
        return torch.clamp(current / total, low, high)
    sign = circuit.signs[k]
    # With u the diode's forward voltage, total u + I_s (exp(u/V) - 1) = -sign current.
    alone = (saturation - sign * current) / total
    kappa = torch.log(saturation / (total * thermal))
    y = log_wright_omega(alone / thermal + kappa)
    # Either form is exact where the other one is a difference of large numbers.
    forward = torch.where(y > 0.0, thermal * (y - kappa), alone - thermal * torch.exp(y))
    return -sign * forward
