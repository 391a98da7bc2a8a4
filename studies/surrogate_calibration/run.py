"""How well a few probes tell one manufactured chip from the population.

See README.md for claim, control and result.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import spicenn as sn
from spicenn.compiler.design import Design
from spicenn.datasets import load_digits
from spicenn.engines import open_engine
from spicenn.engines.engine import Engine
from spicenn.surrogate import ChipModel, Surrogate

Array = NDArray[Any]

# Images: the first part trains the network, its inputs serve fit and probes; the last tests.
TRAINING = 1200
FIT_SEED = 11


@dataclass(frozen=True)
class Images:
    """Digits in [0, 1], (sample, 64) float32, in a fixed shuffled order."""

    train: Array
    labels: Array
    test: Array


def load(tests: int) -> Images:
    """Return the images, as many test images as asked for."""
    digits = load_digits(TRAINING)
    train, test = (x.reshape(len(x), -1) for x in (digits.train, digits.test[:tests]))
    return Images(train, digits.train_labels, test)


def train(images: Images, hidden: int, epochs: int) -> nn.Module:
    """Train 64-hidden-10 with ReLU."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3, weight_decay=1e-4)
    x, y = torch.as_tensor(images.train), torch.as_tensor(images.labels)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model


def rms(error: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(error))))


def outputs(model: nn.Module, x: Array) -> Array:
    """Run a module in double precision of the result."""
    with torch.no_grad():
        return np.asarray(model(torch.as_tensor(x)), dtype=np.float64)


def ridge(features: Array, target: Array) -> Array:
    """Least squares with a ridge chosen by generalised cross-validation; (feature, output)."""
    u, s, vt = np.linalg.svd(features, full_matrices=False)
    best: tuple[float, Array] | None = None
    for penalty in np.geomspace(1e-6, 1e2, 33) * s[0] ** 2:
        shrink = s / (s**2 + penalty)
        fitted = (u * (s * shrink)) @ (u.T @ target)
        freedom = 1.0 - float((s * shrink).sum()) / len(target)
        score = float(np.mean((target - fitted) ** 2)) / max(freedom, 1e-6) ** 2
        if best is None or score < best[0]:
            best = score, (vt.T * shrink) @ (u.T @ target)
    assert best is not None
    return best[1]


def baseline(
    population: ChipModel, model: nn.Module, probes: Array, seen: Array, x: Array, *, hidden: bool
) -> Array:
    """Least squares of the population's residual on the inputs or on the hidden layer."""

    def features(inputs: Array) -> Array:
        values = np.asarray(inputs, dtype=np.float64)
        if hidden:
            first = model[:2]  # type: ignore[index]
            values = outputs(first, inputs)
        return np.hstack([values, np.ones((len(values), 1))])

    coefficients = ridge(features(probes), seen - outputs(population, probes))
    corrected: Array = outputs(population, x) + features(x) @ coefficients
    return corrected


@dataclass(frozen=True)
class Chips:
    """Unseen chips: what they would give without noise, one noisy read, and the reader."""

    design: Design
    engine: Engine
    seed: int
    indices: tuple[int, ...]
    images: Images

    def truth(self, index: int) -> Array:
        quiet = self.design.with_technology(read_noise=0.0, bandwidth=0.0)
        return np.asarray(quiet.sample(index, self.seed).run(self.images.test, self.engine))

    def read(self, index: int, x: Array, trials: int = 1) -> Array:
        chip = self.design.sample(index, self.seed)
        return np.asarray(chip.run(x, self.engine, trials=trials))


def study(
    model: nn.Module, chips: Chips, surrogate: Surrogate, counts: list[int], steps: int
) -> list[dict[str, Any]]:
    """One row per number of probes, means over the chips."""
    population = surrogate.module()
    test = chips.images.test
    prior = outputs(population, test)
    truths = {index: chips.truth(index) for index in chips.indices}
    reads = {index: chips.read(index, test) for index in chips.indices}
    scale = float(np.ptp(outputs(model, test)))
    rows = []
    for count in counts:
        chosen = chips.design.probe_vectors(chips.images.train, count=count, seed=1, steps=steps)
        plain = chips.images.train[:count]
        columns: dict[str, list[float]] = {}

        def add(name: str, value: float, columns: dict[str, list[float]] = columns) -> None:
            columns.setdefault(name, []).append(value)

        shuffle = np.random.default_rng(count).permutation(count)
        for index in chips.indices:
            truth, read = truths[index], reads[index]
            before = rms(prior - truth)
            seen = chips.read(index, chosen)
            result = sn.calibrate(surrogate, chosen, seen)
            after = outputs(result.module, test)
            prediction = result.module.predict(torch.as_tensor(test))
            mean, std, noise = (value.numpy() for value in prediction)
            add("uncalibrated / full scale", before / scale)
            add("ideal / uncalibrated", rms(outputs(model, test) - truth) / before)
            add("calibrated", rms(after - truth) / before)
            add("calibrated, as stated", rms(np.sqrt(std**2 - noise**2)) / before)
            add("calibrated, one read", rms(after - read) / rms(prior - read))
            add("coverage 90 %", float(np.mean(np.abs(read - mean) < 1.6449 * std)))
            add("accepted", float(result.success))
            add("misfit", result.misfit)
            digits = chips.read(index, plain)
            by_digits = sn.calibrate(surrogate, plain, digits)
            add(
                "calibrated, digits as probes",
                rms(outputs(by_digits.module, test) - truth) / before,
            )
            for hidden in (False, True):
                where = "hidden layer" if hidden else "inputs"
                for name, x, y in (("", chosen, seen), (", digits as probes", plain, digits)):
                    fitted = baseline(population, model, x, y, test, hidden=hidden)
                    add(f"least squares on {where}{name}", rms(fitted - truth) / before)
            add(
                "shuffled refused",
                float(not sn.calibrate(surrogate, chosen, seen[shuffle]).success),
            )
            order = np.random.default_rng(index).permutation(count)
            other = chips.read(index + 1, chosen)[order]
            add(
                "other chip, shuffled, refused",
                float(not sn.calibrate(surrogate, chosen, other).success),
            )
        row = {name: float(np.mean(values)) for name, values in columns.items()}
        row["calibrated, worst chip"] = max(columns["calibrated"])
        rows.append({"probes": count, **row})
        print(json.dumps({name: round(value, 4) for name, value in rows[-1].items()}), flush=True)
    return rows


def main() -> None:
    """Run the study and print one line per number of probes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="one tiny case in seconds")
    parser.add_argument("--hidden", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--probes", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument("--chips", type=int, default=20)
    parser.add_argument("--seed", type=int, default=77, help="of the unseen chips")
    parser.add_argument("--fit", type=int, nargs=2, default=[24, 100], metavar=("CHIPS", "IMAGES"))
    parser.add_argument("--engine", choices=["ngspice", "nodal"], default="ngspice")
    parser.add_argument("--out", type=Path, help="write all rows to this JSON file")
    options = parser.parse_args()
    # Small problems: threads would only wait for one another.
    torch.set_num_threads(1)
    if options.smoke:
        options.hidden, options.probes, options.chips, options.engine = [8], [8], 1, "nodal"
        options.fit = [4, 16]
    images = load(60 if options.smoke else 500)
    results = {}
    with open_engine(options.engine) as engine:
        for hidden in options.hidden:
            model = train(images, hidden, 1 if options.smoke else 60)
            design = sn.compile(
                model,
                torch.as_tensor(images.train[:4]),
                technology=sn.Technology.preset("rram-1r"),
                calibration=torch.as_tensor(images.train[:600]),
            )
            surrogate = sn.fit(population_study(design, images, engine, *options.fit))
            print(f"64-{hidden}-10: {surrogate}, spread {surrogate.spread_scale}", flush=True)
            chips = Chips(design, engine, options.seed, tuple(range(options.chips)), images)
            rows = study(model, chips, surrogate, options.probes, 5 if options.smoke else 100)
            results[f"64-{hidden}-10"] = rows
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def population_study(design: Design, images: Images, engine: Engine, chips: int, count: int) -> Any:
    """A Monte Carlo of other chips on training images, as ``monte_carlo`` records it.

    Run in this process: the study is about what is learnt from it.
    """
    import xarray as xr

    from spicenn.compiler.embedded import embed
    from spicenn.compiler.execute import as_inputs, run_chips

    x = images.train[:count]
    result = run_chips(design, range(chips), FIT_SEED, as_inputs(design, x), engine)
    (output,) = result.output.values()
    return xr.Dataset(
        {
            "output": (("chip", "trial", "sample", "output_dim_0"), output),
            "input": (("sample", "input_dim_0"), x),
            "status": (("chip",), result.status),
            "design": (("byte",), embed(design)),
        },
        attrs={"seed": FIT_SEED, "engine": engine.name},
    )


if __name__ == "__main__":
    main()
