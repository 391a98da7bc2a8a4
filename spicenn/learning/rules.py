"""Rules of learning: what is done to the outputs of the second network, and for how long.

A rule compares two copies of a network that share their edges' values: the second is clamped
or nudged towards the label (and the first away from it, where a rule is centred). Every edge
then moves by its own difference of squared voltages, ``ΔV_1² − ΔV_2²``, for a share of the
time, the duty. A rule says this twice: as arithmetic, and as the subcircuit of ``netlists/``
that does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Clamp:
    """The circuit of a rule at one output: a subcircuit and its parameters.

    Its ports are ``free second label error``: both networks' outputs, the label with the
    comparator's offset, and a node whose voltage is the output's part of the duty. Where
    outputs are ``paired``, the label that it sees is the output's own plus the other's voltage.
    """

    subcircuit: str
    parameters: Mapping[str, float]
    paired: bool = False


class Rule(Protocol):
    """What the engines ask of a rule."""

    @property
    def rate(self) -> float:
        """Gain of the update, r."""

    @property
    def share(self) -> float:
        """Of the slots, in which an edge takes part; every edge for itself."""

    @property
    def nudges(self) -> tuple[float, float] | None:
        """Conductances [S] that join both networks' outputs to their labels; None if clamped."""

    def clamped(self, free: Array, label: Array) -> Array:
        """Voltage (…, output) [V] that the second network's outputs are held at."""

    def duty(self, free: Array, label: Array) -> Array:
        """Share (…,) of the time for which the edges move."""

    def clamp(self) -> Clamp:
        """The circuit of it."""


@dataclass(frozen=True, kw_only=True)
class CoupledLearning:
    """Hold the outputs a part of the way from where they are to their labels.

    ``O_C = O_F + eta (L − O_F)``. Source: Stern, Hexner, Rocks and Liu, Phys. Rev. X 11,
    021045, 2021.

    Parameters
    ----------
    eta : part of the way, in (0, 1].
    rate : gain of the update.

    Raises InputError for a value out of range.
    """

    eta: float = 1.0
    rate: float = 2.0

    def __post_init__(self) -> None:
        _check(self, "eta", 1.0)
        _check(self, "rate")

    @property
    def share(self) -> float:
        """All slots."""
        return 1.0

    @property
    def nudges(self) -> None:
        """It clamps."""
        return None

    def clamped(self, free: Array, label: Array) -> Array:
        """See ``Rule``."""
        return np.asarray(free + self.eta * (label - free))

    def duty(self, free: Array, label: Array) -> Array:
        """All of the time."""
        return np.ones(np.broadcast_shapes(free.shape, label.shape)[:-1])

    def clamp(self) -> Clamp:
        """See ``Rule``."""
        return Clamp("coupled_clamp", {"eta": self.eta})


@dataclass(frozen=True, kw_only=True)
class Overclamping:
    """Pull the outputs to a rail that the sign of the error picks, for a time by its size.

    ``O_C = (1 − eta) O_F + eta V_rail``: the nudge does not fade with the error, and the time
    does, so that what is learnt and what the bias does meanwhile fade together. Source:
    Dillavou, Guzman, Liu and Durian, arXiv 2505.22887.

    Parameters
    ----------
    low, high : the rails [V].
    eta : part of the way to the rail, in (0, 1].
    rate : gain of the update.
    full : error for which the edges move all of the time [V]; of several outputs, their mean.
    smoothing : error at which the sign is that of a tanh [V]: a comparator has no more gain.
    amplitude, time : either half of it alone, the other as in coupled learning.

    Raises InputError for a value out of range.
    """

    low: float
    high: float
    eta: float = 0.25
    rate: float = 2.0
    full: float = 0.05
    smoothing: float = 1e-5
    amplitude: bool = True
    time: bool = True

    def __post_init__(self) -> None:
        _check(self, "eta", 1.0)
        for name in ("rate", "full", "smoothing"):
            _check(self, name)
        if not -math.inf < self.low < self.high < math.inf:
            raise InputError(f"rails of {self.low!r} and {self.high!r} V", where="Overclamping")

    @property
    def share(self) -> float:
        """All slots."""
        return 1.0

    @property
    def nudges(self) -> None:
        """It clamps."""
        return None

    def clamped(self, free: Array, label: Array) -> Array:
        """See ``Rule``."""
        error = label - free
        if not self.amplitude:
            return np.asarray(free + self.eta * error)
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        rail = middle + half * np.tanh(error / self.smoothing)
        return np.asarray(free + self.eta * (rail - free))

    def duty(self, free: Array, label: Array) -> Array:
        """See ``Rule``."""
        error = np.abs(label - free).mean(axis=-1)
        return np.minimum(error / self.full, 1.0) if self.time else np.ones_like(error)

    def clamp(self) -> Clamp:
        """See ``Rule``."""
        return Clamp(
            "overclamp",
            {
                "eta": self.eta, "low": self.low, "high": self.high, "full": self.full,
                "smoothing": self.smoothing, "amplitude": float(self.amplitude),
                "timed": float(self.time),
            },
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EquilibriumPropagation:
    """Nudge the outputs by a current ``beta (L − O)`` into the second network.

    The difference over 2 beta is then the gradient of half the squared error by each
    conductance, for a small beta. Source: Scellier and Bengio, Frontiers in Computational
    Neuroscience 11, 24, 2017; in resistive networks Kendall et al., arXiv 2006.01981.

    Parameters
    ----------
    beta : [S].
    rate : gain of the update; that of the gradient is ``2 beta rate`` (4 if centred).
    centred : nudge the first network by -beta, for an error of the second order in beta.

    Raises InputError for a value out of range.
    """

    beta: float
    rate: float = 2.0
    centred: bool = False

    def __post_init__(self) -> None:
        for name in ("beta", "rate"):
            _check(self, name)

    @property
    def share(self) -> float:
        """All slots."""
        return 1.0

    @property
    def nudges(self) -> tuple[float, float]:
        """See ``Rule``."""
        return (-self.beta if self.centred else 0.0), self.beta

    def clamped(self, free: Array, label: Array) -> Array:
        """Raise InputError: the outputs float."""
        raise InputError("equilibrium propagation nudges; it does not clamp")

    def duty(self, free: Array, label: Array) -> Array:
        """All of the time."""
        return np.ones(np.broadcast_shapes(free.shape, label.shape)[:-1])

    def clamp(self) -> Clamp:
        """See ``Rule``."""
        first, second = self.nudges
        return Clamp("nudge", {"first_beta": first, "second_beta": second})


@dataclass(frozen=True)
class Desynchronous:
    """Have every edge take part in a slot or not, drawn for each edge and slot.

    Nothing else is changed: a share of 1/2 learns at half the speed. Source: Wycoff, Dillavou,
    Stern, Liu and Durian, J. Chem. Phys. 156, 144903, 2022.

    Parameters
    ----------
    rule : what the edges do that take part.
    share : of the slots in which an edge takes part, in (0, 1].

    Raises InputError for a share out of range, or a rule that is desynchronous already.
    """

    rule: Rule
    share: float

    def __post_init__(self) -> None:
        _check(self, "share", 1.0)
        if isinstance(self.rule, Desynchronous):
            raise InputError(
                "its rule is desynchronous already", where="Desynchronous",
                remedy="multiply the shares",
            )  # fmt: skip

    @property
    def rate(self) -> float:
        """Its rule's."""
        return self.rule.rate

    @property
    def nudges(self) -> tuple[float, float] | None:
        """Its rule's."""
        return self.rule.nudges

    def clamped(self, free: Array, label: Array) -> Array:
        """Its rule's."""
        return self.rule.clamped(free, label)

    def duty(self, free: Array, label: Array) -> Array:
        """Its rule's: of the edges that take part."""
        return self.rule.duty(free, label)

    def clamp(self) -> Clamp:
        """Its rule's."""
        return self.rule.clamp()


@dataclass(frozen=True)
class Differential:
    """Teach the difference of two outputs, whatever their mean: a network's outputs are pairs.

    A label is of an output less the other of its pair: (L, -L) for a difference of L. What the
    rule does to an output with an error e it does to the first with ``L − (O_1 − O_2)`` and to
    the second with the opposite, so that coupled learning with half of eta is
    ``O± ± (eta/2) (L − O)``. Source: Dillavou et al., PNAS 121, e2319718121, 2024, eq. 7.

    Parameters
    ----------
    rule : what is done to each output; it clamps.

    Raises InputError for a rule that nudges or is desynchronous (that goes outside).
    """

    rule: Rule

    def __post_init__(self) -> None:
        if self.rule.nudges is not None or isinstance(self.rule, Desynchronous | Differential):
            raise InputError(
                f"{type(self.rule).__name__} is no rule for pairs of outputs",
                where="Differential", remedy="give one that clamps; Desynchronous goes outside",
            )  # fmt: skip

    @property
    def rate(self) -> float:
        """Its rule's."""
        return self.rule.rate

    @property
    def share(self) -> float:
        """All of them."""
        return 1.0

    @property
    def nudges(self) -> None:
        """It clamps."""
        return None

    def clamped(self, free: Array, label: Array) -> Array:
        """Its rule's. Raises InputError for an odd number of outputs."""
        return self.rule.clamped(free, label + _others(free))

    def duty(self, free: Array, label: Array) -> Array:
        """Its rule's, by the difference's error. Raises InputError as ``clamped`` does."""
        return self.rule.duty(free, label + _others(free))

    def clamp(self) -> Clamp:
        """Its rule's, for pairs."""
        return replace(self.rule.clamp(), paired=True)


def paired_with(outputs: int) -> NDArray[np.int64]:
    """(output,) number of the other of each output's pair: 1, 0, 3, 2, ….

    Raises InputError for an odd number of outputs.
    """
    if outputs % 2:
        raise InputError(f"{outputs} outputs are not pairs", where="Differential")
    return np.arange(outputs) ^ 1


def _others(free: Array) -> Array:
    return np.asarray(free[..., paired_with(free.shape[-1])])


def _check(rule: object, name: str, high: float = math.inf) -> None:
    value = getattr(rule, name)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not (good and math.isfinite(value) and 0 < value <= high):
        remedy = "it is positive" if high == math.inf else f"it is in (0, {high:g}]"
        raise InputError(f"{name} = {value!r} is out of range", where=type(rule).__name__,
                         remedy=remedy)  # fmt: skip


def describe(rule: Rule) -> dict[str, float | str]:
    """A rule's name and settings, as a record keeps them; a share and pairs are one more."""
    if isinstance(rule, Desynchronous):
        return {**describe(rule.rule), "share": rule.share}
    if isinstance(rule, Differential):
        return {**describe(rule.rule), "differential": True}
    assert hasattr(rule, "__dataclass_fields__")
    return {
        "rule": type(rule).__name__,
        **{field.name: getattr(rule, field.name) for field in fields(rule)},  # type: ignore[arg-type]
    }
