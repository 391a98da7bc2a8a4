"""Current laws of cells: i(u) at the voltage u between wordline and bitline.

A law is a frozen record with three functions of (u, g), NumPy arrays or torch
tensors of one shape alike. Any monotone law with a continuous derivative will do; one
that runs up an exponential takes a step of Newton's for each of its scale voltages.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spicenn.errors import InputError


class Law(Protocol):
    """What the solvers ask of a cell. u in volts, g in siemens."""

    def current(self, u: Any, g: Any) -> Any:
        """i [A]; odd or not, never decreasing in u."""
        ...

    def slope(self, u: Any, g: Any) -> Any:
        """∂i/∂u [S], at least 0."""
        ...

    def sensitivity(self, u: Any, g: Any) -> Any:
        """∂i/∂g [V]."""
        ...


@dataclass(frozen=True)
class Ohmic:
    """i = g u."""

    def current(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        return g * u

    def slope(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        return g + 0.0 * u

    def sensitivity(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        return u + 0.0 * g


@dataclass(frozen=True)
class Sinh:
    """i = g v0 sinh(u / v0), on along its tangent beyond |u| = bound · v0.

    The law of the cell ``sinh`` in ``netlists``; g is the conductance at 0 V. Source:
    Yu, Wu, Wong, Applied Physics Letters 98, 103514 (2011), I ~ sinh(V/V0).

    Parameters
    ----------
    v0 : voltage scale of the conduction [V].
    bound : where the tangent begins, in units of v0.
    """

    v0: float = 0.25
    bound: float = 3.0

    def __post_init__(self) -> None:
        for name, value in (("v0", self.v0), ("bound", self.bound)):
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise InputError(f"{name} = {value!r} is not finite and positive", where="Sinh")

    def current(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        return g * self.sensitivity(u, g)

    def slope(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        xp = namespace(u)
        return g * xp.cosh(xp.clip(u / self.v0, -self.bound, self.bound))

    def sensitivity(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        xp = namespace(u)
        x = u / self.v0
        inside = xp.clip(x, -self.bound, self.bound)
        return self.v0 * (xp.sinh(inside) + math.cosh(self.bound) * (x - inside))


def is_tensor(x: Any) -> bool:
    """True for a torch tensor; never loads torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def namespace(x: Any) -> Any:
    """Return torch for a tensor, NumPy for anything else."""
    return sys.modules["torch"] if is_tensor(x) else np
