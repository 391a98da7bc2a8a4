"""What ngspice's messages mean. Whether a run failed is judged from its result, not from these."""

from __future__ import annotations

import re

from spicenn.engines.ngspice.protocol import Header
from spicenn.errors import (
    ConvergenceError,
    EngineError,
    MissingModelError,
    NetlistError,
    NgspiceNotFound,
    SingularMatrixError,
    SpicennError,
)

# What crosses the pipe is a name out of this table.
KINDS: dict[str, type[SpicennError]] = {
    kind.__name__: kind
    for kind in (
        ConvergenceError,
        EngineError,
        MissingModelError,
        NetlistError,
        NgspiceNotFound,
        SingularMatrixError,
    )
}

_LOAD = re.compile(
    r"error on line|circuit not parsed|unknown subckt|error in netlist line|cannot recover"
    r"|can't find model|unimplemented dot command|, ignored!|no circuits? loaded"
    r"|aren't any circuits|no such function|syntax error|there is no circuit",
    re.IGNORECASE,
)
_MISSING = re.compile(
    r"can't find model|valid modelname|find definition of model|unknown subckt", re.IGNORECASE
)
_SINGULAR = re.compile(r"singular matrix|matrix is singular", re.IGNORECASE)
_UNSOLVED = re.compile(
    r"timestep too small|no convergence|failed to converge|iteration limit|convergence problem"
    r"|stepping failed|transient op failed",
    re.IGNORECASE,
)
_ABORTED = re.compile(r"simulation\(s\) aborted|simulation interrupted", re.IGNORECASE)
_NOISE = re.compile(
    r"^(note: no compatibility|initial transient solution|circuit:|doing analysis"
    r"|using (klu|sparse)|no\. of data rows"
    r"|reference value|last node voltages|-+|node\s|any of the following|dc solution failed"
    r"|(note|warning): .*stepping|please check your input|\S+( +[-+\d.e]+){2}|\S+ +[-+\d.e]+$"
    r"|error: ngspice\.dll cannot recover)",
    re.IGNORECASE,
)


def load_failed(text: str) -> bool:
    """True where the messages of a load say that the circuit is not what was written."""
    return _LOAD.search(text) is not None


def aborted(text: str) -> bool:
    """True where an analysis ended before its end; its plot may hold the points up to there."""
    return _ABORTED.search(text) is not None


def diagnose(text: str, *, loading: bool) -> SpicennError:
    """Return the error that fits what ngspice said of a failed load or a failed analysis."""
    said = summary(text)
    if loading or load_failed(text):
        if _MISSING.search(text):
            return MissingModelError(
                f"a model or subcircuit is not defined: {said}",
                remedy="define it with .model or .subckt, or correct its name",
            )
        return EngineError(
            f"ngspice cannot read the netlist: {said}", remedy="correct the line it names"
        )
    if _SINGULAR.search(text):
        return SingularMatrixError(
            f"the circuit's equations are singular: {said}",
            remedy="look for a loop of voltage sources or a node without a path to ground",
        )
    if _UNSOLVED.search(text):
        return ConvergenceError(
            f"ngspice found no solution: {said}",
            remedy="smooth the cell's law, loosen the tolerances or raise itl1 and itl2",
        )
    return EngineError(
        f"ngspice gave no result: {said or 'it said nothing'}",
        remedy="run the netlist with plain ngspice -b to see all it says",
    )


def summary(text: str) -> str:
    """The telling lines, on one."""
    lines = [line.strip() for line in text.splitlines()]
    kept = list(dict.fromkeys(line for line in lines if line and not _NOISE.match(line)))
    return "; ".join(kept if len(kept) <= 6 else [*kept[:3], *kept[-3:]])[:600]


def failure_of(error: SpicennError) -> Header:
    """The reply that stands for an error; ``process.failure`` is the way back."""
    return {"ok": False, "kind": type(error).__name__, "what": error.what, "remedy": error.remedy}
