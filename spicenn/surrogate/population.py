"""What a study says about a design's chips in general."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from spicenn.compiler import Design
from spicenn.compiler.probes import draw_chip
from spicenn.compiler.structural import TileMoments, tile_moments
from spicenn.seeds import Purpose, generator
from spicenn.surrogate.module import ChipModel
from spicenn.surrogate.posterior import Prior


@dataclass(frozen=True, eq=False)
class Surrogate:
    """A model of all chips of one design: a mean, how chips differ from it, and noise.

    Parameters
    ----------
    design : whose chips.
    shift : per tile name, (wordline, output · slice) over g_max - g_min, what the
        study adds to the technology's mean effective matrix.
    spread_scale : per layer name, the spread over chips that the study shows, over
        what the technology predicts.
    floor : variance of an output, in its own units squared, that neither cells nor
        read noise explain.
    chips, failed : chips of the study that were used, that were left out.
    provenance : what it was fitted to, as text.
    """

    design: Design
    shift: Mapping[str, torch.Tensor]
    spread_scale: Mapping[str, float]
    floor: float
    chips: int
    failed: int
    provenance: Mapping[str, str]

    @cached_property
    def moments(self) -> tuple[TileMoments, ...]:
        """The technology's own mean and spread of every tile."""
        return tile_moments(self.design)

    @cached_property
    def prior(self) -> Prior:
        """Mean and variance of every effective weight of an unseen chip."""
        mean, variance = {}, {}
        for moment in self.moments:
            name = moment.tile.name
            mean[name] = moment.mean + self.shift[name]
            scale = self.spread_scale[moment.tile.layer.name]
            variance[name] = (moment.spread * scale).square()
        return Prior(mean, variance, self.floor)

    def module(self, *, draws: int = 16, seed: int = 0) -> ChipModel:
        """Return the population model as a module.

        In ``train()`` with ``vary_cells`` every forward is another chip.

        Parameters
        ----------
        draws : chips that it holds; each costs one copy of the weights in float32.
        """
        prior = self.prior
        rng = generator(seed, Purpose.TRAINING, layer=1)
        chips = [draw_chip(self.moments, rng) for _ in range(draws)]
        deviations = {}
        for moment in self.moments:
            name = moment.tile.name
            scale = self.spread_scale[moment.tile.layer.name]
            parts = [(chip[name] - moment.mean) * scale for chip in chips]
            deviations[name] = torch.stack(parts) if parts else torch.zeros(0, *moment.mean.shape)
        return ChipModel(
            self.design,
            prior.mean,
            deviations,
            floor=self.floor,
            seed=seed,
            provenance={**self.provenance, "kind": "population"},
            moments=self.moments,
        )

    def save(self, path: str | Path) -> None:
        """Write it to one file that torch reads with weights_only."""
        from spicenn.surrogate.files import save_surrogate

        save_surrogate(self, Path(path))

    @staticmethod
    def load(
        path: str | Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
    ) -> Surrogate:
        """Read a saved surrogate. Raises DesignError where the file is not one.

        Parameters
        ----------
        allow_include, trust_model : for its design, as of ``Design.load``.
        """
        from spicenn.surrogate.files import load_surrogate

        return load_surrogate(Path(path), allow_include=allow_include, trust_model=trust_model)

    def __repr__(self) -> str:
        return (
            f"Surrogate({self.design!r}, {self.chips} chips, {self.failed} left out, "
            f"floor {np.sqrt(self.floor):.3g})"
        )
