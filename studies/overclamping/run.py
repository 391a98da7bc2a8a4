"""What overclamping takes away of the error that bias leaves, when it ends, what is remembered.

See README.md for claim, controls and result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.learning.examples import HIGH, LOW, two_tasks
from spicenn.learning.hardware import Hardware, LearningChip
from spicenn.learning.memory import Learner, alone
from spicenn.learning.netlist import LEARNING_TOLERANCES
from spicenn.learning.network import grid
from spicenn.learning.rules import CoupledLearning, Overclamping, Rule
from spicenn.learning.scaling import power_law
from spicenn.learning.transient import Solver, learn_in_circuit

if TYPE_CHECKING:
    from studies.overclamping import floors, lessons, picture
else:  # of a script, its own folder is on the path
    import floors
    import lessons
    import picture

Array = NDArray[np.float64]

PARTS = ("floors", "ends", "noise", "chips", "memory")
STANDARD = CoupledLearning(eta=1.0)
FULL = Overclamping(low=LOW, high=HIGH)
DUTY = replace(FULL, eta=1.0, amplitude=False)
AMPLITUDE = replace(FULL, time=False, smoothing=1e-3)
# A bias as large as example 1's, drawn; one millivolt is a good comparator's offset.
SPREAD = Hardware(
    bias_std=1.4e-3, threshold_std=0.02, twin_threshold_std=0.005, transconductance_std=0.05,
    twin_transconductance_std=0.01, output_offset_std=1e-3,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is run; passes are of all tasks."""

    period: float = 5e-3
    standard: int = 300
    overclamped: int = 1000
    duty: int = 500
    amplitude: int = 150
    smooth: int = 500
    smoothing: tuple[float, ...] = (1e-5, 1e-4, 1e-3)
    longer: tuple[int, int] = (100, 400)
    periods: tuple[float, ...] = (1.2e-3, 5e-3, 2e-2, 7.96e-2)
    moderate: int = 400
    multiples: tuple[float, ...] = (2, 4, 5, 6, 8, 16)
    bisections: int = 5
    probes: tuple[float, ...] = (1.0, 2.0)
    probe_passes: int = 100
    offsets: tuple[float, ...] = (1e-3, 5e-3)
    leakages: tuple[float, ...] = (1e-10, 1e-9, 1e-8)
    noises: tuple[float, ...] = (1e-5, 1e-4)
    noisy: tuple[int, int] = (150, 50)
    trials: int = 10
    chips: int = 16
    lessons: int = 10
    lesson: tuple[int, int, int] = (100, 50, 150)
    lesson_slot: float = 1e-2


SMOKE = Sizes(
    standard=4, overclamped=4, duty=4, amplitude=3, smoothing=(1e-4,), periods=(5e-3,),
    moderate=4, smooth=4, longer=(3, 3), multiples=(16,), bisections=1, probes=(),
    probe_passes=4, offsets=(1e-3,), leakages=(1e-9,), noises=(1e-5,), noisy=(3, 2), trials=2,
    chips=2, lessons=1, lesson=(12, 12, 3),
)  # fmt: skip


def halves(bench: floors.Bench, tight: Learner, sizes: Sizes) -> dict[str, Any]:
    """Both rules, both halves, smoothing and tau on example 1."""
    chip = two_tasks().chip
    pairs: dict[str, tuple[Rule, int]] = {
        "standard": (STANDARD, sizes.standard), "overclamped": (FULL, sizes.overclamped),
    }  # fmt: skip
    arms = {name: floors.floor(bench, chip, *pair) for name, pair in pairs.items()}
    checked = replace(bench, learner=tight)
    exact = {name: floors.floor(checked, chip, *pair) for name, pair in pairs.items()}
    duty = floors.until_effective(
        bench, chip, DUTY, arms["standard"]["effective time"], passes=sizes.duty,
        most=8 * sizes.duty,
    )  # fmt: skip
    arms["duty alone"] = floors.record(duty)
    slow = replace(bench, slot=4 * bench.slot)
    arms["amplitude alone"] = floors.floor(
        slow, chip, AMPLITUDE, sizes.amplitude, period=slow.period
    )
    arms["standard, 4 tau"] = floors.floor(
        slow, chip, STANDARD, sizes.amplitude, period=slow.period
    )
    arms["overclamped, 4 tau"] = floors.floor(
        slow, chip, replace(FULL, smoothing=AMPLITUDE.smoothing), sizes.amplitude,
        period=slow.period,
    )  # fmt: skip
    # Within the comparator's width little is learnt: of long slots fewer do.
    smoothing = [
        floors.floor(slow, chip, replace(FULL, smoothing=s), sizes.smooth, smoothing=s)
        for s in sizes.smoothing
    ]
    by_period = []
    for period in sizes.periods:
        own = replace(bench, slot=period / len(bench.tasks))
        passes = {
            name: min(max(round(n * bench.period / period), n // 4), 3 * n)
            for name, (_, n) in pairs.items()
        }
        by_period.append(
            {
                "period": period,
                **{
                    name: floors.floor(own, chip, rule, passes[name])
                    for name, (rule, _) in pairs.items()
                },
            }
        )
    return {
        "arms": arms, "tight": exact, "smoothing": smoothing, "periods": by_period,
        "law of smoothing": law([row["smoothing"] for row in smoothing],
                                [row["floor"] for row in smoothing]),
    }  # fmt: skip


def ends(bench: floors.Bench, sizes: Sizes) -> dict[str, Any]:
    """Bias, offset, leakage and noise that overclamping does not or hardly takes away."""
    example = two_tasks()
    chip = example.chip
    pairs: dict[str, tuple[Rule, int]] = {
        "standard": (STANDARD, sizes.standard), "overclamped": (FULL, sizes.moderate),
    }  # fmt: skip

    def both(own: LearningChip) -> dict[str, Any]:
        return {
            name: floors.floor(bench, own, rule, count) for name, (rule, count) in pairs.items()
        }

    # Where errors grow, they do so slowly: these runs are longer.
    bias = [
        {
            "multiple": m,
            "standard": floors.floor(bench, floors.with_bias(chip, m), STANDARD, sizes.standard),
            "overclamped": floors.floor(bench, floors.with_bias(chip, m), FULL, sizes.overclamped),
        }
        for m in (0.0, 1.0, *sizes.multiples)
    ]
    print("bias done", flush=True)
    broken = floors.breakdown(
        bench, chip, example.task, FULL, error=1e-3, passes=sizes.probe_passes,
        bracket=(4.0, 8.0), steps=sizes.bisections, probes=sizes.probes,
    )  # fmt: skip
    found: dict[str, Any] = {"bias": bias, "breakdown": broken}
    for name, key, values in (
        ("offset", "output_offset", sizes.offsets), ("leakage", "leakage", sizes.leakages),
    ):  # fmt: skip
        found[name] = [
            {"value": value, **both(floors.with_hardware(chip, **{key: value}))} for value in values
        ]
        good = [row for row in found[name] if "floor" in row["overclamped"]]
        found[f"law of {name}"] = law(
            [row["value"] for row in good], [row["overclamped"]["floor"] for row in good]
        )
        print(f"{name} done", flush=True)
    return found


def noise(learner: Callable[..., Any], bench: floors.Bench, sizes: Sizes) -> dict[str, Any]:
    """Both rules with noise of the edges' updates, and of the outputs' comparators."""
    chip = two_tasks().chip
    learners = [partial(learner, seed=1, trial=trial) for trial in range(sizes.trials)]
    return {
        name: [
            {
                "value": value,
                **{
                    arm: floors.noisy(
                        learners, bench, floors.with_hardware(chip, **{key: value}), rule,
                        *sizes.noisy,
                    )
                    for arm, rule in (("standard", STANDARD), ("overclamped", FULL))
                },
            }
            for value in sizes.noises
        ]
        for name, key in (("update noise", "update_noise"), ("output noise", "output_noise"))
    }  # fmt: skip


def chips(bench: floors.Bench, sizes: Sizes) -> dict[str, Any]:
    """Both rules on manufactured chips, with and without offsets of the comparators."""
    rules: dict[str, tuple[Rule, int]] = {
        "standard": (STANDARD, sizes.longer[0]),
        "overclamped": (replace(FULL, smoothing=1e-4), sizes.longer[1]),
    }
    slow = replace(bench, slot=4 * bench.slot)
    result: dict[str, Any] = {}
    for name, hardware in {
        "with offsets": SPREAD, "without offsets": replace(SPREAD, output_offset_std=0.0),
    }.items():  # fmt: skip
        rows = floors.sampled(
            slow, two_tasks().chip, hardware, rules, chips=sizes.chips, seed=1, begin=(2.0, 3.0)
        )
        result[name] = {"rows": rows, "compared": floors.compared(rows, "standard", "overclamped")}
        print(f"chips {name}: {result[name]['compared']}", flush=True)
    return result


def memory(learner: Learner, tight: Learner, sizes: Sizes) -> dict[str, Any]:
    """Two tasks on 32 edges: at once, one after the other, and one alone."""
    network = grid(4, 4, inputs=("n0_0", "n2_2", "n0_2", "n2_0"), outputs=("n1_1", "n3_3"))
    hardware = Hardware(bias_std=4e-4)
    overclamped = replace(FULL, smoothing=1e-4)
    rows: list[dict[str, Any]] = []
    checked: dict[str, Any] = {}
    for seed in range(sizes.lessons):
        lesson = lessons.draw_lesson(
            network, seed=seed, examples=1, inputs=(LOW, HIGH), rails=(LOW, HIGH),
            begin=(2.0, 3.0), teacher=(1.5, 4.5), least=3e-4,
        )  # fmt: skip
        row: dict[str, Any] = {"seed": seed, "draws": lesson.draws}
        for name, (chip, rule) in lessons.arms(
            network, hardware, STANDARD, overclamped, seed
        ).items():
            own = partial(
                lessons.taught, lesson=lesson, chip=chip, rule=rule, slot=sizes.lesson_slot,
                passes=sizes.lesson,
            )  # fmt: skip
            row[name] = own(learner)
            if seed == 0 and name in ("standard", "overclamped"):
                checked[name] = own(tight)
        rows.append(row)
        print(f"seed {seed}: forgotten " + ", ".join(
            f"{name} {row[name]['then']['forgotten'][-1]:.3f}" for name in lessons.names(rows)
        ), flush=True)  # fmt: skip
    differ = {
        name: {
            kind: float(np.abs(np.subtract(
                rows[0][name][kind]["forgotten"], checked[name][kind]["forgotten"]
            )).max()) for kind in ("then", "learnt", "idle")
        } for name in checked
    }  # fmt: skip
    return {"table": lessons.summary(rows), "rows": rows, "tight differs by": differ}


def law(x: list[float], y: list[float]) -> dict[str, float] | None:
    """Fit an exponent with its interval; None of fewer than two points."""
    if len(x) < 2:
        return None
    found = power_law(x, y)
    return {"exponent": found.exponent, "low": found.low, "high": found.high}


def without_curves(result: Mapping[str, Any]) -> dict[str, Any]:
    """Every run's curves thinned out, so that the record stays small."""

    def thin(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: thin(each) for key, each in value.items()}
        if isinstance(value, list) and len(value) > 40:
            keep = np.unique(np.linspace(0, len(value) - 1, 31).round().astype(int))
            return [thin(value[k]) for k in keep]
        if isinstance(value, list):
            return [thin(each) for each in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return {key: thin(each) for key, each in result.items()}


def main() -> None:
    """Run the parts and print what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes in seconds")
    parser.add_argument("--out", type=Path, help="folder for result.json and result.png")
    parser.add_argument("--draw", action="store_true", help="only the picture and the tables")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"no part is called {unknown[0]!r}; there are {', '.join(PARTS)}")
    sizes = SMOKE if options.smoke else Sizes()
    example = two_tasks()
    path = None if options.out is None else options.out / "result.json"
    kept: dict[str, Any] = {}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            kept = json.loads(path.read_text(encoding="utf-8"))
    with NgspiceEngine(timeout=300) as engine:
        fast = partial(
            learn_in_circuit, engine,
            solver=Solver(tolerances=replace(LEARNING_TOLERANCES, reltol=1e-6)),
        )  # fmt: skip
        tight = partial(learn_in_circuit, engine)
        bench = floors.Bench(
            learner=fast, tasks=alone(example.task), start=np.array([2.5, 2.5]),
            slot=sizes.period / len(example.task),
        )  # fmt: skip
        for part in () if options.draw else options.parts or PARTS:
            begun = perf_counter()
            match part:
                case "floors":
                    found = halves(bench, tight, sizes)
                case "ends":
                    found = ends(bench, sizes)
                case "noise":
                    found = noise(fast, bench, sizes)
                case "chips":
                    found = chips(bench, sizes)
                case _:
                    found = memory(fast, tight, sizes)
            spent = perf_counter() - begun
            print(f"== {part}: {spent:.1f} s", flush=True)
            kept[part] = {**without_curves(found), "seconds": spent}
            if path is not None:
                kept["sizes"] = {field.name: getattr(sizes, field.name) for field in fields(sizes)}
                path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if path is not None and set(PARTS) <= set(kept):
        picture.draw(kept, path.with_suffix(".png"))
        print(picture.tables(kept))


if __name__ == "__main__":
    main()
