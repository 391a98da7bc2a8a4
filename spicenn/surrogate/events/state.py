"""A layer's state, taken from event to event."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.surrogate.events.model import Array, LayerModel
from spicenn.surrogate.events.motion import move, nearness, needed

# When neurons that have not fired yet were let go [s] before the beginning.
_LONG_AGO = 1e3


class LayerState:
    """Membranes, inputs and energy of a layer at a time, and when each neuron fires next.

    Between calls nothing is computed. ``fires`` holds for every neuron the time at which
    it fires if no input changes [s], inf for never.

    Parameters
    ----------
    model : its constants.
    """

    def __init__(self, model: LayerModel) -> None:
        self.model = model
        n = model.neurons
        self.time = 0.0
        self.level = np.zeros(model.axons)
        self.slope = model.drift.copy()
        self.v = np.maximum(model.rest + model.tau * model.drift, model.floor)
        self.release = np.full(n, -_LONG_AGO)
        self.area = np.zeros(n)
        self.need = np.ones(n)
        self.crossed = np.zeros(n)
        self.fires = np.full(n, math.inf)
        self.energy = 0.0
        self.spikes = 0
        self._settled = -math.inf
        self._power = self._rate()
        self._predict()

    def advance(self, time: float) -> None:
        """Go to a time [s] at which, or before which, nothing happens."""
        step = time - self.time
        if step <= 0:
            return
        self.energy += self._power * step
        before, model = self.v, self.model
        final = self._final
        v = final + (before - final) * np.exp(-step / model.tau)
        if self._settled > self.time or v.min() < model.floor or before.min() < model.floor:
            v = move(model, before, self.slope, self.release, self.time, time)
            self._pay_for_catch(before, v, step)
        if model.power_near:
            self.energy += model.power_near * nearness(model, before, v, step)
        over = v > model.threshold
        if over.any():
            self._add_up(np.flatnonzero(over), before, v, step)
        elif self.area.any():
            self.area = np.zeros_like(self.area)
        if over.any() and self.area.any():
            self.area = np.where(over, self.area, 0.0)
        self.v, self.time = v, time

    def drive(self, axons: NDArray[np.int64], changes: Array) -> None:
        """Change inputs by some volts, now."""
        self.level[axons] += changes
        if len(axons) == 1:
            self.slope = self.slope + changes[0] * self.model.weights[axons[0]]
        else:
            self.slope = self.slope + changes @ self.model.weights[axons]
        self._power = self._rate()
        self._predict()

    def fire(self, k: int, time: float) -> None:
        """Neuron k spikes, at a time before which nothing else happens.

        It alone is touched, and not taken to that time: from now on it is held, which is
        where it would be by then.
        """
        model = self.model
        rest, threshold, tau = model.rest, float(model.threshold[k]), float(model.tau[k])
        crossed = float(self.crossed[k])
        self.spikes += 1
        self.energy += float(model.energy_spike[0] + model.energy_spike[1] * (time - crossed))
        self.energy += model.power_near * self._near(k, crossed, time)
        self.v = self.v.copy()
        self.v[k] = rest
        self.area[k] = 0.0
        self.release = self.release.copy()
        release = time + float(model.refractory[k])
        self.release[k] = release
        fall, slope = float(model.fall[k]), float(self.slope[k])
        self._settled = max(self._settled, release + (rest - model.floor) / fall)
        # When it fires next; ``_forecast`` for one that is held for long.
        gap = float(self._final[k]) - threshold
        self.fires[k] = math.inf
        if gap > 0 and slope > 0:
            equal = math.sqrt(slope / float(model.catch[k]))
            begin = max(release - 2 / 3 * equal / fall - 0.5 * equal / slope, time)
            crossed = begin + tau * math.log1p((threshold - rest) / gap)
            passing = gap / tau
            self.crossed[k] = crossed
            self.fires[k] = crossed + math.sqrt(2 * float(self._needed(passing)) / passing)

    def voltage(self, time: float) -> Array:
        """Membranes (neuron,) at a time that is not before this one, nothing between [V]."""
        if time <= self.time:
            return self.v
        return move(self.model, self.v, self.slope, self.release, self.time, time)

    def energy_at(self, time: float) -> float:
        """Energy from all supplies up to then [J]."""
        return self.energy + self._power * max(time - self.time, 0.0)

    def copy(self) -> LayerState:
        """An independent state; arrays that are never written in place are shared."""
        twin = object.__new__(LayerState)
        twin.__dict__.update(self.__dict__)
        for name in ("level", "area", "need", "crossed", "fires"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def _near(self, k: int, crossed: float, time: float) -> float:
        """``nearness`` of a neuron since the last event, that crossed its threshold and fires."""
        near = self.model.near
        above = float(self.v[k] - self.model.threshold[k]) + near
        start = max(crossed, self.time)
        sum_of_squares = near**2 * (time - start)
        if start > self.time and above < near:
            rising = near**3 - max(above, 0.0) ** 3
            sum_of_squares += rising / (3 * (near - above)) * (start - self.time)
        return sum_of_squares

    def _rate(self) -> float:
        model = self.model
        return float(
            model.power_rest
            + np.abs(self.level) @ model.power_axon
            + np.abs(self.slope) @ model.power_slope
        )

    def _predict(self) -> None:
        model = self.model
        self._final = model.rest + model.tau * self.slope
        self.fires = np.full(model.neurons, math.inf)
        chosen = np.flatnonzero((self._final > model.threshold) | (self.v > model.threshold))
        if chosen.size:
            self._forecast(chosen)

    def _forecast(self, k: NDArray[np.int64]) -> None:
        """When neurons fire as things are."""
        model, v = self.model, self.v[k]
        tau, threshold, catch = model.tau[k], model.threshold[k], model.grip[k]
        final = self._final[k]
        begin = np.full(len(k), self.time)
        wait = self.release[k] - self.time
        if (wait > 0).any():
            begin, v = self._released(k, begin, v, wait)
        low = v < model.floor
        if low.any():
            drive = np.maximum((final - model.floor) / tau, 1e-30)
            angle = np.arctan(np.maximum(model.floor - v, 0.0) / np.sqrt(drive / catch))
            begin = np.where(low, begin + angle / np.sqrt(drive * catch), begin)
            v = np.where(low, model.floor, v)
        over = v > threshold
        gap = np.maximum(final - threshold, 0.0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            crossing = np.where(over, 0.0, tau * np.log1p((threshold - v) / gap))
            passing = gap / tau
            need = np.where(over, self.need[k], self._needed(passing))
            left = need - np.where(over, self.area[k], 0.0)
            excess = np.where(over, v - threshold, 0.0)
            rate = np.where(over, (final - v) / tau, passing)
            root = excess**2 + 2 * rate * left
            # The form without a difference of nearly equal numbers.
            delay = 2 * left / (excess + np.sqrt(root))
        never = ~(root > 0) | (~over & (gap <= 0)) | ~np.isfinite(crossing) | ~np.isfinite(delay)
        fires = np.maximum(begin + crossing + np.maximum(delay, 0.0), self.time)
        self.fires[k] = np.where(never, math.inf, fires)
        self.crossed[k] = np.where(over, self.crossed[k], begin + crossing)

    def _released(
        self, k: NDArray[np.int64], begin: Array, v: Array, wait: Array
    ) -> tuple[Array, Array]:
        """From when on, and from what voltage, held membranes are as good as free.

        The reset carries κ V² at most, V falling: what the input brings beyond that from
        where the two are equal, at V0, and half of V0, which is what it has brought before.
        """
        model, slope = self.model, self.slope[k]
        catch, fall = model.catch[k], model.fall[k]
        equal = np.sqrt(np.maximum(slope, 0.0) / catch)
        early = np.where(slope > 0, 2 / 3 * equal / fall + 0.5 * equal / (slope + 1e-9), 0.0)
        late = np.maximum(slope, 0.0) * wait - catch * fall**2 * wait**3 / 3
        # Those on their way already keep what they have.
        gained = np.where(wait < equal / fall, v - model.rest + late, slope * early)
        is_held = wait > 0
        at = self.time + wait - gained / np.maximum(slope, 1e-9)
        return np.where(is_held & (slope > 0), at, begin), np.where(is_held, model.rest, v)

    def _needed(self, slope: Any) -> Any:
        """Time integral of the excess at which the output goes, by the slope at the threshold."""
        return needed(self.model, slope)

    def _add_up(self, k: NDArray[np.int64], before: Array, after: Array, step: float) -> None:
        """Add what is over the threshold to the comparators' integrals."""
        model = self.model
        threshold = model.threshold[k]
        above = after[k] - threshold
        passing = np.maximum(self._final[k] - threshold, 1e-12) / model.tau[k]
        was = before[k] > threshold
        added = np.where(
            was,
            0.5 * (before[k] - threshold + above) * step,
            np.minimum(above**2 / (2 * passing), above * step),
        )
        self.area = self.area.copy()
        if not was.all():
            self.need = self.need.copy()
            self.need[k[~was]] = self._needed(passing[~was])
        self.area[k] = np.where(was, self.area[k], 0.0) + added

    def _pay_for_catch(self, before: Array, after: Array, step: float) -> None:
        """What the floor's transistors carried: what is missing in the charge's balance."""
        model = self.model
        low = np.flatnonzero((before <= model.floor + 1e-3) & (after < model.floor + 1e-3))
        low = low[self.release[low] < self.time]
        if low.size:
            leak = (model.rest - 0.5 * (before[low] + after[low])) / model.tau[low]
            lifted = after[low] - before[low] - (self.slope[low] + leak) * step
            self.energy += float(np.maximum(lifted, 0.0) @ model.energy_catch[low])
