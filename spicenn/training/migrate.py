"""Move a network from one chip to another: frozen weights, a digital adapter per chip.

A chip's columns distort what its cells compute by a gain and an offset each, which is no
symmetry of the network and is not undone by its weights. A few inputs that both chips have
seen tell them, layer by layer. What does not predict probes that it was not fitted to is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.compiler import Chip, Design
from spicenn.compiler.adapter import Adapter
from spicenn.compiler.execute import as_inputs, layer_results, run_chip
from spicenn.compiler.layer import Array
from spicenn.engines import opened
from spicenn.engines.engine import Engine
from spicenn.errors import InputError, TrainingError
from spicenn.seeds import Purpose, generator
from spicenn.training.columns import Columns, common_column, fit_columns

if TYPE_CHECKING:
    from torch import nn

# One-sided risk of accepting an adapter that does not help, of each of three tests that it has
# to pass together.
_RISK = 0.05

# Share of the reference's variance over probes that may stay unexplained. Where the reference
# belongs to other probes, chance may pass the tests; it hardly explains so much of it.
_MOST_UNEXPLAINED = 0.25

ColumnFit = Callable[[Array, Array], Columns]

# (trial, probe, position, output) of every layer, in the order of the program.
Results = Mapping[str, Array]


@dataclass(frozen=True, eq=False, kw_only=True)
class Migration:
    """A network on another chip.

    Errors are rms over probes and outputs of the last layer, against the reference, in the
    model's units; NaN where nothing could be held out.

    Parameters
    ----------
    chip : the target chip, with its adapter where there is one.
    adapter : in force; the identity (no layers) where it was refused.
    success : whether the adapter is accepted.
    reason : one sentence on why or why not.
    raw : error of the chip without any adapter.
    heldout : error on probes that an adapter was not fitted to.
    common : the same for one gain and offset common to all columns of the last layer.
    constant : error of each column's mean over the other probes.
    fitted : adapter of all probes, also where it was refused.
    probes : how many; the chip reads each three times, in every trial.
    """

    chip: Chip
    adapter: Adapter
    success: bool
    reason: str
    raw: float
    heldout: float
    common: float
    constant: float
    fitted: Adapter
    probes: int


def migrate(
    model: nn.Module | Design | None,
    from_chip: Chip | None,
    to_chip: Chip,
    *,
    probes: Any,
    engine: str | Engine = "ngspice",
    trials: int = 1,
    folds: int = 4,
    seed: int = 0,
    calibration: Any = None,
    timeout: float = 100.0,
) -> Migration:
    """Fit a digital gain and offset of every output on the target chip, or refuse to.

    Layer by layer: the first one's results on the target chip are paired with those on the
    source chip, and the next layer is read with inputs that are corrected already. The fit
    is shrunk towards the identity (``columns.fit_columns``). It is accepted only where, on
    probes held out, the network's last layer is clearly closer to the reference than without
    it, than with one gain and offset for all columns, and than a constant (paired one-sided
    t-tests over probes of the logarithm of the squared error, 5 % each), and explains at
    least three quarters of the reference's variance over probes.

    Parameters
    ----------
    model : whose weights both chips are to hold; None where they hold them already. A
        design counts with its weights alone.
    from_chip : the reference, as it is, its own adapter included; None is the ideal network.
    to_chip : where to; an adapter of its own is left behind.
    probes : inputs (probe, …) like those that the network will see; a tuple for a model of
        several. One or two can hardly be told from chance and are refused.
    engine : "ngspice", "nodal", or an open engine to use again and again.
    trials : noisy reads of every probe, averaged.
    folds : parts that the probes are split into, at most as many as probes.
    seed : of that split.
    calibration : inputs that set the scales anew where a model is given; see
        ``Design.with_weights``.
    timeout : seconds that ngspice may take for one tile of all probes.

    Raises InputError for bad probes, none included; TrainingError for chips of different
    networks, or measured ones where a model is given; EngineError where a chip fails. A
    refused adapter is no error.
    """
    if model is not None:
        to_chip = _with_model(to_chip, model, calibration)
        from_chip = from_chip and _with_model(from_chip, model, calibration)
    if from_chip is not None:
        _check_same(from_chip.design, to_chip.design)
    inputs = as_inputs(to_chip.design, probes)
    with opened(engine, timeout=timeout) as running:
        if from_chip is None:
            reference = ideal_results(to_chip.design, inputs)
        else:
            reference = layer_results(from_chip, inputs, running, trials=trials)
        return calibrate_columns(
            to_chip, inputs, reference, running, trials=trials, folds=folds, seed=seed
        )


def calibrate_columns(
    chip: Chip,
    inputs: tuple[Array, ...],
    reference: Results,
    engine: Engine,
    *,
    trials: int = 1,
    folds: int = 4,
    seed: int = 0,
    fit: ColumnFit = fit_columns,
) -> Migration:
    """Do what ``migrate`` does against a reference that is given.

    Parameters
    ----------
    inputs : as ``execute.as_inputs`` returns them.
    reference : of every layer (trial, probe, position, output), as ``layer_results`` or
        ``ideal_results`` return it.
    fit : makes columns of pairs (pair, output); ``columns.least_squares`` for comparison.
    """
    if folds < 2 or trials < 1:
        raise InputError("folds must be at least 2 and trials 1")
    count = len(inputs[0])
    chip = chip.corrected(None)
    target = {name: value.mean(axis=0) for name, value in reference.items()}
    whole = _Fit(fit, target, np.zeros(count, np.int64), held_out=False)
    run_chip(chip, inputs, engine, trials=trials, correct=whole)
    fitted = whole.adapter()
    if count < 2:
        return _refused(chip, fitted, count, "one probe: there is none to hold out")

    order = generator(seed, Purpose.PROBES, trial=2).permutation(count)
    fold = np.empty(count, np.int64)
    fold[order] = np.arange(count) % min(folds, count)
    apart = _Fit(fit, target, fold, held_out=True)
    run_chip(chip, inputs, engine, trials=trials, correct=apart)
    last = list(target)[-1]
    plain = layer_results(chip, inputs, engine, trials=trials)[last].mean(axis=0)
    errors = {
        "heldout": _error(apart.corrected[last], target[last]),
        "raw": _error(plain, target[last]),
        "common": _error(_by_fold(plain, target[last], fold, common_column), target[last]),
        "constant": _error(_constant(target[last], fold), target[last]),
    }
    rms = {name: float(np.sqrt(value.mean())) for name, value in errors.items()}
    objection = _objection(errors, rms)
    if objection is not None:
        return _refused(chip, fitted, count, objection, **rms)
    reason = (
        f"error on held-out probes fell from {rms['raw']:.3g} to {rms['heldout']:.3g} "
        f"({count} probes)"
    )
    return Migration(
        chip=chip.corrected(fitted), adapter=fitted, success=True, reason=reason, fitted=fitted,
        probes=count, **rms,
    )  # fmt: skip


def ideal_results(design: Design, inputs: tuple[Array, ...]) -> dict[str, Array]:
    """What every layer of the ideal network gives, as ``layer_results`` returns it."""
    import torch

    from spicenn.compiler.convolution import digital_crossbar
    from spicenn.compiler.program import execute

    seen: dict[str, Array] = {}
    compute = digital_crossbar(design.layers)

    def record(name: str, x: torch.Tensor) -> torch.Tensor:
        z = compute(name, x)
        last = z if design.layer(name).convolution is None else z.movedim(1, -1)
        array = np.asarray(last, dtype=np.float64).reshape(1, len(inputs[0]), -1, last.shape[-1])
        seen.setdefault(name, array)
        return z

    constants = {name: torch.tensor(array) for name, array in design.constants.items()}
    with torch.no_grad():
        execute(design.program, constants, [torch.as_tensor(x) for x in inputs], record)
    return seen


class _Fit:
    """A correction that fits itself to a layer's results when it first meets them.

    held_out : correct every probe by what was fitted to the other folds.
    """

    def __init__(
        self, fit: ColumnFit, target: Results, fold: NDArray[np.int64], *, held_out: bool
    ) -> None:
        self._fit, self._target = fit, target
        self._fold, self._held_out = fold, held_out
        self._columns: dict[str, list[Columns]] = {}
        self.corrected: dict[str, Array] = {}  # (probe, position, output), mean of trials

    def __call__(self, name: str, z: Array) -> Array:
        """See ``execute.Correction``; of one chip."""
        if name not in self._columns:
            target, mean = self._target[name], z[0].mean(axis=0)
            self._columns[name] = [
                self._fit(_pairs(mean[part]), _pairs(target[part])) for part in self._parts()
            ]
            self.corrected[name] = self._apply(name, z)[0].mean(axis=0)
        return self._apply(name, z)

    def _parts(self) -> list[NDArray[np.bool_]]:
        """Which probes each fit sees."""
        if not self._held_out:
            return [np.ones(len(self._fold), bool)]
        return [self._fold != k for k in range(int(self._fold.max()) + 1)]

    def _apply(self, name: str, z: Array) -> Array:
        gain, offset = (np.stack(part) for part in zip(*self._columns[name], strict=True))
        return np.asarray(z * gain[self._fold][:, np.newaxis] + offset[self._fold][:, np.newaxis])

    def adapter(self) -> Adapter:
        """What was fitted to all probes."""
        return Adapter(
            gain={name: columns[0].gain for name, columns in self._columns.items()},
            offset={name: columns[0].offset for name, columns in self._columns.items()},
        )


def _pairs(z: Array) -> Array:
    return z.reshape(-1, z.shape[-1])


def _by_fold(z: Array, target: Array, fold: NDArray[np.int64], fit: ColumnFit) -> Array:
    """Correct every probe by what a fit makes of the other folds."""
    result = np.empty_like(z)
    for k in range(int(fold.max()) + 1):
        rest = fold != k
        columns = fit(_pairs(z[rest]), _pairs(target[rest]))
        result[~rest] = z[~rest] * columns.gain + columns.offset
    return result


def _constant(target: Array, fold: NDArray[np.int64]) -> Array:
    """Every probe's reference as the mean of the other folds'."""
    result = np.empty_like(target)
    for k in range(int(fold.max()) + 1):
        result[fold == k] = target[fold != k].mean(axis=0)
    return result


def _error(z: Array, target: Array) -> Array:
    """Mean squared error of every probe."""
    return np.asarray(np.square(z - target).mean(axis=(1, 2)))


def _objection(errors: Mapping[str, Array], rms: Mapping[str, float]) -> str | None:
    """Why the adapter is refused, None where it is not."""
    from scipy.stats import ttest_1samp

    rivals = {
        "raw": "without an adapter it is",
        "constant": "a constant in its place has",
        "common": "one gain and offset for all columns has",
    }
    for name, words in rivals.items():
        ratio = np.log(np.maximum(errors[name], 1e-300) / np.maximum(errors["heldout"], 1e-300))
        clear = rms["heldout"] < rms[name]
        if clear and np.ptp(ratio) > 0:
            clear = float(ttest_1samp(ratio, 0.0, alternative="greater").pvalue) <= _RISK
        if not clear:
            return (
                f"error on {len(ratio)} held-out probes is {rms['heldout']:.3g}, and {words} "
                f"{rms[name]:.3g}: no clear improvement"
            )
    if rms["heldout"] ** 2 > _MOST_UNEXPLAINED * rms["constant"] ** 2:
        return (
            f"error on held-out probes is {rms['heldout']:.3g}, and a constant in its place has "
            f"{rms['constant']:.3g}: too little of what tells probes apart is explained"
        )
    return None


def _refused(
    chip: Chip,
    fitted: Adapter,
    count: int,
    reason: str,
    *,
    raw: float = float("nan"),
    heldout: float = float("nan"),
    common: float = float("nan"),
    constant: float = float("nan"),
) -> Migration:
    return Migration(
        chip=chip, adapter=Adapter(gain={}, offset={}), success=False, reason=reason, raw=raw,
        heldout=heldout, common=common, constant=constant, fitted=fitted, probes=count,
    )  # fmt: skip


def _with_model(chip: Chip, model: nn.Module | Design, calibration: Any) -> Chip:
    if chip.measured is not None:
        raise TrainingError(
            "its conductances were measured: they do not follow a model's weights",
            where=repr(chip),
            remedy="give model=None for chips that hold the network already",
        )
    weights: Any = model
    if isinstance(model, Design):
        weights = {layer.name: (layer.weight, layer.bias) for layer in model.layers}
    return replace(chip, design=chip.design.with_weights(weights, calibration))


def _check_same(source: Design, target: Design) -> None:
    same = [layer.name for layer in source.layers] == [layer.name for layer in target.layers]
    for a, b in zip(source.layers, target.layers, strict=False):
        same = same and np.array_equal(a.weight, b.weight)
        same = same and (a.bias is None) == (b.bias is None)
        same = same and (a.bias is None or np.array_equal(a.bias, b.bias))  # type: ignore[arg-type]
    if not same:
        raise TrainingError(
            "the two chips hold different networks",
            where=f"designs {source.name!r} and {target.name!r}",
            remedy="give the model whose weights both are to hold",
        )
