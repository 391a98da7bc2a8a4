"""The random numbers of one network's training: seeded, and carried on after a restart."""

from __future__ import annotations

from typing import Any

import torch

from spicenn.seeds import Purpose, generator


class Draws:
    """A stream of normal numbers, and which chip of a population is in force.

    All layers of a network share one. Training noise is drawn in torch, where it is used;
    what makes chips is drawn in NumPy as everywhere.

    Parameters
    ----------
    seed : of the stream. Raises InputError for a bad one.
    chips : how many chips there are to be in force, 0 for none.
    part : tells streams of one seed apart: 3 is a network's own, others are of what is beside
        it (see where they are made).
    """

    def __init__(self, seed: int, chips: int = 0, *, part: int = 3) -> None:
        self.seed, self.chips, self.chip = seed, chips, 0
        # NumPy's key makes of any seed one that torch takes.
        words = generator(seed, Purpose.TRAINING, layer=part)
        self._generator = torch.Generator().manual_seed(int(words.integers(2**63 - 1)))

    def normal(self, shape: Any, like: torch.Tensor) -> torch.Tensor:
        """Standard normal numbers of a shape, of another tensor's dtype and device."""
        drawn = torch.randn(shape, generator=self._generator, dtype=like.dtype)
        return drawn if like.device.type == "cpu" else drawn.to(like.device)

    def uniform(self, like: torch.Tensor) -> torch.Tensor:
        """Numbers in [0, 1) of another tensor's shape, dtype and device."""
        drawn = torch.rand(like.shape, generator=self._generator, dtype=like.dtype)
        return drawn if like.device.type == "cpu" else drawn.to(like.device)

    def next_chip(self) -> None:
        """Put another chip in force."""
        if self.chips:
            self.chip = int(torch.randint(self.chips, (), generator=self._generator))

    def state(self) -> torch.Tensor:
        """Where the stream is, for ``restore``; a uint8 tensor."""
        return self._generator.get_state()

    def restore(self, state: torch.Tensor) -> None:
        """Go on where another stream was."""
        self._generator.set_state(state)

    def __deepcopy__(self, memo: dict[int, Any]) -> Draws:
        # Layers that share a stream share it after a copy of their network, too.
        copied = memo[id(self)] = Draws(self.seed, self.chips)
        copied.chip = self.chip
        copied.restore(self.state())
        return copied
