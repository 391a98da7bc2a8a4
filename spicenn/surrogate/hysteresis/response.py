"""A device's response to a history it has not seen, given its tag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.surrogate.hysteresis.population import Population, Tag
from spicenn.surrogate.hysteresis.preisach import relays

Array = NDArray[np.float64]


class Response(NamedTuple):
    """Mean and standard deviation (step,) of a response relative to its first step."""

    mean: Array
    std: Array


@dataclass(frozen=True, eq=False)
class HysteresisSurrogate:
    """A population's operator in the context of one device's tag.

    population : fitted to other devices.
    tag : of this one; without it the device is the mean of the population.
    """

    population: Population
    tag: Tag | None = None

    @property
    def weights(self) -> Array:
        """(relay,) most probable weights."""
        if self.tag is None:
            return self.population.mean
        return self.population.mean + self.tag.vector @ self.population.basis

    def __call__(self, history: ArrayLike) -> Response:
        """Respond to one history that begins where it saturates the device.

        Parameters
        ----------
        history : (step,) input.

        Returns
        -------
        Response relative to that of the first step, of which offsets say nothing; its
        standard deviation holds what the tag leaves open, cycles and the floor, but not
        the noise of a read.

        Raises InputError for an input that is not finite.
        """
        states = relays(self.population.plane, history)
        change = states - states[:1]
        along = change @ self.population.basis.T
        known = self.population.spread if self.tag is None else self.tag.covariance
        covariance = known + self.population.cycle
        variance = np.einsum("sr,rq,sq->s", along, covariance, along)
        # Two responses differ: each may be off by the floor. The first is no different.
        moved = np.arange(len(change)) > 0
        std = np.sqrt(variance + 2 * self.population.floor * moved)
        return Response(change @ self.weights, std)
