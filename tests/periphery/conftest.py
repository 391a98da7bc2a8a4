"""Small circuits around a subcircuit of ours, run in ngspice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from spicenn.circuit import Tolerances
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.technology.library import subcircuit_text

Simulate = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def ngspice() -> Iterator[NgspiceEngine]:
    with NgspiceEngine() as engine:
        yield engine


@pytest.fixture(scope="session")
def simulate(ngspice: NgspiceEngine) -> Simulate:
    """Run subcircuits by name with lines around them: (names, lines, analysis, vectors)."""

    def run(
        names: Sequence[str], lines: Sequence[str], analysis: str, vectors: Sequence[str]
    ) -> dict[str, np.ndarray]:
        netlist = [
            "* test",
            f".options klu {Tolerances().options()} gmin=1e-15",
            *(subcircuit_text(name) for name in names),
            *lines,
            analysis,
            ".end",
        ]
        return ngspice.run("\n".join(netlist), [*vectors])

    return run
