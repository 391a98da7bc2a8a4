"""Where a network's voltages come to rest: Newton's method on Kirchhoff's current law.

Batches of states are solved together, all of them dense: for graphs of up to some hundreds of
nodes. The same states come from ngspice in ``learning.operating``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from spicenn.errors import ConvergenceError, InputError
from spicenn.learning.elements import Diode, Resistor, Transistor, diode_current, transistor_current
from spicenn.learning.hardware import LearningChip

Array = NDArray[np.float64]

# Left-over current at a node, over the largest current through it: round-off of a sum of
# edges' currents is some 1e-15.
_RESIDUAL = 1e-13
# What may be left where no step makes it less.
_ROUNDING = 1e-9
_ITERATIONS = 200
_HALVINGS = 30
# States solved at once: their Jacobians take this many numbers.
_BLOCK = 4_000_000
# Of a matrix that is kept dense: sparse ones of scipy cost a tenth of a millisecond to call.
_DENSE = 100_000


@dataclass(frozen=True, eq=False)
class Edges:
    """A network's edges of one copy as arrays, and how their currents add up at nodes.

    fixed : (edge,) gates [V] and conductances [S] of those that do not learn, 0 elsewhere.
    gather, through : (edge, node + 1) currents to nodes, with and without their signs.
    scatter : (2 edge, flat Jacobian) of the slopes. Each dense or sparse, used by ``@``.
    """

    nodes: int
    shunt: float
    fixed: Array
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    value_of: NDArray[np.int64]
    transistor: NDArray[np.int64]
    resistor: NDArray[np.int64]
    diode: NDArray[np.int64]
    threshold: Array
    strength: Array
    saturation: Array
    thermal: Array
    gather: Any
    through: Any
    scatter: Any

    def currents(self, edge_values: Array, v: Array) -> tuple[Array, Array, Array]:
        """(…, edge) currents [A] from a to b and slopes [S] by the voltages of a and b.

        edge_values : (…, edge) gates [V] and conductances [S]; v : (…, node + 1) [V].
        """
        va, vb = v[..., self.a], v[..., self.b]
        current, by_a, by_b = np.zeros((3, *np.broadcast_shapes(edge_values.shape, va.shape)))
        if (t := self.transistor).size:
            current[..., t], by_a[..., t], by_b[..., t] = transistor_current(
                edge_values[..., t], self.threshold[t], self.strength[t], va[..., t], vb[..., t]
            )
        if (r := self.resistor).size:
            current[..., r] = edge_values[..., r] * (va[..., r] - vb[..., r])
            by_a[..., r], by_b[..., r] = edge_values[..., r], -edge_values[..., r]
        if (d := self.diode).size:
            current[..., d], slope = diode_current(
                self.saturation[d], self.thermal[d], va[..., d] - vb[..., d]
            )
            by_a[..., d], by_b[..., d] = slope, -slope
        return current, by_a, by_b


# A chip never changes, and learning asks for the same one thousands of times.
@lru_cache(maxsize=64)
def edges_of(chip: LearningChip, copy: int) -> Edges:
    """Return the edges of the first (0) or second (1) network of a chip."""
    network = chip.network
    count, nodes = len(network.edges), len(network.nodes)
    kinds: dict[type, list[int]] = {Transistor: [], Resistor: [], Diode: []}
    saturation, thermal = np.full((2, count), np.nan)
    fixed = np.zeros(count)
    for k, edge in enumerate(network.edges):
        kinds[type(edge.element)].append(k)
        match edge.element:
            case Diode():
                saturation[k] = edge.element.saturation
                thermal[k] = edge.element.thermal_voltage(network.temperature)
            case Transistor(gate=gate) if gate is not None:
                fixed[k] = gate
            case Resistor(learns=False):
                fixed[k] = chip.transconductance[copy, k]
            case _:
                pass
    a, b = network.ends.T
    value_of = np.full(count, -1)
    value_of[list(network.learning)] = np.arange(len(network.learning))
    numbers, size = np.arange(count), nodes + 1
    gather = sparse.csr_matrix(
        (np.repeat([1.0, -1.0], count), (np.tile(numbers, 2), np.concatenate([a, b]))),
        shape=(count, size),
    )
    # Slopes by V_a and V_b of every edge, to the entries of the flat Jacobian.
    places = np.concatenate([a * size + a, b * size + a, a * size + b, b * size + b])
    scatter = sparse.csr_matrix(
        (
            np.repeat([1.0, -1.0, 1.0, -1.0], count),
            (np.concatenate([numbers, numbers, numbers + count, numbers + count]), places),
        ),
        shape=(2 * count, size * size),
    )
    return Edges(
        nodes=nodes, shunt=network.shunt, fixed=fixed, a=a, b=b, value_of=value_of,
        transistor=np.array(kinds[Transistor], dtype=np.int64),
        resistor=np.array(kinds[Resistor], dtype=np.int64),
        diode=np.array(kinds[Diode], dtype=np.int64),
        threshold=chip.threshold[copy], strength=chip.transconductance[copy],
        saturation=saturation, thermal=thermal,
        gather=_handy(gather), through=_handy(abs(gather)), scatter=_handy(scatter),
    )  # fmt: skip


def _handy(matrix: Any) -> Any:
    """A sparse matrix, dense where it is small."""
    return matrix.toarray() if matrix.shape[0] * matrix.shape[1] <= _DENSE else matrix


def edge_values(chip: LearningChip, values: Array, copy: int = 0) -> Array:
    """(…, edge) gates [V] and conductances [S] for values (…, value) of those that learn."""
    network = chip.network
    values = np.asarray(values, dtype=np.float64)
    if values.shape[-1:] != (len(network.learning),):
        raise InputError(
            f"values of shape {values.shape} are not of {len(network.learning)} edges",
            where="network",
        )
    fixed = edges_of(chip, copy).fixed
    found = np.broadcast_to(fixed, (*values.shape[:-1], len(fixed))).copy()
    found[..., list(network.learning)] = values
    return found


def equilibrium(
    chip: LearningChip,
    values: Array,
    inputs: Array,
    *,
    copy: int = 0,
    clamped: Array | None = None,
    nudge: tuple[float, Array] | None = None,
    start: Array | None = None,
) -> Array:
    """Solve for the voltages of all nodes.

    Parameters
    ----------
    values : (…, value) gates' voltages [V], conductances [S] of resistors.
    inputs : (…, input) [V]; leading axes broadcast with those of the values.
    copy : 0 is the first (free) network, 1 the second.
    clamped : (…, output) [V] that the outputs are held at; None lets them float.
    nudge : a conductance [S] and the voltages (…, output) [V] that it joins the outputs to.
    start : (…, node + 1) [V] to begin from, of an earlier result.

    Returns
    -------
    (…, node + 1) [V]: the network's nodes in their order, then ground.

    Raises InputError for shapes that do not fit or numbers that are not finite,
    ConvergenceError where Newton's method finds no rest.
    """
    network = chip.network
    inputs = np.asarray(inputs, dtype=np.float64)
    own = edge_values(chip, values, copy)
    parts = [own.shape[:-1], inputs.shape[:-1]]
    if inputs.shape[-1:] != (len(network.inputs),):
        raise InputError(
            f"inputs of shape {inputs.shape} are not of {len(network.inputs)} nodes",
            where="network",
        )
    outputs = clamped if clamped is not None else None if nudge is None else nudge[1]
    if outputs is not None:
        outputs = np.asarray(outputs, dtype=np.float64)
        if outputs.shape[-1:] != (len(network.outputs),):
            raise InputError(
                f"outputs of shape {outputs.shape} are not of {len(network.outputs)} nodes",
                where="network",
            )
        parts.append(outputs.shape[:-1])
    batch = np.broadcast_shapes(*parts)

    def flat(array: Array) -> Array:
        return np.broadcast_to(array, (*batch, array.shape[-1])).reshape(-1, array.shape[-1])

    for name, volts in (("values", own), ("inputs", inputs), ("outputs' voltages", outputs)):
        # Newton's method takes no step from NaN, and would call that rest.
        if volts is not None and not np.isfinite(volts).all():
            raise InputError(f"{name} are not finite", where="equilibrium")
    edges = edges_of(chip, copy)
    own, driven = flat(own), flat(inputs)
    voltage = np.zeros((len(own), edges.nodes + 1)) if start is None else flat(start).copy()
    voltage[:, network.input_index] = driven
    held = [*network.input_index.tolist(), edges.nodes]
    conductance = np.zeros(edges.nodes + 1)
    target = np.zeros_like(voltage)
    if clamped is not None:
        assert outputs is not None
        voltage[:, network.output_index] = flat(outputs)
        held += network.output_index.tolist()
    elif nudge is not None:
        assert outputs is not None
        conductance[network.output_index] = nudge[0]
        target[:, network.output_index] = flat(outputs)
    free = np.setdiff1d(np.arange(edges.nodes + 1), held)
    step = max(1, _BLOCK // (edges.nodes + 1) ** 2)
    for k in range(0, len(own), step):
        part = slice(k, k + step)
        voltage[part] = _newton(edges, own[part], voltage[part], free, conductance, target[part])
    return voltage.reshape(*batch, -1)


def _newton(
    edges: Edges, own: Array, v: Array, free: NDArray[np.int64], conductance: Array, target: Array
) -> Array:
    """Voltages (state, node + 1) at which no current is left over at the free nodes."""
    if not free.size:
        return v
    v = v.copy()
    size = edges.nodes + 1
    grid = np.ix_(free, free)
    diagonal = np.arange(size)
    loss, scale, slopes = _leftover(edges, own, v, free, conductance, target)
    for _ in range(_ITERATIONS):
        active = np.flatnonzero(loss > _RESIDUAL * scale)
        if not active.size:
            return v
        current, by_a, by_b = (part[active] for part in slopes)
        rest = _rest(edges, current, v[active], conductance, target[active])[:, free]
        jacobian = (np.hstack([by_a, by_b]) @ edges.scatter).reshape(-1, size, size)
        jacobian[:, diagonal, diagonal] += conductance + edges.shunt
        try:
            move = np.linalg.solve(jacobian[:, grid[0], grid[1]], rest[..., None])[..., 0]
        except np.linalg.LinAlgError as error:
            raise ConvergenceError(
                "the network's equations have no unique solution", where="equilibrium"
            ) from error
        # Halve the steps of those states that would have more current left over.
        length = np.ones(len(active))
        waiting = np.arange(len(active))
        for _ in range(_HALVINGS):
            rows = active[waiting]
            trial = v[rows]
            trial[:, free] -= length[waiting, None] * move[waiting]
            found, size_of, own_slopes = _leftover(
                edges, own[rows], trial, free, conductance, target[rows]
            )
            good = (found < loss[rows]) | (found <= _RESIDUAL * size_of)
            done = rows[good]
            v[done], loss[done], scale[done] = trial[good], found[good], size_of[good]
            for whole, part in zip(slopes, own_slopes, strict=True):
                whole[done] = part[good]
            waiting = waiting[~good]
            if not waiting.size:
                break
            length[waiting] /= 2
        stuck = active[waiting]
        # No shorter step helps: as little is left over as numbers can tell.
        if stuck.size and (loss[stuck] > _ROUNDING * scale[stuck]).any():
            break
        if stuck.size == active.size:
            return v
    if (loss <= _ROUNDING * scale).all():
        return v
    worst = float(np.max(loss / scale))
    raise ConvergenceError(
        f"Newton's method leaves {worst:.1e} of the currents over", where="equilibrium",
        remedy="look for values out of range, or diodes of a very small emission",
    )  # fmt: skip


def _rest(edges: Edges, current: Array, v: Array, conductance: Array, target: Array) -> Array:
    """(state, node + 1) current [A] that leaves every node."""
    found = current @ edges.gather
    return np.asarray(found + edges.shunt * v + conductance * (v - target))


def _leftover(
    edges: Edges, own: Array, v: Array, free: NDArray[np.int64], conductance: Array, target: Array
) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """Largest left-over current (state,) [A], what it is measured by, the edges' currents."""
    slopes = edges.currents(own, v)
    rest = _rest(edges, slopes[0], v, conductance, target)[:, free]
    through = np.abs(slopes[0]) @ edges.through
    scale = (through + np.abs(conductance * (v - target)) + edges.shunt * np.abs(v))[:, free]
    # A node through which little flows is not told apart from its neighbours' round-off.
    strength = np.abs(slopes[1]) @ edges.through
    largest = scale.max(axis=1) + 1e-3 * (strength[:, free] * np.abs(v[:, free])).max(axis=1)
    return np.abs(rest).max(axis=1), largest + 1e-18, slopes
