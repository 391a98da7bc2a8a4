"""What a study says about a design's chips in general."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from spicenn.compiler import Design
from spicenn.compiler.probes import draw_chip
from spicenn.compiler.structural import TileMoments, tile_moments
from spicenn.compiler.structure import mechanism_of, structure_variance
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
    structure_scale : per mechanism of converters that the technology has on
        (``periphery.adc.gain``, …), their spread over what the technology says; 1 where
        left out.
    wires : standard deviation over chips of λ = ln(resistance of a wire's segment over the
        technology's), one number a chip; 0 where wires are not a chip's own.
    """

    design: Design
    shift: Mapping[str, torch.Tensor]
    spread_scale: Mapping[str, float]
    floor: float
    chips: int
    failed: int
    provenance: Mapping[str, str]
    structure_scale: Mapping[str, float] = field(default_factory=dict)
    wires: float = 0.0

    @cached_property
    def moments(self) -> tuple[TileMoments, ...]:
        """The technology's own mean and spread of every tile."""
        return tile_moments(self.design, wires=bool(self.wires))

    @cached_property
    def prior(self) -> Prior:
        """Mean and variance of every parameter of an unseen chip."""
        return prior_of(
            self.design,
            self.moments,
            self.shift,
            {**self.spread_scale, **self.structure_scale},
            self.floor,
            self.wires,
        )

    def module(self, *, draws: int = 16, seed: int = 0) -> ChipModel:
        """Return the population model as a module.

        In ``train()`` with ``vary_cells`` every forward is another chip.

        Parameters
        ----------
        draws : chips that it holds; each costs one copy of the weights in float32.
        """
        prior = self.prior
        rng = generator(seed, Purpose.TRAINING, layer=1)
        known = structure_variance(self.design, self.wires)
        chips = [draw_chip(self.moments, rng, known) for _ in range(draws)]
        middle = {moment.tile.name: moment.mean for moment in self.moments}
        scale = {moment.tile.name: self.spread_scale[moment.tile.layer.name]
                 for moment in self.moments}  # fmt: skip
        scale |= {name: self.structure_scale.get(mechanism_of(name), 1.0) for name in known}
        deviations = {}
        for name, value in prior.variance.items():
            parts = [(chip[name] - middle.get(name, 0.0)) * scale[name] for chip in chips]
            deviations[name] = torch.stack(parts) if parts else torch.zeros(0, *value.shape)
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


def prior_of(
    design: Design,
    moments: Sequence[TileMoments],
    shift: Mapping[str, torch.Tensor],
    scale: Mapping[str, float],
    floor: float,
    wires: float = 0.0,
) -> Prior:
    """What the technology says of a chip's parameters, corrected by a study.

    Parameters
    ----------
    shift : per tile name, added to the mean.
    scale : of standard deviations, by layer name (its cells) and mechanism (its converters,
        1 where left out).
    wires : standard deviation of λ, see ``compiler.structure``.
    """
    mean = {moment.tile.name: moment.mean + shift[moment.tile.name] for moment in moments}
    variance = {
        moment.tile.name: (moment.spread * scale[moment.tile.layer.name]).square()
        for moment in moments
    }
    for name, value in structure_variance(design, wires).items():
        variance[name] = value * scale.get(mechanism_of(name), 1.0) ** 2
    return Prior(mean, variance, floor)
