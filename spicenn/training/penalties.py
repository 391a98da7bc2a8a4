"""Physics as terms of a loss: ranges, resolutions and sensitivity. All of them differentiate.

Terms for values are dimensionless, in parts of the range or of a step, and 0 where the
hardware reaches a value; multiply them with a weight and add them to the task's loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from spicenn.compiler.convolution import multiply, unfold
from spicenn.errors import InputError
from spicenn.training.analog import analog_layers
from spicenn.training.draws import Draws
from spicenn.training.layers import Analog

Limits = float | Mapping[str, float] | None

# Stream of random projections (``Draws.part``).
PROJECTIONS = 8

_WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


def range_penalty(x: torch.Tensor, low: Any, high: Any) -> torch.Tensor:
    """Return the mean over elements of (excess / (high - low))².

    The excess is how far an element lies outside [low, high], 0 within. ``low`` and ``high``
    are numbers or tensors in the units of x that broadcast. Raises InputError unless
    low < high.
    """
    low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in (low, high))
    if not bool((low < high).all()):
        raise InputError("a range whose low end is not below its high end")
    excess = (x - high).clamp_min(0) + (low - x).clamp_min(0)
    result: torch.Tensor = (excess / (high - low)).square().mean()
    return result


def step_penalty(x: torch.Tensor, low: Any, high: Any, levels: int) -> torch.Tensor:
    """Return the mean over elements of (distance to the nearest level / step)².

    Levels divide [low, high] evenly, both ends included; ``levels`` = 2^b of b bits. At most
    1/4 within the range, and 1/12 on the average of evenly spread values. The gradient is
    that of the distance to the level that is nearest now. Raises InputError for fewer than
    two levels, or unless low < high.
    """
    if levels < 2:
        raise InputError(f"{levels} levels are fewer than two")
    low, high = (torch.as_tensor(bound, dtype=x.dtype, device=x.device) for bound in (low, high))
    if not bool((low < high).all()):
        raise InputError("a range whose low end is not below its high end")
    position = (x - low) * ((levels - 1) / (high - low))
    nearest = position.detach().round().clamp(0, levels - 1)
    result: torch.Tensor = (position - nearest).square().mean()
    return result


def weight_range_penalty(net: nn.Module, limit: Limits = None) -> torch.Tensor:
    """Return ``range_penalty`` of all weights of linear maps and convolutions in ± limit.

    Parameters
    ----------
    net : any module; the mean is over all weights of all its layers.
    limit : w_max, the weight of the whole conductance range (g_max - g_min), in the model's
        units; one for all, or by a module's name. None is what the design of analog layers
        was compiled with (``Layer.weight_scale``).

    Raises InputError for a layer without a limit, or a limit that is not above 0.
    """
    total: Any = 0.0
    count = 0
    for name, layer in _layers(net):
        bound = _limit(name, layer, limit)
        total = total + range_penalty(layer.weight, -bound, bound) * layer.weight.numel()
        count += layer.weight.numel()
    return total / count  # type: ignore[no-any-return]


def bit_depth_penalty(net: nn.Module, bits: int, limit: Limits = None) -> torch.Tensor:
    """Return ``step_penalty`` of all weights, mean over all of them.

    Levels are those of analog layers with ``weight_bits``: zero and 2^(bits - 1) - 1
    magnitudes of either sign up to the limit, 2^bits - 1 in all (the last of 2^bits would
    have no partner). For other levels use ``step_penalty``.

    Parameters
    ----------
    limit : as of ``weight_range_penalty``; None is each layer's largest weight as it is,
        through which no gradient goes.

    Raises InputError for fewer than two bits, and as ``weight_range_penalty``.
    """
    if bits < 2:
        raise InputError(f"{bits} bits are fewer than two: one is the sign")
    total: Any = 0.0
    count = 0
    for name, layer in _layers(net):
        if limit is None:
            bound = float(layer.weight.detach().abs().amax()) or 1.0
        else:
            bound = _limit(name, layer, limit)
        term = step_penalty(layer.weight, -bound, bound, 2**bits - 1)
        total = total + term * layer.weight.numel()
        count += layer.weight.numel()
    return total / count  # type: ignore[no-any-return]


class SignalRanges:
    """Ranges that signals left in the passes of a ``watched_signals`` block."""

    def __init__(self) -> None:
        self._inputs: list[torch.Tensor] = []
        self._outputs: list[torch.Tensor] = []

    def inputs(self) -> torch.Tensor:
        """``range_penalty`` of layers' inputs beyond full scale, mean over passes of layers."""
        return _mean(self._inputs)

    def outputs(self) -> torch.Tensor:
        """That of what arrives at converters, beyond what they convert."""
        return _mean(self._outputs)


@contextmanager
def watched_signals(net: nn.Module) -> Iterator[SignalRanges]:
    """Yield what collects how far signals leave their ranges while an analog network computes.

    ``with watched_signals(net) as ranges: y = net(x)``, then add ``ranges.inputs()`` and
    ``ranges.outputs()``. A layer's inputs have full scale at ``input_range``, on one side of
    0 unless they are signed; a converter ends at ``output_range`` for every row of tiles
    (``Analog``), and what arrives there is taken from the weights as they are. Where an
    ``Awareness`` has ``ranges="track"`` ranges follow the signals, and there is nothing to
    penalise: use ``"fixed"`` or ``"learn"``.

    Raises TrainingError for a network without analog layers.
    """
    found = SignalRanges()

    def look(layer: nn.Module, given: tuple[Any, ...]) -> None:
        assert isinstance(layer, Analog)
        x = given[0]
        full = layer.input_range.detach()
        found._inputs.append(range_penalty(x, -full if layer.physics.layer.signed else 0.0, full))
        found._outputs.append(_beyond_converters(layer, x))

    hooks = [layer.register_forward_pre_hook(look) for layer in analog_layers(net).values()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def jacobian_penalty(
    net: nn.Module,
    x: torch.Tensor,
    *,
    projections: int | None = None,
    draws: Draws | None = None,
    squared: bool = False,
) -> torch.Tensor:
    """Return the mean over samples of ‖∂f/∂x‖, Frobenius; the λ|∂f/∂x| of a loss without its λ.

    Units are outputs over inputs, squared with ``squared`` (Hoffman, Roberts, Yaida,
    arXiv:1908.02729, have half of that). It can be differentiated by the parameters. Samples
    must not depend on each other.

    Parameters
    ----------
    net : what takes x and returns one tensor; in ``train()`` its noise is drawn once more.
    x : (sample, …) floats.
    projections : None is exact, a backward pass per output. Else an estimate from so many
        passes: ‖vᵀ ∂f/∂x‖² C for v evenly on the unit sphere of the C outputs, which has the
        right mean (Hutchinson). Its root, without ``squared``, is too small on the average.
    draws : where v comes from, e.g. ``Draws(seed, part=PROJECTIONS)``, kept from step to
        step; needed with ``projections``.

    Raises InputError for projections without draws or below 1, or where net(x) is not a
    tensor of samples.
    """
    x = x.detach().requires_grad_()
    y = net(x)
    if not isinstance(y, torch.Tensor) or y.ndim < 1 or len(y) != len(x):
        raise InputError("the network's result is not one tensor of samples")
    flat = y.reshape(len(y), -1)
    if projections is None:
        cotangents = torch.eye(flat.shape[1], dtype=y.dtype, device=y.device)
        vectors = [row.expand_as(flat) for row in cotangents]
        weight = 1.0
    else:
        if projections < 1 or draws is None:
            raise InputError(
                f"{projections} projections and draws {draws!r}",
                remedy="at least one, and draws=Draws(seed, part=PROJECTIONS)",
            )
        vectors = [_on_sphere(draws, flat) for _ in range(projections)]
        weight = flat.shape[1] / projections
    total = torch.zeros(len(x), dtype=y.dtype, device=y.device)
    for vector in vectors:
        (slope,) = torch.autograd.grad(
            flat, x, vector, create_graph=True, retain_graph=True, materialize_grads=True
        )
        total = total + slope.reshape(len(x), -1).square().sum(1)
    total = total * weight
    if not squared:
        # The root has no slope at 0: a sample without derivative stays without.
        total = torch.where(total > 0, total.clamp_min(torch.finfo(total.dtype).tiny).sqrt(), 0.0)
    return total.mean()


def _on_sphere(draws: Draws, like: torch.Tensor) -> torch.Tensor:
    drawn = draws.normal(like.shape, like)
    result: torch.Tensor = drawn / drawn.norm(dim=1, keepdim=True)
    return result


def _beyond_converters(layer: Analog, x: torch.Tensor) -> torch.Tensor:
    """``range_penalty`` of every row of tiles' results; biases are in the last one."""
    physics, own = layer.physics, layer.physics.layer
    levels = layer.settings.output_levels
    full = layer.output_range.detach() * layer.scale() * layer.input_range.detach()
    low, high = (-full if levels is None else -full * (levels + 1) / levels), full
    bias = layer.bias if physics.bias_rows else None
    cuts = [cut for cut in physics.row_cuts if cut.start < own.inputs]
    if len(cuts) == 1:
        return range_penalty(multiply(x, own, layer.weight, bias), low, high)
    rows = unfold(x, own)
    matrix = layer.weight.reshape(own.groups, own.outputs, own.inputs)
    parts = []
    for k, cut in enumerate(cuts):
        inputs = slice(cut.start, min(cut.stop, own.inputs))
        part = torch.einsum("...gi,goi->...go", rows[..., inputs], matrix[..., inputs])
        if bias is not None and k == len(cuts) - 1:
            part = part + bias.reshape(own.groups, own.outputs)
        parts.append(range_penalty(part, low, high))
    return _mean(parts)


def _mean(terms: list[torch.Tensor]) -> torch.Tensor:
    if not terms:
        raise InputError("no pass was watched", remedy="compute the network within the block")
    return torch.stack(terms).mean()


def _layers(net: nn.Module) -> list[tuple[str, Any]]:
    found = [(name, part) for name, part in net.named_modules() if isinstance(part, _WEIGHTED)]
    if not found:
        raise InputError(f"a {type(net).__name__} without linear maps or convolutions")
    return found


def _limit(name: str, layer: Any, limit: Limits) -> float:
    value: Any = limit.get(name) if isinstance(limit, Mapping) else limit
    if value is None and isinstance(layer, Analog):
        value = layer.physics.layer.weight_scale
    if value is None or not value > 0:
        raise InputError(
            f"layer {name!r} has the limit {value!r}", remedy="give the largest weight, above 0"
        )
    return float(value)
