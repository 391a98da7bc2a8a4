"""One manufactured chip: fixed cells that run on an engine or become netlists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spicenn.compiler.execute import as_inputs, run_chip
from spicenn.compiler.layer import Array
from spicenn.compiler.placement import PlacedTile, sample_tile
from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator
from spicenn.technology.variation import G_FLOOR, Cells, wafer_position

if TYPE_CHECKING:
    from torch import nn

    from spicenn.compiler.adapter import Adapter
    from spicenn.compiler.design import Design
    from spicenn.engines.analog import Transient
    from spicenn.engines.engine import Engine


@dataclass(frozen=True, eq=False)
class Chip:
    """One manufactured copy of a design.

    Two chips with the same design, index, seed and cycle are the same chip.

    Parameters
    ----------
    cycle : how often its cells were programmed before this time.
    measured : conductances (wordline, bitline) [S] per tile that were measured, in the
        place of drawn ones; reads are drawn all the same. See ``Design.measured``.
    adapter : correction of its layers' digital results; see ``corrected``.
    """

    design: Design
    index: int
    seed: int
    cycle: int = 0
    measured: Mapping[str, Array] | None = None
    adapter: Adapter | None = None

    def __post_init__(self) -> None:
        # Checks all three.
        generator(self.seed, Purpose.PROGRAMMING_ERROR, chip=self.index, trial=self.cycle)

    def __repr__(self) -> str:
        kind = "measured, " if self.measured is not None else ""
        kind += "corrected, " if self.adapter is not None else ""
        return f"Chip({self.index} of {self.design.name!r}, {kind}seed {self.seed})"

    def cells(self, tile: PlacedTile) -> Cells:
        """Every cell of one of the design's tiles."""
        drawn = sample_tile(self.design, tile, self.index, self.seed, cycle=self.cycle)
        if self.measured is None:
            return drawn
        # What a conductance map does not say (thresholds, drift exponents) is drawn.
        return Cells(np.maximum(self.measured[tile.name], G_FLOOR), drawn.parameters)

    def conductances(self) -> dict[str, Array]:
        """Conductance of every cell per tile, (wordline, bitline) [S]."""
        return {tile.name: self.cells(tile).g for tile in self.design.tiles}

    def reprogrammed(self, cycle: int) -> Chip:
        """The same chip after its cells were programmed anew, for the ``cycle``-th time."""
        return replace(self, cycle=cycle, measured=None)

    def at(self, time: float) -> Chip:
        """The same chip ``time`` seconds after its programming; see ``Drift``.

        Measured conductances are of the design's own ``drift.time`` and fade from there on,
        by the exponents drawn for their cells.
        """
        later = replace(self, design=self.design.with_technology({"drift.time": time}))
        if self.measured is None:
            return later
        drawn = replace(self, measured=None).conductances()
        faded = replace(later, measured=None).conductances()
        measured = {name: g * (faded[name] / drawn[name]) for name, g in self.measured.items()}
        return replace(later, measured=measured)

    def corrected(self, adapter: Adapter | None) -> Chip:
        """The same chip with a digital gain and offset behind every output of its layers.

        Takes the place of a correction that it has; None takes that away. ``run`` and
        ``to_torch`` apply it, and so do the inputs of deeper layers in ``to_spice`` with an
        engine; circuits are not changed by it.

        Raises InputError for an adapter of another design.
        """
        if adapter is not None:
            adapter.check(self.design)
        return replace(self, adapter=adapter)

    @property
    def wafer_position(self) -> tuple[float, float]:
        """Where the die lay on its wafer, in units of its radius."""
        return wafer_position(generator(self.seed, Purpose.WAFER, chip=self.index))

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
            result = run_chip(self, inputs, running, trials=trials)
        outputs = {
            name: value[0] if trials > 1 else value[0, 0] for name, value in result.output.items()
        }
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def run_analog(
        self, x: Any, engine: str | Engine = "ngspice", *, timeout: float = 600.0
    ) -> Any:
        """Run inputs through the chip as one analog circuit, without converters between layers.

        Layers follow each other through amplifiers and CMOS neurons; see
        ``compiler.analog`` for what can be one, and ``Technology.periphery`` for the blocks.
        Noise is not drawn.

        Parameters
        ----------
        x : as ``run`` takes it.
        engine : "ngspice", or "nodal" for Kirchhoff's laws and the blocks' closed forms.
        timeout : seconds that ngspice may take for all samples.

        Returns
        -------
        What ``run`` returns for one trial. Raises CompileError naming the layer or operator
        that cannot be analog, InputError for a bad input, EngineError where the circuit has
        no solution.
        """
        from spicenn.compiler.analog import run_analog

        self._refuse_adapter()
        outputs = run_analog(self, x, engine, timeout)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))

    def transient(
        self,
        x: Any,
        *,
        tolerance: float = 0.01,
        stop: float | None = None,
        noise: bool = False,
        trial: int = 0,
        timeout: float = 600.0,
    ) -> Transient:
        """Step the inputs of the whole chip, as one analog circuit, and follow it in ngspice.

        Parameters
        ----------
        x : one sample (1, …) as ``run`` takes it.
        tolerance : of settling, over the largest final output of a layer.
        stop : duration [s]; if None, until everything has settled.
        noise : draw every cell's thermal, shot, 1/f and telegraph noise in the time domain,
            up to the technology's bandwidth. A noisy transient needs ``stop``.
        trial : which noise.

        Returns
        -------
        Waveforms, latencies and energies; see ``engines.analog.Transient``. Raises as
        ``run_analog``, and ConvergenceError where an output does not settle.
        """
        from spicenn.compiler.analog import chip_transient

        self._refuse_adapter()
        return chip_transient(
            self, x, tolerance=tolerance, stop=stop, noise=noise, trial=trial, timeout=timeout
        )

    def _refuse_adapter(self) -> None:
        if self.adapter is not None:
            raise InputError(
                "its adapter corrects digital results, and in one analog circuit there are none",
                where=repr(self),
                remedy="use run, or corrected(None)",
            )

    def to_spice(
        self,
        directory: str | Path,
        x: Any = None,
        *,
        engine: str | Engine | None = None,
        analog: bool = False,
    ) -> Path:
        """Write netlists that plain ``ngspice -b`` runs, and a manifest; see ``compiler.export``.

        Parameters
        ----------
        directory : made if it does not exist.
        analog : write the whole chip as one circuit instead, ``network.cir``, with the
            inputs as a sweep, and ``network_step.cir``, the first of them as a transient.
        x : inputs whose voltages the netlists drive; the design's example if None.
        engine : where given, deeper layers are driven by what this chip's earlier
            layers give on that engine; otherwise by what ideal ones would.

        Returns
        -------
        Path of the manifest.
        """
        from spicenn.compiler.export import write_netlists, write_network

        if analog:
            return write_network(self, Path(directory), x)
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

        Raises EngineError for a cell that is not linear.
        """
        from spicenn.compiler.exact import chip_module

        return chip_module(self, progress)
