"""The environment's stamp, pins and words."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.setup_venv import ROOT, CannotProceed, fingerprint, pinned, torch_advice


def test_the_stamp_follows_everything_the_environment_depends_on() -> None:
    base = fingerprint({"a": b"1", "b": b"2"}, Path("/x/.venv"), (3, 11))
    assert base == fingerprint({"b": b"2", "a": b"1"}, Path("/x/.venv"), (3, 11))
    others = [
        fingerprint({"a": b"1", "b": b"3"}, Path("/x/.venv"), (3, 11)),
        fingerprint({"a": b"1", "b": b"2"}, Path("/y/.venv"), (3, 11)),
        fingerprint({"a": b"1", "b": b"2"}, Path("/x/.venv"), (3, 12)),
    ]
    assert len({base, *others}) == 4


def test_the_pin_is_found_whatever_surrounds_it() -> None:
    assert pinned("numpy==1\ntorch==2.13.0 # CPU or not\n", "torch") == "torch==2.13.0"
    with pytest.raises(CannotProceed, match="torch"):
        pinned("torchvision==1\n", "torch")


def test_the_checkouts_own_pins_hold_every_direct_dependency() -> None:
    import tomllib

    constraints = (ROOT / "constraints.txt").read_text()
    assert pinned(constraints, "torch") == "torch==2.13.0"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for requirement in wanted:
        assert pinned(constraints, requirement.split(">=")[0])


@pytest.mark.parametrize(
    ("version", "system", "word"),
    [
        ("2.13.0+cpu", "Linux", "CPU build"),
        ("2.13.0", "Linux", "extra-index-url"),
        (None, "Linux", "extra-index-url"),
        ("", "Linux", "already"),
        ("2.13.0", "Darwin", "torch 2.13.0: about"),
        (None, "Darwin", "torch: about"),
    ],
)
def test_the_download_is_stated(version: str | None, system: str, word: str) -> None:
    assert word in torch_advice(version, system)
