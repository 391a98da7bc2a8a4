"""What has no mapping is refused, naming module and line; scales follow the data."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spicenn.compiler.ideal import ideal_differences, ideal_tiles
from spicenn.compiler.mapping import Mapping, Tile
from spicenn.compiler.pipeline import compile
from spicenn.errors import CompileError, InputError
from spicenn.technology import Technology

IDEAL = Technology.preset("ideal")
HERE = Path(__file__).name


class WithLayer(nn.Module):
    """What the models below share; each forward's last line is the one to be named."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)


class SignOfSum(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.fc(x) if x.sum() > 0 else -self.fc(x))


class FixedBatch(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return torch.relu(y.reshape(2, 3))


class Centred(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = x - x.mean(0)
        return torch.relu(self.fc(y))


class CentredAfter(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return torch.sub(y, y.mean(0))


class Inverse(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        matrix: Tensor = y[:, :, None] * y[:, None, :] + torch.eye(3)
        return torch.cholesky_inverse(matrix)


class Noisy(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.fc(x), training=True)


class NoisyAttention(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)[:, None]
        return functional.scaled_dot_product_attention(y, y, y, dropout_p=0.1)


class BatchedConstant(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return torch.einsum("bi,oij->bo", y, torch.ones(2, 3, 3))


class FirstSample(WithLayer):
    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x)
        return torch.select(y, 0, 0)


@pytest.mark.parametrize(
    ("inner", "fact"),
    [
        (SignOfSum, "depends on the data"),
        (FixedBatch, "one number of samples"),
        (Centred, "other samples"),
        (CentredAfter, "other samples"),
        (Inverse, "aten.cholesky_inverse"),
        (Noisy, "is not supported"),
        (NoisyAttention, "at random|dropout"),
        (BatchedConstant, "einsum"),
        (FirstSample, "sample axis"),
    ],
)
def test_refusal_names_module_and_line(inner: type[WithLayer], fact: str) -> None:
    model = nn.Sequential()
    model.add_module("encoder", nn.Sequential(inner()))
    lines, first = inspect.getsourcelines(inner)
    with pytest.raises(CompileError, match=fact) as caught:
        compile(model, torch.randn(2, 4), technology=IDEAL)
    assert "'encoder.0" in str(caught.value.where)
    assert str(caught.value.where).endswith(f"{HERE}:{first + len(lines) - 1}")
    assert caught.value.remedy


class Functional(nn.Module):
    """Linear algebra that crossbars do not do."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight)


@pytest.mark.parametrize(
    ("model", "shape", "fact"),
    [
        (nn.ConvTranspose2d(2, 3, 3), (2, 5, 5), "transposed convolution"),
        (nn.ConvTranspose1d(2, 3, 3), (2, 5), "transposed convolution"),
        (nn.Conv3d(2, 3, 3), (2, 5, 5, 5), "three axes"),
        (nn.LSTM(4, 3, batch_first=True), (5, 4), "aten.lstm"),
        (Functional(lambda x, w: functional.bilinear(x, x, w), 2, 4, 4), (4,), "bilinear"),
        (Functional(lambda x, w: x @ w, 3, 4, 2), (3, 5, 4), "constant of 3 axes"),
        (
            nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)),
            (4,),
            "batch_norm",
        ),
        (nn.ReLU(), (4,), "no linear map"),
    ],
)
def test_linear_algebra_without_a_mapping(
    model: nn.Module, shape: tuple[int, ...], fact: str
) -> None:
    with pytest.raises(CompileError, match=fact) as caught:
        compile(model, torch.randn(2, *shape), technology=IDEAL)
    assert caught.value.remedy


def test_state_and_constant_outputs_are_refused() -> None:
    class Counter(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            self.count.add_(1)
            y: Tensor = self.fc(x)
            return y

    with pytest.raises(CompileError, match="'count'"):
        compile(Counter(), torch.randn(2, 3), technology=IDEAL)

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.fc(x), self.fc.weight

    with pytest.raises(CompileError, match="does not depend on the inputs"):
        compile(Constant(), torch.randn(2, 3), technology=IDEAL)


def test_a_weight_that_is_not_finite_is_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    with torch.no_grad():
        next(model[1].parameters())[0, 0] = float("nan")
    with pytest.raises(CompileError, match=r"layer '1' holds NaN"):
        compile(model, torch.randn(2, 3), technology=IDEAL)


@pytest.mark.parametrize(
    ("example", "calibration", "fact"),
    [
        ("text", None, "holds a str"),
        (torch.randn(0, 3), None, "no sample axis"),
        (torch.full((2, 3), float("nan")), None, "NaN"),
        ((torch.randn(2, 3), torch.randn(3, 3)), None, "differ in their number"),
        (torch.randn(2, 3), torch.randn(2, 4), "not like the example"),
        (torch.randn(2, 3), torch.randn(2, 3).double(), "not like the example"),
        (torch.randn(2, 3), (torch.randn(2, 3),) * 2, "calibration has 2 inputs"),
    ],
)
def test_bad_examples(example: object, calibration: object, fact: str) -> None:
    with pytest.raises(InputError, match=fact):
        compile(nn.Linear(3, 2), example, technology=IDEAL, calibration=calibration)


class Locked(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 2)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("make", "error", "fact"),
    [
        (lambda: abs, InputError, "builtin_function"),
        (lambda: nn.Linear(3, 2, device="meta"), CompileError, "cannot be copied"),
        (lambda: nn.LazyLinear(2), CompileError, "cannot be copied"),
        (Locked, CompileError, "cannot be copied"),
        (lambda: nn.Linear(3, 2).double(), CompileError, "dtype"),
        (lambda: nn.Linear(4, 2), CompileError, "cannot be run"),
        (
            lambda: torch.export.export(nn.Linear(3, 2), (torch.ones(2, 3),)),
            CompileError,
            "one number of samples",
        ),
    ],
)
def test_models_that_cannot_be_used(
    make: Callable[[], nn.Module], error: type[Exception], fact: str
) -> None:
    with pytest.raises(error, match=fact):
        compile(make(), torch.ones(4, 3), technology=IDEAL)


def test_an_exported_program_compiles_like_its_model() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)
    shapes = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (x,), dynamic_shapes=shapes)
    a = compile(model, x, technology=IDEAL)
    b = compile(exported, x, technology=IDEAL)
    assert [layer.name for layer in b.layers] == [layer.name for layer in a.layers]
    for one, other in zip(a.layers, b.layers, strict=True):
        np.testing.assert_array_equal(one.weight, other.weight)


def test_a_tile_too_narrow_for_an_output_is_refused() -> None:
    mapping = Mapping(slices=3, cell_bits=2)
    with pytest.raises(InputError, match="bitlines"):
        compile(
            nn.Linear(3, 2),
            torch.randn(2, 3),
            technology=IDEAL,
            tile=Tile(bitlines=4),
            mapping=mapping,
        )


def test_input_scales_follow_the_calibration_data() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = np.linspace(-2.0, 3.0, 300, dtype=np.float32).reshape(100, 3)
    design = compile(model, x[:1], technology=IDEAL, calibration=x)
    first, second = design.layers
    assert first.signed
    assert not second.signed
    assert first.input_scale == 3.0
    assert first.weight_scale == float(np.abs(first.weight).max())
    partly = compile(
        model, x[:1], technology=IDEAL, calibration=x, mapping=Mapping(input_quantile=0.5)
    )
    assert partly.layers[0].input_scale == pytest.approx(np.quantile(np.abs(x), 0.5))
    assert len(design.example[0]) == 1


def test_scales_cover_all_uses_of_a_layer() -> None:
    linear = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        linear.weight.copy_(4.0 * torch.eye(3))
    (layer,) = compile(nn.Sequential(linear, linear), torch.ones(2, 3), technology=IDEAL).layers
    assert layer.input_scale == 4.0


def test_a_layer_that_sees_nothing_still_has_scales() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    design = compile(model, torch.zeros(2, 3), technology=IDEAL)
    assert design.layers[1].input_scale == 1.0
    assert design.layers[1].current_scale > 0.0


def test_a_bias_that_would_fill_tiles_is_refused() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.bias.fill_(1.0)
    tiny = torch.full((2, 3), 1e-6)
    with pytest.raises(CompileError, match="wordlines"):
        compile(model, tiny, technology=IDEAL)
    compile(model, tiny, technology=IDEAL, mapping=Mapping(bias="digital"))


@pytest.mark.parametrize("drive", ["bipolar", "offset", "two-phase"])
def test_converters_span_what_ideal_tiles_put_out(drive: str) -> None:
    torch.manual_seed(1)
    x = torch.randn(50, 7)
    mapping = Mapping(slices=2, cell_bits=2, input_bits=5, dac_bits=2)
    tile = Tile(wordlines=4, bitlines=8)
    technology = IDEAL.replace(drive=drive)
    design = compile(nn.Linear(7, 5), x, technology=technology, tile=tile, mapping=mapping)
    (layer,) = design.layers
    rows = x.double().numpy()[:, np.newaxis]
    tiles = ideal_tiles(layer, tile, mapping, technology)
    peaks = [
        np.abs(difference).max()
        for difference in ideal_differences(rows, layer, tiles, mapping, technology)
    ]
    assert len(peaks) > 1
    assert max(peaks) == layer.current_scale


def test_the_same_compilation_gives_the_same_hash() -> None:
    torch.manual_seed(3)
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(5, 3)
    first = compile(model, x, technology=IDEAL)
    assert compile(model, x, technology=IDEAL).hash == first.hash
    assert first.with_technology(r_wordline=1.0).hash != first.hash
    assert compile(model, x, technology=IDEAL, tile=Tile(4, 4)).hash != first.hash
    assert compile(model, 2 * x, technology=IDEAL).hash != first.hash
