"""An event-driven model of a layer in the place of its circuit in a co-simulation."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np

from spicenn.circuit.names import known_name
from spicenn.engines.analog.spiking import axon, membrane, spike
from spicenn.engines.ngspice.stepped import Threshold
from spicenn.errors import InputError
from spicenn.surrogate.events.model import Array, LayerModel
from spicenn.surrogate.events.state import LayerState

# Neurons up to which everything is recorded if nothing else is said.
_MOST_RECORDED = 64
ENERGY = "energy"


class LayerBlock:
    """A layer of spiking neurons that computes at events and nothing between them.

    It has the sources ``vi_<i>`` and the probes ``mem_<k>`` and ``spk_<k>`` of the circuit,
    and the probe ``energy``: what all supplies have given [J]. Drives act at the middle of
    their slopes. Outputs can be watched; membranes and energy only be sampled.

    Parameters
    ----------
    model : its constants.
    record : probes whose traces are kept, all of a layer of up to 64 neurons if None.
    name : what errors call it.

    Raises InputError for a probe that it does not have.
    """

    def __init__(
        self, model: LayerModel, *, record: Sequence[str] | None = None, name: str = "layer"
    ) -> None:
        self.name = name
        self.time = 0.0
        self.model = model
        self._state = LayerState(model)
        # States by the time from which on they hold.
        self._past: list[tuple[float, LayerState]] = [(0.0, self._state.copy())]
        self._levels = np.zeros(model.axons)
        self._edges: list[tuple[float, int, int, float]] = []
        self._count = 0
        self._until = 0.0
        # Thresholds by neuron: up and down.
        self._watched: dict[int, tuple[int, Threshold]] = {}
        self._by_neuron: dict[int, dict[int, Threshold]] = {}
        self._falls: list[tuple[float, int]] = []
        self._spiked = np.full(model.neurons, -math.inf)
        self._last = self._spiked.copy()
        k = range(model.neurons)
        self._probe = {membrane(i): i for i in k} | {spike(i): i for i in k} | {ENERGY: -1}
        self._source = {axon(i): i for i in range(model.axons)}
        if record is None:
            record = tuple(self._probe) if model.neurons <= _MOST_RECORDED else ()
        self._record = tuple(self.check_probe(probe) for probe in record)
        self._kept: list[tuple[float, LayerState]] = [self._past[0]] if self._record else []
        self.spikes: list[tuple[float, int]] = []
        # Crossings before now of what is watched only since.
        self._late: list[tuple[int, float]] = []

    @property
    def probes(self) -> tuple[str, ...]:
        """What can be read."""
        return tuple(self._probe)

    @property
    def sources(self) -> tuple[str, ...]:
        """What can be driven."""
        return tuple(self._source)

    @property
    def energy(self) -> float:
        """What all supplies have given so far [J]."""
        return self._state.energy_at(self.time)

    def check_probe(self, probe: str) -> str:
        """The probe's own name. Raises InputError where there is none of this name."""
        return known_name(
            probe,
            self._probe,
            "probe",
            where=self.name,
            remedy="an event-driven layer has mem_<k>, spk_<k> and energy",
        )

    def check_source(self, source: str) -> str:
        """The source's own name. Raises InputError where there is none of this name."""
        return known_name(source, self._source, "external source", where=self.name)

    def watch(self, threshold: Threshold) -> None:
        """Look out for an output's crossing. Raises InputError for any other probe."""
        if not threshold.probe.startswith("spk_"):
            raise InputError(
                f"{threshold.probe} of an event-driven layer can be sampled, not watched",
                where=self.name,
                remedy="wait for an output, spk_<k>",
            )
        if not 0 < threshold.level < self.model.supply:
            return  # an output never passes it
        k = self._probe[threshold.probe]
        falls_at = float(self._spiked[k]) + self.model.spike_width
        if not threshold.upwards and falls_at > self.time and not self._falling(k):
            heapq.heappush(self._falls, (falls_at, k))
        self._watched[threshold.key] = (k, threshold)
        self._by_neuron.setdefault(k, {})[threshold.key] = threshold
        if threshold.since < self.time:
            self._look_back(k, threshold)

    def unwatch(self, key: int) -> None:
        """Look out no longer, if it still does."""
        k, _ = self._watched.pop(key, (-1, None))
        if k >= 0:
            self._by_neuron[k].pop(key, None)

    def drive(self, source: str, level: float, start: float, rise: float) -> None:
        """Have a source go to a level [V], from ``start`` on [s], within ``rise`` [s]."""
        i = self._source[source]
        self._count += 1
        time = start + rise / 2 + self.model.lag
        heapq.heappush(self._edges, (time, self._count, i, level))

    def sample(self, probe: str, time: float) -> float:
        """Value of a probe at a time that was reached [V] or [J]."""
        k = self._probe[probe]
        if probe.startswith("spk_"):
            high = any(
                at <= time < at + self.model.spike_width for at in (self._spiked[k], self._last[k])
            )
            return self.model.supply if high else 0.0
        state = next((s for t, s in reversed(self._past) if t <= time), self._past[0][1])
        return float(state.energy_at(time) if k < 0 else state.voltage(time)[k])

    def begin(self, until: float) -> None:
        """Set out for a time [s]."""
        self._until = until

    def finish(self) -> list[tuple[int, float]]:
        """Go there, or to the first crossing on the way: keys and times of what crossed."""
        self._past = self._past[-1:]
        fired, self._late = self._late, []
        while not fired:
            state = self._state
            edge = self._edges[0][0] if self._edges else math.inf
            fall = self._falls[0][0] if self._falls else math.inf
            first = state.fires.min()
            next_time = min(edge, fall, first)
            if next_time > self._until:
                self.time = self._until
                return fired
            if fall == next_time:
                _, k = heapq.heappop(self._falls)
                fired = self._crossed(k, next_time, upwards=False)
            elif first == next_time:
                k = int(state.fires.argmin())
                self._last[k], self._spiked[k] = self._spiked[k], next_time
                self.spikes.append((next_time, k))
                state.fire(k, next_time)
                if self._falling(k):
                    heapq.heappush(self._falls, (next_time + self.model.spike_width, k))
                fired = self._crossed(k, next_time, upwards=True)
            else:
                state.advance(next_time)
                self._take_edges(next_time)
            self._note(next_time)
            self.time = next_time
        return fired

    def traces(self) -> tuple[Array, Mapping[str, Array]]:
        """Times (point,) [s], those of events, and values (point,) of the recorded probes."""
        if not self._record:
            return np.array([0.0, self.time]), {}
        return traced(self._kept, self.time, self._record, self._probe, self.spikes, self.model)

    def close(self) -> None:
        """Nothing is held."""

    def _take_edges(self, time: float) -> None:
        changes: dict[int, float] = {}
        while self._edges and self._edges[0][0] <= time:
            _, _, i, level = heapq.heappop(self._edges)
            changes[i] = changes.get(i, 0.0) + level - self._levels[i]
            self._levels[i] = level
        self._state.drive(np.fromiter(changes, dtype=np.int64), np.array(list(changes.values())))

    def _crossed(self, k: int, time: float, *, upwards: bool) -> list[tuple[int, float]]:
        fired = []
        for key, threshold in list(self._by_neuron.get(k, {}).items()):
            if threshold.upwards == upwards and threshold.since <= time:
                fired.append((key, time))
                if not threshold.repeat:
                    self.unwatch(key)
        return fired

    def _falling(self, k: int) -> bool:
        """Whether the ends of an output's pulses are looked out for."""
        return any(not threshold.upwards for threshold in self._by_neuron.get(k, {}).values())

    def _look_back(self, k: int, threshold: Threshold) -> None:
        """Find crossings between a threshold's beginning and the time reached, ahead of it."""
        later = 0.0 if threshold.upwards else self.model.spike_width
        for time, neuron in self.spikes[bisect_left(self.spikes, (threshold.since - later, -1)) :]:
            if neuron == k and time + later <= self.time:
                self._late.append((threshold.key, time + later))
                if not threshold.repeat:
                    self.unwatch(threshold.key)
                    return

    def _note(self, time: float) -> None:
        snapshot = (time, self._state.copy())
        self._past.append(snapshot)
        if self._record:
            self._kept.append(snapshot)


def traced(
    states: Sequence[tuple[float, LayerState]],
    end: float,
    record: Sequence[str],
    probe: Mapping[str, int],
    spikes: Sequence[tuple[float, int]],
    model: LayerModel,
) -> tuple[Array, Mapping[str, Array]]:
    """Probes at every event and at the end; an output's pulse as steps a millionth apart."""
    width = model.spike_width
    edges = {t + d for t, _ in spikes for d in (-1e-3 * width, 0.0, width, 1.001 * width)}
    times = np.unique([*(t for t, _ in states), *(t for t in edges if 0 <= t <= end), end])
    index = np.searchsorted([t for t, _ in states], times, side="right") - 1
    membranes = [name for name in record if name.startswith("mem_")]
    values: dict[str, Array] = {name: np.zeros(len(times)) for name in record}
    for row, (at, time) in enumerate(zip(index, times, strict=True)):
        state = states[at][1]
        if membranes:
            v = state.voltage(float(time))
            for name in membranes:
                values[name][row] = v[probe[name]]
        if ENERGY in values:
            values[ENERGY][row] = state.energy_at(float(time))
    for time, k in spikes:
        if (name := spike(k)) in values:
            values[name][(times >= time) & (times <= time + width)] = model.supply
    return times, values
