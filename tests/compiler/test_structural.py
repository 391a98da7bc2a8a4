"""The structural model is the chip: same outputs, same noise, right derivatives."""

from __future__ import annotations

from collections.abc import Mapping as MappingType

import numpy as np
import pytest
import torch
from torch import nn

from spicenn.compiler import Design, Mapping, Tile
from spicenn.compiler.jacobian import flatten_outputs, linearise
from spicenn.compiler.pipeline import compile
from spicenn.compiler.probes import descent, draw_chip, probe_vectors, remaining_variance
from spicenn.compiler.structural import forward, tile_moments
from spicenn.compiler.structure import chip_structure, structure_variance
from spicenn.engines.laws import law_of
from spicenn.errors import InputError, SpicennWarning
from spicenn.kirchhoff.currents import effective_matrix
from spicenn.kirchhoff.laws import small_signal, with_parameters
from spicenn.technology import Technology


class TwoUses(nn.Module):
    """A grouped, padded convolution, and one linear map used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.shared = nn.Linear(16, 16)
        self.out = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.conv(x)).flatten(1)
        h = torch.tanh(self.shared(h))
        y: torch.Tensor = self.out(torch.tanh(self.shared(h)) + h)
        return y


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


CASES = {
    "plain": (mlp, (6,), Tile(), Mapping(), "bipolar"),
    "tiled": (mlp, (6,), Tile(4, 4), Mapping(bias="digital"), "bipolar"),
    "two-phase": (mlp, (6,), Tile(4, 8), Mapping(slices=2, cell_bits=3), "two-phase"),
    "offset": (mlp, (6,), Tile(), Mapping(bias="digital"), "offset"),
    "convolution": (TwoUses, (2, 4, 4), Tile(8, 16), Mapping(), "bipolar"),
}


CONVERTERS = {
    "periphery.adc.gain": 0.3,
    "periphery.adc.offset": 0.1,
    "periphery.dac.gain": 0.15,
    "periphery.dac.offset": 0.05,
}


def made(case: str, **mapping: int) -> tuple[Design, torch.Tensor]:
    model, shape, tile, choice, drive = CASES[case]
    torch.manual_seed(0)
    x = torch.rand(16, *shape) * 2 - 1
    technology = Technology.preset("rram-1r").replace(drive=drive)
    if mapping:
        choice = Mapping(
            slices=choice.slices, cell_bits=choice.cell_bits, bias=choice.bias, **mapping
        )
    design = compile(
        model(), x[:4], technology=technology, tile=tile, mapping=choice, calibration=x
    )
    return design, x[:7]


def weights_of(design: Design, chip: int) -> MappingType[str, torch.Tensor]:
    """The effective matrices of a manufactured chip, exactly."""
    technology = design.technology
    result = {}
    for name, g in design.sample(chip, seed=1).conductances().items():
        matrix = effective_matrix(
            g, r_wordline=technology.r_wordline, r_bitline=technology.r_bitline
        )
        difference = (matrix[:, 0::2] - matrix[:, 1::2]) / (technology.g_max - technology.g_min)
        result[name] = torch.as_tensor(difference)
    return result


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bits", [{}, {"input_bits": 6, "adc_bits": 8, "dac_bits": 2}])
def test_with_a_chips_matrices_it_is_the_chip(case: str, bits: dict[str, int]) -> None:
    design, x = made(case, **bits)
    quiet = design.with_technology(read_noise=0.0, bandwidth=0.0)
    expected = quiet.sample(3, seed=1).run(x, engine="nodal")
    (found,) = forward(quiet, tile_moments(quiet), weights_of(quiet, 3), [x])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bits", [{}, {"input_bits": 6, "adc_bits": 8, "dac_bits": 2}])
def test_with_a_chips_converters_as_well_it_is_the_chip(case: str, bits: dict[str, int]) -> None:
    design, x = made(case, **bits)
    quiet = design.with_technology({**CONVERTERS, "read_noise": 0.0, "bandwidth": 0.0})
    expected = quiet.sample(3, seed=1).run(x, engine="nodal")
    cells, converters = weights_of(quiet, 3), chip_structure(quiet, 3, 1)
    moments = tile_moments(quiet)
    (found,) = forward(quiet, moments, {**cells, **converters}, [x])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    (without,) = forward(quiet, moments, cells, [x])
    assert np.abs(without.numpy() - expected).max() > 1e-2


@pytest.mark.parametrize("converters", [{}, CONVERTERS], ids=["nominal", "converters"])
@pytest.mark.parametrize("case", CASES)
def test_its_noise_is_the_chips(case: str, converters: dict[str, float]) -> None:
    design, x = made(case)
    design = design.with_technology(converters)
    moments = tile_moments(design)
    reads = design.sample(3, seed=1).run(x, engine="nodal", trials=150).std(0)
    rng = np.random.default_rng(0)
    weights = {**weights_of(design, 3), **chip_structure(design, 3, 1)}
    drawn = np.stack(
        [forward(design, moments, weights, [x], noise=rng)[0].numpy() for _ in range(150)]
    ).std(0)
    stated = linearise(design, moments, weights, [x]).noise.diagonal(dim1=1, dim2=2).sqrt()
    # 21 ratios of standard deviations of 150 draws; the chip's own cells scatter by 10 %.
    assert 0.85 < float(np.mean(drawn / reads)) < 1.15
    assert 0.85 < float(np.mean(stated.numpy() / drawn)) < 1.15


@pytest.mark.parametrize("case", ["plain", "tiled", "convolution"])
def test_mean_and_spread_are_those_of_many_chips(case: str) -> None:
    design, _ = made(case)
    chips = [weights_of(design, chip) for chip in range(100)]
    errors, ratios = [], []
    for moment in tile_moments(design):
        drawn = torch.stack([chip[moment.tile.name] for chip in chips])
        errors.append(((drawn.mean(0) - moment.mean) / (moment.spread / 10)).flatten())
        ratios.append((drawn.std(0) / moment.spread).flatten())
    # At least 60 standard normals (mean of magnitudes 0.8 ± 0.08) and ratios of 1 ± 0.07 each.
    assert float(torch.cat(errors).abs().mean()) < 1.05
    assert 0.97 < float(torch.cat(ratios).mean()) < 1.03


@pytest.mark.parametrize("preset", ["pcm", "rram-sinh", "hfox-1t1r", "fefet"])
def test_mean_and_spread_are_those_of_many_chips_whatever_the_cell(preset: str) -> None:
    """Drift and transistors included, at 0 V where a cell is not linear, which is said."""
    torch.manual_seed(0)
    x = torch.rand(16, 12) * 2 - 1
    technology = Technology.preset(preset).replace(
        {"drift.time": 1e5, "r_wordline": 10.0, "r_bitline": 10.0}
    )
    design = compile(nn.Linear(12, 10), x, technology=technology)
    (tile,) = design.tiles
    wires = tile.crossbar.segments()
    law = law_of(tile.crossbar.cell, tile.name, technology.temperature)
    drawn = []
    for chip in range(100):
        cells = design.sample(chip, seed=1).cells(tile)
        g = small_signal(with_parameters(law, cells.parameters), cells.g)
        matrix = effective_matrix(g, r_wordline=wires[0], r_bitline=wires[1])
        drawn.append((matrix[:, 0::2] - matrix[:, 1::2]) / (technology.g_max - technology.g_min))
    if preset == "pcm":
        (moment,) = tile_moments(design)
    else:
        with pytest.warns(SpicennWarning, match=f"nonlinear in the cell {technology.cell.name!r}"):
            (moment,) = tile_moments(design)
    error = (np.mean(drawn, axis=0) - moment.mean.numpy()) / (moment.spread.numpy() / 10)
    # At least 120 standard normals (mean of magnitudes 0.8 ± 0.055) and ratios of 1 ± 0.07.
    assert np.abs(error).mean() < 1.0
    assert 0.97 < np.mean(np.std(drawn, axis=0) / moment.spread.numpy()) < 1.03


@pytest.mark.parametrize(
    ("converters", "wires"),
    [({}, 0.0), (CONVERTERS, 0.0), (CONVERTERS, 0.5)],
    ids=["nominal", "converters", "converters and wires"],
)
@pytest.mark.parametrize("case", CASES)
def test_derivatives_in_factors_are_the_jacobian(
    case: str, converters: dict[str, float], wires: float
) -> None:
    """Of strong wires too, so that what they change is no rounding error."""
    design, x = made(case)
    strong = {"r_wordline": 30.0, "r_bitline": 30.0} if wires else {}
    design = design.with_technology({**converters, **strong})
    moments = tile_moments(design, wires=bool(wires))
    rng = np.random.default_rng(0)
    weights = draw_chip(moments, rng, structure_variance(design, wires))
    linear = linearise(design, moments, weights, [x])

    names = list(weights)
    shapes = [weights[name].shape for name in names]

    def outputs(vector: torch.Tensor) -> torch.Tensor:
        parts = torch.split(vector, [shape.numel() for shape in shapes])
        given = {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return flatten_outputs(forward(design, moments, given, [x])).double().reshape(-1)

    start = torch.cat([weights[name].reshape(-1) for name in names])
    jacobian = torch.autograd.functional.jacobian(outputs, start)
    change = torch.as_tensor(rng.standard_normal(len(start)))
    variance = torch.as_tensor(rng.random(len(start)))

    def split(vector: torch.Tensor) -> dict[str, torch.Tensor]:
        parts = torch.split(vector, [shape.numel() for shape in shapes])
        return {n: p.reshape(s) for n, p, s in zip(names, parts, shapes, strict=True)}

    scale = float(jacobian.abs().max())

    def same(found: torch.Tensor, expected: torch.Tensor, unit: float = scale) -> None:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * unit)

    same(linear.apply(split(change)).reshape(-1), jacobian @ change)
    residual = torch.as_tensor(rng.standard_normal(tuple(linear.value.shape)))
    back = linear.adjoint(residual)
    expected = split(jacobian.T @ residual.reshape(-1))
    for name in names:
        same(back[name], expected[name])
    kernel = jacobian @ torch.diag(variance) @ jacobian.T
    same(linear.kernel(linear, split(variance)), kernel, scale**2)
    blocks = linear.blocks(split(variance))
    k = linear.value.shape[1]
    for index in range(len(x)):
        part = slice(index * k, (index + 1) * k)
        same(blocks[index], kernel[part, part], scale**2)
    columns = torch.as_tensor(rng.standard_normal((*linear.value.shape, 3)))
    spread = torch.cat(list(linear.spread_of(columns, split(variance)).values()))
    flat = columns.reshape(-1, 3)
    torch.testing.assert_close(spread.T @ spread, flat.T @ kernel @ flat, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("converters", "wires"),
    [({}, 0.0), (CONVERTERS, 0.0), ({}, 0.5)],
    ids=["nominal", "converters", "wires"],
)
@pytest.mark.parametrize("case", ["plain", "convolution"])
def test_descent_is_the_gradient_of_what_remains(
    case: str, converters: dict[str, float], wires: float
) -> None:
    design, x = made(case)
    design = design.with_technology(converters)
    moments = tile_moments(design, wires=bool(wires))
    structure = structure_variance(design, wires)
    weights = draw_chip(moments, np.random.default_rng(0), structure)
    variance = {moment.tile.name: moment.spread**2 for moment in moments} | structure
    targets = linearise(design, moments, weights, [x[4:]])
    probes = (0.9 * x[:4]).requires_grad_()
    seen = linearise(design, moments, weights, [probes], differentiable=True)
    left = remaining_variance(seen, targets, variance)
    (expected,) = torch.autograd.grad(left, probes, retain_graph=True)
    (found,) = torch.autograd.grad(descent(seen, targets, variance), probes)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_chosen_probes_tell_more_than_samples_do() -> None:
    design, _ = made("plain")
    like = np.random.default_rng(2).uniform(-1, 1, (80, 6)).astype(np.float32)
    chosen = probe_vectors(design, like, count=8, seed=1)
    assert (chosen.shape, chosen.dtype) == ((8, 6), np.float32)
    assert chosen.min() >= like.min()
    assert chosen.max() <= like.max()
    np.testing.assert_array_equal(chosen, design.probe_vectors(like, count=8, seed=1))
    assert not np.array_equal(chosen, probe_vectors(design, like, count=8, seed=2))

    drawn = probe_vectors(design, like, count=8, seed=1, steps=0)
    assert {row.tobytes() for row in drawn} <= {row.tobytes() for row in like}
    moments = tile_moments(design)
    weights = draw_chip(moments, np.random.default_rng(9))
    variance = {moment.tile.name: moment.spread**2 for moment in moments}
    targets = linearise(design, moments, weights, [torch.as_tensor(like[40:])])

    def left(probes: np.ndarray) -> float:
        seen = linearise(design, moments, weights, [torch.as_tensor(probes)])
        return float(remaining_variance(seen, targets, variance))

    assert left(chosen) < 0.8 * left(drawn)


def test_more_probes_than_samples_and_bad_counts() -> None:
    design, x = made("plain")
    assert len(probe_vectors(design, x[:3], count=7, seed=1, steps=0)) == 7
    for count in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="count"):
            probe_vectors(design, x, count=count, seed=1)  # type: ignore[arg-type]
    with pytest.raises(InputError):
        probe_vectors(design, x[:, :2], count=2, seed=1)
