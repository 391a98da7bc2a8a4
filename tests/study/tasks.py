"""Tasks that tests send to workers; a worker imports this file, so it imports little."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping

from distributed import get_worker

from spicenn.study.task import Outcome, StudyPlugin


def deadly(plugin: str, changes: Mapping[str, float | str], chips: tuple[int, ...]) -> Outcome:
    """Run chips as always, but take the worker along when chip 2 is among them."""
    if 2 in chips:
        os.kill(os.getpid(), signal.SIGKILL)
    place = get_worker().plugins[plugin]
    assert isinstance(place, StudyPlugin)
    return place.run(changes, chips)
