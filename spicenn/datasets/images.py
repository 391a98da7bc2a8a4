"""What every loader returns, and the scale of its pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.errors import InputError

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]

# Called with the steps done and the steps in all; the loader says what a step is.
Progress = Callable[[int, int], None]

# Every loader looks levels up here, so that a pixel's value does not depend on its source.
_LEVELS: Pixels = (np.arange(256) / 255).astype(np.float32)


@dataclass(frozen=True, eq=False, repr=False)
class Images:
    """Labelled images, split into what trains a network and what tests it.

    train, test : (sample, channel, height, width) float32 in [0, 1].
    train_labels, test_labels : (sample,) int64, index into ``classes``.
    classes : names of the classes.

    Four bytes are held per pixel: 220 MB for all of MNIST, 737 MB for CIFAR-10, 5.4 GB for
    Tiny ImageNet. ``images.train.reshape(len(images.train), -1)`` is what a network of
    fully connected layers takes, without a copy.

    Raises InputError where shapes, types, pixels or labels do not fit.
    """

    train: Pixels
    train_labels: Labels
    test: Pixels
    test_labels: Labels
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            pixels, labels = getattr(self, name), getattr(self, f"{name}_labels")
            _check_pixels(name, pixels)
            _check_labels(f"{name}_labels", labels, len(pixels), len(self.classes))
        if self.train.shape[1:] != self.test.shape[1:]:
            raise InputError(
                f"images of {self.train.shape[1:]} to train with and of "
                f"{self.test.shape[1:]} to test with"
            )

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.train.shape[1:]))
        return (
            f"Images({len(self.train)} to train with, {len(self.test)} to test with, {shape}, "
            f"{len(self.classes)} classes)"
        )


def scaled(levels: NDArray[np.uint8]) -> Pixels:
    """Map 0 … 255 to [0, 1]."""
    return _LEVELS[levels]


def check_limit(limit: int | None) -> None:
    """Raise InputError unless limit is None or at least 1."""
    good = isinstance(limit, int | np.integer) and not isinstance(limit, bool) and limit >= 1
    if limit is not None and not good:
        raise InputError(f"limit = {limit!r} is not a number of samples", remedy="at least 1")


def _check_pixels(name: str, pixels: Any) -> None:
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.float32 or pixels.ndim != 4:
        raise InputError("is no float32 array (sample, channel, height, width)", where=name)
    # Comparisons with NaN are false, so the test is for what is right.
    if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
        raise InputError("holds pixels outside [0, 1]", where=name, remedy="divide by 255")


def _check_labels(name: str, labels: Any, samples: int, classes: int) -> None:
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.ndim != 1:
        raise InputError("is no int64 array (sample,)", where=name)
    if len(labels) != samples:
        raise InputError(f"{len(labels)} labels for {samples} images", where=name)
    if samples and not (labels.min() >= 0 and labels.max() < classes):
        raise InputError(
            f"labels {labels.min()} … {labels.max()} for {classes} classes", where=name
        )
