"""Write docs/api.md from the docstrings of the public names."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import spicenn as sn

TARGET = Path(__file__).resolve().parent.parent / "docs" / "api.md"

SECTIONS = {
    "Technology": ["Technology", "Corner", "Cell", "parse_quantity"],
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
    "Surrogate": ["fit", "calibrate", "Surrogate", "Calibration"],
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
        "Every public name of `import spicenn as sn`, from its docstring "
        "(`make docs` writes this page anew). Units are SI; shapes are in the order "
        "(chip, trial, sample, …).",
    ]
    for section, names in SECTIONS.items():
        lines += ["", f"## {section}"]
        for name in names:
            if name in sn.__all__:
                lines += _entry(f"sn.{name}", getattr(sn, name), "###")
    return "\n".join(lines) + "\n"


def _entry(name: str, value: Any, heading: str) -> list[str]:
    lines = ["", f"{heading} `{name}`", ""]
    if callable(value):
        lines += ["```python", f"{name}{_signature(value)}", "```", ""]
    lines += [*_text(value), ""]
    if inspect.isclass(value):
        for key, member in vars(value).items():
            public = not key.startswith("_") and (inspect.isfunction(member) or _wrapped(member))
            if public and inspect.getdoc(_function(member)):
                lines += _entry(f"{name}.{key}", _function(member), "####")
    return lines[:-1]


def _wrapped(member: object) -> bool:
    return isinstance(member, property | staticmethod | classmethod)


def _function(member: Any) -> Any:
    if isinstance(member, property):
        return member.fget
    return member.__func__ if isinstance(member, staticmethod | classmethod) else member


def _signature(value: Any) -> str:
    try:
        return str(inspect.signature(value))
    except ValueError:
        return "(…)"


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
