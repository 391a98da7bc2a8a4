"""One manufactured chip: fixed cells that run on an engine or become netlists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.compiler.layer import Array
from spicenn.compiler.placement import sample_tile
from spicenn.errors import Status, error_of
from spicenn.seeds import Purpose, generator

if TYPE_CHECKING:
    from torch import nn

    from spicenn.compiler.design import Design
    from spicenn.engines.engine import Engine


@dataclass(frozen=True, eq=False)
class Chip:
    """One manufactured copy of a design.

    Two chips with the same design, index and seed are the same chip.
    """

    design: Design
    index: int
    seed: int

    def __post_init__(self) -> None:
        generator(self.seed, Purpose.PROGRAMMING_ERROR, chip=self.index)  # checks both

    def __repr__(self) -> str:
        return f"Chip({self.index} of {self.design.name!r}, seed {self.seed})"

    def conductances(self) -> dict[str, Array]:
        """Conductance of every cell per tile, (wordline, bitline) [S]."""
        return {
            tile.name: sample_tile(self.design, tile, self.index, self.seed)
            for tile in self.design.tiles
        }

    def run(
        self,
        x: Any,
        engine: str | Engine = "ngspice",
        *,
        trials: int = 1,
        timeout: float = 60.0,
    ) -> Any:
        """Run inputs through the chip.

        Parameters
        ----------
        x : array or tensor (sample, …), or a tuple of them for several inputs.
        engine : "ngspice", "nodal", or an open engine to use again and again.
        trials : repeated noisy reads.
        timeout : seconds that ngspice may take for one tile of all samples.

        Returns
        -------
        ndarray (sample, output), with trials > 1 (trial, sample, output); a dict of
        them by name for a model of several outputs.

        Raises InputError for a bad input, and an EngineError (ConvergenceError,
        SingularMatrixError, SimulationTimeout, SimulatorCrash, …) naming the tile.
        """
        from spicenn.engines import opened

        inputs = as_inputs(self.design, x)
        with opened(engine, timeout=timeout) as running:
            result = run_chips(self.design, [self.index], self.seed, inputs, running, trials=trials)
        if result.status[0] != Status.OK:
            raise error_of(Status(int(result.status[0])), result.message[0], where=repr(self))
        outputs = {
            name: value[0] if trials > 1 else value[0, 0] for name, value in result.output.items()
        }
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def to_spice(
        self, directory: str | Path, x: Any = None, *, engine: str | Engine | None = None
    ) -> Path:
        """Write netlists that plain ``ngspice -b`` runs, and a manifest; see ``compiler.export``.

        Parameters
        ----------
        directory : made if it does not exist.
        x : inputs whose voltages the netlists drive; the design's example if None.
        engine : where given, deeper layers are driven by what this chip's earlier
            layers give on that engine; otherwise by what ideal ones would.

        Returns
        -------
        Path of the manifest.
        """
        from spicenn.compiler.export import write_netlists

        return write_netlists(self, Path(directory), x, engine)

    def to_pyspice(self) -> Any:
        """Return a ``PySpice.Spice.Netlist.Circuit``: one subcircuit and instance per tile."""
        from spicenn.compiler.export import to_pyspice

        return to_pyspice(self)

    def to_torch(self, *, progress: Callable[[int, int], None] | None = None) -> nn.Module:
        """Return the chip as an ordinary module that runs at torch's speed, wires included.

        Every tile's effective matrix is computed once, exactly; each later input is a
        plain matrix product or convolution. The module has the model's inputs and
        dtype, gives what ``run(x, engine="nodal")`` gives without noise, and is
        deterministic: for noisy reads use ``run``. See ``compiler.exact.ChipModule``.

        Parameters
        ----------
        progress : called with the tiles done and all tiles.

        Raises EngineError for a cell that is not ohmic.
        """
        from spicenn.compiler.exact import chip_module

        return chip_module(self, progress)
