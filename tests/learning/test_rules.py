"""Rules: their arithmetic, and that the subcircuits of ``netlists/`` do the same."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from spicenn.engines.ngspice.client import NgspiceEngine
from spicenn.errors import InputError
from spicenn.learning.rules import (
    CoupledLearning,
    Desynchronous,
    EquilibriumPropagation,
    Overclamping,
    Rule,
    describe,
)
from spicenn.technology.library import subcircuit_text

CLAMPS: list[Rule] = [
    CoupledLearning(eta=0.3),
    Overclamping(low=0.02, high=0.44),
    Overclamping(low=0.02, high=0.44, smoothing=1e-3, eta=1.0, full=0.02),
    Overclamping(low=-0.1, high=0.3, time=False, smoothing=1e-3),
    Overclamping(low=0.02, high=0.44, amplitude=False),
    Desynchronous(Overclamping(low=0.02, high=0.44, eta=0.5), 0.5),
]
# Both signs, none, below and above the comparator's smoothing and the duty's full error.
ERRORS = (-0.3, -0.05, -0.01, -5e-4, -2e-6, 0.0, 3e-6, 1e-3, 0.02, 0.049, 0.2)
FREE = 0.2


def instances(rule: Rule, second: str) -> list[str]:
    """Lines of the rule's clamp at every one of the errors."""
    clamp = rule.clamp()
    words = " ".join(f"{key}={float(value)!r}" for key, value in clamp.parameters.items())
    lines = subcircuit_text(clamp.subcircuit).splitlines()
    for k, error in enumerate(ERRORS):
        lines += [
            f"vf_{k} f_{k} 0 {FREE!r}",
            f"vl_{k} l_{k} 0 {FREE + error!r}",
            second.format(k=k),
            f"x_{k} f_{k} s_{k} l_{k} e_{k} {clamp.subcircuit} {words}",
        ]
    return lines


def run(engine: NgspiceEngine, lines: list[str], vectors: list[str]) -> NDArray[np.float64]:
    options = ".options reltol=1e-9 vntol=1e-12 abstol=1e-15"
    found = engine.run("\n".join(["* clamps", options, *lines, ".op", ".end"]), vectors)
    return np.array([found[name][-1] for name in vectors])


@pytest.mark.ngspice
@pytest.mark.parametrize("rule", CLAMPS, ids=str)
def test_a_clamps_circuit_is_its_arithmetic(engine: NgspiceEngine, rule: Rule) -> None:
    """Where the second network is held to 1 nV, and the duty to 1e-9."""
    lines = instances(rule, "rs_{k} s_{k} 0 1k")
    numbers = range(len(ERRORS))
    found = run(engine, lines, [f"v({node}_{k})" for node in "se" for k in numbers])
    second, duty = found.reshape(2, -1)
    free, label = np.full((len(ERRORS), 1), FREE), FREE + np.array(ERRORS)[:, None]
    np.testing.assert_allclose(second, rule.clamped(free, label)[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.minimum(duty, 1), rule.duty(free, label), rtol=0, atol=1e-9)


@pytest.mark.ngspice
@pytest.mark.parametrize("centred", [False, True])
def test_a_nudges_circuit_injects_its_currents(engine: NgspiceEngine, centred: bool) -> None:
    rule = EquilibriumPropagation(beta=3e-4, centred=centred)
    lines = instances(rule, "vs_{k} s_{k} 0 0.15")
    numbers = range(len(ERRORS))
    found = run(engine, lines, [f"i({v}_{k})" for v in ("vf", "vs") for k in numbers]).reshape(
        2, -1
    )
    label = FREE + np.array(ERRORS)
    first, second = rule.nudges
    assert (first, second) == ((-3e-4 if centred else 0.0), 3e-4)
    # A source's current is that into its positive end.
    np.testing.assert_allclose(found[0], first * (label - FREE), rtol=0, atol=1e-14)
    np.testing.assert_allclose(found[1], second * (label - 0.15), rtol=0, atol=1e-14)


@given(free=st.floats(0, 0.4), label=st.floats(0, 0.4), eta=st.floats(0.01, 1.0))
def test_coupled_learning_goes_a_part_of_the_way(free: float, label: float, eta: float) -> None:
    held = CoupledLearning(eta=eta).clamped(np.array([free]), np.array([label]))[0]
    assert held - free == pytest.approx(eta * (label - free), rel=1e-9, abs=1e-15)


@given(free=st.floats(0.05, 0.4), error=st.floats(-0.3, 0.3))
def test_overclamping_pulls_to_a_rail_by_sign_for_a_time_by_size(free: float, error: float) -> None:
    rule = Overclamping(low=0.0, high=0.45, eta=0.25, full=0.05)
    at = (np.array([free]), np.array([free + error]))
    sign = math.copysign(1.0, (free + error) - free)
    if abs(error) > 1e-4:  # ten times the smoothing
        rail = 0.45 if sign > 0 else 0.0
        assert rule.clamped(*at)[0] == pytest.approx(0.75 * free + 0.25 * rail, rel=1e-7)
    assert rule.duty(*at) == pytest.approx(min(abs(error) / 0.05, 1.0), rel=1e-9, abs=1e-14)


def test_each_half_of_overclamping_leaves_the_other_as_coupled_learning_has_it() -> None:
    free, label = np.array([0.2, 0.1]), np.array([0.21, 0.08])
    coupled = CoupledLearning(eta=0.25)
    whole = Overclamping(low=0.0, high=0.45)
    timed = Overclamping(low=0.0, high=0.45, amplitude=False)
    pulled = Overclamping(low=0.0, high=0.45, time=False)
    np.testing.assert_array_equal(timed.clamped(free, label), coupled.clamped(free, label))
    np.testing.assert_array_equal(pulled.clamped(free, label), whole.clamped(free, label))
    assert pulled.duty(free, label) == 1.0
    # The mean of errors of 10 and 20 mV, of 50 mV.
    assert timed.duty(free, label) == whole.duty(free, label) == pytest.approx(0.3, rel=1e-12)


def test_a_desynchronous_rule_is_its_rule_but_for_its_share() -> None:
    inner = EquilibriumPropagation(beta=1e-4, rate=3.0)
    rule = Desynchronous(inner, 0.25)
    assert (rule.rate, rule.nudges, rule.clamp()) == (3.0, inner.nudges, inner.clamp())
    assert (inner.share, rule.share) == (1.0, 0.25)
    assert describe(rule) == {**describe(inner), "share": 0.25}
    with pytest.raises(InputError, match="does not clamp"):
        rule.clamped(np.zeros(1), np.zeros(1))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CoupledLearning(eta=1.1), "eta"),
        (lambda: CoupledLearning(eta=0.0), "eta"),
        (lambda: CoupledLearning(rate=math.inf), "rate"),
        (lambda: CoupledLearning(eta=True), "eta"),
        (lambda: Overclamping(low=0.4, high=0.1), "rails"),
        (lambda: Overclamping(low=0.0, high=math.nan), "rails"),
        (lambda: Overclamping(low=0.0, high=0.4, smoothing=0.0), "smoothing"),
        (lambda: Overclamping(low=0.0, high=0.4, full=-1.0), "full"),
        (lambda: EquilibriumPropagation(beta=0.0), "beta"),
        (lambda: Desynchronous(CoupledLearning(), 0.0), "share"),
        (lambda: Desynchronous(CoupledLearning(), 1.5), "share"),
        (lambda: Desynchronous(Desynchronous(CoupledLearning(), 0.5), 0.5), "already"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
