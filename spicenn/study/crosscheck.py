"""A share of a study's chips in ngspice as well: which, how far apart, and what that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.placement import PlacedTile
from spicenn.compiler.result import Result
from spicenn.engines.engine import Engine
from spicenn.errors import InputError, NgspiceNotFound, SpicennError, Status, StoreError
from spicenn.technology.variation import Cells

if TYPE_CHECKING:
    import xarray as xr

Array = NDArray[np.float64]

# The engine that the others are held to.
REFERENCE = "ngspice"
BOUND = 1e-6
DISCREPANCY = "discrepancy"
LONG_NAME = (
    "largest over the tiles and their uses of max|I - I_ngspice| / max|I_ngspice|, the bitline "
    "currents before noise of the same conductances at the same wordline voltages"
)


def check_share(share: object, bound: object, engine: str) -> tuple[float, float]:
    """Return a crosscheck's share and bound as floats. Raises InputError by name."""
    if not _is_number(share) or not 0 <= share <= 1:
        raise InputError(f"crosscheck = {share!r} is not a share of the chips in [0, 1]")
    if not _is_number(bound) or not 0 < bound < float("inf"):
        raise InputError(f"crosscheck_bound = {bound!r} is not a positive, finite number")
    if share and engine == REFERENCE:
        raise InputError(
            f"crosscheck = {share!r} would compare {REFERENCE} with itself",
            remedy="leave crosscheck out, or study the chips in engine='nodal'",
        )
    return float(share), float(bound)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def is_checked(chip: int, share: float) -> bool:
    """Whether a chip is among those checked: by its index alone.

    Of the first n chips those are ceil(n · share), evenly spread, chip 0 the first.
    """
    exact = Fraction(repr(share))  # 0.29 as it was written: 100 of its chips are 29
    return ceil((chip + 1) * exact) > ceil(chip * exact)


class Crosscheck:
    """Observer of one ``run_chips``: solves the checked chips' tiles in the reference, too.

    A reference run that fails leaves the chip as it is, at infinite discrepancy, and
    is the chip's last.

    Parameters
    ----------
    reference : engine that the study's engine is held to.
    chips : of the pass, in its order.
    share : of all chips, see ``is_checked``.

    Attributes
    ----------
    seconds : what the reference has taken so far [s].
    checked : (chip,) bool.
    """

    def __init__(self, reference: Engine, chips: Sequence[int], share: float) -> None:
        self.seconds = 0.0
        self.checked = np.array([is_checked(chip, share) for chip in chips])
        self._reference = reference
        # Currents below what the reference resolves are no scale to compare on.
        self._smallest = reference.tolerances.get("abstol", 0.0)
        self._largest = np.zeros(len(chips))
        self._message: dict[int, str] = {}

    def __call__(self, tile: PlacedTile, cells: Cells, v: Array, current: Array) -> None:
        """See ``compiler.execute.Observer``. Raises NgspiceNotFound."""
        if not self.checked.any():
            return
        start = perf_counter()
        finite = np.isfinite(current).all(axis=tuple(range(1, current.ndim)))
        for row in np.flatnonzero(self.checked & ~finite):
            self._fail(row, tile, "the study's engine gave no finite current")
        rows = np.flatnonzero(self.checked & np.isfinite(self._largest))
        if rows.size:
            voltages = v.reshape(len(v), -1, v.shape[-1])
            currents = current.reshape(len(current), -1, current.shape[-1])
            crashed = self._compare(tile, rows, cells, voltages, currents)
            # As everywhere in a study, a simulator that died is given one more chance.
            for row in self._compare(tile, crashed, cells, voltages, currents):
                self._fail(row, tile, "the simulator died twice")
        self.seconds += perf_counter() - start

    def finish(self, result: Result) -> tuple[Result, Array]:
        """Return what the chips gave, reference failures in its messages, and the discrepancy.

        The discrepancy is (chip,) [1]: NaN where the chip is not checked or failed in
        the study's engine itself, infinite where the reference failed.
        """
        good = result.status == Status.OK
        messages = list(result.message)
        for row, message in self._message.items():
            if good[row]:
                messages[row] = message
        discrepancy = np.where(self.checked & good, self._largest, np.nan)
        return replace(result, message=tuple(messages)), discrepancy

    def _compare(
        self, tile: PlacedTile, rows: NDArray[np.intp], cells: Cells, v: Array, current: Array
    ) -> NDArray[np.intp]:
        """Run rows in the reference; return those of them whose simulator died."""
        if not rows.size:
            return rows
        try:
            some = cells.at(rows)
            solution = self._reference.solve(
                tile.crossbar, some.g, v if len(v) == 1 else v[rows], some.parameters
            )
        except NgspiceNotFound:
            raise
        except SpicennError as error:
            for row in rows:
                self._fail(row, tile, str(error))
            return rows[:0]
        crashed: NDArray[np.bool_] = solution.status == Status.CRASH
        for i, row in enumerate(rows):
            if solution.status[i] == Status.OK:
                value = discrepancy(current[row], solution.current[i], self._smallest)
                self._largest[row] = max(self._largest[row], value)
            elif not crashed[i]:
                self._fail(row, tile, solution.message[i])
        again: NDArray[np.intp] = rows[crashed]
        return again

    def _fail(self, row: np.intp, tile: PlacedTile, why: str) -> None:
        self._largest[row] = np.inf
        self._message.setdefault(int(row), f"crosscheck: tile {tile.name}: {why}")


def discrepancy(current: Array, reference: Array, smallest: float = 0.0) -> float:
    """Largest difference over the largest current of the reference.

    Parameters
    ----------
    current, reference : finite, of one shape [A].
    smallest : scale to compare small currents on [A].

    Returns 0 for equal currents whatever the scale, infinity where there is none.
    """
    difference = float(np.abs(current - reference).max(initial=0.0))
    scale = max(float(np.abs(reference).max(initial=0.0)), smallest)
    if difference == 0.0:
        return 0.0
    return difference / scale if scale > 0 else float("inf")


@dataclass(frozen=True)
class Agreement:
    """What a study's crosscheck found, over all points of its sweep.

    share, bound : as in the call.
    checked : runs that were compared; a chip counts once per point of a sweep.
    exceeded : those whose discrepancy exceeds the bound, ``failed`` among them.
    failed : those whose run in the reference failed.
    worst : largest discrepancy, infinite where a run failed, NaN where none was compared.
    where : chip, and point of the sweep, of the worst.
    """

    share: float
    bound: float
    checked: int
    exceeded: int
    failed: int
    worst: float
    where: str

    @property
    def finding(self) -> str:
        """One sentence."""
        if not self.checked:
            return f"none of these chips has been compared with {REFERENCE}"
        said = f"{self.checked} run{'s' * (self.checked != 1)} compared with {REFERENCE}"
        if not self.exceeded:
            return f"{said}, worst discrepancy {self.worst:.2g} within {self.bound:g}"
        failed = f", {self.failed} of them because {REFERENCE} failed" if self.failed else ""
        return (
            f"{self.exceeded} of {said} exceed the bound {self.bound:g}{failed}; "
            f"the worst is {self.where}, discrepancy {self.worst:.2g}"
        )


def agreement(ds: xr.Dataset) -> Agreement | None:
    """What the crosscheck of a record found, None where it was made without one.

    Raises StoreError for a record whose attributes are damaged.
    """
    if DISCREPANCY not in ds:
        return None
    share, bound = ds.attrs.get("crosscheck"), ds.attrs.get("crosscheck_bound")
    try:
        share, bound = check_share(share, bound, "")
    except InputError as error:
        raise StoreError(error.what, where="the record's attributes") from error
    variable = ds[DISCREPANCY]
    # A pending chip's values mean nothing.
    found = np.where(ds["status"].values == Status.OK, variable.values, np.nan)
    compared = ~np.isnan(found)
    if not compared.any():
        return Agreement(share, bound, 0, 0, 0, float("nan"), "")
    worst = np.unravel_index(int(np.nanargmax(found)), found.shape)
    at = {str(dim): ds[dim].values[i] for dim, i in zip(variable.dims, worst, strict=True)}
    chip = at.pop("chip")
    return Agreement(
        share,
        bound,
        int(compared.sum()),
        int((found[compared] > bound).sum()),
        int(np.isinf(found).sum()),
        float(found[worst]),
        ", ".join([f"chip {chip}", *(f"{key} = {_plain(value)}" for key, value in at.items())]),
    )


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
