"""What a run of ``spicenn learn`` is: a network, its chips, a task, a rule, for how long."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from spicenn.learning.elements import Diode
from spicenn.learning.hardware import (
    Hardware,
    LearningChip,
    ideal_chip,
    sample_chip,
    start_values,
)
from spicenn.learning.learn import Way
from spicenn.learning.network import Network
from spicenn.learning.rules import Rule, describe, paired_with
from spicenn.learning.task import Schedule, Task, cyclic, shuffled
from spicenn.learning.trajectory import Trajectory

if TYPE_CHECKING:
    from spicenn.learning.resistive import IdealDiode

Array = NDArray[np.float64]

# From one checkpoint to the next.
SLOTS_AT_ONCE = 100
TIMEOUT = 300.0


@dataclass(frozen=True, kw_only=True)
class Start:
    """Values that chips begin with: fixed ones, or drawn uniformly between two."""

    fixed: tuple[float, ...] | None = None
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a plan is run.

    by : ``circuit``, ``controller``, ``events`` or ``model``.
    slots : of the schedule, in all.
    chips : which to sample; None is one that is as drawn.
    seed : of all that is random; None where nothing is.
    slots_at_once : from one checkpoint to the next.
    timeout : for ngspice, of so many slots [s].
    engine : of a controller, ``newton`` or ``ngspice``; None is the way's own.
    options : of ``learning.learn``, by name.
    """

    by: Way
    slots: int
    chips: tuple[int, ...] | None = None
    seed: int | None = None
    slots_at_once: int = SLOTS_AT_ONCE
    timeout: float = TIMEOUT
    engine: Literal["newton", "ngspice"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Chips that learn a task.

    bias : (value,) means of the edges' biases [V^2] in place of the hardware's; None is its.
    output_offset : (output,) [V] likewise.
    order, period, edge : of the schedule, see ``task``.
    text : of the file.
    """

    network: Network
    hardware: Hardware
    bias: Array | None
    output_offset: Array | None
    task: Task
    order: str
    period: float
    edge: float | None
    rule: Rule
    start: Start
    run: Settings
    text: str

    @property
    def schedule(self) -> Schedule:
        """When each example is shown."""
        if self.order == "cyclic":
            return cyclic(self.task, self.period, edge=self.edge)
        assert self.run.seed is not None
        passes = -(-self.run.slots // len(self.task))
        return shuffled(self.task, self.period, passes=passes, seed=self.run.seed, edge=self.edge)

    @property
    def chips(self) -> tuple[int, ...]:
        """Indices; 0 of the one that is as drawn."""
        return (0,) if self.run.chips is None else self.run.chips

    def chip(self, index: int) -> LearningChip:
        """Return one of the chips."""
        if self.run.chips is None:
            return ideal_chip(
                self.network, self.hardware, bias=self.bias, output_offset=self.output_offset
            )
        assert self.run.seed is not None
        drawn = sample_chip(self.network, self.hardware, chip=index, seed=self.run.seed)
        if self.bias is not None:
            drawn = replace(drawn, bias=drawn.bias - self.hardware.bias + self.bias)
        if self.output_offset is not None:
            offset = drawn.output_offset - self.hardware.output_offset + self.output_offset
            drawn = replace(drawn, output_offset=offset)
        return drawn

    def begin(self, index: int) -> Array:
        """Values (value,) that a chip begins with."""
        if self.start.fixed is not None:
            return np.array(self.start.fixed)
        assert self.run.seed is not None
        return start_values(
            self.network, self.start.low, self.start.high, seed=self.run.seed, chip=index
        )

    def answers(self, outputs: Array) -> Array:
        """What labels are of: outputs (…, output) [V], or each less the other of its pair."""
        if not self.rule.clamp().paired:
            return outputs
        return np.asarray(outputs - outputs[..., paired_with(outputs.shape[-1])])

    def judged(self, run: Trajectory) -> Trajectory:
        """A trajectory with ``answers`` in the place of outputs: what its errors are of."""
        return replace(run, outputs=self.answers(run.outputs))

    def described(self) -> dict[str, str]:
        """What makes its numbers what they are, by name; not for how long, nor which chips."""
        run, none = self.run, "None"
        return {
            "network": _digest(repr(self.network)),
            "hardware": repr(self.hardware),
            "bias": none if self.bias is None else _digest(self.bias),
            "output_offset": none if self.output_offset is None else _digest(self.output_offset),
            "inputs": _digest(self.task.inputs),
            "labels": _digest(self.task.labels),
            "order": self.order, "period": repr(self.period), "edge": repr(self.edge),
            "rule": repr(describe(self.rule)),
            "start": repr(self.start),
            "by": run.by, "seed": repr(run.seed), "slots_at_once": repr(run.slots_at_once),
            "chips": "as drawn" if run.chips is None else "sampled",
            "engine": repr(run.engine),
            **{name: repr(value) for name, value in run.options.items()},
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class FastPlan:
    """A deep resistive network that is trained by ``learning.propagation``.

    sizes : features, hidden nodes of every layer, outputs.
    conductance, least, gain, diode, temperature : as of ``resistive.initial``.
    x, labels : samples to learn from. validation : (x, labels) to look at.
    options : of ``propagation.train``.
    """

    sizes: tuple[int, ...]
    conductance: float
    least: float
    gain: float
    diode: Diode | IdealDiode | None
    temperature: float
    x: NDArray[Any]
    labels: NDArray[Any]
    validation: tuple[NDArray[Any], NDArray[Any]] | None
    seed: int
    epochs: int
    options: dict[str, Any]
    text: str


def _digest(value: Any) -> str:
    data = value.encode() if isinstance(value, str) else np.ascontiguousarray(value).tobytes()
    shape = "" if isinstance(value, str) else str(np.shape(value))
    return hashlib.sha256(shape.encode() + data).hexdigest()
