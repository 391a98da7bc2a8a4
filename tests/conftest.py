"""Options and fixtures that every test may use."""

from __future__ import annotations

import pytest
from hypothesis import settings

# The same examples on every run and machine; no verdict from a clock.
settings.register_profile("spicenn", derandomize=True, deadline=None, database=None)
settings.load_profile("spicenn")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="write the golden files from the present output instead of comparing with them",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --regenerate run the golden tests only: those that ask for the fixture."""
    if config.getoption("--regenerate"):
        golden = [item for item in items if "regenerate" in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=[item for item in items if item not in golden])
        items[:] = golden


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    """True where golden files are to be written anew."""
    return bool(request.config.getoption("--regenerate"))
