"""Technology keys that a study varies on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from spicenn.compiler.design import Design
from spicenn.errors import InputError
from spicenn.technology.units import UNITS

Value = float | str


@dataclass(frozen=True)
class Sweep:
    """A product of values of technology keys; each key is a dimension of the record.

    names : the keys, in the order of the dimensions.
    values : per key, its values.
    """

    names: tuple[str, ...] = ()
    values: tuple[tuple[Value, ...], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.values)

    def points(self) -> Iterator[tuple[tuple[int, ...], dict[str, Value]]]:
        """Yield every point as its index and the technology keys that it sets."""
        for index in product(*(range(size) for size in self.shape)):
            yield index, self.changes(index)

    def changes(self, index: tuple[int, ...]) -> dict[str, Value]:
        """Technology keys that one point sets."""
        return {
            name: values[i] for name, values, i in zip(self.names, self.values, index, strict=True)
        }


def parse_sweep(
    design: Design, sweep: Mapping[str, Sequence[Value]] | None, keep: frozenset[str]
) -> Sweep:
    """Check a sweep against the design's technology.

    Raises InputError for an unknown key, no values, repeated values, or a sweep whose
    kept currents would differ in shape; TechnologyError for a value that the
    technology refuses.
    """
    if not sweep:
        return Sweep()
    names, columns = [], []
    for name, given in sweep.items():
        if name not in UNITS:
            raise InputError(
                f"sweep key {name!r} is not a technology key that can be swept",
                remedy="allowed: " + ", ".join(sorted(UNITS)),
            )
        if isinstance(given, str) or not np.iterable(given):
            raise InputError(f"sweep[{name!r}] = {given!r} is not a list of values")
        values = tuple(_plain(name, value) for value in given)
        if not values or len(set(values)) < len(values):
            raise InputError(f"sweep[{name!r}] = {list(values)} is empty or repeats a value")
        names.append(name)
        columns.append(values)
    if "drive" in names and "bitline_current" in keep:
        raise InputError(
            "a sweep over 'drive' changes the number of pulses and so bitline_current's shape",
            remedy="leave bitline_current out of keep, or run one study per drive",
        )
    result = Sweep(tuple(names), tuple(columns))
    for _, changes in result.points():
        design.with_technology(changes)
    return result


def _plain(name: str, value: object) -> Value:
    textual = UNITS[name] == ""
    if textual and isinstance(value, str):
        return str(value)
    if not textual and isinstance(value, int | float | np.integer | np.floating):
        return float(value)
    kind = "text" if textual else "a number"
    raise InputError(f"sweep[{name!r}] holds {value!r}, which is not {kind}")
