"""Solver tolerances, as ngspice names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral

from spicenn.errors import InputError


@dataclass(frozen=True)
class Tolerances:
    """When an iteration has converged.

    The defaults are tighter than ngspice's: at its own, a nonlinear cell's answer
    in a sweep differs from a lone operating point by 5e-6 and depends on the sample
    before it.

    Parameters
    ----------
    reltol : relative tolerance.
    vntol, abstol : absolute tolerance of voltages [V] and of currents [A].
    itl1, itl2 : iterations allowed for an operating point and for a point of a sweep.
    pivrel : smallest pivot that the factorisation accepts, over the largest of its
        column. At KLU's own 0.001 one array in eight loses six digits of a current;
        0.1 costs no time.

    Raises InputError for a value that is not positive.
    """

    reltol: float = 1e-9
    vntol: float = 1e-12
    abstol: float = 1e-15
    itl1: int = 200
    itl2: int = 200
    pivrel: float = 0.1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < float("inf"):
                raise InputError(f"{field.name} = {value!r} is not positive", where="tolerances")
            # A NumPy number's repr is a word that ngspice passes over: its own tolerance stays.
            plain = int(value) if isinstance(value, Integral) else float(value)
            object.__setattr__(self, field.name, plain)

    def as_dict(self) -> Mapping[str, float]:
        """Name and value of each, as the record stores them."""
        return {name: float(value) for name, value in asdict(self).items()}

    def options(self) -> str:
        """The ``.options`` line's words."""
        return " ".join(f"{name}={value!r}" for name, value in asdict(self).items())
