"""Gauge freedom of ReLU networks on differential pairs, and its use against physical error.

An output does not change when a hidden neuron's incoming weights and bias are multiplied by
a positive number and its outgoing ones divided by it, when hidden neurons trade places, or
when both cells of a pair conduct more by the same amount. What does change is how much of an
output a cell's error is: a layer's largest weight takes the whole range of a cell, so a
neuron's scale sets its weights' share of it. ``fix_gauge`` chooses the scales that
minimise the expected error of the outputs, and the order of neurons where wires tell places
apart. The common mode is not free: a ``Mapping`` leaves the smaller cell of a pair at g_min,
the least common mode there is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler import Design
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.layer import Array, Layer
from spicenn.compiler.program import CROSSBAR, Ref, leaves
from spicenn.errors import InputError, TrainingError
from spicenn.seeds import Purpose, generator
from spicenn.technology import Periphery, Technology
from spicenn.technology.variation import manufactured_moments

Order = NDArray[np.int64]

_RELU = "aten.relu.default"
# Before the first layer samples may be put in shape.
_SHAPING = frozenset({"aten.flatten.using_ints", "aten.reshape.default", "aten.unsqueeze.default"})

# The largest of many weights as a p-norm, ever closer to the maximum.
_SHARPNESS = (16.0, 64.0, 256.0)
# Places at which a weight's error is known over its share of the range, linear in between.
_TABLE = 257


@dataclass(frozen=True, eq=False, kw_only=True)
class Gauge:
    """One of the networks that compute the same.

    Parameters
    ----------
    scales : (neuron,) per hidden layer, above 0: of the incoming weights.
    orders : permutation per hidden layer; the new k-th neuron was the ``orders[·][k]``-th.
    """

    scales: tuple[Array, ...]
    orders: tuple[Order, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class GaugeFix:
    """A network in the gauge of least error.

    Errors are expected: rms over data, outputs and chips, over the outputs' rms, to first
    order in the cells' errors, at ideal wires and converters.

    Parameters
    ----------
    design : the same network, its scales set anew.
    gauge : what was done to it.
    drawn, row_max, error : errors as it was, with every hidden neuron's largest incoming
        weight alike, and now.
    wires, ordered : rms error of the outputs by the wires of a nominal chip, over the
        outputs' rms, in the old order of neurons and now; 0 without wires.
    """

    design: Design
    gauge: Gauge
    drawn: float
    row_max: float
    error: float
    wires: float
    ordered: float


class NullDirections(NamedTuple):
    """Directions in the space of all cells along which no output changes at first order.

    found : at the given inputs.
    gauge : hidden neurons and pairs: what there must be at any inputs.
    """

    found: int
    gauge: int


def apply_gauge(design: Design, gauge: Gauge, calibration: Any = None) -> Design:
    """Return the same network in another gauge.

    Parameters
    ----------
    calibration : inputs that set scales of inputs and converters; without them those of the
        hidden layers' inputs do not follow.

    Raises TrainingError for a program that is no chain, InputError for a gauge that does
    not fit.
    """
    layers = chain_of(design)
    hidden = [layer.outputs for layer in layers[:-1]]
    fits = len(gauge.scales) == len(gauge.orders) == len(hidden)
    for count, scale, order in zip(hidden, gauge.scales, gauge.orders, strict=False):
        fits = fits and np.shape(scale) == (count,) and bool(np.all(np.isfinite(scale)))
        fits = fits and bool(np.all(scale > 0)) and sorted(order) == list(range(count))
    if not fits:
        raise InputError(f"the gauge does not fit hidden layers of {hidden} neurons")
    ends: list[tuple[Array, Order]] = [
        (np.asarray(scale), np.asarray(order))
        for scale, order in zip(gauge.scales, gauge.orders, strict=True)
    ]
    first = (np.ones(layers[0].inputs), np.arange(layers[0].inputs))
    last = (np.ones(layers[-1].outputs), np.arange(layers[-1].outputs))
    weights = {}
    for layer, before, after in zip(layers, [first, *ends], [*ends, last], strict=True):
        (scale_in, order_in), (scale_out, order_out) = before, after
        weight = scale_out[:, np.newaxis] * layer.weight[0] / scale_in
        bias = None if layer.bias is None else (scale_out * layer.bias[0])[order_out]
        weights[layer.name] = weight[order_out][:, order_in], bias
    return design.with_weights(weights, calibration)


def expected_error(design: Design, x: Any) -> float:
    """Error of the outputs that cells' errors cause; see ``GaugeFix``.

    Counted are programming errors and all else that ``manufactured_moments`` holds, and read
    noise. Raises TrainingError as ``fix_gauge``.
    """
    problem = _Problem(design, x)
    return problem.error([np.ones(layer.outputs) for layer in problem.layers[:-1]])


def fix_gauge(
    design: Design, x: Any, *, steps: int = 200, order_steps: int = 100, seed: int = 0
) -> GaugeFix:
    """Return the network in the gauge of least expected error on data.

    The scales minimise the variance of the outputs that the cells' errors cause,
    Σ_layers w_max² Σ_ij v(|w_ij| / w_max) h_i² |∂y/∂z_j|², by L-BFGS on their logarithms
    (Nocedal, Math. Comp. 35, 773, 1980), with v from the technology; the order minimises what
    a nominal chip's wires do, by exchanges that help.

    Parameters
    ----------
    x : inputs (sample, …) like those the network will see; they set the scales of inputs and
        converters as well.
    steps : of L-BFGS at most.
    order_steps : orders that are tried where there are wires; 0 keeps the order.
    seed : of the orders.

    Raises TrainingError where the program is not linear maps with ReLU in between (naming
    the operator), weights are spread over several cells, or cells have no error.
    """
    problem = _Problem(design, x)
    drawn = [np.ones(layer.outputs) for layer in problem.layers[:-1]]
    row_max = _row_max(problem.layers)
    candidates = [drawn, row_max, problem.minimise(drawn, steps), problem.minimise(row_max, steps)]
    best = min(candidates, key=problem.error)
    keep = tuple(np.arange(len(scale)) for scale in best)
    scaled = apply_gauge(design, Gauge(scales=tuple(best), orders=keep), x)
    orders, wires, ordered = _ordered(scaled, x, order_steps, seed)
    gauge = Gauge(scales=tuple(best), orders=orders)
    return GaugeFix(
        design=apply_gauge(design, gauge, x), gauge=gauge, drawn=problem.error(drawn),
        row_max=problem.error(row_max), error=problem.error(best), wires=wires, ordered=ordered,
    )  # fmt: skip


def row_max_gauge(design: Design) -> Gauge:
    """Return the gauge in which every hidden neuron's largest incoming weight is 1."""
    scales = _row_max(chain_of(design))
    return Gauge(scales=tuple(scales), orders=tuple(np.arange(len(s)) for s in scales))


def null_directions(design: Design, x: Any) -> NullDirections:
    """Count the directions in cells' space along which no output at given inputs changes.

    Every weight and bias counts as one pair of cells. At inputs in general position, with
    every neuron on for some and off for others, there are exactly as many as hidden
    neurons and pairs; inputs that are constant, and neurons that never or always are on,
    add theirs.

    Raises TrainingError as ``chain_of``, InputError where samples x outputs are fewer than
    the weights and biases: the Jacobian's rank would be theirs.
    """
    layers = chain_of(design)
    signals, backs, _ = _signals(layers, _rows(design, x))
    columns = []
    for layer, signal, back in zip(layers, signals, backs, strict=True):
        columns.append(torch.einsum("noj,ni->noji", back, signal).flatten(2).flatten(0, 1))
        if layer.bias is not None:
            columns.append(back.flatten(0, 1))
    jacobian = torch.cat(columns, dim=1)
    rows, pairs = jacobian.shape
    if rows < pairs:
        raise InputError(
            f"{rows} values of outputs for {pairs} weights and biases",
            remedy=f"give at least {math.ceil(pairs / layers[-1].outputs)} samples",
        )
    sizes = torch.linalg.svdvals(jacobian)
    rank = int((sizes > sizes[0] * rows * torch.finfo(sizes.dtype).eps).sum())
    hidden = sum(layer.outputs for layer in layers[:-1])
    return NullDirections(found=2 * pairs - rank, gauge=hidden + pairs)


def chain_of(design: Design) -> list[Layer]:
    """Return the layers of a program that is linear maps with a ReLU between two of them.

    Before the first samples may be reshaped; what comes after the last does not matter.
    Raises TrainingError naming the operator, or the layer, that is something else.
    """
    program = design.program
    current = program.inputs[0].name
    layers: list[Layer] = []
    uses = sum(node.op == CROSSBAR for node in program.nodes)
    if len(program.inputs) != 1 or uses == 0:
        raise _no_chain("it has several inputs, or no layer", None)
    active, hidden = True, set[str]()
    for node in program.nodes:
        arguments = leaves((node.args, tuple(value for _, value in node.kwargs)))
        sources = [leaf.name for leaf in arguments if isinstance(leaf, Ref)]
        if len(layers) == uses:  # what comes after them sees the last one's results alone
            if hidden & set(sources):
                raise _no_chain(f"{node.op} takes what a hidden layer gives", node.name)
            continue
        if sources != [current]:
            raise _no_chain(f"{node.op} takes something else than what came before it", node.name)
        if node.op == CROSSBAR:
            layer = design.layer(node.args[0])
            if layer.convolution is not None or layer.groups != 1:
                raise _no_chain("it is no plain linear map", f"layer {layer.name!r}")
            if layer in layers:
                raise _no_chain("it is used twice", f"layer {layer.name!r}")
            if not active:
                raise _no_chain("no ReLU comes before it", f"layer {layer.name!r}")
            layers.append(layer)
            active = False
        elif node.op == _RELU and layers:
            active = True
        elif layers or node.op not in _SHAPING:
            raise _no_chain(f"{node.op} is neither a layer nor a ReLU", node.name)
        current = node.name
        if layers and len(layers) < uses:
            hidden.add(current)
    if hidden & set(program.results):
        raise _no_chain("what a hidden layer gives is an output", None)
    if math.prod(program.inputs[0].shape) != layers[0].inputs:
        raise _no_chain(
            f"it takes {layers[0].inputs} of {math.prod(program.inputs[0].shape)} inputs",
            f"layer {layers[0].name!r}",
        )
    return layers


def _no_chain(what: str, where: str | None) -> TrainingError:
    return TrainingError(
        f"the program is no chain of linear maps and ReLUs: {what}",
        where=where,
        remedy="only such a network's gauge is known here",
    )


def _row_max(layers: Sequence[Layer]) -> list[Array]:
    scales: list[Array] = []
    before = np.ones(layers[0].inputs)
    for layer in layers[:-1]:
        largest = np.abs(layer.weight[0] / before).max(axis=1)
        before = 1.0 / np.where(largest > 0, largest, 1.0)  # a neuron without inputs stays
        scales.append(before)
    return scales


def _rows(design: Design, x: Any) -> torch.Tensor:
    """Inputs as the first layer meets them, float64."""
    (array,) = as_inputs(design, x)
    return torch.as_tensor(array, dtype=torch.float64).reshape(len(array), -1)


def _signals(
    layers: Sequence[Layer], x: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor], torch.Tensor]:
    """Inputs of every layer (sample, input), ∂y/∂z (sample, output of the chain, output), y."""
    signals, masks, value = [], [], x
    weights = [torch.as_tensor(layer.weight[0]) for layer in layers]
    for k, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
        signals.append(value)
        value = value @ weight.T
        if layer.bias is not None:
            value = value + torch.as_tensor(layer.bias[0])
        if k < len(layers) - 1:
            masks.append((value > 0).to(value.dtype))
            value = value.relu()
    back = torch.eye(value.shape[1], dtype=value.dtype).expand(len(x), -1, -1)
    backs = [back]
    for weight, mask in zip(weights[:0:-1], masks[::-1], strict=True):
        back = (back @ weight) * mask[:, np.newaxis]
        backs.append(back)
    return signals, backs[::-1], value


class _Problem:
    """Expected variance of a chain's outputs as a function of its hidden neurons' scales."""

    def __init__(self, design: Design, x: Any) -> None:
        if design.mapping.slices > 1:
            raise TrainingError(
                "weights are spread over several cells", remedy="map with slices = 1"
            )
        self.layers = chain_of(design)
        signals, backs, y = _signals(self.layers, _rows(design, x))
        self._signals = [signal.square() for signal in signals]
        self._backs = [back.square().sum(1) for back in backs]
        self._weights = [torch.as_tensor(layer.weight[0]).abs() for layer in self.layers]
        self._rows_for_bias = design.mapping.bias == "row"
        self._power = float(y.square().sum(1).mean()) or 1.0
        self._table = weight_variance(design.technology)
        if not bool((self._table > 0).any()):
            raise TrainingError(
                "no cell of the technology has an error, so every gauge is as good",
                remedy="give it a programming_error or read_noise",
            )

    def error(self, scales: Sequence[Array]) -> float:
        """Rms error over the outputs' rms."""
        logs = [torch.as_tensor(np.log(scale)) for scale in scales]
        return math.sqrt(float(self._variance(logs, None)) / self._power)

    def minimise(self, start: Sequence[Array], steps: int) -> list[Array]:
        """Return scales of least variance, from a start."""
        from scipy.optimize import minimize

        cuts = np.cumsum([len(scale) for scale in start])[:-1]
        flat = np.log(np.concatenate(start)) if start else np.empty(0)

        def objective(values: Array, sharpness: float) -> tuple[float, Array]:
            leaf = torch.tensor(values, requires_grad=True)
            loss = self._variance(list(torch.tensor_split(leaf, cuts.tolist())), sharpness).log()
            (gradient,) = torch.autograd.grad(loss, leaf)
            return float(loss.detach()), gradient.numpy()

        for sharpness in _SHARPNESS if flat.size else ():
            flat = minimize(
                objective, flat, (sharpness,), "L-BFGS-B", jac=True, options={"maxiter": steps}
            ).x
        return [np.exp(part) for part in np.split(flat, cuts)] if start else []

    def _variance(self, logs: Sequence[torch.Tensor], sharpness: float | None) -> torch.Tensor:
        """Mean over data of the outputs' summed variance; the exact maximum where None."""
        total = torch.zeros((), dtype=torch.float64)
        for k, (layer, weight) in enumerate(zip(self.layers, self._weights, strict=True)):
            signal, back = self._signals[k], self._backs[k]
            if k > 0:
                weight = weight * (-logs[k - 1]).exp()
                signal = signal * (2 * logs[k - 1]).exp()
            if k < len(logs):
                weight = logs[k].exp()[:, np.newaxis] * weight
                back = back * (-2 * logs[k]).exp()
            largest = _largest(weight, sharpness)
            variance = signal @ self._share(weight / largest).T
            if layer.bias is not None and self._rows_for_bias:
                bias = torch.as_tensor(np.abs(layer.bias[0]))
                bias = bias * logs[k].exp() if k < len(logs) else bias
                scale = signal.max().sqrt()  # of an input that is driven at full scale
                lines = (bias.max() / (scale * largest)).clamp_min(1.0)
                share = self._share(bias / (lines * scale * largest))
                variance = variance + lines * scale.square() * share
            total = total + largest.square() * (variance * back).sum(1).mean()
        return total

    def _share(self, share: torch.Tensor) -> torch.Tensor:
        """Variance of a weight over the range, from its share of it."""
        at = share.clamp(max=1.0) * (_TABLE - 1)
        low = at.detach().floor().clamp(max=_TABLE - 2).long()
        return self._table[low] + (at - low) * (self._table[low + 1] - self._table[low])


def _largest(weight: torch.Tensor, sharpness: float | None) -> torch.Tensor:
    top = weight.detach().max()
    if sharpness is None or float(top) == 0.0:
        return weight.max().clamp_min(1e-300)
    return top * (weight / top).pow(sharpness).sum().pow(1 / sharpness)


def weight_variance(technology: Technology) -> torch.Tensor:
    """Variance of a weight over the largest weight's square, from |w| = 0 to the largest."""
    span = technology.g_max - technology.g_min
    share = np.linspace(0.0, 1.0, _TABLE)
    target = technology.g_min + span * np.stack([share, np.zeros(_TABLE)], axis=1)
    mean, sigma = manufactured_moments(technology, target)
    variance = np.square(sigma) + np.square(technology.read_noise) * (
        np.square(mean) + np.square(sigma)
    )
    return torch.as_tensor(variance.sum(axis=1) / span**2)


def _ordered(
    design: Design, x: Any, steps: int, seed: int
) -> tuple[tuple[Order, ...], float, float]:
    """Orders of hidden neurons against the wires, and the wires' error before and after."""
    layers = chain_of(design)
    keep = tuple(np.arange(layer.outputs) for layer in layers[:-1])
    technology = design.technology
    if not (
        technology.r_wordline or technology.r_bitline or technology.periphery.driver.resistance
    ):
        return keep, 0.0, 0.0
    # Wires alone: no errors of cells or converters.
    nominal = design.with_technology(periphery=Periphery(driver=technology.periphery.driver))
    nominal = replace(
        nominal, mapping=replace(design.mapping, input_bits=None, adc_bits=None, dac_bits=None)
    )
    rows = _rows(design, x)
    signals, _, y = _signals(layers, rows)
    (given,) = as_inputs(design, x)
    inputs = torch.as_tensor(given)
    power = float(y.square().mean()) or 1.0
    ones = tuple(np.ones(len(order)) for order in keep)

    def error(orders: tuple[Order, ...]) -> float:
        own = apply_gauge(nominal, Gauge(scales=ones, orders=orders))
        targets = {tile.name: tile.g_target for tile in own.tiles}
        with torch.no_grad():
            off = own.measured(targets, seed=0).to_torch()(inputs).double().reshape(y.shape) - y
        return math.sqrt(float(off.square().mean()) / power)

    before = error(keep)
    if steps == 0 or not keep:
        return keep, before, before
    best, least = keep, before
    rng = generator(seed, Purpose.TRAINING, layer=5)
    power_of = [signal.square().mean(0).numpy() for signal in signals[1:]]
    loads = [np.argsort(power, kind="stable") for power in power_of]
    tries: list[Callable[[tuple[Order, ...]], tuple[Order, ...]]] = [
        lambda _, loads=loads: tuple(loads),  # type: ignore[misc]
        lambda _, loads=loads: tuple(order[::-1] for order in loads),  # type: ignore[misc]
    ]
    for k in range(steps):
        new = tries[k](best) if k < len(tries) else _exchanged(best, rng)
        found = error(new)
        if found < least:
            best, least = new, found
    return best, before, least


def _exchanged(orders: tuple[Order, ...], rng: np.random.Generator) -> tuple[Order, ...]:
    """Exchange two neurons of one hidden layer."""
    changed = [order.copy() for order in orders]
    order = changed[int(rng.integers(len(changed)))]
    a, b = rng.integers(len(order), size=2)
    order[[a, b]] = order[[b, a]]
    return tuple(changed)
