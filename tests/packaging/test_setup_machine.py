"""The set-up's decisions: what it runs on which machine, and what it says where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scripts.probe_ngspice import describe
from scripts.setup_machine import (
    BACKPORTS_LIST,
    CannotProceed,
    Library,
    Machine,
    Plan,
    Target,
    debian_mirror,
    parse_release,
    parse_targets,
    plan,
    worth_installing,
)

BOOKWORM = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
"""
NOBLE = 'ID=ubuntu\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\nID_LIKE=debian\n'

TARGETS = """http://mirror.test/debian|bookworm|main|Debian|Packages
http://mirror.test/debian|bookworm|main|Debian|Translations
http://mirror.test/debian|bookworm|main|Debian|Packages
http://security.test/debian|bookworm-security|main|Debian|Packages
"""
BACKPORTS = "http://mirror.test/debian|bookworm-backports|main|Debian Backports|Packages\n"

DEBIAN = Machine(
    system="Linux",
    release=parse_release(BOOKWORM),
    targets=parse_targets(TARGETS),
    tools=frozenset({"apt-get"}),
    root=True,
    keyring=True,
)
UBUNTU = replace(
    DEBIAN,
    release=parse_release(NOBLE),
    targets=(Target("http://mirror.test/ubuntu", "noble", "universe", "Ubuntu"),),
)
MAC = Machine("Darwin", {}, (), frozenset({"brew", "sudo"}), root=False, keyring=False)


def lines(made: Plan) -> list[str]:
    return [str(command) for command in made.commands]


def test_debian_12_takes_backports_from_its_own_mirror() -> None:
    made = plan(DEBIAN, ngspice=True, venv=None)
    enable, update, install = made.commands
    assert enable.argv == ("tee", BACKPORTS_LIST)
    assert enable.text == (
        "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        " http://mirror.test/debian bookworm-backports main\n"
    )
    assert update.argv == ("apt-get", "update")
    assert install.argv[-4:] == ("-t", "bookworm-backports", "ngspice", "libngspice0")
    assert "--no-install-recommends" in install.argv
    assert not made.again


def test_configured_backports_are_left_as_they_are() -> None:
    made = plan(
        replace(DEBIAN, targets=parse_targets(TARGETS + BACKPORTS)), ngspice=True, venv=None
    )
    assert not any(command.text for command in made.commands)
    assert "-t bookworm-backports" in lines(made)[-1]


def test_a_machine_that_never_read_its_lists_reads_them_first() -> None:
    made = plan(replace(DEBIAN, targets=()), ngspice=True, venv=None)
    assert lines(made) == ["apt-get update"]
    assert made.again


def test_the_mirror_is_debians_and_no_medium() -> None:
    foreign = Target("http://vendor.test/php", "bookworm", "main", "vendor")
    medium = Target("cdrom:[Debian 12]", "bookworm", "main", "Debian")
    assert debian_mirror((foreign, medium)) is None
    assert debian_mirror((foreign, medium, *DEBIAN.targets)) == "http://mirror.test/debian"
    # Without a mirror the main suite's ngspice is better than none.
    made = plan(replace(DEBIAN, targets=(foreign, medium)), ngspice=True, venv=None)
    assert "backports" not in " ".join(lines(made))


def test_ubuntu_takes_its_own() -> None:
    made = plan(UBUNTU, ngspice=True, venv=None)
    assert "backports" not in " ".join(lines(made))
    assert lines(made)[-1].endswith(
        "apt-get install -y --no-install-recommends ngspice libngspice0"
    )


def test_sudo_only_where_needed() -> None:
    user = replace(DEBIAN, root=False, tools=frozenset({"apt-get", "sudo"}))
    assert all(line.startswith("sudo ") for line in lines(plan(user, ngspice=True, venv="v")))
    assert not any("sudo" in line for line in lines(plan(DEBIAN, ngspice=True, venv="v")))
    assert not any("sudo" in line for line in lines(plan(MAC, ngspice=True, venv=None)))


def test_venv_alone_leaves_ngspice_and_backports_alone() -> None:
    made = plan(DEBIAN, ngspice=False, venv="python3.11-venv")
    assert lines(made)[-1].endswith("apt-get install -y python3.11-venv")
    assert not any("ngspice" in line or "backports" in line for line in lines(made))


def test_macos_uses_homebrew() -> None:
    assert lines(plan(MAC, ngspice=True, venv=None)) == ["brew install ngspice libngspice"]


@pytest.mark.parametrize(
    ("machine", "venv", "words"),
    [
        (replace(DEBIAN, root=False), None, ["libngspice0", "no sudo", "as root"]),
        (replace(MAC, tools=frozenset()), None, ["libngspice", "Homebrew"]),
        (replace(MAC, system="Linux", tools=frozenset()), None, ["libngspice", "KLU"]),
        (MAC, "python3.12-venv", ["ensurepip", "PYTHON="]),
    ],
)
def test_what_cannot_be_brought_is_named_with_a_remedy(
    machine: Machine, venv: str | None, words: list[str]
) -> None:
    with pytest.raises(CannotProceed) as caught:
        plan(machine, ngspice=True, venv=venv)
    for word in words:
        assert word in str(caught.value)


def test_only_a_known_better_library_is_worth_a_second_installation() -> None:
    none, old, good = Library("", "", False), Library("x", "39", False), Library("x", "46", True)
    assert worth_installing(DEBIAN, none)
    assert worth_installing(UBUNTU, none)
    assert worth_installing(DEBIAN, old)
    assert not worth_installing(UBUNTU, old)
    assert worth_installing(DEBIAN, good), "the library alone runs no written netlist"
    complete = replace(DEBIAN, tools=DEBIAN.tools | {"ngspice"})
    assert not worth_installing(complete, good)
    assert worth_installing(complete, old)


def test_the_banner_tells_version_and_solver() -> None:
    with_klu = (
        "** ngspice-46 : Circuit level simulation program\n** Compiled with KLU Direct Linear"
    )
    without = "** ngspice-39 : Circuit level simulation program"
    assert describe(with_klu) == {"version": "46", "klu": True}
    assert describe(without) == {"version": "39", "klu": False}
    assert describe("") == {"version": "", "klu": False}
