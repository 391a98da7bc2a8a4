"""``spicenn doctor``: what is installed, what will be slow or missing, and the remedy."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import Any

import click

from spicenn.cli import options
from spicenn.cli.codes import FAILED

_EPILOG = """\b
Exits with 1 where ngspice cannot be used.

\b
Examples
  spicenn doctor
  spicenn doctor --json
"""


# What ngspice may be built with; OSDI loads compiled Verilog-A.
_PARTS = ("KLU", "XSPICE", "OSDI")


@dataclass(frozen=True)
class Finding:
    """One thing that is slow or missing. ``fatal`` where nothing runs without it."""

    what: str
    remedy: str
    fatal: bool = False


@click.command(epilog=_EPILOG)
@options.as_json
def doctor(as_json: bool) -> int:
    """Say what is installed, slow or missing, and what to do."""
    from spicenn.cli.text import echo, echo_json

    facts = _facts()
    findings = _findings(facts)
    if as_json:
        echo_json({**facts, "findings": [vars(finding) for finding in findings]})
    else:
        for key, value in _lines(facts):
            echo(f"{key:<12}{value}")
        for finding in findings:
            kind = "missing" if finding.fatal else "note"
            echo(f"{kind:<12}{finding.what}: {finding.remedy}")
        if not findings:
            echo("all is well")
    return FAILED if any(finding.fatal for finding in findings) else 0


def _facts() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    from spicenn import __version__
    from spicenn.engines.ngspice.facts import ngspice_facts

    packages: dict[str, str | None] = {}
    for name in ("torch", "dask", "distributed", "numpy", "numba", "xarray", "zarr", "PySpice"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "spicenn": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": _cores(),
        "ngspice": vars(ngspice_facts()),
        "packages": packages,
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    ngspice = facts["ngspice"]
    lines = [
        ("spicenn", facts["spicenn"]),
        ("python", f"{facts['python']} on {facts['platform']}"),
        ("cores", str(facts["cores"])),
    ]
    if ngspice["library"] is None:
        lines.append(("ngspice", "no library"))
    else:
        parts = [f"{name} {'yes' if ngspice[name.lower()] else 'no'}" for name in _PARTS]
        version = ngspice["version"] or "of unknown version"
        lines.append(("ngspice", f"{version}, {', '.join(parts)}, {ngspice['library']}"))
    lines.append(("program", ngspice["executable"] or "no ngspice on PATH"))
    lines += [(name, found or "missing") for name, found in facts["packages"].items()]
    return lines


def _findings(facts: dict[str, Any]) -> list[Finding]:
    ngspice = facts["ngspice"]
    found = []
    if ngspice["problem"] is not None:
        fatal = ngspice["library"] is None
        found.append(Finding(ngspice["problem"], ngspice["remedy"] or "", fatal))
    if ngspice["executable"] is None:
        found.append(
            Finding(
                "the ngspice program is not on PATH; running exported netlists by hand needs it",
                "install the package ngspice",
            )
        )
    for name, version in facts["packages"].items():
        if version is None:
            found.append(Finding(f"{name} is not installed", f"pip install {name}", fatal=True))
    if facts["cores"] == 1:
        found.append(
            Finding("one core: chips run one after another", "use --scheduler for a cluster")
        )
    return found
