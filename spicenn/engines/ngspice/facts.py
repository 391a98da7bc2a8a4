"""What is installed, for ``spicenn doctor``."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from spicenn.engines.ngspice.library import REMEDY
from spicenn.engines.ngspice.process import Child
from spicenn.errors import SpicennError


@dataclass(frozen=True)
class NgspiceFacts:
    """What a fresh simulator process finds on this machine.

    library, version : of libngspice, None where it does not load.
    klu, xspice : whether it has them.
    executable : path of the plain ``ngspice``, None where it is not on PATH; only
        needed to run exported netlists by hand.
    osdi : whether it loads compiled Verilog-A.
    problem, remedy : what is wrong and what to do, None where all is well.
    """

    library: str | None
    version: str | None
    klu: bool
    xspice: bool
    executable: str | None
    problem: str | None
    remedy: str | None
    osdi: bool = False

    @property
    def usable(self) -> bool:
        return self.library is not None


def ngspice_facts() -> NgspiceFacts:
    """Start a simulator process, ask it, end it. Raises nothing."""
    executable = shutil.which("ngspice")
    try:
        child = Child()
    except SpicennError as error:
        return NgspiceFacts(
            None, None, False, False, executable, error.what, error.remedy or REMEDY
        )
    facts = child.facts
    child.close()
    problem: str | None = None
    remedy: str | None = None
    if not facts["klu"]:
        problem = "libngspice has no KLU solver: large arrays take minutes instead of milliseconds"
        remedy = REMEDY
    return NgspiceFacts(
        facts["library"], facts["version"], facts["klu"], facts["xspice"],
        executable, problem, remedy, facts["osdi"],
    )  # fmt: skip
