"""Leaky integrate-and-fire neurons in discrete time, to train a network with that circuits run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spicenn.errors import InputError
from spicenn.periphery.lif import Lif

# Where two times are the same but for rounding, over a step.
_SAME = 1e-9


class LIF(nn.Module):
    """Leaky integrate-and-fire neurons, one per feature; time is the first axis.

    A membrane is in units of the way from rest to threshold, so that it fires at 1 and
    goes back to 0, as in ``netlists/lif.lib`` an input spike through a weight w lifts it
    by w: v ← max(v exp(-dt/τ) + x, floor), with the exact leak of a step. A neuron that
    has fired ignores its inputs in those of the next steps that begin within its refractory
    time.

    The gradient of a spike is that of a fast sigmoid, 1/(1 + slope |v - 1|)²: F. Zenke and
    S. Ganguli, SuperSpike, Neural Computation 30, 1514, 2018. The reset has none.

    Parameters
    ----------
    dt : of a step [s].
    tau : time constant of the leak [s].
    refractory : [s].
    floor : lower bound of a membrane, at most 0.
    slope : of the surrogate gradient.

    Raises InputError for a number out of range.
    """

    def __init__(
        self,
        *,
        dt: float,
        tau: float | None = None,
        refractory: float | None = None,
        floor: float | None = None,
        slope: float = 10.0,
    ) -> None:
        super().__init__()
        like = Lif()
        self.dt = _positive("dt", dt)
        self.tau = _positive("tau", like.tau if tau is None else tau)
        self.slope = _positive("slope", slope)
        self.refractory = float(like.refractory if refractory is None else refractory)
        if not 0 <= self.refractory < math.inf:
            raise InputError(f"refractory = {refractory!r} is not a duration", where="LIF")
        self.floor = float((like.v_floor - like.v_rest) / like.swing if floor is None else floor)
        if not self.floor <= 0:
            raise InputError(f"floor = {floor!r} is above rest, which is 0", where="LIF")

    @classmethod
    def like(cls, neuron: Lif, *, dt: float, slope: float = 10.0) -> LIF:
        """Neurons with a circuit's time constant, refractory time and floor."""
        return cls(
            dt=dt,
            tau=neuron.tau,
            refractory=neuron.refractory,
            floor=(neuron.v_floor - neuron.v_rest) / neuron.swing,
            slope=slope,
        )

    def circuit(self, base: Lif) -> Lif:
        """A circuit with this time constant, refractory time and floor, otherwise as ``base``.

        Raises InputError where no values of its devices give them.
        """
        if self.refractory == 0:
            raise InputError(
                "a circuit takes some time to be reset", where="LIF", remedy="refractory above 0"
            )
        v_floor = base.v_rest + self.floor * base.swing
        if not 0 < v_floor < base.v_rest:
            raise InputError(
                f"a floor of {self.floor:g} is at {v_floor:g} V",
                where="LIF",
                remedy=f"between {-base.v_rest / base.swing:g} and 0, both excluded",
            )
        return replace(
            base,
            r_leak=base.r_leak * self.tau / base.tau,
            i_ref=base.i_ref * base.refractory / self.refractory,
            v_floor=v_floor,
        )

    @property
    def ignored(self) -> int:
        """Steps after a spike's in which inputs are ignored."""
        return max(0, math.ceil(self.refractory / self.dt - _SAME) - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Spikes (time, …), 0 or 1, for inputs (time, …), weighted spikes of every step."""
        return self.trace(x)[0]

    def trace(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spikes, and membranes as they are before a spike resets them, both (time, …)."""
        if x.ndim < 2:
            raise InputError(
                f"an input of shape {tuple(x.shape)} has no time before its features",
                where="LIF",
                remedy="give (time, batch, feature)",
            )
        keep = math.exp(-self.dt / self.tau)
        v = torch.zeros_like(x[0])
        held = torch.zeros_like(x[0], dtype=torch.int64)
        spikes, membranes = [], []
        for step in x.unbind(0):
            v = torch.clamp(v * keep + step, min=self.floor)
            v = torch.where(held > 0, torch.zeros_like(v), v)
            spike: Tensor = _Fire.apply(v - 1.0, self.slope)  # type: ignore[no-untyped-call]
            spikes.append(spike)
            membranes.append(v)
            fired = spike.detach() > 0
            v = torch.where(fired, torch.zeros_like(v), v)
            held = torch.where(fired, self.ignored, torch.clamp(held - 1, min=0))
        return torch.stack(spikes), torch.stack(membranes)

    def extra_repr(self) -> str:
        return (
            f"dt={self.dt:g}, tau={self.tau:g}, refractory={self.refractory:g}, "
            f"floor={self.floor:g}"
        )


class _Fire(torch.autograd.Function):
    """A step at 0, with the gradient of a fast sigmoid."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.slope = slope
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradients[0] / (1.0 + ctx.slope * x.abs()) ** 2, None


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise InputError(f"{name} = {value!r} is not above 0", where="LIF")
    return float(value)
