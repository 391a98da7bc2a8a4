"""The Design inside a study's record, and the names that its ports have there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler.design import Design
from spicenn.compiler.program import Port
from spicenn.errors import DesignError

if TYPE_CHECKING:
    import xarray as xr

# The record's variable that holds a saved Design, one byte per element.
VARIABLE = "design"


def embed(design: Design) -> NDArray[np.uint8]:
    """Return a design as what the record's ``design`` variable holds."""
    return np.frombuffer(design.to_bytes(), dtype=np.uint8)


def design_of(
    ds: xr.Dataset, *, allow_include: Sequence[str | Path] = (), trust_model: bool = False
) -> Design:
    """Return the design that a study's record was made from; see ``Design.load``.

    Raises DesignError where ``ds`` carries none or a damaged one.
    """
    if VARIABLE not in ds.variables:
        raise DesignError(
            "the dataset carries no design",
            remedy="use what monte_carlo or open_record returned, with all its variables",
        )
    return Design.from_bytes(
        np.asarray(ds[VARIABLE].values, dtype=np.uint8).tobytes(),
        allow_include=allow_include,
        trust_model=trust_model,
    )


def output_names(design: Design) -> tuple[str, ...]:
    """Variables of the record that hold the model's outputs, in order.

    A single output is called ``output``, several ``output_<port>``.
    """
    return _names("output", design.program.outputs)


def input_names(design: Design) -> tuple[str, ...]:
    """Variables of the record that hold the model's inputs: ``input`` or ``input_<port>``."""
    return _names("input", design.program.inputs)


def _names(kind: str, ports: tuple[Port, ...]) -> tuple[str, ...]:
    if len(ports) == 1:
        return (kind,)
    return tuple(
        port.name if port.name.startswith(f"{kind}_") else f"{kind}_{port.name}" for port in ports
    )
