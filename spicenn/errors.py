"""What can go wrong, as types.

Every error says what happened, where, and what to do. The command line prints
one as a single line; a study records it as a status of one chip.
"""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """Outcome of one chip in a study; the value is what the record stores."""

    PENDING = 0
    OK = 1
    NOT_CONVERGED = 2
    SINGULAR = 3
    TIMEOUT = 4
    CRASH = 5
    ERROR = 6

    @property
    def retried(self) -> bool:
        """True where running the same chip again may end differently."""
        return self in (Status.PENDING, Status.TIMEOUT, Status.CRASH)


class SpicennError(Exception):
    """Root of every error that spicenn raises on purpose.

    Parameters
    ----------
    what : the fact, one sentence.
    where : layer, tile, netlist line, file and line, or key.
    remedy : what the reader can do about it.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what, self.where, self.remedy = what, where, remedy
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text} ({remedy})" if remedy else text)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process boundaries by their arguments; keep the three parts apart.
        return _rebuild, (type(self), self.what, self.where, self.remedy)


def _rebuild(
    kind: type[SpicennError], what: str, where: str | None, remedy: str | None
) -> SpicennError:
    return kind(what, where=where, remedy=remedy)


class SpicennWarning(UserWarning):
    """Something works, but slower or otherwise than the user may expect."""


class InputError(SpicennError, ValueError):
    """An argument has the wrong type, shape or value."""


class TechnologyError(SpicennError, ValueError):
    """A technology's key or value is not allowed."""


class NetlistError(SpicennError, ValueError):
    """A netlist, name or cell is malformed or not allowed."""


class CompileError(SpicennError):
    """A model cannot be mapped."""


class DesignError(SpicennError, ValueError):
    """A saved design cannot be read or is not what it claims."""


class StoreError(SpicennError):
    """A study's store cannot be used."""


class CosimulationError(SpicennError):
    """A process of a co-simulation failed, or none can go on."""


class NoCrossing(CosimulationError):
    """A node did not pass a threshold in the time given."""


class CalibrationError(SpicennError, ValueError):
    """Calibration data do not fit the surrogate."""


class TrainingError(SpicennError, ValueError):
    """A network cannot be trained, or moved to another chip, as asked."""


class EngineError(SpicennError):
    """A simulation failed for a reason of the netlist or of the simulator."""

    status = Status.ERROR


class NgspiceNotFound(EngineError):
    """No usable libngspice on this machine."""


class MissingModelError(EngineError):
    """A netlist names a model or subcircuit that it does not define."""


class ConvergenceError(EngineError):
    """The simulator found no solution."""

    status = Status.NOT_CONVERGED


class SingularMatrixError(EngineError):
    """The circuit's equations have no unique solution."""

    status = Status.SINGULAR


class SimulationTimeout(EngineError):
    """A simulation was ended at its time limit."""

    status = Status.TIMEOUT


class SimulatorCrash(EngineError):
    """The simulator's process died."""

    status = Status.CRASH


def error_of(status: Status, what: str, *, where: str | None = None) -> EngineError:
    """Return the exception that stands for a failed run's status."""
    kinds = (ConvergenceError, SingularMatrixError, SimulationTimeout, SimulatorCrash)
    kind = next((kind for kind in kinds if kind.status is status), EngineError)
    return kind(what, where=where)
