"""Sampled digital controllers: a law in Python or a torch module in the loop with a circuit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from numpy.typing import NDArray

from spicenn.cosim.arguments import (
    check_count,
    check_nodes,
    check_not_negative,
    check_positive,
    check_sources,
    process,
)
from spicenn.cosim.events import ProcessGenerator
from spicenn.cosim.kernel import Cosimulation
from spicenn.errors import InputError

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float64]
Law = Callable[[Array], Sequence[float] | Array | float]


@process
def sampled(
    env: Cosimulation,
    period: float | simpy.Store,
    inputs: Sequence[str],
    law: Law,
    outputs: Sequence[str],
    *,
    delay: float = 0.0,
    start: float = 0.0,
    rise: float | None = None,
    number: int | None = None,
) -> ProcessGenerator:
    """Sample nodes, compute a law, and hold its result on sources until the next one.

    Sample k is taken at start + k period, and the outputs go to their values ``delay``
    later (+ ``env.delay``). A delay longer than the period is a pipeline: every sample's
    outputs still come, in order.

    Parameters
    ----------
    period : [s]; or a store, such as ``env.monitor(…)``: a sample per item, at its time.
    inputs : nodes or currents.
    law : takes (input,) [V] or [A] and returns (output,), or a number for a single output.
        It is called once per sample, in order, and may keep a state.
    outputs : external sources.
    delay : of the computation [s].
    start : of the first sample, from now [s].
    rise : duration of the outputs' slopes [s]; that of ``env`` if None.
    number : of samples; endless if None.

    Raises InputError for unknown names or numbers out of range; while it runs, naming
    process and time, for a law that returns another number of outputs, or none that are
    finite.
    """
    return _sampled(env, "sampled", period, inputs, law, outputs, delay, start, rise, number)


@process
def network(
    env: Cosimulation,
    period: float | simpy.Store,
    inputs: Sequence[str],
    module: torch.nn.Module,
    outputs: Sequence[str],
    *,
    recurrent: bool = False,
    delay: float = 0.0,
    start: float = 0.0,
    rise: float | None = None,
    number: int | None = None,
) -> ProcessGenerator:
    """Sample nodes, run a torch module, and hold its outputs on sources until the next one.

    The module is put into ``eval()`` and runs without gradients, in the type and on the
    device of its first parameter. It takes (1, input) and returns (1, output) or (output,).

    Parameters
    ----------
    module : may keep a state of its own.
    recurrent : the module is called as ``y, state = module(x, state)``, as torch's RNN, GRU
        and LSTM are; state None at first.
    period, inputs, outputs, delay, start, rise, number : see ``sampled``.

    Raises InputError as ``sampled`` does, and for a module that does not take the inputs or
    return the outputs: at once, from a trial run of a copy, where it can be copied.
    """
    where = "network"
    import torch  # it takes seconds to load

    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"{type(module).__name__} is not a torch module",
            where=where,
            remedy="give a torch.nn.Module, or a function to cosim.sampled",
        )
    nodes = check_nodes(env, inputs, where)
    sources = check_sources(env, outputs, where)
    module.eval()
    try:
        trial = copy.deepcopy(module)
    except Exception:  # e.g. a state that is the result of a computation
        trial = None
    if trial is not None:
        with torch.random.fork_rng(devices=[]):  # it draws nothing from the module's own
            _shaped(_module_law(trial, recurrent, where)(np.zeros(len(nodes))), sources, where)
    law = _module_law(module, recurrent)
    return _sampled(env, where, period, nodes, law, sources, delay, start, rise, number)


def _sampled(
    env: Cosimulation,
    where: str,
    period: float | simpy.Store,
    inputs: Sequence[str],
    law: Law,
    outputs: Sequence[str],
    delay: float,
    start: float,
    rise: float | None,
    number: int | None,
) -> ProcessGenerator:
    nodes = check_nodes(env, inputs, where)
    sources = check_sources(env, outputs, where)
    if not callable(law):
        raise InputError(f"{law!r} is not a function of the inputs", where=where)
    if not isinstance(period, simpy.Store):
        period = check_positive("period", period, where)
    delay = check_not_negative("delay", delay, where)
    first = env.now + check_not_negative("start", start, where)
    if rise is not None:
        rise = check_not_negative("rise", rise, where)
    if number is not None:
        number = check_count("number", number, where)

    def hold(values: Array) -> None:
        for source, value in zip(sources, values.tolist(), strict=True):
            env.drive(source, value, rise)

    def hold_later(values: Array) -> ProcessGenerator:
        yield env.timeout(delay)
        hold(values)

    def run() -> ProcessGenerator:
        for k in count() if number is None else range(number):
            if isinstance(period, simpy.Store):
                yield period.get()
            else:
                # From the first one: a sum of periods would gather rounding.
                yield env.timeout(max(first + k * period - env.now, 0.0))
            sample = np.array([env.sample(node) for node in nodes])
            values = _finite(_shaped(law(sample), sources), sources)
            if delay == 0:
                hold(values)
            else:
                env.process(hold_later(values), name=where)

    return run()


def _shaped(result: Any, sources: Sequence[str], where: str | None = None) -> Array:
    """A law's result as (output,). Raises InputError unless it is one number for each."""
    try:
        values = np.atleast_1d(np.asarray(result, dtype=np.float64))
    except (TypeError, ValueError):
        raise InputError(
            f"a {type(result).__name__} was returned, not numbers", where=where
        ) from None
    if values.shape != (len(sources),):
        raise InputError(
            f"values of the shape {values.shape} were returned for {len(sources)} outputs",
            where=where,
            remedy="return one number for every output",
        )
    return values


def _finite(values: Array, sources: Sequence[str]) -> Array:
    for source, value in zip(sources, values.tolist(), strict=True):
        if not math.isfinite(value):
            raise InputError(f"{value!r} was returned for {source}")
    return values


def _module_law(module: torch.nn.Module, recurrent: bool, where: str | None = None) -> Law:
    """A module as a law; it keeps the state of a recurrent one."""
    import torch

    kept = (t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point())
    like = next(kept, torch.empty(0))
    state: Any = None

    def law(values: Array) -> Array:
        nonlocal state
        x = torch.as_tensor(values, dtype=like.dtype, device=like.device).reshape(1, -1)
        try:
            with torch.no_grad():
                result = module(x, state) if recurrent else module(x)
        except Exception as error:
            said = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(
                f"the module failed on inputs of the shape {tuple(x.shape)}: {said}", where=where
            ) from error
        if recurrent:
            if not isinstance(result, tuple) or len(result) != 2:
                raise InputError(
                    f"a recurrent module returned {type(result).__name__}",
                    where=where,
                    remedy="return (y, state), or leave recurrent out",
                )
            result, state = result
        if not isinstance(result, torch.Tensor):
            raise InputError(
                f"the module returned {type(result).__name__}, not a tensor", where=where
            )
        y = result[0] if result.ndim == 2 and result.shape[0] == 1 else result
        return np.asarray(y.detach().cpu(), dtype=np.float64)

    return law
