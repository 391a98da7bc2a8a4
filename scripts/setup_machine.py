"""Installs what the system's package manager has to bring: ngspice with KLU, Python's venv.

The decisions are pure functions of what was found (``plan``); ``main`` finds, says and runs.
Standard library only: this runs before there is an environment.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

BACKPORTS_LIST = "/etc/apt/sources.list.d/spicenn-backports.list"
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TARGET_FORMAT = "$(SITE)|$(CODENAME)|$(COMPONENT)|$(ORIGIN)|$(IDENTIFIER)"
TOOLS = ("apt-get", "brew", "ngspice", "sudo")
NGSPICE_PACKAGES = ("ngspice", "libngspice0")


class CannotProceed(Exception):
    """Something is missing that this script cannot bring; the text names it and the remedy."""


@dataclass(frozen=True)
class Target:
    """One package index that apt knows."""

    site: str
    codename: str
    component: str
    origin: str


@dataclass(frozen=True)
class Library:
    """The libngspice that loads; an empty name where none does."""

    name: str
    version: str
    klu: bool

    def __str__(self) -> str:
        if not self.name:
            return "no libngspice"
        return f"ngspice {self.version or '?'} ({self.name}, {'with' if self.klu else 'no'} KLU)"


@dataclass(frozen=True)
class Machine:
    """What the decision depends on."""

    system: str  # platform.system()
    release: Mapping[str, str]  # /etc/os-release
    targets: tuple[Target, ...]  # empty where apt has not yet read any list
    tools: frozenset[str]  # of TOOLS, those on the path
    root: bool
    keyring: bool  # Debian's archive keyring is where it belongs


@dataclass(frozen=True)
class Command:
    """One command to run; ``text`` goes to its standard input."""

    argv: tuple[str, ...]
    text: str | None = None

    def __str__(self) -> str:
        line = shlex.join(self.argv)
        return f"{line}  <<< {shlex.quote(self.text.strip())}" if self.text else line


@dataclass(frozen=True)
class Plan:
    """Commands to run in order; ``again`` where what follows depends on what they bring."""

    commands: tuple[Command, ...]
    again: bool = False


def parse_release(text: str) -> dict[str, str]:
    """``/etc/os-release`` as a mapping."""
    words = (word for line in text.splitlines() for word in shlex.split(line, comments=True))
    return dict(word.split("=", 1) for word in words if "=" in word)


def parse_targets(text: str) -> tuple[Target, ...]:
    """The package indexes in the output of ``apt-get indextargets`` with TARGET_FORMAT."""
    rows = (line.split("|") for line in text.splitlines())
    found = [Target(*row[:4]) for row in rows if len(row) == 5 and row[4] == "Packages"]
    return tuple(dict.fromkeys(found))


def plan(machine: Machine, *, ngspice: bool, venv: str | None) -> Plan:
    """What brings ngspice (if asked) and the package ``venv`` (if named) onto this machine.

    Raises CannotProceed where there is no known way.
    """
    if "apt-get" in machine.tools:
        return _plan_apt(machine, ngspice=ngspice, venv=venv)
    if venv:
        raise CannotProceed(
            "this Python has no venv (module ensurepip): install it with the system's package"
            " manager, or name another Python: make setup PYTHON=/path/to/python3.12"
        )
    if machine.system == "Darwin":
        if "brew" not in machine.tools:
            raise CannotProceed(
                "libngspice is missing, and so is Homebrew, which would install it: install"
                " Homebrew and run this again, or install ngspice >= 42 as a shared library"
            )
        # Homebrew refuses to run as root, and needs no rights.
        return Plan((Command(("brew", "install", "ngspice", "libngspice")),))
    raise CannotProceed(
        "libngspice is missing, and this system is neither Debian, Ubuntu nor macOS with Homebrew:"
        " install ngspice >= 42 with its shared library (libngspice) and KLU, and run this again"
    )


def worth_installing(machine: Machine, library: Library) -> bool:
    """True where the package manager can better what is there.

    A library without KLU works, slowly; only Debian 12 is known to have a better one at hand.
    """
    if library.klu or not library.name:
        # The program itself runs the written netlists by hand.
        return not library.name or "ngspice" not in machine.tools
    return machine.release.get("VERSION_CODENAME") == "bookworm"


def _plan_apt(machine: Machine, *, ngspice: bool, venv: str | None) -> Plan:
    if not machine.root and "sudo" not in machine.tools:
        wanted = [*(NGSPICE_PACKAGES if ngspice else ()), *([venv] if venv else ())]
        raise CannotProceed(
            f"missing: {', '.join(wanted)}; installing needs root, and there is no sudo:"
            " as root, run once: python3 scripts/setup_machine.py"
        )
    update = Command(_as_root(machine, "apt-get", "update"))
    if not machine.targets:
        return Plan((update,), again=True)
    commands = [update]
    release: tuple[str, ...] = ()
    if ngspice and machine.release.get("VERSION_CODENAME") == "bookworm":
        # Debian 12's own ngspice, 39, has no KLU; its backports have a later one that has.
        known = any(target.codename == "bookworm-backports" for target in machine.targets)
        mirror = debian_mirror(machine.targets)
        if known or mirror:
            release = ("-t", "bookworm-backports")
        if mirror and not known:
            signed = f"[signed-by={DEBIAN_KEYRING}] " if machine.keyring else ""
            line = f"deb {signed}{mirror} bookworm-backports main\n"
            commands.insert(0, Command(_as_root(machine, "tee", BACKPORTS_LIST), line))
    install = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y")
    if ngspice:
        packages = ("--no-install-recommends", *release, *NGSPICE_PACKAGES)
        commands.append(Command(_as_root(machine, *install, *packages)))
    if venv:
        commands.append(Command(_as_root(machine, *install, venv)))
    return Plan(tuple(commands))


def debian_mirror(targets: tuple[Target, ...]) -> str | None:
    """The mirror this machine already takes Debian 12 from; not a medium, nor a third party."""
    for target in targets:
        debian = (target.codename, target.component, target.origin) == (
            "bookworm",
            "main",
            "Debian",
        )
        if debian and not target.site.startswith("cdrom:"):
            return target.site
    return None


def _as_root(machine: Machine, *argv: str) -> tuple[str, ...]:
    return argv if machine.root else ("sudo", *argv)


def find_library() -> Library:
    """The libngspice that loads here."""
    probe = Path(__file__).with_name("probe_ngspice.py")
    found = subprocess.run(
        [sys.executable, str(probe)], capture_output=True, text=True, timeout=60, check=False
    )
    try:
        answer = json.loads(found.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return Library("", "", False)
    return Library(answer["library"], answer["version"], answer["klu"])


def find_machine() -> Machine:
    """This machine."""
    tools = frozenset(name for name in TOOLS if shutil.which(name))
    release = Path("/etc/os-release")
    targets = ""
    if "apt-get" in tools:
        query = ["apt-get", "indextargets", "--format", TARGET_FORMAT]
        targets = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    return Machine(
        system=platform.system(),
        release=parse_release(release.read_text()) if release.is_file() else {},
        targets=parse_targets(targets),
        tools=tools,
        root=os.geteuid() == 0,
        keyring=Path(DEBIAN_KEYRING).is_file(),
    )


def missing_venv() -> str | None:
    """The package that brings what ``python -m venv`` lacks here, None where nothing is missing."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return None
    return f"python3.{sys.version_info.minor}-venv"


def run(commands: tuple[Command, ...]) -> None:
    """Run the commands, each shown first. Raises CannotProceed at the first that fails."""
    for command in commands:
        say(f"  + {command}")
        argv = list(command.argv)
        if argv[0] == "sudo" and not sys.stdin.isatty():
            argv.insert(1, "-n")  # nobody is there to type a password: fail, do not wait
        try:
            done = subprocess.run(argv, input=command.text, text=True, check=False)
        except OSError as error:
            raise CannotProceed(f"{command} cannot run: {error}") from error
        if done.returncode:
            raise CannotProceed(
                f"{command} ended with status {done.returncode}; its message is above."
                " Put that right and run this again"
            )


def say(text: str) -> None:
    print(f"setup: {text}" if not text.startswith(" ") else text, flush=True)


def install(*, dry_run: bool) -> None:
    """Bring what is missing. Raises CannotProceed where that cannot be done."""
    library, venv, machine = find_library(), missing_venv(), find_machine()
    ngspice = worth_installing(machine, library)
    if ngspice or venv:
        name = "ngspice" if library.klu else "ngspice with KLU"
        wanted = [*([name] if ngspice else []), *([venv] if venv else [])]
        say(f"found {library}; missing: {', '.join(wanted)}")
        try:
            _carry_out(machine, ngspice=ngspice, venv=venv, dry_run=dry_run)
        except CannotProceed as problem:
            if venv or not library.name:
                raise
            say(str(problem))
        if dry_run:
            return
    _judge(find_library())


def _carry_out(machine: Machine, *, ngspice: bool, venv: str | None, dry_run: bool) -> None:
    for _ in range(2):
        now = plan(machine, ngspice=ngspice, venv=venv)
        if dry_run:
            say("would run:")
            for command in now.commands:
                say(f"  + {command}")
            return
        say("running (sudo, where shown, may ask for your password):")
        run(now.commands)
        if not now.again:
            return
        machine = find_machine()
    raise CannotProceed("apt-get update brought no package list: check the network, apt's sources")


def _judge(library: Library) -> None:
    if not library.name:
        raise CannotProceed(
            "libngspice still does not load: install a shared libngspice >= 42, or name its path"
            " in NGSPICE_LIBRARY_PATH"
        )
    if not shutil.which("ngspice"):
        say("warning: no ngspice program on the path: written netlists cannot be run by hand")
    if library.klu:
        say(f"{library}: good")
    else:
        say(
            f"warning: {library} works, but arrays larger than about 32 x 32 will take minutes"
            " instead of seconds; a build >= 42 with KLU cures that"
        )


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Install ngspice with KLU, and Python's venv.")
    parser.add_argument("--dry-run", action="store_true", help="say what would be run")
    arguments = parser.parse_args()
    try:
        install(dry_run=arguments.dry_run)
    except CannotProceed as problem:
        print(f"setup: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
