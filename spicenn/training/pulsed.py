"""Updates as a crossbar's cells take them: a whole number of pulses, between soft bounds.

A pulse changes a weight by Δw = ±Δw_min (1 ∓ w/w_b): less, the nearer the bound that it goes
to (soft bounds: Fusi and Abbott, Nat. Neurosci. 10, 485, 2007; pulsed training of crossbars:
Gokmen and Vlasov, Front. Neurosci. 10, 333, 2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, overload

import torch

from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator
from spicenn.training.draws import Draws

# Parts of Purpose.TRAINING: which way a fraction of a pulse falls, and what cells are like.
_ROUNDING, _CELLS = 9, 10


def pulsed(w: torch.Tensor, pulses: torch.Tensor, up: Any, down: Any, bound: Any) -> torch.Tensor:
    """Return weights after pulses, exactly: w_n = ±w_b - (±w_b - w_0) (1 - Δ/w_b)^n.

    Parameters
    ----------
    w : weights, within ± bound. pulses : how many, negative for down; broadcasts.
    up, down : Δw_min of a pulse upwards and downwards at w = 0, above 0 and at most the bound.
    bound : w_b, above 0. In the units of w, numbers or tensors.
    """
    count = pulses.abs().to(w.dtype)
    up, down, bound = (
        torch.as_tensor(value, dtype=w.dtype, device=w.device) for value in (up, down, bound)
    )
    rising = pulses > 0
    end = torch.where(rising, bound, -bound)
    left = (1 - torch.where(rising, up, down) / bound).clamp_min(0) ** count
    return torch.where(pulses == 0, w, end - (end - w) * left)


def symmetric_point(up: Any, down: Any, bound: Any) -> Any:
    """Return the weight at which a pulse up and one down have the same size.

    w_b (Δ⁺ - Δ⁻) / (Δ⁺ + Δ⁻): where alternating pulses lead to, and random ones on the average.
    """
    return bound * (up - down) / (up + down)


class PulsedSGD(torch.optim.Optimizer):
    """Gradient descent in whole pulses.

    A step asks a weight for n = -lr · gradient / Δw_min pulses, with the nominal Δw_min (the
    controller does not know the cells); n is rounded up or down at random so that its mean is
    right, limited to ± max_pulses, and the cell does what its own Δw_min and bounds make of
    it. Weights beyond their bounds at the start are put there.

    Parameters
    ----------
    params : parameters or groups of them; all that follow may differ between groups.
    lr : learning rate, under torch's name for its schedulers.
    step : Δw_min, in the weights' units; None for a group in digital memory (biases, learnt
        ranges), which plain gradient descent then trains.
    bound : w_b.
    asymmetry : a in Δ⁺ = Δw_min (1 + a), Δ⁻ = Δw_min (1 - a); -1 < a < 1.
    spread_step, spread_bound : standard deviation over cells of ln Δw_min and of ln w_b, around
        the nominal values as medians. A cell's Δw_min is at most its w_b.
    max_pulses : the most that one step may ask for.
    seed : of the cells (drawn in NumPy) and of the rounding.

    ``state_dict`` carries the cells, the pulses so far (``state[p]["pulses"]``, int64, what
    they wear) and the rounding's stream.

    Raises InputError naming the value and what is allowed.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.1,
        step: float | None = 1e-3,
        bound: float = 1.0,
        asymmetry: float = 0.0,
        spread_step: float = 0.0,
        spread_bound: float = 0.0,
        max_pulses: int = 31,
        seed: int = 0,
    ) -> None:
        self._seed, self._draws, self._cells = seed, Draws(seed, part=_ROUNDING), 0
        defaults = {
            "lr": lr,
            "step": step,
            "bound": bound,
            "asymmetry": asymmetry,
            "spread_step": spread_step,
            "spread_bound": spread_bound,
            "max_pulses": max_pulses,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, its cells drawn. Raises InputError for values that are not allowed."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check(group)
        except InputError:
            self.param_groups.pop()
            raise
        if group["step"] is None:
            return
        for p in group["params"]:
            self.state[p] = self._made(p, group)
            with torch.no_grad():
                bound = self.state[p]["bound"]
                p.copy_(torch.maximum(torch.minimum(p, bound), -bound))

    def _made(self, p: torch.Tensor, group: dict[str, Any]) -> dict[str, torch.Tensor]:
        """What the cells of one parameter are like."""
        rng = generator(self._seed, Purpose.TRAINING, layer=_CELLS, row=self._cells)
        self._cells += 1
        factors = [
            torch.as_tensor(rng.standard_normal(p.shape)).mul_(group[f"spread_{key}"]).exp_().to(p)
            for key in ("step", "bound")
        ]
        bound = group["bound"] * factors[1]
        sides = [
            torch.minimum(group["step"] * (1 + sign * group["asymmetry"]) * factors[0], bound)
            for sign in (1, -1)
        ]
        return {
            "up": sides[0],
            "down": sides[1],
            "bound": bound,
            "pulses": torch.zeros(p.shape, dtype=torch.int64, device=p.device),
        }

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Pulse every weight that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if group["step"] is None:
                    p.add_(p.grad, alpha=-group["lr"])
                    continue
                cells = self.state[p]
                wanted = p.grad * (-group["lr"] / group["step"])
                most = group["max_pulses"]
                count = (wanted + self._draws.uniform(wanted)).floor_().clamp_(-most, most)
                p.copy_(pulsed(p, count, cells["up"], cells["down"], cells["bound"]))
                cells["pulses"] += count.abs().to(torch.int64)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """See the class; torch reads it with ``weights_only=True``."""
        return {**super().state_dict(), "stream": self._draws.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where another optimiser of the same groups was."""
        rest = dict(state_dict)
        stream = rest.pop("stream")
        super().load_state_dict(rest)
        # torch gives everything the parameter's dtype, which does not hold every count.
        order = [p for group in self.param_groups for p in group["params"]]
        for index, saved in rest["state"].items():
            self.state[order[index]]["pulses"] = saved["pulses"].to(order[index].device)
        self._draws.restore(stream.cpu())


def _check(group: dict[str, Any]) -> None:
    def number(key: str, low: float, high: float, *, open_low: bool) -> None:
        value = group[key]
        good = isinstance(value, int | float) and (low < value if open_low else low <= value)
        if not good or not value < high:
            raise InputError(
                f"{key} = {value!r} is not a number "
                f"{'above' if open_low else 'of at least'} {low} and below {high}"
            )

    number("lr", 0.0, math.inf, open_low=True)
    number("bound", 0.0, math.inf, open_low=True)
    if group["step"] is not None:
        number("step", 0.0, group["bound"], open_low=True)
    number("asymmetry", -1.0, 1.0, open_low=True)
    number("spread_step", 0.0, math.inf, open_low=False)
    number("spread_bound", 0.0, math.inf, open_low=False)
    most = group["max_pulses"]
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise InputError(f"max_pulses = {most!r} is not an integer of at least 1")
