"""``spicenn doctor`` says what this machine's ngspice can do."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from spicenn.engines.ngspice import facts
from tests.cli.conftest import Shell


@pytest.mark.ngspice
@pytest.mark.parametrize("part", ["klu", "xspice", "osdi"])
def test_every_part_of_ngspice_is_said_to_be_there_or_not(
    spicenn: Shell, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    found = facts.ngspice_facts()
    for has, word in ((True, "yes"), (False, "no")):
        given = replace(found, **{part: has})  # type: ignore[arg-type]
        monkeypatch.setattr(facts, "ngspice_facts", lambda given=given: given)
        assert f"{part.upper()} {word}" in spicenn("doctor").stdout
        assert json.loads(spicenn("doctor", "--json").stdout)["ngspice"][part] is has
