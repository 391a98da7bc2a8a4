"""What a study is: everything that its record's numbers depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.errors import InputError
from spicenn.seeds import Purpose, generator
from spicenn.study.crosscheck import BOUND, check_share
from spicenn.study.sweep import Sweep, Value, parse_sweep

SCHEMA = 1


@dataclass(frozen=True, eq=False)
class Study:
    """A design, its inputs and how they are run; the chips are not part of it.

    inputs : one checked array per model input, sample axis first.
    crosscheck, crosscheck_bound : share of the chips that also run in ngspice, and the
        discrepancy that they may have; without a share there is no bound.
    """

    design: Design
    inputs: tuple[NDArray[Any], ...]
    seed: int
    engine: str
    trials: int
    keep: frozenset[str]
    sweep: Sweep
    crosscheck: float = 0.0
    crosscheck_bound: float = BOUND

    @property
    def samples(self) -> int:
        return int(self.inputs[0].shape[0])

    def identity(self) -> dict[str, Any]:
        """Attributes of the record that must agree for a study to go on, as plain data."""
        return {
            "schema": SCHEMA,
            "design_hash": self.design.hash,
            "seed": int(self.seed),
            "input_hash": input_hash(self.inputs),
            "engine": self.engine,
            "trials": self.trials,
            "keep": sorted(self.keep),
            "sweep": {
                name: list(values)
                for name, values in zip(self.sweep.names, self.sweep.values, strict=True)
            },
            **self._crosscheck(),
        }

    def _crosscheck(self) -> dict[str, float]:
        if not self.crosscheck:
            return {}
        return {"crosscheck": self.crosscheck, "crosscheck_bound": self.crosscheck_bound}


def plan(
    design: Design,
    x: Any,
    *,
    seed: int,
    engine: str,
    trials: int,
    keep: Sequence[str],
    sweep: Mapping[str, Sequence[Value]] | None,
    crosscheck: float = 0.0,
    crosscheck_bound: float = BOUND,
) -> Study:
    """Check what the user asked for. Raises InputError and TechnologyError."""
    from spicenn.compiler.execute import KEEP, as_inputs
    from spicenn.engines import ENGINES

    generator(seed, Purpose.PROGRAMMING_ERROR)  # checks the seed
    if engine not in ENGINES:
        raise InputError(
            f"no engine is called {engine!r}", remedy="there are " + ", ".join(ENGINES)
        )
    kept = frozenset([keep] if isinstance(keep, str) else keep)
    if unknown := kept - KEEP:
        raise InputError(
            f"keep has {sorted(unknown)}", remedy="allowed: " + ", ".join(sorted(KEEP))
        )
    if not isinstance(trials, int) or isinstance(trials, bool) or not 1 <= trials < 2**32:
        raise InputError(f"trials = {trials!r} is not an integer of at least 1")
    return Study(
        design,
        as_inputs(design, x),
        seed,
        engine,
        trials,
        kept,
        parse_sweep(design, sweep, kept),
        *check_share(crosscheck, crosscheck_bound, engine),
    )


def chip_labels(chips: int | Iterable[int]) -> tuple[int, ...]:
    """Return the indices of the chips asked for: 0 … chips - 1, or the ones given.

    Raises InputError for none, repeated ones and ones that no seed can have.
    """
    listed: Iterable[object] = ()
    if isinstance(chips, int | np.integer) and not isinstance(chips, bool):
        listed = range(int(chips))
    elif np.iterable(chips):
        listed = chips
    else:
        raise InputError(f"chips = {chips!r} is neither a number nor a list of indices")
    labels = []
    for chip in listed:
        if (
            isinstance(chip, bool)
            or not isinstance(chip, int | np.integer)
            or not 0 <= chip < 2**32
        ):
            raise InputError(f"chip {chip!r} is not an integer in 0 … 2**32 - 1")
        labels.append(int(chip))
    if not labels or len(set(labels)) < len(labels):
        raise InputError(f"chips = {chips!r} asks for none, or for one twice")
    return tuple(labels)


def input_hash(inputs: tuple[NDArray[Any], ...]) -> str:
    """SHA-256 over the inputs' types, shapes and bytes."""
    digest = hashlib.sha256()
    for array in inputs:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
