"""One ngspice for all tests of learning: starting it takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from spicenn.engines.ngspice.client import NgspiceEngine


@pytest.fixture(scope="session")
def engine() -> Iterator[NgspiceEngine]:
    running = NgspiceEngine()
    yield running
    running.close()
