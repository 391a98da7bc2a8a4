"""Address events: spikes as numbers on a shared bus, and as pulses of a circuit's sources.

Source of the representation: M. Mahowald, "VLSI analogs of neuronal visual processing",
PhD thesis, Caltech, 1992; K. A. Boahen, IEEE Trans. Circuits Syst. II 47(5), 416, 2000.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import simpy
from simpy.events import Event

from spicenn.cosim.arguments import (
    check_finite,
    check_nodes,
    check_not_negative,
    check_positive,
    check_sources,
    process,
)
from spicenn.cosim.events import ProcessGenerator
from spicenn.cosim.kernel import Cosimulation
from spicenn.errors import InputError


class Sink(Protocol):
    """Something that takes address events: pulses of sources, or a bus."""

    def check(self, addresses: Iterable[int], where: str) -> None:
        """Raise InputError for an address that it does not know."""
        ...

    def send(self, address: int) -> None:
        """Take an event now."""
        ...


class AddressEvent(NamedTuple):
    """What passed a bus: which address, when it left the bus, and when it was sent [s]."""

    address: int
    time: float
    sent: float


@dataclass(frozen=True, kw_only=True)
class Route:
    """One connection of an address.

    source : external source that gets a pulse, ``block:source`` where there are several
        blocks.
    delay : of this connection [s].
    """

    source: str
    delay: float = 0.0


class Pulses:
    """Pulses of external sources, one for every event; address k is the k-th source's.

    An event while its source is still high prolongs the pulse by its own width: n events
    hold the source high for n widths, however they fall, so that no charge is lost. (Of
    one that begins within the last one's falling slope, up to an eighth of a slope is
    gained.)

    Parameters
    ----------
    sources : external sources.
    width : of one pulse [s], between the beginnings of its slopes.
    high, low : levels [V] or [A].
    rise : duration of a slope [s], at most the width; that of ``env`` if None.

    Raises InputError for unknown sources, or numbers out of range.
    """

    def __init__(
        self,
        env: Cosimulation,
        sources: Sequence[str],
        *,
        width: float,
        high: float = 1.0,
        low: float = 0.0,
        rise: float | None = None,
    ) -> None:
        where = "pulses"
        self._env = env
        self.sources = check_sources(env, sources, where)
        self.width = check_positive("width", width, where)
        self._high = check_finite("high", high, where)
        self._low = check_finite("low", low, where)
        self._rise = env.rise if rise is None else check_not_negative("rise", rise, where)
        if self._rise > self.width:
            raise InputError(
                f"a slope of {self._rise:g} s does not fit a pulse of {self.width:g} s",
                where=where,
                remedy="make the pulse wider, or give a shorter rise",
            )
        # When a source falls again, and the event at which it does.
        self._ends: dict[str, tuple[float, Event]] = {}

    def check(self, addresses: Iterable[int], where: str) -> None:
        """Raise InputError for an address that has no source."""
        _check_known(addresses, range(len(self.sources)), where)

    def send(self, address: int) -> None:
        """Pulse the source of an address."""
        self.fire(self.sources[address])

    def fire(self, source: str) -> None:
        """Pulse a source from now on, or prolong its pulse."""
        if source in self._ends:
            end = self._ends[source][0] + self.width
        else:
            self._env.drive(source, self._high, self._rise)
            end = self._env.now + self.width
        timer = self._env.timeout(max(end - self._env.now, 0.0))
        self._ends[source] = end, timer
        timer.callbacks.append(partial(self._end, source))

    def _end(self, source: str, timer: Event) -> None:
        if self._ends[source][1] is timer:  # else it was prolonged
            del self._ends[source]
            self._env.drive(source, self._low, self._rise)


class AddressBus:
    """A bus that carries one address event at a time to the targets of its address.

    Events are sent at any time and wait for the bus in the order in which they were sent
    (a SimPy store without a bound: none is lost). Each takes the bus for a cycle and
    leaves it at the cycle's end; every route's pulse begins its own delay later, and
    reaches the circuit ``env.delay`` after that. An event on the bus is recorded as an
    ``emit`` of the bus's name when it leaves: its value is the address, ``sent`` the time
    it was sent [s].

    Parameters
    ----------
    table : routes by address; an address with none can be listened to all the same.
    width, high, low, rise : of the pulses, see ``Pulses``. Needed where there is a route.
    cycle : time that an event takes the bus for [s], the least between two of them.
    name : of the recorded events.

    Raises InputError for unknown sources, addresses that are no whole numbers of 0 or
    more, or numbers out of range.
    """

    def __init__(
        self,
        env: Cosimulation,
        table: Mapping[int, Sequence[Route]],
        *,
        width: float | None = None,
        high: float = 1.0,
        low: float = 0.0,
        rise: float | None = None,
        cycle: float = 0.0,
        name: str = "aer",
    ) -> None:
        where = f"bus {name}"
        self._env = env
        self.name = name
        self.cycle = check_not_negative("cycle", cycle, where)
        if not table:
            raise InputError("the routing table has no address", where=where)
        self._table = {
            _address(address, where): _by_delay(env, routes, f"{where}, address {address}")
            for address, routes in table.items()
        }
        sources = dict.fromkeys(
            source for routes in self._table.values() for _, targets in routes for source in targets
        )
        self._pulses = None
        if sources:
            if width is None:
                raise InputError("width is missing", where=where, remedy="give that of the pulses")
            self._pulses = Pulses(env, list(sources), width=width, high=high, low=low, rise=rise)
        self._sent: simpy.Store = simpy.Store(env)
        self._listeners: list[simpy.Store] = []
        env.process(self._arbitrate(), name=where)

    @property
    def addresses(self) -> tuple[int, ...]:
        """The addresses of the table."""
        return tuple(self._table)

    @property
    def waiting(self) -> int:
        """Number of events that wait for the bus now."""
        return len(self._sent.items)

    def check(self, addresses: Iterable[int], where: str) -> None:
        """Raise InputError for an address that is not in the table."""
        _check_known(addresses, self._table.keys(), where)

    def send(self, address: int) -> None:
        """Send an event. Raises InputError for an address that is not in the table."""
        self.check([address], f"bus {self.name}")
        self._sent.put((address, self._env.now))

    def listen(self) -> simpy.Store:
        """A store of every ``AddressEvent`` that leaves the bus from now on."""
        store = simpy.Store(self._env)
        self._listeners.append(store)
        return store

    def _arbitrate(self) -> ProcessGenerator:
        while True:
            address, sent = yield self._sent.get()
            if self.cycle > 0:
                yield self._env.timeout(self.cycle)
            self._env.emit(self.name, address, sent=sent)
            for delay, sources in self._table[address]:
                if delay == 0:
                    self._deliver(sources, None)
                else:
                    timer = self._env.timeout(delay)
                    timer.callbacks.append(partial(self._deliver, sources))
            for store in self._listeners:
                store.put(AddressEvent(address, self._env.now, sent))

    def _deliver(self, sources: Sequence[str], _: Event | None) -> None:
        assert self._pulses is not None
        for source in sources:
            self._pulses.fire(source)


@process
def collect(
    env: Cosimulation,
    nodes: Sequence[str],
    sink: Sink,
    *,
    above: float | None = None,
    below: float | None = None,
    addresses: Sequence[int] | None = None,
) -> ProcessGenerator:
    """Send an address event whenever one of the nodes passes a threshold.

    Parameters
    ----------
    nodes : of one block or of several.
    above, below : threshold [V] or [A], one of them; see ``Cosimulation.monitor``.
    addresses : of the nodes, 0, 1, … if None.

    Raises InputError for an unknown node, or one without an address of the sink.
    """
    where = "collect"
    nodes = check_nodes(env, nodes, where)
    addresses = range(len(nodes)) if addresses is None else addresses
    if len(addresses) != len(nodes):
        raise InputError(
            f"{len(addresses)} addresses for {len(nodes)} nodes",
            where=where,
            remedy="give one address per node",
        )
    sink.check(addresses, where)
    address_of = dict(zip(nodes, addresses, strict=True))
    if len(address_of) != len(nodes):
        raise InputError("a node is named twice", where=where, remedy="name every node once")
    spikes = env.monitor(nodes, above=above, below=below)

    def run() -> ProcessGenerator:
        while True:
            spike = yield spikes.get()
            sink.send(address_of[spike.node])

    return run()


def _address(address: int, where: str) -> int:
    whole = not isinstance(address, bool) and hasattr(address, "__index__")
    if not whole or address < 0:
        raise InputError(f"address {address!r} is not a whole number of 0 or more", where=where)
    return int(address)


def _by_delay(
    env: Cosimulation, routes: Iterable[Route], where: str
) -> list[tuple[float, tuple[str, ...]]]:
    """Sources by delay: those that get their pulse at the same time need one timer."""
    sources: dict[float, list[str]] = {}
    for route in routes:
        if not isinstance(route, Route):
            raise InputError(
                f"{route!r} is not a Route", where=where, remedy="give a list of Route(source=…)"
            )
        delay = check_not_negative("delay", route.delay, where)
        sources.setdefault(delay, []).extend(check_sources(env, [route.source], where))
    return [(delay, tuple(names)) for delay, names in sorted(sources.items())]


def _check_known(addresses: Iterable[int], known: Collection[int], where: str) -> None:
    for address in addresses:
        if address not in known:
            raise InputError(
                f"there is no address {address!r}",
                where=where,
                remedy=f"there are {len(known)}, from {min(known)} to {max(known)}",
            )
