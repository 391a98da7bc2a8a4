"""One way in: the same chip, task, rule and schedule, learnt in any of the four ways."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from inspect import signature
from typing import Any, Literal, get_args

from numpy.typing import ArrayLike

from spicenn.circuit.names import near
from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.controller import checked_values, learn_by_controller
from spicenn.learning.hardware import LearningChip
from spicenn.learning.model import learn_in_model
from spicenn.learning.rules import Rule
from spicenn.learning.task import Schedule, Task
from spicenn.learning.trajectory import Trajectory
from spicenn.learning.transient import learn_in_circuit

Way = Literal["circuit", "model", "controller", "events"]


def learn(
    chip: LearningChip,
    task: Task,
    rule: Rule,
    schedule: Schedule,
    values: ArrayLike,
    *,
    slots: int,
    by: Way = "circuit",
    engine: NgspiceEngine | Literal["ngspice", "newton"] | None = None,
    first_slot: int = 0,
    seed: int | None = None,
    trial: int = 0,
    progress: Callable[[Trajectory], None] | None = None,
    **options: Any,
) -> Trajectory:
    """Let a chip learn.

    Parameters
    ----------
    values : (value,) with which it begins [V], [S].
    slots : for how many of the schedule's.
    by : ``circuit``, by itself in a transient of ngspice; ``model``, the transient's equation
        in Python; ``controller``, Euler steps from operating points; ``events``, a process
        beside a transient of ngspice.
    engine : ``ngspice`` or an engine of it, for the circuit and a controller; ``newton``, the
        controller's if None. The circuit starts one of its own if None.
    first_slot : number of the first one, where an earlier run ended.
    seed, trial : of noise, and of edges that take part at random; the same draws in all ways.
    progress : called with each part of the trajectory.
    options : of the way: see ``learn_in_circuit``, ``learn_in_model``,
        ``learn_by_controller``, ``learn_by_events``.

    Raises InputError for a way, an engine or an option that there is not, and what the way
    raises.
    """
    if by not in get_args(Way):
        raise InputError(
            f"nothing learns by {by!r}{near(str(by), list(get_args(Way)))}", where="learn",
            remedy="by is one of " + ", ".join(get_args(Way)),
        )  # fmt: skip
    engines = {"circuit": ("ngspice",), "controller": ("newton", "ngspice")}.get(by, ())
    named = "ngspice" if isinstance(engine, NgspiceEngine) else engine
    if engine is not None and named not in engines:
        raise InputError(
            f"{engine!r} is no engine of {by}", where="learn",
            remedy="give one of " + ", ".join(engines) if engines else "leave it out",
        )  # fmt: skip
    common = {"slots": slots, "first_slot": first_slot, "seed": seed, "trial": trial}
    with ExitStack() as stack:
        simulator = engine if isinstance(engine, NgspiceEngine) else None
        if simulator is None and (named == "ngspice" or by == "circuit"):
            simulator = stack.enter_context(NgspiceEngine())
        way = _way(by, simulator)
        known = [
            name for name, of in signature(way).parameters.items()
            if of.kind is of.KEYWORD_ONLY and name not in {*common, "progress", "engine"}
        ]  # fmt: skip
        for name in options:
            if name not in known:
                raise InputError(
                    f"{name!r} is no option of {by}{near(name, known)}", where="learn",
                    remedy="known: " + ", ".join(known),
                )  # fmt: skip
        begin = checked_values(chip, values)
        return way(chip, task, rule, schedule, begin, **common, progress=progress, **options)


def _way(by: Way, engine: NgspiceEngine | None) -> Callable[..., Trajectory]:
    match by:
        case "circuit":
            assert isinstance(engine, NgspiceEngine)
            return partial(learn_in_circuit, engine)
        case "model":
            return learn_in_model
        case "controller":
            return partial(learn_by_controller, engine=engine or "newton")
        case "events":
            from spicenn.learning.events import learn_by_events  # SimPy loads with it

            return learn_by_events
