"""Layers with a stochastic residual: what a layer does on a chip beyond what it computes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from spicenn.errors import InputError
from spicenn.training.draws import Draws

# Streams of one seed (``Draws.part``).
_NOISE, _START = 6, 7


class _Noisy(nn.Module):
    """What has noise of its own, drawn in ``train()``; its stream is part of the state_dict.

    Attributes
    ----------
    noisy : None draws in ``train()`` alone; True always, False never.
    """

    noisy: bool | None

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.noisy = None
        self._draws = Draws(seed, part=_NOISE)

    def _drawing(self) -> bool:
        return self.training if self.noisy is None else self.noisy

    def get_extra_state(self) -> torch.Tensor:
        """Where the noise's stream is; a uint8 tensor."""
        return self._draws.state()

    def set_extra_state(self, state: Any) -> None:
        """Go on where another stream was."""
        self._draws.restore(state.cpu())


class LiteralResidual(_Noisy):
    """r = f(x) + ε with ε ~ N(0, std²) per element and pass; with f = ReLU, r = ε + ReLU(x).

    Exactly that: the noise comes after the nonlinearity, so that r may be negative, has the
    same spread for every x, and no parameters. With ``skip`` the layer's result is
    f(x) + (ε + ReLU(x)) instead, which takes an f that keeps the shape of x; that ReLU is
    part of the network, so it stays in ``eval()``.

    Parameters
    ----------
    layer : f; ReLU where left out.
    std : standard deviation of ε, in the units of the layer's result.
    skip : add ReLU(x) to the layer's result.
    seed : of ε. Layers with one seed have the same noise: give each its own.

    Raises InputError for a std that is not a finite number of at least 0, or a bad seed.
    """

    def __init__(
        self, layer: nn.Module | None = None, *, std: float, skip: bool = False, seed: int = 0
    ) -> None:
        super().__init__(seed)
        if not 0 <= std < math.inf:
            raise InputError(f"std = {std!r} is not a finite number of at least 0")
        self.layer = nn.ReLU() if layer is None else layer
        self.std, self.skip = std, skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return r for x. Raises InputError where ``skip`` meets a result of another shape."""
        y: torch.Tensor = self.layer(x)
        if self.skip:
            if y.shape != x.shape:
                raise InputError(
                    f"a result of shape {tuple(y.shape)} cannot have ReLU(x) of "
                    f"{tuple(x.shape)} added",
                    remedy="use skip=False",
                )
            y = y + functional.relu(x)
        if self.std and self._drawing():
            y = y + self.std * self._draws.normal(y.shape, y)
        return y

    def extra_repr(self) -> str:
        return f"std={self.std}, skip={self.skip}"


class StochasticResidual(_Noisy):
    """y = f(x) + μ(x, c) + σ(x, c) ⊙ ξ with ξ ~ N(0, 1) per element and pass.

    f is any layer; μ and σ are one small network of x and of a context c of the chip (none:
    of x alone), tanh between two linear maps. At first μ = 0 and σ = ``spread`` everywhere.
    In ``train()`` ξ is drawn; in ``eval()`` it is 0 and the result f + μ, unless ``noisy``
    says otherwise.

    Fit μ and σ to measured results with ``nll``, then train the network with
    ``residual.head.requires_grad_(False)``. A task's own loss, free to change σ, makes it
    small: noise only costs it.

    Parameters
    ----------
    layer : f.
    features : length of x along ``dim``. outputs : of f(x); None is as many.
    context : length of c, 0 for none.
    hidden : width of the network of μ and σ.
    spread : σ at first; floor : what σ never falls below. In the units of f(x).
    dim : the axis of features, in x and f(x); their other axes agree. -1 for linear maps, 1
        for images, each position by itself.
    seed : of ξ and of the network's first weights. Layers with one seed have the same noise.

    Attributes
    ----------
    layer, head : f, and the network of μ and σ.
    chip : c where a call gives none; a buffer, (context,), zeros at first.

    Raises InputError for sizes or spreads that are not allowed.
    """

    chip: torch.Tensor

    def __init__(
        self,
        layer: nn.Module,
        *,
        features: int,
        outputs: int | None = None,
        context: int = 0,
        hidden: int = 16,
        spread: float = 0.1,
        floor: float = 1e-4,
        dim: int = -1,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        outputs = features if outputs is None else outputs
        if min(features, outputs, hidden) < 1 or context < 0:
            raise InputError(
                f"features {features}, outputs {outputs}, hidden {hidden}, context {context}: "
                "sizes are at least 1, a context at least 0"
            )
        if not 0 < floor < spread < math.inf:
            raise InputError(f"spread {spread} and floor {floor} are not 0 < floor < spread")
        self.layer, self.dim, self.floor = layer, dim, floor
        self.features, self.outputs = features, outputs
        self.register_buffer("chip", torch.zeros(context))
        first, last = nn.Linear(features + context, hidden), nn.Linear(hidden, 2 * outputs)
        self.head = nn.Sequential(first, nn.Tanh(), last)
        start = Draws(seed, part=_START)
        with torch.no_grad():
            bound = 1 / math.sqrt(features + context)  # torch's own for a linear map
            first.weight.copy_((2 * start.uniform(first.weight) - 1) * bound)
            first.bias.copy_((2 * start.uniform(first.bias) - 1) * bound)
            last.weight.zero_()
            last.bias.zero_()
            # softplus of it is spread - floor.
            last.bias[outputs:] = math.log(math.expm1(spread - floor))

    def forward(self, x: torch.Tensor, c: torch.Tensor | None = None) -> torch.Tensor:
        """Return y.

        Parameters
        ----------
        x : what f takes. c : (context,), or (sample, context); None is ``chip``.

        Raises InputError for an x, a c or an f(x) that does not fit.
        """
        mean, std = self.moments(x, c)
        if not self._drawing():
            return mean
        return mean + std * self._draws.normal(mean.shape, mean)

    def moments(
        self, x: torch.Tensor, c: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return f(x) + μ and σ, each of the shape of f(x). Raises as ``forward``."""
        y: torch.Tensor = self.layer(x)
        if x.ndim < 1 or x.shape[self.dim] != self.features:
            raise InputError(
                f"x of shape {tuple(x.shape)} has not {self.features} features along {self.dim}"
            )
        rows = self._with_context(x.movedim(self.dim, -1), c)
        mean, raw = self.head(rows).movedim(-1, self.dim).chunk(2, self.dim)
        if mean.shape != y.shape:
            raise InputError(
                f"the layer's result has shape {tuple(y.shape)}, its residual {tuple(mean.shape)}",
                remedy="say how many outputs there are; other axes must stay as they are",
            )
        return y + mean, self.floor + functional.softplus(raw)

    def _with_context(self, rows: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        c = self.chip if c is None else c
        if (
            c.shape[-1] != self.chip.shape[-1]
            or c.ndim > 2
            or (c.ndim == 2 and len(c) != len(rows))
        ):
            raise InputError(
                f"a context of shape {tuple(c.shape)} is neither ({len(self.chip)},) nor "
                f"({len(rows)}, {len(self.chip)})"
            )
        if c.ndim == 2:
            c = c.reshape(len(c), *[1] * (rows.ndim - 2), c.shape[-1])
        return torch.cat([rows, c.to(rows).expand(*rows.shape[:-1], -1)], dim=-1)

    def nll(
        self,
        x: torch.Tensor,
        y_target: torch.Tensor,
        c: torch.Tensor | None = None,
        *,
        beta: float = 0.0,
    ) -> torch.Tensor:
        """Return the mean over elements of -ln N(y_target; f(x) + μ, σ²), in nats.

        With ``beta`` > 0 every element is weighted by σ^(2 beta), through which no gradient
        goes: β-NLL (Seitzer et al., ICLR 2022), whose 0.5 keeps elements of large σ from
        being given up; its value is then no likelihood any more.

        Raises InputError as ``forward``, for a target of another shape, and a beta outside
        0 … 1.
        """
        mean, std = self.moments(x, c)
        if y_target.shape != mean.shape or not 0 <= beta <= 1:
            raise InputError(
                f"target of shape {tuple(y_target.shape)} and beta {beta}, where the result has "
                f"shape {tuple(mean.shape)} and beta is in 0 … 1"
            )
        loss = 0.5 * math.log(2 * math.pi) + std.log() + 0.5 * ((y_target - mean) / std).square()
        if beta:
            loss = loss * std.detach() ** (2 * beta)
        return loss.mean()

    def extra_repr(self) -> str:
        return f"features={self.features}, outputs={self.outputs}, context={len(self.chip)}"
