"""Which non-ideality, alone, costs a network its accuracy first.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.compiler.design import Design
from spicenn.compiler.execute import as_inputs, run_chips
from spicenn.datasets import Images, load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.errors import SpicennError, Status
from spicenn.technology.mechanisms import Drift, Noise, Variation
from spicenn.technology.periphery import Periphery

Array = NDArray[Any]

# All that a preset may have switched on, off: a mechanism is studied alone.
QUIET: dict[str, Any] = {
    "programming_error": 0.0, "read_noise": 0.0, "bandwidth": 0.0,
    "r_wordline": 0.0, "r_bitline": 0.0,
    "variation": Variation(), "noise": Noise(), "drift": Drift(), "periphery": Periphery(),
}  # fmt: skip
RESAMPLES = 2000
PERMUTATIONS = 100
# A step of the search, and the ratio at which a bracket of the crossing is narrow enough.
STEP, NARROW = 4.0, 1.1


@dataclass(frozen=True)
class Mechanism:
    """One non-ideality and its scale.

    set : technology keys at a magnitude; 0 switches it off.
    typical, source : a realistic magnitude and where it comes from.
    low, high : range of the search.
    with_ : keys that hold at every magnitude, zero included.
    mapping : choices that it needs; a word names the choice that the magnitude itself
        sets, as 2^-bits.
    preset : the technology that it is studied in.
    alike : the same on every chip, so that one stands for all.
    """

    name: str
    unit: str
    set: Callable[[float], dict[str, Any]]
    typical: float
    source: str
    low: float
    high: float
    with_: Mapping[str, Any] = field(default_factory=dict)
    mapping: sn.Mapping = field(default_factory=sn.Mapping)
    bits: Literal["adc_bits", "input_bits"] | None = None
    preset: str = "ideal"
    alike: bool = False


def keys(*names: str) -> Callable[[float], dict[str, Any]]:
    """Set every one of these keys to the magnitude."""
    return lambda x: dict.fromkeys(names, x)


# σ over g_max at ρ = g/g_max of published PCM, (0.26348 + 1.9650 ρ - 1.1731 ρ²) µS of 25 µS,
# its drift exponents, and its 1/f noise; all of Nandakumar et al., ICECS 2019, and Joshi et
# al., Nat. Commun. 11, 2473 (2020), as in aihwkit's model.
PCM = "PCM: Nandakumar et al., ICECS 2019; Joshi et al., Nat. Commun. 11, 2473 (2020)"
PCM_SIGMA = (0.26348 / 25, 1.9650 / 25, -1.1731 / 25)
PCM_DRIFT = {
    "drift.nu": (-0.0155, 0.0244, 0.049, 0.1),
    "drift.nu_sigma": (-0.0125, -0.0059, 0.008, 0.045),
}
STUCK = (
    "order of magnitude; in a first 4 Mb HfO2 chip about a tenth of the cells was stuck, "
    "Chen et al., IEEE Trans. Comput. 64, 180 (2015)"
)
ROUGH = "order of magnitude"
FAST = {"bandwidth": 100e6}
EIGHT_OUT = sn.Mapping(adc_bits=8)
EIGHT_IN = sn.Mapping(input_bits=8)

MECHANISMS = (
    Mechanism(
        "programming error, normal", "σ / g_max", keys("programming_error"),
        0.05, f"{ROUGH}, as preset rram-1r", 1e-3, 1.0,
    ),
    Mechanism(
        "programming error, lognormal", "σ of ln g", keys("programming_error"),
        0.1, ROUGH, 1e-3, 4.0, {"variation.programming_law": "lognormal"},
    ),
    Mechanism(
        "programming error, state-dependent", "× published σ(g)", keys("programming_error"),
        1.0, PCM, 0.02, 50.0,
        {
            "variation.programming_law": "state-dependent",
            "variation.programming_coefficients": PCM_SIGMA,
        },
    ),
    Mechanism(
        "cycle to cycle", "σ / g_max", keys("variation.cycle_to_cycle"), 0.02, ROUGH, 1e-3, 1.0
    ),
    Mechanism(
        "die gradient", "σ, edge to edge", keys("variation.gradient"), 0.02, ROUGH, 1e-3, 4.0
    ),
    Mechanism(
        "correlated field", "σ / g", keys("variation.correlated"), 0.03, ROUGH, 1e-3, 4.0,
        {"variation.correlation_length": 8.0},
    ),
    Mechanism("wafer", "centre to edge", keys("variation.wafer"), 0.05, ROUGH, 1e-3, 1.0),
    Mechanism("stuck on", "share of cells", keys("variation.stuck_on"), 0.01, STUCK, 1e-4, 1.0),
    Mechanism("stuck off", "share of cells", keys("variation.stuck_off"), 0.01, STUCK, 1e-4, 1.0),
    Mechanism(
        "dead wordlines", "share of lines", keys("variation.dead_wordlines"),
        1e-3, ROUGH, 1e-4, 1.0,
    ),
    Mechanism(
        "dead bitlines", "share of lines", keys("variation.dead_bitlines"),
        1e-3, ROUGH, 1e-4, 1.0,
    ),
    Mechanism(
        "read noise", "σ / g", keys("read_noise"), 0.01, f"{ROUGH}, as preset rram-1r", 1e-3, 10.0
    ),
    Mechanism(
        "thermal noise", "bandwidth [Hz]", keys("bandwidth"),
        100e6, "an array read in about 10 ns", 1e6, 1e16,
    ),
    Mechanism(
        "shot noise", "Fano factor at 100 MHz", keys("noise.shot"),
        1.0, "full shot noise, its largest without feedback (Schottky 1918)", 0.01, 1e8, FAST,
    ),
    Mechanism(
        "1/f noise", "S f / I² [1]", keys("noise.flicker"),
        0.0088**2, f"{PCM}, at g_max", 1e-6, 10.0, FAST,
    ),
    Mechanism(
        "telegraph noise", "ΔI / I, a trap in every cell", keys("noise.rtn_amplitude"),
        0.1, ROUGH, 1e-3, 1.0, {**FAST, "noise.rtn_share": 1.0},
    ),
    Mechanism(
        "wires", "Ω per segment", keys("r_wordline", "r_bitline"),
        2.0, f"{ROUGH}, as preset rram-1r", 0.1, 1e4,
        alike=True,
    ),
    Mechanism(
        "drivers", "Ω", keys("periphery.driver.resistance"), 100.0, ROUGH, 1.0, 1e5,
        alike=True,
    ),
    Mechanism(
        "temperature", "K above 300 K, -0.1 %/K", lambda x: {"temperature": 300.0 + x},
        58.0, "85 °C, the upper end of commercial parts; -0.1 %/K is an order of magnitude",
        1.0, 900.0, {"conductance_tc": -1e-3},
        alike=True,
    ),
    Mechanism(
        "drift", "s", keys("drift.time"), 3.156e7, f"one year; {PCM}", 1.0, 1e15, PCM_DRIFT
    ),
    Mechanism(
        "amplifier offset", "V", keys("periphery.tia.offset"),
        2e-3,
        "√2 A_VT/√(W L) for 5 mV µm and 10 µm²: Pelgrom et al., JSSC 24, 1433 (1989)",
        1e-5, 1.0,
    ),
    Mechanism(
        "amplifier gain", "1 / gain",
        lambda x: {"periphery.tia.gain": 1.0 / x if x else None},
        1e-3, f"{ROUGH}: 60 dB", 1e-5, 1.0,
        alike=True,
    ),
    Mechanism(
        "ADC resolution", "step over range, 2^-bits", lambda _: {},
        2.0**-8, "8 bits: ISAAC, Shafiee et al., ISCA 2016", 2.0**-16, 2.0**-2, bits="adc_bits",
        alike=True,
    ),
    Mechanism(
        "ADC INL", "LSB of 8 bits", keys("periphery.adc.inl"), 1.0, ROUGH, 0.05, 100.0,
        mapping=EIGHT_OUT,
        alike=True,
    ),
    Mechanism(
        "ADC DNL", "LSB of 8 bits", keys("periphery.adc.dnl"), 0.5, ROUGH, 0.05, 30.0,
        mapping=EIGHT_OUT,
    ),
    Mechanism(
        "DAC resolution", "step over range, 2^-bits", lambda _: {},
        2.0**-8, "8 bits: Le Gallo et al., Nat. Electron. 6, 680 (2023)", 2.0**-16, 2.0**-2,
        bits="input_bits",
        alike=True,
    ),
    Mechanism(
        "DAC INL", "LSB of 8 bits", keys("periphery.dac.inl"), 1.0, ROUGH, 0.05, 100.0,
        mapping=EIGHT_IN,
        alike=True,
    ),
    Mechanism(
        "DAC DNL", "LSB of 8 bits", keys("periphery.dac.dnl"), 0.5, ROUGH, 0.05, 30.0,
        mapping=EIGHT_IN,
    ),
    Mechanism(
        "threshold mismatch, 1T1R", "A_VT [V m]", keys("variation.a_vt"),
        5e-9, "5 mV µm, of the order of the gate oxide in nm: Pelgrom et al., JSSC 24, 1433 (1989)",
        1e-10, 1e-6, preset="hfox-1t1r",
    ),
)  # fmt: skip


def mlp() -> nn.Module:
    """64-32-10 with ReLU."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def cnn() -> nn.Module:
    """Two 3×3 convolutions of 8 and 16 channels, pooled by 2, and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


NETWORKS = {"MLP": mlp, "CNN": cnn}


def network(name: str, images: Images, epochs: int, draw: int = 0) -> nn.Module:
    """Train a network; no epochs leave it as it was drawn."""
    torch.manual_seed(draw)
    model = NETWORKS[name]()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    x, y = torch.as_tensor(images.train), torch.as_tensor(images.train_labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.eval()


@dataclass(frozen=True, eq=False)
class Bench:
    """A network on chips: what every magnitude is judged with.

    batch : chips that are run at once, which bounds the memory.
    """

    model: nn.Module
    images: Images
    engine: Engine
    chips: int
    seed: int
    batch: int = 5

    @cache  # noqa: B019 - lives as long as the study
    def compiled(self, preset: str) -> Design:
        return sn.compile(
            self.model,
            torch.as_tensor(self.images.train[:4]),
            technology=sn.Technology.preset(preset),
            calibration=torch.as_tensor(self.images.train[:600]),
        ).with_technology(QUIET)

    def design(self, mechanism: Mechanism, x: float) -> Design:
        """The network with one mechanism at a magnitude and no other."""
        mapping = mechanism.mapping
        if mechanism.bits is not None and x:
            bits: dict[str, Any] = {mechanism.bits: round(-math.log2(x))}
            mapping = replace(mapping, **bits)
        # Bits change no scale that calibration has set: one compilation serves all.
        design = replace(self.compiled(mechanism.preset), mapping=mapping)
        return design.with_technology({**mechanism.with_, **mechanism.set(x)})

    def scores(self, mechanism: Mechanism, x: float, chips: int) -> Array:
        """Class scores (chip, sample, class); NaN where a chip failed."""
        design = self.design(mechanism, x)
        inputs = as_inputs(design, self.images.test)
        parts = []
        for start in range(0, chips, self.batch):
            indices = range(start, min(start + self.batch, chips))
            result = run_chips(design, indices, self.seed, inputs, self.engine)
            (output,) = result.output.values()
            if np.all(result.status != Status.OK):
                raise SpicennError(f"no chip ran: {result.message[0]}", where=mechanism.name)
            parts.append(output[:, 0])
        return np.concatenate(parts)


def predicted(scores: Array) -> Array:
    """Classes (chip, sample); -1, which is none, on a chip that failed."""
    classes = np.nan_to_num(scores).argmax(axis=-1)
    classes[~np.all(np.isfinite(scores), axis=(1, 2))] = -1
    return np.asarray(classes)


def accuracy(scores: Array, labels: Array) -> Array:
    """Share of right samples (chip,); a chip that failed has none."""
    right: Array = np.equal(predicted(scores), labels)
    return np.asarray(right.mean(axis=-1))


def crossing(x: Array, loss: Array, target: float) -> float:
    """Magnitude at which a loss, taken as never falling, reaches the target.

    x (point,) ascending; loss (point,). Linear in the loss and in log x; inf where the
    target is not reached, the first x where it is reached at once.
    """
    rising = np.maximum.accumulate(loss)
    above = int(np.searchsorted(rising, target))
    if above == len(x):
        return math.inf
    if above == 0:
        return float(x[0])
    a, b = rising[above - 1], rising[above]
    part = (target - a) / (b - a)
    return float(x[above - 1] * (x[above] / x[above - 1]) ** part)


def interval(x: Array, loss: Array, target: float) -> tuple[float, float]:
    """95 % percentile bootstrap of the crossing over chips; loss (point, chip)."""
    chips = loss.shape[1]
    drawn = np.random.default_rng(0).multinomial(chips, np.full(chips, 1 / chips), RESAMPLES)
    means = drawn @ loss.T / chips
    found = np.array([crossing(x, mean, target) for mean in means])
    low, high = np.quantile(found, [0.025, 0.975], method="nearest")
    return float(low), float(high)


def magnitudes(mechanism: Mechanism) -> Iterator[float]:
    """The search's first pass, ascending."""
    step = 2.0 if mechanism.bits else STEP
    x = mechanism.low
    while x < mechanism.high * (1 + 1e-9):
        yield x
        x *= step
    if x / step < mechanism.high * (1 - 1e-9):
        yield mechanism.high


def sweep(
    bench: Bench, untrained: Sequence[Bench], mechanism: Mechanism, target: float
) -> dict[str, Any]:
    """One mechanism's critical magnitude and its controls, as a row of the result.

    Raises SpicennError where the mechanism is not there, or changes nothing.
    """
    labels = bench.images.test_labels
    still = bench.scores(mechanism, 0.0, 1)
    zero = float(accuracy(still, labels)[0])
    chips = 1 if mechanism.alike else bench.chips
    losses: dict[float, Array] = {}
    changed = False

    def loss(x: float) -> Array:
        nonlocal changed
        if x not in losses:
            scores = bench.scores(mechanism, x, chips)
            changed = changed or not np.array_equal(scores, np.broadcast_to(still, scores.shape))
            losses[x] = zero - accuracy(scores, labels)
        return losses[x]

    loss(mechanism.typical)
    below = above = None
    for x in magnitudes(mechanism):
        if loss(x).mean() < target:
            below, above = x, None
        elif above is None:
            above = x
        # On until the best chip has lost as much: every resample of chips then crosses.
        if loss(x).min() >= target:
            break
    if not changed:
        raise SpicennError("changes nothing: no engine or compiler knows it yet")
    while above and below and above / below > NARROW and mechanism.bits is None:
        middle = math.sqrt(above * below)
        above, below = (middle, below) if loss(middle).mean() >= target else (above, middle)
    seen = np.array(sorted(losses))
    every = np.stack([losses[value] for value in seen])
    critical = crossing(seen, every.mean(axis=1), target)
    low, high = interval(seen, every, target) if chips > 1 else (critical, critical)
    return {
        "name": mechanism.name,
        "unit": mechanism.unit,
        "typical": mechanism.typical,
        "source": mechanism.source,
        "critical": critical,
        "interval": [low, high],
        "margin": critical / mechanism.typical,
        "alike": mechanism.alike,
        "in range": bool(math.isfinite(critical) and critical > seen[0]),
        "accuracy at zero": zero,
        "loss at typical": float(losses[mechanism.typical].mean()),
        "curve": [[float(value), float(losses[value].mean())] for value in seen],
        **controls(bench, untrained, mechanism, above or mechanism.high, chips),
    }


def controls(
    bench: Bench, untrained: Sequence[Bench], mechanism: Mechanism, x: float, chips: int
) -> dict[str, float]:
    """Loss at the critical magnitude against shuffled labels, and of random networks."""
    labels = bench.images.test_labels
    before, after = (bench.scores(mechanism, 0.0, 1), bench.scores(mechanism, x, chips))
    rng = np.random.default_rng(1)
    orders = [rng.permutation(labels) for _ in range(PERMUTATIONS)]
    shuffled = [accuracy(before, order)[0] - accuracy(after, order).mean() for order in orders]
    drawn = [
        accuracy(other.scores(mechanism, 0.0, 1), labels)[0]
        - accuracy(other.scores(mechanism, x, chips), labels).mean()
        for other in untrained
    ]
    return {
        "loss, shuffled labels": float(np.mean(shuffled)),
        "loss, random networks": float(np.mean(drawn)),
        "standard error, random networks": float(np.std(drawn) / max(len(drawn) - 1, 1) ** 0.5),
    }


def figure(results: Mapping[str, Any], target: float, path: Path) -> None:
    """Margins of every mechanism, smallest on top, with intervals."""
    from matplotlib.figure import Figure

    from spicenn.report.style import INK, MINUS, MUTED, PLUS, drawing

    names = [row["name"] for row in next(iter(results.values()))["rows"]]
    with drawing():
        picture = Figure(figsize=(7.6, 1.2 + 0.24 * len(names)), dpi=150, layout="constrained")
        axes = picture.subplots()
        for index, (network_name, result) in enumerate(results.items()):
            colour = (PLUS, MINUS)[index % 2]
            for row in result["rows"]:
                if row["name"] not in names:
                    continue
                y = names.index(row["name"]) + 0.3 * index
                largest = row["curve"][-1][0]
                # What was not reached is drawn at the largest magnitude tried, as an arrow.
                ends = [min(end, largest) / row["typical"] for end in row["interval"]]
                reached = math.isfinite(row["critical"])
                margin = min(row["critical"], largest) / row["typical"]
                axes.plot(ends, [y, y], color=colour, linewidth=1.2)
                axes.plot([margin], [y], "o" if reached else ">", color=colour, markersize=4)
            axes.plot([], [], "o", color=colour, markersize=4, label=network_name)
        axes.axvline(1.0, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0, colors=INK)
        axes.set_xlabel("critical over typical magnitude", color=MUTED)
        axes.set_title(f"What costs {100 * target:g} points of accuracy first")
        axes.legend(loc="upper right")
        picture.savefig(path)


def table(rows: list[dict[str, Any]], top: float) -> str:
    """Rows of the README's table."""
    lines = [
        "| mechanism | magnitude | typical | critical | 95 % over chips | margin | loss at 0 "
        "| loss at typical | shuffled labels | random networks |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        span = "alike" if row["alike"] else f"{low:.3g} … {high:.3g}"
        sign = "" if row["in range"] else ("> " if math.isinf(row["critical"]) else "≤ ")
        largest = row["curve"][-1][0]
        critical = row["critical"] if math.isfinite(row["critical"]) else largest
        points = [
            top - row["accuracy at zero"],
            row["loss at typical"],
            row["loss, shuffled labels"],
            row["loss, random networks"],
        ]
        cells = " | ".join(f"{100 * value:.2f}" for value in points)
        cells += f" ± {100 * row['standard error, random networks']:.2f}"
        lines.append(
            f"| {row['name']} | {row['unit']} | {row['typical']:.3g} | {sign}{critical:.3g} "
            f"| {span} | {sign}{critical / row['typical']:.3g} | {cells} |"
        )
    return "\n".join(lines)


def study(name: str, options: argparse.Namespace, images: Images, engine: Engine) -> dict[str, Any]:
    """Every mechanism on one network, ranked."""
    trained = Bench(network(name, images, options.epochs), images, engine, options.chips, 7)
    untrained = [
        replace(trained, model=network(name, images, 0, draw)) for draw in range(options.random)
    ]
    with torch.no_grad():
        ideal = trained.model(torch.as_tensor(images.test)).numpy()[np.newaxis]
    top = float(accuracy(ideal, images.test_labels)[0])
    print(f"{name}: accuracy {top:.4f}, target loss {options.loss:g}", flush=True)
    rows, skipped = [], {}
    for mechanism in MECHANISMS:
        if options.only and not any(word in mechanism.name for word in options.only):
            continue
        try:
            rows.append(sweep(trained, untrained, mechanism, options.loss))
        except SpicennError as error:
            skipped[mechanism.name] = str(error)
            print(f"  {mechanism.name}: skipped, {error}", flush=True)
            continue
        row = {key: value for key, value in rows[-1].items() if key not in ("source", "curve")}
        print("  " + json.dumps(row, ensure_ascii=False), flush=True)
    rows.sort(key=lambda row: row["margin"])
    print(table(rows, top), flush=True)
    return {"accuracy": top, "loss": options.loss, "rows": rows, "skipped": skipped}


def main() -> None:
    """Run the study, print a table for every network, write JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a few tiny cases in seconds")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--only", nargs="+", help="mechanisms whose names hold one of these words")
    parser.add_argument("--loss", type=float, default=0.02, help="of accuracy, as a fraction")
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--random", type=int, default=5, help="untrained networks, as a control")
    parser.add_argument("--engine", choices=["ngspice", "nodal"], default="nodal")
    parser.add_argument("--out", type=Path, help="write result.json and result.png to this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.smoke:
        options.networks, options.chips, options.images, options.epochs = ["MLP"], 2, 40, 2
        options.random = 1
        options.only, options.loss = ["stuck off", "wires", "ADC resolution"], 0.1
    images = load_digits()
    images = replace(
        images,
        test=images.test[: options.images],
        test_labels=images.test_labels[: options.images],
    )
    with open_engine(options.engine) as engine:
        results = {name: study(name, options, images, engine) for name in options.networks}
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        # Infinity is no JSON: what was not reached is null.
        text = json.dumps(finite(results), indent=1, ensure_ascii=False, allow_nan=False)
        (options.out / "result.json").write_text(text + "\n", encoding="utf-8")
        figure(results, options.loss, options.out / "result.png")


def finite(value: Any) -> Any:
    """Replace infinities by None, at any depth."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
