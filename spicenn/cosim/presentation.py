"""What came out of a spiking network for a row of images, and what class that stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from spicenn.cosim.sources import AddressEvents
from spicenn.errors import InputError

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]
Code = Literal["count", "first"]

# No output has fired.
UNDECIDED = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class Presentation:
    """Spikes of every layer for images that were shown one after the other.

    spikes : of every layer for every image, [image][layer]; times are counted from the
        image's begin [s].
    outputs : neurons of the last layer.
    energy : (image, layer) from the supplies [J]; NaN where nothing says so.
    steps : (layer,) accepted time points of circuits; 0 where there is none.
    record : of the co-simulation.
    """

    spikes: tuple[tuple[AddressEvents, ...], ...]
    outputs: int
    energy: Array
    steps: tuple[int, ...]
    record: xr.Dataset | None = None

    @property
    def counts(self) -> NDArray[np.int64]:
        """(image, output) number of spikes."""
        return np.array([
            np.bincount(image[-1].addresses, minlength=self.outputs) for image in self.spikes
        ], dtype=np.int64)  # fmt: skip

    @property
    def first(self) -> Array:
        """(image, output) time of the first spike [s], endless where there is none."""
        first = np.full((len(self.spikes), self.outputs), np.inf)
        for row, image in zip(first, self.spikes, strict=True):
            np.minimum.at(row, image[-1].addresses, image[-1].times)
        return first

    @property
    def layer_counts(self) -> NDArray[np.int64]:
        """(image, layer) number of spikes."""
        return np.array(
            [[len(layer.times) for layer in image] for image in self.spikes], dtype=np.int64
        )

    def decode(self, code: Code = "count") -> NDArray[np.int64]:
        """(image,) the output that fired most, the earlier one of two; or the first to fire.

        ``UNDECIDED`` where none has fired.
        """
        if code not in ("count", "first"):
            raise InputError(f"no code is called {code!r}", remedy="count or first")
        counts, first = self.counts, self.first
        chosen = np.empty(len(counts), dtype=np.int64)
        for k, (count, time) in enumerate(zip(counts, first, strict=True)):
            keys = (time, -count) if code == "count" else (time,)
            best = int(np.lexsort(keys)[0])
            chosen[k] = best if count[best] else UNDECIDED
        return chosen


def split(events: AddressEvents, period: float, images: int) -> list[AddressEvents]:
    """Events of every image, by their times over a row of images, from each one's begin on."""
    index = np.floor(events.times / period).astype(np.int64)
    return [
        AddressEvents(events.times[index == k] - k * period, events.addresses[index == k])
        for k in range(images)
    ]


def joined(images: Sequence[AddressEvents], period: float) -> AddressEvents:
    """Events of images one after the other, each a period.

    Raises InputError for an image that has events outside of its period.
    """
    for k, image in enumerate(images):
        if image.times.size and not (image.times.min() >= 0 and image.times.max() < period):
            raise InputError(
                f"events from {image.times.min():g} to {image.times.max():g} s do not lie within "
                f"a period of {period:g} s",
                where=f"image {k}",
                remedy="give a longer period",
            )
    return AddressEvents(
        np.concatenate([np.zeros(0), *(i.times + k * period for k, i in enumerate(images))]),
        np.concatenate([np.zeros(0, dtype=np.int64), *(i.addresses for i in images)]),
    )
