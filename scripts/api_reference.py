"""Write docs/api.md from the docstrings of the public names."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import spicenn as sn

TARGET = Path(__file__).resolve().parent.parent / "docs" / "api.md"

SECTIONS = {
    "Technology": [
        "Technology",
        "Corner",
        "spicenn.technology.Variation",
        "spicenn.technology.Noise",
        "spicenn.technology.Drift",
        "spicenn.technology.Periphery",
        "spicenn.technology.Driver",
        "spicenn.technology.Converter",
        "spicenn.technology.Tia",
        "spicenn.technology.Neuron",
        "Cell",
        "parse_quantity",
    ],
    "Compile": ["compile", "Tile", "Mapping", "Design", "Chip"],
    "Study": [
        "monte_carlo",
        "open_record",
        "tile_record",
        "design_of",
        "accuracy",
        "yield_interval",
        "quantile_interval",
    ],
    "Surrogate": [
        "fit",
        "calibrate",
        "judge",
        "next_probes",
        "Surrogate",
        "Calibration",
        "spicenn.surrogate.judge.Judgement",
        "spicenn.surrogate.neural.NeuralSurrogate",
        "spicenn.surrogate.affine.LinearSurrogate",
        "spicenn.surrogate.latent_files.load",
    ],
    "Training": [
        "analog",
        "Awareness",
        "in_loop",
        "migrate",
        "spicenn.training.refresh",
        "spicenn.training.run.train",
        "spicenn.training.residual.StochasticResidual",
        "spicenn.training.residual.LiteralResidual",
        "spicenn.training.penalties.weight_range_penalty",
        "spicenn.training.penalties.bit_depth_penalty",
        "spicenn.training.penalties.watched_signals",
        "spicenn.training.penalties.jacobian_penalty",
        "spicenn.training.pulsed.PulsedSGD",
        "spicenn.training.gauge.fix_gauge",
        "spicenn.training.gauge.null_directions",
        "spicenn.training.migrate.Migration",
        "spicenn.compiler.adapter.Adapter",
        "spicenn.training.feedforward.feed_forward",
        "spicenn.training.feedforward.predistorted",
        "spicenn.engines.superposition.superposed",
    ],
    "Heat and hysteresis": [
        "spicenn.technology.heating.Heating",
        "spicenn.engines.heating.heated_currents",
        "spicenn.engines.heating.warm_up",
        "spicenn.engines.histories.first_reversal_curves",
        "spicenn.surrogate.hysteresis.Plane",
        "spicenn.surrogate.hysteresis.fit_population",
        "spicenn.surrogate.hysteresis.tag",
        "spicenn.surrogate.hysteresis.identify",
        "spicenn.surrogate.hysteresis.HysteresisSurrogate",
    ],
    "Exact crossbars": [
        "crossbar_currents",
        "spicenn.kirchhoff.CrossbarSolution",
        "spicenn.kirchhoff.effective_matrix",
        "spicenn.kirchhoff.thermal_noise",
        "spicenn.kirchhoff.Law",
        "spicenn.kirchhoff.GatedLaw",
        "spicenn.kirchhoff.Sinh",
        "spicenn.kirchhoff.Pcm",
        "spicenn.kirchhoff.Rram1T1R",
        "spicenn.kirchhoff.Fefet",
        "spicenn.kirchhoff.Ohmic",
    ],
    "Energy and writing": ["measure_energy", "energy_of", "Pulse", "write_pulses", "read_disturb"],
    "Co-simulation": [
        "Cosimulation",
        *(
            f"spicenn.cosim.{name}"
            for name in (
                "Block",
                "rate_code",
                "latency_code",
                "spikes",
                "play",
                "regular",
                "poisson",
                "Pulses",
                "Route",
                "AddressBus",
                "collect",
                "sar_circuit",
                "convert",
                "digitize",
                "latch",
                "sampled",
                "network",
                "array_netlist",
                "MemristorArray",
                "Staircase",
                "Read",
                "nominal_pulse",
                "write_verify",
                "write_blind",
                "save_record",
                "load_record",
                "write_traces",
                "write_vcd",
            )
        ),
        "LIF",
        "compile_spiking",
        "spicenn.cosim.spiking.SpikingDesign",
        "spicenn.cosim.spiking.SpikingChip",
        "spicenn.cosim.presentation.Presentation",
        "spicenn.compiler.spiking.LifSpread",
        "spicenn.periphery.lif.Lif",
        "spicenn.cosim.characterize.poisson_stimulus",
        "spicenn.cosim.characterize.trace_layer",
        "spicenn.surrogate.EventSurrogate",
        "spicenn.surrogate.EventCalibration",
        "spicenn.surrogate.LayerBlock",
    ],
    "Learning": [
        *(
            f"spicenn.learning.{name}"
            for name in (
                "Network",
                "Edge",
                "Transistor",
                "Resistor",
                "Diode",
                "graph",
                "grid",
                "layered",
                "Hardware",
                "LearningChip",
                "ideal_chip",
                "sample_chip",
                "start_values",
                "Task",
                "Schedule",
                "cyclic",
                "shuffled",
                "CoupledLearning",
                "Overclamping",
                "EquilibriumPropagation",
                "Desynchronous",
                "Differential",
                "learn",
                "learn_in_circuit",
                "Solver",
                "learn_in_model",
                "learn_many",
                "learn_by_controller",
                "Converters",
                "Trajectory",
                "write_learning",
                "equilibrium",
                "operating_points",
                "answers",
                "mean_square_error",
                "find_cycle",
                "LimitCycle",
                "predict_cycle",
                "events.learn_by_events",
                "memory.train",
                "memory.recall",
                "margin.bias_margin",
                "compare.run_all",
                "gradient.by_adjoint",
                "gradient.by_equilibrium_propagation",
                "gradient.by_coupled_learning",
                "gradient.by_finite_differences",
                "resistive.ResistiveNetwork",
                "descent.settle",
                "propagation.train",
                "propagation.predict",
                "propagation.accuracy",
                "config.load",
                "run.learn_chips",
                "record.open_record",
                "examples.two_tasks",
                "examples.regression",
                "examples.xor",
            )
        ),
    ],
    "Data": [
        "spicenn.datasets.load_digits",
        "spicenn.datasets.load_mnist",
        "spicenn.datasets.load_cifar10",
        "spicenn.datasets.load_tiny_imagenet",
        "spicenn.datasets.load_images",
    ],
    "Errors": ["SpicennError", "Status"],
}


def reference() -> str:
    """Return the page."""
    missing = set(sn.__all__) - {n for names in SECTIONS.values() for n in names} - {"__version__"}
    if missing:
        raise SystemExit(f"public names without a section: {sorted(missing)}")
    lines = [
        "# API reference",
        "",
        "Every public name, `sn` standing for `import spicenn as sn`, from its docstring "
        "(`make docs` writes this page anew). Units are SI; shapes are in the order "
        "(chip, trial, sample, …).",
    ]
    for section, names in SECTIONS.items():
        lines += ["", f"## {section}"]
        for name in names:
            if "." in name:
                module, _, last = name.rpartition(".")
                lines += _entry(name, getattr(import_module(module), last), "###")
            else:
                lines += _entry(f"sn.{name}", getattr(sn, name), "###")
    # One blank line between blocks, however they were put together.
    page = [line for line, before in zip(lines, ["x", *lines], strict=False) if line or before]
    return "\n".join(page).rstrip() + "\n"


def _entry(name: str, value: Any, heading: str) -> list[str]:
    lines = ["", f"{heading} `{name}`", ""]
    if callable(value) and not getattr(value, "_is_protocol", False):
        lines += ["```python", *_signature(name, value), "```", ""]
    lines += _text(value)
    if inspect.isclass(value):
        for key, member in vars(value).items():
            public = not key.startswith("_") and (inspect.isfunction(member) or _wrapped(member))
            if public and inspect.getdoc(member):
                lines += _entry(f"{name}.{key}", _function(member), "####")
    return lines


def _wrapped(member: object) -> bool:
    return isinstance(member, property | staticmethod | classmethod)


def _function(member: Any) -> Any:
    return member.__func__ if isinstance(member, staticmethod | classmethod) else member


def _signature(name: str, value: Any) -> list[str]:
    """A call on one line where it fits, else one parameter a line; self left out."""
    signature = inspect.signature(value)
    words: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        if parameter.name != "self":
            words.append(_parameter(parameter))
    ending = signature.return_annotation
    ending = "" if ending in (signature.empty, None, "None") else f" -> {ending}"
    line = f"{name}({', '.join(words)}){ending}"
    return [line] if len(line) <= 88 else [f"{name}(", *(f"    {w}," for w in words), f"){ending}"]


def _parameter(parameter: inspect.Parameter) -> str:
    # Annotations are text already: every module postpones them.
    text = parameter.name
    if parameter.annotation is not parameter.empty:
        # A named tuple's are wrapped.
        text += f": {getattr(parameter.annotation, '__forward_arg__', parameter.annotation)}"
    return text if parameter.default is parameter.empty else f"{text} = {parameter.default!r}"


def _text(value: Any) -> list[str]:
    """A docstring as Markdown: numpydoc's underlined headings become bold."""
    source = (inspect.getdoc(value) or "").splitlines()
    lines: list[str] = []
    for line in source:
        if lines and line.strip() and set(line.strip()) == {"-"}:
            lines[-1] = f"**{lines[-1]}**"
            lines.append("")
        elif line.startswith("    "):
            lines[-1] += f" {line.strip()}"
        else:
            entry = " : " in line and line.split(" : ")[0].replace(", ", "").isidentifier()
            lines.append(
                f"- `{line.split(' : ')[0]}`: {line.split(' : ', 1)[1]}" if entry else line
            )
    return lines


if __name__ == "__main__":
    if "--check" in sys.argv and TARGET.read_text("utf-8") != reference():
        raise SystemExit("docs/api.md is not current: run make docs")
    TARGET.write_text(reference(), "utf-8")
