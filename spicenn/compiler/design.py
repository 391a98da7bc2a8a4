"""A compiled model: what the chip computes, on which tiles, in which technology."""

from __future__ import annotations

from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.layer import Layer
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.placement import PlacedTile, checked_map, place
from spicenn.compiler.program import Program
from spicenn.errors import InputError
from spicenn.technology import Technology

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from spicenn.compiler.chip import Chip


@dataclass(frozen=True, eq=False, repr=False)
class Design:
    """A model mapped to tiles, without variation.

    Parameters
    ----------
    name : the model's class.
    program : the digital part; its crossbar nodes name layers.
    layers : linear maps, in the order of their index.
    constants : arrays that the program uses, by name.
    technology, tile, mapping : what the layers are mapped to.
    example : a few samples of every input, for netlists and checks.
    versions : what compiled it.
    """

    name: str
    program: Program
    layers: tuple[Layer, ...]
    constants: MappingType[str, NDArray[np.generic]]
    technology: Technology
    tile: Tile
    mapping: Mapping
    example: tuple[NDArray[np.generic], ...]
    versions: MappingType[str, str] = field(default_factory=dict)

    def layer(self, name: str) -> Layer:
        """Return one layer. Raises InputError naming the layers there are."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise InputError(
            f"no layer is called {name!r}",
            remedy="there are " + ", ".join(repr(layer.name) for layer in self.layers),
        )

    def with_technology(self, changes: MappingType[str, Any] | None = None, **more: Any) -> Design:
        """Return the same mapping in a changed technology, e.g. ``r_wordline=5.0``.

        Keys of inner records are dotted: ``with_technology({"variation.stuck_on": 0.01})``.
        """
        return replace(self, technology=self.technology.replace(changes, **more))

    def with_weights(
        self, weights: nn.Module | MappingType[str, tuple[Any, Any]], calibration: Any = None
    ) -> Design:
        """Return the design with other weights: a network after training.

        A chip of the same index and seed has the same draws of every cell.

        Parameters
        ----------
        weights : a module that has the layers' parameters under their names, as the model
            that was compiled or ``to_torch`` has (analog layers count as the plain ones they
            stand for); or (weight, bias) by layer name, other layers staying as they are.
        calibration : inputs like those the chip will see; they set the scales of inputs and
            converters anew. Without them only the weights' own scales follow.

        Raises CompileError where a layer has no such parameters or the module computes
        something else than the design with them, InputError for weights that do not fit.
        """
        from spicenn.compiler.network import with_weights

        return with_weights(self, weights, calibration)

    def to_torch(self) -> nn.Module:
        """Return the model as a plain network that trains, from the design alone.

        Its layers are ``nn.Linear`` and convolutions under the design's names; see
        ``compiler.network.Network``.
        """
        from spicenn.compiler.network import Network

        return Network(self)

    @cached_property
    def tiles(self) -> tuple[PlacedTile, ...]:
        """Every tile, in the order of layers, tile rows and tile columns."""
        return place(self)

    @overload
    def sample(self, chip: int, seed: int) -> Chip: ...

    @overload
    def sample(self, *, seed: int, chips: Iterable[int]) -> list[Chip]: ...

    def sample(
        self,
        chip: int | None = None,
        seed: int | None = None,
        *,
        chips: Iterable[int] | None = None,
    ) -> Chip | list[Chip]:
        """Manufacture one chip, or several: every cell's value is fixed by index and seed.

        Raises InputError without a seed, or with both or neither of chip and chips.
        """
        from spicenn.compiler.chip import Chip

        if seed is None:
            raise InputError("a sample needs a seed", remedy="for example seed=2024")
        if (chip is None) == (chips is None):
            raise InputError("give either chip or chips")
        if chip is not None:
            return Chip(self, chip, seed)
        assert chips is not None
        return [Chip(self, index, seed) for index in chips]

    def measured(
        self, conductances: MappingType[str, Any] | str | Path, *, seed: int, chip: int = 0
    ) -> Chip:
        """Return the chip whose cells were measured.

        Parameters
        ----------
        conductances : (wordline, bitline) [S] of every tile by its name, e.g. what
            ``Chip.conductances`` returns; or the path of a ``.npz`` of them, or of a ``.csv``
            of the one tile that there is, see ``technology.fit.load_conductances``.
        seed, chip : of the draws that a measurement does not fix: reads, converters.

        Raises InputError for a tile that is missing, unknown, or of another shape, for
        values that are not finite or below 0, and for a file that is no map.
        """
        from spicenn.compiler.chip import Chip

        if isinstance(conductances, str | Path):
            from spicenn.technology.fit import load_conductances

            path = Path(conductances)
            conductances = load_conductances(path)
            if path.suffix == ".csv" and len(self.tiles) == 1:  # whatever the file is called
                conductances = {self.tiles[0].name: conductances[path.stem]}
        return Chip(self, chip, seed, measured=checked_map(self.tiles, conductances))

    def probe_vectors(self, x_like: Any, *, count: int, seed: int, steps: int = 100) -> Any:
        """Choose inputs whose outputs tell most about a chip, before any chip is seen.

        Parameters
        ----------
        x_like : (sample, …) inputs like those the chip will see; a tuple for several.
        count : how many probes.
        seed : of the search; the same arguments give the same probes.
        steps : steps of the search; 0 only draws samples of ``x_like``.

        Returns
        -------
        ndarray (count, …) of the model's input dtype, or a tuple of them.

        Raises InputError for inputs that do not fit, or a count below 1. The method is
        Bayesian A-optimality; see ``compiler.probes``.
        """
        from spicenn.compiler.probes import probe_vectors

        return probe_vectors(self, x_like, count=count, seed=seed, steps=steps)

    def save(self, path: str | Path) -> None:
        """Write the design as one file: JSON and arrays in a zip, never pickle."""
        from spicenn.compiler.archive import save

        save(self, Path(path))

    @staticmethod
    def load(
        path: str | Path, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
    ) -> Design:
        """Read a saved design. Raises DesignError where the file is not one.

        Parameters
        ----------
        allow_include : folders that compiled models (OSDI) of its cell may lie in.
        trust_model : allow them: they are native code. A design without any needs neither.
        """
        from spicenn.compiler.archive import load

        return load(Path(path), allow_include=allow_include, trust_model=trust_model)

    def to_bytes(self) -> bytes:
        """Return what ``save`` writes."""
        from spicenn.compiler.archive import to_bytes

        return to_bytes(self)

    @staticmethod
    def from_bytes(
        data: bytes, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
    ) -> Design:
        """Undo ``to_bytes``; see ``load``. Raises DesignError."""
        from spicenn.compiler.archive import from_bytes

        return from_bytes(data, allow_include=allow_include, trust_model=trust_model)

    @property
    def hash(self) -> str:
        """SHA-256 over everything that changes a result (versions left out)."""
        from spicenn.compiler.archive import digest

        return digest(self)

    def __str__(self) -> str:
        from spicenn.compiler.table import render

        return render(self)

    def __repr__(self) -> str:
        return f"Design({self.name!r}, {len(self.layers)} layers, hash {self.hash[:12]})"
