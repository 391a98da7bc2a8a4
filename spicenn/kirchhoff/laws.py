"""Current laws of cells: i(u) at the voltage u between wordline and bitline.

A law is a frozen record with functions of (u, g), NumPy arrays or torch tensors alike.
Its fields are the parameters of the cell's subcircuit: numbers that all cells have in
common, or arrays that broadcast with u and g where cells differ. Any monotone law with a
continuous derivative will do; one that runs up an exponential takes a step of Newton's
for each of its scale voltages. The cells with a transistor are in ``transistors``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from spicenn.arrays import is_tensor, namespace
from spicenn.errors import InputError


class Law(Protocol):
    """What the solvers ask of a cell of two terminals. u in volts, g in siemens.

    A linear one may have ``conductance(g)`` [S] as well, and is solved as what it is.
    """

    def current(self, u: Any, g: Any) -> Any:
        """i [A]; odd or not, never decreasing in u."""
        ...

    def slope(self, u: Any, g: Any) -> Any:
        """∂i/∂u [S], at least 0."""
        ...

    def sensitivity(self, u: Any, g: Any) -> Any:
        """∂i/∂g [V]."""
        ...


class GatedLaw(Protocol):
    """A cell whose gate is referred to the ground: i depends on the bitline's node too.

    b in volts is that node's voltage, and u + b the wordline's.
    """

    def current(self, u: Any, g: Any, b: Any) -> Any:
        """i [A]; at constant b never decreasing in u."""
        ...

    def slope(self, u: Any, g: Any, b: Any) -> Any:
        """∂i/∂u [S] at constant b, at least 0."""
        ...

    def transconductance(self, u: Any, g: Any, b: Any) -> Any:
        """∂i/∂b [S] at constant u; at most the slope."""
        ...

    def sensitivity(self, u: Any, g: Any, b: Any) -> Any:
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
    bound : where the tangent begins, in units of v0; one number for all cells.
    """

    v0: Any = 0.25
    bound: float = 3.0

    def __post_init__(self) -> None:
        check_values(self, positive=("v0", "bound"))

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


@dataclass(frozen=True)
class Pcm:
    """i = g ((t + t0) / t0)^-nu u: a phase-change cell, t after it was programmed.

    The law of the cell ``pcm`` in ``netlists``; g is the conductance at the reference
    read. Source: Ielmini et al., IEEE Trans. Electron Devices 56, 1070 (2009), and the
    form of Nandakumar et al., ICECS 2019.

    Parameters
    ----------
    nu : exponent of the drift.
    t, t0 : time since programming, and of the reference read [s].
    """

    nu: Any = 0.0
    t: Any = 0.0
    t0: Any = 20.0

    def __post_init__(self) -> None:
        check_values(self, positive=("t0",), finite=("nu",), not_negative=("t",))

    def conductance(self, g: Any) -> Any:
        """Conductance [S] at the time t."""
        return g * self._factor()

    def current(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        return self.conductance(g) * u

    def slope(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        return self.conductance(g) + 0.0 * u

    def sensitivity(self, u: Any, g: Any) -> Any:
        """See ``Law``."""
        return self._factor() * u + 0.0 * g

    def _factor(self) -> Any:
        return ((self.t + self.t0) / self.t0) ** -self.nu


@dataclass(frozen=True, eq=False)
class Split:
    """A gated cell's di = ∂i/∂u du + ∂i/∂b db as slope · du and a correction by one node.

    Of the two ends' own derivatives the slope is the larger, so that a saturated cell
    still holds the nodes that it alone connects. What is left is tail · dw at the
    wordline's node where tail = ∂i/∂b is negative, tail · db at the bitline's elsewhere.
    """

    slope: Any
    tail: Any

    def correction(self, on_wordline: Any, on_bitline: Any) -> Any:
        """Current [A] that the slope leaves out, for changes of the nodes' voltages."""
        xp = namespace(self.tail)
        return self.tail * xp.where(self.tail < 0, on_wordline, on_bitline)

    def at_nodes(self, current: Any) -> tuple[Any, Any]:
        """Each cell's current [A] at the one of its nodes that the correction is by."""
        xp = namespace(current)
        zero = xp.zeros_like(current)
        negative = self.tail < 0
        return xp.where(negative, current, zero), xp.where(negative, zero, current)


@dataclass(frozen=True, eq=False)
class Cells:
    """Cells of some arrays: a law at conductances g, as functions of their nodes' voltages.

    u and b are as in ``GatedLaw``; a law of two terminals takes no notice of b.
    """

    law: Law | GatedLaw
    g: Any

    @property
    def gated(self) -> bool:
        """Whether the current depends on b."""
        return hasattr(self.law, "transconductance")

    def current(self, u: Any, b: Any) -> Any:
        """i [A]."""
        return self._call("current", u, b)

    def slope(self, u: Any, b: Any) -> Any:
        """∂i/∂u [S] at constant b."""
        return self._call("slope", u, b)

    def sensitivity(self, u: Any, b: Any) -> Any:
        """∂i/∂g [V]."""
        return self._call("sensitivity", u, b)

    def transconductance(self, u: Any, b: Any) -> Any:
        """∂i/∂b [S] at constant u; of gated cells alone."""
        return self._call("transconductance", u, b)

    def split(self, u: Any, b: Any) -> Split:
        """The derivatives of gated cells as a conductance and what it leaves out."""
        tail = self.transconductance(u, b)
        return Split(self.slope(u, b) + namespace(tail).clip(-tail, 0.0, None), tail)

    def _call(self, name: str, u: Any, b: Any) -> Any:
        function = getattr(self.law, name)
        return function(u, self.g, b) if self.gated else function(u, self.g)


def with_parameters(law: Any, parameters: Mapping[str, Any]) -> Any:
    """Return the law with some of its fields set for each cell.

    Raises InputError for a name that is not one of its fields, or a value out of range.
    """
    if not parameters:
        return law
    known = {field.name for field in dataclasses.fields(law)} if is_record(law) else set()
    for name in parameters:
        if name not in known:
            raise InputError(
                f"the law {type(law).__name__} has no parameter {name!r}",
                remedy="it has " + (", ".join(sorted(known)) or "none"),
            )
    return dataclasses.replace(law, **parameters)


def is_record(law: Any) -> bool:
    """True for an instance of a dataclass."""
    return dataclasses.is_dataclass(law) and not isinstance(law, type)


def small_signal(law: Any, g: Any) -> Any:
    """Conductance [S] of cells at 0 V, shaped as g; g itself for no law."""
    if law is None:
        return g
    zero = namespace(g).zeros_like(g)
    return Cells(law, g).slope(zero, zero)


def check_values(
    law: Any,
    *,
    positive: tuple[str, ...] = (),
    not_negative: tuple[str, ...] = (),
    finite: tuple[str, ...] = (),
) -> None:
    """Raise InputError that names the field of a law whose value is out of range."""
    bounds = {"positive": positive, "at least 0": not_negative, "a number": finite}
    for wanted, names in bounds.items():
        for name in names:
            value = getattr(law, name)
            if is_tensor(value):
                value = value.detach().cpu().numpy()
            try:
                array = np.asarray(value, dtype=np.float64)
            except (TypeError, ValueError):
                array = np.array(math.nan)
            good = np.isfinite(array)
            if wanted != "a number":
                good &= array > 0 if wanted == "positive" else array >= 0
            if not good.all():
                shown = value if array.ndim == 0 else float(array[~good][0])
                raise InputError(
                    f"{name} = {shown!r} is not finite and {wanted}"
                    if wanted != "a number"
                    else f"{name} = {shown!r} is not finite",
                    where=type(law).__name__,
                )
