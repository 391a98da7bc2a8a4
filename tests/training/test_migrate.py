"""A network goes to another chip with a gain and an offset per output, or is refused."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from spicenn.compiler import Chip, Design, Mapping, Tile
from spicenn.compiler.adapter import Adapter
from spicenn.compiler.execute import as_inputs, layer_results
from spicenn.compiler.pipeline import compile
from spicenn.engines.nodal import NodalEngine
from spicenn.errors import InputError, TrainingError
from spicenn.technology import Technology
from spicenn.training.columns import least_squares
from spicenn.training.migrate import calibrate_columns, ideal_results, migrate

# Columns off by 30 %, with an offset; cells off by 3 %.
COLUMNS = Technology.preset("ideal").replace(
    {
        "variation.programming_law": "lognormal",
        "programming_error": 0.03,
        "periphery.adc.gain": 0.3,
        "periphery.adc.offset": 0.1,
    }
)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))


def inputs(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 12)).astype(np.float32)


@cache
def design() -> Design:
    x = torch.as_tensor(inputs(50))
    return compile(
        network(), x[:2], technology=COLUMNS, mapping=Mapping(bias="digital"), calibration=x,
        tile=Tile(32, 32),
    )  # fmt: skip


def off(chip: Chip, expected: np.ndarray, x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(chip.run(x, engine="nodal") - expected))))


def test_a_chip_gives_what_another_gave() -> None:
    a, b = design().sample(chips=[0, 1], seed=3)
    found = migrate(None, a, b, probes=inputs(16, 2), engine="nodal")
    x = inputs(100, 4)
    expected = a.run(x, engine="nodal")
    assert found.success, found.reason
    assert "fell from" in found.reason
    assert found.chip.adapter is found.adapter is found.fitted
    assert found.probes == 16
    raw = off(b, expected, x)
    assert off(found.chip, expected, x) < 0.25 * raw
    # What it says of itself is what comes on new inputs, and what it says of the raw chip.
    assert found.heldout == pytest.approx(off(found.chip, expected, x), rel=0.5)
    assert found.raw == pytest.approx(raw, rel=0.2)
    assert found.heldout < min(found.common, found.constant)


def test_the_ideal_network_is_a_reference_as_well() -> None:
    b = design().sample(1, seed=3)
    found = migrate(None, None, b, probes=inputs(16, 2), engine="nodal")
    x = inputs(100, 4)
    expected = design().to_torch()(torch.as_tensor(x)).detach().numpy()
    assert found.success, found.reason
    assert off(found.chip, expected, x) < 0.3 * off(b, expected, x)


def test_a_model_goes_on_both_chips() -> None:
    a, b = design().sample(chips=[0, 1], seed=3)
    other = network(seed=5)
    found = migrate(other, a, b, probes=inputs(16, 2), engine="nodal", calibration=inputs(50))
    again = migrate(
        design().with_weights(other), a, b, probes=inputs(16, 2), engine="nodal",
        calibration=inputs(50),
    )  # fmt: skip
    assert found.success
    for layer, weights in zip(found.chip.design.layers, (other[0], other[2]), strict=True):  # type: ignore[index]
        np.testing.assert_array_equal(layer.weight[0], weights.weight.detach().numpy())
        np.testing.assert_allclose(
            found.adapter.gain[layer.name], again.adapter.gain[layer.name], rtol=1e-9
        )


def test_the_next_layer_is_read_with_corrected_inputs() -> None:
    a, b = design().sample(chips=[0, 1], seed=3)
    x = as_inputs(design(), inputs(16, 2))
    engine = NodalEngine()
    reference = layer_results(a, x, engine)
    found = calibrate_columns(b, x, reference, engine, fit=least_squares)
    first, second = reference
    # By hand: the first layer, then the second of a chip whose first is corrected.
    z = layer_results(b, x, engine)[first][0, :, 0]
    one = least_squares(z, reference[first][0, :, 0])
    half = Adapter(gain={first: one.gain}, offset={first: one.offset})
    z = layer_results(b.corrected(half), x, engine)[second][0, :, 0]
    two = least_squares(z, reference[second][0, :, 0])
    for name, columns in ((first, one), (second, two)):
        np.testing.assert_allclose(found.fitted.gain[name], columns.gain, rtol=1e-9)
        np.testing.assert_allclose(found.fitted.offset[name], columns.offset, rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("count", [4, 8, 32])
def test_what_belongs_to_other_probes_is_refused_and_harms(count: int) -> None:
    x = as_inputs(design(), inputs(count, 2))
    engine = NodalEngine()
    a = design().sample(0, seed=3)
    reference = layer_results(a, x, engine)
    shuffled = {name: np.roll(z, 1, axis=1) for name, z in reference.items()}
    test = inputs(100, 4)
    for index in range(1, 6):
        b = design().sample(index, seed=3)
        found = calibrate_columns(b, x, shuffled, engine)
        assert not found.success
        assert found.adapter.gain == {}
        np.testing.assert_array_equal(
            found.chip.run(test, engine="nodal"), b.run(test, engine="nodal")
        )


def test_chips_without_columns_of_their_own_are_left_alone() -> None:
    # No error at all: there is nothing to find, and what is found does nothing.
    same = design().with_technology(
        {"programming_error": 0.0, "periphery.adc.gain": 0.0, "periphery.adc.offset": 0.0},
        read_noise=0.05,
    )
    a, b = same.sample(chips=[0, 1], seed=3)
    found = migrate(None, a, b, probes=inputs(32, 2), engine="nodal")
    assert not found.success
    assert "no clear improvement" in found.reason


def test_more_trials_leave_less_noise() -> None:
    noisy = design().with_technology(read_noise=0.3)
    a, b = noisy.sample(chips=[0, 1], seed=3)
    quiet = [design().sample(k, seed=3) for k in (0, 1)]
    x = inputs(100, 4)
    expected = quiet[0].run(x, engine="nodal")
    errors = [
        off(
            quiet[1].corrected(
                migrate(None, a, b, probes=inputs(8, 2), engine="nodal", trials=t).fitted
            ),
            expected,
            x,
        )
        for t in (1, 50)
    ]
    assert errors[1] < errors[0]


def test_few_probes_are_allowed_and_none_are_not() -> None:
    a, b = design().sample(chips=[0, 1], seed=3)
    one = migrate(None, a, b, probes=inputs(1, 2), engine="nodal")
    assert not one.success
    assert "none to hold out" in one.reason
    assert np.isnan(one.heldout)
    for count in (2, 3):
        found = migrate(None, a, b, probes=inputs(count, 2), engine="nodal")
        assert found.heldout < found.raw
    with pytest.raises(InputError):
        migrate(None, a, b, probes=inputs(0, 2), engine="nodal")
    with pytest.raises(InputError, match="folds"):
        migrate(None, a, b, probes=inputs(8, 2), engine="nodal", folds=1)


def test_an_adapter_of_the_target_is_left_behind_and_the_sources_counts() -> None:
    a, b = design().sample(chips=[0, 1], seed=3)
    name = design().layers[-1].name
    other = Adapter(gain={name: np.full(5, 2.0)}, offset={name: np.zeros(5)})
    plain = migrate(None, a, b, probes=inputs(16, 2), engine="nodal")
    again = migrate(None, a, b.corrected(other), probes=inputs(16, 2), engine="nodal")
    np.testing.assert_array_equal(again.adapter.gain[name], plain.adapter.gain[name])
    double = migrate(None, a.corrected(other), b, probes=inputs(16, 2), engine="nodal")
    x = inputs(100, 4)
    twice = 2 * a.run(x, engine="nodal")
    assert off(double.chip, twice, x) < 0.25 * off(b, twice, x)


def test_a_convolution_has_a_gain_per_channel() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, 3))
    x = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    made = compile(
        model, x[:2], technology=COLUMNS, mapping=Mapping(bias="digital"), calibration=x,
        tile=Tile(64, 16),
    )  # fmt: skip
    a, b = made.sample(chips=[0, 1], seed=1)
    found = migrate(None, a, b, probes=x[:16], engine="nodal")
    assert found.success, found.reason
    assert [len(gain) for gain in found.adapter.gain.values()] == [4, 3]
    ideal = ideal_results(made, as_inputs(made, x[:4]))
    assert [z.shape for z in ideal.values()] == [(1, 4, 16, 4), (1, 4, 1, 3)]
    y = model(x[:4]).detach().numpy()
    np.testing.assert_allclose(list(ideal.values())[1][0, :, 0], y, rtol=1e-5, atol=1e-6)


def test_chips_of_different_networks_are_refused() -> None:
    a, b = design().sample(chips=[0, 1], seed=3)
    other = design().with_weights(network(seed=5)).sample(0, seed=3)
    with pytest.raises(TrainingError, match="different networks"):
        migrate(None, other, b, probes=inputs(8, 2), engine="nodal")
    measured = design().measured(a.conductances(), seed=3)
    with pytest.raises(TrainingError, match="measured"):
        migrate(network(), None, measured, probes=inputs(8, 2), engine="nodal")
    assert migrate(None, a, measured, probes=inputs(8, 2), engine="nodal").probes == 8


@pytest.mark.ngspice
def test_ngspice_finds_what_the_exact_engine_finds() -> None:
    a, b = design().sample(chips=[0, 1], seed=3)
    found = [migrate(None, a, b, probes=inputs(6, 2), engine=e) for e in ("ngspice", "nodal")]
    for name, gain in found[0].fitted.gain.items():
        np.testing.assert_allclose(gain, found[1].fitted.gain[name], rtol=1e-5)
