"""Builds the pinned environment in .venv with pip, and leaves a current one alone.

A stamp of what the environment was made from says whether it is current. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".venv"
STAMP = FOLDER / "spicenn-setup.txt"
SOURCES = ("pyproject.toml", "constraints.txt")
# Approximate sizes of the wheels, in MB, with the pins of constraints.txt.
REST_MB, TORCH_MB, CUDA_MB = 180, 190, 3000


class CannotProceed(Exception):
    """The environment cannot be built; the text says why and what to do."""


def fingerprint(sources: dict[str, bytes], folder: Path, python: tuple[int, int]) -> str:
    """What an environment depends on: what it is made from, by which Python, and where it lies."""
    digest = hashlib.sha256()
    for name in sorted(sources):
        digest.update(name.encode() + b"\0" + sources[name] + b"\0")
    # Scripts in an environment hold its absolute path.
    digest.update(f"{folder}\0{python[0]}.{python[1]}".encode())
    return digest.hexdigest()


def pinned(constraints: str, package: str) -> str:
    """The requirement ``package==version`` that the constraints hold."""
    for line in constraints.splitlines():
        requirement = line.split("#")[0].split(";")[0].strip()
        if requirement.startswith(f"{package}=="):
            return requirement
    raise CannotProceed(f"constraints.txt pins no {package}: add a line {package}==VERSION")


def torch_advice(version: str | None, system: str) -> str:
    """What installing torch will fetch.

    ``version`` is the one pip chose, empty where it is there already, None where unknown.
    """
    if version == "":
        return "torch: nothing, it is there already"
    name = f"torch {version}" if version else "torch"
    if version and "+cpu" in version:
        return f"{name}: a CPU build, about {TORCH_MB} MB"
    if system != "Linux":
        return f"{name}: about {TORCH_MB} MB"
    return (
        f"{name} with its CUDA libraries, about {CUDA_MB // 1000} GB, unless pip finds a CPU build,"
        f" about {TORCH_MB} MB. spicenn needs no CUDA: to have the CPU build, stop here and point"
        " pip at the index of CPU builds that PyTorch's installation page names: pip config set"
        " global.extra-index-url ADDRESS, or PIP_EXTRA_INDEX_URL=ADDRESS make setup"
    )


def chosen_torch(python: Path, requirement: str) -> str | None:
    """The version of torch that pip would fetch, as ``torch_advice`` takes it."""
    options = ["install", "--dry-run", "--no-deps", "--quiet", "--report", "-", requirement]
    answer = subprocess.run(
        [str(python), "-m", "pip", *options], capture_output=True, text=True, check=False
    )
    try:
        found = json.loads(answer.stdout)["install"]
        return str(found[0]["metadata"]["version"]) if found else ""
    except (ValueError, LookupError):
        return None


def build(fingerprint_now: str) -> None:
    """Create or complete .venv. Raises CannotProceed where a step fails."""
    stamped = STAMP.is_file()
    if FOLDER.exists() and not (FOLDER / "pyvenv.cfg").is_file():
        raise CannotProceed(f"{FOLDER} is not a virtual environment: move it away")
    say(f"building {FOLDER} with Python {platform.python_version()}")
    STAMP.unlink(missing_ok=True)
    python = FOLDER / "bin" / "python"
    # Emptied only where this script made it; somebody else's is completed, never removed.
    venv.EnvBuilder(with_pip=True, symlinks=True, clear=stamped and not _usable(python)).create(
        FOLDER
    )
    if not _usable(python):
        raise CannotProceed(
            f"{FOLDER} belongs to another Python than {sys.executable}: remove it and run this"
            " again"
        )
    # A recent one answers below from an index's metadata; Debian 12's would fetch the whole wheel.
    _pip(python, "--quiet", "pip")
    torch = pinned((ROOT / "constraints.txt").read_text(), "torch")
    say(f"to download, unless cached: about {REST_MB} MB of packages, and")
    say(torch_advice(chosen_torch(python, torch), platform.system()))
    # Alone and first: what follows then finds it there and looks for no other.
    _pip(python, torch)
    _pip(python, "hatchling", "editables")
    # Built with the pinned backend, not with one fetched for the occasion.
    _pip(python, "--no-build-isolation", "--editable", f"{ROOT}[dev]")
    STAMP.write_text(fingerprint_now + "\n")


def _pip(python: Path, *arguments: str) -> None:
    options = ["install", "--disable-pip-version-check", "--constraint", "constraints.txt"]
    # pip's own words, its configuration and its environment variables all apply.
    done = subprocess.run([str(python), "-m", "pip", *options, *arguments], cwd=ROOT, check=False)
    if done.returncode:
        raise CannotProceed(
            f"pip install {' '.join(arguments)} ended with status {done.returncode}; its message"
            " is above. Check network, proxy and pip's configuration, and run this again: what is"
            " installed is kept"
        )


def _usable(python: Path) -> bool:
    """True where the environment's interpreter runs and is of this Python's version."""
    ask = "import sys; print(*sys.version_info[:2], sys.prefix)"
    try:
        answer = subprocess.run(
            [str(python), "-c", ask], capture_output=True, text=True, check=False
        )
    except OSError:
        return False
    return answer.stdout.strip() == f"{sys.version_info.major} {sys.version_info.minor} {FOLDER}"


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description="Build the pinned environment in .venv.")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    arguments = parser.parse_args()
    version = sys.version_info
    sources = {name: (ROOT / name).read_bytes() for name in SOURCES}
    now = fingerprint(sources, FOLDER, (version.major, version.minor))
    if STAMP.is_file() and STAMP.read_text().strip() == now:
        say(f"{FOLDER}: current")
        return 0
    if arguments.dry_run:
        say(f"would build {FOLDER} from {' and '.join(SOURCES)}")
        return 0
    free = shutil.disk_usage(ROOT).free
    if free < 5e9:
        say(f"warning: {free / 1e9:.1f} GB free under {ROOT}; the environment takes 2 GB and more")
    try:
        build(now)
    except CannotProceed as problem:
        print(f"setup: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
