"""What happens in a co-simulation, as SimPy's events: crossings, moments, named processes."""

from __future__ import annotations

import heapq
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

from simpy.events import NORMAL, Event, EventPriority, Process, Timeout

from spicenn.cosim.block import Block, Threshold

if TYPE_CHECKING:
    from spicenn.cosim.kernel import Cosimulation

ProcessGenerator = Generator[Event, Any, Any]


class NamedProcess(Process):
    """SimPy's process under a name of its own; its ``value`` is what the generator returns."""

    def __init__(self, env: Cosimulation, generator: ProcessGenerator, name: str) -> None:
        self._name = name
        super().__init__(env, generator)

    @property
    def name(self) -> str:
        """What errors and the record call it."""
        return self._name


class Crossing(Event):
    """A node's passing of a threshold; its value is the time [s].

    node : as the record calls it, with its block's name where there are several.
    """

    def __init__(self, env: Cosimulation, node: str, block: Block, threshold: Threshold) -> None:
        super().__init__(env)
        self.node = node
        self.block = block
        self.threshold = threshold

    def __str__(self) -> str:
        side = "above" if self.threshold.upwards else "below"
        return f"{self.node} {side} {self.threshold.level:g}"


class Waiters(list[Callable[[Any], None]]):
    """The callbacks of a crossing: it is held while there are any.

    Nothing else holds it, nor who waits for it. One that a condition or an interrupt has
    let go of is collected with its last name, and its watch ends.
    """

    def __init__(self, crossing: Crossing, held: dict[int, Crossing]) -> None:
        super().__init__()
        self._crossing = weakref.ref(crossing)
        self._key = crossing.threshold.key
        self._held = held

    def append(self, callback: Callable[[Any], None], /) -> None:
        super().append(callback)
        crossing = self._crossing()
        if crossing is not None and not crossing.triggered:
            self._held[self._key] = crossing

    def remove(self, callback: Callable[[Any], None], /) -> None:
        super().remove(callback)
        if not self:
            self._held.pop(self._key, None)


class Moment(Event):
    """What happens at a time itself: a delay that is added to now may miss it by a bit."""

    def __init__(self, env: Cosimulation, time: float, priority: EventPriority = NORMAL) -> None:
        super().__init__(env)
        self._ok, self._value = True, None
        heapq.heappush(env._queue, (max(time, env.now), priority, next(env._eid), self))


class Deadline(Timeout):
    """The time when a crossing must have happened."""

    def __init__(self, env: Cosimulation, delay: float, key: int) -> None:
        super().__init__(env, delay)
        self.key = key


class Spike(NamedTuple):
    """What a monitor reports: which node passed its threshold, and when [s]."""

    node: str
    time: float
