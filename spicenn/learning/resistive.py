"""Deep resistive networks: layers of nodes, positive conductances between, a diode per hidden node.

Inputs come twice, as they are and with the other sign, and amplified: conductances have one
sign, and voltages fall from layer to layer. Even hidden nodes are kept at 0 V or above, odd
ones at 0 V or below. Source: Scellier, A fast algorithm to simulate nonlinear resistive
networks, ICML 2024; Kendall et al., arXiv 2006.01981, 2020.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spicenn.errors import InputError
from spicenn.learning.elements import Diode, Resistor
from spicenn.learning.network import Network, layered
from spicenn.seeds import Purpose, generator

Array = NDArray[np.float64]
# What a network's inputs are driven with, from samples (sample, feature).
Drive = Callable[[ArrayLike], Array]

_SCHEMA = 1
_NAME = "conductances_{}"


@dataclass(frozen=True)
class IdealDiode:
    """Nothing one way, a short circuit the other: what an exponential one of n → 0 is."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResistiveNetwork:
    """Layers of nodes, each joined to all of the next by conductances.

    Parameters
    ----------
    conductances : (to, from) [S] from layer to layer; the first has two columns per feature,
        first all that are driven as they are, then all with the other sign.
    gain : volts of an input node per unit of its feature.
    diode : of every hidden node to ground; None is a linear network.
    temperature : of the diodes [K].
    shunt : from every node that is not driven to ground [S].

    Raises InputError for shapes that do not fit, conductances that are negative or not
    finite, and numbers out of range.
    """

    conductances: tuple[Array, ...]
    gain: float = 1.0
    diode: Diode | IdealDiode | None = IdealDiode()
    temperature: float = 300.15
    shunt: float = 1e-10

    def __post_init__(self) -> None:
        if not self.conductances:
            raise InputError("there are no conductances", where="network")
        found = tuple(np.array(part, dtype=np.float64) for part in self.conductances)
        for k, part in enumerate(found):
            if part.ndim != 2 or not part.size or not np.isfinite(part).all() or part.min() < 0:
                raise InputError(
                    f"conductances of shape {part.shape} are not (to, from), finite and 0 or more",
                    where=f"layer {k + 1}",
                )
            if k and part.shape[1] != len(found[k - 1]):
                raise InputError(
                    f"conductances from {part.shape[1]} nodes to a layer after one of "
                    f"{len(found[k - 1])}",
                    where=f"layer {k + 1}",
                )
        if found[0].shape[1] % 2:
            raise InputError(
                f"{found[0].shape[1]} input nodes are not two per feature", where="layer 1"
            )
        object.__setattr__(self, "conductances", found)
        for name, low in (("gain", 0.0), ("temperature", 0.0), ("shunt", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > low):
                raise InputError(f"{name} = {value!r} is not positive", where="network")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes of every layer, the inputs' first."""
        return (self.conductances[0].shape[1], *(len(part) for part in self.conductances))

    @property
    def features(self) -> int:
        """Numbers that a sample has."""
        return self.sizes[0] // 2

    def with_conductances(self, conductances: Sequence[ArrayLike]) -> ResistiveNetwork:
        """Return the network with others [S]. Raises InputError for shapes that do not fit."""
        found = tuple(np.asarray(part, dtype=np.float64) for part in conductances)
        shapes = [part.shape for part in found]
        if shapes != [part.shape for part in self.conductances]:
            raise InputError(f"conductances of shapes {shapes} are not this network's")
        return replace(self, conductances=found)

    def voltages(self, x: ArrayLike) -> Array:
        """Voltages of the input nodes (sample, 2 · feature) [V] for samples (sample, feature).

        Raises InputError for another shape or values that are not finite.
        """
        found = np.asarray(x, dtype=np.float64)
        if found.ndim != 2 or found.shape[1] != self.features or not np.isfinite(found).all():
            raise InputError(
                f"samples of shape {found.shape} are not finite and (sample, {self.features})",
                where="network",
            )
        return np.asarray(self.gain * np.hstack([found, -found]))

    def to_network(self, diode: Diode | None = None) -> tuple[Network, Array, Drive]:
        """Return the same circuit as a graph, its values and what drives its inputs.

        ``equilibrium`` and ``operating_points`` take the three: of
        ``ideal_chip(network)``, the values, and the drive of samples.

        Parameters
        ----------
        diode : stands for an ideal one, which no netlist has.

        Raises InputError for an ideal diode without one that stands for it.
        """
        real = diode
        if not isinstance(self.diode, IdealDiode):
            if diode is not None:
                raise InputError("only an ideal diode is replaced by another", where="to_network")
            real = self.diode
        elif diode is None:
            raise InputError(
                "an ideal diode has no netlist", where="to_network",
                remedy="give a Diode of small emission that stands for it",
            )  # fmt: skip
        network = layered(
            self.sizes, element=Resistor(learns=True), diode=real, temperature=self.temperature
        )
        values = np.concatenate([part.ravel() for part in self.conductances])
        return replace(network, shunt=self.shunt), values, self.voltages

    def save(self, path: str | Path) -> None:
        """Write the network as ``.npz``."""
        described = {
            "spicenn": _SCHEMA, "kind": "resistive network", "gain": self.gain,
            "diode": None if self.diode is None else asdict(self.diode),
            "temperature": self.temperature, "shunt": self.shunt,
        }  # fmt: skip
        named: dict[str, Any] = {_NAME.format(k): part for k, part in enumerate(self.conductances)}
        with Path(path).open("wb") as file:
            np.savez(file, network=np.array(json.dumps(described)), **named)

    @classmethod
    def load(cls, path: str | Path) -> ResistiveNetwork:
        """Read what ``save`` wrote. Raises InputError for a file that is none."""
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                described = json.loads(str(file["network"][()]))
                if described["spicenn"] != _SCHEMA or described["kind"] != "resistive network":
                    raise ValueError("it is of another kind")
                parts = tuple(file[_NAME.format(k)] for k in range(len(file.files) - 1))
            diode = described["diode"]
            if diode is not None:
                diode = Diode(**diode) if diode else IdealDiode()
            return cls(
                conductances=parts, diode=diode,
                **{name: described[name] for name in ("gain", "temperature", "shunt")},
            )  # fmt: skip
        except (OSError, KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"is no resistive network: {type(error).__name__}: {error}", where=str(path)
            ) from error


def initial(
    sizes: Sequence[int],
    *,
    seed: int,
    conductance: float = 1e-5,
    least: float = 0.0,
    gain: float = 1.0,
    diode: Diode | IdealDiode | None = IdealDiode(),
    temperature: float = 300.15,
    chip: int = 0,
) -> ResistiveNetwork:
    """Draw a network to begin with.

    Parameters
    ----------
    sizes : features, hidden nodes of every layer, outputs.
    conductance : the largest drawn from a layer of one node [S]; from one of n nodes it is
        1/√n of that, and draws are uniform on either side of 0, those below being ``least``.
    least : conductance [S] that none is below.
    chip : another one draws another network from the same seed.

    Others as of ``ResistiveNetwork``. Raises InputError for sizes or numbers out of range.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"layers of {list(sizes)!r} nodes", where="initial")
    if not (conductance > 0 and least >= 0 and math.isfinite(conductance + least)):
        raise InputError(
            f"conductance = {conductance!r} S and least = {least!r} S are out of range",
            where="initial",
        )
    nodes = [2 * sizes[0], *sizes[1:]]
    parts = []
    for k, (before, after) in enumerate(pairwise(nodes)):
        rng = generator(seed, Purpose.EDGE_START, chip=chip, layer=k + 1)
        drawn = conductance / math.sqrt(before) * rng.uniform(-1, 1, (after, before))
        parts.append(np.maximum(drawn, least))
    return ResistiveNetwork(
        conductances=tuple(parts), gain=gain, diode=diode, temperature=temperature
    )
