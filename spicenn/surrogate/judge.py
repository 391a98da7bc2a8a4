"""One report for every family of surrogates: how close, how sure, how many probes, how fast.

Chips that the fit never saw are simulated once: without noise and in one noisy read of
inputs that are no probes, and in the reads of the probes. A surrogate is calibrated to each
of them with more and more probes and compared with both. Families that are compared are
given the same reads (``measure`` once, ``score`` each); ``judge`` does both for one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spicenn.compiler import Design
from spicenn.compiler.chip import Chip
from spicenn.compiler.convolution import digital_crossbar
from spicenn.compiler.execute import as_inputs
from spicenn.compiler.jacobian import flatten_outputs
from spicenn.compiler.program import execute
from spicenn.compiler.threads import one_thread
from spicenn.engines import opened
from spicenn.engines.engine import Engine
from spicenn.engines.laws import is_linear
from spicenn.engines.superposition import SuperposedEngine, superposed
from spicenn.errors import InputError
from spicenn.surrogate.calibration import observed
from spicenn.surrogate.entry import calibrate
from spicenn.surrogate.family import Family
from spicenn.surrogate.latent import LatentPosterior
from spicenn.surrogate.module import as_tensors
from spicenn.surrogate.posterior import Posterior

Array = NDArray[np.float64]
Inputs = tuple[NDArray[Any], ...]

COUNTS = (0, 4, 8, 16, 32, 64, 128)
_NOTHING = (float("nan"),) * 3
# Two-sided 90 % of a normal distribution, in standard deviations.
_Z90 = 1.6448536269514722
# A time is the mean of at most so many runs, which together take about so long [s]. A child's
# processor time comes in steps of 10 ms.
_RUNS, _PATIENCE = 100, 1.0


@dataclass(frozen=True, eq=False)
class Reads:
    """What one chip gives.

    truth : (sample, output) of the test inputs without noise.
    read : (sample, output), one noisy read of them.
    seen : by number of probes, what ``calibrate`` takes: outputs of (trial, probe, …).
    """

    truth: Array
    read: Array
    seen: Mapping[int, Any]


@dataclass(frozen=True, eq=False)
class Measurements:
    """Unseen chips' outputs at probes and at test inputs, and how long the engine took.

    Parameters
    ----------
    design : the chips'.
    counts : numbers of probes.
    probes : inputs by number of probes.
    test : inputs that are judged at.
    nominal : (sample, output), the ideal network at the test inputs; its range is full scale.
    chips : one each.
    seconds : by batch size, processor time of one run of so many test inputs on the
        engine, its child included [s].
    engine : what simulated.
    """

    design: Design
    counts: tuple[int, ...]
    probes: Mapping[int, Inputs]
    test: Inputs
    nominal: Array
    chips: tuple[Reads, ...]
    seconds: Mapping[int, float]
    engine: str

    @property
    def full_scale(self) -> float:
        """Range of the nominal outputs, in their units."""
        return float(np.ptp(self.nominal))


@dataclass(frozen=True, kw_only=True)
class Score:
    """A surrogate with one number of probes. Errors are over full scale.

    Parameters
    ----------
    probes : how many; 0 is the population's model.
    error : rms over chips, test inputs and outputs about the chips' noise-free outputs.
    worst : the same of the chip that it is largest for.
    read_error : rms about one noisy read.
    stated : rms standard deviation that the surrogate states of its own error, read noise
        left out.
    coverage : share of one noisy read's outputs within the stated 90 % interval.
    accepted : share of chips whose calibration was not refused; a refused one counts with
        the population's model. NaN without probes.
    effective : effective number of parameters that the probes fix, Σ λ / (1 + λ) over the
        eigenvalues λ of the prior's covariance in units of the noise; mean over the chips
        accepted.
    halved : directions of the prior, λ > 1, whose variance the probes have more than halved.
    parameters : of a chip, of which these are.
    seconds : of one calibration [s].
    """

    probes: int
    error: float
    worst: float
    read_error: float
    stated: float
    coverage: float
    accepted: float
    effective: float
    halved: float
    parameters: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One inference of a batch, per input [s], of the module and of the engine.

    Processor time, on one thread each: a busy machine does not count for or against either.
    """

    batch: int
    module: float
    engine: float

    @property
    def speedup(self) -> float:
        """How many times the engine's time is the module's."""
        return self.engine / self.module


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The report; ``print`` shows it as a table.

    Parameters
    ----------
    family : the surrogate's type.
    engine : what simulated the chips.
    chips, samples, outputs : how many were judged.
    full_scale : range of the nominal outputs, in their units.
    nominal_error : rms of the ideal network about the chips' noise-free outputs, over full scale.
    noise : rms of one noisy read about the noise-free outputs, over full scale.
    scores : by number of probes, rising.
    errors : (count, chip), ``Score.error`` of every chip.
    timings : by batch size.
    """

    family: str
    engine: str
    chips: int
    samples: int
    outputs: int
    full_scale: float
    nominal_error: float
    noise: float
    scores: tuple[Score, ...]
    errors: tuple[tuple[float, ...], ...]
    timings: tuple[Timing, ...]

    def probes_for(self, error: float) -> int | None:
        """Least number of probes with at most this error over full scale, None if there is none."""
        return next((score.probes for score in self.scores if score.error <= error), None)

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, text, lists and dicts, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [
            f"{self.family}: {self.chips} unseen chips in {self.engine}, {self.samples} unseen "
            f"inputs, {self.outputs} outputs, full scale {self.full_scale:.4g}",
            f"errors are rms in % of full scale; the ideal network's {100 * self.nominal_error:.3g}"
            f", one read's noise {100 * self.noise:.3g}",
            "",
            *_columns([_HEADER, *map(_row, self.scores)]),
            "",
        ]
        for timing in self.timings:
            lines.append(
                f"batch of {timing.batch}: {1e6 * timing.module:.3g} us an input, the engine "
                f"{1e3 * timing.engine:.3g} ms: {timing.speedup:,.0f} times faster"
            )
        return "\n".join(line.rstrip() for line in lines)


def judge(
    surrogate: Family,
    chips: Sequence[Chip],
    x_like: Any,
    x_test: Any,
    *,
    seed: int,
    counts: Sequence[int] = COUNTS,
    engine: str | Engine = "ngspice",
    trials: int = 1,
    batches: Sequence[int] = (1, 64),
    timeout: float = 60.0,
    options: Mapping[str, Any] | None = None,
) -> Judgement:
    """Report how well a surrogate stands for chips that it was not fitted to.

    Parameters
    ----------
    surrogate : of any family, from ``fit``.
    chips : that the fit did not see.
    x_like : inputs that probes are chosen from.
    x_test : (sample, …) inputs that errors are taken at; none of them should be in ``x_like``.
    seed : of the choice of probes and of the calibrations.
    counts : numbers of probes; 0 is the population's model.
    engine : "ngspice", "nodal", or an open engine. Tiles of linear cells are asked for their
        response to single wordlines, and these are added (``engines.superposition``); times
        are of the engine itself.
    trials : reads of every probe.
    batches : sizes of the batches that are timed, module and engine alike, see ``Timing``.
    timeout : seconds that ngspice may take for one tile.
    options : of ``calibrate``.

    Raises InputError for data that do not fit, no chips or no counts, CalibrationError for a
    number of probes that the family cannot be calibrated with, and the engine's errors.
    """
    measured = measure(
        surrogate.design,
        chips,
        x_like,
        x_test,
        seed=seed,
        counts=counts,
        engine=engine,
        trials=trials,
        batches=batches,
        timeout=timeout,
    )
    return score(surrogate, measured, seed=seed, options=options)


@one_thread()
def measure(
    design: Design,
    chips: Sequence[Chip],
    x_like: Any,
    x_test: Any,
    *,
    seed: int,
    counts: Sequence[int] = COUNTS,
    engine: str | Engine = "ngspice",
    trials: int = 1,
    batches: Sequence[int] = (1, 64),
    timeout: float = 60.0,
    probes: Callable[[int], Any] | None = None,
) -> Measurements:
    """Simulate what a surrogate is judged by; see ``judge`` for what is not said here.

    Parameters
    ----------
    probes : gives so many inputs; ``design.probe_vectors`` of ``x_like`` if None.

    No two inputs of a chip have the same draw of read noise: probes and test inputs are
    read in one batch.
    """
    test = as_inputs(design, x_test)
    if not chips or not counts or min(counts) < 0 or any(batch < 1 for batch in batches):
        raise InputError("at least one chip and one count are needed, no batch may be empty")
    counts = tuple(sorted(set(counts)))
    choose = probes or (lambda count: design.probe_vectors(x_like, count=count, seed=seed))
    chosen = {count: as_inputs(design, choose(count)) for count in counts if count}
    constants = {name: torch.tensor(array) for name, array in design.constants.items()}
    with torch.no_grad():
        nominal = execute(
            design.program, constants, as_tensors(test), digital_crossbar(design.layers)
        )
    with opened(engine, timeout=timeout) as running:
        if isinstance(running, SuperposedEngine):
            raise InputError(
                "an engine that superposes cannot be timed",
                remedy="give the engine under it; its answers are superposed here",
            )
        seconds = _engine_seconds(chips[0], test, batches, running)
        fast = superposed(running) if is_linear(design.technology.cell) else running
        reads = tuple(_reads(chip, chosen, test, fast, trials) for chip in chips)
        name = fast.name
    flat = flatten_outputs(nominal).to(torch.float64).numpy()
    return Measurements(design, counts, chosen, test, flat, reads, seconds, name)


@one_thread()
def score(
    surrogate: Family,
    measured: Measurements,
    *,
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> Judgement:
    """Judge one surrogate by chips that were measured; see ``judge``."""
    scale = measured.full_scale
    test = as_tensors(measured.test)
    population = surrogate.module()
    scores, errors = [], []
    for count in measured.counts:
        results = [
            _calibrated(surrogate, measured, reads, count, seed, options or {})
            if count
            else _Result(population, float("nan"), _NOTHING, float("nan"))
            for reads in measured.chips
        ]
        score, error = _score(count, results, measured, test, scale)
        scores.append(score)
        errors.append(error)
    truth = np.stack([reads.truth for reads in measured.chips])
    noise = np.stack([reads.read for reads in measured.chips]) - truth
    return Judgement(
        family=type(surrogate).__name__,
        engine=measured.engine,
        chips=len(measured.chips),
        samples=truth.shape[1],
        outputs=truth.shape[2],
        full_scale=scale,
        nominal_error=_rms(measured.nominal - truth) / scale,
        noise=_rms(noise) / scale,
        scores=tuple(scores),
        errors=tuple(errors),
        timings=tuple(
            Timing(
                batch=batch,
                module=_module_seconds(results[0].module, test, batch) / batch,
                engine=seconds / batch,
            )
            for batch, seconds in measured.seconds.items()
        ),
    )


def identified(posterior: Any) -> tuple[float, float, float]:
    """Effective number of parameters, halved directions, and parameters in all.

    See ``Score``; of cells for the structural family, of a chip's latent for the others. NaN
    each for another posterior, and for None.
    """
    if isinstance(posterior, Posterior):
        left = 1.0 / (1.0 + spectrum(posterior))
        total = sum(int((value > 0).sum()) for value in posterior.prior.variance.values())
    elif isinstance(posterior, LatentPosterior):
        # Of a latent whose prior is N(0, I), the posterior's variances are what is left.
        left = torch.linalg.svdvals(posterior.root).square().numpy()
        total = len(posterior.mean)
    else:
        return _NOTHING
    return float((1.0 - left).sum()), float((left < 0.5).sum()), float(total)


def spectrum(posterior: Posterior) -> Array:
    """Prior variance of what the probes tell, over its noise; descending.

    The eigenvalues λ of N^-½ J V Jᵀ N^-½: along each of its directions the posterior's
    variance is 1 / (1 + λ) of the prior's. Every other direction of the cells is left as it
    was. Source: MacKay, Neural Computation 4, 415 (1992), his γ = Σ λ / (1 + λ).
    """
    n, k, _ = posterior.noise.shape
    root = torch.linalg.cholesky(posterior.noise)
    rows = posterior.factor.reshape(n, k, n * k)
    white = torch.linalg.solve_triangular(root, rows, upper=False).reshape(n * k, n * k)
    values = torch.linalg.eigvalsh(white @ white.T) - 1.0
    return np.asarray(values.clamp_min(0.0).flip(0).numpy())


@dataclass(frozen=True, eq=False)
class _Result:
    """One chip's calibration: its module, whether accepted, what is identified, seconds."""

    module: Any
    accepted: float
    identified: tuple[float, float, float]
    seconds: float


def _calibrated(
    surrogate: Any,
    measured: Measurements,
    reads: Reads,
    count: int,
    seed: int,
    options: Mapping[str, Any],
) -> _Result:
    probes = measured.probes[count]
    start = perf_counter()
    found = calibrate(
        surrogate,
        probes if len(probes) > 1 else probes[0],
        reads.seen[count],
        seed=seed,
        **options,
    )
    seconds = perf_counter() - start
    posterior = getattr(found, "posterior", None)
    return _Result(found.module, float(found.success), identified(posterior), seconds)


def _score(
    count: int,
    results: Sequence[_Result],
    measured: Measurements,
    test: tuple[torch.Tensor, ...],
    scale: float,
) -> tuple[Score, tuple[float, ...]]:
    own, read_own, stated, covered = [], [], [], []
    for result, reads in zip(results, measured.chips, strict=True):
        mean, std, read_std = (
            value.detach().to(torch.float64).numpy() for value in result.module.predict(*test)
        )
        outputs = run_module(result.module, test)
        own.append(_rms(outputs - reads.truth) / scale)
        read_own.append(_rms(outputs - reads.read) / scale)
        stated.append(float(np.mean(std**2 - read_std**2)) / scale**2)
        covered.append(float(np.mean(np.abs(reads.read - mean) < _Z90 * std)))
    told = np.mean([result.identified for result in results if result.accepted] or [_NOTHING], 0)
    return (
        Score(
            probes=count,
            error=_rms(np.array(own)),
            worst=float(max(own)),
            read_error=_rms(np.array(read_own)),
            stated=float(np.sqrt(max(0.0, float(np.mean(stated))))),
            coverage=float(np.mean(covered)),
            accepted=float(np.mean([result.accepted for result in results])),
            effective=float(told[0]),
            halved=float(told[1]),
            parameters=float(told[2]),
            seconds=float(np.mean([result.seconds for result in results])),
        ),
        tuple(own),
    )


def run_module(module: Any, inputs: tuple[torch.Tensor, ...]) -> Array:
    """All floating-point outputs of a module side by side; (sample, output) float64."""
    with torch.no_grad():
        outputs = module(*inputs)
    parts = outputs if isinstance(outputs, tuple) else (outputs,)
    return np.asarray(flatten_outputs(parts).to(torch.float64).numpy())


def _reads(
    chip: Chip, probes: Mapping[int, Inputs], test: Inputs, engine: Engine, trials: int
) -> Reads:
    """Read everything in one batch, so that every input has noise of its own."""
    parts = [test, *probes.values()]
    whole = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    outputs = chip.run(_one(whole), engine, trials=trials)
    lead = (slice(None),) if trials > 1 else ()
    stop = len(test[0])
    read = _flat(chip.design, _part(outputs, (*lead, slice(0, stop))))
    seen = {}
    for count in probes:
        seen[count] = _part(outputs, (*lead, slice(stop, stop + count)))
        stop += count
    quiet = replace(chip, design=chip.design.with_technology(read_noise=0.0, bandwidth=0.0))
    truth = _flat(chip.design, quiet.run(_one(test), engine))
    return Reads(truth, read[0] if trials > 1 else read, seen)


def _part(outputs: Any, index: tuple[slice, ...]) -> Any:
    if isinstance(outputs, Mapping):
        return {name: value[index] for name, value in outputs.items()}
    return outputs[index]


def _flat(design: Design, outputs: Any) -> Array:
    named = outputs if isinstance(outputs, Mapping) else {design.program.outputs[0].name: outputs}
    return observed(design, named)


def _one(inputs: Inputs) -> Any:
    return inputs if len(inputs) > 1 else inputs[0]


def _engine_seconds(
    chip: Chip, test: Inputs, batches: Sequence[int], engine: Engine
) -> dict[int, float]:
    """By batch size, of one warm run."""
    result = {}
    for batch in sorted(set(batches)):
        x = _one(tuple(_repeated(array, batch) for array in test))
        result[batch] = _seconds(
            lambda x=x: chip.run(x, engine),  # type: ignore[misc]
            _processor_time(engine),
        )
    return result


def _module_seconds(module: Any, test: tuple[torch.Tensor, ...], batch: int) -> float:
    inputs = as_tensors(tuple(_repeated(value.numpy(), batch) for value in test))
    with torch.no_grad():
        return _seconds(lambda: module(*inputs), process_time)


def _repeated(array: NDArray[Any], count: int) -> NDArray[Any]:
    """So many samples: the first ones, from the start again where there are not enough."""
    return array[np.arange(count) % len(array)]


def _seconds(run: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Mean of several runs, after one that loads and warms."""
    run()
    start, runs = clock(), 0
    while runs < _RUNS and clock() - start < _PATIENCE:
        run()
        runs += 1
    return (clock() - start) / runs


def _processor_time(engine: Engine) -> Callable[[], float]:
    """A clock of what this process and an engine's child have computed [s]."""
    import psutil  # which distributed brings

    def clock() -> float:
        pid = getattr(engine, "pid", None)
        times = psutil.Process(pid).cpu_times() if pid is not None else None
        return process_time() + (times.user + times.system if times is not None else 0.0)

    return clock


def _rms(error: Array) -> float:
    return float(np.sqrt(np.mean(np.square(error))))


_HEADER = (
    "probes", "error", "worst chip", "one read", "stated", "90 % holds", "accepted",
    "effective", "halved", "of", "calibration",
)  # fmt: skip


def _row(score: Score) -> tuple[str, ...]:
    percent = (score.error, score.worst, score.read_error, score.stated)
    return (
        str(score.probes),
        *(f"{100 * value:.3g}" for value in percent),
        f"{100 * score.coverage:.1f} %",
        _known(100 * score.accepted, ".0f", " %"),
        _known(score.effective, ".0f"),
        _known(score.halved, ".0f"),
        _known(score.parameters, ".0f"),
        _known(score.seconds, ".2g", " s"),
    )


def _known(value: float, form: str, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
